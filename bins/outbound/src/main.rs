//! outbound

fn main() {}
