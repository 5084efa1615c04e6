//! FETCH: what to read for it, batch by batch.
//!
//! A batch is at most some hundred messages, of whose facts and contents one answer of the account
//! is held at a time, and one that was asked for ahead: memory does not depend on how much a client
//! asks for. Rows are read a page at
//! a time, stored facts and small contents as they are written; larger contents are left to the
//! process, which streams them from the account while it writes. What is written stops to be sent
//! at [`FLUSH`], between the items of a message too: a client that does not read has one item
//! standing here, whatever it asked for. After [`WORK`] others get their turn.

use super::{
    Answer, End, Flow, Meta, Question, Row, Selected, Session, Small, Sync, Task,
    render::{Facts, HeaderBlock, Message},
};
use crate::{
    command::{Fetch, FetchItem, SectionText},
    flags::{Flag, System},
    out::Out,
    response::ResponseCode,
    set::NumberSet,
};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

/// Messages of a batch: as many as the facts of usual ones fill one answer.
const BATCH: u32 = 512;
/// Contents up to here come whole; the account stores them so.
const SMALL: u32 = 64 * 1024;
/// Octets of a header block that HEADER.FIELDS looks at; the parser reads no more either.
const HEADER: u64 = 1024 * 1024;
/// Octets written before they are sent.
pub const FLUSH: usize = 64 * 1024;
/// Octets looked at, whatever is written of them, before others get their turn.
const WORK: u64 = 1024 * 1024;

/// A FETCH under way.
#[derive(Debug)]
pub(super) struct Fetching {
    uid: bool,
    items: Vec<FetchItem>,
    needs: Needs,
    /// Not begun.
    left: NumberSet,
    /// Rows read and not begun.
    rows: VecDeque<Row>,
    batch: Batch,
    /// Something that was asked for is gone.
    missing: bool,
    /// BINARY of an encoding nobody knows.
    unknown_encoding: bool,
}

/// What the items need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Needs {
    row: bool,
    envelope: bool,
    structure: bool,
    content: bool,
    seen: bool,
}

#[derive(Debug, Default)]
struct Batch {
    left: NumberSet,
    rows: BTreeMap<u32, Row>,
    /// Messages this FETCH set `\Seen` on.
    marked: NumberSet,
    asked_seen: bool,
    metas: BTreeMap<u32, Meta>,
    /// Where reading of facts goes on when those before it are written; None when all were read.
    meta_from: Option<u32>,
    smalls: BTreeMap<u32, Small>,
    /// The header block of the first message left that was read last; never two at a time.
    header: Option<HeaderBlock>,
    /// Where the one begins that was asked for.
    asked_header: Option<u64>,
    /// The message that is being written.
    current: Option<Current>,
    /// Octets looked at since the last stop.
    work: u64,
}

/// A message of which something was written.
#[derive(Debug)]
struct Current {
    uid: u32,
    /// Items of it that are done.
    done: usize,
    /// Nothing stands behind the parenthesis.
    first: bool,
}

enum Wrote {
    /// All of it.
    Whole,
    /// What was written is to be sent first.
    Part,
    /// A header block is needed.
    Needs(Question),
}

impl Needs {
    fn of(items: &[FetchItem]) -> Self {
        let mut needs = Self::default();
        for item in items {
            match item {
                FetchItem::Uid => {}
                FetchItem::Flags | FetchItem::InternalDate | FetchItem::Size => needs.row = true,
                FetchItem::Envelope => needs.envelope = true,
                FetchItem::Body | FetchItem::BodyStructure => {
                    needs.envelope = true;
                    needs.structure = true;
                }
                FetchItem::Rfc822 => needs.whole(true),
                FetchItem::Section { path, text: SectionText::All, peek, .. }
                | FetchItem::Binary { path, peek, .. }
                    if path.is_empty() =>
                {
                    needs.whole(!*peek);
                }
                FetchItem::Rfc822Text => needs.part(true),
                FetchItem::Rfc822Header => needs.part(false),
                FetchItem::Section { peek, .. } | FetchItem::Binary { peek, .. } => {
                    needs.part(!*peek);
                }
                FetchItem::BinarySize(_) => needs.part(false),
            }
        }
        needs
    }

    /// All of a content: where its parts are does not matter.
    fn whole(&mut self, seen: bool) {
        self.content = true;
        self.seen |= seen;
    }

    fn part(&mut self, seen: bool) {
        self.structure = true;
        self.whole(seen);
    }
}

impl Session {
    pub(super) fn fetch(&mut self, command: Fetch, out: &mut Out) -> Flow {
        let Fetch { set, uid, items } = command;
        let mut needs = Needs::of(&items);
        let resolved = self.usable().and_then(|selected| {
            needs.seen &= selected.writable;
            needs.row |= needs.seen;
            selected.resolve(&set, uid)
        });
        let left = match resolved {
            Ok(left) => left,
            Err(end) => return Flow::End(end),
        };
        let fetching = Fetching {
            uid,
            items,
            needs,
            left,
            rows: VecDeque::new(),
            batch: Batch::default(),
            missing: false,
            unknown_encoding: false,
        };
        self.fetch_on(Box::new(fetching), out)
    }

    pub(super) fn fetching(
        &mut self,
        mut fetching: Box<Fetching>,
        answer: Answer,
        out: &mut Out,
    ) -> Flow {
        if let Answer::Rows { rows, more, .. } = answer {
            fetching.take_rows(rows, more);
        } else if let Answer::Stored(stored) = answer {
            // Read-only or full: the bodies are read all the same.
            if let Ok(modseq) = stored {
                self.heard = self.heard.max(modseq);
                if let Some(selected) = &mut self.selected {
                    selected.took(modseq);
                }
                fetching.batch.set_seen();
            } else {
                fetching.batch.marked = NumberSet::new();
            }
        } else if let Answer::Meta { items, next } = answer {
            fetching.batch.metas.extend(items.into_iter().map(|meta| (meta.uid, meta)));
            fetching.batch.meta_from = next;
        } else if let Answer::Small { items, next } = answer {
            fetching.take_small(items, next);
        } else if let (Answer::Content(content), Some(start)) =
            (answer, fetching.batch.asked_header.take())
        {
            let octets = content.unwrap_or_default();
            fetching.batch.header = Some(HeaderBlock { start, octets });
        } else {
            return Flow::End(End::bug());
        }
        self.fetch_on(fetching, out)
    }

    /// Asks for what is missing next, and writes what is complete.
    pub(super) fn fetch_on(&mut self, mut fetching: Box<Fetching>, out: &mut Out) -> Flow {
        let rev2 = self.rev2;
        let Some(selected) = &mut self.selected else { return Flow::End(End::bug()) };
        loop {
            if fetching.batch.left.is_empty() {
                match fetching.next_batch(selected, rev2, out) {
                    Batched::More => {}
                    Batched::Ask(question) => return Flow::Ask(question, Task::Fetch(fetching)),
                    Batched::Flush => return Flow::Flush(fetching),
                    Batched::Over => return Flow::End(fetching.end()),
                }
            }
            if let Some(question) = fetching.facts() {
                return Flow::Ask(question, Task::Fetch(fetching));
            }
            while let Some(uid) = fetching.batch.left.min() {
                if fetching.awaits_facts(uid) {
                    break;
                }
                if fetching.needs.content && !fetching.batch.smalls.contains_key(&uid) {
                    let uids = fetching.batch.left.clone();
                    let question = Question::Small { uids, most: SMALL };
                    return Flow::Ask(question, Task::Fetch(fetching));
                }
                match fetching.write(uid, selected, rev2, out) {
                    Wrote::Needs(question) => return Flow::Ask(question, Task::Fetch(fetching)),
                    Wrote::Part => return Flow::Flush(fetching),
                    Wrote::Whole if fetching.is_due(out) => return Flow::Flush(fetching),
                    Wrote::Whole => {}
                }
            }
        }
    }
}

impl Batch {
    fn set_seen(&mut self) {
        for row in self.rows.values_mut() {
            if self.marked.contains(row.uid) {
                row.flags.insert(Flag::System(System::Seen));
            }
        }
    }
}

enum Batched {
    More,
    Ask(Question),
    Flush,
    Over,
}

impl Fetching {
    fn end(&self) -> End {
        let sync = if self.uid { Sync::IfNewer } else { Sync::No };
        if self.unknown_encoding {
            return End::no(ResponseCode::UnknownCte, "an encoding is not known").with(sync);
        }
        let code = self.missing.then_some(ResponseCode::ExpungeIssued);
        End { code, ..End::ok("done").with(sync) }
    }

    fn take_rows(&mut self, rows: Vec<Row>, more: bool) {
        let reached = match rows.last() {
            Some(last) if more => last.uid,
            Some(_) | None => u32::MAX,
        };
        let here = self.left.intersect(&NumberSet::from_ranges([(1, reached)]));
        self.left = self.left.without(&here);
        let expected = here.len();
        for row in rows {
            if here.contains(row.uid) {
                self.rows.push_back(row);
            }
        }
        self.missing |= u64::try_from(self.rows.len()).unwrap_or(u64::MAX) < expected;
    }

    fn take_small(&mut self, items: Vec<Small>, next: Option<u32>) {
        self.batch.smalls.extend(items.into_iter().map(|small| (small.uid, small)));
        let end = next.unwrap_or(u32::MAX);
        // What should have come before `next` and did not is gone.
        let expected: Vec<u32> = self.batch.left.iter().take_while(|&uid| uid < end).collect();
        for uid in expected {
            if !self.batch.smalls.contains_key(&uid) {
                self.drop_message(uid);
            }
        }
    }

    fn next_batch(&mut self, selected: &mut Selected, rev2: bool, out: &mut Out) -> Batched {
        let facts = self.needs.envelope || self.needs.structure || self.needs.content;
        if self.needs.row && !facts {
            // A whole page at once: listing flags of a large mailbox.
            while let Some((&uid, _)) = self.batch.rows.first_key_value() {
                self.write(uid, selected, rev2, out);
                if self.is_due(out) {
                    return Batched::Flush;
                }
            }
        }
        self.batch = Batch::default();
        if self.needs.row {
            if self.rows.is_empty() {
                return match (self.left.min(), self.left.max()) {
                    (Some(from), Some(to)) => Batched::Ask(Question::Rows { from, to }),
                    (_, _) => Batched::Over,
                };
            }
            if !facts {
                for row in std::mem::take(&mut self.rows) {
                    self.batch.rows.insert(row.uid, row);
                }
                return Batched::More;
            }
            let count = self.rows.len().min(usize::try_from(BATCH).unwrap_or(usize::MAX));
            for row in self.rows.drain(..count) {
                self.batch.left.push(row.uid);
                self.batch.rows.insert(row.uid, row);
            }
        } else {
            if self.left.is_empty() {
                return Batched::Over;
            }
            self.batch.left = self.left.take_first(BATCH);
        }
        self.batch.meta_from = self.batch.left.min();
        Batched::More
    }

    /// Whether the facts of a message were not read yet.
    fn awaits_facts(&self, uid: u32) -> bool {
        let wanted = self.needs.envelope || self.needs.structure;
        wanted && self.batch.meta_from.is_some_and(|from| uid >= from)
    }

    /// What is to be read before the next message of the batch is written.
    fn facts(&mut self) -> Option<Question> {
        if self.needs.seen && !self.batch.asked_seen {
            self.batch.asked_seen = true;
            let unseen = self.batch.rows.values().filter(|row| !row.flags.has(System::Seen));
            self.batch.marked = unseen.map(|row| row.uid).collect();
            if !self.batch.marked.is_empty() {
                return Some(Session::mark_seen(self.batch.marked.clone()));
            }
        }
        let (from, first) = (self.batch.meta_from?, self.batch.left.min()?);
        if !self.awaits_facts(first) {
            return None;
        }
        let uids = self.batch.left.intersect(&NumberSet::from_ranges([(from, u32::MAX)]));
        let (envelope, structure) = (self.needs.envelope, self.needs.structure);
        Some(Question::Meta { uids, envelope, structure })
    }

    fn drop_message(&mut self, uid: u32) {
        self.missing = true;
        self.finish(uid);
    }

    fn finish(&mut self, uid: u32) {
        let batch = &mut self.batch;
        batch.left = batch.left.without(&NumberSet::from_iter([uid]));
        batch.rows.remove(&uid);
        batch.metas.remove(&uid);
        batch.smalls.remove(&uid);
        batch.header = None;
        batch.current = None;
    }

    /// Whether it is time to send, or to let others have their turn.
    fn is_due(&mut self, out: &Out) -> bool {
        let due = out.len() >= FLUSH || self.batch.work >= WORK;
        if due {
            self.batch.work = 0;
        }
        due
    }

    /// Writes a message or some items of it, or asks for a header block it needs.
    fn write(&mut self, uid: u32, selected: &mut Selected, rev2: bool, out: &mut Out) -> Wrote {
        let Some(seq) = selected.index.seq(uid) else {
            self.drop_message(uid);
            return Wrote::Whole;
        };
        let facts = self.needs.envelope || self.needs.structure;
        let meta = self.batch.metas.get(&uid);
        if facts && meta.is_none() {
            self.drop_message(uid);
            return Wrote::Whole;
        }
        let current = self.batch.current.take().filter(|current| current.uid == uid);
        let Current { mut done, mut first, .. } =
            current.unwrap_or(Current { uid, done: 0, first: true });
        // Decoded once for all items up to a stop. Not kept over it: that would be some megabytes
        // for each client that does not read.
        let facts = meta.map(Facts::of).unwrap_or_default();
        self.batch.work = self.batch.work.saturating_add(facts.octets);
        let row = self.batch.rows.get(&uid);
        let (small, header) = (self.batch.smalls.get(&uid), self.batch.header.as_ref());
        let message = Message::new(uid, row, &facts, small, header, rev2);
        if first {
            let item = self.items.first();
            if let Some(range) = item.and_then(|item| message.header_to_read(item)) {
                return self.read_header(range, Current { uid, done, first });
            }
            if let Some(row) = row {
                let wants_flags = self.items.contains(&FetchItem::Flags);
                if wants_flags || self.batch.marked.contains(uid) {
                    selected.tell_keywords(&row.flags, out);
                }
            }
            out.show(format_args!("* {seq} FETCH ("));
        }
        let mut gap = |out: &mut Out| {
            if !std::mem::take(&mut first) {
                out.text(" ");
            }
        };
        if done == 0 && (self.uid || self.items.contains(&FetchItem::Uid)) {
            gap(out);
            out.show(format_args!("UID {uid}"));
        }
        let mut stop = false;
        for item in self.items.iter().skip(done) {
            // Of the first item it was read before the message was begun.
            if let Some(range) = message.header_to_read(item) {
                return self.read_header(range, Current { uid, done, first });
            }
            done = done.saturating_add(1);
            if *item == FetchItem::Uid {
                continue;
            }
            gap(out);
            self.batch.work = self.batch.work.saturating_add(message.work(item));
            if message.write(item, out).is_err() {
                self.unknown_encoding = true;
            }
            stop = out.len() >= FLUSH || self.batch.work >= WORK;
            if stop {
                break;
            }
        }
        if stop && done < self.items.len() {
            self.batch.work = 0;
            self.batch.current = Some(Current { uid, done, first });
            return Wrote::Part;
        }
        // RFC 9051 §6.4.5: a flag set by reading is told in the same response.
        if let Some(row) = row.filter(|_| self.batch.marked.contains(uid)) {
            if !self.items.contains(&FetchItem::Flags) {
                gap(out);
                out.show(format_args!("FLAGS ({})", row.flags));
            }
            selected.remember_told(uid, &row.flags);
        }
        out.text(")\r\n");
        self.finish(uid);
        Wrote::Whole
    }

    /// Asks for the header block that the next item needs, and lets go of the one before: each has
    /// the whole bound for itself, and one is held. Neighbours of one block read it once.
    fn read_header(&mut self, range: Range<u64>, current: Current) -> Wrote {
        let (uid, from) = (current.uid, range.start);
        let to = range.end.min(from.saturating_add(HEADER));
        self.batch.header = None;
        self.batch.asked_header = Some(from);
        self.batch.current = Some(current);
        Wrote::Needs(Question::Content { uid, from, to })
    }
}
