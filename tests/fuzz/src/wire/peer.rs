//! The raw end of a connection: what a process that was taken over can do with it.

use super::{frames, words::Heard};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

/// The longest frame a server of ours sends, in words.
const MAX_FRAME: usize = 1 << 20;

/// The client's end of a connector, spoken to by hand.
#[derive(Debug)]
pub struct Connector(pub OwnedFd);

impl Connector {
    /// Asks for a connection (kind 1) or a signing slot (kind 2), as an honest process does; None
    /// when the server is gone, or refuses.
    #[must_use]
    pub fn ask(&self, kind: u8) -> Option<OwnedFd> {
        let mut request = vec![kind];
        request.extend(ipc::BuildId::OURS.to_bytes());
        self.say(&request)?;
        self.answer(Duration::from_secs(5))
    }

    /// Sends any octets as one message.
    pub fn say(&self, octets: &[u8]) -> Option<()> {
        send(&self.0, octets, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).ok().map(drop)
    }

    /// Sends any octets as one message, with a descriptor.
    pub fn hand(&self, octets: &[u8], fd: &impl AsFd) -> Option<()> {
        let fds = [fd.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds)).then_some(())?;
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(octets)], &mut ancillary, flags).ok().map(drop)
    }

    /// Waits for an answer with a descriptor.
    #[must_use]
    pub fn answer(&self, wait: Duration) -> Option<OwnedFd> {
        ready(&self.0, PollFlags::IN, wait).then_some(())?;
        let mut octets = [0; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut iov = [IoSliceMut::new(&mut octets)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        recvmsg(&self.0, &mut iov, &mut ancillary, flags).ok()?;
        ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _other => None,
        })
    }
}

/// Whether a descriptor is ready within a time.
pub(crate) fn ready(fd: &impl AsFd, flags: PollFlags, wait: Duration) -> bool {
    let fd = fd.as_fd();
    let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
    let wait = Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(wait.subsec_nanos()),
    };
    matches!(poll(&mut fds, Some(&wait)), Ok(1..))
}

/// A connection.
#[derive(Debug)]
pub struct Peer {
    socket: UnixStream,
    unread: Vec<u8>,
    /// Whether the server ended it.
    pub over: bool,
    /// Questions of the server that wait for an answer.
    pub(crate) asked: Vec<u32>,
    /// Questions of ours that were answered.
    pub(crate) answers: Vec<(u32, bool)>,
    /// Whether what it reads is thrown away.
    deaf: bool,
    /// A connection ends with the connector it came over.
    connector: Option<Connector>,
}

impl Peer {
    /// Over a socket.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        let socket = UnixStream::from(fd);
        socket.set_nonblocking(true).expect("a socket");
        Self {
            socket,
            unread: Vec::new(),
            over: false,
            asked: Vec::new(),
            answers: Vec::new(),
            deaf: false,
            connector: None,
        }
    }

    /// Holds the connector as long as the connection.
    #[must_use]
    pub fn with(mut self, connector: Connector) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Sends octets, reading meanwhile; gives up when the connection is over or the server takes
    /// nothing for so long.
    pub fn send(&mut self, octets: &[u8], patience: Duration) -> bool {
        let mut left = octets;
        while !left.is_empty() && !self.over {
            match self.socket.write(left) {
                Ok(wrote) => left = &left[wrote..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.read();
                    if !ready(&self.socket, PollFlags::OUT | PollFlags::IN, patience) {
                        return false;
                    }
                }
                Err(_gone) => {
                    self.read();
                    self.over = true;
                }
            }
        }
        left.is_empty()
    }

    /// Sends frames without ever reading; false when the server takes none for so long, or ends the
    /// connection.
    pub fn flood(&mut self, frames: impl Iterator<Item = Vec<u8>>, patience: Duration) -> bool {
        for frame in frames {
            let mut left = frame.as_slice();
            while !left.is_empty() {
                match self.socket.write(left) {
                    Ok(wrote) => left = &left[wrote..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if !ready(&self.socket, PollFlags::OUT, patience) {
                            return false;
                        }
                    }
                    Err(_gone) => {
                        self.over = true;
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Hears what the server says until it is silent for `quiet`, `done` says so, or `most` is
    /// over.
    pub fn hear(&mut self, quiet: Duration, most: Duration, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + most;
        self.read();
        while !self.over && !done(self) && Instant::now() < end {
            if !ready(&self.socket, PollFlags::IN, quiet) {
                return;
            }
            self.read();
        }
    }

    /// Waits for the end of the connection; false if it does not come.
    pub fn ends(&mut self, most: Duration) -> bool {
        self.deaf = true;
        self.hear(most, most, |_| false);
        self.over
    }

    /// Whether a question was answered, and with what: true for results, false for an error.
    #[must_use]
    pub fn answer_to(&self, question: u32) -> Option<bool> {
        self.answers.iter().find(|(q, _)| *q == question).map(|(_, well)| *well)
    }

    /// Closes our half for writing.
    pub fn half_close(&self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }

    fn read(&mut self) {
        let mut buffer = [0; 32 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    self.over = true;
                    return;
                }
                Ok(_) if self.deaf => {}
                Ok(read) => {
                    self.unread.extend(&buffer[..read]);
                    self.frames();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_gone) => {
                    self.over = true;
                    return;
                }
            }
        }
    }

    /// Every frame of a server is whole, and none is longer than it may be.
    fn frames(&mut self) {
        let mut at = 0;
        while let Some(length) = Heard::length(&self.unread[at..], MAX_FRAME)
            .unwrap_or_else(|why| panic!("the server sent {why}"))
        {
            let Some(frame) = self.unread.get(at..at + length) else { break };
            if let Some((kind, first, _)) = Heard::new(frame).kind() {
                let number = (first & 0xffff_ffff) as u32;
                match kind {
                    frames::CALL => self.asked.push(number),
                    frames::RETURN => self.answers.push((number, first >> 48 == 0)),
                    _other => {}
                }
            }
            at += length;
        }
        self.unread.drain(..at);
    }
}
