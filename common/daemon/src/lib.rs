//! What every process does alike: descriptors, logging, metrics, drain, stop.
//!
//! A process is `run(inherited)`; this crate is all around it: it takes over what the supervisor
//! gives, closes the sandbox, runs the event loop, answers heartbeats, renews the wiring and ends
//! in time. It also holds the words that supervisor, processes and moxctl share
//! ([`supervision`], [`orders`], [`figures`]).
//!
//! It is deliberately no framework: it knows no protocol and gives no process a right; those come
//! as descriptors from the supervisor.
//!
//! ```no_run
//! use daemon::Inherited;
//!
//! async fn run(inherited: Inherited) -> anyhow::Result<()> {
//!     let slice: config::slice::Resolver = inherited.slice()?;
//!     tracing::info!(servers = slice.servers.len(), "asks");
//!     inherited.stop.draining().await;
//!     Ok(())
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     daemon::start(&[ipc::Role::Resolver], |_| &sandbox::profiles::RESOLVER, run)
//! }
//! ```

#![forbid(unsafe_code)]

mod channel;
pub mod figures;
mod inherited;
mod logging;
pub mod orders;
mod pair_fault;
mod panics;
mod required;
mod start;
mod stop;
pub mod supervision;
mod workers;

pub use channel::{Channel, watch};
pub use figures::{Count, Figures, Time};
pub use inherited::{Inherited, Listener, PlannedEnd, Ready, Socket};
pub use logging::{LogLevel, init as init_logging};
pub use pair_fault::PairFault;
pub use required::{layer_bit, missing_layer};
pub use start::{BAD_FILE, BadFile, HEARTBEAT, process_name, start, start_prepared};
pub use stop::{Stop, Stopper};
pub use supervision::Report;
pub use workers::{Panicked, Worker, Workers};
