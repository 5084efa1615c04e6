//! What can be asked, and what comes back.

use hickory_proto::rr::{RData, RecordType};
use std::net::IpAddr;

/// The most records of an answer that are passed on; more than any honest mail domain has.
pub const MAX_RECORDS: usize = 256;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Mail exchangers.
    Mx,
    /// Texts.
    Txt,
    /// Certificate associations (RFC 6698).
    Tlsa,
    /// Aliases.
    Cname,
    /// Name servers.
    Ns,
    /// Services (RFC 2782).
    Srv,
    /// Names of an address.
    Ptr,
    /// Certification authority authorisation (RFC 8659).
    Caa,
}

/// One record of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A or AAAA.
    Ip(IpAddr),
    /// MX; the exchange `.` is the null MX of RFC 7505.
    Mx {
        /// Lower is tried first.
        preference: u16,
        /// Host name, without its trailing dot.
        exchange: String,
    },
    /// TXT, its character strings joined (RFC 7208 §3.3).
    Txt(Vec<u8>),
    /// CNAME, NS or PTR target, without its trailing dot.
    Name(String),
    /// TLSA.
    Tlsa {
        /// Certificate usage.
        usage: u8,
        /// Selector.
        selector: u8,
        /// Matching type.
        matching: u8,
        /// Certificate association data.
        data: Vec<u8>,
    },
    /// SRV.
    Srv {
        /// Lower is tried first.
        priority: u16,
        /// Share among equals.
        weight: u16,
        /// Port.
        port: u16,
        /// Host name, without its trailing dot.
        target: String,
    },
    /// Anything else, in presentation form.
    Other(Vec<u8>),
}

/// Why there is no answer. All of these are temporary to whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No server answered in time.
    Timeout,
    /// The servers answered with an error.
    ServFail,
    /// DNSSEC says the answer is forged or the zone is broken.
    Bogus,
    /// What was asked is no name.
    BadName,
    /// Too much is being asked at once.
    Overload,
}

/// The outcome of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// At least one record.
    Records(Vec<Record>),
    /// The name does not exist (NXDOMAIN).
    NoSuchName,
    /// The name exists and has no such record.
    NoData,
    /// Not known.
    Failed(Failure),
}

/// An answer and how far it can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What was found.
    pub outcome: Outcome,
    /// Whether DNSSEC vouches for it, negative answers included.
    pub authentic: bool,
    /// How long it may be kept.
    pub ttl_seconds: u32,
    /// The name behind all aliases, without its trailing dot; empty if nothing was found.
    pub final_name: String,
}

impl Answer {
    /// The records, none for the other outcomes.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        match &self.outcome {
            Outcome::Records(records) => records,
            Outcome::NoSuchName | Outcome::NoData | Outcome::Failed(_) => &[],
        }
    }

    pub(crate) fn failed(why: Failure) -> Self {
        Self {
            outcome: Outcome::Failed(why),
            authentic: false,
            ttl_seconds: 0,
            final_name: String::new(),
        }
    }
}

impl Kind {
    pub(crate) fn record_type(self) -> RecordType {
        match self {
            Kind::A => RecordType::A,
            Kind::Aaaa => RecordType::AAAA,
            Kind::Mx => RecordType::MX,
            Kind::Txt => RecordType::TXT,
            Kind::Tlsa => RecordType::TLSA,
            Kind::Cname => RecordType::CNAME,
            Kind::Ns => RecordType::NS,
            Kind::Srv => RecordType::SRV,
            Kind::Ptr => RecordType::PTR,
            Kind::Caa => RecordType::CAA,
        }
    }
}

/// A name as we pass it on: lower case is kept as it came, the trailing dot goes, the root stays.
pub(crate) fn host(name: &hickory_proto::rr::Name) -> String {
    let text = name.to_ascii();
    match text.strip_suffix('.') {
        Some("") | None => text,
        Some(rest) => rest.to_owned(),
    }
}

impl Record {
    /// What hickory read, in our words.
    #[expect(clippy::wildcard_enum_match_arm, reason = "hickory's enumeration is open")]
    #[must_use]
    pub fn of(data: &RData) -> Record {
        match data {
            RData::A(a) => Record::Ip(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Record::Ip(IpAddr::V6(aaaa.0)),
            RData::MX(mx) => Record::Mx { preference: mx.preference, exchange: host(&mx.exchange) },
            RData::TXT(txt) => Record::Txt(txt.txt_data.concat()),
            RData::CNAME(name) => Record::Name(host(&name.0)),
            RData::NS(name) => Record::Name(host(&name.0)),
            RData::PTR(name) => Record::Name(host(&name.0)),
            RData::TLSA(tlsa) => Record::Tlsa {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching: tlsa.matching.into(),
                data: tlsa.cert_data.clone(),
            },
            RData::SRV(srv) => Record::Srv {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: host(&srv.target),
            },
            other => Record::Other(other.to_string().into_bytes()),
        }
    }
}
