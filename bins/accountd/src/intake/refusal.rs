//! What a peer is told when its mail is not taken: one table, so that no fault of ours ever comes out
//! as 5yz.

use super::{parse::NoParser, spool::SpoolError};
use crate::store::StoreError;

/// A refusal as it goes to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) enhanced: String,
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn new(code: u16, enhanced: &str, text: &str) -> Self {
        Self { code, enhanced: enhanced.to_owned(), text: text.to_owned() }
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.code < 500
    }

    /// A fault of ours. RFC 5321 §4.2.1: 4yz asks the client to keep the mail and try again.
    pub(crate) fn ours() -> Self {
        Self::new(451, "4.3.0", "Local error, try again later")
    }

    pub(crate) fn disk_full() -> Self {
        Self::new(452, "4.3.1", "Insufficient storage, try again later")
    }

    /// The same to a peer, who is to keep the mail until an administrator has seen to it.
    pub(crate) fn read_only() -> Self {
        Self::new(452, "4.3.1", "Storage cannot be written to, try again later")
    }

    pub(crate) fn over_quota() -> Self {
        Self::new(452, "4.2.2", "Mailbox full")
    }

    /// More from one network into one account than it takes.
    pub(crate) fn too_much_mail() -> Self {
        Self::new(452, "4.2.2", "Too much mail for this mailbox, try again later")
    }

    pub(crate) fn too_large() -> Self {
        Self::new(552, "5.3.4", "Message too large")
    }

    pub(crate) fn unknown_recipient() -> Self {
        Self::new(550, "5.1.1", "No such user here")
    }

    pub(crate) fn too_many_recipients() -> Self {
        Self::new(452, "4.5.3", "Too many recipients")
    }
}

impl From<SpoolError> for Refusal {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::TooLarge => Refusal::too_large(),
            SpoolError::DiskFull => Refusal::disk_full(),
            SpoolError::ReadOnly => Refusal::read_only(),
            SpoolError::Io(error) => {
                tracing::error!(error, "a message could not be spooled");
                Refusal::ours()
            }
        }
    }
}

impl From<NoParser> for Refusal {
    fn from(_: NoParser) -> Self {
        Refusal::ours()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::OverQuota => Refusal::over_quota(),
            StoreError::TooLarge => Refusal::too_large(),
            StoreError::DiskFull => Refusal::disk_full(),
            StoreError::ReadOnly => Refusal::read_only(),
            StoreError::TooManySent => {
                Refusal::new(451, "4.7.1", "Too many messages sent today, try again later")
            }
            StoreError::TooManyFirstTime => {
                Refusal::new(451, "4.7.1", "Too many new recipients today, try again later")
            }
            error @ (StoreError::NoSuchAccount
            | StoreError::AccountExists
            | StoreError::NoSuchMailbox
            | StoreError::MailboxExists
            | StoreError::HasChildren
            | StoreError::Inbox
            | StoreError::MailboxName(_)
            | StoreError::TooMany(_)
            | StoreError::NoSuchMessage
            | StoreError::ContentGone
            | StoreError::TooManyKeywords
            | StoreError::NoUidLeft
            | StoreError::Busy
            | StoreError::Damaged(_)
            | StoreError::Newer
            | StoreError::Failed(_)
            | StoreError::Stopped) => {
                tracing::error!(%error, "a message could not be stored");
                Refusal::ours()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_ours_are_temporary() {
        for refusal in [
            Refusal::from(StoreError::Busy),
            Refusal::from(StoreError::DiskFull),
            Refusal::from(StoreError::Damaged("x".into())),
            Refusal::from(StoreError::Stopped),
            Refusal::from(StoreError::NoSuchMailbox),
            Refusal::from(StoreError::ReadOnly),
            Refusal::from(SpoolError::DiskFull),
            Refusal::from(SpoolError::ReadOnly),
            Refusal::from(SpoolError::Io("x".into())),
            Refusal::from(NoParser),
        ] {
            assert!(refusal.is_temporary(), "{refusal:?}");
            assert!(refusal.enhanced.starts_with('4'));
        }
        assert!(!Refusal::from(StoreError::TooLarge).is_temporary());
    }
}
