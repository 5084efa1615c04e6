//! What pages of many rows cost: none passes over what the pages before it told.

use super::world::{World, inbox, mailbox, message, now, reading, small};
use crate::store::{
    ChangesFrom, FlagChange, Flags, MailboxId, StoreError, UidSet,
    index::Index,
    read::{self, CHANGES, FEW_ROWS},
    worker::View,
};
use storage::rusqlite::{StatementStatus, params};

/// Rows that one commit changes.
const MANY: usize = 32_768;

/// Reads as on a machine so busy that the time is always over at once.
fn late<T>(
    index: &mut Index,
    work: impl FnOnce(&View<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let (files, clock) = (&index.files, index.ports.clock.as_ref());
    let deadline = clock.monotonic();
    index.database.read(|connection| work(&View { connection, files, clock, deadline }))
}

/// A mailbox whose messages one commit changed, and the modseq before it.
fn filled(index: &mut Index, world: &World) -> (MailboxId, u64) {
    let id = mailbox(index, "Inbox");
    index.deliver(&[message(inbox(), b"a: b\r\n\r\n".to_vec(), now(world))]);
    let mut count = 1;
    while count < MANY {
        let copied = index.copy(id, &UidSet::all(), id, None).unwrap();
        assert_eq!(copied.uids.len(), count, "a copy into the same mailbox ends");
        count *= 2;
    }
    let before = reading(index, |v| read::mailbox(v.connection, id)).unwrap().modseq;
    index.store_flags(id, &UidSet::all(), FlagChange::Add, Flags::SEEN, &[], None).unwrap();
    (id, before)
}

#[test]
fn pages_of_one_commit_cost_what_they_tell() {
    let world = World::new(91);
    let mut index = world.create(small());
    let (id, before) = filled(&mut index, &world);
    let mut from = ChangesFrom::after(before);
    let (mut pages, mut told) = (0, Vec::new());
    loop {
        let page = late(&mut index, |v| read::changes(v, id, from)).unwrap();
        pages += 1;
        told.extend(page.changed.iter().map(|row| row.uid));
        let Some(more) = page.more else { break };
        from = more;
    }
    assert!(told.iter().copied().eq(1..=u32::try_from(MANY).unwrap()), "each one once, in order");
    assert_eq!(pages, MANY.div_ceil(FEW_ROWS));
    let (mut from, mut pages) = (1, 0);
    while let Some(next) =
        late(&mut index, |v| read::rows(v, id, &UidSet::all(), from)).unwrap().next
    {
        (from, pages) = (next, pages + 1);
    }
    assert_eq!(pages + 1, MANY.div_ceil(FEW_ROWS));
}

#[test]
fn a_page_begins_inside_a_commit_by_the_index() {
    let world = World::new(92);
    let mut index = world.create(small());
    let (id, before) = filled(&mut index, &world);
    let last_half = u32::try_from(MANY / 2).unwrap();
    let steps = reading(&mut index, |v| {
        let mut query = v.connection.prepare(CHANGES)?;
        let mut rows = query.query(params![id.0, before + 1, last_half])?;
        assert_eq!(rows.next()?.unwrap().get::<_, u32>(1)?, last_half + 1);
        drop(rows);
        assert_eq!(query.get_status(StatementStatus::Sort), 0);
        Ok(query.get_status(StatementStatus::VmStep))
    })
    .unwrap();
    assert!(steps < 100, "{steps} steps to the first row behind {last_half} others");
    let plan: Vec<String> = reading(&mut index, |v| {
        let mut query = v.connection.prepare(&format!("EXPLAIN QUERY PLAN {CHANGES}"))?;
        let rows = query.query_map(params![id.0, 1, 1], |r| r.get(3))?;
        Ok(rows.collect::<Result<_, _>>()?)
    })
    .unwrap();
    let seek = "SEARCH msg USING INDEX msg_modseq (mailbox_id=? AND (modseq,uid)>(?,?))";
    assert_eq!(plan, [seek], "and nothing is sorted");
}
