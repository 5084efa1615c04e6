//! accountd: the directory of domains and accounts, their credentials, and their mail.
//!
//! Trust:   is asked by every face; believes what they say of their peers as evidence alone.
//! Runs as: `_mox-accountd`; its own folder, no network, no listener but the control socket.
//! Holds:   `domains.toml`, `accountd.db`, and of each account one database of mail, one of
//!          credentials, and its content; `Parser`, `Resolver`, `AccountdKeys`
//!          (keyholder).
//! Never:   interprets message content (parser does), sees a private key, opens a connection.
//! If it dies: restarted with back-off; what was answered 250 or OK is on the disk, and sessions go
//!          on by their tickets.

#![forbid(unsafe_code)]

use accountd::Grants;
use anyhow::Context as _;
use ipc::Role;
use rustix::time::{ClockId, clock_gettime};
use std::{process::ExitCode, rc::Rc, sync::Arc, time::Duration};

fn main() -> ExitCode {
    daemon::start(&[Role::Accountd], |_| &sandbox::profiles::ACCOUNTD, serve)
}

async fn serve(mut inherited: daemon::Inherited) -> anyhow::Result<()> {
    let slice: config::slice::Accountd = inherited.slice().context("slice")?;
    let control = match inherited.take_listener("control") {
        Some(daemon::Socket::Unix(listener)) => {
            let listener = tokio::net::UnixListener::from_std(listener).context("control")?;
            let admins = slice.control_uids.clone();
            Some((listener, Rc::new(move |uid| admins.contains(&uid)) as accountd::Allowed))
        }
        Some(daemon::Socket::Tcp(_)) | None => None,
    };
    let parser = |(&(role, _), dialer): (&(Role, u16), &ipc::Dialer)| {
        (role == Role::Parser).then(|| dialer.clone())
    };
    let stop = inherited.stop.clone();
    let ready = inherited.ready.clone();
    ready.defer();
    let grants = Grants {
        slice,
        folder: inherited.own_folder.clone().context("no folder of its own")?,
        disk: Arc::new(storage::RealDisk),
        clock: Arc::new(types::SystemClock),
        boot_clock: Rc::new(|| {
            let now = clock_gettime(ClockId::Boottime);
            Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
        }),
        parsers: inherited.dialers.iter().filter_map(parser).collect(),
        resolver: inherited.dialer(Role::Resolver).context("no edge to resolver")?,
        keyholder: inherited.dialer(Role::Keyholder).context("no edge to keyholder")?,
        clients: inherited.acceptors,
        control,
        fatal: Arc::new(|what: &str| {
            tracing::error!(what, "ends: nobody knows what is on the disk");
            std::process::abort();
        }),
        announce: Rc::new(move || ready.announce()),
        workers: daemon::Workers::Threads,
    };
    accountd::run(grants, async move {
        stop.draining().await;
    })
    .await
}
