//! The harness.

#![forbid(unsafe_code)]

pub mod transcript;
