//! The walls around the running tree, as the kernel shows them from outside.
//!
//! `common/sandbox` tries what a confined process can do; here is asked whether the processes that
//! really serve are confined like that: every thread of them, with the uids, limits, descriptors
//! and sockets of docs/architecture.md §3 and no others. Run as root, twice: each role with its
//! own uid, and started without root; as a plain user the second alone.

#![expect(clippy::unwrap_used, reason = "tests")]

mod edges;
mod proc;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use proc::{Descriptor, Process, Sockets, field};
use sandbox::profiles;
use tree::{As, Tree, binary};

const UID_BASE: u32 = 63_000;
const PLAIN_UID: u32 = 63_500;

/// The trees this user can start, one after the other; each on ports of its own.
fn in_each_tree(port_offset: u16, check: impl Fn(&mut Tree)) {
    let mut kinds = Vec::new();
    if rustix::process::geteuid().is_root() {
        kinds.push(As::Root);
        kinds.push(As::User(PLAIN_UID));
    } else {
        kinds.push(As::User(rustix::process::geteuid().as_raw()));
    }
    for (number, who) in kinds.into_iter().enumerate() {
        let offset = port_offset + u16::try_from(number).unwrap() * 100;
        let mut tree = Tree::start(who, offset, UID_BASE);
        check(&mut tree);
    }
}

#[test]
fn every_thread_of_every_process_is_confined() {
    in_each_tree(21_000, |tree| {
        let processes = tree.processes();
        for profile in profiles::ALL {
            let some = processes.iter().any(|process| process.role == profile.role);
            assert!(some, "no {} among {processes:?}", profile.role);
        }
        let supervisor = Process { pid: tree.supervisor(), role: "moxd".to_owned() };
        assert_eq!(field(&supervisor.status(), "NoNewPrivs:"), ["1"]);
        for process in &processes {
            assert!(profiles::of_role(&process.role).is_some(), "who is {process:?}?");
            uids_are_its_own(tree, process, &processes);
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
            }
            assert_eq!(process.writable_code(), Vec::<String>::new(), "{process:?}");
            // Only root may look into one that is not dumpable.
            if rustix::process::geteuid().is_root() {
                assert!(!process.is_dumpable(), "{process:?}");
                let environment = std::fs::read(process.path("environ")).unwrap();
                assert!(environment.is_empty(), "{process:?} has an environment");
            }
            limits_are_those_of_its_profile(tree, process);
        }
    });
}

fn uids_are_its_own(tree: &Tree, process: &Process, all: &[Process]) {
    let uids: BTreeSet<u32> = process.uids().into_iter().collect();
    let gids: BTreeSet<u32> = process.gids().into_iter().collect();
    assert!(uids.len() == 1 && gids.len() == 1, "{process:?} {uids:?} {gids:?}");
    assert!(!uids.contains(&0) && !gids.contains(&0), "{process:?}");
    let groups = field(&process.status(), "Groups:");
    match tree.who {
        As::Root => {
            assert!(groups.is_empty(), "{process:?} {groups:?}");
            for other in all.iter().filter(|other| other.role != process.role) {
                assert_ne!(other.uids(), process.uids(), "{other:?} {process:?}");
            }
        }
        As::User(uid) => assert!(uids.contains(&uid), "{process:?} {uids:?}"),
    }
}

fn limits_are_those_of_its_profile(tree: &Tree, process: &Process) {
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
    if tree.who == As::Root {
        at_most("Max processes", limits.threads);
    }
}

#[test]
fn descriptors_are_the_listed_ones() {
    // Looking into another's descriptors is root's right.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    in_each_tree(21_300, |tree| {
        let sockets = Sockets::now();
        for process in tree.processes() {
            let descriptors = process.descriptors(&sockets);
            let null = Descriptor::Device("/dev/null".into());
            assert_eq!(descriptors.get(&0), Some(&null), "{process:?}");
            assert_eq!(descriptors.get(&1), Some(&null), "{process:?}");
            let others = descriptors.iter().filter(|(number, _)| **number > 2);
            for (number, descriptor) in others {
                assert!(
                    may_hold(tree, &process.role, descriptor),
                    "{process:?} holds {number}: {descriptor:?} among {descriptors:?}"
                );
            }
        }
    });
}

/// The table of who may hold what, while nobody is connected.
fn may_hold(tree: &Tree, role: &str, descriptor: &Descriptor) -> bool {
    let faces = ["smtpd-mx", "smtpd-submission", "imapd-front", "httpd-web", "httpd-admin"];
    let data = tree.folder.path().join("mox");
    match descriptor {
        Descriptor::TcpListener => faces.contains(&role),
        Descriptor::Unix => true,
        // Its figures; httpd-admin sees everybody's.
        Descriptor::Memory => true,
        Descriptor::Anonymous(kind) => ["[eventpoll]", "[eventfd]"].contains(&kind.as_str()),
        Descriptor::Path(path) => match role {
            "accountd" => path.starts_with(data.join("accountd")),
            "queue-runner" => path.starts_with(data.join("queue")),
            "keyholder" => path.starts_with(data.join("keys")),
            _ => false,
        },
        Descriptor::Inet(_) | Descriptor::OtherSocket | Descriptor::Device(_) => false,
    }
}

#[test]
fn connected_are_those_whom_the_wiring_table_connects() {
    // Looking into another's descriptors is root's right.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    in_each_tree(21_900, |tree| {
        let mut processes = tree.processes();
        let supervisor = processes.len();
        processes.push(Process { pid: tree.supervisor(), role: "moxd".to_owned() });
        let (pairs, outside) = edges::connected(&processes);
        assert!(outside.is_empty(), "{outside:?} of {processes:?} talk to somebody outside");
        let role =
            |index: usize| ipc::Role::ALL.into_iter().find(|r| r.name() == processes[index].role);
        let mut seen = BTreeSet::new();
        for (a, b) in pairs {
            if a == b || b == supervisor {
                continue;
            }
            let (a, b) = (role(a).unwrap(), role(b).unwrap());
            assert!(
                ipc::edge(a, b).or(ipc::edge(b, a)).is_some(),
                "{a} and {b} are connected, and not by the wiring table"
            );
            seen.insert((a.min(b), a.max(b)));
        }
        // And the eye that looks sees: every edge between processes that run is there.
        for edge in ipc::WIRING {
            let pair = (edge.client.min(edge.server), edge.client.max(edge.server));
            assert!(seen.contains(&pair), "{} and {} are not connected", edge.client, edge.server);
        }
    });
}

#[test]
fn none_outlives_the_supervisor() {
    in_each_tree(21_600, |tree| {
        let before = tree.processes();
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
    use sandbox::trial::{Targets, Trial, Verdict, table};

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
