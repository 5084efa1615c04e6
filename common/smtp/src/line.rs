//! The bytes a client sent and nobody has read yet, cut into command lines.

/// Received bytes, in order. Bounded by its user: it reads more only when no whole line is left.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    start: usize,
    /// How much of the rest was searched for a line feed already, so that a client that sends one
    /// byte at a time costs no more than one that does not.
    searched: usize,
}

/// What stands at the front of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A whole line without its end.
    Whole {
        /// The line.
        bytes: Vec<u8>,
        /// It ended in LF without CR.
        bare_lf: bool,
    },
    /// More octets than allowed and no end in sight.
    TooLong,
    /// Not whole yet.
    Incomplete,
}

impl Input {
    /// The longest command line with its end (RFC 5321 §4.5.3.1.4 asks for 512 and room for
    /// parameters).
    pub const MAX_LINE: usize = 2048;
    /// The longest line of a SASL exchange with its end (RFC 4954 §4).
    pub const MAX_AUTH_LINE: usize = 12_288;

    /// Adds what was received.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start.min(self.bytes.len()));
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// What is there.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Drops the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.bytes.len());
        self.searched = 0;
        if self.start == self.bytes.len() {
            self.clear();
        }
    }

    /// Drops all of it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
        self.searched = 0;
    }

    /// Whether a whole line is there.
    #[must_use]
    pub fn has_line(&self) -> bool {
        memchr::memchr(b'\n', self.as_slice()).is_some()
    }

    /// Takes the next line, of at most `limit` octets with its end.
    pub fn line(&mut self, limit: usize) -> Line {
        let rest = self.as_slice();
        let unseen = rest.get(self.searched..).unwrap_or_default();
        let found = memchr::memchr(b'\n', unseen).map(|at| at.saturating_add(self.searched));
        match found {
            Some(end) if end < limit => {
                let line = rest.get(..end).unwrap_or_default();
                let without_cr = line.strip_suffix(b"\r");
                let bare_lf = without_cr.is_none();
                let bytes = without_cr.unwrap_or(line).to_vec();
                self.consume(end.saturating_add(1));
                Line::Whole { bytes, bare_lf }
            }
            None if rest.len() < limit => {
                self.searched = rest.len();
                Line::Incomplete
            }
            Some(_) | None => Line::TooLong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_any_split() {
        let wire = b"EHLO a\r\nNOOP\n\r\nx\ry\r\nrest";
        for cut in 0..wire.len() {
            let (mut input, mut got) = (Input::default(), Vec::new());
            for part in [&wire[..cut], &wire[cut..]] {
                input.extend(part);
                while let Line::Whole { bytes, bare_lf } = input.line(Input::MAX_LINE) {
                    got.push((bytes, bare_lf));
                }
            }
            let want: [(&[u8], bool); 4] =
                [(b"EHLO a", false), (b"NOOP", true), (b"", false), (b"x\ry", false)];
            assert!(got.iter().map(|(b, l)| (b.as_slice(), *l)).eq(want), "cut at {cut}");
            assert_eq!(input.as_slice(), b"rest");
        }
    }

    #[test]
    fn the_bound_counts_the_line_end() {
        let mut input = Input::default();
        input.extend(&[b'a'; 2046]);
        assert_eq!(input.line(Input::MAX_LINE), Line::Incomplete);
        input.extend(b"\r\n");
        assert!(matches!(input.line(Input::MAX_LINE), Line::Whole { .. }));
        input.extend(&[b'a'; 2047]);
        assert_eq!(input.line(Input::MAX_LINE), Line::Incomplete);
        input.extend(b"\r\n");
        assert_eq!(input.line(Input::MAX_LINE), Line::TooLong);
        input.clear();
        input.extend(&[b'a'; 2048]);
        assert_eq!(input.line(Input::MAX_LINE), Line::TooLong);
    }
}
