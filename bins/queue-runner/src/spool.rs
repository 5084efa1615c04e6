//! The content of queued messages: one file a submission, written once, removed when the last
//! recipient is done with.

use crate::worker::Shelf;
use std::{collections::BTreeSet, path::PathBuf};
use storage::{Access, DiskFile, Error};
use types::SubmissionId;

/// A spool file being written. Nothing of it counts before [`Draft::finish`] and the commit of its
/// rows.
pub(crate) struct Draft {
    file: Box<dyn DiskFile>,
    length: u64,
}

fn path(shelf: &Shelf, submission: SubmissionId) -> PathBuf {
    shelf.spool.join(submission.to_string())
}

impl Draft {
    /// A new file. One that a crash left behind is replaced.
    pub(crate) fn begin(shelf: &Shelf, submission: SubmissionId) -> Result<Self, Error> {
        let path = path(shelf, submission);
        if shelf.disk.exists(&path) {
            shelf.disk.remove(&path).map_err(|e| Error::file("remove a left draft", &e))?;
        }
        let file = shelf.disk.create(&path).map_err(|e| Error::file("make a spool file", &e))?;
        Ok(Self { file, length: 0 })
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_at(bytes, self.length).map_err(|e| Error::file("write the spool", &e))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Makes content and name durable. Only then may rows be committed that speak of it.
    pub(crate) fn finish(self, shelf: &Shelf) -> Result<u64, Error> {
        self.file.sync().map_err(|e| Error::sync("a spool file", &e))?;
        shelf.disk.sync_dir(&shelf.spool).map_err(|e| Error::sync("the spool", &e))?;
        Ok(self.length)
    }
}

/// Reads up to `max` octets from `offset` on; empty at the end.
pub(crate) fn read(
    shelf: &Shelf,
    submission: SubmissionId,
    offset: u64,
    max: usize,
) -> Result<Vec<u8>, Error> {
    let file = shelf
        .disk
        .open(&path(shelf, submission), Access::Read)
        .map_err(|e| Error::file("open a spool file", &e))?;
    let length = file.len().map_err(|e| Error::file("measure a spool file", &e))?;
    let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; left.min(max)];
    file.read_at(&mut bytes, offset).map_err(|e| Error::file("read the spool", &e))?;
    Ok(bytes)
}

/// Removes a file whose rows are gone. A crash before leaves an orphan for [`sweep`].
pub(crate) fn remove(shelf: &Shelf, submission: SubmissionId) {
    let path = path(shelf, submission);
    if shelf.disk.exists(&path)
        && let Err(error) = shelf.disk.remove(&path)
    {
        tracing::warn!(%error, path = %path.display(), "a spool file could not be removed");
    }
}

/// At start: removes files without a row, and reports rows without a file (which the order of
/// writing makes impossible, so they mean damage).
pub(crate) fn sweep(shelf: &mut Shelf) -> Result<(), Error> {
    let known: BTreeSet<String> = shelf.database.read(|db| {
        let mut all = db.prepare("SELECT submission FROM message")?;
        let ids = all.query_map([], |row| row.get::<_, [u8; 16]>(0))?;
        ids.map(|id| Ok::<_, Error>(SubmissionId::from_bytes(id?).to_string()))
            .collect::<Result<_, Error>>()
    })?;
    let names = shelf.disk.list(&shelf.spool).map_err(|e| Error::file("list the spool", &e))?;
    let mut found = BTreeSet::new();
    for name in names {
        let Some(name) = name.to_str() else { continue };
        if known.contains(name) {
            found.insert(name.to_owned());
        } else {
            let orphan = shelf.spool.join(name);
            shelf.disk.remove(&orphan).map_err(|e| Error::file("remove an orphan", &e))?;
        }
    }
    for missing in known.difference(&found) {
        tracing::error!(submission = %missing, "a queued message has lost its content");
    }
    Ok(())
}
