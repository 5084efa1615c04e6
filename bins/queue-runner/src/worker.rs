//! The thread that owns `queue.db` and the spool: every SQL statement and every sync of this process
//! runs here, never on the thread that answers calls.

use daemon::Workers;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use storage::{Database, Disk, Error, Open};
use tokio::sync::{mpsc, oneshot};

/// Jobs that may wait for the thread; more make their callers wait.
const WAITING: usize = 256;

/// The write-ahead log is started again above this many frames (4 KiB each).
const CHECKPOINT_FRAMES: u32 = 4_096;

/// What runs on the thread: the database, and the folder with its disk.
pub(crate) struct Shelf {
    pub(crate) database: Database,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) spool: PathBuf,
    gate: storage::Gate,
}

/// Work, and whom to tell of an error in it.
type Job = Box<dyn FnOnce(&mut Shelf, &dyn Fn(&Error)) + Send>;

/// The way to the thread.
#[derive(Clone)]
pub(crate) struct Worker {
    jobs: mpsc::Sender<Job>,
}

/// The thread is gone: the process is about to end.
#[derive(Debug, thiserror::Error)]
#[error("the queue's own thread is gone")]
pub(crate) struct Gone;

impl Worker {
    /// Opens the database in `folder` and starts the thread. `fatal` is called when a sync failed:
    /// nobody then knows what is on the disk, and the process has to end.
    pub(crate) fn start(
        folder: &Path,
        disk: Arc<dyn Disk>,
        workers: Workers,
        fatal: impl Fn(&Error) + Send + 'static,
    ) -> Result<Self, Error> {
        let spool = folder.join("spool");
        if !disk.exists(&spool) {
            disk.create_dir(&spool).map_err(|e| Error::file("make the spool", &e))?;
            disk.sync_dir(folder).map_err(|e| Error::sync("the queue's folder", &e))?;
        }
        let open = Open { disk: Arc::clone(&disk), ..Open::default() };
        let database = Database::open(&folder.join("queue.db"), &crate::schema::SCHEMA, &open)?;
        let mut shelf = Shelf { database, disk, spool, gate: storage::Gate::default() };
        crate::spool::sweep(&mut shelf)?;
        let (jobs, waiting) = mpsc::channel::<Job>(WAITING);
        workers
            .start("queue-db", move || shelf.work(waiting, fatal))
            .map_err(|e| Error::Io(format!("start the queue's thread: {e}")))?;
        Ok(Self { jobs })
    }

    /// Runs `work` on the thread and waits for its answer. `work` runs to its end even if nobody
    /// waits any more.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Shelf) -> Result<T, Error> + Send + 'static,
    ) -> Result<Result<T, Error>, Gone> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |shelf, judge| {
            let done = work(shelf);
            if let Err(error) = &done {
                judge(error);
            }
            // Nobody waits when the caller was cancelled; what was done stays done.
            let _ = answer.send(done);
        });
        self.jobs.send(job).await.map_err(|_| Gone)?;
        result.await.map_err(|_| Gone)
    }
}

impl Shelf {
    async fn work(mut self, mut waiting: mpsc::Receiver<Job>, fatal: impl Fn(&Error)) {
        let judge = |what: &str, error: &Error| {
            if error.is_fatal() {
                tracing::error!(%error, what);
                fatal(error);
            }
        };
        while let Some(job) = waiting.recv().await {
            // Before the answer goes out: nothing may be built on a failed sync.
            job(&mut self, &|error| judge("job", error));
            if let Err(error) = self.checkpoint_when_long() {
                tracing::warn!(%error, "checkpoint of queue.db");
                judge("checkpoint", &error);
            }
        }
    }

    fn checkpoint_when_long(&self) -> Result<(), Error> {
        if self.database.wal_frames() > CHECKPOINT_FRAMES {
            storage::checkpoint(self.database.connection(), &self.gate)?;
        }
        Ok(())
    }
}
