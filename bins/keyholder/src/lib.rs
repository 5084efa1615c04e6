//! The keyholder's own code: keys on disk, the shapes that are signed, the interfaces offered.

#![forbid(unsafe_code)]

mod accountd;
mod certificates;
mod control;
mod dkim;
mod door;
mod edge;
mod folder;
mod key;
mod pepper;
mod rate;
mod shape;
mod slot;

pub use certificates::{GivenFiles, check};
pub use control::Control;
pub use folder::FolderError;

use crate::{
    accountd::Keys, certificates::Identities, dkim::DkimKeys, door::Door, edge::Edges,
    folder::Folder, pepper::Pepper,
};
use aws_lc_rs::{
    error::Unspecified,
    rand::{SecureRandom as _, SystemRandom},
};
use ipc::{Acceptor, Incoming, Limits, Role, capnp};
use std::{path::PathBuf, rc::Rc, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet};
use types::Clock;

/// Connections one client may have open: one a line, and some to spare for a restart that overlaps.
const MAX_CONNECTIONS: usize = 16;
/// How often self-signed certificates are looked at.
const RENEWAL: Duration = Duration::from_secs(24 * 60 * 60);

/// What keyholder holds.
pub struct Grants {
    /// Its part of mox.toml.
    pub slice: config::slice::Keyholder,
    /// `keys/`.
    pub folder: PathBuf,
    /// Certificates of the administrator, opened by the supervisor.
    pub files: GivenFiles,
    /// For moxctl.
    pub control: Option<Control>,
    /// Clients, as the supervisor wires them.
    pub clients: mpsc::Receiver<Acceptor>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Its figures.
    pub figures: daemon::Figures,
    /// Where it signs and makes keys.
    pub workers: daemon::Workers,
}

/// Why keyholder cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its folder cannot be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// No randomness, or a broken crypto library.
    #[error("the crypto library failed")]
    Crypto(#[from] Unspecified),
}

/// Draws random numbers once. The first time the crypto library opens a device that the sandbox
/// does not know, so this comes before it closes.
///
/// # Errors
/// When there are none, and so no keys either.
pub fn draw_first_random() -> Result<(), Unspecified> {
    SystemRandom::new().fill(&mut [0; 32])
}

/// Serves signatures until no more clients can come.
///
/// # Errors
/// [`StartError`].
pub async fn run(mut grants: Grants) -> Result<(), StartError> {
    let folder = Rc::new(Folder::open(grants.folder)?);
    let pepper = Pepper::open(&folder)?;
    let pepper_alarm = pepper.alarm(&folder)?;
    let dkim = DkimKeys::load(Rc::clone(&folder), Arc::clone(&grants.clock), grants.workers)?;
    let now = grants.clock.now();
    let identities = Identities::load(&grants.slice, &grants.files, &folder, now)?;
    let limits = grants.slice.limits.clone();
    let edges = Edges::new(limits, Arc::clone(&grants.clock), grants.figures, grants.workers);
    let server = Rc::new(Server {
        slice: grants.slice,
        files: grants.files,
        folder,
        clock: grants.clock,
        door: Door::new(identities),
        edges,
        keys: Keys::new(pepper, dkim),
        pepper_alarm,
    });
    // Whoever drops this future drops all of it: clients, edges, slots.
    let mut tasks = JoinSet::new();
    tasks.spawn_local(renew(Rc::clone(&server)));
    if let Some(control) = grants.control {
        tasks.spawn_local(control::serve(Rc::clone(&server), control));
    }
    loop {
        tokio::select! {
            biased;
            Some(_ended) = tasks.join_next() => {}
            acceptor = grants.clients.recv() => match acceptor {
                Some(acceptor) => {
                    tasks.spawn_local(serve_client(Rc::clone(&server), acceptor));
                }
                None => return Ok(()),
            },
        }
    }
}

struct Server {
    slice: config::slice::Keyholder,
    files: GivenFiles,
    folder: Rc<Folder>,
    clock: Arc<dyn Clock>,
    door: Door,
    edges: Edges,
    keys: Keys,
    pepper_alarm: Option<&'static str>,
}

/// Renews what is self-signed before it ends.
async fn renew(server: Rc<Server>) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        let now = server.clock.now();
        match Identities::load(&server.slice, &server.files, &server.folder, now) {
            Ok(identities) => {
                server.door.replace(identities);
                for role in server.edges.roles() {
                    server.edges.replace_keys(role, server.door.keys_of(role));
                }
            }
            Err(error) => tracing::error!(%error, "certificates cannot be renewed"),
        }
    }
}

/// One client process, over its connector.
async fn serve_client(server: Rc<Server>, mut acceptor: Acceptor) {
    let (role, instance) = acceptor.client();
    if ipc::edge(role, Role::Keyholder).is_none() {
        tracing::error!(client = %role, "a client without a right to be here");
        return;
    }
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            biased;
            Some(ended) = connections.join_next() => {
                tracing::debug!(client = %role, instance, ?ended, "a connection ended");
                continue;
            }
            incoming = acceptor.accept() => incoming,
        };
        match incoming {
            Some(Incoming::Rpc(stream)) if connections.len() < MAX_CONNECTIONS => {
                let Some(object) = server.bootstrap(role) else { return };
                connections.spawn_local(ipc::serve(stream, object, Limits::SHORT_CALLS));
            }
            Some(Incoming::Rpc(_)) => {
                tracing::warn!(client = %role, instance, "too many connections of one client");
            }
            Some(Incoming::Slot(slot)) if speaks_tls(role) => {
                let keys = server.door.keys_of(role);
                if let Err(error) = server.edges.serve_slot(role, slot, keys) {
                    tracing::warn!(client = %role, %error, "a signing slot was not served");
                }
            }
            Some(Incoming::Slot(_) | Incoming::HandOver(_)) => {
                tracing::warn!(client = %role, instance, "asked for what this edge does not carry");
                return;
            }
            None => return,
        }
    }
}

fn speaks_tls(role: Role) -> bool {
    ipc::edge(role, Role::Keyholder)
        .is_some_and(|edge| edge.carries == ipc::Carries::RpcAndSigningSlots)
}

impl Server {
    /// What a client of this role finds.
    fn bootstrap(&self, role: Role) -> Option<capnp::capability::Client> {
        match role {
            Role::Accountd => {
                Some(self.keys.for_accountd(self.edges.clone(), self.slice.hostname.clone()))
            }
            Role::QueueRunner => {
                Some(self.keys.for_host(self.edges.clone(), self.slice.hostname.clone()))
            }
            Role::SmtpdMx
            | Role::SmtpdSubmission
            | Role::ImapdFront
            | Role::HttpdWeb
            | Role::HttpdAdmin => Some(self.door.client(role)),
            Role::Resolver
            | Role::Keyholder
            | Role::Parser
            | Role::Outbound
            | Role::ImapdSession => None,
        }
    }
}
