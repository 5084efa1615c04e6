//! keyholder

fn main() {}
