//! Types generated from `schema/*.capnp` by `cargo xtask schema`, and nothing else.

#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]

#[rustfmt::skip]
pub mod account_capnp;
#[rustfmt::skip]
pub mod accountd_capnp;
#[rustfmt::skip]
pub mod auth_capnp;
#[rustfmt::skip]
pub mod control_capnp;
#[rustfmt::skip]
pub mod imap_capnp;
#[rustfmt::skip]
pub mod inbound_capnp;
#[rustfmt::skip]
pub mod keyholder_capnp;
#[rustfmt::skip]
pub mod outbound_capnp;
#[rustfmt::skip]
pub mod parser_capnp;
#[rustfmt::skip]
pub mod queue_capnp;
#[rustfmt::skip]
pub mod resolver_capnp;
#[rustfmt::skip]
pub mod types_capnp;
