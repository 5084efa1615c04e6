//! httpd for users and strangers: webmail, API and static files; reads its document roots, writes nothing.

use super::{GIB, LOG_FILE};
use crate::{Folders, Grant, Limits, Profile, Tcp, groups};

/// What the role `httpd-web` may do.
pub static HTTPD_WEB: Profile = Profile {
    role: "httpd-web",
    grants: &[
        Grant { group: &groups::RUNTIME, why: "the event loop of all HTTP connections" },
        Grant { group: &groups::THREADS, why: "TLS signatures, reading files" },
        Grant { group: &groups::MEMORY, why: "requests and responses in flight" },
        Grant { group: &groups::DYING, why: "a panic ends its request only" },
        Grant { group: &groups::SOCKET_IO, why: "HTTP and the edges to accountd and keyholder" },
        Grant { group: &groups::ACCEPT, why: "connections to 80 and 443" },
        Grant {
            group: &groups::FD_CHANNEL,
            why: "listeners, roots, new edges and log files from the supervisor",
        },
        Grant { group: &groups::FILES_READ, why: "web assets and document roots" },
    ],
    limits: Limits {
        open_files: 16384,
        memory: 2 * GIB,
        file_size: Some(LOG_FILE),
        threads: 128,
        cpu_seconds: None,
    },
    folders: Folders::ReadOnly,
    tcp: Tcp::None,
};
