//! A tree on bad ground: ports that are taken, folders that are not as they must be, databases that
//! are damaged or of a newer release, a disk that cannot be written to.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use mox_tests::{
    client::{Imap, Reply, Smtp},
    disk::{Disk, skipped_without_root},
    tree::{Options, Tree},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::Command,
};
use storage::rusqlite::Connection;

const USER: &str = "mox@localhost";
const PASSWORD: &str = "moxmoxmox";

fn send(tree: &Tree, to: &str, id: &str) -> std::io::Result<Reply> {
    let message = format!("From: ann@example.org\r\nMessage-ID: <{id}@bad.example>\r\n\r\nx\r\n");
    Smtp::connect(tree.address(25))?.send("ann@example.org", &[to], message.as_bytes())
}

fn count(imap: &mut Imap) -> String {
    imap.command("STATUS INBOX (MESSAGES)")
        .unwrap()
        .untagged
        .first()
        .map_or_else(String::new, |status| String::from_utf8_lossy(status).into_owned())
}

/// Does what a refusal says would mend it.
fn mend(refusal: &str, expected: &str) {
    let command = refusal.split("mend it with: ").nth(1).unwrap_or_else(|| panic!("{refusal}"));
    let command = command.lines().next().unwrap();
    assert_eq!(command, expected);
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success());
}

#[test]
fn ports_and_folders_are_named_when_they_are_not_as_they_must_be() {
    let mut tree = Tree::start();
    assert_eq!(send(&tree, USER, "before").unwrap().code, 250);
    tree.crash();

    let taken = TcpListener::bind(tree.address(993)).unwrap();
    let refusal = tree.refusal();
    assert!(refusal.contains(&tree.address(993).to_string()), "{refusal}");
    assert!(refusal.contains("another program listens there"), "{refusal}");
    drop(taken);

    let folder = tree.folder().join("accountd");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refusal = tree.refusal();
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o755, "it is not mended unasked");
    mend(&refusal, &format!("chmod 700 {}", folder.display()));

    if rustix::process::geteuid().is_root() {
        let owner = folder.metadata().unwrap();
        chown(&folder, Some(12_345), Some(12_345)).unwrap();
        let refusal = tree.refusal();
        let right = format!("{}:{}", owner.uid(), owner.gid());
        mend(&refusal, &format!("chown -R {right} {}", folder.display()));
    } else {
        eprintln!("SKIPPED: needs root to give a folder away");
    }
    tree.restart();
    assert_eq!(send(&tree, USER, "behind").unwrap().code, 250);
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert_eq!(count(&mut imap), "* STATUS INBOX (MESSAGES 2)");
}

/// The id of an account, which names its folder.
fn id_of(tree: &Tree, name: &str) -> String {
    let listed = tree.moxctl(&["--json", "account", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut rows = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let row = rows.find(|row| row["name"] == name).unwrap();
    row["id"].as_str().unwrap().to_owned()
}

/// Writes into a database that nobody has open, and leaves no log beside it.
fn edit(file: &Path, sql: &str) {
    let owner = file.metadata().unwrap();
    let connection = Connection::open(file).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.execute_batch("PRAGMA journal_mode=DELETE").unwrap();
    connection.close().unwrap();
    chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
}

#[test]
fn a_database_that_cannot_be_used_concerns_no_other_account() {
    let mut tree = Tree::start();
    for name in ["ann", "bob"] {
        let address = format!("{name}@localhost");
        let made = tree.moxctl_with(&["account", "add", name, &address], PASSWORD);
        assert!(made.status.success(), "{made:?}");
    }
    for name in ["ann", "bob", "mox"] {
        assert_eq!(send(&tree, &format!("{name}@localhost"), name).unwrap().code, 250);
    }
    let ids: BTreeMap<_, _> = ["ann", "bob"].map(|name| (name, id_of(&tree, name))).into();
    let accounts = tree.folder().join("accountd/accounts");
    let [damaged, newer] = ["ann", "bob"].map(|name| accounts.join(&ids[name]).join("index.db"));
    tree.crash();

    // Garbage where the tables were; and the mark of a release that forbids this one.
    edit(&damaged, "SELECT 1");
    let octets = damaged.metadata().unwrap().len();
    std::fs::write(&damaged, vec![0x55; usize::try_from(octets).unwrap()]).unwrap();
    edit(&newer, &format!("PRAGMA user_version={}", (900 << 16) | 901));
    let untouched = std::fs::read(&newer).unwrap();
    tree.restart();

    for name in ["ann", "bob"] {
        let address = format!("{name}@localhost");
        let reply = send(&tree, &address, "again").unwrap();
        assert!((400..500).contains(&reply.code), "{name}: {reply:?}");
        // The password is right, and still nothing can be had for now (RFC 5530 §3).
        let refused = Imap::log_in(tree.address(143), &address, PASSWORD).map(drop).unwrap_err();
        assert!(refused.to_string().contains("NO [UNAVAILABLE]"), "{name}: {refused}");
    }
    assert_eq!(send(&tree, USER, "again").unwrap().code, 250);
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert_eq!(count(&mut imap), "* STATUS INBOX (MESSAGES 2)");

    let status = tree.moxctl(&["status"]);
    let status = String::from_utf8(status.stdout).unwrap();
    let listed = String::from_utf8(tree.moxctl(&["--json", "account", "list"]).stdout).unwrap();
    for (name, state) in [("ann", "damaged"), ("bob", "newer")] {
        let id = ids.get(name).unwrap();
        let alarm = status.lines().find(|line| line.contains("alarm") && line.contains(id));
        assert!(alarm.is_some_and(|line| line.contains(state)), "{status}");
        let row = listed.lines().find(|line| line.contains(&format!("\"{name}\"")));
        assert!(row.is_some_and(|row| row.contains(state)), "{listed}");
    }
    let logs = tree.logs();
    let alarms: Vec<&str> = logs.lines().filter(|line| line.contains("alarm")).collect();
    assert!(alarms.iter().any(|line| line.contains("damaged")), "{alarms:?}");
    assert!(alarms.iter().any(|line| line.contains("newer")), "{alarms:?}");
    assert!(std::fs::read(&newer).unwrap() == untouched, "the newer database was written to");
}

#[test]
fn a_disk_that_cannot_be_written_to_is_named_at_the_start() {
    if skipped_without_root() {
        return;
    }
    let disk = Disk::mount(96);
    let folder = disk.path().join("mox");
    let mut tree = Tree::with(Options { folder: Some(folder), ..Options::default() });
    assert_eq!(send(&tree, USER, "before").unwrap().code, 250);
    // It cannot be made read-only while a file on it is open for writing, so nobody may run.
    tree.crash();
    disk.remount("ro");
    let refusal = tree.refusal();
    assert!(refusal.to_lowercase().contains("read-only"), "{refusal}");
    disk.remount("rw");
    tree.restart();
    assert_eq!(send(&tree, USER, "behind").unwrap().code, 250);
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert_eq!(count(&mut imap), "* STATUS INBOX (MESSAGES 2)");
}
