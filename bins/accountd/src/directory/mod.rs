//! The directory as it is now: domains.toml on the disk, its meaning in memory, and who watches it.
//!
//! The file is looked at every few seconds: what an administrator wrote there by hand counts as soon
//! as it is sound. What is not sound changes nothing, and is said. That holds over a restart: beside
//! the file lies a copy of the last text that counted, from which the process starts when the file
//! itself is not sound. A file that is sound needs nobody's leave: the copy may be of a time before
//! somebody else wrote the file.

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
    time::SystemTime,
};
use tokio::sync::watch;

/// Generations of domains.toml that are kept for a rollback.
const KEPT_GENERATIONS: u32 = 20;
const FILE: &str = "domains.toml";
/// The last text that counted, whoever wrote it.
const SOUND: &str = "domains.toml.sound";

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
    /// A single change would make it so. Whoever asked for it has not seen the text it would make, and
    /// its lines tell him nothing.
    #[error("{}", without_places(.0))]
    Refused(Vec<Problem>),
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

fn without_places(problems: &[Problem]) -> String {
    let told = problems.iter().map(|problem| match &problem.hint {
        Some(hint) => format!("{} ({hint})", problem.message),
        None => problem.message.clone(),
    });
    told.collect::<Vec<_>>().join("\n")
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
    /// None: it could not be read.
    text: Option<String>,
    why: String,
}

/// The directory and its file.
pub(crate) struct Directories {
    path: PathBuf,
    host: Host,
    now: watch::Sender<Arc<Snapshot>>,
    /// Of the file when its text was taken over; none while the state in force is not the file's.
    taken: Cell<Option<Stamp>>,
    /// Of the file at the last look.
    seen: Cell<Stamp>,
    unsound: RefCell<Option<Unsound>>,
    /// Whether [`SOUND`] has the text in force.
    kept: Cell<bool>,
    /// What counted before this process, where the file that it started from does not follow it.
    parted: Option<Directory>,
}

impl Directories {
    /// Reads domains.toml in `folder/directory`; an absent file is an empty directory, unless there
    /// was one. From a file that is not sound nobody starts: the last text that was counts on, as it
    /// would in a process that lives on.
    pub(crate) fn open(folder: &Path, host: Host) -> anyhow::Result<Self> {
        let folder = folder.join("directory");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(FILE);
        // Before the text: what is written in between is found at the next look.
        let stamp = Stamp::of(&path)?;
        let was_there = || copies().any(|name| folder.join(name).exists());
        let found = if stamp == Stamp(None) && was_there() {
            Err((None, format!("{FILE} is gone")))
        } else {
            sound(&path, &host, None)
        };
        let (text, directory, unsound) = match found {
            Ok((text, directory)) => (text, directory, None),
            Err((text, why)) => {
                let (from, good, directory) =
                    last_sound(&path, &host).ok_or_else(|| daemon::BadFile(why.clone()))?;
                tracing::error!(
                    what = why,
                    from,
                    "alarm: domains.toml is not sound; an older text counts"
                );
                (good, directory, Some(Unsound { stamp, text, why }))
            }
        };
        let parted = copy_parted(&path, &host, &text).filter(|_| unsound.is_none());
        let revision = revision(&text);
        let taken = Cell::new(unsound.is_none().then_some(stamp));
        let now = watch::Sender::new(Arc::new(Snapshot { number: 1, revision, text, directory }));
        let unsound = RefCell::new(unsound);
        let (seen, kept) = (Cell::new(stamp), Cell::new(true));
        let opened = Self { path, host, now, taken, seen, unsound, kept, parted };
        if let Some(what) = opened.why_parted() {
            tracing::error!(what, "alarm: domains.toml is not what it was; it counts");
        }
        if stamp != Stamp(None) {
            opened.keep();
        }
        Ok(opened)
    }

    /// Keeps the text in force for a start from a file that is not sound. Also where it is kept
    /// already: by its time it is newer than the generations.
    fn keep(&self) {
        let path = self.path.with_file_name(SOUND);
        let written = files::replace(&path, self.now().text.as_bytes());
        let was_kept = self.kept.replace(written.is_ok());
        if let Err(error) = written
            && was_kept
        {
            tracing::warn!(%error, "{SOUND} was not written; it is tried again");
        }
    }

    /// Looks whether somebody wrote the file. It counts when it is the same at two looks (an editor
    /// may have written half of it), and sound; then this gives the state before it.
    ///
    /// # Errors
    /// What is wrong with it, once. It changes nothing.
    pub(crate) fn look(&self) -> Result<Option<Arc<Snapshot>>, String> {
        if !self.kept.get() {
            self.keep();
        }
        let stamp = match Stamp::of(&self.path) {
            Ok(stamp) => stamp,
            Err(error) => return self.refuse(self.seen.get(), None, error.to_string()),
        };
        let is_quiet = self.seen.replace(stamp) == stamp;
        if self.taken.get() == Some(stamp) {
            self.unsound.take();
            return Ok(None);
        }
        // Who may read it is changed without a trace here, so what could not be read is tried again.
        let is_read = |known: &Unsound| known.stamp == stamp && known.text.is_some();
        let is_known = self.unsound.borrow().as_ref().is_some_and(is_read);
        if !is_quiet || is_known {
            return Ok(None);
        }
        if stamp == Stamp(None) {
            return self.refuse(stamp, None, format!("{FILE} is gone"));
        }
        let before = self.now();
        let (text, directory) = match sound(&self.path, &self.host, Some(&before.directory)) {
            Ok(found) => found,
            Err((text, why)) => return self.refuse(stamp, text, why),
        };
        let (number, revision) = (before.number + 1, revision(&text));
        self.taken.set(Some(stamp));
        self.unsound.take();
        self.now.send_replace(Arc::new(Snapshot { number, revision, text, directory }));
        self.keep();
        Ok(Some(before))
    }

    fn refuse(
        &self,
        stamp: Stamp,
        text: Option<String>,
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

    /// What of the file that this process started from does not follow what counted before: it
    /// counts, and somebody's mail may be out of sight.
    pub(crate) fn why_parted(&self) -> Option<String> {
        let before = self.parted.as_ref()?;
        let problems = Directory::parse_after(FILE, &self.now().text, &self.host, Some(before));
        problems.err().map(|problems| list(&problems))
    }

    /// What an editor is to start from, and the revision to give back: the text on the disk if it is
    /// not sound, so that it can be mended.
    pub(crate) fn to_edit(&self) -> (String, u64) {
        let now = self.now();
        let unsound = self.unsound.borrow();
        let text = unsound.as_ref().and_then(|unsound| unsound.text.clone());
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
        self.put(&now, apply(&now.text, edit)?, ChangeError::Refused)
    }

    /// Whether an edit would be accepted; for what has to be made before it.
    pub(crate) fn would_accept(&self, edit: &Edit<'_>) -> Result<(), ChangeError> {
        let text = apply(&self.now().text, edit)?;
        Directory::parse(FILE, &text, &self.host).map_err(ChangeError::Refused)?;
        Ok(())
    }

    /// Puts a whole new text in place, if `revision` is that of the present one.
    pub(crate) fn write(&self, text: String, revision: u64) -> Result<Arc<Snapshot>, ChangeError> {
        let now = self.now();
        if now.revision != revision {
            return Err(ChangeError::Modified);
        }
        self.put(&now, text, ChangeError::Faults)
    }

    /// Puts a text in place of `now`'s; `faulty` makes the error of one that is not sound.
    fn put(
        &self,
        now: &Snapshot,
        text: String,
        faulty: fn(Vec<Problem>) -> ChangeError,
    ) -> Result<Arc<Snapshot>, ChangeError> {
        let stamp = Stamp::of(&self.path).map_err(ChangeError::Write)?;
        let is_known = self.unsound.borrow().as_ref().is_some_and(|known| known.stamp == stamp);
        // Written by hand and not looked at yet: nobody has seen what this would throw away.
        if self.taken.get() != Some(stamp) && !is_known {
            return Err(ChangeError::Modified);
        }
        let directory = Directory::parse_after(FILE, &text, &self.host, Some(&now.directory))
            .map_err(faulty)?;
        files::replace_keeping(&self.path, text.as_bytes(), KEPT_GENERATIONS)
            .map_err(ChangeError::Write)?;
        let stamp = Stamp::of(&self.path).map_err(ChangeError::Write)?;
        self.taken.set(Some(stamp));
        self.seen.set(stamp);
        self.unsound.take();
        let revision = revision(&text);
        let next = Arc::new(Snapshot { number: now.number + 1, revision, text, directory });
        self.now.send_replace(Arc::clone(&next));
        self.keep();
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

/// A file's text and its meaning; or what could be read of it, and what is wrong.
fn sound(
    path: &Path,
    host: &Host,
    before: Option<&Directory>,
) -> Result<(String, Directory), (Option<String>, String)> {
    let text = read(path).map_err(|error| (None, format!("{FILE}: {error}")))?;
    match Directory::parse_after(FILE, &text, host, before) {
        Ok(directory) => Ok((text, directory)),
        Err(problems) => Err((Some(text), list(&problems))),
    }
}

/// The names of older texts: the copy of the last one that counted, and the generations.
fn copies() -> impl Iterator<Item = String> {
    let generations = (1..=KEPT_GENERATIONS).map(|n| format!("{FILE}.~{n}~"));
    std::iter::once(SOUND.to_owned()).chain(generations)
}

/// The newest text that is still there and sound, and where it lies. Newest by the clock: whoever
/// does not know the copy, or could not write it, still leaves generations.
fn last_sound(path: &Path, host: &Host) -> Option<(String, String, Directory)> {
    let written = |name: String| -> io::Result<(SystemTime, String)> {
        Ok((fs::metadata(path.with_file_name(&name))?.modified()?, name))
    };
    let mut copies: Vec<_> = copies().filter_map(|name| written(name).ok()).collect();
    // Of one moment, the copy is the newer one: it is written last.
    copies.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    copies.into_iter().find_map(|(_, name)| {
        let text = fs::read_to_string(path.with_file_name(&name)).ok()?;
        let directory = Directory::parse(&name, &text, host).ok()?;
        Some((name, text, directory))
    })
}

/// What the copy says, if `text` is not to follow it.
fn copy_parted(path: &Path, host: &Host, text: &str) -> Option<Directory> {
    let copy = fs::read_to_string(path.with_file_name(SOUND)).ok()?;
    let before = Directory::parse(SOUND, &copy, host).ok()?;
    Directory::parse_after(FILE, text, host, Some(&before)).is_err().then_some(before)
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
        for refused in [directories.would_accept(&add).err(), directories.change(&add).err()] {
            let told = refused.unwrap().to_string();
            assert!(told.contains("example.org") && !told.contains(FILE), "no such domain: {told}");
        }
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

    #[test]
    fn a_start_from_a_file_that_is_not_sound_goes_on_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory/domains.toml");
        let open = || Directories::open(folder.path(), Host::default());
        let domains = |it: &Directories| it.now().directory.domains().count();
        fs::create_dir(folder.path().join("directory")).unwrap();
        fs::write(&path, "[domain.\"example.org\"]\n").unwrap();
        let first = open().unwrap();
        // A state that no generation has, as it was written by hand.
        fs::write(&path, "[domain.\"a.example\"]\n[domain.\"b.example\"]\n").unwrap();
        assert!(first.look().unwrap().is_none() && first.look().unwrap().is_some());
        let bad = "[domain.\"a.example\"]\n[domain.\"a.example\"]\n";
        for unsound in [bad.as_bytes(), b"\xff\n"] {
            fs::write(&path, unsound).unwrap();
            let again = open().unwrap();
            assert_eq!(domains(&again), 2);
            assert!(again.why_unsound().unwrap().starts_with("domains.toml"));
            let c: Domain = "c.example".parse().unwrap();
            let changed = again.change(&Edit::DomainAdd(&c));
            assert!(matches!(changed, Err(ChangeError::Unsound(_))));
            for _ in 0..3 {
                assert!(again.look().unwrap().is_none(), "said once, at the start");
            }
        }
        fs::remove_file(&path).unwrap();
        let gone = open().unwrap();
        assert_eq!(
            (domains(&gone), gone.why_unsound().unwrap()),
            (2, "domains.toml is gone".into())
        );
        assert!(gone.look().unwrap().is_none() && gone.why_unsound().is_some());
        // And it is mended as in a process that lived on.
        fs::write(&path, bad).unwrap();
        let again = open().unwrap();
        assert!(again.why_unsound().unwrap().starts_with("domains.toml:2:"));
        let (text, revision) = again.to_edit();
        assert_eq!(text, bad);
        again.write("[domain.\"a.example\"]\n".into(), revision).unwrap();
        assert_eq!((domains(&again), again.why_unsound()), (1, None));
        // Without the copy, the newest generation that is sound: the first one here is the bad text.
        fs::write(&path, bad).unwrap();
        fs::remove_file(path.with_file_name(SOUND)).unwrap();
        fs::write(path.with_file_name("domains.toml.~2~"), "[domain.\"old.example\"]\n").unwrap();
        assert!(open().unwrap().now().directory.domain(&"old.example".parse().unwrap()).is_some());
        for n in 1..=2 {
            fs::remove_file(path.with_file_name(format!("domains.toml.~{n}~"))).unwrap();
        }
        fs::remove_file(path.with_file_name(SOUND)).unwrap();
        let refused = open().err().unwrap();
        assert!(refused.downcast_ref::<daemon::BadFile>().is_some(), "{refused}");
    }

    #[test]
    fn an_account_does_not_become_another_one_without_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory/domains.toml");
        let open = || Directories::open(folder.path(), Host::default()).unwrap();
        let directories = open();
        let [mine, other] = ["aaaaaaaaaaaaaaab", "caaaaaaaaaaaaaab"]
            .map(|id| format!("[account.ann]\nid = \"{id}\"\n"));
        directories.write(mine.clone(), directories.now().revision).unwrap();
        let changed = directories.write(other.clone(), directories.now().revision);
        assert!(matches!(changed, Err(ChangeError::Faults(_))));
        fs::write(&path, &other).unwrap();
        assert!(directories.look().unwrap().is_none());
        assert!(directories.look().unwrap_err().contains("2:6: account.ann.id: this is another"));
        // By a restart it does, with a word: the file alone says what counts then.
        let again = open();
        assert_eq!((again.now().text.clone(), again.why_unsound()), (other.clone(), None));
        assert!(again.why_parted().unwrap().contains("2:6: account.ann.id: this is another"));
        again.write(mine.clone(), again.now().revision).unwrap_err();
        again.write(String::new(), again.now().revision).unwrap();
        assert_eq!(again.why_parted(), None);
        again.write(mine.clone(), again.now().revision).unwrap();
        assert_eq!((again.why_parted(), open().why_parted()), (None, None));
    }

    /// Makes a file of the folder older than what is written now.
    fn age(path: &Path) {
        let hour = std::time::Duration::from_secs(3600);
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::now().checked_sub(hour).unwrap()).unwrap();
    }

    #[test]
    fn a_stale_copy_overrules_neither_the_file_nor_the_generations() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory/domains.toml");
        let open = || Directories::open(folder.path(), Host::default()).unwrap();
        let [old, new] = ["aaaaaaaaaaaaaaab", "caaaaaaaaaaaaaab"]
            .map(|id| format!("[account.ann]\nid = \"{id}\"\n"));
        let new_with_bob = format!("{new}[account.bob]\n");
        drop(open().write(old.clone(), revision("")).unwrap());
        // Somebody who does not know the copy wrote the file, and generations, since.
        let lay = |file: &str| {
            fs::write(path.with_file_name(SOUND), &old).unwrap();
            age(&path.with_file_name(SOUND));
            fs::write(path.with_file_name("domains.toml.~1~"), &new).unwrap();
            fs::write(&path, file).unwrap();
        };
        lay(&new_with_bob);
        let started = open();
        assert_eq!((&started.now().text, started.why_unsound()), (&new_with_bob, None));
        assert!(started.why_parted().is_some());
        assert_eq!(open().why_parted(), None, "said at one start");
        lay("[account");
        assert_eq!(open().now().text, new);
        // One that is said again is the newest again.
        fs::write(path.with_file_name("domains.toml.~1~"), &old).unwrap();
        fs::write(path.with_file_name(SOUND), &new).unwrap();
        age(&path.with_file_name(SOUND));
        fs::write(&path, &new).unwrap();
        drop(open());
        fs::write(&path, "[account").unwrap();
        assert_eq!(open().now().text, new);
    }

    #[test]
    fn a_copy_that_cannot_be_written_is_not_trusted_and_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory/domains.toml");
        let open = || Directories::open(folder.path(), Host::default()).unwrap();
        let directories = open();
        let write = |text: &str| {
            directories.write(text.into(), directories.now().revision).unwrap();
        };
        write("# one\n");
        let obstacle = path.with_file_name("domains.toml.sound.new");
        fs::create_dir(&obstacle).unwrap();
        write("# two\n");
        write("# three\n");
        age(&path.with_file_name(SOUND));
        fs::write(&path, "[account").unwrap();
        assert_eq!(open().now().text, "# two\n", "the newest that there is");
        fs::remove_dir(&obstacle).unwrap();
        assert!(directories.look().unwrap().is_none());
        assert_eq!(open().now().text, "# three\n");
    }

    #[test]
    fn what_could_not_be_read_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory/domains.toml");
        let open = || Directories::open(folder.path(), Host::default()).unwrap();
        drop(open().write("# old\n".into(), revision("")).unwrap());
        fs::write(&path, b"\xff new\n").unwrap();
        let stamp = Stamp::of(&path).unwrap();
        let at = fs::metadata(&path).unwrap().modified().unwrap();
        let directories = open();
        assert!(directories.look().unwrap().is_none() && directories.why_unsound().is_some());
        // Readable now, and no stamp tells it.
        fs::write(&path, "# new\n").unwrap();
        fs::File::options().append(true).open(&path).unwrap().set_modified(at).unwrap();
        assert_eq!(Stamp::of(&path).unwrap(), stamp);
        assert!(directories.look().unwrap().is_some());
        assert_eq!((directories.now().text.as_str(), directories.why_unsound()), ("# new\n", None));
    }
}
