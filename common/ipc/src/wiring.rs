//! The wiring table: every edge between two processes, in one place. This is the map of all
//! authority inside mox; a row added here is a new right and needs its line in
//! `docs/threat-model.md`.
//!
//! The graph has no cycle (a test checks it), so "who waits for whom" can never close a ring, and
//! start order is simply its topological order: servers before their clients.

use std::{fmt, str::FromStr};

/// A process of mox. One binary may have several roles; each role has its own uid and profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// DNS questions and their validation.
    Resolver,
    /// TLS and DKIM private keys, and the pepper.
    Keyholder,
    /// Reads message content and keeps nothing.
    Parser,
    /// Delivers to other servers.
    Outbound,
    /// Directory, credentials and mail.
    Accountd,
    /// The queue of outgoing mail.
    QueueRunner,
    /// IMAP after log-in.
    ImapdSession,
    /// IMAP until log-in, and the relay behind it.
    ImapdFront,
    /// SMTP from the internet.
    SmtpdMx,
    /// SMTP from users.
    SmtpdSubmission,
    /// The web for users and strangers.
    HttpdWeb,
    /// The web for administrators, and metrics.
    HttpdAdmin,
}

/// What a connector of this edge carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// Cap'n Proto connections, dialled by the client.
    Rpc,
    /// Cap'n Proto connections, and signing slots (SOCK_SEQPACKET) for rustls.
    RpcAndSigningSlots,
    /// Client connections handed over by descriptor; no calls.
    HandOver,
}

/// One row of the table: `client` may ask `server` for `bootstrap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Who asks.
    pub client: Role,
    /// Who answers.
    pub server: Role,
    /// The interface that the client finds at the other end.
    pub bootstrap: &'static str,
    /// What travels.
    pub carries: Carries,
    /// The right in words, for `moxctl processes wiring`.
    pub right: &'static str,
}

impl Role {
    /// All roles, servers before their clients: the order of start.
    pub const ALL: [Role; 12] = [
        Role::Resolver,
        Role::Keyholder,
        Role::Parser,
        Role::Outbound,
        Role::Accountd,
        Role::QueueRunner,
        Role::ImapdSession,
        Role::ImapdFront,
        Role::SmtpdMx,
        Role::SmtpdSubmission,
        Role::HttpdWeb,
        Role::HttpdAdmin,
    ];

    /// The name in logs, `moxctl processes`, user names and argv\[0\].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Resolver => "resolver",
            Role::Keyholder => "keyholder",
            Role::Parser => "parser",
            Role::Outbound => "outbound",
            Role::Accountd => "accountd",
            Role::QueueRunner => "queue-runner",
            Role::ImapdSession => "imapd-session",
            Role::ImapdFront => "imapd-front",
            Role::SmtpdMx => "smtpd-mx",
            Role::SmtpdSubmission => "smtpd-submission",
            Role::HttpdWeb => "httpd-web",
            Role::HttpdAdmin => "httpd-admin",
        }
    }

    /// The file of its binary.
    #[must_use]
    pub const fn binary(self) -> &'static str {
        match self {
            Role::ImapdSession | Role::ImapdFront => "imapd",
            Role::SmtpdMx | Role::SmtpdSubmission => "smtpd",
            Role::HttpdWeb | Role::HttpdAdmin => "httpd",
            Role::Resolver
            | Role::Keyholder
            | Role::Parser
            | Role::Outbound
            | Role::Accountd
            | Role::QueueRunner => self.name(),
        }
    }

    /// Its number on the wire and in tables; never reused.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Role::Resolver => 1,
            Role::Keyholder => 2,
            Role::Parser => 3,
            Role::Outbound => 4,
            Role::Accountd => 5,
            Role::QueueRunner => 6,
            Role::ImapdSession => 7,
            Role::ImapdFront => 8,
            Role::SmtpdMx => 9,
            Role::SmtpdSubmission => 10,
            Role::HttpdWeb => 11,
            Role::HttpdAdmin => 12,
        }
    }

    /// The inverse of [`Self::number`].
    #[must_use]
    pub fn from_number(number: u8) -> Option<Role> {
        Self::ALL.into_iter().find(|role| role.number() == number)
    }

    /// Whether it talks to strangers.
    #[must_use]
    pub const fn is_face(self) -> bool {
        match self {
            Role::ImapdSession
            | Role::ImapdFront
            | Role::SmtpdMx
            | Role::SmtpdSubmission
            | Role::HttpdWeb
            | Role::HttpdAdmin => true,
            Role::Resolver
            | Role::Keyholder
            | Role::Parser
            | Role::Outbound
            | Role::Accountd
            | Role::QueueRunner => false,
        }
    }

    /// The edges on which it is the client.
    pub fn asks(self) -> impl Iterator<Item = &'static Edge> {
        WIRING.iter().filter(move |edge| edge.client == self)
    }

    /// The edges on which it is the server.
    pub fn serves(self) -> impl Iterator<Item = &'static Edge> {
        WIRING.iter().filter(move |edge| edge.server == self)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such process role")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.name() == name).ok_or(UnknownRole)
    }
}

const fn rpc(client: Role, server: Role, bootstrap: &'static str, right: &'static str) -> Edge {
    Edge { client, server, bootstrap, carries: Carries::Rpc, right }
}

const fn tls(client: Role, right: &'static str) -> Edge {
    Edge {
        client,
        server: Role::Keyholder,
        bootstrap: "TlsDoor",
        carries: Carries::RpcAndSigningSlots,
        right,
    }
}

/// Every edge there is.
pub const WIRING: &[Edge] = &[
    rpc(Role::SmtpdMx, Role::Accountd, "MxDoor", "deliver to local recipients"),
    tls(Role::SmtpdMx, "TLS as the MX names"),
    rpc(Role::SmtpdSubmission, Role::Accountd, "SubmissionDoor", "log users in; send as them"),
    tls(Role::SmtpdSubmission, "TLS as the submission names"),
    rpc(Role::ImapdFront, Role::Accountd, "FrontDoor", "log users in; get a ticket"),
    tls(Role::ImapdFront, "TLS as the IMAP names"),
    Edge {
        client: Role::ImapdFront,
        server: Role::ImapdSession,
        bootstrap: "HandOver",
        carries: Carries::HandOver,
        right: "hand a logged-in connection over",
    },
    rpc(Role::ImapdSession, Role::Accountd, "SessionDoor", "turn a ticket into its account"),
    rpc(Role::HttpdWeb, Role::Accountd, "WebDoor", "log users in; their accounts"),
    tls(Role::HttpdWeb, "TLS as the web names"),
    rpc(Role::HttpdAdmin, Role::Accountd, "AdminDoor", "log administrators in"),
    tls(Role::HttpdAdmin, "TLS as the admin names"),
    rpc(Role::Accountd, Role::Parser, "Parser", "have a message read"),
    rpc(Role::Accountd, Role::Resolver, "Resolver", "ask DNS"),
    rpc(
        Role::Accountd,
        Role::Keyholder,
        "AccountdKeys",
        "pepper; DKIM signatures of hosted domains",
    ),
    rpc(Role::QueueRunner, Role::Accountd, "QueueDoor", "take the outbox; deliver locally"),
    rpc(Role::QueueRunner, Role::Outbound, "Outbound", "deliver to other servers"),
    rpc(Role::QueueRunner, Role::Resolver, "Resolver", "ask DNS"),
    rpc(Role::QueueRunner, Role::Keyholder, "HostKeys", "DKIM signatures of the host name"),
    rpc(Role::Outbound, Role::Resolver, "Resolver", "ask DNS"),
];

/// The edge between two roles, if there is one. There is at most one.
#[must_use]
pub fn edge(client: Role, server: Role) -> Option<&'static Edge> {
    WIRING.iter().find(|edge| edge.client == client && edge.server == server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cycle_and_servers_start_first() {
        let place = |role| Role::ALL.iter().position(|&r| r == role).unwrap();
        for edge in WIRING {
            assert!(
                place(edge.server) < place(edge.client),
                "{} must start before {}",
                edge.server,
                edge.client
            );
        }
    }

    #[test]
    fn one_edge_between_two_roles() {
        for (n, a) in WIRING.iter().enumerate() {
            for b in &WIRING[n + 1..] {
                assert!((a.client, a.server) != (b.client, b.server));
            }
        }
    }

    #[test]
    fn numbers_and_names_are_unique() {
        for role in Role::ALL {
            assert_eq!(Role::from_number(role.number()), Some(role));
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert_eq!(Role::from_number(0), None);
    }
}
