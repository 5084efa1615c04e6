//! One end of a packet socket that carries messages with descriptors, in the event loop.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use sandbox::channel::{Expect, Received, recv_with_fds, send_with_fds, set_nonblocking};
use tokio::io::unix::AsyncFd;

/// One end.
#[derive(Debug)]
pub struct Channel(AsyncFd<OwnedFd>);

/// Readiness of a descriptor that nobody else reads.
///
/// # Errors
/// It cannot be polled.
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "deprecated because a type may change its descriptor under the reactor's feet; \
                  OwnedFd does not, and the replacement is unsafe"
    )]
    AsyncFd::new(descriptor)
}

impl Channel {
    /// Takes the socket over.
    ///
    /// # Errors
    /// It is no socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&socket, true)?;
        Ok(Self(watch(socket)?))
    }

    /// Sends one message with its descriptors, when there is room.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut ready = self.0.writable().await?;
            let sent = ready.try_io(|fd| send_with_fds(fd.as_fd(), bytes, descriptors).map(drop));
            if let Ok(sent) = sent {
                return sent;
            }
        }
    }

    /// The next message; `None` is the peer's end.
    ///
    /// # Errors
    /// The connection broke, or the message is longer or brings more than expected.
    pub async fn receive(&self, max: usize, expect: Expect) -> io::Result<Option<Received>> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(received) = ready.try_io(|fd| recv_with_fds(fd.as_fd(), max, expect)) {
                return received;
            }
        }
    }
}
