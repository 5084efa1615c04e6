//! The outbox: what an account gives to the queue, in the transaction that is acknowledged.
//!
//! Content, outbox row, limits and the copy for Sent are one commit. queue-runner takes rows by
//! submission id and says when it has them durably; an id that comes again changes nothing, and
//! neither does what a client says again because it did not hear the answer.

use super::{
    StoreError,
    index::{Index, Tx},
    message::{MAX_RECIPIENTS, Recipient},
    rows::{ContentRef, OutboxEntry, SendLimits, Submission, Submitted},
    segments::Packed,
    types::ContentId,
};
use std::{collections::BTreeSet, time::Duration};
use storage::rusqlite::{Connection, OptionalExtension as _, params};
use types::{SubmissionId, UnixNanos};

/// The time limits count over.
const WINDOW: Duration = Duration::from_secs(24 * 3600);
/// How long a submission that the queue has is recognised.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);
/// Rows of one answer.
const MAX_ENTRIES: u32 = 100;

impl Index {
    pub(crate) fn submit(&mut self, submission: Submission) -> Result<Submitted, StoreError> {
        if submission.recipients.len() > MAX_RECIPIENTS {
            return Err(StoreError::TooMany("recipients"));
        }
        // The account has one writer: what is not known here is not known in the transaction.
        let now = self.ports.clock.now();
        let first = self.database.read(|c| first_of(c, &submission, now))?;
        let first = first.filter(|id| *id == submission.id || !self.shared.was_heard(*id));
        if let Some(id) = first {
            return Ok(Submitted { id, copy: None, repeat: true });
        }
        let messages = [submission.message];
        let packed = self.pack_all(&messages)?;
        let staged: u64 = packed.iter().map(Packed::staged_len).sum();
        let [message] = &messages;
        let (keep, recipients) = (submission.keep_copy, &submission.recipients);
        let copy = self.transact(|tx| {
            tx.count_sending(recipients, submission.limits)?;
            let mut copy = None;
            for packed in packed {
                let (content, oid) = tx.add_content(message, packed, if keep { 2 } else { 1 })?;
                tx.c.execute(
                    "INSERT INTO outbox(submission_id, content_id, envelope, release, submitted)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        submission.id.as_bytes(),
                        content.0,
                        submission.envelope,
                        submission.release.map(|r| r.0),
                        tx.now.0
                    ],
                )?;
                // With the row: what is not in the outbox is not remembered as if it were.
                if let Some((digest, expires)) = submission.said {
                    tx.c.prepare_cached(
                        "INSERT OR REPLACE INTO submission_repeat VALUES (?1, ?2, ?3)",
                    )?
                    .execute(params![
                        digest,
                        submission.id.as_bytes(),
                        expires.0
                    ])?;
                }
                if keep {
                    let mailbox = tx.resolve(&message.target)?;
                    copy = Some(tx.add_row(message, mailbox, content, oid)?);
                }
            }
            for recipient in recipients {
                tx.remember_recipient(recipient, tx.now)?;
            }
            Ok(copy)
        })?;
        self.staged_bytes += staged;
        Ok(Submitted { id: submission.id, copy, repeat: false })
    }

    pub(crate) fn outbox_done(&mut self, ids: &[SubmissionId]) -> Result<usize, StoreError> {
        self.transact(|tx| {
            let expires = tx.now.plus(REMEMBERED);
            let mut done = 0;
            for id in ids {
                let content: Option<i64> =
                    tx.c.prepare_cached(
                        "DELETE FROM outbox WHERE submission_id = ?1 RETURNING content_id",
                    )?
                    .query_row([id.as_bytes()], |r| r.get(0))
                    .optional()?;
                let Some(content) = content else { continue };
                tx.c.prepare_cached("INSERT OR IGNORE INTO submitted VALUES (?1, ?2)")?
                    .execute(params![id.as_bytes(), expires.0])?;
                tx.release(ContentId(content))?;
                done += 1;
            }
            Ok(done)
        })
    }
}

impl Tx<'_> {
    /// Counts recipients in 24 hours, and among them those the account never wrote to.
    fn count_sending(
        &mut self,
        recipients: &[Recipient],
        limits: SendLimits,
    ) -> Result<(), StoreError> {
        let window = i64::try_from(WINDOW.as_nanos()).unwrap_or(i64::MAX);
        let since = self.now.0.saturating_sub(window);
        let (mut sent, mut first): (u64, u64) = self.c.query_row(
            "SELECT count(*), coalesce(sum(first_time), 0) FROM outgoing WHERE submitted > ?1",
            [since],
            |r| Ok((r.get(0)?, r.get(1)?)),
        )?;
        let all: BTreeSet<String> =
            recipients.iter().map(|r| format!("{}@{}", r.localpart, r.domain)).collect();
        for address in all {
            let known: Option<i64> = self
                .c
                .prepare_cached("SELECT 1 FROM outgoing WHERE recipient = ?1 LIMIT 1")?
                .query_row([&address], |r| r.get(0))
                .optional()?;
            let is_first = known.is_none();
            // One row says that somebody was written to; the others have served their time.
            self.c
                .prepare_cached("DELETE FROM outgoing WHERE recipient = ?1 AND submitted <= ?2")?
                .execute(params![address, since])?;
            sent += 1;
            first += u64::from(is_first);
            self.c
                .prepare_cached(
                    "INSERT INTO outgoing(recipient, submitted, first_time) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![address, self.now.0, is_first])?;
        }
        if sent > u64::from(limits.messages) {
            return Err(StoreError::TooManySent);
        }
        if first > u64::from(limits.first_time) {
            return Err(StoreError::TooManyFirstTime);
        }
        Ok(())
    }

    pub(crate) fn remember_recipient(
        &self,
        recipient: &Recipient,
        sent: UnixNanos,
    ) -> Result<(), StoreError> {
        self.c
            .prepare_cached(
                "INSERT INTO recipient VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT(domain, localpart) DO UPDATE SET sent = max(sent, ?4)",
            )?
            .execute(params![
                recipient.domain,
                recipient.localpart,
                recipient.org_domain,
                sent.0
            ])?;
        Ok(())
    }
}

/// The submission that this one repeats.
fn first_of(
    c: &Connection,
    submission: &Submission,
    now: UnixNanos,
) -> Result<Option<SubmissionId>, StoreError> {
    let found: Option<i64> = c
        .prepare_cached(
            "SELECT 1 FROM outbox WHERE submission_id = ?1
             UNION ALL SELECT 1 FROM submitted WHERE submission_id = ?1 LIMIT 1",
        )?
        .query_row([submission.id.as_bytes()], |r| r.get(0))
        .optional()?;
    if found.is_some() {
        return Ok(Some(submission.id));
    }
    let Some((digest, _)) = submission.said else { return Ok(None) };
    let first: Option<[u8; SubmissionId::OCTETS]> = c
        .prepare_cached(
            "SELECT submission_id FROM submission_repeat WHERE digest = ?1 AND expires > ?2",
        )?
        .query_row(params![digest, now.0], |r| r.get(0))
        .optional()?;
    Ok(first.map(SubmissionId::from_bytes))
}

/// Whether there are rows. The table is as old as accounts are, so this may be asked of any schema.
pub(crate) fn has_rows(c: &Connection) -> Result<bool, StoreError> {
    Ok(c.prepare_cached("SELECT 1 FROM outbox LIMIT 1")?.exists([])?)
}

pub(crate) fn list(
    c: &Connection,
    after: Option<SubmissionId>,
) -> Result<Vec<OutboxEntry>, StoreError> {
    // An id that is done already has no row any more; then the list begins anew, and the caller
    // meets rows it has seen, which is harmless.
    let mut query = c.prepare_cached(
        "SELECT o.submission_id, o.envelope, o.content_id, c.size, c.prefix, o.release, o.submitted
         FROM outbox o JOIN content c ON c.id = o.content_id
         WHERE o.seq > coalesce((SELECT seq FROM outbox WHERE submission_id = ?1), 0)
         ORDER BY o.seq LIMIT ?2",
    )?;
    let rows = query.query_map(params![after.map(|a| *a.as_bytes()), MAX_ENTRIES], |r| {
        Ok(OutboxEntry {
            id: SubmissionId::from_bytes(r.get(0)?),
            envelope: r.get(1)?,
            content: ContentRef {
                id: ContentId(r.get(2)?),
                size: r.get(3)?,
                prefix_len: r.get(4)?,
            },
            release: r.get::<_, Option<i64>>(5)?.map(UnixNanos),
            submitted: UnixNanos(r.get(6)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn has_written_to(
    c: &Connection,
    localpart: Option<&str>,
    domain: &str,
) -> Result<bool, StoreError> {
    let found: Option<i64> = match localpart {
        Some(localpart) => c
            .prepare_cached("SELECT 1 FROM recipient WHERE domain = ?1 AND localpart = ?2")?
            .query_row([domain, localpart], |r| r.get(0))
            .optional()?,
        None => c
            .prepare_cached("SELECT 1 FROM recipient WHERE org_domain = ?1 LIMIT 1")?
            .query_row([domain], |r| r.get(0))
            .optional()?,
    };
    Ok(found.is_some())
}
