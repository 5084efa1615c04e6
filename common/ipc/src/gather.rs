//! Frames of one turn go out together.
//!
//! The runtime flushes after every frame, and a process answers many sessions in one turn of its
//! loop: that is a system call for each frame, and a peer that wakes for each. So what the runtime
//! writes gathers here, a flush is only noted, and what pours it into the socket has its turn when
//! whatever else is ready has had one.

use futures::AsyncWrite;
use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};
use tokio::{io::AsyncWriteExt as _, sync::Notify};

/// Octets that gather before the runtime has to wait.
const MOST: usize = 64 * 1024;
/// Room that is kept for the next turn; a larger one is given back.
const KEPT: usize = 4 * 1024;

/// What was written and is not poured yet.
#[derive(Default)]
pub(crate) struct Gathered {
    octets: RefCell<Vec<u8>>,
    /// The writer, when it waits for room.
    waiting: RefCell<Option<Waker>>,
    wanted: Notify,
    failed: Cell<Option<io::ErrorKind>>,
}

/// The writing end.
pub(crate) struct Gather(pub(crate) Rc<Gathered>);

impl AsyncWrite for Gather {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Gathered { octets, waiting, wanted, failed } = &*self.0;
        if let Some(kind) = failed.get() {
            return Poll::Ready(Err(kind.into()));
        }
        let mut octets = octets.borrow_mut();
        let room = MOST.saturating_sub(octets.len()).min(bytes.len());
        if room == 0 && !bytes.is_empty() {
            *waiting.borrow_mut() = Some(cx.waker().clone());
            // A frame larger than this is poured while it is written, before its flush.
            wanted.notify_one();
            return Poll::Pending;
        }
        octets.extend_from_slice(&bytes[..room]);
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.wanted.notify_one();
        Poll::Ready(self.0.failed.get().map_or(Ok(()), |kind| Err(kind.into())))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Gathered {
    /// Pours whatever is wanted into the socket, until that fails.
    pub(crate) async fn pour(
        &self,
        socket: &mut (impl tokio::io::AsyncWrite + Unpin),
    ) -> io::Error {
        loop {
            self.wanted.notified().await;
            if let Err(error) = self.pour_all(socket).await {
                self.failed.set(Some(error.kind()));
                self.wake_writer();
                return error;
            }
        }
    }

    /// Pours what there is.
    pub(crate) async fn pour_all(
        &self,
        socket: &mut (impl tokio::io::AsyncWrite + Unpin),
    ) -> io::Result<()> {
        loop {
            let mut octets = std::mem::take(&mut *self.octets.borrow_mut());
            if octets.is_empty() {
                return Ok(());
            }
            self.wake_writer();
            socket.write_all(&octets).await?;
            let mut next = self.octets.borrow_mut();
            if next.is_empty() && octets.capacity() <= KEPT {
                octets.clear();
                *next = octets;
            }
        }
    }

    fn wake_writer(&self) {
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::AsyncWriteExt as _;
    use std::time::Duration;
    use tokio::io::AsyncReadExt as _;

    /// A socket that counts how often it is written to.
    struct Counting<W>(W, Rc<Cell<usize>>);

    impl<W: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for Counting<W> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1.set(self.1.get() + 1);
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn frames_of_one_turn_are_one_write() {
        let (near, mut far) = tokio::io::duplex(MOST * 4);
        let gathered = Rc::new(Gathered::default());
        let writes = Rc::new(Cell::new(0));
        let mut socket = Counting(near, Rc::clone(&writes));
        let mut gather = Gather(Rc::clone(&gathered));
        let frames = async {
            for n in 0..10u8 {
                gather.write_all(&[n; 100]).await.unwrap();
                gather.flush().await.unwrap();
            }
            let mut read = vec![0; 1000];
            far.read_exact(&mut read).await.unwrap();
            read
        };
        let read = tokio::select! {
            error = gathered.pour(&mut socket) => panic!("{error}"),
            read = frames => read,
        };
        assert!(read.chunks(100).zip(0u8..).all(|(frame, n)| frame == [n; 100]));
        assert_eq!(writes.get(), 1);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_stops_the_writer_and_a_dead_one_ends_it() {
        let (mut near, mut far) = tokio::io::duplex(1000);
        let gathered = Rc::new(Gathered::default());
        let mut gather = Gather(Rc::clone(&gathered));
        let large = vec![7; 5 * MOST];
        let cut = Duration::from_millis(20);
        let writing = async {
            let stuck = tokio::time::timeout(cut, gather.write_all(&large)).await;
            assert!(stuck.is_err(), "more was taken than is bounded");
            assert!(gathered.octets.borrow().len() <= MOST);
            // Somebody reads after all.
            let mut read = vec![0; 2 * MOST];
            let reading = far.read_exact(&mut read);
            let (written, read) = tokio::join!(gather.write_all(&large[..1000]), reading);
            written.unwrap();
            assert_eq!(read.unwrap(), 2 * MOST);
            drop(far);
            while gather.write_all(&large).await.is_ok() {}
        };
        tokio::join!(gathered.pour(&mut near), writing);
        assert!(gather.flush().await.is_err());
    }
}
