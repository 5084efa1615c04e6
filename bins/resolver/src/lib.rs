//! The resolver's own code: one interface over the `dns` library.

#![forbid(unsafe_code)]

mod serve;

use dns::{Dns, Settings};
use ipc::{Acceptor, Limits, Role};
use std::rc::Rc;
use tokio::sync::mpsc;

/// What a resolver holds.
pub struct Grants {
    /// Where to ask, and whom to believe.
    pub settings: Settings,
    /// Clients, as the supervisor wires them.
    pub clients: mpsc::Receiver<Acceptor>,
}

/// Answers questions until no more clients can come.
///
/// # Errors
/// When there is no name server to ask.
pub async fn run(grants: Grants) -> Result<(), dns::BadSettings> {
    let dns = Rc::new(Dns::new(&grants.settings)?);
    let slots = Rc::new(serve::Slots::default());
    let bootstrap = move |role: Role, _| {
        ipc::edge(role, Role::Resolver)?;
        Some(serve::bootstrap(Rc::clone(&dns), Rc::clone(&slots)))
    };
    ipc::serve_clients(grants.clients, Limits::default(), bootstrap).await;
    Ok(())
}
