//! DKIM canonicalisation and header blocks, as decisions on given facts.
//!
//! Pure: no socket, no file, no key. Whoever has the message canonicalises and hashes it here;
//! whoever has the key checks here that what it is asked to sign is DKIM and nothing else.

#![forbid(unsafe_code)]

pub mod dkim;
