//! `cargo xtask fuzz`: runs the targets of tests/fuzz under libFuzzer.
//!
//! Only our own crates are instrumented, by a wrapper around rustc that cargo uses for members of the
//! workspace; so the libraries of the ordinary build serve here too, and a stable compiler does.

use crate::run::{root, run_with};
use anyhow::{Context as _, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Targets that run at once: those of edges mostly wait for their servers.
const AT_ONCE: usize = 4;
/// A single input that takes this long is a finding.
const TIMEOUT_SECONDS: u32 = 25;
/// Memory above which the process is a finding.
const MEMORY_MIB: u32 = 1536;
/// The longest input made.
const MAX_INPUT: u32 = 4096;
/// How often the ends of children are looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Runs each target for so many seconds; `only` those, if any are named. With `keep` what was found
/// to reach further is merged into the corpora.
pub(crate) fn fuzz(seconds: u32, only: &[String], keep: bool) -> anyhow::Result<()> {
    let wrapper = root().join(".ci/instrument");
    let wrapper = wrapper.to_str().context("the workspace's path is not UTF-8")?;
    let args = ["build", "--package", "mox-fuzz", "--features", "libfuzzer", "--bin", "mox-fuzz"];
    run_with("cargo", &args, &[("RUSTC_WORKSPACE_WRAPPER", wrapper)])?;
    let names = targets(only)?;
    println!("== {} targets, {seconds} s each, {AT_ONCE} at once", names.len());
    let out = root().join("target/fuzz");
    let mut waiting = names.iter();
    let mut running: Vec<(&String, Child)> = Vec::new();
    let mut failed = Vec::new();
    loop {
        while running.len() < AT_ONCE {
            let Some(name) = waiting.next() else { break };
            running.push((name, start(name, seconds, &out)?));
        }
        if running.is_empty() {
            break;
        }
        let mut still = Vec::new();
        for (name, mut child) in running {
            match child.try_wait().context("wait for a target")? {
                None => still.push((name, child)),
                Some(status) => {
                    if !(status.success() && told(name, &out)?) {
                        failed.push(name.as_str());
                    }
                }
            }
        }
        running = still;
        std::thread::sleep(LOOK);
    }
    if !failed.is_empty() {
        bail!("found something: {failed:?}; inputs and logs are in {}", out.display());
    }
    if keep {
        for name in &names {
            merge(name, &out)?;
        }
    }
    Ok(())
}

/// The targets: each one has its corpus, which a test makes sure of.
fn targets(only: &[String]) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("tests/corpus")).context("tests/corpus")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if only.is_empty() || only.contains(&name) {
            names.push(name);
        }
    }
    names.sort();
    match names.is_empty() {
        true => bail!("no such target"),
        false => Ok(names),
    }
}

fn binary(name: &str) -> Command {
    let mut command = Command::new(root().join("target/debug/mox-fuzz"));
    command.env("MOX_FUZZ_TARGET", name);
    command
}

fn log(name: &str, out: &Path) -> PathBuf {
    out.join(format!("{name}.log"))
}

fn start(name: &str, seconds: u32, out: &Path) -> anyhow::Result<Child> {
    let grown = out.join(name);
    fs::create_dir_all(&grown).context("target/fuzz")?;
    let file = fs::File::create(log(name, out)).context("target/fuzz")?;
    binary(name)
        .arg(&grown)
        .arg(root().join("tests/corpus").join(name))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={TIMEOUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-max_len={MAX_INPUT}"))
        .arg(format!("-artifact_prefix={}/{name}-", out.display()))
        .arg("-print_final_stats=1")
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .context("start target/debug/mox-fuzz")
}

/// Says what a target did; false if it did nothing.
fn told(name: &str, out: &Path) -> anyhow::Result<bool> {
    let text = fs::read(log(name, out)).context("target/fuzz")?;
    let text = String::from_utf8_lossy(&text);
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim_start_matches(':').trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let (runs, rate) =
        (figure("stat::number_of_executed_units"), figure("stat::average_exec_per_sec"));
    println!("   {name}: {runs} inputs, {rate} a second");
    Ok(runs > 0)
}

fn merge(name: &str, out: &Path) -> anyhow::Result<()> {
    let done = binary(name)
        .arg("-merge=1")
        .arg(format!("-max_len={MAX_INPUT}"))
        .arg(root().join("tests/corpus").join(name))
        .arg(out.join(name))
        .stderr(Stdio::null())
        .status()
        .context("start target/debug/mox-fuzz")?;
    if !done.success() {
        bail!("the corpus of {name} could not be merged");
    }
    Ok(())
}
