//! imapd before log-in: TLS and the greeting; then it relays clear text and never holds an account.

use super::{GIB, LOG_FILE};
use crate::{Folders, Grant, Limits, Profile, Tcp, groups};

/// What the role `imapd-front` may do.
pub static IMAPD_FRONT: Profile = Profile {
    role: "imapd-front",
    grants: &[
        Grant {
            group: &groups::RUNTIME,
            why: "the event loop of all connections, and the socket pairs that hand a session over",
        },
        Grant {
            group: &groups::THREADS,
            why: "TLS handshakes that wait for keyholder's signature",
        },
        Grant { group: &groups::MEMORY, why: "line buffers, TLS records of 10,000 idle sessions" },
        Grant { group: &groups::DYING, why: "a panic ends its session only" },
        Grant { group: &groups::SOCKET_IO, why: "IMAP, the relay to the sessions and the edges" },
        Grant { group: &groups::ACCEPT, why: "connections to 143 and 993" },
        Grant {
            group: &groups::FD_CHANNEL,
            why: "listeners and edges come, logged-in sessions go, as descriptors",
        },
    ],
    limits: Limits {
        open_files: 65536,
        memory: 4 * GIB,
        file_size: Some(LOG_FILE),
        threads: 64,
        cpu_seconds: None,
    },
    folders: Folders::None,
    tcp: Tcp::None,
};
