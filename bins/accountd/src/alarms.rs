//! What an administrator must look at: said in the log when it happens, and kept for `moxctl status`
//! until the process ends.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};
use types::{AccountId, UnixNanos};

/// The newest are kept.
const KEPT: usize = 20;

/// The alarms of this life of the process.
#[derive(Clone, Default)]
pub(crate) struct Alarms(Arc<Mutex<VecDeque<(UnixNanos, String)>>>);

impl Alarms {
    /// About an account, or what belongs to none. The same again only makes the one that is kept
    /// newer.
    pub(crate) fn raise(&self, account: impl Into<Option<AccountId>>, what: &str, now: UnixNanos) {
        let account = account.into();
        tracing::error!(account = account.map(tracing::field::display), what, "alarm");
        let text = about(account, what);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, known)| *known != text);
        kept.push_back((now, text));
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }

    /// Forgets what was said of it in words that begin so: it is looked at anew.
    pub(crate) fn forget(&self, account: impl Into<Option<AccountId>>, what: &str) {
        let begins = about(account.into(), what);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, text)| !text.starts_with(&begins));
    }

    /// The newest first, with how long ago.
    pub(crate) fn told(&self, now: UnixNanos) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tell = |(at, text): &(UnixNanos, String)| {
            let ago = now.seconds().saturating_sub(at.seconds()).max(0);
            match ago {
                0..120 => format!("{ago} s ago: {text}"),
                120..7_200 => format!("{} min ago: {text}", ago / 60),
                _ => format!("{} h ago: {text}", ago / 3_600),
            }
        };
        kept.iter().rev().map(tell).collect()
    }
}

fn about(account: Option<AccountId>, what: &str) -> String {
    match account {
        Some(account) => format!("account {account}: {what}"),
        None => format!("no account's: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_repeats_are_one() {
        let alarms = Alarms::default();
        let id = AccountId::from_bytes([1; 10]);
        let at = UnixNanos::from_seconds;
        for n in 0..30 {
            alarms.raise(id, &format!("{n}"), at(n));
        }
        alarms.raise(id, "15", at(30));
        let told = alarms.told(at(30 + 7_300));
        assert_eq!(told.len(), KEPT);
        assert_eq!(told[0], format!("2 h ago: account {id}: 15"));
        assert_eq!(told[1], format!("2 h ago: account {id}: 29"));
        assert!(alarms.told(at(40))[0].starts_with("10 s ago"));
        assert!(alarms.told(at(330))[0].starts_with("5 min ago"));
        assert!(alarms.told(at(0))[0].starts_with("0 s ago"), "a clock that was set back");
        alarms.forget(AccountId::from_bytes([2; 10]), "15");
        assert_eq!(alarms.told(at(40)).len(), KEPT, "another account's");
        alarms.forget(id, "15");
        assert_eq!(alarms.told(at(40)).len(), KEPT - 1);
        alarms.forget(None, "1");
        assert_eq!(alarms.told(at(40)).len(), KEPT - 1, "an account's");
        alarms.raise(None, "left", at(40));
        assert_eq!(alarms.told(at(40))[0], "0 s ago: no account's: left");
        alarms.forget(None, "left");
        assert_eq!(alarms.told(at(40)).len(), KEPT - 1);
    }
}
