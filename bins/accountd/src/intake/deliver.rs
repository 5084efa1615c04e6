//! One message into the mailboxes of its recipients: parsed once, one commit an account, one answer.

use super::{parse::Parsed, recipients::Target, refusal::Refusal, spool::Spooled};
use crate::{
    auth::limiter::networks,
    service::Service,
    store::{self, Delivered, NewMessage},
};
use aws_lc_rs::digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};
use types::{AccountId, DeliveryId, QueueId, ReversePath, UnixNanos};

/// How long a repeat of a stranger's delivery is recognised; senders give up after this (RFC 5321
/// §4.5.4.1).
const STRANGERS_REPEAT: Duration = Duration::from_secs(5 * 86_400);
/// And how long who has a copy keeps a note for the sake of one who could not have it, where equal mails
/// may be two. What is no repeat and comes within this time is lost to who has the note, so it is two
/// tries of a sender that comes once an hour, and not five days; a sender that comes later makes a
/// second copy, which is the lesser harm. For the same reason the note is for one network alone, and
/// used up by the first mail that is taken.
const RETRY: Duration = Duration::from_secs(2 * 3_600);
/// And one of our own queue.
const QUEUE_REPEAT: Duration = Duration::from_secs(30 * 86_400);

/// What makes two deliveries one.
#[derive(Debug, Clone)]
pub(crate) enum Identity {
    /// From a stranger: the reverse-path and the content; where he comes from, for what has no mark of
    /// its own.
    Stranger {
        /// The reverse-path.
        from: ReversePath,
        /// His address.
        ip: IpAddr,
    },
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
        // What no parser managed counts as marked: it may have been, or be, read at another try, and
        // two equal mails without a mark that break parsers are rarer than one that comes again.
        let is_named = parsed.facts.as_ref().is_none_or(|facts| facts.message_id.is_some());
        // Another server has left its number and time (RFC 5321 §4.4). Ours is always there.
        if matches!(self, Self::Queue(_)) || is_named || parsed.received_count > 1 {
            Sameness::One
        } else {
            Sameness::UntilTaken
        }
    }

    fn delivery(&self, account: AccountId, message: &Spooled, sameness: Sameness) -> Delivery {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut field = |octets: &[u8]| {
            hash.update(&(octets.len() as u64).to_be_bytes());
            hash.update(octets);
        };
        let kept = match self {
            Identity::Stranger { from, ip } => {
                field(b"stranger");
                field(from.to_inner().as_bytes());
                field(&message.hash());
                match sameness {
                    // Large senders come again from elsewhere.
                    Sameness::One => STRANGERS_REPEAT,
                    Sameness::UntilTaken => {
                        let [_, network, _] = networks(*ip);
                        field(&network.to_bytes());
                        RETRY
                    }
                }
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
        // With one account there is no other for whose sake a note would be left. Nobody may take one
        // that is being delivered for one that came before.
        let _turn = match sameness {
            Sameness::One => None,
            Sameness::UntilTaken => {
                Some(self.turns.wait(message.hash(), by_account.len() > 1).await)
            }
        };
        let mut jobs = Vec::new();
        for (account, target) in by_account {
            let Delivery { id, kept } = identity.delivery(account, message, sameness);
            let remember_until = (sameness == Sameness::One).then(|| now.plus(kept));
            let once = store::Once { id, remember_until };
            let copy = copy_for(&target, message, parsed, once, now)?;
            let store = self.account(account);
            jobs.push(async move { (account, id, store.deliver(copy).await) });
        }
        // What `moxctl log follow` joins the lines of one message by.
        let msg = parsed.facts.as_ref().and_then(|facts| facts.message_id.as_deref());
        let queue_id = match identity {
            Identity::Queue(id) => Some(tracing::field::display(id)),
            Identity::Stranger { .. } => None,
        };
        let mut all_repeats = true;
        let mut refused = None;
        let (mut have_it, mut have_note) = (Vec::new(), Vec::new());
        for (account, id, outcome) in futures::future::join_all(jobs).await {
            if outcome.is_ok() {
                have_it.push((account, id));
            }
            if matches!(outcome, Ok(Delivered::Repeat)) {
                have_note.push((account, id));
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
        if sameness == Sameness::UntilTaken {
            if refused.as_ref().is_some_and(Refusal::is_temporary) {
                self.leave_notes(have_it, now.plus(RETRY)).await;
            } else {
                self.use_up_notes(have_note).await?;
            }
        }
        match refused {
            Some(refusal) => Err(refusal),
            None => Ok(all_repeats),
        }
    }

    /// The sender will come again for others: who has a copy knows it then. Before he is told, at once
    /// for all. Where a note cannot be left, or he hears nothing as we die here, he makes a second copy.
    async fn leave_notes(&self, of: Vec<(AccountId, DeliveryId)>, until: UnixNanos) {
        let notes = of.into_iter().map(|(account, id)| {
            let store = self.account(account);
            async move { (account, store.remember_delivery(id, until).await) }
        });
        for (account, outcome) in futures::future::join_all(notes).await {
            if let Err(error) = outcome {
                tracing::warn!(%account, %error, "a delivery was not noted: its repeat is stored again");
            }
        }
    }

    /// It was taken: an equal one is another one from here on, so before the sender is told. If that
    /// cannot be noted, he comes again, and is recognised. At once for all; there are notes only after a
    /// first try that failed for somebody.
    async fn use_up_notes(&self, of: Vec<(AccountId, DeliveryId)>) -> Result<(), Refusal> {
        let notes = of.into_iter().map(|(account, id)| {
            let store = self.account(account);
            async move { store.forget_delivery(id).await }
        });
        futures::future::try_join_all(notes).await?;
        Ok(())
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
        let from =
            |from: ReversePath, ip: &str| Identity::Stranger { from, ip: ip.parse().unwrap() };
        let address = || "a@b.example".parse().map(ReversePath::Address).unwrap();
        let stranger = from(address(), "192.0.2.1");
        let id = |identity: &Identity, account, message: &Spooled| {
            identity.delivery(account, message, Sameness::One).id
        };
        let first = id(&stranger, ann, &message);
        // The trace fields differ between two tries.
        let again = message.with_prefix(b"Received: later\r\n".to_vec());
        assert_eq!(id(&stranger, ann, &again), first);
        assert_ne!(id(&stranger, bob, &message), first);
        assert_ne!(id(&from(ReversePath::Null, "192.0.2.1"), ann, &message), first);
        let elsewhere = from(address(), "198.51.100.1");
        assert_eq!(id(&elsewhere, ann, &message), first);
        // Without a mark of its own, it comes again from where it came.
        let unmarked = |ip| from(address(), ip).delivery(ann, &message, Sameness::UntilTaken);
        assert_ne!(unmarked("192.0.2.1").id, first);
        assert_eq!(unmarked("192.0.2.2").id, unmarked("192.0.2.1").id);
        assert_ne!(unmarked("198.51.100.1").id, unmarked("192.0.2.1").id);
        assert_eq!(unmarked("192.0.2.1").kept, RETRY);
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
        let stranger = Identity::Stranger { from: ReversePath::Null, ip: [192, 0, 2, 1].into() };
        let queue = Identity::Queue(QueueId::from_bytes([7; 10]));
        let unread = Parsed { is_unread: true, ..Parsed::default() };
        assert_eq!(stranger.sameness(&parsed(None, 1)), Sameness::UntilTaken);
        for (identity, parsed) in [
            (&stranger, parsed(Some("a@b"), 1)),
            (&stranger, parsed(None, 2)),
            (&stranger, Parsed::default()),
            (&stranger, unread),
            (&queue, Parsed::default()),
            (&queue, parsed(None, 1)),
        ] {
            assert_eq!(identity.sameness(&parsed), Sameness::One, "{identity:?} {parsed:?}");
        }
    }
}
