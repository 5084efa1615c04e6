//! Canonical forms of header fields, and the block of them that is signed.

use super::fields::Field;
use std::{fmt, str::FromStr};

/// How much of a message may change on its way without breaking the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Canonicalization {
    /// Nearly nothing (RFC 6376 §3.4.1, §3.4.3).
    Simple,
    /// White space and the case of field names (RFC 6376 §3.4.2, §3.4.4).
    #[default]
    Relaxed,
}

impl Canonicalization {
    /// The name in `c=`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Canonicalization::Simple => "simple",
            Canonicalization::Relaxed => "relaxed",
        }
    }

    /// Appends a header field in canonical form, with its CRLF.
    pub(super) fn header_field(self, field: &Field<'_>, out: &mut Vec<u8>) {
        match self {
            Canonicalization::Simple => out.extend_from_slice(field.raw()),
            Canonicalization::Relaxed => {
                out.extend(field.name().iter().map(u8::to_ascii_lowercase));
                out.push(b':');
                relaxed_value(field.value(), out);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// Unfolds, makes each run of white space one space, and drops it at both ends.
fn relaxed_value(value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut after_space = false;
    let mut rest = value;
    while let Some((&octet, tail)) = rest.split_first() {
        match octet {
            b' ' | b'\t' => after_space = true,
            // A fold is a CRLF before white space, so the white space alone stays. Other CR and LF
            // do not stand in a field of ours.
            b'\r' if tail.first() == Some(&b'\n') => {
                rest = tail.get(1..).unwrap_or_default();
                continue;
            }
            _ => {
                if std::mem::take(&mut after_space) && out.len() > start {
                    out.push(b' ');
                }
                out.push(octet);
            }
        }
        rest = tail;
    }
}

impl fmt::Display for Canonicalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no canonicalization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither simple nor relaxed")]
pub struct UnknownCanonicalization;

impl FromStr for Canonicalization {
    type Err = UnknownCanonicalization;

    fn from_str(name: &str) -> Result<Self, UnknownCanonicalization> {
        match name {
            "simple" => Ok(Canonicalization::Simple),
            "relaxed" => Ok(Canonicalization::Relaxed),
            _unknown => Err(UnknownCanonicalization),
        }
    }
}

/// The block that is hashed and signed (RFC 6376 §3.7): the fields that `signed` names, in that
/// order, then the signature field itself, which must end with its empty `b=`.
///
/// A name that stands n times takes the last n fields of that name, the last one first; one that
/// has no (more) field takes nothing, and so seals its absence (RFC 6376 §5.4.2).
#[must_use]
pub fn header_block<'n>(
    canonicalization: Canonicalization,
    fields: &[Field<'_>],
    signed: impl IntoIterator<Item = &'n str>,
    signature: &Field<'_>,
) -> Vec<u8> {
    let mut block = Vec::new();
    let mut taken = vec![false; fields.len()];
    for name in signed {
        let found =
            fields.iter().zip(&mut taken).rev().find(|(field, taken)| {
                !**taken && field.name().eq_ignore_ascii_case(name.as_bytes())
            });
        if let Some((field, taken)) = found {
            *taken = true;
            canonicalization.header_field(field, &mut block);
        }
    }
    canonicalization.header_field(signature, &mut block);
    // RFC 6376 §3.7 step 2: "without a trailing CRLF".
    block.truncate(block.len().saturating_sub(2));
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkim::fields;

    fn block(canonicalization: Canonicalization, header: &[u8], names: &[&str]) -> Vec<u8> {
        let fields = fields(header).unwrap();
        let signature = Field::parse(b"DKIM-Signature: v=1;\r\n b=\r\n").unwrap();
        header_block(canonicalization, &fields, names.iter().copied(), &signature)
    }

    #[test]
    fn example_of_the_rfc() {
        // RFC 6376 §3.4.5.
        let header = b"A: X\r\nB : Y\t\r\n\tZ  \r\n";
        assert_eq!(
            block(Canonicalization::Relaxed, header, &["a", "b"]),
            b"a:X\r\nb:Y Z\r\ndkim-signature:v=1; b="
        );
        assert_eq!(
            block(Canonicalization::Simple, header, &["a", "b"]),
            b"A: X\r\nB : Y\t\r\n\tZ  \r\nDKIM-Signature: v=1;\r\n b="
        );
    }

    #[test]
    fn repeated_and_missing_names() {
        let header = b"X: 1\r\nY: 2\r\nX: 3\r\nX: 5\r\n";
        assert_eq!(
            block(Canonicalization::Relaxed, header, &["x", "none", "X", "y", "y"]),
            b"x:5\r\nx:3\r\ny:2\r\ndkim-signature:v=1; b="
        );
    }

    #[test]
    fn relaxed_is_its_own_fixed_point() {
        for value in ["  a  b ", "\r\n\ta\r\n b\t\r\n\tc", "", " ", "\ta"] {
            let mut once = Vec::new();
            relaxed_value(value.as_bytes(), &mut once);
            let mut twice = Vec::new();
            relaxed_value(&once, &mut twice);
            assert_eq!(once, twice, "{value:?}");
        }
    }
}
