//! Takes out of a message that arrives the Authentication-Results in our name (RFC 8601 §5): who reads
//! ours would believe them, and only we may write them. What names no server that can be read goes,
//! too.
//!
//! Octet by octet, as the message streams by: of a field that may be one, what comes before its name
//! of a server (§2.2: `authserv-id`) is held back until that is read; the body is not looked at.

use crate::trace::FirstLine;
use std::borrow::Cow;
use types::Domain;

const NAME: &[u8] = b"authentication-results";
/// Octets held back. Who puts more comments before the name of a server hides it: no such field
/// passes, nor does text that begins so and turns out to be no header.
const MAX_HELD: usize = 4_096;
/// The longest that can be a name of ours: four octets for each character.
const MAX_ID: usize = Domain::MAX_OCTETS * 4;

/// One message on its way.
#[derive(Debug)]
pub struct Forged {
    ours: Vec<Domain>,
    /// Until it is known whether there is a header at all.
    first: Option<FirstLine>,
    line_start: bool,
    /// A CR at the start of a line, which ends the header if LF follows.
    cr: bool,
    field: Field,
    held: Vec<u8>,
    removed: u32,
}

/// Where we are in the header.
#[derive(Debug)]
enum Field {
    /// So many octets of [`NAME`].
    Name(usize),
    /// Behind it: blanks (RFC 5322 §4.5), then the colon.
    Colon,
    /// Before the name of a server: blanks, line ends, comments so deep.
    Comments { depth: u32, escaped: bool },
    /// In it.
    Id { id: Vec<u8>, quoted: bool, escaped: bool },
    /// It stays.
    Kept,
    /// It goes.
    Removed,
    /// Behind the header.
    Body,
}

impl Forged {
    /// Before the first octet; `ours` are the names we have.
    #[must_use]
    pub fn new(ours: Vec<Domain>) -> Self {
        Self {
            ours,
            first: Some(FirstLine::default()),
            line_start: true,
            cr: false,
            field: Field::Kept,
            held: Vec::new(),
            removed: 0,
        }
    }

    /// What of the message may go on.
    pub fn push<'a>(&mut self, chunk: &'a [u8]) -> Cow<'a, [u8]> {
        let mut out = Vec::new();
        let mut rest = chunk;
        while !matches!(self.field, Field::Body) {
            let Some((&octet, tail)) = rest.split_first() else { return Cow::Owned(out) };
            self.take(octet, &mut out);
            rest = tail;
        }
        if rest.len() == chunk.len() {
            return Cow::Borrowed(chunk);
        }
        out.extend_from_slice(rest);
        Cow::Owned(out)
    }

    /// What was held back when the message ended.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.end_field(&mut out);
        self.end_cr(&mut out);
        out
    }

    /// Fields that were taken out.
    #[must_use]
    pub fn removed(&self) -> u32 {
        self.removed
    }

    fn take(&mut self, octet: u8, out: &mut Vec<u8>) {
        match self.first.as_mut().map(|first| first.take(octet)) {
            None | Some(None) => {}
            Some(Some(true)) => self.first = None,
            // Text alone: an empty line will be put in front of it.
            Some(Some(false)) => {
                self.end_field(out);
                self.end_cr(out);
                out.push(octet);
                self.field = Field::Body;
                return;
            }
        }
        if self.line_start && !self.begin_line(octet, out) {
            return;
        }
        self.line_start = octet == b'\n';
        self.go_on(octet, out);
        if self.held.len() > MAX_HELD {
            self.remove();
        }
    }

    /// The first octet of a line; false when it needs nothing more.
    fn begin_line(&mut self, octet: u8, out: &mut Vec<u8>) -> bool {
        match octet {
            b'\r' if !self.cr => {
                self.cr = true;
                false
            }
            b'\n' => {
                self.end_field(out);
                self.end_cr(out);
                out.push(b'\n');
                self.field = Field::Body;
                false
            }
            b' ' | b'\t' if !self.cr => true,
            _ => {
                self.end_field(out);
                self.field = if self.cr { Field::Kept } else { Field::Name(0) };
                self.end_cr(out);
                true
            }
        }
    }

    fn go_on(&mut self, octet: u8, out: &mut Vec<u8>) {
        match &mut self.field {
            Field::Body | Field::Kept => return out.push(octet),
            Field::Removed => return,
            Field::Name(_) | Field::Colon | Field::Comments { .. } | Field::Id { .. } => {
                self.held.push(octet);
            }
        }
        match &mut self.field {
            Field::Name(at) if NAME.get(*at) == Some(&octet.to_ascii_lowercase()) => {
                *at += 1;
                if *at == NAME.len() {
                    self.field = Field::Colon;
                }
            }
            Field::Colon if octet == b':' => {
                self.field = Field::Comments { depth: 0, escaped: false };
            }
            Field::Colon if is_blank(octet) && octet != b'\n' => {}
            Field::Comments { depth, escaped } => match octet {
                _ if *escaped => *escaped = false,
                b'\\' if *depth > 0 => *escaped = true,
                b'(' => *depth = depth.saturating_add(1),
                b')' if *depth > 0 => *depth -= 1,
                _ if *depth > 0 => {}
                _ if is_blank(octet) => {}
                b'"' => self.field = Field::Id { id: Vec::new(), quoted: true, escaped: false },
                _ if is_token(octet) => {
                    self.field = Field::Id { id: vec![octet], quoted: false, escaped: false };
                }
                // What no reader of the grammar could read, another may take for our name.
                _ => self.remove(),
            },
            Field::Id { id, quoted, escaped } => {
                match octet {
                    _ if std::mem::take(escaped) => id.push(octet),
                    b'\\' if *quoted => *escaped = true,
                    b'\r' | b'\n' if *quoted => {}
                    b'"' if *quoted => return self.decide(out),
                    _ if *quoted || is_token(octet) => id.push(octet),
                    _ => return self.decide(out),
                }
                if id.len() > MAX_ID {
                    self.keep(out);
                }
            }
            Field::Name(_) | Field::Colon | Field::Kept | Field::Removed | Field::Body => {
                self.keep(out);
            }
        }
    }

    /// A CR that ends nothing.
    fn end_cr(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.cr) {
            out.push(b'\r');
        }
    }

    fn end_field(&mut self, out: &mut Vec<u8>) {
        match &self.field {
            Field::Comments { .. } | Field::Id { quoted: true, .. } => self.remove(),
            Field::Id { .. } => self.decide(out),
            Field::Name(_) | Field::Colon | Field::Kept => self.keep(out),
            Field::Removed | Field::Body => {}
        }
        self.field = Field::Kept;
    }

    /// When the name of a server has been read.
    fn decide(&mut self, out: &mut Vec<u8>) {
        let Field::Id { id, .. } = &self.field else { return };
        let text = std::str::from_utf8(id).map(str::trim).unwrap_or_default();
        let goes = match text.parse::<Domain>() {
            // Case and A-labels or U-labels make no difference (RFC 8601 §2.5, RFC 5890 §2.3.2.1).
            Ok(name) => self.ours.contains(&name),
            // No domain's: a word that looks like one of ours, or nothing at all.
            Err(_) => text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_graphic()),
        };
        if goes { self.remove() } else { self.keep(out) }
    }

    fn keep(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.field = Field::Kept;
    }

    fn remove(&mut self) {
        self.held.clear();
        self.removed = self.removed.saturating_add(1);
        self.field = Field::Removed;
    }
}

/// White space, and what some readers take for it.
fn is_blank(octet: u8) -> bool {
    octet <= b' ' || octet == 127
}

/// RFC 2045 §5.1, and what RFC 6532 adds.
fn is_token(octet: u8) -> bool {
    octet > b' ' && octet != 127 && !b"()<>@,;:\\\"/[]?=".contains(&octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(parts: &[&[u8]]) -> (Vec<u8>, u32) {
        let ours = ["mx.example.org", "b\u{fc}cher.example"].map(|name| name.parse().unwrap());
        let mut forged = Forged::new(ours.to_vec());
        let mut out = Vec::new();
        for part in parts {
            out.extend_from_slice(&forged.push(part));
        }
        out.extend_from_slice(&forged.finish());
        (out, forged.removed())
    }

    /// The same at once, in octets, and split in two at every place.
    fn check(message: &str, left: &str, removed: u32) {
        let octets: Vec<&[u8]> = message.as_bytes().chunks(1).collect();
        let want = (left.as_bytes().to_vec(), removed);
        assert_eq!(filter(&octets), want, "{message:?}");
        for at in 0..=message.len() {
            let (head, tail) = message.as_bytes().split_at(at);
            assert_eq!(filter(&[head, tail]), want, "{message:?} at {at}");
        }
    }

    #[test]
    fn what_names_us_goes() {
        for field in [
            "Authentication-Results: mx.example.org; dkim=pass header.d=x.example\r\n",
            "AUTHENTICATION-results: MX.Example.ORG 1; none\r\n",
            "Authentication-Results : mx.example.org; none\r\n",
            "Authentication-Results \t :mx.example.org;none\r\n",
            "Authentication-Results:mx.example.org\r\n",
            "Authentication-Results\r:\x0cmx.example.org\x0b; none\r\n",
            "Authentication-Results:\0\x7f mx.example.org\r\n",
            "Authentication-Results: mx.example.org.; none\r\n",
            "Authentication-Results:\r\n mx.example.org;\r\n\tdkim=pass\r\n \r\n spf=pass\r\n",
            "Authentication-Results: (a (b\\) c) d)\r\n (e) mx.example.org(f); none\r\n",
            "Authentication-Results: \"mx.example.org\"; none\r\n",
            "Authentication-Results: \"\r\n mx\\.example.org\"; none\r\n",
            "Authentication-Results: \"mx.example.org\r\n",
            "Authentication-Results: mx.example.org/1; none\r\n",
            "Authentication-Results: b\u{fc}cher.example; none\r\n",
            "Authentication-Results: XN--BCHER-KVA.example; none\r\n",
            "Authentication-Results: mx.example.org; none\n",
            // What cannot be read goes, whosever it is: some readers make our name of it.
            "Authentication-Results: =?utf-8?q?mx.example.org?=; none\r\n",
            "Authentication-Results: mx.exam\u{200d}ple.org; none\r\n",
            "Authentication-Results: mx.example.org\u{3002}; none\r\n",
            "Authentication-Results: ; mx.example.org\r\n",
            "Authentication-Results: \"\"mx.example.org; none\r\n",
            "Authentication-Results: \"mx.example.org; none\r\n",
            "Authentication-Results: (never closed mx.example.org; none\r\n",
            "Authentication-Results: <mx.example.org>; none\r\n",
            "Authentication-Results: \"\0mx.example.org\"; none\r\n",
            "Authentication-Results:: mx.example.org; none\r\n",
            "Authentication-Results:\r\n",
        ] {
            check(&format!("{field}\r\nbody\r\n"), "\r\nbody\r\n", 1);
            check(&format!("A: b\r\n{field}C: d\r\n"), "A: b\r\nC: d\r\n", 1);
            check(&format!("{field}{field}A: b\r\n c\r\n{field}\r\n"), "A: b\r\n c\r\n\r\n", 3);
            check(&format!("From x 15:00\r\n{field}\n."), "From x 15:00\r\n\n.", 1);
            check(field.trim_end(), "", 1);
        }
    }

    #[test]
    fn everything_else_stays() {
        let results = "Authentication-Results: mx.example.org; dkim=pass\r\n";
        for message in [
            String::new(),
            format!("A: b\r\n\r\n{results}"),
            format!("\r\n{results}\r\n"),
            format!("\n{results}\n"),
            format!("text alone, it was 15:00\r\n{results}\r\n"),
            format!("A: b\r\n {results}\r\n"),
            format!("ARC-{results}X-{results}\r\n"),
            "Authentication-Results: other.example; dkim=pass\r\n\tmx.example.org;\r\n\r\n".into(),
            "Authentication-Results: (mx.example.org) other.example (mx.example.org); x\r\n".into(),
            "Authentication-Results: a.mx.example.org; none\r\n\r\n".into(),
            "Authentication-Results: mx.example.orgs; none\r\n\r\n".into(),
            "Authentication-Results: a_name; none\r\n\r\n".into(),
            "Authentication-Results\r\n : mx.example.org\r\n\r\n".into(),
            "Authentication-Results-Too: mx.example.org\r\n\r\n".into(),
            "Authentication-Result: mx.example.org\r\n\r\n".into(),
            "A: b\r\n\rc\r\n\r\r\n\r\nd".into(),
            "A: b\r\n\r".into(),
            "Authentication-Res".into(),
        ] {
            check(&message, &message, 0);
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let end = "\r\nA: b\r\n\r\n";
        let with = |before: &str, id: &str, after: &str| {
            let field = format!("Authentication-Results: {before}{id};{after}{end}");
            filter(&[field.as_bytes()])
        };
        let long = "x".repeat(1 << 20);
        let some = format!("({})", "x".repeat(MAX_HELD / 2));
        let (out, removed) = with(&some, "mx.example.org", &long);
        assert_eq!((out.as_slice(), removed), (&end.as_bytes()[2..], 1));
        assert_eq!(with(&some, "other.example", &long).1, 0);
        assert_eq!(with("", &long, "").1, 0);
        // Where the name of a server is too far away to be read, it goes, whosever it is.
        let hidden = with(&format!("({long})"), "other.example", &long);
        assert_eq!((hidden.0.as_slice(), hidden.1), (&end.as_bytes()[2..], 1));
        let mut forged = Forged::new(Vec::new());
        drop(forged.push(format!("Authentication-Results: ({long}").as_bytes()));
        assert!(forged.held.capacity() <= 4 * MAX_HELD);
    }

    #[test]
    fn a_body_is_passed_on_as_it_is() {
        let mut forged = Forged::new(Vec::new());
        assert_eq!(forged.push(b"A: b\r\n\r\nc").as_ref(), b"A: b\r\n\r\nc");
        assert!(matches!(forged.push(b"Authentication-Results: x"), Cow::Borrowed(_)));
    }
}
