//! moxd

fn main() {}
