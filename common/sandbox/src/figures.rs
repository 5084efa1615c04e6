//! Figures of a process in memory the supervisor gave it: they survive its crash, need no edge,
//! and their reader believes nothing.
//!
//! 256 KiB, 32,768 numbers. What stands at which index is the business of `daemon`. All access is
//! by relaxed atomics of 64 bits, so a value is never torn; between two numbers there is no order.
//! The size is sealed before the memory leaves the supervisor and checked here before mapping:
//! neither side can shorten it and kill the other with SIGBUS.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags};

use crate::memfd::{self, BadMemory};

/// Size of one process's figures.
pub const BYTES: usize = 256 * 1024;
/// How many numbers that is.
pub const SLOTS: usize = BYTES / size_of::<u64>();

/// The size must be final; the content changes, that is the point.
const SIZE_FINAL: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// Makes the memory for one process, all zero, mode 0600, its size sealed. The supervisor's part.
///
/// # Errors
/// No memory or descriptors left.
pub fn create(name: &str) -> io::Result<OwnedFd> {
    let memory = memfd::create(name)?;
    rustix::fs::ftruncate(&memory, BYTES as u64)?;
    // SEAL too, so that a writer cannot add F_SEAL_WRITE and break its successor.
    rustix::fs::fcntl_add_seals(&memory, SIZE_FINAL | SealFlags::SEAL)?;
    Ok(memory)
}

/// A read-only descriptor of the same memory, for a reader under another uid: it can neither write
/// through it nor reopen it for writing (mode 0600, the supervisor's). The supervisor's part.
///
/// # Errors
/// /proc is not there.
pub fn read_only(memory: impl AsFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", memory.as_fd().as_raw_fd());
    Ok(std::fs::File::open(path)?.into())
}

/// The figures of this process, to write. The mapping stays until the process ends: a handle may
/// be anywhere, and figures of a dying process are those that matter.
///
/// # Errors
/// [`BadMemory`] in an `io::Error`: not sealed, not [`BYTES`] long.
#[expect(unsafe_code, reason = "shared memory is mapped")]
pub fn map_to_write(memory: impl AsFd) -> io::Result<&'static [AtomicU64]> {
    let start = map(memory, ProtFlags::READ | ProtFlags::WRITE)?;
    // SAFETY: the mapping is BYTES long, page aligned, readable and writable, never unmapped, and
    // its size is sealed. Zero bytes are valid AtomicU64s, and so are whatever bytes another
    // process writes. Nobody has a plain reference to it.
    Ok(unsafe { std::slice::from_raw_parts(start.as_ptr(), SLOTS) })
}

/// The figures of another process, to read.
#[derive(Debug)]
pub struct Figures {
    start: NonNull<AtomicU64>,
}

// SAFETY: the memory is only read, by atomics.
#[expect(unsafe_code, reason = "a raw mapping is shared between threads")]
unsafe impl Send for Figures {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a raw mapping is shared between threads")]
unsafe impl Sync for Figures {}

impl Figures {
    /// Maps a read-only descriptor.
    ///
    /// # Errors
    /// [`BadMemory`] in an `io::Error`: not sealed, not [`BYTES`] long.
    pub fn map_to_read(memory: impl AsFd) -> io::Result<Self> {
        Ok(Figures { start: map(memory, ProtFlags::READ)? })
    }

    /// One number; `None` beyond the end.
    pub fn read(&self, slot: usize) -> Option<u64> {
        self.slots().get(slot).map(|number| number.load(Ordering::Relaxed))
    }

    /// Copies all numbers from `first` on, as many as fit into `into` and exist; returns how many.
    pub fn copy(&self, first: usize, into: &mut [u64]) -> usize {
        let slots = self.slots().get(first..).unwrap_or(&[]);
        let mut copied = 0;
        for (to, from) in into.iter_mut().zip(slots) {
            *to = from.load(Ordering::Relaxed);
            copied += 1;
        }
        copied
    }

    #[expect(unsafe_code, reason = "shared memory is read")]
    fn slots(&self) -> &[AtomicU64] {
        // SAFETY: as in `map_to_write`, but read-only and unmapped when `self` is dropped, which
        // outlives the slice. Relaxed loads of 64 bits never write, so read-only pages do.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), SLOTS) }
    }
}

impl Drop for Figures {
    #[expect(unsafe_code, reason = "shared memory is unmapped")]
    fn drop(&mut self) {
        // SAFETY: exactly what `map` returned; no slice of it outlives `self`. Failing would leave
        // the mapping, which is harmless.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), BYTES) };
    }
}

#[expect(unsafe_code, reason = "shared memory is mapped")]
fn map(memory: impl AsFd, protection: ProtFlags) -> io::Result<NonNull<AtomicU64>> {
    let memory = memory.as_fd();
    if !memfd::seals(memory)?.contains(SIZE_FINAL) {
        return Err(memfd::refused(BadMemory::NotSealed));
    }
    let size = memfd::size(memory)?;
    if size != BYTES as u64 {
        return Err(memfd::refused(BadMemory::Size(size)));
    }
    // SAFETY: a new mapping at an address of the kernel's choice; it replaces nothing.
    let start = unsafe {
        rustix::mm::mmap(std::ptr::null_mut(), BYTES, protection, MapFlags::SHARED, memory, 0)?
    };
    NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_the_writer_counts() {
        let memory = create("figures").unwrap();
        let counters = map_to_write(&memory).unwrap();
        let figures = Figures::map_to_read(read_only(&memory).unwrap()).unwrap();
        assert_eq!(counters.len(), SLOTS);
        counters[0].fetch_add(5, Ordering::Relaxed);
        counters[SLOTS - 1].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(figures.read(0), Some(5));
        assert_eq!(figures.read(SLOTS - 1), Some(u64::MAX));
        assert_eq!(figures.read(SLOTS), None);
        let mut last = [0; 4];
        assert_eq!(figures.copy(SLOTS - 2, &mut last), 2);
        assert_eq!(last, [0, u64::MAX, 0, 0]);
        assert_eq!(figures.copy(usize::MAX, &mut last), 0);
    }

    #[test]
    fn a_new_process_finds_its_predecessors_figures() {
        let memory = create("figures").unwrap();
        map_to_write(&memory).unwrap()[7].store(9, Ordering::Relaxed);
        assert_eq!(map_to_write(&memory).unwrap()[7].load(Ordering::Relaxed), 9);
    }

    #[test]
    fn nobody_can_shorten_or_seal_it() {
        let memory = create("figures").unwrap();
        assert!(rustix::fs::ftruncate(&memory, 0).is_err());
        assert!(rustix::fs::fcntl_add_seals(&memory, SealFlags::WRITE).is_err());
        let reader = read_only(&memory).unwrap();
        assert!(rustix::io::pwrite(&reader, b"x", 0).is_err());
        assert!(map_to_write(&reader).is_err(), "a read-only descriptor maps read-only");
    }

    #[test]
    fn unsealed_or_short_memory_is_not_mapped() {
        let unsealed = memfd::create("x").unwrap();
        rustix::fs::ftruncate(&unsealed, BYTES as u64).unwrap();
        assert!(Figures::map_to_read(&unsealed).is_err());
        let short = memfd::create("x").unwrap();
        rustix::fs::ftruncate(&short, 4096).unwrap();
        rustix::fs::fcntl_add_seals(&short, SIZE_FINAL).unwrap();
        assert!(Figures::map_to_read(&short).is_err());
    }
}
