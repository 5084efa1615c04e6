//! Decoded text that is compressed by its content: it is found wherever the content lies, and a
//! damaged content hides no other.

use super::world::{
    ACCOUNT, Seeded, World, body, mailbox, now, parsed, reading, segment_folder, small,
};
use crate::store::{
    Content, FlagChange, Flags, MailboxId, NewMessage, Store, TextKey, Threads, Tuning, UidSet,
    index::Index, search, verify,
};
use std::{fs, sync::Arc};
use storage::rusqlite::Connection;

/// A message whose text stands in its content, `len` octets of it and a word of its own.
fn with_text(world: &World, random: &Seeded, word: &str, len: usize) -> NewMessage {
    let text = format!("{}\r\n{word}\r\n", String::from_utf8(body(random, len)).unwrap());
    let mut new = parsed(&format!("{word}@x"), "s", &[], now(world));
    if let (Content::Bytes(bytes), Some(facts)) = (&mut new.content, &mut new.facts) {
        bytes.extend_from_slice(text.as_bytes());
        facts.body_text = vec![text];
    }
    new
}

fn deliver(index: &mut Index, new: NewMessage) {
    index.deliver(&[new]).pop().unwrap().unwrap();
}

fn found(index: &mut Index, id: MailboxId, word: &str) -> Vec<u32> {
    let keys = [TextKey::Body(word.into())];
    let batch = reading(index, |v| search::step(v, id, &UidSet::all(), 1, &keys, None)).unwrap();
    batch.hits.iter().map(|(uid, _)| *uid).collect()
}

/// Length of the kept text and whether it needs its content, by content.
fn kept(index: &mut Index) -> Vec<(usize, bool)> {
    let rows = "SELECT length(data), by_content FROM content_text ORDER BY content_id";
    reading(index, |v| {
        let mut query = v.connection.prepare(rows)?;
        let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    })
    .unwrap()
}

#[test]
fn text_is_found_wherever_its_content_lies() {
    let world = World::new(80);
    let mut index = world.create(small());
    let random = Seeded::new(81);
    let (inbox_id, archive) = (mailbox(&mut index, "Inbox"), mailbox(&mut index, "Archive"));
    deliver(&mut index, with_text(&world, &random, "zebra", 5000));
    let mut no_model = with_text(&world, &random, "okapi", 5000);
    // What zstd would take for a dictionary of its own.
    no_model.prefix = vec![0x37, 0xa4, 0x30, 0xec];
    deliver(&mut index, no_model);
    deliver(&mut index, with_text(&world, &random, "gnu", 90_000));
    let mut mostly_other = with_text(&world, &random, "quagga", 500);
    if let Content::Bytes(bytes) = &mut mostly_other.content {
        bytes.extend_from_slice(&body(&random, 20_000));
    }
    deliver(&mut index, mostly_other);
    let texts = kept(&mut index);
    let by_content: Vec<bool> = texts.iter().map(|t| t.1).collect();
    assert_eq!(by_content, [true, false, false, false]);
    assert!(texts[0].0 < 100 && texts[1].0 > 1000, "{texts:?}");
    let all = |index: &mut Index, id| {
        ["zebra", "okapi", "gnu", "quagga"].map(|word| found(index, id, word).len())
    };
    assert_eq!(all(&mut index, inbox_id), [1; 4], "staged");
    index.copy(inbox_id, &UidSet::all(), archive, None).unwrap();
    index.store_flags(archive, &UidSet::all(), FlagChange::Add, Flags::JUNK, &[], None).unwrap();
    while index.drain().unwrap() {}
    assert_eq!(all(&mut index, inbox_id), [1; 4], "in a segment");
    index.expunge(inbox_id, &UidSet::all(), false).unwrap();
    index.erase().unwrap();
    assert_eq!(all(&mut index, archive), [1; 4], "of a copy");
    // Sealed and mostly dead, the segment is rewritten.
    let first = segment_folder(world.root()).join("00000001");
    for n in 0..20 {
        deliver(&mut index, with_text(&world, &random, &format!("dead{n}"), 9000));
    }
    while index.drain().unwrap() {}
    index.expunge(inbox_id, &UidSet::all(), false).unwrap();
    index.expunge(archive, &UidSet::from_ranges([2..=4]), false).unwrap();
    index.erase().unwrap();
    while index.compact().unwrap() {}
    assert!(!first.exists());
    assert_eq!(all(&mut index, archive), [1, 0, 0, 0], "moved");
    assert_eq!(verify::all(&mut index, false).unwrap(), []);
}

#[test]
fn texts_of_the_schema_before_are_read() {
    let world = World::new(82);
    let mut index = world.create(small());
    // Too long to be a model, so kept as all texts were.
    deliver(&mut index, with_text(&world, &Seeded::new(83), "okapi", 90_000));
    assert!(!kept(&mut index)[0].1);
    drop(index);
    let file = world.root().join(ACCOUNT.to_string()).join("index.db");
    Connection::open(&file)
        .unwrap()
        .execute_batch(
            "ALTER TABLE content_text DROP COLUMN by_content; DROP TABLE submission_repeat;
             PRAGMA user_version=65537",
        )
        .unwrap();
    let mut index = world.open(small()).unwrap();
    deliver(&mut index, with_text(&world, &Seeded::new(84), "zebra", 5000));
    let id = mailbox(&mut index, "Inbox");
    assert_eq!([found(&mut index, id, "okapi"), found(&mut index, id, "zebra")], [[1], [2]]);
    assert_eq!(verify::all(&mut index, false).unwrap(), []);
}

#[test]
fn a_damaged_content_hides_no_other() {
    let world = World::new(85);
    let mut index = world.create(Tuning { segment_len: 1 << 20, ..small() });
    let random = Seeded::new(86);
    let id = mailbox(&mut index, "Inbox");
    for n in 0..6 {
        deliver(&mut index, with_text(&world, &random, &format!("zebra{n}"), 3000));
    }
    while index.drain().unwrap() {}
    let places: Vec<(u64, u64)> = reading(&mut index, |v| {
        let mut query = v.connection.prepare("SELECT off, zsize FROM content ORDER BY id")?;
        let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    })
    .unwrap();
    let segment = segment_folder(world.root()).join("00000001");
    let mut bytes = fs::read(&segment).unwrap();
    for n in [0, 3] {
        let (off, zsize) = places[n];
        bytes[usize::try_from(off + zsize / 2).unwrap()] ^= 1;
    }
    fs::write(&segment, bytes).unwrap();
    // It cannot be learned from, and is flagged and moved like any other.
    index.store_flags(id, &UidSet::all(), FlagChange::Add, Flags::JUNK, &[], None).unwrap();
    let learned = reading(&mut index, |v| {
        Ok(v.connection.query_row("SELECT spam FROM junk_meta", [], |r| r.get::<_, i64>(0))?)
    });
    assert_eq!(learned.unwrap(), 4);
    assert_eq!(index.damaged, None);
    assert_eq!(verify::all(&mut index, false).unwrap().len(), 2);
    drop(index);
    let threads = Threads { writers: 1, readers: 1, open: 1 };
    let store = Store::start(world.root(), world.ports.clone(), small(), threads).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let hits = runtime.block_on(async {
        let account = store.account(ACCOUNT);
        let keys: Arc<[TextKey]> = Arc::from([TextKey::Body("ZEBRA".into())]);
        let (mut hits, mut next) = (Vec::new(), Some(1));
        while let Some(from) = next {
            let batch = account.search(id, UidSet::all(), from, Arc::clone(&keys)).await.unwrap();
            hits.extend(batch.hits.iter().map(|(uid, _)| *uid));
            next = batch.next;
        }
        hits
    });
    assert_eq!(hits, [2, 3, 5, 6]);
    let alarms = world.alarms.lock().unwrap().clone();
    assert_eq!(alarms.len(), 2, "{alarms:?}");
    store.stop();
}
