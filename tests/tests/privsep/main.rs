//! The walls around the running tree, as the kernel shows them from outside.
//!
//! `common/sandbox` tries what a confined process can do; here is asked whether the processes that
//! really serve are confined like that: every thread of them, with the uids, limits, descriptors
//! and sockets of docs/architecture.md §3 and no others. Run as root, twice: each role with its
//! own uid, and started without root; as a plain user the second alone.

#![expect(clippy::unwrap_used, reason = "tests")]

mod edges;
mod held;
mod proc;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use daemon::orders::Order;
use mox_tests::{
    needs_root,
    tree::{As, Options, Tree, binary, wait_until},
};
use proc::{Process, field};
use sandbox::profiles;
use sandbox::trial::{Action, Row, Targets, Trial, Verdict, table};

const UID_BASE: u32 = 63_000;
const PLAIN_UID: u32 = 63_500;
/// All connectors have arrived by then.
const SETTLED: Duration = Duration::from_secs(10);

/// The trees this user can start, one after the other.
fn in_each_tree(check: impl Fn(&mut Tree, As)) {
    let me = rustix::process::geteuid();
    let mut kinds = vec![As::User(if me.is_root() { PLAIN_UID } else { me.as_raw() })];
    if me.is_root() {
        kinds.push(As::Root { uid_base: UID_BASE });
    }
    for who in kinds {
        let mut tree = Tree::with(Options { who, ..Options::default() });
        check(&mut tree, who);
    }
}

/// All processes but the supervisor, asked of the kernel and not of the tree.
fn processes(tree: &Tree) -> Vec<Process> {
    Process::children_of(tree.supervisor())
}

#[test]
fn every_thread_of_every_process_is_confined() {
    in_each_tree(|tree, who| {
        let all = processes(tree);
        for profile in profiles::ALL {
            let some = all.iter().any(|process| process.role == profile.role);
            assert!(some, "no {} among {all:?}", profile.role);
        }
        let supervisor = Process { pid: tree.supervisor(), role: "moxd".to_owned() };
        assert_eq!(field(&supervisor.status(), "NoNewPrivs:"), ["1"]);
        for process in &all {
            assert!(profiles::of_role(&process.role).is_some(), "who is {process:?}?");
            uids_are_its_own(who, process, &all);
            for status in process.threads() {
                let is = |name: &str, value: &str| {
                    assert_eq!(field(&status, name), [value], "{name} of {process:?}");
                };
                is("Seccomp:", "2");
                is("Seccomp_filters:", "2");
                is("NoNewPrivs:", "1");
                for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                    is(set, "0000000000000000");
                }
                if matches!(who, As::Root { .. }) {
                    is("CapBnd:", "0000000000000000");
                }
            }
            // Only root may look into one that is not dumpable.
            if rustix::process::geteuid().is_root() {
                assert_eq!(process.writable_code(), Vec::<String>::new(), "{process:?}");
                assert!(!process.is_dumpable(), "{process:?}");
                // Nothing of moxd's own; one word for the C library, which has no other door.
                let environment = std::fs::read(process.path("environ")).unwrap();
                let cpus = std::thread::available_parallelism().unwrap();
                let wanted = format!("MALLOC_ARENA_MAX={cpus}\0");
                assert_eq!(String::from_utf8_lossy(&environment), wanted, "{process:?}");
            } else {
                assert!(std::fs::read(process.path("maps")).is_err(), "{process:?}");
            }
            limits_are_those_of_its_profile(who, process);
        }
    });
}

fn uids_are_its_own(who: As, process: &Process, all: &[Process]) {
    let uids: BTreeSet<u32> = process.uids().into_iter().collect();
    let gids: BTreeSet<u32> = process.gids().into_iter().collect();
    assert!(uids.len() == 1 && gids.len() == 1, "{process:?} {uids:?} {gids:?}");
    assert!(!uids.contains(&0) && !gids.contains(&0), "{process:?}");
    let groups = field(&process.status(), "Groups:");
    match who {
        As::Root { .. } => {
            assert!(groups.is_empty(), "{process:?} {groups:?}");
            for other in all.iter().filter(|other| other.role != process.role) {
                assert_ne!(other.uids(), process.uids(), "{other:?} {process:?}");
            }
        }
        As::User(uid) => assert!(uids.contains(&uid), "{process:?} {uids:?}"),
    }
}

fn limits_are_those_of_its_profile(who: As, process: &Process) {
    let limits = &profiles::of_role(&process.role).unwrap().limits;
    let at_most = |name: &str, bound: u64| {
        let (soft, hard) = process.limit(name);
        let bounded = |limit: Option<u64>| limit.is_some_and(|limit| limit <= bound);
        assert!(bounded(soft) && bounded(hard), "{process:?} {name}: {soft:?} {hard:?}");
    };
    at_most("Max core file size", 0);
    at_most("Max open files", limits.open_files);
    at_most("Max data size", limits.memory);
    if let Some(bytes) = limits.file_size {
        at_most("Max file size", bytes);
    }
    if let Some(seconds) = limits.cpu_seconds {
        at_most("Max cpu time", seconds);
    }
    if matches!(who, As::Root { .. }) {
        at_most("Max processes", limits.threads);
    }
}

#[test]
fn descriptors_are_the_listed_ones() {
    if !needs_root("look into another's descriptors") {
        return;
    }
    in_each_tree(|tree, _| {
        let mut all = processes(tree);
        all.push(Process { pid: tree.supervisor(), role: "moxd".to_owned() });
        // Connectors may still be on their way, and what was asked at the start is still answered.
        if !wait_until(SETTLED, || held::differences(tree, &all).is_empty()) {
            let wrong = held::differences(tree, &all);
            assert!(wrong.is_empty(), "{wrong:#?}\nof {all:#?}");
        }
    });
}

#[test]
fn connected_are_those_whom_the_wiring_table_connects() {
    if !needs_root("look into another's descriptors") {
        return;
    }
    in_each_tree(|tree, _| {
        let mut all = processes(tree);
        let supervisor = all.len();
        all.push(Process { pid: tree.supervisor(), role: "moxd".to_owned() });
        let role = |index: usize| all[index].role.parse::<ipc::Role>().unwrap();
        // Edges as they are, without those to the supervisor, and whether any leads outside.
        let look = || {
            let (pairs, outside) = edges::connected(&all);
            let between = pairs.into_iter().filter(|(a, b)| a != b && *b != supervisor);
            let between: BTreeSet<_> =
                between.map(|(a, b)| (role(a).min(role(b)), role(a).max(role(b)))).collect();
            (between, outside)
        };
        let table: BTreeSet<_> = ipc::WIRING
            .iter()
            .map(|edge| (edge.client.min(edge.server), edge.client.max(edge.server)))
            .collect();
        // Connectors are still on their way when the last process says that it serves; one in a
        // message that is not read yet leads to nobody.
        let settled = || look() == (table.clone(), BTreeSet::new());
        if !wait_until(SETTLED, settled) {
            let (between, outside) = look();
            assert_eq!(between, table, "connected are not those of the wiring table");
            assert!(outside.is_empty(), "{outside:?} of {all:?} talk to somebody outside");
        }
    });
}

#[test]
fn the_trial_of_the_running_tree_finds_no_hole() {
    in_each_tree(|tree, _| {
        let lines = tree.order(Order::ConfineTest(None)).unwrap();
        let rows: Vec<Row> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), profiles::ALL.len() * Action::ALL.len());
        // All of it can be tried here: a socket to connect to, keys, the mail of an account.
        let good = |verdict: &Verdict| matches!(verdict, Verdict::Own | Verdict::Refused { .. });
        let holes: Vec<_> = rows.iter().filter(|row| !good(&row.verdict)).collect();
        assert!(holes.is_empty(), "{holes:#?}");
        let on = |action: Action| rows.iter().find(|row| row.action == action.as_str());
        let on = |action| on(action).and_then(|row| row.on.clone()).unwrap();
        assert!(on(Action::OpenAccountFile).ends_with("/index.db"));
        assert!(on(Action::ConnectPeerSocket).ends_with("/control/accountd"));
    });
}

#[test]
fn none_outlives_the_supervisor() {
    in_each_tree(|tree, _| {
        let before = processes(tree);
        assert!(!before.is_empty());
        let watched: Vec<_> = before
            .iter()
            .map(|process| sandbox::process::Running::open(process.pid).unwrap())
            .collect();
        tree.end();
        for (process, running) in before.iter().zip(&watched) {
            // Readable when it has ended; the kernel ends it with its parent.
            let mut polled = [rustix::event::PollFd::new(running, rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
            let ended = rustix::event::poll(&mut polled, Some(&limit)).unwrap();
            assert_eq!(ended, 1, "{process:?} is still there");
        }
    });
}

#[test]
fn a_role_cannot_be_started_by_hand() {
    for name in [
        "smtpd",
        "imapd",
        "httpd",
        "accountd",
        "keyholder",
        "parser",
        "resolver",
        "outbound",
        "queue-runner",
    ] {
        let output = Command::new(binary(name)).env_clear().output().unwrap();
        assert!(!output.status.success(), "{name}");
    }
}

#[test]
fn twins_of_the_real_binaries_are_refused_everything_but_their_own_work() {
    let root = rustix::process::geteuid().is_root();
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().to_str().unwrap().to_owned();
    let file_of = BTreeMap::from([
        ("smtpd-mx", "smtpd"),
        ("smtpd-submission", "smtpd"),
        ("imapd-front", "imapd"),
        ("imapd-session", "imapd"),
        ("httpd-web", "httpd"),
        ("httpd-admin", "httpd"),
    ]);
    let trials: Vec<Trial> = profiles::ALL
        .into_iter()
        .zip(UID_BASE + 200..)
        .map(|(profile, uid)| Trial {
            profile,
            binary: binary(file_of.get(profile.role).copied().unwrap_or(profile.role)),
            identity: root.then_some((uid, uid)),
            own_folder: (profile.folders == sandbox::Folders::Own).then(|| "/usr/share".into()),
            read_only: Vec::new(),
        })
        .collect();
    let targets = Targets { key_folder: Some(keys), ..Targets::default() };
    let rows = table(&trials, &targets).unwrap();
    // Without a target of its own nothing is claimed; those are tried in common/sandbox.
    let untried = ["open-account-file", "connect-peer-socket"];
    let holes: Vec<_> = rows
        .iter()
        .filter(|row| !untried.contains(&row.action.as_str()))
        .filter(|row| matches!(row.verdict, Verdict::Allowed | Verdict::NotTried { .. }))
        .collect();
    assert!(holes.is_empty(), "{holes:#?}");
}
