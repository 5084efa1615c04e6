//! The keys of threading: canonical message-ids, the ids a message refers to, its base subject
//! (RFC 5322 §3.6.4, RFC 5256 §2.1).

use crate::{
    Limits,
    field::{Fields, unfold, unfold_trimmed},
};
use std::collections::VecDeque;
use types::Localpart;

pub use crate::base_subject::{BaseSubject, base_subject};

/// The longest message-id that is a key, in octets (RFC 5322 §2.1.1 bounds its line).
const MAX_ID: usize = 998;

/// The canonical form of a Message-ID value: without brackets, in lower case, the quoting of its
/// localpart minimal, so that one id has one spelling. None if it is no id.
#[must_use]
pub fn canonical_id(value: &[u8]) -> Option<String> {
    let inner = value.trim_ascii().strip_prefix(b"<")?;
    let end = memchr::memchr(b'>', inner)?;
    // Text behind the id is tolerated when it is set off from it.
    if !matches!(inner.get(end + 1), None | Some(b' ' | b'\t')) {
        return None;
    }
    canonical(&inner[..end])
}

fn canonical(inner: &[u8]) -> Option<String> {
    if inner.is_empty() || inner.len() > MAX_ID {
        return None;
    }
    let text = String::from_utf8_lossy(inner).to_lowercase();
    let requoted = text.rsplit_once('@').and_then(|(localpart, domain)| {
        let localpart: Localpart = localpart.parse().ok()?;
        (!domain.is_empty()).then(|| format!("{localpart}@{domain}"))
    });
    // Lower case and U+FFFD may be longer than what they stand for.
    Some(requoted.unwrap_or(text)).filter(|id| id.len() <= MAX_ID)
}

/// The ids in one References or In-Reply-To value, in order. What is not in brackets is passed
/// over, an id that another one cuts off is dropped.
fn ids(value: &[u8]) -> impl Iterator<Item = String> + '_ {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            let start = memchr::memchr(b'<', rest)? + 1;
            rest = &rest[start..];
            let end = memchr::memchr2(b'<', b'>', rest)?;
            let found = &rest[..end];
            if rest[end] == b'<' {
                rest = &rest[end..];
                continue;
            }
            rest = &rest[end + 1..];
            let inner: Vec<u8> =
                found.iter().copied().filter(|b| !matches!(b, b' ' | b'\t')).collect();
            if let Some(id) = canonical(&inner) {
                return Some(id);
            }
        }
    })
}

/// The ids a message refers to, oldest first: those of its References fields, or the first one of
/// In-Reply-To. Of more than [`Limits::REFERENCES`] the first and the last ones are kept.
#[must_use]
pub fn references(block: &[u8]) -> Vec<String> {
    let mut first = None;
    let mut last = VecDeque::new();
    let mut fallback = None;
    for field in Fields::new(block) {
        if field.is("References") {
            for id in ids(&unfold(field.value)) {
                if first.is_none() {
                    first = Some(id);
                    continue;
                }
                if last.len() + 1 >= Limits::REFERENCES {
                    last.pop_front();
                }
                last.push_back(id);
            }
        } else if fallback.is_none() && field.is("In-Reply-To") {
            fallback = ids(&unfold(field.value)).next();
        }
    }
    match first {
        Some(first) => std::iter::once(first).chain(last).collect(),
        None => fallback.into_iter().collect(),
    }
}

/// The canonical id of the first Message-ID field.
#[must_use]
pub fn message_id(block: &[u8]) -> Option<String> {
    let field = Fields::new(block).find(|field| field.is("Message-ID"))?;
    canonical_id(&unfold_trimmed(field.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_ids() {
        let cases: [(&str, Option<&str>); 12] = [
            ("<A@B.test>", Some("a@b.test")),
            (" <a@b> (comment)", Some("a@b")),
            ("<a@b>x", None),
            ("a@b", None),
            ("<>", None),
            ("<a@b", None),
            ("<\"a\"@b>", Some("a@b")),
            ("<\"a b\"@C>", Some("\"a b\"@c")),
            ("<\"a\\\"b\"@c>", Some("\"a\\\"b\"@c")),
            ("<no-at>", Some("no-at")),
            ("<x@@y>", Some("x@@y")),
            ("<a..b@c>", Some("a..b@c")),
        ];
        for (value, expected) in cases {
            assert_eq!(canonical_id(value.as_bytes()).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn a_key_is_never_longer_than_a_line() {
        for unit in [&b"a"[..], b"\xff", "\u{130}".as_bytes(), b"\\\""] {
            for count in [100, 330, 498, 996, 998, 2_000] {
                let value = [b"<", unit.repeat(count).as_slice(), b"@b>"].concat();
                assert!(canonical_id(&value).is_none_or(|id| id.len() <= MAX_ID));
            }
        }
    }

    #[test]
    fn referenced_ids() {
        let block = b"References: junk <a@b> <c@d\r\n <e@f> <G @h>\r\nreferences: <i@j>\r\n\
            In-Reply-To: <k@l>\r\n\r\n";
        assert_eq!(references(block), ["a@b", "e@f", "g@h", "i@j"]);
        assert_eq!(references(b"In-Reply-To: your mail <k@l> <m@n>\r\n"), ["k@l"]);
        assert_eq!(references(b"In-Reply-To: x\r\nIn-Reply-To: <k@l>\r\n"), ["k@l"]);
        assert!(references(b"References: <<<<\r\n").is_empty());
    }

    #[test]
    fn many_references_keep_the_first_and_the_last() {
        let mut block = b"References:".to_vec();
        for i in 0..20_000 {
            block.extend_from_slice(format!(" <{i}@x>").as_bytes());
        }
        let found = references(&block);
        assert_eq!(found.len(), Limits::REFERENCES);
        assert_eq!((found[0].as_str(), found[199].as_str()), ("0@x", "19999@x"));
        assert_eq!(found[1], "19801@x");
    }
}
