//! imapd front: TLS, greeting, log-in; then a relay.
//!
//! What a stranger can reach is in this process and nothing of anybody's mail is: after a log-in it
//! makes a socket pair, hands one end to the session instance that accountd named, and relays.

mod accountd;
mod hand_over;
mod login;
mod relay;
mod tls;

pub(crate) use hand_over::HandOver;

use crate::peer::{Peer, Tls};
use accountd::{Accountd, Announced, Entry};
use anyhow::Context as _;
use config::{limits, slice::ImapListener};
use daemon::Stop;
use ipc::Dialer;
use net::{Conn, Connections, Permit, TlsAcceptor};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::timeout,
};
use tokio_util::task::TaskTracker;
use types::{Clock, SessionId};

/// A short call to accountd.
const SHORT: Duration = Duration::from_secs(10);
/// One log-in: two password hashes may wait before it in accountd's waiting room.
const LOGIN: Duration = Duration::from_secs(30);
/// Octets read at a time, by whichever connection is ready: a buffer of the process.
const SCRATCH: usize = 32 * 1024;

/// What front holds.
pub struct Grants {
    /// Its listening sockets and what is spoken on them.
    pub listeners: Vec<(std::net::TcpListener, ImapListener)>,
    /// Limits of a connection.
    pub limits: limits::Imap,
    /// `FrontDoor`.
    pub accountd: Dialer,
    /// `TlsDoor` and signing slots.
    pub keyholder: Dialer,
    /// The session instances.
    pub sessions: BTreeMap<u16, Dialer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// When to end.
    pub stop: Stop,
}

/// What the connections share.
struct Shared {
    limits: limits::Imap,
    accountd: Accountd,
    sessions: BTreeMap<u16, Dialer>,
    stop: Stop,
    scratch: Rc<RefCell<Box<[u8]>>>,
}

/// A connection that was accepted.
struct Accepted {
    listener: Rc<ImapListener>,
    tls: TlsAcceptor,
    peer: SocketAddr,
    local: Option<IpAddr>,
}

/// What the connections of front share, whoever brings them.
pub struct Face {
    shared: Rc<Shared>,
    tls: tls::Acceptors,
}

impl Face {
    /// Makes it. `grants.listeners` are not touched.
    ///
    /// # Errors
    /// TLS options that cannot be.
    pub async fn new(grants: &Grants) -> anyhow::Result<Self> {
        let tls = tls::acceptors(grants.keyholder.clone(), &grants.clock).await?;
        let shared = Rc::new(Shared {
            accountd: Accountd::new(grants.accountd.clone()),
            sessions: grants.sessions.clone(),
            stop: grants.stop.clone(),
            scratch: Rc::new(RefCell::new(vec![0; SCRATCH].into_boxed_slice())),
            limits: grants.limits.clone(),
        });
        Ok(Self { shared, tls })
    }

    /// Serves a connection from `peer` to our address `local`. None: no such TLS options.
    pub fn serve<S>(
        &self,
        listener: &Rc<ImapListener>,
        stream: S,
        peer: SocketAddr,
        local: Option<IpAddr>,
    ) -> Option<impl Future<Output = ()> + use<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tls = self.tls.of(listener)?;
        let accepted = Accepted { listener: Rc::clone(listener), tls, peer, local };
        Some(connection(Rc::clone(&self.shared), accepted, stream))
    }
}

/// Serves its listeners until it is drained.
///
/// # Errors
/// When a listener fails.
pub async fn run(mut grants: Grants) -> anyhow::Result<()> {
    let listeners = std::mem::take(&mut grants.listeners);
    let face = Rc::new(Face::new(&grants).await?);
    let bound = usize::try_from(grants.limits.connections).unwrap_or(usize::MAX);
    let connections = Connections::at_most(bound);
    let relayed = TaskTracker::new();
    let mut loops = JoinSet::new();
    for (socket, listener) in listeners {
        let (face, connections) = (Rc::clone(&face), connections.clone());
        let listener = Rc::new(listener);
        let (stop, relayed) = (grants.stop.clone(), relayed.clone());
        loops.spawn_local(async move {
            let draining = async {
                stop.draining().await;
            };
            net::accept_loop(socket, &connections, draining, |stream, peer, permit: Permit| {
                let local = stream.local_addr().ok().map(|address| address.ip());
                let Some(connection) = face.serve(&listener, stream, peer, local) else { return };
                relayed.spawn_local(async move {
                    connection.await;
                    drop(permit);
                });
            })
            .await
        });
    }
    while let Some(ended) = loops.join_next().await {
        ended.context("accept loop")?.context("listener")?;
    }
    // A process without listeners has nothing to do, but ends when it is told.
    grants.stop.draining().await;
    // Each session says BYE between two commands. Who has not come so far is left at the deadline;
    // nobody waits for it longer than the last client takes.
    relayed.close();
    tokio::select! {
        () = relayed.wait() => {}
        () = grants.stop.over() => {}
    }
    Ok(())
}

/// What a connection begins with.
enum Start {
    Greet(Announced),
    TurnAway(&'static str),
}

/// What a client is told that is one too many.
const TOO_MANY: &str = "too many connections from your network";
/// What it is told whose network guessed too often.
const TOO_MANY_FAILED: &str = "too many failed log-ins from your network";
/// What it is told while there is nobody to ask.
const LATER: &str = "try again later";

async fn connection<S>(shared: Rc<Shared>, accepted: Accepted, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut id = [0; SessionId::OCTETS];
    if let Err(error) = getrandom::fill(&mut id) {
        tracing::error!(%error, "no random octets for a connection");
        return;
    }
    let mut peer = Peer {
        ip: accepted.peer.ip(),
        port: accepted.peer.port(),
        local_ip: accepted.local,
        session: SessionId::from_bytes(id),
        tls: Tls::default(),
        listener: accepted.listener.name.clone(),
        agent: String::new(),
    };
    tracing::debug!(session = %peer.session, client = %accepted.peer, "connected");
    // Counted before the handshake: a flood shall not cost signatures.
    let expected = if accepted.listener.implicit_tls { Tls::usual() } else { Tls::default() };
    let (entry, announced) = shared.accountd.enter(&peer, expected).await;
    let refused = match &entry {
        Entry::Pass(_) => None,
        Entry::Refused(why) => Some(*why),
    };
    let mut conn = Conn::Plain(stream);
    if accepted.listener.implicit_tls {
        if matches!(refused, Some(TOO_MANY | TOO_MANY_FAILED)) {
            return;
        }
        let Conn::Plain(stream) = conn else { return };
        match timeout(shared.limits.tls_handshake, accepted.tls.accept(stream)).await {
            Ok(Ok((stream, facts))) => {
                peer.tls = facts.into();
                conn = Conn::Tls(Box::new(stream));
            }
            Ok(Err(error)) => {
                tracing::debug!(session = %peer.session, %error, "no TLS");
                return;
            }
            Err(late) => {
                tracing::debug!(session = %peer.session, %late, "no TLS");
                return;
            }
        }
    }
    // Boxed, so that the many connections that are relayed do not hold the room for a log-in.
    let start = match refused {
        Some(why) => Start::TurnAway(why),
        None => Start::Greet(announced),
    };
    let handed = Box::pin(login::until_log_in(&shared, &accepted, &mut peer, conn, start)).await;
    if let Some(mut handed) = handed {
        let session = peer.session;
        drop(peer);
        if !relay::begun(&mut handed, relay::FIRST_WORD).await {
            tracing::warn!(%session, "a session instance does not answer");
            return;
        }
        let ended = relay::run(handed, &shared.scratch, shared.limits.write).await;
        tracing::debug!(%session, ?ended, "relay is over");
    }
    drop(entry);
}
