//! Serving every client that the supervisor wires to a process.

use crate::{Acceptor, Ended, Incoming, Limits, Role, serve};
use std::rc::Rc;
use tokio::{sync::mpsc, task::JoinSet};

/// Connections one client process may have open on an edge: one a line, and some to spare for a
/// restart that overlaps.
const MAX_CONNECTIONS: usize = 16;

/// Serves calls of every client that comes over `clients`, until no more can come. `bootstrap`
/// makes what a client finds, by its role and instance; `None` refuses it.
pub async fn serve_clients(
    mut clients: mpsc::Receiver<Acceptor>,
    limits: Limits,
    bootstrap: impl Fn(Role, u16) -> Option<capnp::capability::Client> + 'static,
) {
    let bootstrap = Rc::new(bootstrap);
    while let Some(acceptor) = clients.recv().await {
        let bootstrap = Rc::clone(&bootstrap);
        tokio::task::spawn_local(serve_client(acceptor, limits, bootstrap));
    }
}

async fn serve_client(
    mut acceptor: Acceptor,
    limits: Limits,
    bootstrap: Rc<impl Fn(Role, u16) -> Option<capnp::capability::Client> + 'static>,
) {
    let (role, instance) = acceptor.client();
    // Dropping the set ends the connections: a client whose connector is gone was replaced.
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            biased;
            Some(ended) = connections.join_next() => {
                note(role, instance, ended);
                continue;
            }
            incoming = acceptor.accept() => incoming,
        };
        match incoming {
            Some(Incoming::Rpc(stream)) if connections.len() < MAX_CONNECTIONS => {
                let Some(object) = bootstrap(role, instance) else {
                    tracing::error!(client = %role, "a client without a right to be here");
                    return;
                };
                connections.spawn_local(serve(stream, object, limits));
            }
            Some(Incoming::Rpc(_)) => {
                tracing::warn!(client = %role, instance, "too many connections of one client");
            }
            Some(Incoming::Slot(_) | Incoming::HandOver(_)) => {
                tracing::warn!(client = %role, instance, "asked for what this edge does not carry");
                return;
            }
            None => return,
        }
    }
}

fn note(role: Role, instance: u16, ended: Result<Ended, tokio::task::JoinError>) {
    match ended {
        Ok(Ended::Closed) => {}
        Ok(Ended::Refused(offence)) => {
            tracing::warn!(client = %role, instance, %offence, "a connection was ended");
        }
        Ok(Ended::Broken(error)) => {
            tracing::warn!(client = %role, instance, error, "a client broke the protocol");
        }
        Err(error) => tracing::error!(client = %role, instance, %error, "a connection panicked"),
    }
}
