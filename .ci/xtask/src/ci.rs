//! The gate: what must hold before a change lands.

use crate::{
    fuzz,
    run::{answers, run, run_with},
    schema, tidy,
};
use std::time::Instant;

/// Seconds for each fuzz target in the gate, and in its long form.
const FUZZ_SECONDS: u32 = 5;
const LONG_FUZZ_SECONDS: u32 = 60;

/// The test that runs seeds of the simulated tree, for nextest.
const SEEDS: &str = "(binary(simulation) & test(promises_are_kept_whatever_goes_wrong))";

pub(crate) fn gate() -> anyhow::Result<()> {
    step("fmt", || run("cargo", &["fmt", "--all", "--check"]))?;
    step("schema", || schema::generate(true))?;
    step("tidy", tidy::check)?;
    step("deny", || {
        let args = ["deny", "--config", ".ci/deny.toml", "check", "licenses", "bans", "sources"];
        run("cargo", &args)
    })?;
    step("clippy", || {
        run("cargo", &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
    })?;
    // The command that README names, as a reader would type it.
    step("test", || run("cargo", &["xtask", "test"]))?;
    step("fuzz", || fuzz::fuzz(FUZZ_SECONDS, &[], false))?;
    step("doc", || {
        // A link that leads nowhere is a fault; one to a private item is for who reads the source.
        let args = ["doc", "--workspace", "--no-deps", "--quiet"];
        run_with(
            "cargo",
            &args,
            &[("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")],
        )
    })
}

/// Builds all binaries (the tests start them) and runs every test.
pub(crate) fn test(args: &[String]) -> anyhow::Result<()> {
    run("cargo", &["build", "--workspace", "--bins"])?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if answers("cargo", &["nextest", "--version"]) {
        run("cargo", &[&["nextest", "run", "--workspace"], args.as_slice()].concat())?;
        // nextest runs no documentation tests.
        run("cargo", &["test", "--workspace", "--doc", "--quiet"])
    } else {
        plain_tests(&args)
    }
}

/// Without nextest, which knows the packages whose tests start trees of processes: they run one
/// test at a time, as they measure patience.
fn plain_tests(args: &[&str]) -> anyhow::Result<()> {
    const TREES: [&str; 4] = ["mox-tests", "mox-fuzz", "moxd", "sandbox"];
    let at = args.iter().position(|arg| *arg == "--").unwrap_or(args.len());
    let (to_cargo, to_tests) = args.split_at(at);
    let to_tests = to_tests.split_first().map_or(&[][..], |(_, rest)| rest);
    let all_but = TREES.map(|package| ["--exclude", package]);
    let only = TREES.map(|package| ["--package", package]);
    let others: [&[&str]; 5] =
        [&["test", "--workspace"], all_but.as_flattened(), to_cargo, &["--"], to_tests];
    let trees: [&[&str]; 5] =
        [&["test"], only.as_flattened(), to_cargo, &["--", "--test-threads=1"], to_tests];
    run("cargo", &others.concat())?;
    run("cargo", &trees.concat())
}

/// Builds all binaries and runs every test in its long form, then every fuzz target for longer.
pub(crate) fn nightly() -> anyhow::Result<()> {
    run("cargo", &["build", "--workspace", "--bins"])?;
    let args = ["nextest", "run", "--workspace", "--profile", "nightly", "--no-fail-fast"];
    let others = format!("not {SEEDS}");
    let args = [args.as_slice(), &["--filterset", &others]].concat();
    run_with("cargo", &args, &[("MOX_NIGHTLY", "1")])?;
    seeds()?;
    fuzz::fuzz(LONG_FUZZ_SECONDS, &[], false)
}

/// The seeds of the simulated tree, with our own crates optimised as much as those of others: ten
/// thousand would take hours. A seed is the same run either way.
fn seeds() -> anyhow::Result<()> {
    let args =
        ["nextest", "run", "-p", "mox-tests", "--test", "simulation", "--profile", "nightly"];
    let args = [args.as_slice(), &["--filterset", SEEDS]].concat();
    run_with("cargo", &args, &[("MOX_NIGHTLY", "1"), ("CARGO_PROFILE_DEV_OPT_LEVEL", "1")])
}

fn step(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("== {name}");
    let start = Instant::now();
    work()?;
    println!("== {name}: {:.0} s", start.elapsed().as_secs_f32());
    Ok(())
}
