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
            limits: all.limits.http.clone(),
            local: all.local.is_some(),
        }
    }
}
