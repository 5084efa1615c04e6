//! Plays `transcripts/imap/*.txt` against the pure machines before and after log-in, with an
//! account in memory.
//!
//! Words of `given` here: `account ADDRESS password PASSWORD`, `listener tls|starttls|plain`,
//! `mailbox NAME`, `message SUBJECT [FLAG..]` (into the inbox), `large message OCTETS`,
//! `flag UID FLAG`, `remove UID`, `store away|back`. What changes while a client is in IDLE is told
//! to it. Words of `expect`: `mailbox NAME has N messages`, `message UID has FLAG`.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a fault in here is a failed test"
)]

#[path = "../../common/imap/src/session/tests/account.rs"]
mod account;

use account::Account;
use imap::{
    Event, Limits, MailboxName, Out, Piece, Reader,
    front::{self, Failure, Front, Security, Step},
    session::{self, Answer, Question, Session},
};
use message::transfer::Decoder;
use mox_tests::transcript::{Heard, Transcript, Wanted, World};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Octets of the largest message taken: small, so that a transcript can reach it.
const LIMITS: Limits = Limits { message: 1_000_000, ..Limits::SESSION };

enum Machine {
    Front(Front, front::Next),
    Session(Session, session::Next),
}

struct Conn {
    machine: Machine,
    reader: Reader,
    input: Vec<u8>,
    output: Vec<u8>,
    lines: VecDeque<String>,
    wants_tls: bool,
    closed: bool,
}

struct Pure {
    account: Account,
    users: BTreeMap<String, String>,
    security: Security,
    conns: BTreeMap<u32, Conn>,
}

fn mechanisms(security: Security) -> Vec<String> {
    if security == Security::Tls { vec!["PLAIN".to_owned()] } else { Vec::new() }
}

impl Pure {
    fn new() -> Self {
        let mut account = Account::default();
        account.answer(Question::Create(MailboxName::new("Inbox").unwrap(), None));
        Self { account, users: BTreeMap::new(), security: Security::Tls, conns: BTreeMap::new() }
    }

    fn check(&self, data: &[u8]) -> Step<'static> {
        let text = String::from_utf8_lossy(data).into_owned();
        match text.split('\0').collect::<Vec<_>>()[..] {
            ["", user, password] if self.users.get(user).is_some_and(|p| p == password) => {
                Step::Success(None)
            }
            [_, _, _] => Step::Failure(Failure::BadCredentials),
            _ => Step::Failure(Failure::BadMessage),
        }
    }

    fn written(&mut self, out: &mut Out, to: &mut Vec<u8>) {
        let mut read =
            |uid, from, to| match self.account.answer(Question::Content { uid, from, to }) {
                Answer::Content(Some(octets)) => octets,
                other => panic!("{other:?}"),
            };
        for piece in out.take() {
            match piece {
                Piece::Bytes(bytes) => to.extend(bytes),
                Piece::Content { uid, from, to: end, binary } => {
                    let octets = read(uid, from, end);
                    to.extend(if binary { octets } else { imap::without_nul(&octets).into() });
                }
                Piece::Decoded { uid, from, to: end, encoding, skip, length } => {
                    let (mut decoder, mut decoded) = (Decoder::new(encoding), Vec::new());
                    decoder.push(&read(uid, from, end), &mut decoded);
                    decoder.finish(&mut decoded);
                    to.extend(&decoded[skip as usize..(skip + length) as usize]);
                }
            }
        }
    }

    /// Runs a connection until it waits for its client.
    fn pump(&mut self, number: u32) {
        let mut conn = self.conns.remove(&number).unwrap();
        let mut out = Out::new();
        while !conn.closed && !conn.wants_tls {
            let waits = match &mut conn.machine {
                Machine::Front(..) => self.step_front(&mut conn, &mut out),
                Machine::Session(..) => self.step_session(&mut conn, &mut out),
            };
            self.written(&mut out, &mut conn.output);
            if waits {
                break;
            }
        }
        while let Some(end) = conn.output.windows(2).position(|pair| pair == b"\r\n") {
            let line: Vec<u8> = conn.output.drain(..end + 2).collect();
            conn.lines.push_back(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        self.conns.insert(number, conn);
    }

    /// One step; true if the client has to say something.
    fn step_front(&mut self, conn: &mut Conn, out: &mut Out) -> bool {
        let Machine::Front(machine, next) = &mut conn.machine else { return true };
        match std::mem::replace(next, front::Next::Read) {
            front::Next::Start { mechanism, initial } => {
                let step = match initial {
                    _ if mechanism != "PLAIN" => Step::Failure(Failure::UnknownMechanism),
                    Some(data) => self.check(data.expose()),
                    None => Step::Challenge(b""),
                };
                *next = machine.step(&step, out);
                return false;
            }
            front::Next::Respond(data) => {
                *next = machine.step(&self.check(data.expose()), out);
                return false;
            }
            front::Next::Cancel => return false,
            front::Next::StartTls => {
                conn.wants_tls = true;
                return true;
            }
            front::Next::HandOver { tag, .. } => {
                let mut session = Session::new(LIMITS.message, self.account.modseq);
                session.logged_in(&tag, out);
                conn.machine = Machine::Session(session, session::Next::Read);
                conn.reader = Reader::new(LIMITS);
                return false;
            }
            front::Next::Close => {
                conn.closed = true;
                return true;
            }
            front::Next::ReadLine => conn.reader.expect_line(),
            front::Next::Read => {}
        }
        let mut input = conn.input.as_slice();
        let event = conn.reader.feed(&mut input);
        conn.input = input.to_vec();
        *next = match event {
            Event::More => return true,
            Event::Continue => {
                out.text("+ \r\n");
                front::Next::Read
            }
            Event::Command(frame) => machine.command(&frame, out),
            Event::Line(line) => machine.line(&line, out),
            Event::Refused(refusal) => machine.refused(&refusal, out),
            other => panic!("{other:?}"),
        };
        false
    }

    fn step_session(&mut self, conn: &mut Conn, out: &mut Out) -> bool {
        let Machine::Session(machine, next) = &mut conn.machine else { return true };
        match next.clone() {
            session::Next::Ask(question) => {
                *next = machine.answer(self.account.answer(question), out);
                return false;
            }
            session::Next::Flush => {
                *next = machine.sent(out);
                return false;
            }
            session::Next::Message(wanted) => {
                if wanted && conn.reader.accept_message() {
                    out.text("+ ready\r\n");
                } else if !wanted {
                    conn.reader.refuse_message();
                }
                *next = session::Next::Read;
                return false;
            }
            session::Next::Close => {
                conn.closed = true;
                return true;
            }
            session::Next::Idle => conn.reader.expect_line(),
            session::Next::Read => {}
        }
        conn.reader.set_names(machine.names());
        let mut input = conn.input.as_slice();
        let event = conn.reader.feed(&mut input);
        conn.input = input.to_vec();
        *next = match event {
            Event::More => return true,
            Event::Continue => {
                out.text("+ ready\r\n");
                return false;
            }
            Event::Command(frame) => match imap::parse(&frame, machine.names()) {
                Ok(command) => machine.command(command, out),
                Err(error) => machine.syntax_error(imap::tag_of(&frame).as_ref(), error.0, out),
            },
            Event::Line(line) => machine.line(&line, out),
            Event::Append(append) => machine.append(append, out),
            Event::Message(octets) => {
                if let Some((_, _, content)) = &mut self.account.appending {
                    content.extend(octets);
                }
                return false;
            }
            Event::MessageEnd => machine.message_end(out),
            Event::Refused(refusal) => machine.refused(&refusal, out),
        };
        false
    }

    fn tell(&mut self) {
        let numbers: Vec<u32> = self.conns.keys().copied().collect();
        for number in numbers {
            let conn = self.conns.get_mut(&number).unwrap();
            let mut out = Out::new();
            if let Machine::Session(machine, next) = &mut conn.machine {
                *next = machine.changed(self.account.modseq, &mut out);
            }
            self.pump(number);
        }
    }
}

impl World for Pure {
    fn given(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["account", address, "password", password] => {
                self.users.insert((*address).to_owned(), (*password).to_owned());
            }
            ["listener", kind] => {
                self.security = match *kind {
                    "tls" => Security::Tls,
                    "starttls" => Security::PlainWithStartTls,
                    "plain" => Security::Plain,
                    other => return Err(format!("no listener {other}")),
                };
            }
            ["mailbox", name] => {
                let name = MailboxName::new(name).map_err(|error| error.to_string())?;
                self.account.answer(Question::Create(name, None));
            }
            ["message", subject, flags @ ..] => {
                let mail = format!("Subject: {subject}\r\nFrom: bob@example.net\r\n\r\nbody\r\n");
                self.account.deliver("Inbox", &flags.join(" "), mail.as_bytes());
            }
            ["large", "message", octets] => {
                let octets: usize = octets.parse().map_err(|_| "no number".to_owned())?;
                let mail = format!("Subject: large\r\n\r\n{}\r\n", "x".repeat(octets));
                self.account.deliver("Inbox", "", mail.as_bytes());
            }
            ["flag", uid, flag] => {
                self.account.flag("Inbox", uid.parse().map_err(|_| "no UID".to_owned())?, flag);
            }
            ["remove", uid] => {
                self.account.remove("Inbox", uid.parse().map_err(|_| "no UID".to_owned())?);
            }
            ["store", state] => self.account.away = *state == "away",
            other => return Err(format!("cannot be given: {other:?}")),
        }
        self.tell();
        Ok(())
    }

    fn expect(&mut self, words: &[&str]) -> Result<(), String> {
        let folder = |name: &str| {
            let name = MailboxName::new(name).map_err(|error| error.to_string())?;
            self.account.folders.get(&name).ok_or_else(|| format!("no mailbox {name}"))
        };
        match words {
            ["mailbox", name, "has", count, "messages"] => {
                let live = folder(name)?.messages.values().filter(|m| !m.expunged).count();
                if live.to_string() == *count { Ok(()) } else { Err(format!("it has {live}")) }
            }
            ["message", uid, "has", flag] => {
                let uid: u32 = uid.parse().map_err(|_| "no UID".to_owned())?;
                let flags = folder("Inbox")?.messages[&uid].flags.to_string();
                let has = flags.split(' ').any(|had| had == *flag);
                if has { Ok(()) } else { Err(format!("it has {flags}")) }
            }
            other => Err(format!("cannot be expected: {other:?}")),
        }
    }

    fn advance(&mut self, _: Duration) -> Result<(), String> {
        Err("these machines know no time".to_owned())
    }

    fn open(&mut self, connection: u32) -> Result<(), String> {
        let machine = Front::new(self.security, mechanisms(self.security), 5);
        let mut out = Out::new();
        machine.greet(&mut out);
        let mut conn = Conn {
            machine: Machine::Front(machine, front::Next::Read),
            reader: Reader::new(Limits::FRONT),
            input: Vec::new(),
            output: Vec::new(),
            lines: VecDeque::new(),
            wants_tls: false,
            closed: false,
        };
        self.written(&mut out, &mut conn.output);
        self.conns.insert(connection, conn);
        self.pump(connection);
        Ok(())
    }

    fn send(&mut self, connection: u32, bytes: &[u8]) -> Result<(), String> {
        let conn = self.conns.get_mut(&connection).ok_or("not open")?;
        conn.input.extend_from_slice(bytes);
        self.pump(connection);
        Ok(())
    }

    fn hear(&mut self, connection: u32, _: Wanted) -> Result<Heard, String> {
        let conn = self.conns.get_mut(&connection).ok_or("not open")?;
        Ok(match conn.lines.pop_front() {
            Some(line) => Heard::Line(line),
            None if conn.closed => Heard::Closed,
            None => Heard::Silence,
        })
    }

    fn tls(&mut self, connection: u32) -> Result<(), String> {
        let conn = self.conns.get_mut(&connection).ok_or("not open")?;
        let Machine::Front(machine, _) = &mut conn.machine else {
            return Err("not before log-in".to_owned());
        };
        if !std::mem::take(&mut conn.wants_tls) {
            return Err("the server does not begin TLS".to_owned());
        }
        // Octets behind STARTTLS end the connection, as the process does it.
        conn.closed = !conn.input.is_empty();
        conn.reader = Reader::new(Limits::FRONT);
        machine.tls_started(mechanisms(Security::Tls));
        self.pump(connection);
        Ok(())
    }
}

#[test]
fn imap_transcripts() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/transcripts/imap");
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 20, "the transcripts are there");
    let mut faults = Vec::new();
    for name in names {
        let text = std::fs::read_to_string(&name).unwrap();
        let played = Transcript::parse(&text).and_then(|it| it.play(&mut Pure::new()));
        if let Err(fault) = played {
            faults.push(format!("{}: {fault}", name.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
