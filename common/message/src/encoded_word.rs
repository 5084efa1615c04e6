//! Encoded words (RFC 2047) decoded and written.
//!
//! Decoding looks at each octet a bounded number of times: a `=?` that does not turn out to be an
//! encoded word is text, and the search for its end stops at the next `?`.

use crate::{
    charset,
    transfer::{Base64, Decoder},
};

/// The longest charset name in an encoded word.
const MAX_CHARSET: usize = 64;

/// The longest encoded text of one word. RFC 2047 §2 allows a word 75 octets; some mailers never
/// split.
const MAX_TEXT: usize = 16 << 10;

/// An encoded word that was recognised.
struct Word<'a> {
    charset: &'a [u8],
    base64: bool,
    text: &'a [u8],
    /// Octets of the whole word.
    length: usize,
}

/// Reads an encoded word at the beginning of `bytes`, which begins with `=?`.
fn word(bytes: &[u8]) -> Option<Word<'_>> {
    let rest = bytes.get(2..)?;
    let name = memchr::memchr(b'?', &rest[..rest.len().min(MAX_CHARSET + 1)])?;
    let charset = &rest[..name];
    if charset.is_empty() || !charset.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let base64 = match rest.get(name + 1)? {
        b'b' | b'B' => true,
        b'q' | b'Q' => false,
        _ => return None,
    };
    if rest.get(name + 2) != Some(&b'?') {
        return None;
    }
    let text = &rest[name + 3..];
    let end = memchr::memchr(b'?', &text[..text.len().min(MAX_TEXT)])?;
    if text.get(end + 1) != Some(&b'=') {
        return None;
    }
    // RFC 2231 §5: a language may follow the charset.
    let charset = charset.split(|&b| b == b'*').next().unwrap_or(charset);
    Some(Word { charset, base64, text: &text[..end], length: 2 + name + 3 + end + 2 })
}

/// Octets of the encoded word at the beginning of `bytes`.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"=?") { word(bytes).map(|word| word.length) } else { None }
}

fn octets(word: &Word<'_>, out: &mut Vec<u8>) {
    if word.base64 {
        let mut decoder = Base64::default();
        decoder.push(word.text, out);
        decoder.finish(out);
        return;
    }
    // RFC 2047 §4.2: quoted-printable without line ends, and `_` is a blank.
    let text: Vec<u8> = word.text.iter().map(|&b| if b == b'_' { b' ' } else { b }).collect();
    let mut decoder = Decoder::new(crate::media::Encoding::QuotedPrintable);
    // The mark keeps blanks at the end of the word from counting as the end of a line.
    let mark = out.len();
    decoder.push(&text, out);
    decoder.push(b".", out);
    decoder.finish(out);
    if out.len() > mark {
        out.pop();
    }
}

/// The text of an unstructured value or a display name: encoded words decoded, the rest taken as
/// UTF-8 (RFC 6532) or guessed; folding, NUL and other controls become blanks. At most `limit`
/// octets.
#[must_use]
pub fn decode(value: &[u8], limit: usize) -> String {
    let mut out = String::new();
    // Octets of adjacent words in one charset: mailers split inside a character.
    let mut pending: Vec<u8> = Vec::new();
    let mut pending_charset: &[u8] = b"";
    let mut plain_from = 0;
    let mut at = 0;
    let mut after_word = false;
    while at < value.len() && out.len() < limit {
        let Some(found) = memchr::memmem::find(&value[at..], b"=?") else { break };
        let start = at + found;
        let Some(word) = word(&value[start..]) else {
            at = start + 2;
            continue;
        };
        let between = &value[plain_from..start];
        // RFC 2047 §6.2: blanks between two encoded words are not shown.
        let joined = after_word && between.iter().all(u8::is_ascii_whitespace);
        if !joined || !word.charset.eq_ignore_ascii_case(pending_charset) {
            flush(&mut pending, pending_charset, &mut out);
        }
        if !joined {
            push_plain(between, &mut out);
        }
        pending_charset = word.charset;
        octets(&word, &mut pending);
        if pending.len() > limit {
            flush(&mut pending, pending_charset, &mut out);
        }
        after_word = true;
        at = start + word.length;
        plain_from = at;
    }
    flush(&mut pending, pending_charset, &mut out);
    if out.len() < limit {
        push_plain(&value[plain_from..], &mut out);
    }
    charset::truncate(&mut out, limit);
    out
}

fn flush(pending: &mut Vec<u8>, label: &[u8], out: &mut String) {
    if !pending.is_empty() {
        push_clean(&charset::decode(label, pending), out);
        pending.clear();
    }
}

fn push_plain(bytes: &[u8], out: &mut String) {
    if bytes.is_empty() {
        return;
    }
    let line: Vec<u8> = bytes.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    push_clean(&charset::decode(b"", &line), out);
}

/// A decoded word may hold line ends and controls that would forge lines wherever it is shown.
fn push_clean(text: &str, out: &mut String) {
    out.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
}

/// Octets of one encoded word when writing. RFC 2047 §2 allows 75; shorter ones leave room for the
/// name of the field on a line of 78.
const WORD_OCTETS: usize = 52;

/// Writes text as encoded words of UTF-8, one blank between them (where a header is folded); plain
/// printable US-ASCII that cannot be taken for an encoded word stays as it is.
#[must_use]
pub fn encode(text: &str) -> String {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') && !text.contains("=?");
    if plain {
        return text.to_owned();
    }
    let room = WORD_OCTETS - "=?utf-8?q?".len() - "?=".len();
    let mut out = String::from("=?utf-8?q?");
    let mut used = 0;
    for c in text.chars() {
        let mut octets = [0u8; 4];
        let octets = c.encode_utf8(&mut octets).as_bytes();
        // RFC 2047 §5 (3): the only octets allowed everywhere, phrases included.
        let bare = c.is_ascii_alphanumeric() || matches!(c, '!' | '*' | '+' | '-' | '/');
        let width = if bare || c == ' ' { 1 } else { 3 * octets.len() };
        if used + width > room {
            out.push_str("?= =?utf-8?q?");
            used = 0;
        }
        used += width;
        if bare {
            out.push(c);
        } else if c == ' ' {
            out.push('_');
        } else {
            for octet in octets {
                out.push('=');
                out.push(HEX[usize::from(octet >> 4)]);
                out.push(HEX[usize::from(octet & 15)]);
            }
        }
    }
    out.push_str("?=");
    out
}

pub(crate) const HEX: [char; 16] =
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: &[u8]) -> String {
        decode(value, 100_000)
    }

    #[test]
    fn rfc_2047_examples() {
        // RFC 2047 §8.
        let cases: [(&str, &str); 12] = [
            ("=?ISO-8859-1?Q?a?=", "a"),
            ("=?ISO-8859-1?Q?a?= b", "a b"),
            ("=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
            ("=?ISO-8859-1?Q?a?=  \r\n  =?ISO-8859-1?Q?b?=", "ab"),
            ("=?ISO-8859-1?Q?a_b?=", "a b"),
            ("=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
            ("=?US-ASCII?Q?Keith_Moore?= x", "Keith Moore x"),
            ("=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=", "If you can read this yo"),
            ("=?utf-8*de?q?gr=C3=BCn?=", "grün"),
            ("=?utf-8?q?trailing_?= x", "trailing  x"),
            ("=?utf-8?q?gr=C3?= =?utf-8?q?=BCn?=", "grün"),
            ("caf=?utf-8?q?=C3=A9?=", "café"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_encoded_word_is_text() {
        for value in
            ["=?", "=?utf-8?", "=?utf-8?q", "=?utf-8?x?a?=", "=??q?a?=", "=?a b?q?c?=", "a=?b"]
        {
            assert_eq!(text(value.as_bytes()), value);
        }
        assert_eq!(text(b"a\0b\r\n c"), "a b c");
        assert_eq!(text(b"=?utf-8?q?a=0D=0ABcc:_x?="), "a  Bcc: x");
        assert_eq!(text("roh grün".as_bytes()), "roh grün");
        assert_eq!(text(b"gr\xfcn"), "grün");
    }

    #[test]
    fn output_is_bounded() {
        let many = b"=?utf-8?q?a?= ".repeat(100_000);
        assert_eq!(decode(&many, 1000).len(), 1000);
        let half = b"=?".repeat(1_000_000);
        assert_eq!(decode(&half, 1000).len(), 1000);
        assert!(decode(&half, 3_000_000).as_bytes() == half);
    }

    #[test]
    fn words_that_are_written_are_short() {
        let words = encode(&"grün ".repeat(40));
        assert!(words.split(' ').all(|word| word.len() <= WORD_OCTETS), "{words}");
        assert_eq!(encode("plain text"), "plain text");
        assert_eq!(text(encode("not =?a?= word").as_bytes()), "not =?a?= word");
    }

    proptest! {
        #[test]
        fn written_then_read(value in "[ -~äж日🙂]{0,120}") {
            prop_assert_eq!(text(encode(&value).as_bytes()), value);
        }

        #[test]
        fn any_octets(value: Vec<u8>, limit in 0usize..50) {
            prop_assert!(decode(&value, limit).len() <= limit);
        }
    }
}
