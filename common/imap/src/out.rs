//! What goes to the client: octets, and places where content of a message is to be streamed.
//!
//! Content is never gathered in memory here. A response with a literal that is larger than a small
//! message holds a [`Piece`] which the process fills from the account while it writes.

use std::{borrow::Cow, fmt::Write as _};

/// What goes for a NUL where no `literal8` may stand: RFC 9051 §9 has none in `CHAR8`. Lengths stay.
const FOR_NUL: u8 = 0x80;

/// Octets as a literal that is no `literal8` may hold them.
#[must_use]
pub fn without_nul(octets: &[u8]) -> Cow<'_, [u8]> {
    if !octets.contains(&0) {
        return Cow::Borrowed(octets);
    }
    Cow::Owned(octets.iter().map(|&octet| if octet == 0 { FOR_NUL } else { octet }).collect())
}

/// A stretch of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Octets as they are.
    Bytes(Vec<u8>),
    /// Octets `from..to` of a message; the length was announced already. If they cannot be had any
    /// more the connection has to end: a literal cannot be taken back.
    Content {
        /// Of the message in the selected mailbox.
        uid: u32,
        /// First octet.
        from: u64,
        /// One behind the last octet.
        to: u64,
        /// In a `literal8`; else each chunk goes through [`without_nul`].
        binary: bool,
    },
    /// Decoded octets of a part (BINARY); their number was announced already, from what the parser
    /// counted at delivery. Another number ends the connection too.
    Decoded {
        /// Of the message in the selected mailbox.
        uid: u32,
        /// First octet of the encoded body.
        from: u64,
        /// One behind its last.
        to: u64,
        /// How to decode.
        encoding: message::media::Encoding,
        /// Decoded octets to leave out.
        skip: u64,
        /// Decoded octets to send behind those.
        length: u64,
    },
}

/// Output under construction.
#[derive(Debug, Default)]
pub struct Out {
    pieces: Vec<Piece>,
    bytes: Vec<u8>,
}

impl Out {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds octets.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) {
        self.raw(text.as_bytes());
    }

    /// Adds something printable.
    pub fn show(&mut self, value: impl std::fmt::Display) {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(text, "{value}");
        self.text(&text);
    }

    /// Adds content to be streamed.
    pub fn piece(&mut self, piece: Piece) {
        if !self.bytes.is_empty() {
            self.pieces.push(Piece::Bytes(std::mem::take(&mut self.bytes)));
        }
        self.pieces.push(piece);
    }

    /// `string`: quoted where that is possible, else a literal. RFC 9051 §4.3: quoted strings hold
    /// no NUL, CR, LF, and only for rev2 octets above 127; servers never send `{n+}`.
    pub fn string(&mut self, value: &[u8], utf8: bool) {
        let quotable = value.len() <= 1_000
            && value.iter().all(|&b| !matches!(b, 0 | b'\r' | b'\n') && (utf8 || b < 0x80))
            && (value.is_ascii() || std::str::from_utf8(value).is_ok());
        if !quotable {
            self.literal(&without_nul(value));
            return;
        }
        self.raw(b"\"");
        for &byte in value {
            if matches!(byte, b'"' | b'\\') {
                self.raw(b"\\");
            }
            self.bytes.push(byte);
        }
        self.raw(b"\"");
    }

    /// `nstring`.
    pub fn nstring(&mut self, value: Option<&[u8]>, utf8: bool) {
        match value {
            Some(value) => self.string(value, utf8),
            None => self.raw(b"NIL"),
        }
    }

    /// `astring`: an atom where that is possible.
    pub fn astring(&mut self, value: &[u8], utf8: bool) {
        let is_nil = value.eq_ignore_ascii_case(b"NIL");
        if !value.is_empty() && !is_nil && value.iter().all(|&b| crate::parse::is_astring_char(b)) {
            self.raw(value);
        } else {
            self.string(value, utf8);
        }
    }

    /// A literal; `literal8` where it holds a NUL (RFC 3516 §4.4).
    pub fn literal(&mut self, value: &[u8]) {
        if value.contains(&0) {
            self.raw(b"~");
        }
        self.show(format_args!("{{{}}}\r\n", value.len()));
        self.raw(value);
    }

    /// Octets waiting, without content to be streamed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.iter().fold(self.bytes.len(), |sum, piece| match piece {
            Piece::Bytes(bytes) => sum.saturating_add(bytes.len()),
            Piece::Content { .. } | Piece::Decoded { .. } => sum,
        })
    }

    /// Whether content is to be streamed, which needs the mailbox that is open now.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.pieces.iter().any(|piece| !matches!(piece, Piece::Bytes(_)))
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.bytes.is_empty()
    }

    /// Takes what there is to send, in order.
    pub fn take(&mut self) -> Vec<Piece> {
        let mut pieces = std::mem::take(&mut self.pieces);
        if !self.bytes.is_empty() {
            pieces.push(Piece::Bytes(std::mem::take(&mut self.bytes)));
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(value: &[u8], utf8: bool) -> String {
        let mut out = Out::new();
        out.string(value, utf8);
        match out.take().as_slice() {
            [Piece::Bytes(bytes)] => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn strings() {
        assert_eq!(string(b"", false), "\"\"");
        assert_eq!(string(b"a\\\"b", false), "\"a\\\\\\\"b\"");
        assert_eq!(string("ä".as_bytes(), false), "{2}\r\nä");
        assert_eq!(string("ä".as_bytes(), true), "\"ä\"");
        assert_eq!(string(b"a\r\nb", true), "{4}\r\na\r\nb");
        assert_eq!(string(b"a\0", true).as_bytes()[..6], *b"{2}\r\na");
        assert_eq!(string(b"\xff", true).as_bytes()[..5], *b"{1}\r\n");
    }

    #[test]
    fn pieces_keep_their_order() {
        let mut out = Out::new();
        out.text("a");
        out.piece(Piece::Content { uid: 1, from: 0, to: 5, binary: false });
        out.text("b");
        out.text("c");
        assert_eq!(out.len(), 3);
        let pieces = out.take();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[2], Piece::Bytes(b"bc".to_vec()));
        assert!(out.is_empty());
    }
}
