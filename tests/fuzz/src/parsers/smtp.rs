//! SMTP: command lines, DATA, replies, and the machines of both sides.

use crate::source::{Source, pieces};
use smtp::{
    Command, DataEnd, Dialect, Receiver, Reply, Response, ResponseError, ResponseParser, Stuffer,
    SyntaxError,
    client::{self, Client},
    server::{self, Answer, AuthAnswer, Connection, Question},
};
use std::{sync::Arc, time::Instant};
use types::{Domain, SessionId, UnixNanos};

fn host() -> Domain {
    "mx.example.org".parse().expect("a domain")
}

/// A command line; a path that was understood means the same when it is written and read again.
pub(crate) fn command(input: &[u8]) {
    let mut source = Source::new(input);
    let marks = source.octet();
    let dialect = Dialect { submission: marks & 1 != 0, pedantic: marks & 2 != 0 };
    let line = source.rest();
    match Command::parse(line, &dialect) {
        Ok(Command::Mail(mail)) => {
            let utf8 = if mail.params.smtputf8 { " SMTPUTF8" } else { "" };
            let again = format!("MAIL FROM:{}{utf8}", mail.from);
            let read = Command::parse(again.as_bytes(), &dialect);
            let same = matches!(&read, Ok(Command::Mail(same)) if same.from == mail.from);
            assert!(same || read.err() == Some(SyntaxError::PathTooLong), "{again}");
        }
        Ok(Command::Rcpt(path, _)) => {
            let again = format!("RCPT TO:{path}");
            let read = Command::parse(again.as_bytes(), &dialect);
            let same = matches!(&read, Ok(Command::Rcpt(same, _)) if *same == path);
            // A domain in Unicode is longer as it is kept, in ASCII.
            assert!(same || read.err() == Some(SyntaxError::PathTooLong), "{again}");
        }
        Ok(Command::Auth { mechanism, .. }) => assert!(mechanism.len() <= 20),
        Ok(_) | Err(_) => {}
    }
}

/// What a receiver makes of pieces: the content unless it has a defect, octets taken, the end.
fn receive<'p>(
    given: impl Iterator<Item = &'p [u8]>,
    room: usize,
) -> (Option<Vec<u8>>, usize, Option<DataEnd>) {
    let (mut receiver, mut content, mut used) = (Receiver::new(4096), Vec::new(), 0);
    let mut end = None;
    'wire: for piece in given {
        let mut left = piece;
        while !left.is_empty() {
            let mut out = Vec::new();
            let (taken, ended) = receiver.take(left, &mut out, room);
            // The last octet may bring what was held back with it.
            assert!(out.len() <= room.saturating_add(4), "more than there is room for");
            assert!(taken > 0 || !out.is_empty(), "neither took nor gave");
            content.extend(out);
            used += taken;
            left = &left[taken..];
            if ended.is_some() {
                end = ended;
                break 'wire;
            }
        }
    }
    (receiver.defect().is_none().then_some(content), used, end)
}

/// DATA: any split gives the same, and what we send is what we would receive.
pub(crate) fn data(input: &[u8]) {
    let mut source = Source::new(input);
    let (seed, room) = (source.octet(), source.below(64) + 8);
    let wire = source.rest();
    let whole = receive(std::iter::once(wire), usize::MAX);
    assert_eq!(receive(pieces(wire, seed), room), whole);
    assert!(whole.0.is_none_or(|content| content.len() <= 2 * wire.len()));

    let mut sent = Vec::new();
    let mut stuffer = Stuffer::new();
    let fits = pieces(wire, seed).all(|piece| stuffer.push(piece, &mut sent).is_ok());
    if fits && stuffer.end(&mut sent).is_ok() {
        let (content, used, end) = receive(std::iter::once(&sent[..]), usize::MAX);
        assert!(end.is_some(), "what we send ends");
        assert_eq!(used, sent.len(), "and ends where it ends");
        if let Some(content) = content {
            let mut wanted = wire.to_vec();
            if !wanted.is_empty() && !wanted.ends_with(b"\r\n") {
                wanted.extend(b"\r\n");
            }
            assert_eq!(content, wanted);
        }
    }
}

fn responses<'p>(given: impl Iterator<Item = &'p [u8]>) -> (Vec<Response>, Option<ResponseError>) {
    let (mut parser, mut all) = (ResponseParser::new(), Vec::new());
    for piece in given {
        let mut left = piece;
        while !left.is_empty() {
            match parser.feed(left) {
                Ok((taken, whole)) => {
                    assert!(taken > 0, "took nothing");
                    left = &left[taken..];
                    all.extend(whole);
                }
                Err(error) => return (all, Some(error)),
            }
        }
    }
    (all, None)
}

/// A server's replies: any split gives the same, within bounds; a reply of ours is one reply, with
/// its code, whatever its text is.
pub(crate) fn reply(input: &[u8]) {
    let mut source = Source::new(input);
    let (seed, class) = (source.octet(), *source.pick(&[2u8, 4, 5]));
    let wire = source.rest();
    let whole = responses(std::iter::once(wire));
    assert_eq!(responses(pieces(wire, seed)), whole);
    for response in &whole.0 {
        assert!(response.lines().len() <= ResponseParser::MAX_LINES);
        assert!(response.lines().iter().all(|line| line.len() <= 3 * ResponseParser::MAX_LINE));
        assert!(!response.text().contains(['\r', '\n']));
    }

    let code = u16::from(class) * 100 + 50;
    let text: String = String::from_utf8_lossy(wire).chars().take(400).collect();
    let mut written = Vec::new();
    Reply::new(code, (class, 1, 1), text).write(&mut written);
    let (read, error) = responses(std::iter::once(&written[..]));
    assert!(error.is_none() && read.len() == 1, "{}", written.escape_ascii());
    assert_eq!(read[0].code(), code);
}

/// Steps a server may take without asking for more octets.
const MAX_STEPS: usize = 4096;

/// The server's machine against a hostile client and answers of any kind.
pub(crate) fn server(input: &[u8]) {
    let mut source = Source::new(input);
    let marks = source.octet();
    let role = if marks & 1 == 0 { server::Role::Mx } else { server::Role::Submission };
    let mut settings = server::Settings::new(role, host());
    settings.require_tls = marks & 2 != 0;
    settings.pedantic = marks & 4 != 0;
    settings.max_size = 2000;
    let answers = source.octets(8).to_vec();
    let seed = source.octet();
    let mut wire = pieces(source.rest(), seed);
    let now = server::Now { mono: Instant::now(), wall: UnixNanos::from_seconds(1_790_000_000) };
    let peer = server::Peer { ip: [192, 0, 2, 1].into(), id: SessionId::from_bytes([7; 8]) };
    let mut machine = Connection::new(Arc::new(settings), peer, now);
    let (mut asked, mut steps, mut content) = (0usize, 0usize, 0usize);
    loop {
        steps += 1;
        assert!(steps < MAX_STEPS, "a machine that goes on without its client");
        match machine.poll(now) {
            server::Step::Send(octets) => {
                assert!(octets.ends_with(b"\r\n") && octets.len() < 64 * 1024);
                let lines = octets.split(|&octet| octet == b'\n');
                let bare =
                    |line: &[u8]| line.strip_suffix(b"\r").is_none_or(|l| l.contains(&b'\r'));
                assert!(lines.rev().skip(1).all(|line| !bare(line)), "{}", octets.escape_ascii());
            }
            server::Step::Read(_) => {
                let Some(piece) = wire.next() else { break };
                steps = 0;
                machine.received(piece);
            }
            server::Step::Ask(question) => {
                let choice = answers.get(asked % 8).copied().unwrap_or_default();
                asked += 1;
                machine.answer(answer(&question, choice), now);
            }
            server::Step::Content(octets) => {
                content += octets.len();
                assert!(content <= 4 * input.len(), "content that nobody sent");
            }
            server::Step::StartTls if marks & 8 == 0 => {
                machine
                    .secured(smtp::TlsFacts { version: "TLSv1.3".into(), cipher: "X".into() }, now);
            }
            server::Step::StartTls => machine.not_secured(now),
            server::Step::Forget | server::Step::Pause(_) => {}
            server::Step::Close => return,
        }
    }
    machine.timed_out(now);
    for _ in 0..16 {
        if let server::Step::Close = machine.poll(now) {
            return;
        }
    }
    panic!("a client that is silent for too long is not let go");
}

fn answer(question: &Question, choice: u8) -> Answer {
    let well = choice & 1 == 0;
    match question {
        Question::Admit => Answer::Admit(Ok(())),
        Question::Mechanisms => {
            let names = || vec!["PLAIN".into(), "SCRAM-SHA-256".into()];
            Answer::Mechanisms(well.then(names))
        }
        Question::AuthStart { .. } | Question::AuthRespond(_) => Answer::Auth(match choice % 4 {
            0 => AuthAnswer::Success(None),
            1 => AuthAnswer::Challenge(b"r=1".to_vec()),
            2 => AuthAnswer::Success(Some(b"v=1".to_vec())),
            _ => AuthAnswer::Refused(smtp::AuthRefused::BadCredentials),
        }),
        Question::Begin(_) if well => Answer::Begin(Ok(())),
        Question::Begin(_) => Answer::Begin(Err(smtp::MailRefused::Unavailable)),
        Question::Recipient(_) if well => Answer::Recipient(Ok(())),
        Question::Recipient(_) => Answer::Recipient(Err(smtp::RcptRefused::Unavailable)),
        Question::OpenData if well => Answer::OpenData(Ok(())),
        Question::OpenData => Answer::OpenData(Err(smtp::DataRefused::Unavailable)),
        Question::Commit(received) => {
            assert!(received.starts_with("Received:") && received.ends_with("\r\n"));
            if well {
                Answer::Commit(Ok("id".into()))
            } else {
                Answer::Commit(Err(smtp::CommitRefused::Unavailable))
            }
        }
    }
}

/// The client's machine against a hostile server: it ends, sends whole lines, and says of each
/// recipient exactly once what became of it.
pub(crate) fn client(input: &[u8]) {
    let mut source = Source::new(input);
    let marks = source.octet();
    let tls =
        *source.pick(&[client::TlsUse::Never, client::TlsUse::Offered, client::TlsUse::Required]);
    let seed = source.octet();
    let mut wire = pieces(source.rest(), seed);
    let mut machine = Client::new(client::Settings { hello: host(), tls });
    let recipients: Vec<types::Address> =
        (0..3).map(|n| format!("r{n}@example.net").parse().expect("an address")).collect();
    let (mut open, mut sent, mut steps) = (0usize, false, 0usize);
    loop {
        steps += 1;
        assert!(steps < MAX_STEPS, "a machine that goes on without its server");
        match machine.poll() {
            client::Step::Send(octets) => {
                assert!(octets.ends_with(b"\r\n") || octets.is_empty());
                assert!(octets.len() <= 64 * 1024);
            }
            client::Step::Read(_) => match wire.next() {
                Some(piece) => {
                    steps = 0;
                    machine.received(piece);
                }
                None if marks & 1 == 0 => machine.closed(),
                None => machine.timed_out(),
            },
            client::Step::StartTls => machine.secured(),
            client::Step::Ready if !sent && marks & 2 != 0 && marks & 4 == 0 => {
                sent = true;
                machine.authenticate("PLAIN", Some(b"\0ann\0secret"));
            }
            client::Step::Ready if open == 0 && marks & 8 == 0 => {
                let transaction = client::Transaction {
                    from: types::ReversePath::from_inner("ann@example.org").expect("a path"),
                    recipients: recipients.clone(),
                    size: 100,
                    eight_bit: marks & 16 != 0,
                    smtputf8: marks & 32 != 0,
                    requiretls: marks & 64 != 0,
                };
                open = 1;
                if machine.send(transaction).is_err() {
                    machine.quit();
                }
            }
            client::Step::Ready => machine.quit(),
            client::Step::Challenge(octets) => {
                assert!(octets.len() <= ResponseParser::MAX_LINE * ResponseParser::MAX_LINES);
                if marks & 128 == 0 { machine.respond(b"x") } else { machine.cancel() }
            }
            client::Step::LoginRefused(_) | client::Step::LoggedIn => {}
            client::Step::Body => {
                let mut out = Vec::new();
                machine.body(b"Subject: x\r\n\r\n.dot\r\n", &mut out).expect("sound content");
                machine.body_end(&mut out).expect("sound content");
                assert!(out.ends_with(b"\r\n.\r\n"));
            }
            client::Step::Done(results) => {
                assert_eq!(results.len(), recipients.len());
                assert_eq!(open, 1, "one transaction, one result");
                open = 2;
            }
            client::Step::Ended(_) => return,
        }
    }
}
