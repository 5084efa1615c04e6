//! Messages that can be made again: the same seed and index give the same octets.

use base64::Engine as _;
use std::fmt::Write as _;

const SYLLABLES: [&str; 24] = [
    "ba", "co", "di", "fe", "gu", "ha", "jo", "ki", "le", "mo", "nu", "pa", "re", "si", "to", "va",
    "we", "xi", "yo", "za", "ent", "ing", "er", "al",
];

/// Words that the texts are made of.
const WORDS: u64 = 20_000;

/// What is in the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One text/plain part.
    Plain,
    /// Of ten, five plain, four multipart/alternative, one with an attachment.
    Mixed,
}

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Spec<'a> {
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) index: u64,
    pub(crate) size: usize,
    pub(crate) seed: u64,
    pub(crate) shape: Shape,
}

/// Small and quick; good enough for words.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// A word; small numbers much more often, as in text.
fn word(rng: &mut Rng, out: &mut String) {
    let n = rng.below(WORDS);
    let mut rank = n * n / WORDS;
    for _ in 0..(2 + rank % 2) {
        out.push_str(SYLLABLES[(rank % 24) as usize]);
        rank = rank / 24 + 7;
    }
}

fn text(rng: &mut Rng, length: usize, out: &mut String) {
    let end = out.len() + length;
    let mut line = out.len();
    while out.len() + 2 < end {
        word(rng, out);
        if out.len() - line > 68 {
            out.push_str("\r\n");
            line = out.len();
        } else {
            out.push(' ');
        }
    }
    out.push_str("\r\n");
}

/// Makes one.
pub(crate) fn message(spec: &Spec<'_>) -> Vec<u8> {
    let mut rng = Rng::new(spec.seed.wrapping_mul(1_000_003).wrapping_add(spec.index));
    let mut subject = String::new();
    for _ in 0..4 {
        word(&mut rng, &mut subject);
        subject.push(' ');
    }
    let n = spec.index;
    let domain = spec.from.rsplit('@').next().unwrap_or("localhost");
    let mut out = String::with_capacity(spec.size + 512);
    write!(
        out,
        "From: Bench Sender {} <{}>\r\nTo: <{}>\r\nSubject: {subject}{n}\r\n\
         Date: {:02} Nov 2026 {:02}:{:02}:{:02} +0000\r\nMessage-ID: <{:x}.{n}@{domain}>\r\n\
         MIME-Version: 1.0\r\n",
        rng.below(200),
        spec.from,
        spec.to,
        1 + n % 28,
        n / 3600 % 24,
        n / 60 % 60,
        n % 60,
        rng.next(),
    )
    .expect("a String takes everything");
    let boundary = format!("=_b{:x}", rng.next());
    let left = |out: &String, more: usize| spec.size.saturating_sub(out.len() + more);
    let kind = if spec.shape == Shape::Plain { 0 } else { n % 10 };
    match kind {
        0..=4 => {
            out.push_str("Content-Type: text/plain; charset=utf-8\r\n\r\n");
            let length = left(&out, 0);
            text(&mut rng, length, &mut out);
        }
        5..=8 => {
            let start = format!(
                "Content-Type: multipart/alternative; boundary=\"{boundary}\"\r\n\r\n\
                 --{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
            );
            out.push_str(&start);
            let length = left(&out, 200);
            text(&mut rng, length / 3, &mut out);
            let html = format!(
                "--{boundary}\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>"
            );
            out.push_str(&html);
            text(&mut rng, length * 2 / 3, &mut out);
            out.push_str(&format!("</p></body></html>\r\n--{boundary}--\r\n"));
        }
        _ => {
            let start = format!(
                "Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n\
                 --{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
            );
            out.push_str(&start);
            let length = left(&out, 300);
            text(&mut rng, length / 4, &mut out);
            let attachment = format!(
                "--{boundary}\r\nContent-Type: application/octet-stream; name=\"data.bin\"\r\n\
                 Content-Transfer-Encoding: base64\r\n\
                 Content-Disposition: attachment; filename=\"data.bin\"\r\n\r\n"
            );
            out.push_str(&attachment);
            for _ in 0..(length * 3 / 4 / 78) {
                let raw: Vec<u8> = (0..57).map(|_| rng.next().to_le_bytes()[0]).collect();
                out.push_str(&base64::engine::general_purpose::STANDARD.encode(raw));
                out.push_str("\r\n");
            }
            out.push_str(&format!("--{boundary}--\r\n"));
        }
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_size_and_repeat() {
        for index in 0..20 {
            let spec = Spec {
                from: "a@b.test",
                to: "c@d.test",
                index,
                size: 5000,
                seed: 7,
                shape: Shape::Mixed,
            };
            let made = message(&spec);
            assert_eq!(made, message(&spec));
            assert!((4500..5600).contains(&made.len()), "{index}: {}", made.len());
            assert!(!made.split(|b| *b == b'\n').any(|line| line.starts_with(b".")));
        }
    }
}
