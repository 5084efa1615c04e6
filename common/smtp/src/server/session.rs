//! The session machine: what may come next, and what is answered.
//!
//! A state holds what it needs and no more, so a session without transaction cannot be asked for
//! its recipients. Every question goes out as an action and comes back as an event; while one is
//! out, nothing else is read.

use super::{
    Answer, AuthAnswer, Now, Peer, Question, Role, Settings, limits, transaction::Transaction,
};
use crate::{AdmitRefused, Command, DataEnd, Dialect, Hello, Reply, SyntaxError, TlsFacts, date};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use types::HostLiteral;

/// What happens to a session.
#[derive(Debug)]
pub enum Event<'a> {
    /// The connection is there.
    Start,
    /// A line without its end.
    Line {
        /// The line.
        bytes: &'a [u8],
        /// It ended in LF alone.
        bare_lf: bool,
    },
    /// A line above the limit.
    LineTooLong,
    /// What was asked.
    Answer(Answer),
    /// The TLS handshake is done.
    TlsDone(TlsFacts),
    /// The TLS handshake failed.
    TlsFailed,
    /// The message is whole; and whether whoever takes the content took all of it.
    DataEnd(DataEnd, Taken),
    /// Nothing came in time.
    TimedOut,
    /// The process is to stop.
    Stop,
}

/// Whether the content reached its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// All of it.
    Whole,
    /// Not all; what is there must be dropped.
    Lost,
}

/// What to do, in order.
pub enum Action {
    /// Send it.
    Reply(Reply),
    /// Find out, and come back with [`Event::Answer`].
    Ask(Question),
    /// Drop what belongs to the transaction or log-in under way.
    Forget,
    /// Do the handshake; what was received and not read is to be dropped.
    StartTls,
    /// Read a message.
    ReadData,
    /// Wait before going on.
    Pause(Duration),
    /// Enter or leave slow mode: one read a second, one octet a second.
    Slow(bool),
    /// End the connection.
    Close,
}

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    commands: u32,
    pub(super) bad: u32,
    pub(super) idle: u32,
    pub(super) refused_recipients: u32,
    pub(super) deferred_recipients: u32,
    pub(super) transactions: u32,
    pub(super) failed_data: u32,
    pub(super) accepted_data: u32,
    pub(super) failed_logins: u32,
    pub(super) sasl_lines: u32,
}

/// Where a session is.
pub(super) enum Phase {
    New,
    Admitting,
    Handshake,
    /// Between transactions.
    Ready,
    /// EHLO came; the mechanisms are asked for.
    Listing,
    SaslAsked,
    SaslLine,
    /// Data with success was sent; the client's empty line is to come.
    SaslLast,
    BeginAsked(Transaction),
    Open(Transaction),
    RecipientAsked(Transaction, crate::ForwardPath),
    DataAsked(Transaction),
    Receiving(Transaction),
    CommitAsked,
    Over,
}

/// One session.
pub struct Session {
    pub(super) settings: Arc<Settings>,
    pub(super) peer: Peer,
    pub(super) hello: Option<Hello>,
    pub(super) extended: bool,
    pub(super) tls: Option<TlsFacts>,
    pub(super) logged_in: bool,
    pub(super) ledger: Ledger,
    pub(super) actions: Vec<Action>,
    phase: Phase,
    started: Instant,
    stopping: bool,
}

impl Session {
    /// Before [`Event::Start`].
    #[must_use]
    pub fn new(settings: Arc<Settings>, peer: Peer, now: Now) -> Self {
        Self {
            settings,
            peer,
            hello: None,
            extended: false,
            tls: None,
            logged_in: false,
            ledger: Ledger::default(),
            actions: Vec::new(),
            phase: Phase::New,
            started: now.mono,
            stopping: false,
        }
    }

    /// Whether the next line is part of a SASL exchange, with its own bound.
    #[must_use]
    pub fn in_sasl(&self) -> bool {
        matches!(self.phase, Phase::SaslLine | Phase::SaslLast)
    }

    /// Whether it waits for the client's next command.
    #[must_use]
    pub fn is_between_commands(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Open(_))
    }

    /// Takes an event; gives itself back with what is to be done.
    #[must_use]
    pub fn handle(mut self, event: Event<'_>, now: Now) -> (Self, Vec<Action>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        self.phase = self.next(phase, event, now);
        if self.stopping && self.is_between_commands() {
            self.phase = self.shut_down();
        }
        let actions = std::mem::take(&mut self.actions);
        (self, actions)
    }

    fn next(&mut self, phase: Phase, event: Event<'_>, now: Now) -> Phase {
        match (phase, event) {
            (Phase::Over, _) => Phase::Over,
            (phase, Event::Stop) => {
                self.stopping = true;
                // A log-in in the middle has lost nothing yet.
                if matches!(phase, Phase::SaslLine | Phase::SaslLast) {
                    return self.shut_down();
                }
                phase
            }
            (Phase::New, Event::Start) => self.ask(Question::Admit, Phase::Admitting),
            (Phase::Admitting, Event::Answer(Answer::Admit(verdict))) => self.admitted(verdict),
            (Phase::Handshake, Event::TlsDone(facts)) => self.secured(facts),
            (Phase::Handshake, Event::TlsFailed | Event::TimedOut) => self.close(),
            (_, Event::TimedOut) => {
                self.close_with(Reply::new(421, (4, 4, 2), "Nothing came for too long"))
            }
            (Phase::SaslLine | Phase::SaslLast, Event::LineTooLong) => {
                // RFC 4954 §4: 500 5.5.6 for an exchange line that is too long.
                self.close_with(Reply::new(500, (5, 5, 6), "Authentication line too long"))
            }
            (_, Event::LineTooLong) => self.close_with(Reply::new(500, (5, 5, 0), "Line too long")),
            (Phase::Ready, Event::Line { bytes, bare_lf }) => self.line(None, bytes, bare_lf, now),
            (Phase::Open(open), Event::Line { bytes, bare_lf }) => {
                self.line(Some(open), bytes, bare_lf, now)
            }
            (Phase::Listing, Event::Answer(Answer::Mechanisms(Some(names)))) => {
                self.list(&names, now);
                Phase::Ready
            }
            // Without AUTH in the list a client gives up for good; 421 has it come again.
            (Phase::Listing, Event::Answer(Answer::Mechanisms(None))) => {
                self.close_with(AdmitRefused::Unavailable.into())
            }
            (Phase::SaslLine, Event::Line { bytes, .. }) => self.sasl_line(bytes),
            (Phase::SaslLast, Event::Line { bytes, .. }) => self.sasl_last(bytes),
            (Phase::SaslAsked, Event::Answer(Answer::Auth(answer))) => self.sasl_answer(answer),
            (Phase::BeginAsked(open), Event::Answer(Answer::Begin(answer))) => {
                self.begun(open, answer)
            }
            (Phase::RecipientAsked(open, path), Event::Answer(Answer::Recipient(answer))) => {
                self.recipient_answered(open, path, answer)
            }
            (Phase::DataAsked(open), Event::Answer(Answer::OpenData(answer))) => {
                self.data_answered(open, answer)
            }
            (Phase::Receiving(open), Event::DataEnd(end, taken)) => {
                self.data_end(&open, end, taken, now)
            }
            (Phase::CommitAsked, Event::Answer(Answer::Commit(answer))) => self.committed(answer),
            // An answer to what was not asked: a fault of ours, so the client may come again.
            (_, _) => self.close_with(Reply::new(421, (4, 3, 0), "Local error")),
        }
    }

    fn admitted(&mut self, verdict: Result<(), crate::AdmitRefused>) -> Phase {
        match verdict {
            // No TLS yet, so there is nobody to tell; and no handshake is spent on whom the
            // limits keep out.
            Err(_) if self.settings.implicit_tls => self.close(),
            Err(why) => self.close_with(why.into()),
            Ok(()) if self.settings.implicit_tls => {
                self.actions.push(Action::StartTls);
                Phase::Handshake
            }
            Ok(()) => self.greet(),
        }
    }

    fn greet(&mut self) -> Phase {
        // No version number: it would help nobody but whoever looks for a hole.
        self.reply(Reply::plain(220, format!("{} ESMTP mox", self.settings.host)));
        Phase::Ready
    }

    fn secured(&mut self, facts: TlsFacts) -> Phase {
        self.tls = Some(facts);
        // RFC 3207 §4.2: whatever the client said before is forgotten.
        self.hello = None;
        self.extended = false;
        if self.settings.implicit_tls { self.greet() } else { Phase::Ready }
    }

    fn line(&mut self, open: Option<Transaction>, bytes: &[u8], bare_lf: bool, now: Now) -> Phase {
        if now.mono.saturating_duration_since(self.started) > self.settings.limits.session {
            return self.close_with(Reply::new(421, (4, 4, 2), "Session took too long"));
        }
        self.ledger.commands = self.ledger.commands.saturating_add(1);
        let dialect = Dialect {
            submission: self.settings.role == Role::Submission,
            pedantic: self.settings.pedantic,
        };
        let command = if bare_lf && self.settings.pedantic {
            Err(SyntaxError::Arguments("line without CR"))
        } else {
            Command::parse(bytes, &dialect)
        };
        match command {
            Ok(command) => self.command(open, command, now),
            // Whoever opens with this speaks another protocol: a browser, a probe.
            Err(SyntaxError::Unknown) if self.ledger.commands == 1 => {
                self.close_with(Reply::new(500, (5, 5, 2), "This is SMTP"))
            }
            Err(why) => self.bad(open, Reply::from(&why)),
        }
    }

    fn command(&mut self, open: Option<Transaction>, command: Command, now: Now) -> Phase {
        let part_of_mail = matches!(command, Command::Mail(_) | Command::Rcpt(..) | Command::Data);
        if !part_of_mail {
            self.ledger.idle = self.ledger.idle.saturating_add(1);
            if self.ledger.idle > limits::MAX_IDLE_COMMANDS && !matches!(command, Command::Quit) {
                return self.close_with(Reply::new(421, (4, 7, 0), "Too many commands"));
            }
        }
        match command {
            Command::Ehlo(hello) => self.ehlo(open.as_ref(), hello, now),
            Command::Helo(hello) => {
                self.forget(open.as_ref());
                self.hello = Some(hello);
                self.extended = false;
                // RFC 5321 §4.1.1.1: HELO is answered in one line.
                self.reply(Reply::new(250, (2, 0, 0), self.settings.host.to_string()));
                Phase::Ready
            }
            Command::StartTls => self.start_tls(open),
            Command::Auth { mechanism, initial } => self.auth(open, mechanism, initial),
            Command::Mail(mail) => self.mail(open, mail, now),
            Command::Rcpt(path, needs) => self.rcpt(open, path, needs),
            Command::Data => self.data(open),
            Command::Rset => {
                self.forget(open.as_ref());
                self.ok(250, "Reset");
                Phase::Ready
            }
            Command::Noop => {
                self.ok(250, "Ok");
                Self::back(open)
            }
            Command::Quit => {
                self.forget(open.as_ref());
                self.ok(221, "Bye");
                self.close()
            }
            Command::Vrfy | Command::Expn => {
                // RFC 5321 §3.5.3: 252 tells nothing, on purpose.
                self.reply(Reply::new(252, (2, 7, 0), "Send some mail and see"));
                Self::back(open)
            }
            Command::Help => {
                self.reply(Reply::new(214, (2, 0, 0), "See RFC 5321"));
                Self::back(open)
            }
        }
    }

    fn ehlo(&mut self, open: Option<&Transaction>, hello: Hello, now: Now) -> Phase {
        // RFC 5321 §4.1.4: a new EHLO is a RSET.
        self.forget(open);
        self.hello = Some(hello);
        self.extended = true;
        let announces_auth = self.settings.role == Role::Submission
            && !self.logged_in
            && (self.tls.is_some() || !self.settings.require_tls);
        if announces_auth {
            return self.ask(Question::Mechanisms, Phase::Listing);
        }
        self.list(&[], now);
        Phase::Ready
    }

    fn list(&mut self, mechanisms: &[String], now: Now) {
        let settings = &self.settings;
        let mut lines = vec![
            settings.host.to_string(),
            "PIPELINING".to_owned(),
            format!("SIZE {}", settings.max_size),
        ];
        if self.tls.is_some() {
            if settings.requiretls {
                lines.push("REQUIRETLS".to_owned());
            }
        } else if settings.starttls {
            lines.push("STARTTLS".to_owned());
        }
        if settings.role == Role::Submission {
            // An empty list would be a line that no client can read.
            if !mechanisms.is_empty() {
                lines.push(format!("AUTH {}", mechanisms.join(" ")));
            }
            lines.push(format!(
                "FUTURERELEASE {} {}",
                limits::MAX_HOLD.as_secs(),
                date::rfc3339(now.wall.plus(limits::MAX_HOLD))
            ));
        }
        lines.push("ENHANCEDSTATUSCODES".to_owned());
        lines.push("8BITMIME".to_owned());
        lines.push(format!("LIMITS RCPTMAX={}", settings.limits.recipients));
        lines.push("SMTPUTF8".to_owned());
        self.reply(Reply::plain(250, lines.join("\n")));
    }

    fn start_tls(&mut self, open: Option<Transaction>) -> Phase {
        if !self.settings.starttls || self.tls.is_some() || self.logged_in || !self.extended {
            return self.out_of_order(open, "STARTTLS not possible now");
        }
        self.forget(open.as_ref());
        self.ok(220, "Go ahead");
        self.actions.push(Action::StartTls);
        Phase::Handshake
    }

    /// What the client called itself, for the store and for Received.
    pub(super) fn hello_name(&self) -> HostLiteral {
        match &self.hello {
            _ if self.settings.role == Role::Submission => {
                HostLiteral::Domain(self.settings.host.clone())
            }
            Some(Hello::Name(name)) => name.clone(),
            Some(Hello::Unread(_)) | None => HostLiteral::Ip(self.peer.ip),
        }
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        let reply = if reply.is_error() { reply.with_id(self.peer.id) } else { reply };
        self.actions.push(Action::Reply(reply));
    }

    /// Makes a bad client wait.
    pub(super) fn pause(&mut self, time: Duration) {
        if self.settings.limits.pacing {
            self.actions.push(Action::Pause(time));
        }
    }

    /// Makes it wait at every octet, or no longer.
    pub(super) fn slow(&mut self, slow: bool) {
        if self.settings.limits.pacing {
            self.actions.push(Action::Slow(slow));
        }
    }

    pub(super) fn ok(&mut self, code: u16, text: &str) {
        self.reply(Reply::new(code, (2, 0, 0), text));
    }

    pub(super) fn ask(&mut self, question: Question, then: Phase) -> Phase {
        self.actions.push(Action::Ask(question));
        then
    }

    pub(super) fn forget(&mut self, open: Option<&Transaction>) {
        if open.is_some() {
            self.actions.push(Action::Forget);
        }
    }

    /// Where a command leaves a session that it did not change.
    pub(super) fn back(open: Option<Transaction>) -> Phase {
        open.map_or(Phase::Ready, Phase::Open)
    }

    /// A command that is wrong in form or place.
    pub(super) fn bad(&mut self, open: Option<Transaction>, reply: Reply) -> Phase {
        self.ledger.bad = self.ledger.bad.saturating_add(1);
        if self.ledger.bad > limits::MAX_BAD_COMMANDS {
            return self.close_with(Reply::new(421, (4, 7, 0), "Too many bad commands"));
        }
        self.reply(reply);
        Self::back(open)
    }

    pub(super) fn out_of_order(&mut self, open: Option<Transaction>, text: &str) -> Phase {
        self.bad(open, Reply::new(503, (5, 5, 1), text))
    }

    pub(super) fn close_with(&mut self, reply: Reply) -> Phase {
        self.reply(reply);
        self.close()
    }

    pub(super) fn close(&mut self) -> Phase {
        self.actions.push(Action::Forget);
        self.actions.push(Action::Close);
        Phase::Over
    }

    fn shut_down(&mut self) -> Phase {
        // RFC 5321 §3.8: 421 may come at any time when the service shuts down.
        self.close_with(Reply::new(421, (4, 3, 2), "Shutting down, try again soon"))
    }

    pub(super) fn sasl_answer(&mut self, answer: AuthAnswer) -> Phase {
        match answer {
            AuthAnswer::Challenge(data) => {
                self.challenge(&data);
                Phase::SaslLine
            }
            AuthAnswer::Success(Some(data)) => {
                // RFC 4954 §4: data with success goes as a challenge, answered by an empty line.
                self.challenge(&data);
                Phase::SaslLast
            }
            AuthAnswer::Success(None) => self.logged_in(),
            AuthAnswer::Refused(why) => self.login_failed(why),
        }
    }
}
