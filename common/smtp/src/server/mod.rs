//! The server's side of a session.
//!
//! [`Session`] decides: an event goes in, it consumes itself, actions come out. [`Connection`]
//! puts it on a stream of bytes: lines, DATA, pipelining, what must be flushed when. Neither does
//! I/O; `smtpd` carries the steps out, and so does the transcript runner of the tests.

mod auth;
mod connection;
pub mod limits;
mod session;
mod transaction;

pub use crate::refusal::Said;
pub use connection::{Connection, Step, Tally};
pub use session::{Action, Event, Session};

use crate::{
    AdmitRefused, AuthRefused, CommitRefused, DataRefused, ForwardPath, MailParams, MailRefused,
    RcptRefused,
};
use std::{net::IpAddr, time::Instant};
use types::{Domain, HostLiteral, ReversePath, Secret, SessionId, UnixNanos};

/// Which kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Port 25: mail for local recipients from anybody.
    Mx,
    /// 587 and 465: mail from users, after log-in.
    Submission,
}

/// What the administrator decided about a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Which kind.
    pub role: Role,
    /// The name in greeting, EHLO and Received.
    pub host: Domain,
    /// TLS before the greeting.
    pub implicit_tls: bool,
    /// STARTTLS is offered.
    pub starttls: bool,
    /// Without TLS: no recipients (mx), no log-in (submission).
    pub require_tls: bool,
    /// REQUIRETLS (RFC 8689) is offered on connections with TLS.
    pub requiretls: bool,
    /// Every tolerance of syntax off.
    pub pedantic: bool,
    /// The largest message.
    pub max_size: u64,
    /// What a client may do.
    pub limits: limits::Limits,
}

impl Settings {
    /// A listener as it comes.
    #[must_use]
    pub fn new(role: Role, host: Domain) -> Self {
        Self {
            role,
            host,
            implicit_tls: false,
            starttls: true,
            require_tls: role == Role::Submission,
            requiretls: true,
            pedantic: false,
            max_size: limits::DEFAULT_MAX_SIZE,
            limits: limits::Limits::default(),
        }
    }
}

/// Who connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// From where.
    pub ip: IpAddr,
    /// The name of the connection in replies, Received and logs.
    pub id: SessionId,
}

/// Both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For deadlines.
    pub mono: Instant,
    /// For dates.
    pub wall: UnixNanos,
}

/// What the session has to ask others.
pub enum Question {
    /// May this connection come in?
    Admit,
    /// Which SASL mechanisms does a connection like this get?
    Mechanisms,
    /// Begin a log-in. An exchange under way is over with it.
    AuthStart {
        /// In upper case.
        mechanism: String,
        /// The initial response.
        initial: Option<Secret<Vec<u8>>>,
        /// What the client called itself: a short line, perhaps empty.
        agent: String,
    },
    /// The client's next message of the log-in.
    AuthRespond(Secret<Vec<u8>>),
    /// MAIL: may this envelope begin?
    Begin(Begin),
    /// RCPT: may this one have it?
    Recipient(ForwardPath),
    /// DATA: is there a place for the content?
    OpenData,
    /// The content is whole; make it durable. Carries our Received field.
    Commit(String),
}

/// An envelope about to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// What the client called itself; on submission our own name, as it tells nothing there.
    pub hello: HostLiteral,
    /// It said EHLO rather than HELO.
    pub extended: bool,
    /// The reverse-path.
    pub from: ReversePath,
    /// As given.
    pub params: MailParams,
    /// From HOLDFOR or HOLDUNTIL, not in the past.
    pub hold_until: Option<UnixNanos>,
}

/// The answer to a [`Question`] of the same name.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Question::Admit`].
    Admit(Result<(), AdmitRefused>),
    /// To [`Question::Mechanisms`], in the order to announce.
    /// None while nobody can say.
    Mechanisms(Option<Vec<String>>),
    /// To [`Question::AuthStart`] and [`Question::AuthRespond`].
    Auth(AuthAnswer),
    /// To [`Question::Begin`].
    Begin(Result<(), MailRefused>),
    /// To [`Question::Recipient`].
    Recipient(Result<(), RcptRefused>),
    /// To [`Question::OpenData`].
    OpenData(Result<(), DataRefused>),
    /// To [`Question::Commit`]: the name of the message in the log, once it is durable.
    Commit(Result<String, CommitRefused>),
}

/// How a log-in goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthAnswer {
    /// The client has to answer this.
    Challenge(Vec<u8>),
    /// Logged in. RFC 4422 §3.6: data with success, which SMTP sends as a last challenge.
    Success(Option<Vec<u8>>),
    /// Not logged in.
    Refused(AuthRefused),
}
