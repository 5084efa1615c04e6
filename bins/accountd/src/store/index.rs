//! One open account: its database, the end of its segments, and transactions over both.
//!
//! Synchronous and without threads: the worker calls it from the account's writer thread, the crash
//! tests call it directly. Operations are in the sibling files, as further methods.

use super::{
    StoreError,
    rows::MailboxInfo,
    segments::{self, SegmentFiles, Tail},
    shared::Shared,
    types::{ContentId, FIRST_MODSEQ, Keyword, MailboxId, MessageId, ModSeq, Role},
};
use daemon::Workers;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use storage::{
    Database, Error, Migration, Open, Schema, Writer,
    rusqlite::{Connection, OptionalExtension as _, params},
};
use types::{Clock, ObjectId, UnixNanos};

/// What kind of database this is: "mox" and 1.
const APPLICATION_ID: i32 = 0x6d6f_7801;

/// The tables, by the steps that made them.
pub(crate) const SCHEMA: Schema = Schema {
    application_id: APPLICATION_ID,
    migrations: &[
        Migration { sql: include_str!("schema/0001-account.sql"), min_reader: 1 },
        // Who does not know of it takes such texts for damaged.
        Migration { sql: include_str!("schema/0002-text-by-content.sql"), min_reader: 2 },
        Migration { sql: include_str!("schema/0003-repeats.sql"), min_reader: 1 },
        Migration { sql: include_str!("schema/0004-changes-by-uid.sql"), min_reader: 1 },
    ],
};

/// The folder of an account for files that nobody knows.
pub(crate) const ASIDE: &str = "quarantine";

/// Mailboxes an account begins with, beside Inbox.
pub(crate) const INITIAL: [(&str, Role); 5] = [
    ("Sent", Role::Sent),
    ("Archive", Role::Archive),
    ("Trash", Role::Trash),
    ("Drafts", Role::Drafts),
    ("Junk", Role::Junk),
];

/// Randomness: the machine's, or a test's that can be repeated.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// Told of something an administrator must look at.
pub type Alarm = dyn Fn(types::AccountId, &str) + Send + Sync;

/// What happens outside of a store comes in by this.
#[derive(Clone)]
pub struct Ports {
    /// Where the files are.
    pub disk: Arc<dyn storage::Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// A sync failed: ends the process. When it returns (in tests), the store is stopped.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
    /// Something an administrator must look at, about one account.
    pub alarm: Arc<Alarm>,
    /// Where SQLite runs.
    pub workers: Workers,
}

/// Bounds that tests make smaller.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// Staged bytes that are worth moving to a segment.
    pub drain_bytes: u64,
    /// A segment that is longer is sealed.
    pub segment_len: u64,
    /// Frames of the write-ahead log that are worth a checkpoint.
    pub checkpoint_frames: u32,
    /// Content of expunged messages is erased after this, whatever leases say.
    pub lease_cap: Duration,
    /// And not before this: a session that is about to open the mailbox has no lease yet.
    pub erase_hold: Duration,
    /// Nothing is erased for so long after a start: leases ended with the life before, and the
    /// sessions that held them come back by their tickets.
    pub erase_hold_at_start: Duration,
    /// Rows of expunged messages kept for QRESYNC.
    pub keep_expunged: u32,
    /// And how long.
    pub keep_expunged_for: Duration,
    /// Room that new mail must leave on the disk, or a twentieth of it if that is less: deleting and
    /// compacting need some.
    pub keep_free: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            drain_bytes: 1 << 20,
            segment_len: segments::SEGMENT_LEN,
            checkpoint_frames: 4000,
            lease_cap: Duration::from_secs(24 * 3600),
            erase_hold: Duration::from_secs(60),
            erase_hold_at_start: Duration::from_secs(600),
            keep_expunged: 100_000,
            keep_expunged_for: Duration::from_secs(365 * 24 * 3600),
            keep_free: 1 << 30,
        }
    }
}

/// An account, open for writing.
pub(crate) struct Index {
    pub(crate) database: Database,
    pub(crate) folder: PathBuf,
    pub(crate) shared: Arc<Shared>,
    pub(crate) ports: Ports,
    pub(crate) tuning: Tuning,
    pub(crate) tail: Option<Tail>,
    pub(crate) files: SegmentFiles,
    pub(crate) staged_bytes: u64,
    pub(crate) hash_key: [u8; 16],
    /// Set when something is amiss that writing would make worse.
    pub(crate) damaged: Option<String>,
}

/// The account's single row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) modseq: ModSeq,
    pub(crate) purged_modseq: ModSeq,
    pub(crate) next_uidvalidity: u32,
    pub(crate) next_message: i64,
    pub(crate) next_content: i64,
    pub(crate) bytes_live: u64,
    pub(crate) bytes_pending: u64,
    pub(crate) messages_live: u64,
}

/// A keyword of a mailbox, and how many messages have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeywordUse {
    pub(crate) bit: u8,
    pub(crate) name: Keyword,
    pub(crate) uses: u32,
}

/// A mailbox inside a transaction: read once, changed in memory, written once.
pub(crate) struct OpenMailbox {
    pub(crate) info: MailboxInfo,
    pub(crate) dirty: bool,
    pub(crate) keywords: Option<Vec<KeywordUse>>,
    pub(crate) keywords_dirty: bool,
}

/// A writing transaction with the rows it changes often held in memory.
pub(crate) struct Tx<'a> {
    pub(crate) c: &'a Writer<'a>,
    pub(crate) files: &'a SegmentFiles,
    pub(crate) now: UnixNanos,
    pub(crate) random: &'a dyn Random,
    pub(crate) hash_key: [u8; 16],
    pub(crate) meta: Meta,
    meta_before: Meta,
    bumped: bool,
    pub(crate) mailboxes: BTreeMap<MailboxId, OpenMailbox>,
}

impl Index {
    /// Makes the folder and the database of a new account, with its initial mailboxes.
    pub(crate) fn create(
        root: &Path,
        shared: Arc<Shared>,
        ports: &Ports,
        tuning: Tuning,
    ) -> Result<Self, StoreError> {
        let folder = root.join(shared.id.to_string());
        let disk = ports.disk.as_ref();
        for new in [folder.clone(), segments::folder(&folder)] {
            if !disk.exists(&new) {
                disk.create_dir(&new).map_err(|e| Error::file("make the account's folder", &e))?;
            }
        }
        // Names are durable from the outermost on before anything inside is promised.
        for parent in [root, &folder] {
            disk.sync_dir(parent).map_err(|e| Error::sync("folder of accounts", &e))?;
        }
        let mut database = Database::open(&folder.join("index.db"), &SCHEMA, &how(ports))?;
        let now = ports.clock.now();
        let mut hash_key = [0u8; 16];
        ports.random.fill(&mut hash_key);
        database.write(|w| {
            let exists: i64 = w.query_row("SELECT count(*) FROM meta", [], |r| r.get(0))?;
            if exists != 0 {
                return Err(StoreError::AccountExists);
            }
            // RFC 9051 §2.3.1.1: UIDVALIDITY grows when an account is made anew; half the seconds
            // leave room for one new mailbox every two seconds.
            let uidvalidity = u32::try_from(now.seconds() / 2).unwrap_or(1).max(1);
            w.execute("INSERT INTO junk_meta VALUES (1, 0, 0)", [])?;
            let all = std::iter::once(("Inbox", 0))
                .chain(INITIAL.iter().map(|(name, role)| (*name, Role::to_column(Some(*role)))));
            // Each its own: were Archive deleted and Junk renamed to Archive, the same name,
            // UIDVALIDITY and UID would mean another message.
            let mut next = uidvalidity;
            for (name, role) in all {
                let uidvalidity = next;
                next = next.saturating_add(1);
                let mut oid = [0u8; 16];
                ports.random.fill(&mut oid);
                w.execute(
                    "INSERT INTO mailbox(name, role, uidvalidity, createseq, modseq, oid)
                     VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
                    params![name, role, uidvalidity, FIRST_MODSEQ, oid],
                )?;
                w.execute("INSERT INTO subscription VALUES (?1)", [name])?;
            }
            w.execute(
                "INSERT INTO meta VALUES (1, ?1, 0, ?2, 1, 1, 0, 0, 0, 1, ?3, ?3, ?4)",
                params![FIRST_MODSEQ, next, now.0, hash_key],
            )?;
            Ok(())
        })?;
        drop(database);
        Self::open(root, shared, ports, tuning)
    }

    /// Opens an account, finishes what a crash interrupted, and looks whether all segments are
    /// there.
    pub(crate) fn open(
        root: &Path,
        shared: Arc<Shared>,
        ports: &Ports,
        tuning: Tuning,
    ) -> Result<Self, StoreError> {
        let folder = root.join(shared.id.to_string());
        let file = folder.join("index.db");
        if !ports.disk.exists(&file) {
            let has_mail = ports.disk.exists(&segments::folder(&folder))
                && ports.disk.list(&segments::folder(&folder)).is_ok_and(|l| !l.is_empty());
            return Err(if has_mail {
                StoreError::Damaged("index.db is missing".into())
            } else {
                StoreError::NoSuchAccount
            });
        }
        let how = Open { keep_free: tuning.keep_free, ..how(ports) };
        let mut database = Database::open(&file, &SCHEMA, &how).inspect_err(|error| {
            if let Error::DiskFull(why) = error {
                (ports.alarm)(shared.id, why);
            }
        })?;
        let first: Option<(ModSeq, [u8; 16])> = database.read(|c| {
            let row = c
                .query_row("SELECT modseq, hash_key FROM meta", [], |r| Ok((r.get(0)?, r.get(1)?)));
            row.optional().map_err(StoreError::from)
        })?;
        // A crash while the account was made: nothing of it was promised.
        let Some((modseq, hash_key)) = first else { return Err(StoreError::NoSuchAccount) };
        let files = SegmentFiles::new(Arc::clone(&ports.disk), folder.clone());
        let mut index = Self {
            database,
            folder,
            shared,
            ports: ports.clone(),
            tuning,
            tail: None,
            files,
            staged_bytes: 0,
            hash_key,
            damaged: None,
        };
        index.recover()?;
        // The look at the open segment's rows filled the cache with what nobody asked for: accounts
        // that are only looked into, as all are at the start, would hold 2 MB each.
        index.database.shrink();
        index.shared.publish(modseq);
        index.shared.ready.store(true, Ordering::Release);
        Ok(index)
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        // 1. Unlinks that a commit promised.
        self.finish_unlinks()?;
        // 2. Segment files the database never heard of: the commit of their row did not come.
        let known: BTreeMap<i64, (bool, u64)> = self.database.read(|c| {
            let mut query = c.prepare(
                "SELECT s.id, s.sealed, iif(s.sealed, s.len, coalesce(
                   (SELECT max(off + zsize) FROM content WHERE seg = s.id), 0)) FROM segment s",
            )?;
            let rows = query.query_map([], |r| Ok((r.get(0)?, (r.get(1)?, r.get(2)?))))?;
            rows.collect::<Result<_, _>>().map_err(StoreError::from)
        })?;
        let folder = segments::folder(&self.folder);
        let names = self.ports.disk.list(&folder).map_err(|e| Error::file("list segments", &e))?;
        for name in names {
            let number = name.to_str().and_then(|n| n.parse::<i64>().ok());
            if number.is_some_and(|n| known.contains_key(&n)) {
                continue;
            }
            // Content that lies in it would go with it.
            if self.database.read(|c| segments::holds_content(c, number))? {
                self.set_damaged(format!("segment file {} has no row", name.display()));
            } else {
                self.set_aside(&name)?;
            }
        }
        // 3. Every segment is as long as its last row says, or was when it was sealed.
        let mut open = None;
        for (id, (sealed, end)) in known {
            match Tail::open(self.ports.disk.as_ref(), &self.folder, id) {
                Ok(tail) if tail.len >= end => {
                    if !sealed {
                        open = Some(tail);
                    }
                }
                Ok(tail) => self.set_damaged(format!(
                    "segment {id} has {} octets, its rows reach {end}",
                    tail.len
                )),
                Err(error @ (Error::Io(_) | Error::Damaged(_))) => {
                    self.set_damaged(format!("segment {id}: {error}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        // 4. Go on at the file's length (see `Tail::open`).
        self.tail = open;
        // 5. What waits to be drained.
        self.staged_bytes = self.database.read(|c| {
            let sum = "SELECT coalesce(sum(length(data)), 0) FROM staged";
            c.query_row(sum, [], |r| r.get(0)).map_err(StoreError::from)
        })?;
        Ok(())
    }

    /// Unknown files are moved aside for a while before they go: they may be what an administrator
    /// is looking for. Says where to.
    pub(crate) fn set_aside(&self, name: &std::ffi::OsStr) -> Result<String, StoreError> {
        let disk = self.ports.disk.as_ref();
        let aside = self.folder.join(ASIDE);
        if !disk.exists(&aside) {
            disk.create_dir(&aside).map_err(|e| Error::file("make the quarantine", &e))?;
        }
        let since = self.ports.clock.now().seconds();
        // A name that was set aside in the same second is not written over.
        let mut kept = format!("{since}-{}", name.to_string_lossy());
        while disk.exists(&aside.join(&kept)) {
            kept.push('~');
        }
        disk.rename(&segments::folder(&self.folder).join(name), &aside.join(&kept))
            .map_err(|e| Error::file("quarantine a segment", &e))?;
        disk.sync_dir(&aside).map_err(|e| Error::sync("quarantine", &e))?;
        disk.sync_dir(&segments::folder(&self.folder))
            .map_err(|e| Error::sync("segment folder", &e))?;
        let to = format!("{ASIDE}/{kept}");
        let account = self.shared.id;
        tracing::warn!(%account, file = %name.display(), to, "an unknown file was set aside");
        Ok(to)
    }

    /// This account is left as it is: reading goes on, writing does not.
    pub(crate) fn set_damaged(&mut self, why: String) {
        (self.ports.alarm)(self.shared.id, &why);
        self.damaged = Some(why);
    }

    /// Runs `work` in one transaction, commits it, and tells the watchers.
    pub(crate) fn transact<T>(
        &mut self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(why) = &self.damaged {
            return Err(StoreError::Damaged(why.clone()));
        }
        let now = self.ports.clock.now();
        let (files, random, hash_key) = (&self.files, self.ports.random.as_ref(), self.hash_key);
        let shared = Arc::clone(&self.shared);
        let _inside = shared.gate.pass();
        let done = self.database.write(|writer| {
            let mut tx = Tx::begin(writer, files, now, random, hash_key)?;
            let result = work(&mut tx)?;
            let modseq = tx.finish()?;
            Ok::<_, StoreError>((result, modseq))
        });
        match done {
            Ok((result, modseq)) => {
                // After the COMMIT, in commit order: this is the only writer.
                shared.publish(modseq);
                Ok(result)
            }
            Err(StoreError::Damaged(why)) => {
                self.set_damaged(why.clone());
                Err(StoreError::Damaged(why))
            }
            Err(other) => Err(other),
        }
    }

    /// A checkpoint in place, where there are no threads.
    #[cfg(test)]
    pub(crate) fn checkpoint(&mut self) -> Result<storage::Checkpoint, StoreError> {
        Ok(storage::checkpoint(self.database.connection(), &self.shared.gate)?)
    }
}

/// How an account's database is opened for writing.
pub(crate) fn how(ports: &Ports) -> Open {
    Open { disk: Arc::clone(&ports.disk), statements: 48, ..Open::default() }
}

pub(crate) fn load_meta(c: &Connection) -> Result<Meta, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT modseq, purged_modseq, next_uidvalidity, next_message, next_content, bytes_live,
         bytes_pending, messages_live FROM meta",
    )?;
    let meta = query.query_row([], |r| {
        Ok(Meta {
            modseq: r.get(0)?,
            purged_modseq: r.get(1)?,
            next_uidvalidity: r.get(2)?,
            next_message: r.get(3)?,
            next_content: r.get(4)?,
            bytes_live: r.get(5)?,
            bytes_pending: r.get(6)?,
            messages_live: r.get(7)?,
        })
    })?;
    Ok(meta)
}

impl<'a> Tx<'a> {
    fn begin(
        c: &'a Writer<'a>,
        files: &'a SegmentFiles,
        now: UnixNanos,
        random: &'a dyn Random,
        hash_key: [u8; 16],
    ) -> Result<Self, StoreError> {
        let meta = load_meta(c)?;
        let mailboxes = BTreeMap::new();
        Ok(Self {
            c,
            files,
            now,
            random,
            hash_key,
            meta,
            meta_before: meta,
            bumped: false,
            mailboxes,
        })
    }

    /// The modseq of this transaction: one for all it changes.
    pub(crate) fn seq(&mut self) -> ModSeq {
        if !self.bumped {
            self.meta.modseq += 1;
            self.bumped = true;
        }
        self.meta.modseq
    }

    /// Whether anything took that modseq.
    pub(crate) fn is_bumped(&self) -> bool {
        self.bumped
    }

    pub(crate) fn next_message(&mut self) -> MessageId {
        self.meta.next_message += 1;
        MessageId(self.meta.next_message - 1)
    }

    pub(crate) fn next_content(&mut self) -> ContentId {
        self.meta.next_content += 1;
        ContentId(self.meta.next_content - 1)
    }

    pub(crate) fn oid(&self) -> ObjectId {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        ObjectId::from_bytes(bytes)
    }

    /// A keyed hash for an index: an attacker must not choose collisions, and nobody who sees the
    /// index sees the text. The text is compared after the hit.
    pub(crate) fn hash(&self, text: &str) -> i64 {
        hash(&self.hash_key, text)
    }

    /// A live mailbox, to be changed.
    pub(crate) fn mailbox(&mut self, id: MailboxId) -> Result<&mut OpenMailbox, StoreError> {
        use std::collections::btree_map::Entry;
        let open = match self.mailboxes.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let info = super::read::mailbox(self.c, id)?;
                entry.insert(OpenMailbox {
                    info,
                    dirty: false,
                    keywords: None,
                    keywords_dirty: false,
                })
            }
        };
        if open.info.expunged { Err(StoreError::NoSuchMailbox) } else { Ok(open) }
    }

    /// The same, and it counts as changed in this transaction.
    pub(crate) fn touch(&mut self, id: MailboxId) -> Result<&mut OpenMailbox, StoreError> {
        let seq = self.seq();
        let open = self.mailbox(id)?;
        open.info.modseq = seq;
        open.dirty = true;
        Ok(open)
    }

    /// Writes what was held in memory.
    fn finish(mut self) -> Result<ModSeq, StoreError> {
        for open in std::mem::take(&mut self.mailboxes).into_values() {
            if open.keywords_dirty {
                save_keywords(self.c, open.info.id, open.keywords.as_deref().unwrap_or_default())?;
            }
            if open.dirty {
                save_mailbox(self.c, &open.info)?;
            }
        }
        if self.meta != self.meta_before {
            let m = &self.meta;
            let mut update = self.c.prepare_cached(
                "UPDATE meta SET modseq=?1, purged_modseq=?2, next_uidvalidity=?3, next_message=?4,
                 next_content=?5, bytes_live=?6, bytes_pending=?7, messages_live=?8, changed=?9",
            )?;
            update.execute(params![
                m.modseq,
                m.purged_modseq,
                m.next_uidvalidity,
                m.next_message,
                m.next_content,
                m.bytes_live,
                m.bytes_pending,
                m.messages_live,
                self.now.0
            ])?;
        }
        Ok(self.meta.modseq)
    }
}

fn save_mailbox(c: &Connection, m: &MailboxInfo) -> Result<(), StoreError> {
    let mut update = c.prepare_cached(
        "UPDATE mailbox SET name=?2, role=?3, uidvalidity=?4, uidnext=?5, n_messages=?6,
         n_deleted=?7, n_unseen=?8, n_unread=?9, bytes=?10, bytes_deleted=?11, modseq=?12,
         expunged=?13 WHERE id=?1",
    )?;
    update.execute(params![
        m.id.0,
        m.name,
        Role::to_column(m.role),
        m.uidvalidity,
        m.uidnext,
        m.messages,
        m.deleted,
        m.unseen,
        m.unread,
        m.bytes,
        m.deleted_bytes,
        m.modseq,
        m.expunged
    ])?;
    Ok(())
}

fn save_keywords(c: &Connection, id: MailboxId, all: &[KeywordUse]) -> Result<(), StoreError> {
    // At most 100 short rows; keywords out of use disappear and free their number.
    c.prepare_cached("DELETE FROM mailbox_keyword WHERE mailbox_id = ?1")?.execute([id.0])?;
    let mut insert = c.prepare_cached("INSERT INTO mailbox_keyword VALUES (?1, ?2, ?3, ?4)")?;
    for k in all.iter().filter(|k| k.uses > 0) {
        insert.execute(params![id.0, k.bit, k.name.as_str(), k.uses])?;
    }
    Ok(())
}

pub(crate) fn hash(key: &[u8; 16], text: &str) -> i64 {
    use std::hash::Hasher as _;
    let mut hasher = siphasher::sip::SipHasher13::new_with_key(key);
    hasher.write(text.as_bytes());
    i64::from_le_bytes(hasher.finish().to_le_bytes())
}
