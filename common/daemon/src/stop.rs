//! When a process must end: first it drains, then it is over.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

/// Tells when to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop {
    deadline: watch::Receiver<Option<Instant>>,
}

/// The side that says so.
#[derive(Debug)]
pub struct Stopper {
    deadline: watch::Sender<Option<Instant>>,
}

impl Stop {
    /// A pair.
    #[must_use]
    pub fn new() -> (Stopper, Stop) {
        let (sender, receiver) = watch::channel(None);
        (Stopper { deadline: sender }, Stop { deadline: receiver })
    }

    /// Whether draining has begun: take nothing new.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.deadline.borrow().is_some()
    }

    /// Waits until draining begins; gives the moment when the process ends whatever is left.
    pub async fn draining(&self) -> Instant {
        let mut deadline = self.deadline.clone();
        loop {
            if let Some(deadline) = *deadline.borrow_and_update() {
                return deadline;
            }
            if deadline.changed().await.is_err() {
                // Whoever could say it is gone, which says it too.
                return Instant::now();
            }
        }
    }

    /// Waits until the time for draining is over.
    pub async fn over(&self) {
        loop {
            let deadline = self.draining().await;
            tokio::time::sleep_until(deadline).await;
            // It may have been brought forward or put off meanwhile.
            if self.deadline.borrow().is_none_or(|deadline| deadline <= Instant::now()) {
                return;
            }
        }
    }
}

impl Stopper {
    /// Begins to drain.
    pub fn drain(&self, within: Duration) {
        self.deadline.send_replace(Some(Instant::now() + within));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn draining_then_over() {
        let (stopper, stop) = Stop::new();
        assert!(!stop.is_draining());
        stopper.drain(Duration::from_millis(20));
        let deadline = stop.clone().draining().await;
        assert!(stop.is_draining() && deadline > Instant::now());
        stop.over().await;
        assert!(deadline <= Instant::now());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_lost_stopper_stops() {
        let (stopper, stop) = Stop::new();
        drop(stopper);
        stop.draining().await;
    }
}
