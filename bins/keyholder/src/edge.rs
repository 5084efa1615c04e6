//! One thread for each edge: what is signed for one client never waits for another client.
//!
//! A signing slot carries one request at a time, so the requests waiting on an edge are as many as
//! its slots; calls wait for a place among as few. A flood on one edge fills that edge's thread.

use crate::{
    key::{KeyError, PrivateKey},
    rate::{Marks, Meter, Verdict},
    slot,
};
use config::limits::Keys;
use daemon::{Count, Figures, Workers};
use ipc::Role;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use types::Clock;

/// Signing slots of one edge: eight, and as many again while the client restarts.
const MAX_SLOTS: usize = 16;
/// DKIM signatures of one edge that wait.
const MAX_WAITING: usize = 8;
/// How often the counts of an edge are logged, if they changed.
const REPORT: Duration = Duration::from_secs(60 * 60);

/// TLS keys that an edge may sign with, by id.
pub(crate) type KeyTable = BTreeMap<u64, Arc<PrivateKey>>;

/// Why nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EdgeError {
    #[error("above the rate of this edge")]
    OverRate,
    #[error("the thread of this edge cannot be started or has ended")]
    NoThread,
    #[error("more signing slots than a client needs")]
    TooManySlots,
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What was done for an edge since the start.
#[derive(Debug, Default)]
pub(crate) struct EdgeCounts {
    pub(crate) tls: AtomicU64,
    pub(crate) tls_refused: AtomicU64,
    pub(crate) dkim: AtomicU64,
    pub(crate) dkim_refused: AtomicU64,
    pub(crate) pepper: AtomicU64,
    pub(crate) pepper_refused: AtomicU64,
    pub(crate) admin: AtomicU64,
    pub(crate) admin_refused: AtomicU64,
}

impl EdgeCounts {
    /// All, with their names.
    pub(crate) fn rows(&self) -> [(&'static str, u64); 8] {
        [
            ("tls", &self.tls),
            ("tls refused", &self.tls_refused),
            ("dkim", &self.dkim),
            ("dkim refused", &self.dkim_refused),
            ("pepper", &self.pepper),
            ("pepper refused", &self.pepper_refused),
            ("admin", &self.admin),
            ("admin refused", &self.admin_refused),
        ]
        .map(|(what, count)| (what, count.load(Ordering::Relaxed)))
    }
}

/// A use of keyholder that is no signature, and is over before another one is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Something sealed, opened or authenticated with the pepper.
    Pepper,
    /// An order about keys.
    Admin,
}

/// All edges. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edges {
    inner: Rc<Inner>,
}

struct Inner {
    limits: Keys,
    clock: Arc<dyn Clock>,
    figures: Figures,
    workers: Workers,
    running: RefCell<BTreeMap<Role, Running>>,
}

#[derive(Clone)]
struct Running {
    work: mpsc::Sender<Work>,
    keys: Arc<RwLock<Arc<KeyTable>>>,
    waiting: Arc<Semaphore>,
    counts: Arc<EdgeCounts>,
    pepper: Rc<RefCell<Meter>>,
    admin: Rc<RefCell<Meter>>,
}

enum Work {
    Slot(OwnedFd),
    Dkim {
        key: Arc<PrivateKey>,
        block: Vec<u8>,
        answer: oneshot::Sender<Result<Vec<u8>, EdgeError>>,
    },
}

impl Edges {
    pub(crate) fn new(
        limits: Keys,
        clock: Arc<dyn Clock>,
        figures: Figures,
        workers: Workers,
    ) -> Self {
        let running = RefCell::default();
        Self { inner: Rc::new(Inner { limits, clock, figures, workers, running }) }
    }

    /// Edges that have a thread.
    pub(crate) fn roles(&self) -> Vec<Role> {
        self.inner.running.borrow().keys().copied().collect()
    }

    /// From now on the edge signs with these. Connections that were begun with a key that is no
    /// longer there fail and are tried again with a new certificate.
    pub(crate) fn replace_keys(&self, role: Role, keys: KeyTable) {
        if let Some(running) = self.inner.running.borrow().get(&role) {
            *running.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        }
    }

    /// Serves a signing slot until the client closes it.
    pub(crate) fn serve_slot(
        &self,
        role: Role,
        slot: OwnedFd,
        keys: KeyTable,
    ) -> Result<(), EdgeError> {
        let running = self.running(role)?;
        self.replace_keys(role, keys);
        running.work.try_send(Work::Slot(slot)).map_err(|_| EdgeError::TooManySlots)
    }

    /// Signs a DKIM block that was checked.
    pub(crate) async fn sign_dkim(
        &self,
        role: Role,
        key: Arc<PrivateKey>,
        block: Vec<u8>,
    ) -> Result<Vec<u8>, EdgeError> {
        let running = self.running(role)?;
        let place = running.waiting.acquire().await.map_err(|_| EdgeError::NoThread)?;
        let (answer, answered) = oneshot::channel();
        let work = Work::Dkim { key, block, answer };
        running.work.send(work).await.map_err(|_| EdgeError::NoThread)?;
        let signed = answered.await.map_err(|_| EdgeError::NoThread)?;
        drop(place);
        signed
    }

    /// Counts a DKIM request that was refused before it reached the edge's thread.
    pub(crate) fn count_refused(&self, role: Role) {
        count_refused(self.inner.figures, role);
        if let Ok(running) = self.running(role) {
            running.counts.dkim_refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a use that is no signature, unless the edge asks for too many.
    pub(crate) fn may_use(&self, role: Role, what: Use) -> Result<(), EdgeError> {
        let running = self.running(role)?;
        let Inner { clock, figures, .. } = &*self.inner;
        let EdgeCounts { pepper, pepper_refused, admin, admin_refused, .. } = &*running.counts;
        let (meter, kind, figure, used, refused) = match what {
            Use::Pepper => (&running.pepper, "pepper", Count::PepperUses, pepper, pepper_refused),
            Use::Admin => (&running.admin, "admin", Count::KeyOrders, admin, admin_refused),
        };
        if !may(role, meter, kind, clock.monotonic(), *figures) {
            refused.fetch_add(1, Ordering::Relaxed);
            return Err(EdgeError::OverRate);
        }
        used.fetch_add(1, Ordering::Relaxed);
        figures.count(figure);
        Ok(())
    }

    /// What was done for each edge.
    pub(crate) fn counts(&self) -> Vec<(Role, Arc<EdgeCounts>)> {
        let running = self.inner.running.borrow();
        running.iter().map(|(role, running)| (*role, Arc::clone(&running.counts))).collect()
    }

    fn running(&self, role: Role) -> Result<Running, EdgeError> {
        if let Some(running) = self.inner.running.borrow().get(&role) {
            return Ok(running.clone());
        }
        let (work, to_do) = mpsc::channel(MAX_SLOTS);
        let keys: Arc<RwLock<Arc<KeyTable>>> = Arc::default();
        let Inner { limits, clock, figures, .. } = &*self.inner;
        let tls = Marks { alarm: limits.tls_alarm, refuse: limits.tls_refuse };
        let dkim = Marks { alarm: limits.dkim_alarm, refuse: limits.dkim_refuse };
        let meter = |alarm, refuse| {
            let meter = Meter::new(Marks { alarm, refuse }, clock.monotonic());
            Rc::new(RefCell::new(meter))
        };
        let pepper = meter(limits.pepper_alarm, limits.pepper_refuse);
        let admin = meter(limits.admin_alarm, limits.admin_refuse);
        let shared = Arc::clone(&keys);
        let counts: Arc<EdgeCounts> = Arc::default();
        let counted = Arc::clone(&counts);
        let (clock, figures) = (Arc::clone(clock), *figures);
        let edge = move || {
            let now = clock.monotonic();
            Rc::new(EdgeThread {
                role,
                keys: shared,
                counts: counted,
                tls: RefCell::new(Meter::new(tls, now)),
                dkim: RefCell::new(Meter::new(dkim, now)),
                clock,
                figures,
            })
        };
        match self.inner.workers {
            Workers::Threads => {
                let thread = std::thread::Builder::new().name(format!("sign {role}"));
                let started = thread.spawn(move || {
                    if let Err(error) = edge().run(to_do) {
                        tracing::error!(%role, %error, "the thread of an edge has ended");
                    }
                });
                started.map_err(|_| EdgeError::NoThread)?;
            }
            Workers::InPlace => {
                tokio::task::spawn_local(edge().work(to_do));
            }
        }
        let waiting = Arc::new(Semaphore::new(MAX_WAITING));
        let running = Running { work, keys, waiting, counts, pepper, admin };
        self.inner.running.borrow_mut().insert(role, running.clone());
        Ok(running)
    }
}

/// What lives on the thread of an edge.
pub(crate) struct EdgeThread {
    role: Role,
    keys: Arc<RwLock<Arc<KeyTable>>>,
    tls: RefCell<Meter>,
    dkim: RefCell<Meter>,
    counts: Arc<EdgeCounts>,
    clock: Arc<dyn Clock>,
    figures: Figures,
}

impl EdgeThread {
    fn run(self: Rc<Self>, to_do: mpsc::Receiver<Work>) -> io::Result<()> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, self.work(to_do));
        Ok(())
    }

    async fn work(self: Rc<Self>, mut to_do: mpsc::Receiver<Work>) {
        let slots = Arc::new(Semaphore::new(MAX_SLOTS));
        let mut every = tokio::time::interval(REPORT);
        let mut reported = EdgeCounts::default().rows();
        loop {
            tokio::select! {
                biased;
                work = to_do.recv() => match work {
                    Some(Work::Slot(slot)) => self.start_slot(slot, &slots),
                    Some(Work::Dkim { key, block, answer }) => {
                        // A caller that is gone needs no answer.
                        let _ = answer.send(self.sign_dkim(&key, &block));
                    }
                    None => return,
                },
                _ = every.tick() => reported = self.report(reported),
            }
        }
    }

    fn start_slot(self: &Rc<Self>, slot: OwnedFd, slots: &Arc<Semaphore>) {
        let Ok(place) = Arc::clone(slots).try_acquire_owned() else {
            tracing::warn!(edge = %self.role, "more signing slots than a client needs");
            return;
        };
        let edge = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let _place = place;
            if let Err(error) = slot::serve(slot, &edge).await {
                tracing::debug!(edge = %edge.role, %error, "a signing slot ended");
            }
        });
    }

    fn sign_dkim(&self, key: &PrivateKey, block: &[u8]) -> Result<Vec<u8>, EdgeError> {
        if !self.may(&self.dkim, "DKIM") {
            self.counts.dkim_refused.fetch_add(1, Ordering::Relaxed);
            return Err(EdgeError::OverRate);
        }
        let signature = key.sign_dkim(block)?;
        self.figures.count(Count::DkimSignatures);
        count_made(self.figures, self.role);
        self.counts.dkim.fetch_add(1, Ordering::Relaxed);
        Ok(signature)
    }

    /// The key of this id, if this edge may sign with it.
    pub(crate) fn tls_key(&self, id: u64) -> Option<Arc<PrivateKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Whether a TLS signature is within the rate.
    pub(crate) fn may_sign_tls(&self) -> bool {
        let may = self.may(&self.tls, "TLS");
        if !may {
            self.counts.tls_refused.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    pub(crate) fn count_tls(&self) {
        self.figures.count(Count::Signatures);
        count_made(self.figures, self.role);
        self.counts.tls.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, why: &str) {
        count_refused(self.figures, self.role);
        self.counts.tls_refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(edge = %self.role, why, "refused to sign");
    }

    fn may(&self, meter: &RefCell<Meter>, kind: &str) -> bool {
        may(self.role, meter, kind, self.clock.monotonic(), self.figures)
    }

    /// Logs what was done for the edge.
    fn report(&self, last: [(&'static str, u64); 8]) -> [(&'static str, u64); 8] {
        let now = self.counts.rows();
        if now != last {
            let used = now.iter().filter(|(_, count)| *count > 0);
            let counts: Vec<String> = used.map(|(what, count)| format!("{what} {count}")).collect();
            let counts = counts.join(", ");
            tracing::info!(edge = %self.role, counts, "uses since the start");
        }
        now
    }
}

/// Whether a request is within the rate of its edge. Above a mark, an alarm is logged.
fn may(role: Role, meter: &RefCell<Meter>, kind: &str, now: Instant, figures: Figures) -> bool {
    let verdict = meter.borrow_mut().ask(now);
    if matches!(verdict, Verdict::Alarm | Verdict::RefuseAndAlarm) {
        tracing::error!(
            edge = %role, kind, refused = verdict == Verdict::RefuseAndAlarm,
            "ALARM: more asked for than this process should need"
        );
    }
    let served = matches!(verdict, Verdict::Serve | Verdict::Alarm);
    if !served {
        count_refused(figures, role);
    }
    served
}

/// The figures of an edge: signatures made, and refused.
fn counts_of(role: Role) -> Option<(Count, Count)> {
    Some(match role {
        Role::SmtpdMx => (Count::SignedForMx, Count::RefusedToMx),
        Role::SmtpdSubmission => (Count::SignedForSubmission, Count::RefusedToSubmission),
        Role::ImapdFront => (Count::SignedForFront, Count::RefusedToFront),
        Role::HttpdWeb => (Count::SignedForWeb, Count::RefusedToWeb),
        Role::HttpdAdmin => (Count::SignedForAdmin, Count::RefusedToAdmin),
        Role::Accountd => (Count::SignedForAccountd, Count::RefusedToAccountd),
        Role::QueueRunner => (Count::SignedForQueue, Count::RefusedToQueue),
        Role::Resolver | Role::Keyholder | Role::Parser | Role::Outbound | Role::ImapdSession => {
            return None;
        }
    })
}

fn count_made(figures: Figures, role: Role) {
    if let Some((made, _)) = counts_of(role) {
        figures.count(made);
    }
}

fn count_refused(figures: Figures, role: Role) {
    figures.count(Count::SignaturesRefused);
    if let Some((_, refused)) = counts_of(role) {
        figures.count(refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_edge_of_the_wiring_has_figures_of_its_own() {
        let mut seen = Vec::new();
        for edge in Role::Keyholder.serves() {
            let (made, refused) = counts_of(edge.client).unwrap();
            for count in [made, refused] {
                let (_, _, labels, ..) = Count::ALL[count as usize];
                assert_eq!(labels, format!("edge=\"{}\"", edge.client));
                assert!(!seen.contains(&(count as usize)));
                seen.push(count as usize);
            }
        }
        assert_eq!(seen.len(), 14);
    }
}
