//! Sealed memory: how the supervisor gives each process its slice of the configuration.
//!
//! An unsealed memfd has two traps: one passed "read-only" can be reopened and written (its mode
//! is 0777 when made), and one that shrinks under a reader kills it with SIGBUS. So the sender
//! seals, the receiver believes the seals and nothing else, and reads instead of mapping.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, SealFlags};

/// What must be sealed before a receiver believes the content is final.
const FINAL: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// Why received memory is not believed; inside an `io::Error` of kind `InvalidData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMemory {
    /// It could still change.
    #[error("not sealed memory")]
    NotSealed,
    /// Larger than the receiver takes, or not the agreed size.
    #[error("{0} bytes are not what was agreed")]
    Size(u64),
}

pub(crate) fn refused(why: BadMemory) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Memory of mode 0600 that cannot be executed, sealable.
pub(crate) fn create(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know that flag.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        result => result,
    }?;
    rustix::fs::fchmod(&memory, Mode::RUSR | Mode::WUSR)?;
    Ok(memory)
}

/// A memfd that holds these bytes for ever.
///
/// # Errors
/// No memory or descriptors left.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let memory = create(name)?;
    rustix::fs::ftruncate(&memory, u64::try_from(bytes.len()).map_err(io::Error::other)?)?;
    let mut done = 0;
    while done < bytes.len() {
        let at = u64::try_from(done).map_err(io::Error::other)?;
        done += rustix::io::retry_on_intr(|| rustix::io::pwrite(&memory, &bytes[done..], at))?;
    }
    rustix::fs::fcntl_add_seals(&memory, FINAL)?;
    Ok(memory)
}

/// The content of sealed memory, of at most `max` bytes. Works before and after confinement.
///
/// # Errors
/// [`BadMemory`], or reading failed.
pub fn read_sealed(memory: impl AsFd, max: usize) -> io::Result<Vec<u8>> {
    let memory = memory.as_fd();
    if !seals(memory)?.contains(FINAL) {
        return Err(refused(BadMemory::NotSealed));
    }
    let size = size(memory)?;
    let length = usize::try_from(size)
        .ok()
        .filter(|length| *length <= max)
        .ok_or_else(|| refused(BadMemory::Size(size)))?;
    let mut bytes = vec![0; length];
    // By offset: the supervisor may have handed the same open file to several readers.
    let mut done = 0;
    while done < length {
        let at = u64::try_from(done).map_err(io::Error::other)?;
        let got = rustix::io::retry_on_intr(|| rustix::io::pread(memory, &mut bytes[done..], at))?;
        if got == 0 {
            return Err(refused(BadMemory::Size(size)));
        }
        done += got;
    }
    Ok(bytes)
}

/// The seals of a descriptor; none for one that cannot have any.
pub(crate) fn seals(memory: impl AsFd) -> io::Result<SealFlags> {
    match rustix::fs::fcntl_get_seals(memory) {
        Err(rustix::io::Errno::INVAL) => Ok(SealFlags::empty()),
        result => Ok(result?),
    }
}

pub(crate) fn size(memory: impl AsFd) -> io::Result<u64> {
    u64::try_from(rustix::fs::fstat(memory)?.st_size).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(error: &io::Error) -> BadMemory {
        *error.get_ref().unwrap().downcast_ref().unwrap()
    }

    #[test]
    fn what_was_sealed_is_read_twice_and_never_changes() {
        let text = vec![b'c'; 100_000];
        let memory = sealed("mox config", &text).unwrap();
        assert_eq!(read_sealed(&memory, 100_000).unwrap(), text);
        assert_eq!(read_sealed(&memory, 100_000).unwrap(), text);
        assert!(rustix::io::pwrite(&memory, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(&memory, 0).is_err());
        assert_eq!(read_sealed(sealed("empty", b"").unwrap(), 10).unwrap(), b"");
    }

    #[test]
    fn unsealed_large_and_plain_files_are_refused() {
        let unsealed = create("x").unwrap();
        assert_eq!(why(&read_sealed(&unsealed, 10).unwrap_err()), BadMemory::NotSealed);
        let file = tempfile::tempfile().unwrap();
        assert_eq!(why(&read_sealed(&file, 10).unwrap_err()), BadMemory::NotSealed);
        let large = sealed("x", &[0; 11]).unwrap();
        assert_eq!(why(&read_sealed(&large, 10).unwrap_err()), BadMemory::Size(11));
    }

    #[test]
    fn others_cannot_reopen_it() {
        let memory = sealed("x", b"secret").unwrap();
        assert_eq!(rustix::fs::fstat(&memory).unwrap().st_mode & 0o777, 0o600);
    }
}
