//! The threads that own SQLite: writers and readers, each with the accounts whose id hashes to it,
//! and one checkpointer.
//!
//! A writer takes whatever waits for an account when it is free and commits it as one group. It waits
//! a moment for deliveries that are announced, unless another job waits; a lone delivery never waits. Open databases are a bounded LRU, closed after a minute; what is idle is
//! drained, erased and compacted in small steps between jobs.

use super::{
    StoreError,
    deliver::{MAX_GROUP, MAX_GROUP_BYTES},
    index::{Index, Ports, Tuning, how},
    message::NewMessage,
    rows::Delivered,
    segments::SegmentFiles,
    shared::Shared,
};
use daemon::Worker;
use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use storage::{Error, Open, Reader, checkpoint_file, rusqlite::Connection};
use tokio::{
    sync::{
        mpsc::{Receiver, Sender, channel, error::TrySendError},
        oneshot,
    },
    time::{timeout, timeout_at},
};
use types::{AccountId, Clock};

/// Jobs that may wait for one thread; one more is refused with [`StoreError::Busy`].
const MAX_WAITING: usize = 4096;
/// How long a delivery waits for announced ones to the same account, to share their commit: less than
/// a sync takes on most disks.
const GROUP_WAIT: Duration = Duration::from_millis(2);
/// Accounts that may wait for the checkpointer. One that does not fit asks again with its next
/// commit.
const MAX_CHECKPOINTS: usize = 256;
/// How often an idle writer looks after its accounts.
const TICK: Duration = Duration::from_secs(1);
/// An account nobody used for this long is closed.
const IDLE_CLOSE: Duration = Duration::from_secs(60);
/// And what it staged is moved to a segment after this.
const IDLE_DRAIN: Duration = Duration::from_secs(30);
/// Erasing and compacting an open account are looked at this often.
const CARE: Duration = Duration::from_secs(10);
/// So often a busy writer stops to look after its accounts too: else a mailbox under steady load would
/// never be erased or compacted.
const CARE_WHILE_BUSY: Duration = Duration::from_secs(30);
/// Reading inside one transaction.
const READ_TIME: Duration = Duration::from_millis(10);
/// A log of fewer frames is left alone when an account is closed.
const SMALL_LOG: u32 = 100;

/// What a read sees: one state of the database, and the segments.
pub(crate) struct View<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) files: &'a SegmentFiles,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) deadline: Instant,
}

impl View<'_> {
    /// Whether the batch must end; never before it has something.
    pub(crate) fn is_late(&self, rows: usize) -> bool {
        rows > 0 && self.clock.monotonic() >= self.deadline
    }
}

type WriteWork = Box<dyn FnOnce(Result<&mut Index, StoreError>) -> Health + Send>;
type ReadWork = Box<dyn FnOnce(Result<&View<'_>, StoreError>) + Send>;

/// Whether the store may go on after a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// A sync failed.
    Fatal,
}

fn health<T>(outcome: &Result<T, StoreError>) -> Health {
    if matches!(outcome, Err(StoreError::Stopped)) { Health::Fatal } else { Health::Good }
}

enum WriteJob {
    Deliver(Arc<Shared>, Box<NewMessage>, oneshot::Sender<Result<Delivered, StoreError>>),
    Run(Arc<Shared>, WriteWork),
    Create(Arc<Shared>, oneshot::Sender<Result<(), StoreError>>),
    /// Closes the account, then does this.
    Close(Arc<Shared>, Box<dyn FnOnce() + Send>),
    Stop,
}

impl WriteJob {
    fn account(&self) -> Option<AccountId> {
        match self {
            Self::Deliver(shared, ..)
            | Self::Run(shared, _)
            | Self::Create(shared, _)
            | Self::Close(shared, _) => Some(shared.id),
            Self::Stop => None,
        }
    }
}

enum ReadJob {
    Run(Arc<Shared>, ReadWork),
    Close(AccountId, oneshot::Sender<()>),
    Stop,
}

/// How many threads, how many databases.
#[derive(Debug, Clone, Copy)]
pub struct Threads {
    /// Writer threads.
    pub writers: usize,
    /// Reader threads.
    pub readers: usize,
    /// Databases open for writing at once, over all threads; as many again for reading.
    pub open: usize,
}

impl Default for Threads {
    fn default() -> Self {
        Self { writers: 8, readers: 4, open: 128 }
    }
}

/// All the threads.
pub(crate) struct Pool {
    core: Arc<Core>,
    writers: Vec<Sender<WriteJob>>,
    readers: Vec<Sender<ReadJob>>,
    joins: Mutex<Vec<Worker>>,
}

/// What every thread needs.
struct Core {
    root: PathBuf,
    ports: Ports,
    tuning: Tuning,
    open_each: usize,
    stopped: AtomicBool,
    checkpoints: Sender<Option<Arc<Shared>>>,
}

impl Core {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// A sync failed: nobody knows what is on the disk. Nothing is acknowledged any more.
    fn fatal(&self, what: &str) {
        self.stopped.store(true, Ordering::Release);
        (self.ports.fatal)(what);
    }
}

/// What a thread wakes for.
enum Next<J> {
    Job(J),
    Tick,
    Closed,
}

/// The next job; a tick where somebody wants one.
async fn next<J>(jobs: &mut Receiver<J>, ticks: bool) -> Next<J> {
    let job = if ticks {
        match timeout(TICK, jobs.recv()).await {
            Ok(job) => job,
            Err(_) => return Next::Tick,
        }
    } else {
        jobs.recv().await
    };
    job.map_or(Next::Closed, Next::Job)
}

fn shard(id: AccountId, of: usize) -> usize {
    let sum =
        id.as_bytes().iter().fold(0usize, |h, b| h.wrapping_mul(31).wrapping_add((*b).into()));
    sum % of.max(1)
}

impl Pool {
    pub(crate) fn start(
        root: PathBuf,
        ports: Ports,
        tuning: Tuning,
        threads: Threads,
    ) -> Result<Self, StoreError> {
        let (checkpoints, due) = channel(MAX_CHECKPOINTS);
        let (writer_count, reader_count) = (threads.writers.max(1), threads.readers.max(1));
        let most = writer_count.max(reader_count);
        let core = Arc::new(Core {
            root,
            ports,
            tuning,
            open_each: (threads.open / most).max(1),
            stopped: AtomicBool::new(false),
            checkpoints,
        });
        let (workers, mut joins) = (core.ports.workers, Vec::new());
        let failed = |error: std::io::Error| StoreError::Failed(format!("thread: {error}"));
        let mut writers = Vec::new();
        for n in 0..writer_count {
            let (send, jobs) = channel(MAX_WAITING);
            let core = Arc::clone(&core);
            let started =
                workers.start(&format!("writer-{n}"), move || Writer::new(core).run(jobs));
            joins.push(started.map_err(failed)?);
            writers.push(send);
        }
        let mut readers = Vec::new();
        for n in 0..reader_count {
            let (send, jobs) = channel(MAX_WAITING);
            let core = Arc::clone(&core);
            let started = workers.start(&format!("reader-{n}"), move || read_loop(core, jobs));
            joins.push(started.map_err(failed)?);
            readers.push(send);
        }
        let of_checkpointer = Arc::clone(&core);
        let started = workers.start("checkpoints", move || checkpoint_loop(of_checkpointer, due));
        joins.push(started.map_err(failed)?);
        Ok(Self { core, writers, readers, joins: Mutex::new(joins) })
    }

    pub(crate) fn root(&self) -> &std::path::Path {
        &self.core.root
    }

    pub(crate) fn ports(&self) -> &Ports {
        &self.core.ports
    }

    pub(crate) fn alarm(&self, id: AccountId, why: &str) {
        (self.core.ports.alarm)(id, why);
    }

    fn send(&self, id: AccountId, job: WriteJob) -> Result<(), StoreError> {
        if self.core.is_stopped() {
            return Err(StoreError::Stopped);
        }
        let Some(writer) = self.writers.get(shard(id, self.writers.len())) else {
            return Err(StoreError::Stopped);
        };
        writer.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Closed(_) => StoreError::Stopped,
        })
    }

    pub(crate) async fn deliver(
        &self,
        shared: &Arc<Shared>,
        message: NewMessage,
    ) -> Result<Delivered, StoreError> {
        let (answer, wait) = oneshot::channel();
        let job = WriteJob::Deliver(Arc::clone(shared), Box::new(message), answer);
        self.send(shared.id, job)?;
        wait.await.unwrap_or_else(|_| Err(self.lost()))
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        shared: &Arc<Shared>,
        work: impl FnOnce(&mut Index) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, wait) = oneshot::channel();
        let work: WriteWork = Box::new(move |index| {
            let outcome = index.and_then(work);
            let health = health(&outcome);
            // The caller may have gone; what was done is done.
            drop(answer.send(outcome));
            health
        });
        self.send(shared.id, WriteJob::Run(Arc::clone(shared), work))?;
        wait.await.unwrap_or_else(|_| Err(self.lost()))
    }

    pub(crate) async fn create(&self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        let (answer, wait) = oneshot::channel();
        self.send(shared.id, WriteJob::Create(Arc::clone(shared), answer))?;
        wait.await.unwrap_or_else(|_| Err(self.lost()))
    }

    /// Closes an account everywhere, then does `last` on its writer's thread: jobs that come later
    /// find what that left.
    pub(crate) async fn close<T: Send + 'static>(
        &self,
        shared: &Arc<Shared>,
        last: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        shared.ready.store(false, Ordering::Release);
        let (answer, wait) = oneshot::channel();
        if let Some(reader) = self.readers.get(shard(shared.id, self.readers.len())) {
            reader.try_send(ReadJob::Close(shared.id, answer)).map_err(|_| StoreError::Busy)?;
            wait.await.map_err(|_| StoreError::Stopped)?;
        }
        let (answer, wait) = oneshot::channel();
        let last = Box::new(move || drop(answer.send(last())));
        self.send(shared.id, WriteJob::Close(Arc::clone(shared), last))?;
        wait.await.unwrap_or_else(|_| Err(self.lost()))
    }

    /// Opens the account if that has not been done in this life of the process.
    pub(crate) async fn ready(&self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        if self.core.is_stopped() {
            return Err(StoreError::Stopped);
        }
        if shared.is_ready() {
            return Ok(());
        }
        self.write(shared, |_| Ok(())).await
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        shared: &Arc<Shared>,
        work: impl FnOnce(&View<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ready(shared).await?;
        self.peek(shared, work).await
    }

    /// Reads a database as it lies there, whether its account was opened or not: neither recovered nor
    /// brought up to date. For what every schema has.
    pub(crate) async fn peek<T: Send + 'static>(
        &self,
        shared: &Arc<Shared>,
        work: impl FnOnce(&View<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.core.is_stopped() {
            return Err(StoreError::Stopped);
        }
        let (answer, wait) = oneshot::channel();
        let work: ReadWork = Box::new(move |view| drop(answer.send(view.and_then(work))));
        let Some(reader) = self.readers.get(shard(shared.id, self.readers.len())) else {
            return Err(StoreError::Stopped);
        };
        reader.try_send(ReadJob::Run(Arc::clone(shared), work)).map_err(|e| match e {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Closed(_) => StoreError::Stopped,
        })?;
        wait.await.unwrap_or_else(|_| Err(self.lost()))
    }

    /// A job whose answer never came: its thread panicked in it, or has stopped.
    fn lost(&self) -> StoreError {
        if self.core.is_stopped() {
            StoreError::Stopped
        } else {
            StoreError::Failed("the job was given up; see the log".into())
        }
    }

    /// Ends all threads after what they are doing. Blocks.
    pub(crate) fn stop(&self) {
        self.core.stopped.store(true, Ordering::Release);
        // These wake who sleeps. Who has no room for them is awake, and sees that it is to stop.
        for writer in &self.writers {
            drop(writer.try_send(WriteJob::Stop));
        }
        for reader in &self.readers {
            drop(reader.try_send(ReadJob::Stop));
        }
        drop(self.core.checkpoints.try_send(None));
        let joins = std::mem::take(&mut *self.joins.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in joins {
            if worker.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
    }
}

/// An open account of a writer.
struct Opened {
    index: Index,
    used: Instant,
    cared: Instant,
}

/// Deliveries of one commit.
struct Group {
    account: AccountId,
    messages: Vec<NewMessage>,
    answers: Vec<oneshot::Sender<Result<Delivered, StoreError>>>,
    bytes: u64,
    /// Another job of the account came: what comes behind it stays behind it.
    is_closed: bool,
}

impl Group {
    fn of(
        account: AccountId,
        first: NewMessage,
        answer: oneshot::Sender<Result<Delivered, StoreError>>,
    ) -> Self {
        let bytes = first.size();
        Self { account, messages: vec![first], answers: vec![answer], bytes, is_closed: false }
    }

    fn is_open(&self) -> bool {
        !self.is_closed && self.messages.len() < MAX_GROUP && self.bytes < MAX_GROUP_BYTES
    }

    /// Takes a job in, or gives it back.
    fn take(&mut self, job: WriteJob) -> Option<WriteJob> {
        let is_ours = job.account() == Some(self.account);
        match job {
            WriteJob::Deliver(_, message, answer)
                if is_ours && self.is_open() && self.bytes + message.size() <= MAX_GROUP_BYTES =>
            {
                self.bytes += message.size();
                self.messages.push(*message);
                self.answers.push(answer);
                None
            }
            other @ (WriteJob::Deliver(..)
            | WriteJob::Run(..)
            | WriteJob::Create(..)
            | WriteJob::Close(..)
            | WriteJob::Stop) => {
                self.is_closed |= is_ours;
                Some(other)
            }
        }
    }
}

struct Writer {
    core: Arc<Core>,
    open: BTreeMap<AccountId, Opened>,
    waiting: VecDeque<WriteJob>,
    cared: Instant,
}

impl Writer {
    fn new(core: Arc<Core>) -> Self {
        let cared = core.ports.clock.monotonic();
        Self { core, open: BTreeMap::new(), waiting: VecDeque::new(), cared }
    }

    async fn run(mut self, mut jobs: Receiver<WriteJob>) {
        while !self.core.is_stopped() {
            if self.waiting.is_empty() {
                // With nothing open there is nothing to look after.
                match next(&mut jobs, !self.open.is_empty()).await {
                    Next::Job(job) => self.waiting.push_back(job),
                    Next::Tick => {
                        self.care();
                        continue;
                    }
                    Next::Closed => return,
                }
            }
            // Whatever waits, up to the bound: this is what makes a group.
            while self.waiting.len() < MAX_WAITING {
                let Ok(job) = jobs.try_recv() else { break };
                self.waiting.push_back(job);
            }
            let now = self.core.ports.clock.monotonic();
            if now.saturating_duration_since(self.cared) >= CARE_WHILE_BUSY {
                self.care();
            }
            let Some(job) = self.waiting.pop_front() else { continue };
            match job {
                WriteJob::Deliver(shared, message, answer) => {
                    self.deliver(&mut jobs, &shared, *message, answer).await;
                }
                WriteJob::Run(shared, work) => self.run_one(&shared, work),
                WriteJob::Create(shared, answer) => {
                    let outcome = self.create(&shared);
                    self.judge(&shared, health(&outcome));
                    drop(answer.send(outcome));
                }
                WriteJob::Close(shared, last) => {
                    self.open.remove(&shared.id);
                    last();
                }
                WriteJob::Stop => return,
            }
        }
    }

    fn create(&mut self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        let core = &self.core;
        let index = Index::create(&core.root, Arc::clone(shared), &core.ports, core.tuning)?;
        self.keep(index);
        Ok(())
    }

    fn keep(&mut self, index: Index) {
        let now = self.core.ports.clock.monotonic();
        while self.open.len() >= self.core.open_each {
            let oldest = self.open.iter().min_by_key(|(_, o)| o.used).map(|(id, _)| *id);
            let Some(oldest) = oldest else { break };
            self.close(oldest);
        }
        self.open.insert(index.shared.id, Opened { index, used: now, cared: now });
    }

    fn index(&mut self, shared: &Arc<Shared>) -> Result<&mut Index, StoreError> {
        if self.core.is_stopped() {
            return Err(StoreError::Stopped);
        }
        if !self.open.contains_key(&shared.id) {
            let core = &self.core;
            let index = Index::open(&core.root, Arc::clone(shared), &core.ports, core.tuning)
                .inspect_err(|error| {
                    if matches!(error, StoreError::Damaged(_) | StoreError::Newer) {
                        (core.ports.alarm)(shared.id, &error.to_string());
                    }
                })?;
            self.keep(index);
        }
        let now = self.core.ports.clock.monotonic();
        match self.open.get_mut(&shared.id) {
            Some(opened) => {
                opened.used = now;
                Ok(&mut opened.index)
            }
            None => Err(StoreError::Failed("the account was closed".into())),
        }
    }

    /// This message and those for the same account that wait behind it, in order, up to the bounds
    /// and to the next job of another kind for that account.
    async fn deliver(
        &mut self,
        jobs: &mut Receiver<WriteJob>,
        shared: &Arc<Shared>,
        first: NewMessage,
        answer: oneshot::Sender<Result<Delivered, StoreError>>,
    ) {
        let mut group = Group::of(shared.id, first, answer);
        self.waiting = std::mem::take(&mut self.waiting)
            .into_iter()
            .filter_map(|job| group.take(job))
            .collect();
        let until = tokio::time::Instant::now() + GROUP_WAIT;
        while self.waiting.is_empty() && group.is_open() && shared.coming() > group.messages.len() {
            let Ok(Some(job)) = timeout_at(until, jobs.recv()).await else { break };
            self.waiting.extend(group.take(job));
        }
        let Group { messages: group, answers, .. } = group;
        let outcomes = match self.index(shared) {
            Ok(index) => catch_unwind(AssertUnwindSafe(|| index.deliver(&group))),
            Err(error) => Ok(answers.iter().map(|_| Err(error.again())).collect()),
        };
        let Ok(outcomes) = outcomes else { return self.panicked(shared) };
        let worst = if outcomes.iter().any(|o| health(o) == Health::Fatal) {
            Health::Fatal
        } else {
            Health::Good
        };
        self.judge(shared, worst);
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            drop(answer.send(outcome));
        }
        self.after(shared);
    }

    fn run_one(&mut self, shared: &Arc<Shared>, work: WriteWork) {
        let opened = self.index(shared);
        match catch_unwind(AssertUnwindSafe(|| work(opened))) {
            Ok(health) => self.judge(shared, health),
            Err(_) => self.panicked(shared),
        }
        self.after(shared);
    }

    fn judge(&mut self, shared: &Arc<Shared>, health: Health) {
        if health == Health::Fatal && !self.core.is_stopped() {
            self.open.remove(&shared.id);
            self.core.fatal(&format!("a sync failed in account {}", shared.id));
        }
    }

    /// The transaction rolled back as the panic passed it; the account is opened anew by the next
    /// job, since what it held in memory may be half-changed.
    fn panicked(&mut self, shared: &Arc<Shared>) {
        tracing::error!(account = %shared.id, "a job of the store panicked");
        self.open.remove(&shared.id);
    }

    /// What a job left to do.
    fn after(&mut self, shared: &Arc<Shared>) {
        let is_idle = self.waiting.is_empty();
        let (drain_bytes, frames) =
            (self.core.tuning.drain_bytes, self.core.tuning.checkpoint_frames);
        let Some(opened) = self.open.get_mut(&shared.id) else { return };
        // Deliveries that wait go first, but not for ever.
        let staged = opened.index.staged_bytes;
        let mut outcome = Ok(false);
        if staged > drain_bytes && (is_idle || staged > 4 * drain_bytes) {
            outcome = opened.index.drain();
        }
        if opened.index.database.wal_frames() > frames
            && !shared.checkpointing.swap(true, Ordering::AcqRel)
            && self.core.checkpoints.try_send(Some(Arc::clone(shared))).is_err()
        {
            shared.checkpointing.store(false, Ordering::Release);
        }
        self.cared(shared, &outcome);
    }

    /// What becomes of a failure nobody waits for.
    fn cared(&mut self, shared: &Arc<Shared>, outcome: &Result<bool, StoreError>) {
        self.judge(shared, health(outcome));
        if let Err(error) = outcome {
            tracing::warn!(account = %shared.id, %error, "upkeep of an account failed");
        }
    }

    /// Looks after open accounts while nothing waits.
    fn care(&mut self) {
        let now = self.core.ports.clock.monotonic();
        self.cared = now;
        let ids: Vec<AccountId> = self.open.keys().copied().collect();
        for id in ids {
            let Some(opened) = self.open.get_mut(&id) else { continue };
            let shared = Arc::clone(&opened.index.shared);
            let idle = now.saturating_duration_since(opened.used);
            if now.saturating_duration_since(opened.cared) >= CARE || idle >= IDLE_CLOSE {
                opened.cared = now;
                let index = &mut opened.index;
                let outcome = catch_unwind(AssertUnwindSafe(|| look_after(index, idle)));
                match outcome {
                    Ok(outcome) => self.cared(&shared, &outcome),
                    Err(_) => self.panicked(&shared),
                }
            }
            if idle >= IDLE_CLOSE {
                self.close(id);
            }
        }
    }

    fn close(&mut self, id: AccountId) {
        let Some(opened) = self.open.remove(&id) else { return };
        let Index { database, shared, .. } = opened.index;
        let (path, frames) = (database.path().to_owned(), database.wal_frames());
        drop(database);
        if frames > SMALL_LOG && !self.core.is_stopped() {
            let done = checkpoint_file(&path, &how(&self.core.ports), &shared.gate, true);
            report_checkpoint(&self.core, &shared, done.map(|_| ()));
        }
    }
}

/// One step of each kind of upkeep. One that fails keeps the others from nothing: where no room is
/// left to drain, some is to be erased.
pub(crate) fn look_after(index: &mut Index, idle: Duration) -> Result<bool, StoreError> {
    if index.damaged.is_some() {
        // Left as it is.
        return Ok(false);
    }
    let mut outcome = Ok(false);
    if idle >= IDLE_DRAIN && index.staged_bytes > 0 {
        outcome = index.drain();
    }
    for step in [Index::erase, Index::compact, Index::purge] {
        // Nothing is written behind a sync that failed.
        if health(&outcome) == Health::Fatal {
            break;
        }
        let done = step(index);
        if outcome.is_ok() || health(&done) == Health::Fatal {
            outcome = done;
        }
    }
    outcome
}

/// A reader's open account.
struct Reading {
    reader: Reader,
    files: SegmentFiles,
    used: Instant,
}

async fn read_loop(core: Arc<Core>, mut jobs: Receiver<ReadJob>) {
    let mut open: BTreeMap<AccountId, Reading> = BTreeMap::new();
    while !core.is_stopped() {
        match next(&mut jobs, !open.is_empty()).await {
            Next::Job(ReadJob::Run(shared, work)) => {
                if catch_unwind(AssertUnwindSafe(|| read_one(&core, &mut open, &shared, work)))
                    .is_err()
                {
                    tracing::error!(account = %shared.id, "a read of the store panicked");
                    open.remove(&shared.id);
                }
            }
            Next::Job(ReadJob::Close(id, answer)) => {
                open.remove(&id);
                answer.send(()).unwrap_or_default();
            }
            Next::Tick => {
                let now = core.ports.clock.monotonic();
                open.retain(|_, r| now.saturating_duration_since(r.used) < IDLE_CLOSE);
            }
            Next::Job(ReadJob::Stop) | Next::Closed => return,
        }
    }
}

fn read_one(core: &Core, open: &mut BTreeMap<AccountId, Reading>, shared: &Shared, work: ReadWork) {
    let now = core.ports.clock.monotonic();
    if !open.contains_key(&shared.id) {
        let folder = core.root.join(shared.id.to_string());
        let how = Open { cache_kib: 512, statements: 24, ..how(&core.ports) };
        let reader = match Reader::open(&folder.join("index.db"), &how) {
            Ok(reader) => reader,
            Err(error) => return work(Err(error.into())),
        };
        if open.len() >= core.open_each {
            let oldest = open.iter().min_by_key(|(_, r)| r.used).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                open.remove(&oldest);
            }
        }
        let files = SegmentFiles::new(Arc::clone(&core.ports.disk), folder);
        open.insert(shared.id, Reading { reader, files, used: now });
    }
    let Some(reading) = open.get_mut(&shared.id) else { return };
    reading.used = now;
    let (files, clock) = (&reading.files, core.ports.clock.as_ref());
    // The checkpointer waits for the end of this batch, which is why it is short.
    let _inside = shared.gate.pass();
    let mut work = Some(work);
    let outcome = reading.reader.read(|connection| {
        if let Some(work) = work.take() {
            work(Ok(&View { connection, files, clock, deadline: now + READ_TIME }));
        }
        Ok::<_, Error>(())
    });
    if let (Err(error), Some(work)) = (outcome, work) {
        work(Err(error.into()));
    }
}

async fn checkpoint_loop(core: Arc<Core>, mut due: Receiver<Option<Arc<Shared>>>) {
    while let Some(Some(shared)) = due.recv().await {
        if core.is_stopped() {
            return;
        }
        let path = core.root.join(shared.id.to_string()).join("index.db");
        let done = checkpoint_file(&path, &how(&core.ports), &shared.gate, false);
        shared.checkpointing.store(false, Ordering::Release);
        report_checkpoint(&core, &shared, done.map(|_| ()));
    }
}

fn report_checkpoint(core: &Core, shared: &Shared, done: Result<(), Error>) {
    match done {
        Ok(()) => {}
        Err(error) if error.is_fatal() => {
            core.fatal(&format!("a sync failed in account {}", shared.id));
        }
        // The log stays as it was; the next commit asks again.
        Err(error) => tracing::warn!(account = %shared.id, %error, "a checkpoint failed"),
    }
}
