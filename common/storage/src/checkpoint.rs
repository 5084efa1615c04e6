//! Checkpoints of our own, behind a gate.
//!
//! Never inside a commit (that is its p99), and not by a thread alone: a log that always has a newer
//! commit or a reader never starts again, and grew to 502 MB in a trial. So most of the work is done
//! PASSIVE while writers go on, and the last step, RESTART, while the gate keeps writers and
//! readers out for a few milliseconds.

use crate::{Error, Open, database::connect};
use rusqlite::{Connection, OpenFlags};
use std::{
    fmt,
    path::Path,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Shared by whoever writes or reads a database, for one group or one batch at a time; taken alone
/// by the checkpointer (and by a backup, which wants no checkpoint).
#[derive(Default)]
pub struct Gate(RwLock<()>);

impl Gate {
    /// Passes the gate to write or to read.
    pub fn pass(&self) -> RwLockReadGuard<'_, ()> {
        // The lock guards no data, so a holder that panicked left nothing half-done behind it.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the gate: waits until nobody is inside.
    pub fn close(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// What a checkpoint achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// All frames are in the database, and the log starts again with the next commit.
    Restarted,
    /// Somebody outside the gate was in the way; try again later.
    Unfinished,
}

/// Moves the log into the database file: PASSIVE, then RESTART behind the gate. The caller must not
/// be inside the gate.
///
/// # Errors
/// What the disk or SQLite says. A full disk leaves the log as it was.
pub fn checkpoint(connection: &Connection, gate: &Gate) -> Result<Checkpoint, Error> {
    step(connection, "PASSIVE")?;
    let _closed = gate.close();
    step(connection, "RESTART")
}

/// The same for a file that others have open, over a connection of its own: for a checkpointer's
/// thread. `truncate` empties the log too, as a database that is going to be idle wants it.
///
/// # Errors
/// As [`checkpoint`].
pub fn checkpoint_file(
    path: &Path,
    how: &Open,
    gate: &Gate,
    truncate: bool,
) -> Result<Checkpoint, Error> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, how)?;
    connection.execute_batch("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0")?;
    let done = checkpoint(&connection, gate)?;
    if truncate && done == Checkpoint::Restarted {
        let _closed = gate.close();
        return step(&connection, "TRUNCATE");
    }
    Ok(done)
}

fn step(connection: &Connection, mode: &str) -> Result<Checkpoint, Error> {
    // Success is reported with busy=1 or with frames left, so all three columns are read.
    let (busy, log, done): (i64, i64, i64) =
        connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    Ok(if busy == 0 && log == done { Checkpoint::Restarted } else { Checkpoint::Unfinished })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Database, Migration, Open, Reader, Schema};

    const SCHEMA: Schema = Schema {
        application_id: 3,
        migrations: &[Migration { sql: "CREATE TABLE a(x BLOB) STRICT;", min_reader: 1 }],
    };

    #[test]
    fn the_log_starts_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let mut database = Database::open(&path, &SCHEMA, &Open::default()).unwrap();
        let gate = Gate::default();
        let add = |database: &mut Database| {
            database
                .write(|w| {
                    w.execute("INSERT INTO a VALUES (zeroblob(9000))", []).map_err(Error::from)
                })
                .unwrap();
            database.wal_frames()
        };
        let first = add(&mut database);
        assert!(add(&mut database) > first);
        assert_eq!(checkpoint(database.connection(), &gate).unwrap(), Checkpoint::Restarted);
        assert!(add(&mut database) <= first);
        assert_eq!(
            checkpoint_file(&path, &Open::default(), &gate, true).unwrap(),
            Checkpoint::Restarted
        );
        assert_eq!(std::fs::metadata(folder.path().join("a.db-wal")).unwrap().len(), 0);
        // A reader that stays inside a transaction keeps it from being finished, and nothing breaks.
        let mut reader = Reader::open(&path, &Open::default()).unwrap();
        reader
            .read(|c| {
                let _: i64 = c.query_row("SELECT count(*) FROM a", [], |r| r.get(0))?;
                add(&mut database);
                database.connection().busy_timeout(std::time::Duration::ZERO)?;
                let outcome = checkpoint(database.connection(), &gate)?;
                assert_eq!(outcome, Checkpoint::Unfinished);
                Ok::<(), Error>(())
            })
            .unwrap();
    }
}
