//! Disks that fill up, fail and rot, and processes that are killed.

use super::world::{
    ACCOUNT, Seeded, World, body, bytes_of, inbox, mailbox, message, now, open_image, parsed,
    ports, reading, segment_folder, small,
};
use crate::store::{
    Delivered, Flags, NewMessage, Store, StoreError, Threads, Tuning, UidSet,
    index::Index,
    read,
    verify::{self, Check},
};
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use storage::{Fault, RealDisk};
use types::{AccountId, Clock as _, ManualClock, UnixNanos};

/// What was acknowledged: UID and bytes of messages in Inbox.
type Acknowledged = BTreeMap<u32, Vec<u8>>;

/// Delivers, moves content about, expunges, erases; stops at the first failure and says it.
fn work(
    world: &World,
    index: &mut Index,
    random: &Seeded,
    kept: &mut Acknowledged,
) -> Result<(), StoreError> {
    for round in 0..4 {
        for len in [700, 150_000, 3000, 290_000] {
            let content = body(random, len);
            let new = message(inbox(), content.clone(), now(world));
            for outcome in index.deliver(&[new]) {
                if let Delivered::Stored(stored) = outcome? {
                    kept.insert(stored.uid, content.clone());
                }
            }
        }
        index.drain()?;
        let gone = round * 4 + 2;
        let id = read_inbox(index)?;
        // Taken out first: a failed expunge leaves it, a done one does not, both are allowed.
        kept.remove(&gone);
        index.expunge(id, &UidSet::from_uids([gone]), false)?;
        index.erase()?;
        while index.compact()? {}
        index.checkpoint()?;
    }
    Ok(())
}

fn read_inbox(index: &mut Index) -> Result<crate::store::MailboxId, StoreError> {
    reading(index, |v| read::mailbox_by_name(v.connection, "Inbox")).map(|m| m.id)
}

fn check(index: &mut Index, kept: &Acknowledged) {
    let id = mailbox(index, "Inbox");
    for (uid, content) in kept {
        assert!(bytes_of(index, id, *uid).unwrap() == *content, "uid {uid}");
    }
    assert_eq!(verify::all(index, false).unwrap(), []);
}

#[test]
fn a_disk_that_fills_at_any_write_loses_nothing() {
    let world = World::new(40);
    let mut index = world.create(small());
    let before = world.disk.replay().events();
    work(&world, &mut index, &Seeded::new(1), &mut Acknowledged::new()).unwrap();
    let writes = world.disk.replay().events() - before;
    let step = if std::env::var_os("MOX_NIGHTLY").is_some() { 1 } else { 7 };
    let mut refused = 0;
    for n in (0..writes as u64).step_by(step) {
        let world = World::new(41);
        let mut index = world.create(small());
        let random = Seeded::new(1);
        let mut kept = Acknowledged::new();
        world.disk.inject(Fault::Full(n));
        let outcome = work(&world, &mut index, &random, &mut kept);
        if let Err(error) = outcome {
            assert!(matches!(error, StoreError::DiskFull), "{n}: {error}");
            refused += 1;
        }
        world.disk.heal();
        // Without a restart: what was acknowledged is there, and the rest goes on.
        check(&mut index, &kept);
        work(&world, &mut index, &random, &mut kept).unwrap();
        drop(index);
        check(&mut world.open(small()).unwrap(), &kept);
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn a_sync_that_fails_is_never_taken_for_done() {
    let world = World::new(42);
    let mut index = world.create(small());
    let before: u64 = world.disk.syncs().values().sum();
    work(&world, &mut index, &Seeded::new(1), &mut Acknowledged::new()).unwrap();
    let syncs = world.disk.syncs().values().sum::<u64>() - before;
    assert!(syncs > 30, "{syncs}");
    for n in 0..syncs {
        let world = World::new(43);
        let mut index = world.create(small());
        let mut kept = Acknowledged::new();
        world.disk.inject(Fault::SyncFails(n));
        let outcome = work(&world, &mut index, &Seeded::new(1), &mut kept);
        assert!(matches!(outcome, Err(StoreError::Stopped)), "{n}: {outcome:?}");
        // The process ends here. What is left on the disk:
        drop(index);
        let mut replay = world.disk.replay();
        replay.advance_to(usize::MAX);
        let folder = tempfile::tempdir().unwrap();
        replay.image(n).write_to(folder.path()).unwrap();
        check(&mut open_image(folder.path(), world.clock.now()).unwrap(), &kept);
    }
}

/// An account with something of everything in it.
fn furnished(world: &World) -> Index {
    let mut index = world.create(Tuning { segment_len: 20_000, ..small() });
    let at = now(world);
    let id = mailbox(&mut index, "Inbox");
    let random = Seeded::new(5);
    for outcome in index.deliver(&[
        parsed("a@x", "t", &[], at),
        NewMessage { flags: Flags::JUNK, ..parsed("b@x", "t", &["a@x"], at) },
        NewMessage {
            keywords: vec!["k".parse().unwrap()],
            ..message(inbox(), body(&random, 150_000), at)
        },
        message(inbox(), body(&random, 600_000), at),
        parsed("c@x", "u", &[], at),
    ]) {
        outcome.unwrap();
    }
    index.drain().unwrap();
    index.deliver(&[parsed("d@x", "v", &[], at)]).pop().unwrap().unwrap();
    index.create_mailbox("p/q", None).unwrap();
    index
        .set_annotations(Some(id), vec![("/private/a".into(), Some((b"v".to_vec(), true)))])
        .unwrap();
    index.expunge(id, &UidSet::from_uids([5]), false).unwrap();
    assert_eq!(verify::all(&mut index, false).unwrap(), []);
    index
}

fn classes(index: &mut Index, fix: bool) -> Vec<Check> {
    let mut all: Vec<Check> =
        verify::all(index, fix).unwrap().into_iter().map(|f| f.check).collect();
    all.dedup();
    all
}

#[test]
fn verify_finds_each_broken_row() {
    let breaks: &[(&str, Check, bool)] = &[
        ("UPDATE mailbox SET n_messages = n_messages + 1 WHERE id = 1", Check::Counters, true),
        ("UPDATE mailbox SET n_deleted = 1 WHERE id = 1", Check::Counters, true),
        ("UPDATE mailbox SET n_unseen = 0 WHERE id = 1", Check::Counters, true),
        ("UPDATE mailbox SET n_unread = 0 WHERE id = 1", Check::Counters, true),
        ("UPDATE mailbox SET bytes = 0 WHERE id = 1", Check::Counters, true),
        ("UPDATE mailbox SET bytes_deleted = 9 WHERE id = 1", Check::Counters, true),
        ("UPDATE mailbox_keyword SET uses = 7", Check::Counters, true),
        ("DELETE FROM mailbox_keyword", Check::Counters, true),
        ("UPDATE meta SET bytes_live = 1", Check::Usage, true),
        ("UPDATE meta SET messages_live = 1", Check::Usage, true),
        ("UPDATE meta SET bytes_pending = 1", Check::Usage, true),
        ("UPDATE content SET refcount = 5 WHERE id = 1", Check::Refcounts, true),
        ("DELETE FROM erase", Check::Refcounts, true),
        ("INSERT INTO erase VALUES (1, 1, 1)", Check::Refcounts, true),
        ("UPDATE mailbox SET uidnext = 2 WHERE id = 1", Check::Sequences, false),
        ("UPDATE mailbox SET uidvalidity = 4000000000 WHERE id = 1", Check::Sequences, false),
        ("UPDATE mailbox SET modseq = 1 WHERE id = 1", Check::Sequences, false),
        ("UPDATE mailbox SET modseq = 99999 WHERE id = 1", Check::Sequences, false),
        ("UPDATE msg SET modseq = 99999 WHERE id = 1", Check::Sequences, false),
        ("UPDATE msg SET createseq = 99999 WHERE id = 1", Check::Sequences, false),
        ("UPDATE meta SET next_message = 1", Check::Sequences, false),
        ("UPDATE meta SET next_content = 1", Check::Sequences, false),
        ("UPDATE mailbox SET expunged = 1 WHERE id = 1", Check::Sequences, false),
        ("UPDATE mailbox SET name = 'a//b' WHERE id = 2", Check::Names, false),
        ("UPDATE mailbox SET name = 'other' WHERE name = 'p'", Check::Names, false),
        ("UPDATE mailbox SET parent_id = 1 WHERE name = 'p/q'", Check::Names, false),
        ("UPDATE mailbox SET name = 'NotInbox' WHERE id = 1", Check::Names, false),
        ("DELETE FROM staged", Check::Content, false),
        ("UPDATE staged SET data = zeroblob(length(data))", Check::Content, false),
        ("UPDATE content SET crc = crc + 1 WHERE id = 1", Check::Content, false),
        ("UPDATE content SET size = size + 1 WHERE id = 1", Check::Content, false),
        ("UPDATE content SET frames = NULL WHERE id = 4", Check::Content, false),
        ("UPDATE content SET frames = zeroblob(12) WHERE id = 4", Check::Content, false),
        ("UPDATE content SET off = off + 1 WHERE id = 3", Check::Content, false),
        ("INSERT INTO staged VALUES (1, x'00')", Check::Content, false),
        ("UPDATE content_text SET data = zeroblob(length(data))", Check::Content, false),
        ("UPDATE content_text SET data = x''", Check::Content, false),
        ("UPDATE content_text SET size = size + 1", Check::Content, false),
        ("UPDATE msg SET content_id = 77 WHERE id = 1", Check::Content, false),
        ("UPDATE msg SET size = size + 1 WHERE id = 1", Check::Content, false),
        ("DELETE FROM content WHERE id = 1", Check::References, false),
        ("UPDATE msg SET mailbox_id = 99 WHERE id = 1", Check::References, false),
        ("UPDATE segment SET dead = 9999999", Check::Segments, false),
        ("UPDATE segment SET len = 5 WHERE sealed = 1", Check::Segments, false),
        ("UPDATE segment SET sealed = 0", Check::Segments, false),
        ("DELETE FROM segment", Check::Segments, false),
        ("UPDATE msg SET thread_id = 0 WHERE id = 1", Check::Threads, true),
        ("UPDATE msg SET thread_id = 2 WHERE id = 2", Check::Threads, true),
        ("INSERT INTO thread_parent VALUES (1, 1)", Check::Threads, true),
        ("INSERT INTO thread_parent VALUES (1, 2)", Check::Threads, true),
        ("INSERT INTO thread_parent VALUES (3, 77)", Check::Threads, true),
        ("INSERT INTO thread_parent VALUES (77, 1)", Check::Threads, true),
        ("UPDATE annotation SET modseq = 1", Check::Annotations, false),
        ("UPDATE annotation SET mailbox_id = 99", Check::Annotations, false),
        ("UPDATE junk_word SET spam = spam + 1", Check::Junk, true),
        ("UPDATE junk_meta SET spam = 9", Check::Junk, true),
        ("DELETE FROM junk_word", Check::Junk, true),
        ("UPDATE junk_meta SET one = 2", Check::Structure, false),
    ];
    for (sql, expected, is_mended) in breaks {
        let world = World::new(44);
        let mut index = furnished(&world);
        let off = "PRAGMA foreign_keys=OFF; PRAGMA ignore_check_constraints=ON";
        index.database.connection().execute_batch(off).unwrap();
        index
            .database
            .write(|w| {
                let changed = w.execute(sql, []).unwrap();
                assert!(changed > 0, "{sql}");
                Ok::<_, StoreError>(())
            })
            .unwrap();
        let on = "PRAGMA foreign_keys=ON; PRAGMA ignore_check_constraints=OFF";
        index.database.connection().execute_batch(on).unwrap();
        let found = classes(&mut index, false);
        assert!(found.contains(expected), "{sql}: {found:?}");
        for finding in verify::all(&mut index, false).unwrap() {
            let as_expected = finding.fixable == *is_mended || finding.check != *expected;
            assert!(!finding.fixed && as_expected, "{sql}: {finding:?}");
        }
        let mended = verify::all(&mut index, true).unwrap();
        let of_class: Vec<bool> =
            mended.iter().filter(|f| f.check == *expected).map(|f| f.fixed).collect();
        assert!(of_class.iter().all(|fixed| fixed == is_mended), "{sql}: {mended:?}");
        assert!(!of_class.is_empty() && mended.iter().all(|f| !f.fixable), "{sql}: {mended:?}");
        if *is_mended {
            assert_eq!(verify::all(&mut index, false).unwrap(), [], "{sql}");
        }
    }
}

#[test]
fn what_was_learned_is_compared_whole_however_few_words_a_step_counts() {
    let world = World::new(44);
    let mut index = furnished(&world);
    for (id, flags, text) in [
        ("e@x", Flags::JUNK, "cheap pills, cheaper watches"),
        ("f@x", Flags::NOT_JUNK, "the cheap watches of Zürich"),
    ] {
        let mut new = NewMessage { flags, ..parsed(id, "w", &[], now(&world)) };
        new.facts.as_mut().unwrap().body_text = vec![text.to_owned()];
        index.deliver(&[new]).pop().unwrap().unwrap();
    }
    let (_, whole) = verify::junk_by(&mut index, usize::MAX, false).unwrap();
    assert_eq!(whole, 1);
    let count = "SELECT count(*) FROM junk_word WHERE ham > 0 OR spam > 0";
    let words =
        reading(&mut index, |v| Ok(v.connection.query_row(count, [], |r| r.get::<_, u32>(0))?))
            .unwrap();
    assert!(words > 3, "{words}");
    let (found, steps) = verify::junk_by(&mut index, 2, false).unwrap();
    assert_eq!((found, steps), (Vec::new(), words.div_ceil(2)));
    // Each word, the last and one that nobody learned among them, is in one of the steps.
    for n in 0..=words {
        let wrong = if n == words {
            "INSERT INTO junk_word VALUES ('\u{10ffff}', 1, 0)".to_owned()
        } else {
            format!(
                "UPDATE junk_word SET spam = spam + 1 WHERE word =
                 (SELECT word FROM junk_word ORDER BY word LIMIT 1 OFFSET {n})"
            )
        };
        index.database.write(|w| w.execute(&wrong, []).map_err(StoreError::from)).unwrap();
        let found = |index: &mut Index, fix| verify::junk_by(index, 2, fix).unwrap().0;
        assert_eq!(found(&mut index, false).len(), 1, "{wrong}");
        assert!(found(&mut index, true).iter().all(|f| f.fixed), "{wrong}");
        assert_eq!(found(&mut index, false), [], "{wrong}");
        assert_eq!(verify::all(&mut index, false).unwrap(), [], "{wrong}");
    }
}

/// Makes an account as the second schema had it.
pub(super) const SECOND: &str = "DROP TABLE submission_repeat; DROP INDEX msg_modseq;
    CREATE INDEX msg_modseq ON msg(mailbox_id, modseq); PRAGMA user_version = 0x20002";

#[test]
fn an_account_of_the_second_schema_is_brought_up_to_date() {
    let world = World::new(48);
    // Without what the third and the fourth step gave it.
    let mut index = furnished(&world);
    let before = bytes_of_inbox(&mut index);
    index.database.connection().execute_batch(SECOND).unwrap();
    drop(index);
    let mut index = world.open(small()).unwrap();
    assert_eq!(verify::all(&mut index, false).unwrap(), []);
    assert_eq!(bytes_of_inbox(&mut index), before);
    let rows = "SELECT count(*) FROM submission_repeat";
    let rows =
        reading(&mut index, |v| Ok(v.connection.query_row(rows, [], |r| r.get::<_, i64>(0))?));
    assert_eq!(rows.unwrap(), 0);
    let columns = "SELECT group_concat(name) FROM pragma_index_info('msg_modseq')";
    let columns = reading(&mut index, |v| {
        Ok(v.connection.query_row(columns, [], |r| r.get::<_, String>(0))?)
    });
    assert_eq!(columns.unwrap(), "mailbox_id,modseq,uid");
}

fn bytes_of_inbox(index: &mut Index) -> Vec<Vec<u8>> {
    let id = mailbox(index, "Inbox");
    let rows = reading(index, |v| read::rows(v, id, &UidSet::all(), 1)).unwrap();
    rows.rows.iter().map(|row| bytes_of(index, id, row.uid).unwrap()).collect()
}

/// What is in the folder for unknown files.
fn set_aside(world: &World) -> Vec<(String, Vec<u8>)> {
    let folder = segment_folder(world.root()).parent().unwrap().join("quarantine");
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut all: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn unknown_files_are_set_aside_and_kept() {
    let world = World::new(47);
    let mut index = furnished(&world);
    let (folder, at) = (segment_folder(world.root()), now(&world).seconds());
    let next: i64 = index
        .database
        .read(|c| {
            let next = "SELECT max(id) + 1 FROM segment";
            Ok::<_, StoreError>(c.query_row(next, [], |r| r.get(0)).unwrap())
        })
        .unwrap();
    // Where the next segment is to be made.
    std::fs::write(folder.join(format!("{next:08}")), b"mine").unwrap();
    // The first fills the open one.
    for seed in 1..=2 {
        let large = body(&Seeded::new(seed), 400_000);
        index.deliver(&[message(inbox(), large, now(&world))]).pop().unwrap().unwrap();
    }
    assert_eq!(set_aside(&world), [(format!("{at}-{next:08}"), b"mine".to_vec())]);

    // By hand, and at the next opening; what has the same name is not written over.
    for content in [b"one", b"two"] {
        std::fs::write(folder.join("notes.txt"), content).unwrap();
        let found = verify::all(&mut index, true).unwrap();
        let kept = set_aside(&world).into_iter().find(|(_, bytes)| bytes == content).unwrap().0;
        assert_eq!(
            found[0].what,
            format!("unknown file seg/notes.txt, set aside as quarantine/{kept}")
        );
        assert!(found[0].fixed && found.len() == 1);
    }
    std::fs::write(folder.join("more.txt"), b"three").unwrap();
    drop(index);
    let mut index = world.open(small()).unwrap();
    assert_eq!(set_aside(&world).len(), 4);
    assert_eq!(verify::all(&mut index, false).unwrap(), []);

    // For a month; what somebody else put there is his.
    let aside = folder.parent().unwrap().join("quarantine");
    std::fs::write(aside.join("keep me"), b"").unwrap();
    world.clock.advance(Duration::from_secs(29 * 86_400));
    index.purge().unwrap();
    assert_eq!(set_aside(&world).len(), 5);
    world.clock.advance(Duration::from_secs(2 * 86_400));
    index.purge().unwrap();
    assert_eq!(set_aside(&world), [("keep me".to_owned(), Vec::new())]);
    // A folder stays, and ends nothing.
    std::fs::create_dir(aside.join("1-folder")).unwrap();
    index.purge().unwrap();
    assert!(aside.join("1-folder").exists());
}

#[test]
fn verify_finds_each_broken_file() {
    type Break = fn(&std::path::Path);
    let breaks: &[(&str, Break, Check)] = &[
        ("removed", |f| std::fs::remove_file(f.join("00000001")).unwrap(), Check::Segments),
        (
            "shortened",
            |f| {
                let file = std::fs::OpenOptions::new().write(true).open(f.join("00000001"));
                file.unwrap().set_len(1000).unwrap();
            },
            Check::Segments,
        ),
        ("unknown", |f| std::fs::write(f.join("00000099"), b"x").unwrap(), Check::Segments),
        (
            "one bit turned",
            |f| {
                let path = f.join("00000001");
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[5000] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            },
            Check::Content,
        ),
    ];
    for (name, damage, expected) in breaks {
        let world = World::new(45);
        let mut index = furnished(&world);
        damage(&segment_folder(world.root()));
        index.files.forget(1);
        let found = classes(&mut index, false);
        assert!(found.contains(expected), "{name}: {found:?}");
        drop(index);
        // At open: what lacks is damage (read-only, alarm), what is unknown is set aside.
        let mut index = world.open(small()).unwrap();
        let is_missing = matches!(*name, "removed" | "shortened");
        assert_eq!(index.damaged.is_some(), is_missing, "{name}");
        assert_eq!(!world.alarms.lock().unwrap().is_empty(), is_missing, "{name}");
        let delivered = index.deliver(&[message(inbox(), b"x".to_vec(), now(&world))]).pop();
        assert_eq!(matches!(delivered, Some(Err(StoreError::Damaged(_)))), is_missing, "{name}");
        let id = mailbox(&mut index, "Inbox");
        assert_eq!(bytes_of(&mut index, id, 6).unwrap().len(), 44, "{name}: the rest is readable");
    }
}

#[test]
fn a_damaged_account_concerns_no_other() {
    let world = World::new(46);
    let other = AccountId::from_bytes([8; 10]);
    let threads = Threads { writers: 1, readers: 1, open: 4 };
    let start = || Store::start(world.root(), world.ports.clone(), small(), threads).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = start();
    runtime.block_on(async {
        for id in [ACCOUNT, other] {
            let account = store.create_account(id).await.unwrap();
            account.deliver(message(inbox(), b"x".to_vec(), now(&world))).await.unwrap();
        }
    });
    store.stop();
    let file = world.root().join(ACCOUNT.to_string()).join("index.db");
    let len = usize::try_from(std::fs::metadata(&file).unwrap().len()).unwrap();
    std::fs::write(&file, vec![0x55; len]).unwrap();
    let wal = world.root().join(ACCOUNT.to_string()).join("index.db-wal");
    std::fs::remove_file(wal).unwrap();
    let store = start();
    runtime.block_on(async {
        let broken = store.account(ACCOUNT).mailboxes().await;
        assert!(broken.is_err_and(|e| e.is_temporary()));
        assert_eq!(world.alarms.lock().unwrap().len(), 1);
        let account = store.account(other);
        account.deliver(message(inbox(), b"y".to_vec(), now(&world))).await.unwrap();
        assert_eq!(account.usage().await.unwrap().messages, 2);
        let progress = Arc::new(|_| {});
        assert_eq!(account.verify(false, progress).await.unwrap(), []);
    });
    store.stop();
}

#[test]
fn a_reader_finds_that_what_was_learned_is_right() {
    let world = World::new(49);
    let threads = Threads { writers: 1, readers: 1, open: 4 };
    let store = Store::start(world.root(), world.ports.clone(), small(), threads).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let account = store.create_account(ACCOUNT).await.unwrap();
        // More than one job reads.
        for n in 0..450 {
            let flags = if n % 3 == 0 { Flags::JUNK } else { Flags::NOT_JUNK };
            let mut new = NewMessage { flags, ..parsed(&format!("{n}@x"), "w", &[], now(&world)) };
            new.facts.as_mut().unwrap().body_text = vec![format!("common word{n} cheap")];
            account.deliver(new).await.unwrap();
        }
        let (pool, shared) = (&account.pool, &account.shared);
        let spoil = pool.write(shared, |i| {
            i.database.write(|w| {
                w.execute("UPDATE junk_word SET ham = ham + 1 WHERE word = 'common'", [])
                    .map_err(StoreError::from)
            })
        });
        let (release, released) = std::sync::mpsc::channel::<()>();
        let stand = pool.write(shared, move |_| {
            let _released = released.recv();
            Ok(())
        });
        let mut stand = std::pin::pin!(stand);
        assert!(futures::poll!(stand.as_mut()).is_pending());
        // The writer stands still, and nobody waits for it.
        assert_eq!(verify::junk_alone(pool, shared, true).await.unwrap(), []);
        release.send(()).unwrap();
        stand.await.unwrap();

        assert_eq!(spoil.await.unwrap(), 1);
        let left = verify::junk_alone(pool, shared, false).await.unwrap();
        assert!(matches!(&left[..], [f] if f.check == Check::Junk && !f.fixed), "{left:?}");
        assert!(verify::junk_alone(pool, shared, true).await.unwrap()[0].fixed);
        assert_eq!(verify::junk_alone(pool, shared, false).await.unwrap(), []);
    });
    store.stop();
}

const CHILD: &str = "MOX_STORE_TEST_CHILD";

fn real_store(root: &std::path::Path, seed: u64) -> Store {
    let clock = ManualClock::at(UnixNanos::from_seconds(1_790_000_000));
    let ports = ports(Arc::new(RealDisk), &clock, seed, &Arc::default());
    let threads = Threads { writers: 2, readers: 1, open: 4 };
    Store::start(root, ports, small(), threads).unwrap()
}

/// What the child does: deliveries from several sides at once, a line for each that was acknowledged,
/// two for each expunge (intended, done).
#[test]
fn child_of_the_kill_test() {
    let Some(root) = std::env::var_os(CHILD) else { return };
    let seed = u64::from(std::process::id());
    let store = real_store(root.as_ref(), seed);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).unwrap();
        out.flush().unwrap();
    };
    runtime.block_on(async {
        let account = match store.create_account(ACCOUNT).await {
            Ok(account) => account,
            Err(StoreError::AccountExists) => store.account(ACCOUNT),
            Err(error) => panic!("{error}"),
        };
        let box_id = account.mailbox_by_name("Inbox".into()).await.unwrap().id;
        let side = |k: u64| {
            let account = account.clone();
            async move {
                let random = Seeded::new(seed * 10 + k);
                loop {
                    let len =
                        if random.below(12) == 0 { 150_000 } else { 200 + random.below(6000) };
                    let content = body(&random, len);
                    let crc = crc32fast::hash(&content);
                    let new = message(inbox(), content, UnixNanos::from_seconds(1_790_000_000));
                    let Ok(Delivered::Stored(stored)) = account.deliver(new).await else { return };
                    say(format!("D {} {crc}\n", stored.uid));
                    if random.below(3) == 0 {
                        say(format!("X {}\n", stored.uid));
                        let gone = UidSet::from_uids([stored.uid]);
                        account.remove(box_id, gone).await.unwrap();
                        say(format!("Y {}\n", stored.uid));
                    }
                }
            }
        };
        futures::future::join_all((0..6).map(side)).await;
    });
}

#[test]
fn killed_at_any_moment_it_keeps_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let kills = if std::env::var_os("MOX_NIGHTLY").is_some() { 100 } else { 6 };
    let random = Seeded::new(9);
    let (mut must, mut maybe) = (BTreeMap::new(), BTreeMap::new());
    let mut lines = 0;
    for _ in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::faults::child_of_the_kill_test", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let enough = 50 + random.below(300);
        let mut said = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if out.read_line(&mut line).unwrap() == 0 {
                break;
            }
            // The test harness of the child talks too.
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |n: usize| words.get(n).and_then(|w| w.parse::<u32>().ok());
            match (words.first().copied(), number(1), number(2)) {
                (Some("D"), Some(uid), Some(crc)) => drop(must.insert(uid, crc)),
                (Some("X"), Some(uid), None) => {
                    if let Some(crc) = must.remove(&uid) {
                        maybe.insert(uid, crc);
                    }
                }
                (Some("Y"), Some(uid), None) => drop(maybe.remove(&uid)),
                (Some(_) | None, ..) => continue,
            }
            lines += 1;
            said += 1;
            if said == enough {
                // In the middle of whatever it does; lines already in the pipe are still read.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(said >= enough, "the child ended by itself after {said} lines");
        let mut index = open_image(folder.path(), UnixNanos::from_seconds(1_790_000_000)).unwrap();
        assert_eq!(index.damaged, None);
        assert_eq!(verify::all(&mut index, false).unwrap(), []);
        let id = mailbox(&mut index, "Inbox");
        for (uid, crc) in &must {
            let bytes = bytes_of(&mut index, id, *uid).unwrap();
            assert_eq!(crc32fast::hash(&bytes), *crc, "uid {uid}");
        }
        // An expunge that was begun is done or not: which, is known from here on.
        for (uid, crc) in std::mem::take(&mut maybe) {
            let row = UidSet::from_uids([uid]);
            if reading(&mut index, |v| read::rows(v, id, &row, 1)).unwrap().rows.len() == 1 {
                must.insert(uid, crc);
            }
        }
        drop(index);
    }
    assert!(lines > 300);
}
