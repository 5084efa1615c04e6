//! A cache of negative answers: hickory keeps none while it validates, and a busy mail server asks
//! for the same absent TLSA and SPF records again and again.

use crate::{Answer, Kind, Outcome};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Answers kept.
const MAX_ENTRIES: usize = 10_000;

/// The longest a negative answer is kept, whatever the zone says (RFC 2308 §5 allows hours; mail
/// that waits for a record to appear should not).
const MAX_TTL: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(crate) struct Negative {
    entries: BTreeMap<(String, Kind), (Instant, Answer)>,
}

impl Negative {
    pub(crate) fn find(&mut self, name: &str, kind: Kind, now: Instant) -> Option<Answer> {
        let key = (name.to_ascii_lowercase(), kind);
        let (until, answer) = self.entries.get(&key)?;
        if *until <= now {
            self.entries.remove(&key);
            return None;
        }
        Some(answer.clone())
    }

    pub(crate) fn keep(&mut self, name: &str, kind: Kind, answer: &Answer, now: Instant) {
        if !matches!(answer.outcome, Outcome::NoSuchName | Outcome::NoData) {
            return;
        }
        let ttl = Duration::from_secs(answer.ttl_seconds.into()).min(MAX_TTL);
        if ttl.is_zero() {
            return;
        }
        if self.entries.len() >= MAX_ENTRIES {
            self.entries.retain(|_, (until, _)| *until > now);
        }
        // Still full of fresh ones: somebody is making names up. Start anew instead of growing.
        if self.entries.len() >= MAX_ENTRIES {
            self.entries.clear();
        }
        let key = (name.to_ascii_lowercase(), kind);
        self.entries.insert(key, (now + ttl, answer.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absent(ttl_seconds: u32) -> Answer {
        Answer { outcome: Outcome::NoData, authentic: true, ttl_seconds, final_name: String::new() }
    }

    #[test]
    fn keeps_no_longer_than_told_and_never_long() {
        let (mut cache, now) = (Negative::default(), Instant::now());
        cache.keep("a.Example", Kind::A, &absent(10), now);
        assert_eq!(cache.find("A.example", Kind::A, now), Some(absent(10)));
        assert_eq!(cache.find("a.example", Kind::Mx, now), None);
        assert_eq!(cache.find("a.example", Kind::A, now + Duration::from_secs(10)), None);
        cache.keep("b.example", Kind::A, &absent(u32::MAX), now);
        assert_eq!(cache.find("b.example", Kind::A, now + MAX_TTL), None);
        cache.keep("c.example", Kind::A, &absent(0), now);
        assert_eq!(cache.find("c.example", Kind::A, now), None);
    }

    #[test]
    fn is_bounded() {
        let (mut cache, now) = (Negative::default(), Instant::now());
        for n in 0..MAX_ENTRIES * 2 {
            cache.keep(&format!("{n}.example"), Kind::A, &absent(100), now);
            assert!(cache.entries.len() <= MAX_ENTRIES);
        }
    }
}
