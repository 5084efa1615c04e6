//! A small disk of its own, in memory, to be filled up. Needs root, to mount it.

use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// A tmpfs, unmounted with the test.
pub struct Disk(tempfile::TempDir);

impl Disk {
    /// Mounts one of so many MiB.
    ///
    /// # Panics
    /// When that fails; only root may.
    #[must_use]
    pub fn mount(mebibytes: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let size = format!("size={mebibytes}m");
        let args = ["-t", "tmpfs", "-o", size.as_str(), "tmpfs"];
        let mounted = Command::new("mount").args(args).arg(folder.path()).status();
        assert!(mounted.is_ok_and(|status| status.success()), "mount");
        let passable = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(folder.path(), passable).expect("it is ours");
        Self(folder)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Takes all room but so many octets. What others free meanwhile stays free.
    ///
    /// # Panics
    /// When that fails for another reason than want of room.
    pub fn fill(&self, but: u64) {
        let free = rustix::fs::statvfs(self.path()).expect("it is mounted");
        let mut left = (free.f_bavail * free.f_frsize).saturating_sub(but);
        let mut file = File::options().create(true).append(true).open(self.filler());
        let file = file.as_mut().expect("a file takes no room");
        let block = vec![7_u8; 1 << 16];
        while left > 0 {
            let part = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match file.write(block.get(..part).unwrap_or_default()) {
                Ok(written) => left -= written as u64,
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
                    return;
                }
            }
        }
    }

    /// Gives the room back.
    pub fn free(&self) {
        // There may be nothing to give back.
        let _ = std::fs::remove_file(self.filler());
    }

    /// Makes it read-only ("ro"), or writable again ("rw").
    ///
    /// # Panics
    /// When that fails, as it does while a file is open for writing.
    pub fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let done = Command::new("mount").args(["-o", &options]).arg(self.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "mount -o {options}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: processes of a tree that failed may still hold files.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Whether this test cannot have a disk of its own; said aloud.
#[must_use]
pub fn skipped_without_root() -> bool {
    let skipped = !rustix::process::geteuid().is_root();
    if skipped {
        eprintln!("SKIPPED: needs root to mount a small disk");
    }
    skipped
}
