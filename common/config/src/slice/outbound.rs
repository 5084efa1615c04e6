//! What `outbound` gets: its name in EHLO, its source addresses, whom its TLS believes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use types::Domain;

use crate::{Authorities, Kind, Static, slice};

/// The slice of `outbound`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbound {
    /// The name of this host in EHLO.
    #[serde(with = "slice::domain", default = "slice::domain::localhost")]
    pub hostname: Domain,
    /// Addresses connections come from, at most one of a family: those of the SMTP listeners, if
    /// they are explicit and no more than that.
    #[serde(default)]
    pub source: Vec<IpAddr>,
    /// Whom TLS believes; the files are read before the sandbox closes.
    #[serde(default)]
    pub authorities: Authorities,
}

impl Outbound {
    pub(crate) fn of(all: &Static) -> Self {
        let smtp = all.services(&[Kind::Smtp]);
        let ips: Vec<IpAddr> = smtp.flat_map(|(_, listener, _)| listener.ips.clone()).collect();
        let usable = |ip: &&IpAddr| !ip.is_unspecified() && !ip.is_loopback();
        let only = |v4: bool| {
            let mut of_family = ips.iter().filter(|ip| ip.is_ipv4() == v4);
            let first = of_family.next().filter(usable);
            first.filter(|_| of_family.next().is_none()).copied()
        };
        Self {
            hostname: all.hostname.clone(),
            source: [only(true), only(false)].into_iter().flatten().collect(),
            authorities: all.authorities.clone(),
        }
    }
}
