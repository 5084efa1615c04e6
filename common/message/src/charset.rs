//! Octets in a named or unnamed charset made into text. Total: what cannot be decoded is U+FFFD.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// Octets that are looked at to guess a charset.
const GUESS_FROM: usize = 64 << 10;

/// The longest charset name looked up.
const MAX_LABEL: usize = 64;

/// A charset as named by a message.
#[derive(Debug, Clone, Copy)]
enum Named {
    Known(&'static Encoding),
    Utf7,
    /// None, or one that says nothing: the octets have to tell.
    Unknown,
}

fn named(label: &[u8]) -> Named {
    let label = label.trim_ascii();
    if label.len() > MAX_LABEL {
        return Named::Unknown;
    }
    let lower = label.to_ascii_lowercase();
    match lower.as_slice() {
        // RFC 2046 §4.1.2: the default. Octets above 127 under it are a lie, so they are guessed.
        b"us-ascii" | b"ascii" | b"ansi_x3.4-1968" | b"" => return Named::Unknown,
        b"utf-7" | b"utf7" | b"unicode-1-1-utf-7" => return Named::Utf7,
        b"utf8mb4" | b"utf8mb3" | b"utf-8n" | b"cp65001" => return Named::Known(UTF_8),
        _ => {}
    }
    let alias: &[u8] = match lower.as_slice() {
        b"cp936" | b"ms936" => b"gbk",
        b"cp949" | b"ms949" | b"x-windows-949" => b"euc-kr",
        b"cp932" | b"ms932" | b"windows-932" | b"sjis-win" => b"shift_jis",
        b"cp950" | b"ms950" => b"big5",
        b"hz-gb-2312" | b"iso-2022-cn" | b"iso-2022-kr" => return Named::Unknown,
        other => other,
    };
    let found = Encoding::for_label_no_replacement(alias).or_else(|| {
        let digits = alias.strip_prefix(b"cp")?;
        Encoding::for_label(&[b"windows-", digits].concat())
    });
    found.map_or(Named::Unknown, Named::Known)
}

/// Whether a charset of this name can be decoded; SEARCH's BADCHARSET and display need to know.
#[must_use]
pub fn is_known(label: &[u8]) -> bool {
    matches!(named(label), Named::Known(_) | Named::Utf7) || label.eq_ignore_ascii_case(b"us-ascii")
}

/// Decodes text whose charset is `label` (empty: not declared).
///
/// US-ASCII, no name and unknown names are guessed from the octets: UTF-8 if they are valid UTF-8,
/// else what their frequencies suggest. The result has at most three times as many octets.
#[must_use]
pub fn decode(label: &[u8], bytes: &[u8]) -> String {
    match named(label) {
        Named::Known(encoding) => {
            encoding.decode_without_bom_handling(strip_bom(encoding, bytes)).0.into_owned()
        }
        Named::Utf7 => utf7(bytes),
        Named::Unknown => guess(bytes),
    }
}

fn strip_bom<'a>(encoding: &'static Encoding, bytes: &'a [u8]) -> &'a [u8] {
    match Encoding::for_bom(bytes) {
        Some((of_bom, length)) if of_bom == encoding => &bytes[length..],
        Some(_) | None => bytes,
    }
}

fn guess(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
    }
    let head = &bytes[..bytes.len().min(GUESS_FROM)];
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(head, head.len() == bytes.len());
    // UTF-8 is allowed: a text that was cut inside a character is still UTF-8.
    let encoding = detector.guess(None, Utf8Detection::Allow);
    let encoding = if head.is_ascii() { WINDOWS_1252 } else { encoding };
    encoding.decode_without_bom_handling(bytes).0.into_owned()
}

/// UTF-7 (RFC 2152). Only mail of the nineties has it, so it is decoded plainly: `+` begins
/// base64 of UTF-16, anything outside the alphabet ends it and `-` is swallowed.
fn utf7(bytes: &[u8]) -> String {
    let mut units: Vec<u16> = Vec::new();
    let mut shifted = false;
    let (mut bits, mut held, mut empty) = (0u32, 0u32, true);
    for &byte in bytes {
        if !shifted {
            if byte == b'+' {
                (shifted, bits, held, empty) = (true, 0, 0, true);
            } else {
                units.push(if byte.is_ascii() { u16::from(byte) } else { 0xFFFD });
            }
            continue;
        }
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => {
                shifted = false;
                match byte {
                    b'-' if empty => units.push(u16::from(b'+')),
                    b'-' => {}
                    other => units.push(if other.is_ascii() { u16::from(other) } else { 0xFFFD }),
                }
                continue;
            }
        };
        empty = false;
        held = (held << 6) | u32::from(digit);
        bits += 6;
        if bits >= 16 {
            bits -= 16;
            let unit = (held >> bits) & 0xFFFF;
            units.push(u16::try_from(unit).unwrap_or(0xFFFD));
            held &= (1 << bits) - 1;
        }
    }
    String::from_utf16_lossy(&units)
}

/// Cuts a text to at most `limit` octets without splitting a character.
pub(crate) fn truncate(text: &mut String, limit: usize) {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_charsets() {
        let cases: [(&[u8], &[u8], &str); 12] = [
            (b"utf-8", "grün".as_bytes(), "grün"),
            (b"UTF-8", b"a\xffb", "a\u{fffd}b"),
            (b"utf-8", b"\xef\xbb\xbfx", "x"),
            (b"iso-8859-1", b"gr\xfcn", "grün"),
            (b"ISO-8859-15", b"\xa4", "€"),
            (b"cp1252", b"\x80", "€"),
            (b"koi8-r", b"\xf0\xd2\xc9", "При"),
            (b"shift_jis", b"\x93\xfa\x96\x7b", "日本"),
            (b"gb2312", b"\xc4\xe3", "你"),
            (b"iso-2022-jp", b"\x1b$B\x46\x7c\x1b(B", "日"),
            (b"utf-7", b"Hi Mom -+Jjo--+-x", "Hi Mom -☺-+x"),
            (b"utf-16le", b"a\0b\0", "ab"),
        ];
        for (label, bytes, text) in cases {
            assert_eq!(decode(label, bytes), text, "{}", String::from_utf8_lossy(label));
        }
    }

    #[test]
    fn undeclared_octets_are_guessed() {
        assert_eq!(decode(b"", "наука".as_bytes()), "наука");
        assert_eq!(decode(b"us-ascii", b"plain"), "plain");
        assert_eq!(
            decode(b"x-unknown", b"Fran\xe7ais et allemand: \xe9t\xe9"),
            "Français et allemand: été"
        );
        // The lone offender far behind what is looked at.
        let mut late = vec![b'a'; GUESS_FROM + 10];
        late.push(0xe9);
        assert!(decode(b"", &late).ends_with('é'));
    }

    #[test]
    fn nothing_grows_beyond_three_times() {
        let hostile: Vec<u8> = (0..30_000u32).map(|i| (i * 7919 % 256) as u8).collect();
        for label in
            [&b"utf-8"[..], b"gb18030", b"big5", b"iso-2022-jp", b"utf-7", b"utf-16be", b""]
        {
            assert!(decode(label, &hostile).len() <= 3 * hostile.len() + 3);
        }
    }

    #[test]
    fn cut_between_characters() {
        let mut text = "aé".to_owned();
        truncate(&mut text, 2);
        assert_eq!(text, "a");
    }
}
