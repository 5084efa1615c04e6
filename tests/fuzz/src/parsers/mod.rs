//! Everything that reads octets of strangers, one function a target.

pub(crate) mod imap;
pub(crate) mod message;
pub(crate) mod others;
pub(crate) mod smtp;
