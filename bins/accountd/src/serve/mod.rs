//! The interfaces of accountd, thin: decode, call, encode. One file an interface.

mod account;
mod admin;
mod append;
mod authenticator;
mod config;
pub(crate) mod doors;
mod inbound;
mod mailbox;
mod queue;
mod watched;
mod wire;
