//! All that is worth keeping of a message, found in one pass.

use crate::{
    Indexer, Limits, Sink, Structure, charset,
    date::Date,
    encoded_word,
    envelope::Envelope,
    field::{Fields, unfold_trimmed},
    html, preview,
    structure::{Kind, Opaque, Part},
    thread,
};

/// Where a charset may be declared inside an HTML document.
const META_WITHIN: usize = 1024;

/// The longest decoded value in the header text, in octets.
const MAX_HEADER_VALUE: usize = 16 << 10;

/// The decoded text of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartText {
    /// Index of the part in [`Structure::parts`].
    pub part: u32,
    /// Whether it was HTML; the text is what [`html::to_text`] made of it.
    pub html: bool,
    /// The text.
    pub text: String,
}

/// What a message is, for whoever stores, lists, threads, searches and judges it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Octets of the message.
    pub size: u64,
    /// Its line ends.
    pub lines: u64,
    /// Its parts.
    pub structure: Structure,
    /// Its envelope; those of embedded messages are in the structure.
    pub envelope: Envelope,
    /// Its Date, read.
    pub sent: Option<Date>,
    /// Its subject, decoded.
    pub subject: String,
    /// Its canonical message-id.
    pub message_id: Option<String>,
    /// The canonical ids it refers to, oldest first.
    pub references: Vec<String>,
    /// The base subject, and whether the subject is that of an answer.
    pub base_subject: thread::BaseSubject,
    /// Whether it is a delivery status notification (RFC 3464).
    pub is_dsn: bool,
    /// Its first words, on one line; empty if there are none to show.
    pub preview: String,
    /// The decoded texts, in the order of the parts.
    pub texts: Vec<PartText>,
    /// The header decoded, a line `Name: value` a field, in order.
    pub header_text: String,
    /// How many Received fields it has; what bounds mail loops (RFC 5321 §6.3).
    pub received: u32,
    /// How many From fields it has; RFC 5322 §3.6 wants one.
    pub from_fields: u32,
    /// Whether its header has octets above 127, so that it needs SMTPUTF8 (RFC 6531).
    pub header_8bit: bool,
    /// Whether anything behind the header has octets above 127, so that it needs 8BITMIME.
    pub body_8bit: bool,
    /// Whether text was left out because of a bound.
    pub text_cut: bool,
}

impl Facts {
    /// Octets of its header block with the empty line.
    #[must_use]
    pub fn header_length(&self) -> u64 {
        self.structure.parts.first().map_or(0, |root| root.span.header.end)
    }

    /// Whether its own header passed the bounds, so that nothing was read of it but its size.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        let root = self.structure.parts.first();
        root.is_some_and(|root| root.span.kind == Kind::Opaque(Opaque::Header))
    }

    /// The file names of its parts, decoded, in order.
    pub fn filenames(&self) -> impl Iterator<Item = String> + '_ {
        self.structure.parts.iter().filter_map(Part::filename)
    }
}

/// The reading of one message. Deterministic; memory is bounded by its [`Limits`] and does not grow
/// with the message.
#[derive(Debug)]
pub struct Job {
    indexer: Indexer<Collector>,
    header_8bit: bool,
    body_8bit: bool,
}

impl Job {
    /// A job under these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let collector = Collector { limits, ..Collector::default() };
        Self {
            indexer: Indexer::with_sink(limits, collector),
            header_8bit: false,
            body_8bit: false,
        }
    }

    /// Takes a chunk of the message.
    pub fn push(&mut self, chunk: &[u8]) {
        self.indexer.push(chunk);
        if !self.body_8bit && !chunk.is_ascii() {
            self.see_8bit(chunk);
        }
    }

    /// Whether the octets above 127 of a chunk that was taken are in the header or behind it.
    fn see_8bit(&mut self, chunk: &[u8]) {
        let start = self.indexer.size() - chunk.len() as u64;
        let header_end = self.indexer.root_header_end();
        let inside = header_end
            .map_or(chunk.len(), |end| {
                usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX)
            })
            .min(chunk.len());
        self.header_8bit |= !chunk[..inside].is_ascii();
        self.body_8bit |= !chunk[inside..].is_ascii();
    }

    /// Ends the message.
    #[must_use]
    pub fn finish(self) -> Facts {
        let (structure, collector) = self.indexer.finish_with();
        let block = &collector.header;
        let envelope = Envelope::read(block, collector.limits.values);
        let subject = envelope.decoded_subject();
        let fields = |name: &str| {
            u32::try_from(Fields::new(block).filter(|f| f.is(name)).count()).unwrap_or(u32::MAX)
        };
        Facts {
            size: collector.size,
            lines: collector.lines,
            sent: envelope.sent(),
            message_id: thread::message_id(block),
            references: thread::references(block),
            base_subject: thread::base_subject(&subject),
            is_dsn: is_dsn(&structure),
            preview: preview_of(&structure, &collector.texts),
            header_text: header_text(block, collector.limits.header_text),
            received: fields("Received"),
            from_fields: fields("From"),
            header_8bit: self.header_8bit,
            body_8bit: self.body_8bit,
            text_cut: collector.cut,
            texts: collector.texts,
            structure,
            envelope,
            subject,
        }
    }
}

/// RFC 3464 §2: multipart/report with report-type=delivery-status.
fn is_dsn(structure: &Structure) -> bool {
    structure.parts.first().is_some_and(|root| {
        root.media.is("multipart", Some("report"))
            && root
                .media
                .param("report-type")
                .is_some_and(|t| t.eq_ignore_ascii_case(b"delivery-status"))
    })
}

fn header_text(block: &[u8], limit: usize) -> String {
    let mut out = String::new();
    for field in Fields::new(block) {
        if out.len() >= limit {
            break;
        }
        out.push_str(&String::from_utf8_lossy(field.name));
        out.push_str(": ");
        out.push_str(&encoded_word::decode(&unfold_trimmed(field.value), MAX_HEADER_VALUE));
        out.push('\n');
    }
    charset::truncate(&mut out, limit);
    out
}

/// The first text that shows something: not an attachment, not of an embedded message, of
/// multipart/signed only the first part, of multipart/encrypted nothing.
fn preview_of(structure: &Structure, texts: &[PartText]) -> String {
    texts
        .iter()
        .filter(|text| is_shown(structure, text.part as usize))
        .map(|text| preview::preview(&text.text))
        .find(|preview| !preview.is_empty())
        .unwrap_or_default()
}

fn is_shown(structure: &Structure, index: usize) -> bool {
    let mut at = Some(index);
    while let Some(part) = at.and_then(|at| structure.parts.get(at)) {
        let above = part.span.parent.and_then(|p| structure.parts.get(p as usize));
        let hidden = part.is_attachment()
            || above.is_some_and(|above| {
                above.span.kind == Kind::Message
                    || above.media.is("multipart", Some("encrypted"))
                    || (above.media.is("multipart", Some("signed")) && part.span.number != 1)
            });
        if hidden {
            return false;
        }
        at = part.span.parent.map(|p| p as usize);
    }
    true
}

/// What is collected while the message passes by.
#[derive(Debug, Default)]
struct Collector {
    limits: Limits,
    /// The message's own header block, as far as it is interpreted.
    header: Vec<u8>,
    texts: Vec<PartText>,
    /// Octets of `texts`.
    text_size: usize,
    cut: bool,
    current: Option<Current>,
    size: u64,
    lines: u64,
}

/// The text part that is passing.
#[derive(Debug)]
struct Current {
    html: bool,
    charset: Vec<u8>,
    octets: Vec<u8>,
}

impl Sink for Collector {
    fn header(&mut self, index: usize, part: &Part, block: &[u8]) {
        if index == 0 {
            self.header = block.to_vec();
        }
        let is_text = part.span.kind == Kind::Leaf
            && part.media.is("text", None)
            && part.span.encoding_is_known();
        self.current = is_text.then(|| Current {
            html: part.media.subtype == "html",
            charset: part.media.param("charset").unwrap_or_default().to_vec(),
            octets: Vec::new(),
        });
    }

    fn content(&mut self, _: usize, content: &[u8]) {
        let Some(current) = self.current.as_mut() else { return };
        let room = self.limits.part_text.min(self.limits.text.saturating_sub(self.text_size));
        let taken = content.len().min(room.saturating_sub(current.octets.len()));
        self.cut |= taken < content.len();
        current.octets.extend_from_slice(&content[..taken]);
    }

    fn end(&mut self, index: usize) {
        let Some(current) = self.current.take() else { return };
        let room = self.limits.part_text.min(self.limits.text.saturating_sub(self.text_size));
        let declared = if current.html && current.charset.is_empty() {
            meta_charset(&current.octets)
        } else {
            &current.charset
        };
        let mut text = charset::decode(declared, &current.octets);
        if current.html {
            text = html::to_text(&text, room);
        }
        self.cut |= text.len() > room;
        charset::truncate(&mut text, room);
        if text.trim().is_empty() {
            return;
        }
        self.text_size += text.len();
        let part = u32::try_from(index).unwrap_or(u32::MAX);
        self.texts.push(PartText { part, html: current.html, text });
    }

    fn over(&mut self, octets: u64, lines: u64) {
        (self.size, self.lines) = (octets, lines);
    }
}

/// The charset an HTML document declares for itself.
fn meta_charset(html: &[u8]) -> &[u8] {
    const NAME: &[u8] = b"charset=";
    let head = &html[..html.len().min(META_WITHIN)];
    let Some(at) = head.windows(NAME.len()).position(|w| w.eq_ignore_ascii_case(NAME)) else {
        return b"";
    };
    let value = &head[at + NAME.len()..];
    let value = value.strip_prefix(b"\"").or_else(|| value.strip_prefix(b"'")).unwrap_or(value);
    let end = value
        .iter()
        .position(|b| !b.is_ascii_alphanumeric() && !matches!(b, b'-' | b'_' | b':' | b'.'))
        .unwrap_or(value.len());
    &value[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(message: &[u8]) -> Facts {
        let mut job = Job::new(Limits::default());
        job.push(message);
        job.finish()
    }

    fn multipart(subtype: &str, parts: &[&str]) -> Vec<u8> {
        let mut out =
            format!("From: a@b.test\r\nContent-Type: multipart/{subtype}; boundary=bb\r\n\r\n");
        for part in parts {
            out.push_str(&format!("--bb\r\n{part}\r\n"));
        }
        (out + "--bb--\r\n").into_bytes()
    }

    #[test]
    fn the_header_is_told() {
        let facts = facts(
            b"Received: by x\r\nReceived: by y\r\nFrom: a@b.test\r\nFrom: c@d.test\r\n\
            Subject: Re: =?iso-8859-1?q?gr=FCn?=\r\n =?iso-8859-1?q?_tea?=\r\n\
            Message-ID: <X@Y>\r\nIn-Reply-To: <r@s>\r\n\r\nbody\r\n",
        );
        assert_eq!((facts.received, facts.from_fields, facts.lines), (2, 2, 10));
        assert_eq!(facts.envelope.from.len(), 2);
        assert_eq!(facts.subject, "Re: grün tea");
        assert_eq!(facts.base_subject.text, "grün tea");
        assert_eq!(facts.message_id.as_deref(), Some("x@y"));
        assert_eq!(facts.references, ["r@s"]);
        assert!(facts.header_text.contains("\nSubject: Re: grün tea\nMessage-ID: <X@Y>\n"));
        assert_eq!(facts.header_length() + 6, facts.size);
        assert!(!facts.is_dsn && !facts.is_opaque() && !facts.text_cut && facts.sent.is_none());
    }

    #[test]
    fn octets_above_127_are_told_apart() {
        for (message, header, body) in [
            (&b"A: b\r\n\r\nc\r\n"[..], false, false),
            ("A: ä\r\n\r\nc\r\n".as_bytes(), true, false),
            ("A: b\r\n\r\nä\r\n".as_bytes(), false, true),
            ("A: ä\r\n\r\nä\r\n".as_bytes(), true, true),
            ("A: ä".as_bytes(), true, false),
        ] {
            for step in 1..=message.len() {
                let mut job = Job::new(Limits::default());
                message.chunks(step).for_each(|chunk| job.push(chunk));
                let facts = job.finish();
                assert_eq!(
                    (facts.header_8bit, facts.body_8bit),
                    (header, body),
                    "{message:?} {step}"
                );
            }
        }
    }

    #[test]
    fn texts_are_decoded() {
        let facts = facts(&multipart(
            "mixed",
            &[
                "Content-Type: text/plain; charset=iso-8859-1\r\n\
                 Content-Transfer-Encoding: quoted-printable\r\n\r\ngr=FCn",
                "Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n\
                 PG1ldGEgY2hhcnNldD0iaXNvLTg4NTktMSI+Z3L8bg==",
                "Content-Type: application/octet-stream\r\n\r\nnot this",
                "Content-Type: text/plain\r\nContent-Transfer-Encoding: x-odd\r\n\r\nnor this",
                "\r\nundeclared grün",
            ],
        ));
        let texts: Vec<_> = facts.texts.iter().map(|t| (t.part, t.html, t.text.as_str())).collect();
        assert_eq!(texts, [(1, false, "grün"), (2, true, "grün"), (5, false, "undeclared grün")]);
    }

    #[test]
    fn the_preview_is_of_what_is_shown() {
        let attachment = "Content-Disposition: attachment\r\n\r\nattached";
        let embedded = "Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\nembedded";
        let cases: [(&str, &[&str], &str); 6] = [
            ("mixed", &[attachment, "\r\nshown"], "shown"),
            ("mixed", &[embedded, "\r\nshown"], "shown"),
            ("alternative", &["\r\n \r\n", "Content-Type: text/html\r\n\r\n<p>html"], "html"),
            ("signed", &["\r\nfirst", "\r\nsecond"], "first"),
            ("signed", &[attachment, "\r\nsecond"], ""),
            ("encrypted", &["\r\nVersion: 1"], ""),
        ];
        for (subtype, parts, preview) in cases {
            assert_eq!(facts(&multipart(subtype, parts)).preview, preview, "{subtype}");
        }
    }

    #[test]
    fn what_is_cut_is_said() {
        let limits = Limits { part_text: 10, text: 15, header_text: 12, ..Limits::default() };
        let mut job = Job::new(limits);
        job.push(&multipart("mixed", &["\r\n0123456789abc", "\r\n0123456789", "\r\nx"]));
        let facts = job.finish();
        assert!(facts.text_cut);
        let lengths: Vec<_> = facts.texts.iter().map(|t| t.text.len()).collect();
        assert_eq!(lengths, [10, 5]);
        assert_eq!(facts.header_text, "From: a@b.te");
    }
}
