//! Hostile messages, made when asked for: each one broke some mail program, or is built to make a
//! reader recurse, go back, or keep what it should not.
//!
//! For the tests of this crate, and with the feature `poison` for those of the whole system.

mod archives;

/// A hostile message and its name.
pub struct Poison {
    /// What it is.
    pub name: &'static str,
    make: fn() -> Vec<u8>,
}

impl Poison {
    /// Makes it; up to some MiB.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        (self.make)()
    }
}

/// Octets of those that are only long.
const LONG: usize = 3 << 20;

/// All of them.
pub const ALL: &[Poison] = &[
    Poison {
        name: "24,000 nested message/rfc822",
        make: || b"Content-Type: message/rfc822\r\n\r\n".repeat(24_000),
    },
    Poison {
        name: "5,000 nested multiparts",
        make: || {
            let mut out = Vec::new();
            for level in 0..5_000 {
                let line = format!(
                    "Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"
                );
                out.extend_from_slice(line.as_bytes());
            }
            out
        },
    },
    Poison {
        name: "nested multiparts of one boundary, closed",
        make: || {
            let mut out = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n".repeat(5_000);
            out.extend(b"--b--\r\n".repeat(5_000));
            out
        },
    },
    Poison {
        name: "nested digests",
        make: || b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n".repeat(5_000),
    },
    Poison {
        name: "10,001 parts",
        make: || {
            let mut out = multipart();
            out.extend(b"--b\r\n\r\nx\r\n".repeat(10_001));
            out.extend_from_slice(b"--b--\r\n");
            out
        },
    },
    Poison {
        name: "delimiters and nothing else",
        make: || [multipart(), long(b"--b\r\n")].concat(),
    },
    Poison {
        name: "10,000 parts with all the values they can have",
        make: || {
            let part = format!(
                "--b\r\nContent-Type: a/b; name=\"{0}\"\r\nContent-ID: <{0}>\r\nContent-Language: {1}\r\n\
             Content-Disposition: x; filename*=utf-8''{0}\r\n\r\n",
                "v".repeat(200),
                "de, ".repeat(100),
            );
            [multipart(), part.into_bytes().repeat(4_000)].concat()
        },
    },
    Poison {
        name: "embedded envelopes of many addresses",
        make: || {
            let inner = b"--b\r\nContent-Type: message/rfc822\r\n\r\nTo: ".to_vec();
            let part = [inner, b"a,".repeat(20_000), b"\r\n\r\nx\r\n".to_vec()].concat();
            [multipart(), part.repeat(100)].concat()
        },
    },
    Poison {
        name: "lines that look like delimiters under 50 multiparts",
        make: || {
            let mut out = Vec::new();
            for level in 0..50 {
                let boundary = "-".repeat(60 + level);
                let head = format!(
                    "Content-Type: multipart/x; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n"
                );
                out.extend_from_slice(head.as_bytes());
            }
            out.extend_from_slice(b"\r\n");
            out.extend(long(&[&[b'-'; 200][..], b"x\r\n"].concat()));
            out
        },
    },
    Poison {
        name: "a delimiter line without end",
        make: || [multipart(), b"--b".to_vec(), long(b" ")].concat(),
    },
    Poison {
        name: "a boundary of 100,000 octets",
        make: || {
            let boundary = "b".repeat(100_000);
            format!(
                "Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n--{boundary}\r\n\r\nx"
            )
            .into_bytes()
        },
    },
    Poison { name: "a header of one field", make: || field("Subject", &long(b"x")) },
    Poison { name: "a header of folded lines", make: || field("Subject", &long(b"x\r\n ")) },
    Poison { name: "a header of fields", make: || long(b"Received: x\r\n") },
    Poison { name: "a header of lines that are no fields", make: || long(b"no field here\r\n") },
    Poison { name: "a header of continuations", make: || long(b" \r\n") },
    Poison { name: "a header without end", make: || long(b"x") },
    Poison {
        name: "encoded words without end",
        make: || field("Subject", &many(b"=?utf-8?q?=C3=A4?= ")),
    },
    Poison {
        name: "encoded words that change their charset",
        make: || field("Subject", &many(b"=?gb18030?b?gTCBMA==?= =?iso-2022-jp?q?=1B$B?= ")),
    },
    Poison { name: "beginnings of encoded words", make: || field("Subject", &many(b"=?")) },
    Poison { name: "encoded words without their ends", make: || field("From", &many(b"=?a?q?x")) },
    Poison {
        name: "octets above 127 between encoded words",
        make: || field("Subject", &many(b"=?utf-8?q?a?=\xff")),
    },
    Poison { name: "open parentheses", make: || field("From", &many(b"(")) },
    Poison { name: "closed parentheses", make: || field("From", &many(b"(a)")) },
    Poison { name: "commas", make: || field("To", &many(b",")) },
    Poison { name: "addresses", make: || field("To", &many(b"a@b,")) },
    Poison { name: "groups", make: || field("To", &many(b"g:a@b;,")) },
    Poison { name: "groups that never end", make: || field("To", &many(b"g:")) },
    Poison { name: "angle brackets", make: || field("To", &many(b"<")) },
    Poison { name: "routes", make: || field("To", &many(b"<@a,@b:")) },
    Poison { name: "quotes", make: || field("To", &many(b"\"")) },
    Poison { name: "an unclosed quote", make: || field("To", &many(b"\"\\\"x")) },
    Poison { name: "domain literals", make: || field("To", &many(b"a@[")) },
    Poison {
        name: "parameters",
        make: || field("Content-Type", &[b"a/b".to_vec(), many(b";p=v")].concat()),
    },
    Poison {
        name: "numbered parameters",
        make: || {
            let mut value = b"attachment".to_vec();
            for number in 0..20_000 {
                value.extend_from_slice(format!("; filename*{number}*=%41").as_bytes());
            }
            field("Content-Disposition", &value)
        },
    },
    Poison {
        name: "parameters without names",
        make: || field("Content-Type", &[b"a/b".to_vec(), many(b";=;")].concat()),
    },
    Poison { name: "references", make: || field("References", &many(b"<a@b> ")) },
    Poison {
        name: "long references",
        make: || field("References", &many(&long_word(b"<", 990, b"@b> "))),
    },
    Poison {
        name: "long addresses",
        make: || field("Cc", &many(&long_word(b"", 120, b"@b.test, "))),
    },
    Poison { name: "references that cut each other", make: || field("References", &many(b"<a")) },
    Poison { name: "a subject of prefixes", make: || field("Subject", &many(b"re: [x] ")) },
    Poison { name: "a subject of brackets", make: || field("Subject", &many(b"[fwd:")) },
    Poison { name: "a date", make: || field("Date", &many(b"1 ")) },
    Poison { name: "NULs", make: || long(b"\0") },
    Poison { name: "NULs in values", make: || field("Subject", &many(b"\0a")) },
    Poison { name: "bare CR", make: || long(b"a\r") },
    Poison { name: "bare LF", make: || long(b"\n") },
    Poison {
        name: "bare LF in a multipart",
        make: || {
            [b"Content-Type: multipart/x; boundary=b\n\n".to_vec(), long(b"--b\n\n\r--b\r\n")]
                .concat()
        },
    },
    Poison { name: "one line", make: || text("text/plain", "", &long(b"x")) },
    Poison {
        name: "an epilogue",
        make: || [multipart(), b"--b--\r\n".to_vec(), long(b"--b\r\n")].concat(),
    },
    Poison { name: "base64 that is none", make: || text("text/plain", "base64", &long(b"=!A=")) },
    Poison {
        name: "quoted-printable that is none",
        make: || text("text/plain", "quoted-printable", &long(b"=\r= \t=A")),
    },
    Poison {
        name: "quoted-printable blanks",
        make: || text("text/plain", "quoted-printable", &long(b" ")),
    },
    Poison { name: "nested elements", make: || text("text/html", "", &long(b"<div><blockquote>")) },
    Poison { name: "elements without end", make: || text("text/html", "", &long(b"<a b='")) },
    Poison { name: "comments without end", make: || text("text/html", "", &long(b"<!--")) },
    Poison {
        name: "scripts without end",
        make: || text("text/html", "", &long(b"<script></scrip")),
    },
    Poison { name: "entities", make: || text("text/html", "", &long(b"&#x10FFFF;&amp")) },
    Poison {
        name: "quoted lines",
        make: || text("text/html", "", &[b"<blockquote>".repeat(1000), long(b"x<br>")].concat()),
    },
    Poison {
        name: "a charset that grows",
        make: || text("text/plain; charset=windows-1252", "8bit", &long(b"\x80")),
    },
    Poison { name: "octets without charset", make: || text("text/plain", "8bit", &noise()) },
    Poison {
        name: "octets in a stateful charset",
        make: || text("text/plain; charset=iso-2022-jp", "8bit", &long(b"\x1b$B\x1b(B")),
    },
    Poison {
        name: "what looks like an archive",
        make: || text("application/zip", "binary", &[b"PK\x03\x04".to_vec(), noise()].concat()),
    },
    Poison { name: "archives in an archive", make: || attached(&archives::nested()) },
    Poison { name: "an archive said to be 4 GiB", make: || attached(&archives::bomb()) },
    Poison { name: "an archive in itself", make: || attached(&archives::itself()) },
    Poison { name: "an archive whose list lies", make: || attached(&archives::lying_list()) },
    Poison { name: "noise", make: noise },
];

fn long(unit: &[u8]) -> Vec<u8> {
    unit.repeat(LONG / unit.len())
}

/// As much as is interpreted of a header.
fn many(unit: &[u8]) -> Vec<u8> {
    unit.repeat((250 << 10) / unit.len())
}

fn long_word(before: &[u8], octets: usize, behind: &[u8]) -> Vec<u8> {
    [before, &vec![b'x'; octets], behind].concat()
}

fn multipart() -> Vec<u8> {
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec()
}

fn field(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b": ", value, b"\r\n\r\nbody\r\n"].concat()
}

fn text(kind: &str, encoding: &str, body: &[u8]) -> Vec<u8> {
    let encoding = match encoding {
        "" => String::new(),
        name => format!("Content-Transfer-Encoding: {name}\r\n"),
    };
    [format!("Content-Type: {kind}\r\n{encoding}\r\n").as_bytes(), body].concat()
}

/// With an archive, as mail programs attach one.
fn attached(archive: &[u8]) -> Vec<u8> {
    let mut out = multipart();
    out.extend_from_slice(b"--b\r\n\r\nsee there\r\n--b\r\n");
    let kind = "application/zip; name=\"a.zip\"\r\nContent-Disposition: attachment";
    out.extend(text(kind, "base64", &archives::base64(archive)));
    out.extend_from_slice(b"--b--\r\n");
    out
}

/// Octets without order, the same each time.
fn noise() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(LONG / 8)
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Facts, Indexer, Job, Limits, Structure};

    fn facts(message: &[u8], step: usize) -> Facts {
        let mut job = Job::new(Limits::default());
        for chunk in message.chunks(step) {
            job.push(chunk);
        }
        job.finish()
    }

    /// What is kept of any message is bounded, and does not depend on how it comes.
    #[test]
    fn each_is_read_within_the_bounds() {
        let limits = Limits::default();
        for poison in ALL {
            let message = poison.message();
            let facts = facts(&message, 64 << 10);
            let name = poison.name;
            assert_eq!(facts.size, message.len() as u64, "{name}");
            assert!(facts.structure.sections().fits(facts.size, &limits), "{name}");
            let stored = facts.structure.encode();
            assert!(
                stored.len() <= limits.values + 64 * facts.structure.parts.len() + 64,
                "{name}"
            );
            assert_eq!(Structure::decode(&stored).as_ref(), Ok(&facts.structure), "{name}");
            let envelope = facts.envelope.encode();
            assert!(envelope.len() <= limits.values + 1024, "{name}");
            assert_eq!(crate::Envelope::decode(&envelope).as_ref(), Ok(&facts.envelope), "{name}");
            let text: usize = facts.texts.iter().map(|t| t.text.len()).sum();
            assert!(text <= limits.text, "{name}");
            assert!(facts.texts.iter().all(|t| t.text.len() <= limits.part_text), "{name}");
            assert!(facts.header_text.len() <= limits.header_text, "{name}");
            assert!(facts.references.len() <= Limits::REFERENCES, "{name}");
            assert!(facts.preview.chars().count() <= crate::preview::MAX_CHARS, "{name}");
            assert!(facts.subject.len() <= 4096, "{name}");
            assert!(
                facts.structure.parts.iter().all(|p| p.filename().is_none_or(|f| f.len() < 20_000))
            );
        }
    }

    #[test]
    fn chunks_do_not_matter() {
        for poison in ALL {
            let message = poison.message();
            let message = &message[..message.len().min(200_000)];
            assert_eq!(facts(message, 997), facts(message, message.len()), "{}", poison.name);
        }
    }

    #[test]
    fn memory_does_not_grow_with_the_message() {
        let limits = Limits::default();
        // 64 MB of header, 16 MB of each kind of body, a megabyte at a time.
        let bodies: [&[u8]; 4] = [
            b"",
            b"Content-Type: text/plain\r\n\r\n",
            b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n",
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n",
        ];
        for (head, mebibytes) in bodies.iter().zip([64, 16, 16, 16]) {
            let mut indexer = Indexer::new(limits);
            indexer.push(head);
            let chunk = b"QUJDREVG QUJDREVG QUJDREVG QUJDREVG-\r\n--QUJDREVG\r\n".repeat(20_000);
            for _ in 0..mebibytes {
                indexer.push(&chunk);
                assert!(indexer.weight() <= 2 * limits.header_read + chunk.len(), "{head:?}");
            }
            assert!(indexer.finish().parts.len() <= 2);
        }
    }
}
