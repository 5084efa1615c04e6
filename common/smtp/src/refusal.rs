//! Every reason to refuse, and the one place that says how each is put to the peer.
//!
//! RFC 5321 §4.2.1: 4yz asks the client to keep the mail and try again. A fault of ours must never
//! come out as 5yz, or the sender bounces good mail.

use crate::{Defect, Reply, SyntaxError};

/// What the mail store decided; its words are passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    reply: Reply,
    /// The connection is to end.
    pub close: bool,
}

impl Said {
    /// From the parts that travel between processes. What is no refusal becomes 451: an error in
    /// another process must not be told as success or as a lasting failure.
    #[must_use]
    pub fn new(code: u16, enhanced: &str, text: &str, close: bool) -> Self {
        let enhanced = crate::Enhanced::parse(enhanced);
        let reply = match enhanced {
            Some(e) if (400..600).contains(&code) && u16::from(e.class) == code / 100 => {
                Reply::new(code, (e.class, e.subject, e.detail), text)
            }
            Some(_) | None => Reply::new(451, (4, 3, 0), "Local error, try again later"),
        };
        Self { reply, close }
    }

    /// Whether it says that the only recipient does not exist. The store says so behind DATA when
    /// it comes first, so that names cannot be tried out one RCPT at a time.
    pub(crate) fn is_unknown_recipient(&self) -> bool {
        self.reply.enhanced() == Some((5, 1, 1).into())
    }
}

/// Why a connection is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmitRefused {
    /// Too many at once from this network.
    TooManyConnections,
    /// Too many in a minute from this network.
    TooManyPerMinute,
    /// Too many failed log-ins from this network.
    TooManyFailedLogins,
    /// The process that counts is away, or this one is full.
    Unavailable,
}

/// Why a MAIL is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailRefused {
    /// The store decided.
    Said(Said),
    /// The store is away or overloaded.
    Unavailable,
    /// An address literal as reverse-path; nobody could answer.
    Literal,
    /// SIZE above the limit.
    TooLarge,
    /// REQUIRETLS without TLS.
    RequireTlsWithoutTls,
    /// HOLDFOR or HOLDUNTIL in the past or too far ahead.
    HoldOutOfRange,
    /// No log-in where one is needed.
    NotLoggedIn,
}

/// Why a RCPT is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RcptRefused {
    /// The store decided.
    Said(Said),
    /// The store is away or overloaded.
    Unavailable,
    /// An address literal.
    Literal,
    /// More recipients than one transaction takes.
    TooMany,
    /// A path beyond ASCII in a transaction without SMTPUTF8.
    NeedsSmtpUtf8,
    /// The listener asks for TLS first.
    TlsFirst,
}

/// Why DATA is refused before 354.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataRefused {
    /// The store decided.
    Said(Said),
    /// The store is away or overloaded.
    Unavailable,
}

/// Why a message that came whole is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitRefused {
    /// The store decided.
    Said(Said),
    /// The store went away, or could not write.
    Unavailable,
    /// It came with a defect.
    Defect(Defect),
    /// More Received fields than any honest path makes.
    Loop,
    /// No empty line behind the header, from a user's program.
    NoSeparator,
}

/// Why a log-in failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthRefused {
    /// Wrong password, unknown user, user who may not: one answer.
    BadCredentials,
    /// Not well-formed for the mechanism.
    BadMessage,
    /// No such mechanism.
    UnknownMechanism,
    /// TLS has to come first.
    TlsRequired,
    /// The limiter refused without looking.
    TooManyFailures,
    /// A fault or overload of ours.
    Temporary,
    /// The client gave up with `*`.
    Cancelled,
    /// The account is disabled, with the administrator's words for its user, of which printable ASCII
    /// counts; told after a correct proof only.
    AccountDisabled(String),
    /// The channel binding is not this connection's.
    ChannelBinding,
    /// No base64.
    Base64,
}

fn try_later() -> Reply {
    Reply::new(451, (4, 3, 0), "Local error, try again later")
}

impl From<AdmitRefused> for Reply {
    fn from(why: AdmitRefused) -> Self {
        match why {
            AdmitRefused::TooManyConnections => {
                Self::new(421, (4, 7, 0), "Too many connections from your network")
            }
            AdmitRefused::TooManyPerMinute => {
                Self::new(421, (4, 7, 0), "Connections from your network come too fast")
            }
            AdmitRefused::TooManyFailedLogins => {
                Self::new(421, (4, 7, 0), "Too many failed log-ins from your network")
            }
            AdmitRefused::Unavailable => Self::new(421, (4, 3, 0), "Service not available"),
        }
    }
}

impl From<&MailRefused> for Reply {
    fn from(why: &MailRefused) -> Self {
        match why {
            MailRefused::Said(said) => said.reply.clone(),
            MailRefused::Unavailable => try_later(),
            MailRefused::Literal => Self::new(550, (5, 7, 0), "No address literal as sender"),
            // RFC 1870 §6.1 with RFC 2034: the system's limit rather than the mailbox's.
            MailRefused::TooLarge => Self::new(552, (5, 3, 4), "Message size exceeds the limit"),
            MailRefused::RequireTlsWithoutTls => {
                Self::new(523, (5, 7, 10), "REQUIRETLS needs TLS on this connection")
            }
            MailRefused::HoldOutOfRange => {
                Self::new(554, (5, 5, 4), "Release time in the past or too far in the future")
            }
            MailRefused::NotLoggedIn => Self::new(530, (5, 7, 0), "Log in first"),
        }
    }
}

impl From<&RcptRefused> for Reply {
    fn from(why: &RcptRefused) -> Self {
        match why {
            RcptRefused::Said(said) => said.reply.clone(),
            RcptRefused::Unavailable => try_later(),
            RcptRefused::Literal => Self::new(550, (5, 1, 1), "No address literals here"),
            // RFC 5321 §4.5.3.1.10: 452, so that the client sends the rest in a new transaction.
            RcptRefused::TooMany => Self::new(452, (4, 5, 3), "Too many recipients"),
            RcptRefused::NeedsSmtpUtf8 => {
                Self::new(553, (5, 6, 7), "Address needs SMTPUTF8, which was not asked for")
            }
            RcptRefused::TlsFirst => Self::new(530, (5, 7, 0), "Use STARTTLS first"),
        }
    }
}

impl From<&DataRefused> for Reply {
    fn from(why: &DataRefused) -> Self {
        match why {
            DataRefused::Said(said) => said.reply.clone(),
            DataRefused::Unavailable => try_later(),
        }
    }
}

impl From<&CommitRefused> for Reply {
    fn from(why: &CommitRefused) -> Self {
        match why {
            CommitRefused::Said(said) => said.reply.clone(),
            CommitRefused::Unavailable => try_later(),
            CommitRefused::Defect(Defect::LineEnds) => {
                Self::new(554, (5, 5, 2), "Message with a CR or LF alone; lines end in CRLF")
            }
            CommitRefused::Defect(Defect::TooLarge) => {
                Self::new(552, (5, 3, 4), "Message size exceeds the limit")
            }
            CommitRefused::Defect(Defect::LineTooLong) => {
                Self::new(554, (5, 6, 0), "Message with a line that is too long")
            }
            CommitRefused::Loop => Self::new(550, (5, 4, 6), "Mail loop: too many Received fields"),
            CommitRefused::NoSeparator => {
                Self::new(554, (5, 6, 0), "Message without an empty line behind the header")
            }
        }
    }
}

/// Octets of words that come from elsewhere.
const MAX_TOLD: usize = 256;

/// Words from elsewhere as one line of a reply.
fn shown(told: &str) -> String {
    let text: String = told.chars().filter(|c| (' '..='~').contains(c)).take(MAX_TOLD).collect();
    if text.trim().is_empty() { "Account disabled".into() } else { text }
}

impl From<AuthRefused> for Reply {
    fn from(why: AuthRefused) -> Self {
        match why {
            AuthRefused::BadCredentials => Self::new(535, (5, 7, 8), "Bad user name or password"),
            AuthRefused::BadMessage => Self::new(501, (5, 5, 2), "Bad authentication message"),
            AuthRefused::UnknownMechanism => Self::new(504, (5, 5, 4), "Unknown mechanism"),
            AuthRefused::TlsRequired => Self::new(538, (5, 7, 11), "Use STARTTLS first"),
            AuthRefused::TooManyFailures => {
                Self::new(421, (4, 7, 0), "Too many failed log-ins from your network")
            }
            AuthRefused::Temporary => Self::new(454, (4, 3, 0), "Cannot log you in now"),
            AuthRefused::Cancelled => Self::new(501, (5, 5, 0), "Log-in cancelled"),
            AuthRefused::AccountDisabled(told) => Self::new(525, (5, 7, 13), shown(&told)),
            AuthRefused::ChannelBinding => {
                Self::new(535, (5, 7, 7), "Channel binding is not that of this connection")
            }
            AuthRefused::Base64 => Self::new(501, (5, 5, 2), "Bad base64"),
        }
    }
}

impl From<&SyntaxError> for Reply {
    fn from(why: &SyntaxError) -> Self {
        match why {
            SyntaxError::Unknown => Self::new(500, (5, 5, 1), "Unknown command"),
            SyntaxError::Arguments(what) => Self::new(501, (5, 5, 2), format!("Syntax: {what}")),
            SyntaxError::PathTooLong => Self::new(501, (5, 5, 2), "Syntax: path too long"),
            SyntaxError::Duplicate => Self::new(501, (5, 5, 4), "Parameter given twice"),
            SyntaxError::UnknownParameter => Self::new(555, (5, 3, 3), "Unknown parameter"),
            SyntaxError::UnknownBody => Self::new(555, (5, 5, 4), "Unknown body type"),
            SyntaxError::NeedsSmtpUtf8 => {
                Self::new(550, (5, 6, 7), "Address needs SMTPUTF8, which was not asked for")
            }
            SyntaxError::Base64 => Self::new(501, (5, 5, 2), "Bad base64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_ours_is_never_permanent() {
        let ours: [Reply; 6] = [
            AdmitRefused::Unavailable.into(),
            (&MailRefused::Unavailable).into(),
            (&RcptRefused::Unavailable).into(),
            (&DataRefused::Unavailable).into(),
            (&CommitRefused::Unavailable).into(),
            AuthRefused::Temporary.into(),
        ];
        assert!(ours.iter().all(|reply| (400..500).contains(&reply.code())), "{ours:?}");
    }

    #[test]
    fn what_another_process_says_is_checked() {
        let told = |code, enhanced| {
            Reply::from(&CommitRefused::Said(Said::new(code, enhanced, "x", false))).code()
        };
        assert_eq!(told(550, "5.7.26"), 550);
        assert_eq!(told(452, "4.2.2"), 452);
        for (code, enhanced) in [(250, "2.0.0"), (0, ""), (550, "4.7.1"), (550, ""), (999, "5.0.0")]
        {
            assert_eq!(told(code, enhanced), 451, "{code} {enhanced}");
        }
    }
}
