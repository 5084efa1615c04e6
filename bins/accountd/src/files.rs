//! Replacing a file so that a reader, or a power cut, finds the old one or the new one, whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Puts `bytes` in place of the file: temporary file, fsync, rename, fsync of the folder.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(path, ".new")?;
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(path)
}

/// As [`replace`], and keeps the last `kept` contents as `NAME.~1~` (the newest) and so on.
pub(crate) fn replace_keeping(path: &Path, bytes: &[u8], kept: u32) -> io::Result<()> {
    match fs::read(path) {
        Ok(old) => {
            // A cut between two renames leaves a gap in the numbers and loses no generation.
            for n in (1..kept).rev() {
                match fs::rename(generation(path, n)?, generation(path, n + 1)?) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            replace(&generation(path, 1)?, &old)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    replace(path, bytes)
}

/// Makes the folder's entries durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("a file without a folder"))?;
    File::open(folder)?.sync_all()
}

fn generation(path: &Path, n: u32) -> io::Result<PathBuf> {
    beside(path, &format!(".~{n}~"))
}

fn beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let mut name =
        path.file_name().ok_or_else(|| io::Error::other("a path without a name"))?.to_owned();
    name.push(suffix);
    Ok(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_kept_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("domains.toml");
        for n in 0..6 {
            replace_keeping(&path, format!("{n}").as_bytes(), 3).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("domains.toml"), "5");
        assert_eq!(read("domains.toml.~1~"), "4");
        assert_eq!(read("domains.toml.~3~"), "2");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_leftover_of_a_cut_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(folder.path().join("a.new"), "half").unwrap();
        replace(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
