//! Domain names as mail uses them: IDNA-checked, lower case, kept in ASCII form.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A DNS name in ASCII (A-label) form, lower case, without a trailing dot.
///
/// At most 253 octets, labels of 1 to 63 (RFC 1035 §2.3.4). Unicode input goes through UTS 46.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Box<str>);

/// Why a text is not a domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Nothing there.
    #[error("empty domain name")]
    Empty,
    /// More than 253 octets, or a label of more than 63.
    #[error("domain name or one of its labels is too long")]
    TooLong,
    /// A character, label or sequence no host name may have.
    #[error("not a domain name")]
    Invalid,
}

impl Domain {
    /// The longest name, in octets of its ASCII form (RFC 1035 §2.3.4, without the root label).
    pub const MAX_OCTETS: usize = 253;

    /// The name in ASCII form: what goes to DNS and into SMTP without SMTPUTF8.
    #[must_use]
    pub fn as_ascii(&self) -> &str {
        &self.0
    }

    /// The name in Unicode form, for people and for SMTPUTF8.
    #[must_use]
    pub fn to_unicode(&self) -> String {
        idna::domain_to_unicode(&self.0).0
    }

    /// Whether this name is `ancestor` or lies below it.
    #[must_use]
    pub fn is_at_or_below(&self, ancestor: &Domain) -> bool {
        self == ancestor
            || self.0.strip_suffix(&*ancestor.0).is_some_and(|rest| rest.ends_with('.'))
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        // An input of many megabytes is refused before UTS 46 looks at each character: 253 octets
        // of ASCII come from at most 253 characters of up to 4 octets.
        if text.len() > Self::MAX_OCTETS * 4 {
            return Err(DomainError::TooLong);
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| DomainError::Invalid)?;
        if ascii.len() > Self::MAX_OCTETS || ascii.split('.').any(|label| label.len() > 63) {
            return Err(DomainError::TooLong);
        }
        // Underscores are no host name characters, but DNS owner names and some old EHLO names
        // carry them; RFC 5321 §4.1.2 does not, so callers that speak SMTP see them refused there.
        let label_is_sound = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !ascii.split('.').all(label_is_sound) {
            return Err(DomainError::Invalid);
        }
        // An address is no name (RFC 5321 §4.1.3 puts it in brackets): nothing would resolve it.
        if ascii.parse::<Ipv4Addr>().is_ok() {
            return Err(DomainError::Invalid);
        }
        Ok(Self(ascii.into_boxed_str()))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unicode_and_ascii_forms_are_one_name() {
        let unicode: Domain = "Bücher.example".parse().unwrap();
        assert_eq!(unicode, "xn--bcher-kva.EXAMPLE.".parse().unwrap());
        assert_eq!(unicode.as_ascii(), "xn--bcher-kva.example");
        assert_eq!(unicode.to_unicode(), "bücher.example");
    }

    #[test]
    fn refuses_what_is_no_name() {
        for text in
            ["", ".", "a..b", "-a.b", "a-.b", "a b", "a/b", "a@b", "a\0b", ".a", "192.0.2.1"]
        {
            assert!(text.parse::<Domain>().is_err(), "{text:?}");
        }
        assert_eq!("a".repeat(64).parse::<Domain>(), Err(DomainError::TooLong));
        assert_eq!("a.".repeat(127).parse::<Domain>().map(|d| d.as_ascii().len()), Ok(253));
        assert!("a.".repeat(128).parse::<Domain>().is_err());
        assert_eq!("ü".repeat(100_000).parse::<Domain>(), Err(DomainError::TooLong));
    }

    #[test]
    fn below_is_by_label() {
        let zone: Domain = "example.org".parse().unwrap();
        assert!("mail.example.org".parse::<Domain>().unwrap().is_at_or_below(&zone));
        assert!(!"badexample.org".parse::<Domain>().unwrap().is_at_or_below(&zone));
    }
}
