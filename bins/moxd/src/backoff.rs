//! When a process that ended is started again. Pure, so that the rule can be read and tested.

use std::time::{Duration, Instant};

/// Restarts at once before waiting begins.
const AT_ONCE: u32 = 5;
/// The first wait; it doubles.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);
/// A life this long after "ready" clears the record.
const HEALTHY: Duration = Duration::from_secs(60);

/// The record of one process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff {
    faults: u32,
}

/// How a life went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It ended as it had announced, or as it was told.
    Planned,
    /// It served for this long and ended by a fault.
    Served(Duration),
    /// It never came to serve.
    Stillborn,
}

impl Backoff {
    /// When to start the next life. `hand` is a process whose job is to die for others (parser):
    /// poison mail must not put it into back-off, or it would stop all mail.
    pub(crate) fn next(&mut self, life: Life, hand: bool, now: Instant) -> Instant {
        match life {
            Life::Planned => return now,
            Life::Served(_) if hand => return now,
            Life::Served(time) if time >= HEALTHY => self.faults = 0,
            Life::Served(_) | Life::Stillborn => {}
        }
        self.faults = self.faults.saturating_add(1);
        now + self.wait()
    }

    /// Faults without a healthy minute between them.
    pub(crate) fn faults(self) -> u32 {
        self.faults
    }

    fn wait(self) -> Duration {
        match self.faults.checked_sub(AT_ONCE + 1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_at_once_then_doubling_to_five_seconds() {
        let now = Instant::now();
        let mut record = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..13 {
            waits.push(record.next(Life::Stillborn, true, now).duration_since(now).as_millis());
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        let healthy = Life::Served(Duration::from_secs(61));
        assert_eq!(record.next(healthy, false, now), now);
        assert_eq!(record.faults(), 1);
    }

    #[test]
    fn hands_and_planned_ends_never_wait() {
        let now = Instant::now();
        let mut record = Backoff::default();
        for _ in 0..100 {
            assert_eq!(record.next(Life::Served(Duration::ZERO), true, now), now);
            assert_eq!(record.next(Life::Planned, false, now), now);
        }
        assert_eq!(record.faults(), 0);
    }
}
