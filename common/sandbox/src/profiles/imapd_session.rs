//! imapd after log-in: one of K instances, holds the accounts that are logged in to it, no key, no network.

use super::{GIB, LOG_FILE};
use crate::{Folders, Grant, Limits, Profile, Tcp, groups};

/// What the role `imapd-session` may do.
pub static IMAPD_SESSION: Profile = Profile {
    role: "imapd-session",
    grants: &[
        Grant { group: &groups::RUNTIME, why: "the event loop of its sessions" },
        Grant { group: &groups::THREADS, why: "work longer than a millisecond leaves the loop" },
        Grant { group: &groups::MEMORY, why: "responses on their way out" },
        Grant { group: &groups::DYING, why: "a panic ends its session only" },
        Grant {
            group: &groups::SOCKET_IO,
            why: "clear text relayed by front, and the edge to accountd",
        },
        Grant { group: &groups::FD_CHANNEL, why: "sessions arrive from front as descriptors" },
    ],
    limits: Limits {
        open_files: 32768,
        memory: 4 * GIB,
        file_size: Some(LOG_FILE),
        threads: 128,
        cpu_seconds: None,
    },
    folders: Folders::None,
    tcp: Tcp::None,
};
