//! httpd for administrators: own listener and origin; reads figures from shared memory, no file.

use super::{GIB, LOG_FILE};
use crate::{Folders, Grant, Limits, Profile, Tcp, groups};

/// What the role `httpd-admin` may do.
pub static HTTPD_ADMIN: Profile = Profile {
    role: "httpd-admin",
    grants: &[
        Grant { group: &groups::RUNTIME, why: "the event loop of its HTTP connections" },
        Grant {
            group: &groups::THREADS,
            why: "TLS handshakes that wait for keyholder's signature",
        },
        Grant {
            group: &groups::MEMORY,
            why: "requests in flight; the figures of all processes, mapped to be read",
        },
        Grant { group: &groups::DYING, why: "a panic ends its request only" },
        Grant {
            group: &groups::SOCKET_IO,
            why: "HTTP and the edges to accountd, queue-runner and keyholder",
        },
        Grant { group: &groups::ACCEPT, why: "connections to the admin listener" },
        Grant {
            group: &groups::FD_CHANNEL,
            why: "listeners, figures, new edges and log files from the supervisor",
        },
    ],
    limits: Limits {
        open_files: 2048,
        memory: GIB,
        file_size: Some(LOG_FILE),
        threads: 64,
        cpu_seconds: None,
    },
    folders: Folders::None,
    tcp: Tcp::None,
};
