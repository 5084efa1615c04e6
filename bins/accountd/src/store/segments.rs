//! Segment files: append-only, immutable behind their end, an offset never used twice.
//!
//! A record is `magic(8) zlen(8) crc(8) content oid(16)` and zstd frames, so that a lost index can be
//! rebuilt from segments alone. Content above 256 KiB is a row of independent frames of 256 KiB
//! each: written and read with bounded memory, and a part in the middle without what is before it.

use super::{StoreError, codec, message::NewMessage, text::PackedText, types::ContentId};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use storage::{
    Access, Disk, DiskFile, Error,
    rusqlite::{self, Connection, OptionalExtension as _, Row},
};
use types::ObjectId;

/// Plain bytes of one frame.
pub(crate) const FRAME: usize = 256 * 1024;
/// Up to this, compressed content is committed inside the database first.
pub(crate) const STAGE_MAX: usize = 64 * 1024;
/// A segment that is longer is sealed and a new one begun.
pub(crate) const SEGMENT_LEN: u64 = 64 << 20;
const MAGIC: &[u8; 8] = b"MOXSEG1\n";
const RECORD_HEADER: usize = 40;
/// Open segment files a reader keeps.
const MAX_OPEN_FILES: usize = 8;

/// Where content lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In `staged`, with these bytes.
    Staged(Vec<u8>),
    /// In a segment; not durable before [`Tail::sync`].
    Segment { seg: i64, off: u64 },
}

/// Compressed content, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) oid: ObjectId,
    pub(crate) size: u64,
    pub(crate) zsize: u64,
    pub(crate) crc: u32,
    pub(crate) frames: Option<Vec<u8>>,
    pub(crate) place: Place,
    /// What the parser read in it, if it could.
    pub(crate) text: Option<PackedText>,
}

/// The end of the segment that is written to.
pub(crate) struct Tail {
    pub(crate) id: i64,
    pub(crate) len: u64,
    file: Box<dyn DiskFile>,
    unsynced: bool,
}

pub(crate) fn folder(account: &Path) -> PathBuf {
    account.join("seg")
}

pub(crate) fn path(account: &Path, id: i64) -> PathBuf {
    folder(account).join(format!("{id:08}"))
}

/// Whether a row says that its content is in the segment file of this number, if it has one.
pub(crate) fn holds_content(c: &Connection, number: Option<i64>) -> Result<bool, StoreError> {
    let named = "SELECT 1 FROM content WHERE seg = ?1 LIMIT 1";
    Ok(c.prepare_cached(named)?.exists([number])?)
}

/// A piece of a message: its prefix and its content seen as one.
pub(crate) fn piece(message: &NewMessage, offset: u64) -> Result<Vec<u8>, StoreError> {
    let failed = |e: &io::Error| StoreError::Failed(format!("reading a spooled message: {e}"));
    let want = usize::try_from(message.size() - offset).unwrap_or(FRAME).min(FRAME);
    let mut plain = vec![0; want];
    let prefix_len = message.prefix.len() as u64;
    let mut filled = 0;
    if offset < prefix_len {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = message.prefix.get(start..).unwrap_or_default();
        filled = part.len().min(want);
        plain[..filled].copy_from_slice(&part[..filled]);
    }
    if filled < want {
        let at = (offset + filled as u64).saturating_sub(prefix_len);
        message.content.read_at(&mut plain[filled..], at).map_err(|e| failed(&e))?;
    }
    Ok(plain)
}

impl Tail {
    /// Goes on at the **file's** end, not at the last row's: a dead tail stays dead.
    pub(crate) fn open(disk: &dyn Disk, account: &Path, id: i64) -> Result<Self, Error> {
        let file = disk
            .open(&path(account, id), Access::Write)
            .map_err(|e| Error::file("open segment", &e))?;
        let len = file.len().map_err(|e| Error::file("length of a segment", &e))?;
        Ok(Self { id, len, file, unsynced: false })
    }

    /// Makes a new, empty segment, of a number no file has, whose name is durable. Its row comes next, then the first record.
    pub(crate) fn create(disk: &dyn Disk, account: &Path, id: i64) -> Result<Self, Error> {
        let at = path(account, id);
        let file = disk.create(&at).map_err(|e| Error::file("create a segment", &e))?;
        disk.sync_dir(&folder(account)).map_err(|e| Error::sync("segment folder", &e))?;
        Ok(Self { id, len: 0, file, unsynced: false })
    }

    /// Appends a record of frames given one by one. On failure what was written is a dead tail.
    pub(crate) fn append(
        &mut self,
        oid: &[u8],
        mut next: impl FnMut() -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<(u64, Vec<u32>, u32), StoreError> {
        let start = self.len;
        let off = start + RECORD_HEADER as u64;
        let mut crc = crc32fast::Hasher::new();
        let mut lengths = Vec::new();
        let mut at = off;
        let written = loop {
            match next() {
                Ok(Some(frame)) => {
                    self.unsynced = true;
                    crc.update(&frame);
                    lengths.push(u32::try_from(frame.len()).unwrap_or(u32::MAX));
                    if let Err(e) = self.file.write_at(&frame, at) {
                        break Err(Error::file("write a segment", &e).into());
                    }
                    at += frame.len() as u64;
                }
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        let crc = crc.finalize();
        let written = written.and_then(|()| {
            let mut header = Vec::with_capacity(RECORD_HEADER);
            header.extend_from_slice(MAGIC);
            header.extend_from_slice(&(at - off).to_le_bytes());
            header.extend_from_slice(&u64::from(crc).to_le_bytes());
            header.extend_from_slice(oid);
            let wrote = self.file.write_at(&header, start);
            wrote.map_err(|e| Error::file("write a segment", &e).into())
        });
        match written {
            Ok(()) => {
                self.len = at;
                Ok((off, lengths, crc))
            }
            Err(e) => {
                // Behind whatever is there: an offset is never used twice.
                let len = self.file.len().map_err(|e| Error::file("length of a segment", &e))?;
                self.len = len.max(self.len);
                Err(e)
            }
        }
    }

    /// Makes everything appended durable. A failure is final.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        if self.unsynced {
            self.file.sync().map_err(|e| Error::sync("segment", &e))?;
            self.unsynced = false;
        }
        Ok(())
    }
}

/// Row of `content` as reading needs it.
pub(crate) struct Position {
    pub(crate) size: u64,
    pub(crate) zsize: u64,
    pub(crate) seg: Option<i64>,
    pub(crate) off: u64,
    pub(crate) crc: u32,
    pub(crate) frames: Option<Vec<u8>>,
}

pub(crate) fn position(c: &Connection, id: ContentId) -> Result<Option<Position>, StoreError> {
    let mut query =
        c.prepare_cached("SELECT size, zsize, seg, off, crc, frames FROM content WHERE id = ?1")?;
    let row = query.query_row([id.0], |r| Position::of(r, 0)).optional()?;
    Ok(row)
}

impl Position {
    /// Of a row with size, zsize, seg, off, crc and frames from column `at` on.
    pub(crate) fn of(row: &Row<'_>, at: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            size: row.get(at)?,
            zsize: row.get(at + 1)?,
            seg: row.get(at + 2)?,
            off: row.get::<_, Option<u64>>(at + 3)?.unwrap_or(0),
            crc: row.get(at + 4)?,
            frames: row.get(at + 5)?,
        })
    }
}

/// Reads content; keeps a few segment files open.
pub(crate) struct SegmentFiles {
    disk: Arc<dyn Disk>,
    account: PathBuf,
    open: RefCell<BTreeMap<i64, Box<dyn DiskFile>>>,
}

impl SegmentFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, account: PathBuf) -> Self {
        Self { disk, account, open: RefCell::default() }
    }

    pub(crate) fn forget(&self, seg: i64) {
        self.open.borrow_mut().remove(&seg);
    }

    fn read_raw(&self, seg: i64, off: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut open = self.open.borrow_mut();
        if !open.contains_key(&seg) {
            let file = self
                .disk
                .open(&path(&self.account, seg), Access::Read)
                .map_err(|e| missing("open segment", &e))?;
            if open.len() >= MAX_OPEN_FILES {
                open.pop_first();
            }
            open.insert(seg, file);
        }
        let mut data = vec![0; len];
        match open.get(&seg) {
            Some(file) => file.read_at(&mut data, off).map_err(|e| missing("read segment", &e))?,
            None => return Err(Error::Io("segment file closed".into())),
        }
        Ok(data)
    }

    /// All compressed bytes of a content: for compaction and checks.
    pub(crate) fn compressed(
        &self,
        c: &Connection,
        id: ContentId,
        p: &Position,
    ) -> Result<Vec<u8>, StoreError> {
        let data = match p.seg {
            Some(seg) => {
                self.read_raw(seg, p.off, usize::try_from(p.zsize).unwrap_or(usize::MAX))?
            }
            None => staged(c, id)?,
        };
        if crc32fast::hash(&data) == p.crc {
            Ok(data)
        } else {
            Err(StoreError::Damaged(format!("checksum of content {} differs", id.0)))
        }
    }

    /// Decompresses the part at `offset`: at most one frame's worth.
    pub(crate) fn read(
        &self,
        c: &Connection,
        id: ContentId,
        offset: u64,
        len: u32,
    ) -> Result<Vec<u8>, StoreError> {
        let p = position(c, id)?.ok_or(StoreError::ContentGone)?;
        self.read_at(c, id, &p, offset, len)
    }

    /// The same of a content whose row is at hand.
    pub(crate) fn read_at(
        &self,
        c: &Connection,
        id: ContentId,
        p: &Position,
        offset: u64,
        len: u32,
    ) -> Result<Vec<u8>, StoreError> {
        if offset >= p.size {
            return Ok(Vec::new());
        }
        let number = offset / FRAME as u64;
        let frame_start = number * FRAME as u64;
        let plain_len = usize::try_from(p.size - frame_start).unwrap_or(FRAME).min(FRAME);
        let mut plain = match (&p.frames, p.seg) {
            (Some(lengths), Some(seg)) => {
                let (at, zlen) = frame_at(lengths, number)
                    .ok_or_else(|| StoreError::Damaged("list of frames is too short".into()))?;
                // Each frame is checked by the checksum inside it.
                codec::decompress(&self.read_raw(seg, p.off + at, zlen)?, plain_len)?
            }
            (Some(_) | None, _) => codec::decompress(&self.compressed(c, id, p)?, plain_len)?,
        };
        let from = usize::try_from(offset - frame_start).unwrap_or(usize::MAX);
        let upto = from.saturating_add(len as usize).min(plain.len());
        plain.truncate(upto);
        if from > 0 {
            plain.drain(..from.min(upto));
        }
        Ok(plain)
    }
}

/// A missing or short segment is damage, not an error that goes away by itself.
fn missing(what: &str, error: &io::Error) -> Error {
    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) {
        Error::Damaged(format!("{what}: {error}"))
    } else {
        Error::file(what, error)
    }
}

fn frame_at(lengths: &[u8], number: u64) -> Option<(u64, usize)> {
    let mut at = 0u64;
    for (n, bytes) in (0u64..).zip(lengths.chunks_exact(4)) {
        let len = u32::from_le_bytes(bytes.try_into().ok()?);
        if n == number {
            return Some((at, len as usize));
        }
        at += u64::from(len);
    }
    None
}

fn staged(c: &Connection, id: ContentId) -> Result<Vec<u8>, StoreError> {
    let mut query = c.prepare_cached("SELECT data FROM staged WHERE content_id = ?1")?;
    let data = query.query_row([id.0], |r| r.get(0)).optional()?;
    data.ok_or_else(|| StoreError::Damaged(format!("content {} is nowhere", id.0)))
}
