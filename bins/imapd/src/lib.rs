//! The IMAP face: what moves octets between clients, the machines of `common/imap`, and accountd.

#![forbid(unsafe_code)]

mod grants;
mod peer;

pub mod front;
pub mod session;

pub use grants::run;
