//! A SOCK_SEQPACKET socket whose messages may carry one descriptor, for use in the event loop.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use tokio::io::unix::AsyncFd;

/// One end of a channel.
#[derive(Debug)]
pub(crate) struct Channel(AsyncFd<OwnedFd>);

/// Two connected sockets of a kind, close-on-exec and non-blocking.
pub(crate) fn pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

impl Channel {
    /// Takes the socket over; must be called inside a runtime.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        #[expect(
            deprecated,
            reason = "new() is deprecated because a type may change its descriptor under the reactor's \
                      feet; OwnedFd does not, and register() is unsafe"
        )]
        Ok(Self(AsyncFd::new(fd)?))
    }

    /// Sends one message, with a descriptor if given.
    pub(crate) async fn send(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        loop {
            let mut ready = self.0.writable().await?;
            let sent = ready.try_io(|socket| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
                if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
                    return Err(io::Error::other("no room for a descriptor"));
                }
                let iov = [IoSlice::new(bytes)];
                Ok(sendmsg(socket.as_fd(), &iov, &mut ancillary, SendFlags::NOSIGNAL)?)
            });
            if let Ok(result) = sent {
                return result.map(drop);
            }
        }
    }

    /// The next message, at most `max` octets, and its descriptor. An empty message with no
    /// descriptor is the end.
    pub(crate) async fn receive(&self, max: usize) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        loop {
            let mut ready = self.0.readable().await?;
            let received = ready.try_io(|socket| {
                let mut buffer = vec![0u8; max];
                // Room for more than one, so that a peer that sends two is seen and refused
                // instead of having the second silently dropped into our table.
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
                let mut ancillary = RecvAncillaryBuffer::new(&mut space);
                let mut iov = [IoSliceMut::new(&mut buffer)];
                let flags = RecvFlags::CMSG_CLOEXEC;
                let message = recvmsg(socket.as_fd(), &mut iov, &mut ancillary, flags)?;
                let mut fds: Vec<OwnedFd> = ancillary
                    .drain()
                    .flat_map(|item| {
                        let fds = if let RecvAncillaryMessage::ScmRights(fds) = item {
                            Some(fds)
                        } else {
                            None
                        };
                        fds.into_iter().flatten()
                    })
                    .collect();
                let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
                if message.flags.intersects(cut) || fds.len() > 1 {
                    return Err(io::Error::other("message too long or with too many descriptors"));
                }
                buffer.truncate(message.bytes);
                Ok((buffer, fds.pop()))
            });
            if let Ok(result) = received {
                return result;
            }
        }
    }
}
