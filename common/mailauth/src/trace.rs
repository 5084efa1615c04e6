//! Fields that are put on top of a message by others than its author: what may stand there.

/// Octets of trace fields a peer may give us to put in front.
pub const MAX_PREFIX: usize = 8_192;

/// Whether a text is whole header fields: each line ends in CRLF, none is empty, the first begins a
/// field. What a face gives us goes into a message, so a line end smuggled into it would make a
/// header of a stranger's choice.
#[must_use]
pub fn is_fields(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let Some(body) = text.strip_suffix("\r\n") else { return false };
    let begins_field = |line: &str| {
        line.split_once(':').is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|b| (33..=126).contains(&b))
        })
    };
    let continues = |line: &str| line.starts_with([' ', '\t']) && !line.trim().is_empty();
    text.len() <= MAX_PREFIX
        && body.split("\r\n").enumerate().all(|(n, line)| {
            !line.contains(['\r', '\n', '\0']) && (begins_field(line) || n > 0 && continues(line))
        })
}

/// Whether our own fields need an empty line behind them: what came does not begin like a header, so
/// it is text alone, which would be taken for more of the header. `From ` is how a mailbox file
/// begins, with a header behind it.
#[must_use]
pub fn lacks_header(content: &[u8]) -> bool {
    let mut first = FirstLine::default();
    let begins = content.iter().find_map(|octet| first.take(*octet));
    !begins.unwrap_or(matches!(content, b"" | b"\r"))
}

/// Whether content that comes octet by octet begins with a header, by its first line.
#[derive(Debug, Default)]
pub(crate) struct FirstLine {
    seen: usize,
    /// What was seen is no start of `From `.
    is_other: bool,
    has_name: bool,
    has_blank: bool,
    begins_with_cr: bool,
}

impl FirstLine {
    /// None until it is known.
    pub(crate) fn take(&mut self, octet: u8) -> Option<bool> {
        const MBOX: &[u8] = b"From ";
        self.is_other |= MBOX.get(self.seen) != Some(&octet);
        self.begins_with_cr |= self.seen == 0 && octet == b'\r';
        self.seen = self.seen.saturating_add(1);
        if !self.is_other && self.seen == MBOX.len() {
            return Some(true);
        }
        match octet {
            b':' => return Some(self.has_name),
            b'\n' => return Some(self.seen == 1 || self.seen == 2 && self.begins_with_cr),
            _ if octet.is_ascii_whitespace() => self.has_blank = true,
            33..=126 if !self.has_blank => self.has_name = true,
            _ => return Some(false),
        }
        None
    }
}

/// Whether a text is what a face may put on top of a message: its one Received field, or nothing. It
/// comes there after the message was checked, so any other field would be one that nobody checked:
/// another From above the one that is the sender's own.
#[must_use]
pub fn is_received(text: &str) -> bool {
    let starts = text.split_inclusive("\r\n").filter(|line| !line.starts_with([' ', '\t']));
    let names: Vec<&str> =
        starts.map(|line| line.split_once(':').map_or(line, |(name, _)| name)).collect();
    match names[..] {
        // A line that goes on from nothing would go on from the Return-Path.
        [] => text.is_empty(),
        [name] => name.eq_ignore_ascii_case("Received") && is_fields(text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a whole line tells it.
    fn lacks(content: &[u8]) -> bool {
        let line = content.split(|&octet| octet == b'\n').next().unwrap_or_default();
        let name = line.split(|&octet| octet == b':').next().unwrap_or_default();
        let is_field = name.len() < line.len()
            && !name.trim_ascii_end().is_empty()
            && name.trim_ascii_end().iter().all(|octet| (33..=126).contains(octet));
        !is_field && !matches!(line, b"" | b"\r") && !line.starts_with(b"From ")
    }

    #[test]
    fn octet_by_octet_the_first_line_says_the_same() {
        let octets = [b"A", b" ", b":", b"\r", b"\n", b"\xe4", b"\t", b"\x0c"];
        let starts: [&[u8]; 4] = [b"", b"From", b"From ", b"Fro"];
        for start in starts {
            for n in 0..octets.len().pow(4) {
                let pick = |place: u32| octets[n / octets.len().pow(place) % octets.len()];
                let line = [start, pick(0), pick(1), pick(2), pick(3), b"\n"].concat();
                for content in (0..=line.len()).map(|end| &line[..end]) {
                    assert_eq!(lacks_header(content), lacks(content), "{content:?}");
                }
            }
        }
    }

    #[test]
    fn text_without_a_header_is_told_from_one() {
        for with in [&b""[..], b"\r\nx", b"A: b\r\n", b"A :b", b"From x 15:00\r\nA: b\r\n"] {
            assert!(!lacks_header(with), "{with:?}");
        }
        for without in [&b"hello\r\n"[..], b" A: b\r\n", b"it was 15:00\r\n", b":\r\n", b"\xe4: b"]
        {
            assert!(lacks_header(without), "{without:?}");
        }
    }

    #[test]
    fn a_face_puts_its_received_on_top_and_nothing_else() {
        assert!(is_received(""));
        assert!(is_received("Received: from a\r\n by b\r\n"));
        for bad in [
            "From: <bob@example.org>\r\n",
            "From: <bob@example.org>\r\nReceived: from a\r\n",
            "Received: from a\r\nFrom: <bob@example.org>\r\n",
            "Received: from a\r\nReceived: from b\r\n",
            "Received: from a\r\n\r\nbody\r\n",
            "Received: from a\nFrom: <bob@example.org>\r\n",
            "Received: from a\rFrom: <bob@example.org>\r\n",
            "Received : from a\r\n",
            " Received: from a\r\n",
            "Received: from a",
        ] {
            assert!(!is_received(bad), "{bad:?}");
        }
    }

    #[test]
    fn only_whole_fields_are_put_in_front() {
        assert!(is_fields(""));
        assert!(is_fields("Received: from a\r\n by b\r\n"));
        assert!(is_fields("A: b\r\nC: d\r\n"));
        for bad in [
            "A: b",
            "A: b\n",
            "A: b\r\n\r\n",
            " a: b\r\n",
            "A: b\r\nC\r\n",
            "A: b\r\n \r\n",
            "A b: c\r\n",
            "A: b\nC: d\r\n",
            "A: \0\r\n",
        ] {
            assert!(!is_fields(bad), "{bad:?}");
        }
        assert!(!is_fields(&format!("A: {}\r\n", "x".repeat(MAX_PREFIX))));
        assert!(is_fields("Return-Path: <>\r\n"));
    }
}
