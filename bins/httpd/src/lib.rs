//! httpd's own code: listeners, connections, what is answered where.

#![forbid(unsafe_code)]

mod answer;
mod connection;
mod figures;
mod listen;
mod names;
mod page;
mod rate;
mod site;

pub use listen::{StartError, run};
pub use site::forwarded_for;

use ipc::{Dialer, Role};
use std::{net::TcpListener, sync::Arc};
use tokio::sync::mpsc;
use types::Clock;

/// Whom it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Users and strangers.
    Web,
    /// Administrators.
    Admin,
}

/// What httpd holds.
pub struct Grants {
    /// Its role.
    pub side: Side,
    /// Its part of mox.toml.
    pub slice: config::slice::Httpd,
    /// Its sockets, each with the name of its service.
    pub listeners: Vec<(String, TcpListener)>,
    /// Where TLS is signed; needed when a service has TLS.
    pub keyholder: Option<Dialer>,
    /// Who says which names mail programs are told (web).
    pub accountd: Option<Dialer>,
    /// Other processes' figures (admin).
    pub peer_figures: mpsc::Receiver<(Role, u16, sandbox::figures::Figures)>,
    /// Its own figures.
    pub figures: daemon::Figures,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// When to end.
    pub stop: daemon::Stop,
}
