//! The store with its threads, as the rest of accountd uses it.

use super::world::{
    ACCOUNT, World, bytes_of, inbox, mailbox, message, now, open_image, parsed, small,
};
use crate::store::{
    Account, ChangesFrom, Delivered, FlagChange, Flags, MailboxId, Store, StoreError, Target,
    Threads, Tuning, UidSet,
};
use std::sync::{Arc, Mutex, mpsc};
use storage::Fault;
use types::AccountId;

fn start(world: &World) -> Store {
    start_with(world, small())
}

fn start_with(world: &World, tuning: Tuning) -> Store {
    let threads = Threads { writers: 2, readers: 2, open: 4 };
    Store::start(world.root(), world.ports.clone(), tuning, threads).unwrap()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

async fn deliver_one(account: &Account, world: &World, text: &str) -> Delivered {
    account.deliver(message(inbox(), text.into(), now(world))).await.unwrap()
}

#[test]
fn deliveries_that_wait_share_a_commit() {
    let world = World::new(30);
    let store = start(&world);
    run(async {
        let account = store.create_account(ACCOUNT).await.unwrap();
        assert!(matches!(
            store.create_account(ACCOUNT).await.err(),
            Some(StoreError::AccountExists)
        ));
        let mut watch = account.watch().await.unwrap();
        let before: u64 = world.disk.syncs().values().sum();
        let all = (0..200).map(|n| {
            let new = parsed(&format!("{n}@x"), "s", &[], now(&world));
            let account = account.clone();
            async move { account.deliver(new).await.unwrap() }
        });
        let outcomes = futures::future::join_all(all).await;
        let syncs: u64 = world.disk.syncs().values().sum::<u64>() - before;
        assert!(syncs < 100, "{syncs} syncs");
        assert!(outcomes.iter().all(|o| matches!(o, Delivered::Stored(_))));
        assert_eq!(watch.changed().await, account.modseq().await.unwrap());
        let inbox = account.mailbox_by_name("inbox".into()).await.unwrap();
        assert_eq!(inbox.messages, 200);
        let rows = account.rows(inbox.id, UidSet::all(), 1).await.unwrap();
        assert_eq!(rows.rows.len(), 200);
        let changes = account.changes(inbox.id, ChangesFrom::after(0)).await.unwrap();
        assert_eq!(changes.changed.len(), 200);
        let content = account.content(inbox.id, 5).await.unwrap();
        assert!(!account.read_content(content, 0, 4096).await.unwrap().is_empty());
    });
    store.stop();
    run(async {
        assert!(matches!(store.account(ACCOUNT).modseq().await, Err(StoreError::Stopped)));
    });
}

#[test]
fn more_accounts_than_may_be_open() {
    let world = World::new(31);
    let store = start(&world);
    run(async {
        let ids: Vec<AccountId> = (1..=20).map(|n| AccountId::from_bytes([n; 10])).collect();
        for id in &ids {
            let account = store.create_account(*id).await.unwrap();
            deliver_one(&account, &world, "one").await;
        }
        for id in ids.iter().rev() {
            let account = store.account(*id);
            deliver_one(&account, &world, "two").await;
            let info = account.mailbox_by_name("Inbox".into()).await.unwrap();
            assert_eq!(info.messages, 2);
        }
        assert_eq!(store.accounts().unwrap(), ids);
        store.remove_account(ids[3]).await.unwrap();
        assert!(matches!(store.account(ids[3]).mailboxes().await, Err(StoreError::NoSuchAccount)));
        assert_eq!(store.accounts().unwrap().len(), 19);
        let again = store.create_account(ids[3]).await.unwrap();
        assert_eq!(again.usage().await.unwrap().messages, 0);
    });
    store.stop();
}

#[test]
fn a_panic_in_a_job_ends_that_job_alone() {
    let world = World::new(32);
    let store = start(&world);
    run(async {
        let account = store.create_account(ACCOUNT).await.unwrap();
        let id = account.mailbox_by_name("Inbox".into()).await.unwrap().id;
        deliver_one(&account, &world, "one").await;
        let lost = account
            .pool
            .write(&account.shared, move |index| {
                index.transact(|tx| {
                    tx.expunge(id, &UidSet::all(), false)?;
                    if tx.is_bumped() {
                        panic!("on purpose");
                    }
                    Ok(())
                })
            })
            .await;
        assert!(matches!(lost, Err(StoreError::Failed(_))));
        assert_eq!(account.mailbox(id).await.unwrap().messages, 1, "rolled back");
        account
            .store_flags(id, UidSet::all(), FlagChange::Add, Flags::SEEN, vec![], None)
            .await
            .unwrap();
        assert_eq!(account.mailbox(id).await.unwrap().unseen, 0);
    });
    store.stop();
}

#[test]
fn a_failed_sync_ends_everything() {
    let mut world = World::new(33);
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&said);
    world.ports.fatal = Arc::new(move |why| told.lock().unwrap().push(why.to_owned()));
    // Without checkpoints: one on its own thread could make the sync that fails, in the place of
    // the delivery's.
    let store = start_with(&world, Tuning { checkpoint_frames: u32::MAX, ..small() });
    run(async {
        let account = store.create_account(ACCOUNT).await.unwrap();
        deliver_one(&account, &world, "one").await;
        world.disk.inject(Fault::SyncFails(0));
        let lost = account.deliver(message(inbox(), b"two".to_vec(), now(&world))).await;
        assert!(matches!(lost, Err(StoreError::Stopped)), "{lost:?}");
        assert_eq!(said.lock().unwrap().len(), 1);
        let after = account.deliver(message(inbox(), b"three".to_vec(), now(&world))).await;
        assert!(matches!(after, Err(StoreError::Stopped)));
    });
    store.stop();
}

#[test]
fn a_failed_sync_of_a_checkpoint_ends_everything_too() {
    let mut world = World::new(36);
    let (say, said) = mpsc::channel();
    world.ports.fatal = Arc::new(move |why: &str| say.send(why.to_owned()).unwrap());
    let store = start_with(&world, Tuning { checkpoint_frames: 0, ..small() });
    run(async {
        let account = store.create_account(ACCOUNT).await.unwrap();
        // Two syncs are the first commit's, of the log and of its folder; the third is that of the
        // checkpoint it asks for.
        world.disk.inject(Fault::SyncFails(2));
        deliver_one(&account, &world, "one").await;
        assert!(said.recv().unwrap().contains("a sync failed"));
        let after = account.deliver(message(inbox(), b"two".to_vec(), now(&world))).await;
        assert!(matches!(after, Err(StoreError::Stopped)), "{after:?}");
    });
    store.stop();
    // What was answered was synced before.
    let mut replay = world.disk.replay();
    replay.advance_to(usize::MAX);
    let folder = tempfile::tempdir().unwrap();
    replay.image(36).write_to(folder.path()).unwrap();
    let mut index = open_image(folder.path(), now(&world)).unwrap();
    let id = mailbox(&mut index, "Inbox");
    assert_eq!(bytes_of(&mut index, id, 1).unwrap(), b"one");
}

#[test]
fn a_full_disk_is_a_temporary_error_and_heals() {
    let world = World::new(34);
    let store = start(&world);
    run(async {
        let account = store.create_account(ACCOUNT).await.unwrap();
        deliver_one(&account, &world, "one").await;
        world.disk.inject(Fault::Full(0));
        let full = account.deliver(message(inbox(), b"two".to_vec(), now(&world))).await;
        assert!(full.is_err_and(|e| e.is_temporary()));
        world.disk.heal();
        world.disk.inject(Fault::ReadOnly);
        let frozen = account.deliver(message(inbox(), vec![1; 300_000], now(&world))).await;
        assert!(frozen.is_err_and(|e| e.is_temporary()));
        world.disk.heal();
        deliver_one(&account, &world, "three").await;
        let missing = message(Target::Mailbox(MailboxId(99)), b"4".to_vec(), now(&world));
        let refused = account.deliver(missing).await;
        assert!(matches!(refused, Err(StoreError::NoSuchMailbox)));
        let info = account.mailbox_by_name("Inbox".into()).await.unwrap();
        assert_eq!(info.messages, 2);
    });
    store.stop();
}

#[test]
fn a_nearly_full_disk_takes_no_new_mail() {
    let world = World::new(35);
    let tuning = Tuning { keep_free: u64::MAX, ..small() };
    let mut index = world.create(tuning);
    let space = storage::Disk::space(&world.disk, world.root()).unwrap();
    let has_room = space.free >= space.total / 20;
    let outcome = index.deliver(&[message(inbox(), b"x".to_vec(), now(&world))]).pop().unwrap();
    assert_eq!(outcome.is_ok(), has_room);
    // A disk without any room, whatever this machine has.
    world.disk.inject(Fault::Full(0));
    let full = index.deliver(&[message(inbox(), b"x".to_vec(), now(&world))]).pop().unwrap();
    assert!(matches!(full, Err(StoreError::DiskFull)));
}
