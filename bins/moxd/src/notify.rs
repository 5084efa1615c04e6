//! Tells systemd how we are (sd_notify), and takes the sockets it bound for us.

use std::{
    ffi::OsString,
    os::{
        fd::{AsFd as _, IntoRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use sandbox::channel::{Expect, recv_with_fds, send_with_fds, seqpacket_pair, set_nonblocking};

/// The first descriptor systemd passes.
const FIRST: i32 = 3;
/// More than this it will not be.
const MOST: i32 = 1024;

/// The way to systemd, if it runs us.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    socket: Option<OsString>,
    /// Half of what systemd waits before it ends us.
    pub(crate) watchdog: Option<Duration>,
}

impl Notify {
    pub(crate) fn from_env() -> Self {
        let text = |name| std::env::var(name).ok();
        let ours = text("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let micros = text("WATCHDOG_USEC").and_then(|usec| usec.parse().ok()).filter(|_| ours);
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET"),
            watchdog: micros.map(|usec: u64| Duration::from_micros(usec / 2)),
        }
    }

    /// Says it. That nobody hears is no fault: the watchdog then acts.
    pub(crate) fn say(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        let sent = UnixDatagram::unbound().and_then(|datagram| {
            let name = socket.as_bytes();
            let address = match name.strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(socket)?,
            };
            datagram.send_to_addr(state.as_bytes(), &address)
        });
        if let Err(error) = sent {
            tracing::warn!(%error, state, "systemd could not be told");
        }
    }

    /// As [`Self::say`], for the state that needs the time of its beginning.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }
}

/// Sockets systemd bound for us; which is which, their addresses say. To be called before anything
/// else is open.
///
/// Descriptors by number are nobody's in Rust. Our own pidfd gives owned copies, but the numbers
/// themselves would stay open for ever (a port that the settings give up would go on listening),
/// so the copies go through a packet socket at descriptor 0 while all numbers are closed.
pub(crate) fn listen_fds() -> anyhow::Result<Vec<OwnedFd>> {
    let text = |name| std::env::var(name).unwrap_or_default();
    if text("LISTEN_PID").parse() != Ok(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = text("LISTEN_FDS").parse::<i32>().context("LISTEN_FDS")?.clamp(0, MOST);
    let own = pidfd_open(getpid(), PidfdFlags::empty()).context("open ourselves")?;
    let (from, to) = seqpacket_pair()?;
    // Nobody reads until all is sent: what does not fit is an error, not a wait.
    set_nonblocking(&from, true)?;
    for number in FIRST..FIRST + count {
        let socket = pidfd_getfd(&own, number, PidfdGetfdFlags::empty());
        let socket = socket.with_context(|| format!("take descriptor {number} over"))?;
        send_with_fds(&from, b"socket", &[socket.as_fd()]).context("keep a socket")?;
    }
    rustix::stdio::dup2_stdin(&to)?;
    // Given up, so that nobody owns what is closed next.
    for descriptor in [own, from, to] {
        let _number = descriptor.into_raw_fd();
    }
    sandbox::process::close_inherited_from(FIRST.cast_unsigned())?;
    let kept = sandbox::process::take_supervision_socket()?;
    let mut sockets = Vec::new();
    while let Some(received) = recv_with_fds(&kept, 16, Expect::Exactly(1))? {
        for socket in received.descriptors {
            set_nonblocking(&socket, true)?;
            sockets.push(socket);
        }
    }
    Ok(sockets)
}
