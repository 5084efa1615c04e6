//! Ordinary work under every profile, with the trap on: a profile must hold what its role does.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sandbox::{Folders, Profile, profiles};

/// Not a uid of anybody.
const UID: u32 = 52_100;

fn workload(role: &str, kind: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples/workload");
    assert!(path.exists(), "{} is missing: cargo build -p sandbox --examples", path.display());
    let mut command = Command::new(path);
    // As the supervisor does. With RUST_BACKTRACE a panic would look for its binary on disk.
    command.env_clear();
    command.arg(role).arg(kind).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if rustix::process::geteuid().is_root() {
        command.uid(UID).gid(UID);
    }
    command
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(folder.path(), Some(UID), Some(UID)).unwrap();
    }
    folder
}

/// The folder a role must be given, whatever it does.
fn with_folder(command: &mut Command, profile: &Profile, folder: &Path) {
    if profile.folders != Folders::None {
        command.arg(folder);
    }
}

fn succeeded(role: &str, output: &Output) {
    assert!(
        output.status.success() && output.stdout.ends_with(b"done\n"),
        "{role}: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn loops_threads_and_descriptors() {
    let folder = folder();
    for profile in profiles::ALL {
        let mut command = workload(profile.role, "runtime");
        with_folder(&mut command, profile, folder.path());
        succeeded(profile.role, &command.output().unwrap());
    }
}

#[test]
fn tls_handshakes() {
    let folder = folder();
    let with_tls =
        ["smtpd-mx", "smtpd-submission", "imapd-front", "httpd-web", "httpd-admin", "outbound"];
    for role in with_tls {
        let mut command = workload(role, "tls");
        with_folder(&mut command, profiles::of_role(role).unwrap(), folder.path());
        succeeded(role, &command.output().unwrap());
    }
}

#[test]
fn files_of_their_owners() {
    for role in ["accountd", "queue-runner", "keyholder"] {
        let folder = folder();
        succeeded(role, &workload(role, "files").arg(folder.path()).output().unwrap());
    }
    let folder = folder();
    std::fs::write(folder.path().join("index.html"), b"<p>").unwrap();
    succeeded("httpd-web", &workload("httpd-web", "read").arg(folder.path()).output().unwrap());
}

#[test]
fn accepting_on_an_inherited_listener() {
    for role in ["smtpd-mx", "imapd-front", "httpd-admin"] {
        let mut child = workload(role, "accept").spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap();
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"x").unwrap();
        let mut echo = Vec::new();
        stream.read_to_end(&mut echo).unwrap();
        assert_eq!(echo, b"x");
        assert!(child.wait().unwrap().success(), "{role}");
    }
}

#[test]
fn outgoing_connections() {
    for role in ["outbound", "resolver"] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        succeeded(role, &workload(role, "outgoing").arg(&port).output().unwrap());
    }
}

#[test]
fn who_does_anothers_work_is_named() {
    let folder = folder();
    let output = workload("parser", "files").arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(sandbox::trial::TRAPPED));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("lacks system call") && text.contains("mkdir"), "{text}");

    let output = workload("smtpd-mx", "outgoing").arg("9").output().unwrap();
    assert_eq!(output.status.code(), Some(sandbox::trial::TRAPPED));
    assert!(String::from_utf8_lossy(&output.stderr).contains("socket"));
}

#[test]
fn abort_ends_by_its_own_signal() {
    let output = workload("parser", "abort").output().unwrap();
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
}

#[test]
fn an_owner_without_a_folder_does_not_start() {
    let output = workload("accountd", "runtime").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("owns a folder and was given none"));
    let given: PathBuf = "/tmp".into();
    let output = workload("keyholder", "runtime").arg(given).output().unwrap();
    succeeded("keyholder", &output);
}

#[test]
fn privilege_threads_and_a_dead_supervisor_are_refused() {
    let refused = |kind: &str, why: &str| {
        let output = workload("parser", kind).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && text.contains(why), "{kind}: {text}");
    };
    refused("threaded", "2 threads run already");
    refused("orphaned", "is gone");
    refused("required", "required layer uid does not stand: started without root");

    if rustix::process::geteuid().is_root() {
        let binary = workload("parser", "runtime").get_program().to_owned();
        let as_root = Command::new(&binary).args(["parser", "runtime"]).env_clear().output();
        let output = as_root.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && text.contains("as root"), "{text}");

        // A unit with ambient capabilities would start a child like this one.
        let output = Command::new("/usr/bin/setpriv")
            .args(["--reuid", "52100", "--regid", "52100", "--clear-groups"])
            .args(["--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service"])
            .arg(&binary)
            .args(["parser", "runtime"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && text.contains("CAP_NET_BIND_SERVICE"), "{text}");

        // uid alone is not enough: root's group reads what root's group may read.
        let output = Command::new(&binary).args(["parser", "runtime"]).uid(UID).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && text.contains("gid 0"), "{text}");
    }
}

#[test]
fn what_proc_shows_of_a_confined_process() {
    let mut child = workload("parser", "wait").spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "here\n");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(value("Name:"), "parser");
    assert_eq!(value("Seccomp:"), "2");
    assert_eq!(value("Seccomp_filters:"), "2");
    assert_eq!(value("NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
    if rustix::process::geteuid().is_root() {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let limit = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            let mut both = line[name.len()..].split_whitespace();
            (both.next().unwrap().to_owned(), both.next().unwrap().to_owned())
        };
        let both = |value: u64| (value.to_string(), value.to_string());
        let limits = &profiles::PARSER.limits;
        assert_eq!(limit("Max core file size"), both(0));
        assert_eq!(limit("Max open files"), both(limits.open_files));
        assert_eq!(limit("Max data size"), both(limits.memory));
        assert_eq!(limit("Max cpu time"), both(limits.cpu_seconds.unwrap()));
        assert_eq!(limit("Max processes"), both(limits.threads));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_full_log_costs_lines_and_not_the_process() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let beyond = profiles::SMTPD_MX.limits.file_size.unwrap();
    log.as_file().set_len(beyond).unwrap();
    let file = std::fs::OpenOptions::new().append(true).open(log.path()).unwrap();
    let output = workload("smtpd-mx", "full-log").stderr(file).output().unwrap();
    succeeded("smtpd-mx", &output);
    assert_eq!(log.as_file().metadata().unwrap().len(), beyond);
}

#[test]
fn who_loses_its_supervisor_dies_at_once() {
    let binary = workload("parser", "wait").get_program().to_owned();
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg("\"$0\" parser wait & wait").arg(binary).stdout(Stdio::piped());
    if rustix::process::geteuid().is_root() {
        shell.uid(UID).gid(UID);
    }
    let mut shell = shell.env_clear().spawn().unwrap();
    let mut out = BufReader::new(shell.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "here\n");
    shell.kill().unwrap();
    shell.wait().unwrap();
    // The pipe ends when the last process that holds it has.
    assert_eq!(out.read_line(&mut line).unwrap(), 0);
}
