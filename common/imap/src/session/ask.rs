//! What a session asks of its account, and what comes back.
//!
//! The shapes follow what an account can do without looking twice: rows in UID order, what the
//! parser found at delivery, whole small contents, ranges of large ones. The process turns them
//! into calls; nothing of RPC is known here.

use crate::{
    command::StoreHow,
    flags::Flags,
    name::{MailboxName, SpecialUse},
    set::NumberSet,
};

/// Where a search looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextScope {
    /// Header and body.
    Text,
    /// Body.
    Body,
    /// The header field named beside.
    Header,
    /// Subject
    Subject,
    /// From
    From,
    /// To
    To,
    /// Cc
    Cc,
    /// Bcc
    Bcc,
}

/// What a session asks. Each is answered by the [`Answer`] its comment names, by
/// [`Answer::Unavailable`], or by [`Answer::Closed`] where a mailbox has to be open.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// All mailboxes: [`Answer::Mailboxes`].
    Mailboxes,
    /// CREATE: [`Answer::Mailbox`].
    Create(MailboxName, Option<SpecialUse>),
    /// DELETE: [`Answer::Mailbox`].
    Delete(MailboxName),
    /// RENAME: [`Answer::Mailbox`].
    Rename(MailboxName, MailboxName),
    /// SUBSCRIBE, UNSUBSCRIBE: [`Answer::Mailbox`].
    Subscribe(MailboxName, bool),
    /// Opens a mailbox in place of the one that is open: [`Answer::Opened`].
    Open {
        /// Which.
        name: MailboxName,
        /// SELECT.
        writable: bool,
    },
    /// Closes the open mailbox: [`Answer::Done`].
    Release,
    /// Live messages of the open mailbox in UID order from `from`, none above `to` is needed:
    /// [`Answer::Rows`].
    Rows {
        /// The first UID.
        from: u32,
        /// The last one wanted.
        to: u32,
    },
    /// What changed in the open mailbox: [`Answer::Changes`].
    Changes {
        /// After this modseq.
        since: u64,
    },
    /// Stored facts: [`Answer::Meta`].
    Meta {
        /// Of these messages.
        uids: NumberSet,
        /// Envelopes.
        envelope: bool,
        /// Structures.
        structure: bool,
    },
    /// Whole contents of at most `most` octets: [`Answer::Small`].
    Small {
        /// Of these messages.
        uids: NumberSet,
        /// Octets of each.
        most: u32,
    },
    /// A range of a content, in memory: [`Answer::Content`].
    Content {
        /// Of this message.
        uid: u32,
        /// First octet.
        from: u64,
        /// One behind the last.
        to: u64,
    },
    /// Changes flags: [`Answer::Stored`].
    Store {
        /// Of these messages.
        uids: NumberSet,
        /// How.
        how: StoreHow,
        /// The flags.
        flags: Flags,
    },
    /// Copies or moves: [`Answer::Copied`].
    Copy {
        /// These messages.
        uids: NumberSet,
        /// Where to.
        to: MailboxName,
        /// MOVE.
        and_remove: bool,
    },
    /// Removes those of the messages that have `\Deleted`: [`Answer::Expunged`].
    Expunge(NumberSet),
    /// Looks through decoded text: [`Answer::Found`].
    SearchText {
        /// Where.
        scope: TextScope,
        /// The field, for [`TextScope::Header`].
        header: String,
        /// For what, in any case.
        needle: String,
        /// In these messages.
        uids: NumberSet,
    },
    /// Begins an APPEND: [`Answer::AppendStarted`]. The content follows as the client sends it.
    Append {
        /// Where to.
        mailbox: MailboxName,
        /// The flags.
        flags: Flags,
        /// INTERNALDATE in nanoseconds since 1970, if not now.
        received: Option<i64>,
        /// Octets to come.
        size: u64,
        /// To be kept octet by octet; else a line that ends in LF alone gets its CR.
        binary: bool,
    },
    /// All of the content was passed on: [`Answer::Appended`].
    Commit,
}

impl Question {
    /// Whether it changes nothing, so that it need not be answered when nobody waits any more.
    #[must_use]
    pub const fn only_reads(&self) -> bool {
        match self {
            Self::Mailboxes
            | Self::Rows { .. }
            | Self::Changes { .. }
            | Self::Meta { .. }
            | Self::Small { .. }
            | Self::Content { .. }
            | Self::SearchText { .. } => true,
            Self::Create(..)
            | Self::Delete(..)
            | Self::Rename(..)
            | Self::Subscribe(..)
            | Self::Open { .. }
            | Self::Release
            | Self::Store { .. }
            | Self::Copy { .. }
            | Self::Expunge(_)
            | Self::Append { .. }
            | Self::Commit => false,
        }
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It was done.
    Done,
    /// The account cannot be reached for the moment, or has a temporary fault.
    Unavailable,
    /// The disk or the database is full.
    Full,
    /// To [`Question::Mailboxes`]: by name, and the names subscribed to.
    Mailboxes {
        /// The mailboxes.
        list: Vec<MailboxInfo>,
        /// Subscribed names, also of mailboxes that are not there.
        subscriptions: Vec<MailboxName>,
    },
    /// To the four that change mailboxes.
    Mailbox(MailboxOutcome),
    /// To [`Question::Open`]: None if there is no such mailbox.
    Opened(Option<Box<MailboxInfo>>),
    /// To [`Question::Rows`].
    Rows {
        /// In UID order.
        rows: Vec<Row>,
        /// Whether there are more, behind the last one.
        more: bool,
        /// The account's modseq when they were read.
        modseq: u64,
    },
    /// To [`Question::Changes`].
    Changes {
        /// In the order of their modseq.
        rows: Vec<Row>,
        /// Whether there are more, behind the last one's modseq.
        more: bool,
        /// The account's modseq when they were read.
        modseq: u64,
        /// Whether the mailbox was deleted.
        gone: bool,
    },
    /// To [`Question::Meta`].
    Meta {
        /// In UID order.
        items: Vec<Meta>,
        /// Where to go on, if not all fitted.
        next: Option<u32>,
    },
    /// To [`Question::Small`].
    Small {
        /// In UID order.
        items: Vec<Small>,
        /// Where to go on, if not all fitted.
        next: Option<u32>,
    },
    /// To [`Question::Content`]: None if the message is gone for good.
    Content(Option<Vec<u8>>),
    /// To [`Question::Store`]: the modseq of the change, 0 if there was nothing to change.
    Stored(Result<u64, Refused>),
    /// To [`Question::Copy`].
    Copied(Result<Copied, Refused>),
    /// To [`Question::Expunge`].
    Expunged(Result<u64, Refused>),
    /// To [`Question::SearchText`].
    Found(NumberSet),
    /// To [`Question::Append`].
    AppendStarted(Result<(), Refused>),
    /// To [`Question::Commit`].
    Appended(Result<Appended, Refused>),
    /// The open mailbox could not be opened again after the account was away.
    Closed,
}

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No such mailbox.
    Missing,
    /// No room left.
    OverQuota,
    /// Larger than allowed.
    TooLarge,
    /// Too many keywords.
    Keywords,
    /// Only to be read.
    ReadOnly,
}

/// What came of a change of mailboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailboxOutcome {
    /// Done.
    Done,
    /// There is one of that name.
    Exists,
    /// There is none of that name.
    Missing,
    /// It has children.
    HasChildren,
    /// Refused for good; a text for the user.
    Cannot(String),
    /// Only to be read.
    ReadOnly,
    /// The account has as many as it may have.
    Limit,
}

/// A mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxInfo {
    /// Its name.
    pub name: MailboxName,
    /// What it is for.
    pub role: Option<SpecialUse>,
    /// UIDVALIDITY
    pub uid_validity: u32,
    /// UIDNEXT
    pub uid_next: u32,
    /// Messages.
    pub total: u32,
    /// Those with `\Deleted`.
    pub deleted: u32,
    /// Those without `\Seen`.
    pub unseen: u32,
    /// Octets.
    pub bytes: u64,
    /// Keywords in use.
    pub flags: Flags,
    /// The first message without `\Seen`, known when it was opened.
    pub first_unseen: Option<u32>,
}

/// What is narrow about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// UID
    pub uid: u32,
    /// Flags.
    pub flags: Flags,
    /// When it last changed.
    pub modseq: u64,
    /// RFC822.SIZE
    pub size: u64,
    /// INTERNALDATE, seconds since 1970.
    pub received: i64,
    /// Removed; only in [`Answer::Changes`].
    pub expunged: bool,
}

/// What the parser found, as stored; empty for what could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// UID
    pub uid: u32,
    /// The stored form of `message::codec`.
    pub envelope: Vec<u8>,
    /// The stored form of `message::codec`.
    pub structure: Vec<u8>,
}

/// A whole small content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Small {
    /// UID
    pub uid: u32,
    /// Octets of it.
    pub size: u64,
    /// The octets, unless there are too many.
    pub data: Option<Vec<u8>>,
}

/// A copy that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// UIDVALIDITY of the target.
    pub uid_validity: u32,
    /// The source's UIDs, ascending.
    pub from: NumberSet,
    /// The target's UIDs, in the same order.
    pub to: NumberSet,
    /// The account's modseq after it.
    pub modseq: u64,
}

/// A message that was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// UIDVALIDITY
    pub uid_validity: u32,
    /// UID
    pub uid: u32,
    /// The account's modseq after it.
    pub modseq: u64,
}
