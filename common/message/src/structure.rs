//! The part tree of a message as a flat list, and the section numbers of IMAP on it.
//!
//! Flat because a tree of boxes is built, walked and dropped by recursion, and a stranger chooses
//! its depth: 24,000 nested message/rfc822 are 768 KB and overflow a stack when dropped.

use crate::{
    envelope::Envelope,
    media::{Disposition, Encoding, Media, Param},
};
use std::ops::Range;

/// What a part is to the indexer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Content without parts.
    Leaf,
    /// A multipart with at least one part.
    Multipart,
    /// An embedded message (message/rfc822, message/global); its one child is that message.
    Message,
    /// Content that was not looked into, and why.
    Opaque(Opaque),
}

/// Why a part is kept unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opaque {
    /// A multipart without a usable boundary, or whose boundary never comes.
    NoBoundary,
    /// An embedded message under base64 or quoted-printable (RFC 6532 allows it for
    /// message/global): its parts have no offsets in the stored bytes.
    Encoded,
    /// Deeper than [`crate::Limits::depth`].
    Depth,
    /// The last part counted of too many ([`crate::Limits::parts`]).
    Parts,
    /// Its header block is larger than [`crate::Limits::header`].
    Header,
    /// A delimiter or the end of the message came before its header block was over.
    Cut,
}

/// Where a part stands in the stored bytes and in the tree: all that `BODY[...]` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Index of the part it is inside of; none for the message itself.
    pub parent: Option<u32>,
    /// Which child of its parent it is, from 1.
    pub number: u32,
    /// What it is.
    pub kind: Kind,
    /// Its header block with the empty line that ends it.
    pub header: Range<u64>,
    /// Its body, without the line end that belongs to the delimiter behind it.
    pub body: Range<u64>,
    /// Line ends inside the body.
    pub lines: u64,
    /// Octets of the body after its transfer encoding is undone.
    pub decoded: u64,
    /// How the body is encoded; what BINARY has to undo.
    pub encoding: Encoding,
}

/// One part with its header values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Place and size.
    pub span: Span,
    /// Content-Type, or the default of its surroundings.
    pub media: Media,
    /// Content-Disposition.
    pub disposition: Option<Disposition>,
    /// Content-ID as written.
    pub id: Option<Vec<u8>>,
    /// Content-Description as written.
    pub description: Option<Vec<u8>>,
    /// Content-MD5 as written.
    pub md5: Option<Vec<u8>>,
    /// Content-Language, one entry a tag.
    pub language: Vec<Vec<u8>>,
    /// Content-Location as written.
    pub location: Option<Vec<u8>>,
    /// The name of the transfer encoding when it is none of the five known ones.
    pub encoding_name: Option<Vec<u8>>,
    /// The envelope, if this part is the child of an embedded message.
    pub envelope: Option<Box<Envelope>>,
}

/// All parts of a message, parents before children, in the order of their bytes; the first is the
/// message itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Structure {
    /// The parts.
    pub parts: Vec<Part>,
}

/// The places of all parts without their values: what a body fetch has to load.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sections {
    /// The places, in the order of [`Structure::parts`].
    pub spans: Vec<Span>,
}

/// What of a part a section names (RFC 9051 §6.4.5.1, without HEADER.FIELDS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// `BODY[]` or `BODY[1.2]`: the whole message, or the body of a part.
    Content,
    /// `BODY[1.2.MIME]`: the header block of a part.
    Mime,
    /// `BODY[HEADER]`, `BODY[1.2.HEADER]`: the header block of the (embedded) message.
    Header,
    /// `BODY[TEXT]`, `BODY[1.2.TEXT]`: the body of the (embedded) message.
    Text,
}

impl Span {
    /// Octets of the body as stored.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.body.end.saturating_sub(self.body.start)
    }
}

impl Span {
    /// Whether its content can be decoded.
    #[must_use]
    pub fn encoding_is_known(&self) -> bool {
        self.encoding != Encoding::Other
    }
}

impl Part {
    /// The file name of its disposition or its type, decoded; no path, no control characters.
    #[must_use]
    pub fn filename(&self) -> Option<String> {
        let named = |params: &[Param], name: &str| crate::media::decoded_param(params, name);
        self.disposition
            .as_ref()
            .and_then(|d| named(&d.params, "filename"))
            .or_else(|| named(&self.media.params, "name"))
    }

    /// Whether its sender marked it as an attachment.
    #[must_use]
    pub fn is_attachment(&self) -> bool {
        self.disposition.as_ref().is_some_and(|d| d.kind.eq_ignore_ascii_case(b"attachment"))
    }

    /// The type to print in BODYSTRUCTURE.
    ///
    /// RFC 9051 §9 has no form for a multipart without parts or an embedded message that was not
    /// read, so what is opaque is application/octet-stream there.
    #[must_use]
    pub fn imap_media(&self) -> (&str, &str) {
        let composite = self.media.is("multipart", None) || self.media.is_message();
        match self.span.kind {
            Kind::Opaque(_) if composite => ("application", "octet-stream"),
            Kind::Leaf | Kind::Multipart | Kind::Message | Kind::Opaque(_) => {
                (&self.media.kind, &self.media.subtype)
            }
        }
    }
}

impl Structure {
    /// The places alone.
    #[must_use]
    pub fn sections(&self) -> Sections {
        Sections { spans: self.parts.iter().map(|part| part.span.clone()).collect() }
    }

    /// Where a section stands; see [`Sections::section`].
    #[must_use]
    pub fn section(&self, path: &[u32], kind: SectionKind) -> Option<Range<u64>> {
        section(&|at: usize| self.parts.get(at).map(|part| &part.span), path, kind)
    }

    /// The index of the part that a path names.
    #[must_use]
    pub fn find(&self, path: &[u32]) -> Option<usize> {
        find(&|at: usize| self.parts.get(at).map(|part| &part.span), path)
    }

    /// The children of a part, by index.
    pub fn children(&self, parent: usize) -> impl Iterator<Item = usize> + '_ {
        let wanted = u32::try_from(parent).ok();
        // Children follow their parent; an index below it cannot be one.
        (parent.saturating_add(1)..self.parts.len())
            .filter(move |&at| self.parts[at].span.parent == wanted)
    }

    /// The path of a part (`1.2`); empty for a multipart message itself.
    #[must_use]
    pub fn path(&self, index: usize) -> Vec<u32> {
        self.sections().path(index)
    }
}

impl Sections {
    /// Where a section stands in the stored bytes, or none if the message has no such section.
    ///
    /// The path is empty for the message itself. Numbering is RFC 9051 §6.4.5.1's: a message that is
    /// not multipart has one part 1; an embedded message that is multipart lends its parts to the
    /// part that holds it, one that is not has its body as part 1 of it.
    #[must_use]
    pub fn section(&self, path: &[u32], kind: SectionKind) -> Option<Range<u64>> {
        section(&|at: usize| self.spans.get(at), path, kind)
    }

    /// The index of the part that a path names; what `BINARY[...]` looks up.
    #[must_use]
    pub fn find(&self, path: &[u32]) -> Option<usize> {
        find(&|at: usize| self.spans.get(at), path)
    }

    /// The path of a part (`1.2`); empty for a multipart message itself, and for a multipart inside
    /// an embedded message that of the part which holds it.
    #[must_use]
    pub fn path(&self, index: usize) -> Vec<u32> {
        let mut path = Vec::new();
        let mut at = Some(index);
        while let Some(span) = at.and_then(|at| self.spans.get(at)) {
            let parent = span.parent.and_then(|p| self.spans.get(p as usize));
            let in_multipart = parent.is_some_and(|p| p.kind == Kind::Multipart);
            if in_multipart {
                path.push(span.number);
            } else if span.kind != Kind::Multipart {
                path.push(1);
            }
            // A parent stands before its child, so this ends on any input.
            at = span.parent.map(|p| p as usize).filter(|&p| at.is_some_and(|child| p < child));
        }
        path.reverse();
        path
    }
}

/// How a list of spans is read, whatever it is stored in.
type SpanAt<'a> = dyn Fn(usize) -> Option<&'a Span> + 'a;

fn child(at: &SpanAt<'_>, parent: usize, number: u32) -> Option<usize> {
    let mut index = parent.checked_add(1)?;
    while let Some(span) = at(index) {
        if span.parent.is_some_and(|p| p as usize == parent) && span.number == number {
            return Some(index);
        }
        index += 1;
    }
    None
}

fn find(at: &SpanAt<'_>, path: &[u32]) -> Option<usize> {
    // `message` is the entity whose parts are counted: the message itself or an embedded one.
    let mut message = 0usize;
    at(message)?;
    let mut part = None;
    for &number in path {
        if let Some(here) = part {
            match at(here)?.kind {
                Kind::Multipart => message = here,
                Kind::Message => message = child(at, here, 1)?,
                Kind::Leaf | Kind::Opaque(_) => return None,
            }
        }
        part = Some(match at(message)?.kind {
            Kind::Multipart => child(at, message, number)?,
            Kind::Leaf | Kind::Message | Kind::Opaque(_) if number == 1 => message,
            Kind::Leaf | Kind::Message | Kind::Opaque(_) => return None,
        });
    }
    part
}

fn section(at: &SpanAt<'_>, path: &[u32], kind: SectionKind) -> Option<Range<u64>> {
    if path.is_empty() {
        let whole = at(0)?;
        return match kind {
            SectionKind::Content => Some(whole.header.start..whole.body.end),
            SectionKind::Header => Some(whole.header.clone()),
            SectionKind::Text => Some(whole.body.clone()),
            SectionKind::Mime => None,
        };
    }
    let index = find(at, path)?;
    let span = at(index)?;
    match kind {
        SectionKind::Content => Some(span.body.clone()),
        SectionKind::Mime => Some(span.header.clone()),
        SectionKind::Header | SectionKind::Text => {
            if span.kind != Kind::Message {
                return None;
            }
            let inner = at(child(at, index, 1)?)?;
            Some(match kind {
                SectionKind::Header => inner.header.clone(),
                SectionKind::Content | SectionKind::Mime | SectionKind::Text => inner.body.clone(),
            })
        }
    }
}
