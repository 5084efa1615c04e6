//! A database: its one writing connection, the readers beside it, and how both are set up.

use crate::{
    Disk, Error, RealDisk, Schema, copies,
    migrate::{self, State},
};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};
use std::{
    fmt,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// How long a connection waits for a lock. Only a checkpointer and a second process (`verify`) ever
/// hold one against us.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a copy leaves free where nobody says otherwise.
const KEEP_FREE: u64 = 64 << 20;

/// How to open a database.
#[derive(Clone)]
pub struct Open {
    /// The disk it lies on.
    pub disk: Arc<dyn Disk>,
    /// Page cache of the connection: a limit, not a reservation.
    pub cache_kib: u32,
    /// Prepared statements kept (about 5 KB each).
    pub statements: usize,
    /// Room that the copy made before a migration must leave on the disk, or a twentieth of it if
    /// that is less.
    pub keep_free: u64,
}

impl Default for Open {
    fn default() -> Self {
        Self { disk: Arc::new(RealDisk), cache_kib: 2048, statements: 32, keep_free: KEEP_FREE }
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("cache_kib", &self.cache_kib).finish_non_exhaustive()
    }
}

/// A database open for writing. One at a time for each file: the owner sees to that.
pub struct Database {
    connection: Connection,
    path: PathBuf,
    frames: Arc<AtomicU32>,
}

/// SQLite does not say why a write failed, but for a full disk. Whether the disk has turned read-only
/// is asked of the disk.
fn by_cause(error: Error, path: &Path) -> Error {
    use rustix::fs::{CWD, Mode, OFlags};
    let (Error::Io(text), Some(folder)) = (&error, path.parent()) else { return error };
    // A file without a name: nothing is left of it, and nobody sees it.
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR) {
        Err(rustix::io::Errno::ROFS) => Error::ReadOnly(text.clone()),
        Ok(_) | Err(_) => error,
    }
}

/// A connection that cannot write.
pub struct Reader {
    connection: Connection,
}

/// A transaction that may write; committed when the closure given to [`Database::write`] succeeds.
pub struct Writer<'a> {
    transaction: rusqlite::Transaction<'a>,
}

impl Database {
    /// Opens or makes a database, brings its schema up to date (after a copy; without one where there
    /// is no room for it and nothing is taken away), and leaves one from a newer release untouched.
    ///
    /// # Errors
    /// [`Error::Newer`] and [`Error::Foreign`] for files that are not for us, [`Error::DiskFull`]
    /// where the copy has no room, else what the disk or SQLite says.
    pub fn open(path: &Path, schema: &Schema, how: &Open) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = connect(path, flags, how)?;
        let state = migrate::state(&connection, schema)?;
        let mut wants_copy = true;
        if let State::Older(from) = state
            // Before anything is changed.
            && let Err(error) = copies::check_room(&connection, path, how)
        {
            // Who cannot open it cannot make room, either.
            if !matches!(error, Error::DiskFull(_)) || !schema.only_adds(from) {
                return Err(error);
            }
            tracing::warn!(%error, "brought up to date without a copy: nothing is taken away");
            wants_copy = false;
        }
        if state == State::New {
            // Takes effect before the first page is written, and never again.
            connection.execute_batch("PRAGMA page_size=4096")?;
        }
        let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
        if !mode.eq_ignore_ascii_case("wal") {
            return Err(Error::Io(format!("journal mode is {mode}, not WAL")));
        }
        // FULL: a COMMIT that returned is on the disk; that is what 250 is said on. The checkpoint
        // inside a commit is what makes the slowest of them slow, so it is never run there.
        connection.execute_batch("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0")?;
        match state {
            State::New => {
                migrate::run(&mut connection, schema, 0)?;
                sync_parent(path, how)?;
            }
            State::Older(from) => {
                if wants_copy {
                    copies::make(&connection, path, from, how)?;
                }
                migrate::run(&mut connection, schema, from)?;
            }
            State::Usable => {}
        }
        let frames = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&frames);
        connection.wal_hook(Some(
            move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
                counted.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            },
        ))?;
        Ok(Self { connection, path: path.to_owned(), frames })
    }

    /// Runs `work` in one BEGIN IMMEDIATE transaction and commits it, or rolls it back when `work`
    /// fails. (A deferred one that upgrades gets `SQLITE_BUSY_SNAPSHOT`, and no timeout helps.)
    ///
    /// # Errors
    /// What `work` or the COMMIT says; either way nothing of it is left.
    pub fn write<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&Writer<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(Error::from)?;
        let writer = Writer { transaction };
        let result = work(&writer)?;
        let committed = writer.transaction.commit();
        committed.map_err(|error| by_cause(Error::from(error), &self.path))?;
        Ok(result)
    }

    /// Runs `work` in one read transaction of the writing connection.
    ///
    /// # Errors
    /// What `work` says.
    pub fn read<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        read(&mut self.connection, work)
    }

    /// The frames of the write-ahead log after the last commit: what a checkpoint would move.
    #[must_use]
    pub fn wal_frames(&self) -> u32 {
        self.frames.load(Ordering::Relaxed)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The connection itself, for a checkpoint in place.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Gives memory back: of a database that is going to be idle (374 -> 109 KB, measured).
    pub fn shrink(&self) {
        self.connection.flush_prepared_statement_cache();
        if let Err(error) = self.connection.release_memory() {
            tracing::debug!(%error, "shrinking an idle database");
        }
    }
}

impl Reader {
    /// Opens a database that a [`Database`] has opened before (and so migrated and recovered).
    ///
    /// # Errors
    /// What the disk or SQLite says.
    pub fn open(path: &Path, how: &Open) -> Result<Self, Error> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, how)?;
        connection.execute_batch("PRAGMA query_only=ON")?;
        Ok(Self { connection })
    }

    /// Runs `work` in one read transaction: it sees one state. Keep it to 10 ms, or the log cannot
    /// start again.
    ///
    /// # Errors
    /// What `work` says.
    pub fn read<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        read(&mut self.connection, work)
    }
}

impl Deref for Writer<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.transaction
    }
}

fn read<T, E: From<Error>>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Deferred).map_err(Error::from)?;
    let result = work(&transaction)?;
    // Ends the transaction whatever came out; there is nothing to commit.
    transaction.finish().map_err(Error::from)?;
    Ok(result)
}

/// What every connection is set to before its first statement.
pub(crate) fn connect(path: &Path, flags: OpenFlags, how: &Open) -> Result<Connection, Error> {
    // Each connection is used by one thread at a time, which the type system sees to.
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match how.disk.vfs() {
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs)?,
        None => Connection::open_with_flags(path, flags)?,
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(how.statements);
    // Loading extensions stays off: it is at run time unless it is asked for, and the binding is
    // built without the means to ask.
    for (option, on) in [
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        // Only our checkpointer decides: closing takes 36 us instead of 339, and the log is not
        // made anew at the next opening (3 syncs).
        (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
    ] {
        connection.set_db_config(option, on)?;
    }
    connection.execute_batch(&format!(
        "PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-{}",
        how.cache_kib
    ))?;
    Ok(connection)
}

/// Makes the name of a new database durable: SQLite syncs the directory for its journals alone.
pub(crate) fn sync_parent(path: &Path, how: &Open) -> Result<(), Error> {
    let Some(parent) = path.parent() else { return Ok(()) };
    how.disk.sync_dir(parent).map_err(|e| Error::sync("folder of a new database", &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Migration;

    const ONE: Schema = Schema {
        application_id: 9,
        migrations: &[Migration { sql: "CREATE TABLE a(x INTEGER) STRICT;", min_reader: 1 }],
    };
    fn pragma(connection: &Connection, name: &str) -> i64 {
        connection.query_row(&format!("PRAGMA {name}"), [], |r| r.get(0)).unwrap()
    }

    #[test]
    fn opened_with_all_cares() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("a.db"), &ONE, &Open::default()).unwrap();
        let c = database.connection();
        assert_eq!(pragma(c, "synchronous"), 2);
        assert_eq!(pragma(c, "page_size"), 4096);
        assert_eq!(pragma(c, "wal_autocheckpoint"), 0);
        assert_eq!(pragma(c, "foreign_keys"), 1);
        assert_eq!(pragma(c, "trusted_schema"), 0);
        assert_eq!(pragma(c, "cell_size_check"), 1);
        assert_eq!(pragma(c, "application_id"), 9);
        assert!(c.query_row("SELECT \"no such column\"", [], |_| Ok(())).is_err());
        assert!(c.query_row("SELECT load_extension('x')", [], |_| Ok(())).is_err());
    }

    #[test]
    fn a_reader_cannot_write_and_a_failed_writer_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let mut database = Database::open(&path, &ONE, &Open::default()).unwrap();
        database.write(|w| w.execute("INSERT INTO a VALUES (1)", []).map_err(Error::from)).unwrap();
        assert!(database.wal_frames() > 0);
        let failed: Result<(), Error> = database.write(|w| {
            w.execute("INSERT INTO a VALUES (2)", [])?;
            Err(Error::Busy)
        });
        assert!(failed.is_err());
        let mut reader = Reader::open(&path, &Open::default()).unwrap();
        let count = |c: &Connection| {
            c.query_row("SELECT count(*) FROM a", [], |r| r.get::<_, i64>(0)).map_err(Error::from)
        };
        assert_eq!(reader.read(count).unwrap(), 1);
        let refused: Result<usize, Error> =
            reader.read(|c| c.execute("INSERT INTO a VALUES (3)", []).map_err(Error::from));
        assert!(matches!(refused, Err(Error::ReadOnly(_))), "{refused:?}");
    }

    #[test]
    fn a_file_of_rubbish_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        std::fs::write(&path, vec![0x55; 8192]).unwrap();
        let opened = Database::open(&path, &ONE, &Open::default());
        assert!(matches!(opened.err(), Some(Error::Damaged(_))));
    }
}
