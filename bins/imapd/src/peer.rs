//! Where a connection comes from: told to accountd by front, and again by the session it went to.

use ipc::{capnp, schema::types_capnp::peer};
use std::net::IpAddr;
use types::SessionId;

/// What is known of a client's connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) local_ip: Option<IpAddr>,
    pub(crate) session: SessionId,
    pub(crate) tls: Tls,
    pub(crate) listener: String,
    /// What the client called itself before it logged in.
    pub(crate) agent: String,
}

/// `TlsFacts` of the schema; version 0 without TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tls {
    version: u16,
    cipher_suite: u16,
    exporter: Vec<u8>,
    end_point: Vec<u8>,
    client_key: Vec<u8>,
    server_name: String,
}

/// What the choice of SASL mechanisms depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TlsClass {
    version: u16,
    has_binding: bool,
    has_client_key: bool,
}

impl Tls {
    /// What most clients' TLS is: version 1.3, no client certificate. Its binding binds nothing.
    pub(crate) fn usual() -> Self {
        Self { version: 0x0304, exporter: vec![0; 32], ..Self::default() }
    }

    pub(crate) fn class(&self) -> TlsClass {
        TlsClass {
            version: self.version,
            has_binding: !self.exporter.is_empty() || !self.end_point.is_empty(),
            has_client_key: !self.client_key.is_empty(),
        }
    }
}

impl From<net::TlsFacts> for Tls {
    fn from(facts: net::TlsFacts) -> Self {
        Self {
            version: facts.version,
            cipher_suite: facts.cipher_suite,
            exporter: facts.exporter.map(|e| e.to_vec()).unwrap_or_default(),
            end_point: facts.end_point.unwrap_or_default(),
            client_key: facts.client_key.map(|key| key.to_vec()).unwrap_or_default(),
            server_name: facts.server_name.map(|name| name.to_string()).unwrap_or_default(),
        }
    }
}

impl Peer {
    pub(crate) fn write(&self, mut to: peer::Builder<'_>) {
        to.set_ip(&octets(self.ip));
        to.set_port(self.port);
        to.set_local_ip(&self.local_ip.map(octets).unwrap_or_default());
        to.set_session(self.session.as_bytes());
        to.set_listener(&self.listener);
        to.set_agent(&self.agent);
        let mut tls = to.init_tls();
        tls.set_version(self.tls.version);
        tls.set_cipher_suite(self.tls.cipher_suite);
        tls.set_exporter(&self.tls.exporter);
        tls.set_end_point(&self.tls.end_point);
        tls.set_client_key(&self.tls.client_key);
        tls.set_server_name(&self.tls.server_name);
    }

    pub(crate) fn read(from: peer::Reader<'_>) -> Result<Self, capnp::Error> {
        let wrong = |what: &str| capnp::Error::failed(format!("{what} of a peer is none"));
        let tls = from.get_tls()?;
        Ok(Self {
            ip: address(from.get_ip()?).ok_or_else(|| wrong("address"))?,
            port: from.get_port(),
            local_ip: address(from.get_local_ip()?),
            session: from.get_session()?.try_into().map_err(|_| wrong("session id"))?,
            listener: from.get_listener()?.to_str()?.to_owned(),
            agent: from.get_agent()?.to_str()?.to_owned(),
            tls: Tls {
                version: tls.get_version(),
                cipher_suite: tls.get_cipher_suite(),
                exporter: tls.get_exporter()?.to_vec(),
                end_point: tls.get_end_point()?.to_vec(),
                client_key: tls.get_client_key()?.to_vec(),
                server_name: tls.get_server_name()?.to_str()?.to_owned(),
            },
        })
    }
}

/// IPv4-mapped IPv6 as 4 octets: one address has one form.
fn octets(ip: IpAddr) -> Vec<u8> {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}
