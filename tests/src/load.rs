//! Mail that is sent all the time while something happens to the tree, and the count at the end:
//! each message that was answered 250 is there, exactly once, and so is each that was sent again
//! because the answer was lost.

use crate::{
    client::{Imap, Reply, Smtp},
    tree::{Tree, wait_until},
    wire::Wire,
};
use rustix::io::Errno;
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The account of a development server, to which all is sent.
pub const USER: &str = "mox@localhost";
/// Its password.
pub const PASSWORD: &str = "moxmoxmox";

/// How long one message may take, with all its repeats.
const PATIENCE: Duration = Duration::from_secs(120);

/// Messages that a sender may send from one address: less than the limits for a network.
const MESSAGES_OF_ADDRESS: usize = 200;

/// A submitter's pause between two messages: how much an account may send in a day is limited.
const PAUSE: Duration = Duration::from_millis(250);

/// How mail goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As another server's.
    Mx,
    /// As a user's, with TLS and log-in; it comes back by the queue. Slower, and only until told
    /// to stop.
    Submission,
}

/// What one sender did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// What its Message-IDs begin with.
    pub prefix: String,
    /// Messages that were taken.
    pub count: usize,
    /// What it waited for one, from its first attempt on.
    pub longest: Duration,
    /// Connections that were refused.
    pub refused: usize,
}

/// A sender that keeps its connection while it lasts, on addresses of its own: how much one network
/// may send is limited.
struct Sender {
    number: usize,
    way: Way,
    address: SocketAddr,
    connection: Option<Smtp>,
    sent: Sent,
}

impl Sender {
    fn source(&self) -> Ipv4Addr {
        let epoch = u8::try_from(self.sent.count / MESSAGES_OF_ADDRESS % 50).unwrap_or_default();
        let place = u8::try_from(self.number % 32).unwrap_or_default();
        Ipv4Addr::new(127, 200 + epoch, place * 8, 1)
    }

    /// Sends messages until told to stop, and so many at least.
    fn run(mut self, at_least: usize, stop: &AtomicBool) -> Sent {
        let at_least = if self.way == Way::Mx { at_least } else { 0 };
        while self.sent.count < at_least || !stop.load(Ordering::Relaxed) {
            self.send_until_taken();
            self.sent.count += 1;
            if self.way == Way::Submission {
                thread::sleep(PAUSE);
            }
            if self.sent.count.is_multiple_of(MESSAGES_OF_ADDRESS) {
                self.connection = None;
            }
        }
        self.sent
    }

    fn send_until_taken(&mut self) {
        let id = format!("{}-{}", self.sent.prefix, self.sent.count);
        let from = self.reverse_path();
        let message = format!(
            "From: {from}\r\nTo: {USER}\r\nMessage-ID: <{id}@load.example>\r\n\
             Subject: {id}\r\n\r\nbody of {id}\r\n"
        );
        let start = Instant::now();
        loop {
            match self.try_once(message.as_bytes()) {
                Ok(reply) if reply.code == 250 => break,
                // A fault of ours is never a 5xx. An accountd that dies between its commit and its
                // answer leaves 451 to say: the repeat is recognised.
                Ok(reply) => assert!(reply.code < 500, "{reply:?}"),
                Err(error) => {
                    let refused = Some(Errno::CONNREFUSED) == Errno::from_io_error(&error);
                    self.sent.refused += usize::from(refused);
                }
            }
            self.connection = None;
            assert!(start.elapsed() < PATIENCE, "{id} was never taken");
            thread::sleep(Duration::from_millis(20));
        }
        self.sent.longest = self.sent.longest.max(start.elapsed());
    }

    fn reverse_path(&self) -> &'static str {
        if self.way == Way::Mx { "ann@example.org" } else { USER }
    }

    fn try_once(&mut self, message: &[u8]) -> io::Result<Reply> {
        let from = self.reverse_path();
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let mut smtp = Smtp::over(Wire::dial_from(self.source(), self.address)?)?;
                if self.way == Way::Submission {
                    smtp = smtp.start_tls()?;
                    let reply = smtp.log_in(USER, PASSWORD)?;
                    if reply.code != 235 {
                        return Ok(reply);
                    }
                }
                self.connection.insert(smtp)
            }
        };
        connection.send(from, &[USER], message)
    }
}

/// Senders at work; they go on until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    senders: Vec<thread::JoinHandle<Sent>>,
}

impl Load {
    /// Starts a sender for each of these ways; each sends so many messages at least.
    #[must_use]
    pub fn start(tree: &Tree, ways: &[Way], at_least: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sender = |(number, way): (usize, &Way)| {
            let (way, stop) = (*way, Arc::clone(&stop));
            let address = tree.address(if way == Way::Mx { 25 } else { 587 });
            let prefix = format!("{way:?}{number}").to_lowercase();
            let sent = Sent { prefix, count: 0, longest: Duration::ZERO, refused: 0 };
            let sender = Sender { number, way, address, connection: None, sent };
            thread::spawn(move || sender.run(at_least, &stop))
        };
        let senders = ways.iter().enumerate().map(sender).collect();
        Self { stop, senders }
    }

    /// Waits until each has sent what it has to; what each sent.
    ///
    /// # Panics
    /// When a sender did: for an answer that must not be, or none for too long.
    #[must_use]
    pub fn finish(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.senders.into_iter().map(|sender| sender.join());
        joined.map(|sent| sent.expect("a sender's message was taken")).collect()
    }
}

/// How many were sent by all.
#[must_use]
pub fn total(sent: &[Sent]) -> usize {
    sent.iter().map(|sent| sent.count).sum()
}

/// How often each Message-ID is in the inbox.
fn found(tree: &Tree) -> io::Result<BTreeMap<String, usize>> {
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD)?;
    imap.command("EXAMINE INBOX")?;
    let fetched = imap.command("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")?;
    let mut counts = BTreeMap::new();
    for response in &fetched.untagged {
        let text = String::from_utf8_lossy(response);
        let id = text.split_once('<').and_then(|(_, rest)| rest.split_once("@load.example"));
        if let Some((id, _)) = id {
            *counts.entry(id.to_owned()).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Looks for every message that was sent.
///
/// # Panics
/// When one is not there, or twice.
pub fn each_is_there_once(tree: &Tree, sent: &[Sent]) {
    // Submitted mail goes by the queue, and a process may not be back yet.
    let mut counts = BTreeMap::new();
    let all = wait_until(PATIENCE, || {
        counts = found(tree).unwrap_or_default();
        counts.len() >= total(sent)
    });
    assert!(all, "{} of {} messages are there", counts.len(), total(sent));
    for sent in sent {
        for n in 0..sent.count {
            let id = format!("{}-{n}", sent.prefix);
            assert_eq!(counts.get(&id), Some(&1), "{id}");
        }
    }
    assert_eq!(counts.len(), total(sent));
}
