//! queue-runner

fn main() {}
