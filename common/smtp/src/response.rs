//! Reading a server's replies: bounded, because the server may be hostile.

use crate::Enhanced;
use std::fmt;

/// A server's reply as a client read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    code: u16,
    enhanced: Option<Enhanced>,
    lines: Vec<String>,
}

/// A server that does not speak SMTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// A line of more octets than [`ResponseParser::MAX_LINE`].
    #[error("reply line too long")]
    LineTooLong,
    /// More lines than [`ResponseParser::MAX_LINES`].
    #[error("reply of too many lines")]
    TooManyLines,
    /// No three digits followed by space, hyphen or the end of the line.
    #[error("not an SMTP reply")]
    NotAReply,
    /// Lines of one reply with different codes (RFC 5321 §4.2.1 forbids it).
    #[error("lines of one reply with different codes")]
    CodesDiffer,
}

impl Response {
    /// The longest text [`Self::text`] gives, in octets.
    pub const MAX_TEXT: usize = 1024;

    /// A reply of one's own making, for a result no server gave.
    #[must_use]
    pub fn made(code: u16, enhanced: (u8, u16, u16), text: &str) -> Self {
        Self { code, enhanced: Some(enhanced.into()), lines: vec![text.to_owned()] }
    }

    /// The three digits, 200 to 599.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code, if the first line has one of the same class.
    #[must_use]
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The lines without both codes; printable ASCII or valid UTF-8 without control characters.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The lines in one, cut to [`Self::MAX_TEXT`] octets.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            if !text.is_empty() {
                text.push(' ');
            }
            for c in line.chars() {
                if text.len().saturating_add(c.len_utf8()) > Self::MAX_TEXT {
                    return text;
                }
                text.push(c);
            }
        }
        text
    }

    /// 2yz.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 4yz: worth another attempt.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// 5yz.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, "{enhanced} ")?;
        }
        f.write_str(&self.text())
    }
}

/// Collects the lines of one reply at a time.
#[derive(Debug, Default)]
pub struct ResponseParser {
    line: Vec<u8>,
    code: Option<u16>,
    enhanced: Option<Enhanced>,
    lines: Vec<String>,
}

impl ResponseParser {
    /// The longest line taken, with its end. RFC 5321 §4.5.3.1.5 says 512; real servers pass it.
    pub const MAX_LINE: usize = 4096;
    /// The most lines taken.
    pub const MAX_LINES: usize = 256;

    /// One that has read nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a reply is begun and not ended.
    #[must_use]
    pub fn is_midway(&self) -> bool {
        self.code.is_some() || !self.line.is_empty()
    }

    /// Takes bytes up to the end of one reply. Gives how many it took, and the reply when it is
    /// whole; what is left belongs to the next one.
    ///
    /// # Errors
    /// [`ResponseError`]: the connection is of no more use.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<Response>), ResponseError> {
        let mut used = 0usize;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.push(rest)?;
                return Ok((bytes.len(), None));
            };
            let taken = end.saturating_add(1);
            self.push(rest.get(..taken).unwrap_or_default())?;
            used = used.saturating_add(taken);
            let line = std::mem::take(&mut self.line);
            if let Some(response) = self.line_read(&line)? {
                return Ok((used, Some(response)));
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), ResponseError> {
        if self.line.len().saturating_add(bytes.len()) > Self::MAX_LINE {
            return Err(ResponseError::LineTooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn line_read(&mut self, line: &[u8]) -> Result<Option<Response>, ResponseError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (digits, rest) = line.split_at_checked(3).ok_or(ResponseError::NotAReply)?;
        let code = digits
            .iter()
            .try_fold(0u16, |code, b| {
                b.is_ascii_digit().then(|| {
                    code.saturating_mul(10).saturating_add(u16::from(b.saturating_sub(b'0')))
                })
            })
            // 1yz exists in no SMTP reply (RFC 5321 §4.2.1).
            .filter(|code| (200..600).contains(code))
            .ok_or(ResponseError::NotAReply)?;
        let (more, text) = match rest.split_first() {
            None => (false, rest),
            Some((b' ', text)) => (false, text),
            Some((b'-', text)) => (true, text),
            Some(_) => return Err(ResponseError::NotAReply),
        };
        if *self.code.get_or_insert(code) != code {
            return Err(ResponseError::CodesDiffer);
        }
        if self.lines.len() >= Self::MAX_LINES {
            return Err(ResponseError::TooManyLines);
        }
        let text = printable(text);
        let (enhanced, text) = split_enhanced(code, &text);
        if self.lines.is_empty() {
            self.enhanced = enhanced;
        }
        self.lines.push(text.to_owned());
        if more {
            return Ok(None);
        }
        self.code = None;
        let lines = std::mem::take(&mut self.lines);
        Ok(Some(Response { code, enhanced: self.enhanced.take(), lines }))
    }
}

/// A server's text ends in DSNs, logs and web pages: nothing in it may be a control character.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Takes an enhanced code off the front if its class is that of the reply (RFC 2034 §4).
fn split_enhanced(code: u16, text: &str) -> (Option<Enhanced>, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match Enhanced::parse(word) {
        Some(enhanced) if u16::from(enhanced.class) == code / 100 => (Some(enhanced), rest),
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Response>, ResponseError> {
        let (mut parser, mut at, mut out) = (ResponseParser::new(), 0, Vec::new());
        while at < bytes.len() {
            let (used, response) = parser.feed(&bytes[at..])?;
            at += used;
            out.extend(response);
        }
        Ok(out)
    }

    #[test]
    fn reads_lines_and_codes() {
        let got = all(b"220 mx ESMTP\r\n250-mx hi\r\n250-SIZE 10\r\n250 HELP\r\n550 5.1.1 No\r\n")
            .unwrap();
        assert_eq!(got.len(), 3);
        assert_eq!(got[1].lines(), ["mx hi", "SIZE 10", "HELP"]);
        assert_eq!(got[2].enhanced(), Some((5, 1, 1).into()));
        assert_eq!(got[2].text(), "No");
        // A class that disagrees is text.
        assert_eq!(all(b"250 5.1.1 x\n").unwrap()[0].text(), "5.1.1 x");
        assert_eq!(all(b"250\r\n").unwrap()[0].text(), "");
    }

    #[test]
    fn any_split_reads_the_same() {
        let wire = b"250-mx hi\r\n250-SIZE 10\r\n250 2.0.0 HELP\r\n451 4.3.0 no\r\n";
        let whole = all(wire).unwrap();
        for cut in 0..wire.len() {
            let (mut parser, mut got) = (ResponseParser::new(), Vec::new());
            for mut part in [&wire[..cut], &wire[cut..]] {
                while !part.is_empty() {
                    let (used, response) = parser.feed(part).unwrap();
                    part = &part[used..];
                    got.extend(response);
                }
            }
            assert_eq!(got, whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_hostile_server_is_bounded() {
        assert_eq!(all(&b"x".repeat(5000)), Err(ResponseError::LineTooLong));
        assert_eq!(all(&b"250-a\r\n".repeat(300)), Err(ResponseError::TooManyLines));
        assert_eq!(all(b"250-a\r\n251 b\r\n"), Err(ResponseError::CodesDiffer));
        for bad in
            ["hello\r\n", "25\r\n", "2500\r\n", "199 x\r\n", "600 x\r\n", "\r\n", "+50 x\r\n"]
        {
            assert_eq!(all(bad.as_bytes()), Err(ResponseError::NotAReply), "{bad:?}");
        }
        let long = format!("{}550 end\r\n", "550-abcdefghijklmnop\r\n".repeat(200));
        assert!(all(long.as_bytes()).unwrap()[0].text().len() <= Response::MAX_TEXT);
        assert_eq!(all(b"250 a\x1b[1m\x07\r\n").unwrap()[0].text(), "a?[1m?");
    }
}
