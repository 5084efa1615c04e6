//! The thread on which credentials are read and written: SQL never runs where calls are answered.

use super::{history::Attempt, records::Records};
use daemon::Workers;
use std::collections::BTreeMap;
use storage::{Error, rusqlite::ErrorCode};
use tokio::sync::{mpsc, oneshot};
use types::AccountId;

/// Jobs that may wait; more are refused as temporary.
const MAX_WAITING: usize = 1024;
/// Different attempts that wait to be written.
const MAX_NOTES: usize = 4096;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// What the thread has.
pub(crate) struct Worker {
    pub(crate) records: Records,
    notes: BTreeMap<Option<AccountId>, Vec<Attempt>>,
    noted: usize,
}

/// A fault of ours, told to the peer as temporary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VaultError {
    /// Too much waits already, or the thread has ended.
    #[error("the credential store is busy")]
    Busy,
    /// The database is not what was written, or not ours to read: trying again does not help.
    #[error("{0}")]
    Unsound(String),
    /// What else SQLite says; later it may work.
    #[error("{0}")]
    Storage(String),
}

impl From<Error> for VaultError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Damaged(_) | Error::Newer { .. } | Error::Foreign(_) => Self::Unsound(text),
            // A table or a column is not there, or not of its type.
            Error::Fault(fault) if fault.sqlite_error_code() != Some(ErrorCode::OutOfMemory) => {
                Self::Unsound(text)
            }
            Error::Fault(_)
            | Error::DiskFull(_)
            | Error::ReadOnly(_)
            | Error::SyncFailed(_)
            | Error::Io(_)
            | Error::Busy => Self::Storage(text),
        }
    }
}

/// A handle on the thread; it ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Vault {
    jobs: mpsc::Sender<Job>,
}

impl Vault {
    /// Starts the thread.
    pub(crate) fn start(records: Records, workers: Workers) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>(MAX_WAITING);
        let worker = Worker { records, notes: BTreeMap::new(), noted: 0 };
        workers.start("credentials", move || worker.work(waiting))?;
        Ok(Self { jobs })
    }

    /// Runs a piece of work there.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Records) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, VaultError> {
        let (answer, waiting) = oneshot::channel();
        let job: Job = Box::new(move |worker| {
            // Who asked may have gone.
            let _ = answer.send(work(&mut worker.records));
        });
        self.jobs.try_send(job).map_err(|_| VaultError::Busy)?;
        Ok(waiting.await.map_err(|_| VaultError::Busy)??)
    }

    /// Notes an attempt for the history; dropped when too many wait.
    pub(crate) fn note(&self, account: Option<AccountId>, attempt: Attempt) {
        let job: Job = Box::new(move |worker| worker.keep(account, attempt));
        if self.jobs.try_send(job).is_err() {
            tracing::warn!("an attempt to log in was not noted: too much waits");
        }
    }
}

impl Worker {
    async fn work(mut self, mut waiting: mpsc::Receiver<Job>) {
        while let Some(job) = waiting.recv().await {
            job(&mut self);
            self.records.checkpoint_when_long();
            // Nobody waits for history: it is written when nothing else is to do, so a burst of
            // attempts costs one sync.
            if waiting.is_empty() {
                self.write_notes();
            }
        }
        self.write_notes();
    }

    fn keep(&mut self, account: Option<AccountId>, attempt: Attempt) {
        if self.noted >= MAX_NOTES {
            self.write_notes();
        }
        self.noted += 1;
        self.notes.entry(account).or_default().push(attempt);
    }

    fn write_notes(&mut self) {
        self.noted = 0;
        for (account, attempts) in std::mem::take(&mut self.notes) {
            if let Err(error) = self.records.note(account, &attempts) {
                tracing::error!(%error, ?account, "log-in history not written");
            }
            // Before the next account closes this one's database.
            self.records.checkpoint_when_long();
        }
    }
}
