//! The header of a user's own message: whose it says that it is, so that every reader says the same.
//!
//! From the octets, and not from what the parser tells of them: a right is decided here, and a header
//! that others may read in another way is refused.

use super::{mailboxes, refusal::Refusal, spool::Spooled};
use types::Address;

/// Octets of a header.
const MAX_HEADER: usize = 1 << 20;

/// The fields that say whose a message is, or who sent it. Only From is checked; in the others
/// people name whom they like, and DMARC does not go by them.
const NAMING: [&str; 4] = ["From", "Sender", "Resent-From", "Resent-Sender"];

/// Why a header says nothing for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is longer than anybody reads.
    TooLong,
    /// A line that is no field and continues none, or an octet that ends lines for some.
    NoField,
    NoAuthor,
    Unclear,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooLong => Self::new(554, "5.6.0", "The message header is too long"),
            Fault::NoField => {
                Self::new(554, "5.6.0", "The message header has a line that is no header field")
            }
            Fault::NoAuthor => {
                Self::new(550, "5.6.0", "The message needs one From field with one address")
            }
            Fault::Unclear => Self::new(
                550,
                "5.6.0",
                "The From field is no list of addresses; names with @ < > , ; : need quotes",
            ),
        }
    }
}

/// A name, and its value on one line.
type Field<'a> = (&'a [u8], Vec<u8>);

/// Where the header ends: its octets without the empty line.
fn end(octets: &[u8]) -> Option<usize> {
    let mut start = 0;
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        if matches!(line, b"\r\n" | b"\n") {
            return Some(start);
        }
        start += line.len();
    }
    None
}

/// The one address in the one From of a message.
pub(crate) fn author(message: &Spooled) -> Result<Address, Refusal> {
    let mut header = Vec::new();
    loop {
        let piece = message.read(header.len() as u64).map_err(|error| {
            tracing::error!(%error, "a spooled message");
            Refusal::ours()
        })?;
        let is_whole = piece.is_empty();
        header.extend_from_slice(&piece);
        if let Some(end) = end(&header) {
            header.truncate(end);
        } else if !is_whole && header.len() <= MAX_HEADER {
            continue;
        }
        if header.len() > MAX_HEADER {
            return Err(Fault::TooLong.into());
        }
        return Ok(read(&header)?);
    }
}

fn read(header: &[u8]) -> Result<Address, Fault> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "From: Ann <ann@example.org>\r\n";

    fn of(text: &str) -> Result<Address, Refusal> {
        author(&Spooled::of(text.as_bytes().to_vec()))
    }

    #[test]
    fn the_author_is_found() {
        // The end of the header comes after many pieces.
        let many = format!("Y: {}\r\n", "y".repeat(900)).repeat(500);
        for text in [
            format!("{GOOD}\r\nFrom: <bob@example.org>\r\n"),
            "subject: x\r\nFROM:\r\n\tAnn\r\n <ann@example.org>\r\n".to_owned(),
            "From: ann@example.org\n\nbare line ends\n".to_owned(),
            "From: ann@example.org <ann@example.org>\r\n\r\n".to_owned(),
            "From: [Shop] Ann <ann@example.org>\r\n\r\n".to_owned(),
            format!("{GOOD}Subject: J\u{f6}rg\r\n \r\n\r\n"),
            format!("{GOOD}{many}\r\n{}", "z".repeat(9999)),
            // Who else is named, and how, does not matter.
            format!("Sender: <bob@example.org>\r\n{GOOD}\r\n"),
            format!("{GOOD}Sender:\r\nSender: b@x.example, c@x.example\r\n\r\n"),
            format!("{GOOD}Resent-From: b@x.example, c@x.example\r\nResent-Sender: x\r\n\r\n"),
            format!("{GOOD}Resent-From: a <b@x.example\r\nResent-From:\r\n\r\n"),
            // One odd field costs nobody the message.
            format!("MIME-Version : 1.0\r\n{GOOD}\r\n"),
            format!("{GOOD}Reply-To \t: bob@example.org\r\n folded\r\nX-From : x\r\n\r\n"),
        ] {
            let found = of(&text).unwrap_or_else(|refusal| panic!("{refusal:?}: {text:.99?}"));
            assert_eq!(found.to_string(), "ann@example.org", "{text:.99?}");
        }
    }

    #[test]
    fn headers_with_another_reading_are_refused() {
        for (code, text) in [
            (550, "Subject: x\r\n\r\n".to_owned()),
            (550, String::new()),
            (550, format!("\r\n{GOOD}")),
            (550, format!("{GOOD}{GOOD}\r\n")),
            (550, "From: a@x.example, b@x.example\r\n\r\n".to_owned()),
            (550, "From: bob@example.org <ann@example.org>\r\n\r\n".to_owned()),
            (550, "From:\r\n\r\n".to_owned()),
            (550, format!("{GOOD}From:\r\n\r\n")),
            (550, "Sender: ann@example.org\r\nReply-To: ann@example.org\r\n\r\n".to_owned()),
            (554, format!("{GOOD}From\0: bob@example.org\r\n\r\n")),
            (554, format!("{GOOD}Subject: a\0b\r\n\r\n")),
            (554, format!("{GOOD}Subject: a\rFrom: bob@example.org\r\n\r\n")),
            (554, format!("{GOOD}From : bob@example.org\r\n\r\n")),
            (554, "fRoM\t: ann@example.org\r\n\r\n".to_owned()),
            (554, format!("{GOOD}Sender : bob@example.org\r\n\r\n")),
            (554, format!("{GOOD}Resent-From : bob@example.org\r\n\r\n")),
            (554, format!("{GOOD}RESENT-SENDER  : bob@example.org\r\n\r\n")),
            (554, format!("{GOOD}Reply To: bob@example.org\r\n\r\n")),
            (554, format!("{GOOD} \r\n : x\r\nReply-To\u{c}: x\r\n\r\n")),
            (554, format!("{GOOD}Fr\u{f6}m: bob@example.org\r\n\r\n")),
            (554, format!("{GOOD}: x\r\n\r\n")),
            (554, format!(" From: bob@example.org\r\n{GOOD}\r\n")),
            (554, format!("garbage\r\n{GOOD}\r\n")),
            (554, format!("From bob Mon Nov 28 22:00:00 2026\r\n{GOOD}\r\n")),
            (554, format!("{GOOD}X: {}\r\n\r\n", "x".repeat(MAX_HEADER))),
            (554, format!("{GOOD}X: {}", "x".repeat(2 * MAX_HEADER))),
        ] {
            let refusal = of(&text).unwrap_err();
            let shown = &text[..text.floor_char_boundary(100)];
            assert_eq!((refusal.code, refusal.enhanced.as_str()), (code, "5.6.0"), "{shown:?}");
        }
    }
}
