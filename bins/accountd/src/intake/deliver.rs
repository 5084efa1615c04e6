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
    /// From a stranger: the reverse-path and the content.
    Stranger(ReversePath),
    /// From our queue.
    Queue(QueueId),
}

/// Whether equal mails are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sameness {
    /// They are: one comes again because its sender did not hear the answer.
    One,
    /// They may be two, as nothing in them was made for one mail alone. One comes again if its
    /// sender heard that it was not taken, and only until he hears that it was.
    UntilTaken,
}

impl Identity {
    fn sameness(&self, parsed: &Parsed) -> Sameness {
        let Some(facts) = parsed.facts.as_ref().filter(|_| matches!(self, Self::Stranger(_)))
        else {
            // What no parser could read comes again when the answer is lost, and may be read then.
            return Sameness::One;
        };
        // Another server has left its number and time (RFC 5321 §4.4). Ours is always there.
        if facts.message_id.is_some() || parsed.received_count > 1 {
            Sameness::One
        } else {
            Sameness::UntilTaken
        }
    }

    fn delivery(&self, account: AccountId, message: &Spooled) -> Delivery {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut field = |octets: &[u8]| {
            hash.update(&(octets.len() as u64).to_be_bytes());
            hash.update(octets);
        };
        let kept = match self {
            Identity::Stranger(from) => {
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
        Delivery { id: DeliveryId::from_bytes(id), kept }
    }
}

struct Delivery {
    id: DeliveryId,
    kept: Duration,
}

fn copy_for(
    target: &Target,
    message: &Spooled,
    parsed: &Parsed,
    once: store::Once,
    now: UnixNanos,
) -> Result<NewMessage, Refusal> {
    let content = message.content().map_err(|error| {
        tracing::error!(%error, "a spooled message");
        Refusal::ours()
    })?;
    let mut copy = NewMessage::new(store::Target::Named(target.mailbox.clone()), content, now);
    copy.prefix = message.prefix().to_vec();
    copy.facts.clone_from(&parsed.facts);
    copy.delivery = Some(once);
    Ok(copy)
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
        let sameness = identity.sameness(parsed);
        // With one account there is no other for whose sake the sender would come again.
        let is_remembered = sameness == Sameness::One || by_account.len() > 1;
        // Nobody may take one that is being delivered for one that came before.
        let _turn = match sameness {
            Sameness::One => None,
            Sameness::UntilTaken => Some(self.turns.wait(message.hash(), is_remembered).await),
        };
        let mut jobs = Vec::new();
        for (account, target) in by_account {
            let delivery = identity.delivery(account, message);
            let once = store::Once {
                id: delivery.id,
                remember_until: is_remembered.then(|| now.plus(delivery.kept)),
            };
            let copy = copy_for(&target, message, parsed, once, now)?;
            let store = self.account(account);
            jobs.push(async move { (account, once.id, store.deliver(copy).await) });
        }
        // What `moxctl log follow` joins the lines of one message by.
        let msg = parsed.facts.as_ref().and_then(|facts| facts.message_id.as_deref());
        let queue_id = match identity {
            Identity::Queue(id) => Some(tracing::field::display(id)),
            Identity::Stranger(_) => None,
        };
        let mut all_repeats = true;
        let mut refused = None;
        let mut to_forget = Vec::new();
        for (account, id, outcome) in futures::future::join_all(jobs).await {
            if sameness == Sameness::UntilTaken
                && (is_remembered || matches!(outcome, Ok(Delivered::Repeat)))
            {
                to_forget.push((account, id));
            }
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
        if refused.as_ref().is_some_and(Refusal::is_temporary) {
            to_forget.clear();
        }
        // It was taken: an equal one is another one from here on. If that cannot be noted, the sender
        // comes again, and is recognised.
        for (account, id) in to_forget {
            self.account(account).forget_delivery(id).await?;
        }
        match refused {
            Some(refusal) => Err(refusal),
            None => Ok(all_repeats),
        }
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
        let stranger = Identity::Stranger("a@b.example".parse().map(ReversePath::Address).unwrap());
        let id = |identity: &Identity, account, message: &Spooled| {
            identity.delivery(account, message).id
        };
        let first = id(&stranger, ann, &message);
        // The trace fields differ between two tries.
        let again = message.with_prefix(b"Received: later\r\n".to_vec());
        assert_eq!(id(&stranger, ann, &again), first);
        assert_ne!(id(&stranger, bob, &message), first);
        assert_ne!(id(&Identity::Stranger(ReversePath::Null), ann, &message), first);
        let queue = Identity::Queue(QueueId::from_bytes([7; 10]));
        assert_ne!(id(&queue, ann, &message), first);
    }

    #[test]
    fn equal_mails_without_a_mark_of_their_own_may_be_two() {
        let parsed = |message_id: Option<&str>, received_count| Parsed {
            facts: Some(store::Facts {
                message_id: message_id.map(str::to_owned),
                ..store::Facts::default()
            }),
            received_count,
            ..Parsed::default()
        };
        let stranger = Identity::Stranger(ReversePath::Null);
        let queue = Identity::Queue(QueueId::from_bytes([7; 10]));
        assert_eq!(stranger.sameness(&parsed(None, 1)), Sameness::UntilTaken);
        for (identity, parsed) in [
            (&stranger, parsed(Some("a@b"), 1)),
            (&stranger, parsed(None, 2)),
            (&stranger, Parsed::default()),
            (&queue, parsed(None, 1)),
        ] {
            assert_eq!(identity.sameness(&parsed), Sameness::One, "{identity:?} {parsed:?}");
        }
    }
}
