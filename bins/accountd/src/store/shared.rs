//! The little of an account that stays in memory while nobody reads or writes it: its modseq, who
//! watches it, who holds a lease, and the gate of its checkpoints. Under 2 KB, so that ten thousand
//! idle sessions hold no database open.

use super::{
    Limits,
    types::{FIRST_MODSEQ, ModSeq},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use storage::Gate;
use tokio::sync::watch;
use types::{AccountId, SubmissionId};

/// A segment that could not be compacted for a content that cannot be read is tried again after
/// this: its message may have been removed.
pub(crate) const SPOILED_FOR: Duration = Duration::from_secs(6 * 3600);
/// Such segments remembered of one account: more than a disk that is worth keeping has. Beyond, the
/// oldest is forgotten and tried again before the others have their turn.
const MAX_SPOILED: usize = 4096;
/// No limit, in the atomic that holds one.
const NO_QUOTA: u64 = u64::MAX;

/// Submissions of an account that are known to have been heard; the oldest are forgotten first.
const MAX_HEARD: usize = 1024;

/// One account's part in memory.
pub(crate) struct Shared {
    pub(crate) id: AccountId,
    pub(crate) gate: Gate,
    /// Opened by its writer in this life of the process: migrated and recovered.
    pub(crate) ready: AtomicBool,
    /// A checkpoint of it is on its way.
    pub(crate) checkpointing: AtomicBool,
    /// When this life of the process first heard of the account.
    pub(crate) born: Instant,
    modseq: watch::Sender<ModSeq>,
    quota: AtomicU64,
    leases: Mutex<Leases>,
    coming: AtomicUsize,
    heard: Mutex<VecDeque<SubmissionId>>,
    /// Segments with a content that cannot be read, and when that was last seen.
    spoiled: Mutex<BTreeMap<i64, Instant>>,
}

#[derive(Default)]
struct Leases {
    next: u64,
    seen: BTreeMap<u64, ModSeq>,
}

impl Shared {
    pub(crate) fn new(id: AccountId, born: Instant) -> Self {
        Self {
            id,
            gate: Gate::default(),
            ready: AtomicBool::new(false),
            checkpointing: AtomicBool::new(false),
            born,
            modseq: watch::Sender::new(FIRST_MODSEQ),
            quota: AtomicU64::new(NO_QUOTA),
            leases: Mutex::default(),
            coming: AtomicUsize::new(0),
            heard: Mutex::default(),
            spoiled: Mutex::default(),
        }
    }

    /// The client knows that this one was taken: the same again is another one. Kept in memory
    /// alone, as it is worth no sync: what is forgotten is a repeat for the rest of its time.
    pub(crate) fn hear(&self, id: SubmissionId) {
        let mut heard = self.heard();
        if heard.len() >= MAX_HEARD {
            heard.pop_front();
        }
        heard.push_back(id);
    }

    pub(crate) fn was_heard(&self, id: SubmissionId) -> bool {
        self.heard().contains(&id)
    }

    fn heard(&self) -> MutexGuard<'_, VecDeque<SubmissionId>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deliveries that were announced and are not done.
    pub(crate) fn coming(&self) -> usize {
        self.coming.load(Ordering::Relaxed)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(crate) fn modseq(&self) -> ModSeq {
        *self.modseq.borrow()
    }

    /// Tells the watchers; after the COMMIT, never before.
    pub(crate) fn publish(&self, modseq: ModSeq) {
        self.modseq.send_if_modified(|now| {
            let is_newer = modseq > *now;
            *now = modseq.max(*now);
            is_newer
        });
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch(self.modseq.subscribe())
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        self.quota.store(limits.quota.unwrap_or(NO_QUOTA), Ordering::Relaxed);
    }

    pub(crate) fn quota(&self) -> Option<u64> {
        Some(self.quota.load(Ordering::Relaxed)).filter(|q| *q != NO_QUOTA)
    }

    /// All leases have told their clients of what happened up to here.
    pub(crate) fn seen_by_all(&self) -> ModSeq {
        self.leases().seen.values().copied().min().unwrap_or(ModSeq::MAX)
    }

    /// Whether a segment is to be left alone by compaction.
    pub(crate) fn is_spoiled(&self, seg: i64, now: Instant) -> bool {
        let since = self.spoiled().get(&seg).copied();
        since.is_some_and(|since| now.saturating_duration_since(since) < SPOILED_FOR)
    }

    /// Remembers that a content in it cannot be read; says whether that is news.
    pub(crate) fn spoil(&self, seg: i64, now: Instant) -> bool {
        let mut spoiled = self.spoiled();
        if !spoiled.contains_key(&seg) && spoiled.len() >= MAX_SPOILED {
            let oldest = spoiled.iter().min_by_key(|(_, since)| **since).map(|(seg, _)| *seg);
            oldest.and_then(|seg| spoiled.remove(&seg));
        }
        spoiled.insert(seg, now).is_none()
    }

    fn spoiled(&self) -> MutexGuard<'_, BTreeMap<i64, Instant>> {
        self.spoiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for changes of an account. Only the newest modseq is kept: a slow reader costs nothing.
#[derive(Debug, Clone)]
pub struct Watch(watch::Receiver<ModSeq>);

impl Watch {
    /// Waits until the account is newer than at the last call (or than when this was made).
    pub async fn changed(&mut self) -> ModSeq {
        // The sender lives as long as the account's shared part; a store that has stopped never
        // changes again, which is what waiting for ever says.
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.0.borrow_and_update()
    }

    /// Where the account stands.
    #[must_use]
    pub fn now(&self) -> ModSeq {
        *self.0.borrow()
    }
}

/// Announces a delivery while its message is read, and until it is done: those that come at once
/// share a commit.
pub struct Coming(Arc<Shared>);

impl Coming {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.coming.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.coming.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Holds back the erasing of what was expunged later than it has seen. Dropping it lets go.
pub struct Lease {
    shared: Arc<Shared>,
    number: u64,
}

impl Lease {
    pub(crate) fn new(shared: &Arc<Shared>, seen: ModSeq) -> Self {
        let mut leases = shared.leases();
        leases.next += 1;
        let number = leases.next;
        leases.seen.insert(number, seen);
        drop(leases);
        Self { shared: Arc::clone(shared), number }
    }

    /// The client was told of all up to `seen`.
    pub fn seen(&self, seen: ModSeq) {
        self.shared.leases().seen.insert(self.number, seen);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.leases().seen.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_lease_counts() {
        let shared = Arc::new(Shared::new(AccountId::from_bytes([1; 10]), Instant::now()));
        assert_eq!(shared.seen_by_all(), ModSeq::MAX);
        let (a, b) = (Lease::new(&shared, 5), Lease::new(&shared, 9));
        assert_eq!(shared.seen_by_all(), 5);
        a.seen(12);
        assert_eq!(shared.seen_by_all(), 9);
        drop(b);
        assert_eq!(shared.seen_by_all(), 12);
    }

    #[test]
    fn the_oldest_that_was_heard_is_forgotten() {
        let shared = Shared::new(AccountId::from_bytes([1; 10]), Instant::now());
        let id = |n: usize| {
            let mut octets = [0; SubmissionId::OCTETS];
            octets[..8].copy_from_slice(&n.to_be_bytes());
            SubmissionId::from_bytes(octets)
        };
        (0..=MAX_HEARD).for_each(|n| shared.hear(id(n)));
        assert!(!shared.was_heard(id(0)));
        assert!(shared.was_heard(id(1)) && shared.was_heard(id(MAX_HEARD)));
    }

    #[test]
    fn spoiled_segments_are_bounded_and_tried_again() {
        let now = Instant::now();
        let shared = Shared::new(AccountId::from_bytes([1; 10]), now);
        let ids = 0..i64::try_from(MAX_SPOILED).unwrap();
        for (seg, at) in ids.zip(1u64..) {
            assert!(shared.spoil(seg, now + Duration::from_secs(at)));
        }
        let late = now + SPOILED_FOR;
        assert!(shared.is_spoiled(0, late));
        assert!(!shared.is_spoiled(0, late + Duration::from_secs(1)));
        assert!(!shared.spoil(0, late), "known");
        assert!(shared.is_spoiled(0, late + Duration::from_secs(1)));
        assert!(shared.spoil(i64::MAX, late));
        assert!(shared.spoil(1, late), "the oldest was forgotten");
        assert_eq!(shared.spoiled().len(), MAX_SPOILED);
    }

    #[test]
    fn modseq_never_goes_back() {
        let shared = Shared::new(AccountId::from_bytes([1; 10]), Instant::now());
        shared.publish(7);
        shared.publish(6);
        assert_eq!(shared.modseq(), 7);
    }
}
