//! Every session that logged in, so that a changed password, a disabled account or a removed key
//! ends it at once. Revocation is the server's: it never depends on what the holder does.

use super::ticket::Credential;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::{Rc, Weak},
};
use tokio::sync::watch;
use types::AccountId;

/// Sessions one account may have over all faces.
pub(crate) const MAX_SESSIONS: usize = 2_000;

/// The proof a session rests on, and the generation it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Basis {
    pub(crate) account: AccountId,
    pub(crate) credential: Credential,
    pub(crate) generation: u64,
    pub(crate) account_generation: u64,
}

/// One session: its objects hold it and ask it before each call.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) basis: Basis,
    revoked: watch::Sender<Option<&'static str>>,
}

/// The session's right is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revoked: {0}")]
pub(crate) struct Revoked(pub(crate) &'static str);

impl Live {
    /// A session outside any list: the administrator's look into an account.
    pub(crate) fn unlisted(basis: Basis) -> Rc<Self> {
        Rc::new(Self { basis, revoked: watch::Sender::new(None) })
    }

    /// Whether the right still holds.
    pub(crate) fn check(&self) -> Result<(), Revoked> {
        match *self.revoked.borrow() {
            None => Ok(()),
            Some(why) => Err(Revoked(why)),
        }
    }

    /// Waits until it does not. For ever, if the session ends before that.
    pub(crate) fn revoked(&self) -> impl Future<Output = &'static str> + 'static {
        let mut changes = self.revoked.subscribe();
        async move {
            loop {
                if let Some(why) = *changes.borrow_and_update() {
                    return why;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    of: RefCell<BTreeMap<AccountId, Vec<Weak<Live>>>>,
}

impl Lives {
    /// Enters a session; None if the account has too many.
    pub(crate) fn enter(&self, basis: Basis) -> Option<Rc<Live>> {
        let mut of = self.of.borrow_mut();
        let sessions = of.entry(basis.account).or_default();
        sessions.retain(|live| live.strong_count() > 0);
        if sessions.len() >= MAX_SESSIONS {
            return None;
        }
        let live = Live::unlisted(basis);
        sessions.push(Rc::downgrade(&live));
        Some(live)
    }

    /// Ends the sessions of an account whose basis does not hold any more.
    pub(crate) fn revoke(
        &self,
        account: AccountId,
        why: &'static str,
        ends: impl Fn(&Basis) -> bool,
    ) -> usize {
        let mut of = self.of.borrow_mut();
        let Some(sessions) = of.get_mut(&account) else { return 0 };
        let mut ended = 0;
        sessions.retain(|live| {
            let Some(live) = live.upgrade() else { return false };
            if !ends(&live.basis) {
                return true;
            }
            live.revoked.send_replace(Some(why));
            ended += 1;
            false
        });
        if sessions.is_empty() {
            of.remove(&account);
        }
        ended
    }

    /// Ends sessions as [`Self::revoke`] does, should whoever asked for a change go away before
    /// it is known whether the change was made: the change is, whoever waits for it.
    pub(crate) fn unless_heard<F: Fn(&Basis) -> bool>(
        &self,
        account: AccountId,
        why: &'static str,
        ends: F,
    ) -> Unheard<'_, F> {
        Unheard { lives: self, account, why, ends: Some(ends) }
    }

    /// Forgets sessions that have ended.
    pub(crate) fn sweep(&self) {
        self.of.borrow_mut().retain(|_, sessions| {
            sessions.retain(|live| live.strong_count() > 0);
            !sessions.is_empty()
        });
    }

    /// Sessions there are.
    pub(crate) fn count(&self) -> usize {
        let of = self.of.borrow();
        of.values().flatten().filter(|live| live.strong_count() > 0).count()
    }
}

/// A change whose outcome nobody has heard yet.
#[must_use]
pub(crate) struct Unheard<'a, F: Fn(&Basis) -> bool> {
    lives: &'a Lives,
    account: AccountId,
    why: &'static str,
    ends: Option<F>,
}

impl<F: Fn(&Basis) -> bool> Unheard<'_, F> {
    /// It was heard, and follows from it what has to.
    pub(crate) fn heard(mut self) {
        self.ends = None;
    }
}

impl<F: Fn(&Basis) -> bool> Drop for Unheard<'_, F> {
    fn drop(&mut self) {
        if let Some(ends) = self.ends.take() {
            self.lives.revoke(self.account, self.why, ends);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basis(account: u8, credential: Credential, generation: u64) -> Basis {
        let account = AccountId::from_bytes([account; 10]);
        Basis { account, credential, generation, account_generation: 1 }
    }

    #[tokio::test]
    async fn only_what_rests_on_it_ends() {
        let lives = Lives::default();
        let password = lives.enter(basis(1, Credential::Password, 1)).unwrap();
        let newer = lives.enter(basis(1, Credential::Password, 2)).unwrap();
        let key = lives.enter(basis(1, Credential::Key([1; 32]), 9)).unwrap();
        let other = lives.enter(basis(2, Credential::Password, 1)).unwrap();
        let told = password.revoked();
        let ended = lives.revoke(password.basis.account, "password changed", |b| {
            b.credential == Credential::Password && b.generation < 2
        });
        assert_eq!(ended, 1);
        assert_eq!(told.await, "password changed");
        assert_eq!(password.check(), Err(Revoked("password changed")));
        for live in [&newer, &key, &other] {
            assert_eq!(live.check(), Ok(()));
        }
        drop(other);
        lives.sweep();
        assert_eq!(lives.count(), 2);
    }

    #[test]
    fn sessions_of_an_account_are_bounded() {
        let lives = Lives::default();
        let all: Vec<_> = (0..MAX_SESSIONS)
            .map(|_| lives.enter(basis(1, Credential::Password, 1)).unwrap())
            .collect();
        assert!(lives.enter(basis(1, Credential::Password, 1)).is_none());
        drop(all);
        assert!(lives.enter(basis(1, Credential::Password, 1)).is_some());
    }
}
