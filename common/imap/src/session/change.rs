//! Commands that change something: mailboxes, flags, copies, removal, APPEND.

use super::{
    Answer, End, Flow, MailboxOutcome, Next, Question, Refused, Running, Session, Sync, Task,
    not_selected,
};
use crate::{
    command::{Append, Named, Store, StoreHow, Tag},
    date::DateTime,
    flags::{Flag, Flags, System},
    name::{MailboxName, SpecialUse},
    out::Out,
    response::{Condition, ResponseCode},
    set::{NumberSet, SequenceSet},
};

/// An APPEND whose message is coming, or was refused while it comes.
#[derive(Debug)]
pub(super) struct Appending {
    pub(super) tag: Tag,
    waits: bool,
    refused: Option<End>,
}

/// A STORE under way.
#[derive(Debug)]
pub(super) struct Storing {
    uid: bool,
    silent: bool,
    /// What the client is still to be told of.
    left: NumberSet,
    /// Something of it was there.
    found: bool,
    end: End,
}

/// A MOVE to a mailbox of the name of the selected one, which may be another by now.
#[derive(Debug)]
pub(super) struct Namesake {
    uids: NumberSet,
    to: MailboxName,
}

pub(super) fn create(mailbox: Named, role: Result<Option<SpecialUse>, ()>) -> Flow {
    match (mailbox, role) {
        (Err(why), _) => Flow::End(End::bad_name(why)),
        (Ok(_), Err(())) => {
            Flow::End(End::no(ResponseCode::UseAttr, "no mailbox can have that use here"))
        }
        (Ok(name), Ok(_)) if name.is_inbox() => {
            Flow::End(End::no(ResponseCode::AlreadyExists, "the inbox is always there"))
        }
        (Ok(name), Ok(role)) => Flow::Ask(Question::Create(name, role), Task::Mailbox),
    }
}

pub(super) fn delete(mailbox: Named) -> Flow {
    match mailbox {
        Err(why) => Flow::End(End::bad_name(why)),
        Ok(name) if name.is_inbox() => {
            Flow::End(End::no(ResponseCode::Cannot, "the inbox cannot be deleted"))
        }
        Ok(name) => Flow::Ask(Question::Delete(name), Task::Mailbox),
    }
}

pub(super) fn rename(from: Named, to: Named) -> Flow {
    match (from, to) {
        (Err(why), _) | (_, Err(why)) => Flow::End(End::bad_name(why)),
        (Ok(_), Ok(to)) if to.is_inbox() => {
            Flow::End(End::no(ResponseCode::AlreadyExists, "the inbox is always there"))
        }
        (Ok(from), Ok(to)) => Flow::Ask(Question::Rename(from, to), Task::Mailbox),
    }
}

pub(super) fn subscribe(mailbox: Named, on: bool) -> Flow {
    match mailbox {
        Err(why) => Flow::End(End::bad_name(why)),
        Ok(name) => Flow::Ask(Question::Subscribe(name, on), Task::Mailbox),
    }
}

pub(super) fn mailbox_done(answer: Answer, out: &mut Out) -> Flow {
    let Answer::Mailbox(outcome) = answer else { return Flow::End(End::bug()) };
    Flow::End(match outcome {
        MailboxOutcome::Done => End::ok("done"),
        MailboxOutcome::Exists => End::no(ResponseCode::AlreadyExists, "mailbox exists"),
        MailboxOutcome::Missing => End::no(ResponseCode::NonExistent, "no such mailbox"),
        MailboxOutcome::HasChildren => End::no(ResponseCode::HasChildren, "mailbox has children"),
        MailboxOutcome::ReadOnly => End::no(ResponseCode::Cannot, "not allowed"),
        // RFC 5530 §3.
        MailboxOutcome::Limit => End::no(ResponseCode::Limit, "too many mailboxes"),
        MailboxOutcome::Cannot(why) => {
            // The account's words may hold what a person named; they go where text is escaped.
            let clean: String = why.chars().filter(|c| matches!(c, ' '..='~')).take(200).collect();
            out.status(None, Condition::No, None, clean.trim_start_matches('['));
            End::no(ResponseCode::Cannot, "refused")
        }
    })
}

impl Storing {
    /// The end, unless nothing was there to change: then the mailbox itself may be gone.
    fn stored(self, since: u64) -> Flow {
        if self.found {
            return Flow::End(self.end);
        }
        Flow::Ask(Question::Changes { since }, Task::Store(self))
    }
}

impl Session {
    pub(super) fn store(&mut self, command: Store) -> Flow {
        let selected = match self.usable() {
            Ok(selected) => selected,
            Err(end) => return Flow::End(end),
        };
        if !selected.writable {
            return Flow::End(End::refused(Refused::ReadOnly).with(Sync::No));
        }
        let uids = match selected.resolve(&command.set, command.uid) {
            Ok(uids) => uids,
            Err(end) => return Flow::End(end),
        };
        let sync = if command.uid { Sync::IfNewer } else { Sync::No };
        let end = End::ok("done").with(sync);
        let adds_nothing = command.how != StoreHow::Replace && command.flags.is_empty();
        if uids.is_empty() || adds_nothing {
            return Flow::End(end);
        }
        let (uid, silent) = (command.uid, command.silent);
        let storing = Storing { uid, silent, left: uids.clone(), found: false, end };
        let uids = selected.index.widen(&uids);
        let question = Question::Store { uids, how: command.how, flags: command.flags };
        Flow::Ask(question, Task::Store(storing))
    }

    pub(super) fn storing(&mut self, mut storing: Storing, answer: Answer, out: &mut Out) -> Flow {
        let Some(selected) = &mut self.selected else { return Flow::End(End::bug()) };
        if let Answer::Stored(stored) = answer {
            match stored {
                Err(why) => return Flow::End(End::refused(why).with(storing.end.sync)),
                Ok(modseq) => {
                    storing.found = modseq > 0;
                    // RFC 9051 §6.4.6: .SILENT is about this change and no other.
                    if selected.took(modseq) && storing.silent {
                        selected.remember_silent(modseq, storing.left.clone());
                    }
                    self.heard = self.heard.max(modseq);
                }
            }
            if storing.silent {
                return storing.stored(selected.modseq);
            }
        } else if let Answer::Changes { gone, .. } = answer {
            // What else changed is told when it may be.
            if gone {
                selected.gone = true;
                let end = End::no(ResponseCode::NonExistent, "mailbox was deleted");
                return Flow::End(end.with(Sync::No));
            }
            return Flow::End(storing.end);
        } else if let Answer::Rows { rows, more, .. } = answer {
            storing.found |= !rows.is_empty();
            for row in &rows {
                let seq = selected.index.seq(row.uid);
                if let (Some(seq), true) = (seq, storing.left.contains(row.uid)) {
                    selected.tell_keywords(&row.flags, out);
                    selected.remember_told(row.uid, &row.flags);
                    out.show(format_args!("* {seq} FETCH ("));
                    if storing.uid {
                        out.show(format_args!("UID {} ", row.uid));
                    }
                    out.show(format_args!("FLAGS ({}))\r\n", row.flags));
                }
            }
            let done = rows.last().filter(|_| more).map_or(u32::MAX, |last| last.uid);
            storing.left = storing.left.without(&NumberSet::from_ranges([(1, done)]));
        } else {
            return Flow::End(End::bug());
        }
        match (storing.left.min(), storing.left.max()) {
            (Some(from), Some(to)) => Flow::Ask(Question::Rows { from, to }, Task::Store(storing)),
            (_, _) => storing.stored(selected.modseq),
        }
    }

    pub(super) fn copy(
        &mut self,
        set: &SequenceSet,
        uid: bool,
        to: Named,
        and_remove: bool,
    ) -> Flow {
        let selected = match self.usable() {
            Ok(selected) => selected,
            Err(end) => return Flow::End(end),
        };
        let uids = match selected.resolve(set, uid) {
            Ok(uids) => uids,
            Err(end) => return Flow::End(end),
        };
        let to = match to {
            Ok(to) => to,
            Err(why) => return Flow::End(End::bad_name(why)),
        };
        if and_remove && !selected.writable {
            return Flow::End(End::refused(Refused::ReadOnly));
        }
        // RFC 9051 §6.4.9: UIDs that are not there are no error.
        if uids.is_empty() {
            return Flow::End(End::ok("nothing to do"));
        }
        let uids = selected.index.widen(&uids);
        if and_remove && to == selected.name {
            let task = Task::MoveToNamesake(Box::new(Namesake { uids, to }));
            return Flow::Ask(Question::Mailboxes, task);
        }
        Flow::Ask(Question::Copy { uids, to, and_remove }, Task::Copy { moving: and_remove })
    }

    /// The selected mailbox may have been renamed, and another one made of its name: UIDVALIDITY
    /// tells them apart, which no two mailboxes of an account share.
    pub(super) fn move_to_namesake(&self, namesake: Namesake, answer: &Answer) -> Flow {
        let (Answer::Mailboxes { list, .. }, Some(selected)) = (answer, &self.selected) else {
            return Flow::End(End::bug());
        };
        let Namesake { uids, to } = namesake;
        let there = list.iter().find(|info| info.name == to);
        if there.is_some_and(|info| info.uid_validity == selected.uid_validity) {
            return Flow::End(End::no(ResponseCode::Cannot, "it is there already"));
        }
        Flow::Ask(Question::Copy { uids, to, and_remove: true }, Task::Copy { moving: true })
    }

    pub(super) fn copied(&mut self, moving: bool, answer: Answer, out: &mut Out) -> Flow {
        let Answer::Copied(result) = answer else { return Flow::End(End::bug()) };
        let copied = match result {
            Ok(copied) => copied,
            Err(why) => return Flow::End(End::refused(why)),
        };
        self.heard = self.heard.max(copied.modseq);
        if copied.from.is_empty() {
            // All were removed by somebody meanwhile.
            return Flow::End(End {
                code: Some(ResponseCode::ExpungeIssued),
                ..End::ok("nothing left to do")
            });
        }
        let code = ResponseCode::CopyUid(copied.uid_validity, copied.from, copied.to);
        if moving {
            // RFC 6851 §4.3: before the EXPUNGE responses.
            out.status(None, Condition::Ok, Some(&code), "moved");
            return Flow::End(End::ok("done").with(Sync::Always));
        }
        Flow::End(End { code: Some(code), ..End::ok("copied") })
    }

    pub(super) fn expunge(&mut self, set: Option<&SequenceSet>) -> Flow {
        let selected = match self.usable() {
            Ok(selected) => selected,
            Err(end) => return Flow::End(end),
        };
        if !selected.writable {
            return Flow::End(End::refused(Refused::ReadOnly));
        }
        // Only what this session knows: a message that arrived unseen is not its to remove.
        let uids = match set.map(|set| selected.resolve(set, true)) {
            None => selected.index.uids(),
            Some(Ok(uids)) => uids,
            Some(Err(end)) => return Flow::End(end),
        };
        if uids.is_empty() {
            return Flow::End(End::ok("done"));
        }
        let uids = selected.index.widen(&uids);
        Flow::Ask(Question::Expunge(uids), Task::Expunge { closing: false })
    }

    pub(super) fn close(&mut self) -> Flow {
        let Some(selected) = &self.selected else { return Flow::End(not_selected()) };
        let uids = selected.index.uids();
        if !selected.writable || selected.gone || uids.is_empty() {
            self.selected = None;
            return Flow::Ask(Question::Release, Task::Release(End::ok("closed")));
        }
        let uids = selected.index.widen(&uids);
        Flow::Ask(Question::Expunge(uids), Task::Expunge { closing: true })
    }

    pub(super) fn expunged(&mut self, closing: bool, answer: &Answer) -> Flow {
        let Answer::Expunged(result) = answer else { return Flow::End(End::bug()) };
        match result {
            Err(why) => Flow::End(End::refused(*why)),
            Ok(modseq) => {
                self.heard = self.heard.max(*modseq);
                if closing {
                    // RFC 9051 §6.4.1: without EXPUNGE responses.
                    self.selected = None;
                    return Flow::Ask(Question::Release, Task::Release(End::ok("closed")));
                }
                Flow::End(End::ok("done").with(Sync::Always))
            }
        }
    }

    /// The beginning of an APPEND was read.
    pub fn append(&mut self, append: Append, out: &mut Out) -> Next {
        match begin_append(append) {
            (appending, Ok(question)) => {
                let tag = appending.tag.clone();
                let task = Task::AppendStart(Box::new(appending));
                self.running = Some(Box::new(Running { tag, task }));
                Next::Ask(question)
            }
            (appending, Err(end)) => self.refuse_append(Box::new(appending), end, out),
        }
    }

    /// A client that waits is told now; one that sends anyway is told when all has come.
    fn refuse_append(&mut self, mut appending: Box<Appending>, end: End, out: &mut Out) -> Next {
        if appending.waits {
            out.status(Some(&appending.tag), end.condition, end.code.as_ref(), end.text);
        } else {
            appending.refused = Some(end);
            self.append = Some(appending);
        }
        Next::Message(false)
    }

    /// The account said whether it takes the message of an APPEND.
    pub(super) fn append_started(
        &mut self,
        appending: Box<Appending>,
        answer: &Answer,
        out: &mut Out,
    ) -> Next {
        let refused = if let Answer::AppendStarted(started) = answer {
            started.err().map(End::refused)
        } else {
            Some(End::unavailable(answer).unwrap_or(End::bug()))
        };
        match refused {
            None => {
                self.append = Some(appending);
                Next::Message(true)
            }
            Some(end) => self.refuse_append(appending, end, out),
        }
    }

    /// The message could not be passed on: the account went away while it came.
    pub fn message_failed(&mut self) {
        if let Some(appending) = &mut self.append {
            appending.refused.get_or_insert(End::no(ResponseCode::Unavailable, "try again later"));
        }
    }

    /// The message of an APPEND has come, and the command is over.
    pub fn message_end(&mut self, out: &mut Out) -> Next {
        let Some(appending) = self.append.take() else { return self.rest() };
        let tag = appending.tag;
        let flow = match appending.refused {
            Some(end) => Flow::End(end),
            None => Flow::Ask(Question::Commit, Task::Commit),
        };
        self.follow(tag, flow, out)
    }

    pub(super) fn committed(&mut self, answer: &Answer) -> Flow {
        let Answer::Appended(result) = answer else { return Flow::End(End::bug()) };
        Flow::End(match result {
            Err(why) => End::refused(*why),
            Ok(stored) => {
                self.heard = self.heard.max(stored.modseq);
                let code = ResponseCode::AppendUid(stored.uid_validity, stored.uid);
                End { code: Some(code), ..End::ok("stored") }
            }
        })
    }

    /// Sets `\Seen` for a FETCH that reads bodies.
    pub(super) fn mark_seen(uids: NumberSet) -> Question {
        let flags: Flags = [Flag::System(System::Seen)].into_iter().collect();
        Question::Store { uids, how: StoreHow::Add, flags }
    }
}

/// What to ask for an APPEND, or how it is refused before anything is asked.
fn begin_append(append: Append) -> (Appending, Result<Question, End>) {
    let Append { tag, mailbox, flags, date, size, binary, waits } = append;
    let appending = Appending { tag, waits, refused: None };
    let mailbox = match mailbox {
        Err(why) => return (appending, Err(End::bad_name(why))),
        Ok(_) if size == 0 => {
            let end = End::no(ResponseCode::ClientBug, "a message cannot be empty");
            return (appending, Err(end));
        }
        Ok(mailbox) => mailbox,
    };
    let received = match date.map(DateTime::nanoseconds) {
        // A date of the grammar that would be told as another one later.
        Some(None) => {
            let why = "dates before 21-Sep-1677 and after 11-Apr-2262 cannot be kept";
            return (appending, Err(End::no(ResponseCode::Cannot, why)));
        }
        Some(Some(received)) => Some(received),
        None => None,
    };
    (appending, Ok(Question::Append { mailbox, flags, received, size, binary }))
}
