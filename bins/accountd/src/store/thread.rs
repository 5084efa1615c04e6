//! Which thread a new message belongs to (account-store §6).
//!
//! Only the message that is answered is stored; ancestors are found by walking. Links are by
//! Message-ID and References first, by base subject only for a reply that names nothing.

use super::{
    StoreError,
    deliver::bits,
    index::Tx,
    message::{Facts, MAX_REFERENCES},
    types::{MailboxId, MessageId, ModSeq},
};
use std::time::Duration;
use storage::rusqlite::{OptionalExtension as _, Row, params};
use types::UnixNanos;

/// A reply without references is joined to a message of its subject no older than this.
const SUBJECT_BEFORE: Duration = Duration::from_secs(4 * 7 * 24 * 3600);
/// And, clocks being what they are, no more than this younger.
const SUBJECT_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Messages of one subject that are looked at: the newest.
const MAX_SAME_SUBJECT: u32 = 500;

/// Where a message belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Threaded {
    pub(crate) thread: MessageId,
    pub(crate) parent: Option<MessageId>,
    pub(crate) bits: u32,
}

impl Threaded {
    pub(crate) fn alone(id: MessageId) -> Self {
        Self { thread: id, parent: None, bits: 0 }
    }
}

struct Candidate {
    id: MessageId,
    thread: MessageId,
    bits: u32,
    message_id: Option<String>,
}

impl Candidate {
    fn read(row: &Row<'_>) -> storage::rusqlite::Result<Self> {
        Ok(Self {
            id: MessageId(row.get(0)?),
            thread: MessageId(row.get(1)?),
            bits: row.get(2)?,
            message_id: row.get(3)?,
        })
    }
}

/// Finds the thread of the message that gets `id`.
pub(crate) fn place(
    tx: &Tx<'_>,
    id: MessageId,
    facts: &Facts,
    mailbox: MailboxId,
    received: UnixNanos,
) -> Result<Threaded, StoreError> {
    let mut is_missing = false;
    let mut parent = None;
    // 1. The same Message-ID again.
    if let Some(own) = &facts.message_id {
        parent = by_message_id(tx, own, None)?;
        is_missing = parent.is_some();
    }
    if parent.is_none() && !facts.references.is_empty() {
        // 2. What it refers to, nearest first; 3. or none of it is here.
        let own = facts.message_id.as_deref();
        let near = facts.references.iter().rev().filter(|r| own != Some(r.as_str()));
        for reference in near.take(MAX_REFERENCES) {
            let subject = if facts.is_dsn { None } else { Some(facts.base_subject.as_str()) };
            parent = by_message_id(tx, reference, subject)?;
            if parent.is_some() {
                break;
            }
            is_missing = true;
        }
    } else if parent.is_none() && facts.is_response && !facts.base_subject.is_empty() {
        // 4. A reply that names nothing.
        is_missing = true;
        parent = by_subject(tx, &facts.base_subject, mailbox, received)?;
    }
    let missing = if is_missing { bits::MISSING_LINK } else { 0 };
    let Some(parent) = parent else {
        // 5. A thread of its own.
        return Ok(Threaded { thread: id, parent: None, bits: missing });
    };
    let same = facts.message_id.is_some() && parent.message_id == facts.message_id;
    let inherited = parent.bits & (bits::MUTED | bits::COLLAPSED);
    let missing = if same { bits::MISSING_LINK } else { missing };
    Ok(Threaded { thread: parent.thread, parent: Some(parent.id), bits: inherited | missing })
}

/// The oldest live message with this Message-ID and, if given, this base subject.
fn by_message_id(
    tx: &Tx<'_>,
    message_id: &str,
    subject: Option<&str>,
) -> Result<Option<Candidate>, StoreError> {
    let mut query = tx.c.prepare_cached(
        "SELECT m.id, m.thread_id, m.bits, cm.msgid
         FROM content c
         JOIN content_meta cm ON cm.content_id = c.id
         JOIN msg m ON m.content_id = c.id AND m.expunged = 0
         WHERE c.msgid_h = ?1 AND cm.msgid = ?2 AND (?3 IS NULL OR cm.subject = ?3)
         ORDER BY m.id LIMIT 1",
    )?;
    let hash = tx.hash(message_id);
    Ok(query.query_row(params![hash, message_id, subject], Candidate::read).optional()?)
}

/// The newest message of this base subject, first delivered to the same mailbox at about this time.
fn by_subject(
    tx: &Tx<'_>,
    subject: &str,
    mailbox: MailboxId,
    received: UnixNanos,
) -> Result<Option<Candidate>, StoreError> {
    let before = i64::try_from(SUBJECT_BEFORE.as_nanos()).unwrap_or(i64::MAX);
    let mut query = tx.c.prepare_cached(
        "SELECT m.id, m.thread_id, m.bits, cm.msgid
         FROM (SELECT id FROM content WHERE subj_h = ?1 ORDER BY id DESC LIMIT ?6) c
         JOIN content_meta cm ON cm.content_id = c.id
         JOIN msg m ON m.content_id = c.id AND m.expunged = 0
         WHERE cm.subject = ?2 AND m.orig_mailbox_id = ?3 AND m.received > ?4 AND m.received < ?5
         ORDER BY m.received DESC, m.id DESC LIMIT 1",
    )?;
    let values = params![
        tx.hash(subject),
        subject,
        mailbox.0,
        received.0.saturating_sub(before),
        received.plus(SUBJECT_AFTER).0,
        MAX_SAME_SUBJECT
    ];
    Ok(query.query_row(values, Candidate::read).optional()?)
}

pub(crate) fn set_parent(tx: &Tx<'_>, id: MessageId, parent: MessageId) -> Result<(), StoreError> {
    tx.c.prepare_cached("INSERT INTO thread_parent VALUES (?1, ?2)")?.execute([id.0, parent.0])?;
    Ok(())
}

impl super::index::Index {
    /// Mutes or collapses all messages of a thread.
    pub(crate) fn set_thread(
        &mut self,
        thread: MessageId,
        muted: Option<bool>,
        collapsed: Option<bool>,
    ) -> Result<ModSeq, StoreError> {
        self.transact(|tx| {
            let rows: Vec<(i64, MailboxId, u32)> = {
                let mut query = tx.c.prepare_cached(
                    "SELECT id, mailbox_id, bits FROM msg WHERE thread_id = ?1 AND expunged = 0",
                )?;
                let rows = query
                    .query_map([thread.0], |r| Ok((r.get(0)?, MailboxId(r.get(1)?), r.get(2)?)))?;
                rows.collect::<Result<_, _>>()?
            };
            if rows.is_empty() {
                return Err(StoreError::NoSuchMessage);
            }
            let apply = |old: u32, bit: u32, on: Option<bool>| match on {
                Some(true) => old | bit,
                Some(false) => old & !bit,
                None => old,
            };
            for (id, mailbox, old) in rows {
                let new = apply(old, bits::MUTED, muted);
                let new = apply(new, bits::COLLAPSED, collapsed);
                if new != old {
                    tx.touch(mailbox)?;
                    let seq = tx.seq();
                    tx.c.prepare_cached("UPDATE msg SET bits = ?2, modseq = ?3 WHERE id = ?1")?
                        .execute(params![id, new, seq])?;
                }
            }
            Ok(tx.meta.modseq)
        })
    }
}
