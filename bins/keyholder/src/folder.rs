//! Keys on disk: `tls/NAME.pem`, `dkim/DOMAIN/SELECTOR.pem`, `pepper` (and `pepper.lost`). Mode 0600 in folders of mode
//! 0700; each write is whole or not there, and on the disk before anybody hears of it.

use crate::pepper::PEPPER_OCTETS;
use mailauth::dkim::Selector;
use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use types::{Domain, UnixNanos};
use zeroize::Zeroizing;

/// The longest file that is read: a chain of certificates with its key is some kilobytes.
pub(crate) const MAX_FILE: u64 = 1 << 20;
/// Domains and selectors that are looked at; more is no server of mail.
const MAX_DOMAINS: usize = 100_000;
const MAX_SELECTORS: usize = 64;

/// What went wrong in the keys' folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// With a file or folder.
    #[error("keys: {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// A file has a length it cannot have.
    #[error("keys: {0} has the wrong length")]
    Length(PathBuf),
    /// There are more than we are made for.
    #[error("keys: too many entries in {0}")]
    TooMany(PathBuf),
}

type Result<T> = std::result::Result<T, FolderError>;

/// A DKIM key as it lies on the disk: domain, selector, PEM.
pub(crate) type DkimFile = (Domain, Selector, Zeroizing<Vec<u8>>);

/// The folder of keyholder.
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes what is missing of it.
    pub(crate) fn open(root: PathBuf) -> Result<Self> {
        let folder = Self { root };
        for part in ["", "tls", "dkim"] {
            let path = folder.root.join(part);
            make_folder(&path)?;
        }
        folder.sweep(&folder.root)?;
        folder.sweep(&folder.root.join("tls"))?;
        Ok(folder)
    }

    /// Removes what a death in the middle of a write has left.
    fn sweep(&self, folder: &Path) -> Result<()> {
        for entry in entries(folder)? {
            if entry.extension() == Some(OsStr::new("new")) {
                fs::remove_file(&entry).map_err(|error| FolderError::Io(entry, error))?;
            }
        }
        Ok(())
    }

    /// Whether there is any key at all.
    pub(crate) fn has_keys(&self) -> bool {
        ["tls", "dkim"]
            .iter()
            .any(|part| entries(&self.root.join(part)).is_ok_and(|entries| !entries.is_empty()))
    }

    pub(crate) fn read_pepper(&self) -> Result<Option<Zeroizing<[u8; PEPPER_OCTETS]>>> {
        let path = self.root.join("pepper");
        let Some(octets) = read(&path)? else { return Ok(None) };
        let octets = octets.as_slice().try_into().map_err(|_| FolderError::Length(path))?;
        Ok(Some(Zeroizing::new(octets)))
    }

    pub(crate) fn write_pepper(&self, octets: &[u8; PEPPER_OCTETS]) -> Result<()> {
        write(&self.root.join("pepper"), octets)
    }

    /// The mark of a pepper that was made because the one before was lost.
    pub(crate) fn read_pepper_lost(&self) -> Result<Option<Zeroizing<Vec<u8>>>> {
        read(&self.pepper_lost())
    }

    pub(crate) fn write_pepper_lost(&self, mark: &[u8]) -> Result<()> {
        write(&self.pepper_lost(), mark)
    }

    pub(crate) fn remove_pepper_lost(&self) -> Result<()> {
        let path = self.pepper_lost();
        fs::remove_file(&path).map_err(|error| FolderError::Io(path, error))?;
        sync_folder(&self.root)
    }

    fn pepper_lost(&self) -> PathBuf {
        self.root.join("pepper.lost")
    }

    /// Key and certificate of a self-signed name.
    pub(crate) fn read_tls(&self, name: &Domain) -> Result<Option<Zeroizing<Vec<u8>>>> {
        read(&self.tls_path(name))
    }

    pub(crate) fn write_tls(&self, name: &Domain, pem: &[u8]) -> Result<()> {
        write(&self.tls_path(name), pem)
    }

    // A domain holds no slash and no empty label, so it is a plain name.
    fn tls_path(&self, name: &Domain) -> PathBuf {
        self.root.join("tls").join(format!("{name}.pem"))
    }

    /// All DKIM keys that have proper names.
    pub(crate) fn read_all_dkim(&self) -> Result<Vec<DkimFile>> {
        let mut all = Vec::new();
        let root = self.root.join("dkim");
        let domains = entries(&root)?;
        if domains.len() > MAX_DOMAINS {
            return Err(FolderError::TooMany(root));
        }
        for folder in domains {
            let Some(domain) = file_name(&folder).and_then(|name| name.parse().ok()) else {
                tracing::warn!(path = %folder.display(), "not the name of a domain, not used");
                continue;
            };
            self.sweep(&folder)?;
            let selectors: Vec<_> = entries(&folder)?
                .into_iter()
                .filter(|path| path.extension() == Some(OsStr::new("pem")))
                .collect();
            if selectors.len() > MAX_SELECTORS {
                return Err(FolderError::TooMany(folder));
            }
            for path in selectors {
                let stem = path.file_stem().and_then(OsStr::to_str);
                let Some(selector) = stem.and_then(|stem| stem.parse().ok()) else {
                    tracing::warn!(path = %path.display(), "not the name of a selector, not used");
                    continue;
                };
                if let Some(pem) = read(&path)? {
                    all.push((Domain::clone(&domain), selector, pem));
                }
            }
        }
        Ok(all)
    }

    pub(crate) fn write_dkim(
        &self,
        domain: &Domain,
        selector: &Selector,
        pem: &[u8],
    ) -> Result<()> {
        let folder = self.dkim_folder(domain);
        make_folder(&folder)?;
        write(&folder.join(format!("{selector}.pem")), pem)
    }

    /// Moves a key to `old/`, where it signs no more and is kept.
    pub(crate) fn retire_dkim(
        &self,
        domain: &Domain,
        selector: &Selector,
        now: UnixNanos,
    ) -> Result<()> {
        let folder = self.dkim_folder(domain);
        let old = folder.join("old");
        make_folder(&old)?;
        let path = folder.join(format!("{selector}.pem"));
        let target = old.join(format!("{selector}.{}.pem", now.seconds()));
        fs::rename(&path, target).map_err(|error| FolderError::Io(path, error))?;
        sync_folder(&old)?;
        sync_folder(&folder)
    }

    fn dkim_folder(&self, domain: &Domain) -> PathBuf {
        self.root.join("dkim").join(domain.as_ascii())
    }
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name().and_then(OsStr::to_str)
}

/// What is in a folder, in order of names.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |error| FolderError::Io(folder.to_owned(), error);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        entries.push(entry.map_err(fail)?.path());
    }
    entries.sort();
    Ok(entries)
}

fn make_folder(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(FolderError::Io(path.to_owned(), error)),
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|error| FolderError::Io(path.to_owned(), error))
}

/// A whole file; `None` when it is not there.
fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FolderError::Io(path.to_owned(), error)),
    };
    read_bounded(file).map(Some).map_err(|error| FolderError::Io(path.to_owned(), error))
}

/// All of a file that is not longer than [`MAX_FILE`].
pub(crate) fn read_bounded(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: a buffer that grows leaves copies behind that nobody wipes.
    let expected = usize::try_from(file.metadata()?.len().min(MAX_FILE)).unwrap_or_default();
    let mut octets = Zeroizing::new(Vec::with_capacity(expected + 1));
    file.take(MAX_FILE + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > MAX_FILE {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(octets)
}

/// Writes beside, syncs, renames, syncs the folder.
fn write(path: &Path, octets: &[u8]) -> Result<()> {
    let beside = path.with_added_extension("new");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(octets)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| FolderError::Io(path.to_owned(), error))?;
    path.parent().map_or(Ok(()), sync_folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_are_written_whole_and_private() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("keys");
        let folder = Folder::open(root.clone()).unwrap();
        assert!(!folder.has_keys());
        let (domain, selector) = ("example.org".parse().unwrap(), "2026a".parse().unwrap());
        folder.write_dkim(&domain, &selector, b"key").unwrap();
        folder.write_tls(&domain, b"tls").unwrap();
        assert!(folder.has_keys());
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode();
        assert_eq!(mode("dkim/example.org/2026a.pem") & 0o777, 0o600);
        assert_eq!(mode("dkim/example.org") & 0o777, 0o700);
        assert_eq!(mode("tls/example.org.pem") & 0o777, 0o600);
        // What a death left behind goes, what is no key is left alone.
        fs::write(root.join("tls/half.pem.new"), b"x").unwrap();
        fs::write(root.join("dkim/example.org/.hidden"), b"x").unwrap();
        let folder = Folder::open(root.clone()).unwrap();
        assert!(!root.join("tls/half.pem.new").exists());
        let all = folder.read_all_dkim().unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!((&all[0].0, &all[0].1, all[0].2.as_slice()), (&domain, &selector, &b"key"[..]));
        folder.retire_dkim(&domain, &selector, UnixNanos::from_seconds(5)).unwrap();
        assert!(folder.read_all_dkim().unwrap().is_empty());
        assert!(root.join("dkim/example.org/old/2026a.5.pem").exists());
        assert!(folder.retire_dkim(&domain, &selector, UnixNanos::from_seconds(6)).is_err());
    }

    #[test]
    fn bounds() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("keys");
        let folder = Folder::open(root.clone()).unwrap();
        fs::write(root.join("pepper"), b"short").unwrap();
        assert!(matches!(folder.read_pepper(), Err(FolderError::Length(_))));
        let huge = File::create(root.join("tls/example.org.pem")).unwrap();
        huge.set_len(MAX_FILE + 1).unwrap();
        assert!(folder.read_tls(&"example.org".parse().unwrap()).is_err());
        huge.set_len(MAX_FILE).unwrap();
        let read = folder.read_tls(&"example.org".parse().unwrap()).unwrap().unwrap();
        assert_eq!(read.len() as u64, MAX_FILE);
    }
}
