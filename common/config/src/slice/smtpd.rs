//! What `smtpd` gets, in both roles: its listeners and limits. No user, no domain but its own names.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use types::Domain;

use crate::{Kind, Static, limits, slice};

/// The slice of `smtpd-mx` and of `smtpd-submission`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smtpd {
    /// The name of this host.
    #[serde(with = "slice::domain", default = "slice::domain::localhost")]
    pub hostname: Domain,
    /// Its services. A socket belongs to the one whose `name` begins the socket's name.
    #[serde(default)]
    pub listeners: Vec<SmtpListener>,
    /// Limits of a connection.
    #[serde(default)]
    pub limits: limits::Smtp,
    /// A development server: no pauses for bad clients.
    #[serde(default)]
    pub local: bool,
    /// Commands are parsed strictly.
    #[serde(default)]
    pub pedantic: bool,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmtpListener {
    /// `LISTENER/KIND`, such as `public/submissions`; sockets are named `LISTENER/KIND/IP:PORT`.
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
    /// Nothing but STARTTLS before TLS: mail (mx), log-in (submission).
    #[serde(default)]
    pub require_tls: bool,
    /// REQUIRETLS is announced.
    #[serde(default)]
    pub requiretls: bool,
    /// Client certificates are asked for.
    #[serde(default)]
    pub client_auth: bool,
    /// TLS 1.2 is refused.
    #[serde(default)]
    pub only_tls_1_3: bool,
    /// The largest message (SIZE, RFC 1870).
    #[serde(default = "message_size")]
    pub max_message_size: u64,
    /// Wait before mail of an unknown sender is taken.
    #[serde(default)]
    pub first_time_sender_delay: Duration,
}

fn message_size() -> u64 {
    100 << 20
}

impl Smtpd {
    pub(crate) fn of(all: &Static, role: &str) -> Self {
        let listeners = all.services(Static::kinds_of(role)).map(|(name, listener, kind)| {
            let service = &listener.services[&kind];
            let tls = listener.tls.as_ref();
            SmtpListener {
                name: slice::service_name(name, kind),
                hostname: listener.hostname.as_ref().unwrap_or(&all.hostname).clone(),
                implicit_tls: kind == Kind::Submissions,
                starttls: service.starttls && tls.is_some(),
                require_tls: service.require_tls,
                requiretls: service.requiretls && tls.is_some(),
                client_auth: kind != Kind::Smtp && tls.is_some_and(|tls| tls.client_auth),
                only_tls_1_3: tls.is_some_and(|tls| tls.only_1_3),
                max_message_size: listener.max_message_size,
                first_time_sender_delay: service.first_time_sender_delay,
            }
        });
        Self {
            hostname: all.hostname.clone(),
            listeners: listeners.collect(),
            limits: all.limits.smtp.clone(),
            local: all.local.is_some(),
            pedantic: all.pedantic,
        }
    }
}
