//! Replays the kept corpora through every target: what was once found stays found.

#![forbid(unsafe_code)]

use mox_fuzz::TARGETS;
use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Octets all corpora together may have: they are in every clone.
const MAX_CORPUS: u64 = 600 * 1024;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

/// What panicked anywhere, threads of servers included.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[test]
fn every_input_of_every_corpus() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.lock().expect("no panic in here").push(panic.to_string());
    }));
    let mut faults = Vec::new();
    let (mut inputs, mut octets) = (0, 0);
    for target in TARGETS {
        let folder = corpora().join(target.name);
        let mut files: Vec<PathBuf> = fs::read_dir(&folder)
            .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default();
        files.sort();
        if files.is_empty() {
            faults.push(format!("{}: no corpus", target.name));
        }
        for file in files {
            let input = fs::read(&file).expect("an input");
            (inputs, octets) = (inputs + 1, octets + input.len() as u64);
            let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
            let panics = std::mem::take(&mut *PANICS.lock().expect("no panic in here"));
            if ended.is_err() || !panics.is_empty() {
                faults.push(format!("{}: {}", file.display(), panics.join("; ")));
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(inputs >= 2 * TARGETS.len(), "{inputs} inputs");
    assert!(octets <= MAX_CORPUS, "{octets} octets are too many to keep");
}

#[test]
fn every_corpus_has_its_target() {
    let known: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let kept: BTreeSet<String> = fs::read_dir(corpora())
        .expect("the corpora")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(kept, known);
}
