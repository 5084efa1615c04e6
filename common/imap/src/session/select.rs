//! SELECT and EXAMINE.

use super::{Answer, End, Flow, MailboxInfo, Question, Selected, Session, Sync, Task};
use crate::{
    command::Named,
    flags::{Flags, System},
    index::UidIndex,
    out::Out,
    response::{Condition, ResponseCode},
    set::NumberSet,
};
use std::collections::BTreeMap;

/// A mailbox that is being opened.
#[derive(Debug)]
pub(super) struct Selecting {
    writable: bool,
    info: Option<Box<MailboxInfo>>,
    uids: Vec<(u32, u32)>,
    modseq: Option<u64>,
}

impl Session {
    pub(super) fn select(&mut self, mailbox: Named, read_only: bool, out: &mut Out) -> Flow {
        // RFC 9051 §6.3.2: the old mailbox is closed even if the new one cannot be opened.
        if self.selected.take().is_some() {
            out.status(None, Condition::Ok, Some(&ResponseCode::Closed), "previous mailbox closed");
        }
        match mailbox {
            Err(why) => Flow::Ask(Question::Release, Task::Release(End::bad_name(why))),
            Ok(name) => Flow::Ask(
                Question::Open { name, writable: !read_only },
                Task::Select(Selecting {
                    writable: !read_only,
                    info: None,
                    uids: Vec::new(),
                    modseq: None,
                }),
            ),
        }
    }

    pub(super) fn selecting(
        &mut self,
        mut selecting: Selecting,
        answer: Answer,
        out: &mut Out,
    ) -> Flow {
        if let Answer::Opened(opened) = answer {
            let Some(info) = opened else {
                return Flow::End(End::no(ResponseCode::NonExistent, "no such mailbox"));
            };
            selecting.info = Some(info);
            let question = Question::Rows { from: 1, to: u32::MAX };
            return Flow::Ask(question, Task::Select(selecting));
        }
        let Answer::Rows { rows, more, modseq } = answer else { return Flow::End(End::bug()) };
        selecting.modseq.get_or_insert(modseq);
        for row in &rows {
            match selecting.uids.last_mut() {
                Some(run) if run.1.saturating_add(1) == row.uid => run.1 = row.uid,
                Some(_) | None => selecting.uids.push((row.uid, row.uid)),
            }
        }
        let next = rows.last().and_then(|row| row.uid.checked_add(1));
        if let (true, Some(from)) = (more, next) {
            let question = Question::Rows { from, to: u32::MAX };
            return Flow::Ask(question, Task::Select(selecting));
        }
        self.selected_now(selecting, out)
    }

    fn selected_now(&mut self, selecting: Selecting, out: &mut Out) -> Flow {
        let Some(info) = selecting.info else { return Flow::End(End::bug()) };
        let index = UidIndex::new(&NumberSet::from_ranges(selecting.uids));
        let mut flags = Flags::new(u32::MAX, []);
        flags.add_all(&info.flags);
        out.untagged(format_args!("FLAGS ({flags})"));
        // Nothing can be changed in a mailbox opened by EXAMINE.
        let permanent = selecting.writable.then(|| flags.clone());
        let status = |out: &mut Out, code: ResponseCode, text| {
            out.status(None, Condition::Ok, Some(&code), text);
        };
        status(out, ResponseCode::PermanentFlags(permanent), "flags kept");
        out.untagged(format_args!("{} EXISTS", index.len()));
        if !self.rev2 {
            out.untagged("0 RECENT");
            if let Some(seq) = info.first_unseen.and_then(|uid| index.seq(uid)) {
                status(out, ResponseCode::Unseen(seq), "first unseen");
            }
        }
        let after_last = index.last_uid().map_or(1, |uid| uid.saturating_add(1));
        let uid_next = info.uid_next.max(after_last);
        status(out, ResponseCode::UidValidity(info.uid_validity), "UIDs valid");
        status(out, ResponseCode::UidNext(uid_next), "next UID");
        if self.rev2 {
            self.list_line(&info.name, "", out);
        }
        let modseq = selecting.modseq.unwrap_or(0);
        self.heard = self.heard.max(modseq);
        debug_assert!(flags.has(System::Seen), "all flags of the system are there");
        self.selected = Some(Box::new(Selected {
            name: info.name,
            uid_validity: info.uid_validity,
            writable: selecting.writable,
            index,
            flags,
            modseq,
            own: modseq,
            told: BTreeMap::new(),
            silent: Vec::new(),
            saved: NumberSet::new(),
            gone: false,
        }));
        let (code, text) = if selecting.writable {
            (ResponseCode::ReadWrite, "selected")
        } else {
            (ResponseCode::ReadOnly, "examined")
        };
        Flow::End(End { code: Some(code), ..End::ok(text).with(Sync::No) })
    }
}
