//! imapd

fn main() {}
