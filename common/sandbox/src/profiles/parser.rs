//! parser: bytes of one message in, facts out. Owns nothing, keeps nothing, lives for seconds of CPU.

use super::{LOG_FILE, MIB};
use crate::{Folders, Grant, Limits, Profile, Tcp, groups};

/// What the role `parser` may do.
pub static PARSER: Profile = Profile {
    role: "parser",
    grants: &[
        Grant { group: &groups::RUNTIME, why: "one job after the other from accountd" },
        Grant { group: &groups::THREADS, why: "the watchdog that ends a job above its CPU limit" },
        Grant { group: &groups::MEMORY, why: "the message in hand" },
        Grant { group: &groups::DYING, why: "a panic ends its job" },
        Grant { group: &groups::SOCKET_IO, why: "its edge to accountd" },
        Grant { group: &groups::FD_CHANNEL, why: "its edge comes as a descriptor" },
    ],
    limits: Limits {
        open_files: 64,
        memory: 256 * MIB,
        file_size: Some(LOG_FILE),
        threads: 512,
        cpu_seconds: Some(60),
    },
    folders: Folders::None,
    tcp: Tcp::None,
};
