//! The MIME indexer: bytes in chunks of any size, places of all parts out.
//!
//! It works line by line and holds nothing of a body but a line that may be a delimiter (bounded)
//! and the line end before it, which belongs to the delimiter (RFC 2046 §5.1.1). Containers are on an
//! explicit stack, parts in a flat list; the result does not depend on how the input is cut.
//!
//! Lines end at LF, with or without CR before it: an importing or appending client may have sent
//! bare LF, and every reader of mail splits there. A bare CR is content.

use crate::{
    Limits,
    envelope::Envelope,
    field::{Fields, trim_line_end, unfold_trimmed},
    media::{Disposition, Encoding, Media, Param, parse_encoding, parse_languages},
    structure::{Kind, Opaque, Part, Span, Structure},
    transfer::Decoder,
};

/// The longest Content-ID, Content-Description and their kin kept, in octets.
const MAX_VALUE: usize = 1024;

/// Decoded content waits here between the decoder and the sink.
const SCRATCH: usize = 64 << 10;

/// What is told while the message passes by.
pub trait Sink {
    /// The header block of a part is over; `block` is what of it is interpreted.
    fn header(&mut self, index: usize, part: &Part, block: &[u8]) {
        let _ = (index, part, block);
    }

    /// Content of a part that has no parts of its own, its transfer encoding undone. All content of
    /// one part comes before the next part's header.
    fn content(&mut self, index: usize, content: &[u8]) {
        let _ = (index, content);
    }

    /// The content of that part is over.
    fn end(&mut self, index: usize) {
        let _ = index;
    }

    /// The message is over: it had so many octets and line ends.
    fn over(&mut self, octets: u64, lines: u64) {
        let _ = (octets, lines);
    }
}

impl Sink for () {}

/// A multipart or embedded message whose end has not come.
#[derive(Debug)]
struct Open {
    part: usize,
    /// Line ends before its body.
    lines_before: u64,
    container: Container,
}

impl Open {
    /// What stands behind the boundary on a line that begins with it.
    fn behind<'a>(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        match &self.container {
            Container::Multipart { boundary, closed: false, .. } => {
                line.strip_prefix(&boundary[..])
            }
            Container::Multipart { .. } | Container::Message => None,
        }
    }
}

#[derive(Debug)]
enum Container {
    Multipart { boundary: Vec<u8>, closed: bool, children: u32, digest: bool },
    Message,
}

/// The part without parts whose content is passing.
#[derive(Debug)]
struct Leaf {
    part: usize,
    lines_before: u64,
    decoder: Decoder,
    decoded: u64,
    /// The end of the last line, which may turn out to be the delimiter's.
    tail: &'static [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// In the header block of the last part.
    Header,
    /// In the content of `leaf`.
    Leaf,
    /// In a preamble or epilogue (RFC 2046 §5.1.1): nobody's content.
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// At its start.
    Start,
    /// It begins with `-` and may be a delimiter: `held` has it.
    Held,
    /// It is none.
    Plain,
}

/// A delimiter line that was recognised.
#[derive(Debug, Clone, Copy)]
struct Delimiter {
    /// Which open container it belongs to.
    open: usize,
    /// Whether it closes that multipart.
    close: bool,
}

/// Builds a [`Structure`] from a message that arrives in chunks.
#[derive(Debug)]
pub struct Indexer<S: Sink = ()> {
    limits: Limits,
    sink: S,
    parts: Vec<Part>,
    open: Vec<Open>,
    /// Multiparts in `open` whose delimiters count.
    active: usize,
    phase: Phase,
    leaf: Option<Leaf>,
    header: Vec<u8>,
    header_size: u64,
    line: Line,
    held: Vec<u8>,
    /// Octets of the current line that were taken, its first octet, and whether the last is CR.
    line_length: u64,
    line_first: u8,
    ends_in_cr: bool,
    /// Octets of the line end before the current line.
    line_end: u64,
    /// Octets taken; stands at the start of the line while one is held.
    offset: u64,
    /// Line ends taken.
    lines: u64,
    /// What is left of [`Limits::values`].
    values: usize,
    scratch: Vec<u8>,
}

impl Indexer<()> {
    /// An indexer that only builds the structure.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::with_sink(limits, ())
    }
}

impl<S: Sink> Indexer<S> {
    /// An indexer that also tells what passes by.
    #[must_use]
    pub fn with_sink(limits: Limits, sink: S) -> Self {
        let mut indexer = Self {
            limits,
            sink,
            parts: Vec::new(),
            open: Vec::new(),
            active: 0,
            phase: Phase::Header,
            leaf: None,
            header: Vec::new(),
            header_size: 0,
            line: Line::Start,
            held: Vec::new(),
            line_length: 0,
            line_first: 0,
            ends_in_cr: false,
            line_end: 0,
            offset: 0,
            lines: 0,
            values: limits.values,
            scratch: Vec::new(),
        };
        indexer.begin_part(None, 1, Media::text_plain());
        indexer
    }

    /// Octets taken so far, with those held back.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.offset + self.held.len() as u64
    }

    /// Where the message's own header block ended, once it has.
    pub(crate) fn root_header_end(&self) -> Option<u64> {
        let over = self.parts.len() > 1 || self.phase != Phase::Header;
        self.parts.first().filter(|_| over).map(|root| root.span.header.end)
    }

    /// Octets of memory that depend on the input, for the tests of the bounds.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> usize {
        self.header.capacity() + self.held.capacity() + self.scratch.capacity()
    }

    /// Takes a chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while let Some(&first) = rest.first() {
            match self.line {
                Line::Start if self.active > 0 && first == b'-' => self.line = Line::Held,
                Line::Start => self.line = Line::Plain,
                Line::Held => {
                    let room = Limits::DELIMITER_LINE - self.held.len();
                    let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
                    let (taken, left) = rest.split_at(end.min(room));
                    self.held.extend_from_slice(taken);
                    rest = left;
                    if self.held.ends_with(b"\n") {
                        self.line = Line::Start;
                        self.decide_held();
                    } else if self.held.len() >= Limits::DELIMITER_LINE {
                        self.line = Line::Plain;
                        self.release_held();
                    }
                }
                Line::Plain if self.active == 0 && self.phase != Phase::Header => {
                    // No delimiter can come any more: lines only have to be counted.
                    self.take_all(rest);
                    return;
                }
                Line::Plain => {
                    let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
                    let (taken, left) = rest.split_at(end);
                    rest = left;
                    if taken.ends_with(b"\n") {
                        self.line = Line::Start;
                    }
                    self.take(taken);
                }
            }
        }
    }

    /// Ends the message.
    #[must_use]
    pub fn finish(self) -> Structure {
        self.finish_with().0
    }

    /// Ends the message and gives the sink back.
    #[must_use]
    pub fn finish_with(mut self) -> (Structure, S) {
        if self.line == Line::Held {
            self.decide_held();
        }
        if self.phase == Phase::Header {
            self.end_header(true);
        }
        let tail = self.leaf.as_mut().map_or(&b""[..], |leaf| std::mem::take(&mut leaf.tail));
        self.deliver(tail);
        self.close_leaf(self.offset, self.lines);
        while !self.open.is_empty() {
            self.close_innermost(self.offset, self.lines);
        }
        self.sink.over(self.offset, self.lines);
        (Structure { parts: self.parts }, self.sink)
    }

    fn decide_held(&mut self) {
        match self.recognise() {
            Some(delimiter) => self.delimiter(delimiter),
            None => self.release_held(),
        }
    }

    fn release_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.take(&held);
        self.held = held;
        self.held.clear();
    }

    /// Whether the held line is a delimiter of an open multipart, the innermost first.
    ///
    /// RFC 2046 §5.1.1: `--` boundary, perhaps `--`, blanks. A line with something else behind it
    /// counts only if no boundary fits exactly: one boundary may be the beginning of another.
    fn recognise(&self) -> Option<Delimiter> {
        let line = trim_line_end(&self.held).strip_prefix(b"--")?;
        let exact = line.trim_ascii_end();
        let innermost_first = || self.open.iter().enumerate().rev();
        for (open, container) in innermost_first() {
            match container.behind(exact) {
                Some(b"") => return Some(Delimiter { open, close: false }),
                Some(b"--") => return Some(Delimiter { open, close: true }),
                Some(_) | None => {}
            }
        }
        for (open, container) in innermost_first() {
            match container.behind(line) {
                Some([b'-', b'-', ..]) => return Some(Delimiter { open, close: true }),
                Some([b' ' | b'\t', ..]) => return Some(Delimiter { open, close: false }),
                Some(_) | None => {}
            }
        }
        None
    }

    fn delimiter(&mut self, delimiter: Delimiter) {
        if self.phase == Phase::Header {
            self.end_header(true);
        }
        // RFC 2046 §5.1.1: the line end before the delimiter is the delimiter's, also that of the empty
        // line of a part without a body. Only the line of the delimiter before this one is not ours.
        let floor = self.parts.last().map_or(0, |part| part.span.header.start);
        let end = self.offset.saturating_sub(self.line_end).max(floor);
        let lines = self.lines.saturating_sub(u64::from(end < self.offset));
        // Unless it stands right behind the header of its own multipart, which it does not end.
        let multipart = self.open.get(delimiter.open).map(|open| open.part);
        if let Some((index, last)) = self.parts.iter_mut().enumerate().next_back()
            && Some(index) != multipart
        {
            last.span.header.end = last.span.header.end.min(end);
            last.span.body.start = last.span.body.start.min(end);
        }
        self.close_leaf(end, lines);
        while self.open.len() > delimiter.open + 1 {
            self.close_innermost(end, lines);
        }
        let ended = self.held.ends_with(b"\n");
        self.offset += self.held.len() as u64;
        self.lines += u64::from(ended);
        self.line_end = u64::from(ended) + u64::from(self.held.ends_with(b"\r\n"));
        self.held.clear();
        let Some(open) = self.open.last_mut() else { return };
        let parent = open.part;
        let Container::Multipart { closed, children, digest, .. } = &mut open.container else {
            return;
        };
        if delimiter.close {
            *closed = true;
            self.active -= 1;
            self.phase = Phase::Skip;
            return;
        }
        *children += 1;
        // RFC 2046 §5.1.5: inside multipart/digest the default type is message/rfc822.
        let media = if *digest { Media::message_rfc822() } else { Media::text_plain() };
        let number = *children;
        self.begin_part(Some(parent), number, media);
    }

    fn begin_part(&mut self, parent: Option<usize>, number: u32, media: Media) {
        let here = self.offset;
        self.parts.push(Part {
            span: Span {
                parent: parent.and_then(|p| u32::try_from(p).ok()),
                number,
                kind: Kind::Leaf,
                header: here..here,
                body: here..here,
                lines: 0,
                decoded: 0,
                encoding: Encoding::SevenBit,
            },
            media,
            disposition: None,
            id: None,
            description: None,
            md5: None,
            language: Vec::new(),
            location: None,
            encoding_name: None,
            envelope: None,
        });
        if self.parts.len() >= self.limits.parts {
            // The last one: it takes all that follows, so no delimiter counts any more.
            self.active = 0;
        }
        self.header.clear();
        self.header_size = 0;
        self.phase = Phase::Header;
    }

    /// Takes a piece of a line, with its end if that is in it.
    fn take(&mut self, piece: &[u8]) {
        let Some((&last, before)) = piece.split_last() else { return };
        if self.line_length == 0 {
            self.line_first = piece[0];
        }
        self.line_length += piece.len() as u64;
        self.offset += piece.len() as u64;
        let cr_before = before.last().map_or(self.ends_in_cr, |&b| b == b'\r');
        self.ends_in_cr = last == b'\r';
        let mut blank = false;
        if last == b'\n' {
            self.lines += 1;
            self.line_end = 1 + u64::from(cr_before);
            blank = match self.line_length {
                1 => true,
                2 => self.line_first == b'\r',
                _ => false,
            };
            self.line_length = 0;
            self.ends_in_cr = false;
        }
        match self.phase {
            Phase::Skip => {}
            Phase::Leaf => self.take_content(piece),
            Phase::Header => {
                self.header_size += piece.len() as u64;
                let room = self.limits.header_read.saturating_sub(self.header.len());
                self.header.extend_from_slice(&piece[..piece.len().min(room)]);
                if blank {
                    self.end_header(false);
                }
            }
        }
    }

    fn take_content(&mut self, piece: &[u8]) {
        let Some(leaf) = self.leaf.as_mut() else { return };
        if leaf.tail == b"\r" && piece == b"\n" {
            leaf.tail = b"\r\n";
            return;
        }
        let tail = leaf.tail;
        let (content, tail_now): (&[u8], &'static [u8]) = match piece {
            [content @ .., b'\r', b'\n'] => (content, b"\r\n"),
            [content @ .., b'\n'] => (content, b"\n"),
            [content @ .., b'\r'] => (content, b"\r"),
            content => (content, b""),
        };
        leaf.tail = tail_now;
        self.deliver(tail);
        self.deliver(content);
    }

    /// Takes octets of which no line can be a delimiter.
    fn take_all(&mut self, octets: &[u8]) {
        self.offset += octets.len() as u64;
        self.lines += memchr::memchr_iter(b'\n', octets).count() as u64;
        if let Some(leaf) = self.leaf.as_mut() {
            let tail = std::mem::take(&mut leaf.tail);
            self.deliver(tail);
            self.deliver(octets);
        }
    }

    fn deliver(&mut self, octets: &[u8]) {
        let Some(leaf) = self.leaf.as_mut() else { return };
        if octets.is_empty() {
            return;
        }
        match &mut leaf.decoder {
            Decoder::Identity => {
                leaf.decoded += octets.len() as u64;
                self.sink.content(leaf.part, octets);
            }
            decoder @ (Decoder::Base64(_) | Decoder::QuotedPrintable(_)) => {
                for chunk in octets.chunks(SCRATCH) {
                    self.scratch.clear();
                    decoder.push(chunk, &mut self.scratch);
                    leaf.decoded += self.scratch.len() as u64;
                    self.sink.content(leaf.part, &self.scratch);
                }
            }
        }
    }

    fn close_leaf(&mut self, end: u64, lines: u64) {
        let Some(leaf) = self.leaf.take() else { return };
        self.scratch.clear();
        leaf.decoder.finish(&mut self.scratch);
        if !self.scratch.is_empty() {
            self.sink.content(leaf.part, &self.scratch);
        }
        self.sink.end(leaf.part);
        let decoded = leaf.decoded + self.scratch.len() as u64;
        self.end_body(leaf.part, end, lines, leaf.lines_before, Some(decoded));
    }

    fn close_innermost(&mut self, end: u64, lines: u64) {
        let Some(open) = self.open.pop() else { return };
        if let Container::Multipart { closed, children, .. } = open.container {
            if !closed {
                self.active = self.active.saturating_sub(1);
            }
            if children == 0 {
                self.parts[open.part].span.kind = Kind::Opaque(Opaque::NoBoundary);
            }
        }
        self.end_body(open.part, end, lines, open.lines_before, None);
    }

    fn end_body(&mut self, part: usize, end: u64, lines: u64, before: u64, decoded: Option<u64>) {
        let span = &mut self.parts[part].span;
        span.body.end = end;
        span.lines = lines.saturating_sub(before);
        span.decoded = decoded.unwrap_or_else(|| span.size());
    }

    /// The header block of the last part is over, by its empty line or, `cut`, before that.
    fn end_header(&mut self, cut: bool) {
        let Some(index) = self.parts.len().checked_sub(1) else { return };
        let block = std::mem::take(&mut self.header);
        let parent = self.parts[index].span.parent.map(|p| p as usize);
        let embedded = parent.is_some_and(|p| self.parts[p].span.kind == Kind::Message);
        let part = &mut self.parts[index];
        part.span.header.end = self.offset;
        part.span.body = self.offset..self.offset;
        let boundary = read_values(&block, part, &mut self.values);
        if embedded {
            let envelope = Envelope::read(&block, self.values);
            self.values = self.values.saturating_sub(envelope.weight());
            part.envelope = Some(Box::new(envelope));
        }
        let composite = part.media.is("multipart", None) || part.media.is_message();
        let deep = self.open.len() >= self.limits.depth;
        part.span.kind = if self.header_size > self.limits.header {
            Kind::Opaque(Opaque::Header)
        } else if index + 1 >= self.limits.parts {
            Kind::Opaque(Opaque::Parts)
        } else if !composite {
            Kind::Leaf
        } else if cut {
            Kind::Opaque(Opaque::Cut)
        } else if part.media.is_message() && !part.span.encoding.is_identity() {
            Kind::Opaque(Opaque::Encoded)
        } else if deep {
            Kind::Opaque(Opaque::Depth)
        } else if part.media.is_message() {
            Kind::Message
        } else if boundary.is_some() {
            Kind::Multipart
        } else {
            Kind::Opaque(Opaque::NoBoundary)
        };
        let kind = part.span.kind;
        let encoding = part.span.encoding;
        self.sink.header(index, &self.parts[index], &block);
        self.header = block;
        match kind {
            Kind::Leaf | Kind::Opaque(_) => {
                self.leaf = Some(Leaf {
                    part: index,
                    lines_before: self.lines,
                    decoder: Decoder::new(encoding),
                    decoded: 0,
                    tail: b"",
                });
                self.phase = Phase::Leaf;
            }
            Kind::Multipart => {
                let digest = self.parts[index].media.subtype == "digest";
                self.open.push(Open {
                    part: index,
                    lines_before: self.lines,
                    container: Container::Multipart {
                        boundary: boundary.unwrap_or_default(),
                        closed: false,
                        children: 0,
                        digest,
                    },
                });
                self.active += 1;
                self.phase = Phase::Skip;
            }
            Kind::Message => {
                self.open.push(Open {
                    part: index,
                    lines_before: self.lines,
                    container: Container::Message,
                });
                self.begin_part(Some(index), 1, Media::text_plain());
            }
        }
    }
}

/// Reads the MIME fields of a header block into a part, the first of each name, and gives the
/// boundary if there is a usable one. Values beyond `room` are left out.
fn read_values(block: &[u8], part: &mut Part, room: &mut usize) -> Option<Vec<u8>> {
    let mut seen = [false; 8];
    for field in Fields::new(block) {
        // Most fields are not MIME's; do not copy their values.
        let Some(name) = field.name.get(..8).map(<[u8]>::to_ascii_lowercase) else { continue };
        if name != b"content-" {
            continue;
        }
        let which = match field.name[8..].to_ascii_lowercase().as_slice() {
            b"type" => 0,
            b"disposition" => 1,
            b"transfer-encoding" => 2,
            b"id" => 3,
            b"description" => 4,
            b"md5" => 5,
            b"language" => 6,
            b"location" => 7,
            _ => continue,
        };
        if std::mem::replace(&mut seen[which], true) {
            continue;
        }
        let value = unfold_trimmed(field.value);
        match which {
            0 => part.media = Media::parse(&value),
            1 => part.disposition = Disposition::parse(&value),
            2 => (part.span.encoding, part.encoding_name) = parse_encoding(&value),
            3 => part.id = text(value, room),
            4 => part.description = text(value, room),
            5 => part.md5 = text(value, room),
            6 => part.language = parse_languages(&value),
            _ => part.location = text(value, room),
        }
    }
    let boundary = part
        .media
        .param("boundary")
        .filter(|b| !b.is_empty() && b.len() <= Limits::BOUNDARY)
        // RFC 2046 §5.1.1: a boundary does not end in a blank; those of a delimiter are padding.
        .map(|b| b.trim_ascii_end().to_vec())
        .filter(|b| !b.is_empty());
    pay_params(&mut part.media.params, room);
    if let Some(disposition) = part.disposition.as_mut() {
        pay_params(&mut disposition.params, room);
    }
    let language: usize = part.language.iter().map(|tag| tag.len() + 1).sum();
    if language <= *room {
        *room -= language;
    } else {
        part.language.clear();
    }
    boundary
}

fn text(mut value: Vec<u8>, room: &mut usize) -> Option<Vec<u8>> {
    value.truncate(MAX_VALUE);
    if value.len() > *room {
        return None;
    }
    *room -= value.len();
    Some(value)
}

fn pay_params(params: &mut Vec<Param>, room: &mut usize) {
    params.retain(|param| {
        let weight = param.name.len() + param.value.len() + 2;
        let fits = weight <= *room;
        if fits {
            *room -= weight;
        }
        fits
    });
}
