//! `cargo xtask localserve`: build every binary, then become `moxd localserve`.

use crate::run::{self, root};
use anyhow::Context as _;
use std::{os::unix::process::CommandExt as _, process::Command};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    run::run("cargo", &["build"])?;
    let moxd = root().join("target/debug/moxd");
    let error = Command::new(&moxd).arg("localserve").args(args).exec();
    Err(error).with_context(|| format!("start {}", moxd.display()))
}
