//! What the tests share: an account on a forgetful disk, and messages for it.

use crate::store::{
    Content, Facts, Flags, MailboxId, NewMessage, Ports, Random, StoreError, Target, Tuning,
    index::Index, read, shared::Shared, worker::View,
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use storage::{Disk, Forgetful, RealDisk};
use types::{AccountId, Clock as _, ManualClock, UnixNanos};

pub(super) const ACCOUNT: AccountId = AccountId::from_bytes([7; 10]);

/// `SplitMix64`.
pub(super) struct Seeded(AtomicU64);

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(super) fn next(&self) -> u64 {
        let z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Bounds so small that a short test meets all of them.
pub(super) fn small() -> Tuning {
    Tuning {
        drain_bytes: 16 * 1024,
        segment_len: 64 * 1024,
        checkpoint_frames: 60,
        lease_cap: Duration::from_secs(24 * 3600),
        erase_hold: Duration::ZERO,
        erase_hold_at_start: Duration::ZERO,
        keep_expunged: 30,
        keep_expunged_for: Duration::from_secs(365 * 24 * 3600),
        keep_free: 0,
    }
}

pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) disk: Forgetful,
    pub(super) clock: ManualClock,
    pub(super) shared: Arc<Shared>,
    pub(super) ports: Ports,
    pub(super) alarms: Arc<Mutex<Vec<String>>>,
}

pub(super) fn ports(
    disk: Arc<dyn Disk>,
    clock: &ManualClock,
    seed: u64,
    alarms: &Arc<Mutex<Vec<String>>>,
) -> Ports {
    let alarms = Arc::clone(alarms);
    Ports {
        disk,
        clock: Arc::new(clock.clone()),
        random: Arc::new(Seeded::new(seed)),
        fatal: Arc::new(|_| {}),
        alarm: Arc::new(move |_, why| alarms.lock().unwrap().push(why.to_owned())),
        workers: daemon::Workers::Threads,
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = Forgetful::over(folder.path()).unwrap();
        let clock = ManualClock::at(UnixNanos::from_seconds(1_790_000_000));
        let alarms = Arc::default();
        let ports = ports(Arc::new(disk.clone()), &clock, seed, &alarms);
        let shared = Arc::new(Shared::new(ACCOUNT, clock.monotonic()));
        Self { folder, disk, clock, shared, ports, alarms }
    }

    pub(super) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn create(&self, tuning: Tuning) -> Index {
        Index::create(self.root(), Arc::clone(&self.shared), &self.ports, tuning).unwrap()
    }

    pub(super) fn open(&self, tuning: Tuning) -> Result<Index, StoreError> {
        Index::open(self.root(), Arc::clone(&self.shared), &self.ports, tuning)
    }
}

/// Opens what a crash left, on the real disk.
pub(super) fn open_image(root: &Path, now: UnixNanos) -> Result<Index, StoreError> {
    let clock = ManualClock::at(now);
    let ports = ports(Arc::new(RealDisk), &clock, 99, &Arc::default());
    Index::open(root, Arc::new(Shared::new(ACCOUNT, clock.monotonic())), &ports, small())
}

/// Reads as a reader thread would.
pub(super) fn reading<T>(
    index: &mut Index,
    work: impl FnOnce(&View<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let (files, clock) = (&index.files, index.ports.clock.as_ref());
    let deadline = clock.monotonic() + Duration::from_secs(1000);
    index.database.read(|connection| work(&View { connection, files, clock, deadline }))
}

pub(super) fn mailbox(index: &mut Index, name: &str) -> MailboxId {
    reading(index, |v| read::mailbox_by_name(v.connection, name)).unwrap().id
}

/// Text that compresses like mail does not: half of it is random.
pub(super) fn body(random: &Seeded, len: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(len + 80);
    while text.len() < len {
        text.extend_from_slice(format!("line {:016x} of a mail\r\n", random.next()).as_bytes());
    }
    text.truncate(len);
    text
}

pub(super) fn message(target: Target, content: Vec<u8>, now: UnixNanos) -> NewMessage {
    NewMessage::new(target, Content::Bytes(content), now)
}

pub(super) fn inbox() -> Target {
    Target::Named("INBOX".into())
}

/// A message that the parser read.
pub(super) fn parsed(id: &str, subject: &str, references: &[&str], now: UnixNanos) -> NewMessage {
    let text = format!("Message-ID: <{id}>\r\nSubject: {subject}\r\n\r\nhello {id}\r\n");
    let base = subject.strip_prefix("re: ").unwrap_or(subject);
    NewMessage {
        facts: Some(Facts {
            sent: Some(now),
            envelope: format!("env {id}").into_bytes(),
            body_structure: b"bs".to_vec(),
            sections: b"sec".to_vec(),
            headers: b"hdr".to_vec(),
            preview: Some(format!("hello {id}")),
            message_id: Some(id.to_owned()),
            references: references.iter().map(|r| (*r).to_owned()).collect(),
            base_subject: base.to_owned(),
            is_response: base.len() != subject.len(),
            header_text: format!("Message-ID: <{id}>\nSubject: {subject}\n"),
            body_text: vec![format!("hello {id}\n")],
            ..Facts::default()
        }),
        flags: Flags::NONE,
        ..message(inbox(), text.into_bytes(), now)
    }
}

/// The bytes of a message, read in pieces.
pub(super) fn bytes_of(
    index: &mut Index,
    mailbox: MailboxId,
    uid: u32,
) -> Result<Vec<u8>, StoreError> {
    let content = reading(index, |v| read::content(v.connection, mailbox, uid))?;
    let mut all = Vec::new();
    while (all.len() as u64) < content.size {
        let at = all.len() as u64;
        let part = reading(index, |v| v.files.read(v.connection, content.id, at, 256 * 1024))?;
        assert!(!part.is_empty());
        all.extend_from_slice(&part);
    }
    Ok(all)
}

pub(super) fn segment_folder(root: &Path) -> PathBuf {
    root.join(ACCOUNT.to_string()).join("seg")
}

pub(super) fn now(world: &World) -> UnixNanos {
    world.clock.now()
}
