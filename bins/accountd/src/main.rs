//! accountd

fn main() {}
