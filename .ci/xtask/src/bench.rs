//! `cargo xtask bench`: build every binary for release, then compare.

use crate::run;

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    run::run("cargo", &["build", "--release"])?;
    run::run("cargo", &["build", "--release", "--package", "mox-bench"])?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run::run("target/release/mox-bench", &args)
}
