//! The machine of a connection before log-in.
//!
//! It knows the few commands a stranger may send, relays SASL to whoever checks credentials, and
//! ends when a log-in was accepted: the tagged OK is left to the session behind it, so that the
//! client cannot be told of a log-in that no session stands for. The credentials it passes on are
//! wiped when dropped.

use crate::{
    command::{Login, Tag, Verb},
    name::Names,
    out::Out,
    parse::{parse, sasl_base64, tag_of},
    reader::Refusal,
    response::{Condition, ResponseCode},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use types::Secret;

/// Commands without a log-in: a stranger has little to say.
const MAX_COMMANDS: u32 = 100;
/// Octets of one SASL message.
const MAX_SASL: usize = 12_288;

/// What the process does next. Output gathered so far goes to the client first.
pub enum Next {
    /// Read a command.
    Read,
    /// Read a line ([`crate::Reader::expect_line`]).
    ReadLine,
    /// Start TLS, forgetting whatever was read and not handled, then call
    /// [`Front::tls_started`].
    StartTls,
    /// Begin an exchange, then call [`Front::step`].
    Start {
        /// The mechanism, in upper case.
        mechanism: String,
        /// The initial response.
        initial: Option<Secret<Vec<u8>>>,
    },
    /// Pass an answer of the client on, then call [`Front::step`].
    Respond(Secret<Vec<u8>>),
    /// Drop the exchange: the client does not want it any more. Go on reading.
    Cancel,
    /// The log-in was accepted: hand the connection over.
    HandOver {
        /// Of the log-in command, which the session answers.
        tag: Tag,
        /// Whether it was AUTHENTICATE.
        authenticate: bool,
    },
    /// End the connection.
    Close,
}

/// What came of a step of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Wrong password, unknown user: one answer.
    BadCredentials,
    /// Not well-formed for the mechanism.
    BadMessage,
    /// No such mechanism.
    UnknownMechanism,
    /// TLS comes first.
    TlsRequired,
    /// Refused by a limit, unseen.
    TooManyFailures,
    /// A fault or an overload of ours.
    Temporary,
    /// The account may not log in; with what its user is told, of which printable ASCII counts.
    Disabled(String),
    /// The channel binding is not this connection's.
    ChannelBinding,
}

/// What the checking side answered.
pub enum Step<'a> {
    /// Go on with this.
    Challenge(&'a [u8]),
    /// Accepted, with data for the client if the mechanism has any.
    Success(Option<&'a [u8]>),
    /// Refused.
    Failure(Failure),
}

/// How the connection came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Without TLS, and none can be had.
    Plain,
    /// Without TLS, STARTTLS is offered.
    PlainWithStartTls,
    /// TLS.
    Tls,
}

#[derive(Debug)]
enum State {
    Commands,
    /// An answer of the checking side is awaited.
    Checking {
        tag: Tag,
        /// LOGIN has no lines of its own.
        by_login: bool,
    },
    /// A line of the client is awaited.
    Line {
        tag: Tag,
    },
    /// Success data was sent; an empty line comes before the end (RFC 4422 §5 where the protocol
    /// has no room for it).
    LastLine {
        tag: Tag,
    },
    Over,
}

/// Octets of words that come from elsewhere, as one line of an answer has them.
const MAX_TOLD: usize = 256;

/// What may stand in a `resp-text` of words from elsewhere (RFC 9051 §9).
fn shown(told: &str) -> String {
    let one_line = told.chars().filter(|c| (' '..='~').contains(c)).take(MAX_TOLD);
    let text: String = one_line.collect();
    // A bracket would begin another response code.
    if text.is_empty() || text.starts_with('[') { "account is disabled".into() } else { text }
}

/// Octets of what a client calls itself that are kept.
const MAX_AGENT: usize = 255;

/// Name and version of an ID (RFC 2971 §3.3).
fn agent(fields: &[(String, Option<String>)]) -> String {
    let value = |key| fields.iter().find(|(known, _)| known == key)?.1.as_deref();
    let words: Vec<&str> = ["name", "version"].into_iter().filter_map(value).collect();
    let mut line = words.join(" ");
    line.retain(|c| !c.is_control());
    line.truncate(line.floor_char_boundary(MAX_AGENT));
    line
}

/// Whether what is no command begins another protocol. `GET / HTTP/1.1` and `EHLO pc` begin with
/// something that may be a tag; an unknown command, or one with an argument too few, is no such thing
/// and gets its BAD (RFC 9051 §7.1.3).
fn is_other_protocol(frame: &[u8]) -> bool {
    let Some(tag) = tag_of(frame) else {
        // A TLS client hello, or whatever else that is not an empty line.
        return !frame.is_empty();
    };
    let line = frame.split(|&byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let second = words.nth(1).unwrap_or_default();
    let last = words.next_back().unwrap_or(second);
    // SMTP and LMTP, RFC 5321 §4.1.1.1, RFC 2033 §4.1.
    let is_mail =
        ["EHLO", "HELO", "LHLO"].iter().any(|word| tag.as_str().eq_ignore_ascii_case(word));
    // A path, or a version at the end (RFC 9112 §3; RTSP and SIP have the same line).
    let is_web = second.starts_with(b"/")
        || [&b"HTTP/"[..], b"RTSP/", b"SIP/"].iter().any(|version| last.starts_with(version));
    is_mail || is_web
}

/// A connection before log-in.
#[derive(Debug)]
pub struct Front {
    security: Security,
    /// Names of the mechanisms to announce; empty where TLS has to come first.
    mechanisms: Vec<String>,
    state: State,
    /// Refused log-ins left: the limits per address are elsewhere, this one ends a connection that
    /// only guesses.
    tries: u32,
    commands: u32,
    agent: String,
}

impl Front {
    /// A new connection that may fail to log in `tries` times.
    #[must_use]
    pub fn new(security: Security, mechanisms: Vec<String>, tries: u32) -> Self {
        Self {
            security,
            mechanisms,
            state: State::Commands,
            tries,
            commands: 0,
            agent: String::new(),
        }
    }

    /// The greeting.
    pub fn greet(&self, out: &mut Out) {
        let code = ResponseCode::Capability(self.capabilities());
        out.status(None, Condition::Ok, Some(&code), "ready");
    }

    /// A refusal in place of the greeting.
    pub fn turn_away(out: &mut Out, text: &'static str) {
        out.status(None, Condition::Bye, Some(&ResponseCode::Unavailable), text);
    }

    fn capabilities(&self) -> String {
        let mut list = "IMAP4rev2 IMAP4rev1 LITERAL+ SASL-IR ID ENABLE".to_owned();
        if self.security == Security::PlainWithStartTls {
            list.push_str(" STARTTLS");
        }
        for mechanism in &self.mechanisms {
            list.push_str(" AUTH=");
            list.push_str(mechanism);
        }
        if !self.login_possible() {
            list.push_str(" LOGINDISABLED");
        }
        list
    }

    /// LOGIN carries a password in clear, like PLAIN, so the two are offered together.
    fn login_possible(&self) -> bool {
        self.mechanisms.iter().any(|name| name == "PLAIN")
    }

    /// TLS was started; the mechanisms that may be announced now.
    pub fn tls_started(&mut self, mechanisms: Vec<String>) {
        self.security = Security::Tls;
        self.mechanisms = mechanisms;
        // RFC 9051 §6.2.1: what was said before TLS does not count.
        self.commands = 0;
        self.agent.clear();
    }

    /// What the client last called itself by ID; a line of at most 255 octets.
    #[must_use]
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// A command was read.
    pub fn command(&mut self, frame: &[u8], out: &mut Out) -> Next {
        let first = self.commands == 0;
        self.commands = self.commands.saturating_add(1);
        if self.commands > MAX_COMMANDS {
            out.status(None, Condition::Bye, None, "too many commands without a log-in");
            return self.close();
        }
        let command = match parse(frame, Names::Utf7) {
            Ok(command) => command,
            Err(error) => {
                if first && is_other_protocol(frame) {
                    // Such as a browser that was sent here: what it says next may look like
                    // commands.
                    out.status(None, Condition::Bye, None, "this is IMAP");
                    return self.close();
                }
                out.status(tag_of(frame).as_ref(), Condition::Bad, None, error.0);
                return Next::Read;
            }
        };
        let tag = command.tag;
        match command.verb {
            Verb::Capability => {
                let list = self.capabilities();
                out.untagged(format_args!("CAPABILITY {list}"));
                out.status(Some(&tag), Condition::Ok, None, "done");
                Next::Read
            }
            Verb::Noop => {
                out.status(Some(&tag), Condition::Ok, None, "done");
                Next::Read
            }
            Verb::Logout => {
                out.status(None, Condition::Bye, None, "logging out");
                out.status(Some(&tag), Condition::Ok, None, "done");
                self.close()
            }
            Verb::Id(fields) => {
                self.agent = agent(&fields);
                // RFC 2971 §3.3: no more before log-in than has to be told.
                out.text("* ID NIL\r\n");
                out.status(Some(&tag), Condition::Ok, None, "done");
                Next::Read
            }
            Verb::StartTls => match self.security {
                Security::PlainWithStartTls => {
                    out.status(Some(&tag), Condition::Ok, None, "begin TLS");
                    Next::StartTls
                }
                Security::Tls | Security::Plain => {
                    out.status(Some(&tag), Condition::Bad, None, "TLS cannot be started here");
                    Next::Read
                }
            },
            Verb::Authenticate { mechanism, initial } => self.authenticate(tag, mechanism, initial),
            Verb::Login(login) => self.login(tag, &login, out),
            Verb::Enable(_)
            | Verb::Select { .. }
            | Verb::Create { .. }
            | Verb::Delete(_)
            | Verb::Rename { .. }
            | Verb::Subscribe { .. }
            | Verb::List(_)
            | Verb::Lsub(_)
            | Verb::Namespace
            | Verb::Status { .. }
            | Verb::Idle
            | Verb::Check
            | Verb::Close
            | Verb::Unselect
            | Verb::Expunge(_)
            | Verb::Search(_)
            | Verb::Fetch(_)
            | Verb::Store(_)
            | Verb::Copy { .. } => {
                out.status(Some(&tag), Condition::No, None, "log in first");
                Next::Read
            }
        }
    }

    fn authenticate(
        &mut self,
        tag: Tag,
        mechanism: String,
        initial: Option<Secret<Vec<u8>>>,
    ) -> Next {
        self.state = State::Checking { tag, by_login: false };
        Next::Start { mechanism, initial }
    }

    /// LOGIN is PLAIN in other words (RFC 4616 §2).
    fn login(&mut self, tag: Tag, login: &Login, out: &mut Out) -> Next {
        if !self.login_possible() {
            let code = ResponseCode::PrivacyRequired;
            out.status(Some(&tag), Condition::No, Some(&code), "start TLS first");
            return Next::Read;
        }
        let password = login.password.expose();
        // A NUL would shift the fields of PLAIN.
        if login.user.contains('\0') || password.contains(&0) {
            out.status(Some(&tag), Condition::Bad, None, "NUL in user name or password");
            return Next::Read;
        }
        let mut message = vec![0];
        message.extend_from_slice(login.user.as_bytes());
        message.push(0);
        message.extend_from_slice(password);
        self.state = State::Checking { tag, by_login: true };
        Next::Start { mechanism: "PLAIN".to_owned(), initial: Some(Secret::new(message)) }
    }

    /// The checking side answered.
    pub fn step(&mut self, step: &Step<'_>, out: &mut Out) -> Next {
        let State::Checking { tag, by_login } = std::mem::replace(&mut self.state, State::Commands)
        else {
            self.state = State::Over;
            return Next::Close;
        };
        match step {
            Step::Challenge(_) if by_login => {
                out.status(
                    Some(&tag),
                    Condition::No,
                    Some(&ResponseCode::ServerBug),
                    "cannot log in",
                );
                Next::Cancel
            }
            Step::Challenge(data) => {
                out.show(format_args!("+ {}\r\n", BASE64.encode(data)));
                self.state = State::Line { tag };
                Next::ReadLine
            }
            Step::Success(Some(data)) if !by_login => {
                // IMAP has no room for it in the OK: one more challenge, answered empty.
                out.show(format_args!("+ {}\r\n", BASE64.encode(data)));
                self.state = State::LastLine { tag };
                Next::ReadLine
            }
            Step::Success(_) => {
                self.state = State::Over;
                Next::HandOver { tag, authenticate: !by_login }
            }
            Step::Failure(why) => self.failed(&tag, why, out),
        }
    }

    fn failed(&mut self, tag: &Tag, why: &Failure, out: &mut Out) -> Next {
        let disabled = if let Failure::Disabled(told) = why { shown(told) } else { String::new() };
        let (condition, code, text) = match why {
            Failure::BadCredentials => (
                Condition::No,
                Some(ResponseCode::AuthenticationFailed),
                "user name or password is wrong",
            ),
            Failure::BadMessage => (Condition::Bad, None, "malformed authentication message"),
            Failure::UnknownMechanism => {
                (Condition::No, Some(ResponseCode::Cannot), "mechanism is not known")
            }
            Failure::TlsRequired => {
                (Condition::No, Some(ResponseCode::PrivacyRequired), "start TLS first")
            }
            Failure::TooManyFailures => (
                Condition::No,
                Some(ResponseCode::Unavailable),
                "too many failed log-ins, try again later",
            ),
            Failure::Temporary => {
                (Condition::No, Some(ResponseCode::Unavailable), "try again later")
            }
            // Without AUTHENTICATIONFAILED, so that clients do not ask for another password.
            Failure::Disabled(_) => {
                (Condition::No, Some(ResponseCode::ContactAdmin), disabled.as_str())
            }
            Failure::ChannelBinding => (
                Condition::No,
                Some(ResponseCode::AuthenticationFailed),
                "channel binding does not match: somebody may be listening in",
            ),
        };
        out.status(Some(tag), condition, code.as_ref(), text);
        if matches!(why, Failure::Temporary) {
            return Next::Read;
        }
        self.tries = self.tries.saturating_sub(1);
        if self.tries == 0 {
            out.status(None, Condition::Bye, None, "too many failed log-ins");
            return self.close();
        }
        Next::Read
    }

    /// A line was read inside an exchange.
    pub fn line(&mut self, line: &[u8], out: &mut Out) -> Next {
        let (tag, last) = match std::mem::replace(&mut self.state, State::Commands) {
            State::Line { tag } => (tag, false),
            State::LastLine { tag } => (tag, true),
            State::Commands | State::Checking { .. } | State::Over => return self.close(),
        };
        if line == b"*" {
            // RFC 9051 §6.2.2.
            out.status(Some(&tag), Condition::Bad, None, "cancelled");
            return Next::Cancel;
        }
        let decoded = match sasl_base64(line) {
            Ok(decoded) if decoded.len() <= MAX_SASL => decoded,
            Ok(_) | Err(_) => {
                out.status(Some(&tag), Condition::Bad, None, "malformed authentication message");
                return Next::Cancel;
            }
        };
        if last {
            if !decoded.is_empty() {
                out.status(Some(&tag), Condition::Bad, None, "expected an empty line");
                return Next::Cancel;
            }
            self.state = State::Over;
            return Next::HandOver { tag, authenticate: true };
        }
        self.state = State::Checking { tag, by_login: false };
        Next::Respond(Secret::new(decoded))
    }

    /// The connection cannot be handed over: the session it belongs to is away.
    pub fn hand_over_failed(&mut self, tag: &Tag, out: &mut Out) -> Next {
        self.state = State::Commands;
        let code = ResponseCode::Unavailable;
        out.status(Some(tag), Condition::No, Some(&code), "try again later");
        Next::Read
    }

    /// The reader refused something.
    pub fn refused(&mut self, refusal: &Refusal, out: &mut Out) -> Next {
        self.commands = self.commands.saturating_add(1);
        if refusal.fatal || refusal.tag.is_none() || self.commands > MAX_COMMANDS {
            out.status(None, Condition::Bye, None, refusal.text);
            return self.close();
        }
        let (condition, code) = refusal.fault.told();
        out.status(refusal.tag.as_ref(), condition, code.as_ref(), refusal.text);
        self.state = State::Commands;
        Next::Read
    }

    fn close(&mut self) -> Next {
        self.state = State::Over;
        Next::Close
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Piece;

    fn text(out: &mut Out) -> String {
        out.take()
            .into_iter()
            .map(|piece| match piece {
                Piece::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
                other @ (Piece::Content { .. } | Piece::Decoded { .. }) => panic!("{other:?}"),
            })
            .collect()
    }

    const TRIES: u32 = 5;

    fn front(security: Security) -> Front {
        let names: &[&str] = if security == Security::Tls {
            &["SCRAM-SHA-256", "PLAIN"]
        } else {
            &["SCRAM-SHA-256"]
        };
        Front::new(security, names.iter().map(|name| (*name).to_owned()).collect(), TRIES)
    }

    #[test]
    fn what_is_announced() {
        let mut out = Out::new();
        front(Security::Tls).greet(&mut out);
        let greeting = text(&mut out);
        assert!(greeting.starts_with("* OK [CAPABILITY IMAP4rev2 "), "{greeting}");
        assert!(greeting.contains("AUTH=PLAIN") && !greeting.contains("STARTTLS"));
        assert!(!greeting.contains("LOGINDISABLED"));
        front(Security::PlainWithStartTls).greet(&mut out);
        let greeting = text(&mut out);
        assert!(greeting.contains(" STARTTLS") && greeting.contains(" LOGINDISABLED"));
        assert!(!greeting.contains("AUTH=PLAIN"));
    }

    #[test]
    fn login_is_plain() {
        let (mut front, mut out) = (front(Security::Tls), Out::new());
        let next = front.command(b"a LOGIN alice \"s\\\\e\"", &mut out);
        let Next::Start { mechanism, initial: Some(initial) } = next else { panic!() };
        assert_eq!(mechanism, "PLAIN");
        assert!(initial.same_as(b"\0alice\0s\\e"));
        let next = front.step(&Step::Failure(Failure::BadCredentials), &mut out);
        assert!(matches!(next, Next::Read));
        assert!(text(&mut out).starts_with("a NO [AUTHENTICATIONFAILED] "));
        front.command(b"b LOGIN alice x", &mut out);
        let next = front.step(&Step::Success(None), &mut out);
        assert!(matches!(next, Next::HandOver { tag, authenticate: false } if tag.as_str() == "b"));
        // Without TLS it never leaves this process.
        let mut front = super::tests::front(Security::PlainWithStartTls);
        assert!(matches!(front.command(b"a LOGIN alice x", &mut out), Next::Read));
        assert!(text(&mut out).starts_with("a NO [PRIVACYREQUIRED] "));
    }

    #[test]
    fn an_exchange_with_success_data() {
        let (mut front, mut out) = (front(Security::Tls), Out::new());
        let next = front.command(b"a AUTHENTICATE scram-sha-256", &mut out);
        assert!(matches!(next, Next::Start { initial: None, .. }));
        assert!(matches!(front.step(&Step::Challenge(b""), &mut out), Next::ReadLine));
        assert_eq!(text(&mut out), "+ \r\n");
        let Next::Respond(answer) = front.line(b"Zm9v", &mut out) else { panic!() };
        assert!(answer.same_as(b"foo"));
        assert!(matches!(front.step(&Step::Success(Some(b"v=x")), &mut out), Next::ReadLine));
        assert_eq!(text(&mut out), "+ dj14\r\n");
        assert!(matches!(front.line(b"", &mut out), Next::HandOver { authenticate: true, .. }));
        assert_eq!(text(&mut out), "");
    }

    #[test]
    fn exchanges_that_end() {
        let (mut front, mut out) = (front(Security::Tls), Out::new());
        for (line, answer) in [(&b"*"[..], "a BAD "), (b"!", "a BAD ")] {
            front.command(b"a AUTHENTICATE PLAIN", &mut out);
            front.step(&Step::Challenge(b""), &mut out);
            text(&mut out);
            assert!(matches!(front.line(line, &mut out), Next::Cancel));
            assert!(text(&mut out).starts_with(answer));
        }
        for left in (0..TRIES).rev() {
            front.command(b"a AUTHENTICATE PLAIN AGEAYg==", &mut out);
            let next = front.step(&Step::Failure(Failure::BadCredentials), &mut out);
            assert_eq!(matches!(next, Next::Close), left == 0);
        }
        assert!(text(&mut out).contains("* BYE "));
    }

    #[test]
    fn what_a_client_calls_itself() {
        let (mut front, mut out) = (front(Security::PlainWithStartTls), Out::new());
        assert_eq!(front.agent(), "");
        front.command(b"a ID (\"os\" \"x\" \"version\" \"1.0\" \"Name\" \"Bi\trd\")", &mut out);
        assert_eq!(front.agent(), "Bird 1.0");
        // Whoever sat between could have said it.
        front.tls_started(Vec::new());
        assert_eq!(front.agent(), "");
        let long = format!("b ID (\"name\" \"x{}\")", "\u{e4}".repeat(200));
        front.command(long.as_bytes(), &mut out);
        assert_eq!(front.agent().len(), MAX_AGENT);
        front.command(b"c ID NIL", &mut out);
        assert_eq!(front.agent(), "");
    }

    #[test]
    fn strangers() {
        let mut out = Out::new();
        for first in [
            &b"POST / HTTP/1.1"[..],
            b"GET /",
            b"GET http://x/ HTTP/1.0",
            b"PRI * HTTP/2.0",
            b"OPTIONS sip:x SIP/2.0",
            b"\x16\x03\x01",
            b"EHLO pc.example",
            b"helo",
            b"LHLO [192.0.2.1]",
        ] {
            assert!(matches!(front(Security::Tls).command(first, &mut out), Next::Close));
            assert_eq!(text(&mut out), "* BYE this is IMAP\r\n", "{first:?}");
        }
        // A client that knows more than we do, or makes a mistake.
        for first in [&b"a XYZZY"[..], b"a", b"a ", b"a LOGIN x", b"GET NOOP x", b"a X HTTP"] {
            let mut front = front(Security::Tls);
            assert!(matches!(front.command(first, &mut out), Next::Read));
            let said = text(&mut out);
            let tag = first.split(|b| *b == b' ').next().unwrap();
            let bad = [tag, b" BAD "].concat();
            assert!(said.as_bytes().starts_with(&bad), "{first:?}: {said}");
            assert!(matches!(front.command(b"EHLO NOOP", &mut out), Next::Read));
            assert_eq!(text(&mut out), "EHLO OK done\r\n");
        }
        let mut front = front(Security::Tls);
        assert!(matches!(front.command(b"a SELECT INBOX", &mut out), Next::Read));
        assert!(text(&mut out).starts_with("a NO "));
        assert!(matches!(front.command(b"a STARTTLS", &mut out), Next::Read));
        assert!(text(&mut out).starts_with("a BAD "));
        for _ in 0..MAX_COMMANDS {
            if matches!(front.command(b"a NOOP", &mut out), Next::Close) {
                return;
            }
        }
        panic!("commands without a log-in are bounded");
    }

    #[test]
    fn words_for_the_user_of_a_disabled_account_are_one_short_line() {
        assert_eq!(shown("on leave, ask +1 555"), "on leave, ask +1 555");
        assert_eq!(shown("a\r\n* BYE b\u{e9}"), "a* BYE b");
        assert_eq!(shown("[ALERT] x"), "account is disabled");
        assert_eq!(shown(""), "account is disabled");
        assert_eq!(shown(&"x".repeat(999)).len(), MAX_TOLD);
    }
}
