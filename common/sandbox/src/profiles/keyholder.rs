//! keyholder: all private keys and nobody to tell. Signs exact shapes for the names of an edge.

use super::MIB;
use crate::{Folders, Grant, Limits, Profile, Tcp, groups};

/// What the role `keyholder` may do.
pub static KEYHOLDER: Profile = Profile {
    role: "keyholder",
    grants: &[
        Grant { group: &groups::RUNTIME, why: "waiting for requests" },
        Grant {
            group: &groups::THREADS,
            why: "one thread an edge, so that no edge waits for another",
        },
        Grant { group: &groups::MEMORY, why: "keys and requests" },
        Grant { group: &groups::DYING, why: "it aborts on a panic" },
        Grant { group: &groups::SOCKET_IO, why: "signing slots and edges, its control socket" },
        Grant { group: &groups::ACCEPT, why: "moxctl on the control socket" },
        Grant {
            group: &groups::FD_CHANNEL,
            why: "it makes the signing slots and gives one end away",
        },
        Grant { group: &groups::FILES, why: "keys/" },
    ],
    limits: Limits {
        open_files: 4096,
        memory: 512 * MIB,
        file_size: None,
        threads: 256,
        cpu_seconds: None,
    },
    folders: Folders::Own,
    tcp: Tcp::None,
};
