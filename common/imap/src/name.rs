//! Names of mailboxes: modified UTF-7 or UTF-8 on the wire, one canonical UTF-8 text inside.
//!
//! Two spellings of one mailbox would be two mailboxes to a client and one to the account, so every
//! name is checked here once, and the decoder refuses what a correct encoder never writes.

use std::fmt;

/// Octets of a name inside.
const MAX_NAME: usize = 1_000;
/// Levels of hierarchy.
const MAX_DEPTH: usize = 20;

/// How names travel in this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// Modified UTF-7 (RFC 3501 §5.1.3).
    #[default]
    Utf7,
    /// UTF-8, after ENABLE IMAP4rev2 (RFC 9051 §5.1).
    Utf8,
}

/// Why a name is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The octets are not what an encoder would write.
    #[error("mailbox name is not valid modified UTF-7 or UTF-8")]
    Encoding,
    /// Empty elements, `.` or `..`, a leading `#`.
    #[error("mailbox name has an empty or reserved element")]
    Element,
    /// Control characters or line separators.
    #[error("mailbox name has a control character")]
    Control,
    /// Too long or too deep.
    #[error("mailbox name is too long or too deep")]
    Bound,
}

/// A mailbox's name: UTF-8, `/` between the levels, the inbox spelt `Inbox`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MailboxName(String);

impl MailboxName {
    /// The inbox.
    pub const INBOX: &str = "Inbox";

    /// A name as UTF-8.
    ///
    /// # Errors
    /// If it could not name a mailbox of ours.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME || text.split('/').count() > MAX_DEPTH {
            return Err(NameError::Bound);
        }
        if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}'))
        {
            return Err(NameError::Control);
        }
        let bad = |part: &str| matches!(part, "" | "." | "..");
        if text.starts_with('#') || text.split('/').any(bad) {
            return Err(NameError::Element);
        }
        // RFC 9051 §5.1: INBOX is one mailbox in any case; its children follow it.
        let (first, rest) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        Ok(Self(match (first.eq_ignore_ascii_case(Self::INBOX), rest) {
            (false, _) => text.to_owned(),
            (true, None) => Self::INBOX.to_owned(),
            (true, Some(rest)) => format!("{}/{rest}", Self::INBOX),
        }))
    }

    /// A name as a client wrote it. A trailing separator, which CREATE allows, is dropped.
    ///
    /// # Errors
    /// If it could not name a mailbox of ours.
    pub fn from_wire(octets: &[u8], names: Names) -> Result<Self, NameError> {
        let text = decode(octets, names)?;
        Self::new(text.strip_suffix('/').unwrap_or(&text))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the inbox.
    #[must_use]
    pub fn is_inbox(&self) -> bool {
        self.0 == Self::INBOX
    }

    /// As it travels. RFC 3501 §9: the inbox is always spelt INBOX, and what is below it too, or a
    /// client that tells case apart sees two trees.
    #[must_use]
    pub fn to_wire(&self, names: Names) -> String {
        match self.0.strip_prefix(Self::INBOX) {
            Some(below) if below.is_empty() || below.starts_with('/') => {
                encode(&format!("INBOX{below}"), names)
            }
            Some(_) | None => encode(&self.0, names),
        }
    }
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a mailbox is for (RFC 6154 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecialUse {
    /// `\Archive`
    Archive,
    /// `\Drafts`
    Drafts,
    /// `\Junk`
    Junk,
    /// `\Sent`
    Sent,
    /// `\Trash`
    Trash,
}

impl SpecialUse {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Archive, Self::Drafts, Self::Junk, Self::Sent, Self::Trash];

    /// The attribute.
    #[must_use]
    pub const fn attribute(self) -> &'static str {
        match self {
            Self::Archive => "\\Archive",
            Self::Drafts => "\\Drafts",
            Self::Junk => "\\Junk",
            Self::Sent => "\\Sent",
            Self::Trash => "\\Trash",
        }
    }

    /// From the attribute.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.attribute().as_bytes().eq_ignore_ascii_case(text))
    }
}

pub(crate) fn decode(octets: &[u8], names: Names) -> Result<String, NameError> {
    match names {
        Names::Utf8 => {
            std::str::from_utf8(octets).map(str::to_owned).map_err(|_| NameError::Encoding)
        }
        Names::Utf7 => decode_utf7(octets).ok_or(NameError::Encoding),
    }
}

pub(crate) fn encode(text: &str, names: Names) -> String {
    match names {
        Names::Utf8 => text.to_owned(),
        Names::Utf7 => encode_utf7(text),
    }
}

/// RFC 3501 §5.1.3: base64 with `,` for `/`.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

fn encode_utf7(text: &str) -> String {
    fn flush(units: &mut Vec<u16>, out: &mut String) {
        if units.is_empty() {
            return;
        }
        out.push('&');
        let (mut buffer, mut bits) = (0u32, 0u32);
        for unit in units.drain(..) {
            buffer = (buffer << 16) | u32::from(unit);
            bits = bits.saturating_add(16);
            while bits >= 6 {
                bits = bits.saturating_sub(6);
                push_digit(buffer >> bits, out);
            }
            buffer &= (1u32 << bits).saturating_sub(1);
        }
        if bits > 0 {
            push_digit(buffer << 6u32.saturating_sub(bits), out);
        }
        out.push('-');
    }
    let (mut out, mut units) = (String::with_capacity(text.len()), Vec::new());
    for c in text.chars() {
        if matches!(c, ' '..='~') {
            flush(&mut units, &mut out);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        }
    }
    flush(&mut units, &mut out);
    out
}

fn push_digit(value: u32, out: &mut String) {
    let at = usize::try_from(value & 63).unwrap_or(0);
    out.push(char::from(DIGITS.get(at).copied().unwrap_or(b'A')));
}

/// None for superfluous or empty shifts, printable ASCII in base64, bits left over, half surrogates,
/// 8-bit octets: each would be a second spelling of a name.
fn decode_utf7(octets: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(octets.len());
    let mut rest = octets;
    let mut after_shift = false;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'&' {
            if !matches!(byte, b' '..=b'~') {
                return None;
            }
            out.push(char::from(byte));
            after_shift = false;
            continue;
        }
        let end = rest.iter().position(|&byte| byte == b'-')?;
        let (digits, tail) = rest.split_at(end);
        rest = tail.get(1..)?;
        if digits.is_empty() {
            out.push('&');
            after_shift = false;
            continue;
        }
        // Two shifts in a row would have been one.
        if after_shift {
            return None;
        }
        after_shift = true;
        let (mut units, mut buffer, mut bits) = (Vec::new(), 0u32, 0u32);
        for digit in digits {
            let value = u32::try_from(DIGITS.iter().position(|d| d == digit)?).ok()?;
            buffer = ((buffer << 6) | value) & 0x3f_ffff;
            bits = bits.saturating_add(6);
            if bits >= 16 {
                bits = bits.saturating_sub(16);
                units.push(u16::try_from((buffer >> bits) & 0xffff).ok()?);
            }
        }
        let left = buffer & (1u32 << bits).saturating_sub(1);
        if bits >= 6 || left != 0 || units.is_empty() {
            return None;
        }
        for c in char::decode_utf16(units) {
            let c = c.ok()?;
            if matches!(c, ' '..='~') {
                return None;
            }
            out.push(c);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_answers() {
        // RFC 3501 §5.1.3.
        let name = "~peter/mail/台北/日本語";
        assert_eq!(encode_utf7(name), "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
        assert_eq!(decode_utf7(b"~peter/mail/&U,BTFw-/&ZeVnLIqe-").as_deref(), Some(name));
        assert_eq!(encode_utf7("a&b"), "a&-b");
        assert_eq!(decode_utf7(b"&Jjo-!").as_deref(), Some("☺!"));
        // RFC 3501 §5.1.3: these are not permitted.
        for bad in [
            "&U,BTFw-&ZeVnLIqe-",
            "&AGE-",
            "&U,BTF",
            "&U,BTF-",
            "&*-",
            "&2D0-",
            "&A-",
            "&AAAAAA",
            "\u{e4}",
            "&U,BTFx-",
            "&Jjo",
        ] {
            assert_eq!(decode_utf7(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn canonical() {
        let name = |text: &str| MailboxName::from_wire(text.as_bytes(), Names::Utf8);
        assert_eq!(name("iNBoX").unwrap().as_str(), "Inbox");
        assert_eq!(name("INBOX/a/").unwrap().as_str(), "Inbox/a");
        assert_eq!(name("Inboxes").unwrap().as_str(), "Inboxes");
        for (given, wire) in [("inbox", "INBOX"), ("Inbox/a", "INBOX/a"), ("Inboxes", "Inboxes")] {
            assert_eq!(name(given).unwrap().to_wire(Names::Utf8), wire);
        }
        assert!(name("inbox").unwrap().is_inbox());
        for (bad, why) in [
            ("", NameError::Element),
            ("/a", NameError::Element),
            ("a//b", NameError::Element),
            ("a/../b", NameError::Element),
            (".", NameError::Element),
            ("#news", NameError::Element),
            ("a\u{1}", NameError::Control),
            ("a\u{85}", NameError::Control),
            ("a\u{2028}", NameError::Control),
        ] {
            assert_eq!(name(bad), Err(why), "{bad:?}");
        }
        assert_eq!(name(&"a/".repeat(60)), Err(NameError::Bound));
        assert_eq!(name(&"a".repeat(1001)), Err(NameError::Bound));
        assert_eq!(MailboxName::from_wire(b"\xff", Names::Utf8), Err(NameError::Encoding));
    }

    proptest! {
        #[test]
        fn print_then_parse(text in "\\PC{0,40}") {
            let wire = encode_utf7(&text);
            prop_assert!(wire.is_ascii());
            let decoded = decode_utf7(wire.as_bytes());
            prop_assert_eq!(decoded.as_deref(), Some(text.as_str()));
        }

        #[test]
        fn one_spelling(octets in "[&A-Za-z0-9+,-]{0,12}") {
            if let Some(text) = decode_utf7(octets.as_bytes()) {
                prop_assert_eq!(encode_utf7(&text), octets);
            }
        }
    }
}
