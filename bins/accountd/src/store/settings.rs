//! Annotations (RFC 5464) and settings: small values by name, with bounds.

use super::{
    StoreError,
    index::Index,
    rows::{Annotation, AnnotationEntry},
    types::{MailboxId, ModSeq},
};
use storage::rusqlite::{Connection, OptionalExtension as _, params};

/// Annotations of an account (RFC 5464 §4.3 lets a server say TOOMANY).
pub(crate) const MAX_ANNOTATIONS: i64 = 1000;
/// Octets of all names and values of an account.
pub(crate) const MAX_ANNOTATION_BYTES: i64 = 1_000_000;
/// Settings of an account.
const MAX_SETTINGS: i64 = 10_000;
/// Octets of a setting.
const MAX_SETTING: usize = 256 * 1024;
/// Octets of a setting's key.
const MAX_KEY: usize = 1000;

impl Index {
    pub(crate) fn set_annotations(
        &mut self,
        mailbox: Option<MailboxId>,
        entries: Vec<AnnotationEntry>,
    ) -> Result<ModSeq, StoreError> {
        self.transact(|tx| {
            if let Some(id) = mailbox {
                tx.mailbox(id)?;
            }
            let whose = mailbox.map_or(0, |m| m.0);
            let mut is_changed = false;
            for (name, value) in entries {
                let old: Option<(i64, Option<Vec<u8>>, bool)> =
                    tx.c.prepare_cached(
                        "SELECT id, value, is_string FROM annotation
                         WHERE mailbox_id = ?1 AND name = ?2 AND expunged = 0",
                    )?
                    .query_row(params![whose, name], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
                    .optional()?;
                match (old, value) {
                    (None, None) => {}
                    (Some((id, _, _)), None) => {
                        let seq = tx.seq();
                        tx.c.execute(
                            "UPDATE annotation SET expunged = 1, value = NULL, modseq = ?2
                             WHERE id = ?1",
                            params![id, seq],
                        )?;
                        is_changed = true;
                    }
                    (Some((id, old, was_string)), Some((value, is_string))) => {
                        if old.as_ref() != Some(&value) || was_string != is_string {
                            let seq = tx.seq();
                            tx.c.execute(
                                "UPDATE annotation SET value = ?2, is_string = ?3, modseq = ?4
                                 WHERE id = ?1",
                                params![id, value, is_string, seq],
                            )?;
                            is_changed = true;
                        }
                    }
                    (None, Some((value, is_string))) => {
                        let seq = tx.seq();
                        tx.c.execute(
                            "INSERT INTO annotation(mailbox_id, name, is_string, value, createseq,
                               modseq, expunged) VALUES (?1, ?2, ?3, ?4, ?5, ?5, 0)",
                            params![whose, name, is_string, value, seq],
                        )?;
                        is_changed = true;
                    }
                }
            }
            let (count, bytes): (i64, i64) = tx.c.query_row(
                "SELECT count(*), coalesce(sum(length(CAST(name AS BLOB)) + length(value)), 0)
                 FROM annotation WHERE expunged = 0",
                [],
                |r| Ok((r.get(0)?, r.get(1)?)),
            )?;
            if count > MAX_ANNOTATIONS {
                return Err(StoreError::TooMany("annotations"));
            }
            if bytes > MAX_ANNOTATION_BYTES {
                return Err(StoreError::TooMany("octets of annotations"));
            }
            if let (true, Some(id)) = (is_changed, mailbox) {
                tx.touch(id)?;
            }
            Ok(tx.meta.modseq)
        })
    }

    pub(crate) fn set_setting(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        if key.len() > MAX_KEY || value.is_some_and(|v| v.len() > MAX_SETTING) {
            return Err(StoreError::TooMany("octets of a setting"));
        }
        self.transact(|tx| {
            let Some(value) = value else {
                tx.c.execute("DELETE FROM setting WHERE key = ?1", [key])?;
                return Ok(());
            };
            tx.c.execute(
                "INSERT INTO setting VALUES (?1, ?2) ON CONFLICT(key) DO UPDATE SET value = ?2",
                params![key, value],
            )?;
            let count: i64 = tx.c.query_row("SELECT count(*) FROM setting", [], |r| r.get(0))?;
            if count > MAX_SETTINGS { Err(StoreError::TooMany("settings")) } else { Ok(()) }
        })
    }
}

pub(crate) fn annotations(
    c: &Connection,
    mailbox: Option<MailboxId>,
) -> Result<Vec<Annotation>, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT name, value, is_string FROM annotation
         WHERE mailbox_id = ?1 AND expunged = 0 ORDER BY name",
    )?;
    let rows = query.query_map([mailbox.map_or(0, |m| m.0)], |r| {
        Ok(Annotation { mailbox, name: r.get(0)?, value: r.get(1)?, is_string: r.get(2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn setting(c: &Connection, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut query = c.prepare_cached("SELECT value FROM setting WHERE key = ?1")?;
    Ok(query.query_row([key], |r| r.get(0)).optional()?)
}
