//! FETCH of a whole mailbox, again and again.

use super::{PASSWORD, ms, user};
use crate::{
    client::{Imap, Transport},
    server::Ports,
};
use anyhow::bail;
use std::time::Instant;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) ms: Vec<f64>,
    pub(crate) octets: u64,
}

/// A connection with a mailbox selected.
pub(crate) struct Ready {
    imap: Imap,
    messages: u64,
}

pub(crate) async fn prepare(ports: &Ports, n: u64) -> anyhow::Result<Ready> {
    let mut imap = Imap::connect(ports.imap, Transport::Clear).await?;
    imap.login(&user(n), PASSWORD).await?;
    let messages = imap.select("INBOX").await?;
    Ok(Ready { imap, messages })
}

impl Ready {
    pub(crate) async fn run(mut self, items: &str, times: u32) -> anyhow::Result<Fetched> {
        let before = self.imap.received();
        let mut each = Vec::new();
        for _ in 0..times {
            let begin = Instant::now();
            let answer = self.imap.command(&format!("FETCH 1:* {items}")).await?;
            each.push(ms(begin.elapsed()));
            if answer.fetches < self.messages {
                bail!("{} of {} messages fetched", answer.fetches, self.messages);
            }
        }
        let octets = self.imap.received() - before;
        Ok(Fetched { ms: each, octets })
    }
}
