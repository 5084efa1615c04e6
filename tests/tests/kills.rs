//! Random processes killed under load: each message that was answered 250 is in its mailbox exactly
//! once, and so is each that was not answered and sent again.
//!
//! The same with the whole tree killed, and with a disk that is full every now and then. The short
//! forms run in the gate; with `MOX_NIGHTLY=1` it is 5,000 messages on 20 connections, and the tree
//! is killed 20 times.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use ipc::Role;
use mox_tests::{
    disk::{Disk, skipped_without_root},
    load::{Load, Way, each_is_there_once, total},
    tree::{Options, Tree, kill, wait_until},
};
use rustix::process::Signal;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// The pause between two kills.
const EVERY: Duration = Duration::from_millis(300);

/// Kills that the short form has at least.
const LEAST: u32 = 5;

/// How long the load goes on for the kills that are missing.
const PATIENCE: Duration = Duration::from_secs(120);

/// MiB of the disk that is filled up.
const DISK: u32 = 192;

/// Who sends, and how many messages at least.
struct Size {
    ways: Vec<Way>,
    messages_each: usize,
}

fn size(connections: usize, messages_each: usize) -> Size {
    let mut ways = vec![Way::Mx; connections];
    ways.push(Way::Submission);
    Size { ways, messages_each }
}

fn nightly() -> bool {
    std::env::var_os("MOX_NIGHTLY").is_some()
}

/// How often each process was killed, by role and instance.
type Kills = BTreeMap<String, u32>;

/// Kills a random process every now and then until told to stop: any that lives, but for moxd and for
/// those that were killed more often than others, so that each has its turn.
fn killer(
    control: PathBuf,
    done: Arc<Mutex<Kills>>,
    stop: Arc<AtomicBool>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(EVERY);
            let order = daemon::orders::Order::Processes;
            let lines = daemon::orders::give(&control.join("moxd"), order).unwrap_or_default();
            let mut living: Vec<(String, u32)> = lines
                .iter()
                .filter_map(|line| {
                    let row: serde_json::Value = serde_json::from_str(line).unwrap();
                    let pid = row["pid"].as_u64()?;
                    let name = format!("{}.{}", row["role"].as_str()?, row["instance"]);
                    Some((name, u32::try_from(pid).unwrap()))
                })
                .collect();
            let mut kills = done.lock().unwrap();
            let times = |name: &String| kills.get(name).copied().unwrap_or_default();
            let fewest = living.iter().map(|(name, _)| times(name)).min();
            living.retain(|(name, _)| Some(times(name)) == fewest);
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = random.checked_rem(living.len() as u64).unwrap_or_default();
            // It may have died for itself.
            if let Some((name, pid)) = living.get(usize::try_from(at).unwrap())
                && kill(*pid, Signal::KILL).is_ok()
            {
                *kills.entry(name.clone()).or_default() += 1;
            }
        }
    })
}

#[test]
fn each_message_is_there_once_though_processes_are_killed() {
    let tree = Tree::start();
    let size = if nightly() { size(20, 250) } else { size(4, 100) };
    let (done, stop) = (Arc::new(Mutex::new(Kills::new())), Arc::new(AtomicBool::new(false)));
    let killing = killer(tree.control(), Arc::clone(&done), Arc::clone(&stop));
    let instances: Vec<String> =
        tree.processes().into_iter().map(|p| format!("{}.{}", p.role, p.instance)).collect();
    let load = Load::start(&tree, &size.ways, size.messages_each);
    let enough = || {
        let kills = done.lock().unwrap();
        let all = instances.iter().all(|name| kills.contains_key(name));
        if nightly() { all } else { kills.values().sum::<u32>() >= LEAST }
    };
    // The load goes on meanwhile.
    let enough = wait_until(PATIENCE, enough);
    let sent = load.finish();
    stop.store(true, Ordering::Relaxed);
    killing.join().unwrap();
    let kills = done.lock().unwrap();
    eprintln!("{} messages, kills: {kills:?}", total(&sent));
    assert!(enough, "too few of {instances:?}: {kills:?}");
    each_is_there_once(&tree, &sent);
}

/// How often the whole tree is killed, and under which load.
fn crashes() -> (Size, u32) {
    if nightly() { (size(20, 250), 20) } else { (size(4, 50), 2) }
}

#[test]
fn each_message_is_there_once_though_the_whole_tree_is_killed() {
    let mut tree = Tree::start();
    let (size, times) = crashes();
    let load = Load::start(&tree, &size.ways, size.messages_each);
    for _ in 0..times {
        thread::sleep(EVERY * 3);
        tree.crash_and_restart();
    }
    let sent = load.finish();
    eprintln!("{} messages, {times} crashes", total(&sent));
    each_is_there_once(&tree, &sent);
}

#[test]
fn each_message_is_there_once_though_the_disk_is_full_in_between() {
    if skipped_without_root() {
        return;
    }
    let disk = Disk::mount(DISK);
    let folder = disk.path().join("mox");
    let mut tree = Tree::with(Options { folder: Some(folder), ..Options::default() });
    let (size, times) = crashes();
    let load = Load::start(&tree, &size.ways, size.messages_each);
    for round in 0..times {
        thread::sleep(EVERY);
        // Full to the last block, or so that what must be written at once just fits.
        disk.fill(if round.is_multiple_of(2) { 0 } else { 1 << 20 });
        thread::sleep(EVERY);
        // Whoever dies now finds no room when it is started again.
        for role in [Role::Accountd, Role::SmtpdMx, Role::QueueRunner] {
            if let Some(pid) = tree.pid(role, 0) {
                // It may have died for itself.
                let _ = kill(pid, Signal::KILL);
            }
        }
        thread::sleep(EVERY);
        disk.free();
        thread::sleep(EVERY);
        tree.crash_and_restart();
    }
    let sent = load.finish();
    eprintln!("{} messages, {times} full disks and crashes", total(&sent));
    each_is_there_once(&tree, &sent);
}
