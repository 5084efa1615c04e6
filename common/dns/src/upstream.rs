//! Which name servers are asked, and how.

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use std::{net::SocketAddr, time::Duration};

/// How long one server is given.
const TIMEOUT: Duration = Duration::from_secs(4);

/// How often a server is asked before the next.
const ATTEMPTS: usize = 2;

/// Answers kept.
const CACHE_ENTRIES: u64 = 10_000;

/// The most servers used.
const MAX_SERVERS: usize = 8;

/// Who decides whether an answer is authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// We validate, from the IANA root keys.
    Validate,
    /// The AD bit of the servers is believed (RFC 6840 §5.8).
    TrustAd,
}

/// How to reach DNS.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) mode: Mode,
}

impl Settings {
    /// These servers, in this order; at most eight of them.
    #[must_use]
    pub fn new(servers: &[SocketAddr], mode: Mode) -> Self {
        Self { servers: servers.iter().copied().take(MAX_SERVERS).collect(), mode }
    }

    pub(crate) fn config(&self) -> ResolverConfig {
        let servers = self.servers.iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut config.connections {
                connection.port = server.port();
            }
            config
        });
        // No search list: names in mail are always whole.
        ResolverConfig::from_parts(None, Vec::new(), servers.collect())
    }

    pub(crate) fn options(&self) -> ResolverOpts {
        let mut options = ResolverOpts::default();
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        options.cache_size = CACHE_ENTRIES;
        options.edns0 = true;
        options.validate = self.mode == Mode::Validate;
        // /etc/hosts is another machine's opinion: mail asks DNS.
        options.use_hosts_file = ResolveHosts::Never;
        options
    }
}

/// The servers of resolv.conf text: its `nameserver` lines with an address, port 53.
#[must_use]
pub fn system_servers(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?
        })
        .filter_map(|address| address.parse().ok())
        .map(|ip| SocketAddr::new(ip, 53))
        .take(MAX_SERVERS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resolv_conf() {
        let text = "# c\nsearch a.example\nnameserver 192.0.2.1 x\nnameserver\nnameserver ::1\n\
                    nameserver fe80::1%eth0\noptions trust-ad\n";
        let servers = system_servers(text);
        assert_eq!(servers, ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(system_servers(&"nameserver ::1\n".repeat(100)).len(), MAX_SERVERS);
    }
}
