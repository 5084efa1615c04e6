//! Hostile input: fuzz targets, and hostile peers on every edge.
//!
//! Each target is a plain function over octets ([`TARGETS`]), so that the kept corpora in
//! `tests/corpus/TARGET/` are replayed by an ordinary test, and the same functions run under libFuzzer
//! (`cargo xtask fuzz`). Targets of parsers assert more than the absence of panics: any split into
//! chunks gives the same, what was printed is what was read, and outputs are bounded. Targets of
//! edges turn octets into conversations with the real servers ([`mod@house`]).

#![forbid(unsafe_code)]
// What fails here, fails a test.
#![allow(missing_docs, clippy::wildcard_enum_match_arm, reason = "a test")]

pub mod attack;
mod edges;
pub mod house;
pub mod login;
mod parsers;
pub mod source;
mod targets;
mod wire;

pub use edges::house;
pub use targets::{TARGETS, Target};
pub use wire::{
    lexicon::Lexicon,
    peer::{Connector, Peer},
};
