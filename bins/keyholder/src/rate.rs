//! How often an edge may have something signed. A face that was taken over can sign no other
//! shape than an honest one, but it can sign a lot of them: that is what shows it.
//!
//! Two marks, both of `[limits.keys]`: above the first one an alarm is logged, above the second the
//! edge is refused, and that is an alarm, too. In between lie honest storms, such as all clients
//! coming back after a restart.

use std::time::{Duration, Instant};

/// One alarm of a kind in this time.
const QUIET: Duration = Duration::from_secs(60);

/// The marks of one kind of signature, in signatures a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    pub(crate) alarm: u32,
    pub(crate) refuse: u32,
}

/// A token bucket that holds one second's worth.
#[derive(Debug)]
struct Bucket {
    per_second: u32,
    // Millionths of a token.
    level: u64,
    filled: Instant,
}

impl Bucket {
    const TOKEN: u64 = 1_000_000;

    fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, level: u64::from(per_second) * Self::TOKEN, filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled);
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let full = u64::from(self.per_second) * Self::TOKEN;
        let more = micros.saturating_mul(u64::from(self.per_second));
        self.level = self.level.saturating_add(more).min(full);
        self.filled = now;
        match self.level.checked_sub(Self::TOKEN) {
            Some(level) => {
                self.level = level;
                true
            }
            None => false,
        }
    }
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Serve it.
    Serve,
    /// Serve it, and log an alarm.
    Alarm,
    /// Refuse it.
    Refuse,
    /// Refuse it, and log an alarm.
    RefuseAndAlarm,
}

/// Says something at most once in a while.
#[derive(Debug, Default)]
struct Bell(Option<Instant>);

impl Bell {
    fn rings(&mut self, now: Instant) -> bool {
        let rings = self.0.is_none_or(|until| now >= until);
        if rings {
            self.0 = Some(now + QUIET);
        }
        rings
    }
}

/// The meter of one edge for one kind of signature.
#[derive(Debug)]
pub(crate) struct Meter {
    first: Bucket,
    second: Bucket,
    many: Bell,
    too_many: Bell,
}

impl Meter {
    pub(crate) fn new(marks: Marks, now: Instant) -> Self {
        Self {
            first: Bucket::new(marks.alarm, now),
            second: Bucket::new(marks.refuse, now),
            many: Bell::default(),
            too_many: Bell::default(),
        }
    }

    pub(crate) fn ask(&mut self, now: Instant) -> Verdict {
        let calm = self.first.take(now);
        let served = self.second.take(now);
        match (served, calm) {
            (true, true) => Verdict::Serve,
            (true, false) if self.many.rings(now) => Verdict::Alarm,
            (true, false) => Verdict::Serve,
            (false, _) if self.too_many.rings(now) => Verdict::RefuseAndAlarm,
            (false, _) => Verdict::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarm_then_refusal_then_calm() {
        let start = Instant::now();
        let mut meter = Meter::new(Marks { alarm: 5, refuse: 50 }, start);
        let verdicts: Vec<_> = (0..60).map(|_| meter.ask(start)).collect();
        assert_eq!(verdicts[..5], [Verdict::Serve; 5]);
        assert_eq!(verdicts[5], Verdict::Alarm);
        assert!(verdicts[6..50].iter().all(|v| *v == Verdict::Serve), "one alarm, then quiet");
        assert_eq!(verdicts[50], Verdict::RefuseAndAlarm, "and another one when it is refused");
        assert!(verdicts[51..].iter().all(|v| *v == Verdict::Refuse));
        // A steady rate at the mark is no alarm.
        let later = start + Duration::from_secs(120);
        for n in 0..100 {
            assert_eq!(meter.ask(later + Duration::from_millis(200) * n), Verdict::Serve);
        }
        // The next storm is.
        let storm = later + Duration::from_secs(3600);
        assert!((0..6).map(|_| meter.ask(storm)).any(|v| v == Verdict::Alarm));
    }

    #[test]
    fn zero_and_huge_rates_do_not_panic() {
        let now = Instant::now();
        let marks = |n| Marks { alarm: n, refuse: n };
        assert_eq!(Meter::new(marks(0), now).ask(now), Verdict::RefuseAndAlarm);
        let mut meter = Meter::new(marks(u32::MAX), now);
        assert_eq!(meter.ask(now + Duration::from_secs(1 << 40)), Verdict::Serve);
        assert_eq!(meter.ask(now), Verdict::Serve);
    }
}
