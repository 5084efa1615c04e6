//! Programs of the machine: whether they are there, and running them to their end.

use mox_tests::{needs, needs_root};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long one run of a program may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether all of these can be run; says which cannot.
///
/// # Panics
/// Under CI, where all must be there.
pub(crate) fn there(programs: &[&str]) -> bool {
    let absent: Vec<&&str> = programs.iter().filter(|name| find(name).is_none()).collect();
    needs(absent.is_empty(), || format!("{absent:?} not installed (see `wanted` in .ci/run)"))
}

/// Whether a Python has this module; says so if not.
pub(crate) fn python_has(module: &str) -> bool {
    let has = Command::new(PYTHON).args(["-c", &format!("import {module}")]).output();
    let has = has.is_ok_and(|out| out.status.success());
    needs(has, || format!("{PYTHON} has no module {module} (see `wanted` in .ci/run)"))
}

/// Whether Cyrus SASL, by which some clients log in, has SCRAM; says so if not.
pub(crate) fn sasl_has_scram() -> bool {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let has = folders.into_iter().any(|folder| folder.path().join("sasl2/libscram.so").exists());
    needs(has, || "libsasl2-modules is not installed (see `wanted` in .ci/run)".to_owned())
}

/// Whether this is root, who alone may start some servers.
pub(crate) fn as_root() -> bool {
    needs_root("start this server")
}

/// Debian's own Python: its modules are not those of another one that stands before it in PATH.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// Where a program is; servers are not on every PATH.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path);
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    folders.chain(more).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// A program of this name.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(find(name).unwrap_or_else(|| panic!("{name} is not there")));
    // What a user has set up must not change what a test sees.
    command.env("LC_ALL", "C.UTF-8").env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

/// Runs it to its end; its output if it succeeded.
///
/// # Panics
/// When it fails; with all it said.
pub(crate) fn succeeds(command: &mut Command) -> String {
    let (text, done) = said(command);
    assert!(done, "{command:?} failed:\n{text}");
    text
}

/// Runs it to its end; what it said on both channels, and whether it succeeded.
pub(crate) fn said(command: &mut Command) -> (String, bool) {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let output = output_in_time(child, &format!("{command:?}"));
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

/// As [`succeeds`], with octets for its standard input.
pub(crate) fn succeeds_with(command: &mut Command, input: &[u8]) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().expect("it was piped").write_all(input).expect("it reads");
    let output = output_in_time(child, &format!("{command:?}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?} failed:\n{text}");
    text
}

fn output_in_time(child: std::process::Child, what: &str) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    let (ended, waiting) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = ended.send(());
        output
    });
    let start = Instant::now();
    if waiting.recv_timeout(PATIENCE).is_err() {
        // It is ours and has not been waited for, so the pid is still its.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        let output = reading.join().expect("the reader ends").expect("it was started");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        panic!("{what} did not end in {:?}:\n{text}", start.elapsed());
    }
    reading.join().expect("the reader ends").expect("it was started")
}

/// A script of ours that lies beside these tests, in Debian's Python.
pub(crate) fn script(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name);
    let mut command = program(PYTHON);
    command.arg(path);
    command
}
