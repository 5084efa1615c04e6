//! Reading: rows in batches of at most 256 KiB or 10 ms, inside one short transaction each, so that
//! the write-ahead log can start again and no session waits for another.

use super::{
    StoreError,
    index::{KeywordUse, load_meta},
    mailbox,
    rows::{
        AccountChanges, ChangesFrom, ContentRef, KeywordNames, MailboxChanges, MailboxInfo,
        MessageMeta, MessageRow, MetaBatch, MetaWanted, RowBatch, Small, SmallBatch, SmallData,
        ThreadRow, Usage,
    },
    segments::Position,
    types::{
        ContentId, Flags, Keyword, KeywordBits, MailboxId, MessageId, ModSeq, Role, Uid, UidSet,
    },
    worker::View,
};
use storage::rusqlite::{self, Connection, OptionalExtension as _, Row, params};
use types::{ObjectId, UnixNanos};

/// Bytes of one batch.
pub(crate) const MAX_BATCH: usize = 256 * 1024;
/// Contents of one batch.
const MAX_SMALL: usize = 100;
/// Bytes a narrow row counts for.
const ROW_COST: usize = 96;
/// So many narrow rows are read however late it is: on a busy machine a question costs more than they
/// do, and one row for each would keep it busy for ever.
pub(crate) const FEW_ROWS: usize = 256;
/// UIDs of one answer.
const MAX_UIDS: u32 = 65_536;
/// Rows of one answer about threads.
const MAX_THREAD_ROWS: u32 = 4096;
/// Contents of one answer.
const MAX_CONTENTS: u32 = 1000;
/// Mailboxes and annotations of one answer about changes.
const MAX_ACCOUNT_CHANGES: u32 = 20_000;

/// One commit gives all its rows one modseq, so a page begins in the middle of it: found by the index,
/// never by passing over what was told before.
pub(crate) const CHANGES: &str =
    "SELECT id, uid, flags, kw, modseq, size, received, saved, thread_id, expunged
     FROM msg INDEXED BY msg_modseq
     WHERE mailbox_id = ?1 AND (modseq, uid) > (?2, ?3) ORDER BY modseq, uid";

const MAILBOX: &str = "SELECT id, name, oid, role, uidvalidity, uidnext, n_messages, n_deleted,
  n_unseen, n_unread, bytes, bytes_deleted, createseq, modseq, expunged FROM mailbox";

fn mailbox_info(r: &Row<'_>) -> rusqlite::Result<MailboxInfo> {
    Ok(MailboxInfo {
        id: MailboxId(r.get(0)?),
        name: r.get(1)?,
        oid: ObjectId::from_bytes(r.get(2)?),
        role: Role::from_column(r.get(3)?),
        uidvalidity: r.get(4)?,
        uidnext: r.get(5)?,
        messages: r.get(6)?,
        deleted: r.get(7)?,
        unseen: r.get(8)?,
        unread: r.get(9)?,
        bytes: r.get(10)?,
        deleted_bytes: r.get(11)?,
        createseq: r.get(12)?,
        modseq: r.get(13)?,
        expunged: r.get(14)?,
    })
}

pub(crate) fn mailboxes(c: &Connection) -> Result<Vec<MailboxInfo>, StoreError> {
    let mut query = c.prepare_cached(&format!("{MAILBOX} WHERE expunged = 0 ORDER BY name"))?;
    let rows = query.query_map([], mailbox_info)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn mailbox(c: &Connection, id: MailboxId) -> Result<MailboxInfo, StoreError> {
    let mut query = c.prepare_cached(&format!("{MAILBOX} WHERE id = ?1 AND expunged = 0"))?;
    query.query_row([id.0], mailbox_info).optional()?.ok_or(StoreError::NoSuchMailbox)
}

/// The live mailbox of a canonical name.
pub(crate) fn find(c: &Connection, name: &str) -> Result<Option<MailboxId>, StoreError> {
    let mut query = c.prepare_cached("SELECT id FROM mailbox WHERE name = ?1 AND expunged = 0")?;
    let id: Option<i64> = query.query_row([name], |r| r.get(0)).optional()?;
    Ok(id.map(MailboxId))
}

pub(crate) fn mailbox_by_name(c: &Connection, name: &str) -> Result<MailboxInfo, StoreError> {
    // A name that breaks a rule names no mailbox.
    let Ok(name) = mailbox::canonical(name) else { return Err(StoreError::NoSuchMailbox) };
    let id = find(c, &name)?.ok_or(StoreError::NoSuchMailbox)?;
    self::mailbox(c, id)
}

pub(crate) fn subscriptions(c: &Connection) -> Result<Vec<String>, StoreError> {
    let mut query = c.prepare_cached("SELECT name FROM subscription ORDER BY name")?;
    let rows = query.query_map([], |r| r.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn keyword_uses(c: &Connection, id: MailboxId) -> Result<Vec<KeywordUse>, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT bit, name, uses FROM mailbox_keyword WHERE mailbox_id = ?1 ORDER BY bit",
    )?;
    let rows = query.query_map([id.0], |r| Ok((r.get(0)?, r.get::<_, String>(1)?, r.get(2)?)))?;
    let mut all = Vec::new();
    for row in rows {
        let (bit, name, uses) = row?;
        let name: Keyword = name
            .parse()
            .map_err(|_| StoreError::Damaged(format!("mailbox {} has a bad keyword", id.0)))?;
        all.push(KeywordUse { bit, name, uses });
    }
    Ok(all)
}

pub(crate) fn keyword_names(c: &Connection, id: MailboxId) -> Result<KeywordNames, StoreError> {
    Ok(keyword_uses(c, id)?.into_iter().map(|k| (k.bit, k.name)).collect())
}

pub(crate) fn uids(c: &Connection, mailbox: MailboxId, from: Uid) -> Result<Vec<Uid>, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT uid FROM msg WHERE mailbox_id = ?1 AND uid >= ?2 AND expunged = 0
         ORDER BY uid LIMIT ?3",
    )?;
    let rows = query.query_map(params![mailbox.0, from, MAX_UIDS], |r| r.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn first_unseen(c: &Connection, mailbox: MailboxId) -> Result<Option<Uid>, StoreError> {
    // The counter says at once that there is none, which is the common case of a long mailbox.
    if self::mailbox(c, mailbox)?.unseen == 0 {
        return Ok(None);
    }
    let mut query = c.prepare_cached(
        "SELECT uid FROM msg WHERE mailbox_id = ?1 AND expunged = 0 AND flags & 1 = 0
         ORDER BY uid LIMIT 1",
    )?;
    Ok(query.query_row([mailbox.0], |r| r.get(0)).optional()?)
}

/// A row as changing it needs it.
#[derive(Debug, Clone)]
pub(crate) struct FullRow {
    pub(crate) id: MessageId,
    pub(crate) mailbox: MailboxId,
    pub(crate) uid: Uid,
    pub(crate) flags: Flags,
    pub(crate) keywords: KeywordBits,
    pub(crate) modseq: ModSeq,
    pub(crate) createseq: ModSeq,
    pub(crate) content: Option<ContentId>,
    pub(crate) size: u64,
    pub(crate) received: UnixNanos,
    pub(crate) saved: UnixNanos,
    pub(crate) thread: MessageId,
    pub(crate) bits: u32,
    pub(crate) original: Option<MailboxId>,
    pub(crate) destined: Option<MailboxId>,
}

impl FullRow {
    pub(crate) fn listed(&self) -> MessageRow {
        MessageRow {
            id: self.id,
            uid: self.uid,
            flags: self.flags,
            keywords: self.keywords,
            modseq: self.modseq,
            size: self.size,
            received: self.received,
            saved: self.saved,
            thread: self.thread,
        }
    }

    fn read(r: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: MessageId(r.get(0)?),
            mailbox: MailboxId(r.get(1)?),
            uid: r.get(2)?,
            flags: Flags::from_bits(r.get(3)?),
            keywords: KeywordBits::from_column(r.get_ref(4)?.as_blob_or_null()?),
            modseq: r.get(5)?,
            createseq: r.get(6)?,
            content: r.get::<_, Option<i64>>(7)?.map(ContentId),
            size: r.get(8)?,
            received: UnixNanos(r.get(9)?),
            saved: UnixNanos(r.get(10)?),
            thread: MessageId(r.get(11)?),
            bits: r.get(12)?,
            original: r.get::<_, Option<i64>>(13)?.map(MailboxId),
            destined: r.get::<_, Option<i64>>(14)?.map(MailboxId),
        })
    }
}

/// All live rows of these UIDs, ascending.
pub(crate) fn full_rows(
    c: &Connection,
    mailbox: MailboxId,
    uids: &UidSet,
) -> Result<Vec<FullRow>, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT id, mailbox_id, uid, flags, kw, modseq, createseq, content_id, size, received, saved,
           thread_id, bits, orig_mailbox_id, destined_mailbox_id
         FROM msg WHERE mailbox_id = ?1 AND uid BETWEEN ?2 AND ?3 AND expunged = 0 ORDER BY uid",
    )?;
    let mut all = Vec::new();
    for range in uids.ranges() {
        let rows =
            query.query_map(params![mailbox.0, range.start(), range.end()], FullRow::read)?;
        for row in rows {
            all.push(row?);
        }
    }
    Ok(all)
}

fn message_row(r: &Row<'_>) -> rusqlite::Result<MessageRow> {
    Ok(MessageRow {
        id: MessageId(r.get(0)?),
        uid: r.get(1)?,
        flags: Flags::from_bits(r.get(2)?),
        keywords: KeywordBits::from_column(r.get_ref(3)?.as_blob_or_null()?),
        modseq: r.get(4)?,
        size: r.get(5)?,
        received: UnixNanos(r.get(6)?),
        saved: UnixNanos(r.get(7)?),
        thread: MessageId(r.get(8)?),
    })
}

/// Runs over the UIDs of a set from `from` on until a batch is full; says where to go on.
pub(crate) fn each_range(
    uids: &UidSet,
    from: Uid,
    mut visit: impl FnMut(Uid, Uid) -> Result<Option<Uid>, StoreError>,
) -> Result<Option<Uid>, StoreError> {
    for range in uids.ranges() {
        let start = (*range.start()).max(from);
        if start > *range.end() {
            continue;
        }
        if let Some(next) = visit(start, *range.end())? {
            return Ok(Some(next));
        }
    }
    Ok(None)
}

pub(crate) fn rows(
    view: &View<'_>,
    mailbox: MailboxId,
    uids: &UidSet,
    from: Uid,
) -> Result<RowBatch, StoreError> {
    let c = view.connection;
    let mut query = c.prepare_cached(
        "SELECT id, uid, flags, kw, modseq, size, received, saved, thread_id FROM msg
         WHERE mailbox_id = ?1 AND uid BETWEEN ?2 AND ?3 AND expunged = 0 ORDER BY uid",
    )?;
    let mut batch = RowBatch::default();
    let mut needs_names = false;
    batch.next = each_range(uids, from, |start, end| {
        let mut found = query.query(params![mailbox.0, start, end])?;
        while let Some(r) = found.next()? {
            let row = message_row(r)?;
            let count = batch.rows.len();
            if count * ROW_COST >= MAX_BATCH || view.is_late(count / FEW_ROWS) {
                return Ok(Some(row.uid));
            }
            needs_names |= !row.keywords.is_empty();
            batch.rows.push(row);
        }
        Ok(None)
    })?;
    if needs_names {
        batch.keywords = keyword_names(c, mailbox)?;
    }
    Ok(batch)
}

pub(crate) fn metas(
    view: &View<'_>,
    mailbox: MailboxId,
    uids: &UidSet,
    from: Uid,
    wanted: MetaWanted,
) -> Result<MetaBatch, StoreError> {
    let mut query = view.connection.prepare_cached(
        "SELECT m.uid, m.size, c.oid, c.prefix, cm.sent, cm.preview, cm.subject, cm.bits,
           cm.envelope, cm.bodystructure, cm.sections, cm.headers
         FROM msg m JOIN content c ON c.id = m.content_id
         LEFT JOIN content_meta cm ON cm.content_id = c.id
         WHERE m.mailbox_id = ?1 AND m.uid BETWEEN ?2 AND ?3 ORDER BY m.uid",
    )?;
    let mut batch = MetaBatch::default();
    let mut bytes = 0;
    batch.next = each_range(uids, from, |start, end| {
        let mut found = query.query(params![mailbox.0, start, end])?;
        while let Some(r) = found.next()? {
            let uid: Uid = r.get(0)?;
            if bytes >= MAX_BATCH || view.is_late(batch.metas.len()) {
                return Ok(Some(uid));
            }
            let blob = |column: usize, on: bool| -> rusqlite::Result<Vec<u8>> {
                if on {
                    Ok(r.get::<_, Option<Vec<u8>>>(column)?.unwrap_or_default())
                } else {
                    Ok(Vec::new())
                }
            };
            let meta = MessageMeta {
                uid,
                size: r.get(1)?,
                oid: ObjectId::from_bytes(r.get(2)?),
                prefix_len: r.get(3)?,
                sent: r.get::<_, Option<i64>>(4)?.map(UnixNanos),
                preview: if wanted.preview { r.get(5)? } else { None },
                base_subject: r.get::<_, Option<String>>(6)?.unwrap_or_default(),
                parsed: r.get::<_, Option<u32>>(7)?.is_some(),
                envelope: blob(8, wanted.envelope)?,
                body_structure: blob(9, wanted.body_structure)?,
                sections: blob(10, wanted.sections)?,
                headers: blob(11, wanted.headers)?,
            };
            bytes += ROW_COST
                + meta.envelope.len()
                + meta.body_structure.len()
                + meta.sections.len()
                + meta.headers.len()
                + meta.preview.as_ref().map_or(0, String::len);
            batch.metas.push(meta);
        }
        Ok(None)
    })?;
    Ok(batch)
}

/// Whole contents of living messages up to `max_each` bytes; of larger ones that they are there.
pub(crate) fn smalls(
    view: &View<'_>,
    mailbox: MailboxId,
    uids: &UidSet,
    from: Uid,
    max_each: u64,
) -> Result<SmallBatch, StoreError> {
    let mut query = view.connection.prepare_cached(
        "SELECT m.uid, m.size, c.id, c.size, c.zsize, c.seg, c.off, c.crc, c.frames FROM msg m
         LEFT JOIN content c ON c.id = m.content_id
         WHERE m.mailbox_id = ?1 AND m.uid BETWEEN ?2 AND ?3 AND m.expunged = 0 ORDER BY m.uid",
    )?;
    let mut batch = SmallBatch::default();
    let mut bytes = 0;
    batch.next = each_range(uids, from, |start, end| {
        let mut found = query.query(params![mailbox.0, start, end])?;
        while let Some(r) = found.next()? {
            let (uid, size): (Uid, u64) = (r.get(0)?, r.get(1)?);
            let count = batch.items.len();
            let wanted =
                if size <= max_each { usize::try_from(size).unwrap_or(MAX_BATCH) } else { 0 };
            let is_full = count >= MAX_SMALL || count > 0 && bytes + wanted > MAX_BATCH;
            if is_full || view.is_late(count) {
                return Ok(Some(uid));
            }
            let content = r.get::<_, Option<i64>>(2)?.map(ContentId);
            let data = match content {
                _ if size > max_each => SmallData::TooLarge,
                None => SmallData::Gone,
                Some(id) => {
                    let len = u32::try_from(wanted).unwrap_or(u32::MAX);
                    let position = Position::of(r, 3)?;
                    match view.files.read_at(view.connection, id, &position, 0, len) {
                        Ok(data) => SmallData::Whole(data),
                        // Compaction may have taken the segment away since this transaction began:
                        // the next batch sees where the bytes are now.
                        Err(StoreError::Damaged(_)) if count > 0 => return Ok(Some(uid)),
                        Err(error) => return Err(error),
                    }
                }
            };
            bytes += wanted;
            batch.items.push(Small { uid, size, data });
        }
        Ok(None)
    })?;
    Ok(batch)
}

pub(crate) fn content(
    c: &Connection,
    mailbox: MailboxId,
    uid: Uid,
) -> Result<ContentRef, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT c.id, c.size, c.prefix FROM msg m LEFT JOIN content c ON c.id = m.content_id
         WHERE m.mailbox_id = ?1 AND m.uid = ?2",
    )?;
    let row: Option<(Option<i64>, Option<u64>, Option<u32>)> = query
        .query_row(params![mailbox.0, uid], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .optional()?;
    match row {
        None => Err(StoreError::NoSuchMessage),
        Some((Some(id), Some(size), Some(prefix_len))) => {
            Ok(ContentRef { id: ContentId(id), size, prefix_len })
        }
        Some(_) => Err(StoreError::ContentGone),
    }
}

pub(crate) fn changes(
    view: &View<'_>,
    mailbox: MailboxId,
    from: ChangesFrom,
) -> Result<MailboxChanges, StoreError> {
    let c = view.connection;
    let meta = load_meta(c)?;
    let mut out = MailboxChanges {
        purged: meta.purged_modseq,
        upto: meta.modseq,
        ..MailboxChanges::default()
    };
    let mut query = c.prepare_cached(CHANGES)?;
    let mut found = query.query(params![mailbox.0, from.modseq, from.uid])?;
    let mut last = from;
    let mut needs_names = false;
    while let Some(r) = found.next()? {
        let row = message_row(r)?;
        let count = out.changed.len() + out.gone.len();
        if count * ROW_COST >= MAX_BATCH || view.is_late(count / FEW_ROWS) {
            out.more = Some(last);
            out.upto = last.modseq;
            break;
        }
        last = ChangesFrom { modseq: row.modseq, uid: row.uid };
        if r.get::<_, bool>(9)? {
            out.gone.push(row.uid);
        } else {
            needs_names |= !row.keywords.is_empty();
            out.changed.push(row);
        }
    }
    if needs_names {
        out.keywords = keyword_names(c, mailbox)?;
    }
    Ok(out)
}

pub(crate) fn account_changes(c: &Connection, since: ModSeq) -> Result<AccountChanges, StoreError> {
    let mut query = c.prepare_cached(&format!(
        "{MAILBOX} INDEXED BY mailbox_modseq WHERE modseq > ?1 ORDER BY modseq, id LIMIT ?2"
    ))?;
    let rows = query.query_map(params![since, MAX_ACCOUNT_CHANGES], mailbox_info)?;
    let mailboxes = rows.collect::<Result<_, _>>()?;
    let mut query = c.prepare_cached(
        "SELECT mailbox_id, name FROM annotation WHERE modseq > ?1 ORDER BY modseq, id LIMIT ?2",
    )?;
    let rows = query.query_map(params![since, MAX_ACCOUNT_CHANGES], |r| {
        let mailbox: i64 = r.get(0)?;
        Ok((Some(MailboxId(mailbox)).filter(|m| m.0 != 0), r.get(1)?))
    })?;
    let annotations = rows.collect::<Result<_, _>>()?;
    Ok(AccountChanges { mailboxes, annotations, modseq: load_meta(c)?.modseq })
}

pub(crate) fn threads(
    c: &Connection,
    mailbox: MailboxId,
    from: Uid,
) -> Result<Vec<ThreadRow>, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT m.uid, m.id, m.thread_id, t.parent_id, m.bits FROM msg m
         LEFT JOIN thread_parent t ON t.msg_id = m.id
         WHERE m.mailbox_id = ?1 AND m.uid >= ?2 AND m.expunged = 0 ORDER BY m.uid LIMIT ?3",
    )?;
    let rows = query.query_map(params![mailbox.0, from, MAX_THREAD_ROWS], |r| {
        Ok(ThreadRow {
            uid: r.get(0)?,
            id: MessageId(r.get(1)?),
            thread: MessageId(r.get(2)?),
            parent: r.get::<_, Option<i64>>(3)?.map(MessageId),
            missing_link: r.get::<_, u32>(4)? & super::deliver::bits::MISSING_LINK != 0,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The version of the parser whose facts are stored.
pub(crate) fn parse_version(c: &Connection) -> Result<u32, StoreError> {
    Ok(c.query_row("SELECT parse_version FROM meta", [], |r| r.get(0))?)
}

/// Contents in the order of their numbers, for going through all of them.
pub(crate) fn contents(
    c: &Connection,
    after: Option<ContentId>,
) -> Result<Vec<ContentRef>, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT id, size, prefix FROM content WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let rows = query.query_map(params![after.map_or(0, |a| a.0), MAX_CONTENTS], |r| {
        Ok(ContentRef { id: ContentId(r.get(0)?), size: r.get(1)?, prefix_len: r.get(2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn usage(c: &Connection) -> Result<Usage, StoreError> {
    let meta = load_meta(c)?;
    let count = "SELECT count(*) FROM mailbox WHERE expunged = 0";
    Ok(Usage {
        bytes: meta.bytes_live,
        pending_bytes: meta.bytes_pending,
        messages: meta.messages_live,
        mailboxes: c.query_row(count, [], |r| r.get(0))?,
    })
}
