//! The process: intake, schedule and the administrator's interface, side by side.

use crate::{
    Grants, admin, attempt, intake,
    queue::Message,
    queue::Recipient,
    worker::{Gone, Worker},
};
use anyhow::Context as _;
use config::Queue;
use daemon::{Count, Figures};
use ipc::{
    Limits, Line,
    schema::{accountd_capnp::queue_door, keyholder_capnp::host_keys, outbound_capnp::outbound},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use types::{Clock, Domain, QueueId, SubmissionId, UnixNanos};

/// Recipients looked at in one turn of the schedule.
const LOOK_AT: usize = 2_000;

/// The longest sleep between two looks at the queue, should a wake-up be lost.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How often what waits is counted, while anything happens.
const COUNT: Duration = Duration::from_secs(5);

/// The pause after the disk failed.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// What the parts share.
pub(crate) struct Shared {
    pub(crate) hostname: Domain,
    pub(crate) queue: Queue,
    pub(crate) clock: Rc<dyn Clock>,
    pub(crate) worker: Worker,
    pub(crate) accountd: Line<queue_door::Client>,
    pub(crate) outbound: Line<outbound::Client>,
    pub(crate) keyholder: Line<host_keys::Client>,
    pub(crate) figures: Figures,
    /// Something new is due.
    pub(crate) changed: Rc<Notify>,
    /// Recipients being delivered right now.
    pub(crate) in_hand: RefCell<BTreeSet<QueueId>>,
    /// How often in a row a recipient could not be tried by a fault of ours.
    pub(crate) faults: RefCell<BTreeMap<QueueId, u32>>,
    /// How many deliveries go to each domain right now.
    busy: RefCell<BTreeMap<String, u32>>,
}

/// Runs the queue until the process is told to stop.
///
/// # Errors
/// When the queue's database cannot be opened, or its thread is lost.
pub async fn run(grants: Grants) -> anyhow::Result<()> {
    let fatal = Arc::clone(&grants.fatal);
    let worker =
        Worker::start(&grants.folder, grants.disk, grants.workers, move |error| fatal(error))
            .context("open queue.db")?;
    let shared = Rc::new(Shared {
        hostname: grants.hostname,
        queue: grants.queue,
        clock: grants.clock,
        worker,
        accountd: Line::new(grants.accountd, Limits::default()),
        outbound: Line::new(grants.outbound, Limits::default()),
        keyholder: Line::new(grants.keyholder, Limits::default()),
        figures: grants.figures,
        changed: Rc::new(Notify::new()),
        in_hand: RefCell::default(),
        faults: RefCell::default(),
        busy: RefCell::default(),
    });
    let intake = intake::run(
        shared.accountd.clone(),
        shared.worker.clone(),
        Rc::clone(&shared.clock),
        Rc::clone(&shared.changed),
    );
    let control = async {
        match grants.control {
            Some((listener, allowed)) => admin::control(&shared, &listener, &*allowed).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        result = schedule(&shared) => result,
        () = intake => Ok(()),
        () = control => Ok(()),
    }
}

/// Starts what is due, and sleeps until something is.
async fn schedule(shared: &Rc<Shared>) -> anyhow::Result<()> {
    let mut running = JoinSet::new();
    let mut counted: Option<Instant> = None;
    loop {
        let now = shared.clock.now();
        let is_due = counted.is_none_or(|at| at.elapsed() >= COUNT);
        if is_due {
            counted = Some(Instant::now());
            if let Ok((all, _)) = shared.worker.run(|shelf| shelf.counts()).await? {
                shared.figures.set(Count::QueueWaiting, all);
            }
        }
        let looked = start_due(shared, &mut running, now).await?;
        let next = shared.worker.run(move |shelf| shelf.next_due(now)).await?;
        let sleep = match (looked, next) {
            (Ok(()), Ok(next)) => next.map_or(LONGEST_SLEEP, |at| {
                let ns = u64::try_from(at.0.saturating_sub(shared.clock.now().0)).unwrap_or(0);
                // What is due and could not be started waits for something to end.
                Duration::from_nanos(ns).min(LONGEST_SLEEP)
            }),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "read the queue");
                AFTER_ERROR
            }
        };
        // What this turn changed is counted soon, too.
        let sleep = if is_due { sleep } else { sleep.min(COUNT) };
        tokio::select! {
            biased;
            Some(ended) = running.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "an attempt panicked");
                }
            }
            () = shared.changed.notified() => {}
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

/// Starts as much of what is due as may run at once.
async fn start_due(
    shared: &Rc<Shared>,
    running: &mut JoinSet<()>,
    now: UnixNanos,
) -> Result<Result<(), storage::Error>, Gone> {
    let most = usize::try_from(shared.queue.concurrent).unwrap_or(usize::MAX);
    loop {
        let full: Vec<String> = shared.full_domains();
        if running.len() >= most {
            return Ok(Ok(()));
        }
        let due = match shared.worker.run(move |shelf| shelf.due(now, &full, LOOK_AT)).await? {
            Ok(due) => due,
            Err(error) => return Ok(Err(error)),
        };
        let whole = due.len() < LOOK_AT;
        let mut skipped = false;
        let found = groups(due, &shared.in_hand.borrow());
        for group in found {
            if running.len() >= most || shared.is_full(&group.domain) {
                skipped = true;
                continue;
            }
            let held = InHand::take(shared, &group);
            running.spawn_local(async move {
                if let Err(error) = attempt::deliver(&held.shared, group).await {
                    tracing::error!(
                        error = format!("{error:#}"),
                        domain = held.domain,
                        "an attempt failed"
                    );
                    // It is due still: not again at once.
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            });
        }
        // Behind a long queue for one domain there may be others.
        if whole || !skipped {
            return Ok(Ok(()));
        }
    }
}

impl Shared {
    fn is_full(&self, domain: &str) -> bool {
        let busy = self.busy.borrow().get(domain).copied().unwrap_or(0);
        busy >= self.queue.concurrent_per_domain
    }

    fn full_domains(&self) -> Vec<String> {
        let busy = self.busy.borrow();
        let full = busy.iter().filter(|(_, n)| **n >= self.queue.concurrent_per_domain);
        full.map(|(domain, _)| domain.clone()).collect()
    }
}

/// Recipients being delivered; let go when dropped, however the attempt ends.
struct InHand {
    shared: Rc<Shared>,
    domain: String,
    ids: Vec<QueueId>,
}

impl InHand {
    fn take(shared: &Rc<Shared>, group: &Group) -> Self {
        let ids: Vec<QueueId> = group.recipients.iter().map(|r| r.queue_id).collect();
        shared.in_hand.borrow_mut().extend(ids.iter().copied());
        *shared.busy.borrow_mut().entry(group.domain.clone()).or_default() += 1;
        Self { shared: Rc::clone(shared), domain: group.domain.clone(), ids }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut in_hand = self.shared.in_hand.borrow_mut();
        for id in &self.ids {
            in_hand.remove(id);
        }
        let mut busy = self.shared.busy.borrow_mut();
        if let Some(count) = busy.get_mut(&self.domain) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                busy.remove(&self.domain);
            }
        }
        self.shared.changed.notify_one();
    }
}

/// Recipients of one message in one domain: one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) message: Message,
    pub(crate) domain: String,
    pub(crate) recipients: Vec<Recipient>,
}

/// What is due and not in hand, by message and domain, in the order of what waited longest.
fn groups(due: Vec<(Recipient, Message)>, in_hand: &BTreeSet<QueueId>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // Those with as many attempts behind them: their schedules then stay together.
    let mut open: BTreeMap<(SubmissionId, String, u32), usize> = BTreeMap::new();
    for (recipient, message) in due {
        if in_hand.contains(&recipient.queue_id) {
            continue;
        }
        let key = (message.submission, recipient.domain.clone(), recipient.attempts);
        let same = open.get(&key).and_then(|&at| groups.get_mut(at));
        match same.filter(|group| group.recipients.len() < crate::queue::MAX_GROUP) {
            Some(group) => group.recipients.push(recipient),
            None => {
                open.insert(key, groups.len());
                groups.push(Group {
                    message,
                    domain: recipient.domain.clone(),
                    recipients: vec![recipient],
                });
            }
        }
    }
    groups
}
