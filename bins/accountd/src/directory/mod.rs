//! The directory as it is now: domains.toml on the disk, its meaning in memory, and who watches it.
//!
//! The file is looked at every few seconds: what an administrator wrote there by hand counts as soon
//! as it is sound. What is not sound changes nothing, and is said.

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
    cell::{Cell, RefCell},
    fs, io,
    os::unix::fs::MetadataExt as _,
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
    #[error("domains.toml was changed meanwhile; try again")]
    Modified,
    /// What somebody wrote by hand is not sound; a change would throw it away.
    #[error("domains.toml was edited and is not sound, mend that first:\n{0}")]
    Unsound(String),
    #[error("domains.toml could not be written: {0}")]
    Write(io::Error),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What tells a file that was written from one that was not. An absent file is one, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, i64, i64)>);

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(meta) => Ok(Self(Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }
}

/// A file on the disk that says something else than the state in force, and why it does not count.
#[derive(Debug)]
struct Unsound {
    stamp: Stamp,
    text: String,
    why: String,
}

/// The directory and its file.
pub(crate) struct Directories {
    path: PathBuf,
    host: Host,
    now: watch::Sender<Arc<Snapshot>>,
    /// Of the file when its text was taken over.
    taken: Cell<Stamp>,
    /// Of the file at the last look.
    seen: Cell<Stamp>,
    unsound: RefCell<Option<Unsound>>,
}

impl Directories {
    /// Reads domains.toml in `folder/directory`; an absent file is an empty directory.
    pub(crate) fn open(folder: &Path, host: Host) -> anyhow::Result<Self> {
        let folder = folder.join("directory");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(FILE);
        // Before the text: what is written in between is found at the next look.
        let stamp = Stamp::of(&path)?;
        let text = read(&path)?;
        let directory = Directory::parse(FILE, &text, &host).map_err(ChangeError::Faults)?;
        let revision = revision(&text);
        let now = watch::Sender::new(Arc::new(Snapshot { number: 1, revision, text, directory }));
        let (taken, seen) = (Cell::new(stamp), Cell::new(stamp));
        Ok(Self { path, host, now, taken, seen, unsound: RefCell::default() })
    }

    /// Looks whether somebody wrote the file. It counts when it is the same at two looks (an editor
    /// may have written half of it), and sound; then this gives the state before it.
    ///
    /// # Errors
    /// What is wrong with it, once. It changes nothing.
    pub(crate) fn look(&self) -> Result<Option<Arc<Snapshot>>, String> {
        let stamp = match Stamp::of(&self.path) {
            Ok(stamp) => stamp,
            Err(error) => return self.refuse(self.seen.get(), String::new(), error.to_string()),
        };
        let is_quiet = self.seen.replace(stamp) == stamp;
        if stamp == self.taken.get() {
            self.unsound.take();
            return Ok(None);
        }
        let is_known = self.unsound.borrow().as_ref().is_some_and(|known| known.stamp == stamp);
        if !is_quiet || is_known {
            return Ok(None);
        }
        if stamp == Stamp(None) {
            return self.refuse(stamp, String::new(), format!("{FILE} is gone"));
        }
        let text = match read(&self.path) {
            Ok(text) => text,
            Err(error) => return self.refuse(stamp, String::new(), format!("{FILE}: {error}")),
        };
        let directory = match Directory::parse(FILE, &text, &self.host) {
            Ok(directory) => directory,
            Err(problems) => return self.refuse(stamp, text, list(&problems)),
        };
        let before = self.now();
        let (number, revision) = (before.number + 1, revision(&text));
        self.taken.set(stamp);
        self.unsound.take();
        self.now.send_replace(Arc::new(Snapshot { number, revision, text, directory }));
        Ok(Some(before))
    }

    fn refuse(
        &self,
        stamp: Stamp,
        text: String,
        why: String,
    ) -> Result<Option<Arc<Snapshot>>, String> {
        let is_new = self.why_unsound().as_ref() != Some(&why);
        *self.unsound.borrow_mut() = Some(Unsound { stamp, text, why: why.clone() });
        if is_new { Err(why) } else { Ok(None) }
    }

    /// Why the file on the disk does not count.
    pub(crate) fn why_unsound(&self) -> Option<String> {
        self.unsound.borrow().as_ref().map(|unsound| unsound.why.clone())
    }

    /// What an editor is to start from, and the revision to give back: the text on the disk if it is
    /// not sound, so that it can be mended.
    pub(crate) fn to_edit(&self) -> (String, u64) {
        let now = self.now();
        let unsound = self.unsound.borrow();
        let text = unsound.as_ref().map(|unsound| unsound.text.clone());
        (text.filter(|text| !text.is_empty()).unwrap_or_else(|| now.text.clone()), now.revision)
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
        if let Some(why) = self.why_unsound() {
            return Err(ChangeError::Unsound(why));
        }
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
        let stamp = Stamp::of(&self.path).map_err(ChangeError::Write)?;
        let is_known = self.unsound.borrow().as_ref().is_some_and(|known| known.stamp == stamp);
        // Written by hand and not looked at yet: nobody has seen what this would throw away.
        if stamp != self.taken.get() && !is_known {
            return Err(ChangeError::Modified);
        }
        let directory = Directory::parse(FILE, &text, &self.host).map_err(ChangeError::Faults)?;
        files::replace_keeping(&self.path, text.as_bytes(), KEPT_GENERATIONS)
            .map_err(ChangeError::Write)?;
        let stamp = Stamp::of(&self.path).map_err(ChangeError::Write)?;
        self.taken.set(stamp);
        self.seen.set(stamp);
        self.unsound.take();
        let revision = revision(&text);
        let next = Arc::new(Snapshot { number: now.number + 1, revision, text, directory });
        self.now.send_replace(Arc::clone(&next));
        Ok(next)
    }
}

/// The file's text; an absent file is an empty directory.
fn read(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
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

    #[test]
    fn what_is_written_by_hand_counts_when_it_is_sound() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories::open(folder.path(), Host::default()).unwrap();
        let path = folder.path().join("directory/domains.toml");
        let domain: Domain = "new.example".parse().unwrap();
        let hand = |text: &str| fs::write(&path, text).unwrap();
        assert!(directories.look().unwrap().is_none());
        hand("[domain.\"example.org\"]\n");
        assert!(directories.look().unwrap().is_none(), "perhaps half of it");
        assert!(
            matches!(directories.change(&Edit::DomainAdd(&domain)), Err(ChangeError::Modified)),
            "nobody has looked at it yet"
        );
        assert_eq!(directories.look().unwrap().unwrap().number, 1);
        assert_eq!(directories.now().directory.domains().count(), 1);
        assert!(directories.look().unwrap().is_none());
        directories.change(&Edit::DomainAdd(&domain)).unwrap();
        assert!(directories.look().unwrap().is_none(), "our own writing is no news");
        assert_eq!(directories.now().directory.domains().count(), 2);
    }

    #[test]
    fn what_is_not_sound_changes_nothing_and_is_said_once() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories::open(folder.path(), Host::default()).unwrap();
        let path = folder.path().join("directory/domains.toml");
        let domain: Domain = "new.example".parse().unwrap();
        directories.change(&Edit::DomainAdd(&domain)).unwrap();
        let good = directories.now();
        fs::write(&path, "[domain.\"example.org\"]\nenabeld = true\n").unwrap();
        assert!(directories.look().unwrap().is_none());
        let why = directories.look().unwrap_err();
        assert!(why.starts_with("domains.toml:2:1: "), "{why}");
        assert!(directories.look().unwrap().is_none(), "once");
        assert_eq!(directories.why_unsound(), Some(why));
        assert_eq!(directories.now().number, good.number);
        assert!(matches!(
            directories.change(&Edit::DomainRemove(&domain)),
            Err(ChangeError::Unsound(_))
        ));
        let (text, revision) = directories.to_edit();
        assert!(text.contains("enabeld"), "the editor shows what is to be mended");
        directories.write(text.replace("enabeld", "enabled"), revision).unwrap();
        assert_eq!(directories.why_unsound(), None);
        // A file that is gone is no empty directory.
        fs::remove_file(&path).unwrap();
        assert!(directories.look().unwrap().is_none());
        assert!(directories.look().unwrap_err().contains("gone"));
        assert_eq!(directories.now().directory.domains().count(), 1);
        // And what comes back as it was is well again.
        fs::write(&path, &good.text).unwrap();
        assert!(directories.look().unwrap().is_none());
        assert!(directories.look().unwrap().is_some());
        assert_eq!(directories.why_unsound(), None);
    }
}
