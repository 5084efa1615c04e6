//! What `queue-runner` gets: when to retry, and how much at once.

use serde::{Deserialize, Serialize};
use types::Domain;

use crate::{Queue, Static, slice};

/// The slice of `queue-runner`. Its folder holds `queue.db` and the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRunner {
    /// The name of this host: the sender of DSNs.
    #[serde(with = "slice::domain", default = "slice::domain::localhost")]
    pub hostname: Domain,
    /// The schedule.
    #[serde(default)]
    pub queue: Queue,
    /// A development server: everything is local.
    #[serde(default)]
    pub local: bool,
    /// Who may use the control socket, by uid.
    #[serde(default)]
    pub control_uids: Vec<u32>,
}

impl QueueRunner {
    pub(crate) fn of(all: &Static) -> Self {
        Self {
            control_uids: all.control_uids.clone(),
            hostname: all.hostname.clone(),
            queue: all.queue.clone(),
            local: all.local.is_some(),
        }
    }
}
