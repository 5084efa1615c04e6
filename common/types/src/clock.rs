//! Time comes in by argument, so that tests can step it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// Nanoseconds since 1970 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixNanos(pub i64);

impl UnixNanos {
    /// From whole seconds.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Whole seconds, rounded down.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// This time and `later` more.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(later.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// Where a process takes the time from.
pub trait Clock: Send + Sync {
    /// Time for people and for disk; may jump.
    fn now(&self) -> UnixNanos;
    /// Time for deadlines; never jumps.
    fn monotonic(&self) -> Instant;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixNanos {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        UnixNanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that stands still until it is moved: for tests and the simulated tree.
#[derive(Debug, Clone)]
pub struct ManualClock {
    start: (UnixNanos, Instant),
    passed_ns: Arc<AtomicU64>,
}

impl ManualClock {
    /// Stands at `now`.
    #[must_use]
    pub fn at(now: UnixNanos) -> Self {
        Self { start: (now, Instant::now()), passed_ns: Arc::default() }
    }

    /// Moves it, and every clone of it.
    pub fn advance(&self, by: Duration) {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.passed_ns.fetch_add(ns, Ordering::SeqCst);
    }
}

impl ManualClock {
    fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed_ns.load(Ordering::SeqCst))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixNanos {
        self.start.0.plus(self.passed())
    }

    fn monotonic(&self) -> Instant {
        self.start.1 + self.passed()
    }
}
