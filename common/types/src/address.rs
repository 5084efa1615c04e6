//! Mail addresses: localpart and domain, as RFC 5321 and RFC 6531 write them.

use crate::{Domain, DomainError};
use std::{fmt, net::IpAddr, str::FromStr};
use unicode_normalization::UnicodeNormalization as _;

/// The part before the `@`, unquoted and in NFC; case is kept.
///
/// How two localparts compare (case, separators) is the directory's decision, so equality here is
/// exact.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Localpart(Box<str>);

/// A localpart at a domain: RFC 5321's "Mailbox". ("Mailbox" is the IMAP folder in this project.)
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    localpart: Localpart,
    domain: Domain,
}

/// A reverse-path (RFC 5321 §4.1.2): an address, or null for what must never bounce.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReversePath {
    /// `<>`.
    Null,
    /// `<localpart@domain>`.
    Address(Address),
}

/// What a client says it is in EHLO: a name or an address literal (RFC 5321 §4.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostLiteral {
    /// A domain name.
    Domain(Domain),
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    Ip(IpAddr),
}

/// Why a text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@`.
    #[error("address without @")]
    NoAt,
    /// Empty, over 128 octets, with a control character, or badly quoted.
    #[error("bad localpart")]
    Localpart,
    /// What follows the `@` is no domain name.
    #[error("bad domain: {0}")]
    Domain(#[from] DomainError),
}

impl Localpart {
    /// The longest localpart accepted, in octets. RFC 5321 §4.5.3.1.1 asks for 64; mail with up to
    /// 128 exists.
    pub const MAX_OCTETS: usize = 128;

    /// A localpart from its meaning, that is without quotes or backslashes.
    ///
    /// # Errors
    /// [`AddressError::Localpart`] when it is empty, too long or has a control character.
    pub fn from_unquoted(text: &str) -> Result<Self, AddressError> {
        if text.len() > Self::MAX_OCTETS {
            return Err(AddressError::Localpart);
        }
        // RFC 6532 §3.1 recommends NFC, so that one name has one spelling.
        let text: String = text.nfc().collect();
        if text.is_empty() || text.len() > Self::MAX_OCTETS || text.chars().any(char::is_control) {
            return Err(AddressError::Localpart);
        }
        Ok(Self(text.into_boxed_str()))
    }

    /// The localpart without quoting.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it needs SMTPUTF8 (RFC 6531) to travel.
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        !self.0.is_ascii()
    }

    /// Whether RFC 5321 §4.1.2 lets it stand without quotes (`Dot-string`).
    fn is_dot_string(&self) -> bool {
        self.0.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
    }
}

/// RFC 5322 §3.2.3 `atext`, with RFC 6531 §3.3 `UTF8-non-ascii`.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii()
}

impl FromStr for Localpart {
    type Err = AddressError;

    /// Reads `Dot-string` or `Quoted-string` (RFC 5321 §4.1.2).
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some(quoted) = text.strip_prefix('"') else {
            let local = Self::from_unquoted(text)?;
            return if local.is_dot_string() { Ok(local) } else { Err(AddressError::Localpart) };
        };
        let inner = quoted.strip_suffix('"').ok_or(AddressError::Localpart)?;
        let mut meaning = String::with_capacity(inner.len());
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => meaning.push(chars.next().ok_or(AddressError::Localpart)?),
                '"' => return Err(AddressError::Localpart),
                other => meaning.push(other),
            }
        }
        Self::from_unquoted(&meaning)
    }
}

impl fmt::Display for Localpart {
    /// As it stands in a path: quoted where it must be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_dot_string() {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if c == '"' || c == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

impl fmt::Debug for Localpart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Address {
    /// An address of its two parts.
    #[must_use]
    pub fn new(localpart: Localpart, domain: Domain) -> Self {
        Self { localpart, domain }
    }

    /// The part before the `@`.
    #[must_use]
    pub fn localpart(&self) -> &Localpart {
        &self.localpart
    }

    /// The part behind it.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // The last @ separates: a quoted localpart may hold others.
        let (localpart, domain) = text.rsplit_once('@').ok_or(AddressError::NoAt)?;
        Ok(Self::new(localpart.parse()?, domain.parse()?))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.localpart, self.domain)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ReversePath {
    /// The address, unless null.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }

    /// Reads what stands between the angle brackets; empty is null.
    ///
    /// # Errors
    /// As [`Address::from_str`].
    pub fn from_inner(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() { Ok(Self::Null) } else { text.parse().map(Self::Address) }
    }

    /// The inverse of [`Self::from_inner`]: without angle brackets, empty for null.
    #[must_use]
    pub fn to_inner(&self) -> String {
        self.address().map(ToString::to_string).unwrap_or_default()
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.to_inner())
    }
}

impl FromStr for HostLiteral {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) else {
            return text.parse().map(Self::Domain);
        };
        // RFC 5321 §4.1.3: the tag is case-insensitive.
        let ip = match inner.get(..5) {
            Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
                inner.get(5..).unwrap_or_default().parse().map(IpAddr::V6).ok()
            }
            _ => inner.parse().map(IpAddr::V4).ok(),
        };
        ip.map(Self::Ip).ok_or(DomainError::Invalid)
    }
}

impl fmt::Display for HostLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => write!(f, "{domain}"),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "[{ip}]"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[IPv6:{ip}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_read() {
        for text in ["a@b.example", "\"a b\"@b.example", "\"a\\\"b\"@b.example", "a.b+c@x.example"]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        // Needless quotes go away.
        assert_eq!("\"ab\"@x.example".parse::<Address>().unwrap().to_string(), "ab@x.example");
    }

    #[test]
    fn refuses_bad_localparts() {
        for text in [
            "@x.example",
            "a..b@x.example",
            ".a@x.example",
            "a b@x.example",
            "\"a@x.example",
            "\"a\\\"@x.example",
            "a\r\n@x.example",
            "\"a\rb\"@x.example",
            "\"\"@x.example",
            "<a@x.example",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
        assert!(format!("{}@x.example", "a".repeat(129)).parse::<Address>().is_err());
    }

    #[test]
    fn localparts_are_nfc() {
        assert_eq!("e\u{301}".parse::<Localpart>().unwrap(), "é".parse().unwrap());
    }

    #[test]
    fn host_literals() {
        assert_eq!("[192.0.2.1]".parse::<HostLiteral>().unwrap().to_string(), "[192.0.2.1]");
        assert_eq!("[ipv6:::1]".parse::<HostLiteral>().unwrap().to_string(), "[IPv6:::1]");
        assert!("[::1]".parse::<HostLiteral>().is_err());
        assert!("[192.0.2]".parse::<HostLiteral>().is_err());
    }
}
