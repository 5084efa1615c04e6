//! Relaying a connection to its session, both ways, to the end.
//!
//! Thousands of connections are relayed and nearly all of them idle, so none keeps a buffer: octets
//! are read into one that the process has, and only what the other side does not take at once is
//! kept, at most one reading of it, until it does.

use imap::Tag;
use net::Conn;
use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::UnixStream,
    time::{Instant, Sleep, sleep_until},
};

/// A session answers a log-in by then: it redeems the ticket by two calls of 10 s at most.
pub(super) const FIRST_WORD: Duration = Duration::from_secs(25);

/// Both ends of what is relayed.
pub(super) struct Handed<S> {
    pub(super) client: Conn<S>,
    pub(super) session: UnixStream,
    /// Of the log-in that the session answers.
    pub(super) tag: Tag,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// One side closed.
    Closed,
    /// One side did not take octets for too long.
    Stalled,
    /// The connection broke.
    Broken,
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Read and not written yet.
    kept: Vec<u8>,
    /// Written, but held back by the writer's own buffer.
    unflushed: bool,
    ended: bool,
    /// The reader of this direction is gone.
    refused: bool,
    /// Since when the reader of this direction takes nothing.
    stalled: Option<Instant>,
}

/// Waits for the session's first word, which is there whatever becomes of the log-in; else sends the
/// client away.
pub(super) async fn begun<S: AsyncRead + AsyncWrite + Unpin>(
    handed: &mut Handed<S>,
    patience: Duration,
) -> bool {
    if tokio::time::timeout(patience, handed.session.readable()).await.is_ok() {
        return true;
    }
    // As the session says it when it finds no account.
    let tag = handed.tag.as_str();
    let said = format!("{tag} NO [UNAVAILABLE] try again later\r\n* BYE try again later\r\n");
    let bye = async {
        // Nobody hears it: then nobody waits.
        let _ = handed.client.write_all(said.as_bytes()).await;
        let _ = handed.client.shutdown().await;
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), bye).await;
    false
}

/// Relays until one side is done.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    mut handed: Handed<S>,
    scratch: &Rc<RefCell<Box<[u8]>>>,
    patience: Duration,
) -> Ended {
    let (mut up, mut down) = (Way::default(), Way::default());
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let ended = poll_fn(|context| {
        let Handed { client, session, .. } = &mut handed;
        let first =
            if up.refused { Poll::Pending } else { up.poll(context, client, session, scratch) };
        let second = down.poll(context, session, client, scratch);
        if let Poll::Ready(Err(error)) = &first
            && error.kind() == io::ErrorKind::BrokenPipe
            && second.is_pending()
        {
            // The session has closed, and its last words may be on their way still.
            up.refused = true;
            up.stalled.get_or_insert_with(Instant::now);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        for way in [first, second] {
            if let Poll::Ready(result) = way {
                return Poll::Ready(if result.is_ok() { Ended::Closed } else { Ended::Broken });
            }
        }
        let since = [up.stalled, down.stalled].into_iter().flatten().min();
        let Some(since) = since else {
            timer = None;
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(since + patience)));
        if timer.deadline() != since + patience {
            timer.as_mut().reset(since + patience);
        }
        timer.as_mut().poll(context).map(|()| Ended::Stalled)
    })
    .await;
    // Says the end to whoever is still there; TLS wants its close_notify.
    let bye = async {
        let _ = handed.session.shutdown().await;
        let _ = handed.client.shutdown().await;
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), bye).await;
    ended
}

impl Way {
    /// Ready when this direction is over and all of it was written.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        scratch: &Rc<RefCell<Box<[u8]>>>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.kept.is_empty() {
                match Pin::new(&mut *to).poll_write(context, &self.kept) {
                    Poll::Pending => {
                        self.stalled.get_or_insert_with(Instant::now);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(written) => {
                        self.kept.drain(..written?);
                        self.stalled = None;
                        self.unflushed = true;
                        if self.kept.is_empty() {
                            self.kept = Vec::new();
                        }
                        continue;
                    }
                }
            }
            if self.ended {
                return match Pin::new(&mut *to).poll_flush(context) {
                    Poll::Pending => {
                        self.stalled.get_or_insert_with(Instant::now);
                        Poll::Pending
                    }
                    Poll::Ready(flushed) => Poll::Ready(flushed),
                };
            }
            let mut scratch = scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *from).poll_read(context, &mut buffer) {
                Poll::Ready(result) => {
                    result?;
                    self.kept = buffer.filled().to_vec();
                    self.ended = self.kept.is_empty();
                }
                Poll::Pending if self.unflushed => {
                    match Pin::new(&mut *to).poll_flush(context) {
                        Poll::Pending => {
                            self.stalled.get_or_insert_with(Instant::now);
                        }
                        Poll::Ready(flushed) => {
                            flushed?;
                            self.unflushed = false;
                            self.stalled = None;
                        }
                    }
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpStream},
    };

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    fn handed(client: TcpStream, session: UnixStream) -> Handed<TcpStream> {
        Handed { client: Conn::Plain(client), session, tag: Tag::new(b"a").unwrap() }
    }

    fn scratch() -> Rc<RefCell<Box<[u8]>>> {
        Rc::new(RefCell::new(vec![0; 1024].into_boxed_slice()))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn octets_go_both_ways_and_the_end_too() {
        let (mut far, client) = pair().await;
        let (mut behind, session) = UnixStream::pair().unwrap();
        let relayed = handed(client, session);
        let scratch = scratch();
        let relay = run(relayed, &scratch, Duration::from_secs(5));
        let talk = async {
            let big = vec![7u8; 300_000];
            let (mut far_read, mut far_write) = far.split();
            let (mut read, mut write) = behind.split();
            let (sent, got, back) = tokio::join!(
                async { far_write.write_all(&big).await.unwrap() },
                async {
                    let mut got = vec![0; big.len()];
                    read.read_exact(&mut got).await.unwrap();
                    write.write_all(b"* OK\r\n").await.unwrap();
                    got
                },
                async {
                    let mut back = [0; 6];
                    far_read.read_exact(&mut back).await.unwrap();
                    back
                }
            );
            let () = sent;
            assert_eq!((got, &back), (big, b"* OK\r\n"));
            drop(behind);
            assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        };
        let (ended, ()) = tokio::join!(relay, talk);
        assert_eq!(ended, Ended::Closed);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_is_handed_to_a_session_that_stands_still_is_sent_away() {
        let patience = Duration::from_millis(50);
        let (_far, client) = pair().await;
        let (mut behind, session) = UnixStream::pair().unwrap();
        behind.write_all(b"a OK\r\n").await.unwrap();
        assert!(begun(&mut handed(client, session), patience).await);

        let (mut far, client) = pair().await;
        let (_behind, session) = UnixStream::pair().unwrap();
        assert!(!begun(&mut handed(client, session), patience).await);
        let mut said = String::new();
        far.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("a NO [UNAVAILABLE]"), "{said}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_last_words_of_a_session_arrive_though_its_client_goes_on() {
        let (mut far, client) = pair().await;
        let (mut behind, session) = UnixStream::pair().unwrap();
        // More than the session takes: it says so and goes.
        far.write_all(&[b'x'; 50_000]).await.unwrap();
        let relayed = handed(client, session);
        let scratch = scratch();
        let relay = run(relayed, &scratch, Duration::from_secs(5));
        let talk = async {
            behind.read_exact(&mut [0; 1024]).await.unwrap();
            behind.write_all(b"* BYE\r\n").await.unwrap();
            drop(behind);
            let mut heard = [0; 7];
            far.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"* BYE\r\n");
        };
        let (ended, ()) = tokio::join!(relay, talk);
        assert_ne!(ended, Ended::Stalled);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_does_not_read_is_not_waited_for() {
        let (_far, client) = pair().await;
        let (mut behind, session) = UnixStream::pair().unwrap();
        let relayed = handed(client, session);
        let scratch = scratch();
        let relay = run(relayed, &scratch, Duration::from_millis(50));
        let flood = async { while behind.write_all(&[0; 65_536]).await.is_ok() {} };
        let (ended, ()) = tokio::join!(relay, flood);
        assert_eq!(ended, Ended::Stalled);
    }
}
