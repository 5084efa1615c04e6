//! SEARCH: which messages a program matches.
//!
//! Each leaf of the program becomes a set of UIDs and the program is then algebra on sets. Leaves
//! about flags, sizes and arrival are filled in one walk over the rows, dates of the header in one
//! walk over the envelopes, text by one question to the account a key. What a program leaves out is
//! not read.

use super::{Answer, End, Flow, Question, Row, Selected, Session, Sync, Task, TextScope};
use crate::{
    command::{DayKey, RowKey, SearchCommand, SearchKey, SearchReturn, Tag},
    date::{CalendarDate, DateTime},
    out::Out,
    response::ResponseCode,
    set::NumberSet,
};
use std::collections::VecDeque;

/// Messages whose envelopes are asked for together.
const META_BATCH: u32 = 1_000;

/// A SEARCH under way.
#[derive(Debug)]
pub(super) struct Searching {
    command: SearchCommand,
    /// Messages that may match.
    candidates: NumberSet,
    /// The same in as few ranges as can be, for questions.
    asking: NumberSet,
    /// Sets of the leaves, in the order of the program.
    leaves: Vec<(Leaf, NumberSet)>,
    /// Text leaves still to be asked.
    texts: VecDeque<usize>,
    asked: Option<usize>,
    rows_from: Option<u32>,
    metas: Option<NumberSet>,
}

#[derive(Debug, Clone, PartialEq)]
enum Leaf {
    /// Known at once.
    Set,
    /// About the row.
    Row(RowKey),
    /// About the Date field.
    Sent(DayKey),
    /// About text.
    Text { scope: TextScope, header: String, needle: String },
}

impl Session {
    pub(super) fn search(&mut self, tag: &Tag, command: SearchCommand, out: &mut Out) -> Flow {
        let selected = match self.usable() {
            Ok(selected) => selected,
            Err(end) => return Flow::End(end),
        };
        let mut leaves = Vec::new();
        selected.collect(&command.key, &mut leaves);
        if command.give.is_some_and(|give| give.save) {
            // RFC 5182 §2.1: a SEARCH that fails leaves nothing saved. It may itself name the old
            // result, which was resolved above.
            selected.saved = NumberSet::new();
        }
        if !command.charset_known {
            let end = End::no(ResponseCode::BadCharset, "charset is not known");
            return Flow::End(end.with(Sync::No));
        }
        let candidates = narrow(&command.key, &leaves, &selected.index.uids());
        let has = |wanted: fn(&Leaf) -> bool| leaves.iter().any(|(leaf, _)| wanted(leaf));
        let rows = has(|leaf| matches!(leaf, Leaf::Row(_)));
        let sent = has(|leaf| matches!(leaf, Leaf::Sent(_)));
        let texts = leaves
            .iter()
            .enumerate()
            .filter(|(_, (leaf, _))| matches!(leaf, Leaf::Text { .. }))
            .map(|(at, _)| at)
            .collect();
        let searching = Searching {
            rows_from: candidates.min().filter(|_| rows),
            metas: sent.then(|| candidates.clone()),
            asking: selected.index.widen(&candidates),
            candidates,
            command,
            leaves,
            texts,
            asked: None,
        };
        self.search_on(Box::new(searching), tag, out)
    }

    pub(super) fn searching(
        &mut self,
        mut searching: Box<Searching>,
        answer: Answer,
        tag: &Tag,
        out: &mut Out,
    ) -> Flow {
        if let Answer::Rows { rows, more, .. } = answer {
            for row in &rows {
                searching.take_row(row);
            }
            let next = rows.last().and_then(|row| row.uid.checked_add(1)).filter(|_| more);
            let last = searching.candidates.max().unwrap_or(0);
            searching.rows_from = next.filter(|&next| next <= last);
        } else if let Answer::Meta { items, next } = answer {
            for meta in &items {
                let envelope = message::Envelope::decode(&meta.envelope).ok();
                if let Some(date) = envelope.and_then(|envelope| envelope.sent()) {
                    let moment = DateTime { seconds: date.at.seconds(), zone: date.zone_minutes };
                    searching.take_sent(meta.uid, moment.date());
                }
            }
            if let Some(next) = next {
                // What did not fit is asked for again, before the rest.
                let done = NumberSet::from_ranges([(1, next.saturating_sub(1))]);
                let left = searching.candidates.without(&done);
                searching.metas = Some(left).filter(|left| !left.is_empty());
            }
        } else if let (Answer::Found(uids), Some(at)) = (answer, searching.asked.take()) {
            let found = uids.intersect(&searching.candidates);
            if let Some((_, set)) = searching.leaves.get_mut(at) {
                *set = found;
            }
        } else {
            return Flow::End(End::bug());
        }
        self.search_on(searching, tag, out)
    }

    fn search_on(&mut self, mut searching: Box<Searching>, tag: &Tag, out: &mut Out) -> Flow {
        if !searching.candidates.is_empty()
            && let Some(question) = searching.next_question()
        {
            return Flow::Ask(question, Task::Search(searching));
        }
        let rev2 = self.rev2;
        let Some(selected) = &mut self.selected else { return Flow::End(End::bug()) };
        let mut leaves = searching.leaves.iter().map(|(_, set)| set);
        let found = evaluate(&searching.command.key, &searching.candidates, &mut leaves);
        let found = found.intersect(&selected.index.uids());
        selected.report(&searching.command, &found, tag, rev2, out);
        let sync = if searching.command.uid { Sync::IfNewer } else { Sync::No };
        Flow::End(End::ok("done").with(sync))
    }
}

impl Searching {
    fn next_question(&mut self) -> Option<Question> {
        if let (Some(from), Some(to)) = (self.rows_from, self.candidates.max()) {
            return Some(Question::Rows { from, to });
        }
        if let Some(mut left) = self.metas.take() {
            let uids = left.take_first(META_BATCH);
            self.metas = Some(left).filter(|left| !left.is_empty());
            return Some(Question::Meta { uids, envelope: true, structure: false });
        }
        let at = self.texts.pop_front()?;
        self.asked = Some(at);
        let (leaf, _) = self.leaves.get(at)?;
        let Leaf::Text { scope, header, needle } = leaf else { return None };
        Some(Question::SearchText {
            scope: *scope,
            header: header.clone(),
            needle: needle.clone(),
            uids: self.asking.clone(),
        })
    }

    fn take_row(&mut self, row: &Row) {
        if !self.candidates.contains(row.uid) {
            return;
        }
        for (leaf, set) in &mut self.leaves {
            if matches!(leaf, Leaf::Row(key) if row_matches(key, row)) {
                set.push(row.uid);
            }
        }
    }

    fn take_sent(&mut self, uid: u32, day: CalendarDate) {
        for (leaf, set) in &mut self.leaves {
            if matches!(leaf, Leaf::Sent(key) if key.matches(day)) {
                set.push(uid);
            }
        }
    }
}

fn row_matches(key: &RowKey, row: &Row) -> bool {
    match key {
        RowKey::System(flag) => row.flags.has(*flag),
        RowKey::Keyword(keyword) => row.flags.has_keyword(keyword),
        RowKey::Larger(size) => row.size > *size,
        RowKey::Smaller(size) => row.size < *size,
        RowKey::Received(day) => day.matches(DateTime::utc(row.received).date()),
    }
}

/// Restricts the candidates by sets at the top of the program.
fn narrow(key: &SearchKey, leaves: &[(Leaf, NumberSet)], all: &NumberSet) -> NumberSet {
    let SearchKey::And(keys) = key else { return all.clone() };
    let mut candidates = all.clone();
    let mut at = 0usize;
    for key in keys {
        if let (SearchKey::Seqs(_) | SearchKey::Uids(_), Some((_, set))) = (key, leaves.get(at)) {
            candidates = candidates.intersect(set);
        }
        at = at.saturating_add(count(key));
    }
    candidates
}

/// Leaves of a key.
fn count(key: &SearchKey) -> usize {
    match key {
        SearchKey::And(keys) => keys.iter().fold(0usize, |sum, key| sum.saturating_add(count(key))),
        SearchKey::Or(a, b) => count(a).saturating_add(count(b)),
        SearchKey::Not(key) => count(key),
        SearchKey::Seqs(_)
        | SearchKey::Uids(_)
        | SearchKey::Nothing
        | SearchKey::Row(_)
        | SearchKey::Sent(_)
        | SearchKey::Text(..)
        | SearchKey::Header(..) => 1,
    }
}

/// Recursion is as deep as the parser let the program be.
fn evaluate(
    key: &SearchKey,
    all: &NumberSet,
    leaves: &mut dyn Iterator<Item = &NumberSet>,
) -> NumberSet {
    match key {
        SearchKey::And(keys) => {
            let mut result = all.clone();
            for key in keys {
                // Every leaf has to be passed, whatever the result is by now.
                let set = evaluate(key, all, leaves);
                result = result.intersect(&set);
            }
            result
        }
        SearchKey::Or(a, b) => {
            let first = evaluate(a, all, leaves);
            first.union(&evaluate(b, all, leaves))
        }
        SearchKey::Not(key) => all.without(&evaluate(key, all, leaves)),
        SearchKey::Seqs(_)
        | SearchKey::Uids(_)
        | SearchKey::Nothing
        | SearchKey::Row(_)
        | SearchKey::Sent(_)
        | SearchKey::Text(..)
        | SearchKey::Header(..) => leaves.next().map(|set| set.intersect(all)).unwrap_or_default(),
    }
}

impl Selected {
    /// The leaves of a program, those known at once with their sets.
    fn collect(&self, key: &SearchKey, leaves: &mut Vec<(Leaf, NumberSet)>) {
        let leaf = match key {
            SearchKey::And(keys) => {
                for key in keys {
                    self.collect(key, leaves);
                }
                return;
            }
            SearchKey::Or(a, b) => {
                self.collect(a, leaves);
                self.collect(b, leaves);
                return;
            }
            SearchKey::Not(key) => {
                self.collect(key, leaves);
                return;
            }
            SearchKey::Seqs(set) => {
                // A number above EXISTS matches nothing: clients search 1:* of an empty mailbox.
                let uids = if set.is_saved() {
                    self.saved.clone()
                } else {
                    self.index.uids_of(&set.resolve(self.index.len(), &self.saved))
                };
                leaves.push((Leaf::Set, uids));
                return;
            }
            SearchKey::Uids(set) => {
                let star = self.index.last_uid().unwrap_or(0);
                leaves.push((Leaf::Set, set.resolve(star, &self.saved)));
                return;
            }
            SearchKey::Nothing => Leaf::Set,
            SearchKey::Row(key) => Leaf::Row(key.clone()),
            SearchKey::Sent(day) => Leaf::Sent(*day),
            SearchKey::Text(scope, needle) => {
                Leaf::Text { scope: *scope, header: String::new(), needle: needle.clone() }
            }
            SearchKey::Header(name, needle) => Leaf::Text {
                scope: TextScope::Header,
                header: name.clone(),
                needle: needle.clone(),
            },
        };
        leaves.push((leaf, NumberSet::new()));
    }

    fn report(
        &mut self,
        command: &SearchCommand,
        found: &NumberSet,
        tag: &Tag,
        rev2: bool,
        out: &mut Out,
    ) {
        let give = match command.give {
            Some(give) => give,
            // RFC 9051 §6.4.4: always ESEARCH, with ALL.
            None if rev2 => SearchReturn { all: true, ..SearchReturn::default() },
            None => {
                out.text("* SEARCH");
                let seqs = self.index.seqs_of(found);
                for number in if command.uid { found } else { &seqs }.iter() {
                    out.show(format_args!(" {number}"));
                }
                out.text("\r\n");
                return;
            }
        };
        if give.save {
            // RFC 5182 §2.4: with MIN or MAX alone only those are saved.
            let ends_only = (give.min || give.max) && !give.all && !give.count;
            self.saved = if ends_only {
                let ends = [found.min().filter(|_| give.min), found.max().filter(|_| give.max)];
                ends.into_iter().flatten().collect()
            } else {
                found.clone()
            };
            if !(give.min || give.max || give.all || give.count) {
                // RFC 5182 §2.1: SAVE alone answers nothing.
                return;
            }
        }
        let seqs;
        let numbers = if command.uid {
            found
        } else {
            seqs = self.index.seqs_of(found);
            &seqs
        };
        // Quoted: Outlook reads no other form.
        out.text("* ESEARCH (TAG ");
        out.string(tag.as_str().as_bytes(), false);
        out.text(")");
        if command.uid {
            out.text(" UID");
        }
        if let Some(min) = numbers.min().filter(|_| give.min) {
            out.show(format_args!(" MIN {min}"));
        }
        if let Some(max) = numbers.max().filter(|_| give.max) {
            out.show(format_args!(" MAX {max}"));
        }
        if give.count {
            out.show(format_args!(" COUNT {}", numbers.len()));
        }
        if give.all && !numbers.is_empty() {
            out.show(format_args!(" ALL {numbers}"));
        }
        out.text("\r\n");
    }
}
