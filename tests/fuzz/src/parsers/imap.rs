//! IMAP: the reader, commands, sets, names, and the machines before and behind log-in.

#[path = "../../../../common/imap/src/session/tests/account.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "shared with the tests of common/imap"
)]
mod account;

use crate::source::{Source, pieces};
use account::Account;
use imap::{
    Event, Limits, MailboxName, Names, NumberSet, Out, Pattern, Piece, Reader, SequenceSet, Verb,
    front::{self, Failure, Front, Security, Step},
    session::{self, Question, Session},
};
use message::transfer::Decoder;

fn read(reader: &mut Reader, mut input: &[u8], bound: usize, events: &mut Vec<Event>) {
    loop {
        let before = input.len();
        let event = reader.feed(&mut input);
        assert!(reader.heap() <= 2 * bound, "a reader that holds {}", reader.heap());
        match (events.last_mut(), event) {
            (_, Event::More) => return,
            (_, Event::Append(append)) => {
                reader.accept_message();
                events.push(Event::Append(append));
            }
            (Some(Event::Message(had)), Event::Message(more)) => {
                assert!(!more.is_empty());
                had.extend(more);
            }
            (_, event) => events.push(event),
        }
        assert!(input.len() <= before);
    }
}

/// The reader: any split gives the same commands, and it never holds more than its bound.
pub(crate) fn reader(input: &[u8]) {
    let mut source = Source::new(input);
    let marks = source.octet();
    let mut limits = if marks & 1 == 0 { Limits::FRONT } else { Limits::SESSION };
    if marks & 2 != 0 {
        // Small enough to be reached by an input of a few octets.
        limits = Limits { line: 300, literal: 12, command: 400, literals: 2, message: 20 };
    }
    let bound = limits.command + limits.line + 1024;
    let seed = source.octet();
    let wire = source.rest();
    let (mut whole, mut split) = (Vec::new(), Vec::new());
    read(&mut Reader::new(limits), wire, bound, &mut whole);
    let mut reader = Reader::new(limits);
    for piece in pieces(wire, seed) {
        read(&mut reader, piece, bound, &mut split);
    }
    assert_eq!(split, whole);
}

/// A command: sets and names that were understood mean the same when written and read again.
pub(crate) fn command(input: &[u8]) {
    let mut source = Source::new(input);
    let names = if source.octet() & 1 == 0 { Names::Utf7 } else { Names::Utf8 };
    let frame = source.rest();
    let Ok(command) = imap::parse(frame, names) else { return };
    assert_eq!(imap::tag_of(frame).as_ref(), Some(&command.tag));
    match command.verb {
        Verb::Fetch(fetch) => set_again(&fetch.set),
        Verb::Store(store) => set_again(&store.set),
        Verb::Copy { set, to, .. } => {
            set_again(&set);
            if let Ok(to) = to {
                name_again(&to);
            }
        }
        Verb::Expunge(Some(set)) => set_again(&set),
        Verb::Select { mailbox: Ok(name), .. }
        | Verb::Create { mailbox: Ok(name), .. }
        | Verb::Delete(Ok(name))
        | Verb::Status { mailbox: Ok(name), .. }
        | Verb::Subscribe { mailbox: Ok(name), .. } => name_again(&name),
        Verb::Rename { from: Ok(from), to: Ok(to) } => {
            name_again(&from);
            name_again(&to);
        }
        _other => {}
    }
}

fn parsed_set(text: &str) -> Option<SequenceSet> {
    match imap::parse(format!("a FETCH {text} FLAGS").as_bytes(), Names::Utf7).ok()?.verb {
        Verb::Fetch(fetch) => Some(fetch.set),
        _other => None,
    }
}

fn set_again(set: &SequenceSet) {
    let text = set.to_string();
    assert_eq!(parsed_set(&text).as_ref(), Some(set), "{text}");
}

fn name_again(name: &MailboxName) {
    assert_eq!(MailboxName::new(name.as_str()).as_ref(), Ok(name), "a name names itself");
    for names in [Names::Utf7, Names::Utf8] {
        let wire = name.to_wire(names);
        assert!(!wire.contains(['\r', '\n', '\0']));
        assert_eq!(MailboxName::from_wire(wire.as_bytes(), names).as_ref(), Ok(name), "{wire}");
    }
}

/// Sets of numbers: the laws of sets, and work by ranges and not by numbers.
pub(crate) fn set(input: &[u8]) {
    let mut source = Source::new(input);
    let star = u32::from_le_bytes(source.array());
    let mut halves = source.rest().splitn(2, |&octet| octet == b' ');
    let text = |half: Option<&[u8]>| String::from_utf8_lossy(half.unwrap_or_default()).into_owned();
    let (a, b) = (parsed_set(&text(halves.next())), parsed_set(&text(halves.next())));
    let Some(a) = a else { return };
    set_again(&a);
    let saved = NumberSet::from_ranges([(1, 3), (4, 4), (7, u32::MAX)]);
    let a_numbers = a.resolve(star, &saved);
    sound(&a_numbers);
    if a.fits(star) && !a.is_saved() {
        assert!(a_numbers.max().is_none_or(|most| most <= star));
    }
    let Some(b) = b else { return };
    let b_numbers = b.resolve(star, &saved);
    let (both, either) = (a_numbers.intersect(&b_numbers), a_numbers.union(&b_numbers));
    let (only_a, only_b) = (a_numbers.without(&b_numbers), b_numbers.without(&a_numbers));
    for set in [&both, &either, &only_a, &only_b] {
        sound(set);
    }
    assert_eq!(both.len() + only_a.len(), a_numbers.len());
    assert_eq!(either.len(), both.len() + only_a.len() + only_b.len());
    assert_eq!(both.union(&only_a), a_numbers);
    assert_eq!(both, b_numbers.intersect(&a_numbers));
}

fn sound(set: &NumberSet) {
    let mut before = None;
    for &(first, last) in set.ranges() {
        assert!(first <= last);
        // Ranges neither touch nor overlap.
        assert!(before.is_none_or(|before: u32| before.saturating_add(1) < first));
        before = Some(last);
    }
    assert_eq!(set.is_empty(), set.min().is_none());
}

/// Names and patterns: what was taken from the wire goes back onto it; `*` finds every name.
pub(crate) fn name(input: &[u8]) {
    let mut source = Source::new(input);
    let names = if source.octet() & 1 == 0 { Names::Utf7 } else { Names::Utf8 };
    let (length, wire) = (usize::from(source.octet()), source.rest());
    let (wire, pattern) = wire.split_at(length.min(wire.len()));
    let Ok(name) = MailboxName::from_wire(wire, names) else { return };
    name_again(&name);
    let all = Pattern::new(b"", b"*", names).expect("a pattern");
    assert!(all.matches(&name));
    // RFC 9051 §6.3.9: nothing stands for itself but the wildcards.
    if !name.as_str().contains(['*', '%']) {
        let itself = Pattern::new(b"", name.to_wire(names).as_bytes(), names).expect("a pattern");
        assert!(itself.matches(&name));
    }
    if let Ok(pattern) = Pattern::new(b"", pattern, names) {
        let _ = pattern.matches(&name);
        let _ = pattern.ends_in_percent();
    }
}

/// The machine before log-in: it lets nobody in whom the checker refused, and ends.
pub(crate) fn front(input: &[u8]) {
    let mut source = Source::new(input);
    let marks = source.octet();
    let security = match marks % 3 {
        0 => Security::Plain,
        1 => Security::PlainWithStartTls,
        _ => Security::Tls,
    };
    let steps = source.octets(8).to_vec();
    let seed = source.octet();
    let mechanisms = || vec!["PLAIN".to_owned(), "SCRAM-SHA-256".to_owned()];
    let mut machine = Front::new(security, mechanisms(), 5);
    let (mut reader, mut out) = (Reader::new(Limits::FRONT), Out::new());
    machine.greet(&mut out);
    let (mut checked, mut accepted, mut written) = (0usize, false, 0usize);
    for piece in pieces(source.rest(), seed) {
        let mut left = piece;
        loop {
            let mut next = match reader.feed(&mut left) {
                Event::More => break,
                Event::Continue | Event::MessageEnd | Event::Message(_) => front::Next::Read,
                Event::Command(frame) => machine.command(&frame, &mut out),
                Event::Line(line) => machine.line(&line, &mut out),
                Event::Refused(refusal) => machine.refused(&refusal, &mut out),
                Event::Append(_) => panic!("an APPEND before log-in"),
            };
            loop {
                let challenge = vec![b'c'; 40];
                match next {
                    front::Next::Read | front::Next::Cancel => break,
                    front::Next::ReadLine => {
                        reader.expect_line();
                        break;
                    }
                    front::Next::StartTls => {
                        // What was read is forgotten, as the process does it.
                        left = &[];
                        reader = Reader::new(Limits::FRONT);
                        machine.tls_started(mechanisms());
                        break;
                    }
                    front::Next::Start { .. } | front::Next::Respond(_) => {
                        let choice = steps.get(checked % 8).copied().unwrap_or(3);
                        checked += 1;
                        let step = match choice % 5 {
                            0 => Step::Success(None),
                            1 => Step::Challenge(&challenge),
                            2 => Step::Success(Some(&challenge)),
                            3 => Step::Failure(Failure::BadCredentials),
                            _ => Step::Failure(Failure::Temporary),
                        };
                        accepted |= matches!(step, Step::Success(_));
                        next = machine.step(&step, &mut out);
                    }
                    front::Next::HandOver { tag, .. } => {
                        assert!(accepted, "nobody was let in");
                        assert!(!tag.as_str().is_empty());
                        return;
                    }
                    front::Next::Close => return,
                }
            }
            written += out.take().iter().map(length).sum::<usize>();
            assert!(written <= 64 * 1024 + 64 * input.len(), "a stranger is told too much");
        }
    }
}

fn length(piece: &Piece) -> usize {
    match piece {
        Piece::Bytes(bytes) => bytes.len(),
        Piece::Content { .. } | Piece::Decoded { .. } => 0,
    }
}

const MESSAGE: &[u8] = b"From: ann@example.org\r\nTo: bob@example.net\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\nContent-Type: message/rfc822\r\n\
    \r\nSubject: inner\r\n\r\nhello\r\n--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\
    \r\nAAECAw==\r\n--b--\r\n";

/// The machine behind log-in over an account in memory: any commands; what it sends are whole lines
/// and literals, and no command makes it ask for ever.
pub(crate) fn session(input: &[u8]) {
    let mut source = Source::new(input);
    let seed = source.octet();
    let mut account = Account::default();
    for folder in ["Inbox", "Sent", "a/b"] {
        let name = MailboxName::new(folder).expect("a name");
        account.answer(Question::Create(name, None));
    }
    account.deliver("Inbox", "\\Seen", MESSAGE);
    account.deliver("Inbox", "", b"Subject: small\r\n\r\nx\r\n");
    let limits = Limits { message: 100_000, ..Limits::SESSION };
    let mut machine = Session::new(limits.message, account.modseq);
    let (mut reader, mut out) = (Reader::new(limits), Out::new());
    let mut sent = 0usize;
    // Each command costs a bounded number of questions; the bound is generous.
    let mut questions = 0usize;
    for piece in pieces(source.rest(), seed) {
        let mut left = piece;
        loop {
            reader.set_names(machine.names());
            let mut next = match reader.feed(&mut left) {
                Event::More => break,
                Event::Continue => session::Next::Read,
                Event::Command(frame) => match imap::parse(&frame, machine.names()) {
                    Ok(command) => machine.command(command, &mut out),
                    Err(error) => {
                        machine.syntax_error(imap::tag_of(&frame).as_ref(), error.0, &mut out)
                    }
                },
                Event::Line(line) => machine.line(&line, &mut out),
                Event::Append(append) => machine.append(append, &mut out),
                Event::Message(octets) => {
                    if let Some((_, _, content)) = &mut account.appending {
                        content.extend(octets);
                    }
                    session::Next::Read
                }
                Event::MessageEnd => machine.message_end(&mut out),
                Event::Refused(refusal) => machine.refused(&refusal, &mut out),
            };
            loop {
                match next {
                    session::Next::Ask(question) => {
                        questions += 1;
                        assert!(questions <= 2000 + 20 * input.len(), "questions without end");
                        next = machine.answer(ask(&mut account, question), &mut out);
                    }
                    session::Next::Flush => next = machine.sent(&mut out),
                    session::Next::Message(wanted) => {
                        if wanted {
                            reader.accept_message();
                        } else {
                            reader.refuse_message();
                        }
                        break;
                    }
                    session::Next::Idle => {
                        reader.expect_line();
                        break;
                    }
                    session::Next::Read => break,
                    session::Next::Close => return,
                }
            }
            account.asked.clear();
            sent += write(&mut out, &mut account);
            assert!(sent <= (64 << 10) * (1 + input.len()), "more than anybody asked for");
        }
    }
}

/// The account's answer; when the mailbox that is open was deleted or renamed, as the real one says
/// it.
fn ask(account: &mut Account, question: Question) -> session::Answer {
    let is_gone = account.open.as_ref().is_some_and(|name| !account.folders.contains_key(name));
    match question {
        Question::Changes { .. } if is_gone => session::Answer::Changes {
            rows: Vec::new(),
            more: false,
            modseq: account.modseq,
            gone: true,
        },
        Question::Content { .. } if is_gone => session::Answer::Content(None),
        Question::Rows { .. }
        | Question::Meta { .. }
        | Question::Small { .. }
        | Question::Store { .. }
        | Question::Copy { .. }
        | Question::Expunge(_)
        | Question::SearchText { .. }
            if is_gone =>
        {
            session::Answer::Unavailable
        }
        question => account.answer(question),
    }
}

/// Carries the output out; a Content piece must lie within its message.
fn write(out: &mut Out, account: &mut Account) -> usize {
    let mut sent = 0;
    for piece in out.take() {
        let (uid, from, to) = match &piece {
            Piece::Bytes(bytes) => {
                sent += bytes.len();
                continue;
            }
            Piece::Content { uid, from, to, .. } | Piece::Decoded { uid, from, to, .. } => {
                (*uid, *from, *to)
            }
        };
        assert!(from <= to);
        let session::Answer::Content(content) = ask(account, Question::Content { uid, from, to })
        else {
            panic!("an answer to another question");
        };
        let Some(content) = content else { continue };
        assert_eq!(content.len() as u64, to - from, "octets that the message has not");
        if let Piece::Decoded { encoding, skip, length, .. } = piece {
            let (mut decoder, mut decoded) = (Decoder::new(encoding), Vec::new());
            decoder.push(&content, &mut decoded);
            decoder.finish(&mut decoded);
            assert!(skip + length <= decoded.len() as u64, "octets announced and not there");
            sent += usize::try_from(length).unwrap_or(usize::MAX);
        } else {
            sent += content.len();
        }
    }
    sent
}
