//! The real tree in a folder of its own, ended with the test.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::proc::Process;

/// The tree is whole by then, or the test fails with the log.
const START: Duration = Duration::from_secs(60);
/// What `localserve` says when every process serves.
const WHOLE: &str = "mox runs in";

/// Under whom the supervisor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// Root: each role its own uid.
    Root,
    /// This one, for all of them.
    User(u32),
}

/// A running server.
pub(crate) struct Tree {
    moxd: Child,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) who: As,
}

impl Tree {
    /// Starts it on ports from `port_offset` on, uids from `uid_base` on, and waits until every
    /// process serves.
    pub(crate) fn start(who: As, port_offset: u16, uid_base: u32) -> Tree {
        let folder = tempfile::tempdir().unwrap();
        // The roles pass it on the way to their folders.
        let passable = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(folder.path(), passable).unwrap();
        let mut command = Command::new(binary("moxd"));
        command.arg("localserve").arg("--dir").arg(folder.path().join("mox"));
        command.arg("--ip").arg("127.0.0.1").arg("--port-offset").arg(port_offset.to_string());
        command.env_clear().current_dir("/").stdin(Stdio::null());
        match who {
            As::Root => {
                command.arg("--uid-base").arg(uid_base.to_string());
            }
            As::User(uid) => {
                if rustix::process::geteuid().is_root() {
                    std::os::unix::fs::chown(folder.path(), Some(uid), Some(uid)).unwrap();
                    command.uid(uid).gid(uid);
                }
            }
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut moxd = command.spawn().unwrap();
        let said = BufReader::new(moxd.stdout.take().unwrap());
        let mut log = moxd.stderr.take().unwrap();
        let (whole, waiting) = mpsc::channel();
        // Both pipes are read to their end, or a full one would stop the tree.
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                if line.contains(WHOLE) {
                    let _ = whole.send(());
                }
            }
        });
        let (all, log_text) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = log.read_to_end(&mut text);
            let _ = all.send(text);
        });
        let mut tree = Tree { moxd, folder, who };
        if waiting.recv_timeout(START).is_err() {
            tree.end();
            let text = log_text.recv_timeout(START).unwrap_or_default();
            panic!("the tree did not start:\n{}", String::from_utf8_lossy(&text));
        }
        tree
    }

    pub(crate) fn supervisor(&self) -> u32 {
        self.moxd.id()
    }

    /// All processes but the supervisor.
    pub(crate) fn processes(&self) -> Vec<Process> {
        Process::children_of(self.supervisor())
    }

    /// Kills the supervisor, and nobody else.
    pub(crate) fn end(&mut self) {
        // Fails only if it is gone.
        let _ = self.moxd.kill();
        let _ = self.moxd.wait();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.end();
    }
}

/// A binary of the product, beside the tests.
pub(crate) fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).map(Path::to_owned).unwrap();
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: cargo build first", path.display());
    path
}
