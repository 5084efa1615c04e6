//! Rules that no compiler checks: who may import whom, and how a file opens.
//!
//! The import table is that of docs/architecture.md; the wiring graph's lack of cycles is a test of
//! `common/ipc` itself.

use crate::run::root;
use anyhow::bail;
use cargo_metadata::MetadataCommand;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Longest source file, in lines. A file above it has a second subject.
const MAX_LINES: usize = 800;

/// Libraries that know no tokio, no Cap'n Proto and no files.
const PURE: [&str; 6] = ["types", "smtp", "imap", "message", "mailauth", "config"];

/// What each process may link of ours, beside types, ipc, daemon and sandbox.
const MAY_LINK: [(&str, &[&str]); 11] = [
    ("moxd", &["config"]),
    ("moxctl", &["config"]),
    ("smtpd", &["smtp", "net", "config"]),
    ("imapd", &["imap", "message", "net", "config"]),
    ("httpd", &["net", "config"]),
    ("accountd", &["storage", "config", "mailauth"]),
    ("parser", &["message", "mailauth", "config"]),
    ("queue-runner", &["smtp", "storage", "config", "message", "mailauth"]),
    ("outbound", &["smtp", "mailauth", "net", "config"]),
    ("resolver", &["dns", "config"]),
    ("keyholder", &["mailauth", "config"]),
];

const EVERYONE: [&str; 4] = ["types", "ipc", "daemon", "sandbox"];

/// Crates from outside that only some of ours may use: (crate, users).
const WARDENS: [(&str, &[&str]); 4] = [
    ("capnp-rpc", &["ipc", "ipc-schema"]),
    ("seccompiler", &["sandbox"]),
    ("landlock", &["sandbox"]),
    ("hickory-resolver", &["dns"]),
];

pub(crate) fn check() -> anyhow::Result<()> {
    let mut problems = Vec::new();
    imports(&mut problems)?;
    for folder in ["bins", "common", "tests", ".ci"] {
        sources(&root().join(folder), &mut problems)?;
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("\n"));
}

fn imports(problems: &mut Vec<String>) -> anyhow::Result<()> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let ours: BTreeMap<&str, Vec<&str>> = metadata
        .packages
        .iter()
        .map(|package| {
            let normal = package
                .dependencies
                .iter()
                .filter(|d| d.kind == cargo_metadata::DependencyKind::Normal)
                .map(|d| d.name.as_str())
                .collect();
            (package.name.as_str(), normal)
        })
        .collect();
    for (process, allowed) in MAY_LINK {
        for dependency in ours.get(process).into_iter().flatten() {
            let is_ours = ours.contains_key(dependency);
            if is_ours && !EVERYONE.contains(dependency) && !allowed.contains(dependency) {
                problems.push(format!("bins/{process} may not link {dependency}"));
            }
        }
    }
    for library in PURE {
        for dependency in ours.get(library).into_iter().flatten() {
            let impure = ["tokio", "capnp", "capnp-rpc", "ipc", "daemon", "net", "storage"];
            if impure.contains(dependency) {
                problems.push(format!("common/{library} is pure and may not link {dependency}"));
            }
        }
    }
    for (outside, users) in WARDENS {
        for (package, dependencies) in &ours {
            if dependencies.contains(&outside) && !users.contains(package) {
                problems.push(format!("{package} may not link {outside}: {users:?} do"));
            }
        }
    }
    Ok(())
}

fn sources(folder: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                sources(&path, problems)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path)?;
            let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
            if !text.starts_with("//!") {
                problems.push(format!("{shown}: does not open with what it is (//!)"));
            }
            let lines = text.lines().count();
            if lines > MAX_LINES {
                problems.push(format!("{shown}: {lines} lines; what is the second subject?"));
            }
            // Written in two halves, or this file would find itself.
            if text.contains(concat!("TODO", "(now)")) {
                problems.push(format!("{shown}: something was to be done now"));
            }
        }
    }
    Ok(())
}
