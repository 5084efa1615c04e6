//! Ends a job that takes more CPU time than its size allows.
//!
//! A thread beside the one that works, because a job that loops never comes back to the event loop.
//! It counts CPU time and not time, so that a loaded machine or a slow sender ends nobody; while
//! nothing is in hand it sleeps.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// It never looks more often than this.
const SHORTEST_NAP: Duration = Duration::from_millis(5);

/// The watch over the job in hand. Clones watch the same one.
#[derive(Debug, Clone)]
pub struct Watchdog(Arc<Watch>);

#[derive(Debug, Default)]
struct Watch {
    /// CPU time of the process at which the job in hand is over its bound.
    ends_at: Mutex<Option<Duration>>,
    changed: Condvar,
}

/// CPU time the process has taken so far, all threads together.
#[must_use]
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

impl Watchdog {
    /// Starts the thread. `overrun` is called once, from that thread, when a job is over its bound.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(overrun: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let watch = Arc::new(Watch::default());
        let watched = Arc::clone(&watch);
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            watched.until_overrun();
            overrun();
        })?;
        Ok(Self(watch))
    }

    /// A watch that nobody keeps: for the simulated tree, where all processes are one thread.
    #[must_use]
    pub fn asleep() -> Self {
        Self(Arc::default())
    }

    /// A job may run until the process has taken this much CPU time.
    pub(crate) fn allow_until(&self, ends_at: Duration) {
        *self.0.lock() = Some(ends_at);
        self.0.changed.notify_one();
    }

    /// No job is in hand.
    pub(crate) fn rest(&self) {
        *self.0.lock() = None;
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Option<Duration>> {
        // The value is one word; a panic elsewhere cannot have left it half written.
        self.ends_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until_overrun(&self) {
        let mut ends_at = self.lock();
        loop {
            ends_at = match *ends_at {
                None => self.changed.wait(ends_at).unwrap_or_else(PoisonError::into_inner),
                Some(end) => {
                    let left = end.saturating_sub(cpu_time());
                    if left.is_zero() {
                        return;
                    }
                    // One thread works, so CPU time does not pass faster than time.
                    let nap = left.max(SHORTEST_NAP);
                    let waited = self.changed.wait_timeout(ends_at, nap);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_job_over_its_time_is_ended_and_others_are_not() {
        let (said, heard) = mpsc::channel();
        let watchdog = Watchdog::start(move || said.send(cpu_time()).unwrap()).unwrap();
        watchdog.allow_until(cpu_time() + Duration::from_secs(3600));
        watchdog.rest();
        assert!(heard.try_recv().is_err());
        let end = cpu_time() + Duration::from_millis(30);
        watchdog.allow_until(end);
        let mut work = 0u64;
        let ended_at = loop {
            // A loop that takes CPU time, as a job that never ends.
            work = work.wrapping_mul(31).wrapping_add(7);
            if let Ok(at) = heard.try_recv() {
                break at;
            }
        };
        assert!(ended_at >= end, "{work}");
    }
}
