//! What `httpd` gets, in both roles: its listeners and limits.

use serde::{Deserialize, Serialize};
use types::Domain;

use crate::{Kind, Static, limits, slice};

/// The slice of `httpd-web` and of `httpd-admin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Httpd {
    /// The name of this host.
    #[serde(with = "slice::domain", default = "slice::domain::localhost")]
    pub hostname: Domain,
    /// Its services. A socket belongs to the one whose `name` begins the socket's name.
    #[serde(default)]
    pub listeners: Vec<HttpListener>,
    /// Where mail clients connect to, the best of a kind first (httpd-web).
    #[serde(default)]
    pub mail: Vec<MailServer>,
    /// Limits of connections and requests.
    #[serde(default)]
    pub limits: limits::Http,
    /// A development server.
    #[serde(default)]
    pub local: bool,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpListener {
    /// `LISTENER/KIND`, such as `public/https`; sockets are named `LISTENER/KIND/IP:PORT`.
    pub name: String,
    /// The listener's own name.
    #[serde(with = "slice::domain", default = "slice::domain::localhost")]
    pub hostname: Domain,
    /// TLS at once.
    #[serde(default)]
    pub tls: bool,
    /// Only figures are served (httpd-admin).
    #[serde(default)]
    pub metrics: bool,
    /// Limits of requests apply.
    #[serde(default)]
    pub rate_limit: bool,
    /// The peer is a proxy whose Forwarded fields are believed.
    #[serde(default)]
    pub forwarded: bool,
    /// TLS 1.2 is refused.
    #[serde(default)]
    pub only_tls_1_3: bool,
    /// The port clients are sent to for TLS, if this service is in clear text and there is one.
    #[serde(default)]
    pub https_port: Option<u16>,
}

/// What the settings page tells people to enter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailServer {
    /// IMAP; else submission of mail.
    pub imap: bool,
    /// The name to connect to.
    #[serde(with = "slice::domain")]
    pub host: Domain,
    /// The port.
    pub port: u16,
    /// TLS at once; else STARTTLS.
    pub implicit_tls: bool,
}

/// The services of the first listener, public ones first, that has any of a kind with TLS.
fn mail_servers(all: &Static) -> Vec<MailServer> {
    let mut found = Vec::new();
    for kinds in [[Kind::Imaps, Kind::Imap], [Kind::Submissions, Kind::Submission]] {
        let mut listeners: Vec<_> = all.listeners.iter().collect();
        listeners.sort_by_key(|(name, listener)| (!listener.public, *name));
        let of_listener = |listener: &crate::Listener| -> Vec<MailServer> {
            let with_tls = kinds.iter().filter_map(|kind| {
                let service = listener.services.get(kind)?;
                (service.tls || (service.starttls && listener.tls.is_some())).then(|| MailServer {
                    imap: matches!(kind, Kind::Imap | Kind::Imaps),
                    host: listener.hostname.as_ref().unwrap_or(&all.hostname).clone(),
                    port: service.port,
                    implicit_tls: service.tls,
                })
            });
            with_tls.collect()
        };
        let first = listeners.iter().map(|(_, listener)| of_listener(listener));
        found.extend(first.into_iter().find(|servers| !servers.is_empty()).unwrap_or_default());
    }
    found
}

impl Httpd {
    pub(crate) fn of(all: &Static, role: &str) -> Self {
        let listeners = all.services(Static::kinds_of(role)).map(|(name, listener, kind)| {
            let service = &listener.services[&kind];
            let https = listener.services.get(&Kind::Https).map(|https| https.port);
            HttpListener {
                name: slice::service_name(name, kind),
                hostname: listener.hostname.as_ref().unwrap_or(&all.hostname).clone(),
                tls: service.tls,
                metrics: kind == Kind::Metrics,
                rate_limit: service.rate_limit,
                forwarded: service.forwarded,
                only_tls_1_3: listener.tls.as_ref().is_some_and(|tls| tls.only_1_3),
                https_port: https.filter(|_| kind == Kind::Http),
            }
        });
        Self {
            hostname: all.hostname.clone(),
            listeners: listeners.collect(),
            mail: if role == "httpd-web" { mail_servers(all) } else { Vec::new() },
            limits: all.limits.http.clone(),
            local: all.local.is_some(),
        }
    }
}
