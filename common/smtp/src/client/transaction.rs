//! One message to some recipients of one server, and what became of each.

use super::{Ended, Extensions};
use crate::Response;
use types::{Address, ReversePath};

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The reverse-path.
    pub from: ReversePath,
    /// The recipients, at least one.
    pub recipients: Vec<Address>,
    /// Octets of the content, for SIZE.
    pub size: u64,
    /// The content has octets above 127.
    pub eight_bit: bool,
    /// The content or an address needs SMTPUTF8.
    pub smtputf8: bool,
    /// REQUIRETLS was asked for.
    pub requiretls: bool,
}

/// What a message needs and the server has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// RFC 6531.
    #[error("server lacks SMTPUTF8")]
    SmtpUtf8,
    /// RFC 8689.
    #[error("server lacks REQUIRETLS")]
    RequireTls,
    /// The announced SIZE is smaller.
    #[error("message larger than the {0} octets the server takes")]
    Size(u64),
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientResult {
    /// The server has the message and said so.
    Delivered(Response),
    /// Not delivered, try again later.
    Temporary(Response),
    /// Not delivered, and never will be.
    Permanent(Response),
    /// Not part of this transaction after all (RFC 5321 §4.5.3.1.10, RFC 9422): send it in another
    /// one, on the same connection.
    Another,
}

/// How many commands may wait for their answers: the answers must fit the buffers of the network,
/// or both sides wait for each other (RFC 2920 §3.1).
const WINDOW: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Open,
    Accepted(Response),
    Ended(RecipientResult),
}

/// A transaction under way.
#[derive(Debug)]
pub(super) struct Running {
    commands: Vec<String>,
    standing: Vec<Standing>,
    sent: usize,
    answered: usize,
    window: usize,
    data_sent: bool,
}

impl Running {
    pub(super) fn new(transaction: Transaction, known: &Extensions) -> Result<Self, Lack> {
        let Transaction { from, recipients, size, eight_bit, smtputf8, requiretls } = transaction;
        let utf8 = smtputf8
            || from.address().is_some_and(|from| from.localpart().needs_smtputf8())
            || recipients.iter().any(|to| to.localpart().needs_smtputf8());
        if utf8 && !known.smtputf8 {
            return Err(Lack::SmtpUtf8);
        }
        if requiretls && !known.requiretls {
            return Err(Lack::RequireTls);
        }
        if let Some(limit) = known.size.filter(|&limit| size > limit) {
            return Err(Lack::Size(limit));
        }
        let mut mail = format!("MAIL FROM:{from}");
        if known.size_known {
            mail.push_str(&format!(" SIZE={size}"));
        }
        // A server without 8BITMIME gets the octets as they are: all of them pass these today, and
        // rewriting would break every signature.
        if eight_bit && known.eight_bit_mime {
            mail.push_str(" BODY=8BITMIME");
        }
        if utf8 {
            mail.push_str(" SMTPUTF8");
        }
        if requiretls {
            mail.push_str(" REQUIRETLS");
        }
        let most = known.rcpt_max.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let standing =
            (0..recipients.len())
                .map(|at| {
                    if at < most {
                        Standing::Open
                    } else {
                        Standing::Ended(RecipientResult::Another)
                    }
                })
                .collect();
        let rcpts = recipients.iter().take(most).map(|to| format!("RCPT TO:<{to}>"));
        Ok(Self {
            commands: std::iter::once(mail).chain(rcpts).collect(),
            standing,
            sent: 0,
            answered: 0,
            window: if known.pipelining { WINDOW } else { 1 },
            data_sent: false,
        })
    }

    fn waiting(&self) -> usize {
        self.sent.saturating_sub(self.answered)
    }

    pub(super) fn can_send(&self) -> bool {
        let more = self.sent < self.commands.len();
        // Refills when half the window is answered, so that a long list is few packets.
        more && (self.waiting() == 0 || self.waiting() <= self.window / 2 && self.window > 1)
    }

    pub(super) fn write(&mut self, out: &mut Vec<u8>) {
        while self.waiting() < self.window {
            let Some(command) = self.commands.get(self.sent) else {
                break;
            };
            out.extend_from_slice(command.as_bytes());
            out.extend_from_slice(b"\r\n");
            self.sent = self.sent.saturating_add(1);
        }
        // DATA closes the group (RFC 2920 §3.1) and saves a round trip.
        if self.window > 1 && self.sent == self.commands.len() {
            out.extend_from_slice(b"DATA\r\n");
            self.data_sent = true;
        }
    }

    pub(super) fn data_sent(&self) -> bool {
        self.data_sent
    }

    pub(super) fn all_answered(&self) -> bool {
        self.answered == self.commands.len()
    }

    /// Whether the next answer is that to DATA.
    pub(super) fn data_is_next(&self) -> bool {
        self.data_sent && self.all_answered()
    }

    pub(super) fn has_accepted(&self) -> bool {
        self.standing.iter().any(|s| matches!(s, Standing::Accepted(_)))
    }

    /// The answer to MAIL or the next RCPT.
    pub(super) fn answered(&mut self, response: Response) {
        let index = self.answered;
        self.answered = self.answered.saturating_add(1);
        let Some(recipient) = index.checked_sub(1) else {
            if !response.is_success() {
                self.end_open(&response);
                // Without pipelining no RCPT was sent, and none will be.
                self.commands.truncate(self.sent.max(1));
            }
            return;
        };
        let first = recipient == 0;
        if let Some(slot) = self.standing.get_mut(recipient).filter(|s| **s == Standing::Open) {
            *slot = match response.code() {
                _ if response.is_success() => Standing::Accepted(response),
                // RFC 5321 §4.5.3.1.10: both say "too many"; the first cannot be too many.
                452 | 552 if !first => Standing::Ended(RecipientResult::Another),
                552 => Standing::Ended(RecipientResult::Temporary(response)),
                _ => Standing::Ended(failure(response)),
            };
        }
    }

    /// The answer to DATA, or to the end of the content.
    pub(super) fn content_answered(&mut self, response: &Response) {
        for slot in &mut self.standing {
            if matches!(slot, Standing::Accepted(_)) {
                *slot = Standing::Ended(if response.is_success() {
                    RecipientResult::Delivered(response.clone())
                } else {
                    failure(response.clone())
                });
            }
        }
    }

    fn end_open(&mut self, response: &Response) {
        for slot in &mut self.standing {
            if matches!(slot, Standing::Open | Standing::Accepted(_)) {
                *slot = Standing::Ended(failure(response.clone()));
            }
        }
    }

    pub(super) fn results(mut self) -> Vec<RecipientResult> {
        self.end_open(&Response::made(451, (4, 5, 0), "Transaction not completed"));
        self.standing
            .into_iter()
            .filter_map(|s| match s {
                Standing::Ended(result) => Some(result),
                Standing::Open | Standing::Accepted(_) => None,
            })
            .collect()
    }

    pub(super) fn refused_by(mut self, response: &Response) -> Vec<RecipientResult> {
        self.end_open(response);
        self.results()
    }

    /// What is left undecided when the connection ends. After the last dot the server may have the
    /// message all the same; sending it twice is better than losing it.
    pub(super) fn broken_off(mut self, why: &Ended) -> Vec<RecipientResult> {
        let response = match why {
            Ended::TimedOut => Response::made(451, (4, 4, 2), "Server did not answer in time"),
            Ended::Protocol(_) => Response::made(451, (4, 5, 0), "Server does not speak SMTP"),
            Ended::BadContent => {
                Response::made(554, (5, 6, 0), "Content with a CR or LF alone cannot be sent")
            }
            Ended::Refused(response) => response.clone(),
            Ended::Quit
            | Ended::NoStartTls
            | Ended::StartTlsRefused(_)
            | Ended::Injected
            | Ended::Closed => Response::made(451, (4, 4, 2), "Server closed the connection"),
        };
        self.end_open(&response);
        self.results()
    }
}

fn failure(response: Response) -> RecipientResult {
    // What is neither success nor 5yz (a 3yz where none belongs) may be better next time.
    if response.is_permanent() {
        RecipientResult::Permanent(response)
    } else {
        RecipientResult::Temporary(response)
    }
}
