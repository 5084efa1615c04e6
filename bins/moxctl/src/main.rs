//! moxctl

fn main() {}
