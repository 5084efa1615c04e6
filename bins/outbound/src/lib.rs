//! Delivering to other servers: one job is one message for recipients of one domain.

#![forbid(unsafe_code)]

pub mod authorities;
mod connect;
mod content;
mod dialogue;
mod job;
mod route;
mod serve;

pub use connect::{Connect, Connecting, Wire, tcp};

use ipc::{Acceptor, Dialer, Limits, Line, Role, schema::resolver_capnp::resolver};
use std::rc::Rc;
use tokio::sync::mpsc;

/// What outbound holds.
pub struct Grants {
    /// Connects to other servers.
    pub connect: Connect,
    /// TLS towards servers.
    pub tls: net::ClientTls,
    /// `Resolver`.
    pub resolver: Dialer,
    /// Clients, as the supervisor wires them.
    pub clients: mpsc::Receiver<Acceptor>,
}

/// What the jobs share.
pub(crate) struct Shared {
    pub(crate) connect: Connect,
    pub(crate) tls: net::ClientTls,
    pub(crate) resolver: Line<resolver::Client>,
}

/// The port of SMTP between servers.
pub const SMTP_PORT: u16 = 25;

/// Takes jobs until no more clients can come.
pub async fn run(grants: Grants) {
    let shared = Rc::new(Shared {
        connect: grants.connect,
        tls: grants.tls,
        resolver: Line::new(grants.resolver, Limits::default()),
    });
    let slots = Rc::new(serve::Slots::default());
    let bootstrap = move |role: Role, _| {
        ipc::edge(role, Role::Outbound)?;
        Some(serve::bootstrap(&shared, &slots))
    };
    ipc::serve_clients(grants.clients, Limits::default(), bootstrap).await;
}
