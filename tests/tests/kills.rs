//! Random processes killed under load: each message that was answered 250 is in its mailbox exactly
//! once, and so is each that was not answered and sent again.
//!
//! The short form runs in the gate; `MOX_NIGHTLY=1` sends 5,000 messages on 20 connections.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use ipc::Role;
use mox_tests::{
    client::{Imap, Reply, Smtp},
    tree::{Tree, kill, wait_until},
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const USER: &str = "mox@localhost";
const PASSWORD: &str = "moxmoxmox";

/// The pause between two kills.
const EVERY: Duration = Duration::from_millis(300);

/// How long one message may take, with all its repeats.
const PATIENCE: Duration = Duration::from_secs(60);

/// Roles that are killed: all.
const VICTIMS: [Role; 12] = Role::ALL;

struct Size {
    connections: usize,
    messages_each: usize,
}

fn size() -> Size {
    if std::env::var_os("MOX_NIGHTLY").is_some() {
        Size { connections: 20, messages_each: 250 }
    } else {
        Size { connections: 4, messages_each: 100 }
    }
}

/// A sender that keeps its connection while it lasts, on an address of its own: how much one
/// network may send is limited.
struct Sender {
    source: Ipv4Addr,
    address: SocketAddr,
    connection: Option<Smtp>,
}

impl Sender {
    fn new(number: usize, address: SocketAddr) -> Self {
        let source = Ipv4Addr::new(127, 200, u8::try_from(number * 8).unwrap(), 1);
        Self { source, address, connection: None }
    }

    /// Sends one message until it is answered 250; whether it was in time.
    fn send_until_taken(&mut self, id: &str) -> bool {
        let message = format!(
            "From: ann@example.org\r\nTo: {USER}\r\nMessage-ID: <{id}@kills.example>\r\n\
             Subject: {id}\r\n\r\nbody of {id}\r\n"
        );
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match self.try_once(message.as_bytes()) {
                Ok(reply) if reply.code == 250 => return true,
                // A fault of ours is never a 5xx.
                Ok(reply) => {
                    assert!(reply.code < 500, "{reply:?}");
                    self.connection = None;
                }
                Err(_) => self.connection = None,
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }

    fn try_once(&mut self, message: &[u8]) -> std::io::Result<Reply> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(Smtp::connect_from(self.source, self.address)?),
        };
        connection.send("ann@example.org", &[USER], message)
    }
}

/// Kills a random process every now and then until told to stop; how many.
fn killer(control: std::path::PathBuf, stop: Arc<AtomicBool>) -> thread::JoinHandle<u32> {
    thread::spawn(move || {
        let (mut killed, mut random) = (0, 0x2545_f491_4f6c_dd1d_u64);
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(EVERY);
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let role = VICTIMS[usize::try_from(random % VICTIMS.len() as u64).unwrap()];
            let order = daemon::orders::Order::Processes;
            let lines = daemon::orders::give(&control.join("moxd"), order).unwrap_or_default();
            for line in lines {
                let row: serde_json::Value = serde_json::from_str(&line).unwrap();
                let pid = row.get("pid").and_then(serde_json::Value::as_u64);
                if row.get("role").and_then(|r| r.as_str()) == Some(role.name())
                    && let Some(pid) = pid
                    && kill(u32::try_from(pid).unwrap(), rustix::process::Signal::KILL).is_ok()
                {
                    killed += 1;
                    break;
                }
            }
        }
        killed
    })
}

/// How often each Message-ID is in the inbox.
fn found(tree: &Tree) -> BTreeMap<String, usize> {
    let mut imap = None;
    assert!(wait_until(PATIENCE, || {
        imap = Imap::log_in(tree.address(143), USER, PASSWORD).ok();
        imap.is_some()
    }));
    let mut imap = imap.unwrap();
    assert!(imap.command("EXAMINE INBOX").unwrap().is_ok());
    let fetched = imap.command("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])").unwrap();
    assert!(fetched.is_ok(), "{}", fetched.tagged);
    let mut counts = BTreeMap::new();
    for response in &fetched.untagged {
        let text = String::from_utf8_lossy(response);
        let id = text.split_once('<').and_then(|(_, rest)| rest.split_once("@kills.example"));
        if let Some((id, _)) = id {
            *counts.entry(id.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Starts the senders.
fn senders(size: &Size, address: SocketAddr) -> Vec<thread::JoinHandle<()>> {
    let messages_each = size.messages_each;
    let sender = |connection| {
        thread::spawn(move || {
            let mut sender = Sender::new(connection, address);
            for n in 0..messages_each {
                let id = format!("c{connection}-{n}");
                assert!(sender.send_until_taken(&id), "{id} was never taken");
            }
        })
    };
    (0..size.connections).map(sender).collect()
}

fn each_is_there_once(tree: &Tree, size: &Size) {
    let counts = found(tree);
    for connection in 0..size.connections {
        for n in 0..size.messages_each {
            let id = format!("c{connection}-{n}");
            assert_eq!(counts.get(&id), Some(&1), "{id}");
        }
    }
}

#[test]
fn each_message_is_there_once_though_processes_are_killed() {
    let tree = Tree::start();
    let size = size();
    let stop = Arc::new(AtomicBool::new(false));
    let killing = killer(tree.control(), Arc::clone(&stop));
    let senders = senders(&size, tree.address(25));
    let ended: Vec<_> = senders.into_iter().map(thread::JoinHandle::join).collect();
    stop.store(true, Ordering::Relaxed);
    let killed = killing.join().unwrap();
    for sender in ended {
        sender.unwrap();
    }
    assert!(killed > 0, "nobody was killed");
    eprintln!("{} messages, {killed} kills", size.connections * size.messages_each);
    each_is_there_once(&tree, &size);
}

#[test]
fn each_message_is_there_once_though_the_whole_tree_is_killed() {
    let mut tree = Tree::start();
    let (size, times) = if std::env::var_os("MOX_NIGHTLY").is_some() {
        (Size { connections: 10, messages_each: 300 }, 20)
    } else {
        (Size { connections: 4, messages_each: 150 }, 2)
    };
    let senders = senders(&size, tree.address(25));
    let mut crashed = 0;
    for _ in 0..times {
        thread::sleep(EVERY * 3);
        if senders.iter().all(thread::JoinHandle::is_finished) {
            break;
        }
        tree.crash_and_restart();
        crashed += 1;
    }
    for sender in senders {
        sender.join().unwrap();
    }
    assert!(crashed > 0, "the tree was never killed under load");
    eprintln!("{} messages, {crashed} crashes", size.connections * size.messages_each);
    each_is_there_once(&tree, &size);
}
