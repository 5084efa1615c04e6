//! What a process is given at its start: sockets, files, and a connector for each edge of the wiring
//! table (`ipc::WIRING`) to each process that runs at the other end.
//!
//! Connectors are made anew whenever either end starts, and are all alike: what travels over one
//! is the business of its two ends. The ends of its clients are held until the new process serves;
//! those it asks get theirs at once.

use std::os::fd::OwnedFd;

use daemon::supervision::Gift;
use ipc::Role;

use crate::tree::{Key, Tree};

/// A descriptor and what it is.
pub(crate) type Given = (Gift, OwnedFd);

/// The end of a connector for a peer, until the process at the other end serves.
pub(crate) struct Held {
    /// Who gets it,
    pub(crate) peer: Key,
    /// if it is still in this life: a later one has made its own.
    pub(crate) life: u64,
    /// What it is told.
    pub(crate) gift: Gift,
    /// The end.
    pub(crate) descriptor: OwnedFd,
}

impl Tree {
    /// Listeners, files and figures of a process.
    pub(crate) fn gifts(&self, (role, _): Key) -> anyhow::Result<Vec<Given>> {
        let mut gifts = Vec::new();
        for (name, socket) in self.ground.ports.of(role) {
            gifts.push((Gift::Listener(name.to_owned()), socket.try_clone()?));
        }
        if role == Role::Keyholder {
            gifts.extend(crate::files::of_keyholder(&self.ground.settings)?);
        }
        if role == Role::HttpdAdmin {
            for ((role, instance), slot) in &self.slots {
                let figures = sandbox::figures::read_only(&slot.figures)?;
                gifts.push((Gift::Figures(*role, *instance), figures));
            }
        }
        Ok(gifts)
    }

    /// A new connector for each process that runs at the other end of an edge: our ends, and those
    /// of the peers, of which those of clients are held until this one serves.
    pub(crate) fn connectors(
        &self,
        (role, instance): Key,
    ) -> anyhow::Result<(Vec<Given>, Vec<Held>)> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for ((peer, n), slot) in &self.slots {
            let Some(running) = &slot.now else { continue };
            let asks = ipc::edge(role, *peer);
            let serves = ipc::edge(*peer, role);
            if asks.or(serves).is_none() {
                continue;
            }
            let (a, b) = sandbox::channel::seqpacket_pair()?;
            let (here, there) = if asks.is_some() {
                (Gift::ToServer(*peer, *n), Gift::FromClient(role, instance))
            } else {
                (Gift::FromClient(*peer, *n), Gift::ToServer(role, instance))
            };
            ours.push((here, a));
            let peer = (*peer, *n);
            theirs.push(Held { peer, life: running.life, gift: there, descriptor: b });
        }
        Ok((ours, theirs))
    }
}
