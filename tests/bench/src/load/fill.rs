//! APPEND: as a load of its own, and to fill a mailbox for the others.

use super::{PASSWORD, user};
use crate::{
    client::{Imap, Transport},
    message::{Shape, Spec, message},
    server::Ports,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::task::JoinSet;

/// What to append to the INBOX.
#[derive(Debug, Clone)]
pub(crate) struct Fill {
    pub(crate) connections: u64,
    pub(crate) messages: u64,
    /// The users of the connections, in turn.
    pub(crate) users: Vec<u64>,
    pub(crate) size: usize,
    pub(crate) seed: u64,
}

impl Fill {
    pub(crate) async fn prepare(self, ports: &Ports) -> anyhow::Result<Ready> {
        let mut connections = Vec::new();
        for &n in self.users.iter().cycle().take(usize::try_from(self.connections)?) {
            let mut imap = Imap::connect(ports.imap, Transport::Clear).await?;
            imap.login(&user(n), PASSWORD).await?;
            connections.push((n, imap));
        }
        Ok(Ready { plan: self, connections })
    }
}

/// A load that is ready: connections are logged in.
pub(crate) struct Ready {
    plan: Fill,
    connections: Vec<(u64, Imap)>,
}

impl Ready {
    /// The seconds it took.
    pub(crate) async fn run(self) -> anyhow::Result<f64> {
        let start = Instant::now();
        let next = Arc::new(AtomicU64::new(0));
        let plan = Arc::new(self.plan);
        let mut tasks = JoinSet::new();
        for (n, imap) in self.connections {
            tasks.spawn(append(imap, user(n), Arc::clone(&plan), Arc::clone(&next)));
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

async fn append(
    mut imap: Imap,
    to: String,
    plan: Arc<Fill>,
    next: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= plan.messages {
            return Ok(());
        }
        let message = message(&Spec {
            from: &format!("friend{}@sender.test", n % 300),
            to: &to,
            index: n,
            size: plan.size,
            seed: plan.seed,
            shape: Shape::Mixed,
        });
        imap.append("INBOX", &message).await?;
    }
}
