//! Compares an account with what it should be (account-store §12), while it is in use.
//!
//! The checks are steps; each is one job and one transaction, so each sees one state, and deliveries
//! come in between; what only reads is a reader's job. What is long (content) goes in slices. With `fix`,
//! counters are set to what they count, orphans are put on the list of what is to be erased, unknown
//! files are set aside, links of threads that cannot be are cut, keywords without a name get one; all
//! else is reported and left for a person.

mod found;
mod junk;

pub use found::{Check, Finding};

use super::{
    StoreError, codec,
    index::{Index, load_meta},
    mailbox, read,
    segments::{self, FRAME, Position, SegmentFiles},
    shared::Shared,
    text,
    types::{ContentId, Flags, KeywordBits, MailboxId},
    worker::Pool,
};
use found::Found;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use storage::{
    Access,
    rusqlite::{Connection, OptionalExtension as _, Params, params},
};

/// Contents read in one step.
const CONTENT_STEP: i64 = 200;
/// Bytes of content read in one step.
const CONTENT_BYTES: u64 = 16 << 20;
/// What a keyword is called whose name is lost, with its number behind it.
const UNNAMED: &str = "$lost";
/// Words that are counted anew in one step, of the order of 20 MiB.
const JUNK_WORDS: usize = 200_000;

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Steps done: one for each check, contents by the slice.
    pub done: u64,
    /// Of how many, as far as is known.
    pub of: u64,
}

/// The steps, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Structure,
    Sequences,
    Names,
    Counters,
    Refcounts,
    Segments,
    Threads,
    Annotations,
    /// From this word on; the text before all words first.
    Junk(String),
    /// From this content on.
    Content(i64),
}

const STEPS: [Step; 10] = [
    Step::Structure,
    Step::Sequences,
    Step::Names,
    Step::Counters,
    Step::Refcounts,
    Step::Segments,
    Step::Threads,
    Step::Annotations,
    Step::Junk(String::new()),
    Step::Content(0),
];

pub(crate) async fn run(
    pool: &Pool,
    shared: &Arc<Shared>,
    fix: bool,
    progress: Arc<dyn Fn(Progress) + Send + Sync>,
) -> Result<Vec<Finding>, StoreError> {
    let mut found = Found::default();
    let mut done = 0;
    for step in STEPS {
        let mut next = Some(step);
        while let Some(step) = next {
            let (part, after, left) = go(pool, shared, step, fix).await?;
            found.join(part);
            done += 1;
            progress(Progress { done, of: STEPS.len() as u64 + left });
            next = after;
        }
    }
    Ok(found.finish(fix))
}

/// One step, by a reader where that is enough.
async fn go(pool: &Pool, shared: &Arc<Shared>, step: Step, fix: bool) -> Result<Taken, StoreError> {
    if let Step::Junk(from) = &step {
        let mut counting = junk::Counting::from(from.clone());
        loop {
            match pool.read(shared, move |v| junk::look(v, counting, JUNK_WORDS)).await? {
                junk::Looked::More(so_far) => counting = so_far,
                junk::Looked::Right(end) => {
                    return Ok((Found::default(), end.map(Step::Junk), 0));
                }
                junk::Looked::Unsure => break,
            }
        }
    }
    if step.only_reads(fix) {
        pool.read(shared, move |v| look(v.connection, v.files, &step)).await
    } else {
        pool.write(shared, move |i| take(i, &step, fix)).await
    }
}

/// What the junk filter learned, with so few words a step.
#[cfg(test)]
pub(crate) fn junk_by(
    index: &mut Index,
    words: usize,
    fix: bool,
) -> Result<(Vec<Finding>, u32), StoreError> {
    let (mut found, mut next, mut steps) = (Found::default(), Some(String::new()), 0);
    while let Some(from) = next {
        next = junk::check(index, &from, words, fix, &mut found)?;
        steps += 1;
    }
    Ok((found.finish(fix), steps))
}

/// What the junk filter learned, as [`run`] looks at it.
#[cfg(test)]
pub(crate) async fn junk_alone(
    pool: &Pool,
    shared: &Arc<Shared>,
    fix: bool,
) -> Result<Vec<Finding>, StoreError> {
    let (found, next, _) = go(pool, shared, Step::Junk(String::new()), fix).await?;
    assert_eq!(next, None, "one step");
    Ok(found.finish(fix))
}

/// All steps at once, without threads.
#[cfg(test)]
pub(crate) fn all(index: &mut Index, fix: bool) -> Result<Vec<Finding>, StoreError> {
    let mut found = Found::default();
    for step in STEPS {
        let mut next = Some(step);
        while let Some(step) = next {
            let (part, after, _) = take(index, &step, fix)?;
            found.join(part);
            next = after;
        }
    }
    Ok(found.finish(fix))
}

impl Step {
    /// Whether a reader can take it, so that deliveries need not wait.
    fn only_reads(&self, fix: bool) -> bool {
        match self {
            Self::Structure
            | Self::Sequences
            | Self::Names
            | Self::Annotations
            | Self::Content(_) => true,
            Self::Threads => !fix,
            // These mend what they find, or compare rows with files that a writer changes. What the
            // junk filter learned a reader looked at before.
            Self::Counters | Self::Refcounts | Self::Segments | Self::Junk(_) => false,
        }
    }
}

/// What a step found, the step that goes on with it, how many are left.
type Taken = (Found, Option<Step>, u64);

/// Takes a step that only reads.
fn look(c: &Connection, files: &SegmentFiles, step: &Step) -> Result<Taken, StoreError> {
    let mut found = Found::default();
    match step {
        Step::Structure => structure(c, &mut found)?,
        Step::Sequences => sequences(c, &mut found)?,
        Step::Names => names(c, &mut found)?,
        Step::Threads => threads(c, &mut found)?,
        Step::Annotations => annotations(c, &mut found)?,
        Step::Content(from) => {
            let (next, left) = contents(c, files, *from, &mut found)?;
            return Ok((found, next.map(Step::Content), left));
        }
        Step::Counters | Step::Refcounts | Step::Segments | Step::Junk(_) => {}
    }
    Ok((found, None, 0))
}

/// Takes any step.
fn take(index: &mut Index, step: &Step, fix: bool) -> Result<Taken, StoreError> {
    let mut found = Found::default();
    match step {
        Step::Counters => counters(index, fix, &mut found)?,
        Step::Refcounts => refcounts(index, fix, &mut found)?,
        Step::Segments => segment_files(index, fix, &mut found)?,
        Step::Threads if fix => mend_threads(index, &mut found)?,
        Step::Junk(from) => {
            let next = junk::check(index, from, JUNK_WORDS, fix, &mut found)?;
            return Ok((found, next.map(Step::Junk), 0));
        }
        Step::Structure
        | Step::Sequences
        | Step::Names
        | Step::Threads
        | Step::Annotations
        | Step::Content(_) => {
            let files = &index.files;
            return index.database.read(|c| look(c, files, step));
        }
    }
    Ok((found, None, 0))
}

/// Lists the texts a query gives.
fn list<P: Params>(
    c: &Connection,
    found: &mut Found,
    check: Check,
    sql: &str,
    values: P,
) -> Result<(), StoreError> {
    let mut query = c.prepare(sql)?;
    let rows = query.query_map(values, |r| r.get::<_, String>(0))?;
    for row in rows {
        found.add(check, row?, false);
    }
    Ok(())
}

fn structure(c: &Connection, found: &mut Found) -> Result<(), StoreError> {
    let mut query = c.prepare("PRAGMA integrity_check(100)")?;
    for row in query.query_map([], |r| r.get::<_, String>(0))? {
        let row = row?;
        if row != "ok" {
            found.add(Check::Structure, row, false);
        }
    }
    let mut query = c.prepare("PRAGMA foreign_key_check")?;
    let rows = query.query_map([], |r| {
        Ok(format!(
            "row {} of {} names a row of {} that is not there",
            r.get::<_, Option<i64>>(1)?.unwrap_or(0),
            r.get::<_, String>(0)?,
            r.get::<_, String>(2)?
        ))
    })?;
    for row in rows {
        found.add(Check::References, row?, false);
    }
    Ok(())
}

fn sequences(c: &Connection, found: &mut Found) -> Result<(), StoreError> {
    let meta = load_meta(c)?;
    for (what, sql, bound) in [
        (
            "a message has a modseq above the account's",
            "SELECT 'message ' || id || ': ' || ?2 FROM msg WHERE modseq > ?1",
            i64::try_from(meta.modseq).unwrap_or(i64::MAX),
        ),
        (
            "a number that was not given yet",
            "SELECT 'message ' || id || ': ' || ?2 FROM msg WHERE id >= ?1",
            meta.next_message,
        ),
        (
            "a number that was not given yet",
            "SELECT 'content ' || id || ': ' || ?2 FROM content WHERE id >= ?1",
            meta.next_content,
        ),
        (
            "a UIDVALIDITY that was not given yet",
            "SELECT 'mailbox ' || id || ': ' || ?2 FROM mailbox WHERE uidvalidity >= ?1",
            i64::from(meta.next_uidvalidity),
        ),
        (
            "a modseq above the account's",
            "SELECT 'mailbox ' || id || ': ' || ?2 FROM mailbox WHERE modseq > ?1",
            i64::try_from(meta.modseq).unwrap_or(i64::MAX),
        ),
    ] {
        list(c, found, Check::Sequences, sql, params![bound, what])?;
    }
    for sql in [
        "SELECT 'message ' || m.id || ': UID at or above UIDNEXT' FROM msg m
         JOIN mailbox b ON b.id = m.mailbox_id WHERE m.uid >= b.uidnext OR m.uid < 1",
        "SELECT 'message ' || id || ': modseq below createseq' FROM msg WHERE modseq < createseq",
        "SELECT 'message ' || m.id || ': modseq above its mailbox''s' FROM msg m
         JOIN mailbox b ON b.id = m.mailbox_id WHERE m.modseq > b.modseq",
        "SELECT 'mailbox ' || id || ': modseq below createseq' FROM mailbox WHERE modseq < createseq",
        "SELECT 'message ' || m.id || ' is in a mailbox that is gone' FROM msg m
         JOIN mailbox b ON b.id = m.mailbox_id WHERE m.expunged = 0 AND b.expunged = 1",
    ] {
        list(c, found, Check::Sequences, sql, [])?;
    }
    Ok(())
}

fn names(c: &Connection, found: &mut Found) -> Result<(), StoreError> {
    let all = read::mailboxes(c)?;
    let mut parents: BTreeMap<i64, Option<i64>> = BTreeMap::new();
    let mut query = c.prepare("SELECT id, parent_id FROM mailbox WHERE expunged = 0")?;
    for row in query.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))? {
        let (id, parent) = row?;
        parents.insert(id, parent);
    }
    let by_id: BTreeMap<i64, &str> = all.iter().map(|m| (m.id.0, m.name.as_str())).collect();
    if all.iter().all(|m| m.name != "Inbox") {
        found.add(Check::Names, "there is no Inbox".into(), false);
    }
    for m in &all {
        if mailbox::canonical(&m.name).ok().as_deref() != Some(m.name.as_str()) {
            let what = format!("mailbox {} has a name that breaks a rule: {:?}", m.id.0, m.name);
            found.add(Check::Names, what, false);
        }
        let parent = parents.get(&m.id.0).copied().flatten();
        let expected = m.name.rsplit_once('/').map(|(parent, _)| parent);
        if parent.map(|p| by_id.get(&p).copied()) != expected.map(Some) {
            let what = format!("mailbox {} ({:?}) has another parent", m.id.0, m.name);
            found.add(Check::Names, what, false);
        }
    }
    Ok(())
}

fn counters(index: &mut Index, fix: bool, found: &mut Found) -> Result<(), StoreError> {
    type Counted = (u32, u32, u32, u32, u64, u64);
    let work =
        |c: &Connection, found: &mut Found| -> Result<Vec<(MailboxId, Counted)>, StoreError> {
            let mut wrong = Vec::new();
            let mut query = c.prepare(
            "SELECT count(*), coalesce(sum(flags & ?2 <> 0), 0), coalesce(sum(flags & 1 = 0), 0),
               coalesce(sum(flags & 1 = 0 AND flags & ?2 = 0), 0), coalesce(sum(size), 0),
               coalesce(sum(CASE WHEN flags & ?2 <> 0 THEN size ELSE 0 END), 0)
             FROM msg WHERE mailbox_id = ?1 AND expunged = 0",
        )?;
            for m in read::mailboxes(c)? {
                let counted: Counted = query
                    .query_row(params![m.id.0, Flags::DELETED.bits()], |r| {
                        Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?))
                    })?;
                let kept = (m.messages, m.deleted, m.unseen, m.unread, m.bytes, m.deleted_bytes);
                if kept != counted {
                    let what = format!("mailbox {} says {kept:?}, holds {counted:?}", m.id.0);
                    found.add(Check::Counters, what, fix);
                    wrong.push((m.id, counted));
                }
            }
            Ok(wrong)
        };
    if fix {
        index.transact(|tx| {
            for (id, n) in work(tx.c, found)? {
                let info = &mut tx.touch(id)?.info;
                (info.messages, info.deleted, info.unseen, info.unread) = (n.0, n.1, n.2, n.3);
                (info.bytes, info.deleted_bytes) = (n.4, n.5);
            }
            for (id, uses) in keyword_uses(tx.c, found, true)? {
                set_keyword_uses(tx.c, id, uses)?;
            }
            let (bytes, messages, pending) = usage(tx.c)?;
            let meta = &mut tx.meta;
            if (meta.bytes_live, meta.messages_live, meta.bytes_pending)
                != (bytes, messages, pending)
            {
                found.add(Check::Usage, "the account's sums".into(), true);
                meta.bytes_live = bytes;
                meta.messages_live = messages;
                meta.bytes_pending = pending;
            }
            Ok(())
        })
    } else {
        index.database.read(|c| {
            work(c, found)?;
            keyword_uses(c, found, false)?;
            let meta = load_meta(c)?;
            let (kept, counted) =
                ((meta.bytes_live, meta.messages_live, meta.bytes_pending), usage(c)?);
            if kept != counted {
                let what = format!("the account says {kept:?}, holds {counted:?}");
                found.add(Check::Usage, what, false);
            }
            Ok(())
        })
    }
}

/// Octets and messages that live, octets that wait to be erased.
fn usage(c: &Connection) -> Result<(u64, u64, u64), StoreError> {
    let live = "SELECT coalesce(sum(size), 0), count(*) FROM msg WHERE expunged = 0";
    let (bytes, messages) = c.query_row(live, [], |r| Ok((r.get(0)?, r.get(1)?)))?;
    let pending =
        "SELECT coalesce(sum(c.size), 0) FROM erase e JOIN content c ON c.id = e.content_id";
    Ok((bytes, messages, c.query_row(pending, [], |r| r.get(0))?))
}

type Uses = Vec<(u8, u32)>;

/// Mailboxes whose keywords are counted wrongly, with the right counts.
fn keyword_uses(
    c: &Connection,
    found: &mut Found,
    fix: bool,
) -> Result<Vec<(MailboxId, Uses)>, StoreError> {
    let mut counted: BTreeMap<i64, BTreeMap<u8, u32>> = BTreeMap::new();
    let mut query =
        c.prepare("SELECT mailbox_id, kw FROM msg WHERE expunged = 0 AND kw IS NOT NULL")?;
    let rows = query.query_map([], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, Vec<u8>>(1)?)))?;
    for row in rows {
        let (mailbox, kw) = row?;
        for bit in KeywordBits::from_column(Some(&kw)).numbers() {
            *counted.entry(mailbox).or_default().entry(bit).or_default() += 1;
        }
    }
    let mut wrong = Vec::new();
    for m in read::mailboxes(c)? {
        let counts = counted.remove(&m.id.0).unwrap_or_default();
        let kept: BTreeMap<u8, u32> =
            read::keyword_uses(c, m.id)?.into_iter().map(|k| (k.bit, k.uses)).collect();
        if kept == counts {
            continue;
        }
        let what = format!("mailbox {}: keywords counted {kept:?}, used {counts:?}", m.id.0);
        found.add(Check::Counters, what, fix);
        let all: BTreeSet<u8> = kept.keys().chain(counts.keys()).copied().collect();
        let right = all.into_iter().map(|bit| (bit, counts.get(&bit).copied().unwrap_or(0)));
        wrong.push((m.id, right.collect()));
    }
    Ok(wrong)
}

/// Sets them, and gives a name to what has lost its own: it is seen again, and can be taken away.
fn set_keyword_uses(c: &Connection, mailbox: MailboxId, uses: Uses) -> Result<(), StoreError> {
    for (bit, count) in uses {
        let values = params![mailbox.0, bit, count];
        if count == 0 {
            let unused = "DELETE FROM mailbox_keyword WHERE mailbox_id = ?1 AND bit = ?2";
            c.execute(unused, params![mailbox.0, bit])?;
        } else if c.execute(
            "UPDATE mailbox_keyword SET uses = ?3 WHERE mailbox_id = ?1 AND bit = ?2",
            values,
        )? == 0
        {
            let taken = "SELECT 1 FROM mailbox_keyword WHERE mailbox_id = ?1 AND name = ?2";
            let mut name = format!("{UNNAMED}{bit}");
            while c.prepare(taken)?.exists(params![mailbox.0, name])? {
                name.push('_');
            }
            let insert = "INSERT INTO mailbox_keyword VALUES (?1, ?2, ?3, ?4)";
            c.execute(insert, params![mailbox.0, bit, name, count])?;
        }
    }
    Ok(())
}

fn refcounts(index: &mut Index, fix: bool, found: &mut Found) -> Result<(), StoreError> {
    let work = |c: &Connection| -> Result<Vec<(i64, i64, i64)>, StoreError> {
        let mut query = c.prepare(
            "SELECT c.id, c.refcount,
               (SELECT count(*) FROM msg m WHERE m.content_id = c.id AND m.expunged = 0)
               + (SELECT count(*) FROM outbox o WHERE o.content_id = c.id) AS n
             FROM content c
             WHERE n <> c.refcount
               OR (n = 0) <> EXISTS (SELECT 1 FROM erase e WHERE e.content_id = c.id)",
        )?;
        let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let mut wrong = index.database.read(work)?;
    if fix && !wrong.is_empty() {
        wrong = index.transact(|tx| {
            let wrong = work(tx.c)?;
            for (id, _, n) in &wrong {
                tx.c.execute("UPDATE content SET refcount = ?2 WHERE id = ?1", [id, n])?;
                if *n == 0 {
                    let seq = tx.seq();
                    tx.c.execute(
                        "INSERT OR IGNORE INTO erase VALUES (?1, ?2, ?3)",
                        params![id, seq, tx.now.0],
                    )?;
                } else {
                    tx.c.execute("DELETE FROM erase WHERE content_id = ?1", [id])?;
                }
            }
            tx.meta.bytes_pending = usage(tx.c)?.2;
            Ok(wrong)
        })?;
    }
    for (id, kept, n) in wrong {
        let what = format!("content {id} is referred to {n} times, its row says {kept}");
        found.add(Check::Refcounts, what, fix);
    }
    index.database.read(|c| {
        let lost = "SELECT 'message ' || m.id || ' has no content' FROM msg m WHERE m.expunged = 0
             AND NOT EXISTS (SELECT 1 FROM content c WHERE c.id = m.content_id)";
        list(c, found, Check::Content, lost, [])?;
        let size = "SELECT 'message ' || m.id || ': size ' || m.size || ', content ' || c.size
             FROM msg m JOIN content c ON c.id = m.content_id
             WHERE m.expunged = 0 AND m.size <> c.size";
        list(c, found, Check::Content, size, [])
    })
}

fn segment_files(index: &mut Index, fix: bool, found: &mut Found) -> Result<(), StoreError> {
    type Row = (u64, u64, bool, u64, u64);
    let rows: BTreeMap<i64, Row> = index.database.read(|c| {
        let mut query = c.prepare(
            "SELECT s.id, s.len, s.dead, s.sealed, coalesce(max(c.off + c.zsize), 0),
               coalesce(sum(c.zsize), 0)
             FROM segment s LEFT JOIN content c ON c.seg = s.id GROUP BY s.id",
        )?;
        let rows = query.query_map([], |r| {
            Ok((r.get(0)?, (r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?)))
        })?;
        rows.collect::<Result<_, _>>().map_err(StoreError::from)
    })?;
    let disk = index.ports.disk.as_ref();
    let mut open = 0;
    for (id, (len, dead, sealed, end, living)) in &rows {
        let file = disk.open(&segments::path(&index.folder, *id), Access::Read);
        match file.and_then(|f| f.len()) {
            Err(error) => {
                found.add(Check::Segments, format!("segment {id}: {error}"), false);
            }
            Ok(on_disk) if on_disk < *end || (*sealed && on_disk != *len) => {
                let what = format!("segment {id} has {on_disk} octets, not {}", len.max(end));
                found.add(Check::Segments, what, false);
            }
            Ok(on_disk) if dead + living > on_disk => {
                let what = format!("segment {id}: {dead} dead and {living} living of {on_disk}");
                found.add(Check::Segments, what, false);
            }
            Ok(_) => {}
        }
        open += u32::from(!sealed);
    }
    if open > 1 {
        found.add(Check::Segments, format!("{open} segments are open"), false);
    }
    let names = disk.list(&segments::folder(&index.folder));
    for name in names.map_err(|e| storage::Error::file("list segments", &e))? {
        let number = name.to_str().and_then(|n| n.parse::<i64>().ok());
        if number.is_some_and(|n| rows.contains_key(&n)) {
            continue;
        }
        if index.database.read(|c| segments::holds_content(c, number))? {
            let what = format!("segment file {} has no row", name.display());
            found.add(Check::Segments, what, false);
            continue;
        }
        let mut what = format!("unknown file seg/{}", name.display());
        if fix {
            what = format!("{what}, set aside as {}", index.set_aside(&name)?);
        }
        found.put(Finding { check: Check::Segments, what, fixed: fix, fixable: !fix });
    }
    Ok(())
}

fn threads(c: &Connection, found: &mut Found) -> Result<(), StoreError> {
    for sql in [
        "SELECT 'message ' || id || ' has no thread' FROM msg WHERE expunged = 0 AND thread_id < 1",
        "SELECT 'message ' || msg_id || ' is its own parent' FROM thread_parent
         WHERE msg_id = parent_id",
        "SELECT 'link of message ' || t.msg_id || ', which is not there' FROM thread_parent t
         WHERE NOT EXISTS (SELECT 1 FROM msg WHERE id = t.msg_id)",
        "SELECT 'the parent of message ' || t.msg_id || ' is not there' FROM thread_parent t
         WHERE NOT EXISTS (SELECT 1 FROM msg WHERE id = t.parent_id)",
        "SELECT 'message ' || a.id || ' is in another thread than its parent' FROM thread_parent t
         JOIN msg a ON a.id = t.msg_id AND a.expunged = 0
         JOIN msg b ON b.id = t.parent_id AND b.expunged = 0 WHERE a.thread_id <> b.thread_id",
        // A parent came first, so it has the smaller number: that also shows there is no circle.
        "SELECT 'message ' || msg_id || ' is older than its parent' FROM thread_parent
         WHERE parent_id > msg_id",
    ] {
        list(c, found, Check::Threads, sql, [])?;
    }
    Ok(())
}

/// Cuts links that cannot be, and lets every message be in the thread of the one it answers.
fn mend_threads(index: &mut Index, found: &mut Found) -> Result<(), StoreError> {
    let mut wrong = Found::default();
    index.database.read(|c| threads(c, &mut wrong))?;
    if wrong.listed.is_empty() {
        return Ok(());
    }
    index.transact(|tx| {
        tx.c.execute(
            "DELETE FROM thread_parent WHERE parent_id >= msg_id
               OR NOT EXISTS (SELECT 1 FROM msg WHERE id = msg_id)
               OR NOT EXISTS (SELECT 1 FROM msg WHERE id = parent_id)",
            [],
        )?;
        tx.c.execute("UPDATE msg SET thread_id = id WHERE expunged = 0 AND thread_id < 1", [])?;
        // Downwards from the oldest: a parent has the smaller number, so this comes to an end.
        let follow = "UPDATE msg SET thread_id = p.thread_id
             FROM thread_parent t JOIN msg p ON p.id = t.parent_id
             WHERE t.msg_id = msg.id AND msg.expunged = 0 AND p.expunged = 0
               AND msg.thread_id <> p.thread_id";
        while tx.c.execute(follow, [])? > 0 {}
        Ok(())
    })?;
    for finding in &mut wrong.listed {
        (finding.fixed, finding.fixable) = (true, false);
    }
    wrong.more = wrong.more.into_iter().map(|((c, ..), n)| ((c, true, false), n)).collect();
    found.join(wrong);
    Ok(())
}

fn annotations(c: &Connection, found: &mut Found) -> Result<(), StoreError> {
    for sql in [
        "SELECT 'annotation ' || id || ': modseq out of order' FROM annotation
         WHERE modseq < createseq OR modseq > (SELECT modseq FROM meta)",
        "SELECT 'annotation ' || id || ' of a mailbox that is gone' FROM annotation a
         WHERE expunged = 0 AND mailbox_id <> 0
           AND NOT EXISTS (SELECT 1 FROM mailbox b WHERE b.id = a.mailbox_id AND b.expunged = 0)",
        "SELECT 'annotation ' || a.id || ': modseq above its mailbox''s' FROM annotation a
         JOIN mailbox b ON b.id = a.mailbox_id WHERE a.modseq > b.modseq",
    ] {
        list(c, found, Check::Annotations, sql, [])?;
    }
    Ok(())
}

/// Reads some contents whole. Says where to go on, and about how many steps are left.
fn contents(
    c: &Connection,
    files: &SegmentFiles,
    from: i64,
    found: &mut Found,
) -> Result<(Option<i64>, u64), StoreError> {
    let mut query = c.prepare("SELECT id FROM content WHERE id >= ?1 ORDER BY id LIMIT ?2")?;
    let ids: Vec<i64> =
        query.query_map([from, CONTENT_STEP], |r| r.get(0))?.collect::<Result<_, _>>()?;
    let mut bytes = 0;
    let mut next = None;
    for id in &ids {
        if bytes > CONTENT_BYTES {
            next = Some(*id);
            break;
        }
        let Some(p) = segments::position(c, ContentId(*id))? else { continue };
        bytes += p.size;
        if let Some(why) = damage(c, files, *id, &p)? {
            found.add(Check::Content, format!("content {id}: {why}"), false);
        } else if let Err(error) = text::read(c, files, ContentId(*id)) {
            let StoreError::Damaged(why) = error else { return Err(error) };
            found.add(Check::Content, format!("the text of content {id}: {why}"), false);
        }
    }
    if next.is_none() && ids.len() as i64 == CONTENT_STEP {
        next = ids.last().map(|id| id + 1);
    }
    let Some(from) = next else { return Ok((None, 0)) };
    let count = "SELECT count(*) FROM content WHERE id >= ?1";
    let left = c.query_row(count, [from], |r| r.get::<_, u64>(0))?;
    Ok((next, left / CONTENT_STEP.unsigned_abs() + 1))
}

/// What is wrong with the bytes of a content.
fn damage(
    c: &Connection,
    files: &SegmentFiles,
    id: i64,
    p: &Position,
) -> Result<Option<String>, StoreError> {
    let staged = "SELECT length(data) FROM staged WHERE content_id = ?1";
    let staged: Option<u64> = c.query_row(staged, [id], |r| r.get(0)).optional()?;
    match (p.seg, staged) {
        (None, None) => return Ok(Some("is nowhere".into())),
        (Some(_), Some(_)) => return Ok(Some("is staged and in a segment".into())),
        (None, Some(len)) if len != p.zsize => return Ok(Some("has another length".into())),
        (None, Some(_)) | (Some(_), None) => {}
    }
    if p.frames.is_none() && p.size > FRAME as u64 {
        return Ok(Some("lacks its list of frames".into()));
    }
    if p.frames.is_none() {
        return match files.compressed(c, ContentId(id), p) {
            Ok(data) => {
                let size = usize::try_from(p.size).unwrap_or(usize::MAX);
                Ok(codec::decompress(&data, size).err().map(|e| e.to_string()))
            }
            Err(StoreError::Damaged(why)) => Ok(Some(why)),
            Err(other) => Err(other),
        };
    }
    let mut at = 0;
    while at < p.size {
        match files.read(c, ContentId(id), at, u32::MAX) {
            Ok(part) if part.is_empty() => return Ok(Some("ends too early".into())),
            Ok(_) => at += FRAME as u64,
            Err(StoreError::Damaged(why)) => return Ok(Some(why)),
            Err(other) => return Err(other),
        }
    }
    Ok(None)
}
