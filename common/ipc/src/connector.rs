//! Connectors: how a client of an edge gets connections from its server.
//!
//! The supervisor makes a connector (a SOCK_SEQPACKET pair) for each client and server of an edge
//! and is never in the data path. The client asks over it, and the *server* makes the connection's
//! socket pair and sends one end back: whoever makes a pair can keep a duplicate of the other end,
//! clear O_NONBLOCK on it and stall its reader (tried), so it has to be the side that more depends
//! on. The server knows its client by the connector, never by bytes.

use crate::{
    BuildId, Role,
    channel::{Channel, pair},
};
use rustix::net::SocketType;
use std::{
    cell::{Cell, RefCell},
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    rc::Rc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Mutex, Notify, mpsc, oneshot},
    time::timeout,
};

/// How long a client waits for a connection: a server that is away or busy for longer is a
/// temporary error upstairs.
pub(crate) const DIAL_DEADLINE: Duration = Duration::from_millis(900);

/// What a request at a connector looks like: kind, then our build id.
const REQUEST_OCTETS: usize = 17;
const KIND_RPC: u8 = 1;
const KIND_SLOT: u8 = 2;
const KIND_HAND_OVER: u8 = 3;

/// The first octet of an answer.
const ANSWER_OK: u8 = 1;
const ANSWER_OTHER_BUILD: u8 = 2;

/// The longest hand-over message; ipc-schema's `HandOver.maxBytes` and its framing.
const MAX_HAND_OVER: usize = 160 * 1024;

/// A bidirectional stream of octets to a peer process, or to a task of the simulated tree.
pub struct Stream {
    pub(crate) read: Box<dyn AsyncRead + Unpin>,
    pub(crate) write: Box<dyn AsyncWrite + Unpin>,
}

impl Stream {
    /// Any pair of halves.
    pub fn new(
        read: impl AsyncRead + Unpin + 'static,
        write: impl AsyncWrite + Unpin + 'static,
    ) -> Self {
        Self { read: Box::new(read), write: Box::new(write) }
    }

    /// The halves, for whoever stands between two ends and lets through what it likes, as the
    /// simulated tree does.
    #[must_use]
    pub fn into_halves(self) -> (Box<dyn AsyncRead + Unpin>, Box<dyn AsyncWrite + Unpin>) {
        (self.read, self.write)
    }

    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(fd);
        socket.set_nonblocking(true)?;
        Self::from_unix(tokio::net::UnixStream::from_std(socket)?)
    }

    /// A connected Unix socket, as moxctl's control connections are.
    ///
    /// # Errors
    /// None today; the signature leaves room for socket options.
    pub fn from_unix(socket: tokio::net::UnixStream) -> io::Result<Self> {
        let (read, write) = socket.into_split();
        Ok(Self::new(read, write))
    }
}

/// The server of an edge cannot be reached now. Always temporary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// It is being restarted, or did not answer in time.
    #[error("the process is not there at the moment")]
    Away,
    /// It is of another build: an upgrade is under way.
    #[error("the process is of another build")]
    OtherBuild,
    /// A call took longer than its deadline.
    #[error("no answer in time")]
    Late,
    /// The connection broke, or the peer is overloaded or broke its contract.
    #[error("the connection to the process broke")]
    Broken,
}

enum Way {
    Socket {
        channel: RefCell<Option<Rc<Channel>>>,
        renewed: Notify,
        // One request and its answer at a time, or answers could be swapped.
        turn: Mutex<()>,
    },
    Memory {
        requests: mpsc::Sender<MemoryRequest>,
    },
}

/// A request on an in-memory edge.
pub(crate) enum MemoryRequest {
    Rpc(oneshot::Sender<Stream>),
    HandOver(HandOver),
}

/// The client's end of an edge to one server process. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    way: Rc<Way>,
    generation: Rc<Cell<u64>>,
}

impl Dialer {
    /// An end without a connector yet: the supervisor gives the first one by [`Self::renew`].
    #[must_use]
    pub fn pending() -> Self {
        let way = Way::Socket {
            channel: RefCell::default(),
            renewed: Notify::new(),
            turn: Mutex::new(()),
        };
        Self { way: Rc::new(way), generation: Rc::default() }
    }

    /// From a connector.
    ///
    /// # Errors
    /// When the descriptor is no socket.
    pub fn from_connector(fd: OwnedFd) -> io::Result<Self> {
        let dialer = Self::pending();
        dialer.renew(fd)?;
        Ok(dialer)
    }

    pub(crate) fn in_memory(requests: mpsc::Sender<MemoryRequest>) -> Self {
        Self { way: Rc::new(Way::Memory { requests }), generation: Rc::default() }
    }

    /// Puts a new connector in place of the old one: the server was restarted.
    ///
    /// # Errors
    /// When the descriptor is no socket.
    pub fn renew(&self, fd: OwnedFd) -> io::Result<()> {
        if let Way::Socket { channel, renewed, .. } = &*self.way {
            *channel.borrow_mut() = Some(Rc::new(Channel::new(fd)?));
            self.generation.set(self.generation.get() + 1);
            renewed.notify_waiters();
        }
        Ok(())
    }

    /// Counts the connectors there have been: changes when the server was restarted.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// A new connection for calls.
    ///
    /// # Errors
    /// [`Unavailable`] when there is none within a second.
    pub async fn dial(&self) -> Result<Stream, Unavailable> {
        match &*self.way {
            Way::Socket { .. } => {
                let fd = self.request(KIND_RPC).await?;
                Stream::from_fd(fd).map_err(|_| Unavailable::Away)
            }
            Way::Memory { requests } => {
                let (answer, stream) = oneshot::channel();
                let asked = timeout(DIAL_DEADLINE, async {
                    requests.send(MemoryRequest::Rpc(answer)).await.ok()?;
                    stream.await.ok()
                });
                asked.await.ok().flatten().ok_or(Unavailable::Away)
            }
        }
    }

    /// A signing slot of keyholder: a SOCK_SEQPACKET socket for blocking use by one thread.
    ///
    /// # Errors
    /// [`Unavailable`] when there is none within a second, and always in memory.
    pub async fn slot(&self) -> Result<OwnedFd, Unavailable> {
        self.request(KIND_SLOT).await
    }

    /// Hands a connection over: `message` describes it, `fd` is it. There is no answer: what comes
    /// next, comes over the connection.
    ///
    /// # Errors
    /// [`Unavailable`] when it could not be sent within a second; the connection is then still the
    /// caller's.
    pub async fn hand_over(&self, message: &[u8], fd: &OwnedFd) -> Result<(), Unavailable> {
        use std::os::fd::AsFd as _;
        if message.len() > MAX_HAND_OVER {
            return Err(Unavailable::Broken);
        }
        if let Way::Memory { requests } = &*self.way {
            let fd = fd.try_clone().map_err(|_| Unavailable::Away)?;
            let over = HandOver { message: message.to_vec(), fd };
            let sent = requests.send(MemoryRequest::HandOver(over)).await;
            return sent.map_err(|_| Unavailable::Away);
        }
        let mut bytes = Vec::with_capacity(message.len() + REQUEST_OCTETS);
        bytes.push(KIND_HAND_OVER);
        bytes.extend_from_slice(&BuildId::OURS.to_bytes());
        bytes.extend_from_slice(message);
        let sent = timeout(DIAL_DEADLINE, async {
            let (channel, turn) = self.channel().await?;
            let _turn = turn.lock().await;
            channel.send(&bytes, Some(fd.as_fd())).await.map_err(|_| Unavailable::Away)
        });
        sent.await.unwrap_or(Err(Unavailable::Away))
    }

    async fn request(&self, kind: u8) -> Result<OwnedFd, Unavailable> {
        let mut bytes = [0; REQUEST_OCTETS];
        bytes[0] = kind;
        bytes[1..].copy_from_slice(&BuildId::OURS.to_bytes());
        let asked = timeout(DIAL_DEADLINE, async {
            loop {
                let generation = self.generation();
                let (channel, turn) = self.channel().await?;
                let _turn = turn.lock().await;
                if let Some(answer) = ask(&channel, &bytes).await {
                    return answer;
                }
                // The server is gone, its connector with it. The supervisor brings another.
                if self.generation() == generation {
                    self.forget(&channel);
                }
            }
        });
        asked.await.unwrap_or(Err(Unavailable::Away))
    }

    /// Waits for a connector.
    async fn channel(&self) -> Result<(Rc<Channel>, &Mutex<()>), Unavailable> {
        let Way::Socket { channel, renewed, turn } = &*self.way else {
            return Err(Unavailable::Away);
        };
        loop {
            // Registered before the look, so that a renewal between the two is not missed.
            let next = renewed.notified();
            let now = channel.borrow().clone();
            match now {
                Some(channel) => return Ok((channel, turn)),
                None => next.await,
            }
        }
    }

    fn forget(&self, dead: &Rc<Channel>) {
        if let Way::Socket { channel, .. } = &*self.way {
            let mut slot = channel.borrow_mut();
            if slot.as_ref().is_some_and(|now| Rc::ptr_eq(now, dead)) {
                *slot = None;
            }
        }
    }
}

/// One request and its answer; `None` when the connector is dead.
async fn ask(channel: &Channel, bytes: &[u8]) -> Option<Result<OwnedFd, Unavailable>> {
    channel.send(bytes, None).await.ok()?;
    let (answer, fd) = channel.receive(REQUEST_OCTETS).await.ok()?;
    match (answer.first(), fd) {
        (Some(&ANSWER_OK), Some(fd)) => Some(Ok(fd)),
        (Some(&ANSWER_OTHER_BUILD), _) => Some(Err(Unavailable::OtherBuild)),
        _ => None,
    }
}

/// A connection that came with a description.
#[derive(Debug)]
pub struct HandOver {
    /// What the sender says of it; an `imap_capnp::hand_over` message.
    pub message: Vec<u8>,
    /// The connection.
    pub fd: OwnedFd,
}

/// What a client asked for.
pub enum Incoming {
    /// A connection for calls: give it to [`crate::serve`].
    Rpc(Stream),
    /// A signing slot.
    Slot(OwnedFd),
    /// A connection to take over.
    HandOver(HandOver),
}

enum Source {
    Socket(Channel),
    Memory(mpsc::Receiver<MemoryRequest>),
}

/// The server's end of an edge to one client process.
pub struct Acceptor {
    client: Role,
    instance: u16,
    source: Source,
}

impl Acceptor {
    /// From a connector of a client.
    ///
    /// # Errors
    /// When the descriptor is no socket.
    pub fn from_connector(client: Role, instance: u16, fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { client, instance, source: Source::Socket(Channel::new(fd)?) })
    }

    pub(crate) fn in_memory(
        client: Role,
        instance: u16,
        requests: mpsc::Receiver<MemoryRequest>,
    ) -> Self {
        Self { client, instance, source: Source::Memory(requests) }
    }

    /// Who is at the other end: what the supervisor says, not what the client says.
    #[must_use]
    pub fn client(&self) -> (Role, u16) {
        (self.client, self.instance)
    }

    /// What the client asks for next; `None` when it is gone (or broke the protocol, which is the
    /// same to us).
    pub async fn accept(&mut self) -> Option<Incoming> {
        let channel = match &mut self.source {
            Source::Memory(requests) => return accept_in_memory(requests).await,
            Source::Socket(channel) => channel,
        };
        loop {
            let (bytes, fd) = channel.receive(MAX_HAND_OVER + REQUEST_OCTETS).await.ok()?;
            let (head, message) = bytes.split_at_checked(REQUEST_OCTETS)?;
            let (&kind, build) = head.split_first()?;
            if build != BuildId::OURS.to_bytes() {
                tracing::warn!(client = %self.client, "a peer of another build was refused");
                channel.send(&[ANSWER_OTHER_BUILD], None).await.ok()?;
                continue;
            }
            match (kind, fd) {
                (KIND_RPC, None) if message.is_empty() => {
                    let ours = grant(channel, SocketType::STREAM).await?;
                    return Stream::from_fd(ours).ok().map(Incoming::Rpc);
                }
                (KIND_SLOT, None) if message.is_empty() => {
                    let ours = grant(channel, SocketType::SEQPACKET).await?;
                    return Some(Incoming::Slot(ours));
                }
                (KIND_HAND_OVER, Some(fd)) => {
                    return Some(Incoming::HandOver(HandOver { message: message.to_vec(), fd }));
                }
                _ => {
                    tracing::warn!(client = %self.client, "nonsense on a connector");
                    return None;
                }
            }
        }
    }
}

/// Makes a pair, sends one end away and keeps the other.
async fn grant(channel: &Channel, kind: SocketType) -> Option<OwnedFd> {
    use std::os::fd::AsFd as _;
    let (ours, theirs) = match pair(kind) {
        Ok(pair) => pair,
        Err(error) => {
            tracing::error!(%error, "no socket pair for a peer");
            return None;
        }
    };
    // A client that never reads its answers must not hold us for ever; its connector then ends.
    timeout(DIAL_DEADLINE, channel.send(&[ANSWER_OK], Some(theirs.as_fd()))).await.ok()?.ok()?;
    Some(ours)
}

async fn accept_in_memory(requests: &mut mpsc::Receiver<MemoryRequest>) -> Option<Incoming> {
    loop {
        let answer = match requests.recv().await? {
            MemoryRequest::Rpc(answer) => answer,
            MemoryRequest::HandOver(over) => return Some(Incoming::HandOver(over)),
        };
        let (ours, theirs) = tokio::io::duplex(crate::memory::BUFFER);
        let stream = |end| {
            let (read, write) = tokio::io::split(end);
            Stream::new(read, write)
        };
        if answer.send(stream(theirs)).is_ok() {
            return Some(Incoming::Rpc(stream(ours)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector() -> (Dialer, Acceptor) {
        let (client, server) = pair(SocketType::SEQPACKET).unwrap();
        (
            Dialer::from_connector(client).unwrap(),
            Acceptor::from_connector(Role::SmtpdMx, 0, server).unwrap(),
        )
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_client_is_given_connections_and_slots() {
        let (dialer, mut acceptor) = connector();
        let (dialled, accepted) = tokio::join!(dialer.dial(), acceptor.accept());
        assert!(dialled.is_ok());
        assert!(matches!(accepted, Some(Incoming::Rpc(_))));
        let (slot, accepted) = tokio::join!(dialer.slot(), acceptor.accept());
        let (slot, Some(Incoming::Slot(ours))) = (slot.unwrap(), accepted) else {
            panic!("no slot");
        };
        rustix::io::write(&slot, b"x").unwrap();
        assert_eq!(rustix::io::read(&ours, &mut [0u8; 8]).unwrap(), 1);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_dead_server_is_waited_for_and_then_given_up() {
        let (dialer, acceptor) = connector();
        drop(acceptor);
        assert_eq!(dialer.dial().await.err(), Some(Unavailable::Away));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_server_in_memory_that_takes_nobody_is_given_up() {
        let (dialer, acceptor) = crate::memory_edge(Role::SmtpdMx, 0);
        assert_eq!(dialer.dial().await.err(), Some(Unavailable::Away));
        drop(acceptor);
        assert_eq!(dialer.dial().await.err(), Some(Unavailable::Away));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_renewed_connector_serves_a_dial_that_was_waiting() {
        let (dialer, acceptor) = connector();
        drop(acceptor);
        let (client, server) = pair(SocketType::SEQPACKET).unwrap();
        let mut acceptor = Acceptor::from_connector(Role::SmtpdMx, 0, server).unwrap();
        let renew = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            dialer.renew(client).unwrap();
            acceptor.accept().await
        };
        let (dialled, accepted) = tokio::join!(dialer.dial(), renew);
        assert!(dialled.is_ok() && accepted.is_some());
        assert_eq!(dialer.generation(), 2);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn another_build_is_refused_and_the_connector_lives_on() {
        let (client, server) = pair(SocketType::SEQPACKET).unwrap();
        let mut acceptor = Acceptor::from_connector(Role::SmtpdMx, 0, server).unwrap();
        let channel = Channel::new(client).unwrap();
        let mut request = [9u8; REQUEST_OCTETS];
        request[0] = KIND_RPC;
        let other = async {
            let refused = ask(&channel, &request).await;
            assert_eq!(refused.unwrap().err(), Some(Unavailable::OtherBuild));
            request[1..].copy_from_slice(&BuildId::OURS.to_bytes());
            ask(&channel, &request).await
        };
        let (answer, accepted) = tokio::join!(other, acceptor.accept());
        assert!(answer.unwrap().is_ok() && accepted.is_some());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nonsense_ends_the_connector() {
        for bytes in [&b""[..], b"x", &[0xff; 17], &[1; 4000]] {
            let (client, server) = pair(SocketType::SEQPACKET).unwrap();
            let mut acceptor = Acceptor::from_connector(Role::SmtpdMx, 0, server).unwrap();
            let channel = Channel::new(client).unwrap();
            channel.send(bytes, None).await.unwrap();
            drop(channel);
            assert!(acceptor.accept().await.is_none());
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_connection_is_handed_over_with_its_words() {
        let (dialer, mut acceptor) = connector();
        let (ours, theirs) = pair(SocketType::STREAM).unwrap();
        dialer.hand_over(b"words", &theirs).await.unwrap();
        let Some(Incoming::HandOver(handed)) = acceptor.accept().await else {
            panic!("nothing came over");
        };
        assert_eq!(handed.message, b"words");
        rustix::io::write(&handed.fd, b"hi").unwrap();
        assert_eq!(rustix::io::read(&ours, &mut [0u8; 8]).unwrap(), 2);
        assert!(dialer.hand_over(&vec![0; MAX_HAND_OVER + 1], &theirs).await.is_err());
    }
}
