//! Telling the client what others changed in the mailbox it has selected.
//!
//! The account gives rows by modseq, page by page. Flag changes are told as they come; messages that
//! went and came are gathered first, because they come in the order of their last change and a
//! client wants them in the order of their UIDs.

use super::{Answer, End, Flow, Next, Question, Row, Selected, Session, Task};
use crate::{
    flags::{Flag, Flags},
    out::Out,
    set::NumberSet,
};

/// A look at the changes.
#[derive(Debug)]
pub(super) struct Syncing {
    pub(super) end: End,
    gone: Vec<u32>,
    new: Vec<u32>,
}

impl Syncing {
    pub(super) const fn new(end: End) -> Self {
        Self { end, gone: Vec::new(), new: Vec::new() }
    }
}

impl Session {
    /// During IDLE: looks if there may be something.
    pub(super) fn look_while_idle(&mut self, out: &mut Out) -> Next {
        let behind = self.selected.as_ref().is_some_and(|s| !s.gone && s.modseq < self.heard);
        match &self.idle {
            Some(tag) if behind => {
                let tag = tag.clone();
                self.follow(tag, Flow::End(End::ok("")), out)
            }
            Some(_) => Next::Idle,
            None => Next::Read,
        }
    }

    pub(super) fn syncing(
        &mut self,
        mut syncing: Box<Syncing>,
        answer: Answer,
        out: &mut Out,
    ) -> Flow {
        let Answer::Changes { rows, more, modseq, gone } = answer else {
            return Flow::End(End::bug());
        };
        let Some(selected) = &mut self.selected else { return Flow::End(syncing.end) };
        if gone {
            selected.gone = true;
            return Flow::End(syncing.end);
        }
        let last = rows.last().map(|row| row.modseq);
        for row in &rows {
            selected.change(row, &mut syncing, out);
        }
        if let (true, Some(since)) = (more, last) {
            return Flow::Ask(Question::Changes { since }, Task::Sync(syncing));
        }
        selected.finish(&syncing, self.rev2, out);
        // Pages come by modseq, so the last one's is how far everything was told.
        selected.modseq = modseq.max(selected.modseq);
        selected.own = selected.modseq;
        selected.told.clear();
        selected.silent.clear();
        self.heard = self.heard.max(selected.modseq);
        Flow::End(syncing.end)
    }
}

impl Selected {
    fn change(&mut self, row: &Row, syncing: &mut Syncing, out: &mut Out) {
        match (self.index.seq(row.uid), row.expunged) {
            (Some(_), true) => syncing.gone.push(row.uid),
            (Some(seq), false) => {
                if !self.is_known(row.uid, row.modseq, &row.flags) {
                    self.tell_keywords(&row.flags, out);
                    out.untagged(format_args!(
                        "{seq} FETCH (UID {} FLAGS ({}))",
                        row.uid, row.flags
                    ));
                }
            }
            (None, true) => syncing.new.retain(|&uid| uid != row.uid),
            (None, false) => syncing.new.push(row.uid),
        }
    }

    fn finish(&mut self, syncing: &Syncing, rev2: bool, out: &mut Out) {
        let gone: NumberSet = syncing.gone.iter().copied().collect();
        for seq in self.index.remove(&gone).iter().rev() {
            out.untagged(format_args!("{seq} EXPUNGE"));
        }
        let new: NumberSet = syncing.new.iter().copied().collect();
        let mut added = false;
        for uid in new.iter() {
            added |= self.index.push(uid);
        }
        if added {
            out.untagged(format_args!("{} EXISTS", self.index.len()));
            if !rev2 {
                out.untagged("0 RECENT");
            }
        }
    }

    /// A keyword the client has not heard of is announced before it is used (RFC 9051 §7.3.5).
    pub(super) fn tell_keywords(&mut self, flags: &Flags, out: &mut Out) {
        let mut news = false;
        for keyword in flags.keywords() {
            if !self.flags.has_keyword(keyword) {
                self.flags.insert(Flag::Keyword(keyword.clone()));
                news = true;
            }
        }
        if news {
            out.untagged(format_args!("FLAGS ({})", self.flags));
        }
    }
}
