//! httpd

fn main() {}
