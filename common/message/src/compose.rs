//! Messages this server writes itself: header fields, text bodies and multiparts as octets.
//!
//! Everything is decided by the arguments (no clock, no randomness), lines are short, folding is
//! only where RFC 5322 lets it be, and no value can add a line: line ends and NUL in values become
//! blanks.

use crate::{date::Date, encoded_word, encoded_word::HEX};
use types::Address;

/// Where a header line is folded (RFC 5322 §2.1.1).
const FOLD_AT: usize = 78;

/// The longest line that may be sent, without its end (RFC 5322 §2.1.1).
const MAX_LINE: usize = 998;

/// The longest quoted-printable line (RFC 2045 §6.7).
const MAX_QP_LINE: usize = 76;

/// A header block under construction.
#[derive(Debug, Clone, Default)]
pub struct Header {
    octets: Vec<u8>,
}

impl Header {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A field whose value stays as it is but for folding at blanks, and for blanks that mean no more
    /// than one does: ids, dates, parameters.
    pub fn field(&mut self, name: &str, value: &str) {
        self.octets.extend_from_slice(name.as_bytes());
        self.octets.extend_from_slice(b":");
        let mut column = name.len() + 1;
        let (mut blanks, mut quoted) = (1, false);
        for word in value.split(|c: char| c.is_ascii_control() || c == ' ') {
            if word.is_empty() {
                // RFC 5322 §3.2.4: a quoted string is what it is with all of its blanks.
                blanks += usize::from(quoted);
                continue;
            }
            if column + blanks + word.len() > FOLD_AT && column > name.len() + 1 {
                self.octets.extend_from_slice(b"\r\n");
                column = 0;
            }
            self.octets.resize(self.octets.len() + blanks, b' ');
            self.octets.extend_from_slice(word.as_bytes());
            column += blanks + word.len();
            blanks = 1;
            quoted ^= turns_quoting(word);
        }
        self.octets.extend_from_slice(b"\r\n");
    }

    /// A field of free text: what is not plain US-ASCII becomes encoded words (RFC 2047).
    pub fn text(&mut self, name: &str, value: &str) {
        self.field(name, &encoded_word::encode(&on_one_line(value)));
    }

    /// A list of addresses with their display names, which may be empty.
    pub fn addresses(&mut self, name: &str, list: &[(&str, &Address)]) {
        let shown: Vec<String> = list
            .iter()
            .map(|(display, address)| match phrase(display) {
                Some(phrase) => format!("{phrase} <{address}>"),
                None => format!("<{address}>"),
            })
            .collect();
        self.field(name, &shown.join(", "));
    }

    /// A date.
    pub fn date(&mut self, name: &str, date: &Date) {
        self.field(name, &date.to_rfc5322());
    }

    /// The fields so far, without the empty line.
    #[must_use]
    pub fn as_octets(&self) -> &[u8] {
        &self.octets
    }
}

/// Whether a quoted string begins or ends in a word, and not both.
fn turns_quoting(word: &str) -> bool {
    let (mut turns, mut escaped) = (false, false);
    for octet in word.bytes() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => turns = !turns,
            _ => {}
        }
    }
    turns
}

fn on_one_line(value: &str) -> String {
    value
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

/// A display name as a phrase (RFC 5322 §3.2.5): atoms, a quoted string or encoded words.
fn phrase(display: &str) -> Option<String> {
    let display = on_one_line(display);
    let is_atoms = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~ ".contains(c);
    if display.is_empty() {
        None
    } else if !display.is_ascii() || display.contains("=?") {
        Some(encoded_word::encode(&display))
    } else if display.chars().all(is_atoms) {
        Some(display)
    } else {
        Some(format!("\"{}\"", display.replace('\\', "\\\\").replace('"', "\\\"")))
    }
}

/// A body with the fields that describe it.
#[derive(Debug, Clone)]
pub struct Entity {
    header: Header,
    body: Vec<u8>,
}

impl Entity {
    /// A text part. `kind` is the media type without charset. Plain US-ASCII goes as it is, all else
    /// as quoted-printable, so that it passes any server.
    #[must_use]
    pub fn text(kind: &str, text: &str) -> Self {
        Self::text_octets(kind, text.as_bytes())
    }

    /// As [`Self::text`] for octets that may be no UTF-8, such as the header of a stranger's mail.
    #[must_use]
    pub fn text_octets(kind: &str, text: &[u8]) -> Self {
        let text = with_crlf(text);
        let mut header = Header::new();
        let is_plain = is_7bit(&text);
        let charset = if text.is_ascii() { "us-ascii" } else { "utf-8" };
        header.field("Content-Type", &format!("{kind}; charset={charset}"));
        if is_plain {
            return Self { header, body: text };
        }
        header.field("Content-Transfer-Encoding", "quoted-printable");
        Self { header, body: quoted_printable(&text) }
    }

    /// A part of any type as it is; 8bit is declared when it has octets above 127.
    #[must_use]
    pub fn verbatim(kind: &str, body: Vec<u8>) -> Self {
        let mut header = Header::new();
        header.field("Content-Type", kind);
        if !body.is_ascii() {
            header.field("Content-Transfer-Encoding", "8bit");
        }
        Self { header, body }
    }

    /// A multipart. `seed` makes the boundary; it is lengthened until it occurs in no part.
    #[must_use]
    pub fn multipart(subtype: &str, params: &str, seed: &str, parts: &[Entity]) -> Self {
        let boundary = boundary(seed, parts);
        let mut header = Header::new();
        let params = if params.is_empty() { String::new() } else { format!("; {params}") };
        header.field(
            "Content-Type",
            &format!("multipart/{subtype}{params}; boundary=\"{boundary}\""),
        );
        if parts.iter().any(|part| !part.body.is_ascii()) {
            header.field("Content-Transfer-Encoding", "8bit");
        }
        let mut body = Vec::new();
        for part in parts {
            body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
            part.write(&mut body);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        Self { header, body }
    }

    /// A field beside those that describe the body, such as Content-Description.
    pub fn add_field(&mut self, name: &str, value: &str) {
        self.header.text(name, value);
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.header.as_octets());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
    }
}

/// A message that was written, and what it needs to travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// The octets.
    pub octets: Vec<u8>,
    /// Whether the header needs SMTPUTF8 (RFC 6531).
    pub needs_smtputf8: bool,
    /// Whether the body needs 8BITMIME (RFC 6152).
    pub needs_8bitmime: bool,
}

/// Puts a message together.
#[must_use]
pub fn message(header: &Header, body: &Entity) -> Composed {
    let mut octets = header.octets.clone();
    octets.extend_from_slice(b"MIME-Version: 1.0\r\n");
    let needs_smtputf8 = !octets.is_ascii() || !body.header.octets.is_ascii();
    body.write(&mut octets);
    Composed { octets, needs_smtputf8, needs_8bitmime: !body.body.is_ascii() }
}

/// A boundary that no line of the parts begins with: it occurs nowhere in them.
fn boundary(seed: &str, parts: &[Entity]) -> String {
    let seed: String = seed.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
    let mut number = 0u64;
    loop {
        let boundary = format!("=_{seed}_{number}");
        let finder = memchr::memmem::Finder::new(&boundary);
        // A part that holds all of many numbers would have to hold each of them: the loop ends
        // after at most one turn per occurrence.
        if parts.iter().all(|part| finder.find(&part.body).is_none()) {
            return boundary;
        }
        number += 1;
    }
}

/// Whether it may be sent without an encoding: US-ASCII without NUL, in lines of at most 998.
fn is_7bit(text: &[u8]) -> bool {
    text.is_ascii()
        && !text.contains(&0)
        && text.split(|&b| b == b'\n').all(|line| line.len() <= MAX_LINE + 1)
}

/// Every line end as CRLF: bare CR and bare LF count as one.
#[must_use]
pub fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 32);
    let mut before = 0;
    for &byte in text {
        match byte {
            b'\n' if before == b'\r' => {}
            b'\r' | b'\n' => out.extend_from_slice(b"\r\n"),
            other => out.push(other),
        }
        before = byte;
    }
    out
}

/// quoted-printable of text with CRLF line ends (RFC 2045 §6.7).
#[must_use]
pub fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8);
    let mut column = 0;
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == b'\r' && rest.first() == Some(&b'\n') {
            rest = &rest[1..];
            out.extend_from_slice(b"\r\n");
            column = 0;
            continue;
        }
        // A blank before a line end would be dropped on the way.
        let at_end = rest.is_empty() || rest.starts_with(b"\r\n");
        let bare = match byte {
            b' ' | b'\t' => !at_end,
            b'=' => false,
            other => other.is_ascii_graphic(),
        };
        let width = if bare { 1 } else { 3 };
        if column + width > MAX_QP_LINE - 1 {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        column += width;
        if bare {
            out.push(byte);
        } else {
            let digit = |value: u8| HEX[usize::from(value)] as u8;
            out.extend_from_slice(&[b'=', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Job, Limits, envelope::mailboxes, transfer::Decoder};
    use proptest::prelude::*;

    #[test]
    fn fields_are_folded_and_hold_no_lines() {
        let mut header = Header::new();
        header.field("Subject", &"word ".repeat(40));
        header.text("X", "a\r\nBcc: evil@x.test\0");
        header.text("Subject", "grün ".repeat(30).as_str());
        let lines: Vec<_> = header.as_octets().split(|&b| b == b'\n').collect();
        assert!(lines.iter().all(|line| line.len() <= FOLD_AT + 1), "{header:?}");
        let text = String::from_utf8(header.octets).unwrap();
        assert!(text.contains("X: a Bcc: evil@x.test\r\n"), "{text}");
    }

    #[test]
    fn addresses_are_read_again() {
        let ann: Address = "ann@a.test".parse().unwrap();
        let odd: Address = "\"a  b \"@b.test".parse().unwrap();
        let list = [("", &ann), ("Ann, \"Q\"", &odd), ("Jörg Müller", &ann), ("Plain Name", &ann)];
        let mut header = Header::new();
        header.addresses("To", &list);
        let envelope = crate::Envelope::read(header.as_octets(), usize::MAX);
        let read: Vec<_> =
            mailboxes(&envelope.to).map(|m| (m.display_name(), m.address().unwrap())).collect();
        let expected: Vec<_> =
            list.iter().map(|(name, address)| ((*name).to_owned(), (*address).clone())).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn a_message_is_read_again() {
        let mut header = Header::new();
        header.text("Subject", "Größe");
        let parts = [
            Entity::text("text/plain", "Grüße\n--=_seed_0\nEnde \n"),
            Entity::text("text/plain", "plain\n"),
            Entity::verbatim("message/rfc822", b"A: b\r\n\r\n=_seed_1 \xe4\r\n".to_vec()),
        ];
        let composed = message(&header, &Entity::multipart("mixed", "", "seed", &parts));
        assert!(!composed.needs_smtputf8 && composed.needs_8bitmime);
        let mut job = Job::new(Limits::default());
        job.push(&composed.octets);
        let facts = job.finish();
        assert_eq!(facts.subject, "Größe");
        assert_eq!(facts.structure.parts.len(), 5);
        assert_eq!(facts.texts[0].text, "Grüße\r\n--=_seed_0\r\nEnde \r\n");
        assert_eq!(facts.texts[1].text, "plain\r\n");
    }

    proptest! {
        #[test]
        fn quoted_printable_there_and_back(text: Vec<u8>) {
            let text = with_crlf(&text);
            let encoded = quoted_printable(&text);
            prop_assert!(is_7bit(&encoded));
            prop_assert!(encoded.split(|&b| b == b'\n').all(|line| line.len() <= MAX_QP_LINE + 1));
            let mut out = Vec::new();
            let mut decoder = Decoder::new(crate::media::Encoding::QuotedPrintable);
            decoder.push(&encoded, &mut out);
            decoder.finish(&mut out);
            prop_assert_eq!(out, text);
        }

        #[test]
        fn values_never_add_a_line(value: String) {
            let mut header = Header::new();
            header.text("X", &value);
            header.field("Y", &value);
            let fields: Vec<_> = crate::field::Fields::new(header.as_octets()).collect();
            prop_assert_eq!(fields.len(), 2);
            prop_assert!(fields[0].is("X") && fields[1].is("Y"));
        }
    }
}
