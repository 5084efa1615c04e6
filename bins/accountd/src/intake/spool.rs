//! A message while it arrives: up to 64 KiB in memory, more in an unlinked file of our own folder, so
//! that a crash leaves nothing behind and a slow sender holds no memory.

use crate::store::Content;
use aws_lc_rs::digest;
use daemon::Workers;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Octets that stay in memory.
const IN_MEMORY: usize = 65_536;
/// Octets of a file that are looked at together when it is read back.
const PIECE: usize = 65_536;
const FOLDER: &str = "tmp";
/// Messages that arrive at once from one kind of sender: in memory 256 MiB of them, or as many
/// descriptors, and four kinds stay below what the process may have. More than honest faces send; one
/// that was taken over could else begin messages until there is no memory, or no file to open.
const MAX_ARRIVING: usize = 4_096;

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpoolError {
    /// Larger than the limit.
    #[error("the message is too large")]
    TooLarge,
    #[error("no space left on the disk")]
    DiskFull,
    #[error("the disk is read-only")]
    ReadOnly,
    #[error("the message could not be spooled: {0}")]
    Io(String),
}

impl From<io::Error> for SpoolError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => SpoolError::DiskFull,
            Some(rustix::io::Errno::ROFS) => SpoolError::ReadOnly,
            _ => SpoolError::Io(error.to_string()),
        }
    }
}

/// Who sends: each kind has places of its own, so that none takes another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Stranger,
    User,
    Append,
    Queue,
}

/// Too many messages of this kind arrive at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many messages arrive at once")]
pub(crate) struct Crowded;

/// The places of messages that arrive.
pub(crate) struct Places([Arc<Semaphore>; 4]);

impl Default for Places {
    fn default() -> Self {
        Self::of(MAX_ARRIVING)
    }
}

impl Places {
    fn of(count: usize) -> Self {
        Self(std::array::from_fn(|_| Arc::new(Semaphore::new(count))))
    }

    /// A place, given back with the last of the message.
    pub(crate) fn take(&self, way: Way) -> Result<Place, Crowded> {
        let [stranger, user, append, queue] = &self.0;
        let room = match way {
            Way::Stranger => stranger,
            Way::User => user,
            Way::Append => append,
            Way::Queue => queue,
        };
        Arc::clone(room).try_acquire_owned().map(Place).map_err(|_| {
            tracing::warn!(?way, "too many messages arrive at once");
            Crowded
        })
    }
}

/// The right to be a message that arrives.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held for its Drop")] OwnedSemaphorePermit);

/// Makes the folder of spooled files and empties it.
pub(crate) fn prepare(folder: &Path) -> io::Result<()> {
    let folder = folder.join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    for entry in std::fs::read_dir(&folder)? {
        // Only there if a crash came between making and unlinking.
        std::fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// A message that is arriving. What comes after a fault is counted as nothing, and the fault is
/// told at the end.
pub(crate) struct Spool {
    folder: PathBuf,
    max: u64,
    len: u64,
    hash: digest::Context,
    eight_bit: bool,
    held: Held,
    fault: Option<SpoolError>,
    workers: Workers,
    place: Place,
}

enum Held {
    Memory(Vec<u8>),
    File(File),
}

impl Spool {
    pub(crate) fn new(folder: &Path, max: u64, workers: Workers, place: Place) -> Self {
        Self {
            folder: folder.join(FOLDER),
            max,
            len: 0,
            hash: digest::Context::new(&digest::SHA256),
            eight_bit: false,
            held: Held::Memory(Vec::new()),
            fault: None,
            workers,
            place,
        }
    }

    /// Takes the next octets. Off the thread that answers calls where it touches the disk.
    pub(crate) async fn push(mut self, chunk: &[u8]) -> Self {
        if self.fault.is_some() {
            return self;
        }
        self.len += chunk.len() as u64;
        if self.len > self.max {
            self.fault = Some(SpoolError::TooLarge);
            self.held = Held::Memory(Vec::new());
            return self;
        }
        self.hash.update(chunk);
        self.eight_bit |= !chunk.is_ascii();
        if let Held::Memory(memory) = &mut self.held
            && memory.len() + chunk.len() <= IN_MEMORY
        {
            memory.extend_from_slice(chunk);
            return self;
        }
        let chunk = chunk.to_vec();
        let (folder, held) = (self.folder.clone(), self.held);
        let written = self.workers.run(move || write(&folder, held, &chunk)).await;
        match written {
            Ok(Ok(file)) => self.held = Held::File(file),
            Ok(Err(error)) => {
                self.fault = Some(error.into());
                self.held = Held::Memory(Vec::new());
            }
            Err(_) => {
                self.fault = Some(SpoolError::Io("writing was interrupted".into()));
                self.held = Held::Memory(Vec::new());
            }
        }
        self
    }

    /// All of it, or the first fault.
    pub(crate) fn finish(self) -> Result<Spooled, SpoolError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(self.hash.finish().as_ref());
        let eight_bit = self.eight_bit;
        let body = match self.held {
            Held::Memory(memory) => Body::Memory(memory),
            Held::File(file) => Body::File(file),
        };
        let inner = Inner { body, len: self.len, hash, eight_bit, _place: Some(self.place) };
        Ok(Spooled { prefix: Rc::default(), inner: Rc::new(inner) })
    }
}

fn write(folder: &Path, held: Held, chunk: &[u8]) -> io::Result<File> {
    let mut file = match held {
        Held::File(file) => file,
        Held::Memory(memory) => {
            let mut file = unlinked(folder)?;
            file.write_all(&memory)?;
            file
        }
    };
    file.write_all(chunk)?;
    Ok(file)
}

fn unlinked(folder: &Path) -> io::Result<File> {
    let mut name = [0; 8];
    getrandom::fill(&mut name).map_err(|e| io::Error::other(e.to_string()))?;
    let path = folder.join(format!("{:016x}", u64::from_be_bytes(name)));
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// A whole message: header fields of ours, then what came. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Spooled {
    prefix: Rc<Vec<u8>>,
    inner: Rc<Inner>,
}

struct Inner {
    body: Body,
    len: u64,
    hash: [u8; 32],
    eight_bit: bool,
    _place: Option<Place>,
}

enum Body {
    Memory(Vec<u8>),
    File(File),
}

impl Spooled {
    /// Octets that are there already.
    #[cfg(test)]
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());
        let (len, eight_bit) = (bytes.len() as u64, !bytes.is_ascii());
        let inner = Inner { body: Body::Memory(bytes), len, hash, eight_bit, _place: None };
        Self { prefix: Rc::default(), inner: Rc::new(inner) }
    }

    /// The same with header fields in front.
    pub(crate) fn with_prefix(&self, prefix: Vec<u8>) -> Self {
        Self { prefix: Rc::new(prefix), inner: Rc::clone(&self.inner) }
    }

    /// Octets of all of it.
    pub(crate) fn len(&self) -> u64 {
        self.prefix.len() as u64 + self.inner.len
    }

    /// The fields in front.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// SHA-256 of what came.
    pub(crate) fn hash(&self) -> [u8; 32] {
        self.inner.hash
    }

    /// Whether what came has octets above 127.
    pub(crate) fn is_eight_bit(&self) -> bool {
        self.inner.eight_bit
    }

    /// What came, for the store. The descriptor is shared: it is only ever read, at offsets.
    pub(crate) fn content(&self) -> io::Result<Content> {
        Ok(match &self.inner.body {
            Body::Memory(bytes) => Content::Bytes(bytes.clone()),
            Body::File(file) => Content::File { file: file.try_clone()?, len: self.inner.len },
        })
    }

    /// Some octets of all of it from `offset` on; none only at the end.
    pub(crate) fn read(&self, offset: u64) -> io::Result<Vec<u8>> {
        let in_prefix = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(rest) = self.prefix.get(in_prefix..).filter(|rest| !rest.is_empty()) {
            return Ok(rest.to_vec());
        }
        let offset = offset - self.prefix.len() as u64;
        let left = usize::try_from(self.inner.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = left.min(PIECE);
        match &self.inner.body {
            Body::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes[start..start + len].to_vec())
            }
            Body::File(file) => {
                let mut out = vec![0; len];
                file.read_exact_at(&mut out, offset)?;
                Ok(out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn spool(max: u64, chunks: &[&[u8]]) -> Result<Spooled, SpoolError> {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path()).unwrap();
        let place = Places::default().take(Way::Stranger).unwrap();
        let mut spool = Spool::new(folder.path(), max, Workers::Threads, place);
        for chunk in chunks {
            spool = spool.push(chunk).await;
        }
        assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
        spool.finish()
    }

    fn all(spooled: &Spooled) -> Vec<u8> {
        let mut out = Vec::new();
        while (out.len() as u64) < spooled.len() {
            out.extend(spooled.read(out.len() as u64).unwrap());
        }
        out
    }

    #[tokio::test]
    async fn any_split_gives_the_same_octets() {
        let message: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0] ^ 7).collect();
        for len in [0, 1, IN_MEMORY, IN_MEMORY + 1, message.len()] {
            let message = &message[..len];
            for step in [1000, IN_MEMORY, 1 << 20] {
                let chunks: Vec<&[u8]> = message.chunks(step).collect();
                let spooled = spool(1 << 20, &chunks).await.unwrap();
                assert_eq!(all(&spooled), message);
                let prefixed = spooled.with_prefix(b"A: b\r\n".to_vec());
                assert_eq!(all(&prefixed), [b"A: b\r\n", message].concat());
                let whole = Spooled::of(message.to_vec());
                assert_eq!(spooled.hash(), whole.hash());
                assert_eq!(spooled.is_eight_bit(), whole.is_eight_bit());
                assert_eq!(spooled.content().unwrap().len(), len as u64);
            }
        }
    }

    #[tokio::test]
    async fn a_crowd_of_one_kind_is_no_other_kinds_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::of(2);
        let spool = |way| {
            let place = places.take(way)?;
            Ok::<_, Crowded>(Spool::new(folder.path(), 100, Workers::Threads, place))
        };
        let (first, second) = (spool(Way::Stranger).unwrap(), spool(Way::Stranger).unwrap());
        assert_eq!(spool(Way::Stranger).err(), Some(Crowded));
        spool(Way::User).unwrap();
        // The place is the message's until the last of it is gone.
        let whole = first.push(b"x").await.finish().unwrap();
        let with_prefix = whole.with_prefix(b"A: b\r\n".to_vec());
        drop(whole);
        assert!(spool(Way::Stranger).is_err());
        drop(with_prefix);
        drop(spool(Way::Stranger).unwrap());
        drop(second);
        spool(Way::Stranger).unwrap();
    }

    #[tokio::test]
    async fn too_much_is_forgotten_at_once() {
        let chunk = vec![0; 60_000];
        let result = spool(100_000, &[&chunk, &chunk, &chunk]).await;
        assert_eq!(result.err(), Some(SpoolError::TooLarge));
    }
}
