//! DKIM canonicalisation and header blocks, whose a message says that it is, and what others than its
//! author may put on top of it: as decisions on given facts.
//!
//! Pure: no socket, no file, no key. Whoever has the message canonicalises and hashes it here;
//! whoever has the key checks here that what it is asked to sign is DKIM and nothing else. What
//! decides a right takes only what everybody reads alike.

#![forbid(unsafe_code)]

pub mod author;
pub mod dkim;
pub mod forged;
pub mod trace;
