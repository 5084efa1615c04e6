//! The process: intake, schedule and the administrator's interface, side by side.

use crate::{Grants, admin, attempt, intake, queue::Message, queue::Recipient, worker::Worker};
use anyhow::Context as _;
use config::Queue;
use ipc::{Limits, Line, schema::accountd_capnp::queue_door, schema::outbound_capnp::outbound};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet};
use types::{Clock, Domain, QueueId};

/// Recipients looked at in one turn of the schedule.
const LOOK_AT: usize = 2_000;

/// The longest sleep between two looks at the queue, should a wake-up be lost.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What the parts share.
pub(crate) struct Shared {
    pub(crate) hostname: Domain,
    pub(crate) queue: Queue,
    pub(crate) clock: Rc<dyn Clock>,
    pub(crate) worker: Worker,
    pub(crate) accountd: Line<queue_door::Client>,
    pub(crate) outbound: Line<outbound::Client>,
    /// Something new is due.
    pub(crate) changed: Rc<Notify>,
    /// Recipients being delivered right now.
    pub(crate) in_hand: RefCell<BTreeSet<QueueId>>,
}

/// Runs the queue until the process is told to stop.
///
/// # Errors
/// When the queue's database cannot be opened, or its thread is lost.
pub async fn run(grants: Grants) -> anyhow::Result<()> {
    let fatal = Arc::clone(&grants.fatal);
    let worker = Worker::start(&grants.folder, grants.disk, move |error| fatal(error))
        .context("open the queue")?;
    let shared = Rc::new(Shared {
        hostname: grants.hostname,
        queue: grants.queue,
        clock: grants.clock,
        worker,
        accountd: Line::new(grants.accountd, Limits::default()),
        outbound: Line::new(grants.outbound, Limits::default()),
        changed: Rc::new(Notify::new()),
        in_hand: RefCell::default(),
    });
    let intake = intake::run(
        shared.accountd.clone(),
        shared.worker.clone(),
        Rc::clone(&shared.clock),
        Rc::clone(&shared.changed),
    );
    let edges = {
        let shared = Rc::clone(&shared);
        ipc::serve_clients(grants.clients, Limits::default(), move |role, _| {
            ipc::edge(role, ipc::Role::QueueRunner)?;
            Some(admin::bootstrap(&shared))
        })
    };
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
        () = async { edges.await; std::future::pending().await } => Ok(()),
    }
}

/// Starts what is due, and sleeps until something is.
async fn schedule(shared: &Rc<Shared>) -> anyhow::Result<()> {
    let mut running = JoinSet::new();
    let mut domains: BTreeMap<String, u32> = BTreeMap::new();
    loop {
        let now = shared.clock.now();
        let due = shared.worker.run(move |shelf| shelf.due(now, LOOK_AT)).await?;
        let due = match due {
            Ok(due) => due,
            // A full or read-only disk does not stop reading; what does is looked at again.
            Err(error) => {
                tracing::error!(%error, "read the queue");
                Vec::new()
            }
        };
        for group in groups(due, &shared.in_hand.borrow()) {
            let busy = domains.get(&group.domain).copied().unwrap_or(0);
            let most = usize::try_from(shared.queue.concurrent).unwrap_or(usize::MAX);
            if running.len() >= most || busy >= shared.queue.concurrent_per_domain {
                continue;
            }
            *domains.entry(group.domain.clone()).or_default() += 1;
            let ids: Vec<QueueId> = group.recipients.iter().map(|r| r.queue_id).collect();
            shared.in_hand.borrow_mut().extend(ids.iter().copied());
            let shared = Rc::clone(shared);
            running.spawn_local(async move {
                let domain = group.domain.clone();
                let _held = InHand { shared: Rc::clone(&shared), ids };
                if let Err(error) = attempt::deliver(&shared, group).await {
                    tracing::error!(error = format!("{error:#}"), domain, "an attempt failed");
                }
                domain
            });
        }
        let next = shared.worker.run(|shelf| shelf.next_due()).await?.ok().flatten();
        let sleep = next.map_or(LONGEST_SLEEP, |at| {
            let ns = u64::try_from(at.0.saturating_sub(shared.clock.now().0)).unwrap_or(0);
            // What is due and could not be started waits for something to end.
            Duration::from_nanos(ns).clamp(Duration::from_millis(250), LONGEST_SLEEP)
        });
        tokio::select! {
            biased;
            Some(ended) = running.join_next() => {
                match ended {
                    Ok(domain) => release(&mut domains, &domain),
                    Err(error) => {
                        tracing::error!(%error, "an attempt panicked");
                        // Which domain is not known any more: count anew what still runs.
                        domains.clear();
                    }
                }
            }
            () = shared.changed.notified() => {}
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

fn release(domains: &mut BTreeMap<String, u32>, domain: &str) {
    if let Some(busy) = domains.get_mut(domain) {
        *busy = busy.saturating_sub(1);
        if *busy == 0 {
            domains.remove(domain);
        }
    }
}

/// Recipients being delivered; let go when dropped, however the attempt ends.
struct InHand {
    shared: Rc<Shared>,
    ids: Vec<QueueId>,
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut in_hand = self.shared.in_hand.borrow_mut();
        for id in &self.ids {
            in_hand.remove(id);
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
    for (recipient, message) in due {
        if in_hand.contains(&recipient.queue_id) {
            continue;
        }
        let same = groups.iter_mut().find(|group| {
            group.domain == recipient.domain
                && group.message.submission == message.submission
                && group.recipients.len() < crate::queue::MAX_GROUP
                // Their schedules then stay together.
                && group.recipients.first().is_some_and(|r| r.attempts == recipient.attempts)
        });
        match same {
            Some(group) => group.recipients.push(recipient),
            None => groups.push(Group {
                message,
                domain: recipient.domain.clone(),
                recipients: vec![recipient],
            }),
        }
    }
    groups
}
