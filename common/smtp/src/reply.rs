//! What a server answers: a code, an enhanced code, a text.

use std::fmt;
use types::SessionId;

/// An enhanced status code, RFC 3463 §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Enhanced {
    /// 2, 4 or 5.
    pub class: u8,
    /// What it is about: 1 address, 2 mailbox, 3 system, 4 network, 5 protocol, 6 content, 7 policy.
    pub subject: u16,
    /// The detail within the subject.
    pub detail: u16,
}

impl Enhanced {
    /// Reads `class.subject.detail`, each of at most three digits (RFC 3463 §2).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut number = |most: usize| {
            let part = parts.next()?;
            let sound = part.len() <= most && part.bytes().all(|b| b.is_ascii_digit());
            if sound { part.parse::<u16>().ok() } else { None }
        };
        let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
        let class = u8::try_from(class).ok().filter(|c| matches!(c, 2 | 4 | 5))?;
        if parts.next().is_some() { None } else { Some(Self { class, subject, detail }) }
    }
}

impl From<(u8, u16, u16)> for Enhanced {
    fn from((class, subject, detail): (u8, u16, u16)) -> Self {
        Self { class, subject, detail }
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// A reply, of one line or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    text: String,
    wrap: bool,
}

impl Reply {
    /// The longest line without its CRLF: RFC 5321 §4.5.3.1.5 allows 512 octets with it.
    pub const MAX_LINE: usize = 510;
    /// Where wrapping starts to look for a space.
    const WRAP_FROM: usize = 400;
    /// The most lines one reply prints.
    pub const MAX_LINES: usize = 128;

    /// A reply with an enhanced code. A line feed in the text starts a continuation line.
    #[must_use]
    pub fn new(code: u16, enhanced: (u8, u16, u16), text: impl Into<String>) -> Self {
        debug_assert_eq!(code / 100, u16::from(enhanced.0), "RFC 2034 §4: the classes agree");
        Self { code, enhanced: Some(enhanced.into()), text: text.into(), wrap: true }
    }

    /// A reply without one: greeting, EHLO, 334 and 354 (RFC 2034 §4, RFC 4954 §6).
    #[must_use]
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Self { code, enhanced: None, text: text.into(), wrap: true }
    }

    /// A SASL challenge: one line however long, as base64 may not be cut (RFC 4954 §4 allows 12,288
    /// octets).
    #[must_use]
    pub fn challenge(base64: impl Into<String>) -> Self {
        Self { code: 334, enhanced: None, text: base64.into(), wrap: false }
    }

    /// The three digits.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code.
    #[must_use]
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The text, lines separated by line feeds.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it refuses: 4yz or 5yz.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.code >= 400
    }

    /// With the connection's id at the end, by which an administrator finds the log lines.
    #[must_use]
    pub fn with_id(mut self, id: SessionId) -> Self {
        self.text.push_str(&format!(" ({id})"));
        self
    }

    /// Appends it as it goes over the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        let enhanced = self.enhanced.map(|e| format!("{e} ")).unwrap_or_default();
        let room = if self.wrap {
            Self::MAX_LINE.saturating_sub(enhanced.len().saturating_add(4))
        } else {
            usize::MAX
        };
        let mut lines = Vec::new();
        for part in self.text.split('\n') {
            // A text may quote a configured string; nothing in it can end the line or, without
            // SMTPUTF8 in play (RFC 6531 §3.7.4.2), leave ASCII.
            let clean: String =
                part.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect();
            let mut rest = clean.as_str();
            while rest.len() > room {
                let (head, tail) = wrap(rest, room);
                lines.push(head.to_owned());
                rest = tail;
            }
            lines.push(rest.to_owned());
        }
        lines.truncate(Self::MAX_LINES);
        let last = lines.len().saturating_sub(1);
        for (index, line) in lines.iter().enumerate() {
            let dash = if index == last { ' ' } else { '-' };
            out.extend_from_slice(format!("{:03}{dash}{enhanced}{line}", self.code).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Cuts an ASCII line to `room`, at a space behind column 400 where there is one.
fn wrap(line: &str, room: usize) -> (&str, &str) {
    let head = line.get(..room).unwrap_or(line);
    let space = head.rfind(' ').filter(|&at| at >= Reply::WRAP_FROM);
    let (head, tail) = line.split_at_checked(space.unwrap_or(room)).unwrap_or((line, ""));
    (head, tail.strip_prefix(' ').unwrap_or(tail))
}

impl fmt::Display for Reply {
    /// For the log: one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, "{enhanced} ")?;
        }
        write!(f, "{}", self.text.replace('\n', " / "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ResponseParser;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_line() {
        assert_eq!(wire(&Reply::new(250, (2, 0, 0), "Ok")), "250 2.0.0 Ok\r\n");
        assert_eq!(wire(&Reply::plain(354, "Go on")), "354 Go on\r\n");
    }

    #[test]
    fn continuation_lines_repeat_both_codes() {
        let reply = Reply::new(554, (5, 3, 0), "first\nsecond");
        assert_eq!(wire(&reply), "554-5.3.0 first\r\n554 5.3.0 second\r\n");
    }

    #[test]
    fn a_challenge_stays_in_one_line() {
        let reply = Reply::challenge("QUJD".repeat(500));
        assert_eq!(wire(&reply).matches("\r\n").count(), 1);
        assert_eq!(wire(&Reply::challenge("")), "334 \r\n");
    }

    #[test]
    fn long_text_wraps_behind_column_400() {
        let text = "word ".repeat(300);
        let wire = wire(&Reply::new(550, (5, 7, 1), text.trim()));
        let lines: Vec<&str> = wire.split_terminator("\r\n").collect();
        assert!(lines.len() >= 3);
        assert!(lines.iter().all(|l| l.len() <= Reply::MAX_LINE));
        assert!(lines.iter().rev().skip(1).all(|l| l.len() >= 400 && l.starts_with("550-5.7.1 ")));
        assert_eq!(wire.matches("word").count(), 300);
    }

    #[test]
    fn a_text_cannot_forge_a_line() {
        assert_eq!(wire(&Reply::new(550, (5, 7, 1), "a\r250 ok\0é")), "550 5.7.1 a?250 ok??\r\n");
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for text in ["Ok", "a\nb\nc", "", &"x".repeat(2000)] {
            let reply = Reply::new(451, (4, 3, 0), text);
            let mut parser = ResponseParser::new();
            let mut wire = wire(&reply).into_bytes();
            wire.extend_from_slice(b"rest");
            let (used, read) = parser.feed(&wire).unwrap();
            assert_eq!(&wire[used..], b"rest");
            let read = read.unwrap();
            assert_eq!((read.code(), read.enhanced()), (451, reply.enhanced()));
        }
    }

    #[test]
    fn enhanced_codes_are_bounded() {
        assert_eq!(Enhanced::parse("5.7.26"), Some((5, 7, 26).into()));
        for bad in ["", "5", "5.7", "3.0.0", "5.7.1.1", "5.7000.1", "55.7.1", "5.+7.1", "5..1"] {
            assert_eq!(Enhanced::parse(bad), None, "{bad}");
        }
    }
}
