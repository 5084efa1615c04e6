//! The outboxes of all accounts as queue-runner sees them: one stream of submissions.
//!
//! A row stays until the queue has it durably. Which accounts have rows is known in memory; after a
//! start all accounts are looked through, and every hour again.

use crate::{
    service::Service,
    store::{ContentRef, OutboxEntry, StoreError},
};
use serde::{Deserialize, Serialize};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};
use tokio::sync::watch;
use types::{AccountId, SubmissionId};

/// Rows whose content is known where; others are looked up again.
const MAX_KNOWN: usize = 10_000;

/// What the queue needs beside the content; kept in the row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope {
    /// Reverse-path without brackets, empty for null.
    pub(crate) from: String,
    pub(crate) recipients: Vec<String>,
    pub(crate) smtputf8: bool,
    pub(crate) eight_bit: bool,
    pub(crate) require_tls: bool,
    pub(crate) header_length: u64,
    pub(crate) message_id: String,
    pub(crate) subject: String,
}

impl Envelope {
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always become JSON")
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// One submission for the queue.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) entry: OutboxEntry,
    pub(crate) account: AccountId,
    pub(crate) envelope: Envelope,
}

/// A fresh submission id. Its first octets are the account's id: who has the id knows whose outbox
/// to look into, after a restart too.
pub(crate) fn submission_id(account: AccountId) -> Result<SubmissionId, getrandom::Error> {
    let mut bytes = [0; SubmissionId::OCTETS];
    let (head, tail) = bytes.split_at_mut(AccountId::OCTETS);
    head.copy_from_slice(account.as_bytes());
    getrandom::fill(tail)?;
    Ok(SubmissionId::from_bytes(bytes))
}

/// Whose a submission is.
pub(crate) fn owner(id: SubmissionId) -> AccountId {
    let mut account = [0; AccountId::OCTETS];
    account.copy_from_slice(&id.as_bytes()[..AccountId::OCTETS]);
    AccountId::from_bytes(account)
}

/// Which outboxes have rows.
pub(crate) struct Outboxes {
    committed: watch::Sender<u64>,
    pending: RefCell<BTreeSet<AccountId>>,
    known: RefCell<BTreeMap<SubmissionId, ContentRef>>,
}

impl Default for Outboxes {
    fn default() -> Self {
        Self {
            committed: watch::Sender::new(0),
            pending: RefCell::default(),
            known: RefCell::default(),
        }
    }
}

impl Outboxes {
    /// An account has a new row.
    pub(crate) fn committed(&self, account: AccountId) {
        self.pending.borrow_mut().insert(account);
        self.committed.send_modify(|count| *count += 1);
    }

    /// Counts submissions since the start.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }

    /// Accounts that may have rows.
    pub(crate) fn waiting(&self) -> usize {
        self.pending.borrow().len()
    }
}

/// An account whose outbox is being read.
struct Asked<'a> {
    outboxes: &'a Outboxes,
    account: AccountId,
    is_answered: bool,
}

impl Asked<'_> {
    fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.outboxes.pending.borrow_mut().insert(self.account);
        }
    }
}

impl Service {
    /// Looks through all accounts for rows that are not known of: left by a crash, or by a commit whose
    /// answer was lost. In the background after a start and every hour: one account at a time, one
    /// question each, and none is opened for writing.
    pub(crate) async fn find_left_rows(&self) {
        let accounts = match self.store.accounts() {
            Ok(accounts) => accounts,
            Err(error) => {
                tracing::error!(%error, "the accounts cannot be listed");
                return;
            }
        };
        for id in accounts {
            if self.outboxes.pending.borrow().contains(&id) {
                continue;
            }
            match self.store.account(id).has_outbox_rows().await {
                Ok(false) | Err(StoreError::NoSuchAccount) => {}
                Ok(true) => self.outboxes.committed(id),
                Err(error) => tracing::error!(account = %id, %error, "its outbox cannot be read"),
            }
        }
    }

    /// The oldest submissions over all accounts, and whether there are more.
    pub(crate) async fn outbox_take(&self, max: usize) -> (Vec<Item>, bool) {
        let accounts: Vec<AccountId> = self.outboxes.pending.borrow().iter().copied().collect();
        let mut items = Vec::new();
        for account in accounts {
            // Out first, in again if there are rows, or if nobody waits for the answer any more: a
            // commit meanwhile puts it in by itself.
            self.outboxes.pending.borrow_mut().remove(&account);
            let asked = Asked { outboxes: &self.outboxes, account, is_answered: false };
            let rows = self.store.account(account).outbox(None).await;
            asked.answered();
            match rows {
                Ok(rows) if rows.is_empty() => {}
                Ok(rows) => {
                    self.outboxes.pending.borrow_mut().insert(account);
                    items.extend(rows.into_iter().filter_map(|row| item(account, row)));
                }
                Err(StoreError::NoSuchAccount) => {}
                Err(error) => {
                    self.outboxes.pending.borrow_mut().insert(account);
                    tracing::error!(%account, %error, "an outbox cannot be read");
                }
            }
            // What is over is read again at the next call.
            if items.len() > max.saturating_mul(4) {
                break;
            }
        }
        items.sort_by_key(|item: &Item| (item.entry.submitted, item.entry.id));
        let more = items.len() > max;
        items.truncate(max);
        let mut known = self.outboxes.known.borrow_mut();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.extend(items.iter().map(|item| (item.entry.id, item.entry.content)));
        (items, more)
    }

    /// Where the content of a submission is.
    pub(crate) async fn outbox_content(
        &self,
        id: SubmissionId,
    ) -> Result<Option<ContentRef>, StoreError> {
        if let Some(content) = self.outboxes.known.borrow().get(&id) {
            return Ok(Some(*content));
        }
        let account = self.store.account(owner(id));
        let mut after = None;
        loop {
            let rows = account.outbox(after).await?;
            if let Some(row) = rows.iter().find(|row| row.id == id) {
                return Ok(Some(row.content));
            }
            match rows.last() {
                Some(last) => after = Some(last.id),
                None => return Ok(None),
            }
        }
    }

    /// The queue has it.
    pub(crate) async fn outbox_done(&self, id: SubmissionId) -> Result<(), StoreError> {
        self.outboxes.known.borrow_mut().remove(&id);
        match self.store.account(owner(id)).outbox_done(vec![id]).await {
            Ok(_) | Err(StoreError::NoSuchAccount) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn item(account: AccountId, entry: OutboxEntry) -> Option<Item> {
    let Some(envelope) = Envelope::decode(&entry.envelope) else {
        tracing::error!(%account, submission = %entry.id, "an outbox row cannot be read; it stays");
        return None;
    };
    Some(Item { entry, account, envelope })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_knows_its_account() {
        let account = AccountId::from_bytes([3; 10]);
        let (one, two) = (submission_id(account).unwrap(), submission_id(account).unwrap());
        assert_eq!((owner(one), owner(two)), (account, account));
        assert_ne!(one, two);
    }

    #[test]
    fn an_envelope_comes_back() {
        let envelope = Envelope {
            from: String::new(),
            recipients: vec!["\"a b\"@example.org".into(), "é@example.org".into()],
            smtputf8: true,
            eight_bit: true,
            require_tls: false,
            header_length: 7,
            message_id: "a@b".into(),
            subject: "x".into(),
        };
        assert_eq!(Envelope::decode(&envelope.encode()), Some(envelope));
        assert_eq!(Envelope::decode(b"{}"), None);
    }
}
