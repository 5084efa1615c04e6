//! What was promised, and whether it was kept.

use super::{remote, template, world::World};
use accountd::store::{Account, MailboxId, Ports, Random, Store, Threads, Tuning};
use anyhow::Context as _;
use daemon::Workers;
use ipc::Role;
use std::{
    collections::BTreeMap,
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex},
};
use storage::{Open, Reader};

/// What a user heard of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Not said yet.
    Open,
    /// It was taken: it arrives, or its sender is told.
    Taken,
    /// Nobody knows.
    Unknown,
    /// It was not taken.
    Refused,
}

/// A message of a user.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) token: String,
    pub(super) from: &'static str,
    pub(super) to: Vec<String>,
    pub(super) answer: Answer,
}

/// All promises.
#[derive(Default)]
pub(super) struct Ledger {
    /// Messages of strangers that were taken: token and recipient.
    inbound: Vec<(String, &'static str)>,
    pub(super) sent: Vec<Sent>,
    /// Messages that users filed in their Inbox by APPEND: token and user.
    pub(super) filed: Vec<(String, &'static str)>,
}

impl Ledger {
    pub(super) fn taken(&mut self, token: &str, to: &'static str) {
        self.inbound.push((token.to_owned(), to));
    }
}

/// A message in an Inbox.
struct Found {
    text: String,
    is_report: bool,
}

/// What the accounts hold, by address.
type Inboxes = BTreeMap<&'static str, Vec<Found>>;

/// Compares what was promised with what is there, after everything was stopped.
pub(super) async fn settle(world: &Rc<World>) -> anyhow::Result<()> {
    let inboxes = read(world).await.context("the accounts")?;
    let copies = |of: &str, token: &str, is_report: bool| {
        let all = inboxes.get(of).map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(|m| m.is_report == is_report && m.text.contains(token)).count()
    };
    let ledger = world.ledger.borrow();
    for (token, to) in ledger.inbound.iter().chain(&ledger.filed) {
        let count = copies(to, &marked(token), false);
        if count != 1 {
            world.wrong(format!("{token} was taken and is {count} times with {to}"));
        }
    }
    for sent in &ledger.sent {
        let token = marked(&sent.token);
        let remote = world.remote_copies(&token);
        let mut reports_due = false;
        for to in &sent.to {
            let is_local = template::ACCOUNTS.contains(&to.as_str());
            let count = if is_local {
                copies(to, &token, false)
            } else {
                remote.get(to).copied().unwrap_or(0)
            };
            let told = copies(sent.from, &token, true);
            let Sent { token, answer, .. } = sent;
            match answer {
                Answer::Taken if count == 0 && told == 0 => {
                    world.wrong(format!("{token} was taken and is lost for {to}"));
                }
                Answer::Refused if count > 0 => {
                    world.wrong(format!("{token} was refused and is with {to}"));
                }
                Answer::Open => world.wrong(format!("{token} was never answered")),
                Answer::Taken | Answer::Unknown | Answer::Refused => {}
            }
            if count > 1 && (is_local || !world.was_rough()) {
                world.wrong(format!("{token} is {count} times with {to}"));
            }
            reports_due |= to == remote::NOBODY && *answer == Answer::Taken;
        }
        if reports_due && copies(sent.from, &token, true) == 0 {
            world.wrong(format!("{}: nobody was told of {}", sent.token, remote::NOBODY));
        }
    }
    let left = waiting(world).context("the queue")?;
    if left > 0 {
        world.wrong(format!("{left} recipients still wait in the queue"));
    }
    Ok(())
}

/// A token as it stands in a message and in no other token.
fn marked(token: &str) -> String {
    format!("Subject: {token}\r\n")
}

struct Fixed;

impl Random for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

async fn read(world: &Rc<World>) -> anyhow::Result<Inboxes> {
    let folder = world.own_folder(Role::Accountd);
    let alarms: Arc<Mutex<Vec<String>>> = Arc::default();
    let raised = Arc::clone(&alarms);
    let ports = Ports {
        disk: Arc::new(world.disk(Role::Accountd)),
        clock: Arc::new(*world.clock),
        random: Arc::new(Fixed),
        fatal: Arc::new(|what| panic!("{what}")),
        alarm: Arc::new(move |account, what| {
            if let Ok(mut raised) = raised.lock() {
                raised.push(format!("{account}: {what}"));
            }
        }),
        workers: Workers::InPlace,
    };
    let threads = Threads { writers: 1, readers: 1, open: 8 };
    let store = Store::start(&folder.join("accounts"), ports, Tuning::default(), threads)?;
    let mut inboxes = Inboxes::new();
    for (id, address) in template::ids(&folder)? {
        let account = store.account(id);
        let found = account.verify(false, Arc::new(|_| {})).await?;
        for finding in found {
            world.wrong(format!("{address}: verify finds {}", finding.what));
        }
        let mut inbox = Vec::new();
        for mailbox in account.mailboxes().await? {
            let messages = messages(&account, mailbox.id).await.context(mailbox.name.clone())?;
            for (id, count) in counted(&messages) {
                if count > 1 {
                    let name = &mailbox.name;
                    world.wrong(format!("{id} is {count} times in {name} of {address}"));
                }
            }
            if mailbox.name.eq_ignore_ascii_case("INBOX") {
                inbox = messages;
            }
        }
        if !account.outbox(None).await?.is_empty() {
            world.wrong(format!("the outbox of {address} is not empty"));
        }
        inboxes.insert(address, inbox);
    }
    store.stop();
    for alarm in alarms.lock().map(|alarms| alarms.clone()).unwrap_or_default() {
        world.wrong(alarm);
    }
    Ok(inboxes)
}

async fn messages(account: &Account, mailbox: MailboxId) -> anyhow::Result<Vec<Found>> {
    let mut messages = Vec::new();
    for uid in account.uids(mailbox, 1).await? {
        let content = account.content(mailbox, uid).await?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < content.size {
            let more = account.read_content(content, bytes.len() as u64, 1 << 18).await?;
            anyhow::ensure!(!more.is_empty(), "content of uid {uid} ends too early");
            bytes.extend(more);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let is_report = text.contains("Content-Type: multipart/report");
        messages.push(Found { text, is_report });
    }
    Ok(messages)
}

/// How often each Message-ID is there. Nobody in a run sends one twice on purpose: what comes again
/// is the repeat of a delivery whose answer was lost.
fn counted(messages: &[Found]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for message in messages {
        let header = message.text.lines().take_while(|line| !line.is_empty());
        for id in header.filter_map(|line| line.strip_prefix("Message-ID: ")) {
            *counts.entry(id).or_default() += 1;
        }
    }
    counts
}

/// Recipients that are in the queue.
fn waiting(world: &World) -> anyhow::Result<i64> {
    let path = world.own_folder(Role::QueueRunner).join("queue.db");
    count(&path).with_context(|| path.display().to_string())
}

fn count(path: &Path) -> Result<i64, storage::Error> {
    let mut reader = Reader::open(path, &Open::default())?;
    reader.read(|c| Ok(c.query_row("SELECT count(*) FROM recipient", [], |row| row.get(0))?))
}
