//! Selectors: `s=`, a DNS name below `_domainkey`, and the name of a key file.

use std::{fmt, str::FromStr};

/// A selector in lower case: one or more labels of letters, digits, `-` and `_`.
///
/// Names a file in keyholder, so what it may be made of is the wall: no slash, no leading dot, no
/// empty label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Box<str>);

/// A text that is no selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a DKIM selector (labels of letters, digits, - and _, at most 63 octets in all)")]
pub struct BadSelector;

impl Selector {
    /// The longest. DNS would allow more than one label of 63; nobody needs it.
    pub const MAX_OCTETS: usize = 63;

    /// The value of `s=`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Selector {
    type Err = BadSelector;

    fn from_str(text: &str) -> Result<Self, BadSelector> {
        let is_label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if text.len() <= Self::MAX_OCTETS && text.split('.').all(is_label) {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err(BadSelector)
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_safe_names() {
        for good in ["2026a", "s1.mail", "a_b", "S-1", &"x".repeat(63)] {
            assert_eq!(good.parse::<Selector>().unwrap().as_str(), good.to_ascii_lowercase());
        }
        for bad in ["", ".", "..", "../x", "a/b", "a..b", ".a", "-a", "a-", "a b", "ü", "a\0"] {
            assert_eq!(bad.parse::<Selector>(), Err(BadSelector), "{bad:?}");
        }
        assert!("x".repeat(64).parse::<Selector>().is_err());
    }
}
