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

use ipc::Role;
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::start(
        &[Role::ImapdFront, Role::ImapdSession],
        |role| match role == Role::ImapdFront {
            true => &sandbox::profiles::IMAPD_FRONT,
            false => &sandbox::profiles::IMAPD_SESSION,
        },
        imapd::run,
    )
}
