//! outbound: delivers to other mail servers, and says what they answered.
//!
//! Trust:   reads what strangers' servers send; written on the assumption that it will be taken over.
//! Runs as: `_mox-outbound`; outgoing sockets, no file, no listener.
//! Holds:   the job in hand. Asked by queue-runner; asks `Resolver`.
//! Never:   sees a mailbox, a private key, the queue.
//! If it dies: restarted with back-off; what it had in hand is tried again by queue-runner.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use ipc::Role;
use outbound::{Grants, SMTP_PORT};
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::start_prepared(
        &[Role::Outbound],
        |_| &sandbox::profiles::OUTBOUND,
        |_, slice| authorities(slice),
        |inherited, tls| async move {
            let slice: config::slice::Outbound = inherited.slice().context("slice")?;
            let resolver = inherited.dialer(Role::Resolver).context("no edge to resolver")?;
            let run = outbound::run(Grants {
                connect: outbound::tcp(slice.source, SMTP_PORT),
                tls,
                resolver,
                clients: inherited.acceptors,
            });
            tokio::select! {
                biased;
                // A dialogue that is cut off is tried again by queue-runner.
                _ = inherited.stop.draining() => {}
                () = run => {}
            }
            Ok(())
        },
    )
}

/// Reads whom TLS believes, and lets the random generator look at its surroundings, before the
/// sandbox closes.
fn authorities(slice: &[u8]) -> anyhow::Result<net::ClientTls> {
    net::draw_first_random().context("random numbers")?;
    let slice: config::slice::Outbound = serde_json::from_slice(slice).context("slice")?;
    let roots = outbound::authorities::load(&slice.authorities)?;
    net::ClientTls::new(roots).context("certificate authorities")
}
