//! A client that speaks Cap'n Proto by hand.

mod fill;
pub(crate) mod frames;
pub(crate) mod lexicon;
pub(crate) mod peer;
pub(crate) mod play;
pub(crate) mod schema;
mod words;
