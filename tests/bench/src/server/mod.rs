//! The servers that are compared: ours, and Postfix with Dovecot.

mod ours;
mod peers;

pub(crate) use ours::Ours;
pub(crate) use peers::Peers;

use crate::client::{Imap, Transport};
use anyhow::bail;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Accounts of each server.
pub(crate) const USERS: u64 = 34;

/// How long a server may take to start or end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) smtp: SocketAddr,
    pub(crate) imap: SocketAddr,
    pub(crate) imaps: SocketAddr,
}

impl Ports {
    /// Three ports of 127.0.0.1 in a row.
    fn from(first: u16) -> Self {
        let at = |n| SocketAddr::from(([127, 0, 0, 1], first + n));
        Self { smtp: at(0), imap: at(1), imaps: at(2) }
    }
}

/// One of them.
pub(crate) enum Server {
    Ours(Ours),
    Peers(Peers),
}

impl Server {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Server::Ours(_) => "mox",
            Server::Peers(_) => "P+D",
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Server::Ours(_))
    }

    pub(crate) fn ports(&self) -> Ports {
        match self {
            Server::Ours(ours) => ours.ports,
            Server::Peers(peers) => peers.ports,
        }
    }

    /// The roots of its process trees.
    pub(crate) fn roots(&self) -> Vec<u32> {
        match self {
            Server::Ours(ours) => ours.root().into_iter().collect(),
            Server::Peers(peers) => peers.roots(),
        }
    }

    /// Where its mail is.
    pub(crate) fn mail(&self) -> PathBuf {
        match self {
            Server::Ours(ours) => ours.mail(),
            Server::Peers(peers) => peers.mail(),
        }
    }

    /// Starts it; the time to the first IMAP greeting.
    pub(crate) async fn start(&mut self) -> anyhow::Result<Duration> {
        match self {
            Server::Ours(ours) => ours.start().await,
            Server::Peers(peers) => peers.start().await,
        }
    }

    /// Ends it and waits.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        match self {
            Server::Ours(ours) => ours.stop().await,
            Server::Peers(peers) => peers.stop().await,
        }
    }
}

/// Tries until it greets.
async fn greeted(at: SocketAddr, log: &Path) -> anyhow::Result<()> {
    let start = Instant::now();
    while let Err(why) = Imap::connect(at, Transport::Clear).await {
        if start.elapsed() > PATIENCE {
            bail!("no greeting on {at}: {why}; see {}", log.display());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Asks a process to end, and waits until it has.
async fn end(pid: u32) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    let start = Instant::now();
    let mut signal = Some(Signal::SIGTERM);
    // It is no child of ours, or somebody waits for it: then it is gone when it takes no signal.
    while kill(pid, signal.take()).is_ok() {
        if start.elapsed() > PATIENCE {
            bail!("process {pid} does not end");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Runs a program to its end; what it said when it fails.
fn run(command: &mut std::process::Command) -> anyhow::Result<()> {
    let out = command.stdin(std::process::Stdio::null()).output()?;
    if !out.status.success() {
        let said = [out.stdout, out.stderr].concat();
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&said));
    }
    Ok(())
}
