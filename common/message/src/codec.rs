//! The compact binary forms of facts that are stored with a message: `bodystructure`, `sections`
//! and `envelope`.
//!
//! Written by the parser, kept by accountd as bytes, read again by imapd: so decoding is total,
//! believes no count and bounds what it builds. Each form begins with its version; numbers are
//! LEB128, octet strings carry their length. Disk formats only grow: a new version is a new reader
//! beside the old one.

use crate::{
    Limits,
    address::{Entry, Mailbox},
    envelope::Envelope,
    media::{Disposition, Encoding, Media, Param},
    structure::{Kind, Opaque, Part, Sections, Span, Structure},
};

/// The version of all three forms.
const VERSION: u8 = 1;

/// The longest stored form that is read.
pub const MAX_OCTETS: usize = 8 << 20;

/// Parts of one stored structure.
const MAX_PARTS: usize = 10_000;

/// Entries of all address lists of one stored form.
const MAX_ENTRIES: usize = 1 << 17;

/// Parameters and tags of all parts of one stored form.
const MAX_PARAMS: usize = 1 << 18;

/// Why octets are no stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("the stored form is cut off")]
    Cut,
    /// Its first octet is a version that this release does not know.
    #[error("the stored form has version {0}")]
    Version(u8),
    /// A number is out of its range.
    #[error("the stored form holds an impossible value")]
    Value,
    /// It is larger, or holds more of something, than is ever written.
    #[error("the stored form is too large")]
    TooLarge,
    /// Octets follow its end.
    #[error("octets follow the stored form")]
    Trailing,
}

#[derive(Debug)]
struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Self {
        Self(vec![VERSION])
    }

    fn number(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.0.push(low & 0x7f);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    fn count(&mut self, value: usize) {
        self.number(value as u64);
    }

    fn octets(&mut self, value: &[u8]) {
        self.count(value.len());
        self.0.extend_from_slice(value);
    }

    /// 0 is none; else one more than the length.
    fn optional(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.count(0),
            Some(value) => {
                self.count(value.len() + 1);
                self.0.extend_from_slice(value);
            }
        }
    }

    fn params(&mut self, params: &[Param]) {
        self.count(params.len());
        for param in params {
            self.octets(&param.name);
            self.octets(&param.value);
        }
    }

    fn list(&mut self, list: &[Entry]) {
        self.count(list.len());
        for entry in list {
            match entry {
                Entry::GroupEnd => self.0.push(0),
                Entry::GroupStart(name) => {
                    self.0.push(1);
                    self.octets(name);
                }
                Entry::Mailbox(mailbox) => {
                    self.0.push(2);
                    self.optional(mailbox.name.as_deref());
                    self.optional(mailbox.route.as_deref());
                    self.octets(&mailbox.localpart);
                    self.octets(&mailbox.host);
                }
            }
        }
    }

    fn envelope(&mut self, envelope: &Envelope) {
        for text in texts(envelope) {
            self.optional(text.as_deref());
        }
        for list in lists(envelope) {
            self.list(list);
        }
    }

    /// `before` is where the part before it begins.
    fn span(&mut self, span: &Span, before: u64) {
        self.number(span.parent.map_or(0, |parent| u64::from(parent) + 1));
        self.number(u64::from(span.number));
        self.0.push(kind_code(span.kind));
        self.0.push(encoding_code(span.encoding));
        self.number(span.header.start.saturating_sub(before));
        self.number(span.header.end.saturating_sub(span.header.start));
        self.number(span.body.start.saturating_sub(span.header.end));
        self.number(span.size());
        self.number(span.lines);
        self.number(if span.decoded == span.size() { 0 } else { span.decoded + 1 });
    }
}

fn texts(envelope: &Envelope) -> [&Option<Vec<u8>>; 4] {
    [&envelope.date, &envelope.subject, &envelope.in_reply_to, &envelope.message_id]
}

fn lists(envelope: &Envelope) -> [&Vec<Entry>; 6] {
    let Envelope { from, sender, reply_to, to, cc, bcc, .. } = envelope;
    [from, sender, reply_to, to, cc, bcc]
}

const KINDS: [Kind; 9] = [
    Kind::Leaf,
    Kind::Multipart,
    Kind::Message,
    Kind::Opaque(Opaque::NoBoundary),
    Kind::Opaque(Opaque::Encoded),
    Kind::Opaque(Opaque::Depth),
    Kind::Opaque(Opaque::Parts),
    Kind::Opaque(Opaque::Header),
    Kind::Opaque(Opaque::Cut),
];

fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Leaf => 0,
        Kind::Multipart => 1,
        Kind::Message => 2,
        Kind::Opaque(Opaque::NoBoundary) => 3,
        Kind::Opaque(Opaque::Encoded) => 4,
        Kind::Opaque(Opaque::Depth) => 5,
        Kind::Opaque(Opaque::Parts) => 6,
        Kind::Opaque(Opaque::Header) => 7,
        Kind::Opaque(Opaque::Cut) => 8,
    }
}

const ENCODINGS: [Encoding; 6] = [
    Encoding::SevenBit,
    Encoding::EightBit,
    Encoding::Binary,
    Encoding::Base64,
    Encoding::QuotedPrintable,
    Encoding::Other,
];

fn encoding_code(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::SevenBit => 0,
        Encoding::EightBit => 1,
        Encoding::Binary => 2,
        Encoding::Base64 => 3,
        Encoding::QuotedPrintable => 4,
        Encoding::Other => 5,
    }
}

#[derive(Debug)]
struct Reader<'a> {
    rest: &'a [u8],
    /// What is left of [`MAX_ENTRIES`] and [`MAX_PARAMS`].
    entries: usize,
    params: usize,
}

impl<'a> Reader<'a> {
    fn new(form: &'a [u8]) -> Result<Self, DecodeError> {
        if form.len() > MAX_OCTETS {
            return Err(DecodeError::TooLarge);
        }
        match form.split_first() {
            Some((&VERSION, rest)) => Ok(Self { rest, entries: MAX_ENTRIES, params: MAX_PARAMS }),
            Some((&other, _)) => Err(DecodeError::Version(other)),
            None => Err(DecodeError::Cut),
        }
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    fn octet(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or(DecodeError::Cut)?;
        self.rest = rest;
        Ok(first)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let octet = self.octet()?;
            value |= u64::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Ok(value);
            }
        }
        // Nine groups are 63 bits: no offset or count is larger.
        Err(DecodeError::Value)
    }

    fn small(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.number()?).map_err(|_| DecodeError::Value)
    }

    /// A count of things of which each takes an octet at least.
    fn count(&mut self) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.number()?).map_err(|_| DecodeError::Value)?;
        if count > self.rest.len() { Err(DecodeError::Cut) } else { Ok(count) }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Cut)?;
        self.rest = rest;
        Ok(taken.to_vec())
    }

    fn octets(&mut self) -> Result<Vec<u8>, DecodeError> {
        let length = self.count()?;
        self.take(length)
    }

    fn optional(&mut self) -> Result<Option<Vec<u8>>, DecodeError> {
        match usize::try_from(self.number()?).map_err(|_| DecodeError::Value)? {
            0 => Ok(None),
            more => self.take(more - 1).map(Some),
        }
    }

    fn text(&mut self) -> Result<String, DecodeError> {
        String::from_utf8(self.octets()?).map_err(|_| DecodeError::Value)
    }

    fn pay(left: &mut usize, count: usize) -> Result<(), DecodeError> {
        *left = left.checked_sub(count).ok_or(DecodeError::TooLarge)?;
        Ok(())
    }

    fn params(&mut self) -> Result<Vec<Param>, DecodeError> {
        let count = self.count()?;
        Self::pay(&mut self.params, count)?;
        (0..count).map(|_| Ok(Param { name: self.octets()?, value: self.octets()? })).collect()
    }

    fn list(&mut self) -> Result<Vec<Entry>, DecodeError> {
        let count = self.count()?;
        Self::pay(&mut self.entries, count)?;
        (0..count)
            .map(|_| match self.octet()? {
                0 => Ok(Entry::GroupEnd),
                1 => Ok(Entry::GroupStart(self.octets()?)),
                2 => Ok(Entry::Mailbox(Mailbox {
                    name: self.optional()?,
                    route: self.optional()?,
                    localpart: self.octets()?,
                    host: self.octets()?,
                })),
                _ => Err(DecodeError::Value),
            })
            .collect()
    }

    fn envelope(&mut self) -> Result<Envelope, DecodeError> {
        Ok(Envelope {
            date: self.optional()?,
            subject: self.optional()?,
            in_reply_to: self.optional()?,
            message_id: self.optional()?,
            from: self.list()?,
            sender: self.list()?,
            reply_to: self.list()?,
            to: self.list()?,
            cc: self.list()?,
            bcc: self.list()?,
        })
    }

    fn span(&mut self, index: usize, before: u64) -> Result<Span, DecodeError> {
        let parent = self.number()?.checked_sub(1);
        let parent = parent.map(u32::try_from).transpose().map_err(|_| DecodeError::Value)?;
        // Only the first part has no parent, and a parent stands before its children.
        let in_order = match parent {
            None => index == 0,
            Some(parent) => (parent as usize) < index,
        };
        if !in_order {
            return Err(DecodeError::Value);
        }
        let number = self.small()?;
        let kind = *KINDS.get(usize::from(self.octet()?)).ok_or(DecodeError::Value)?;
        let encoding = *ENCODINGS.get(usize::from(self.octet()?)).ok_or(DecodeError::Value)?;
        let mut at = before;
        let mut further = |by: u64| {
            at = at.checked_add(by).ok_or(DecodeError::Value)?;
            Ok::<u64, DecodeError>(at)
        };
        let header_start = further(self.number()?)?;
        let header_end = further(self.number()?)?;
        let body_start = further(self.number()?)?;
        let size = self.number()?;
        let body_end = further(size)?;
        let lines = self.number()?;
        let decoded = self.number()?.checked_sub(1).unwrap_or(size);
        Ok(Span {
            parent,
            number,
            kind,
            header: header_start..header_end,
            body: body_start..body_end,
            lines,
            decoded,
            encoding,
        })
    }

    fn parts_count(&mut self) -> Result<usize, DecodeError> {
        let count = self.count()?;
        if count > MAX_PARTS { Err(DecodeError::TooLarge) } else { Ok(count) }
    }
}

impl Sections {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.count(self.spans.len());
        let mut before = 0;
        for span in &self.spans {
            writer.span(span, before);
            before = span.header.start;
        }
        writer.0
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When the octets are none that [`Self::encode`] writes.
    pub fn decode(form: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(form)?;
        let mut spans = Vec::new();
        let mut before = 0;
        for index in 0..reader.parts_count()? {
            let span = reader.span(index, before)?;
            before = span.header.start;
            spans.push(span);
        }
        reader.end()?;
        Ok(Self { spans })
    }

    /// Whether this can be the layout of a message of `size` octets under `limits`: what accountd
    /// asks about facts that come from a parser it does not trust.
    #[must_use]
    pub fn fits(&self, size: u64, limits: &Limits) -> bool {
        let Some(root) = self.spans.first() else { return false };
        if self.spans.len() > limits.parts
            || root.header.start != 0
            || root.body.end != size
            || root.number != 1
        {
            return false;
        }
        let mut children = vec![0u32; self.spans.len()];
        let mut depths = vec![0usize; self.spans.len()];
        self.spans.iter().enumerate().all(|(index, span)| {
            let ordered = span.header.start <= span.header.end
                && span.header.end <= span.body.start
                && span.body.start <= span.body.end
                && span.lines <= span.size()
                && span.decoded <= span.size();
            let Some(parent) = span.parent.map(|p| p as usize) else {
                return ordered && index == 0;
            };
            let Some(above) = self.spans.get(parent).filter(|_| parent < index) else {
                return false;
            };
            children[parent] += 1;
            depths[index] = depths[parent] + 1;
            let inside = above.body.start <= span.header.start && span.body.end <= above.body.end;
            let placed = match above.kind {
                Kind::Multipart => span.number == children[parent],
                Kind::Message => span.number == 1 && children[parent] == 1,
                Kind::Leaf | Kind::Opaque(_) => false,
            };
            ordered && inside && placed && depths[index] <= limits.depth
        })
    }
}

impl Envelope {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.envelope(self);
        writer.0
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When the octets are none that [`Self::encode`] writes.
    pub fn decode(form: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(form)?;
        let envelope = reader.envelope()?;
        reader.end()?;
        Ok(envelope)
    }
}

/// Marks which optional values of a part follow.
const HAS_DISPOSITION: u8 = 1;
const HAS_ENVELOPE: u8 = 2;
const IS_DECLARED: u8 = 4;
const HAS_TEXTS: u8 = 8;

impl Structure {
    /// The stored form, with the places of all parts in it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.count(self.parts.len());
        let mut before = 0;
        for part in &self.parts {
            writer.span(&part.span, before);
            before = part.span.header.start;
            let texts =
                [&part.id, &part.description, &part.md5, &part.location, &part.encoding_name];
            let has_texts = texts.iter().any(|t| t.is_some()) || !part.language.is_empty();
            let mark = |bit: u8, on: bool| if on { bit } else { 0 };
            writer.0.push(
                mark(HAS_DISPOSITION, part.disposition.is_some())
                    | mark(HAS_ENVELOPE, part.envelope.is_some())
                    | mark(IS_DECLARED, part.media.declared)
                    | mark(HAS_TEXTS, has_texts),
            );
            writer.octets(part.media.kind.as_bytes());
            writer.octets(part.media.subtype.as_bytes());
            writer.params(&part.media.params);
            if has_texts {
                for text in texts {
                    writer.optional(text.as_deref());
                }
                writer.count(part.language.len());
                for tag in &part.language {
                    writer.octets(tag);
                }
            }
            if let Some(disposition) = &part.disposition {
                writer.octets(&disposition.kind);
                writer.params(&disposition.params);
            }
            if let Some(envelope) = &part.envelope {
                writer.envelope(envelope);
            }
        }
        writer.0
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When the octets are none that [`Self::encode`] writes.
    pub fn decode(form: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(form)?;
        let mut parts = Vec::new();
        let mut before = 0;
        for index in 0..reader.parts_count()? {
            let part = read_part(&mut reader, index, before)?;
            before = part.span.header.start;
            parts.push(part);
        }
        reader.end()?;
        Ok(Self { parts })
    }
}

fn read_part(reader: &mut Reader<'_>, index: usize, before: u64) -> Result<Part, DecodeError> {
    let span = reader.span(index, before)?;
    let marks = reader.octet()?;
    if marks & !(HAS_DISPOSITION | HAS_ENVELOPE | IS_DECLARED | HAS_TEXTS) != 0 {
        return Err(DecodeError::Value);
    }
    let media = Media {
        kind: reader.text()?,
        subtype: reader.text()?,
        params: reader.params()?,
        declared: marks & IS_DECLARED != 0,
    };
    let mut part = Part {
        span,
        media,
        disposition: None,
        id: None,
        description: None,
        md5: None,
        language: Vec::new(),
        location: None,
        encoding_name: None,
        envelope: None,
    };
    if marks & HAS_TEXTS != 0 {
        part.id = reader.optional()?;
        part.description = reader.optional()?;
        part.md5 = reader.optional()?;
        part.location = reader.optional()?;
        part.encoding_name = reader.optional()?;
        let count = reader.count()?;
        Reader::pay(&mut reader.params, count)?;
        part.language = (0..count).map(|_| reader.octets()).collect::<Result<_, _>>()?;
    }
    if marks & HAS_DISPOSITION != 0 {
        part.disposition = Some(Disposition { kind: reader.octets()?, params: reader.params()? });
    }
    if marks & HAS_ENVELOPE != 0 {
        part.envelope = Some(Box::new(reader.envelope()?));
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Indexer;
    use proptest::prelude::*;

    const MESSAGE: &[u8] = b"Subject: s\r\nContent-Type: multipart/mixed; boundary=bb\r\n\r\n--bb\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Language: de, en\r\n\
        Content-Disposition: attachment; filename=x\r\nContent-Transfer-Encoding: base64\r\n\
        Content-ID: <i>\r\n\r\naGk=\r\n--bb\r\nContent-Type: message/rfc822\r\n\r\nTo: g: a@b, \"C\" <c@d>;\r\n\
        Subject: in\r\n\r\nbody\r\n--bb--\r\n";

    fn structure(message: &[u8]) -> Structure {
        let mut indexer = Indexer::new(Limits::default());
        indexer.push(message);
        indexer.finish()
    }

    #[test]
    fn written_then_read() {
        let structure = structure(MESSAGE);
        assert_eq!(structure.parts.len(), 4);
        assert_eq!(Structure::decode(&structure.encode()), Ok(structure.clone()));
        let sections = structure.sections();
        assert_eq!(Sections::decode(&sections.encode()), Ok(sections.clone()));
        assert!(sections.encode().len() < 70);
        assert!(sections.fits(MESSAGE.len() as u64, &Limits::default()));
        assert!(!sections.fits(MESSAGE.len() as u64 - 1, &Limits::default()));
        let envelope = Envelope::read(b"To: g: a@b;, \"x\" <@r:y@z>\r\nDate:\r\n\r\n", usize::MAX);
        assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
    }

    #[test]
    fn every_cut_and_every_other_octet_is_an_answer() {
        let structure = structure(MESSAGE);
        for form in [structure.encode(), structure.sections().encode()] {
            for end in 0..form.len() {
                assert!(Structure::decode(&form[..end]).is_err());
                assert!(Sections::decode(&form[..end]).is_err());
            }
            for at in 0..form.len() {
                for value in [0u8, 1, 0x7f, 0x80, 0xff] {
                    let mut other = form.clone();
                    other[at] = value;
                    if let Ok(read) = Structure::decode(&other) {
                        // Whatever it is, walking it ends.
                        for index in 0..read.parts.len() {
                            let path = read.path(index);
                            let _ = read.section(&path, crate::SectionKind::Text);
                        }
                        let _ = read.sections().fits(MESSAGE.len() as u64, &Limits::default());
                    }
                }
            }
            let mut longer = form.clone();
            longer.push(0);
            assert!(Structure::decode(&longer).is_err());
        }
        assert_eq!(Structure::decode(&[2]), Err(DecodeError::Version(2)));
        assert_eq!(Structure::decode(&[]), Err(DecodeError::Cut));
    }

    #[test]
    fn counts_are_not_believed() {
        // A count of 2^40 parts, of 10,001 parts with octets for them, and an endless number.
        assert_eq!(
            Structure::decode(&[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20]),
            Err(DecodeError::Cut)
        );
        let mut many = vec![1, 0x91, 0x4e];
        many.resize(20_000, 0);
        assert_eq!(Sections::decode(&many), Err(DecodeError::TooLarge));
        assert_eq!(Sections::decode(&[&[1][..], &[0x80; 20]].concat()), Err(DecodeError::Value));
        // Group ends are one octet each: the entries are what is bounded.
        let mut groups = vec![1, 0, 0, 0, 0, 0x81, 0x80, 0x08];
        groups.resize(groups.len() + (1 << 17) + 20, 0);
        assert_eq!(Envelope::decode(&groups), Err(DecodeError::TooLarge));
        assert_eq!(Envelope::decode(&vec![1; MAX_OCTETS + 1]), Err(DecodeError::TooLarge));
    }

    proptest! {
        #[test]
        fn any_octets(mut form: Vec<u8>) {
            form.insert(0, VERSION);
            let _ = Structure::decode(&form);
            let _ = Sections::decode(&form);
            let _ = Envelope::decode(&form);
        }
    }
}
