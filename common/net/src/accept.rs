//! Accepting connections: a bound of open ones, and no spinning when descriptors run out.

use rustix::io::Errno;
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// The first pause after accept(2) failed for want of descriptors or memory; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How many connections a process holds open at once, over all listeners that share it.
#[derive(Debug, Clone)]
pub struct Connections {
    free: Arc<Semaphore>,
    bound: usize,
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _place: OwnedSemaphorePermit,
}

impl Connections {
    /// At most `bound` at once.
    #[must_use]
    pub fn at_most(bound: usize) -> Self {
        let bound = bound.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(bound)), bound }
    }

    /// How many are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.bound.saturating_sub(self.free.available_permits())
    }

    async fn place(&self) -> Option<Permit> {
        let place = Arc::clone(&self.free).acquire_owned().await.ok()?;
        Some(Permit { _place: place })
    }
}

/// Accepts until `stop` is ready, and gives each connection with its peer to `each`.
///
/// While the bound is reached nothing is accepted: further clients wait in the listener's backlog,
/// where they cost us no memory, and are served when a place is free.
///
/// # Errors
/// When the listener cannot be registered, or is no listener (any more).
pub async fn accept_loop(
    listener: std::net::TcpListener,
    connections: &Connections,
    stop: impl Future<Output = ()>,
    mut each: impl FnMut(TcpStream, SocketAddr, Permit),
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    tokio::pin!(stop);
    let mut pause = FIRST_PAUSE;
    loop {
        let next = async {
            let permit = connections.place().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            next = next => next,
        };
        let Some(permit) = permit else { return Ok(()) };
        match accepted {
            Ok((stream, peer)) => {
                pause = FIRST_PAUSE;
                // Replies are written whole; waiting for more to send only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "connection gone before it was served");
                    continue;
                }
                each(stream, peer, permit);
            }
            Err(error) => match after(&error) {
                After::Next => {}
                After::Pause => {
                    tracing::warn!(%error, ?pause, "cannot accept connections, pausing");
                    tokio::select! {
                        biased;
                        () = &mut stop => return Ok(()),
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                After::GiveUp => return Err(error),
            },
        }
    }
}

enum After {
    /// That connection failed, not the listener.
    Next,
    /// We are short of something; the connection stays in the backlog, and accept(2) would fail
    /// again at once.
    Pause,
    GiveUp,
}

fn after(error: &io::Error) -> After {
    let Some(errno) = Errno::from_io_error(error) else { return After::GiveUp };
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => After::Pause,
        Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::FAULT => {
            After::GiveUp
        }
        // accept(2): errors of the network that are already pending on the new socket are given
        // out by accept, and concern that connection only.
        _other => After::Next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, rc::Rc};
    use tokio::{io::AsyncReadExt as _, sync::oneshot, task::LocalSet};

    fn listener() -> (std::net::TcpListener, SocketAddr) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn bound_of_open_connections_holds_and_frees() {
        let (listener, address) = listener();
        LocalSet::new()
            .run_until(async move {
                let connections = Connections::at_most(2);
                let held = Rc::new(RefCell::new(Vec::new()));
                let (stop, stopped) = oneshot::channel::<()>();
                let (seen, mut news) = tokio::sync::mpsc::unbounded_channel();
                let looping = tokio::task::spawn_local({
                    let (connections, held) = (connections.clone(), Rc::clone(&held));
                    async move {
                        let stop = async { drop(stopped.await) };
                        accept_loop(listener, &connections, stop, |stream, _, permit| {
                            held.borrow_mut().push((stream, permit));
                            seen.send(()).unwrap();
                        })
                        .await
                    }
                });
                let clients: Vec<_> =
                    (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
                news.recv().await.unwrap();
                news.recv().await.unwrap();
                assert_eq!(connections.open(), 2);
                let third = tokio::time::timeout(Duration::from_millis(50), news.recv());
                assert!(third.await.is_err(), "the third waits in the backlog");
                held.borrow_mut().remove(0);
                news.recv().await.unwrap();
                assert_eq!(held.borrow().len(), 2);
                stop.send(()).unwrap();
                looping.await.unwrap().unwrap();
                drop(clients);
            })
            .await;
    }

    #[tokio::test]
    async fn clients_are_closed_when_the_stream_is_dropped() {
        let (listener, address) = listener();
        LocalSet::new()
            .run_until(async move {
                tokio::task::spawn_local(async move {
                    let connections = Connections::at_most(1);
                    accept_loop(listener, &connections, std::future::pending(), |stream, _, _| {
                        drop(stream);
                    })
                    .await
                });
                // More than the bound, one after the other: places come back.
                for _ in 0..5 {
                    let mut client = TcpStream::connect(address).await.unwrap();
                    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
                }
            })
            .await;
    }

    #[test]
    fn what_runs_out_pauses_and_what_is_wrong_ends() {
        let kind = |errno: Errno| match after(&io::Error::from(errno)) {
            After::Next => 'n',
            After::Pause => 'p',
            After::GiveUp => 'g',
        };
        assert_eq!([Errno::MFILE, Errno::NFILE, Errno::NOMEM].map(kind), ['p'; 3]);
        assert_eq!([Errno::CONNABORTED, Errno::NETUNREACH, Errno::PROTO].map(kind), ['n'; 3]);
        assert_eq!([Errno::BADF, Errno::NOTSOCK].map(kind), ['g'; 2]);
    }
}
