//! Cuts the log of a forgetful disk and builds what may be left after a power cut there.

use super::{Event, Log};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

/// The unit in which a disk may have written some of a write and not the rest.
const SECTOR: usize = 512;

/// A log, read up to a point.
pub struct Replay {
    root: PathBuf,
    events: Vec<Event>,
    at: usize,
    durable: BTreeMap<u64, Vec<u8>>,
    pending: BTreeMap<u64, Vec<usize>>,
    names: BTreeMap<PathBuf, u64>,
    names_pending: BTreeMap<PathBuf, Vec<(PathBuf, Option<u64>)>>,
    folders: BTreeSet<u64>,
    marks: Vec<u64>,
}

/// What a disk holds after a cut: paths below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Files with their bytes.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// Folders.
    pub folders: BTreeSet<PathBuf>,
}

/// `SplitMix64`: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn up_to(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % (most as u64 + 1)).unwrap_or(0)
    }
}

impl Replay {
    pub(super) fn new(log: &Log) -> Self {
        let mut replay = Self {
            root: log.root.clone(),
            events: log.events.clone(),
            at: 0,
            durable: BTreeMap::new(),
            pending: BTreeMap::new(),
            names: BTreeMap::new(),
            names_pending: BTreeMap::new(),
            folders: BTreeSet::new(),
            marks: Vec::new(),
        };
        for (path, bytes) in &log.base {
            let Some(&inode) = log.first_names.get(path) else { continue };
            replay.names.insert(path.clone(), inode);
            replay.durable.insert(inode, bytes.clone());
        }
        for path in &log.base_folders {
            let Some(&inode) = log.first_names.get(path) else { continue };
            replay.names.insert(path.clone(), inode);
            replay.folders.insert(inode);
        }
        replay.folders.extend(&log.folders);
        replay
    }

    /// How many events there are.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// The places just before each sync.
    #[must_use]
    pub fn sync_points(&self) -> Vec<usize> {
        let is_sync = |e: &Event| matches!(e, Event::Sync { .. } | Event::SyncDir { .. });
        self.events.iter().enumerate().filter(|(_, e)| is_sync(e)).map(|(n, _)| n).collect()
    }

    /// The marks met so far.
    #[must_use]
    pub fn marks(&self) -> &[u64] {
        &self.marks
    }

    /// Goes on to just before event `to`.
    pub fn advance_to(&mut self, to: usize) {
        while self.at < to.min(self.events.len()) {
            let at = self.at;
            self.at += 1;
            match &self.events[at] {
                Event::Name { path, inode } => {
                    let folder = path.parent().unwrap_or(&self.root).to_owned();
                    self.names_pending.entry(folder).or_default().push((path.clone(), *inode));
                }
                Event::Write { inode, .. } | Event::Truncate { inode, .. } => {
                    self.pending.entry(*inode).or_default().push(at);
                }
                Event::Sync { inode } => {
                    let bytes = self.durable.entry(*inode).or_default();
                    for change in self.pending.remove(inode).unwrap_or_default() {
                        apply(&self.events[change], bytes);
                    }
                }
                Event::Lost { inode } => {
                    self.pending.remove(inode);
                }
                Event::SyncDir { path } => {
                    for (name, inode) in self.names_pending.remove(path).unwrap_or_default() {
                        rename(&mut self.names, name, inode);
                    }
                }
                Event::Mark(mark) => self.marks.push(*mark),
            }
        }
    }

    /// What a disk may hold now. Seeds with the same remainder by three forget alike: all that was
    /// not synced, all behind some write, or random sectors of it.
    #[must_use]
    pub fn image(&self, seed: u64) -> Image {
        let mut random = Random(seed);
        let mut names = self.names.clone();
        for changes in self.names_pending.values() {
            let keep = if seed.is_multiple_of(3) { 0 } else { random.up_to(changes.len()) };
            for (name, inode) in changes.iter().take(keep) {
                rename(&mut names, name.clone(), *inode);
            }
        }
        let mut image = Image { files: BTreeMap::new(), folders: BTreeSet::new() };
        for (path, inode) in &names {
            let has_way = path
                .ancestors()
                .skip(1)
                .take_while(|a| *a != self.root)
                .all(|a| names.contains_key(a));
            let Ok(below) = path.strip_prefix(&self.root) else { continue };
            if !has_way {
                continue;
            }
            if self.folders.contains(inode) {
                image.folders.insert(below.to_owned());
            } else {
                image.files.insert(below.to_owned(), self.bytes(*inode, seed, &mut random));
            }
        }
        image
    }

    fn bytes(&self, inode: u64, seed: u64, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.get(&inode).cloned().unwrap_or_default();
        let pending = self.pending.get(&inode).map(Vec::as_slice).unwrap_or_default();
        match seed % 3 {
            0 => {}
            1 => {
                let keep = random.up_to(pending.len());
                for &change in pending.iter().take(keep) {
                    apply(&self.events[change], &mut bytes);
                }
            }
            _ => {
                for &change in pending {
                    if let Event::Write { offset, data, .. } = &self.events[change] {
                        for (n, sector) in data.chunks(SECTOR).enumerate() {
                            if random.up_to(1) == 1 {
                                put(&mut bytes, *offset + (n * SECTOR) as u64, sector);
                            }
                        }
                    } else if random.up_to(1) == 1 {
                        apply(&self.events[change], &mut bytes);
                    }
                }
            }
        }
        bytes
    }
}

impl Image {
    /// Writes it out below `folder`, which must be empty or missing.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for below in &self.folders {
            std::fs::create_dir_all(folder.join(below))?;
        }
        for (below, bytes) in &self.files {
            std::fs::write(folder.join(below), bytes)?;
        }
        Ok(())
    }
}

fn rename(names: &mut BTreeMap<PathBuf, u64>, path: PathBuf, inode: Option<u64>) {
    match inode {
        Some(inode) => names.insert(path, inode),
        None => names.remove(&path),
    };
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(data.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(data);
}

fn apply(event: &Event, bytes: &mut Vec<u8>) {
    match event {
        Event::Write { offset, data, .. } => put(bytes, *offset, data),
        Event::Truncate { len, .. } => bytes.resize(usize::try_from(*len).unwrap_or(0), 0),
        Event::Name { .. }
        | Event::Sync { .. }
        | Event::Lost { .. }
        | Event::SyncDir { .. }
        | Event::Mark(_) => {}
    }
}
