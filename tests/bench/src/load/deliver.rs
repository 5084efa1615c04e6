//! Mail from other servers: over SMTP, until it can be seen over IMAP.

use super::{PASSWORD, ms, user};
use crate::{
    client::{Imap, Smtp, Transport},
    message::{Shape, Spec, message},
    server::Ports,
};
use anyhow::{Context as _, bail};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Between two looks at the mailboxes.
const LOOK: Duration = Duration::from_millis(20);

/// How long mail may be on its way.
const PATIENCE: Duration = Duration::from_secs(120);

/// Senders of a load.
const SENDERS: u64 = 500;

/// What to deliver.
#[derive(Debug, Clone)]
pub(crate) struct Deliver {
    pub(crate) connections: u64,
    pub(crate) messages: u64,
    /// The recipients, in turn.
    pub(crate) users: Vec<u64>,
    pub(crate) size: usize,
    pub(crate) shape: Shape,
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// Until all of it was in the mailboxes.
    pub(crate) seconds: f64,
    /// From MAIL to the last reply, of each message.
    pub(crate) accept_ms: Vec<f64>,
}

/// A load that is ready: connections are open.
pub(crate) struct Ready {
    plan: Deliver,
    senders: Vec<Smtp>,
    watchers: Vec<Imap>,
    before: u64,
}

impl Deliver {
    pub(crate) async fn prepare(self, ports: &Ports) -> anyhow::Result<Ready> {
        let mut watchers = Vec::new();
        for &n in &self.users {
            let mut watcher = Imap::connect(ports.imap, Transport::Clear).await?;
            watcher.login(&user(n), PASSWORD).await?;
            watchers.push(watcher);
        }
        let before = total(&mut watchers).await?;
        let mut senders = Vec::new();
        for n in 0..self.connections {
            senders.push(Smtp::open(ports.smtp, &format!("mx{n}.relay{n}.test")).await?);
        }
        Ok(Ready { plan: self, senders, watchers, before })
    }
}

impl Ready {
    pub(crate) async fn run(mut self) -> anyhow::Result<Delivered> {
        let start = Instant::now();
        let next = Arc::new(AtomicU64::new(0));
        let plan = Arc::new(self.plan);
        let mut tasks = JoinSet::new();
        for sender in self.senders {
            tasks.spawn(send(sender, Arc::clone(&plan), Arc::clone(&next)));
        }
        let mut accept_ms = Vec::new();
        while let Some(done) = tasks.join_next().await {
            accept_ms.extend(done??);
        }
        let wanted = self.before + plan.messages;
        loop {
            let there = total(&mut self.watchers).await?;
            if there >= wanted {
                break;
            }
            if start.elapsed() > PATIENCE {
                bail!("{} messages did not arrive", wanted - there);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Delivered { seconds: start.elapsed().as_secs_f64(), accept_ms })
    }
}

async fn send(
    mut smtp: Smtp,
    plan: Arc<Deliver>,
    next: Arc<AtomicU64>,
) -> anyhow::Result<Vec<f64>> {
    let mut accept_ms = Vec::new();
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= plan.messages {
            smtp.quit().await;
            return Ok(accept_ms);
        }
        let turn = usize::try_from(n).unwrap_or(0) % plan.users.len();
        let to = user(*plan.users.get(turn).context("no recipient")?);
        let sender = n.wrapping_mul(7919).wrapping_add(plan.seed) % SENDERS;
        let from = format!("s{sender}@d{sender}.test");
        let message = message(&Spec {
            from: &from,
            to: &to,
            index: n,
            size: plan.size,
            seed: plan.seed,
            shape: plan.shape,
        });
        let begin = Instant::now();
        smtp.deliver(&from, &to, &message).await?;
        accept_ms.push(ms(begin.elapsed()));
    }
}

async fn total(watchers: &mut [Imap]) -> anyhow::Result<u64> {
    let mut n = 0;
    for watcher in watchers {
        n += watcher.messages("INBOX").await?;
    }
    Ok(n)
}
