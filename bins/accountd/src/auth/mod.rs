//! Who somebody is: SASL, verifiers, keys, tickets, limits, and the end of sessions.

pub(crate) mod admin;
pub(crate) mod authority;
pub(crate) mod hashing;
pub(crate) mod history;
pub(crate) mod limiter;
pub(crate) mod live;
pub(crate) mod look_ups;
pub(crate) mod opaque;
mod passwords;
pub(crate) mod pepper;
pub(crate) mod records;
pub(crate) mod sasl;
pub(crate) mod scram;
mod sound;
pub(crate) mod ticket;
pub(crate) mod ticket_keys;
pub(crate) mod vault;
pub(crate) mod verifier;
