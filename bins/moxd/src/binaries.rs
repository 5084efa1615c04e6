//! The binaries of the roles, opened at start and run through their descriptors: a crash after a
//! package upgrade must not mix versions.

use std::{
    collections::BTreeMap,
    fs::File,
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
    /// Opens the binaries beside `moxd`, or those of the package.
    pub(crate) fn open(moxd: &Path) -> anyhow::Result<Self> {
        let beside = moxd.parent().unwrap_or(Path::new("/"));
        let mut open = BTreeMap::new();
        for role in Role::ALL {
            let name = role.binary();
            if open.contains_key(name) {
                continue;
            }
            let candidates = [beside.join(name), Path::new(LIBEXEC).join(name)];
            let found = candidates.iter().find_map(|path| File::open(path).ok());
            let Some(file) = found else {
                bail!("the binary {name} is neither in {} nor in {LIBEXEC}", beside.display());
            };
            open.insert(name.to_owned(), OwnedFd::from(file));
        }
        Ok(Self(open))
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
