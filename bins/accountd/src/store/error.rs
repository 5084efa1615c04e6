//! Why the store refuses, sorted by whose fault it is.

use super::types::MAX_KEYWORDS;

/// Why something was not done. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The account has no folder.
    #[error("no such account")]
    NoSuchAccount,
    /// The account exists.
    #[error("the account exists")]
    AccountExists,
    /// No live mailbox of that id or name.
    #[error("no such mailbox")]
    NoSuchMailbox,
    /// A live mailbox has that name.
    #[error("a mailbox of that name exists")]
    MailboxExists,
    /// It has mailboxes below it.
    #[error("the mailbox has children")]
    HasChildren,
    /// Inbox cannot be deleted, nor can another mailbox take its name.
    #[error("not possible with Inbox")]
    Inbox,
    /// The name breaks a rule; which one.
    #[error("bad mailbox name: {0}")]
    MailboxName(&'static str),
    /// A bound of the account was reached; which one.
    #[error("too many: {0}")]
    TooMany(&'static str),
    /// No live message of that UID.
    #[error("no such message")]
    NoSuchMessage,
    /// The message is there, its content was erased or is broken.
    #[error("the content of the message is gone")]
    ContentGone,
    /// The account would be over its quota.
    #[error("over quota")]
    OverQuota,
    /// The message is longer than any account takes.
    #[error("message too large")]
    TooLarge,
    /// More messages in 24 hours than the account may send.
    #[error("over the limit of messages per day")]
    TooManySent,
    /// More recipients it never wrote to in 24 hours than the account may.
    #[error("over the limit of first-time recipients per day")]
    TooManyFirstTime,
    /// A mailbox may have 100 keywords in use, a message 30.
    #[error("more than {MAX_KEYWORDS} keywords in a mailbox or 30 on a message")]
    TooManyKeywords,
    /// No UID is left in the mailbox; copy its messages to a new one.
    #[error("no UID left in the mailbox")]
    NoUidLeft,

    /// What follows is ours: the caller may try again later (4yz, NO, 503).
    /// Too much waits already.
    #[error("the store is busy")]
    Busy,
    /// The disk is full or nearly so.
    #[error("no space left")]
    DiskFull,
    /// The disk is read-only at the moment.
    #[error("the disk is read-only")]
    ReadOnly,
    /// This account's files are damaged; others are not concerned.
    #[error("the account is damaged: {0}")]
    Damaged(String),
    /// This account was written by a newer release.
    #[error("the account needs a newer release")]
    Newer,
    /// Input, output, or a fault of ours.
    #[error("store failure: {0}")]
    Failed(String),
    /// The process is ending, by order or because a sync failed.
    #[error("the store has stopped")]
    Stopped,
}

impl StoreError {
    /// Whether it is a fault of ours or of the machine, so that the answer must be a temporary one.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Busy
            | Self::DiskFull
            | Self::ReadOnly
            | Self::Damaged(_)
            | Self::Newer
            | Self::Failed(_)
            | Self::Stopped => true,
            Self::NoSuchAccount
            | Self::AccountExists
            | Self::NoSuchMailbox
            | Self::MailboxExists
            | Self::HasChildren
            | Self::Inbox
            | Self::MailboxName(_)
            | Self::TooMany(_)
            | Self::NoSuchMessage
            | Self::ContentGone
            | Self::OverQuota
            | Self::TooLarge
            | Self::TooManySent
            | Self::TooManyFirstTime
            | Self::TooManyKeywords
            | Self::NoUidLeft => false,
        }
    }

    /// The same for each of a group that failed together.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Busy => Self::Busy,
            Self::DiskFull => Self::DiskFull,
            Self::ReadOnly => Self::ReadOnly,
            Self::Damaged(why) => Self::Damaged(why.clone()),
            Self::Newer => Self::Newer,
            Self::Stopped => Self::Stopped,
            Self::NoSuchAccount => Self::NoSuchAccount,
            Self::AccountExists
            | Self::NoSuchMailbox
            | Self::MailboxExists
            | Self::HasChildren
            | Self::Inbox
            | Self::MailboxName(_)
            | Self::TooMany(_)
            | Self::NoSuchMessage
            | Self::ContentGone
            | Self::OverQuota
            | Self::TooLarge
            | Self::TooManySent
            | Self::TooManyFirstTime
            | Self::TooManyKeywords
            | Self::NoUidLeft
            | Self::Failed(_) => Self::Failed(self.to_string()),
        }
    }
}

impl From<storage::Error> for StoreError {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::DiskFull(_) => Self::DiskFull,
            storage::Error::ReadOnly(_) => Self::ReadOnly,
            storage::Error::Damaged(why) => Self::Damaged(why),
            storage::Error::SyncFailed(_) => Self::Stopped,
            storage::Error::Newer { .. } => Self::Newer,
            storage::Error::Busy => Self::Busy,
            storage::Error::Foreign(_) => Self::Damaged(error.to_string()),
            storage::Error::Io(_) | storage::Error::Fault(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<storage::rusqlite::Error> for StoreError {
    fn from(error: storage::rusqlite::Error) -> Self {
        storage::Error::from(error).into()
    }
}
