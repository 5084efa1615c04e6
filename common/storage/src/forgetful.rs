//! A disk that forgets what was not synced, for tests.
//!
//! Killing a process cannot find a missing fsync: the page cache outlives it. So everything that
//! goes to this disk, from SQLite (through a VFS of its own) and from segment files alike, is written
//! down in one log, in order, with every sync. [`Replay`] cuts the log anywhere and builds what a
//! strict disk may hold after a power cut there: the bytes of a file as of its last sync, names as
//! of their folder's last sync, and of what came later nothing, a prefix, or a random choice of
//! 512-byte sectors, by seed.
//!
//! Faults are injected here too (a sync that fails, a disk that is full), and [`Lie`]s: syncs that
//! claim to be done and are not. A crash test that does not find a lie proves nothing.

mod replay;
mod vfs;

pub use replay::{Image, Replay};

use crate::{Access, Disk, DiskFile, RealDisk, Space};
use rustix::io::Errno;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// What a file is for, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A database.
    Database,
    /// A write-ahead log or rollback journal.
    Journal,
    /// Any other file: a segment.
    Segment,
    /// A folder.
    Folder,
}

/// A kind whose syncs are claimed and not done: the negative controls.
pub type Lie = Kind;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The n-th sync from now (0: the next) fails once with EIO, and what it should have made
    /// durable is lost, whatever is synced later.
    SyncFails(u64),
    /// From the n-th write on the disk is full.
    Full(u64),
    /// So many bytes are said to be free, whatever is written.
    Room(u64),
    /// Every write finds a read-only file system.
    ReadOnly,
}

/// How many syncs were made, by kind of file.
pub type Syncs = BTreeMap<Kind, u64>;

/// How often files were called, locks and shared memory aside, and the octets written by it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// Files opened or made.
    pub opens: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Octets of these.
    pub written: u64,
    /// Syncs, of folders too.
    pub syncs: u64,
}

impl std::ops::Sub for Calls {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            opens: self.opens - earlier.opens,
            reads: self.reads - earlier.reads,
            writes: self.writes - earlier.writes,
            written: self.written - earlier.written,
            syncs: self.syncs - earlier.syncs,
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone)]
enum Event {
    Name {
        path: PathBuf,
        inode: Option<u64>,
    },
    Write {
        inode: u64,
        offset: u64,
        data: Box<[u8]>,
    },
    Truncate {
        inode: u64,
        len: u64,
    },
    Sync {
        inode: u64,
    },
    /// A sync failed: the kernel drops what was dirty.
    Lost {
        inode: u64,
    },
    SyncDir {
        path: PathBuf,
    },
    Mark(u64),
}

#[derive(Default)]
struct Log {
    root: PathBuf,
    events: Vec<Event>,
    names: BTreeMap<PathBuf, u64>,
    next_inode: u64,
    base: BTreeMap<PathBuf, Vec<u8>>,
    base_folders: BTreeSet<PathBuf>,
    first_names: BTreeMap<PathBuf, u64>,
    folders: BTreeSet<u64>,
    lies: BTreeSet<Kind>,
    sync_fails: Option<u64>,
    full: Option<u64>,
    room: Option<u64>,
    read_only: bool,
    syncs: Syncs,
    calls: Calls,
    open: usize,
}

/// How a write or a sync that is to fail does so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Full,
    ReadOnly,
    Sync,
}

impl Refused {
    fn error(self) -> io::Error {
        match self {
            Self::Full => Errno::NOSPC,
            Self::ReadOnly => Errno::ROFS,
            Self::Sync => Errno::IO,
        }
        .into()
    }
}

fn kind_of(path: &Path) -> Kind {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with("-wal") || name.ends_with("-journal") {
        Kind::Journal
    } else if name.contains(".db") {
        Kind::Database
    } else {
        Kind::Segment
    }
}

impl Log {
    fn over(root: &Path) -> io::Result<Self> {
        let mut log = Self { root: root.to_owned(), ..Self::default() };
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                log.next_inode += 1;
                log.names.insert(path.clone(), log.next_inode);
                if path.is_dir() {
                    log.base_folders.insert(path.clone());
                    folders.push(path);
                } else if !path.to_string_lossy().ends_with("-shm") {
                    log.base.insert(path.clone(), std::fs::read(&path)?);
                }
            }
        }
        log.first_names = log.names.clone();
        Ok(log)
    }

    /// Every name whose bytes or existence were changed.
    fn changed(&self) -> BTreeSet<PathBuf> {
        let (mut paths, mut inodes) = (BTreeSet::new(), BTreeSet::new());
        for event in &self.events {
            match event {
                Event::Name { path, .. } => {
                    paths.insert(path.clone());
                }
                Event::Write { inode, .. } | Event::Truncate { inode, .. } => {
                    inodes.insert(*inode);
                }
                Event::Sync { .. }
                | Event::Lost { .. }
                | Event::SyncDir { .. }
                | Event::Mark(_) => {}
            }
        }
        let named = self.first_names.iter().chain(&self.names);
        paths.extend(named.filter(|(_, i)| inodes.contains(*i)).map(|(path, _)| path.clone()));
        paths
    }

    fn inode(&mut self, path: &Path) -> u64 {
        if let Some(&inode) = self.names.get(path) {
            return inode;
        }
        self.next_inode += 1;
        let inode = self.next_inode;
        self.names.insert(path.to_owned(), inode);
        self.events.push(Event::Name { path: path.to_owned(), inode: Some(inode) });
        inode
    }

    fn forget(&mut self, path: &Path) {
        if self.names.remove(path).is_some() {
            self.events.push(Event::Name { path: path.to_owned(), inode: None });
        }
    }

    fn may_write(&mut self) -> Result<(), Refused> {
        if self.read_only {
            return Err(Refused::ReadOnly);
        }
        match &mut self.full {
            Some(0) => Err(Refused::Full),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn write(&mut self, inode: u64, offset: u64, data: &[u8]) {
        self.calls.writes += 1;
        self.calls.written += data.len() as u64;
        self.events.push(Event::Write { inode, offset, data: data.into() });
    }

    fn count_open(&mut self) {
        self.calls.opens += 1;
        self.open += 1;
    }

    fn count_sync(&mut self, kind: Kind) -> Result<bool, Refused> {
        self.calls.syncs += 1;
        *self.syncs.entry(kind).or_default() += 1;
        match self.sync_fails {
            Some(0) => {
                self.sync_fails = None;
                return Err(Refused::Sync);
            }
            Some(n) => self.sync_fails = Some(n - 1),
            None => {}
        }
        Ok(!self.lies.contains(&kind))
    }

    fn sync(&mut self, inode: u64, kind: Kind) -> Result<(), Refused> {
        match self.count_sync(kind) {
            Ok(true) => self.events.push(Event::Sync { inode }),
            Ok(false) => {}
            Err(refused) => {
                self.events.push(Event::Lost { inode });
                return Err(refused);
            }
        }
        Ok(())
    }

    fn sync_dir(&mut self, path: &Path) -> Result<(), Refused> {
        if self.count_sync(Kind::Folder)? {
            self.events.push(Event::SyncDir { path: path.to_owned() });
        }
        Ok(())
    }
}

/// The disk. Clones share one log.
#[derive(Clone)]
pub struct Forgetful {
    vfs: Arc<str>,
    log: Arc<Life>,
}

/// A VFS and its log, which SQLite keeps for ever. With the last clone the log is emptied, and the
/// next disk has them: SQLite looks for a VFS in a list, which thousands of disks would make long.
struct Life(Arc<str>, Arc<Mutex<Log>>);

/// A VFS by its name, with its log.
type Registered = (Arc<str>, Arc<Mutex<Log>>);

/// Those that nobody has.
static FREE: Mutex<Vec<Registered>> = Mutex::new(Vec::new());

impl Life {
    fn with(log: Log) -> io::Result<Self> {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some((vfs, shared)) = free {
            *lock(&shared) = log;
            return Ok(Self(vfs, shared));
        }
        let log = Arc::new(Mutex::new(log));
        let vfs = vfs::register(Arc::clone(&log))?;
        Ok(Self(vfs.into(), log))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let open = std::mem::take(&mut *lock(&self.1)).open;
        if open == 0 {
            let free = (Arc::clone(&self.0), Arc::clone(&self.1));
            FREE.lock().unwrap_or_else(PoisonError::into_inner).push(free);
        }
    }
}

impl Forgetful {
    /// A disk below the folder `root`; what is there now counts as durable.
    ///
    /// # Errors
    /// When `root` cannot be read, or SQLite refuses the VFS.
    pub fn over(root: &Path) -> io::Result<Self> {
        let life = Life::with(Log::over(root)?)?;
        Ok(Self { vfs: Arc::clone(&life.0), log: Arc::new(life) })
    }

    /// The power fails: below the root is then what [`Replay::image`] leaves for `seed`, and that
    /// counts as durable. Files that never were changed through this disk stay as they are. All
    /// of its files must be closed.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn cut(&self, seed: u64) -> io::Result<()> {
        let mut log = self.log();
        let mut replay = Replay::new(&log);
        replay.advance_to(usize::MAX);
        let image = replay.image(seed);
        // Children before their folders.
        for path in log.changed().into_iter().rev() {
            let Ok(below) = path.strip_prefix(&log.root) else { continue };
            if image.folders.contains(below) || image.files.contains_key(below) {
                continue;
            }
            let gone = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            match gone {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        let changed = log.changed();
        for below in &image.folders {
            std::fs::create_dir_all(log.root.join(below))?;
        }
        for (below, bytes) in &image.files {
            let path = log.root.join(below);
            if changed.contains(&path) {
                std::fs::write(&path, bytes)?;
            }
        }
        let (lies, syncs) = (std::mem::take(&mut log.lies), std::mem::take(&mut log.syncs));
        let (calls, open) = (log.calls, log.open);
        // What was full is so still.
        let (full, room, read_only) = (log.full, log.room, log.read_only);
        let root = log.root.clone();
        *log = Log { lies, syncs, calls, open, full, room, read_only, ..Log::over(&root)? };
        Ok(())
    }

    /// Files that are open now.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.log().open
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log.1)
    }

    /// Writes something of the test's own between the events: what was acknowledged, and when.
    pub fn mark(&self, mark: u64) {
        self.log().events.push(Event::Mark(mark));
    }

    /// Makes something go wrong from now on.
    pub fn inject(&self, fault: Fault) {
        let mut log = self.log();
        match fault {
            Fault::SyncFails(n) => log.sync_fails = Some(n),
            Fault::Full(n) => log.full = Some(n),
            Fault::Room(n) => log.room = Some(n),
            Fault::ReadOnly => log.read_only = true,
        }
    }

    /// All is well again.
    pub fn heal(&self) {
        let mut log = self.log();
        log.sync_fails = None;
        log.full = None;
        log.room = None;
        log.read_only = false;
    }

    /// Claims syncs of this kind from now on without doing them.
    pub fn lie(&self, about: Lie) {
        self.log().lies.insert(about);
    }

    /// The syncs so far.
    #[must_use]
    pub fn syncs(&self) -> Syncs {
        self.log().syncs.clone()
    }

    /// The calls so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.log().calls
    }

    /// The log so far, ready to be cut.
    #[must_use]
    pub fn replay(&self) -> Replay {
        let log = self.log();
        Replay::new(&log)
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

struct ForgetfulFile {
    real: Box<dyn DiskFile>,
    inode: u64,
    kind: Kind,
    log: Arc<Mutex<Log>>,
}

impl ForgetfulFile {
    fn boxed(
        real: Box<dyn DiskFile>,
        path: &Path,
        log: &mut Log,
        shared: &Arc<Mutex<Log>>,
    ) -> Box<dyn DiskFile> {
        log.count_open();
        let inode = log.inode(path);
        Box::new(Self { real, inode, kind: kind_of(path), log: Arc::clone(shared) })
    }
}

impl Drop for ForgetfulFile {
    fn drop(&mut self) {
        let mut log = lock(&self.log);
        log.open = log.open.saturating_sub(1);
    }
}

impl Disk for Forgetful {
    fn vfs(&self) -> Option<&str> {
        Some(&self.vfs)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.log().may_write().map_err(Refused::error)?;
        RealDisk.create_dir(path)?;
        let mut log = self.log();
        let inode = log.inode(path);
        log.folders.insert(inode);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.log().sync_dir(path).map_err(Refused::error)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut log = self.log();
        log.may_write().map_err(Refused::error)?;
        let real = RealDisk.create(path)?;
        Ok(ForgetfulFile::boxed(real, path, &mut log, &self.log.1))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let real = RealDisk.open(path, access)?;
        Ok(ForgetfulFile::boxed(real, path, &mut self.log(), &self.log.1))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)?;
        self.log().forget(path);
        Ok(())
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_tree(path)?;
        let mut log = self.log();
        let below: Vec<PathBuf> =
            log.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        for name in below.iter().rev() {
            log.forget(name);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)?;
        let mut log = self.log();
        // What lies in a folder goes with it: by their own names, as the log knows no others.
        let below: Vec<PathBuf> = log
            .names
            .keys()
            .filter(|name| *name != from && name.starts_with(from))
            .cloned()
            .collect();
        for name in below {
            let Ok(rest) = name.strip_prefix(from) else { continue };
            let (inode, moved) = (log.inode(&name), to.join(rest));
            log.forget(&name);
            log.names.insert(moved.clone(), inode);
            log.events.push(Event::Name { path: moved, inode: Some(inode) });
        }
        let inode = log.inode(from);
        log.forget(from);
        log.names.insert(to.to_owned(), inode);
        log.events.push(Event::Name { path: to.to_owned(), inode: Some(inode) });
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        RealDisk.exists(path)
    }

    fn written(&self, path: &Path) -> io::Result<SystemTime> {
        RealDisk.written(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let log = self.log();
        let free = if log.full == Some(0) { Some(0) } else { log.room };
        let space = RealDisk.space(path)?;
        Ok(Space { free: free.unwrap_or(space.free), ..space })
    }
}

impl DiskFile for ForgetfulFile {
    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        lock(&self.log).calls.reads += 1;
        self.real.read_at(into, offset)
    }

    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        let mut log = lock(&self.log);
        if let Err(refused) = log.may_write() {
            // A full disk takes part of a write: the dead tail is there to be found.
            let half = from.get(..from.len() / 2).unwrap_or_default();
            if refused == Refused::Full && !half.is_empty() {
                self.real.write_at(half, offset)?;
                log.write(self.inode, offset, half);
            }
            return Err(refused.error());
        }
        self.real.write_at(from, offset)?;
        log.write(self.inode, offset, from);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        lock(&self.log).sync(self.inode, self.kind).map_err(Refused::error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Database, Error, Migration, Open, Schema};

    const SCHEMA: Schema = Schema {
        application_id: 5,
        migrations: &[Migration { sql: "CREATE TABLE a(x INTEGER) STRICT;", min_reader: 1 }],
    };

    fn open(disk: &Forgetful, folder: &Path) -> Result<Database, Error> {
        let how = Open { disk: Arc::new(disk.clone()), ..Open::default() };
        Database::open(&folder.join("a.db"), &SCHEMA, &how)
    }

    fn add(database: &mut Database, x: i64) -> Result<usize, Error> {
        database.write(|w| w.execute("INSERT INTO a VALUES (?1)", [x]).map_err(Error::from))
    }

    fn rows(image: &Image) -> Result<i64, Error> {
        let folder = tempfile::tempdir().unwrap();
        image.write_to(folder.path()).unwrap();
        let mut database = Database::open(&folder.path().join("a.db"), &SCHEMA, &Open::default())?;
        database.read(|c| {
            let check: String = c.query_row("PRAGMA integrity_check", [], |r| r.get(0))?;
            if check != "ok" {
                return Err(Error::Damaged(check));
            }
            Ok(c.query_row("SELECT count(*) FROM a", [], |r| r.get(0))?)
        })
    }

    /// Ten commits with a checkpoint among them, each marked after it returned.
    fn run(lies: &[Lie]) -> Forgetful {
        let folder = tempfile::tempdir().unwrap();
        let disk = Forgetful::over(folder.path()).unwrap();
        for lie in lies {
            disk.lie(*lie);
        }
        let mut database = open(&disk, folder.path()).unwrap();
        disk.mark(0);
        for x in 1..=10 {
            add(&mut database, x).unwrap();
            disk.mark(u64::try_from(x).unwrap());
            if x == 5 {
                crate::checkpoint(database.connection(), &crate::Gate::default()).unwrap();
            }
        }
        disk
    }

    fn lost(disk: &Forgetful) -> usize {
        let mut replay = disk.replay();
        let points: Vec<usize> = (0..=replay.events()).collect();
        let mut lost = 0;
        for point in points {
            replay.advance_to(point);
            let Some(&acknowledged) = replay.marks().last() else { continue };
            for seed in 0..3 {
                let seed = seed + 3 * u64::try_from(point).unwrap();
                let found = rows(&replay.image(seed));
                let kept = found.is_ok_and(|n| n >= i64::try_from(acknowledged).unwrap());
                lost += usize::from(!kept);
            }
        }
        lost
    }

    #[test]
    fn what_was_committed_survives_every_cut() {
        assert_eq!(lost(&run(&[])), 0);
    }

    #[test]
    fn a_lying_disk_is_found() {
        assert!(lost(&run(&[Kind::Journal])) > 10);
        assert!(lost(&run(&[Kind::Folder])) > 10);
    }

    #[test]
    fn a_cut_in_place_leaves_what_was_synced_and_what_is_not_its_own() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("foreign"), "old").unwrap();
        let disk = Forgetful::over(folder.path()).unwrap();
        for seed in 0..12 {
            let mut database = open(&disk, folder.path()).unwrap();
            let before = database.read(|c| {
                Ok::<i64, Error>(c.query_row("SELECT count(*) FROM a", [], |row| row.get(0))?)
            });
            assert_eq!(before.unwrap(), i64::try_from(seed).unwrap());
            add(&mut database, 1).unwrap();
            std::fs::write(folder.path().join("foreign"), "new").unwrap();
            let loose = disk.create(&folder.path().join("loose")).unwrap();
            loose.write_at(b"never synced", 0).unwrap();
            assert!(disk.open_files() >= 3);
            drop((database, loose));
            assert_eq!(disk.open_files(), 0);
            disk.cut(seed * 3).unwrap();
            assert!(!folder.path().join("loose").exists());
            assert_eq!(std::fs::read(folder.path().join("foreign")).unwrap(), b"new");
        }
    }

    #[test]
    fn one_sync_a_commit() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Forgetful::over(folder.path()).unwrap();
        let mut database = open(&disk, folder.path()).unwrap();
        add(&mut database, 0).unwrap();
        let before = disk.syncs();
        for x in 0..20 {
            add(&mut database, x).unwrap();
        }
        let after = disk.syncs();
        assert_eq!(after[&Kind::Journal] - before[&Kind::Journal], 20);
        assert_eq!(after[&Kind::Folder], before[&Kind::Folder]);
    }

    #[test]
    fn faults_are_told_apart_and_a_full_disk_heals() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Forgetful::over(folder.path()).unwrap();
        let mut database = open(&disk, folder.path()).unwrap();
        for n in 0..6 {
            disk.inject(Fault::Full(n));
            let outcome = add(&mut database, 1);
            assert!(matches!(outcome, Err(Error::DiskFull(_)) | Ok(1)), "{outcome:?}");
            disk.heal();
            add(&mut database, 2).unwrap();
        }
        disk.inject(Fault::ReadOnly);
        assert!(matches!(add(&mut database, 1), Err(Error::ReadOnly(_))));
        disk.heal();
        disk.inject(Fault::SyncFails(0));
        assert!(add(&mut database, 3).is_err_and(|e| e.is_fatal()));
    }

    #[test]
    fn segment_files_and_folders_forget_too() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Forgetful::over(folder.path()).unwrap();
        let seg = folder.path().join("seg");
        disk.create_dir(&seg).unwrap();
        let file = disk.create(&seg.join("1")).unwrap();
        file.write_at(b"first", 0).unwrap();
        file.sync().unwrap();
        file.write_at(b"second", 5).unwrap();
        let end = |seed| {
            let mut replay = disk.replay();
            replay.advance_to(usize::MAX);
            replay.image(seed)
        };
        assert!(end(0).files.is_empty(), "no folder was synced");
        disk.sync_dir(&seg).unwrap();
        assert!(end(0).files.is_empty(), "the folder's own name was not");
        disk.sync_dir(folder.path()).unwrap();
        assert_eq!(end(0).files[Path::new("seg/1")], b"first");
        disk.inject(Fault::SyncFails(0));
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(end(0).files[Path::new("seg/1")], b"first", "what a failed sync lost is lost");
        disk.inject(Fault::Full(0));
        assert_eq!(file.write_at(b"xx", 11).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.len().unwrap(), 12, "half of it is a dead tail");
        disk.remove(&seg.join("1")).unwrap();
        assert!(end(0).files.contains_key(Path::new("seg/1")));
        disk.sync_dir(&seg).unwrap();
        assert!(end(0).files.is_empty());
    }
}
