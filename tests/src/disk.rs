//! A small disk of its own, in memory, to be filled up. Needs root, to mount it.

use crate::needs_root;
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

/// An ext4 in a file, which turns read-only when something is wrong with it; unmounted with the test.
pub struct Ext4 {
    folder: tempfile::TempDir,
    image: PathBuf,
}

impl Ext4 {
    /// Makes one of so many MiB. None, which is said aloud: this machine has no loop devices.
    ///
    /// # Panics
    /// When the file cannot be made.
    #[must_use]
    pub fn mount(mebibytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let image = folder.path().with_extension("ext4");
        let file = File::create(&image).expect("an image");
        file.set_len(mebibytes << 20).expect("it is sparse");
        let disk = Self { folder, image };
        let made = run("mkfs.ext4", &["-q", "-F", &disk.image.to_string_lossy()]);
        if !made || !disk.attach() {
            eprintln!("SKIPPED: no mkfs.ext4, or no loop devices");
            return None;
        }
        Some(disk)
    }

    fn attach(&self) -> bool {
        let (image, folder) = (self.image.to_string_lossy(), self.path().to_string_lossy());
        let passable = std::fs::Permissions::from_mode(0o711);
        run("mount", &["-o", "loop,errors=remount-ro", &image, &folder])
            && std::fs::set_permissions(self.path(), passable).is_ok()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Has the kernel find a fault in it, as in a bad block: from now on it is read-only, for files
    /// that are open, too.
    ///
    /// # Panics
    /// When that fails.
    pub fn fail(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("there is a /proc");
        let folder = self.path().to_string_lossy();
        let ours = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&*folder));
        let device = ours.and_then(|line| line.split(' ').next()).expect("it is mounted");
        let name = device.trim_start_matches("/dev/");
        let trigger = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        std::fs::write(trigger, b"a test").expect("the kernel has this");
    }

    /// What an administrator does then, when nobody uses it any more: checks and mounts it again.
    ///
    /// # Panics
    /// When somebody does, or it cannot be mended.
    pub fn mend(&self) {
        assert!(run("umount", &[&self.path().to_string_lossy()]), "it is in use");
        // It says with 1 that it has mended something.
        let image = self.image.to_string_lossy();
        let checked = Command::new("e2fsck").args(["-f", "-y", &image]).output().expect("e2fsck");
        assert!(matches!(checked.status.code(), Some(0 | 1)), "{checked:?}");
        assert!(self.attach(), "it cannot be mounted again");
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        // As of the tmpfs; the loop device goes with the last user of the mount.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
        let _ = std::fs::remove_file(&self.image);
    }
}

/// Whether a program ended well.
fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

/// Whether this test cannot have a disk of its own; said aloud.
#[must_use]
pub fn skipped_without_root() -> bool {
    !needs_root("mount a small disk")
}
