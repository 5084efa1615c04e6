//! Types generated from `schema/*.capnp` by `cargo xtask schema`, and nothing else.

#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]

pub mod account_capnp;
pub mod accountd_capnp;
pub mod auth_capnp;
pub mod control_capnp;
pub mod imap_capnp;
pub mod inbound_capnp;
pub mod keyholder_capnp;
pub mod outbound_capnp;
pub mod parser_capnp;
pub mod queue_capnp;
pub mod resolver_capnp;
pub mod types_capnp;
