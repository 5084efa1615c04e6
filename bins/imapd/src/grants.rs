//! What the supervisor gives each role, taken apart.

use crate::{front, session};
use anyhow::Context as _;
use daemon::{Inherited, Socket};
use ipc::Role;
use std::{collections::BTreeMap, sync::Arc};
use types::SystemClock;

/// Runs the role this process is.
///
/// # Errors
/// When something of the grants is missing, or a listener fails.
pub async fn run(inherited: Inherited) -> anyhow::Result<()> {
    if inherited.role == Role::ImapdFront {
        front_of(inherited).await
    } else {
        session_of(inherited).await
    }
}

async fn front_of(inherited: Inherited) -> anyhow::Result<()> {
    let slice: config::slice::ImapdFront = inherited.slice().context("slice")?;
    let accountd = inherited.dialer(Role::Accountd).context("no edge to accountd")?;
    let keyholder = inherited.dialer(Role::Keyholder).context("no edge to keyholder")?;
    let sessions: BTreeMap<u16, ipc::Dialer> = inherited
        .dialers
        .iter()
        .filter(|((role, _), _)| *role == Role::ImapdSession)
        .map(|((_, instance), dialer)| (*instance, dialer.clone()))
        .collect();
    let mut listeners = Vec::new();
    for listener in inherited.listeners {
        let service = listener.service().to_owned();
        let found = slice.listeners.iter().find(|known| known.name == service);
        match (listener.socket, found) {
            (Socket::Tcp(socket), Some(known)) => listeners.push((socket, known.clone())),
            (Socket::Tcp(_) | Socket::Unix(_), _) => {
                anyhow::bail!("no use for the listener {}", listener.name)
            }
        }
    }
    front::run(front::Grants {
        listeners,
        limits: slice.limits,
        accountd,
        keyholder,
        sessions,
        clock: Arc::new(SystemClock),
        stop: inherited.stop,
    })
    .await
}

async fn session_of(inherited: Inherited) -> anyhow::Result<()> {
    let slice: config::slice::ImapdSession = inherited.slice().context("slice")?;
    let accountd = inherited.dialer(Role::Accountd).context("no edge to accountd")?;
    session::run(session::Grants {
        limits: slice.limits,
        accountd,
        fronts: inherited.acceptors,
        stop: inherited.stop,
    })
    .await;
    Ok(())
}
