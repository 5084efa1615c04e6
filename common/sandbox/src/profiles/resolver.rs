//! resolver: DNS questions to the configured servers, DNSSEC validation, the cache.

use super::{GIB, LOG_FILE};
use crate::{Folders, Grant, Limits, Profile, Tcp, groups};

/// What the role `resolver` may do.
pub static RESOLVER: Profile = Profile {
    role: "resolver",
    grants: &[
        Grant { group: &groups::RUNTIME, why: "the event loop of its questions" },
        Grant { group: &groups::THREADS, why: "signature checks leave the loop" },
        Grant { group: &groups::MEMORY, why: "the cache" },
        Grant { group: &groups::DYING, why: "a panic ends its question" },
        Grant { group: &groups::SOCKET_IO, why: "its edges, DNS over TCP" },
        Grant { group: &groups::FD_CHANNEL, why: "its edges come as descriptors" },
        Grant {
            group: &groups::OUTGOING_TCP,
            why: "answers that do not fit a datagram (RFC 7766)",
        },
        Grant { group: &groups::OUTGOING_UDP, why: "questions to DNS servers" },
    ],
    limits: Limits {
        open_files: 4096,
        memory: GIB,
        file_size: Some(LOG_FILE),
        threads: 64,
        cpu_seconds: None,
    },
    folders: Folders::None,
    tcp: Tcp::Outgoing,
};
