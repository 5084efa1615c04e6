//! The `[limits]` tables: how much of anything a stranger may have. Every value has a default; the
//! defaults are those of the behaviour specification.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::read::Section;

const MIB: u64 = 1 << 20;
const MINUTE: Duration = Duration::from_secs(60);

/// A limit for each address class: one address (IPv4 /32, IPv6 /64), its network (/26, /48), its
/// region (/21, /32). All three must have room.
pub type Classes = [u64; 3];

/// All `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// `[limits.gate]`
    pub gate: Gate,
    /// `[limits.delivery]`
    pub delivery: Delivery,
    /// `[limits.smtp]`
    pub smtp: Smtp,
    /// `[limits.imap]`
    pub imap: Imap,
    /// `[limits.http]`
    pub http: Http,
    /// `[limits.keys]`
    pub keys: Keys,
}

/// Who may connect and log in; counted by accountd for all faces together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gate {
    /// New connections in a minute.
    pub connections_per_minute: Classes,
    /// Open connections.
    pub connections: Classes,
    /// Failed log-ins in a minute.
    pub failed_logins_per_minute: Classes,
    /// Failed log-ins in 24 hours.
    pub failed_logins_per_day: Classes,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            connections_per_minute: [300, 900, 2700],
            connections: [30, 90, 270],
            failed_logins_per_minute: [10, 30, 90],
            failed_logins_per_day: [50, 150, 450],
        }
    }
}

/// What strangers may put into one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Delivery {
    /// Messages in a minute.
    pub messages_per_minute: Classes,
    /// Messages in 24 hours.
    pub messages_per_day: Classes,
    /// Octets in a minute.
    pub octets_per_minute: Classes,
    /// Octets in 24 hours.
    pub octets_per_day: Classes,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            messages_per_minute: [500, 1500, 4500],
            messages_per_day: [10_000, 30_000, 90_000],
            octets_per_minute: [1000 * MIB, 3000 * MIB, 9000 * MIB],
            octets_per_day: [3000 * MIB, 9000 * MIB, 27_000 * MIB],
        }
    }
}

/// One SMTP connection, and all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Smtp {
    /// Recipients of one transaction (announced as LIMITS RCPTMAX, RFC 9422).
    pub recipients: u32,
    /// Octets of a command line, its end included.
    pub command_line: u32,
    /// `Received` fields before a message is taken for a loop.
    pub received_fields: u32,
    /// Failed transactions of a connection that never had a good one.
    pub bad_transactions: u32,
    /// Failed log-ins before a connection is closed.
    pub failed_logins: u32,
    /// Wait for the next command (RFC 5321 §4.5.3.2.7: at least 5 minutes).
    pub idle: Duration,
    /// Wait for a write to be taken.
    pub write: Duration,
    /// The whole of one DATA.
    pub data: Duration,
    /// A TLS handshake.
    pub tls_handshake: Duration,
    /// A connection, however busy.
    pub session: Duration,
    /// Open connections of this process.
    pub connections: u32,
}

impl Default for Smtp {
    fn default() -> Self {
        Self {
            recipients: 1000,
            command_line: 2048,
            received_fields: 100,
            bad_transactions: 10,
            failed_logins: 10,
            idle: 5 * MINUTE,
            write: Duration::from_secs(30),
            data: 30 * MINUTE,
            tls_handshake: MINUTE,
            session: 120 * MINUTE,
            connections: 2000,
        }
    }
}

/// One IMAP connection, and all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Imap {
    /// Octets of the lines of a command without its literals; a set of 10,000 UIDs fits.
    pub line: u32,
    /// Octets of one literal that is not a message.
    pub literal: u32,
    /// Octets of all literals of a command that are not messages.
    pub literals_total: u32,
    /// Literals of a command.
    pub literals: u32,
    /// Octets of an appended message (APPENDLIMIT, RFC 7889).
    pub append: u64,
    /// Wait for a line before log-in.
    pub idle_before_login: Duration,
    /// Wait for a line after log-in, and for the end of IDLE (RFC 9051 §5.4: at least 30 minutes).
    pub idle: Duration,
    /// Wait for a write to be taken.
    pub write: Duration,
    /// A TLS handshake.
    pub tls_handshake: Duration,
    /// Failed log-ins before a connection is closed.
    pub failed_logins: u32,
    /// Open connections of `front`.
    pub connections: u32,
}

impl Default for Imap {
    fn default() -> Self {
        Self {
            line: 64 << 10,
            literal: 100 << 10,
            literals_total: 1000 << 10,
            literals: 1000,
            append: 100 * MIB,
            idle_before_login: Duration::from_secs(30),
            idle: 30 * MINUTE,
            write: Duration::from_secs(30),
            tls_handshake: MINUTE,
            failed_logins: 10,
            connections: 20_000,
        }
    }
}

/// One HTTP connection, and all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Http {
    /// Requests in a minute.
    pub requests_per_minute: Classes,
    /// Requests in an hour.
    pub requests_per_hour: Classes,
    /// Wait for the end of a request's header.
    pub header: Duration,
    /// Wait for the next request.
    pub idle: Duration,
    /// Octets of a request's header.
    pub header_octets: u32,
    /// A TLS handshake.
    pub tls_handshake: Duration,
    /// Open connections of this process.
    pub connections: u32,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            requests_per_minute: [1000, 3000, 9000],
            requests_per_hour: [5000, 15_000, 45_000],
            header: Duration::from_secs(30),
            idle: Duration::from_secs(65),
            header_octets: 16 << 10,
            tls_handshake: MINUTE,
            connections: 5000,
        }
    }
}

/// Uses of keyholder in a second, for one edge: above the first mark an alarm is raised, above the
/// second it refuses, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Keys {
    /// TLS handshakes.
    pub tls_alarm: u32,
    /// TLS handshakes.
    pub tls_refuse: u32,
    /// DKIM signatures.
    pub dkim_alarm: u32,
    /// DKIM signatures.
    pub dkim_refuse: u32,
    /// What is sealed, opened and authenticated with the pepper; a log-in takes two.
    pub pepper_alarm: u32,
    /// The same.
    pub pepper_refuse: u32,
    /// Orders about keys: domains told, keys made, listed and retired.
    pub admin_alarm: u32,
    /// The same.
    pub admin_refuse: u32,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            tls_alarm: 200,
            tls_refuse: 2000,
            dkim_alarm: 50,
            dkim_refuse: 500,
            pepper_alarm: 500,
            pepper_refuse: 5000,
            admin_alarm: 500,
            admin_refuse: 5000,
        }
    }
}

impl Limits {
    pub(crate) fn read(section: &Section<'_>) -> Self {
        Self {
            gate: Gate::read(&section.section("gate")),
            delivery: Delivery::read(&section.section("delivery")),
            smtp: Smtp::read(&section.section("smtp")),
            imap: Imap::read(&section.section("imap")),
            http: Http::read(&section.section("http")),
            keys: Keys::read(&section.section("keys")),
        }
    }
}

impl Gate {
    fn read(at: &Section<'_>) -> Self {
        let d = Self::default();
        Self {
            connections_per_minute: at.classes("connections_per_minute", d.connections_per_minute),
            connections: at.classes("connections", d.connections),
            failed_logins_per_minute: at
                .classes("failed_logins_per_minute", d.failed_logins_per_minute),
            failed_logins_per_day: at.classes("failed_logins_per_day", d.failed_logins_per_day),
        }
    }
}

impl Delivery {
    fn read(at: &Section<'_>) -> Self {
        let d = Self::default();
        Self {
            messages_per_minute: at.classes("messages_per_minute", d.messages_per_minute),
            messages_per_day: at.classes("messages_per_day", d.messages_per_day),
            octets_per_minute: at.classes("octets_per_minute", d.octets_per_minute),
            octets_per_day: at.classes("octets_per_day", d.octets_per_day),
        }
    }
}

impl Smtp {
    fn read(at: &Section<'_>) -> Self {
        let d = Self::default();
        Self {
            // RFC 5321 §4.5.3.1.8: at least 100 recipients must be taken.
            recipients: at.count("recipients", d.recipients, 100..100_001),
            // RFC 5321 §4.5.3.1.4: at least 512 octets; extensions add to it.
            command_line: at.count("command_line", d.command_line, 1024..65_537),
            received_fields: at.count("received_fields", d.received_fields, 100..1001),
            bad_transactions: at.count("bad_transactions", d.bad_transactions, 1..1001),
            failed_logins: at.count("failed_logins", d.failed_logins, 1..101),
            idle: at.patience("idle", d.idle),
            write: at.patience("write", d.write),
            data: at.patience("data", d.data),
            tls_handshake: at.patience("tls_handshake", d.tls_handshake),
            session: at.patience("session", d.session),
            connections: at.count("connections", d.connections, 1..100_001),
        }
    }
}

impl Imap {
    fn read(at: &Section<'_>) -> Self {
        let d = Self::default();
        Self {
            // RFC 7162 §4: servers should take lines of 8,192 octets.
            line: at.count("line", d.line, 8192..1_048_577),
            literal: at.count("literal", d.literal, 4096..16_777_217),
            literals_total: at.count("literals_total", d.literals_total, 4096..67_108_865),
            literals: at.count("literals", d.literals, 1..100_001),
            append: at.message_size("append", d.append),
            idle_before_login: at.patience("idle_before_login", d.idle_before_login),
            idle: at.patience("idle", d.idle),
            write: at.patience("write", d.write),
            tls_handshake: at.patience("tls_handshake", d.tls_handshake),
            failed_logins: at.count("failed_logins", d.failed_logins, 1..101),
            connections: at.count("connections", d.connections, 1..100_001),
        }
    }
}

impl Http {
    fn read(at: &Section<'_>) -> Self {
        let d = Self::default();
        Self {
            requests_per_minute: at.classes("requests_per_minute", d.requests_per_minute),
            requests_per_hour: at.classes("requests_per_hour", d.requests_per_hour),
            header: at.patience("header", d.header),
            idle: at.patience("idle", d.idle),
            header_octets: at.count("header_octets", d.header_octets, 4096..1_048_577),
            tls_handshake: at.patience("tls_handshake", d.tls_handshake),
            connections: at.count("connections", d.connections, 1..100_001),
        }
    }
}

impl Keys {
    fn read(at: &Section<'_>) -> Self {
        let d = Self::default();
        let rate = |key, default| at.count(key, default, 1..1_000_001);
        let keys = Self {
            tls_alarm: rate("tls_alarm", d.tls_alarm),
            tls_refuse: rate("tls_refuse", d.tls_refuse),
            dkim_alarm: rate("dkim_alarm", d.dkim_alarm),
            dkim_refuse: rate("dkim_refuse", d.dkim_refuse),
            pepper_alarm: rate("pepper_alarm", d.pepper_alarm),
            pepper_refuse: rate("pepper_refuse", d.pepper_refuse),
            admin_alarm: rate("admin_alarm", d.admin_alarm),
            admin_refuse: rate("admin_refuse", d.admin_refuse),
        };
        for (refuse, alarm, key, fault) in [
            (keys.tls_refuse, keys.tls_alarm, "tls_refuse", "must not be below tls_alarm"),
            (keys.dkim_refuse, keys.dkim_alarm, "dkim_refuse", "must not be below dkim_alarm"),
            (
                keys.pepper_refuse,
                keys.pepper_alarm,
                "pepper_refuse",
                "must not be below pepper_alarm",
            ),
            (keys.admin_refuse, keys.admin_alarm, "admin_refuse", "must not be below admin_alarm"),
        ] {
            if refuse < alarm {
                at.fault_at(key, fault);
            }
        }
        keys
    }
}
