//! Another user of the machine: no socket, no folder, no process of the server's is open to him.

use mox_tests::{
    needs_root,
    tree::{As, Options, Tree, binary},
};
use std::{
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Command,
};

/// Nobody of ours.
const STRANGER: u32 = 65_534;

/// Runs a program as the stranger.
fn as_stranger(program: &str, args: &[&str]) -> std::process::Output {
    let mut command = Command::new(program);
    command.args(args).uid(STRANGER).gid(STRANGER).current_dir("/").env_clear();
    command.output().unwrap()
}

#[test]
fn another_user_gives_no_orders_and_sees_no_file() {
    if !needs_root("become somebody else") {
        return;
    }
    let tree = Tree::with(Options { who: As::whoever(), ..Options::default() });
    let control = tree.control().to_str().unwrap().to_owned();
    let moxctl = binary("moxctl").to_str().unwrap().to_owned();
    for order in [
        &["status"][..],
        &["processes"],
        &["stop"],
        &["confine", "test"],
        &["account", "list"],
        &["account", "disable", "mox", "x"],
        &["queue", "list"],
        &["loglevel", "debug"],
        &["upgrade"],
        &["reload"],
        &["queue", "drop", "--all"],
    ] {
        // As ourselves it would work: that is tried with those that change nothing.
        if ["status", "processes"].contains(&order[0]) {
            assert!(tree.moxctl(order).status.success(), "{order:?}");
        }
        let output = as_stranger(&moxctl, &[&["--control", &control], order].concat());
        assert_eq!(output.status.code(), Some(4), "{order:?}: {output:?}");
    }
    let folder = tree.folder();
    let folder = folder.to_str().unwrap();
    for below in
        ["", "accountd", "keys", "queue", "log", "accountd/directory", "directory", "keys/pepper"]
    {
        let path = format!("{folder}/{below}");
        assert!(std::path::Path::new(&path).exists(), "{path}");
        for (program, args) in [
            ("/bin/ls", &[path.as_str()][..]),
            ("/bin/cat", &[&format!("{path}/domains.toml")]),
            ("/usr/bin/touch", &[&format!("{path}/x")]),
            ("/bin/ln", &["-s", "/etc/passwd", &format!("{path}/x")]),
        ] {
            let output = as_stranger(program, args);
            assert!(!output.status.success(), "{program} {args:?}: {output:?}");
        }
    }
    for process in tree.processes() {
        for file in ["environ", "mem", "maps", "fd/0", "cwd", "root/etc"] {
            let path = format!("/proc/{}/{file}", process.pid);
            let output = as_stranger("/bin/cat", &[&path]);
            assert!(!output.status.success() || output.stdout.is_empty(), "{path}");
        }
        // The shell's own: a small Debian has no other.
        let output = as_stranger("/bin/sh", &["-c", &format!("kill -0 {}", process.pid)]);
        assert!(!output.status.success(), "{process:?}");
    }
}

#[test]
fn a_folder_in_somebody_elses_hands_is_refused() {
    if !needs_root("give a folder away") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let theirs = place.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(STRANGER), Some(STRANGER)).unwrap();
    let ours = place.path().join("ours");
    std::fs::create_dir(&ours).unwrap();
    std::os::unix::fs::symlink(&theirs, ours.join("link")).unwrap();
    let own = place.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o777)).unwrap();
    for dir in [theirs.join("mox"), ours.join("link/mox"), own.join("mox"), theirs.clone()] {
        let output = Command::new(binary("moxd"))
            .args(["localserve", "--init-only", "--ip", "127.77.0.1", "--port-offset", "21000"])
            .args(["--uid-base", "64000", "--dir"])
            .arg(&dir)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{}: {output:?}", dir.display());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("mend it with"), "{}: {said}", dir.display());
        assert!(!dir.join("keys").exists(), "{}", dir.display());
    }
}
