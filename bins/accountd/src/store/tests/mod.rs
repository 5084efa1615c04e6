//! Tests of the store as a whole: over a disk that forgets, with a clock and a randomness that can be
//! repeated.

mod crash;
mod faults;
mod ledger;
mod operations;
mod pages;
mod texts;
mod threads;
mod upkeep;
mod world;
