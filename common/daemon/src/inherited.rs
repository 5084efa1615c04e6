//! What a process is given: the only things it starts with, all from the supervisor.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::File,
    net::TcpListener,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    rc::Rc,
};

use ipc::{Acceptor, Dialer, Role};
use tokio::sync::{mpsc, oneshot};

use crate::{Figures, Stop};

/// Everything a process may use.
pub struct Inherited {
    /// What it is.
    pub role: Role,
    /// Which of its role, from 0.
    pub instance: u16,
    /// Its slice of `mox.toml`: JSON of the struct of `config::slice` named after its binary.
    pub slice: Vec<u8>,
    /// Its listening sockets.
    pub listeners: Vec<Listener>,
    /// Files opened for it, such as `tls/public/cert`.
    pub files: Vec<(String, File)>,
    /// One dialer for every process it may ask, whether that runs at the moment or not; the
    /// supervisor renews them.
    pub dialers: BTreeMap<(Role, u16), Dialer>,
    /// Its clients' ends, those there are and those that come with a client's (re)start. Who the
    /// client is, [`Acceptor::client`] says.
    pub acceptors: mpsc::Receiver<Acceptor>,
    /// Its own figures.
    pub figures: Figures,
    /// Other processes' figures, read only: httpd admin alone gets any.
    pub peer_figures: mpsc::Receiver<(Role, u16, sandbox::figures::Figures)>,
    /// Its own folder (vaults).
    pub own_folder: Option<PathBuf>,
    /// Folders it may read (httpd web).
    pub read_only_folders: Vec<PathBuf>,
    /// When to end.
    pub stop: Stop,
    /// Says to the supervisor that clients may be sent here. It says so by itself when `run` waits
    /// for the first time, unless `run` has called [`Ready::defer`] before.
    pub ready: Ready,
    /// Announces an end that is no fault.
    pub planned_end: PlannedEnd,
}

impl Inherited {
    /// The slice as its type.
    ///
    /// # Errors
    /// It is not of this type: the supervisor is of another build.
    pub fn slice<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.slice)
    }

    /// The dialer to the only process of a role.
    #[must_use]
    pub fn dialer(&self, server: Role) -> Option<Dialer> {
        self.dialers.get(&(server, 0)).cloned()
    }

    /// Takes the listener of this name out.
    pub fn take_listener(&mut self, name: &str) -> Option<Socket> {
        let at = self.listeners.iter().position(|listener| listener.name == name)?;
        Some(self.listeners.remove(at).socket)
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    /// `LISTENER/KIND/IP:PORT`, such as `public/imaps/[::1]:993`; or `control`.
    pub name: String,
    /// Non-blocking, ready for tokio's `from_std`.
    pub socket: Socket,
}

impl Listener {
    /// The service it belongs to, `LISTENER/KIND`: the `name` in the slice.
    #[must_use]
    pub fn service(&self) -> &str {
        self.name.rsplit_once('/').map_or(self.name.as_str(), |(service, _)| service)
    }

    pub(crate) fn new(name: String, descriptor: OwnedFd) -> std::io::Result<Self> {
        sandbox::channel::set_nonblocking(&descriptor, true)?;
        let unix = sandbox::channel::is_unix_stream(descriptor.as_fd())?;
        let socket = if unix {
            Socket::Unix(UnixListener::from(descriptor))
        } else {
            Socket::Tcp(TcpListener::from(descriptor))
        };
        Ok(Self { name, socket })
    }
}

/// Of either family.
#[derive(Debug)]
pub enum Socket {
    /// For clients on the network.
    Tcp(TcpListener),
    /// For moxctl.
    Unix(UnixListener),
}

/// Announces a planned end (parser, after its share of work).
#[derive(Clone)]
pub struct PlannedEnd(pub(crate) mpsc::Sender<ToSend>);

/// A report, and whom to tell when it has been sent.
pub(crate) type ToSend = (crate::Report, Option<oneshot::Sender<()>>);

impl PlannedEnd {
    /// Says it, and returns when it is said; the process then returns from `run`. The supervisor
    /// starts the next one at once.
    pub async fn announce(&self) {
        let (sent, is_sent) = oneshot::channel();
        // A supervisor that is gone needs no announcement.
        if self.0.send((crate::Report::PlannedEnd, Some(sent))).await.is_ok() {
            let _ = is_sent.await;
        }
    }
}

/// Says once that the process serves.
#[derive(Clone)]
pub struct Ready {
    layers: u32,
    reports: mpsc::Sender<ToSend>,
    deferred: Rc<Cell<bool>>,
    said: Rc<Cell<bool>>,
}

impl Ready {
    pub(crate) fn new(layers: u32, reports: mpsc::Sender<ToSend>) -> Self {
        Self { layers, reports, deferred: Rc::default(), said: Rc::default() }
    }

    /// The process will announce it itself, when it has opened what it serves.
    pub fn defer(&self) {
        self.deferred.set(true);
    }

    pub(crate) fn is_deferred(&self) -> bool {
        self.deferred.get()
    }

    /// Says it.
    pub fn announce(&self) {
        // The queue is empty at the start, and a supervisor that is gone needs no announcement.
        if !self.said.replace(true) {
            let _ = self.reports.try_send((crate::Report::Ready(self.layers), None));
        }
    }
}
