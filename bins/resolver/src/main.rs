//! resolver

fn main() {}
