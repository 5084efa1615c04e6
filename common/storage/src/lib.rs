//! Opening SQLite databases: pragmas, migrations, readers and writers, checkpoints, and a file
//! layer that forgets.
//!
//! Every database of the product is opened here and nowhere else, so that each is opened with the
//! same care: WAL with `synchronous=FULL` (a COMMIT that returned is on the disk), checks on what
//! the file says, no extension, numbered migrations in one transaction, refusal of a file from a
//! newer release. The crate has no table of its own: tables and their migrations belong to the
//! process that owns the database.
//!
//! A [`Reader`] cannot write; a [`Writer`] is a transaction; a [`Gate`] keeps both out for the moment
//! in which a checkpoint lets the write-ahead log start again (without it the log grows for ever
//! under load, which was measured).
//!
//! ```
//! use storage::{Database, Migration, Open, Schema};
//! const SCHEMA: Schema = Schema {
//!     application_id: 0x6d6f_7801,
//!     migrations: &[Migration { sql: "CREATE TABLE t(x INTEGER NOT NULL) STRICT;", min_reader: 1 }],
//! };
//! # let folder = std::env::temp_dir().join(format!("storage-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! let mut database = Database::open(&folder.join("example.db"), &SCHEMA, &Open::default())?;
//! database.write(|w| w.execute("INSERT INTO t VALUES (1)", []).map_err(storage::Error::from))?;
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(not(any(test, feature = "forgetful")), forbid(unsafe_code))]

mod checkpoint;
mod copies;
mod database;
mod disk;
mod error;
#[cfg(any(test, feature = "forgetful"))]
mod forgetful;
mod migrate;

pub use checkpoint::{Checkpoint, Gate, checkpoint, checkpoint_file};
pub use copies::old_copies;
pub use database::{Database, Open, Reader, Writer};
pub use disk::{Access, Disk, DiskFile, RealDisk, Space};
pub use error::Error;
#[cfg(any(test, feature = "forgetful"))]
pub use forgetful::{Calls, Fault, Forgetful, Image, Kind, Lie, Replay, Syncs};
pub use migrate::{Migration, Schema};
/// The SQLite binding, so that no other crate depends on it (and its version) by itself.
pub use rusqlite;
