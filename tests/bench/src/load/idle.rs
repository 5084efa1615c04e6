//! Connections that wait, and how soon they hear of new mail.

use super::{PASSWORD, ms, user};
use crate::{
    client::{Imap, Smtp, Transport},
    message::{Shape, Spec, message},
    server::Ports,
};
use anyhow::{Context as _, bail};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Log-ins at once.
const RAMP: usize = 8;

/// How long a notice may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// Between two messages: the earlier one is done with.
const GAP: Duration = Duration::from_millis(50);

/// Connections in IDLE, evenly over the first `users` users.
pub(crate) struct Idle {
    users: u64,
    notices: mpsc::UnboundedReceiver<(u64, Instant)>,
    readers: JoinSet<()>,
    per_user: u64,
}

impl Idle {
    pub(crate) async fn open(ports: &Ports, connections: u64, users: u64) -> anyhow::Result<Self> {
        let (heard, notices) = mpsc::unbounded_channel();
        let ramp = Arc::new(Semaphore::new(RAMP));
        let mut openings = JoinSet::new();
        for n in 0..connections {
            let (to, ramp) = (ports.imaps, Arc::clone(&ramp));
            openings.spawn(async move {
                let _turn = ramp.acquire().await?;
                let mut imap = Imap::connect(to, Transport::Tls).await?;
                imap.login(&user(n % users), PASSWORD).await?;
                imap.select("INBOX").await?;
                imap.begin("IDLE").await?;
                imap.continuation().await?;
                anyhow::Ok((n % users, imap))
            });
        }
        let mut readers = JoinSet::new();
        while let Some(opened) = openings.join_next().await {
            let (n, mut imap) = opened??;
            let heard = heard.clone();
            readers.spawn(async move {
                while let Ok(line) = imap.response().await {
                    let now = Instant::now();
                    if line.trim_ascii_end().ends_with(b"EXISTS") && heard.send((n, now)).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { users, notices, readers, per_user: connections / users })
    }

    /// From the end of DATA to EXISTS, on each connection of the recipient, in milliseconds.
    pub(crate) async fn notices(
        &mut self,
        ports: &Ports,
        messages: u64,
        seed: u64,
    ) -> anyhow::Result<Vec<f64>> {
        let mut smtp = Smtp::open(ports.smtp, "client.sender.test").await?;
        let mut all = Vec::new();
        for index in 0..messages {
            let n = index % self.users;
            let (from, to) = ("sender@sender.test", user(n));
            let spec = Spec { from, to: &to, index, size: 5000, seed, shape: Shape::Plain };
            let sent = smtp.deliver(from, &to, &message(&spec)).await?;
            let mut missing = self.per_user;
            while missing > 0 {
                let heard = timeout(PATIENCE, self.notices.recv()).await;
                let (who, at) = heard.context("no EXISTS")?.context("no connection is left")?;
                if who == n {
                    all.push(ms(at.saturating_duration_since(sent)));
                    missing -= 1;
                }
            }
            sleep(GAP).await;
        }
        smtp.quit().await;
        if self.readers.try_join_next().is_some() {
            bail!("a connection was lost");
        }
        Ok(all)
    }
}
