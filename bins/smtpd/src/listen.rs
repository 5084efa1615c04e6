//! From the listeners to the sessions, and back to an orderly end.

use crate::{
    Grants,
    session::{Origin, Service, serve_connection},
    store::{Doors, Store},
};
use anyhow::Context as _;
use config::slice::{SmtpListener, Smtpd};
use ipc::{Limits, Line};
use net::{
    Certificates, Connections, NoSlot, SigningSlots, TlsAcceptor, TlsOptions, accept_loop,
    follow_certificates,
};
use smtp::server::{Role, Settings};
use std::{net::SocketAddr, rc::Rc, sync::Arc};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_util::task::TaskTracker;

/// Serves until told to stop and the last session is over.
///
/// # Errors
/// A listener cannot be served.
pub async fn run(grants: Grants) -> anyhow::Result<()> {
    let table = Certificates::new();
    tokio::task::spawn_local(follow_certificates(grants.keyholder.clone(), table.clone()));
    let keyholder = grants.keyholder.clone();
    let slots = SigningSlots::new(move || {
        let keyholder = keyholder.clone();
        async move { keyholder.slot().await.map_err(|_| NoSlot) }
    });
    let doors = match grants.role {
        Role::Mx => Doors::Mx(Line::new(grants.accountd.clone(), Limits::SESSIONS)),
        Role::Submission => Doors::Submission(Line::new(grants.accountd.clone(), Limits::SESSIONS)),
    };
    let connections = Connections::at_most(usize::try_from(grants.slice.limits.connections)?);
    let sessions = TaskTracker::new();
    let mut loops = JoinSet::new();
    for (name, socket) in grants.listeners {
        let listener = grants.slice.listeners.iter().find(|listener| listener.name == name);
        let listener = listener.with_context(|| format!("listener {name} without service"))?;
        let options = TlsOptions {
            client_certificates: listener.client_auth,
            only_tls_1_3: listener.only_tls_1_3,
            alpn: Vec::new(),
            clock: Arc::clone(&grants.clock),
        };
        let service = Rc::new(Service {
            name: name.clone(),
            settings: Arc::new(settings(grants.role, listener, &grants.slice)),
            tls: TlsAcceptor::new(table.clone(), slots.clone(), options).context("TLS")?,
            certificates: table.clone(),
            write: grants.slice.limits.write,
            handshake: grants.slice.limits.tls_handshake,
            clock: Arc::clone(&grants.clock),
            figures: grants.figures,
            stop: grants.stop.clone(),
        });
        let (doors, new_id, tracker) = (doors.clone(), Rc::clone(&grants.new_id), sessions.clone());
        let each = move |stream: TcpStream, peer: SocketAddr, permit| {
            let (Some(id), Ok(local)) = (new_id(), stream.local_addr()) else { return };
            let origin = Origin { peer: canonical(peer), local: canonical(local).ip(), id };
            let store = Store::new(doors.clone(), origin, &service);
            let service = Rc::clone(&service);
            tracker.spawn_local(async move {
                serve_connection(stream, origin, service, store).await;
                drop(permit);
            });
        };
        let (connections, stop) = (connections.clone(), grants.stop.clone());
        loops.spawn_local(async move {
            let until = async move {
                stop.draining().await;
            };
            accept_loop(socket, &connections, until, each).await.with_context(|| name)
        });
    }
    while let Some(ended) = loops.join_next().await {
        ended.context("accept loop")??;
    }
    // A process without listeners has nothing to do, but ends when it is told.
    grants.stop.draining().await;
    sessions.close();
    sessions.wait().await;
    Ok(())
}

/// IPv4 as IPv4, whatever kind of socket it came over.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn settings(role: Role, listener: &SmtpListener, slice: &Smtpd) -> Settings {
    let limits = &slice.limits;
    let mut settings = Settings::new(role, listener.hostname.clone());
    settings.implicit_tls = listener.implicit_tls;
    settings.starttls = listener.starttls;
    settings.require_tls = listener.require_tls;
    settings.requiretls = listener.requiretls;
    settings.max_size = listener.max_message_size;
    settings.limits.recipients = limits.recipients;
    settings.limits.command_line = usize::try_from(limits.command_line)
        .unwrap_or(smtp::Input::MAX_LINE)
        .min(smtp::Input::MAX_AUTH_LINE);
    settings.limits.received = limits.received_fields;
    settings.limits.failed_data = limits.bad_transactions;
    settings.limits.failed_logins = limits.failed_logins;
    settings.limits.idle = limits.idle;
    settings.limits.data = limits.data;
    settings.limits.session = limits.session;
    settings.limits.pacing = !slice.local;
    settings.pedantic = slice.pedantic;
    settings
}
