//! Paths of MAIL and RCPT: `<localpart@domain>` with what surrounds it.

use crate::SyntaxError;
use std::{fmt, net::IpAddr};
use types::{Address, Domain, HostLiteral, Localpart};

/// What a client gave as reverse-path. Wider than `types::ReversePath`: an address literal is
/// grammar, but no policy of ours takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReverseGiven {
    /// `<>`.
    Null,
    /// `<localpart@domain>`.
    Address(Address),
    /// `<localpart@[192.0.2.1]>`.
    Literal(Localpart, IpAddr),
}

/// What a client gave as forward-path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain, in any case (RFC 5321 §4.1.1.3).
    Postmaster,
    /// `<localpart@domain>`.
    Address(Address),
    /// `<localpart@[192.0.2.1]>`.
    Literal(Localpart, IpAddr),
}

/// RFC 5321 §4.5.3.1.3: 256 octets with the brackets.
pub(crate) const MAX_PATH: usize = 256;
/// RFC 5321 §4.5.3.1.1, held to in pedantic mode.
const STRICT_LOCALPART: usize = 64;

/// A path cut out of its command, not yet interpreted: whether it may leave ASCII is known only
/// when all parameters are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawPath<'a> {
    inner: &'a str,
}

impl<'a> RawPath<'a> {
    /// Cuts `<...>` off the front; gives the rest of the line too.
    ///
    /// # Errors
    /// [`SyntaxError::Arguments`] without brackets, [`SyntaxError::PathTooLong`].
    pub(crate) fn cut(text: &'a str) -> Result<(Self, &'a str), SyntaxError> {
        let body = text.strip_prefix('<').ok_or(SyntaxError::Arguments("path without brackets"))?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, c) in body.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                '>' if !quoted => {
                    // `at` is the length of what the brackets hold.
                    if at.saturating_add(2) > MAX_PATH {
                        return Err(SyntaxError::PathTooLong);
                    }
                    let (inner, rest) = body.split_at_checked(at).unwrap_or((body, ""));
                    return Ok((Self { inner }, rest.strip_prefix('>').unwrap_or(rest)));
                }
                _ => {}
            }
        }
        Err(SyntaxError::Arguments("path without end"))
    }

    /// Whether it needs SMTPUTF8.
    pub(crate) fn is_ascii(self) -> bool {
        self.inner.is_ascii()
    }

    /// RFC 5321 §4.1.2: `A-d-l ":"` in front is read, checked and dropped.
    fn without_route(self) -> Result<&'a str, SyntaxError> {
        if !self.inner.starts_with('@') {
            return Ok(self.inner);
        }
        let (route, rest) =
            self.inner.split_once(':').ok_or(SyntaxError::Arguments("bad source route"))?;
        let sound = |hop: &str| {
            hop.strip_prefix('@').is_some_and(|domain| domain.parse::<HostLiteral>().is_ok())
        };
        if route.split(',').all(sound) {
            Ok(rest)
        } else {
            Err(SyntaxError::Arguments("bad source route"))
        }
    }

    fn mailbox(text: &str, pedantic: bool) -> Result<(Localpart, HostLiteral), SyntaxError> {
        const BAD: SyntaxError = SyntaxError::Arguments("not an address");
        // The last @ separates: a quoted localpart may hold others.
        let (localpart, host) = text.rsplit_once('@').ok_or(BAD)?;
        let localpart: Localpart = localpart.parse().map_err(|_| BAD)?;
        if pedantic && localpart.as_str().len() > STRICT_LOCALPART {
            return Err(SyntaxError::PathTooLong);
        }
        // RFC 5321 §4.1.2 has neither the root's dot nor underscores, which `Domain` takes.
        if host.ends_with('.') || host.contains('_') {
            return Err(BAD);
        }
        Ok((localpart, host.parse().map_err(|_| BAD)?))
    }

    pub(crate) fn reverse(self, pedantic: bool) -> Result<ReverseGiven, SyntaxError> {
        let text = self.without_route()?;
        if text.is_empty() {
            return Ok(ReverseGiven::Null);
        }
        Ok(match Self::mailbox(text, pedantic)? {
            (localpart, HostLiteral::Domain(domain)) => {
                ReverseGiven::Address(Address::new(localpart, domain))
            }
            (localpart, HostLiteral::Ip(ip)) => ReverseGiven::Literal(localpart, ip),
        })
    }

    pub(crate) fn forward(self, pedantic: bool) -> Result<ForwardPath, SyntaxError> {
        let text = self.without_route()?;
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(ForwardPath::Postmaster);
        }
        Ok(match Self::mailbox(text, pedantic)? {
            (localpart, HostLiteral::Domain(domain)) => {
                ForwardPath::Address(Address::new(localpart, domain))
            }
            (localpart, HostLiteral::Ip(ip)) => ForwardPath::Literal(localpart, ip),
        })
    }
}

impl ForwardPath {
    /// As an address at `host`, which stands in for the domain of a bare `<postmaster>`; none for
    /// an address literal.
    #[must_use]
    pub fn at(&self, host: &Domain) -> Option<Address> {
        match self {
            Self::Postmaster => Localpart::from_unquoted("postmaster")
                .ok()
                .map(|localpart| Address::new(localpart, host.clone())),
            Self::Address(address) => Some(address.clone()),
            Self::Literal(..) => None,
        }
    }
}

impl fmt::Display for ReverseGiven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Address(address) => write!(f, "<{address}>"),
            Self::Literal(localpart, ip) => write!(f, "<{localpart}@{}>", HostLiteral::Ip(*ip)),
        }
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("<postmaster>"),
            Self::Address(address) => write!(f, "<{address}>"),
            Self::Literal(localpart, ip) => write!(f, "<{localpart}@{}>", HostLiteral::Ip(*ip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(text: &str) -> Result<String, SyntaxError> {
        let (raw, rest) = RawPath::cut(text)?;
        raw.forward(false).map(|path| format!("{path}{rest}"))
    }

    #[test]
    fn paths_of_rfc_5321() {
        for (text, want) in [
            ("<a@b.example>", "<a@b.example>"),
            ("<A@B.Example> SIZE=1", "<A@b.example> SIZE=1"),
            ("<@one.example,@two.example:joe@three.example>", "<joe@three.example>"),
            ("<PostMaster>", "<postmaster>"),
            ("<\"a>b\"@c.example>x", "<\"a>b\"@c.example>x"),
            ("<\"a\\\">\"@c.example>", "<\"a\\\">\"@c.example>"),
            ("<a@[192.0.2.1]>", "<a@[192.0.2.1]>"),
            ("<a@[IPv6:2001:db8::1]>", "<a@[IPv6:2001:db8::1]>"),
        ] {
            assert_eq!(forward(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_path() {
        for text in [
            "",
            "a@b.example",
            "<a@b.example",
            "<>",
            "<a>",
            "<a@>",
            "<@b.example>",
            "<a b@c.example>",
            "<@one.example:>",
            "<@-:a@b.example>",
            "<a@b.example.>",
            "<a@b_c.example>",
            "<a@b@c.example>",
            "<\"a@b.example>",
            "<a@[300.0.0.1]>",
            "<a\0@b.example>",
            "<a@b.example\r>",
        ] {
            assert!(forward(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_bound_is_256_with_brackets() {
        let fill = |n: usize| format!("<{}@{}.example>", "a".repeat(100), "b".repeat(n));
        let label = |n: usize| {
            format!("<{}@{}.{}.example>", "a".repeat(100), "b".repeat(63), "c".repeat(n))
        };
        assert!(forward(&fill(63)).is_ok());
        let exact = label(256 - 2 - 100 - 1 - 63 - 1 - 8);
        assert_eq!(exact.len(), 256);
        assert!(RawPath::cut(&exact).is_ok());
        assert_eq!(
            RawPath::cut(&label(256 - 2 - 100 - 1 - 63 - 1 - 7)),
            Err(SyntaxError::PathTooLong)
        );
    }

    #[test]
    fn null_is_a_reverse_path_only() {
        assert_eq!(RawPath::cut("<>").unwrap().0.reverse(false), Ok(ReverseGiven::Null));
        assert!(RawPath::cut("<>").unwrap().0.forward(false).is_err());
    }

    #[test]
    fn pedantic_holds_localparts_to_64() {
        let text = format!("<{}@b.example>", "a".repeat(65));
        assert!(RawPath::cut(&text).unwrap().0.forward(false).is_ok());
        assert!(RawPath::cut(&text).unwrap().0.forward(true).is_err());
    }
}
