//! The header of a user's own message: whose it says that it is, so that every reader says the same.
//!
//! From the octets, and not from what the parser tells of them: a right is decided here, and a header
//! that others may read in another way is refused.

use super::{mailboxes, refusal::Refusal, spool::Spooled};
use types::Address;

/// Octets of a header.
const MAX_HEADER: usize = 1 << 20;

/// Whom a message names as those who sent it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Senders {
    /// The one in From.
    pub(crate) author: Address,
    /// Those in Sender, Resent-From and Resent-Sender.
    pub(crate) others: Vec<Address>,
}

/// The fields in which they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    From,
    Sender,
    ResentFrom,
    ResentSender,
}

impl Kind {
    fn of(name: &[u8]) -> Option<Self> {
        let all = [Self::From, Self::Sender, Self::ResentFrom, Self::ResentSender];
        all.into_iter().find(|kind| name.eq_ignore_ascii_case(kind.name().as_bytes()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::From => "From",
            Self::Sender => "Sender",
            Self::ResentFrom => "Resent-From",
            Self::ResentSender => "Resent-Sender",
        }
    }
}

/// Why a header says nothing for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is longer than anybody reads.
    TooLong,
    /// A line that is no field and continues none, or an octet that ends lines for some.
    NoField,
    NoAuthor,
    Unclear(Kind),
    Many(Kind),
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
            Fault::Unclear(kind) => {
                let name = kind.name();
                let text = format!(
                    "The {name} field is no list of addresses; names with @ < > , ; : need quotes"
                );
                Self::new(550, "5.6.0", &text)
            }
            Fault::Many(kind) => {
                let text = format!("The message has more than one {} field", kind.name());
                Self::new(550, "5.6.0", &text)
            }
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

/// The senders that a message names.
pub(crate) fn senders(message: &Spooled) -> Result<Senders, Refusal> {
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

fn read(header: &[u8]) -> Result<Senders, Fault> {
    let (mut author, mut others, mut has_sender) = (None, Vec::new(), false);
    for (name, value) in fields(header)? {
        let Some(kind) = Kind::of(name) else { continue };
        let mut named = mailboxes::read(&value).ok_or(Fault::Unclear(kind))?;
        match kind {
            Kind::From if author.is_some() || named.len() > 1 => return Err(Fault::NoAuthor),
            Kind::From => author = named.pop(),
            Kind::Sender if has_sender => return Err(Fault::Many(kind)),
            Kind::Sender | Kind::ResentSender if named.len() > 1 => {
                return Err(Fault::Unclear(kind));
            }
            Kind::Sender | Kind::ResentFrom | Kind::ResentSender => {
                has_sender |= kind == Kind::Sender;
                others.append(&mut named);
            }
        }
    }
    Ok(Senders { author: author.ok_or(Fault::NoAuthor)?, others })
}

/// Every line is a field or continues one; names are as RFC 5322 §3.6.8
/// has them, without the blank before the colon that §4.5 lets others write: for some it ends the name.
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
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
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

    fn of(text: &str) -> Result<Senders, Refusal> {
        senders(&Spooled::of(text.as_bytes().to_vec()))
    }

    #[test]
    fn all_who_are_named_are_found() {
        let named = |text: &str| {
            let senders = of(text).unwrap();
            let all = std::iter::once(&senders.author).chain(&senders.others);
            all.map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(named(&format!("{GOOD}\r\nFrom: <bob@example.org>\r\n")), "ann@example.org");
        assert_eq!(named("subject: x\r\nFROM:\r\n\tAnn\r\n <a@x.example>\r\n"), "a@x.example");
        assert_eq!(named("From: a@x.example\n\nbare line ends\n"), "a@x.example");
        assert_eq!(named(&format!("{GOOD}Subject: J\u{f6}rg\r\n \r\n\r\n")), "ann@example.org");
        let resent = "Resent-From: b@x.example, c@x.example\r\nResent-Sender: d@x.example\r\n";
        let text = format!("Sender: <e@x.example>\r\n{GOOD}{resent}{resent}\r\n");
        let all = "b@x.example c@x.example d@x.example";
        assert_eq!(named(&text), format!("ann@example.org e@x.example {all} {all}"));
        // The end of the header comes after many pieces.
        let long = format!("{GOOD}X: {}\r\n", "x".repeat(900));
        let more = format!("Y: {}\r\n", "y".repeat(900)).repeat(500);
        assert_eq!(named(&format!("{long}{more}\r\n{}", "z".repeat(9999))), "ann@example.org");
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
            (550, format!("{GOOD}Sender:\r\n\r\n")),
            (550, format!("{GOOD}Sender: a@x.example\r\nSender: a@x.example\r\n\r\n")),
            (550, format!("{GOOD}Sender: a@x.example, b@x.example\r\n\r\n")),
            (550, format!("{GOOD}Resent-From: a <b@x.example\r\n\r\n")),
            (554, format!("{GOOD}From\0: bob@example.org\r\n\r\n")),
            (554, format!("{GOOD}Subject: a\0b\r\n\r\n")),
            (554, format!("{GOOD}Subject: a\rFrom: bob@example.org\r\n\r\n")),
            (554, format!("{GOOD}From : bob@example.org\r\n\r\n")),
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
