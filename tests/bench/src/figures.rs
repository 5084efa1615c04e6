//! What a server costs: CPU and memory of its process trees from /proc, sync calls by perf, octets
//! on the disk.

use anyhow::{Context as _, bail};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

/// System calls that wait for the disk.
const SYNCS: [&str; 5] = ["fsync", "fdatasync", "sync_file_range", "msync", "syncfs"];

struct Process {
    parent: u32,
    ticks: u64,
}

fn processes() -> BTreeMap<u32, Process> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Gone since, or not a process.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<u64> = rest.split(' ').map(|f| f.parse().unwrap_or(0)).collect();
        let at = |i: usize| fields.get(i).copied().unwrap_or(0);
        // utime and stime, its own and those of the children it waited for.
        let ticks = (11..15).map(at).sum();
        all.insert(pid, Process { parent: u32::try_from(at(1)).unwrap_or(0), ticks });
    }
    all
}

fn descend(all: &BTreeMap<u32, Process>, roots: &[u32]) -> BTreeSet<u32> {
    let mut tree: BTreeSet<u32> = roots.iter().copied().filter(|p| all.contains_key(p)).collect();
    loop {
        let before = tree.len();
        let children = all.iter().filter(|(_, p)| tree.contains(&p.parent)).map(|(pid, _)| *pid);
        let children: Vec<u32> = children.collect();
        tree.extend(children);
        if tree.len() == before {
            return tree;
        }
    }
}

/// The processes with all their descendants.
pub(crate) fn tree(roots: &[u32]) -> BTreeSet<u32> {
    descend(&processes(), roots)
}

/// CPU milliseconds used so far; the kernel counts in steps of 10.
pub(crate) fn cpu_ms(roots: &[u32]) -> f64 {
    let all = processes();
    let ticks: u64 = descend(&all, roots).iter().filter_map(|p| all.get(p)).map(|p| p.ticks).sum();
    ticks as f64 * 10.0
}

/// Memory in KiB, shared pages divided among those who share them.
pub(crate) fn pss_kb(roots: &[u32]) -> f64 {
    let of = |pid: u32| -> Option<f64> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse().ok()
    };
    tree(roots).into_iter().filter_map(of).sum()
}

/// What files of a folder take on the disk.
pub(crate) fn disk_octets(folder: &Path) -> anyhow::Result<u64> {
    let own = fs::symlink_metadata(folder)?;
    let mut octets = own.blocks() * 512;
    if own.is_dir() {
        for entry in fs::read_dir(folder)?.flatten() {
            // A file that went since takes nothing.
            octets += disk_octets(&entry.path()).unwrap_or(0);
        }
    }
    Ok(octets)
}

/// Counts sync calls of process trees, without slowing them down as a tracer does: then more
/// messages would wait for each commit, and share it.
pub(crate) struct Syncs {
    perf: Child,
    /// What perf writes: "ready" from the program it runs, then its counts.
    lines: BufReader<std::process::ChildStderr>,
}

impl Syncs {
    /// Starts to count. Children that are made later count, too.
    pub(crate) fn begin(roots: &[u32]) -> anyhow::Result<Self> {
        let pids: Vec<String> = tree(roots).iter().map(ToString::to_string).collect();
        let mut command = Command::new("perf");
        command.args(["stat", "--field-separator", ";", "--pid", &pids.join(",")]);
        for call in SYNCS {
            command.args(["--event", &format!("syscalls:sys_enter_{call}")]);
        }
        // It counts as long as this program runs, which is until its standard input ends.
        command.args(["--", "sh", "-c", "echo ready >&2; cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut perf = command.spawn().context("start perf (Debian: linux-perf)")?;
        let mut lines = BufReader::new(perf.stderr.take().expect("it was piped"));
        let mut first = String::new();
        lines.read_line(&mut first)?;
        if first.trim_end() != "ready" {
            bail!("perf cannot count system calls: {first}");
        }
        Ok(Self { perf, lines })
    }

    /// The calls since.
    pub(crate) fn end(mut self) -> anyhow::Result<u64> {
        drop(self.perf.stdin.take());
        let mut calls = 0;
        let mut said = String::new();
        self.lines.read_to_string(&mut said)?;
        for line in said.lines() {
            calls += count(line).unwrap_or(0);
        }
        self.perf.wait()?;
        Ok(calls)
    }
}

/// The count of a line of perf's.
fn count(line: &str) -> Option<u64> {
    let mut fields = line.split(';');
    let number = fields.next()?;
    fields.any(|f| f.starts_with("syscalls:")).then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read() {
        let line = "42;;syscalls:sys_enter_fdatasync;1000;100.00;;";
        assert_eq!(count(line), Some(42));
        assert_eq!(count("<not counted>;;syscalls:sys_enter_fsync;0;0.00;;"), None);
        assert_eq!(count(""), None);
    }

    #[test]
    fn we_are_in_our_own_tree_and_have_memory() {
        let me = [std::process::id()];
        assert!(tree(&me).contains(&std::process::id()));
        assert!(pss_kb(&me) > 100.0);
        let file = std::env::temp_dir().join(format!("mox-bench-{}", std::process::id()));
        fs::write(&file, [1; 5000]).unwrap();
        fs::File::open(&file).unwrap().sync_all().unwrap();
        assert!(disk_octets(&file).unwrap() >= 5000);
        fs::remove_file(&file).unwrap();
    }
}
