//! imapd: speaks IMAP; one role before log-in, another behind it.
//!
//! Trust:   faces the network; written on the assumption that it will be taken over.
//! Runs as: `_mox-imapd-front` (listeners, TLS, log-in, then a relay) and `_mox-imapd-session`
//!          (K of them: commands of those who are logged in); no file, no connect(2).
//! Holds:   front: its listeners, `Authenticator`, `TlsSigner`. session: `Tickets`, and an `Account`
//!          for each ticket that front handed over.
//! Never:   front: an account, or more of it than passes through. session: a password, a key, the
//!          network.
//! If it dies: restarted with back-off; clients of that process have to connect again, mail is safe.

#![forbid(unsafe_code)]

use anyhow::anyhow;
use ipc::Role;
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::start_prepared(
        &[Role::ImapdFront, Role::ImapdSession],
        profile,
        |role, _| prepare(role),
        |inherited, ()| imapd::run(inherited),
    )
}

fn profile(role: Role) -> &'static sandbox::Profile {
    if role == Role::ImapdFront {
        &sandbox::profiles::IMAPD_FRONT
    } else {
        &sandbox::profiles::IMAPD_SESSION
    }
}

/// The random generator of TLS looks once at what madvise(2) answers to nonsense, which the sandbox
/// takes for a breach: it is made to look before that closes.
fn prepare(role: Role) -> anyhow::Result<()> {
    if role == Role::ImapdFront {
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        random.fill(&mut [0; 16]).map_err(|_| anyhow!("no random octets"))?;
    }
    Ok(())
}
