//! queue-runner: the queue of mail that is on its way: takes it, delivers it, tries again, reports.
//!
//! Trust:   talks to processes of ours alone; what remote servers say reaches it as short texts.
//! Runs as: `_mox-queue-runner`; its own folder, no network, no listener but the control socket.
//! Holds:   `queue.db` and the spool; `Outbox` and `Delivery` of accountd, `Outbound`,
//!          `HostKeys` (keyholder).
//! Never:   opens an account, sees a private key, opens a connection.
//! If it dies: restarted with back-off; every queued message is on the disk, and no recipient gets
//!          one twice, because accountd knows each delivery by its queue id.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use ipc::Role;
use queue_runner::Grants;
use std::{process::ExitCode, rc::Rc, sync::Arc};
use storage::RealDisk;
use types::SystemClock;

fn main() -> ExitCode {
    daemon::start(&[Role::QueueRunner], |_| &sandbox::profiles::QUEUE_RUNNER, serve)
}

async fn serve(mut inherited: daemon::Inherited) -> anyhow::Result<()> {
    let slice: config::slice::QueueRunner = inherited.slice().context("slice")?;
    let control = match inherited.take_listener("control") {
        Some(daemon::Socket::Unix(listener)) => {
            let listener =
                tokio::net::UnixListener::from_std(listener).context("control socket")?;
            // The socket's mode keeps others than root, moxd's user and its group out already.
            let admins = slice.control_uids.clone();
            let allowed = move |uid: u32| admins.contains(&uid);
            Some((listener, Rc::new(allowed) as queue_runner::Allowed))
        }
        Some(daemon::Socket::Tcp(_)) | None => None,
    };
    let stop = inherited.stop.clone();
    let run = queue_runner::run(Grants {
        hostname: slice.hostname.clone(),
        queue: slice.queue.clone(),
        folder: inherited.own_folder.clone().context("no folder of its own")?,
        disk: Arc::new(RealDisk),
        clock: Rc::new(SystemClock),
        accountd: inherited.dialer(Role::Accountd).context("no edge to accountd")?,
        outbound: inherited.dialer(Role::Outbound).context("no edge to outbound")?,
        keyholder: inherited.dialer(Role::Keyholder).context("no edge to keyholder")?,
        figures: inherited.figures,
        control,
        fatal: Arc::new(|error| {
            tracing::error!(%error, "ends: nobody knows what is on the disk");
            std::process::abort();
        }),
        workers: daemon::Workers::Threads,
    });
    tokio::select! {
        biased;
        // What is under way is on the disk as "begun"; it is tried again after the restart.
        _ = stop.draining() => Ok(()),
        result = run => result,
    }
}
