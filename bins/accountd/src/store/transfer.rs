//! COPY, MOVE and EXPUNGE: pure work of the database. Content is shared by reference count, so a
//! copy is one narrow row, and nothing here opens a file.

use super::{
    StoreError,
    deliver::{NewRow, bits},
    index::{Index, Tx},
    read::{self, FullRow},
    reputation,
    rows::{CopyOutcome, JunkMark},
    thread,
    types::{ContentId, Flags, MailboxId, MessageId, Uid, UidSet},
};
use storage::rusqlite::{OptionalExtension as _, params};

fn marked(flags: Flags, mark: Option<JunkMark>) -> Flags {
    let Some(mark) = mark else { return flags };
    let mut flags = flags.without(Flags::JUNK.with(Flags::NOT_JUNK));
    if mark.junk {
        flags = flags.with(Flags::JUNK);
    }
    if mark.not_junk {
        flags = flags.with(Flags::NOT_JUNK);
    }
    flags
}

impl Index {
    pub(crate) fn copy(
        &mut self,
        from: MailboxId,
        uids: &UidSet,
        to: MailboxId,
        mark: Option<JunkMark>,
    ) -> Result<CopyOutcome, StoreError> {
        let quota = self.shared.quota();
        self.transact(|tx| {
            tx.mailbox(from)?;
            let uidvalidity = tx.mailbox(to)?.info.uidvalidity;
            let rows = read::full_rows(tx.c, from, uids)?;
            let bytes: u64 = rows.iter().map(|r| r.size).sum();
            if let Some(quota) = quota
                && tx.meta.bytes_live + tx.meta.bytes_pending + bytes > quota
            {
                return Err(StoreError::OverQuota);
            }
            let mut outcome = CopyOutcome { uidvalidity, ..CopyOutcome::default() };
            for row in &rows {
                let uid = tx.copy_row(row, to, mark)?;
                outcome.uids.push((row.uid, uid));
            }
            outcome.modseq = tx.meta.modseq;
            Ok(outcome)
        })
    }

    pub(crate) fn move_messages(
        &mut self,
        from: MailboxId,
        uids: &UidSet,
        to: MailboxId,
        mark: Option<JunkMark>,
    ) -> Result<CopyOutcome, StoreError> {
        self.transact(|tx| {
            tx.mailbox(from)?;
            let uidvalidity = tx.mailbox(to)?.info.uidvalidity;
            let uids = tx.move_rows(from, uids, to, mark)?;
            Ok(CopyOutcome { uidvalidity, uids, modseq: tx.meta.modseq })
        })
    }

    pub(crate) fn expunge(
        &mut self,
        mailbox: MailboxId,
        uids: &UidSet,
        only_deleted: bool,
    ) -> Result<Vec<Uid>, StoreError> {
        self.transact(|tx| tx.expunge(mailbox, uids, only_deleted))
    }
}

impl Tx<'_> {
    fn copy_row(
        &mut self,
        row: &FullRow,
        to: MailboxId,
        mark: Option<JunkMark>,
    ) -> Result<Uid, StoreError> {
        let content = row.content.ok_or(StoreError::ContentGone)?;
        let names = self.keyword_names(row.mailbox, row.keywords)?;
        let keywords = self.use_keywords(to, &names)?;
        // A copy threads as a duplicate: below the oldest live message of the same content.
        let oldest: i64 = self
            .c
            .prepare_cached("SELECT min(id) FROM msg WHERE content_id = ?1 AND expunged = 0")?
            .query_row([content.0], |r| r.get(0))?;
        let flags = marked(row.flags, mark);
        let kept = row.bits & !(bits::TRAINED_JUNK | bits::TRAINED_HAM);
        let id = self.next_message();
        let new_bits = reputation::train(self, Some(content), kept, flags)?;
        let uid = self.insert_row(&NewRow {
            id,
            mailbox: to,
            flags,
            keywords,
            content,
            size: row.size,
            received: row.received,
            thread: row.thread,
            bits: new_bits | bits::MISSING_LINK,
            original: row.original,
            destined: row.destined,
        })?;
        thread::set_parent(self, id, MessageId(oldest))?;
        self.c
            .prepare_cached("UPDATE content SET refcount = refcount + 1 WHERE id = ?1")?
            .execute([content.0])?;
        Ok(uid)
    }

    /// Moves rows, which keep their ids, and leaves tombstones in the source.
    pub(crate) fn move_rows(
        &mut self,
        from: MailboxId,
        uids: &UidSet,
        to: MailboxId,
        mark: Option<JunkMark>,
    ) -> Result<Vec<(Uid, Uid)>, StoreError> {
        let mut moved = Vec::new();
        for row in read::full_rows(self.c, from, uids)? {
            moved.push((row.uid, self.move_row(&row, to, mark)?));
        }
        Ok(moved)
    }

    fn move_row(
        &mut self,
        row: &FullRow,
        to: MailboxId,
        mark: Option<JunkMark>,
    ) -> Result<Uid, StoreError> {
        let names = self.keyword_names(row.mailbox, row.keywords)?;
        self.count_keywords(row.mailbox, row.keywords, super::KeywordBits::NONE)?;
        let keywords = self.use_keywords(to, &names)?;
        let mut flags = marked(row.flags, mark);
        let (mut original, mut destined, mut new_bits) = (row.original, row.destined, row.bits);
        if let Some(meant) = row.destined {
            if row.bits & bits::REJECT != 0 {
                // Out of Rejects: what judgement was wrong about counts where it was meant to go, and
                // stands out there.
                original = Some(meant);
                destined = None;
                new_bits &= !bits::REJECT;
                flags = flags.without(Flags::SEEN);
            } else {
                // Out of the introbox: moving it where it was meant to go says it is wanted.
                let junk_flags = Flags::JUNK.with(Flags::NOT_JUNK);
                let is_unmarked = flags.without(junk_flags) == flags;
                if to == meant && is_unmarked {
                    flags = flags.with(Flags::NOT_JUNK);
                }
                if to == meant || flags.without(junk_flags) != flags {
                    original = Some(meant);
                    destined = None;
                }
            }
        }
        let new_bits = reputation::train(self, row.content, new_bits, flags)?;
        let seq = self.seq();
        let source = self.touch(row.mailbox)?;
        source.count(row.flags, row.size, false);
        let target = self.touch(to)?;
        let uid = target.info.uidnext;
        target.info.uidnext = uid.checked_add(1).ok_or(StoreError::NoUidLeft)?;
        target.count(flags, row.size, true);
        // The row leaves its old UID first, then the tombstone takes it.
        let mut update = self.c.prepare_cached(
            "UPDATE msg SET mailbox_id = ?2, uid = ?3, flags = ?4, kw = ?5, modseq = ?6, bits = ?7,
               orig_mailbox_id = ?8, destined_mailbox_id = ?9, saved = ?10 WHERE id = ?1",
        )?;
        update.execute(params![
            row.id.0,
            to.0,
            uid,
            flags.bits(),
            keywords.to_column(),
            seq,
            new_bits,
            original.map(|m| m.0),
            destined.map(|m| m.0),
            self.now.0
        ])?;
        drop(update);
        let tombstone = self.next_message();
        // It names the content as long as the living row keeps it: sessions that have not told their
        // clients yet can go on reading.
        let mut insert = self.c.prepare_cached(
            "INSERT INTO msg(id, mailbox_id, uid, flags, modseq, createseq, expunged, content_id,
               size, received, saved, thread_id, bits, orig_mailbox_id, destined_mailbox_id, kw)
             VALUES (?1, ?2, ?3, 0, ?4, ?5, 1, ?6, ?7, ?8, ?9, ?10, 0, NULL, NULL, NULL)",
        )?;
        insert.execute(params![
            tombstone.0,
            row.mailbox.0,
            row.uid,
            seq,
            row.createseq,
            row.content.map(|c| c.0),
            row.size,
            row.received.0,
            self.now.0,
            row.thread.0
        ])?;
        Ok(uid)
    }

    /// Makes rows tombstones and lets go of their content. Says which UIDs, ascending.
    pub(crate) fn expunge(
        &mut self,
        mailbox: MailboxId,
        uids: &UidSet,
        only_deleted: bool,
    ) -> Result<Vec<Uid>, StoreError> {
        self.mailbox(mailbox)?;
        let mut gone = Vec::new();
        for row in read::full_rows(self.c, mailbox, uids)? {
            if only_deleted && !row.flags.has(Flags::DELETED) {
                continue;
            }
            let untrained = row.flags.without(Flags::JUNK.with(Flags::NOT_JUNK));
            reputation::train(self, row.content, row.bits, untrained)?;
            let seq = self.seq();
            let open = self.touch(mailbox)?;
            open.count(row.flags, row.size, false);
            self.count_keywords(mailbox, row.keywords, super::KeywordBits::NONE)?;
            // `saved` becomes the time it went: what is purged is chosen by that.
            let mut update = self.c.prepare_cached(
                "UPDATE msg SET expunged = 1, flags = 0, kw = NULL, bits = 0, modseq = ?2, saved = ?3
                 WHERE id = ?1",
            )?;
            update.execute(params![row.id.0, seq, self.now.0])?;
            drop(update);
            self.meta.bytes_live = self.meta.bytes_live.saturating_sub(row.size);
            self.meta.messages_live = self.meta.messages_live.saturating_sub(1);
            if let Some(content) = row.content {
                self.release(content)?;
            }
            gone.push(row.uid);
        }
        Ok(gone)
    }

    /// One reference to a content less; the last one puts it on the list of what is to be erased.
    pub(crate) fn release(&mut self, content: ContentId) -> Result<(), StoreError> {
        let left: Option<(i64, u64)> = self
            .c
            .prepare_cached(
                "UPDATE content SET refcount = refcount - 1 WHERE id = ?1 RETURNING refcount, size",
            )?
            .query_row([content.0], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        let Some((0, size)) = left else { return Ok(()) };
        let seq = self.seq();
        self.c
            .prepare_cached("INSERT OR IGNORE INTO erase VALUES (?1, ?2, ?3)")?
            .execute(params![content.0, seq, self.now.0])?;
        self.meta.bytes_pending += size;
        Ok(())
    }
}
