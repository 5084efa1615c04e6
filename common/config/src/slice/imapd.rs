//! What `imapd` gets: `front` its listeners and limits, `session` its limits.

use serde::{Deserialize, Serialize};
use types::Domain;

use crate::{Kind, Static, limits, slice};

/// The slice of `imapd-front`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImapdFront {
    /// The name of this host.
    #[serde(with = "slice::domain", default = "slice::domain::localhost")]
    pub hostname: Domain,
    /// Its services. A socket belongs to the one whose `name` begins the socket's name.
    #[serde(default)]
    pub listeners: Vec<ImapListener>,
    /// Limits of a connection.
    #[serde(default)]
    pub limits: limits::Imap,
    /// A development server: no pauses for bad clients.
    #[serde(default)]
    pub local: bool,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImapListener {
    /// `LISTENER/KIND`, such as `public/imaps`; sockets are named `LISTENER/KIND/IP:PORT`.
    pub name: String,
    /// The name it greets with.
    #[serde(with = "slice::domain", default = "slice::domain::localhost")]
    pub hostname: Domain,
    /// TLS at once.
    #[serde(default)]
    pub implicit_tls: bool,
    /// STARTTLS is offered.
    #[serde(default)]
    pub starttls: bool,
    /// No log-in before TLS.
    #[serde(default)]
    pub require_tls: bool,
    /// Client certificates are asked for.
    #[serde(default)]
    pub client_auth: bool,
    /// TLS 1.2 is refused.
    #[serde(default)]
    pub only_tls_1_3: bool,
}

/// The slice of `imapd-session`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImapdSession {
    /// The name of this host.
    #[serde(with = "slice::domain", default = "slice::domain::localhost")]
    pub hostname: Domain,
    /// Limits of a connection.
    #[serde(default)]
    pub limits: limits::Imap,
}

impl ImapdFront {
    pub(crate) fn of(all: &Static) -> Self {
        let listeners = all.services(Static::kinds_of("imapd-front"));
        let listeners = listeners.map(|(name, listener, kind)| {
            let service = &listener.services[&kind];
            let tls = listener.tls.as_ref();
            ImapListener {
                name: slice::service_name(name, kind),
                hostname: listener.hostname.as_ref().unwrap_or(&all.hostname).clone(),
                implicit_tls: kind == Kind::Imaps,
                starttls: service.starttls && tls.is_some(),
                require_tls: service.require_tls,
                client_auth: tls.is_some_and(|tls| tls.client_auth),
                only_tls_1_3: tls.is_some_and(|tls| tls.only_1_3),
            }
        });
        Self {
            hostname: all.hostname.clone(),
            listeners: listeners.collect(),
            limits: all.limits.imap.clone(),
            local: all.local.is_some(),
        }
    }
}

impl ImapdSession {
    pub(crate) fn of(all: &Static) -> Self {
        Self { hostname: all.hostname.clone(), limits: all.limits.imap.clone() }
    }
}
