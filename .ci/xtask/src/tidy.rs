//! Rules that no compiler checks: who may import whom, and how a file opens.
//!
//! The import table is that of docs/architecture.md. That the wiring table has no cycle is a test of
//! `common/ipc`, that the documents say of wiring and rights what the code does is one of `tests`: both
//! are data of crates that this program does not link.

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

/// What a pure library may not link of others' crates; what of ours, the table below says.
const IMPURE: [&str; 3] = ["tokio", "capnp", "capnp-rpc"];

/// What each library may link of ours: all of it. No cycle can come in that cargo would take.
const LIBRARIES: [(&str, &[&str]); 13] = [
    ("types", &[]),
    ("sandbox", &[]),
    ("storage", &[]),
    ("ipc-schema", &[]),
    ("config", &["types"]),
    ("dns", &["types"]),
    ("mailauth", &["types"]),
    ("message", &["types"]),
    ("smtp", &["types"]),
    ("imap", &["types", "message"]),
    ("ipc", &["types", "ipc-schema"]),
    ("net", &["types", "ipc"]),
    ("daemon", &["types", "config", "ipc", "sandbox"]),
];

/// What each process may link of ours, beside [`EVERYONE`]: of libraries alone, never of a process.
const PROCESSES: [(&str, &[&str]); 11] = [
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

/// Crates of the workspace that are no part of the product: they may link anything.
const NO_PRODUCT: [&str; 4] = ["mox-tests", "mox-fuzz", "mox-bench", "xtask"];

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
    problems.extend(faults(&ours));
    Ok(())
}

/// What is wrong with the imports of our crates, given by name with all that each links.
fn faults(ours: &BTreeMap<&str, Vec<&str>>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, links) in ours {
        let of = |table: &[(&str, &'static [&'static str])]| {
            table.iter().find(|(known, _)| known == name).map(|(_, allowed)| *allowed)
        };
        let allowed = match (of(&LIBRARIES), of(&PROCESSES)) {
            (Some(allowed), _) => allowed.to_vec(),
            (None, Some(allowed)) => [allowed, EVERYONE.as_slice()].concat(),
            (None, None) if NO_PRODUCT.contains(name) => continue,
            (None, None) => {
                problems.push(format!("{name} is in no table of .ci/xtask/src/tidy.rs"));
                continue;
            }
        };
        for link in links {
            if ours.contains_key(link) && !allowed.contains(link) {
                problems.push(format!("{name} may not link {link}"));
            }
            if PURE.contains(name) && IMPURE.contains(link) {
                problems.push(format!("{name} is pure and may not link {link}"));
            }
        }
    }
    let tables = LIBRARIES.iter().chain(&PROCESSES).map(|(name, _)| *name).chain(NO_PRODUCT);
    for gone in tables.filter(|name| !ours.contains_key(name)) {
        problems.push(format!("{gone} is in a table of .ci/xtask/src/tidy.rs and nowhere else"));
    }
    for (outside, users) in WARDENS {
        for (package, dependencies) in ours {
            if dependencies.contains(&outside) && !users.contains(package) {
                problems.push(format!("{package} may not link {outside}: {users:?} do"));
            }
        }
    }
    problems
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is, if every crate links all that it may.
    fn whole() -> BTreeMap<&'static str, Vec<&'static str>> {
        let tables =
            LIBRARIES.iter().chain(&PROCESSES).map(|(name, links)| (*name, links.to_vec()));
        tables.chain(NO_PRODUCT.map(|name| (name, Vec::new()))).collect()
    }

    #[test]
    fn what_the_tables_allow_has_no_fault() {
        assert_eq!(faults(&whole()), Vec::<String>::new());
    }

    #[test]
    fn what_they_do_not_allow_is_named() {
        for (name, link, fault) in [
            ("smtpd", "imapd", "smtpd may not link imapd"),
            ("smtpd", "storage", "smtpd may not link storage"),
            ("net", "daemon", "net may not link daemon"),
            ("types", "message", "types may not link message"),
            ("smtp", "tokio", "smtp is pure and may not link tokio"),
            ("net", "landlock", "net may not link landlock: [\"sandbox\"] do"),
        ] {
            let mut ours = whole();
            ours.entry(name).or_default().push(link);
            assert_eq!(faults(&ours), [fault]);
        }
        let mut ours = whole();
        ours.insert("popd", Vec::new());
        assert_eq!(faults(&ours), ["popd is in no table of .ci/xtask/src/tidy.rs"]);
        let mut ours = whole();
        ours.remove("httpd");
        assert_eq!(
            faults(&ours),
            ["httpd is in a table of .ci/xtask/src/tidy.rs and nowhere else"]
        );
    }
}
