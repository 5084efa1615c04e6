//! What `resolver` gets: whom to ask, and who validates.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{DnsMode, Static};

/// The slice of `resolver`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolver {
    /// Servers; those of resolv.conf (read before the sandbox closes) if empty.
    pub servers: Vec<SocketAddr>,
    /// Who validates DNSSEC.
    pub mode: DnsMode,
}

impl Resolver {
    pub(crate) fn of(all: &Static) -> Self {
        Self { servers: all.dns.servers.clone(), mode: all.dns.mode }
    }
}
