//! Delivering to other servers: one job is one message for recipients of one domain.

#![forbid(unsafe_code)]

pub mod authorities;
mod content;
mod dialogue;
mod job;
mod route;
mod serve;

use ipc::{Acceptor, Dialer, Limits, Line, Role, schema::resolver_capnp::resolver};
use std::{net::IpAddr, rc::Rc};
use tokio::sync::mpsc;

/// What outbound holds.
pub struct Grants {
    /// Addresses connections come from, at most one of a family.
    pub source: Vec<IpAddr>,
    /// TLS towards servers.
    pub tls: net::ClientTls,
    /// The port of other servers: 25, and another in tests.
    pub port: u16,
    /// `Resolver`.
    pub resolver: Dialer,
    /// Clients, as the supervisor wires them.
    pub clients: mpsc::Receiver<Acceptor>,
}

/// What the jobs share.
pub(crate) struct Shared {
    pub(crate) source: Vec<IpAddr>,
    pub(crate) tls: net::ClientTls,
    pub(crate) port: u16,
    pub(crate) resolver: Line<resolver::Client>,
}

/// The port of SMTP between servers.
pub const SMTP_PORT: u16 = 25;

/// Takes jobs until no more clients can come.
pub async fn run(grants: Grants) {
    let shared = Rc::new(Shared {
        source: grants.source,
        tls: grants.tls,
        port: grants.port,
        resolver: Line::new(grants.resolver, Limits::default()),
    });
    let slots = Rc::new(serve::Slots::default());
    let bootstrap = move |role: Role, _| {
        ipc::edge(role, Role::Outbound)?;
        Some(serve::bootstrap(&shared, &slots))
    };
    ipc::serve_clients(grants.clients, Limits::default(), bootstrap).await;
}
