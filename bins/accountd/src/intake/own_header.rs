//! Whose a user's own message says that it is: from its octets, and not from what the parser tells of
//! them.

use super::{refusal::Refusal, spool::Spooled};
use mailauth::author::{Fault, MAX_HEADER, end, read};
use types::Address;

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
        return Ok(read(&header)?);
    }
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
