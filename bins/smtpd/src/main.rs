//! smtpd: speaks SMTP and streams what it is sent to accountd. Role `mx` serves strangers, role
//! `submission` users.
//!
//! Trust:   faces the network; written on the assumption that it will be taken over.
//! Runs as: `_mox-smtpd-mx` or `_mox-smtpd-submission`; no open(2), no connect(2), no folder.
//! Holds:   its listeners; mx: `Inbound`; submission: `Authenticator`, and a `Submitter` for each
//!          user who is logged in; both: signatures of keyholder's for the TLS of its own names.
//! Never:   sees a private key or a password hash, opens an account or a file, keeps a message.
//! If it dies: restarted with back-off; mail not yet answered 250 is still the client's.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use daemon::{Inherited, Socket};
use ipc::Role;
use smtp::server;
use smtpd::Grants;
use std::{process::ExitCode, rc::Rc, sync::Arc};
use types::{SessionId, SystemClock};

fn main() -> ExitCode {
    daemon::start_prepared(
        &[Role::SmtpdMx, Role::SmtpdSubmission],
        profile,
        |_, _| wake_randomness(),
        |inherited, ()| serve(inherited),
    )
}

/// The first random octets of TLS, drawn before the sandbox closes: aws-lc then finds out once how
/// this kernel answers a nonsensical madvise(2), which no profile allows.
fn wake_randomness() -> anyhow::Result<()> {
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut [0; 32]).map_err(|_| anyhow::anyhow!("the system gives no randomness"))
}

fn profile(role: Role) -> &'static sandbox::Profile {
    if role == Role::SmtpdSubmission {
        &sandbox::profiles::SMTPD_SUBMISSION
    } else {
        &sandbox::profiles::SMTPD_MX
    }
}

async fn serve(mut inherited: Inherited) -> anyhow::Result<()> {
    let submission = inherited.role == Role::SmtpdSubmission;
    let role = if submission { server::Role::Submission } else { server::Role::Mx };
    let slice = inherited.slice().context("slice")?;
    let mut listeners = Vec::new();
    for listener in std::mem::take(&mut inherited.listeners) {
        let service = listener.service().to_owned();
        match listener.socket {
            Socket::Tcp(socket) => listeners.push((service, socket)),
            Socket::Unix(_) => anyhow::bail!("listener {} is no TCP socket", listener.name),
        }
    }
    smtpd::run(Grants {
        role,
        slice,
        listeners,
        accountd: inherited.dialer(Role::Accountd).context("no edge to accountd")?,
        keyholder: inherited.dialer(Role::Keyholder).context("no edge to keyholder")?,
        clock: Arc::new(SystemClock),
        new_id: Rc::new(random_id),
        figures: inherited.figures,
        stop: inherited.stop.clone(),
    })
    .await
}

/// 64 random bits, so that an id tells nothing of how many connections there are.
fn random_id() -> Option<SessionId> {
    let mut octets = [0; SessionId::OCTETS];
    getrandom::fill(&mut octets).ok()?;
    Some(SessionId::from_bytes(octets))
}
