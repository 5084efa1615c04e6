//! The slice of `mox.toml` that each process gets from the supervisor at start, as JSON in a sealed
//! memfd. One file per binary says what it gets; what is not in its file it cannot know.
//!
//! Supervisor and processes are always of one build, so a slice promises nothing to other versions;
//! fields still carry serde defaults, so that a test can start a process with `{}` and two fields.

mod accountd;
mod httpd;
mod imapd;
mod keyholder;
mod outbound;
mod parser;
mod queue_runner;
mod resolver;
mod smtpd;

pub use accountd::{Accountd, Seed};
pub use httpd::{HttpListener, Httpd, MailServer};
pub use imapd::{ImapListener, ImapdFront, ImapdSession};
pub use keyholder::{CertificateFiles, Keyholder, Names};
pub use outbound::Outbound;
pub use parser::Parser;
pub use queue_runner::QueueRunner;
pub use resolver::Resolver;
pub use smtpd::{SmtpListener, Smtpd};

use serde::Serialize;

use crate::{Kind, Listener, Static};

/// A domain as text, for serde's `with`.
pub(crate) mod domain {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use types::Domain;

    pub(crate) fn serialize<S: Serializer>(domain: &Domain, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(domain.as_ascii())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Domain, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }

    /// What a slice without the field says: tests that start one process alone.
    pub(crate) fn localhost() -> Domain {
        "localhost".parse().expect("localhost is a domain name")
    }
}

/// Domains as a list of texts, for serde's `with`.
pub(crate) mod domains {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use types::Domain;

    pub(crate) fn serialize<S: Serializer>(domains: &[Domain], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(domains.iter().map(Domain::as_ascii))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Domain>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}

/// What one kind of service of one listener is called: the first two parts of its sockets' names.
#[must_use]
pub fn service_name(listener: &str, kind: Kind) -> String {
    format!("{listener}/{}", kind.name())
}

impl Static {
    /// The kinds of service that the role of this name serves.
    #[must_use]
    pub fn kinds_of(role: &str) -> &'static [Kind] {
        match role {
            "smtpd-mx" => &[Kind::Smtp],
            "smtpd-submission" => &[Kind::Submission, Kind::Submissions],
            "imapd-front" => &[Kind::Imap, Kind::Imaps],
            "httpd-web" => &[Kind::Http, Kind::Https],
            "httpd-admin" => &[Kind::Admin, Kind::Metrics],
            _ => &[],
        }
    }

    /// The slice of the role of this name (`ipc::Role::name`), as JSON. `None` for a name that is
    /// no role's.
    #[must_use]
    pub fn slice(&self, role: &str) -> Option<Vec<u8>> {
        Some(match role {
            "smtpd-mx" | "smtpd-submission" => json(&Smtpd::of(self, role)),
            "imapd-front" => json(&ImapdFront::of(self)),
            "imapd-session" => json(&ImapdSession::of(self)),
            "httpd-web" | "httpd-admin" => json(&Httpd::of(self, role)),
            "accountd" => json(&Accountd::of(self)),
            "keyholder" => json(&Keyholder::of(self)),
            "parser" => json(&Parser::of(self)),
            "queue-runner" => json(&QueueRunner::of(self)),
            "outbound" => json(&Outbound::of(self)),
            "resolver" => json(&Resolver::of(self)),
            _ => return None,
        })
    }

    /// Every service of these kinds: its listener's name, the listener, the kind.
    fn services<'s>(
        &'s self,
        kinds: &'static [Kind],
    ) -> impl Iterator<Item = (&'s str, &'s Listener, Kind)> {
        self.listeners.iter().flat_map(move |(name, listener)| {
            let of = listener.services.keys().filter(|kind| kinds.contains(kind));
            of.map(move |&kind| (name.as_str(), listener, kind))
        })
    }
}

fn json(slice: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(slice).expect("a slice is made of texts, numbers and lists")
}
