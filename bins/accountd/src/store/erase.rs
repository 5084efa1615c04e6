//! What happens behind deliveries: moving staged content into segments, erasing what nobody refers
//! to, rewriting segments that are mostly dead, and forgetting old tombstones. Each in small steps,
//! each a commit, so that a delivery never waits long.

use super::{
    StoreError,
    index::Index,
    segments::{self, Place},
    types::{ContentId, ModSeq},
};
use std::{sync::Arc, time::Duration};
use storage::{
    Error,
    rusqlite::{OptionalExtension as _, params},
};
use types::ObjectId;

/// Staged contents moved in one commit.
const DRAIN_ROWS: u32 = 1000;
/// Contents erased in one commit.
const ERASE_ROWS: u32 = 500;
/// Bytes that compaction moves in one commit.
const COMPACT_BYTES: u64 = 8 << 20;
/// Tombstones and old ids forgotten in one commit.
const PURGE_ROWS: u32 = 5000;
/// How long a file that was set aside is kept: as long as the folder of an account that was removed.
const QUARANTINE: Duration = Duration::from_secs(30 * 24 * 3600);

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Index {
    /// Moves staged content to the segment: append, fdatasync, then the commit that says so. A crash
    /// between leaves a dead tail, nothing else. Says whether more is left.
    pub(crate) fn drain(&mut self) -> Result<bool, StoreError> {
        type Row = (i64, [u8; 16], Vec<u8>);
        let rows: Vec<Row> = self.database.read(|c| {
            let mut query = c.prepare_cached(
                "SELECT s.content_id, c.oid, s.data FROM staged s JOIN content c ON c.id = s.content_id
                 ORDER BY s.content_id LIMIT ?1",
            )?;
            let rows = query.query_map([DRAIN_ROWS], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
            rows.collect::<Result<_, _>>().map_err(StoreError::from)
        })?;
        if rows.is_empty() {
            return Ok(false);
        }
        let mut moved = Vec::with_capacity(rows.len());
        let mut bytes = 0;
        for (id, oid, data) in rows {
            bytes += data.len() as u64;
            moved.push((id, self.append_record(&ObjectId::from_bytes(oid), data)?));
        }
        self.sync_tail()?;
        self.transact(|tx| {
            let mut update =
                tx.c.prepare_cached("UPDATE content SET seg = ?2, off = ?3 WHERE id = ?1")?;
            let mut delete = tx.c.prepare_cached("DELETE FROM staged WHERE content_id = ?1")?;
            for (id, place) in &moved {
                if let Place::Segment { seg, off } = place {
                    update.execute(params![id, seg, off])?;
                    delete.execute([id])?;
                }
            }
            Ok(())
        })?;
        self.staged_bytes = self.staged_bytes.saturating_sub(bytes);
        Ok(moved.len() == DRAIN_ROWS as usize)
    }

    /// Erases contents whose leases have passed, or whose time is over. Says whether more is left.
    pub(crate) fn erase(&mut self) -> Result<bool, StoreError> {
        let lived = self.ports.clock.monotonic().saturating_duration_since(self.shared.born);
        if lived < self.tuning.erase_hold_at_start {
            return Ok(false);
        }
        let now = self.ports.clock.now().0;
        let held_until = now.saturating_sub(nanos(self.tuning.erase_hold));
        let cap = now.saturating_sub(nanos(self.tuning.lease_cap));
        let seen: ModSeq = self.shared.seen_by_all();
        let seen = i64::try_from(seen).unwrap_or(i64::MAX);
        let due: Vec<i64> = self.database.read(|c| {
            let mut query = c.prepare_cached(
                "SELECT content_id FROM erase
                 WHERE (modseq <= ?1 AND since <= ?2) OR since <= ?3 LIMIT ?4",
            )?;
            let rows = query.query_map(params![seen, held_until, cap, ERASE_ROWS], |r| r.get(0))?;
            rows.collect::<Result<_, _>>().map_err(StoreError::from)
        })?;
        if due.is_empty() {
            return Ok(false);
        }
        self.transact(|tx| {
            for &id in &due {
                let row: Option<(u32, u64, u64, Option<i64>)> = tx
                    .c
                    .prepare_cached("SELECT refcount, size, zsize, seg FROM content WHERE id = ?1")?
                    .query_row([id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
                    .optional()?;
                tx.c.prepare_cached("DELETE FROM erase WHERE content_id = ?1")?.execute([id])?;
                // Referred to again since: it stays.
                let Some((0, size, zsize, seg)) = row else { continue };
                for table in ["staged", "content_meta", "content_text", "reputation"] {
                    let delete = format!("DELETE FROM {table} WHERE content_id = ?1");
                    tx.c.prepare_cached(&delete)?.execute([id])?;
                }
                if let Some(seg) = seg {
                    tx.c.prepare_cached("UPDATE segment SET dead = dead + ?2 WHERE id = ?1")?
                        .execute(params![seg, zsize])?;
                }
                tx.c.prepare_cached("DELETE FROM content WHERE id = ?1")?.execute([id])?;
                tx.meta.bytes_pending = tx.meta.bytes_pending.saturating_sub(size);
            }
            Ok(())
        })?;
        self.recount_staged()?;
        Ok(due.len() == ERASE_ROWS as usize)
    }

    /// Rewrites one step of a sealed segment that is more than half dead: the living go to the open
    /// one, and when none is left, the row goes in a commit, then the file. Says whether there was
    /// anything to do.
    ///
    /// A content that cannot be read is not moved: its segment stays as it is, with an alarm, and is
    /// left alone for some hours. What was appended before it is committed, or each try would add
    /// the same again.
    pub(crate) fn compact(&mut self) -> Result<bool, StoreError> {
        let now = self.ports.clock.monotonic();
        let shared = Arc::clone(&self.shared);
        let worst: Option<i64> = self.database.read(|c| {
            let mut query = c.prepare_cached(
                "SELECT id FROM segment WHERE sealed = 1 AND dead * 2 > len ORDER BY id",
            )?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let seg = row.get(0)?;
                if !shared.is_spoiled(seg, now) {
                    return Ok::<_, StoreError>(Some(seg));
                }
            }
            Ok(None)
        })?;
        let Some(seg) = worst else { return Ok(false) };
        let living: Vec<(i64, [u8; 16])> = self.database.read(|c| {
            let mut query =
                c.prepare_cached("SELECT id, oid FROM content WHERE seg = ?1 ORDER BY off")?;
            let rows = query.query_map([seg], |r| Ok((r.get(0)?, r.get(1)?)))?;
            rows.collect::<Result<_, _>>().map_err(StoreError::from)
        })?;
        let mut moved = Vec::new();
        let mut bytes = 0;
        let all = living.len();
        for (id, oid) in living {
            if bytes > COMPACT_BYTES {
                break;
            }
            let files = &self.files;
            let data = self.database.read(|c| {
                let id = ContentId(id);
                let position = segments::position(c, id)?.ok_or(StoreError::ContentGone)?;
                files.compressed(c, id, &position)
            });
            let data = match data {
                Ok(data) => data,
                Err(error) => {
                    if shared.spoil(seg, now) {
                        let why = format!(
                            "segment {seg} is not compacted: content {id} cannot be read: {error}"
                        );
                        (self.ports.alarm)(shared.id, &why);
                    }
                    break;
                }
            };
            bytes += data.len() as u64;
            moved.push((
                id,
                data.len() as u64,
                self.append_record(&ObjectId::from_bytes(oid), data)?,
            ));
        }
        let is_last = moved.len() == all;
        if moved.is_empty() && !is_last {
            return Ok(true);
        }
        self.sync_tail()?;
        self.transact(|tx| {
            for (id, zsize, place) in &moved {
                if let Place::Segment { seg: to, off } = place {
                    tx.c.prepare_cached("UPDATE content SET seg = ?2, off = ?3 WHERE id = ?1")?
                        .execute(params![id, to, off])?;
                    tx.c.prepare_cached("UPDATE segment SET dead = dead + ?2 WHERE id = ?1")?
                        .execute(params![seg, zsize])?;
                }
            }
            if is_last {
                tx.c.execute("DELETE FROM segment WHERE id = ?1", [seg])?;
                tx.c.execute("INSERT INTO unlink VALUES (?1)", [seg])?;
            }
            Ok(())
        })?;
        self.files.forget(seg);
        if is_last {
            self.finish_unlinks()?;
        }
        Ok(true)
    }

    /// Removes the files that a commit forgot, then forgets that. Readers that have one open go on.
    pub(crate) fn finish_unlinks(&mut self) -> Result<(), StoreError> {
        let ids: Vec<i64> = self.database.read(|c| {
            let mut query = c.prepare_cached("SELECT seg FROM unlink")?;
            let rows = query.query_map([], |r| r.get(0))?;
            rows.collect::<Result<_, _>>().map_err(StoreError::from)
        })?;
        if ids.is_empty() {
            return Ok(());
        }
        let disk = self.ports.disk.as_ref();
        for id in &ids {
            match disk.remove(&segments::path(&self.folder, *id)) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::file("remove a segment", &e).into()),
            }
        }
        // The name must not come back after the row is gone, or its number would be given again to a
        // file that exists.
        disk.sync_dir(&segments::folder(&self.folder))
            .map_err(|e| Error::sync("segment folder", &e))?;
        self.transact(|tx| {
            for id in &ids {
                tx.c.execute("DELETE FROM unlink WHERE seg = ?1", [id])?;
            }
            Ok(())
        })
    }

    /// Forgets tombstones behind the bounds (raising `purged_modseq`), delivery ids whose time is
    /// over, and files that were quarantined long enough. Says whether more is left.
    pub(crate) fn purge(&mut self) -> Result<bool, StoreError> {
        let now = self.ports.clock.now();
        let old = now.0.saturating_sub(nanos(self.tuning.keep_expunged_for));
        let keep = self.tuning.keep_expunged;
        let seen = i64::try_from(self.shared.seen_by_all()).unwrap_or(i64::MAX);
        let bound: Option<i64> = self.database.read(|c| {
            // The newest tombstone that is one too many; and, if it is newer, the newest that is too
            // old among the oldest.
            let too_many: Option<i64> = c
                .prepare_cached(
                    "SELECT modseq FROM msg INDEXED BY msg_gone WHERE expunged = 1
                     ORDER BY modseq DESC LIMIT 1 OFFSET ?1",
                )?
                .query_row([keep], |r| r.get(0))
                .optional()?;
            let too_old: Option<i64> = c
                .prepare_cached(
                    "SELECT max(modseq) FROM (SELECT modseq, saved FROM msg INDEXED BY msg_gone
                       WHERE expunged = 1 ORDER BY modseq LIMIT ?2) WHERE saved < ?1",
                )?
                .query_row(params![old, PURGE_ROWS], |r| r.get(0))?;
            // At most a step's worth of rows, but whole transactions.
            let step: Option<i64> = c
                .prepare_cached(
                    "SELECT modseq FROM msg INDEXED BY msg_gone WHERE expunged = 1
                     ORDER BY modseq LIMIT 1 OFFSET ?1",
                )?
                .query_row([PURGE_ROWS], |r| r.get(0))
                .optional()?;
            // What a session has not told its client yet it reads from the tombstones.
            let bound = too_many.max(too_old).map(|b| b.min(seen));
            Ok::<_, StoreError>(bound.map(|b| step.map_or(b, |s| b.min(s))))
        })?;
        self.sweep_quarantine()?;
        self.transact(|tx| {
            let mut rows = 0;
            if let Some(bound) = bound {
                // What they answered is answered by those that answered them, from now on.
                let links = "UPDATE thread_parent SET parent_id =
                     (SELECT p.parent_id FROM thread_parent p WHERE p.msg_id = thread_parent.parent_id)
                   WHERE parent_id IN (SELECT id FROM msg INDEXED BY msg_gone
                       WHERE expunged = 1 AND modseq <= ?1)
                     AND EXISTS (SELECT 1 FROM thread_parent p
                       WHERE p.msg_id = thread_parent.parent_id)";
                while tx.c.execute(links, [bound])? > 0 {}
                tx.c.execute(
                    "DELETE FROM thread_parent WHERE
                       msg_id IN (SELECT id FROM msg INDEXED BY msg_gone
                         WHERE expunged = 1 AND modseq <= ?1)
                       OR parent_id IN (SELECT id FROM msg INDEXED BY msg_gone
                         WHERE expunged = 1 AND modseq <= ?1)",
                    [bound],
                )?;
                rows = tx.c.execute("DELETE FROM msg WHERE expunged = 1 AND modseq <= ?1", [bound])?;
                let bound = u64::try_from(bound).unwrap_or(0);
                tx.meta.purged_modseq = tx.meta.purged_modseq.max(bound);
            }
            // Mailboxes and annotations that are gone, as many as messages.
            tx.c.execute(
                "DELETE FROM annotation WHERE expunged = 1 AND modseq <= coalesce(
                   (SELECT modseq FROM annotation WHERE expunged = 1
                    ORDER BY modseq DESC LIMIT 1 OFFSET ?1), 0)",
                [keep],
            )?;
            tx.c.execute(
                "DELETE FROM mailbox WHERE expunged = 1 AND modseq <= coalesce(
                   (SELECT modseq FROM mailbox WHERE expunged = 1
                    ORDER BY modseq DESC LIMIT 1 OFFSET ?1), 0)
                 AND NOT EXISTS (SELECT 1 FROM msg WHERE mailbox_id = mailbox.id)
                 AND NOT EXISTS (SELECT 1 FROM mailbox c WHERE c.parent_id = mailbox.id)",
                [keep],
            )?;
            for (table, key) in [
                ("delivered", "delivery_id"),
                ("submitted", "submission_id"),
                ("submission_repeat", "digest"),
            ] {
                tx.c.execute(
                    &format!(
                        "DELETE FROM {table} WHERE {key} IN
                         (SELECT {key} FROM {table} WHERE expires < ?1 LIMIT ?2)"
                    ),
                    params![now.0, PURGE_ROWS],
                )?;
            }
            Ok(rows >= PURGE_ROWS as usize)
        })
    }

    fn sweep_quarantine(&self) -> Result<(), StoreError> {
        let disk = self.ports.disk.as_ref();
        let aside = self.folder.join(super::index::ASIDE);
        if !disk.exists(&aside) {
            return Ok(());
        }
        let now = self.ports.clock.now().seconds();
        let list = disk.list(&aside).map_err(|e| Error::file("list the quarantine", &e))?;
        for name in list {
            let since = name.to_str().and_then(|n| n.split('-').next()?.parse::<i64>().ok());
            // What has no time in its name was not put there by us.
            let age = since.map_or(0, |s| now.saturating_sub(s));
            if age > i64::try_from(QUARANTINE.as_secs()).unwrap_or(i64::MAX) {
                let account = self.shared.id;
                let file = name.display();
                // A folder, say: no reason to end the rest of the housekeeping.
                match disk.remove(&aside.join(&name)) {
                    Ok(()) => tracing::info!(%account, %file, "a file set aside was removed"),
                    Err(error) => tracing::warn!(%account, %file, %error, "a file set aside stays"),
                }
            }
        }
        Ok(())
    }
}
