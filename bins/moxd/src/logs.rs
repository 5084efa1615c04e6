//! Where the lines of each process go. The supervisor opens one stream per process and fixes its
//! identifier, so that no process can forge another's lines.

use std::{
    fs::File,
    io::{self, Write as _},
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use ipc::Role;

/// systemd's journal takes a stream of lines here.
const JOURNAL: &str = "/run/systemd/journal/stdout";
/// A log file is put aside at this size.
const MAX_FILE: u64 = 64 << 20;
/// Files put aside that are kept.
const KEPT: u32 = 3;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Logs {
    /// Our own descriptor 2: a developer's terminal.
    Inherit,
    /// systemd's journal.
    Journal,
    /// One file per role in this folder.
    Files(PathBuf),
}

impl Logs {
    /// The journal if systemd runs us with it, else files.
    pub(crate) fn of_service(folder: &Path) -> Self {
        let journal = std::env::var_os("JOURNAL_STREAM").is_some() && Path::new(JOURNAL).exists();
        if journal { Logs::Journal } else { Logs::Files(folder.to_owned()) }
    }

    /// Descriptor 2 for a process of this role.
    pub(crate) fn stream(&self, role: Role) -> io::Result<Stdio> {
        match self {
            Logs::Inherit => Ok(Stdio::inherit()),
            Logs::Journal => journal(role).map(Stdio::from),
            Logs::Files(folder) => append(&file(folder, role)).map(Stdio::from),
        }
    }

    /// The file of a role, if there are files.
    pub(crate) fn file(&self, role: Role) -> Option<PathBuf> {
        match self {
            Logs::Files(folder) => Some(file(folder, role)),
            Logs::Inherit | Logs::Journal => None,
        }
    }

    /// Puts the role's file aside if it has grown too large, and opens the next.
    pub(crate) fn next_file(&self, role: Role) -> io::Result<Option<OwnedFd>> {
        let Some(path) = self.file(role) else { return Ok(None) };
        match path.metadata() {
            Ok(found) if found.len() >= MAX_FILE => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let aside = |n: u32| path.with_extension(format!("log.{n}"));
        for n in (1..KEPT).rev() {
            match std::fs::rename(aside(n), aside(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        std::fs::rename(&path, aside(1))?;
        append(&path).map(|file| Some(file.into()))
    }
}

fn file(folder: &Path, role: Role) -> PathBuf {
    folder.join(format!("{role}.log"))
}

/// The role only ever has the descriptor; the file is ours alone.
fn append(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

/// A stream of the journal: its header is the identifier, the unit, priority, whether lines carry
/// a priority of their own, and three "forward to" flags; one line each.
fn journal(role: Role) -> io::Result<OwnedFd> {
    let mut stream = UnixStream::connect(JOURNAL)?;
    stream.shutdown(Shutdown::Read)?;
    let identifier = daemon::orders::journal_identifier(role);
    write!(stream, "{identifier}\n\n6\n0\n0\n0\n0\n")?;
    Ok(stream.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_three_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::Files(dir.path().to_owned());
        assert!(logs.next_file(Role::Parser).unwrap().is_none(), "there is none yet");
        for turn in 0..5u64 {
            let path = logs.file(Role::Parser).unwrap();
            append(&path).unwrap().set_len(MAX_FILE + turn).unwrap();
            assert!(logs.next_file(Role::Parser).unwrap().is_some());
            assert_eq!(path.metadata().unwrap().len(), 0);
            assert!(logs.next_file(Role::Parser).unwrap().is_none());
        }
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["parser.log", "parser.log.1", "parser.log.2", "parser.log.3"]);
        let oldest = dir.path().join("parser.log.3").metadata().unwrap().len();
        assert_eq!(oldest, MAX_FILE + 2);
    }
}
