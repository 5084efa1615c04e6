//! The Rust half of ipc-schema is generated and committed, so that a fresh machine needs no
//! `capnp` tool; the gate generates it again and compares.

use crate::run::root;
use anyhow::{Context as _, bail};
use std::{fs, path::Path};

/// Head lines that name the versions of the tools: they differ where the tool differs, the code
/// does not.
const VERSION_LINES: [&str; 2] = ["// capnp binary version", "// capnpc crate version"];

pub(crate) fn generate(check: bool) -> anyhow::Result<()> {
    let crate_dir = root().join("ipc-schema");
    let committed = crate_dir.join("src");
    let out = root().join("target").join("schema");
    if out.exists() {
        fs::remove_dir_all(&out).context("empty target/schema")?;
    }
    fs::create_dir_all(&out)?;

    let mut names = Vec::new();
    let mut command = capnpc::CompilerCommand::new();
    command.src_prefix(crate_dir.join("schema")).import_path("/usr/include").output_path(&out);
    for entry in fs::read_dir(crate_dir.join("schema"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "capnp") {
            check_header(&path)?;
            command.file(&path);
            names.push(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    names.sort();
    command.run().context("run capnp (Debian: capnproto and libcapnp-dev)")?;
    fs::write(out.join("lib.rs"), lib(&names))?;

    let mut stale = Vec::new();
    for entry in fs::read_dir(&out)? {
        let entry = entry?;
        let target = committed.join(entry.file_name());
        let new = fs::read_to_string(entry.path())?;
        let old = fs::read_to_string(&target).unwrap_or_default();
        if without_versions(&new) == without_versions(&old) {
            continue;
        }
        if check {
            stale.push(target.display().to_string());
        } else {
            fs::write(&target, new)?;
        }
    }
    if !stale.is_empty() {
        bail!("generated code is not what is committed; run cargo xtask schema: {stale:?}");
    }
    Ok(())
}

fn without_versions(code: &str) -> String {
    code.lines()
        .filter(|line| !VERSION_LINES.iter().any(|head| line.starts_with(head)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The three lines that every schema opens with (docs/architecture.md, schemas).
fn check_header(path: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(path)?;
    let head: String = text
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('#') || line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    for wanted in ["Served by:", "Handed to:", "is taken over:"] {
        if !head.contains(wanted) {
            bail!("{}: its header does not say {wanted:?}", path.display());
        }
    }
    Ok(())
}

fn lib(names: &[String]) -> String {
    let mut text = String::from(
        "//! Types generated from `schema/*.capnp` by `cargo xtask schema`, and nothing else.\n\n\
         #![forbid(unsafe_code)]\n#![allow(missing_docs, unreachable_pub, clippy::all, reason = \"generated code\")]\n\n",
    );
    for name in names {
        text.push_str(&format!("#[rustfmt::skip]\npub mod {name}_capnp;\n"));
    }
    text
}
