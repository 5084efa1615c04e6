//! The test harness: the real tree in a folder of its own, small clients, and transcripts.
//!
//! Tests of the whole live in `tests/tests/`; what is here is what they share.

#![forbid(unsafe_code)]

pub mod client;
pub mod transcript;
pub mod tree;
