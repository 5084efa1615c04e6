//! Messages with descriptors over Unix sockets.
//!
//! Works on blocking and non-blocking sockets alike: on the latter a call that would wait gives
//! `WouldBlock`, as `tokio::io::unix::AsyncFd` wants it. rustix hands descriptors out as owned, so
//! none can leak: what a message brings beyond what was expected is closed with the error.
//!
//! A less trusted process must not send descriptors to a more trusted one: a pipe or a FUSE file
//! in place of a socket would block its reader. Where it must (a session handed over), the
//! receiver looks at the kind first ([`is_unix_stream`]).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Descriptors one message may carry. The kernel's own bound is 253.
pub const MAX_DESCRIPTORS: usize = 16;
/// Bytes one message with descriptors may carry: names and facts, never content.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// How many descriptors a receiver expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// This many and no other number.
    Exactly(usize),
    /// Any number up to this.
    AtMost(usize),
}

/// What arrived.
#[derive(Debug)]
pub struct Received {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The descriptors, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Why a message is refused; inside an `io::Error` of kind `InvalidData` (from a peer) or
/// `InvalidInput` (from the caller). After either the connection must not be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Bytes did not fit.
    #[error("longer than the receiver takes")]
    TooLong,
    /// Descriptors did not fit.
    #[error("more descriptors than the receiver takes")]
    TooManyDescriptors,
    /// Not the announced number.
    #[error("{found} descriptors where {expected:?} were expected")]
    WrongCount {
        /// What the protocol says.
        expected: Expect,
        /// What came.
        found: usize,
    },
    /// Descriptors travel with bytes, and an empty message looks like the end.
    #[error("empty")]
    Empty,
}

fn from_caller(why: BadMessage) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn from_peer(why: BadMessage) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Sends bytes and descriptors in one message; returns how many bytes went. On a packet socket
/// that is all of them. On a stream it may be fewer: the descriptors went with the first byte, the
/// rest is to be sent by plain writes.
///
/// # Errors
/// `WouldBlock`, the peer is gone (no SIGPIPE), or the message exceeds the bounds of this module.
pub fn send_with_fds(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    if bytes.is_empty() {
        return Err(from_caller(BadMessage::Empty));
    }
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(from_caller(BadMessage::TooLong));
    }
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(from_caller(BadMessage::TooManyDescriptors));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    rustix::io::retry_on_intr(|| {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(rustix::io::Errno::TOOBIG);
        }
        rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })
    .map_err(io::Error::from)
}

/// Receives one message of up to `max_bytes` (on a stream: what is there, up to that). `None` is
/// the peer's end.
///
/// # Errors
/// `WouldBlock`, a broken connection, or [`BadMessage`]: truncated, or not the expected number of
/// descriptors. Whatever came with such a message is closed.
pub fn recv_with_fds(
    socket: impl AsFd,
    max_bytes: usize,
    expect: Expect,
) -> io::Result<Option<Received>> {
    if max_bytes == 0 || max_bytes > MAX_MESSAGE_BYTES {
        return Err(from_caller(BadMessage::TooLong));
    }
    let mut bytes = vec![0; max_bytes];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut descriptors = Vec::new();
    let message = rustix::io::retry_on_intr(|| {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                descriptors.extend(received);
            }
        }
        Ok(message)
    })?;
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(from_peer(BadMessage::TooManyDescriptors));
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(from_peer(BadMessage::TooLong));
    }
    if message.bytes == 0 {
        // An empty packet with descriptors is nothing we ever send; they are closed here.
        return if descriptors.is_empty() { Ok(None) } else { Err(from_peer(BadMessage::Empty)) };
    }
    let found = descriptors.len();
    let fits = match expect {
        Expect::Exactly(count) => found == count,
        Expect::AtMost(count) => found <= count,
    };
    if !fits {
        return Err(from_peer(BadMessage::WrongCount { expected: expect, found }));
    }
    bytes.truncate(message.bytes);
    Ok(Some(Received { bytes, descriptors }))
}

/// A pair of packet sockets (each message whole, in order), close-on-exec, blocking.
///
/// # Errors
/// No descriptors left.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::SEQPACKET)
}

/// A pair of stream sockets, close-on-exec, blocking.
///
/// # Errors
/// No descriptors left.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::STREAM)
}

fn pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
}

/// Switches O_NONBLOCK, which both ends' owners of one end share.
///
/// # Errors
/// Not a socket.
pub fn set_nonblocking(socket: impl AsFd, nonblocking: bool) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(socket, nonblocking)?)
}

/// The uid on the other end of a connected Unix socket, as the kernel noted it at connect.
///
/// # Errors
/// Not a connected Unix socket.
pub fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// Uid, gid and process id on the other end; the id may be another process's by now.
///
/// # Errors
/// As [`peer_uid`].
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Peer {
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
        pid: credentials.pid.as_raw_pid(),
    })
}

/// Who is on the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Effective uid at connect.
    pub uid: u32,
    /// Effective gid at connect.
    pub gid: u32,
    /// Process id at connect.
    pub pid: i32,
}

/// Whether a received descriptor is a Unix stream socket, and nothing whose reading could hang.
///
/// # Errors
/// The kernel does not say.
pub fn is_unix_stream(descriptor: impl AsFd) -> io::Result<bool> {
    let descriptor = descriptor.as_fd();
    match rustix::net::sockopt::socket_domain(descriptor) {
        Ok(domain) => Ok(domain == AddressFamily::UNIX
            && rustix::net::sockopt::socket_type(descriptor)? == SocketType::STREAM),
        Err(rustix::io::Errno::NOTSOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    fn why(error: &io::Error) -> BadMessage {
        *error.get_ref().unwrap().downcast_ref().unwrap()
    }

    #[test]
    fn descriptors_arrive_with_their_bytes_and_close_on_exec() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        for (a, b) in [seqpacket_pair().unwrap(), stream_pair().unwrap()] {
            let file = File::open(&path).unwrap();
            assert_eq!(send_with_fds(&a, b"edge accountd", &[file.as_fd()]).unwrap(), 13);
            let received = recv_with_fds(&b, 64, Expect::Exactly(1)).unwrap().unwrap();
            assert_eq!(received.bytes, b"edge accountd");
            let flags = rustix::io::fcntl_getfd(&received.descriptors[0]).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            let mut text = String::new();
            let mut file = File::from(received.descriptors.into_iter().next().unwrap());
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "content");
            drop(a);
            assert!(recv_with_fds(&b, 64, Expect::AtMost(0)).unwrap().is_none());
        }
    }

    #[test]
    fn another_number_of_descriptors_is_refused_and_closed() {
        let (a, b) = seqpacket_pair().unwrap();
        let (sent, kept) = stream_pair().unwrap();
        send_with_fds(&a, b"x", &[sent.as_fd(), sent.as_fd()]).unwrap();
        let error = recv_with_fds(&b, 64, Expect::Exactly(1)).unwrap_err();
        assert_eq!(why(&error), BadMessage::WrongCount { expected: Expect::Exactly(1), found: 2 });
        drop(sent);
        // Had a copy stayed open, this would block for ever instead of reading the end.
        set_nonblocking(&kept, true).unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&kept, &mut byte).unwrap(), 0);

        send_with_fds(&a, b"x", &[]).unwrap();
        assert!(recv_with_fds(&b, 64, Expect::Exactly(1)).is_err());
    }

    #[test]
    fn a_long_packet_is_refused_not_cut() {
        let (a, b) = seqpacket_pair().unwrap();
        send_with_fds(&a, &[7; 65], &[]).unwrap();
        let error = recv_with_fds(&b, 64, Expect::AtMost(0)).unwrap_err();
        assert_eq!(why(&error), BadMessage::TooLong);
    }

    #[test]
    fn more_descriptors_than_there_is_room_for_end_the_connection() {
        let (a, b) = seqpacket_pair().unwrap();
        // Past our own sender's bound, as a hostile peer may: 40 in one message.
        let file = File::open("/dev/null").unwrap();
        let many = vec![file.as_fd(); 40];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        rustix::net::sendmsg(&a, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
        let error = recv_with_fds(&b, 64, Expect::AtMost(MAX_DESCRIPTORS)).unwrap_err();
        assert_eq!(why(&error), BadMessage::TooManyDescriptors);
        assert!(send_with_fds(&a, b"x", &many).is_err());
    }

    #[test]
    fn the_callers_own_bounds() {
        let (a, b) = seqpacket_pair().unwrap();
        assert!(send_with_fds(&a, b"", &[]).is_err());
        assert!(send_with_fds(&a, &vec![0; MAX_MESSAGE_BYTES + 1], &[]).is_err());
        assert!(recv_with_fds(&b, MAX_MESSAGE_BYTES + 1, Expect::AtMost(0)).is_err());
    }

    #[test]
    fn a_nonblocking_socket_says_so() {
        let (a, b) = seqpacket_pair().unwrap();
        set_nonblocking(&b, true).unwrap();
        let error = recv_with_fds(&b, 64, Expect::AtMost(0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(peer_uid(&a).unwrap(), rustix::process::getuid().as_raw());
        assert_eq!(peer(&a).unwrap().pid.cast_unsigned(), std::process::id());
    }

    #[test]
    fn only_a_unix_stream_is_one() {
        let (stream, _peer) = stream_pair().unwrap();
        let (packets, _peer2) = seqpacket_pair().unwrap();
        assert!(is_unix_stream(&stream).unwrap());
        assert!(!is_unix_stream(&packets).unwrap());
        assert!(!is_unix_stream(File::open("/dev/null").unwrap()).unwrap());
    }
}
