//! When to try again, and when to give up: decisions on numbers, no I/O.

use config::Queue;
use std::time::Duration;
use types::UnixNanos;

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try again then.
    Retry {
        /// When.
        at: UnixNanos,
        /// Whether the sender is to be told of the delay now.
        tell_sender: bool,
    },
    /// That was the last attempt.
    GiveUp,
}

/// After the `attempts`-th attempt (from 1) failed temporarily. `jitter` is any number, so that
/// messages that failed together do not come back together.
pub(crate) fn after_failure(queue: &Queue, attempts: u32, now: UnixNanos, jitter: u64) -> Next {
    let waits = &queue.retry;
    let Some(wait) = usize::try_from(attempts).ok().and_then(|n| waits.get(n.checked_sub(1)?))
    else {
        return Next::GiveUp;
    };
    // Up to a sixteenth more.
    let spread = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX) / 16;
    let more = Duration::from_nanos(if spread == 0 { 0 } else { jitter % spread });
    Next::Retry {
        at: now.plus(*wait).plus(more),
        tell_sender: queue.delay_notice_after != 0 && attempts == queue.delay_notice_after,
    }
}

/// The first wait when it was our own fault, and the longest.
const SOON: Duration = Duration::from_secs(1);
const SOON_AT_MOST: Duration = Duration::from_secs(60);

/// How often in a row a fault that accountd has with itself costs no attempt: three minutes, in
/// which a process comes back and a disk is seen to.
pub(crate) const UNCOUNTED: u32 = 8;

/// How long after the `faults`-th fault of ours in a row (from 1) it is tried again: no other server
/// is troubled by it, and the process that was away is started again at once.
pub(crate) fn after_fault(faults: u32) -> Duration {
    let doubled = 1_u32.checked_shl(faults.saturating_sub(1)).unwrap_or(u32::MAX);
    SOON.saturating_mul(doubled).min(SOON_AT_MOST)
}

/// When to try again should this process die in its `attempts`-th attempt (from 1) to bring something
/// to accountd. That knows what it has: nothing is doubled by coming back soon.
pub(crate) fn after_death(attempts: u32) -> Duration {
    after_fault(attempts.saturating_add(2))
}

/// Until when it will be tried after the `attempts`-th attempt failed, for a report of delay
/// (RFC 3464 §2.3.9 Will-Retry-Until): the wait that begins now, and those behind it.
pub(crate) fn retried_until(queue: &Queue, attempts: u32, now: UnixNanos) -> UnixNanos {
    let over = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    queue.retry.iter().skip(over).fold(now, |at, wait| at.plus(*wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(waits: &[u64], delay_notice_after: u32) -> Queue {
        let retry = waits.iter().map(|&s| Duration::from_secs(s)).collect();
        Queue { retry, delay_notice_after, ..Queue::default() }
    }

    #[test]
    fn waits_grow_and_end() {
        let (queue, now) = (queue(&[16, 32], 2), UnixNanos::from_seconds(1_000));
        let Next::Retry { at, tell_sender } = after_failure(&queue, 1, now, 0) else { panic!() };
        assert_eq!((at.seconds(), tell_sender), (1_016, false));
        let Next::Retry { at, tell_sender } = after_failure(&queue, 2, now, u64::MAX) else {
            panic!()
        };
        assert!((1_032..1_034).contains(&at.seconds()), "{at:?}");
        assert!(tell_sender);
        assert_eq!(after_failure(&queue, 3, now, 7), Next::GiveUp);
        assert_eq!(after_failure(&queue, u32::MAX, now, 7), Next::GiveUp);
        // The last attempt of all is the third.
        assert_eq!(retried_until(&queue, 1, now).seconds(), 1_048);
        assert_eq!(retried_until(&queue, 2, now).seconds(), 1_032);
        assert_eq!(retried_until(&queue, 3, now), now);
    }

    #[test]
    fn faults_of_ours_are_tried_again_within_a_minute() {
        let waits: Vec<u64> = (0..9).map(|n| after_fault(n).as_secs()).collect();
        assert_eq!(waits, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(after_fault(u32::MAX).as_secs(), 60);
        assert_eq!((after_death(1).as_secs(), after_death(u32::MAX).as_secs()), (4, 60));
    }

    #[test]
    fn the_default_goes_on_for_four_to_five_days() {
        // RFC 5321 §4.5.4.1.
        let queue = Queue::default();
        let whole = queue.retry.iter().sum::<Duration>();
        assert!((4..=5).contains(&(whole.as_secs() / 86_400)), "{whole:?}");
    }
}
