//! What `keyholder` gets: which names each edge may use, and which certificates there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::Domain;

use crate::{Certificate, Kind, Static, limits::Keys, slice};

/// The slice of `keyholder`. Its folder holds `tls/`, `dkim/` and `pepper`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyholder {
    /// The name of this host; `HostKeys` signs DKIM as it.
    #[serde(with = "slice::domain", default = "slice::domain::localhost")]
    pub hostname: Domain,
    /// The names each role with TLS (`smtpd-mx`, ..) may use.
    #[serde(default)]
    pub edges: BTreeMap<String, Names>,
    /// Certificates of the administrator.
    #[serde(default)]
    pub certificates: Vec<CertificateFiles>,
    /// Names for which it makes a self-signed ECDSA certificate (P-256, 4 years) if it has none.
    #[serde(with = "slice::domains", default)]
    pub self_signed: Vec<Domain>,
    /// How many signatures one edge may have.
    #[serde(default)]
    pub limits: Keys,
    /// Who may use the control socket, by uid.
    #[serde(default)]
    pub control_uids: Vec<u32>,
    /// It only looks at the certificate and key of this listener, says by the code it ends with what
    /// is wrong with them.
    #[serde(default)]
    pub checks: Option<String>,
}

/// Some names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Names(#[serde(with = "slice::domains")] pub Vec<Domain>);

/// Certificate and key of one listener: opened by the supervisor, which read nothing of them, and
/// handed over as the files `tls/NAME/cert` and `tls/NAME/key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFiles {
    /// The listener's name.
    pub name: String,
    /// Roles that may use it.
    pub roles: Vec<String>,
}

/// The roles that speak TLS.
const TLS_ROLES: [&str; 5] =
    ["smtpd-mx", "smtpd-submission", "imapd-front", "httpd-web", "httpd-admin"];

impl Keyholder {
    pub(crate) fn of(all: &Static) -> Self {
        let mut edges: BTreeMap<String, Names> = BTreeMap::new();
        let mut certificates: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut self_signed = Vec::new();
        for role in TLS_ROLES {
            for (name, listener, kind) in all.services(Static::kinds_of(role)) {
                let Some(tls) = &listener.tls else { continue };
                if kind == Kind::Metrics {
                    continue;
                }
                let host = listener.hostname.as_ref().unwrap_or(&all.hostname);
                let names = &mut edges.entry(role.to_owned()).or_default().0;
                if !names.contains(host) {
                    names.push(host.clone());
                }
                match &tls.certificate {
                    Certificate::Files { .. } => {
                        let roles = certificates.entry(name).or_default();
                        if !roles.iter().any(|known| known == role) {
                            roles.push(role.to_owned());
                        }
                    }
                    Certificate::SelfSigned => {
                        if !self_signed.contains(host) {
                            self_signed.push(host.clone());
                        }
                    }
                }
            }
        }
        let certificates = certificates.into_iter();
        Self {
            control_uids: all.control_uids.clone(),
            hostname: all.hostname.clone(),
            edges,
            certificates: certificates
                .map(|(name, roles)| CertificateFiles { name: name.to_owned(), roles })
                .collect(),
            self_signed,
            limits: all.limits.keys.clone(),
            checks: None,
        }
    }

    /// The slice of a keyholder that only looks at the files of a listener, as JSON.
    #[must_use]
    pub fn that_checks(listener: &str) -> Vec<u8> {
        slice::json(&Self {
            hostname: slice::domain::localhost(),
            edges: BTreeMap::new(),
            certificates: Vec::new(),
            self_signed: Vec::new(),
            limits: Keys::default(),
            control_uids: Vec::new(),
            checks: Some(listener.to_owned()),
        })
    }
}
