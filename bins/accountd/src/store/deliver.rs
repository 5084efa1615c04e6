//! How messages come in: one door, groups in one commit.
//!
//! Deliver small: compress, BEGIN, rows and staged bytes, COMMIT (the one sync), answer. Deliver
//! large: append all of the group to the segment, one fdatasync, BEGIN, rows, COMMIT. Nothing is
//! answered before the COMMIT returned.

use super::{
    StoreError, codec,
    index::{Index, OpenMailbox, Tx},
    message::{
        Facts, MAX_MESSAGE, MAX_RECIPIENTS, MAX_REFERENCES, MAX_REPUTATION_KEYS, NewMessage, Target,
    },
    reputation,
    rows::{Delivered, Stored},
    segments::{self, FRAME, Packed, Place, STAGE_MAX, Tail},
    text::{self, PackedText},
    thread::{self, Threaded},
    types::{ContentId, Flags, KeywordBits, MailboxId, MessageId, Role, Uid},
};
use storage::{
    Error,
    rusqlite::{OptionalExtension as _, params},
};
use types::{DeliveryId, ObjectId, UnixNanos};

/// Most messages in one commit.
pub(crate) const MAX_GROUP: usize = 100;
/// Most bytes in one commit.
pub(crate) const MAX_GROUP_BYTES: u64 = 8 << 20;

/// Bits of a message (`msg.bits`).
pub(crate) mod bits {
    pub(crate) const MUTED: u32 = 1;
    pub(crate) const COLLAPSED: u32 = 1 << 1;
    pub(crate) const MISSING_LINK: u32 = 1 << 2;
    pub(crate) const TRAINED_JUNK: u32 = 1 << 3;
    pub(crate) const TRAINED_HAM: u32 = 1 << 4;
    pub(crate) const REJECT: u32 = 1 << 5;
    pub(crate) const FORWARD: u32 = 1 << 6;
    pub(crate) const LIST: u32 = 1 << 7;
    /// Bits of a content (`content_meta.bits`).
    pub(crate) const CONTENT_RESPONSE: u32 = 1;
    pub(crate) const CONTENT_DSN: u32 = 1 << 1;
    pub(crate) const CONTENT_PARSED: u32 = 1 << 2;
}

/// A row that is about to be inserted.
pub(crate) struct NewRow {
    pub(crate) id: MessageId,
    pub(crate) mailbox: MailboxId,
    pub(crate) flags: Flags,
    pub(crate) keywords: KeywordBits,
    pub(crate) content: ContentId,
    pub(crate) size: u64,
    pub(crate) received: UnixNanos,
    pub(crate) thread: MessageId,
    pub(crate) bits: u32,
    pub(crate) original: Option<MailboxId>,
    pub(crate) destined: Option<MailboxId>,
}

impl Index {
    /// Delivers a group in one commit. Each message has its own outcome; a failure of the disk or
    /// the database is everybody's.
    pub(crate) fn deliver(&mut self, group: &[NewMessage]) -> Vec<Result<Delivered, StoreError>> {
        let count = group.len();
        match self.deliver_group(group) {
            Ok(outcomes) => outcomes,
            Err(error) => (0..count).map(|_| Err(error.again())).collect(),
        }
    }

    fn deliver_group(
        &mut self,
        group: &[NewMessage],
    ) -> Result<Vec<Result<Delivered, StoreError>>, StoreError> {
        // What would be refused anyway is sorted out before anything large is written. The account
        // has one writer, so what is seen here still holds in the transaction.
        let mut room = self.room()?;
        let mut packed = Vec::with_capacity(group.len());
        for message in group {
            packed.push(match self.admit(message, &mut room)? {
                Some(verdict) => Err(verdict),
                None => Ok(self.pack(message)?),
            });
        }
        self.sync_tail()?;
        let mut staged = 0;
        let outcomes = self.transact(|tx| {
            staged = 0;
            let mut outcomes = Vec::with_capacity(packed.len());
            for (message, packed) in group.iter().zip(packed) {
                outcomes.push(match packed {
                    Err(verdict) => verdict,
                    Ok(packed) => {
                        staged += packed.staged_len();
                        tx.add_delivery(message, packed)?
                    }
                });
            }
            Ok(outcomes)
        })?;
        self.staged_bytes += staged;
        Ok(outcomes)
    }

    /// Notes that a delivery was made: what comes with this id until then is a repeat.
    pub(crate) fn remember_delivery(
        &mut self,
        id: DeliveryId,
        until: UnixNanos,
    ) -> Result<(), StoreError> {
        self.transact(|tx| {
            tx.c.prepare_cached("INSERT OR REPLACE INTO delivered VALUES (?1, ?2)")?
                .execute(params![id.as_bytes(), until.0])?;
            Ok(())
        })
    }

    /// Forgets that a delivery was made: what comes next with this id is new.
    pub(crate) fn forget_delivery(&mut self, id: DeliveryId) -> Result<(), StoreError> {
        self.transact(|tx| {
            tx.c.prepare_cached("DELETE FROM delivered WHERE delivery_id = ?1")?
                .execute([id.as_bytes()])?;
            Ok(())
        })
    }

    /// APPEND: all or none.
    pub(crate) fn append(&mut self, messages: &[NewMessage]) -> Result<Vec<Stored>, StoreError> {
        if messages.len() > MAX_GROUP {
            return Err(StoreError::TooMany("messages in one APPEND"));
        }
        let packed = self.pack_all(messages)?;
        let staged: u64 = packed.iter().map(Packed::staged_len).sum();
        let stored = self.transact(|tx| {
            let pairs = messages.iter().zip(packed);
            pairs.map(|(message, packed)| tx.add(message, packed)).collect()
        })?;
        self.staged_bytes += staged;
        Ok(stored)
    }

    /// REPLACE (RFC 8508 §3): the old message goes in the same commit in which the new one comes.
    pub(crate) fn replace(
        &mut self,
        mailbox: MailboxId,
        old: Uid,
        message: NewMessage,
    ) -> Result<Stored, StoreError> {
        let messages = [message];
        let packed = self.pack_all(&messages)?;
        let staged: u64 = packed.iter().map(Packed::staged_len).sum();
        let mut stored: Vec<Stored> = self.transact(|tx| {
            let old = super::types::UidSet::from_uids([old]);
            if tx.expunge(mailbox, &old, false)?.is_empty() {
                return Err(StoreError::NoSuchMessage);
            }
            let pairs = messages.iter().zip(packed);
            pairs.map(|(message, packed)| tx.add(message, packed)).collect()
        })?;
        self.staged_bytes += staged;
        stored.pop().ok_or(StoreError::NoSuchMessage)
    }

    pub(crate) fn recount_staged(&mut self) -> Result<(), StoreError> {
        self.staged_bytes = self.database.read(|c| {
            let sum = "SELECT coalesce(sum(length(data)), 0) FROM staged";
            c.prepare_cached(sum)?.query_row([], |r| r.get(0)).map_err(StoreError::from)
        })?;
        Ok(())
    }

    pub(crate) fn pack_all(&mut self, messages: &[NewMessage]) -> Result<Vec<Packed>, StoreError> {
        let mut room = self.room()?;
        let mut packed = Vec::with_capacity(messages.len());
        for message in messages {
            match self.admit(message, &mut room)? {
                Some(Err(refused)) => return Err(refused),
                Some(Ok(_)) | None => packed.push(self.pack(message)?),
            }
        }
        self.sync_tail()?;
        Ok(packed)
    }

    /// Bytes left under the quota. What is expunged and not erased yet still counts: else filling
    /// and expunging in turn would fill the disk.
    ///
    /// A disk that is nearly full takes no new mail at all.
    fn room(&mut self) -> Result<u64, StoreError> {
        let keep = self.tuning.keep_free;
        if keep > 0 {
            let space = self
                .ports
                .disk
                .space(&self.folder)
                .map_err(|e| Error::file("room on the disk", &e))?;
            if space.free < keep.min(space.total / 20) {
                return Err(StoreError::DiskFull);
            }
        }
        let Some(quota) = self.shared.quota() else { return Ok(u64::MAX) };
        let meta = self.database.read(super::index::load_meta)?;
        Ok(quota.saturating_sub(meta.bytes_live + meta.bytes_pending))
    }

    /// The answer for a message that is not to be stored, if that is known already.
    fn admit(
        &mut self,
        message: &NewMessage,
        room: &mut u64,
    ) -> Result<Option<Result<Delivered, StoreError>>, StoreError> {
        if message.size() > MAX_MESSAGE {
            return Ok(Some(Err(StoreError::TooLarge)));
        }
        if let Some(once) = &message.delivery {
            let now = self.ports.clock.now();
            let seen = self.database.read(|c| {
                let mut query = c.prepare_cached(
                    "SELECT 1 FROM delivered WHERE delivery_id = ?1 AND expires > ?2",
                )?;
                let key = params![once.id.as_bytes(), now.0];
                let row: Option<i64> = query.query_row(key, |r| r.get(0)).optional()?;
                Ok::<_, StoreError>(row.is_some())
            })?;
            if seen {
                return Ok(Some(Ok(Delivered::Repeat)));
            }
        }
        match room.checked_sub(message.size()) {
            Some(left) => *room = left,
            None => return Ok(Some(Err(StoreError::OverQuota))),
        }
        Ok(None)
    }

    /// Compresses a message; a large one goes to the segment at once.
    pub(crate) fn pack(&mut self, message: &NewMessage) -> Result<Packed, StoreError> {
        let size = message.size();
        let mut oid = [0; 16];
        self.ports.random.fill(&mut oid);
        let oid = ObjectId::from_bytes(oid);
        let text = |plain| message.facts.as_ref().map(|f| text::pack(f, plain)).transpose();
        if size <= FRAME as u64 {
            let plain = segments::piece(message, 0)?;
            let (data, text) = (codec::compress(&plain)?, text(Some(&plain))?);
            let (zsize, crc) = (data.len() as u64, crc32fast::hash(&data));
            let place = if data.len() <= STAGE_MAX {
                Place::Staged(data)
            } else {
                self.append_record(&oid, data)?
            };
            return Ok(Packed { oid, size, zsize, crc, frames: None, place, text });
        }
        let mut at = 0;
        let (place, lengths, crc) = self.append_frames(&oid, || {
            if at >= size {
                return Ok(None);
            }
            let plain = segments::piece(message, at)?;
            at += plain.len() as u64;
            codec::compress_checked(&plain).map(Some)
        })?;
        let zsize = lengths.iter().map(|l| u64::from(*l)).sum();
        let frames = lengths.iter().flat_map(|l| l.to_le_bytes()).collect();
        Ok(Packed { oid, size, zsize, crc, frames: Some(frames), place, text: text(None)? })
    }

    /// Appends bytes that are compressed already, as one record.
    pub(crate) fn append_record(
        &mut self,
        oid: &ObjectId,
        data: Vec<u8>,
    ) -> Result<Place, StoreError> {
        let mut data = Some(data);
        Ok(self.append_frames(oid, || Ok(data.take()))?.0)
    }

    fn append_frames(
        &mut self,
        oid: &ObjectId,
        next: impl FnMut() -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<(Place, Vec<u32>, u32), StoreError> {
        if let Some(why) = &self.damaged {
            return Err(StoreError::Damaged(why.clone()));
        }
        let limit = self.tuning.segment_len;
        if self.tail.as_ref().is_none_or(|t| t.len >= limit) {
            self.roll()?;
        }
        let Some(tail) = &mut self.tail else {
            return Err(StoreError::Failed("no open segment".into()));
        };
        let seg = tail.id;
        let (off, lengths, crc) = tail.append(oid.as_bytes(), next)?;
        Ok((Place::Segment { seg, off }, lengths, crc))
    }

    /// A new segment: file, then its name, then its row (which seals the one before), each durable
    /// before the next; only then the first record.
    fn roll(&mut self) -> Result<(), StoreError> {
        self.sync_tail()?;
        let id: i64 = self.database.read(|c| {
            let next = "SELECT max(coalesce((SELECT max(id) FROM segment), 0),
                                   coalesce((SELECT max(seg) FROM unlink), 0)) + 1";
            c.query_row(next, [], |r| r.get(0)).map_err(StoreError::from)
        })?;
        // A file of that number without a row: left of an attempt whose commit never came, if it was
        // not put there by somebody.
        let path = segments::path(&self.folder, id);
        if self.ports.disk.exists(&path)
            && let Some(name) = path.file_name()
        {
            self.set_aside(name)?;
        }
        let new = Tail::create(self.ports.disk.as_ref(), &self.folder, id)?;
        let old = self.tail.as_ref().map(|t| (t.id, t.len));
        let done = self.transact(|tx| {
            if let Some((old, len)) = old {
                let seal = "UPDATE segment SET sealed = 1, len = ?2 WHERE id = ?1";
                tx.c.execute(seal, params![old, len])?;
            }
            tx.c.execute("INSERT INTO segment VALUES (?1, 0, 0, 0)", [id])?;
            Ok(())
        });
        if let Err(error) = done {
            // Its row is not there, so nothing names it; were it left, the next opening would set it
            // aside. After a failed sync the row may be there: then the process ends.
            if !matches!(error, StoreError::Stopped)
                && let Err(left) = self.ports.disk.remove(&path)
            {
                tracing::warn!(account = %self.shared.id, error = %left, "unused segment left");
            }
            return Err(error);
        }
        self.tail = Some(new);
        Ok(())
    }

    /// Before a COMMIT that names positions in it.
    pub(crate) fn sync_tail(&mut self) -> Result<(), StoreError> {
        match &mut self.tail {
            Some(tail) => tail.sync().map_err(|e: Error| e.into()),
            None => Ok(()),
        }
    }
}

impl Packed {
    pub(crate) fn staged_len(&self) -> u64 {
        match &self.place {
            Place::Staged(data) => data.len() as u64,
            Place::Segment { .. } => 0,
        }
    }
}

impl Tx<'_> {
    /// One message of a group. What is refused is refused before anything of it is written.
    fn add_delivery(
        &mut self,
        message: &NewMessage,
        packed: Packed,
    ) -> Result<Result<Delivered, StoreError>, StoreError> {
        match self.resolve_checked(message) {
            Ok(_) => {}
            Err(error) if error.is_temporary() => return Err(error),
            Err(refused) => return Ok(Err(refused)),
        }
        if let Some(once) = &message.delivery
            && let Some(expires) = once.remember_until
        {
            // A repeat within the group is found here.
            let mut insert = self.c.prepare_cached(
                "INSERT INTO delivered VALUES (?1, ?2)
                 ON CONFLICT(delivery_id) DO UPDATE SET expires = ?2 WHERE expires <= ?3",
            )?;
            if insert.execute(params![once.id.as_bytes(), expires.0, self.now.0])? == 0 {
                return Ok(Ok(Delivered::Repeat));
            }
        }
        Ok(Ok(Delivered::Stored(self.add(message, packed)?)))
    }

    /// The mailbox it goes to, if a UID is left and its keywords fit.
    fn resolve_checked(&mut self, message: &NewMessage) -> Result<MailboxId, StoreError> {
        let mailbox = self.resolve(&message.target)?;
        if self.mailbox(mailbox)?.info.uidnext == Uid::MAX {
            return Err(StoreError::NoUidLeft);
        }
        self.check_keywords(mailbox, &message.keywords)?;
        Ok(mailbox)
    }

    /// Finds a target, and makes what is missing of a named one.
    pub(crate) fn resolve(&mut self, target: &Target) -> Result<MailboxId, StoreError> {
        match target {
            Target::Mailbox(id) => Ok(self.mailbox(*id)?.info.id),
            Target::Named(name) => match self.find_mailbox(name)? {
                Some(id) => Ok(id),
                None => self.make_mailbox(name, None),
            },
            Target::Role(role) => {
                let mut query = self
                    .c
                    .prepare_cached("SELECT id FROM mailbox WHERE role = ?1 AND expunged = 0")?;
                let found: Option<i64> =
                    query.query_row([*role as i64], |r| r.get(0)).optional()?;
                match found {
                    Some(id) => Ok(MailboxId(id)),
                    None => self.find_mailbox("Inbox")?.ok_or(StoreError::NoSuchMailbox),
                }
            }
        }
    }

    /// Content, row, thread and counters of a new message.
    pub(crate) fn add(
        &mut self,
        message: &NewMessage,
        packed: Packed,
    ) -> Result<Stored, StoreError> {
        let mailbox = self.resolve_checked(message)?;
        let (content, oid) = self.add_content(message, packed, 1)?;
        self.add_row(message, mailbox, content, oid)
    }

    /// The row of a message whose content is there.
    pub(crate) fn add_row(
        &mut self,
        message: &NewMessage,
        mailbox: MailboxId,
        content: ContentId,
        oid: ObjectId,
    ) -> Result<Stored, StoreError> {
        let id = self.next_message();
        let threaded = match &message.facts {
            Some(facts) => thread::place(self, id, facts, mailbox, message.received)?,
            None => Threaded::alone(id),
        };
        let mut flags = message.flags;
        if threaded.bits & bits::MUTED != 0 {
            flags = flags.with(Flags::SEEN);
        }
        let origin = message.origin;
        let mut row_bits = threaded.bits;
        for (on, bit) in [
            (origin.is_reject, bits::REJECT),
            (origin.is_forward, bits::FORWARD),
            (origin.is_list, bits::LIST),
        ] {
            row_bits |= if on { bit } else { 0 };
        }
        let row_bits = reputation::train(self, Some(content), row_bits, flags)?;
        let keywords = self.use_keywords(mailbox, &message.keywords)?;
        let row = NewRow {
            id,
            mailbox,
            flags,
            keywords,
            content,
            size: message.size(),
            received: message.received,
            thread: threaded.thread,
            bits: row_bits,
            original: Some(mailbox),
            destined: message.destined,
        };
        let uid = self.insert_row(&row)?;
        if let Some(parent) = threaded.parent {
            thread::set_parent(self, id, parent)?;
        }
        let info = &self.mailbox(mailbox)?.info;
        let (uidvalidity, is_sent) = (info.uidvalidity, info.role == Some(Role::Sent));
        if is_sent && let Some(facts) = &message.facts {
            let sent = facts.sent.unwrap_or(message.received);
            for recipient in facts.recipients.iter().take(MAX_RECIPIENTS) {
                self.remember_recipient(recipient, sent)?;
            }
        }
        let modseq = self.seq();
        Ok(Stored { mailbox, uidvalidity, uid, id, oid, modseq })
    }

    /// Inserts a row, gives it the next UID and counts it. Its keywords are counted by the caller.
    pub(crate) fn insert_row(&mut self, row: &NewRow) -> Result<Uid, StoreError> {
        let seq = self.seq();
        let now = self.now;
        let open = self.touch(row.mailbox)?;
        let uid = open.info.uidnext;
        open.info.uidnext = uid.checked_add(1).ok_or(StoreError::NoUidLeft)?;
        open.count(row.flags, row.size, true);
        let mut insert = self.c.prepare_cached(
            "INSERT INTO msg(id, mailbox_id, uid, flags, modseq, createseq, expunged, content_id,
               size, received, saved, thread_id, bits, orig_mailbox_id, destined_mailbox_id, kw)
             VALUES (?1, ?2, ?3, ?4, ?5, ?5, 0, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?;
        insert.execute(params![
            row.id.0,
            row.mailbox.0,
            uid,
            row.flags.bits(),
            seq,
            row.content.0,
            row.size,
            row.received.0,
            now.0,
            row.thread.0,
            row.bits,
            row.original.map(|m| m.0),
            row.destined.map(|m| m.0),
            row.keywords.to_column()
        ])?;
        self.meta.bytes_live += row.size;
        self.meta.messages_live += 1;
        Ok(uid)
    }

    /// Everything that is written once for a content, whatever refers to it.
    pub(crate) fn add_content(
        &mut self,
        message: &NewMessage,
        packed: Packed,
        refcount: u32,
    ) -> Result<(ContentId, ObjectId), StoreError> {
        let id = self.next_content();
        let oid = packed.oid;
        let facts = message.facts.as_ref();
        let msgid_h = facts.and_then(|f| f.message_id.as_deref()).map(|m| self.hash(m));
        let subj_h =
            facts.map(|f| f.base_subject.as_str()).filter(|s| !s.is_empty()).map(|s| self.hash(s));
        let (seg, off, staged) = match packed.place {
            Place::Staged(data) => (None, None, Some(data)),
            Place::Segment { seg, off } => (Some(seg), Some(off), None),
        };
        let mut insert = self.c.prepare_cached(
            "INSERT INTO content(id, oid, size, zsize, prefix, seg, off, crc, refcount, created,
               msgid_h, subj_h, hash, frames)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?;
        insert.execute(params![
            id.0,
            oid.as_bytes(),
            packed.size,
            packed.zsize,
            message.prefix.len() as u64,
            seg,
            off,
            packed.crc,
            refcount,
            self.now.0,
            msgid_h,
            subj_h,
            message.hash,
            packed.frames
        ])?;
        drop(insert);
        if let Some(data) = staged {
            let mut stage = self.c.prepare_cached("INSERT INTO staged VALUES (?1, ?2)")?;
            stage.execute(params![id.0, data])?;
        }
        if let (Some(facts), Some(text)) = (facts, &packed.text) {
            self.add_facts(id, facts, text)?;
        }
        let mut keys =
            self.c.prepare_cached("INSERT OR IGNORE INTO reputation VALUES (?1, ?2, ?3)")?;
        for key in message.reputation.iter().take(MAX_REPUTATION_KEYS) {
            let key = super::reputation::key_hash(&self.hash_key, key);
            keys.execute(params![key, message.received.0, id.0])?;
        }
        Ok((id, oid))
    }

    /// What the parser said, or says anew.
    pub(crate) fn add_facts(
        &mut self,
        id: ContentId,
        facts: &Facts,
        text: &PackedText,
    ) -> Result<(), StoreError> {
        let mut content_bits = bits::CONTENT_PARSED;
        content_bits |= if facts.is_response { bits::CONTENT_RESPONSE } else { 0 };
        content_bits |= if facts.is_dsn { bits::CONTENT_DSN } else { 0 };
        // The nearest ones: what is far back in a long chain was answered by what is between.
        let near = facts.references.len().saturating_sub(MAX_REFERENCES);
        let references = facts.references.get(near..).unwrap_or_default().join("\n");
        let mut insert = self.c.prepare_cached(
            "INSERT INTO content_meta(content_id, sent, bits, preview, msgid, subject, refs,
               envelope, bodystructure, sections, headers)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT(content_id) DO UPDATE SET sent=?2, bits=?3, preview=?4, msgid=?5,
               subject=?6, refs=?7, envelope=?8, bodystructure=?9, sections=?10, headers=?11",
        )?;
        insert.execute(params![
            id.0,
            facts.sent.map(|s| s.0),
            content_bits,
            facts.preview,
            facts.message_id,
            facts.base_subject,
            Some(references).filter(|r| !r.is_empty()),
            facts.envelope,
            facts.body_structure,
            facts.sections,
            facts.headers
        ])?;
        text::store(self.c, id, text)
    }
}

impl OpenMailbox {
    /// Counts a message in or out.
    pub(crate) fn count(&mut self, flags: Flags, size: u64, is_in: bool) {
        let add = |n: &mut u32, on: bool| {
            if on {
                *n = if is_in { n.saturating_add(1) } else { n.saturating_sub(1) };
            }
        };
        let is_deleted = flags.has(Flags::DELETED);
        let is_unseen = !flags.has(Flags::SEEN);
        let info = &mut self.info;
        add(&mut info.messages, true);
        add(&mut info.deleted, is_deleted);
        add(&mut info.unseen, is_unseen);
        add(&mut info.unread, is_unseen && !is_deleted);
        let sum = |n: &mut u64, on: bool| {
            if on {
                *n = if is_in { n.saturating_add(size) } else { n.saturating_sub(size) };
            }
        };
        sum(&mut info.bytes, true);
        sum(&mut info.deleted_bytes, is_deleted);
        self.dirty = true;
    }
}
