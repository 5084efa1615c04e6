//! Tells systemd how we are (sd_notify), and takes the sockets it bound for us.

use std::{
    ffi::OsString,
    os::{
        fd::OwnedFd,
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

/// Sockets systemd bound for us. Which is which, their addresses say.
pub(crate) fn listen_fds() -> anyhow::Result<Vec<OwnedFd>> {
    let text = |name| std::env::var(name).unwrap_or_default();
    if text("LISTEN_PID").parse() != Ok(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = text("LISTEN_FDS").parse::<i32>().context("LISTEN_FDS")?.clamp(0, MOST);
    // Descriptors by number are taken over through our own pidfd: it gives owned ones.
    let own = pidfd_open(getpid(), PidfdFlags::empty()).context("open ourselves")?;
    let mut sockets = Vec::new();
    for number in FIRST..FIRST + count {
        let socket = pidfd_getfd(&own, number, PidfdGetfdFlags::empty());
        let socket = socket.with_context(|| format!("take descriptor {number} over"))?;
        sandbox::channel::set_nonblocking(&socket, true)?;
        sockets.push(socket);
    }
    Ok(sockets)
}
