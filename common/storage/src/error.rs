//! What can go wrong with a database or its files, sorted by what its owner must do about it.

use rusqlite::{ErrorCode, ffi};
use std::io;

/// A failure of a database or of a file beside it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No space (ENOSPC, EDQUOT). The transaction was rolled back; later ones may succeed.
    #[error("no space left on the disk: {0}")]
    DiskFull(String),
    /// The file system or the file refuses writes. Later ones may succeed.
    #[error("the disk is read-only: {0}")]
    ReadOnly(String),
    /// The file is not what was written: this database is to be left alone until it is repaired.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A sync failed: nobody knows what is on the disk. The process must end; syncing again would
    /// report success for pages the kernel has dropped.
    #[error("a sync failed: {0}")]
    SyncFailed(String),
    /// Another input or output error. The transaction was rolled back.
    #[error("input or output failed: {0}")]
    Io(String),
    /// The file was written by a newer release that says ours cannot read it. It was not touched.
    #[error("the database needs a release that knows schema {min_reader}, this one knows {known}")]
    Newer {
        /// The oldest schema number a program must know to use it.
        min_reader: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// The file is a database of another kind.
    #[error("the file belongs to another application (id {0:#x})")]
    Foreign(i32),
    /// Somebody else holds a lock.
    #[error("the database is locked")]
    Busy,
    /// A statement of ours was wrong, or met a row it did not expect.
    #[error("a fault in a statement: {0}")]
    Fault(rusqlite::Error),
}

impl Error {
    /// Names a failed sync as what it is.
    #[must_use]
    pub fn sync(what: &str, error: &io::Error) -> Self {
        Self::SyncFailed(format!("{what}: {error}"))
    }

    /// Sorts an error of a file operation that is not a sync.
    #[must_use]
    pub fn file(what: &str, error: &io::Error) -> Self {
        let text = format!("{what}: {error}");
        match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Self::DiskFull(text),
            Some(rustix::io::Errno::ROFS) => Self::ReadOnly(text),
            _ => Self::Io(text),
        }
    }

    /// Whether the process must end: what is on the disk is unknown.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::SyncFailed(_))
    }

    /// Whether the statement broke a uniqueness rule.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        let Self::Fault(rusqlite::Error::SqliteFailure(failure, _)) = self else { return false };
        matches!(
            failure.extended_code,
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        )
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let rusqlite::Error::SqliteFailure(failure, _) = &error else { return Self::Fault(error) };
        let (code, extended, text) = (failure.code, failure.extended_code, error.to_string());
        if matches!(extended, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) {
            return Self::SyncFailed(text);
        }
        if matches!(extended, ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA) {
            return Self::Damaged(text);
        }
        // ErrorCode is non-exhaustive and most of its values are faults of a statement; testing
        // for the few that are not says so.
        if matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) {
            Self::Damaged(text)
        } else if code == ErrorCode::DiskFull {
            Self::DiskFull(text)
        } else if code == ErrorCode::ReadOnly {
            Self::ReadOnly(text)
        } else if matches!(code, ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) {
            Self::Io(text)
        } else if matches!(code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) {
            Self::Busy
        } else {
            Self::Fault(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(extended: i32) -> Error {
        Error::from(rusqlite::Error::SqliteFailure(ffi::Error::new(extended), None))
    }

    #[test]
    fn codes_are_sorted_by_what_to_do() {
        assert!(sqlite(ffi::SQLITE_IOERR_FSYNC).is_fatal());
        assert!(sqlite(ffi::SQLITE_IOERR_DIR_FSYNC).is_fatal());
        assert!(!sqlite(ffi::SQLITE_IOERR_WRITE).is_fatal());
        assert!(matches!(sqlite(ffi::SQLITE_FULL), Error::DiskFull(_)));
        assert!(matches!(sqlite(ffi::SQLITE_READONLY), Error::ReadOnly(_)));
        assert!(matches!(sqlite(ffi::SQLITE_CORRUPT), Error::Damaged(_)));
        assert!(matches!(sqlite(ffi::SQLITE_NOTADB), Error::Damaged(_)));
        assert!(matches!(sqlite(ffi::SQLITE_BUSY), Error::Busy));
        assert!(sqlite(ffi::SQLITE_CONSTRAINT_UNIQUE).is_unique_violation());
        let full = io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        assert!(matches!(Error::file("x", &full), Error::DiskFull(_)));
        let frozen = io::Error::from_raw_os_error(rustix::io::Errno::ROFS.raw_os_error());
        assert!(matches!(Error::file("x", &frozen), Error::ReadOnly(_)));
    }
}
