//! One message into the mailboxes of its recipients: parsed once, one commit an account, one answer.

use super::{parse::Parsed, recipients::Target, refusal::Refusal, spool::Spooled};
use crate::{
    service::Service,
    store::{self, Delivered, NewMessage},
};
use aws_lc_rs::digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use types::{AccountId, DeliveryId, QueueId, ReversePath, UnixNanos};

/// How long a repeat of a stranger's delivery is recognised; senders give up after this (RFC 5321
/// §4.5.4.1).
const STRANGERS_REPEAT: Duration = Duration::from_secs(5 * 86_400);
/// And one of our own queue.
const QUEUE_REPEAT: Duration = Duration::from_secs(30 * 86_400);

/// What makes two deliveries one.
#[derive(Debug, Clone)]
pub(crate) enum Identity {
    /// From a stranger: the reverse-path and the content, unless it is known to have no Message-ID.
    /// Without one, two equal mails may be two mails.
    Stranger(ReversePath),
    /// From our queue.
    Queue(QueueId),
}

impl Identity {
    fn delivery(&self, account: AccountId, message: &Spooled, parsed: &Parsed) -> Option<Delivery> {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut field = |octets: &[u8]| {
            hash.update(&(octets.len() as u64).to_be_bytes());
            hash.update(octets);
        };
        let kept = match self {
            Identity::Stranger(from) => {
                // What no parser could read counts as having one: it comes again when the answer
                // is lost, and then it may be read.
                if let Some(facts) = &parsed.facts {
                    facts.message_id.as_ref()?;
                }
                field(b"stranger");
                field(from.to_inner().as_bytes());
                field(&message.hash());
                STRANGERS_REPEAT
            }
            Identity::Queue(id) => {
                field(b"queue");
                field(id.as_bytes());
                QUEUE_REPEAT
            }
        };
        field(account.as_bytes());
        let mut id = [0; DeliveryId::OCTETS];
        id.copy_from_slice(hash.finish().as_ref());
        Some(Delivery { id: DeliveryId::from_bytes(id), kept })
    }
}

struct Delivery {
    id: DeliveryId,
    kept: Duration,
}

impl Service {
    /// Says that copies for these are about to come, while the message is read.
    pub(crate) fn announce(&self, targets: &[Target]) -> Vec<store::Coming> {
        let accounts: BTreeSet<AccountId> = targets.iter().map(|target| target.account).collect();
        accounts.into_iter().map(|account| self.account(account).coming()).collect()
    }

    /// Stores one copy for each account. Any fault of ours is the answer for all; who has a copy
    /// already is spared the repeat by its delivery id. True: nothing was new.
    pub(crate) async fn deliver(
        &self,
        message: &Spooled,
        parsed: &Parsed,
        targets: Vec<Target>,
        identity: &Identity,
    ) -> Result<bool, Refusal> {
        // Ours is among them, which the face that counts, too, did not see.
        if parsed.received_count > self.settings.received.saturating_add(1) {
            return Err(Refusal::new(554, "5.4.6", "Mail loop: too many Received fields"));
        }
        let now = self.clock.now();
        // One copy an account, whatever number of its addresses were named.
        let mut by_account = BTreeMap::new();
        for target in targets {
            by_account.entry(target.account).or_insert(target);
        }
        let mut jobs = Vec::new();
        for (account, target) in by_account {
            let copy = self.copy_for(&target, message, parsed, identity, now)?;
            let store = self.account(account);
            jobs.push(async move { (account, store.deliver(copy).await) });
        }
        // What `moxctl log follow` joins the lines of one message by.
        let msg = parsed.facts.as_ref().and_then(|facts| facts.message_id.as_deref());
        let queue_id = match identity {
            Identity::Queue(id) => Some(tracing::field::display(id)),
            Identity::Stranger(_) => None,
        };
        let mut all_repeats = true;
        let mut refused = None;
        for (account, outcome) in futures::future::join_all(jobs).await {
            match outcome {
                Ok(Delivered::Stored(stored)) => {
                    all_repeats = false;
                    let (uid, size) = (stored.uid, message.len());
                    tracing::info!(%account, uid, size, msg, queue_id, "delivered");
                }
                Ok(Delivered::Repeat) => {
                    let what = "a delivery that was made before: not stored again";
                    tracing::info!(%account, msg, queue_id, "{what}");
                }
                Err(error) => {
                    tracing::warn!(%account, %error, msg, queue_id, "a copy was not stored");
                    let refusal = Refusal::from(error);
                    // A temporary one wins: the sender comes again for all of them.
                    if refused.as_ref().is_none_or(|r: &Refusal| !r.is_temporary()) {
                        refused = Some(refusal);
                    }
                }
            }
        }
        match refused {
            Some(refusal) => Err(refusal),
            None => Ok(all_repeats),
        }
    }

    fn copy_for(
        &self,
        target: &Target,
        message: &Spooled,
        parsed: &Parsed,
        identity: &Identity,
        now: UnixNanos,
    ) -> Result<NewMessage, Refusal> {
        let content = message.content().map_err(|error| {
            tracing::error!(%error, "a spooled message");
            Refusal::ours()
        })?;
        let mut copy = NewMessage::new(store::Target::Named(target.mailbox.clone()), content, now);
        copy.prefix = message.prefix().to_vec();
        copy.facts.clone_from(&parsed.facts);
        copy.delivery = identity
            .delivery(target.account, message, parsed)
            .map(|delivery| (delivery.id, now.plus(delivery.kept)));
        Ok(copy)
    }

    /// Whether an account has room, for the answer to RCPT: after DATA there is one answer for all.
    pub(crate) async fn has_room(&self, target: &Target, size: u64) -> Result<(), Refusal> {
        if target.quota == 0 {
            return Ok(());
        }
        let usage = self.account(target.account).usage().await?;
        if usage.bytes.saturating_add(size) > target.quota {
            Err(Refusal::over_quota())
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_told_from_equal_mails() {
        let message = Spooled::of(b"Subject: x\r\n\r\nbody\r\n".to_vec());
        let (ann, bob) = (AccountId::from_bytes([1; 10]), AccountId::from_bytes([2; 10]));
        let with_id = Parsed {
            facts: Some(store::Facts { message_id: Some("a@b".into()), ..store::Facts::default() }),
            ..Parsed::default()
        };
        let stranger = Identity::Stranger(
            "<a@b.example>".trim_matches(['<', '>']).parse().map(ReversePath::Address).unwrap(),
        );
        let id = |identity: &Identity, account, message: &Spooled, parsed: &Parsed| {
            identity.delivery(account, message, parsed).map(|d| d.id)
        };
        let first = id(&stranger, ann, &message, &with_id).unwrap();
        // The trace fields differ between two tries.
        let again = message.with_prefix(b"Received: later\r\n".to_vec());
        assert_eq!(id(&stranger, ann, &again, &with_id), Some(first));
        assert_ne!(id(&stranger, bob, &message, &with_id), Some(first));
        assert_ne!(
            id(&Identity::Stranger(ReversePath::Null), ann, &message, &with_id),
            Some(first)
        );
        let without_id = Parsed { facts: Some(store::Facts::default()), ..Parsed::default() };
        assert_eq!(id(&stranger, ann, &message, &without_id), None);
        // What no parser could read is told from nothing but its octets.
        assert_eq!(id(&stranger, ann, &message, &Parsed::default()), Some(first));
        let queue = Identity::Queue(QueueId::from_bytes([7; 10]));
        assert!(id(&queue, ann, &message, &Parsed::default()).is_some());
    }
}
