//! Equal mails one after the other, where one is told from the repeat of another by what became of
//! that.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, Weak},
};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// What is the same in equal mails.
type Digest = [u8; 32];

/// Who delivers what, and who waits for that.
#[derive(Default)]
pub(crate) struct Turns {
    of: RefCell<BTreeMap<Digest, Weak<RwLock<()>>>>,
}

/// Dropped when the delivery has ended.
pub(crate) enum Turn {
    /// Nobody else delivers it.
    Alone(#[expect(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>),
    /// Nobody delivers it alone.
    Together(#[expect(dead_code, reason = "held, not read")] OwnedRwLockReadGuard<()>),
}

impl Turns {
    /// Waits for the turn: `alone` by who will leave a note of it for as long as it lasts.
    pub(crate) async fn wait(&self, digest: Digest, alone: bool) -> Turn {
        let lock = self.lock(digest);
        if alone {
            Turn::Alone(lock.write_owned().await)
        } else {
            Turn::Together(lock.read_owned().await)
        }
    }

    fn lock(&self, digest: Digest) -> Arc<RwLock<()>> {
        let mut of = self.of.borrow_mut();
        if let Some(lock) = of.get(&digest).and_then(Weak::upgrade) {
            return lock;
        }
        // As many as deliveries at once, which are bounded where they begin.
        of.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        of.insert(digest, Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn who_leaves_a_note_is_alone() {
        let turns = Turns::default();
        let one = turns.wait([1; 32], false).await;
        let two = turns.wait([1; 32], false).await;
        let mut alone = Box::pin(turns.wait([1; 32], true));
        assert!(alone.as_mut().now_or_never().is_none());
        assert!(turns.wait([2; 32], true).now_or_never().is_some(), "another mail");
        drop((one, two));
        let alone = alone.await;
        assert!(turns.wait([1; 32], false).now_or_never().is_none());
        drop(alone);
        assert!(turns.wait([3; 32], true).now_or_never().is_some());
        assert_eq!(turns.of.borrow().len(), 1, "what has ended is forgotten");
    }
}
