//! What comes into the store: a message, what the parser said of it, and where it belongs.

use super::types::{Flags, Keyword, MailboxId, Role};
use std::{fs::File, io, os::unix::fs::FileExt as _};
use types::{DeliveryId, UnixNanos};

/// The longest message any account takes; policy asks for less.
pub const MAX_MESSAGE: u64 = 1 << 30;

/// The bytes of a message, with CRLF line ends.
pub enum Content {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file (spooled, unlinked), from its beginning.
    File {
        /// The file.
        file: File,
        /// How much of it.
        len: u64,
    },
}

impl Content {
    /// How long it is.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into` from `offset` on.
    pub(crate) fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let part = bytes
                    .get(start..start.saturating_add(into.len()))
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                into.copy_from_slice(part);
                Ok(())
            }
            Self::File { file, .. } => file.read_exact_at(into, offset),
        }
    }
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A mailbox that exists.
    Mailbox(MailboxId),
    /// A mailbox by name; made, with its parents, when it is missing. Inbox always exists.
    Named(String),
    /// The mailbox with this role; Inbox when there is none.
    Role(Role),
}

/// What the parser says of a message. The blobs are the parser's own forms: the store keeps and
/// returns them. Offsets in them count from the start of the content, without the prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The Date header.
    pub sent: Option<UnixNanos>,
    /// ENVELOPE (RFC 9051 §7.5.2), raw header form.
    pub envelope: Vec<u8>,
    /// BODYSTRUCTURE.
    pub body_structure: Vec<u8>,
    /// Where the parts are.
    pub sections: Vec<u8>,
    /// Header values by name.
    pub headers: Vec<u8>,
    /// RFC 8970; `None` is "not computed", empty is "there is none".
    pub preview: Option<String>,
    /// Message-ID in canonical form, without angle brackets.
    pub message_id: Option<String>,
    /// Ids this refers to, oldest first, canonical: all of References, else one of In-Reply-To.
    pub references: Vec<String>,
    /// Base subject (RFC 5256 §2.1) in lower case.
    pub base_subject: String,
    /// Whether finding the base subject took away a reply or forward mark.
    pub is_response: bool,
    /// A delivery status notification: threads by reference whatever its subject.
    pub is_dsn: bool,
    /// The header decoded for searching: one field a line, `Name: value`, unfolded, LF.
    pub header_text: String,
    /// The decoded text of each part, in order; at most 1 MiB each.
    pub body_text: Vec<String>,
    /// To, Cc and Bcc as (localpart, domain, organisational domain): remembered when the message
    /// enters the mailbox with role Sent.
    pub recipients: Vec<Recipient>,
}

/// Whom the account wrote to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recipient {
    /// Before the `@`, as the directory compares it.
    pub localpart: String,
    /// Behind it, ASCII form.
    pub domain: String,
    /// Its organisational domain.
    pub org_domain: String,
}

/// One thing about how a message came that later judgement looks up: what it is and its value, such
/// as (`MailFromDomain`, "example.org").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReputationKey {
    /// What it is.
    pub kind: ReputationKind,
    /// Its value in the one form it is compared in.
    pub value: String,
}

/// Kinds of reputation keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReputationKind {
    /// The whole From address, when its domain was validated.
    From = 1,
    /// The domain of From, validated.
    FromDomain = 2,
    /// The organisational domain of From, validated.
    FromOrgDomain = 3,
    /// A domain with a passing DKIM signature.
    DkimDomain = 4,
    /// The whole MAIL FROM, when SPF passed.
    MailFrom = 5,
    /// The domain of MAIL FROM, when SPF passed.
    MailFromDomain = 6,
    /// EHLO, when SPF passed on it.
    Ehlo = 7,
    /// The address of the peer (/32, /64).
    Ip1 = 8,
    /// Its nearer neighbourhood (/26, /48).
    Ip2 = 9,
    /// Its wider neighbourhood (/21, /32).
    Ip3 = 10,
    /// The whole From address, not validated.
    FromUnvalidated = 11,
    /// The domain of From, not validated.
    FromDomainUnvalidated = 12,
}

/// Marks of how a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// Refused by judgement and kept in Rejects.
    pub is_reject: bool,
    /// Forwarded by a rule of the user elsewhere.
    pub is_forward: bool,
    /// From a mailing list the user named.
    pub is_list: bool,
}

/// What makes a delivery one of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once {
    /// A delivery with an id that is remembered is a repeat.
    pub id: DeliveryId,
    /// Until when this one is remembered; None: it is not.
    pub remember_until: Option<UnixNanos>,
}

/// A message for one account.
pub struct NewMessage {
    /// Where to.
    pub target: Target,
    /// Header fields put before the content: trace, results.
    pub prefix: Vec<u8>,
    /// The message as it came.
    pub content: Content,
    /// What the parser said; `None` when it could not read it: then it is opaque bytes.
    pub facts: Option<Facts>,
    /// Flags to begin with.
    pub flags: Flags,
    /// Keywords to begin with.
    pub keywords: Vec<Keyword>,
    /// INTERNALDATE.
    pub received: UnixNanos,
    /// It is not stored if this was delivered before.
    pub delivery: Option<Once>,
    /// Looked up by later judgement; at most 40.
    pub reputation: Vec<ReputationKey>,
    /// How it came.
    pub origin: Origin,
    /// Where it was meant to go, when `target` is elsewhere (Rejects, the introbox).
    pub destined: Option<MailboxId>,
    /// SHA-256 of the content, where equal content is to be found again (Rejects).
    pub hash: Option<[u8; 32]>,
}

impl NewMessage {
    /// A message for `target` with nothing else said of it.
    #[must_use]
    pub fn new(target: Target, content: Content, received: UnixNanos) -> Self {
        Self {
            target,
            prefix: Vec::new(),
            content,
            facts: None,
            flags: Flags::NONE,
            keywords: Vec::new(),
            received,
            delivery: None,
            reputation: Vec::new(),
            origin: Origin::default(),
            destined: None,
            hash: None,
        }
    }

    /// Its length as clients see it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.prefix.len() as u64 + self.content.len()
    }
}

/// Most reputation keys a message may bring.
pub const MAX_REPUTATION_KEYS: usize = 40;

/// Most references that are kept for threading: the nearest ones.
pub const MAX_REFERENCES: usize = 100;

/// Most recipients that are remembered for one message.
pub const MAX_RECIPIENTS: usize = 1000;
