//! Connections that come and go: handshakes, and log-ins that fail.

use super::{DOMAIN, ms};
use crate::{
    client::{Imap, Transport},
    server::Ports,
};
use anyhow::bail;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Between two log-ins that fail: the earlier one is written down by then, and slows nobody.
const GAP: Duration = Duration::from_millis(10);

/// Opens `total` TLS connections, `at_once` at a time, up to the greeting; milliseconds of each.
pub(crate) async fn handshakes(
    ports: &Ports,
    at_once: u64,
    total: u64,
) -> anyhow::Result<Vec<f64>> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let (to, next) = (ports.imaps, Arc::clone(&next));
        tasks.spawn(async move {
            let mut each = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < total {
                let begin = Instant::now();
                Imap::connect(to, Transport::Tls).await?;
                each.push(ms(begin.elapsed()));
            }
            anyhow::Ok(each)
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done??);
    }
    Ok(all)
}

/// Log-ins with a wrong password, `each` of a user that is there and of names that are not, in
/// turn; milliseconds of both kinds.
pub(crate) async fn wrong_passwords(
    ports: &Ports,
    each: u64,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for n in 0..each {
        let names =
            [(format!("u0@{DOMAIN}"), &mut known), (format!("x{n}@{DOMAIN}"), &mut unknown)];
        for (name, times) in names {
            let mut imap = Imap::connect(ports.imap, Transport::Clear).await?;
            let begin = Instant::now();
            if imap.login(&name, "not the password").await.is_ok() {
                bail!("a wrong password was taken");
            }
            times.push(ms(begin.elapsed()));
            tokio::time::sleep(GAP).await;
        }
    }
    Ok((known, unknown))
}
