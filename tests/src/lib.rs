//! The test harness: the real tree in a folder of its own, small clients, and transcripts.
//!
//! Tests of the whole live in `tests/tests/`; what is here is what they share.

#![forbid(unsafe_code)]

pub mod client;
pub mod disk;
pub mod load;
pub mod real;
pub mod transcript;
pub mod tree;
pub mod wire;
