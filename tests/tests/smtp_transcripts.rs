//! Plays `transcripts/smtp/*.txt` against the pure SMTP server with a store made of maps.
//!
//! Words of `given` here: `account ADDRESS [password PASSWORD]`, `listener KIND [require-tls]
//! [no-starttls] [pedantic] [size N]` (KIND mx, submission, submissions), `recipient ADDRESS refused
//! CODE ENHANCED TEXT`, `judgement CODE ENHANCED TEXT`, `store away|back|loses-content`, `gate
//! refuses`, `stop`. Words of `expect`: `account A mailbox INBOX has N messages`, `account A holds
//! TEXT`, `paused N seconds`, `slow`, `fast`.

#![expect(clippy::unwrap_used, reason = "a fault in here is a failed test")]

use mox_tests::transcript::{Heard, Transcript, Wanted, World};
use smtp::{
    AdmitRefused, AuthRefused, CommitRefused, DataRefused, ForwardPath, MailRefused, RcptRefused,
    TlsFacts,
    server::{Answer, AuthAnswer, Connection, Now, Peer, Question, Role, Said, Settings, Step},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use types::{Clock as _, ManualClock, SessionId, UnixNanos};

#[derive(Clone, Copy, PartialEq)]
enum StoreState {
    There,
    Away,
    LosesContent,
}

type Refusal = (u16, String, String);

struct Store {
    accounts: BTreeMap<String, Option<String>>,
    inboxes: BTreeMap<String, Vec<String>>,
    refused: BTreeMap<String, Refusal>,
    judgement: Option<Refusal>,
    state: StoreState,
    gate_open: bool,
    taken: u32,
}

#[derive(Default)]
struct Work {
    recipients: Vec<String>,
    content: Vec<u8>,
    mechanism: String,
    user: Option<String>,
    /// The first recipient does not exist; told behind DATA, as accountd does.
    unknown: bool,
}

struct Conn {
    machine: Connection,
    work: Work,
    lines: VecDeque<String>,
    partial: Vec<u8>,
    deadline: Option<Instant>,
    wants_tls: bool,
    closed: bool,
}

struct Pure {
    clock: ManualClock,
    settings: Settings,
    store: Store,
    conns: BTreeMap<u32, Conn>,
    paused: Duration,
}

fn said(refusal: &Refusal) -> Said {
    Said::new(refusal.0, &refusal.1, &refusal.2, false)
}

impl Store {
    fn answer(&mut self, work: &mut Work, question: Question, submission: bool) -> Answer {
        let away = self.state == StoreState::Away;
        match question {
            Question::Admit if !self.gate_open => {
                Answer::Admit(Err(AdmitRefused::TooManyConnections))
            }
            Question::Admit if away => Answer::Admit(Err(AdmitRefused::Unavailable)),
            Question::Admit => Answer::Admit(Ok(())),
            Question::Mechanisms if away => Answer::Mechanisms(None),
            Question::Mechanisms => Answer::Mechanisms(Some(vec!["PLAIN".into(), "LOGIN".into()])),
            Question::AuthStart { .. } | Question::AuthRespond(_) if away => {
                Answer::Auth(AuthAnswer::Refused(AuthRefused::Temporary))
            }
            Question::AuthStart { mechanism, initial, agent: _ } => {
                *work = Work { mechanism, ..Work::default() };
                Answer::Auth(match initial {
                    Some(data) => self.sasl(work, data.expose()),
                    None if !["PLAIN", "LOGIN"].contains(&work.mechanism.as_str()) => {
                        AuthAnswer::Refused(AuthRefused::UnknownMechanism)
                    }
                    None if work.mechanism == "LOGIN" => {
                        AuthAnswer::Challenge(b"Username:".to_vec())
                    }
                    None => AuthAnswer::Challenge(Vec::new()),
                })
            }
            Question::AuthRespond(data) => Answer::Auth(self.sasl(work, data.expose())),
            Question::Begin(_) if away => Answer::Begin(Err(MailRefused::Unavailable)),
            Question::Begin(_) => {
                *work = Work::default();
                Answer::Begin(Ok(()))
            }
            Question::Recipient(_) if away => Answer::Recipient(Err(RcptRefused::Unavailable)),
            Question::Recipient(path) => Answer::Recipient(self.recipient(work, &path, submission)),
            Question::OpenData if away => Answer::OpenData(Err(DataRefused::Unavailable)),
            Question::OpenData => Answer::OpenData(Ok(())),
            Question::Commit(_) if away => Answer::Commit(Err(CommitRefused::Unavailable)),
            Question::Commit(received) => Answer::Commit(self.commit(work, &received)),
        }
    }

    fn sasl(&self, work: &mut Work, data: &[u8]) -> AuthAnswer {
        let text = String::from_utf8_lossy(data).into_owned();
        let (user, password) = match work.mechanism.as_str() {
            "PLAIN" => match text.split('\0').collect::<Vec<_>>()[..] {
                ["", user, password] => (user.to_owned(), password.to_owned()),
                _ => return AuthAnswer::Refused(AuthRefused::BadMessage),
            },
            "LOGIN" => match work.user.take() {
                None => {
                    work.user = Some(text);
                    return AuthAnswer::Challenge(b"Password:".to_vec());
                }
                Some(user) => (user, text),
            },
            // Anything is right, with data at the end as SCRAM has.
            "X-LAST" => return AuthAnswer::Success(Some(b"v=last".to_vec())),
            _ => return AuthAnswer::Refused(AuthRefused::UnknownMechanism),
        };
        match self.accounts.get(&user) {
            Some(Some(known)) if *known == password => AuthAnswer::Success(None),
            _ => AuthAnswer::Refused(AuthRefused::BadCredentials),
        }
    }

    fn recipient(
        &self,
        work: &mut Work,
        path: &ForwardPath,
        submission: bool,
    ) -> Result<(), RcptRefused> {
        let host = "mx.example.org".parse().unwrap();
        let Some(address) = path.at(&host) else { return Err(RcptRefused::Literal) };
        let name = address.to_string();
        if let Some(refusal) = self.refused.get(&name) {
            return Err(RcptRefused::Said(said(refusal)));
        }
        let local = address.domain().as_ascii() == "example.org";
        if work.unknown {
            return Err(RcptRefused::Said(Said::new(452, "4.5.3", "Too many recipients", false)));
        }
        if !self.accounts.contains_key(&name) && *path != ForwardPath::Postmaster && !submission {
            work.unknown = local && work.recipients.is_empty();
            if !work.unknown {
                return Err(RcptRefused::Said(Said::new(550, "5.1.1", "Not here", false)));
            }
        }
        work.recipients.push(name);
        Ok(())
    }

    fn commit(&mut self, work: &mut Work, received: &str) -> Result<String, CommitRefused> {
        if work.unknown {
            return Err(CommitRefused::Said(Said::new(550, "5.1.1", "No such address", false)));
        }
        if let Some(refusal) = &self.judgement {
            return Err(CommitRefused::Said(said(refusal)));
        }
        let content = format!("{received}{}", String::from_utf8_lossy(&work.content));
        for recipient in &work.recipients {
            self.inboxes.entry(recipient.clone()).or_default().push(content.clone());
        }
        self.taken += 1;
        Ok(format!("id{}", self.taken))
    }
}

impl Pure {
    fn new() -> Self {
        let host = "mx.example.org".parse().unwrap();
        Self {
            clock: ManualClock::at(UnixNanos::from_seconds(1_795_224_009)),
            settings: Settings::new(Role::Mx, host),
            store: Store {
                accounts: BTreeMap::new(),
                inboxes: BTreeMap::new(),
                refused: BTreeMap::new(),
                judgement: None,
                state: StoreState::There,
                gate_open: true,
                taken: 0,
            },
            conns: BTreeMap::new(),
            paused: Duration::ZERO,
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.clock.monotonic(), wall: self.clock.now() }
    }

    fn run(&mut self, number: u32) -> Result<(), String> {
        let submission = self.settings.role == Role::Submission;
        for _ in 0..100_000 {
            let now = self.now();
            let Self { conns, store, clock, paused, .. } = self;
            let conn = conns.get_mut(&number).ok_or("no such connection")?;
            match conn.machine.poll(now) {
                Step::Send(bytes) => {
                    conn.partial.extend(bytes);
                    while let Some(end) = conn.partial.windows(2).position(|w| w == b"\r\n") {
                        let line: Vec<u8> = conn.partial.drain(..end + 2).take(end).collect();
                        conn.lines.push_back(String::from_utf8(line).map_err(|e| e.to_string())?);
                    }
                }
                Step::Read(within) => {
                    conn.deadline = Some(now.mono + within);
                    return Ok(());
                }
                Step::Ask(question) => {
                    let answer = store.answer(&mut conn.work, question, submission);
                    conn.machine.answer(answer, now);
                }
                Step::Content(_) if store.state == StoreState::LosesContent => {
                    conn.machine.content_lost();
                }
                Step::Content(bytes) => conn.work.content.extend(bytes),
                Step::Forget => conn.work = Work::default(),
                Step::StartTls => {
                    conn.wants_tls = true;
                    return Ok(());
                }
                Step::Pause(time) => {
                    clock.advance(time);
                    *paused += time;
                }
                Step::Close => {
                    conn.closed = true;
                    return Ok(());
                }
            }
        }
        Err("the server never waits".to_owned())
    }
}

impl World for Pure {
    fn given(&mut self, words: &[&str]) -> Result<(), String> {
        let store = &mut self.store;
        let refusal = |rest: &[&str]| match rest {
            [code, enhanced, text @ ..] => {
                Ok((code.parse().map_err(|_| "no code")?, (*enhanced).to_owned(), text.join(" ")))
            }
            _ => Err("code and enhanced code expected"),
        };
        match words {
            ["account", name] => drop(store.accounts.insert((*name).to_owned(), None)),
            ["account", name, "password", password] => {
                store.accounts.insert((*name).to_owned(), Some((*password).to_owned()));
            }
            ["listener", kind, options @ ..] => {
                let role = if *kind == "mx" { Role::Mx } else { Role::Submission };
                self.settings = Settings::new(role, self.settings.host.clone());
                self.settings.implicit_tls = *kind == "submissions";
                let mut options = options.iter();
                while let Some(option) = options.next() {
                    match *option {
                        "require-tls" => self.settings.require_tls = true,
                        "no-require-tls" => self.settings.require_tls = false,
                        "no-starttls" => self.settings.starttls = false,
                        "pedantic" => self.settings.pedantic = true,
                        "size" => {
                            let size = options.next().and_then(|n| n.parse().ok());
                            self.settings.max_size = size.ok_or("size without number")?;
                        }
                        other => return Err(format!("unknown option {other}")),
                    }
                }
            }
            ["recipient", name, "refused", rest @ ..] => {
                store.refused.insert((*name).to_owned(), refusal(rest)?);
            }
            ["judgement", rest @ ..] => store.judgement = Some(refusal(rest)?),
            ["store", "away"] => store.state = StoreState::Away,
            ["store", "back"] => store.state = StoreState::There,
            ["store", "loses-content"] => store.state = StoreState::LosesContent,
            ["gate", "refuses"] => store.gate_open = false,
            ["stop"] => {
                let now = self.now();
                for number in self.conns.keys().copied().collect::<Vec<_>>() {
                    self.conns.get_mut(&number).ok_or("gone")?.machine.stop(now);
                    self.run(number)?;
                }
            }
            other => return Err(format!("cannot do {other:?}")),
        }
        Ok(())
    }

    fn expect(&mut self, words: &[&str]) -> Result<(), String> {
        let inbox = |name: &str| self.store.inboxes.get(name).map_or(&[][..], Vec::as_slice);
        let slow = self.conns.values().any(|conn| conn.machine.is_slow());
        let holds = match words {
            ["account", name, "mailbox", "INBOX", "has", number, "messages" | "message"] => {
                inbox(name).len().to_string() == *number
            }
            ["account", name, "holds", text @ ..] => {
                let text = text.join(" ");
                let plain = |m: &String| {
                    let m = m.replace("\r\n", " / ");
                    m.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
                };
                inbox(name).iter().any(|m| plain(m).contains(&text))
            }
            ["paused", seconds, "seconds"] => self.paused.as_secs().to_string() == *seconds,
            ["slow"] => slow,
            ["fast"] => !slow,
            other => return Err(format!("cannot look at {other:?}")),
        };
        if holds {
            Ok(())
        } else {
            Err(format!("paused {:?}, slow {slow}, mail {:?}", self.paused, self.store.inboxes))
        }
    }

    fn advance(&mut self, by: Duration) -> Result<(), String> {
        self.clock.advance(by);
        let now = self.now();
        for number in self.conns.keys().copied().collect::<Vec<_>>() {
            let conn = self.conns.get_mut(&number).ok_or("gone")?;
            if !conn.closed && conn.deadline.is_some_and(|deadline| deadline <= now.mono) {
                conn.machine.timed_out(now);
                self.run(number)?;
            }
        }
        Ok(())
    }

    fn open(&mut self, number: u32) -> Result<(), String> {
        let id = SessionId::from_bytes(u64::from(number).to_be_bytes());
        let peer = Peer { ip: "192.0.2.7".parse().unwrap(), id };
        let machine = Connection::new(Arc::new(self.settings.clone()), peer, self.now());
        let conn = Conn {
            machine,
            work: Work::default(),
            lines: VecDeque::new(),
            partial: Vec::new(),
            deadline: None,
            wants_tls: false,
            closed: false,
        };
        self.conns.insert(number, conn);
        self.run(number)
    }

    fn send(&mut self, number: u32, bytes: &[u8]) -> Result<(), String> {
        let conn = self.conns.get_mut(&number).ok_or("no such connection")?;
        // A client may write into a connection that is closed on the other side.
        if conn.closed || conn.wants_tls {
            return Ok(());
        }
        conn.machine.received(bytes);
        self.run(number)
    }

    fn hear(&mut self, number: u32, _: Wanted) -> Result<Heard, String> {
        let conn = self.conns.get_mut(&number).ok_or("no such connection")?;
        Ok(match conn.lines.pop_front() {
            Some(line) => Heard::Line(line),
            None if conn.closed => Heard::Closed,
            None => Heard::Silence,
        })
    }

    fn tls(&mut self, number: u32) -> Result<(), String> {
        let now = self.now();
        let conn = self.conns.get_mut(&number).ok_or("no such connection")?;
        if !std::mem::take(&mut conn.wants_tls) {
            return Err("the server waits for no handshake".to_owned());
        }
        let facts = TlsFacts { version: "TLSv1.3".into(), cipher: "TLS_AES_128_GCM_SHA256".into() };
        conn.machine.secured(facts, now);
        self.run(number)
    }
}

#[test]
fn every_transcript_holds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts/smtp");
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 25, "only {} transcripts", files.len());
    let mut faults = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let played = Transcript::parse(&text).and_then(|t| t.play(&mut Pure::new()));
        if let Err(fault) = played {
            faults.push(format!("{}:{fault}", file.file_name().unwrap().to_string_lossy()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The same bytes in any pieces get the same answers.
#[test]
fn pipelined_bytes_in_any_pieces_get_the_same_answers() {
    let wire = b"EHLO c.example\r\nMAIL FROM:<b@c.example>\r\nRCPT TO:<a@example.org>\r\nDATA\r\nA: b\r\n\r\n..x\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<a@example.org>\r\nDATA\r\nx\n.\r\n\r\n.\r\nNOOP\r\nQUIT\r\n";
    let hear = |pieces: &[&[u8]]| {
        let mut world = Pure::new();
        world.given(&["account", "a@example.org"]).unwrap();
        world.open(1).unwrap();
        for piece in pieces {
            world.send(1, piece).unwrap();
        }
        let mut lines = Vec::new();
        while let Heard::Line(line) = world.hear(1, Wanted::Something).unwrap() {
            lines.push(line);
        }
        (lines, world.store.inboxes)
    };
    let whole = hear(&[wire]);
    assert_eq!(whole.1["a@example.org"].len(), 1);
    for cut in 1..wire.len() {
        assert_eq!(hear(&[&wire[..cut], &wire[cut..]]), whole, "cut at {cut}");
    }
    let single: Vec<&[u8]> = wire.chunks(1).collect();
    assert_eq!(hear(&single), whole);
}

/// Bytes of a hundred kinds of nonsense: it never panics, never hangs, and always comes to wait or
/// to an end, and what it says are replies.
#[test]
fn random_clients_are_borne() {
    let words: [&[u8]; 30] = [
        b"EHLO c.example\r\n",
        b"HELO c.example\r\n",
        b"MAIL FROM:<>\r\n",
        b"MAIL FROM:<b@c.example> SIZE=5\r\n",
        b"RCPT TO:<a@example.org>\r\n",
        b"RCPT TO:<z@example.org>\r\n",
        b"RCPT TO:<z@else.example>\r\n",
        b"DATA\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"\n.\n",
        b"\r",
        b"\n",
        b"\0",
        b"\xff\xfe",
        b"STARTTLS\r\n",
        b"AUTH PLAIN AGEAYg==\r\n",
        b"AUTH LOGIN\r\n",
        b"*\r\n",
        b"YQ==\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"VRFY x\r\n",
        b"HELP\r\n",
        b"A: b\r\n",
        b"Received: x\r\n",
        b"GET / HTTP/1.1\r\n",
        b"QUIT\r\n",
        b"MAIL FROM:<\"",
        b" ",
    ];
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below).unwrap()
    };
    for round in 0..2000 {
        let mut world = Pure::new();
        let kind = ["mx", "submission", "submissions"][round % 3];
        world.given(&["account", "a@example.org", "password", "b"]).unwrap();
        world.given(&["listener", kind, "no-require-tls", "size", "100"]).unwrap();
        world.open(1).unwrap();
        for _ in 0..random(80) {
            if random(40) == 0 {
                let state = ["away", "back", "loses-content"][random(3)];
                world.given(&["store", state]).unwrap();
            }
            if world.tls(1).is_err() {
                let noise: Vec<u8> =
                    (0..random(20)).map(|_| u8::try_from(random(256)).unwrap()).collect();
                let bytes = if random(10) == 0 { &noise } else { words[random(30)] };
                world.send(1, bytes).unwrap();
            }
        }
        while let Heard::Line(line) = world.hear(1, Wanted::Something).unwrap() {
            let code: u16 = line[..3].parse().unwrap();
            assert!((200..600).contains(&code) && matches!(&line[3..4], " " | "-"), "{line}");
        }
        let mail = world.store.inboxes.values().flatten();
        for message in mail {
            assert!(
                !message.contains("\n.\n") && !message.replace("\r\n", "").contains(['\r', '\n'])
            );
        }
    }
}
