//! What each operation does to rows, counters and changes.

use super::world::{
    Seeded, World, body, bytes_of, inbox, mailbox, message, now, parsed, reading, small,
};
use crate::store::{
    ChangesFrom, Content, Delivered, FlagChange, Flags, JunkMark, Keyword, Limits, MailboxId,
    MetaWanted, NewMessage, Once, Origin, Recipient, ReputationKey, ReputationKind, Role,
    SendLimits, StoreError, Stored, Submission, Target, TextKey, Tuning, UidSet,
    index::Index,
    outbox, read, reputation, search, settings,
    shared::{Lease, Shared},
};
use std::{io::Write as _, sync::Arc, time::Duration};
use types::{Clock as _, DeliveryId, SubmissionId, UnixNanos};

fn deliver(index: &mut Index, message: NewMessage) -> Stored {
    match index.deliver(&[message]).pop().unwrap().unwrap() {
        Delivered::Stored(stored) => stored,
        Delivered::Repeat => panic!("a repeat"),
    }
}

fn keyword(text: &str) -> Keyword {
    text.parse().unwrap()
}

fn info(index: &mut Index, id: MailboxId) -> crate::store::MailboxInfo {
    reading(index, |v| read::mailbox(v.connection, id)).unwrap()
}

fn one(uid: u32) -> UidSet {
    UidSet::from_uids([uid])
}

#[test]
fn a_new_account_has_its_mailboxes() {
    let world = World::new(1);
    let mut index = world.create(small());
    let all = reading(&mut index, |v| read::mailboxes(v.connection)).unwrap();
    let names: Vec<&str> = all.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["Archive", "Drafts", "Inbox", "Junk", "Sent", "Trash"]);
    // RFC 9051 §2.3.1.1: none may later be renamed to another's name with the same UIDVALIDITY.
    let mut validities: Vec<u32> = all.iter().map(|m| m.uidvalidity).collect();
    validities.sort_unstable();
    assert_eq!(validities, Vec::from_iter(895_000_000..895_000_006));
    assert!(all.iter().all(|m| m.uidnext == 1));
    assert_eq!(all[0].role, Some(Role::Archive));
    let subscribed = reading(&mut index, |v| read::subscriptions(v.connection)).unwrap();
    assert_eq!(subscribed.len(), 6);
    let new = index.create_mailbox("new", None).unwrap();
    assert_eq!(new.uidvalidity, 895_000_006);
    drop(index);
    assert!(matches!(
        Index::create(world.root(), world.shared.clone(), &world.ports, small()).err(),
        Some(StoreError::AccountExists)
    ));
    world.open(small()).unwrap();
}

#[test]
fn delivered_bytes_come_back_wherever_they_lie() {
    let world = World::new(2);
    let mut index = world.create(small());
    let random = Seeded::new(3);
    let box_id = mailbox(&mut index, "inbox");
    let mut wanted = Vec::new();
    for (n, len) in [0, 1, 5000, 120_000, 300_000, 262_144 * 2, 262_144 * 2 + 1].iter().enumerate()
    {
        let content = body(&random, *len);
        let prefix = format!("Received: {n}\r\n").into_bytes();
        let spooled = if n % 2 == 1 {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            Content::File { file, len: content.len() as u64 }
        } else {
            Content::Bytes(content.clone())
        };
        let new = NewMessage {
            prefix: prefix.clone(),
            content: spooled,
            ..message(inbox(), Vec::new(), now(&world))
        };
        let stored = deliver(&mut index, new);
        wanted.push((stored.uid, [prefix, content].concat()));
    }
    let check = |index: &mut Index| {
        for (uid, bytes) in &wanted {
            assert!(bytes_of(index, box_id, *uid).unwrap() == *bytes, "uid {uid}");
        }
        // A part in the middle, over no boundary it need not cross.
        let (uid, bytes) = &wanted[6];
        let content = reading(index, |v| read::content(v.connection, box_id, *uid)).unwrap();
        let part =
            reading(index, |v| v.files.read(v.connection, content.id, 262_150, 100)).unwrap();
        assert_eq!(part, bytes[262_150..262_250]);
    };
    check(&mut index);
    assert!(index.staged_bytes > 0);
    index.drain().unwrap();
    assert_eq!(index.staged_bytes, 0);
    check(&mut index);
    drop(index);
    check(&mut world.open(small()).unwrap());
}

#[test]
fn repeats_quota_and_bad_targets_are_told_apart_in_one_group() {
    let world = World::new(4);
    let mut index = world.create(small());
    let at = now(&world);
    let id = DeliveryId::from_bytes([1; 32]);
    let until = at.plus(Duration::from_secs(9));
    let delivery = Some(Once { id, remember_until: Some(until) });
    let with_id = || NewMessage { delivery, ..message(inbox(), b"x".to_vec(), at) };
    world.shared.set_limits(Limits { quota: Some(1000) });
    let outcomes = index.deliver(&[
        with_id(),
        with_id(),
        message(Target::Mailbox(MailboxId(99)), b"x".to_vec(), at),
        message(inbox(), vec![b'x'; 2000], at),
        message(Target::Named("a/b".into()), b"y".to_vec(), at),
        message(Target::Named("a//b".into()), b"y".to_vec(), at),
    ]);
    assert!(matches!(outcomes[0], Ok(Delivered::Stored(_))));
    assert!(matches!(outcomes[1], Ok(Delivered::Repeat)));
    assert!(matches!(outcomes[2], Err(StoreError::NoSuchMailbox)));
    assert!(matches!(outcomes[3], Err(StoreError::OverQuota)));
    assert!(matches!(outcomes[4], Ok(Delivered::Stored(_))));
    assert!(matches!(outcomes[5], Err(StoreError::MailboxName(_))));
    assert!(matches!(index.deliver(&[with_id()])[0], Ok(Delivered::Repeat)));
    let made = mailbox(&mut index, "a/b");
    assert_eq!(info(&mut index, made).messages, 1);
    // The id is forgotten when its time is over, whether its row is gone or not.
    world.clock.advance(Duration::from_secs(10));
    let again = |seconds| {
        let until = at.plus(Duration::from_secs(seconds));
        let delivery = Some(Once { id, remember_until: Some(until) });
        NewMessage { delivery, ..message(inbox(), b"x".to_vec(), at) }
    };
    assert!(matches!(index.deliver(&[again(20)])[0], Ok(Delivered::Stored(_))));
    assert!(matches!(index.deliver(&[again(20)])[0], Ok(Delivered::Repeat)));
    world.clock.advance(Duration::from_secs(11));
    index.purge().unwrap();
    assert!(matches!(index.deliver(&[again(60)])[0], Ok(Delivered::Stored(_))));
    // Or before, if somebody says so. It may be looked for without being remembered.
    let unremembered = || {
        let delivery = Some(Once { id, remember_until: None });
        NewMessage { delivery, ..message(inbox(), b"x".to_vec(), at) }
    };
    assert!(matches!(index.deliver(&[unremembered()])[0], Ok(Delivered::Repeat)));
    index.forget_delivery(id).unwrap();
    for _ in 0..2 {
        assert!(matches!(index.deliver(&[unremembered()])[0], Ok(Delivered::Stored(_))));
    }
    // Noted afterwards, and anew.
    index.remember_delivery(id, now(&world).plus(Duration::from_secs(5))).unwrap();
    index.remember_delivery(id, now(&world).plus(Duration::from_secs(20))).unwrap();
    world.clock.advance(Duration::from_secs(10));
    assert!(matches!(index.deliver(&[unremembered()])[0], Ok(Delivered::Repeat)));
    world.clock.advance(Duration::from_secs(11));
    assert!(matches!(index.deliver(&[unremembered()])[0], Ok(Delivered::Stored(_))));
}

#[test]
fn flags_keywords_and_counters() {
    let world = World::new(5);
    let mut index = world.create(small());
    let id = mailbox(&mut index, "Inbox");
    for n in 0..10u8 {
        deliver(&mut index, message(inbox(), vec![n; 100], now(&world)));
    }
    let before = info(&mut index, id);
    assert_eq!((before.messages, before.unseen, before.unread, before.bytes), (10, 10, 10, 1000));
    let uids = UidSet::from_ranges([2..=4]);
    let words = vec![keyword("a"), keyword("B")];
    let set = index
        .store_flags(id, &uids, FlagChange::Add, Flags::SEEN.with(Flags::DELETED), &words, None)
        .unwrap();
    assert_eq!(set.rows.len(), 3);
    assert_eq!(set.modseq, Some(before.modseq + 1));
    let after = info(&mut index, id);
    assert_eq!((after.messages, after.deleted, after.unseen, after.unread), (10, 3, 7, 7));
    assert_eq!((after.deleted_bytes, after.modseq), (300, before.modseq + 1));
    // The same again changes nothing.
    let again =
        index.store_flags(id, &uids, FlagChange::Add, Flags::SEEN, &[keyword("a")], None).unwrap();
    assert_eq!(again.modseq, None);
    assert_eq!(info(&mut index, id).modseq, after.modseq);
    // UNCHANGEDSINCE names those that changed.
    let all = UidSet::from_ranges([1..=3]);
    let outcome = index
        .store_flags(id, &all, FlagChange::Add, Flags::FLAGGED, &[], Some(before.modseq))
        .unwrap();
    assert_eq!(outcome.modified, [2, 3]);
    assert_eq!(outcome.rows.len(), 1);
    // Keywords out of use disappear, and their numbers are given again.
    index.store_flags(id, &uids, FlagChange::Replace, Flags::NONE, &[keyword("c")], None).unwrap();
    let names = reading(&mut index, |v| read::keyword_names(v.connection, id)).unwrap();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].1, keyword("c"));
    // A hundred at most in use.
    let many: Vec<Keyword> = (0..30).map(|n| keyword(&format!("k{n}"))).collect();
    index.store_flags(id, &one(5), FlagChange::Add, Flags::NONE, &many, None).unwrap();
    for (uid, start) in [(6, 30), (7, 60)] {
        let next: Vec<Keyword> = (start..start + 30).map(|n| keyword(&format!("k{n}"))).collect();
        index.store_flags(id, &one(uid), FlagChange::Add, Flags::NONE, &next, None).unwrap();
    }
    let next: Vec<Keyword> = (90..100).map(|n| keyword(&format!("k{n}"))).collect();
    assert!(matches!(
        index.store_flags(id, &one(8), FlagChange::Add, Flags::NONE, &next, None),
        Err(StoreError::TooManyKeywords)
    ));
    let row = reading(&mut index, |v| read::rows(v, id, &UidSet::all(), 5)).unwrap();
    assert_eq!(row.rows[0].keywords.count(), 30);
    assert_eq!(row.keywords.len(), 91);
}

#[test]
fn copy_move_expunge_and_what_changed() {
    let world = World::new(6);
    let mut index = world.create(small());
    let (from, to) = (mailbox(&mut index, "Inbox"), mailbox(&mut index, "Archive"));
    for n in 0..6u8 {
        deliver(&mut index, message(inbox(), vec![n; 50], now(&world)));
    }
    index.store_flags(from, &one(2), FlagChange::Add, Flags::NONE, &[keyword("k")], None).unwrap();
    let since = info(&mut index, from).modseq;
    let copied = index.copy(from, &UidSet::from_ranges([1..=2]), to, None).unwrap();
    assert_eq!(copied.uids, [(1, 1), (2, 2)]);
    let mark = Some(JunkMark { junk: true, not_junk: false });
    let moved = index.move_messages(from, &UidSet::from_ranges([3..=4]), to, mark).unwrap();
    assert_eq!(moved.uids, [(3, 3), (4, 4)]);
    assert_eq!(bytes_of(&mut index, to, 4).unwrap(), vec![3; 50]);
    // A session that was not told of the move yet can still read it at its old place.
    assert_eq!(bytes_of(&mut index, from, 4).unwrap(), vec![3; 50]);
    index.store_flags(from, &one(5), FlagChange::Add, Flags::DELETED, &[], None).unwrap();
    assert_eq!(index.expunge(from, &UidSet::all(), true).unwrap(), [5]);
    let changes =
        reading(&mut index, |v| read::changes(v, from, ChangesFrom::after(since))).unwrap();
    assert_eq!(changes.gone, [3, 4, 5]);
    assert!(changes.changed.is_empty() && changes.more.is_none());
    let there = reading(&mut index, |v| read::changes(v, to, ChangesFrom::after(since))).unwrap();
    assert_eq!(there.changed.len(), 4);
    assert_eq!(there.keywords, [(0, keyword("k"))]);
    assert!(there.changed[3].flags.has(Flags::JUNK));
    let (a, b) = (info(&mut index, from), info(&mut index, to));
    assert_eq!((a.messages, b.messages, a.bytes, b.bytes), (3, 4, 150, 200));
    let usage = reading(&mut index, |v| read::usage(v.connection)).unwrap();
    assert_eq!((usage.bytes, usage.pending_bytes, usage.messages), (350, 50, 7));
    // Content goes when nobody refers to it, and the row says so.
    index.expunge(from, &one(1), false).unwrap();
    index.erase().unwrap();
    assert_eq!(bytes_of(&mut index, to, 1).unwrap(), vec![0; 50]);
    assert!(matches!(bytes_of(&mut index, from, 5), Err(StoreError::ContentGone)));
    assert!(matches!(bytes_of(&mut index, from, 99), Err(StoreError::NoSuchMessage)));
}

#[test]
fn a_lease_holds_content_back() {
    let world = World::new(7);
    let mut index = world.create(small());
    let id = mailbox(&mut index, "Inbox");
    deliver(&mut index, message(inbox(), b"kept".to_vec(), now(&world)));
    let lease = crate::store::Lease::new(&world.shared, world.shared.modseq());
    index.expunge(id, &UidSet::all(), false).unwrap();
    index.erase().unwrap();
    assert_eq!(bytes_of(&mut index, id, 1).unwrap(), b"kept");
    lease.seen(world.shared.modseq());
    index.erase().unwrap();
    assert!(matches!(bytes_of(&mut index, id, 1), Err(StoreError::ContentGone)));
    // But not for ever.
    deliver(&mut index, message(inbox(), b"kept".to_vec(), now(&world)));
    index.expunge(id, &UidSet::all(), false).unwrap();
    world.clock.advance(Duration::from_secs(25 * 3600));
    index.erase().unwrap();
    assert!(matches!(bytes_of(&mut index, id, 2), Err(StoreError::ContentGone)));
}

#[test]
fn sessions_that_come_back_find_their_content() {
    let mut world = World::new(71);
    let hold = Duration::from_secs(600);
    let tuning = Tuning { erase_hold_at_start: hold, ..small() };
    let mut index = world.create(tuning);
    let id = mailbox(&mut index, "Inbox");
    deliver(&mut index, message(inbox(), b"kept".to_vec(), now(&world)));
    let lease = crate::store::Lease::new(&world.shared, world.shared.modseq());
    index.expunge(id, &UidSet::all(), false).unwrap();
    world.clock.advance(hold * 2);
    index.erase().unwrap();
    assert_eq!(bytes_of(&mut index, id, 1).unwrap(), b"kept", "by its lease");
    // The next life knows of no lease.
    drop((index, lease));
    world.shared = Arc::new(Shared::new(world.shared.id, world.clock.monotonic()));
    let mut index = world.open(tuning).unwrap();
    world.clock.advance(hold - Duration::from_secs(1));
    index.erase().unwrap();
    assert_eq!(bytes_of(&mut index, id, 1).unwrap(), b"kept");
    world.clock.advance(Duration::from_secs(1));
    index.erase().unwrap();
    assert!(matches!(bytes_of(&mut index, id, 1), Err(StoreError::ContentGone)));
}

#[test]
fn mailboxes_are_made_renamed_and_deleted() {
    let world = World::new(8);
    let mut index = world.create(small());
    let made = index.create_mailbox("x/y/z", Some(Role::Trash)).unwrap();
    assert_eq!(made.role, Some(Role::Trash));
    let old_trash = mailbox(&mut index, "Trash");
    assert_eq!(info(&mut index, old_trash).role, None);
    assert!(info(&mut index, old_trash).modseq == made.modseq);
    assert!(matches!(index.create_mailbox("x/y", None), Err(StoreError::MailboxExists)));
    let parent = mailbox(&mut index, "x");
    assert!(matches!(index.delete_mailbox(parent), Err(StoreError::HasChildren)));
    let inbox_id = mailbox(&mut index, "Inbox");
    assert!(matches!(index.delete_mailbox(inbox_id), Err(StoreError::Inbox)));
    // Below itself: the old name is made anew as a parent.
    let renamed = index.rename_mailbox(parent, "x/w").unwrap();
    let names: Vec<&str> = renamed.iter().map(|r| r.to.as_str()).collect();
    assert_eq!(names, ["x/w", "x/w/y", "x/w/y/z"]);
    assert_ne!(mailbox(&mut index, "x"), parent);
    assert_eq!(mailbox(&mut index, "x/w"), parent);
    assert!(matches!(index.rename_mailbox(parent, "Sent"), Err(StoreError::MailboxExists)));
    assert!(matches!(index.rename_mailbox(parent, "inbox"), Err(StoreError::Inbox)));
    // Inbox gives its messages and stays.
    deliver(&mut index, message(inbox(), b"1".to_vec(), now(&world)));
    index.create_mailbox("Inbox/child", None).unwrap();
    index.rename_mailbox(inbox_id, "old").unwrap();
    let old = mailbox(&mut index, "old");
    assert_eq!((info(&mut index, inbox_id).messages, info(&mut index, old).messages), (0, 1));
    mailbox(&mut index, "inbox/child");
    // Deleting expunges; the name may be used again with another UIDVALIDITY.
    let gone = info(&mut index, old);
    let seq = index.delete_mailbox(old).unwrap();
    let changes = reading(&mut index, |v| read::account_changes(v.connection, seq - 1)).unwrap();
    assert!(changes.mailboxes.iter().any(|m| m.id == old && m.expunged && m.messages == 0));
    let again = index.create_mailbox("old", None).unwrap();
    assert!(again.uidvalidity > gone.uidvalidity && again.id != old && again.oid != gone.oid);
    assert!(index.subscribe("nowhere", true).unwrap());
    assert!(!index.subscribe("nowhere", true).unwrap());
    assert!(index.subscribe("nowhere", false).unwrap());
    let role = index.set_role(again.id, Some(Role::Trash)).unwrap();
    assert_eq!(info(&mut index, made.id).modseq, role);
    assert_eq!(info(&mut index, made.id).role, None);
}

#[test]
fn threads_by_reference_then_by_subject() {
    let world = World::new(9);
    let mut index = world.create(small());
    let at = now(&world);
    let id = mailbox(&mut index, "Inbox");
    for m in [
        parsed("a@x", "plan", &[], at),
        parsed("b@x", "re: plan", &["a@x"], at),
        parsed("c@x", "re: plan", &["a@x", "lost@x"], at),
        // Same references, another subject: a thread of its own.
        parsed("d@x", "other", &["a@x"], at),
        // A reply that names nothing: by subject, the newest.
        parsed("e@x", "re: plan", &[], at.plus(Duration::from_secs(60))),
        // No reply: its own, though the subject is known.
        parsed("f@x", "plan", &[], at),
        // The same Message-ID again.
        parsed("a@x", "plan", &[], at),
        // Too late for a guess by subject.
        parsed("g@x", "re: plan", &[], at.plus(Duration::from_secs(40 * 86_400))),
    ] {
        deliver(&mut index, m);
    }
    let rows = reading(&mut index, |v| read::threads(v.connection, id, 1)).unwrap();
    let thread: Vec<i64> = rows.iter().map(|r| r.thread.0).collect();
    assert_eq!(thread, [1, 1, 1, 4, 1, 6, 1, 8]);
    let parent: Vec<Option<i64>> = rows.iter().map(|r| r.parent.map(|p| p.0)).collect();
    assert_eq!(parent, [None, Some(1), Some(1), None, Some(3), None, Some(1), None]);
    let missing: Vec<bool> = rows.iter().map(|r| r.missing_link).collect();
    assert_eq!(missing, [false, false, true, true, true, false, true, true]);
    // A muted thread marks what comes later as seen.
    index.set_thread(rows[0].thread, Some(true), None).unwrap();
    deliver(&mut index, parsed("h@x", "re: plan", &["b@x"], at));
    let row = reading(&mut index, |v| read::rows(v, id, &one(9), 1)).unwrap();
    assert!(row.rows[0].flags.has(Flags::SEEN));
}

#[test]
fn metadata_search_and_junk_training() {
    let world = World::new(10);
    let mut index = world.create(small());
    let at = now(&world);
    let id = mailbox(&mut index, "Inbox");
    deliver(&mut index, parsed("a@x", "Größe", &[], at));
    deliver(&mut index, parsed("b@x", "zwei", &[], at));
    deliver(&mut index, message(inbox(), "opaque größe".into(), at));
    let wanted = MetaWanted { envelope: true, preview: true, ..MetaWanted::default() };
    let metas = reading(&mut index, |v| read::metas(v, id, &UidSet::all(), 1, wanted)).unwrap();
    assert_eq!(metas.metas.len(), 3);
    assert_eq!(metas.metas[0].envelope, b"env a@x");
    assert_eq!(metas.metas[0].preview.as_deref(), Some("hello a@x"));
    assert!(metas.metas[0].body_structure.is_empty());
    assert!(metas.metas[1].parsed && !metas.metas[2].parsed);
    let keys = [
        TextKey::Text("GRÖSSE".into()),
        TextKey::Text("GRÖßE".into()),
        TextKey::Body("HELLO".into()),
    ];
    let found =
        reading(&mut index, |v| search::step(v, id, &UidSet::all(), 1, &keys, None)).unwrap();
    assert_eq!(found.hits, [(1, 0b110), (2, 0b100)]);
    assert_eq!((found.looked_at, found.next), (3, None));
    // Learning follows the flags, in the same commit, and takes back what it learned.
    let words = ["hello".to_owned(), "subject:zwei".to_owned()];
    let count = |index: &mut Index| {
        reading(index, |v| reputation::junk_counts(v.connection, &words)).unwrap()
    };
    index.store_flags(id, &one(2), FlagChange::Add, Flags::JUNK, &[], None).unwrap();
    index.store_flags(id, &one(1), FlagChange::Add, Flags::NOT_JUNK, &[], None).unwrap();
    let learned = count(&mut index);
    assert_eq!((learned.ham, learned.spam), (1, 1));
    assert_eq!(learned.words, [(1, 1), (0, 1)]);
    index.expunge(id, &one(2), false).unwrap();
    let unlearned = count(&mut index);
    assert_eq!((unlearned.spam, unlearned.words), (0, vec![(1, 0), (0, 0)]));
}

#[test]
fn reputation_and_rejects() {
    let world = World::new(11);
    let mut index = world.create(small());
    let at = now(&world);
    let key = ReputationKey { kind: ReputationKind::FromDomain, value: "example.org".into() };
    let inbox_id = mailbox(&mut index, "Inbox");
    let reject = NewMessage {
        reputation: vec![key.clone()],
        target: Target::Named("Rejects".into()),
        origin: Origin { is_reject: true, ..Origin::default() },
        destined: Some(inbox_id),
        flags: Flags::SEEN,
        hash: Some([5; 32]),
        ..parsed("r@x", "offer", &[], at)
    };
    let stored = deliver(&mut index, reject);
    let find = |index: &mut Index, mailbox| {
        reading(index, |v| reputation::find_same(v.connection, mailbox, Some("r@x"), Some([5; 32])))
            .unwrap()
    };
    assert_eq!(find(&mut index, stored.mailbox), [1]);
    assert_eq!(find(&mut index, inbox_id), [0u32; 0]);
    let hits = |index: &mut Index| {
        reading(index, |v| reputation::hits(v.connection, &key, Some(inbox_id), UnixNanos(0), 10))
            .unwrap()
    };
    assert!(hits(&mut index).is_empty());
    let mark = Some(JunkMark { junk: false, not_junk: true });
    index.move_messages(stored.mailbox, &UidSet::all(), inbox_id, mark).unwrap();
    let found = hits(&mut index);
    assert_eq!(found.len(), 1);
    assert!(found[0].not_junk && !found[0].junk);
    let row = reading(&mut index, |v| read::rows(v, inbox_id, &UidSet::all(), 1)).unwrap();
    assert!(!row.rows[0].flags.has(Flags::SEEN), "stands out");
}

#[test]
fn submissions_are_once_and_limited() {
    let world = World::new(12);
    let mut index = world.create(small());
    let at = now(&world);
    let submission = |n: u8, to: &[&str], limits| Submission {
        id: SubmissionId::from_bytes([n; 16]),
        said: None,
        message: NewMessage {
            target: Target::Role(Role::Sent),
            ..message(inbox(), vec![n; 64], at)
        },
        keep_copy: n == 1,
        envelope: vec![n],
        recipients: to
            .iter()
            .map(|l| Recipient {
                localpart: (*l).to_owned(),
                domain: "b.example".into(),
                org_domain: "b.example".into(),
            })
            .collect(),
        release: None,
        limits,
    };
    let open = SendLimits::default();
    let first = index.submit(submission(1, &["x", "y"], open)).unwrap();
    assert!(first.copy.is_some_and(|c| c.uid == 1));
    assert!(index.submit(submission(1, &["x", "y"], open)).unwrap().repeat);
    index.submit(submission(2, &["x"], open)).unwrap();
    let few = SendLimits { messages: 4, first_time: 2 };
    assert!(matches!(index.submit(submission(3, &["x", "z"], few)), Err(StoreError::TooManySent)));
    assert!(matches!(index.submit(submission(3, &["z"], few)), Err(StoreError::TooManyFirstTime)));
    let entries = reading(&mut index, |v| outbox::list(v.connection, None)).unwrap();
    assert_eq!(entries.len(), 2, "what was refused left nothing");
    let content = entries[1].content;
    let bytes = reading(&mut index, |v| v.files.read(v.connection, content.id, 0, 100)).unwrap();
    assert_eq!(bytes, vec![2; 64]);
    let rest = reading(&mut index, |v| outbox::list(v.connection, Some(entries[0].id))).unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(index.outbox_done(&[entries[0].id, entries[1].id]).unwrap(), 2);
    assert_eq!(index.outbox_done(&[entries[0].id]).unwrap(), 0);
    assert!(index.submit(submission(2, &["x"], open)).unwrap().repeat, "still known");
    index.erase().unwrap();
    let sent = mailbox(&mut index, "Sent");
    assert_eq!(bytes_of(&mut index, sent, 1).unwrap(), vec![1; 64], "the copy stays");
    let wrote = |index: &mut Index, who: Option<&str>| {
        reading(index, |v| outbox::has_written_to(v.connection, who, "b.example")).unwrap()
    };
    assert!(wrote(&mut index, Some("x")) && wrote(&mut index, None));
    assert!(!wrote(&mut index, Some("z")));
    // A day later the limits count anew.
    world.clock.advance(Duration::from_secs(25 * 3600));
    index.submit(submission(4, &["z"], few)).unwrap();
    index.submit(submission(5, &["x"], few)).unwrap();
    let count = "SELECT count(*) FROM outgoing WHERE recipient = 'x@b.example'";
    let rows =
        reading(&mut index, |v| Ok(v.connection.query_row(count, [], |r| r.get::<_, i64>(0))?));
    assert_eq!(rows.unwrap(), 1, "of what is older one row is enough");
}

#[test]
fn what_a_client_says_again_is_submitted_once() {
    let world = World::new(18);
    let mut index = world.create(small());
    let submission = |n: u8, digest: u8| Submission {
        id: SubmissionId::from_bytes([n; 16]),
        said: Some(([digest; 32], now(&world).plus(Duration::from_secs(60)))),
        message: message(inbox(), vec![n; 64], now(&world)),
        keep_copy: false,
        envelope: vec![n],
        recipients: Vec::new(),
        release: None,
        limits: SendLimits::default(),
    };
    let said = |index: &mut Index, n, digest| {
        let submitted = index.submit(submission(n, digest)).unwrap();
        (submitted.id.as_bytes()[0], submitted.repeat)
    };
    assert_eq!(said(&mut index, 1, 7), (1, false));
    assert_eq!(said(&mut index, 2, 7), (1, true), "the first one's id");
    assert_eq!(said(&mut index, 3, 8), (3, false));
    // Also when the queue has it, and after a start.
    index.outbox_done(&[SubmissionId::from_bytes([1; 16])]).unwrap();
    drop(index);
    let mut index = world.open(small()).unwrap();
    assert_eq!(said(&mut index, 4, 7), (1, true));
    // What was heard is not said again for want of an answer; what took its place may be.
    world.shared.hear(SubmissionId::from_bytes([3; 16]));
    assert_eq!(said(&mut index, 3, 8), (3, true), "the queue's own repeat");
    assert_eq!(said(&mut index, 9, 8), (9, false));
    assert_eq!(said(&mut index, 10, 8), (9, true));
    // Its time is over, whether or not it was forgotten already.
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(said(&mut index, 5, 7), (5, false));
    assert_eq!(said(&mut index, 6, 7), (5, true));
    world.clock.advance(Duration::from_secs(61));
    index.purge().unwrap();
    let rows = "SELECT count(*) FROM submission_repeat";
    let rows =
        reading(&mut index, |v| Ok(v.connection.query_row(rows, [], |r| r.get::<_, i64>(0))?));
    assert_eq!(rows.unwrap(), 0);
    let rows = reading(&mut index, |v| outbox::list(v.connection, None)).unwrap();
    assert_eq!(rows.iter().map(|r| r.id.as_bytes()[0]).collect::<Vec<_>>(), [3, 9, 5]);
}

#[test]
fn append_and_replace_are_whole() {
    let world = World::new(13);
    let mut index = world.create(small());
    let at = now(&world);
    let id = mailbox(&mut index, "Inbox");
    let both = index
        .append(&[message(inbox(), b"1".to_vec(), at), message(inbox(), b"2".to_vec(), at)])
        .unwrap();
    assert_eq!((both[0].uid, both[1].uid, both[0].modseq), (1, 2, both[1].modseq));
    let bad = message(Target::Mailbox(MailboxId(77)), b"3".to_vec(), at);
    assert!(index.append(&[message(inbox(), b"3".to_vec(), at), bad]).is_err());
    assert_eq!(info(&mut index, id).messages, 2);
    let new = index.replace(id, 1, message(inbox(), b"4".to_vec(), at)).unwrap();
    assert_eq!(new.uid, 3);
    assert!(matches!(
        index.replace(id, 1, message(inbox(), b"5".to_vec(), at)),
        Err(StoreError::NoSuchMessage)
    ));
    assert_eq!(reading(&mut index, |v| read::uids(v.connection, id, 1)).unwrap(), [2, 3]);
}

#[test]
fn names_of_mailboxes_are_bounded_together() {
    let world = World::new(15);
    let mut index = world.create(small());
    let name = |n: u32| format!("{n:06}{}", "n".repeat(900));
    let refused = |outcome| matches!(outcome, Err(StoreError::TooMany("mailboxes")));
    let made = (0..2_000).find(|n| refused(index.create_mailbox(&name(*n), None).map(drop)));
    assert!(made.is_some_and(|made| made > 1_000), "{made:?}");
    // What has a name may have another one, but no longer one.
    let (first, second) = (mailbox(&mut index, &name(0)), mailbox(&mut index, &name(1)));
    index.rename_mailbox(first, "short").unwrap();
    index.create_mailbox("short/below", None).unwrap();
    let long = format!("{}/{}", "a".repeat(480), "b".repeat(480));
    assert!(refused(index.rename_mailbox(first, &long).map(drop)));
    assert_eq!(mailbox(&mut index, "short"), first);
    // Names that stay subscribed do not add up without end, and keep no mailbox from being made.
    index.delete_mailbox(second).unwrap();
    index.create_mailbox("new", None).unwrap();
    let subscribed = reading(&mut index, |v| read::subscriptions(v.connection)).unwrap();
    assert!(subscribed.iter().map(String::len).sum::<usize>() <= 1 << 20);
    assert!(matches!(index.subscribe(&name(9_999), true), Err(StoreError::TooMany(_))));
}

#[test]
fn annotations_and_settings_are_bounded() {
    let world = World::new(14);
    let mut index = world.create(small());
    let id = mailbox(&mut index, "Inbox");
    let before = world.shared.modseq();
    let entry = |value: &[u8]| vec![("/private/x".to_owned(), Some((value.to_vec(), true)))];
    let seq = index.set_annotations(Some(id), entry(b"v")).unwrap();
    assert_eq!(seq, before + 1);
    assert_eq!(index.set_annotations(Some(id), entry(b"v")).unwrap(), seq, "nothing changed");
    let changes = reading(&mut index, |v| read::account_changes(v.connection, before)).unwrap();
    assert_eq!(changes.annotations, [(Some(id), "/private/x".to_owned())]);
    assert!(matches!(
        index.set_annotations(None, entry(&vec![b'x'; 1_000_000])),
        Err(StoreError::TooMany(_))
    ));
    index.set_annotations(Some(id), vec![("/private/x".into(), None)]).unwrap();
    assert!(
        reading(&mut index, |v| settings::annotations(v.connection, Some(id))).unwrap().is_empty()
    );
    index.set_setting("signature", Some(b"-- me")).unwrap();
    let read = |index: &mut Index| {
        reading(index, |v| settings::setting(v.connection, "signature")).unwrap()
    };
    assert_eq!(read(&mut index).as_deref(), Some(&b"-- me"[..]));
    index.set_setting("signature", None).unwrap();
    assert_eq!(read(&mut index), None);
}

#[test]
fn deleted_mailboxes_are_forgotten_in_the_end() {
    let world = World::new(16);
    let mut index = world.create(small());
    let all = |index: &mut Index| -> i64 {
        let count = "SELECT count(*) FROM mailbox WHERE expunged = 1";
        reading(index, |v| Ok(v.connection.query_row(count, [], |r| r.get(0))?)).unwrap()
    };
    for n in 0..35 {
        let made = index.create_mailbox(&format!("m{n}"), None).unwrap();
        index
            .set_annotations(Some(made.id), vec![("/private/a".into(), Some((vec![], true)))])
            .unwrap();
        index.delete_mailbox(made.id).unwrap();
    }
    assert_eq!(all(&mut index), 35);
    index.purge().unwrap();
    assert_eq!(all(&mut index), 30);
    let changes = reading(&mut index, |v| read::account_changes(v.connection, 0)).unwrap();
    assert_eq!((changes.mailboxes.len(), changes.annotations.len()), (36, 30));
}

#[test]
fn contents_can_be_gone_through_and_parsed_again() {
    let world = World::new(17);
    let mut index = world.create(small());
    let at = now(&world);
    let id = mailbox(&mut index, "Inbox");
    let stored = deliver(&mut index, message(inbox(), b"opaque".to_vec(), at));
    deliver(&mut index, NewMessage { flags: Flags::JUNK, ..parsed("b@x", "t", &[], at) });
    assert_eq!(reading(&mut index, |v| read::parse_version(v.connection)).unwrap(), 1);
    let all = reading(&mut index, |v| read::contents(v.connection, None)).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(
        reading(&mut index, |v| read::contents(v.connection, Some(all[0].id))).unwrap(),
        all[1..]
    );
    let facts = |subject: &str| parsed("n@x", subject, &[], at).facts.unwrap();
    index
        .reparsed(&[
            crate::store::Reparsed { content: all[0].id, facts: facts("new") },
            crate::store::Reparsed { content: all[1].id, facts: facts("other") },
        ])
        .unwrap();
    index.set_parse_version(2).unwrap();
    assert_eq!(reading(&mut index, |v| read::parse_version(v.connection)).unwrap(), 2);
    let wanted = MetaWanted::default();
    let metas = reading(&mut index, |v| read::metas(v, id, &one(stored.uid), 1, wanted)).unwrap();
    assert!(metas.metas[0].parsed && metas.metas[0].base_subject == "new");
    // What was learned from the old text is learned from the new.
    assert_eq!(crate::store::verify::all(&mut index, false).unwrap(), []);
}

#[test]
fn old_tombstones_are_purged_and_links_mended() {
    let world = World::new(15);
    let mut index = world.create(small());
    let at = now(&world);
    let id = mailbox(&mut index, "Inbox");
    deliver(&mut index, parsed("a@x", "t", &[], at));
    deliver(&mut index, parsed("b@x", "t", &["a@x"], at));
    deliver(&mut index, parsed("c@x", "t", &["b@x"], at));
    index.expunge(id, &one(2), false).unwrap();
    for n in 0..40u8 {
        let stored = deliver(&mut index, message(inbox(), vec![n], at));
        index.expunge(id, &one(stored.uid), false).unwrap();
    }
    // A session still has to tell its client of them.
    let lease = Lease::new(&world.shared, 0);
    while index.purge().unwrap() {}
    let changes = reading(&mut index, |v| read::changes(v, id, ChangesFrom::after(0))).unwrap();
    assert_eq!((changes.gone.len(), changes.purged), (41, 0));
    drop(lease);
    while index.purge().unwrap() {}
    let changes = reading(&mut index, |v| read::changes(v, id, ChangesFrom::after(0))).unwrap();
    assert_eq!(changes.gone.len(), 30);
    assert!(changes.purged > 0);
    let rows = reading(&mut index, |v| read::threads(v.connection, id, 1)).unwrap();
    assert_eq!(
        rows[1].parent,
        Some(rows[0].id),
        "the answer to an answer is an answer to the first"
    );
}
