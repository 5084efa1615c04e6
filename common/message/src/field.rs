//! Header fields: iteration over a block, unfolding, and picking lines by name from a stream.

use std::{borrow::Cow, collections::BTreeSet};

/// The longest field name told apart; a line that goes further without a colon is no field.
const MAX_NAME: usize = 256;

/// One header field as it stands in the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, without the colon and blanks before it.
    pub name: &'a [u8],
    /// What follows the colon, folded as it was, without the last line end.
    pub value: &'a [u8],
    /// The whole field with its line ends.
    pub raw: &'a [u8],
}

impl Field<'_> {
    /// Whether it has this name, in any case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of a header block, in order. Lines that are none (no colon, an mbox `From ` line, a
/// continuation of nothing) are passed over; the empty line ends it.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `block`, which may go on behind the empty line.
    #[must_use]
    pub fn new(block: &'a [u8]) -> Self {
        Self { rest: block }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        loop {
            if self.rest.is_empty() || is_blank_line(first_line(self.rest)) {
                return None;
            }
            let mut end = first_line(self.rest).len();
            // RFC 5322 §2.2.3: a line that begins with a blank continues the field.
            while matches!(self.rest.get(end), Some(b' ' | b'\t')) {
                end += first_line(&self.rest[end..]).len();
            }
            let (raw, rest) = self.rest.split_at(end);
            self.rest = rest;
            if let Some(colon) = name_end(raw) {
                let name = raw[..colon].trim_ascii_end();
                let value = trim_line_end(&raw[colon + 1..]);
                return Some(Field { name, value, raw });
            }
        }
    }
}

/// The position of the colon behind a well-formed name.
fn name_end(line: &[u8]) -> Option<usize> {
    let head = &line[..line.len().min(MAX_NAME)];
    let colon = memchr::memchr(b':', head)?;
    // RFC 5322 §4.5.3 lets blanks stand before the colon; §2.2 wants printable US-ASCII before.
    let name = line[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(colon)
}

fn first_line(bytes: &[u8]) -> &[u8] {
    memchr::memchr(b'\n', bytes).map_or(bytes, |at| &bytes[..=at])
}

pub(crate) fn is_blank_line(line: &[u8]) -> bool {
    line == b"\r\n" || line == b"\n"
}

pub(crate) fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The value on one line: line ends are taken out, the blanks behind them stay
/// (RFC 5322 §2.2.3). NUL goes too: no IMAP string may hold one (RFC 9051 §9, `CHAR`).
#[must_use]
pub fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr3(b'\r', b'\n', 0, value).is_none() {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n' | 0)).collect())
}

/// The value on one line and without blanks at its ends.
#[must_use]
pub fn unfold_trimmed(value: &[u8]) -> Vec<u8> {
    unfold(value).trim_ascii().to_vec()
}

/// Picks the fields of `BODY[HEADER.FIELDS (...)]` or `HEADER.FIELDS.NOT` out of a header block
/// that arrives in chunks; memory does not grow with the block.
#[derive(Debug)]
pub struct FieldPicker {
    /// In lower case. A set: a block has as many fields as fit, and a client names many.
    names: BTreeSet<Vec<u8>>,
    keep_named: bool,
    line: Line,
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// At the start of a line; the field before was kept or not.
    Start { kept: bool },
    /// Inside a name that may be wanted: `held` has it.
    Name,
    /// Inside the rest of a line.
    Rest { kept: bool },
    /// Behind the empty line.
    Done,
}

impl FieldPicker {
    /// Keeps the fields with these names, or with `keep_named` false all others.
    #[must_use]
    pub fn new(names: &[&[u8]], keep_named: bool) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { names, keep_named, line: Line::Start { kept: false }, held: Vec::new() }
    }

    /// Takes a chunk of the block and appends what is kept of it to `out`.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let mut rest = chunk;
        while let Some(&byte) = rest.first() {
            match self.line {
                Line::Done => return,
                Line::Start { kept } if matches!(byte, b' ' | b'\t') && self.held.is_empty() => {
                    self.line = Line::Rest { kept };
                }
                Line::Start { .. } => self.line = Line::Name,
                Line::Name => {
                    rest = &rest[1..];
                    self.held.push(byte);
                    match byte {
                        b'\n' if is_blank_line(&self.held) => {
                            self.held.clear();
                            self.line = Line::Done;
                        }
                        b'\n' => self.decide(out),
                        b':' => self.decide(out),
                        _ if self.held.len() >= MAX_NAME => self.decide(out),
                        _ => {}
                    }
                }
                Line::Rest { kept } => {
                    let line = first_line(rest);
                    if kept {
                        out.extend_from_slice(line);
                    }
                    if line.ends_with(b"\n") {
                        self.line = Line::Start { kept };
                    }
                    rest = &rest[line.len()..];
                }
            }
        }
    }

    /// Ends the block: RFC 9051 §6.4.5.1 has the empty line always follow.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if !self.held.is_empty() {
            self.decide(out);
        }
        if !out.is_empty() && !out.ends_with(b"\n") {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    fn decide(&mut self, out: &mut Vec<u8>) {
        let kept = match name_end(&self.held) {
            Some(colon) => {
                let name = self.held[..colon].trim_ascii_end().to_ascii_lowercase();
                self.names.contains(&name) == self.keep_named
            }
            // What is no field has no name to be asked for.
            None => !self.keep_named,
        };
        if kept {
            out.extend_from_slice(&self.held);
        }
        let ended = self.held.ends_with(b"\n");
        self.held.clear();
        self.line = if ended { Line::Start { kept } } else { Line::Rest { kept } };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] =
        b"From a@b Mon\r\nA : 1\r\n 2\r\nnot a field\r\nB:\r\nC: x\r\n\r\nD: body\r\n";

    #[test]
    fn fields_in_order() {
        let all: Vec<_> = Fields::new(BLOCK).map(|f| (f.name, f.value)).collect();
        assert_eq!(
            all,
            [(&b"A"[..], &b" 1\r\n 2"[..]), (&b"B"[..], &b""[..]), (&b"C"[..], &b" x"[..])]
        );
        let raw: Vec<u8> = Fields::new(BLOCK).flat_map(|f| f.raw.to_vec()).collect();
        assert_eq!(raw, b"A : 1\r\n 2\r\nB:\r\nC: x\r\n");
        assert_eq!(unfold_trimmed(b" 1\r\n 2 "), b"1 2");
        assert_eq!(Fields::new(b"").count(), 0);
        assert_eq!(Fields::new(b" continuation of nothing\r\nA: 1").count(), 1);
    }

    fn picked(names: &[&[u8]], keep: bool, step: usize) -> Vec<u8> {
        let mut picker = FieldPicker::new(names, keep);
        let mut out = Vec::new();
        for chunk in BLOCK.chunks(step) {
            picker.push(chunk, &mut out);
        }
        picker.finish(&mut out);
        out
    }

    #[test]
    fn picked_by_name_whatever_the_chunks() {
        for step in 1..BLOCK.len() + 1 {
            assert_eq!(picked(&[b"a", b"X"], true, step), b"A : 1\r\n 2\r\n\r\n");
            assert_eq!(
                picked(&[b"A"], false, step),
                b"From a@b Mon\r\nnot a field\r\nB:\r\nC: x\r\n\r\n"
            );
        }
    }

    #[test]
    fn a_picker_holds_no_more_than_a_name() {
        let mut picker = FieldPicker::new(&[b"a"], true);
        let mut out = Vec::new();
        for _ in 0..10_000 {
            picker.push(&[b'x'; 1000], &mut out);
            assert!(picker.held.len() <= MAX_NAME);
        }
        assert!(out.is_empty());
    }
}
