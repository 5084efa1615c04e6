//! The directory as it is now: domains.toml on the disk, its meaning in memory, and who watches it.

pub(crate) mod folders;

use crate::files;
use config::{
    Problem,
    directory::{
        Directory, Host,
        edit::{Edit, EditError, apply},
    },
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;

/// Generations of domains.toml that are kept for a rollback.
const KEPT_GENERATIONS: u32 = 20;
const FILE: &str = "domains.toml";

/// One state of the directory; numbered, never changed.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Counts states since the process started.
    pub(crate) number: u64,
    /// Of the text: what a writer must have read.
    pub(crate) revision: u64,
    pub(crate) text: String,
    pub(crate) directory: Directory,
}

/// Why the directory was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The text as a whole is not sound.
    #[error("{}", list(.0))]
    Faults(Vec<Problem>),
    /// Somebody else changed it meanwhile.
    #[error("the file was changed meanwhile; read it again")]
    Modified,
    #[error("domains.toml could not be written: {0}")]
    Write(io::Error),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The directory and its file.
pub(crate) struct Directories {
    path: PathBuf,
    host: Host,
    now: watch::Sender<Arc<Snapshot>>,
}

impl Directories {
    /// Reads domains.toml in `folder/directory`; an absent file is an empty directory.
    pub(crate) fn open(folder: &Path, host: Host) -> anyhow::Result<Self> {
        let folder = folder.join("directory");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        let directory = Directory::parse(FILE, &text, &host).map_err(ChangeError::Faults)?;
        let revision = revision(&text);
        let now = watch::Sender::new(Arc::new(Snapshot { number: 1, revision, text, directory }));
        Ok(Self { path, host, now })
    }

    /// The present state.
    pub(crate) fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.now.borrow())
    }

    /// Tells of each newer state.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.now.subscribe()
    }

    /// Makes one change, and it is durable.
    pub(crate) fn change(&self, edit: &Edit<'_>) -> Result<Arc<Snapshot>, ChangeError> {
        let now = self.now();
        self.put(&now, apply(&now.text, edit)?)
    }

    /// Whether an edit would be accepted; for what has to be made before it.
    pub(crate) fn would_accept(&self, edit: &Edit<'_>) -> Result<(), ChangeError> {
        let text = apply(&self.now().text, edit)?;
        Directory::parse(FILE, &text, &self.host).map_err(ChangeError::Faults)?;
        Ok(())
    }

    /// Puts a whole new text in place, if `revision` is that of the present one.
    pub(crate) fn write(&self, text: String, revision: u64) -> Result<Arc<Snapshot>, ChangeError> {
        let now = self.now();
        if now.revision != revision {
            return Err(ChangeError::Modified);
        }
        self.put(&now, text)
    }

    fn put(&self, now: &Snapshot, text: String) -> Result<Arc<Snapshot>, ChangeError> {
        let directory = Directory::parse(FILE, &text, &self.host).map_err(ChangeError::Faults)?;
        files::replace_keeping(&self.path, text.as_bytes(), KEPT_GENERATIONS)
            .map_err(ChangeError::Write)?;
        let revision = revision(&text);
        let next = Arc::new(Snapshot { number: now.number + 1, revision, text, directory });
        self.now.send_replace(Arc::clone(&next));
        Ok(next)
    }
}

/// A number of the text alone, so that one read before a restart of ours still counts.
fn revision(text: &str) -> u64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_ref()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{AccountId, Address, Domain};

    #[test]
    fn changes_are_durable_watched_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories::open(folder.path(), Host::default()).unwrap();
        let mut watch = directories.watch();
        let domain: Domain = "example.org".parse().unwrap();
        let address: Address = "ann@example.org".parse().unwrap();
        let id = AccountId::from_bytes([4; 10]);
        let add = Edit::AccountAdd { name: "ann", id, address: &address };
        assert!(matches!(directories.change(&add), Err(ChangeError::Faults(_))), "no such domain");
        directories.change(&Edit::DomainAdd(&domain)).unwrap();
        directories.change(&add).unwrap();
        assert!(watch.has_changed().unwrap());
        assert_eq!(watch.borrow_and_update().number, 3);
        let again = Directories::open(folder.path(), Host::default()).unwrap();
        assert_eq!(again.now().revision, directories.now().revision);
        assert_eq!(again.now().directory.account("ann").unwrap().id, Some(id));
        assert!(directories.change(&Edit::DomainRemove(&domain)).is_err());
        assert_eq!(directories.now().number, 3);
    }

    #[test]
    fn a_writer_must_have_read_what_it_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories::open(folder.path(), Host::default()).unwrap();
        let read = directories.now().revision;
        directories.write("# one\n".into(), read).unwrap();
        assert!(matches!(directories.write("# two\n".into(), read), Err(ChangeError::Modified)));
        assert!(matches!(
            directories.write("[".into(), directories.now().revision),
            Err(ChangeError::Faults(_))
        ));
        assert_eq!(directories.now().text, "# one\n");
    }
}
