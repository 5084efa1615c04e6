//! Where a process does what would hold up its calls: SQL and syncs, hashing, reading large files.
//!
//! In the product that is on threads beside the one that answers. In the simulated tree
//! (`tests/src/sim`) all processes are one thread, and the same loops run as tasks of it: which
//! of the two is an argument like the clock and the disk, and nothing else depends on it.

use std::{
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};
use tokio::runtime::Builder;

/// The way blocking work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Workers {
    /// Beside the thread that answers calls.
    #[default]
    Threads,
    /// On it, between two calls. Needs a `LocalSet`, with which the work ends.
    InPlace,
}

/// A loop that was started.
#[derive(Debug)]
pub struct Worker(Option<thread::JoinHandle<()>>);

/// The work panicked; the log says where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the work panicked")]
pub struct Panicked;

impl Workers {
    /// Starts a loop. What it waits for may come from any thread.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start<F: Future<Output = ()> + 'static>(
        self,
        name: &str,
        body: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<Worker> {
        match self {
            Self::Threads => {
                // Time alone: no descriptor is opened, so this works inside every sandbox.
                let runtime = Builder::new_current_thread().enable_time().build()?;
                let thread = thread::Builder::new().name(name.to_owned());
                Ok(Worker(Some(thread.spawn(move || runtime.block_on(body()))?)))
            }
            Self::InPlace => {
                tokio::task::spawn_local(body());
                Ok(Worker(None))
            }
        }
    }

    /// Does one piece of work and waits for it.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await.map_err(|_| Panicked),
            Self::InPlace => {
                // The caller may be gone before it begins, as with a thread.
                tokio::task::yield_now().await;
                catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked)
            }
        }
    }
}

impl Worker {
    /// Waits for the end of its thread. In place there is none to wait for.
    ///
    /// # Errors
    /// When the loop panicked.
    pub fn join(self) -> thread::Result<()> {
        self.0.map_or(Ok(()), thread::JoinHandle::join)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{mpsc, oneshot};

    async fn doubles(mut jobs: mpsc::Receiver<(u32, oneshot::Sender<u32>)>) {
        while let Some((number, answer)) = jobs.recv().await {
            answer.send(number * 2).unwrap();
        }
    }

    async fn works(workers: Workers) -> thread::ThreadId {
        let (send, jobs) = mpsc::channel(1);
        let worker = workers.start("doubles", move || doubles(jobs)).unwrap();
        let (answer, wait) = oneshot::channel();
        send.send((21, answer)).await.unwrap();
        assert_eq!(wait.await, Ok(42));
        drop(send);
        worker.join().unwrap();
        assert_eq!(workers.run(|| panic!("as a fault would")).await, Err::<(), _>(Panicked));
        workers.run(|| thread::current().id()).await.unwrap()
    }

    #[tokio::test]
    async fn both_ways_do_the_same() {
        let local = tokio::task::LocalSet::new();
        let here = thread::current().id();
        local
            .run_until(async {
                assert_ne!(works(Workers::Threads).await, here);
                assert_eq!(works(Workers::InPlace).await, here);
            })
            .await;
    }
}
