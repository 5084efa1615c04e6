//! outbound: the only client of other mail and web servers; keeps nothing after a job.

use super::{GIB, LOG_FILE};
use crate::{Folders, Grant, Limits, Profile, Tcp, groups};

/// What the role `outbound` may do.
pub static OUTBOUND: Profile = Profile {
    role: "outbound",
    grants: &[
        Grant { group: &groups::RUNTIME, why: "the event loop of its deliveries" },
        Grant { group: &groups::THREADS, why: "certificate checks leave the loop" },
        Grant { group: &groups::MEMORY, why: "the jobs in hand, TLS records" },
        Grant { group: &groups::DYING, why: "a panic ends its job" },
        Grant { group: &groups::SOCKET_IO, why: "SMTP and HTTPS as a client, its edges" },
        Grant { group: &groups::FD_CHANNEL, why: "its edges come as descriptors" },
        Grant {
            group: &groups::OUTGOING_TCP,
            why: "connections to MX hosts, smarthosts, policy and webhook servers",
        },
    ],
    limits: Limits {
        open_files: 8192,
        memory: 2 * GIB,
        file_size: Some(LOG_FILE),
        threads: 128,
        cpu_seconds: None,
    },
    folders: Folders::None,
    tcp: Tcp::Outgoing,
};
