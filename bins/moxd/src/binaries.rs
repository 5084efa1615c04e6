//! The binaries of the roles, opened at start and run through their descriptors: a crash after a
//! package upgrade must not mix versions.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use ipc::Role;

/// Where a package puts them, if they are not beside us.
const LIBEXEC: &str = "/usr/libexec/mox";

/// The open binaries by name.
#[derive(Debug)]
pub(crate) struct Binaries(BTreeMap<String, OwnedFd>);

impl Binaries {
    /// Opens the binaries beside `moxd`, or those of the package. All come from one folder: beside
    /// a moxd in /usr/sbin there may be somebody else's `httpd` or `smtpd`.
    pub(crate) fn open(moxd: &Path) -> anyhow::Result<Self> {
        let beside = moxd.parent().unwrap_or(Path::new("/"));
        let mut missing = Vec::new();
        for folder in [beside, Path::new(LIBEXEC)] {
            match Self::open_all(folder) {
                Ok(open) => return Ok(Self(open)),
                Err((name, error)) => {
                    missing.push(format!("{}: {error}", folder.join(name).display()));
                }
            }
        }
        bail!("no folder has all binaries of mox; {}", missing.join("; "))
    }

    fn open_all(folder: &Path) -> Result<BTreeMap<String, OwnedFd>, (&'static str, io::Error)> {
        let open = Role::ALL.into_iter().map(|role| {
            let name = role.binary();
            let file = File::open(folder.join(name)).map_err(|error| (name, error))?;
            Ok((name.to_owned(), OwnedFd::from(file)))
        });
        open.collect()
    }

    /// Those that a supervisor before us held open.
    pub(crate) fn inherited(open: BTreeMap<String, OwnedFd>) -> Self {
        Self(open)
    }

    /// The path to run a role by.
    pub(crate) fn path(&self, role: Role) -> PathBuf {
        let descriptor = self.0.get(role.binary()).expect("every role's binary was opened");
        PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
    }

    /// Everything, to hand on.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &OwnedFd)> {
        self.0.iter()
    }
}

/// The file we run, also after it was replaced by another of the same name.
pub(crate) fn our_file() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("find our own file")?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_elses_httpd_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("httpd"), b"").unwrap();
        let refused = Binaries::open(&dir.path().join("moxd"));
        if let Err(refused) = refused {
            // On a machine without the package.
            assert!(refused.to_string().contains("resolver: "), "{refused}");
        }
        for role in Role::ALL {
            std::fs::write(dir.path().join(role.binary()), b"").unwrap();
        }
        let open = Binaries::open(&dir.path().join("moxd")).unwrap();
        assert_eq!(open.all().count(), 9);
    }
}
