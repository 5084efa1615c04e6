//! Upkeep of accounts: segments that cannot be compacted, and what goes on all the same.

use super::faults::SECOND;
use super::world::{
    ACCOUNT, Seeded, World, body, bytes_of, inbox, mailbox, message, now, segment_folder, small,
};
use crate::store::{
    SendLimits, Store, StoreError, Submission, Threads, Tuning, UidSet,
    copies::COPIES_KEPT,
    index::Index,
    shared::SPOILED_FOR,
    verify::{self, Check},
    worker::look_after,
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};
use storage::Fault;
use types::{AccountId, SubmissionId};

fn number(index: &mut Index, sql: &str) -> i64 {
    index
        .database
        .read(|c| c.query_row(sql, [], |r| r.get(0)).map_err(storage::Error::from))
        .unwrap()
}

/// The contents in each sealed segment, in the order in which they lie there; uid n has content n.
fn sealed(index: &mut Index) -> BTreeMap<i64, Vec<u32>> {
    let mut all: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    index
        .database
        .read(|c| {
            let mut query = c.prepare(
                "SELECT seg, c.id FROM content c JOIN segment s ON s.id = c.seg
                 WHERE sealed = 1 ORDER BY seg, off",
            )?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                all.entry(row.get(0)?).or_default().push(row.get(1)?);
            }
            Ok::<_, storage::Error>(())
        })
        .unwrap();
    all
}

/// Turns a bit in the middle of a content.
fn damage(world: &World, index: &mut Index, content: u32) -> i64 {
    let (seg, at): (i64, usize) = index
        .database
        .read(|c| {
            let middle = "SELECT seg, off + zsize / 2 FROM content WHERE id = ?1";
            c.query_row(middle, [content], |r| Ok((r.get(0)?, r.get(1)?)))
                .map_err(storage::Error::from)
        })
        .unwrap();
    let path = segment_folder(world.root()).join(format!("{seg:08}"));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    seg
}

fn end(index: &Index) -> (i64, u64) {
    let tail = index.tail.as_ref().unwrap();
    (tail.id, tail.len)
}

#[test]
fn a_damaged_content_stops_its_own_segment_alone() {
    let world = World::new(60);
    let tuning = Tuning { segment_len: 400_000, keep_expunged: 2, ..small() };
    let mut index = world.create(tuning);
    let random = Seeded::new(6);
    let texts: Vec<Vec<u8>> = (0..14).map(|_| body(&random, 300_000)).collect();
    for text in &texts {
        index.deliver(&[message(inbox(), text.clone(), now(&world))]).pop().unwrap().unwrap();
    }
    let id = mailbox(&mut index, "Inbox");
    let sealed = sealed(&mut index);
    assert!(sealed.len() >= 2 && sealed.values().all(|list| list.len() >= 4), "{sealed:?}");
    let kept: Vec<u32> = sealed.values().flat_map(|list| [list[0], list[list.len() - 1]]).collect();
    let broken = kept[1];
    let spoiled = damage(&world, &mut index, broken);
    assert_eq!(Some(&spoiled), sealed.keys().next(), "the one that is looked at first");
    let gone = sealed.values().flatten().copied().filter(|uid| !kept.contains(uid));
    let gone = UidSet::from_uids(gone);
    index.expunge(id, &gone, false).unwrap();

    let tombstones = "SELECT count(*) FROM msg WHERE expunged = 1";
    assert!(number(&mut index, tombstones) > 2);

    // The first step meets the damage; what comes behind it in the same round is done.
    look_after(&mut index, Duration::ZERO).unwrap();
    assert_eq!(number(&mut index, tombstones), 0, "purged");
    for _ in 1..sealed.len() {
        look_after(&mut index, Duration::ZERO).unwrap();
    }
    let is_there = |seg: i64| segment_folder(world.root()).join(format!("{seg:08}")).exists();
    for seg in sealed.keys() {
        assert_eq!(is_there(*seg), *seg == spoiled, "segment {seg}");
    }

    // Any number of tries adds nothing: at once, after the account was closed, after hours.
    let before = end(&index);
    for _ in 0..5 {
        look_after(&mut index, Duration::ZERO).unwrap();
    }
    drop(index);
    let mut index = world.open(tuning).unwrap();
    look_after(&mut index, Duration::ZERO).unwrap();
    for _ in 0..3 {
        world.clock.advance(SPOILED_FOR);
        look_after(&mut index, Duration::ZERO).unwrap();
    }
    assert_eq!(end(&index), before);
    let alarms = world.alarms.lock().unwrap().clone();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    let said = format!("segment {spoiled} is not compacted: content {broken} ");
    assert!(alarms[0].starts_with(&said), "{alarms:?}");

    // It is reported as ever, and all else is whole.
    let found = verify::all(&mut index, false).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].check, Check::Content);
    assert!(found[0].what.starts_with(&format!("content {broken}: ")), "{found:?}");
    for uid in kept.iter().copied().filter(|uid| *uid != broken) {
        let text = &texts[usize::try_from(uid).unwrap() - 1];
        assert!(bytes_of(&mut index, id, uid).unwrap() == *text, "uid {uid}");
    }

    // With the message its segment goes.
    index.expunge(id, &UidSet::from_uids([broken]), false).unwrap();
    world.clock.advance(SPOILED_FOR);
    look_after(&mut index, Duration::ZERO).unwrap();
    assert!(!is_there(spoiled));
    assert_eq!(verify::all(&mut index, false).unwrap(), []);
}

#[test]
fn upkeep_that_fails_keeps_the_rest_from_nothing_but_a_failed_sync_does() {
    let world = World::new(61);
    let mut index = world.create(small());
    index.deliver(&[message(inbox(), b"one".to_vec(), now(&world))]).pop().unwrap().unwrap();
    let id = mailbox(&mut index, "Inbox");
    // The folder of segments is not there, so nothing can be drained.
    let (folder, aside) = (segment_folder(world.root()), world.root().join("aside"));
    std::fs::rename(&folder, &aside).unwrap();
    index.deliver(&[message(inbox(), b"two".to_vec(), now(&world))]).pop().unwrap().unwrap();
    index.expunge(id, &UidSet::from_uids([2]), false).unwrap();
    let idle = Duration::from_secs(3600);
    assert!(look_after(&mut index, idle).is_err_and(|e| e.is_temporary()));
    assert_eq!(number(&mut index, "SELECT count(*) FROM content"), 1, "erased all the same");
    std::fs::rename(&aside, &folder).unwrap();

    index.expunge(id, &UidSet::from_uids([1]), false).unwrap();
    let before: u64 = world.disk.syncs().values().sum();
    world.disk.inject(Fault::SyncFails(0));
    let outcome = look_after(&mut index, idle);
    assert!(matches!(outcome, Err(StoreError::Stopped)), "{outcome:?}");
    let after: u64 = world.disk.syncs().values().sum();
    assert_eq!(after, before + 1, "nothing comes behind it");
}

/// Makes one of the second schema as the first had it.
const FIRST: &str =
    "ALTER TABLE content_text DROP COLUMN by_content; PRAGMA user_version = 0x10001";

/// An account of the second schema with a message, closed.
fn of_the_second_schema(world: &World) {
    of_an_older_schema(world, SECOND);
}

fn of_an_older_schema(world: &World, sql: &str) {
    let mut index = world.create(small());
    index.deliver(&[message(inbox(), b"one".to_vec(), now(world))]).pop().unwrap().unwrap();
    index.database.connection().execute_batch(sql).unwrap();
}

#[test]
fn an_account_is_not_brought_up_to_date_without_room_for_its_copy() {
    let world = World::new(62);
    // The step to the second schema is one that needs a copy.
    of_an_older_schema(&world, &format!("{SECOND}; {FIRST}"));
    let folder = world.root().join(ACCOUNT.to_string());
    let copy = folder.join("index.db.schema-1");
    world.disk.inject(Fault::Full(0));
    for _ in 0..2 {
        let refused = world.open(small()).err().unwrap();
        assert!(refused.is_temporary() && matches!(refused, StoreError::DiskFull), "{refused}");
    }
    let alarms = world.alarms.lock().unwrap().clone();
    let said = "index.db must be copied before it is brought up to date: that takes 1 MiB, 0 MiB \
                must stay free, 0 MiB are";
    assert_eq!(alarms, [said, said], "the same, so that it is kept once");
    assert!(!copy.exists());
    world.disk.heal();
    let mut index = world.open(small()).unwrap();
    assert!(copy.exists());
    let id = mailbox(&mut index, "Inbox");
    assert_eq!(bytes_of(&mut index, id, 1).unwrap(), b"one");
}

#[test]
fn copies_go_after_their_time_if_the_account_is_sound() {
    let world = World::new(63);
    of_the_second_schema(&world);
    let copy = world.root().join(ACCOUNT.to_string()).join("index.db.schema-2");
    let threads = Threads { writers: 1, readers: 1, open: 4 };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sweep = |store: &Store| {
        let found = store.with_old_copies().unwrap();
        for id in &found {
            runtime.block_on(store.account(*id).remove_old_copies()).unwrap_or_default();
        }
        found.len()
    };
    let start = || Store::start(world.root(), world.ports.clone(), small(), threads).unwrap();
    let store = start();
    let account = store.account(ACCOUNT);
    let made = now(&world).seconds().cast_unsigned();
    runtime.block_on(async {
        account.modseq().await.unwrap();
        let file = std::fs::File::options().write(true).open(&copy).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(made)).unwrap();
        // It is no file that nobody knows.
        assert_eq!(account.verify(true, Arc::new(|_| {})).await.unwrap(), []);
    });
    world.clock.advance(COPIES_KEPT);
    assert_eq!(sweep(&store), 0);
    assert!(copy.exists());
    store.stop();

    // Who goes back to an older build may need it: this one cannot open the account.
    let file = world.root().join(ACCOUNT.to_string()).join("index.db");
    let set = |version: i64| -> i64 {
        let database = storage::rusqlite::Connection::open(&file).unwrap();
        let before = database.query_row("PRAGMA user_version", [], |r| r.get(0)).unwrap();
        database.execute_batch(&format!("PRAGMA user_version = {version}")).unwrap();
        before
    };
    let ours = set((900 << 16) | 900);
    world.clock.advance(Duration::from_secs(1));
    let store = start();
    assert_eq!(sweep(&store), 1);
    assert!(copy.exists());
    store.stop();
    set(ours);
    let store = start();
    assert_eq!(sweep(&store), 1);
    assert!(!copy.exists());
    assert_eq!(sweep(&store), 0);
    store.stop();
}

#[test]
fn an_outbox_is_looked_into_without_opening_its_account() {
    let world = World::new(64);
    let mut index = world.create(small());
    let submission = Submission {
        id: SubmissionId::from_bytes([1; 16]),
        said: None,
        message: message(inbox(), b"mail".to_vec(), now(&world)),
        keep_copy: false,
        envelope: Vec::new(),
        recipients: Vec::new(),
        release: None,
        limits: SendLimits::default(),
    };
    index.submit(submission).unwrap();
    index.database.connection().execute_batch(SECOND).unwrap();
    drop(index);
    let copy = world.root().join(ACCOUNT.to_string()).join("index.db.schema-2");
    let other = AccountId::from_bytes([8; 10]);
    let threads = Threads { writers: 1, readers: 1, open: 4 };
    let store = Store::start(world.root(), world.ports.clone(), small(), threads).unwrap();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        store.create_account(other).await.unwrap();
        assert!(!store.account(other).has_outbox_rows().await.unwrap());
        let account = store.account(ACCOUNT);
        assert!(account.has_outbox_rows().await.unwrap());
        assert!(!account.shared.is_ready() && !copy.exists());
        // What is asked later is asked of the account as this build has it.
        let rows = account.outbox(None).await.unwrap();
        assert!(rows.len() == 1 && copy.exists());
        account.outbox_done(vec![rows[0].id]).await.unwrap();
        assert!(!account.has_outbox_rows().await.unwrap());
        let nobody = store.account(AccountId::from_bytes([9; 10]));
        assert!(matches!(nobody.has_outbox_rows().await, Err(StoreError::NoSuchAccount)));
        // What is damaged is said as ever.
        let garbled = AccountId::from_bytes([10; 10]);
        let folder = world.root().join(garbled.to_string());
        std::fs::create_dir_all(folder.join("seg")).unwrap();
        std::fs::write(folder.join("index.db"), vec![0x55; 8192]).unwrap();
        let refused = store.account(garbled).has_outbox_rows().await;
        assert!(matches!(refused, Err(StoreError::Damaged(_))), "{refused:?}");
        assert_eq!(world.alarms.lock().unwrap().len(), 1);
    });
    store.stop();
}
