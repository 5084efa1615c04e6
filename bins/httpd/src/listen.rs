//! From listeners to connections.

use crate::{
    Grants, Side,
    connection::{H2, HTTP_1_1, Service, serve},
    figures::AllFigures,
    names::Names,
    rate::Limiter,
    site::Site,
};
use net::{Connections, TlsAcceptor, TlsOptions, accept_loop};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};
use tokio::{sync::mpsc, task::JoinSet};

/// Why httpd cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A service has TLS, and there is no edge to keyholder.
    #[error("{0} needs TLS, but there is no keyholder to ask")]
    NoKeyholder(String),
    /// The TLS library refuses its configuration.
    #[error("TLS: {0}")]
    Tls(#[from] net::TlsSetupError),
}

/// Serves until told to stop and the last connection is over.
///
/// # Errors
/// [`StartError`].
pub async fn run(grants: Grants) -> Result<(), StartError> {
    let all_figures = AllFigures::default();
    if grants.side == Side::Admin {
        tokio::task::spawn_local(all_figures.clone().collect(grants.peer_figures));
    }
    let names = Names::default();
    // Owned here, as all connections are.
    let mut following = JoinSet::new();
    if let (Side::Web, Some(accountd)) = (grants.side, grants.accountd) {
        following.spawn_local(names.clone().follow(accountd));
    }
    let limits = &grants.slice.limits;
    let limiter = Limiter::new(limits.requests_per_minute, limits.requests_per_hour);
    let limiter = Rc::new(RefCell::new(limiter));
    let bound = usize::try_from(limits.connections).unwrap_or(usize::MAX);
    let connections = Connections::at_most(bound);

    // One set of ticket keys for the services that shake hands alike.
    let mut acceptors: BTreeMap<bool, TlsAcceptor> = BTreeMap::new();
    let mut services = BTreeMap::new();
    for listener in &grants.slice.listeners {
        let tls = if listener.tls {
            let only_tls_1_3 = listener.only_tls_1_3;
            let acceptor = match acceptors.get(&only_tls_1_3) {
                Some(acceptor) => acceptor.clone(),
                None => {
                    let missing = || StartError::NoKeyholder(listener.name.clone());
                    let keyholder = grants.keyholder.clone().ok_or_else(missing)?;
                    let options = TlsOptions {
                        // Browsers would bother people with it.
                        client_certificates: false,
                        only_tls_1_3,
                        alpn: vec![H2.to_vec(), HTTP_1_1.to_vec()],
                        clock: Arc::clone(&grants.clock),
                    };
                    let acceptor = TlsAcceptor::of_edge(keyholder, options)?;
                    acceptors.insert(only_tls_1_3, acceptor.clone());
                    acceptor
                }
            };
            Some(acceptor)
        } else {
            None
        };
        let service = Service {
            site: Site::new(grants.side, &grants.slice, listener, names.clone()),
            tls,
            limits: limits.clone(),
            limiter: Rc::clone(&limiter),
            all_figures: all_figures.clone(),
            figures: grants.figures,
            clock: Arc::clone(&grants.clock),
            stop: grants.stop.clone(),
        };
        services.insert(listener.name.clone(), Rc::new(service));
    }

    let (begun, mut to_serve) = mpsc::unbounded_channel();
    let mut loops = JoinSet::new();
    for (name, socket) in grants.listeners {
        let Some(service) = services.get(&name).map(Rc::clone) else {
            tracing::error!(name, "a socket of no service");
            continue;
        };
        let (connections, stop, begun) = (connections.clone(), grants.stop.clone(), begun.clone());
        loops.spawn_local(async move {
            let stop = async {
                stop.draining().await;
            };
            let ended = accept_loop(socket, &connections, stop, |stream, peer, permit| {
                let service = Rc::clone(&service);
                // Bounded by the permits: there are never more of them than connections.
                let _ = begun.send(async move {
                    serve(service, stream, peer.ip().to_canonical()).await;
                    drop(permit);
                });
            });
            if let Err(error) = ended.await {
                tracing::error!(name, %error, "a listener failed");
            }
        });
    }
    drop(begun);

    // Owned here: when this future is dropped, so are all connections.
    let mut open = JoinSet::new();
    let mut accepting = true;
    loop {
        tokio::select! {
            biased;
            Some(ended) = open.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection panicked");
                }
            }
            next = to_serve.recv(), if accepting => match next {
                Some(connection) => {
                    open.spawn_local(connection);
                }
                None => accepting = false,
            },
            else => return Ok(()),
        }
    }
}
