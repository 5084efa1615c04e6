//! The queue's rows: what was taken, what is due, what became of it. Runs on the queue's thread.

use crate::{spool, worker::Shelf};
use storage::{
    Error,
    rusqlite::{self, OptionalExtension as _, Row, params},
};
use types::{QueueId, SubmissionId, UnixNanos};

/// How long a taken submission is remembered.
const REMEMBER_TAKEN_SECONDS: i64 = 30 * 86_400;

/// Recipients of one remote transaction.
pub(crate) const MAX_GROUP: usize = 100;

/// Rows of one page of `queue list`.
pub(crate) const PAGE: usize = 200;

/// A message as it is queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) submission: SubmissionId,
    pub(crate) account: String,
    pub(crate) from: String,
    pub(crate) size: u64,
    pub(crate) header_length: u64,
    pub(crate) smtputf8: bool,
    pub(crate) eight_bit: bool,
    pub(crate) require_tls: bool,
    pub(crate) queued: UnixNanos,
    pub(crate) message_id: String,
    pub(crate) subject: String,
    pub(crate) report: bool,
}

/// A recipient to be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) queue_id: QueueId,
    pub(crate) submission: SubmissionId,
    pub(crate) address: String,
    pub(crate) domain: String,
    pub(crate) attempts: u32,
    pub(crate) last_attempt: Option<UnixNanos>,
    pub(crate) next_attempt: UnixNanos,
    pub(crate) last_error: String,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It is where it belongs, or was given up: nothing more to do.
    Gone,
    /// Try again.
    Again { at: UnixNanos, error: String },
    /// Try again, and forget that it was tried, the fault was ours: `attempts` are those before.
    Uncounted { at: UnixNanos, attempts: u32, error: String },
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Shelf {
    /// Whether a submission was taken before.
    pub(crate) fn was_taken(&mut self, submission: SubmissionId) -> Result<bool, Error> {
        self.database.read(|db| {
            db.query_row(
                "SELECT 1 FROM taken WHERE submission = ?1",
                [submission.as_bytes()],
                |_| Ok(()),
            )
            .optional()
            .map(|found| found.is_some())
            .map_err(Error::from)
        })
    }

    /// Puts a message with its recipients into the queue. Its content is durable already.
    pub(crate) fn add(
        &mut self,
        message: &Message,
        recipients: &[Recipient],
        now: UnixNanos,
    ) -> Result<(), Error> {
        self.database.write(|w| insert(w, message, recipients, now).map_err(Error::from))
    }

    /// Recipients that are due, oldest first, with their messages; none in the domains of `but`,
    /// or one slow domain with a long queue would hide all others.
    pub(crate) fn due(
        &mut self,
        now: UnixNanos,
        but: &[String],
        max: usize,
    ) -> Result<Vec<(Recipient, Message)>, Error> {
        let marks = vec!["?"; but.len()].join(",");
        self.database.read(|db| {
            let mut statement = db.prepare_cached(&format!(
                "SELECT r.queue_id, r.submission, r.address, r.domain, r.attempts, r.last_attempt,
                        r.next_attempt, r.last_error,
                        m.account, m.from_path, m.size, m.header_length, m.smtputf8, m.eight_bit,
                        m.require_tls, m.queued, m.message_id, m.subject, m.origin
                 FROM recipient r JOIN message m USING (submission)
                 WHERE r.next_attempt <= {} AND r.hold = 0 AND r.domain NOT IN ({marks})
                 ORDER BY r.next_attempt, r.id LIMIT {}",
                now.0,
                integer(max as u64)
            ))?;
            let rows = statement.query_map(rusqlite::params_from_iter(but), both)?;
            rows.collect::<Result<_, _>>().map_err(Error::from)
        })
    }

    /// When the next recipient becomes due after `now`.
    pub(crate) fn next_due(&mut self, now: UnixNanos) -> Result<Option<UnixNanos>, Error> {
        self.database.read(|db| {
            db.query_row(
                "SELECT min(next_attempt) FROM recipient WHERE hold = 0 AND next_attempt > ?1",
                [now.0],
                |row| row.get::<_, Option<i64>>(0),
            )
            .map(|at| at.map(UnixNanos))
            .map_err(Error::from)
        })
    }

    /// Notes that an attempt begins, with the time of the next one should this process die in it: a
    /// crash must not make a hot loop.
    pub(crate) fn begin(
        &mut self,
        ids: &[QueueId],
        now: UnixNanos,
        next: UnixNanos,
    ) -> Result<(), Error> {
        self.database.write(|w| {
            for id in ids {
                w.execute(
                    "UPDATE recipient SET attempts = attempts + 1, last_attempt = ?2,
                            next_attempt = ?3 WHERE queue_id = ?1",
                    params![id.as_bytes(), now.0, next.0],
                )?;
            }
            Ok(())
        })
    }

    /// Records what became of attempts, with the reports that follow from them, in one commit.
    /// The content of `reports` is durable already.
    pub(crate) fn settle(
        &mut self,
        outcomes: &[(QueueId, Settled)],
        reports: &[(Message, Recipient)],
        now: UnixNanos,
    ) -> Result<(), Error> {
        let emptied = self.database.write(|w| {
            let mut touched = Vec::new();
            for (id, settled) in outcomes {
                let submission: Option<[u8; 16]> = w
                    .query_row(
                        "SELECT submission FROM recipient WHERE queue_id = ?1",
                        [id.as_bytes()],
                        |row| row.get(0),
                    )
                    .optional()?;
                // An administrator may have dropped it meanwhile.
                let Some(submission) = submission else { continue };
                match settled {
                    Settled::Gone => {
                        w.execute("DELETE FROM recipient WHERE queue_id = ?1", [id.as_bytes()])?;
                        touched.push(SubmissionId::from_bytes(submission));
                    }
                    Settled::Again { at, error } => {
                        w.execute(
                            "UPDATE recipient SET next_attempt = ?2, last_error = ?3
                             WHERE queue_id = ?1",
                            params![id.as_bytes(), at.0, error],
                        )?;
                    }
                    Settled::Uncounted { at, attempts, error } => {
                        w.execute(
                            "UPDATE recipient SET next_attempt = ?2, last_error = ?3,
                                    attempts = ?4 WHERE queue_id = ?1",
                            params![id.as_bytes(), at.0, error, attempts],
                        )?;
                    }
                }
            }
            for (message, recipient) in reports {
                insert(w, message, std::slice::from_ref(recipient), now)?;
            }
            w.execute("DELETE FROM taken WHERE until < ?1", [now.seconds()])?;
            Ok::<_, Error>(remove_empty(w, &touched)?)
        })?;
        for submission in emptied {
            spool::remove(self, submission);
        }
        Ok(())
    }

    /// A page of the queue in the order of queue ids, which is that of their age, after `after`.
    /// That one may be gone: a page does not begin anew because mail was delivered meanwhile.
    pub(crate) fn list(
        &mut self,
        after: Option<QueueId>,
    ) -> Result<Vec<(Recipient, Message)>, Error> {
        self.database.read(|db| {
            let mut statement = db.prepare_cached(
                "SELECT r.queue_id, r.submission, r.address, r.domain, r.attempts, r.last_attempt,
                        r.next_attempt, r.last_error,
                        m.account, m.from_path, m.size, m.header_length, m.smtputf8, m.eight_bit,
                        m.require_tls, m.queued, m.message_id, m.subject, m.origin
                 FROM recipient r JOIN message m USING (submission)
                 WHERE r.queue_id > ?1 ORDER BY r.queue_id LIMIT ?2",
            )?;
            let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
            let rows = statement.query_map(params![after, integer(PAGE as u64)], both)?;
            rows.collect::<Result<_, _>>().map_err(Error::from)
        })
    }

    /// Makes recipients due now.
    pub(crate) fn retry(&mut self, ids: &[QueueId], now: UnixNanos) -> Result<(), Error> {
        self.database.write(|w| {
            for id in ids {
                w.execute(
                    "UPDATE recipient SET next_attempt = min(next_attempt, ?2), hold = 0
                     WHERE queue_id = ?1",
                    params![id.as_bytes(), now.0],
                )?;
            }
            Ok(())
        })
    }

    /// How many recipients wait, and how many of them were tried before.
    pub(crate) fn counts(&mut self) -> Result<(u64, u64), Error> {
        self.database.read(|db| {
            db.query_row("SELECT count(*), count(nullif(attempts, 0)) FROM recipient", [], |row| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
            })
            .map_err(Error::from)
        })
    }
}

fn insert(
    w: &rusqlite::Connection,
    message: &Message,
    recipients: &[Recipient],
    now: UnixNanos,
) -> rusqlite::Result<()> {
    if !recipients.is_empty() {
        insert_message(w, message)?;
    }
    for recipient in recipients {
        w.execute(
            "INSERT INTO recipient(queue_id, submission, address, domain, next_attempt)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                recipient.queue_id.as_bytes(),
                message.submission.as_bytes(),
                recipient.address,
                recipient.domain,
                recipient.next_attempt.0,
            ],
        )?;
    }
    w.execute(
        "INSERT INTO taken VALUES (?1, ?2)",
        params![message.submission.as_bytes(), now.seconds() + REMEMBER_TAKEN_SECONDS],
    )?;
    Ok(())
}

fn insert_message(w: &rusqlite::Connection, message: &Message) -> rusqlite::Result<()> {
    w.execute(
        "INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            message.submission.as_bytes(),
            message.account,
            message.from,
            integer(message.size),
            integer(message.header_length),
            message.smtputf8,
            message.eight_bit,
            message.require_tls,
            message.queued.0,
            message.message_id,
            message.subject,
            message.report,
        ],
    )?;
    Ok(())
}

/// Deletes messages without recipients, and names them.
fn remove_empty(
    w: &rusqlite::Connection,
    touched: &[SubmissionId],
) -> rusqlite::Result<Vec<SubmissionId>> {
    let mut emptied = Vec::new();
    for &submission in touched {
        let deleted = w.execute(
            "DELETE FROM message WHERE submission = ?1
             AND NOT EXISTS (SELECT 1 FROM recipient WHERE submission = ?1)",
            [submission.as_bytes()],
        )?;
        if deleted > 0 {
            emptied.push(submission);
        }
    }
    Ok(emptied)
}

fn both(row: &Row<'_>) -> rusqlite::Result<(Recipient, Message)> {
    let submission = SubmissionId::from_bytes(row.get(1)?);
    let recipient = Recipient {
        queue_id: QueueId::from_bytes(row.get(0)?),
        submission,
        address: row.get(2)?,
        domain: row.get(3)?,
        attempts: row.get(4)?,
        last_attempt: row.get::<_, Option<i64>>(5)?.map(UnixNanos),
        next_attempt: UnixNanos(row.get(6)?),
        last_error: row.get(7)?,
    };
    let message = Message {
        submission,
        account: row.get(8)?,
        from: row.get(9)?,
        size: row.get::<_, i64>(10)?.unsigned_abs(),
        header_length: row.get::<_, i64>(11)?.unsigned_abs(),
        smtputf8: row.get(12)?,
        eight_bit: row.get(13)?,
        require_tls: row.get(14)?,
        queued: UnixNanos(row.get(15)?),
        message_id: row.get(16)?,
        subject: row.get(17)?,
        report: row.get(18)?,
    };
    Ok((recipient, message))
}
