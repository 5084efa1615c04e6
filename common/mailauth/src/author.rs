//! The header of a user's own message: whose it says that it is, so that every reader says the same.
//!
//! From the octets, and not from what a parser tells of them: a right is decided here, and a header
//! that others may read in another way names nobody.

pub mod mailboxes;

use types::Address;

/// Octets of a header.
pub const MAX_HEADER: usize = 1 << 20;

/// The fields that say whose a message is, or who sent it. Only From is checked; in the others
/// people name whom they like, and DMARC does not go by them.
const NAMING: [&str; 4] = ["From", "Sender", "Resent-From", "Resent-Sender"];

/// Why a header says nothing for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is longer than anybody reads.
    TooLong,
    /// A line that is no field and continues none, or an octet that ends lines for some.
    NoField,
    /// There is not one From with one address.
    NoAuthor,
    /// From is no list of addresses.
    Unclear,
}

/// A name, and its value on one line.
type Field<'a> = (&'a [u8], Vec<u8>);

/// Where the header of a message ends: its octets without the empty line. None: not in these octets.
#[must_use]
pub fn end(octets: &[u8]) -> Option<usize> {
    let mut start = 0;
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        if matches!(line, b"\r\n" | b"\n") {
            return Some(start);
        }
        start += line.len();
    }
    None
}

/// The one address in the one From of a header, without the empty line behind it.
///
/// # Errors
/// [`Fault`].
pub fn read(header: &[u8]) -> Result<Address, Fault> {
    if header.len() > MAX_HEADER {
        return Err(Fault::TooLong);
    }
    let mut author = None;
    for (name, value) in fields(header)? {
        if !name.eq_ignore_ascii_case(b"From") {
            continue;
        }
        let mut named = mailboxes::read(&value).ok_or(Fault::Unclear)?;
        if author.is_some() || named.len() > 1 {
            return Err(Fault::NoAuthor);
        }
        author = named.pop();
    }
    author.ok_or(Fault::NoAuthor)
}

/// Every line is a field or continues one; names are as RFC 5322 §3.6.8 has them. The blank before
/// the colon that §4.5 lets others write ends the name for some readers and belongs to it for
/// others, so who sent the message is not said in such a field.
fn fields(header: &[u8]) -> Result<Vec<Field<'_>>, Fault> {
    let mut out: Vec<Field<'_>> = Vec::new();
    for line in header.split_inclusive(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().any(|octet| matches!(octet, 0 | b'\r')) {
            return Err(Fault::NoField);
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            out.last_mut().ok_or(Fault::NoField)?.1.extend_from_slice(line);
            continue;
        }
        let colon = line.iter().position(|&octet| octet == b':').ok_or(Fault::NoField)?;
        let (written, value) = (&line[..colon], &line[colon + 1..]);
        let blanks = written.iter().rev().take_while(|octet| matches!(octet, b' ' | b'\t'));
        let name = &written[..written.len() - blanks.count()];
        let is_naming = NAMING.iter().any(|naming| name.eq_ignore_ascii_case(naming.as_bytes()));
        let is_odd = is_naming && name.len() < written.len();
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) || is_odd {
            return Err(Fault::NoField);
        }
        out.push((name, value.to_vec()));
    }
    Ok(out)
}
