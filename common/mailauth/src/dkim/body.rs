//! The hash of a message body, made while the body streams by.
//!
//! Memory does not depend on the body: blank lines that may turn out to be the last are counted,
//! not kept (a body of a gigabyte of blank lines costs eight octets).

use super::Canonicalization;
use aws_lc_rs::digest::{Context, SHA256};

/// Canonical octets gathered before they go to the hash function.
const GATHER: usize = 4096;

/// SHA-256 of a body in canonical form: `bh=`.
#[derive(Clone)]
pub struct BodyHash {
    canonicalization: Canonicalization,
    context: Context,
    gathered: Vec<u8>,
    // A CR was seen whose LF, or other octet, is to come.
    after_cr: bool,
    // White space was seen in this line that is not yet known to be its end (relaxed).
    after_space: bool,
    // The current line has octets.
    in_line: bool,
    // Empty lines since the last line with octets.
    blank_lines: u64,
    // Anything went to the hash function.
    any: bool,
}

impl BodyHash {
    /// Starts a body.
    #[must_use]
    pub fn new(canonicalization: Canonicalization) -> Self {
        Self {
            canonicalization,
            context: Context::new(&SHA256),
            gathered: Vec::with_capacity(GATHER),
            after_cr: false,
            after_space: false,
            in_line: false,
            blank_lines: 0,
            any: false,
        }
    }

    /// The next octets of the body, split anywhere.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.after_cr {
                self.after_cr = false;
                if first == b'\n' {
                    self.line_end();
                    bytes = rest;
                    continue;
                }
                // A bare CR is an octet of the line like any other; so is a bare LF below.
                self.content(b"\r");
            }
            let relaxed = self.canonicalization == Canonicalization::Relaxed;
            match first {
                b'\r' => {
                    self.after_cr = true;
                    bytes = rest;
                }
                b' ' | b'\t' if relaxed => {
                    self.after_space = true;
                    bytes = rest;
                }
                _ => {
                    let end = if relaxed {
                        memchr::memchr3(b'\r', b' ', b'\t', bytes)
                    } else {
                        memchr::memchr(b'\r', bytes)
                    };
                    let (run, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                    self.content(run);
                    bytes = rest;
                }
            }
        }
    }

    /// The hash.
    #[must_use]
    pub fn finish(mut self) -> [u8; 32] {
        if self.after_cr {
            self.content(b"\r");
        }
        // RFC 6376 §3.4.3 and §3.4.4: a last line without its end gets one.
        if self.in_line {
            self.gather(b"\r\n");
        }
        // RFC 6376 §3.4.3: an empty body is one line end. In relaxed form it is nothing.
        if !self.any && self.canonicalization == Canonicalization::Simple {
            self.gather(b"\r\n");
        }
        self.context.update(&self.gathered);
        let mut hash = [0; 32];
        hash.copy_from_slice(self.context.finish().as_ref());
        hash
    }

    fn content(&mut self, octets: &[u8]) {
        for _ in 0..std::mem::take(&mut self.blank_lines) {
            self.gather(b"\r\n");
        }
        if std::mem::take(&mut self.after_space) {
            self.gather(b" ");
        }
        self.in_line = true;
        self.gather(octets);
    }

    fn line_end(&mut self) {
        self.after_space = false;
        if std::mem::take(&mut self.in_line) {
            self.gather(b"\r\n");
        } else {
            self.blank_lines = self.blank_lines.saturating_add(1);
        }
    }

    fn gather(&mut self, octets: &[u8]) {
        self.any = true;
        if self.gathered.len() + octets.len() > GATHER {
            self.context.update(&self.gathered);
            self.gathered.clear();
        }
        if octets.len() > GATHER {
            self.context.update(octets);
        } else {
            self.gathered.extend_from_slice(octets);
        }
    }
}

impl std::fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyHash").field("of", &self.canonicalization).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Canonicalization::{Relaxed, Simple};
    use aws_lc_rs::digest::digest;
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    fn hash(canonicalization: Canonicalization, body: &[u8]) -> [u8; 32] {
        let mut hash = BodyHash::new(canonicalization);
        hash.update(body);
        hash.finish()
    }

    fn plain(canonical: &[u8]) -> [u8; 32] {
        digest(&SHA256, canonical).as_ref().try_into().unwrap()
    }

    #[test]
    fn known_answers() {
        // RFC 6376 §3.4.3 and §3.4.4: empty bodies.
        let simple = "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=";
        let relaxed = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(STANDARD.encode(hash(Simple, b"")), simple);
        assert_eq!(STANDARD.encode(hash(Relaxed, b"")), relaxed);
        for blank in [&b"\r\n"[..], b"\r\n\r\n\r\n"] {
            assert_eq!(STANDARD.encode(hash(Simple, blank)), simple);
            assert_eq!(STANDARD.encode(hash(Relaxed, blank)), relaxed);
        }
        // RFC 6376 §3.4.5.
        let body = b" C \r\nD \t E\r\n\r\n\r\n";
        assert_eq!(hash(Relaxed, body), plain(b" C\r\nD E\r\n"));
        assert_eq!(hash(Simple, body), plain(b" C \r\nD \t E\r\n"));
        // RFC 8463 appendix A.3.
        let body = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";
        let expected = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=";
        assert_eq!(STANDARD.encode(hash(Relaxed, body)), expected);
    }

    #[test]
    fn ends_of_lines_and_of_the_body() {
        for (body, relaxed, simple) in [
            (&b"a"[..], &b"a\r\n"[..], &b"a\r\n"[..]),
            (b"a \t", b"a\r\n", b"a \t\r\n"),
            (b" \t\r\n", b"", b" \t\r\n"),
            (b"\r\n\r\na\r\n", b"\r\n\r\na\r\n", b"\r\n\r\na\r\n"),
            (b"a\r\n \r\nb", b"a\r\n\r\nb\r\n", b"a\r\n \r\nb\r\n"),
            (b"a\rb\nc\r", b"a\rb\nc\r\r\n", b"a\rb\nc\r\r\n"),
            (b"a\r\r\n", b"a\r\r\n", b"a\r\r\n"),
            (b"\t\ta\t\tb", b" a b\r\n", b"\t\ta\t\tb\r\n"),
        ] {
            assert_eq!(hash(Relaxed, body), plain(relaxed), "relaxed {body:?}");
            assert_eq!(hash(Simple, body), plain(simple), "simple {body:?}");
        }
    }

    #[test]
    fn any_split_gives_the_same_hash() {
        let mut body = b"\r\n \tx  y\r\n\r\n\r\nlong".to_vec();
        body.extend_from_slice(&[b'z'; 3 * GATHER]);
        body.extend_from_slice(b"\rbare \r\n\t\r\n\r\n");
        for canonicalization in [Relaxed, Simple] {
            let whole = hash(canonicalization, &body);
            for size in [1, 2, 3, 5, 7, 64, GATHER - 1, GATHER, GATHER + 1] {
                let mut split = BodyHash::new(canonicalization);
                body.chunks(size).for_each(|piece| split.update(piece));
                assert_eq!(split.finish(), whole, "{size}");
            }
        }
    }

    #[test]
    fn blank_lines_cost_no_memory() {
        let mut hash = BodyHash::new(Simple);
        let blank = b"\r\n".repeat(32 * 1024);
        for _ in 0..32 {
            hash.update(&blank);
        }
        assert!(hash.gathered.capacity() <= GATHER);
        assert_eq!(hash.finish(), plain(b"\r\n"));
    }
}
