//! Where a client's connection comes from, as the face that accepted it says. Evidence for limits
//! and logs, never authority.

use crate::auth::scram::Bindings;
use std::net::IpAddr;
use types::SessionId;

/// What a face says of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Unmapped.
    pub(crate) ip: IpAddr,
    pub(crate) local_ip: Option<IpAddr>,
    pub(crate) session: SessionId,
    /// None: clear text.
    pub(crate) tls: Option<Tls>,
    /// `LISTENER` or `LISTENER/KIND` of mox.toml.
    pub(crate) listener: String,
    /// What the client called itself so far; without control characters.
    pub(crate) agent: String,
}

/// A TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) version: u16,
    pub(crate) cipher_suite: u16,
    pub(crate) bindings: Bindings,
    /// SHA-256 of the SPKI of the certificate the client showed.
    pub(crate) client_key: Option<[u8; 32]>,
    pub(crate) server_name: String,
}

impl Peer {
    /// Nobody's connection: for work of our own that is counted like a client's.
    pub(crate) fn ourselves() -> Self {
        Self {
            ip: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            local_ip: None,
            session: SessionId::from_bytes([0; 8]),
            tls: None,
            listener: String::new(),
            agent: String::new(),
        }
    }

    /// One line for the log-in history.
    pub(crate) fn tls_text(&self) -> String {
        let Some(tls) = &self.tls else { return String::new() };
        let version = match tls.version {
            0x0304 => "TLS1.3",
            0x0303 => "TLS1.2",
            _ => "TLS",
        };
        format!("{version} 0x{:04x} {}", tls.cipher_suite, tls.server_name)
    }
}
