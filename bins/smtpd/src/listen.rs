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
use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tokio_util::task::TaskTracker;
use types::SessionId;

/// What the sessions of one role share, whoever brings their connections.
pub struct Face {
    doors: Doors,
    services: Vec<Rc<Service>>,
    new_id: Rc<dyn Fn() -> Option<SessionId>>,
}

impl Face {
    /// Makes it, and begins to follow keyholder's certificates. `grants.listeners` are not touched.
    ///
    /// # Errors
    /// TLS options that cannot be.
    pub fn new(grants: &Grants) -> anyhow::Result<Self> {
        let table = Certificates::new();
        tokio::task::spawn_local(follow_certificates(grants.keyholder.clone(), table.clone()));
        let keyholder = grants.keyholder.clone();
        let slots = SigningSlots::new(move || {
            let keyholder = keyholder.clone();
            async move { keyholder.slot().await.map_err(|_| NoSlot) }
        });
        let accountd = grants.accountd.clone();
        let doors = match grants.role {
            Role::Mx => Doors::Mx(Line::new(accountd, Limits::SESSIONS)),
            Role::Submission => Doors::Submission(Line::new(accountd, Limits::SESSIONS)),
        };
        let services = grants.slice.listeners.iter().map(|listener| {
            let options = TlsOptions {
                client_certificates: listener.client_auth,
                only_tls_1_3: listener.only_tls_1_3,
                alpn: Vec::new(),
                clock: Arc::clone(&grants.clock),
            };
            anyhow::Ok(Rc::new(Service {
                name: listener.name.clone(),
                settings: Arc::new(settings(grants.role, listener, &grants.slice)),
                tls: TlsAcceptor::new(table.clone(), slots.clone(), options).context("TLS")?,
                certificates: table.clone(),
                write: grants.slice.limits.write,
                handshake: grants.slice.limits.tls_handshake,
                clock: Arc::clone(&grants.clock),
                figures: grants.figures,
                stop: grants.stop.clone(),
            }))
        });
        let services = services.collect::<anyhow::Result<_>>()?;
        Ok(Self { doors, services, new_id: Rc::clone(&grants.new_id) })
    }

    /// The service of a listener.
    #[must_use]
    pub fn service(&self, listener: &str) -> Option<Rc<Service>> {
        self.services.iter().find(|service| service.name == listener).cloned()
    }

    /// Serves a connection from `peer` to our address `local`. None: there is no name for it.
    pub fn serve<S>(
        &self,
        service: &Rc<Service>,
        stream: S,
        peer: SocketAddr,
        local: IpAddr,
    ) -> Option<impl Future<Output = ()> + use<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let id = (self.new_id)()?;
        let origin = Origin { peer: canonical(peer), local: local.to_canonical(), id };
        let store = Store::new(self.doors.clone(), origin, service);
        Some(serve_connection(stream, origin, Rc::clone(service), store))
    }
}

/// Serves until told to stop and the last session is over.
///
/// # Errors
/// A listener cannot be served.
pub async fn run(mut grants: Grants) -> anyhow::Result<()> {
    let listeners = std::mem::take(&mut grants.listeners);
    let face = Rc::new(Face::new(&grants)?);
    let connections = Connections::at_most(usize::try_from(grants.slice.limits.connections)?);
    let sessions = TaskTracker::new();
    let mut loops = JoinSet::new();
    for (name, socket) in listeners {
        let service = face.service(&name);
        let service = service.with_context(|| format!("listener {name} without service"))?;
        let (face, tracker) = (Rc::clone(&face), sessions.clone());
        let each = move |stream: TcpStream, peer: SocketAddr, permit| {
            let Ok(local) = stream.local_addr() else { return };
            let Some(session) = face.serve(&service, stream, peer, local.ip()) else { return };
            tracker.spawn_local(async move {
                session.await;
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
