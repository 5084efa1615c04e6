//! parser

fn main() {}
