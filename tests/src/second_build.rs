//! A second build of the product, made by cargo with another `MOX_BUILD_ID`, beside the first one.
//!
//! It begins with what cargo made for the first build, so that only the crates that the id is in, and
//! those that use them, are compiled again; if cargo finds that of no use, it compiles everything.

use crate::tree::binary;
use std::{
    ffi::OsStr,
    fs::{self, File, FileTimes},
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// What cargo leaves in the folder of a profile, and looks at to know what is made already.
const MADE: [&str; 3] = [".fingerprint", "build", "deps"];

/// Files that compilers write beside their place and rename, so that both builds can share them
/// until one is made anew. Everything else may be written to in place.
const SHARED: [&str; 3] = ["rlib", "rmeta", "so"];

/// What cargo and the test runner say of the package under test: the second build is none of it.
const OF_THE_TEST: [&str; 6] =
    ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "NEXTEST", "OUT_DIR"];

/// Builds these binaries with this id, in a folder below `place` that is kept for the next time;
/// where they are.
///
/// # Panics
/// When that fails.
#[must_use]
pub fn second_build(place: &Path, id: &str, names: &[&str]) -> PathBuf {
    let first = binary("moxd");
    let first = first.parent().expect("in the folder of a profile");
    let profile = first.file_name().and_then(OsStr::to_str).expect("it has a name");
    let target = place.join("second-build");
    let second = target.join(profile);
    if !second.exists() {
        for made in MADE {
            take_over(&first.join(made), &second.join(made)).expect("the first build is copied");
        }
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if OF_THE_TEST.iter().any(|of| text.starts_with(of)) {
            cargo.env_remove(&name);
        }
    }
    // All packages are named, or their dependencies would have other features than in the first
    // build.
    cargo.args(["build", "--locked", "--offline", "--workspace", "--target-dir"]).arg(&target);
    cargo.args(["--profile", if profile == "debug" { "dev" } else { profile }]);
    cargo.args(names.iter().flat_map(|name| ["--bin", name]));
    cargo.env("MOX_BUILD_ID", id).current_dir(env!("CARGO_MANIFEST_DIR"));
    let built = cargo.status().expect("cargo starts");
    assert!(built.success(), "the second build: {built}");
    second
}

/// Copies a folder with its times, by which cargo goes, but for programs, which are linked anew.
fn take_over(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        let kind = old.extension().and_then(OsStr::to_str);
        if entry.file_type()?.is_dir() {
            take_over(&old, &new)?;
        } else if kind.is_some_and(|kind| SHARED.contains(&kind)) {
            fs::hard_link(&old, &new)?;
        } else if kind.is_some() || from.file_name() != Some(OsStr::new("deps")) {
            fs::copy(&old, &new)?;
            let times = FileTimes::new().set_modified(entry.metadata()?.modified()?);
            File::options().write(true).open(&new)?.set_times(times)?;
        }
    }
    Ok(())
}
