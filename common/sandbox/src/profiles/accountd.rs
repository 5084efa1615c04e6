//! accountd: directory, credentials, every account's database and content. No socket but its peers'.

use super::GIB;
use crate::{Folders, Grant, Limits, Profile, Tcp, groups};

/// What the role `accountd` may do.
pub static ACCOUNTD: Profile = Profile {
    role: "accountd",
    grants: &[
        Grant { group: &groups::RUNTIME, why: "the event loops of its RPC threads" },
        Grant { group: &groups::THREADS, why: "account threads, password hashing" },
        Grant { group: &groups::MEMORY, why: "SQLite's caches, argon2, content in transit" },
        Grant {
            group: &groups::DYING,
            why: "a panic rolls a transaction back and ends one request",
        },
        Grant { group: &groups::SOCKET_IO, why: "its edges and its control socket" },
        Grant { group: &groups::ACCEPT, why: "moxctl on the control socket" },
        Grant {
            group: &groups::FD_CHANNEL,
            why: "it makes the socket pairs of its edges and gives one end away",
        },
        Grant { group: &groups::FILES, why: "accounts/, directory/, its ticket keys" },
    ],
    limits: Limits {
        open_files: 32768,
        memory: 16 * GIB,
        file_size: None,
        threads: 512,
        cpu_seconds: None,
    },
    folders: Folders::Own,
    tcp: Tcp::None,
};
