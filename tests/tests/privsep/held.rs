//! What each process of a tree holds while nobody is connected: exactly this, and all of it.
//!
//! The product's own tables say what that is: the settings for listeners, the wiring table for who is
//! connected with whom. A descriptor too many is a right too many, and one too few is a process that
//! waits for what it was not given.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use ipc::{Carries, Role};
use mox_tests::tree::{PORT_OFFSET, Tree};

use crate::edges;
use crate::proc::{Descriptor, Process, Sockets};

/// What a descriptor above the first three is to its process; processes by their place in the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    /// A listener of the settings.
    Listener(SocketAddr),
    /// A control socket, by its name.
    Control(String),
    /// The way to the supervisor.
    Supervisor,
    /// The connector that it shares with a process: packets.
    Connector(usize),
    /// A connection for calls between the two: a stream.
    Calls(usize),
    /// A pair whose other end it holds, too: tokio's, to wake itself at a signal.
    WithItself,
    /// Its figures.
    Figures,
    /// epoll, eventfd.
    Anonymous(String),
    /// A file of its own folder.
    OwnFile,
    /// The database it keeps open.
    Database,
    /// What nobody should have.
    Other(Descriptor),
}

/// The file that a vault keeps open, below the data folder.
fn database(role: Role) -> Option<&'static str> {
    match role {
        Role::Accountd => Some("accountd/accountd.db"),
        Role::QueueRunner => Some("queue/queue.db"),
        // It reads its keys at its start and closes them.
        Role::Keyholder => None,
        Role::Resolver
        | Role::Parser
        | Role::Outbound
        | Role::ImapdSession
        | Role::ImapdFront
        | Role::SmtpdMx
        | Role::SmtpdSubmission
        | Role::HttpdWeb
        | Role::HttpdAdmin => None,
    }
}

/// What is too much or too little, in words; of all processes but the last one, the supervisor.
pub(crate) fn differences(tree: &Tree, all: &[Process]) -> Vec<String> {
    let sockets = Sockets::now();
    let ends = edges::other_ends();
    let descriptors: Vec<BTreeMap<u32, Descriptor>> =
        all.iter().map(|process| process.descriptors(&sockets)).collect();
    let mut holders: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, of_process) in descriptors.iter().enumerate() {
        for (_, descriptor) in of_process.iter().filter(|(number, _)| **number > 2) {
            if let Descriptor::Unix { inode, .. } = descriptor {
                let holders = holders.entry(*inode).or_default();
                if holders.last() != Some(&index) {
                    holders.push(index);
                }
            }
        }
    }
    let view = View { tree, all, ends, holders };
    let supervisor = all.len() - 1;
    let log = descriptors[supervisor].get(&2);
    let mut wrong = Vec::new();
    for (index, of_process) in descriptors[..supervisor].iter().enumerate() {
        let null = Descriptor::Device("/dev/null".into());
        for (number, wanted) in [(0, Some(&null)), (1, Some(&null)), (2, log)] {
            if of_process.get(&number) != wanted {
                wrong.push(format!("{:?} has as {number} {of_process:?}", all[index]));
            }
        }
        let mut counts: BTreeMap<Held, usize> = BTreeMap::new();
        for (_, descriptor) in of_process.iter().filter(|(number, _)| **number > 2) {
            *counts.entry(view.held(index, descriptor)).or_default() += 1;
        }
        let listed = view.listed(index);
        for (held, count) in &counts {
            if listed.get(held).is_none_or(|range| !range.contains(count)) {
                wrong.push(format!("{:?} holds {held:?} {count} times", all[index]));
            }
        }
        for (held, range) in &listed {
            if !counts.contains_key(held) && !range.contains(&0) {
                wrong.push(format!("{:?} lacks {held:?}", all[index]));
            }
        }
    }
    wrong
}

struct View<'a> {
    tree: &'a Tree,
    /// The last one is the supervisor.
    all: &'a [Process],
    /// The other end of each Unix socket.
    ends: BTreeMap<u64, u64>,
    /// Who holds each.
    holders: BTreeMap<u64, Vec<usize>>,
}

impl View<'_> {
    fn role(&self, index: usize) -> Role {
        self.all[index].role.parse().unwrap()
    }

    /// What a descriptor of a process is.
    fn held(&self, index: usize, descriptor: &Descriptor) -> Held {
        let other = || Held::Other(descriptor.clone());
        let role = self.role(index);
        match descriptor {
            Descriptor::TcpListener(address) => Held::Listener(*address),
            Descriptor::UnixListener(path) => {
                // Bound through a descriptor of its folder.
                let name = path.strip_prefix("/proc/self/fd/").and_then(|p| p.split_once('/'));
                name.map_or_else(other, |(_, name)| Held::Control(name.to_owned()))
            }
            Descriptor::Unix { inode, packets } => {
                let end = self.ends.get(inode).and_then(|end| self.holders.get(end));
                let alone = self.holders.get(inode).is_some_and(|holders| *holders == [index]);
                match end.map(Vec::as_slice) {
                    Some([peer]) if alone && *peer == index && !packets => Held::WithItself,
                    Some([peer]) if alone && *peer + 1 == self.all.len() && *packets => {
                        Held::Supervisor
                    }
                    Some([peer]) if alone && *peer != index && *packets => Held::Connector(*peer),
                    Some([peer]) if alone && *peer != index => Held::Calls(*peer),
                    Some(_) | None => other(),
                }
            }
            Descriptor::Memory(name) => {
                let own = name.split(['.', ' ']).next() == Some(role.name());
                if own { Held::Figures } else { other() }
            }
            Descriptor::Anonymous(kind) => Held::Anonymous(kind.clone()),
            Descriptor::Path(path) => self.file(role, path).unwrap_or_else(other),
            Descriptor::Inet(_) | Descriptor::OtherSocket | Descriptor::Device(_) => other(),
        }
    }

    fn file(&self, role: Role, path: &Path) -> Option<Held> {
        let database = self.tree.folder().join(database(role)?);
        if path == database {
            return Some(Held::Database);
        }
        path.starts_with(database.parent()?).then_some(Held::OwnFile)
    }

    /// What it must have, and how often.
    fn listed(&self, index: usize) -> BTreeMap<Held, RangeInclusive<usize>> {
        let role = self.role(index);
        // keyholder has a thread with a loop for each edge over which its keys were used: here
        // accountd's, for the account that the tree was made with.
        let loops = if role == Role::Keyholder { 2 } else { 1 };
        let mut listed = BTreeMap::from([
            (Held::Supervisor, 1..=1),
            (Held::Figures, 1..=1),
            (Held::Anonymous("[eventfd]".into()), loops..=loops),
            // That of an event loop, and a copy to wake it by.
            (Held::Anonymous("[eventpoll]".into()), 2 * loops..=2 * loops),
            // Both ends, and a copy for each event loop.
            (Held::WithItself, 2 + loops..=2 + loops),
        ]);
        let ip = self.tree.address(0).ip();
        let settings = config::Static::local(self.tree.folder(), vec![ip], PORT_OFFSET);
        let kinds = config::Static::kinds_of(role.name());
        for (kind, address) in settings.listeners.values().flat_map(config::Listener::sockets) {
            if kinds.contains(&kind) {
                listed.insert(Held::Listener(address), 1..=1);
            }
        }
        if [Role::Accountd, Role::QueueRunner, Role::Keyholder].contains(&role) {
            listed.insert(Held::Control(role.name().to_owned()), 1..=1);
        }
        if database(role).is_some() {
            // One connection for each that reads at once.
            listed.insert(Held::Database, 1..=8);
            listed.insert(Held::OwnFile, 0..=256);
        }
        for peer in 0..self.all.len() - 1 {
            let edge = ipc::edge(role, self.role(peer)).or(ipc::edge(self.role(peer), role));
            let Some(edge) = edge else { continue };
            listed.insert(Held::Connector(peer), 1..=1);
            if edge.carries != Carries::HandOver {
                // Kept from the first question on; nobody asks over two at once while all is still.
                listed.insert(Held::Calls(peer), 0..=1);
            }
        }
        listed
    }
}
