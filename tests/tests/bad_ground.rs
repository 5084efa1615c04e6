//! A tree on bad ground: ports that are taken, folders that are not as they must be, databases that
//! are damaged or of a newer release (an account's, and those of whole processes), a disk that cannot
//! be written to.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use ipc::Role;
use mox_tests::{
    client::{Imap, Reply, Smtp},
    disk::{Disk, Ext4, skipped_without_root},
    needs_root,
    tree::{Options, Tree, kill, wait_until},
};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::Command,
    time::Duration,
};
use storage::rusqlite::Connection;

const USER: &str = "mox@localhost";
const PASSWORD: &str = "moxmoxmox";

/// Processes that were started again serve by then.
const PATIENCE: Duration = Duration::from_secs(60);

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
        let _ = needs_root("give a folder away");
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

/// Whether the last of its threads is dead; waited for by nobody, for moxd stands.
fn is_dead(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    stat.contains(") Z") && threads == 1
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

/// Has a process find things like this at its next start.
fn between_two_lives(tree: &Tree, role: Role, spoil: impl FnOnce()) {
    // Not one whose death the supervisor has yet to hear of: another is started then.
    let mut pid = None;
    let is_so = || {
        pid = tree.pid(role, 0);
        pid.is_none_or(|pid| !is_dead(pid))
    };
    assert!(wait_until(PATIENCE, is_so), "the supervisor does not hear that {role} is dead");
    mox_tests::tree::stop(tree.supervisor()).unwrap();
    // One that cannot start is between two attempts, or ends by itself.
    if let Some(pid) = pid.filter(|pid| kill(*pid, Signal::KILL).is_ok()) {
        assert!(wait_until(PATIENCE, || is_dead(pid)), "{role} outlives SIGKILL");
    }
    spoil();
    kill(tree.supervisor(), Signal::CONT).unwrap();
}

/// What stands in for a database, and what is said of it.
type Spoiled = (&'static str, Vec<u8>);

/// Garbage where the tables were, and the mark of a release that forbids this one.
fn spoiled(file: &Path) -> [Spoiled; 2] {
    edit(file, "SELECT 1");
    let good = std::fs::read(file).unwrap();
    edit(file, &format!("PRAGMA user_version={}", (900 << 16) | 901));
    let newer = std::fs::read(file).unwrap();
    put(file, &good);
    [("the database is damaged", vec![0x55; good.len()]), ("needs a release that knows", newer)]
}

/// Puts octets into a file that stays its owner's.
fn put(file: &Path, octets: &[u8]) {
    std::fs::write(file, octets).unwrap();
}

#[test]
fn a_database_of_a_whole_process_is_left_alone_and_the_others_go_on() {
    let tree = Tree::start();
    assert_eq!(send(&tree, USER, "before").unwrap().code, 250);
    let mut expected = 1;
    for (role, file) in
        [(Role::QueueRunner, "queue/queue.db"), (Role::Accountd, "accountd/accountd.db")]
    {
        let file = tree.folder().join(file);
        let mut forms = Vec::new();
        let mut good = Vec::new();
        between_two_lives(&tree, role, || {
            forms.extend(spoiled(&file));
            good = std::fs::read(&file).unwrap();
        });
        for (said, octets) in forms {
            between_two_lives(&tree, role, || put(&file, &octets));
            let name = file.file_name().unwrap().to_str().unwrap();
            let is_told = || {
                let logs = tree.logs();
                logs.lines().any(|line| line.contains(said) && line.contains(name))
            };
            assert!(wait_until(PATIENCE, is_told), "{name}: nobody says that {said}");
            if role == Role::Accountd {
                let reply = send(&tree, USER, "meanwhile");
                assert!(reply.as_ref().map_or(true, |r| (400..500).contains(&r.code)), "{reply:?}");
                assert!(Imap::log_in(tree.address(143), USER, PASSWORD).is_err());
            } else {
                assert_eq!(send(&tree, USER, &format!("{name}: {said}")).unwrap().code, 250);
                expected += 1;
                let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
                assert_eq!(count(&mut imap), format!("* STATUS INBOX (MESSAGES {expected})"));
            }
            assert!(tree.pid(Role::SmtpdMx, 0).is_some() && tree.pid(Role::Keyholder, 0).is_some());
            between_two_lives(&tree, role, || {
                assert!(std::fs::read(&file).unwrap() == octets, "{name} was written to");
                put(&file, &good);
            });
            tree.wait_until_whole();
            let taken = || {
                send(&tree, USER, &format!("{name}: behind {said}")).is_ok_and(|r| r.code == 250)
            };
            assert!(wait_until(PATIENCE, taken), "{name}: nothing is taken again");
            expected += 1;
        }
    }
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert_eq!(count(&mut imap), format!("* STATUS INBOX (MESSAGES {expected})"));
}

#[test]
fn credentials_that_cannot_be_read_concern_one_account() {
    let tree = Tree::start();
    let made = tree.moxctl_with(&["account", "add", "ann", "ann@localhost"], PASSWORD);
    assert!(made.status.success(), "{made:?}");
    let file = tree.folder().join("accountd/accounts").join(id_of(&tree, "ann")).join("auth.db");
    let mut forms = Vec::new();
    let mut good = Vec::new();
    between_two_lives(&tree, Role::Accountd, || {
        forms.extend(spoiled(&file));
        good = std::fs::read(&file).unwrap();
    });
    for (n, (said, octets)) in forms.into_iter().enumerate() {
        between_two_lives(&tree, Role::Accountd, || put(&file, &octets));
        tree.wait_until_whole();
        let others = || Imap::log_in(tree.address(143), USER, PASSWORD).is_ok();
        assert!(wait_until(PATIENCE, others), "others cannot log in");
        let refused = Imap::log_in(tree.address(143), "ann@localhost", PASSWORD).map(drop);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("NO [UNAVAILABLE]"), "{said}: {refused}");
        let is_said = || tree.logs().contains(said);
        assert!(wait_until(PATIENCE, is_said), "nobody says that {said}");
        // Her mail is in another database.
        assert_eq!(send(&tree, "ann@localhost", &format!("m{n}")).unwrap().code, 250);
        between_two_lives(&tree, Role::Accountd, || {
            assert!(std::fs::read(&file).unwrap() == octets, "it was written to");
            put(&file, &good);
        });
        tree.wait_until_whole();
        let mut imap = None;
        assert!(wait_until(PATIENCE, || {
            imap = Imap::log_in(tree.address(143), "ann@localhost", PASSWORD).ok();
            imap.is_some()
        }));
        assert_eq!(count(&mut imap.unwrap()), format!("* STATUS INBOX (MESSAGES {})", n + 1));
    }
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

/// What is on a file system that turns read-only under the running tree can be read, and nothing is
/// taken that could not be kept. ext4 itself lets nobody write to it again without a check, for which
/// nobody may use it; so this tree is started anew.
#[test]
fn a_disk_that_turns_read_only_under_the_tree_loses_nothing() {
    if skipped_without_root() {
        return;
    }
    let Some(disk) = Ext4::mount(160) else { return };
    let folder = disk.path().join("mox");
    let mut tree = Tree::with(Options { folder: Some(folder), ..Options::default() });
    for n in 0..20 {
        assert_eq!(send(&tree, USER, &format!("before{n}")).unwrap().code, 250);
    }
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    disk.fail();

    // In memory up to the commit, or in a file at once; and what others know is a refusal for now.
    for size in [10, 200_000] {
        let text = format!("From: ann@example.org\r\n\r\n{}\r\n", "x\r\n".repeat(size / 3));
        let mut smtp = Smtp::connect(tree.address(25)).unwrap();
        let reply = smtp.send("ann@example.org", &[USER], text.as_bytes()).unwrap();
        assert_eq!(reply.code, 452, "{reply:?}");
        assert!(reply.lines[0].contains("4.3.1"), "{reply:?}");
    }
    let bodies = imap.command("FETCH 1:* (BODY.PEEK[])").unwrap();
    assert!(bodies.is_ok() && bodies.untagged.len() == 20, "{}", bodies.text());
    for command in ["STORE 1 +FLAGS (\\Deleted)", "CREATE new", "COPY 1 Drafts", "MOVE 1 Trash"] {
        let said = imap.command(command).unwrap();
        assert!(said.tagged.starts_with("NO [UNAVAILABLE]"), "{command}: {}", said.text());
    }
    let said = imap.append("INBOX", &b"x\r\n".repeat(100_000)).unwrap();
    assert!(said.tagged.starts_with("NO [UNAVAILABLE]"), "{}", said.text());
    let mut other = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert_eq!(count(&mut other), "* STATUS INBOX (MESSAGES 20)");

    tree.crash();
    disk.mend();
    tree.restart();
    assert_eq!(send(&tree, USER, "behind").unwrap().code, 250);
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert_eq!(count(&mut imap), "* STATUS INBOX (MESSAGES 21)");
}

/// Processes that find their disk read-only when they are started again: they come to serve by
/// themselves as soon as it can be written to.
#[test]
fn a_disk_that_can_be_written_to_again_needs_no_restart() {
    if skipped_without_root() {
        return;
    }
    let disk = Disk::mount(96);
    let folder = disk.path().join("mox");
    let tree = Tree::with(Options { folder: Some(folder), ..Options::default() });
    assert_eq!(send(&tree, USER, "before").unwrap().code, 250);
    let supervisor = tree.supervisor();
    // Only while nobody has a file open for writing: so all die, and stay dead for a moment.
    let all: Vec<u32> = tree.processes().into_iter().map(|process| process.pid).collect();
    mox_tests::tree::stop(supervisor).unwrap();
    for pid in &all {
        kill(*pid, Signal::KILL).unwrap();
    }
    let are_dead = || all.iter().all(|pid| is_dead(*pid));
    assert!(wait_until(PATIENCE, are_dead), "processes outlive SIGKILL");
    disk.remount("ro");
    kill(supervisor, Signal::CONT).unwrap();
    let answers = || Smtp::connect(tree.address(25)).is_ok();
    let refused = || send(&tree, USER, "meanwhile").ok().map(|reply| reply.code);
    for _ in 0..20 {
        let code = refused();
        assert!(code.is_none_or(|code| (400..500).contains(&code)), "{code:?}");
    }
    let tried = Imap::log_in(tree.address(143), USER, PASSWORD).map(drop);
    assert!(tried.is_err(), "nobody can be logged in without a record of it");
    disk.remount("rw");
    assert!(wait_until(PATIENCE, answers), "SMTP does not come back");
    let taken = || refused() == Some(250);
    assert!(wait_until(PATIENCE, taken), "mail is not taken again");
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert_eq!(count(&mut imap), "* STATUS INBOX (MESSAGES 2)");
    assert_eq!(tree.supervisor(), supervisor);
}
