//! Content-Transfer-Encoding undone on a stream: base64 and quoted-printable (RFC 2045 §6).
//!
//! Both decoders are total: what is malformed is passed over or kept as it is, and the result does
//! not depend on how the input was cut into chunks. They hold a few octets, quoted-printable at most
//! [`MAX_BLANKS`] of them, so faces may run them on whole bodies.

use crate::media::Encoding;

/// Blanks that may wait for the end of their line before they count as content. RFC 2045 §6.7 (3)
/// drops them at the end of a line; a longer run was never a quoted-printable line.
const MAX_BLANKS: usize = 1024;

/// A streaming decoder for one body.
#[derive(Debug, Clone)]
pub enum Decoder {
    /// 7bit, 8bit, binary and what has an unknown name.
    Identity,
    /// base64.
    Base64(Base64),
    /// quoted-printable.
    QuotedPrintable(QuotedPrintable),
}

impl Decoder {
    /// The decoder of an encoding; an unknown one is left as it is (RFC 3516's UNKNOWN-CTE is the
    /// caller's answer).
    #[must_use]
    pub fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Base64 => Self::Base64(Base64::default()),
            Encoding::QuotedPrintable => Self::QuotedPrintable(QuotedPrintable::default()),
            Encoding::SevenBit | Encoding::EightBit | Encoding::Binary | Encoding::Other => {
                Self::Identity
            }
        }
    }

    /// Decodes a chunk and appends to `out`.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Identity => out.extend_from_slice(chunk),
            Self::Base64(decoder) => decoder.push(chunk, out),
            Self::QuotedPrintable(decoder) => decoder.push(chunk, out),
        }
    }

    /// Ends the body and appends what was still held.
    pub fn finish(self, out: &mut Vec<u8>) {
        match self {
            Self::Identity => {}
            Self::Base64(decoder) => decoder.finish(out),
            Self::QuotedPrintable(decoder) => decoder.finish(out),
        }
    }
}

/// base64 (RFC 2045 §6.8): octets outside the alphabet are ignored, padding ends a group and the
/// next one may follow (encoders that concatenate).
#[derive(Debug, Clone, Default)]
pub struct Base64 {
    bits: u32,
    digits: u8,
}

/// What an octet is worth; 64 and above is no digit.
const DIGIT: [u8; 256] = {
    let mut table = [64u8; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut i = 0;
    while i < 64 {
        table[alphabet[i] as usize] = i as u8;
        i += 1;
    }
    table
};

impl Base64 {
    /// Decodes a chunk and appends to `out`.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        out.reserve(chunk.len() / 4 * 3 + 3);
        for &byte in chunk {
            let digit = DIGIT[usize::from(byte)];
            if digit < 64 {
                self.bits = (self.bits << 6) | u32::from(digit);
                self.digits += 1;
                if self.digits == 4 {
                    let [_, a, b, c] = self.bits.to_be_bytes();
                    out.extend_from_slice(&[a, b, c]);
                    self.bits = 0;
                    self.digits = 0;
                }
            } else if byte == b'=' {
                self.flush(out);
            }
        }
    }

    /// Ends the body; a group that lacks its padding still gives its whole octets.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.flush(out);
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        match self.digits {
            2 => out.push(self.bits.to_be_bytes()[3] >> 4 | (self.bits.to_be_bytes()[2] << 4)),
            3 => {
                let [_, _, a, b] = (self.bits >> 2).to_be_bytes();
                out.extend_from_slice(&[a, b]);
            }
            _ => {}
        }
        self.bits = 0;
        self.digits = 0;
    }
}

/// quoted-printable (RFC 2045 §6.7); `=` that begins neither a hex pair nor a soft line break stays
/// as it is.
#[derive(Debug, Clone, Default)]
pub struct QuotedPrintable {
    state: Qp,
    blanks: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Qp {
    /// Content; `blanks` may wait.
    #[default]
    Text,
    /// Content, and a CR that follows the blanks.
    TextCr,
    /// Behind `=`.
    Equals,
    /// Behind `=` and one hex digit.
    Hex(u8),
    /// Behind `=` and the blanks that wait.
    SoftBlanks,
    /// Behind `=`, the blanks and CR.
    SoftCr,
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

impl QuotedPrintable {
    /// Decodes a chunk and appends to `out`.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let mut rest = chunk;
        while let Some(&byte) = rest.first() {
            if self.state == Qp::Text && self.blanks.is_empty() {
                let plain = rest
                    .iter()
                    .position(|b| matches!(b, b'=' | b' ' | b'\t' | b'\r'))
                    .unwrap_or(rest.len());
                out.extend_from_slice(&rest[..plain]);
                rest = &rest[plain..];
                if plain > 0 {
                    continue;
                }
            }
            rest = &rest[1..];
            self.step(byte, out);
        }
    }

    /// Ends the body. RFC 2045 §6.7 (3) holds for the last line too: its blanks are dropped.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        match self.state {
            Qp::Text | Qp::SoftBlanks | Qp::SoftCr | Qp::Equals => {}
            Qp::TextCr => {
                self.flush(out);
                out.push(b'\r');
            }
            Qp::Hex(first) => out.extend_from_slice(&[b'=', first]),
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.blanks);
        self.blanks.clear();
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.state, byte) {
            (Qp::Text, b' ' | b'\t') => {
                self.blanks.push(byte);
                if self.blanks.len() >= MAX_BLANKS {
                    self.flush(out);
                }
            }
            (Qp::Text, b'\r') => self.state = Qp::TextCr,
            (Qp::Text | Qp::TextCr, b'\n') => {
                self.blanks.clear();
                out.extend_from_slice(if self.state == Qp::Text { b"\n" } else { b"\r\n" });
                self.state = Qp::Text;
            }
            (Qp::Text, b'=') => {
                self.flush(out);
                self.state = Qp::Equals;
            }
            (Qp::Text, other) => {
                self.flush(out);
                out.push(other);
            }
            (Qp::TextCr, other) => {
                self.flush(out);
                out.push(b'\r');
                self.state = Qp::Text;
                self.step_text(other, out);
            }
            (Qp::Equals | Qp::SoftBlanks, b'\n') | (Qp::SoftCr, b'\n') => {
                self.blanks.clear();
                self.state = Qp::Text;
            }
            (Qp::Equals | Qp::SoftBlanks, b'\r') => self.state = Qp::SoftCr,
            (Qp::Equals | Qp::SoftBlanks, b' ' | b'\t') if self.blanks.len() < MAX_BLANKS => {
                self.blanks.push(byte);
                self.state = Qp::SoftBlanks;
            }
            (Qp::Equals, digit) if hex(digit).is_some() => self.state = Qp::Hex(digit),
            (Qp::Equals | Qp::SoftBlanks, other) => {
                out.push(b'=');
                self.flush(out);
                self.state = Qp::Text;
                self.step_text(other, out);
            }
            (Qp::SoftCr, other) => {
                out.push(b'=');
                self.flush(out);
                out.push(b'\r');
                self.state = Qp::Text;
                self.step_text(other, out);
            }
            (Qp::Hex(first), second) => {
                self.state = Qp::Text;
                match (hex(first), hex(second)) {
                    (Some(high), Some(low)) => out.push(high << 4 | low),
                    _ => {
                        out.extend_from_slice(&[b'=', first]);
                        self.step_text(second, out);
                    }
                }
            }
        }
    }

    /// One octet in state [`Qp::Text`]; one level only, since that state calls nothing back.
    fn step_text(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b' ' | b'\t' => self.blanks.push(byte),
            b'\r' => self.state = Qp::TextCr,
            b'=' => self.state = Qp::Equals,
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(encoding: Encoding, input: &[u8], step: usize) -> Vec<u8> {
        let mut decoder = Decoder::new(encoding);
        let mut out = Vec::new();
        for chunk in input.chunks(step.max(1)) {
            decoder.push(chunk, &mut out);
        }
        decoder.finish(&mut out);
        out
    }

    #[test]
    fn base64_known_answers() {
        let cases: [(&[u8], &[u8]); 9] = [
            (b"", b""),
            (b"Zg==", b"f"),
            (b"Zm8=", b"fo"),
            (b"Zm9v", b"foo"),
            (b"Zm9vYg", b"foob"),
            (b"Zm 9v\r\nYmE=", b"fooba"),
            (b"Zg==Zg==", b"ff"),
            (b"!Zm9v*YmFy!", b"foobar"),
            (b"Z", b""),
        ];
        for (input, output) in cases {
            for step in 1..5 {
                assert_eq!(decode(Encoding::Base64, input, step), output, "{input:?}");
            }
        }
    }

    #[test]
    fn quoted_printable_known_answers() {
        let cases: [(&[u8], &[u8]); 13] = [
            (b"a=3Db", b"a=b"),
            (b"gr=c3=BCn", "grün".as_bytes()),
            (b"one=\r\ntwo", b"onetwo"),
            (b"one=\ntwo", b"onetwo"),
            (b"one= \t\r\ntwo", b"onetwo"),
            (b"trail \t\r\nx  ", b"trail\r\nx"),
            (b"a =\r\nb", b"a b"),
            (b"=zz=4", b"=zz=4"),
            (b"a=", b"a"),
            (b"a\rb \r c", b"a\rb \r c"),
            (b"x= y", b"x= y"),
            (b"=\r=41", b"=\rA"),
            (b"==41", b"=A"),
        ];
        for (input, output) in cases {
            for step in 1..5 {
                assert_eq!(
                    decode(Encoding::QuotedPrintable, input, step),
                    output,
                    "{:?}",
                    String::from_utf8_lossy(input)
                );
            }
        }
    }

    #[test]
    fn a_line_of_blanks_is_not_held() {
        let mut decoder = QuotedPrintable::default();
        let mut out = Vec::new();
        for _ in 0..1000 {
            decoder.push(&[b' '; 1000], &mut out);
            assert!(decoder.blanks.len() <= MAX_BLANKS);
        }
        let mut soft = QuotedPrintable::default();
        soft.push(b"=", &mut out);
        for _ in 0..1000 {
            soft.push(&[b'\t'; 1000], &mut out);
            assert!(soft.blanks.len() <= MAX_BLANKS);
        }
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(input in "[a=\\r\\n \\t4fZ]{0,80}", step in 1usize..9) {
            for encoding in [Encoding::Base64, Encoding::QuotedPrintable] {
                let whole = decode(encoding, input.as_bytes(), input.len());
                prop_assert_eq!(&whole, &decode(encoding, input.as_bytes(), step));
                // Decoding never makes more of it.
                prop_assert!(whole.len() <= input.len());
            }
        }

        #[test]
        fn base64_gives_back_what_was_encoded(data: Vec<u8>) {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(&data);
            prop_assert_eq!(decode(Encoding::Base64, text.as_bytes(), 7), data);
        }
    }
}
