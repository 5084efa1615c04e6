//! What accountd tells a process of the dynamic configuration: as JSON, numbered, as much of it as
//! that process needs.

use serde::{Deserialize, Serialize};

/// One state of the dynamic configuration, for one edge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The hosted domains.
    #[serde(default)]
    pub domains: Vec<SnapshotDomain>,
}

/// A hosted domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDomain {
    /// In ASCII form.
    pub name: String,
    /// Its mail is taken and sent.
    pub enabled: bool,
    /// The name mail clients are told to connect to, if it is not the host's.
    #[serde(default)]
    pub client_settings: Option<String>,
}
