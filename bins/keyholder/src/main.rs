//! keyholder: keeps the private keys and the pepper, and signs; it never gives a key away.
//!
//! Trust:   hears its peers only, and believes no byte of theirs: it signs exact shapes for the
//!          names of the edge that asks.
//! Runs as: `_mox-keyholder`, its own folder and nothing else, no network.
//! Holds:   TLS and DKIM private keys, the pepper. Asks nobody.
//! Never:   has a call that returns a private key.
//! If it dies: restarted; handshakes and signatures wait a moment or fail for now. A panic aborts.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use daemon::Socket;
use ipc::Role;
use keyholder::{Control, GivenFiles, Grants};
use std::{cell::Cell, process::ExitCode, sync::Arc};
use tokio::net::UnixListener;

fn main() -> ExitCode {
    let fault = Cell::new(None);
    let found = &fault;
    let ended = daemon::start_prepared(
        &[Role::Keyholder],
        |_| &sandbox::profiles::KEYHOLDER,
        |_, _| keyholder::draw_first_random().context("random numbers"),
        |mut inherited, ()| async move {
            let slice: config::slice::Keyholder = inherited.slice().context("slice")?;
            if let Some(listener) = &slice.checks {
                found.set(keyholder::check(listener, &GivenFiles::read(inherited.files)).err());
                return Ok(());
            }
            let control = match inherited.take_listener("control") {
                Some(Socket::Unix(listener)) => {
                    let listener = UnixListener::from_std(listener).context("control socket")?;
                    Some(Control { listener, uids: slice.control_uids.clone() })
                }
                Some(Socket::Tcp(_)) | None => None,
            };
            let grants = Grants {
                slice,
                control,
                folder: inherited.own_folder.take().context("no folder for the keys")?,
                files: GivenFiles::read(inherited.files),
                clients: inherited.acceptors,
                clock: Arc::new(types::SystemClock),
                figures: inherited.figures,
                workers: daemon::Workers::Threads,
            };
            tokio::select! {
                biased;
                done = keyholder::run(grants) => done.context("keyholder"),
                // Nothing to finish: a signature takes less than a millisecond.
                _deadline = inherited.stop.draining() => Ok(()),
            }
        },
    );
    fault.get().map_or(ended, |fault: daemon::PairFault| ExitCode::from(fault.code()))
}
