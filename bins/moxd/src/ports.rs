//! Listening sockets: bound before anything else, kept over restarts, reloads and upgrades, so that
//! a connection made meanwhile waits in the backlog and is not refused.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, bail};
use config::{Kind, Static};
use ipc::Role;
use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Uid},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};

use crate::identity::Identities;

/// Connections that wait while processes are replaced.
const BACKLOG: i32 = 4096;

/// The vaults with an interface for moxctl, and we.
const CONTROLLED: [Role; 3] = [Role::Accountd, Role::QueueRunner, Role::Keyholder];

/// The name under which our own control socket is kept.
pub(crate) const OURS: &str = "control/moxd";

/// All listening sockets by name: `LISTENER/KIND/IP:PORT`, and `control/PROCESS`.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    named: BTreeMap<String, OwnedFd>,
    /// Bound for us by systemd, until the settings name their addresses.
    spare: BTreeMap<SocketAddr, OwnedFd>,
}

/// What to do about an address that this machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is a fault of the configuration.
    Refuse,
    /// Leave it out (`localserve` tries both loopback addresses).
    Skip,
}

impl Ports {
    /// Sockets that a supervisor before us has bound.
    pub(crate) fn inherited(named: BTreeMap<String, OwnedFd>) -> Self {
        Self { named, spare: BTreeMap::new() }
    }

    /// Sockets that systemd has bound.
    pub(crate) fn activated(sockets: Vec<OwnedFd>) -> anyhow::Result<Self> {
        let mut spare = BTreeMap::new();
        for socket in sockets {
            let listener = TcpListener::from(socket);
            let address = listener.local_addr().context("a socket of systemd is not TCP")?;
            spare.insert(address, listener.into());
        }
        Ok(Self { named: BTreeMap::new(), spare })
    }

    /// Brings the network sockets to what the settings say: all new ones are bound before any old
    /// one is closed, so a failure changes nothing.
    pub(crate) fn apply(&mut self, settings: &Static, missing: Missing) -> anyhow::Result<()> {
        let mut wanted = BTreeMap::new();
        for (name, listener) in &settings.listeners {
            for (kind, address) in listener.sockets() {
                wanted.insert(format!("{name}/{}/{address}", kind.name()), address);
            }
        }
        let mut new = BTreeMap::new();
        for (name, address) in &wanted {
            if self.named.contains_key(name) {
                continue;
            }
            if let Some(socket) = self.spare.remove(address) {
                new.insert(name.clone(), socket);
                continue;
            }
            match listen(*address) {
                Ok(socket) => drop(new.insert(name.clone(), socket)),
                Err(error) if missing == Missing::Skip && is_missing(&error) => {
                    tracing::info!(%address, "this machine does not have it, left out");
                }
                Err(error) => bail!("{}", explain(name, *address, &error)),
            }
        }
        self.named.retain(|name, _| wanted.contains_key(name) || name.starts_with("control/"));
        self.named.extend(new);
        Ok(())
    }

    /// Binds the control sockets that are not there yet.
    pub(crate) fn control(&mut self, folder: &Path, who: &Identities) -> anyhow::Result<()> {
        let names = CONTROLLED.iter().map(|role| role.name()).chain(["moxd"]);
        for name in names {
            let key = format!("control/{name}");
            if let Entry::Vacant(free) = self.named.entry(key) {
                let socket = control_socket(folder, name, who);
                free.insert(socket.with_context(|| format!("bind the control socket {name}"))?);
            }
        }
        Ok(())
    }

    /// The addresses that are listened on, IPv4 first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let sockets = self.named.keys().filter_map(|name| name.rsplit('/').next());
        let ips = sockets.filter_map(|socket| socket.parse().ok()).map(|at: SocketAddr| at.ip());
        ips.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The sockets of a role, with the names it gets them by.
    pub(crate) fn of(&self, role: Role) -> impl Iterator<Item = (&str, &OwnedFd)> {
        let kinds = Static::kinds_of(role.name());
        self.named.iter().filter_map(move |(name, socket)| {
            if let Some(process) = name.strip_prefix("control/") {
                return (process == role.name()).then_some(("control", socket));
            }
            let kind = name.split('/').nth(1)?;
            kinds.iter().any(|k: &Kind| k.name() == kind).then_some((name.as_str(), socket))
        })
    }

    /// Everything, to hand on.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &OwnedFd)> {
        self.named.iter()
    }

    /// Our own control socket.
    pub(crate) fn ours(&self) -> Option<&OwnedFd> {
        self.named.get(OURS)
    }
}

fn listen(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // Non-blocking is a property the processes share with us: an accept that finds nothing must
    // not stop anyone's event loop.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // IPv4 has its own socket: a mapped address would slip past limits by network.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn is_missing(error: &rustix::io::Errno) -> bool {
    matches!(*error, rustix::io::Errno::ADDRNOTAVAIL | rustix::io::Errno::AFNOSUPPORT)
}

fn explain(name: &str, address: SocketAddr, error: &rustix::io::Errno) -> String {
    let service = name.rsplit_once('/').map_or(name, |(service, _)| service);
    let why = match *error {
        rustix::io::Errno::ADDRINUSE => {
            "another program listens there; end it or choose another port".to_owned()
        }
        rustix::io::Errno::ACCESS => "ports below 1024 need root".to_owned(),
        rustix::io::Errno::ADDRNOTAVAIL => "this machine does not have the address".to_owned(),
        other => other.to_string(),
    };
    format!("cannot listen on {address} for {service}: {why}")
}

/// Bound through a descriptor of its folder: the path of a socket may be no longer than 108 octets.
fn control_socket(folder: &Path, name: &str, who: &Identities) -> anyhow::Result<OwnedFd> {
    let dir = rustix::fs::open(folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
        // Left by a supervisor that is gone: we hold the lock of the data folder.
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = AddressFamily::UNIX;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    let path = format!("/proc/self/fd/{}/{name}", dir.as_fd().as_raw_fd());
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let group = who.admin_group.filter(|_| !who.without_root());
    let (uid, gid) = (Uid::from_raw(who.own.uid), group.map(Gid::from_raw));
    rustix::fs::chownat(&dir, name, Some(uid), gid, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmodat(&dir, name, Mode::from_raw_mode(0o660), AtFlags::empty())?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(port: u16) -> Static {
        let text = format!(
            "hostname = \"a.example\"\n[listener.x]\nips = [\"127.0.0.1\"]\nsmtp = {{ port = {port} }}\n"
        );
        Static::parse(&text, "mox.toml").unwrap()
    }

    #[test]
    fn a_port_in_use_is_named_and_nothing_changes() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut ports = Ports::default();
        let refused = ports.apply(&settings(port), Missing::Refuse).unwrap_err().to_string();
        assert!(refused.contains(&format!("127.0.0.1:{port} for x/smtp")), "{refused}");
        assert!(refused.contains("another program listens there"), "{refused}");
        assert_eq!(ports.all().count(), 0);
        drop(taken);
        ports.apply(&settings(port), Missing::Refuse).unwrap();
        assert_eq!(ports.of(Role::SmtpdMx).count(), 1);
        assert_eq!(ports.of(Role::SmtpdSubmission).count(), 0);
        // The same settings again keep the same socket.
        ports.apply(&settings(port), Missing::Refuse).unwrap();
        assert_eq!(ports.all().count(), 1);
    }
}
