//! The copy of a database that is made before its first migration: what an administrator goes back to
//! when the migration turns out wrong.

use crate::{
    Disk, Error, Open,
    database::{connect, sync_parent},
};
use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};
use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Between a database's name and the number of the schema its copy is at.
const MARK: &str = ".schema-";

/// Where the copy of a file at schema `version` lies.
fn place(path: &Path, version: u32) -> PathBuf {
    let mut name = beginning(path);
    name.push(version.to_string());
    path.with_file_name(name)
}

fn beginning(path: &Path) -> OsString {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(MARK);
    name
}

/// Whether a file of this name is a copy, if its name begins so.
fn is_copy(name: &OsStr, beginning: &OsStr) -> bool {
    let version = name.as_encoded_bytes().strip_prefix(beginning.as_encoded_bytes());
    version.is_some_and(|v| !v.is_empty() && v.iter().all(u8::is_ascii_digit))
}

/// Refuses where the copy would leave too little room: the next things to fail would be mail.
pub(crate) fn check_room(connection: &Connection, path: &Path, how: &Open) -> Result<(), Error> {
    let pages: u64 = connection.query_row("PRAGMA page_count", [], |r| r.get(0))?;
    let page: u64 = connection.query_row("PRAGMA page_size", [], |r| r.get(0))?;
    let Some(parent) = path.parent() else { return Ok(()) };
    let space = how.disk.space(parent).map_err(|e| Error::file("room on the disk", &e))?;
    let (size, keep) = (pages.saturating_mul(page), how.keep_free.min(space.total / 20));
    if space.free >= size.saturating_add(keep) {
        return Ok(());
    }
    // In MiB: an alarm is to be the same while nothing changes.
    let up = |octets: u64| octets.div_ceil(1 << 20);
    Err(Error::DiskFull(format!(
        "{} must be copied before it is brought up to date: that takes {} MiB, {} MiB must stay \
         free, {} MiB are",
        path.file_name().unwrap_or_default().to_string_lossy(),
        up(size),
        up(keep),
        space.free >> 20
    )))
}

/// Makes it, by pages in one step inside SQLite, so that it is one state, and durable before the
/// migration begins.
pub(crate) fn make(
    connection: &Connection,
    path: &Path,
    version: u32,
    how: &Open,
) -> Result<(), Error> {
    let target = place(path, version);
    // One left by an interrupted attempt is worth nothing: the migration did not happen.
    match how.disk.remove(&target) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::file("old copy of a database", &e)),
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut copy = connect(&target, flags, how)?;
    copy.execute_batch("PRAGMA synchronous=FULL")?;
    {
        let backup = Backup::new(connection, &mut copy)?;
        let outcome = backup.step(-1)?;
        if outcome != StepResult::Done {
            return Err(Error::Io(format!("copy of a database: {outcome:?}")));
        }
    }
    drop(copy);
    sync_parent(path, how)?;
    tracing::info!(path = %target.display(), "copied a database before its migration");
    Ok(())
}

/// The copies of the database `path` that were made before `before`.
///
/// # Errors
/// When its folder cannot be read.
pub fn old_copies(disk: &dyn Disk, path: &Path, before: SystemTime) -> Result<Vec<PathBuf>, Error> {
    let Some(parent) = path.parent() else { return Ok(Vec::new()) };
    let names = disk.list(parent).map_err(|e| Error::file("list copies of a database", &e))?;
    let beginning = beginning(path);
    let copies = names.iter().filter(|name| is_copy(name, &beginning)).map(|n| parent.join(n));
    Ok(copies.filter(|copy| disk.written(copy).is_ok_and(|at| at < before)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Database, Fault, Forgetful, Migration, RealDisk, Schema};
    use std::{fs, sync::Arc, time::Duration};

    const ONE: Schema = Schema {
        application_id: 9,
        migrations: &[Migration { sql: "CREATE TABLE a(x INTEGER) STRICT;", min_reader: 1 }],
    };
    const TWO: Schema = Schema {
        application_id: 9,
        migrations: &[
            Migration { sql: "CREATE TABLE a(x INTEGER) STRICT;", min_reader: 1 },
            Migration { sql: "DROP TABLE a; CREATE TABLE b(y INTEGER) STRICT;", min_reader: 2 },
        ],
    };

    fn old(path: &Path, how: &Open) {
        let mut old = Database::open(path, &ONE, how).unwrap();
        old.write(|w| w.execute("INSERT INTO a VALUES (1)", []).map_err(Error::from)).unwrap();
    }

    #[test]
    fn copied_before_a_migration_and_refused_from_the_future() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        old(&path, &Open::default());
        drop(Database::open(&path, &TWO, &Open::default()).unwrap());
        let mut copy =
            Database::open(&folder.path().join("a.db.schema-1"), &ONE, &Open::default()).unwrap();
        let rows: i64 = copy
            .read(|c| c.query_row("SELECT x FROM a", [], |r| r.get(0)).map_err(Error::from))
            .unwrap();
        assert_eq!(rows, 1);
        let before = fs::read(&path).unwrap();
        assert!(matches!(
            Database::open(&path, &ONE, &Open::default()),
            Err(Error::Newer { min_reader: 2, known: 1 })
        ));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn without_room_nothing_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let disk = Forgetful::over(folder.path()).unwrap();
        let how = Open { disk: Arc::new(disk.clone()), keep_free: 3 << 20, ..Open::default() };
        old(&path, &how);
        let files = || ["a.db", "a.db-wal"].map(|n| fs::read(folder.path().join(n)).unwrap());
        let before = files();
        disk.inject(Fault::Full(0));
        let refused = Database::open(&path, &TWO, &how).err();
        let Some(Error::DiskFull(why)) = refused else { panic!("{refused:?}") };
        assert!(why.starts_with("a.db must be copied"), "{why}");
        assert!(why.ends_with("takes 1 MiB, 3 MiB must stay free, 0 MiB are"), "{why}");
        assert_eq!(files(), before);
        assert!(!folder.path().join("a.db.schema-1").exists());
        // One that needs no copy is let in.
        drop(Database::open(&path, &ONE, &how).unwrap());
        disk.heal();
        drop(Database::open(&path, &TWO, &how).unwrap());
        assert!(folder.path().join("a.db.schema-1").exists());
    }

    #[test]
    fn without_room_what_only_adds_goes_without_a_copy() {
        const MORE: Schema = Schema {
            application_id: 9,
            migrations: &[
                Migration { sql: "CREATE TABLE a(x INTEGER) STRICT;", min_reader: 1 },
                Migration { sql: "CREATE INDEX a_x ON a(x);", min_reader: 1 },
            ],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let disk = Forgetful::over(folder.path()).unwrap();
        let how = Open { disk: Arc::new(disk.clone()), keep_free: 3 << 20, ..Open::default() };
        old(&path, &how);
        disk.inject(Fault::Room(1 << 20));
        drop(Database::open(&path, &MORE, &how).unwrap());
        assert!(!folder.path().join("a.db.schema-1").exists());
        disk.heal();
        // It was brought up to date, and who made it can use it.
        let mut database = Database::open(&path, &ONE, &how).unwrap();
        let indexes = "SELECT count(*) FROM sqlite_schema WHERE name='a_x'";
        let count = |c: &Connection| Ok::<i64, Error>(c.query_row(indexes, [], |r| r.get(0))?);
        assert_eq!(database.read(count).unwrap(), 1);
        assert!(MORE.only_adds(1) && TWO.only_adds(2) && !TWO.only_adds(1));
    }

    #[test]
    fn old_ones_are_known_by_name_and_age() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let day = Duration::from_secs(86_400);
        for (name, age) in [
            ("a.db", 90),
            ("a.db-wal", 90),
            ("a.db.schema-1", 15),
            ("a.db.schema-22", 16),
            ("a.db.schema-3", 13),
            ("a.db.schema-", 90),
            ("a.db.schema-4-journal", 90),
            ("b.db.schema-1", 90),
        ] {
            let file = fs::File::create(folder.path().join(name)).unwrap();
            file.set_modified(now - age * day).unwrap();
        }
        let found = old_copies(&RealDisk, &folder.path().join("a.db"), now - 14 * day).unwrap();
        assert_eq!(found, ["a.db.schema-1", "a.db.schema-22"].map(|n| folder.path().join(n)));
    }
}
