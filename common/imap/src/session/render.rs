//! One message's items as FETCH writes them: ENVELOPE, BODYSTRUCTURE, sections.
//!
//! Everything about the structure comes from the facts the parser stored; content is cut by their
//! offsets, which are held to the size of the content. A message the parser could not read is one
//! opaque body.

use super::{Meta, Row, Small};
use crate::{
    command::{FetchItem, FetchPartial, SectionText},
    date::DateTime,
    out::{Out, Piece, without_nul},
};
use message::{
    Envelope, Kind, Part, SectionKind, Structure,
    address::Entry,
    field::FieldPicker,
    media::{Encoding, Param},
    transfer::Decoder,
};
use std::{collections::BTreeMap, ops::Range};

/// Parts inside each other that are written; the parser goes no deeper.
const MAX_DEPTH: usize = 60;

/// BINARY of an encoding that is not known (RFC 3516 §4.3).
#[derive(Debug)]
pub(super) struct UnknownEncoding;

/// What the parser found in a message, decoded for all items of it that are written at once.
#[derive(Debug, Default)]
pub(super) struct Facts {
    envelope: Option<Envelope>,
    structure: Option<Structure>,
    /// Octets that were decoded.
    pub(super) octets: u64,
}

impl Facts {
    pub(super) fn of(meta: &Meta) -> Self {
        // Empty: the parser could not read it. Not decodable: stored by another build; the same.
        let envelope = Envelope::decode(&meta.envelope).ok();
        let structure = Structure::decode(&meta.structure).ok();
        let structure = structure.filter(|structure| !structure.parts.is_empty());
        let octets = meta.envelope.len().saturating_add(meta.structure.len());
        Self { envelope, structure, octets: u64::try_from(octets).unwrap_or(u64::MAX) }
    }
}

/// A header block that was read for HEADER.FIELDS.
#[derive(Debug)]
pub(super) struct HeaderBlock {
    /// Where it begins in the message.
    pub(super) start: u64,
    pub(super) octets: Vec<u8>,
}

/// All that is known of one message.
pub(super) struct Message<'a> {
    uid: u32,
    row: Option<&'a Row>,
    envelope: Option<&'a Envelope>,
    structure: Option<&'a Structure>,
    small: Option<&'a Small>,
    header: Option<&'a HeaderBlock>,
    utf8: bool,
}

impl<'a> Message<'a> {
    pub(super) fn new(
        uid: u32,
        row: Option<&'a Row>,
        facts: &'a Facts,
        small: Option<&'a Small>,
        header: Option<&'a HeaderBlock>,
        utf8: bool,
    ) -> Self {
        let (envelope, structure) = (facts.envelope.as_ref(), facts.structure.as_ref());
        Self { uid, row, envelope, structure, small, header, utf8 }
    }

    fn size(&self) -> u64 {
        match (self.small, self.row) {
            (Some(small), _) => small.size,
            (None, Some(row)) => row.size,
            (None, None) => 0,
        }
    }

    pub(super) fn write(&self, item: &FetchItem, out: &mut Out) -> Result<(), UnknownEncoding> {
        match item {
            FetchItem::Uid => {}
            FetchItem::Flags => {
                let flags = self.row.map(|row| row.flags.clone()).unwrap_or_default();
                out.show(format_args!("FLAGS ({flags})"));
            }
            FetchItem::InternalDate => {
                let received = DateTime::utc(self.row.map_or(0, |row| row.received));
                out.show(format_args!("INTERNALDATE \"{received}\""));
            }
            FetchItem::Size => out.show(format_args!("RFC822.SIZE {}", self.size())),
            FetchItem::Envelope => {
                out.text("ENVELOPE ");
                let none = Envelope::default();
                self.write_envelope(self.envelope.unwrap_or(&none), out);
            }
            FetchItem::Body => {
                out.text("BODY ");
                self.write_structure(false, out);
            }
            FetchItem::BodyStructure => {
                out.text("BODYSTRUCTURE ");
                self.write_structure(true, out);
            }
            FetchItem::Rfc822 => {
                out.text("RFC822 ");
                self.write_range(self.section(&[], SectionKind::Content), None, Form::Text, out);
            }
            FetchItem::Rfc822Header => {
                out.text("RFC822.HEADER ");
                self.write_range(self.section(&[], SectionKind::Header), None, Form::Text, out);
            }
            FetchItem::Rfc822Text => {
                out.text("RFC822.TEXT ");
                self.write_range(self.section(&[], SectionKind::Text), None, Form::Text, out);
            }
            FetchItem::Section { path, text, partial, .. } => {
                self.write_section(path, text, *partial, out);
            }
            FetchItem::Binary { path, partial, .. } => {
                write_label("BINARY", path, None, *partial, out, self.utf8);
                return self.write_binary(path, *partial, out);
            }
            FetchItem::BinarySize(path) => {
                write_label("BINARY.SIZE", path, None, None, out, self.utf8);
                let part = self.leaf(path);
                let decoded = match &part {
                    Some(part) if part.encoding == Encoding::Other => None,
                    Some(part) => Some(part.decoded),
                    None => Some(self.section(path, SectionKind::Content).map_or(0, length)),
                };
                out.show(decoded.unwrap_or(0));
                return decoded.map(|_| ()).ok_or(UnknownEncoding);
            }
        }
        Ok(())
    }

    /// The range of a header block that has to be read before an item can be written.
    pub(super) fn header_to_read(&self, item: &FetchItem) -> Option<Range<u64>> {
        let FetchItem::Section { path, text: SectionText::Fields { .. }, .. } = item else {
            return None;
        };
        if self.small.is_some_and(|small| small.data.is_some()) {
            return None;
        }
        let range = self.section(path, SectionKind::Header)?;
        let is_held = self.header.is_some_and(|header| header.start == range.start);
        (!range.is_empty() && !is_held).then_some(range)
    }

    /// Octets that are looked at to write an item, whatever comes out of them.
    pub(super) fn work(&self, item: &FetchItem) -> u64 {
        match item {
            FetchItem::Section { path, text: SectionText::Fields { .. }, .. } => {
                self.section(path, SectionKind::Header).map_or(0, length)
            }
            FetchItem::Binary { path, .. } => {
                match self.small.and_then(|small| small.data.as_ref()) {
                    Some(_) => self.section(path, SectionKind::Content).map_or(0, length),
                    None => 0,
                }
            }
            FetchItem::Flags
            | FetchItem::Uid
            | FetchItem::InternalDate
            | FetchItem::Size
            | FetchItem::Envelope
            | FetchItem::Body
            | FetchItem::BodyStructure
            | FetchItem::Rfc822
            | FetchItem::Rfc822Header
            | FetchItem::Rfc822Text
            | FetchItem::Section { .. }
            | FetchItem::BinarySize(_) => 0,
        }
    }

    /// Where a section stands, inside of what there is.
    fn section(&self, path: &[u32], kind: SectionKind) -> Option<Range<u64>> {
        let size = self.size();
        let range = match self.structure {
            Some(structure) => structure.section(path, kind)?,
            None => {
                let body = self.opaque_body();
                match (path, kind) {
                    ([], SectionKind::Content) => 0..size,
                    ([], SectionKind::Header) => 0..body,
                    ([], SectionKind::Text) | ([1], SectionKind::Content) => body..size,
                    ([1], SectionKind::Mime) => 0..body,
                    (_, _) => return None,
                }
            }
        };
        let end = range.end.min(size);
        Some(range.start.min(end)..end)
    }

    /// Where the body of a message begins that nobody could read: behind the first empty line, if
    /// it is small enough to look.
    fn opaque_body(&self) -> u64 {
        let data = self.small.and_then(|small| small.data.as_deref()).unwrap_or_default();
        let at = data.windows(4).position(|window| window == b"\r\n\r\n");
        at.and_then(|at| u64::try_from(at.saturating_add(4)).ok()).unwrap_or(0)
    }

    fn write_section(
        &self,
        path: &[u32],
        text: &SectionText,
        partial: Option<FetchPartial>,
        out: &mut Out,
    ) {
        write_label("BODY", path, Some(text), partial, out, self.utf8);
        let kind = match text {
            SectionText::All => SectionKind::Content,
            SectionText::Header => SectionKind::Header,
            SectionText::Text => SectionKind::Text,
            SectionText::Mime => SectionKind::Mime,
            SectionText::Fields { names, not } => {
                match self.section(path, SectionKind::Header) {
                    None => out.text("NIL"),
                    Some(range) => {
                        let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
                        let mut picker = FieldPicker::new(&names, !*not);
                        let mut fields = Vec::new();
                        picker.push(self.header_bytes(&range), &mut fields);
                        picker.finish(&mut fields);
                        let whole = 0..u64::try_from(fields.len()).unwrap_or(u64::MAX);
                        write_octets(slice(&fields, &cut(&whole, partial)), out);
                    }
                }
                return;
            }
        };
        self.write_range(self.section(path, kind), partial, Form::Text, out);
    }

    fn header_bytes(&self, range: &Range<u64>) -> &[u8] {
        if let Some(data) = self.small.and_then(|small| small.data.as_deref()) {
            return slice(data, range);
        }
        let read = self.header.filter(|header| header.start == range.start);
        read.map(|header| header.octets.as_slice()).unwrap_or_default()
    }

    /// A part that does not exist is NIL; one bad part does not spoil a FETCH.
    fn write_range(
        &self,
        range: Option<Range<u64>>,
        partial: Option<FetchPartial>,
        form: Form,
        out: &mut Out,
    ) {
        let Some(range) = range else {
            out.text("NIL");
            return;
        };
        let range = cut(&range, partial);
        match self.small.and_then(|small| small.data.as_deref()) {
            Some(data) if form == Form::Binary => out.literal(slice(data, &range)),
            Some(data) => write_octets(slice(data, &range), out),
            None => {
                let octets = length(range.clone());
                // Whether a NUL comes is not known yet.
                let binary = form == Form::Binary;
                out.text(if binary { "~" } else { "" });
                out.show(format_args!("{{{octets}}}\r\n"));
                if octets > 0 {
                    let (uid, from, to) = (self.uid, range.start, range.end);
                    out.piece(Piece::Content { uid, from, to, binary });
                }
            }
        }
    }

    /// The place of a part that can be decoded: no multipart.
    fn leaf(&self, path: &[u32]) -> Option<&message::Span> {
        let structure = self.structure?;
        let part = structure.parts.get(structure.find(path)?)?;
        (part.span.kind != Kind::Multipart).then_some(&part.span)
    }

    fn write_binary(
        &self,
        path: &[u32],
        partial: Option<FetchPartial>,
        out: &mut Out,
    ) -> Result<(), UnknownEncoding> {
        let Some(span) = self.leaf(path).filter(|_| !path.is_empty()) else {
            // The message itself and multiparts are not encoded (RFC 2045 §6.4).
            self.write_range(self.section(path, SectionKind::Content), partial, Form::Binary, out);
            return Ok(());
        };
        if span.encoding == Encoding::Other {
            out.text("NIL");
            return Err(UnknownEncoding);
        }
        let size = self.size();
        let body = span.body.start.min(size)..span.body.end.min(size);
        if let Some(data) = self.small.and_then(|small| small.data.as_deref()) {
            let mut decoded = Vec::new();
            let mut decoder = Decoder::new(span.encoding);
            decoder.push(slice(data, &body), &mut decoded);
            decoder.finish(&mut decoded);
            let whole = 0..u64::try_from(decoded.len()).unwrap_or(u64::MAX);
            out.literal(slice(&decoded, &cut(&whole, partial)));
            return Ok(());
        }
        let range = cut(&(0..span.decoded), partial);
        // Whether a NUL comes is not known yet: literal8 may hold one (RFC 3516 §4.4).
        out.show(format_args!("~{{{}}}\r\n", length(range.clone())));
        if !range.is_empty() {
            out.piece(Piece::Decoded {
                uid: self.uid,
                from: body.start,
                to: body.end,
                encoding: span.encoding,
                skip: range.start,
                length: length(range),
            });
        }
        Ok(())
    }

    fn nstring(&self, value: Option<&[u8]>, out: &mut Out) {
        out.nstring(value, self.utf8);
    }

    /// `envelope`: header values as they were written (RFC 9051 §7.5.2).
    fn write_envelope(&self, envelope: &Envelope, out: &mut Out) {
        out.text("(");
        self.nstring(envelope.date.as_deref(), out);
        out.text(" ");
        self.nstring(envelope.subject.as_deref(), out);
        let lists = [
            &envelope.from[..],
            envelope.sender_or_from(),
            envelope.reply_to_or_from(),
            &envelope.to,
            &envelope.cc,
            &envelope.bcc,
        ];
        for list in lists {
            out.text(" ");
            self.write_addresses(list, out);
        }
        out.text(" ");
        self.nstring(envelope.in_reply_to.as_deref(), out);
        out.text(" ");
        self.nstring(envelope.message_id.as_deref(), out);
        out.text(")");
    }

    fn write_addresses(&self, list: &[Entry], out: &mut Out) {
        if list.is_empty() {
            out.text("NIL");
            return;
        }
        out.text("(");
        for entry in list {
            match entry {
                Entry::Mailbox(mailbox) => {
                    out.text("(");
                    self.nstring(mailbox.name.as_deref(), out);
                    out.text(" ");
                    self.nstring(mailbox.route.as_deref(), out);
                    out.text(" ");
                    // Never NIL: that would make a group of it.
                    out.string(&mailbox.localpart, self.utf8);
                    out.text(" ");
                    out.string(&mailbox.host, self.utf8);
                    out.text(")");
                }
                Entry::GroupStart(name) => {
                    out.text("(NIL NIL ");
                    out.string(name, self.utf8);
                    out.text(" NIL)");
                }
                Entry::GroupEnd => out.text("(NIL NIL NIL NIL)"),
            }
        }
        out.text(")");
    }

    fn write_structure(&self, extended: bool, out: &mut Out) {
        let Some(structure) = self.structure else {
            let size = self.size();
            out.show(format_args!(
                "(\"APPLICATION\" \"OCTET-STREAM\" NIL NIL NIL \"BINARY\" {size}"
            ));
            out.text(if extended { " NIL NIL NIL NIL)" } else { ")" });
            return;
        };
        let mut children: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, part) in structure.parts.iter().enumerate() {
            // A parent stands before its child, so this tree ends whatever was stored.
            if let Some(parent) =
                part.span.parent.filter(|&p| usize::try_from(p).is_ok_and(|p| p < at))
            {
                children.entry(parent).or_default().push(at);
            }
        }
        let tree = Tree { parts: &structure.parts, children: &children, extended };
        self.write_part(&tree, 0, 0, out);
    }

    fn write_part(&self, tree: &Tree<'_>, at: usize, depth: usize, out: &mut Out) {
        let Some(part) = tree.parts.get(at) else { return };
        let below = u32::try_from(at).ok().and_then(|at| tree.children.get(&at));
        let below = below.map(Vec::as_slice).filter(|_| depth < MAX_DEPTH).unwrap_or_default();
        let deeper = depth.saturating_add(1);
        let (kind, subtype) = part.imap_media();
        out.text("(");
        if part.span.kind == Kind::Multipart && !below.is_empty() {
            for &child in below {
                self.write_part(tree, child, deeper, out);
            }
            out.text(" ");
            out.string(subtype.to_ascii_uppercase().as_bytes(), false);
            if tree.extended {
                out.text(" ");
                self.write_params(&part.media.params, out);
                self.write_common_tail(part, out);
            }
            out.text(")");
            return;
        }
        let inner = match (part.span.kind, below) {
            (Kind::Message, [child]) => tree.parts.get(*child).map(|inner| (*child, inner)),
            (_, _) => None,
        };
        // What could not be looked into has no form of its own in the grammar.
        let composite =
            matches!(part.span.kind, Kind::Multipart | Kind::Message) && inner.is_none();
        let (kind, subtype) =
            if composite { ("application", "octet-stream") } else { (kind, subtype) };
        out.string(kind.to_ascii_uppercase().as_bytes(), false);
        out.text(" ");
        out.string(subtype.to_ascii_uppercase().as_bytes(), false);
        out.text(" ");
        self.write_params(&part.media.params, out);
        out.text(" ");
        self.nstring(part.id.as_deref(), out);
        out.text(" ");
        self.nstring(part.description.as_deref(), out);
        out.text(" ");
        match (part.span.encoding.name(), &part.encoding_name) {
            (Some(name), _) => out.string(name.to_ascii_uppercase().as_bytes(), false),
            (None, Some(name)) => out.string(name, self.utf8),
            (None, None) => out.text("\"BINARY\""),
        }
        out.show(format_args!(" {}", part.span.size()));
        if let Some((child, inner)) = inner {
            out.text(" ");
            let none = Envelope::default();
            self.write_envelope(inner.envelope.as_deref().unwrap_or(&none), out);
            out.text(" ");
            self.write_part(tree, child, deeper, out);
        }
        if inner.is_some() || kind == "text" {
            out.show(format_args!(" {}", part.span.lines));
        }
        if tree.extended {
            out.text(" ");
            self.nstring(part.md5.as_deref(), out);
            self.write_common_tail(part, out);
        }
        out.text(")");
    }

    /// Disposition, language, location.
    fn write_common_tail(&self, part: &Part, out: &mut Out) {
        out.text(" ");
        match &part.disposition {
            None => out.text("NIL"),
            Some(disposition) => {
                out.text("(");
                out.string(&disposition.kind, self.utf8);
                out.text(" ");
                self.write_params(&disposition.params, out);
                out.text(")");
            }
        }
        out.text(" ");
        match part.language.as_slice() {
            [] => out.text("NIL"),
            tags => {
                out.text("(");
                for (at, tag) in tags.iter().enumerate() {
                    if at > 0 {
                        out.text(" ");
                    }
                    out.string(tag, self.utf8);
                }
                out.text(")");
            }
        }
        out.text(" ");
        self.nstring(part.location.as_deref(), out);
    }

    fn write_params(&self, params: &[Param], out: &mut Out) {
        if params.is_empty() {
            out.text("NIL");
            return;
        }
        out.text("(");
        for (at, param) in params.iter().enumerate() {
            if at > 0 {
                out.text(" ");
            }
            out.string(&param.name.to_ascii_uppercase(), self.utf8);
            out.text(" ");
            out.string(&param.value, self.utf8);
        }
        out.text(")");
    }
}

/// How octets of a message go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A literal.
    Text,
    /// As they are: a `literal8` where it has to be (RFC 3516 §4.4).
    Binary,
}

struct Tree<'a> {
    parts: &'a [Part],
    children: &'a BTreeMap<u32, Vec<usize>>,
    extended: bool,
}

/// `BODY[1.HEADER.FIELDS (From)]<0> `.
fn write_label(
    word: &str,
    path: &[u32],
    text: Option<&SectionText>,
    partial: Option<FetchPartial>,
    out: &mut Out,
    utf8: bool,
) {
    out.text(word);
    out.text("[");
    for (at, number) in path.iter().enumerate() {
        if at > 0 {
            out.text(".");
        }
        out.show(number);
    }
    let word = match text {
        None | Some(SectionText::All) => "",
        Some(SectionText::Header) => "HEADER",
        Some(SectionText::Text) => "TEXT",
        Some(SectionText::Mime) => "MIME",
        Some(SectionText::Fields { not: false, .. }) => "HEADER.FIELDS",
        Some(SectionText::Fields { not: true, .. }) => "HEADER.FIELDS.NOT",
    };
    if !word.is_empty() && !path.is_empty() {
        out.text(".");
    }
    out.text(word);
    if let Some(SectionText::Fields { names, .. }) = text {
        out.text(" (");
        for (at, name) in names.iter().enumerate() {
            if at > 0 {
                out.text(" ");
            }
            out.astring(name.as_bytes(), utf8);
        }
        out.text(")");
    }
    out.text("]");
    if let Some(partial) = partial {
        out.show(format_args!("<{}>", partial.offset));
    }
    out.text(" ");
}

fn length(range: Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// The piece of a range that a partial fetch names; beyond the end it is empty.
fn cut(range: &Range<u64>, partial: Option<FetchPartial>) -> Range<u64> {
    match partial {
        None => range.clone(),
        Some(FetchPartial { offset, length }) => {
            let start = range.start.saturating_add(offset).min(range.end);
            start..start.saturating_add(length).min(range.end)
        }
    }
}

fn slice<'a>(data: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(data.len());
    let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
    data.get(start..end).unwrap_or_default()
}

/// A plain literal: BODY has no other form, and BINARY is for who wants NULs (RFC 9051 §4.3.1).
fn write_octets(octets: &[u8], out: &mut Out) {
    if octets.is_empty() {
        out.text("\"\"");
        return;
    }
    out.show(format_args!("{{{}}}\r\n", octets.len()));
    out.raw(&without_nul(octets));
}
