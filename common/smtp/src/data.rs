//! The content of DATA: taking dots off on the way in, putting them on on the way out.
//!
//! Two servers that disagree where a message ends let a stranger hide a second message in the
//! first (SMTP smuggling, CVE-2023-51764 and its siblings). So the end is `CRLF . CRLF` and nothing
//! else, and a message with anything that another server might take for an end is refused whole.

use crate::server::limits::MAX_TEXT_LINE;

/// Where in a line the receiver stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Behind CRLF, or at the start.
    LineStart,
    /// A dot behind CRLF.
    Dot,
    /// `. CR` behind CRLF.
    DotCr,
    Text,
    Cr,
    /// Behind a bare LF.
    LfStart,
    /// A dot behind a bare LF.
    LfDot,
    /// `. CR` behind a bare LF.
    LfDotCr,
}

/// Why a message as it came over the wire is refused, whatever it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A CR without LF, or something that looks like an end of data and is none.
    LineEnds,
    /// Larger than the limit.
    TooLarge,
    /// A line longer than any mail has.
    LineTooLong,
}

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DataEnd {
    /// Octets, dots off.
    pub size: u64,
    /// Some octet has its eighth bit set.
    pub eight_bit: bool,
    /// An empty line ends the header.
    pub separator: bool,
    /// Received fields in the header.
    pub received: u32,
    /// The first defect.
    pub defect: Option<Defect>,
}

/// Takes the bytes behind 354 until the end of the message.
#[derive(Debug)]
pub struct Receiver {
    at: At,
    limit: u64,
    seen: DataEnd,
    in_header: bool,
    line_len: u64,
    name: [u8; Self::NAME],
}

impl Receiver {
    /// `received`, white space (obsolete but seen) and a colon fit.
    const NAME: usize = 12;

    /// For messages of at most `limit` octets.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            at: At::LineStart,
            limit,
            seen: DataEnd::default(),
            in_header: true,
            line_len: 0,
            name: [0; Self::NAME],
        }
    }

    /// The first defect so far; nothing more is put out once there is one.
    #[must_use]
    pub fn defect(&self) -> Option<Defect> {
        self.seen.defect
    }

    /// Takes bytes and appends content to `out`, until the input is empty, `out` holds `room`
    /// octets or the message ends. Gives how many it took, and the end.
    pub fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        room: usize,
    ) -> (usize, Option<DataEnd>) {
        let mut used = 0usize;
        while let Some(&byte) = input.get(used) {
            if out.len() >= room {
                break;
            }
            if self.at == At::Text {
                let rest = input.get(used..).unwrap_or_default();
                let free = room.saturating_sub(out.len());
                let rest = rest.get(..free).unwrap_or(rest);
                let run = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                if run > 0 {
                    self.text(rest.get(..run).unwrap_or_default(), out);
                    used = used.saturating_add(run);
                    continue;
                }
            }
            used = used.saturating_add(1);
            if self.byte(byte, out) {
                return (used, Some(self.seen));
            }
        }
        (used, None)
    }

    /// One octet; true at the end of the message.
    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) -> bool {
        self.at = match (self.at, byte) {
            (At::DotCr, b'\n') => return true,
            (At::LineStart, b'.') => At::Dot,
            (At::Dot, b'\r') => At::DotCr,
            (At::LfStart, b'.') => At::LfDot,
            (At::LfDot, b'\r') => At::LfDotCr,
            (At::Cr, b'\n') => {
                self.line_end(out);
                At::LineStart
            }
            // CRLF . LF and LF . LF: somebody's end of data, not ours.
            (At::Dot | At::LfDot, b'\n') => {
                self.fail(Defect::LineEnds);
                At::LfStart
            }
            // LF . CRLF.
            (At::LfDotCr, b'\n') => {
                self.fail(Defect::LineEnds);
                At::LineStart
            }
            // A CR that no LF follows.
            (At::Cr | At::DotCr | At::LfDotCr, other) => {
                self.fail(Defect::LineEnds);
                if other == b'\r' { At::Cr } else { At::Text }
            }
            (At::LineStart | At::Text | At::LfStart, b'\r') => At::Cr,
            // Old mailers end lines so; harmless where no dot is near. Stored with CRLF.
            (At::LineStart | At::Text | At::LfStart, b'\n') => {
                self.line_end(out);
                At::LfStart
            }
            // RFC 5321 §4.5.2: the dot was put there by the sender's server.
            (At::LineStart | At::Text | At::LfStart | At::Dot, other) => {
                self.text(&[other], out);
                At::Text
            }
            // Behind a bare LF nobody stuffs dots, so this one is content.
            (At::LfDot, other) => {
                self.text(&[b'.', other], out);
                At::Text
            }
        };
        false
    }

    fn fail(&mut self, defect: Defect) {
        self.seen.defect.get_or_insert(defect);
    }

    fn text(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.in_header {
            let from = usize::try_from(self.line_len).unwrap_or(Self::NAME).min(Self::NAME);
            let free = self.name.get_mut(from..).unwrap_or_default();
            for (slot, byte) in free.iter_mut().zip(bytes) {
                *slot = *byte;
            }
        }
        self.line_len = self.line_len.saturating_add(bytes.len() as u64);
        if self.line_len > MAX_TEXT_LINE {
            self.fail(Defect::LineTooLong);
        }
        self.seen.eight_bit |= !bytes.is_ascii();
        self.put(bytes, out);
    }

    fn line_end(&mut self, out: &mut Vec<u8>) {
        if self.in_header {
            if self.line_len == 0 {
                self.in_header = false;
                self.seen.separator = true;
            } else if self.is_received() {
                self.seen.received = self.seen.received.saturating_add(1);
            }
        }
        self.line_len = 0;
        self.put(b"\r\n", out);
    }

    fn is_received(&self) -> bool {
        let len = usize::try_from(self.line_len).unwrap_or(Self::NAME).min(Self::NAME);
        let line = self.name.get(..len).unwrap_or_default();
        line.split_at_checked(8).is_some_and(|(name, rest)| {
            name.eq_ignore_ascii_case(b"received") && rest.trim_ascii_start().first() == Some(&b':')
        })
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.seen.size = self.seen.size.saturating_add(bytes.len() as u64);
        if self.seen.size > self.limit {
            self.fail(Defect::TooLarge);
        }
        if self.seen.defect.is_none() {
            out.extend_from_slice(bytes);
        }
    }
}

/// Content that cannot go out: its lines do not all end in CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("content with a CR or LF alone")]
pub struct BareLineEnd;

/// Makes content ready for DATA: dots on, end of data behind.
#[derive(Debug)]
pub struct Stuffer {
    line_start: bool,
    cr: bool,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self { line_start: true, cr: false }
    }
}

impl Stuffer {
    /// Before the first octet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `content` as it goes over the wire.
    ///
    /// # Errors
    /// [`BareLineEnd`]: sending it would smuggle through us. The connection has to be closed, as
    /// nothing else ends a message half sent.
    pub fn push(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        let mut rest = content;
        while let Some(&first) = rest.first() {
            if self.cr {
                if first != b'\n' {
                    return Err(BareLineEnd);
                }
                out.push(b'\n');
                (self.cr, self.line_start) = (false, true);
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            if self.line_start && first == b'.' {
                out.push(b'.');
            }
            self.line_start = false;
            let run = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            let (text, tail) = rest.split_at_checked(run).unwrap_or((rest, b""));
            out.extend_from_slice(text);
            rest = tail;
            match rest.split_first() {
                Some((b'\r', tail)) => {
                    out.push(b'\r');
                    self.cr = true;
                    rest = tail;
                }
                Some(_) => return Err(BareLineEnd),
                None => {}
            }
        }
        Ok(())
    }

    /// Appends the end of data, behind a CRLF of its own where the content lacks the last one
    /// (which no DKIM signature covers, RFC 6376 §3.4.3).
    ///
    /// # Errors
    /// [`BareLineEnd`] when the content ends in CR.
    pub fn end(self, out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        if self.cr {
            return Err(BareLineEnd);
        }
        out.extend_from_slice(if self.line_start { b".\r\n" } else { b"\r\n.\r\n" });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn receive(parts: &[&[u8]], limit: u64) -> (Vec<u8>, Option<DataEnd>, Vec<u8>) {
        let (mut receiver, mut out, mut end) = (Receiver::new(limit), Vec::new(), None);
        let mut rest = Vec::new();
        for part in parts {
            let mut part = *part;
            while !part.is_empty() && end.is_none() {
                let mut chunk = Vec::new();
                let (used, done) = receiver.take(part, &mut chunk, 7);
                assert!(used > 0);
                out.extend_from_slice(&chunk);
                part = &part[used..];
                end = done;
            }
            rest.extend_from_slice(part);
        }
        (out, end, rest)
    }

    fn whole(wire: &[u8]) -> (String, DataEnd) {
        let (out, end, rest) = receive(&[wire], 10_000);
        assert_eq!(rest, b"", "{wire:?}");
        (String::from_utf8(out).unwrap(), end.unwrap())
    }

    #[test]
    fn dots_come_off() {
        let (text, end) = whole(b"A: b\r\n\r\n..x\r\n.y\r\n...\r\n.\r\n");
        assert_eq!(text, "A: b\r\n\r\n.x\r\ny\r\n..\r\n");
        assert_eq!((end.size, end.separator, end.defect), (text.len() as u64, true, None));
        assert_eq!(whole(b".\r\n").0, "");
    }

    #[test]
    fn nothing_but_crlf_dot_crlf_ends() {
        for fake in [
            "\n.\n",
            "\n.\r\n",
            "\r\n.\n",
            "\r.\r",
            "\r\n.\r",
            "\r.\r\n",
            "\r\n.\r\r\n",
            "\r\n.\0\r\n",
            "\n\n.\r\n",
        ] {
            let wire = format!("A: b\r\n\r\ntext{fake}MAIL FROM:<x@y.example>\r\n.\r\n");
            let (out, end, rest) = receive(&[wire.as_bytes()], 10_000);
            let end = end.unwrap_or_else(|| panic!("{fake:?} ate the end"));
            assert_eq!(rest, b"", "{fake:?} ended the message");
            if fake == "\r\n.\0\r\n" {
                assert_eq!(end.defect, None);
                assert!(String::from_utf8(out).unwrap().ends_with("example>\r\n"));
            } else {
                assert_eq!(end.defect, Some(Defect::LineEnds), "{fake:?}");
            }
        }
    }

    #[test]
    fn a_bare_lf_far_from_dots_becomes_crlf() {
        let (text, end) = whole(b"A: b\n\nx\ny\n.z\n..w\r\n.\r\n");
        assert_eq!(text, "A: b\r\n\r\nx\r\ny\r\n.z\r\n..w\r\n");
        assert_eq!((end.defect, end.separator), (None, true));
    }

    #[test]
    fn a_bare_cr_anywhere_is_refused() {
        for wire in [&b"a\rb\r\n.\r\n"[..], b"\r\r\n.\r\n", b"a\r\r\n.\r\n", b"\n\rx\r\n.\r\n"] {
            assert_eq!(whole(wire).1.defect, Some(Defect::LineEnds), "{wire:?}");
        }
    }

    #[test]
    fn limits_are_told_at_the_real_end() {
        let wire = b"aaaaaaaa\r\n.\r\n";
        assert_eq!(receive(&[wire], 10).1.unwrap().defect, None);
        let (out, end, _) = receive(&[wire], 9);
        assert_eq!(end.unwrap().defect, Some(Defect::TooLarge));
        assert!(out.len() <= 9);
        let mut long = vec![b'a'; usize::try_from(MAX_TEXT_LINE).unwrap() + 1];
        long.extend_from_slice(b"\r\n.\r\n");
        let mut receiver = Receiver::new(u64::MAX);
        let (_, end) = receiver.take(&long, &mut Vec::new(), usize::MAX);
        assert_eq!(end.unwrap().defect, Some(Defect::LineTooLong));
    }

    #[test]
    fn received_fields_are_counted_in_the_header_only() {
        let wire = b"Received: a\r\nreceived : b\r\n\tReceived: folded\r\nReceived-SPF: c\r\nRECEIVED:d\r\nRec: e\r\n\r\nReceived: body\r\n.\r\n";
        assert_eq!(whole(wire).1.received, 3);
        assert!(!whole(b"Received: a\r\n.\r\n").1.separator);
    }

    #[test]
    fn eighth_bit() {
        assert!(!whole(b"a\r\n.\r\n").1.eight_bit);
        assert!(whole("a\r\n\r\né\r\n.\r\n".as_bytes()).1.eight_bit);
    }

    #[test]
    fn content_with_bare_line_ends_does_not_go_out() {
        for bad in [&b"a\nb"[..], b"a\rb", b"\r\r\n", b"\n"] {
            assert_eq!(Stuffer::new().push(bad, &mut Vec::new()), Err(BareLineEnd), "{bad:?}");
        }
        let mut stuffer = Stuffer::new();
        stuffer.push(b"a\r", &mut Vec::new()).unwrap();
        assert_eq!(stuffer.end(&mut Vec::new()), Err(BareLineEnd));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(wire in "[ab.\r\n]{0,40}", cut in 0usize..60) {
            let wire = format!("{wire}\r\n.\r\nNOOP\r\n");
            let cut = cut.min(wire.len());
            let (head, tail) = wire.as_bytes().split_at(cut);
            prop_assert_eq!(receive(&[head, tail], 30), receive(&[wire.as_bytes()], 30));
        }

        #[test]
        fn what_was_stuffed_comes_back(lines in proptest::collection::vec("[a.é\0 ]{0,6}", 0..12), cut in 0usize..40) {
            let mut content: String = lines.iter().flat_map(|l| [l.as_str(), "\r\n"]).collect();
            let mut wire = Vec::new();
            let mut stuffer = Stuffer::new();
            let (head, tail) = content.as_bytes().split_at(cut.min(content.len()));
            stuffer.push(head, &mut wire).unwrap();
            stuffer.push(tail, &mut wire).unwrap();
            stuffer.end(&mut wire).unwrap();
            let (out, end, rest) = receive(&[&wire], 10_000);
            prop_assert_eq!(rest, b"");
            prop_assert_eq!(end.unwrap().defect, None);
            prop_assert_eq!(String::from_utf8(out).unwrap(), std::mem::take(&mut content));
        }
    }
}
