//! What `parser` gets: its bounds. It never learns whose mail it reads.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Static;

/// The slice of `parser`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Parser {
    /// CPU time of a job, before its size is counted.
    pub cpu_per_job: Duration,
    /// CPU time added for each MiB.
    pub cpu_per_mib: Duration,
    /// CPU time after which it ends itself between two jobs, to begin anew with clean memory.
    pub cpu_of_life: Duration,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            cpu_per_job: Duration::from_secs(2),
            cpu_per_mib: Duration::from_millis(20),
            cpu_of_life: Duration::from_secs(30),
        }
    }
}

impl Parser {
    pub(crate) fn of(_all: &Static) -> Self {
        Self::default()
    }
}
