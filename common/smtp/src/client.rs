//! The client's side: one connection to another server, as steps.
//!
//! The caller owns the socket, TLS and the clock. It asks [`Client::poll`] what to do, does it, and
//! when it sees [`Step::Ready`] hands over a [`Transaction`], logs in or quits. The server may be
//! hostile: replies are bounded, and nothing it says is taken for more than words.
//!
//! ```
//! use smtp::client::{Client, Settings, Step, TlsUse};
//! let settings = Settings { hello: "mx.example.org".parse()?, tls: TlsUse::Offered };
//! let mut client = Client::new(settings);
//! assert!(matches!(client.poll(), Step::Read(_)));
//! client.received(b"220 mx.example.net ESMTP\r\n");
//! assert!(matches!(client.poll(), Step::Send(bytes) if bytes == b"EHLO mx.example.org\r\n"));
//! # Ok::<(), types::DomainError>(())
//! ```

mod extensions;
mod transaction;

pub use extensions::Extensions;
pub use transaction::{Lack, RecipientResult, Transaction};

use crate::{Response, ResponseError, ResponseParser, Stuffer, data::BareLineEnd};
use base64::Engine as _;
use std::time::Duration;
use transaction::Running;
use types::Domain;

/// Waiting times of RFC 5321 §4.5.3.2.
pub mod timeouts {
    use std::time::Duration;

    /// Greeting, EHLO, MAIL, RCPT and everything else.
    pub const COMMAND: Duration = Duration::from_secs(5 * 60);
    /// From DATA to 354.
    pub const DATA: Duration = Duration::from_secs(2 * 60);
    /// One write of content.
    pub const BLOCK: Duration = Duration::from_secs(3 * 60);
    /// From the last dot to the answer: a server that stores slowly must not get the mail twice.
    pub const DATA_END: Duration = Duration::from_secs(10 * 60);
    /// QUIT: nothing depends on the answer.
    pub const QUIT: Duration = Duration::from_secs(5);
}

/// When to use STARTTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsUse {
    /// Not at all, or TLS is there already (port 465).
    Never,
    /// If the server offers it.
    Offered,
    /// Or no mail.
    Required,
}

/// How to talk to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our name.
    pub hello: Domain,
    /// When to use STARTTLS.
    pub tls: TlsUse,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Read bytes for [`Client::received`]; when none come within this time say
    /// [`Client::timed_out`], and at the end of the stream [`Client::closed`].
    Read(Duration),
    /// Do a TLS handshake, then [`Client::secured`]; when it fails the connection is of no use.
    StartTls,
    /// The session stands: [`Client::send`], [`Client::authenticate`] or [`Client::quit`].
    Ready,
    /// The server's SASL challenge: [`Client::respond`].
    Challenge(Vec<u8>),
    /// The log-in was refused. [`Step::Ready`] follows.
    LoginRefused(Response),
    /// The log-in stands. [`Step::Ready`] follows.
    LoggedIn,
    /// The server waits for content: write what [`Client::body`] and [`Client::body_end`] give.
    Body,
    /// What became of each recipient, in order. [`Step::Ready`] or [`Step::Ended`] follows.
    Done(Vec<RecipientResult>),
    /// Close the connection.
    Ended(Ended),
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// After [`Client::quit`].
    Quit,
    /// The server refused to talk: its greeting or answer to EHLO, or 421 at any time.
    Refused(Response),
    /// TLS was required and is not offered.
    NoStartTls,
    /// STARTTLS was refused.
    StartTlsRefused(Response),
    /// Bytes in the clear behind the answer to STARTTLS: somebody in between.
    Injected,
    /// Nothing came in time.
    TimedOut,
    /// The server hung up.
    Closed,
    /// Not SMTP.
    Protocol(ResponseError),
    /// Our own content cannot go out; hanging up is the only way to end a message half sent.
    BadContent,
}

enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTlsSent,
    Handshake,
    Ready,
    AuthSent,
    Challenged(Vec<u8>),
    /// MAIL, RCPT and perhaps DATA are on their way.
    Envelope(Running),
    /// DATA is on its way, alone.
    DataSent(Running),
    Body(Running),
    /// The last dot is on its way.
    EndSent(Running),
    /// DATA was answered 354 without a recipient: a lone dot is on its way.
    LoneDot(Running),
    Reset,
    QuitSent,
    Over(Ended),
}

/// One connection to a server.
pub struct Client {
    settings: Settings,
    state: State,
    parser: ResponseParser,
    input: Vec<u8>,
    out: Vec<u8>,
    told: std::collections::VecDeque<Step>,
    extensions: Extensions,
    secured: bool,
    stuffer: Stuffer,
}

impl Client {
    /// A connection that was just made.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Greeting,
            parser: ResponseParser::new(),
            input: Vec::new(),
            out: Vec::new(),
            told: std::collections::VecDeque::new(),
            extensions: Extensions::default(),
            secured: false,
            stuffer: Stuffer::new(),
        }
    }

    /// What the server announced last; after STARTTLS only what it said behind it.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Whether STARTTLS was done on this connection.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.secured
    }

    /// What to do next.
    pub fn poll(&mut self) -> Step {
        loop {
            if let Some(step) = self.told.pop_front() {
                return step;
            }
            if !self.out.is_empty() {
                return Step::Send(std::mem::take(&mut self.out));
            }
            let within = match &mut self.state {
                State::Handshake => return Step::StartTls,
                State::Ready => return Step::Ready,
                State::Body(_) => return Step::Body,
                State::Over(why) => return Step::Ended(why.clone()),
                State::Challenged(data) => return Step::Challenge(data.clone()),
                State::Envelope(running) if running.can_send() => {
                    running.write(&mut self.out);
                    continue;
                }
                State::QuitSent => timeouts::QUIT,
                State::DataSent(_) => timeouts::DATA,
                State::EndSent(_) | State::LoneDot(_) => timeouts::DATA_END,
                State::Greeting
                | State::Ehlo
                | State::Helo
                | State::StartTlsSent
                | State::AuthSent
                | State::Envelope(_)
                | State::Reset => timeouts::COMMAND,
            };
            let input = std::mem::take(&mut self.input);
            match self.parser.feed(&input) {
                Ok((used, response)) => {
                    self.input = input.get(used..).unwrap_or_default().to_vec();
                    match response {
                        Some(response) => self.response(response),
                        None => return Step::Read(within),
                    }
                }
                Err(why) => self.end(&Ended::Protocol(why)),
            }
        }
    }

    fn command(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    fn response(&mut self, response: Response) {
        let state = std::mem::replace(&mut self.state, State::Ready);
        self.state = match state {
            State::Greeting if response.code() == 220 => self.say_ehlo(),
            State::Ehlo if response.is_success() => {
                self.extensions = Extensions::read(response.lines());
                self.greeted()
            }
            // Only in the clear: behind STARTTLS the server has just proved it knows EHLO.
            State::Ehlo if (500..=504).contains(&response.code()) && !self.secured => {
                let hello = self.settings.hello.to_string();
                self.command(&format!("HELO {hello}"));
                State::Helo
            }
            State::Helo if response.is_success() => self.greeted(),
            State::Greeting | State::Ehlo | State::Helo => State::Over(Ended::Refused(response)),
            State::StartTlsSent if response.code() == 220 => {
                if self.input.is_empty() {
                    State::Handshake
                } else {
                    State::Over(Ended::Injected)
                }
            }
            State::StartTlsSent => State::Over(Ended::StartTlsRefused(response)),
            State::AuthSent => self.auth_response(response),
            State::Envelope(running) => self.envelope_response(running, response),
            State::DataSent(running) => self.data_response(running, &response),
            State::EndSent(mut running) => {
                running.content_answered(&response);
                self.done(running, Some(response))
            }
            State::LoneDot(running) => self.done(running, Some(response)),
            State::Reset if response.code() == 421 => State::Over(Ended::Refused(response)),
            State::Reset => State::Ready,
            State::QuitSent => State::Over(Ended::Quit),
            // Nothing was asked in these states: only a server that hangs up speaks now.
            State::Handshake | State::Ready | State::Challenged(_) | State::Body(_) => {
                State::Over(Ended::Refused(response))
            }
            State::Over(why) => State::Over(why),
        };
    }

    fn say_ehlo(&mut self) -> State {
        let hello = self.settings.hello.to_string();
        self.command(&format!("EHLO {hello}"));
        State::Ehlo
    }

    fn greeted(&mut self) -> State {
        let wanted = match self.settings.tls {
            TlsUse::Never => false,
            TlsUse::Offered => self.extensions.starttls,
            TlsUse::Required => true,
        };
        if self.secured || !wanted {
            return State::Ready;
        }
        if !self.extensions.starttls {
            return State::Over(Ended::NoStartTls);
        }
        self.command("STARTTLS");
        State::StartTlsSent
    }

    /// The TLS handshake is done.
    pub fn secured(&mut self) {
        if matches!(self.state, State::Handshake) {
            self.secured = true;
            // RFC 3207 §4.2: what was said in the clear is forgotten.
            self.extensions = Extensions::default();
            self.input.clear();
            self.state = self.say_ehlo();
        }
    }

    /// Bytes from the server. Ask for the next step before giving more.
    pub fn received(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Nothing came within the time of [`Step::Read`], or a write or handshake took too long.
    pub fn timed_out(&mut self) {
        self.end(&Ended::TimedOut);
    }

    /// The server closed the connection.
    pub fn closed(&mut self) {
        let quit = matches!(self.state, State::QuitSent);
        self.end(if quit { &Ended::Quit } else { &Ended::Closed });
    }

    /// Ends the connection; a transaction under way gets its results first.
    fn end(&mut self, why: &Ended) {
        let state = std::mem::replace(&mut self.state, State::Over(why.clone()));
        match state {
            State::Envelope(running)
            | State::DataSent(running)
            | State::Body(running)
            | State::EndSent(running)
            | State::LoneDot(running) => {
                self.told.push_back(Step::Done(running.broken_off(why)));
            }
            State::Over(first) => self.state = State::Over(first),
            State::Greeting
            | State::Ehlo
            | State::Helo
            | State::StartTlsSent
            | State::Handshake
            | State::Ready
            | State::AuthSent
            | State::Challenged(_)
            | State::Reset
            | State::QuitSent => {}
        }
    }

    /// Begins a transaction. Only when [`Step::Ready`].
    ///
    /// # Errors
    /// [`Lack`]: what the server cannot do and the message needs. Nothing was sent; the connection
    /// stays ready.
    pub fn send(&mut self, transaction: Transaction) -> Result<(), Lack> {
        let running = Running::new(transaction, &self.extensions)?;
        self.stuffer = Stuffer::new();
        self.state = State::Envelope(running);
        Ok(())
    }

    fn envelope_response(&mut self, mut running: Running, response: Response) -> State {
        if running.data_is_next() {
            return self.data_response(running, &response);
        }
        let last = response.clone();
        running.answered(response);
        if last.code() == 421 {
            self.told.push_back(Step::Done(running.refused_by(&last)));
            return State::Over(Ended::Refused(last));
        }
        if !running.all_answered() {
            return State::Envelope(running);
        }
        if running.data_sent() {
            // Its answer is to come, whatever became of the recipients.
            return State::Envelope(running);
        }
        if running.has_accepted() {
            self.command("DATA");
            return State::DataSent(running);
        }
        self.done(running, None)
    }

    fn data_response(&mut self, mut running: Running, response: &Response) -> State {
        if response.code() == 354 {
            if running.has_accepted() {
                return State::Body(running);
            }
            // RFC 2920 §3.1: the server took DATA without a recipient; an empty message ends it.
            self.out.extend_from_slice(b".\r\n");
            return State::LoneDot(running);
        }
        running.content_answered(response);
        self.done(running, Some(response.clone()))
    }

    /// Ends a transaction; `last` is the server's last answer in it.
    fn done(&mut self, running: Running, last: Option<Response>) -> State {
        let clean = last.as_ref().is_some_and(Response::is_success);
        self.told.push_back(Step::Done(running.results()));
        if let Some(last) = last.filter(|last| last.code() == 421) {
            return State::Over(Ended::Refused(last));
        }
        if clean {
            return State::Ready;
        }
        // The server may hold a transaction still.
        self.command("RSET");
        State::Reset
    }

    /// Prepares content: what it appends to `out` is to be written, within
    /// [`timeouts::BLOCK`] each. Only when [`Step::Body`].
    ///
    /// # Errors
    /// [`BareLineEnd`]: stop; the next step says what became of the recipients.
    pub fn body(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        let result = self.stuffer.push(content, out);
        if result.is_err() {
            self.end(&Ended::BadContent);
        }
        result
    }

    /// The content is complete: what it appends to `out` is to be written, then ask for the next
    /// step.
    ///
    /// # Errors
    /// As [`Self::body`].
    pub fn body_end(&mut self, out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        let result = std::mem::take(&mut self.stuffer).end(out);
        if result.is_err() {
            self.end(&Ended::BadContent);
            return result;
        }
        if matches!(self.state, State::Body(_))
            && let State::Body(running) = std::mem::replace(&mut self.state, State::Ready)
        {
            self.state = State::EndSent(running);
        }
        result
    }

    /// Logs in. Only when [`Step::Ready`].
    pub fn authenticate(&mut self, mechanism: &str, initial: Option<&[u8]>) {
        let engine = &base64::engine::general_purpose::STANDARD;
        let line = match initial {
            None => format!("AUTH {mechanism}"),
            // RFC 4954 §4: a response of no octets.
            Some([]) => format!("AUTH {mechanism} ="),
            Some(octets) => format!("AUTH {mechanism} {}", engine.encode(octets)),
        };
        self.command(&line);
        self.state = State::AuthSent;
    }

    /// Answers a challenge.
    pub fn respond(&mut self, octets: &[u8]) {
        let line = base64::engine::general_purpose::STANDARD.encode(octets);
        self.command(&line);
        self.state = State::AuthSent;
    }

    /// Gives the log-in up.
    pub fn cancel(&mut self) {
        self.command("*");
        self.state = State::AuthSent;
    }

    fn auth_response(&mut self, response: Response) -> State {
        match response.code() {
            334 => {
                let text = response.text();
                match base64::engine::general_purpose::STANDARD.decode(text.trim()) {
                    Ok(challenge) => State::Challenged(challenge),
                    Err(_) => {
                        self.command("*");
                        State::AuthSent
                    }
                }
            }
            235 => {
                self.told.push_back(Step::LoggedIn);
                State::Ready
            }
            421 => State::Over(Ended::Refused(response)),
            _ => {
                self.told.push_back(Step::LoginRefused(response));
                State::Ready
            }
        }
    }

    /// Says QUIT. Only when [`Step::Ready`].
    pub fn quit(&mut self) {
        self.command("QUIT");
        self.state = State::QuitSent;
    }
}

#[cfg(test)]
mod tests;
