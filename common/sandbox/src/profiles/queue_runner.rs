//! queue-runner: the queue's database and spool; makes DSNs, never touches the network itself.

use super::GIB;
use crate::{Folders, Grant, Limits, Profile, Tcp, groups};

/// What the role `queue-runner` may do.
pub static QUEUE_RUNNER: Profile = Profile {
    role: "queue-runner",
    grants: &[
        Grant { group: &groups::RUNTIME, why: "the event loop, retry timers" },
        Grant { group: &groups::THREADS, why: "SQLite's writer and readers" },
        Grant { group: &groups::MEMORY, why: "SQLite's caches, content in transit" },
        Grant { group: &groups::DYING, why: "a panic rolls a transaction back" },
        Grant { group: &groups::SOCKET_IO, why: "its edges and its control socket" },
        Grant { group: &groups::ACCEPT, why: "moxctl on the control socket" },
        Grant {
            group: &groups::FD_CHANNEL,
            why: "it makes the socket pairs of its edges and gives one end away",
        },
        Grant { group: &groups::FILES, why: "queue.db, reports.db and the spool" },
    ],
    limits: Limits {
        open_files: 8192,
        memory: 4 * GIB,
        file_size: None,
        threads: 128,
        cpu_seconds: None,
    },
    folders: Folders::Own,
    tcp: Tcp::None,
};
