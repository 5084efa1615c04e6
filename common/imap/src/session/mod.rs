//! The machine of a connection after log-in.
//!
//! Commands and answers of the account go in; output and the next step come out. One command runs
//! at a time. What others changed is read from the account by modseq just before a tagged answer or
//! during IDLE ([`sync`](self)), so there is no queue of changes that could overflow, and EXPUNGE is
//! never told while a command with sequence numbers runs (RFC 9051 §7.5.1).
//!
//! No network write happens between a question and its answer, and no state of the account is held
//! while the client reads: a slow client delays nobody.

mod ask;
mod change;
mod fetch;
mod list;
mod render;
mod search;
mod select;
mod sync;

pub use ask::{
    Answer, Appended, Copied, MailboxInfo, MailboxOutcome, Meta, Question, Refused, Row, Small,
    TextScope,
};
pub use fetch::FLUSH;

use crate::{
    command::{Command, Tag, Verb},
    flags::Flags,
    index::UidIndex,
    name::{MailboxName, NameError, Names},
    out::Out,
    reader::Refusal,
    response::{Condition, ResponseCode},
    set::{NumberSet, SequenceSet},
};
use std::collections::BTreeMap;

/// What the process does next. Output gathered so far goes to the client first.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Read a command.
    Read,
    /// Read a line ([`crate::Reader::expect_line`]), and say when the account changed.
    Idle,
    /// Call [`crate::Reader::accept_message`] (true) or [`crate::Reader::refuse_message`], then go
    /// on reading.
    Message(bool),
    /// Ask the account.
    Ask(Question),
    /// Send what was gathered, let others have their turn, then call [`Session::sent`]: a command
    /// writes no more at once than [`FLUSH`] octets and one item.
    Flush,
    /// End the connection.
    Close,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    append_limit: u64,
    names: Names,
    rev2: bool,
    /// The newest modseq the account was heard to be at.
    heard: u64,
    selected: Option<Box<Selected>>,
    running: Option<Box<Running>>,
    idle: Option<Tag>,
    append: Option<Box<change::Appending>>,
}

/// The mailbox that is selected.
#[derive(Debug)]
struct Selected {
    name: MailboxName,
    uid_validity: u32,
    writable: bool,
    index: UidIndex,
    /// Keywords told to the client.
    flags: Flags,
    /// The client was told everything up to here.
    modseq: u64,
    /// Everything above it and up to here is the client's own doing.
    own: u64,
    /// Flags the client was told above it: not told again while they are the same.
    told: BTreeMap<u32, Flags>,
    /// Changes above it that the client made and asked not to be told of.
    silent: Vec<(u64, NumberSet)>,
    /// `$` (RFC 5182).
    saved: NumberSet,
    /// It was deleted by somebody.
    gone: bool,
}

#[derive(Debug)]
struct Running {
    tag: Tag,
    task: Task,
}

/// A command that waits for an answer.
#[derive(Debug)]
enum Task {
    Mailbox,
    List(list::Listing),
    Select(select::Selecting),
    Release(End),
    Fetch(Box<fetch::Fetching>),
    Search(Box<search::Searching>),
    Store(change::Storing),
    Copy { moving: bool },
    MoveToNamesake(Box<change::Namesake>),
    Expunge { closing: bool },
    AppendStart(Box<change::Appending>),
    Commit,
    Sync(Box<sync::Syncing>),
}

/// How a command ends.
#[derive(Debug, Clone, PartialEq)]
struct End {
    condition: Condition,
    code: Option<ResponseCode>,
    text: &'static str,
    sync: Sync,
}

/// Whether changes are told before the tagged answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// Not now: sequence numbers must not shift.
    No,
    /// If the account is known to have moved.
    IfNewer,
    /// In any case.
    Always,
}

impl End {
    const fn ok(text: &'static str) -> Self {
        Self { condition: Condition::Ok, code: None, text, sync: Sync::IfNewer }
    }

    const fn no(code: ResponseCode, text: &'static str) -> Self {
        Self { condition: Condition::No, code: Some(code), text, sync: Sync::IfNewer }
    }

    const fn bad(text: &'static str) -> Self {
        Self { condition: Condition::Bad, code: None, text, sync: Sync::No }
    }

    /// An answer that does not fit its question: a fault of ours, said as such.
    const fn bug() -> Self {
        Self {
            condition: Condition::No,
            code: Some(ResponseCode::ServerBug),
            text: "internal error",
            sync: Sync::No,
        }
    }

    const fn with(mut self, sync: Sync) -> Self {
        self.sync = sync;
        self
    }

    /// Answers that end any command.
    fn unavailable(answer: &Answer) -> Option<Self> {
        let (code, text) = match answer {
            Answer::Unavailable => (ResponseCode::Unavailable, "try again later"),
            Answer::Full => (ResponseCode::Unavailable, "no room on the disk"),
            Answer::Closed => (ResponseCode::NonExistent, "mailbox was deleted"),
            Answer::Done
            | Answer::Mailboxes { .. }
            | Answer::Mailbox(_)
            | Answer::Opened(_)
            | Answer::Rows { .. }
            | Answer::Changes { .. }
            | Answer::Meta { .. }
            | Answer::Small { .. }
            | Answer::Content(_)
            | Answer::Stored(_)
            | Answer::Copied(_)
            | Answer::Expunged(_)
            | Answer::Found(_)
            | Answer::AppendStarted(_)
            | Answer::Appended(_) => return None,
        };
        Some(Self::no(code, text).with(Sync::No))
    }

    fn refused(why: Refused) -> Self {
        match why {
            Refused::Missing => Self::no(ResponseCode::TryCreate, "no such mailbox"),
            Refused::OverQuota => Self::no(ResponseCode::OverQuota, "mailbox is full"),
            Refused::TooLarge => Self::no(ResponseCode::TooBig, "message is too large"),
            Refused::Keywords => Self::no(ResponseCode::Limit, "too many keywords"),
            Refused::ReadOnly => Self::no(ResponseCode::Cannot, "mailbox is read-only"),
        }
    }

    const fn bad_name(why: NameError) -> Self {
        Self::no(
            ResponseCode::Cannot,
            match why {
                NameError::Encoding => "mailbox name is not validly encoded",
                NameError::Element => "mailbox name has an empty or reserved element",
                NameError::Control => "mailbox name has a control character",
                NameError::Bound => "mailbox name is too long or too deep",
            },
        )
    }
}

/// What a step of a command leads to.
enum Flow {
    Ask(Question, Task),
    Flush(Box<fetch::Fetching>),
    End(End),
}

impl Session {
    /// After log-in. `append_limit` is the largest message taken (RFC 7889).
    #[must_use]
    pub fn new(append_limit: u64, modseq: u64) -> Self {
        Self {
            append_limit,
            names: Names::Utf7,
            rev2: false,
            heard: modseq,
            selected: None,
            running: None,
            idle: None,
            append: None,
        }
    }

    /// The tagged answer of the log-in, which the process before log-in leaves to this one.
    pub fn logged_in(&mut self, tag: &Tag, out: &mut Out) {
        let code = ResponseCode::Capability(self.capabilities());
        out.status(Some(tag), Condition::Ok, Some(&code), "logged in");
    }

    /// How mailbox names travel: for [`crate::Reader::set_names`] and [`crate::parse`].
    #[must_use]
    pub const fn names(&self) -> Names {
        self.names
    }

    /// The client was told all changes of the open mailbox up to this modseq.
    #[must_use]
    pub fn applied(&self) -> Option<u64> {
        self.selected.as_ref().map(|selected| selected.modseq)
    }

    /// The mailbox that is open, and whether for writing: to open it again after the account was
    /// away.
    #[must_use]
    pub fn open(&self) -> Option<(&MailboxName, bool)> {
        self.selected.as_ref().map(|selected| (&selected.name, selected.writable))
    }

    /// Bytes on the heap, to measure idle sessions.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.selected
            .as_ref()
            .map_or(0, |selected| size_of::<Selected>().saturating_add(selected.index.heap()))
    }

    fn capabilities(&self) -> String {
        // Only what is there. STARTTLS and AUTH= are over after log-in.
        format!(
            "IMAP4rev2 IMAP4rev1 ENABLE LITERAL+ IDLE SASL-IR BINARY UNSELECT UIDPLUS ESEARCH \
             SEARCHRES MOVE LIST-EXTENDED SPECIAL-USE CREATE-SPECIAL-USE LIST-STATUS STATUS=SIZE \
             ID NAMESPACE CHILDREN APPENDLIMIT={}",
            self.append_limit
        )
    }

    /// A command was read.
    pub fn command(&mut self, command: Command, out: &mut Out) -> Next {
        let Command { tag, verb } = command;
        let flow = self.begin(&tag, verb, out);
        match flow {
            Begun::Flow(flow) => self.follow(tag, flow, out),
            Begun::Next(next) => next,
        }
    }

    /// The account answered.
    pub fn answer(&mut self, answer: Answer, out: &mut Out) -> Next {
        let Some(running) = self.running.take() else { return self.rest() };
        let Running { tag, task } = *running;
        if let Task::AppendStart(appending) = task {
            return self.append_started(appending, &answer, out);
        }
        if answer == Answer::Closed
            && let Some(selected) = &mut self.selected
        {
            selected.gone = true;
        }
        let flow = match (End::unavailable(&answer), task) {
            // On a full disk mail can still be read: only `\Seen` cannot be set.
            (Some(_), Task::Fetch(fetching)) if answer == Answer::Full => {
                self.fetching(fetching, Answer::Stored(Err(Refused::OverQuota)), out)
            }
            // Changes that cannot be read now are read later; the command itself was done.
            (Some(_), Task::Sync(syncing)) => return self.ended(&tag, &syncing.end, out),
            (Some(end), _) => Flow::End(end),
            (None, task) => self.go_on(task, answer, &tag, out),
        };
        self.follow(tag, flow, out)
    }

    /// What was gathered went out: [`Next::Flush`].
    pub fn sent(&mut self, out: &mut Out) -> Next {
        let Some(running) = self.running.take() else { return self.rest() };
        let Running { tag, task } = *running;
        // Nothing else stops to be sent.
        let Task::Fetch(fetching) = task else { return self.ended(&tag, &End::bug(), out) };
        let flow = self.fetch_on(fetching, out);
        self.follow(tag, flow, out)
    }

    /// The account is at this modseq.
    pub fn changed(&mut self, modseq: u64, out: &mut Out) -> Next {
        self.heard = self.heard.max(modseq);
        if self.running.is_some() || self.idle.is_none() {
            return self.rest();
        }
        self.look_while_idle(out)
    }

    /// A line was read during IDLE.
    pub fn line(&mut self, line: &[u8], out: &mut Out) -> Next {
        let Some(tag) = self.idle.take() else { return Next::Read };
        if !line.eq_ignore_ascii_case(b"DONE") {
            out.status(Some(&tag), Condition::Bad, None, "expected DONE");
            out.status(None, Condition::Bye, None, "protocol error");
            return Next::Close;
        }
        self.follow(tag, Flow::End(End::ok("idle is over")), out)
    }

    /// The reader refused something.
    pub fn refused(&mut self, refusal: &Refusal, out: &mut Out) -> Next {
        self.append = None;
        let (condition, code) = refusal.fault.told();
        out.status(refusal.tag.as_ref(), condition, code.as_ref(), refusal.text);
        if refusal.fatal {
            out.status(None, Condition::Bye, None, "cannot go on after that");
            return Next::Close;
        }
        self.rest()
    }

    /// A command could not be parsed.
    pub fn syntax_error(&mut self, tag: Option<&Tag>, text: &'static str, out: &mut Out) -> Next {
        out.status(tag, Condition::Bad, None, text);
        self.rest()
    }

    /// What to do when nothing runs.
    fn rest(&self) -> Next {
        if self.idle.is_some() { Next::Idle } else { Next::Read }
    }

    fn begin(&mut self, tag: &Tag, verb: Verb, out: &mut Out) -> Begun {
        let flow = match verb {
            Verb::Capability => {
                out.untagged(format_args!("CAPABILITY {}", self.capabilities()));
                Flow::End(End::ok("done"))
            }
            Verb::Noop => Flow::End(End::ok("done").with(Sync::Always)),
            Verb::Check => match self.usable() {
                Ok(_) => Flow::End(End::ok("done").with(Sync::Always)),
                Err(end) => Flow::End(end),
            },
            Verb::Logout => {
                out.status(None, Condition::Bye, None, "logging out");
                out.status(Some(tag), Condition::Ok, None, "done");
                return Begun::Next(Next::Close);
            }
            Verb::Id(_) => {
                out.text("* ID (\"name\" \"mox\")\r\n");
                Flow::End(End::ok("done"))
            }
            Verb::StartTls | Verb::Authenticate { .. } | Verb::Login(_) => {
                Flow::End(End::bad("already logged in"))
            }
            Verb::Enable(wanted) => self.enable(&wanted, out),
            Verb::Select { mailbox, read_only } => self.select(mailbox, read_only, out),
            Verb::Create { mailbox, role } => change::create(mailbox, role),
            Verb::Delete(mailbox) => change::delete(mailbox),
            Verb::Rename { from, to } => change::rename(from, to),
            Verb::Subscribe { mailbox, on } => change::subscribe(mailbox, on),
            Verb::List(command) => self.list(command, out),
            Verb::Lsub(pattern) => list::lsub(pattern),
            Verb::Namespace => {
                out.text("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
                Flow::End(End::ok("done"))
            }
            Verb::Status { mailbox, items } => list::status(mailbox, items),
            Verb::Idle => {
                out.text("+ idling\r\n");
                self.idle = Some(tag.clone());
                return Begun::Next(self.look_while_idle(out));
            }
            Verb::Close => self.close(),
            Verb::Unselect => match self.selected.take() {
                Some(_) => Flow::Ask(Question::Release, Task::Release(End::ok("done"))),
                None => Flow::End(not_selected()),
            },
            Verb::Expunge(set) => self.expunge(set.as_ref()),
            Verb::Search(command) => self.search(tag, command, out),
            Verb::Fetch(command) => self.fetch(command, out),
            Verb::Store(command) => self.store(command),
            Verb::Copy { set, uid, to, and_remove } => self.copy(&set, uid, to, and_remove),
        };
        Begun::Flow(flow)
    }

    fn go_on(&mut self, task: Task, answer: Answer, tag: &Tag, out: &mut Out) -> Flow {
        match task {
            Task::Mailbox => change::mailbox_done(answer, out),
            Task::List(listing) => self.listed(&listing, answer, out),
            Task::Select(selecting) => self.selecting(selecting, answer, out),
            Task::Release(end) => Flow::End(end),
            Task::Fetch(fetching) => self.fetching(fetching, answer, out),
            Task::Search(searching) => self.searching(searching, answer, tag, out),
            Task::Store(storing) => self.storing(storing, answer, out),
            Task::Copy { moving } => self.copied(moving, answer, out),
            Task::MoveToNamesake(namesake) => self.move_to_namesake(*namesake, &answer),
            Task::Expunge { closing } => self.expunged(closing, &answer),
            // Handled before: what follows it is no tagged answer.
            Task::AppendStart(_) => Flow::End(End::bug()),
            Task::Commit => self.committed(&answer),
            Task::Sync(syncing) => self.syncing(syncing, answer, out),
        }
    }

    fn follow(&mut self, tag: Tag, flow: Flow, out: &mut Out) -> Next {
        match flow {
            Flow::Ask(question, task) => {
                self.running = Some(Box::new(Running { tag, task }));
                Next::Ask(question)
            }
            Flow::Flush(fetching) => {
                let task = Task::Fetch(fetching);
                self.running = Some(Box::new(Running { tag, task }));
                Next::Flush
            }
            Flow::End(end) => {
                let wanted = match end.sync {
                    Sync::No => false,
                    Sync::Always => self.selected.is_some(),
                    Sync::IfNewer => self.selected.as_ref().is_some_and(|s| s.modseq < self.heard),
                };
                match self.selected.as_ref().filter(|selected| wanted && !selected.gone) {
                    Some(selected) => {
                        let since = selected.modseq;
                        let syncing = sync::Syncing::new(End { sync: Sync::No, ..end });
                        let task = Task::Sync(Box::new(syncing));
                        self.running = Some(Box::new(Running { tag, task }));
                        Next::Ask(Question::Changes { since })
                    }
                    None => self.ended(&tag, &end, out),
                }
            }
        }
    }

    /// The tagged answer, unless it was IDLE that looked.
    fn ended(&mut self, tag: &Tag, end: &End, out: &mut Out) -> Next {
        if self.idle.is_none() {
            out.status(Some(tag), end.condition, end.code.as_ref(), end.text);
        }
        self.rest()
    }

    fn enable(&mut self, wanted: &[String], out: &mut Out) -> Flow {
        out.text("* ENABLED");
        // RFC 5161 §3.1: what is not known is passed over.
        if wanted.iter().any(|word| word == "IMAP4REV2") {
            self.rev2 = true;
            self.names = Names::Utf8;
            out.text(" IMAP4rev2");
        }
        out.text("\r\n");
        Flow::End(End::ok("done"))
    }

    /// The selected mailbox, if commands on it make sense.
    fn usable(&mut self) -> Result<&mut Selected, End> {
        match &mut self.selected {
            None => Err(not_selected()),
            Some(selected) if selected.gone => {
                Err(End::no(ResponseCode::NonExistent, "mailbox was deleted"))
            }
            Some(selected) => Ok(selected),
        }
    }
}

enum Begun {
    Flow(Flow),
    Next(Next),
}

const fn not_selected() -> End {
    End {
        condition: Condition::No,
        code: Some(ResponseCode::ClientBug),
        text: "no mailbox is selected",
        sync: Sync::No,
    }
}

impl Selected {
    /// The UIDs that a set names. A sequence number above EXISTS is BAD (RFC 9051 §9).
    fn resolve(&self, set: &SequenceSet, uid: bool) -> Result<NumberSet, End> {
        if uid || set.is_saved() {
            let star = self.index.last_uid().unwrap_or(0);
            return Ok(set.resolve(star, &self.saved).intersect(&self.index.uids()));
        }
        if !set.fits(self.index.len()) {
            return Err(End::bad("no such sequence number"));
        }
        Ok(self.index.uids_of(&set.resolve(self.index.len(), &self.saved)))
    }

    /// Remembers what the client was told, until the next look. What does not fit is told again,
    /// which is harmless.
    fn remember_told(&mut self, uid: u32, flags: &Flags) {
        const MOST: usize = 256;
        if self.told.len() < MOST {
            self.told.insert(uid, flags.clone());
        }
    }

    /// A change of this client took `modseq`. Whether it follows on what the client knows: were
    /// there a change of somebody else between, its flags could hide behind this one's.
    fn took(&mut self, modseq: u64) -> bool {
        let next = modseq == self.own.saturating_add(1);
        if next {
            self.own = modseq;
        }
        next
    }

    /// Remembers a change with .SILENT.
    fn remember_silent(&mut self, modseq: u64, uids: NumberSet) {
        const MOST: usize = 16;
        if self.silent.len() < MOST {
            self.silent.push((modseq, uids));
        }
    }

    fn is_known(&self, uid: u32, modseq: u64, flags: &Flags) -> bool {
        self.told.get(&uid) == Some(flags)
            || self.silent.iter().any(|(own, uids)| *own == modseq && uids.contains(uid))
    }
}

#[cfg(test)]
mod tests;
