//! smtpd as MX: speaks with strangers on port 25, owns nothing, opens nothing.

use super::{GIB, LOG_FILE};
use crate::{Folders, Grant, Limits, Profile, Tcp, groups};

/// What the role `smtpd-mx` may do.
pub static SMTPD_MX: Profile = Profile {
    role: "smtpd-mx",
    grants: &[
        Grant { group: &groups::RUNTIME, why: "the event loop of all SMTP connections" },
        Grant {
            group: &groups::THREADS,
            why: "TLS handshakes that wait for keyholder's signature",
        },
        Grant { group: &groups::MEMORY, why: "line buffers, TLS records" },
        Grant { group: &groups::DYING, why: "a panic ends its session only" },
        Grant { group: &groups::SOCKET_IO, why: "SMTP and the edges to accountd and keyholder" },
        Grant { group: &groups::ACCEPT, why: "connections to port 25" },
        Grant {
            group: &groups::FD_CHANNEL,
            why: "listeners, new edges and log files from the supervisor",
        },
    ],
    limits: Limits {
        open_files: 8192,
        memory: 2 * GIB,
        file_size: Some(LOG_FILE),
        threads: 64,
        cpu_seconds: None,
    },
    folders: Folders::None,
    tcp: Tcp::None,
};
