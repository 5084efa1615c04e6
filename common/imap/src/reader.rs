//! From a stream of octets to whole commands: lines, literals, bounds.
//!
//! Nothing is interpreted twice: a command is gathered with its literals as they came and parsed
//! once ([`crate::parse`]). The message of an APPEND is never gathered; the reader says where it is
//! and the process passes it on as it comes.

use crate::{
    command::{Append, Tag},
    name::Names,
    parse::{append_prefix, tag_of},
    response::{Condition, ResponseCode},
};

/// What a reader lets a client send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets of all lines of a command, or of a line alone.
    pub line: usize,
    /// Octets of one literal.
    pub literal: u64,
    /// Octets of a command with its literals.
    pub command: usize,
    /// Literals of a command.
    pub literals: usize,
    /// Octets of the message of an APPEND; 0 where there is no APPEND.
    pub message: u64,
}

impl Limits {
    /// Before log-in: room for a user name, a password and a SASL message.
    pub const FRONT: Self =
        Self { line: 16 * 1024, literal: 4 * 1024, command: 24 * 1024, literals: 4, message: 0 };
    /// After log-in.
    pub const SESSION: Self = Self {
        line: 64 * 1024,
        literal: 100 * 1024,
        command: 512 * 1024,
        literals: 1_000,
        message: 64 * 1024 * 1024,
    };
    /// Octets of a non-synchronizing literal that is too large which are read and dropped to keep
    /// the connection; more end it.
    const SWALLOW: u64 = 1024 * 1024;
    /// A buffer that grew beyond this is given back when a command is over.
    const KEEP: usize = 512;
}

/// What a client is told whose line passes its bound.
const TOO_LONG: &str = "line is too long";

/// What was wrong with a command that was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It was not well-formed.
    Malformed,
    /// A line or a literal was larger than any command needs.
    TooBig,
    /// All was well with it but the size of the message it appends.
    MessageTooBig,
}

impl Fault {
    /// How it is told. A message above APPENDLIMIT is no mistake of grammar, and BAD would have a
    /// client look for one (RFC 7889 §4, RFC 4469 §4.2).
    pub(crate) const fn told(self) -> (Condition, Option<ResponseCode>) {
        match self {
            Self::Malformed => (Condition::Bad, None),
            Self::TooBig => (Condition::Bad, Some(ResponseCode::TooBig)),
            Self::MessageTooBig => (Condition::No, Some(ResponseCode::TooBig)),
        }
    }
}

/// Why a command was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its tag, if it had one.
    pub tag: Option<Tag>,
    /// For the client.
    pub text: &'static str,
    /// What was wrong.
    pub fault: Fault,
    /// Whether what follows cannot be understood, so that the connection has to end.
    pub fatal: bool,
}

/// What came of some octets.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// All were taken, nothing is complete.
    More,
    /// The client waits for `+` before it sends a literal.
    Continue,
    /// A whole command, without its last CRLF; to be given to [`crate::parse`].
    Command(Vec<u8>),
    /// A line, after [`Reader::expect_line`], without its CRLF.
    Line(Vec<u8>),
    /// An APPEND up to its message. Call [`Reader::accept_message`] or [`Reader::refuse_message`].
    Append(Append),
    /// Octets of the message of an APPEND.
    Message(Vec<u8>),
    /// The APPEND is over: the command's last CRLF was read.
    MessageEnd,
    /// Something was wrong with a command; it was read to its end unless fatal.
    Refused(Refusal),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Gathering a line of a command.
    Line,
    /// Gathering a literal, octets missing.
    Literal(usize),
    /// Passing on the message of an APPEND, octets missing.
    Message(u64),
    /// Behind the message: the line has to end.
    MessageTail,
    /// Dropping a literal that was refused, octets missing.
    Drop(u64, Refusal),
    /// Dropping the rest of the line of a command that was refused.
    DropLine(Refusal),
    /// Waiting for accept or refuse.
    Appending { size: u64, waits: bool },
    /// Nothing that follows can be understood.
    Dead,
}

/// Reads one connection.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    names: Names,
    state: State,
    frame: Vec<u8>,
    /// Where the current line begins in the frame.
    line_start: usize,
    /// Octets of lines, without literals.
    lines: usize,
    literals: usize,
    /// The next line is no command.
    raw_line: bool,
}

impl Reader {
    /// At the beginning of a command.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            names: Names::Utf7,
            state: State::Line,
            frame: Vec::new(),
            line_start: 0,
            lines: 0,
            literals: 0,
            raw_line: false,
        }
    }

    /// How mailbox names travel from the next command on.
    pub fn set_names(&mut self, names: Names) {
        self.names = names;
    }

    /// The next line is an answer in a SASL exchange or the end of IDLE.
    pub fn expect_line(&mut self) {
        self.raw_line = true;
    }

    /// Whether a command has begun.
    #[must_use]
    pub fn inside_command(&self) -> bool {
        self.state != State::Line || !self.frame.is_empty()
    }

    /// Bytes on the heap, to measure idle sessions.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.frame.capacity()
    }

    /// The message of the APPEND just announced is wanted; true if `+` has to be sent first.
    pub fn accept_message(&mut self) -> bool {
        match self.state {
            State::Appending { size, waits } => {
                self.state = State::Message(size);
                self.line_start = self.frame.len();
                waits
            }
            State::Line
            | State::Literal(_)
            | State::Message(_)
            | State::MessageTail
            | State::Drop(..)
            | State::DropLine(_)
            | State::Dead => false,
        }
    }

    /// The message is not wanted. If the client waits, the command is over and this gives true;
    /// else the octets are on their way and come out as [`Event::Message`] all the same.
    pub fn refuse_message(&mut self) -> bool {
        match self.state {
            State::Appending { waits: true, .. } => {
                self.reset();
                true
            }
            State::Appending { size, waits: false } => {
                self.state = State::Message(size);
                self.line_start = self.frame.len();
                false
            }
            State::Line
            | State::Literal(_)
            | State::Message(_)
            | State::MessageTail
            | State::Drop(..)
            | State::DropLine(_)
            | State::Dead => false,
        }
    }

    /// Takes octets from the front of `input` until something is to be done. Call it again with
    /// what is left, after every event but [`Event::More`].
    pub fn feed(&mut self, input: &mut &[u8]) -> Event {
        loop {
            if let State::Appending { .. } | State::Dead = self.state {
                return Event::More;
            }
            if let Some(event) = self.step(input) {
                return event;
            }
            if input.is_empty() {
                return Event::More;
            }
        }
    }

    fn step(&mut self, input: &mut &[u8]) -> Option<Event> {
        match std::mem::replace(&mut self.state, State::Line) {
            State::Line => self.line(input),
            State::Literal(missing) => {
                let taken = take(input, missing);
                self.frame.extend_from_slice(taken);
                let left = missing.saturating_sub(taken.len());
                if left > 0 {
                    self.state = State::Literal(left);
                } else {
                    self.line_start = self.frame.len();
                }
                None
            }
            State::Message(0) => {
                self.state = State::MessageTail;
                None
            }
            State::Message(missing) => {
                let most = usize::try_from(missing).unwrap_or(usize::MAX);
                let taken = take(input, most);
                let left = missing.saturating_sub(u64::try_from(taken.len()).unwrap_or(0));
                self.state = State::Message(left);
                if taken.is_empty() { None } else { Some(Event::Message(taken.to_vec())) }
            }
            State::MessageTail => self.tail(input),
            State::Drop(missing, refusal) => {
                let most = usize::try_from(missing).unwrap_or(usize::MAX);
                let taken = take(input, most);
                let left = missing.saturating_sub(u64::try_from(taken.len()).unwrap_or(0));
                self.state = if left > 0 {
                    State::Drop(left, refusal)
                } else {
                    self.frame.clear();
                    State::DropLine(refusal)
                };
                None
            }
            State::DropLine(refusal) => self.drop_line(input, refusal),
            state @ (State::Appending { .. } | State::Dead) => {
                self.state = state;
                None
            }
        }
    }

    /// Gathers up to a LF; None if there is none yet or the line goes on behind a literal.
    fn line(&mut self, input: &mut &[u8]) -> Option<Event> {
        let newline = memchr::memchr(b'\n', input);
        let count = newline.map_or(input.len(), |at| at.saturating_add(1));
        let taken = take(input, count);
        self.lines = self.lines.saturating_add(taken.len());
        if self.lines > self.limits.line {
            // Enough of it to know the tag.
            let head = taken.get(..256).unwrap_or(taken);
            self.frame.extend_from_slice(head);
            let refusal = self.refusal(TOO_LONG);
            return Some(self.fatal(refusal));
        }
        self.frame.extend_from_slice(taken);
        newline?;
        let line = self.frame.get(self.line_start..).unwrap_or_default();
        // RFC 9051 §2.2: lines end in CRLF. A bare LF is refused, as is a bare CR inside.
        let Some(text) = line.strip_suffix(b"\r\n").filter(|text| !text.contains(&b'\r')) else {
            let refusal = self.refusal("lines end in CRLF");
            self.reset();
            return Some(Event::Refused(refusal));
        };
        if self.raw_line {
            let text = text.to_vec();
            self.reset();
            return Some(Event::Line(text));
        }
        let Some((start, size, waits)) = marker(text) else {
            let mut frame = std::mem::take(&mut self.frame);
            frame.truncate(frame.len().saturating_sub(2));
            self.reset();
            return Some(Event::Command(frame));
        };
        let marker_at = self.line_start.saturating_add(start);
        self.literal(marker_at, size, waits)
    }

    fn literal(&mut self, marker_at: usize, size: u64, waits: bool) -> Option<Event> {
        if self.limits.message > 0 && self.literals <= 1 {
            match append_prefix(&self.frame, marker_at, size, waits, self.names) {
                Ok(None) => {}
                Ok(Some(_)) if size > self.limits.message => {
                    return self.refuse_literal(
                        "message is too large",
                        Fault::MessageTooBig,
                        size,
                        waits,
                    );
                }
                Ok(Some(append)) => {
                    self.state = State::Appending { size, waits };
                    return Some(Event::Append(append));
                }
                Err(error) => return self.refuse_literal(error.0, Fault::Malformed, size, waits),
            }
        }
        self.literals = self.literals.saturating_add(1);
        let octets = usize::try_from(size).unwrap_or(usize::MAX);
        let whole = self.frame.len().saturating_add(octets);
        if size > self.limits.literal
            || whole > self.limits.command
            || self.literals > self.limits.literals
        {
            return self.refuse_literal("literal is too large", Fault::TooBig, size, waits);
        }
        self.state = State::Literal(octets);
        if octets == 0 {
            self.state = State::Line;
            self.line_start = self.frame.len();
        }
        waits.then_some(Event::Continue)
    }

    /// A synchronizing literal was not sent yet, so refusing it ends the command; another is on
    /// its way and has to be dropped (RFC 7888 §4).
    fn refuse_literal(
        &mut self,
        text: &'static str,
        fault: Fault,
        size: u64,
        waits: bool,
    ) -> Option<Event> {
        let mut refusal = self.refusal(text);
        refusal.fault = fault;
        if waits {
            self.reset();
            return Some(Event::Refused(refusal));
        }
        if size > Limits::SWALLOW {
            self.reset();
            self.state = State::Dead;
            refusal.fatal = true;
            return Some(Event::Refused(refusal));
        }
        self.state = State::Drop(size, refusal);
        None
    }

    fn drop_line(&mut self, input: &mut &[u8], mut refusal: Refusal) -> Option<Event> {
        let newline = memchr::memchr(b'\n', input);
        let count = newline.map_or(input.len(), |at| at.saturating_add(1));
        let taken = take(input, count);
        self.lines = self.lines.saturating_add(taken.len());
        if self.lines > self.limits.line {
            // The tag is that of the command; what is dropped here is the rest of it.
            return Some(self.fatal(Refusal { text: TOO_LONG, ..refusal }));
        }
        self.frame.extend_from_slice(taken);
        if newline.is_none() {
            self.state = State::DropLine(refusal);
            return None;
        }
        let next = self.frame.strip_suffix(b"\r\n").and_then(marker);
        self.frame.clear();
        match next {
            // It goes on behind another literal that does not wait.
            Some((_, size, false)) if size <= Limits::SWALLOW && self.literals < 1_000 => {
                self.literals = self.literals.saturating_add(1);
                self.state = State::Drop(size, refusal);
                None
            }
            Some((_, _, false)) => {
                self.reset();
                self.state = State::Dead;
                refusal.fatal = true;
                Some(Event::Refused(refusal))
            }
            Some((_, _, true)) | None => {
                self.reset();
                Some(Event::Refused(refusal))
            }
        }
    }

    /// Behind the message of an APPEND there is CRLF: MULTIAPPEND is not announced.
    fn tail(&mut self, input: &mut &[u8]) -> Option<Event> {
        let newline = memchr::memchr(b'\n', input);
        let count = newline.map_or(input.len(), |at| at.saturating_add(1));
        let taken = take(input, count);
        self.lines = self.lines.saturating_add(taken.len());
        if self.lines > self.limits.line {
            let refusal = self.refusal(TOO_LONG);
            return Some(self.fatal(refusal));
        }
        self.frame.extend_from_slice(taken);
        if newline.is_none() {
            self.state = State::MessageTail;
            return None;
        }
        let tail = self.frame.get(self.line_start..).unwrap_or_default();
        if tail == b"\r\n" {
            self.reset();
            return Some(Event::MessageEnd);
        }
        let goes_on = tail.strip_suffix(b"\r\n").and_then(marker);
        let mut refusal = self.refusal("one message at a time");
        match goes_on {
            Some((_, size, false)) if size <= Limits::SWALLOW => {
                self.state = State::Drop(size, refusal);
                None
            }
            Some((_, _, false)) => {
                self.reset();
                self.state = State::Dead;
                refusal.fatal = true;
                Some(Event::Refused(refusal))
            }
            Some((_, _, true)) | None => {
                self.reset();
                Some(Event::Refused(refusal))
            }
        }
    }

    fn refusal(&self, text: &'static str) -> Refusal {
        Refusal { tag: tag_of(&self.frame), text, fault: Fault::Malformed, fatal: false }
    }

    fn fatal(&mut self, refusal: Refusal) -> Event {
        self.reset();
        self.state = State::Dead;
        Event::Refused(Refusal { fault: Fault::TooBig, fatal: true, ..refusal })
    }

    fn reset(&mut self) {
        self.state = State::Line;
        self.frame.clear();
        // An idle session holds next to nothing.
        self.frame.shrink_to(Limits::KEEP);
        self.line_start = 0;
        self.lines = 0;
        self.literals = 0;
        self.raw_line = false;
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at_checked(most).unwrap_or((input, &[]));
    *input = rest;
    taken
}

/// `"{" number64 ["+"] "}"` at the end of a line: where it begins, its size, whether it waits.
fn marker(line: &[u8]) -> Option<(usize, u64, bool)> {
    let inside = line.strip_suffix(b"}")?;
    let start = memchr::memrchr(b'{', inside)?;
    let number = inside.get(start.saturating_add(1)..)?;
    let (number, waits) = number.strip_suffix(b"+").map_or((number, true), |n| (n, false));
    if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // More than a number64 is as much too large as the largest one: what follows is no command.
    let size = number.iter().fold(0_u64, |size, digit| {
        size.saturating_mul(10).saturating_add(u64::from(digit.wrapping_sub(b'0')))
    });
    Some((start, size, waits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(reader: &mut Reader, mut input: &[u8]) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let event = reader.feed(&mut input);
            if event == Event::More {
                return events;
            }
            if matches!(event, Event::Append(_)) {
                reader.accept_message();
            }
            // Pieces of a message join, so that splits can be compared.
            match (events.last_mut(), event) {
                (Some(Event::Message(had)), Event::Message(more)) => had.extend(more),
                (_, event) => events.push(event),
            }
        }
    }

    fn whole(input: &str) -> Vec<Event> {
        all(&mut Reader::new(Limits::SESSION), input.as_bytes())
    }

    const STREAM: &str = "a NOOP\r\nb LOGIN {3+}\r\na\r\n {2}\r\nxy\r\nc APPEND {1+}\r\nx () {5}\r\n\
        hello\r\nd APPEND x {0+}\r\n\r\ne NOOP\nf LOGIN {999999+}\r\n";

    #[test]
    fn commands_and_literals() {
        let events = whole(STREAM);
        assert_eq!(events[0], Event::Command(b"a NOOP".to_vec()));
        assert_eq!(events[1], Event::Continue);
        assert_eq!(events[2], Event::Command(b"b LOGIN {3+}\r\na\r\n {2}\r\nxy".to_vec()));
        assert!(matches!(&events[3], Event::Append(a) if a.size == 5 && a.waits));
        assert_eq!(events[4], Event::Message(b"hello".to_vec()));
        assert_eq!(events[5], Event::MessageEnd);
        assert!(matches!(&events[6], Event::Append(a) if a.size == 0 && !a.waits));
        assert_eq!(events[7], Event::MessageEnd);
        assert!(matches!(&events[8], Event::Refused(r) if !r.fatal));
        assert_eq!(events.len(), 9);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(cuts in prop::collection::vec(0usize..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.push(STREAM.len());
            cuts.sort_unstable();
            let (mut reader, mut events, mut at) = (Reader::new(Limits::SESSION), Vec::new(), 0);
            for cut in cuts {
                for event in all(&mut reader, &STREAM.as_bytes()[at..cut]) {
                    match (events.last_mut(), event) {
                        (Some(Event::Message(had)), Event::Message(more)) => had.extend(more),
                        (_, event) => events.push(event),
                    }
                }
                at = cut;
            }
            prop_assert_eq!(events, whole(STREAM));
        }

        #[test]
        fn noise_stays_within_bounds(noise in prop::collection::vec(
            prop::sample::select(vec!["a ", "{5}", "{7+}", "{99999999999+}", "\r\n", "\n", "\r",
                "APPEND ", "x ", "~{9+}", "\0", "DONE"]), 0..60)) {
            let mut reader = Reader::new(Limits::FRONT);
            for part in noise {
                all(&mut reader, part.as_bytes());
                prop_assert!(reader.frame.len() <= Limits::FRONT.command + 64);
            }
        }
    }

    #[test]
    fn bounds() {
        let refused = |input: &str| match whole(input).pop() {
            Some(Event::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        };
        // Synchronizing: not sent yet, so the next command is understood.
        let events = whole("a LOGIN {200000}\r\nb NOOP\r\n");
        assert!(matches!(&events[0], Event::Refused(r) if r.fault == Fault::TooBig && !r.fatal));
        assert_eq!(events[1], Event::Command(b"b NOOP".to_vec()));
        // Non-synchronizing: dropped up to a bound, then the rest of the command, then understood.
        let big =
            format!("a LOGIN {{200000+}}\r\n{} {{1+}}\r\nx\r\nb NOOP\r\n", "x".repeat(200_000));
        let events = whole(&big);
        assert!(matches!(&events[0], Event::Refused(r) if r.tag == Tag::new(b"a")));
        assert_eq!(events[1], Event::Command(b"b NOOP".to_vec()));
        assert!(refused("a LOGIN {2000000+}\r\n").fatal);
        assert!(refused(&format!("a {}", "x".repeat(70_000))).fatal);
        assert_eq!(refused("a APPEND x {99999999999}\r\n").fault, Fault::MessageTooBig);
        assert_eq!(refused("a APPEND x {99999999999+}\r\n").fault, Fault::MessageTooBig);
        // However many digits it has.
        let digits = "9".repeat(21);
        let fault = refused(&format!("a APPEND x {{{digits}+}}\r\n")).fault;
        assert_eq!(fault, Fault::MessageTooBig);
        // The name of the mailbox is no message.
        assert_eq!(refused("a APPEND {99999999999}\r\n").fault, Fault::TooBig);
        assert!(refused("a APPEND x y {5}\r\n").tag.is_some());
        // A second message is refused without losing the thread.
        let events = whole("a APPEND x {1+}\r\ny {1+}\r\nz\r\nb NOOP\r\n");
        assert!(matches!(&events[2], Event::Refused(r) if r.tag == Tag::new(b"a") && !r.fatal));
        assert_eq!(events[3], Event::Command(b"b NOOP".to_vec()));
        // Octets in many literals are bounded together.
        let many = format!("a X{}\r\n", " {90000+}\r\n".to_owned() + &"x".repeat(90_000)).repeat(1);
        assert!(matches!(whole(&many)[0], Event::Command(_)));
        let mut input = "a X".to_owned();
        for _ in 0..8 {
            input += " {90000+}\r\n";
            input += &"x".repeat(90_000);
        }
        assert_eq!(refused(&(input + "\r\n")).fault, Fault::TooBig);
    }

    #[test]
    fn lines_on_request() {
        let mut reader = Reader::new(Limits::FRONT);
        reader.expect_line();
        assert_eq!(all(&mut reader, b"Zm9v{5}\r\n"), [Event::Line(b"Zm9v{5}".to_vec())]);
        assert_eq!(all(&mut reader, b"a NOOP\r\n"), [Event::Command(b"a NOOP".to_vec())]);
        assert!(!reader.inside_command());
        assert!(reader.heap() <= Limits::KEEP);
    }
}
