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
    fn the_default_goes_on_for_four_to_five_days() {
        // RFC 5321 §4.5.4.1.
        let queue = Queue::default();
        let whole = queue.retry.iter().sum::<Duration>();
        assert!((4..=5).contains(&(whole.as_secs() / 86_400)), "{whole:?}");
    }
}
