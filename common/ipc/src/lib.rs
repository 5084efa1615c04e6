//! Edges between processes: the wiring table, connectors, and the bounded Cap'n Proto network.
//!
//! A process that asks another holds a [`Dialer`] for that edge, a process that answers holds an
//! [`Acceptor`]; both come from the supervisor (or, in tests, from [`memory_edge`]). What travels
//! over a connection is Cap'n Proto, behind a guard that bounds what a hostile peer can make us
//! hold ([`Limits`]); which objects a peer can reach is decided by the bootstrap capability alone.
//!
//! This crate is deliberately no second RPC layer: calls are made on the generated types.
//!
//! ```no_run
//! # async fn example(dialer: ipc::Dialer) -> Result<(), Box<dyn std::error::Error>> {
//! use ipc::{Line, schema::resolver_capnp::resolver};
//! let line: Line<resolver::Client> = Line::new(dialer, ipc::Limits::default());
//! let mut request = line.client().await?.lookup_request();
//! request.get().set_name("example.org");
//! let _permit = line.permit().await;
//! let answer = ipc::within(std::time::Duration::from_secs(5), request.send().promise).await?;
//! # drop(answer); Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod build_id;
mod channel;
mod clients;
mod connector;
mod gather;
mod guard;
mod ledger;
mod line;
mod memory;
mod serve;
mod wiring;

pub use build_id::BuildId;
pub use clients::serve_clients;
pub use connector::{Acceptor, Dialer, HandOver, Incoming, Stream, Unavailable};
pub use guard::{Limits, Offence};
pub use line::{Line, Permit, within};
pub use memory::memory_edge;
pub use serve::{Ended, connect, is_gone, serve};
pub use wiring::{Carries, Edge, Role, UnknownRole, WIRING, edge};

/// The generated types, one module a schema file.
pub use ipc_schema as schema;

/// Cap'n Proto itself, for the traits that generated code needs.
pub use capnp;
/// Turns a client back into the server object behind it, where we made both.
pub use capnp_rpc::CapabilityServerSet;
/// Makes a client of a server object; of capnp-rpc, which only this crate links.
pub use capnp_rpc::new_client;
