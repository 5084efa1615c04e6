//! Makes the build id: a number that differs when anything two processes must agree on differs.
//!
//! In a release build it is made of every source file and Cargo.lock, because a package must never
//! mix with another. In a development build it is made of the crates that the wire depends on
//! alone, or each edit anywhere would rebuild every process. `MOX_BUILD_ID` overrides both.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo:rerun-if-env-changed=MOX_BUILD_ID");
    let id = env::var("MOX_BUILD_ID").unwrap_or_else(|_| format!("{:016x}", sources()));
    println!("cargo:rustc-env=MOX_BUILD_ID={id}");
}

fn sources() -> u64 {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    let root = here.ancestors().nth(2).unwrap_or(Path::new(".")).to_path_buf();
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let watched: &[&str] = if release {
        &["Cargo.lock", "bins", "common", "ipc-schema"]
    } else {
        &["Cargo.lock", "common/ipc/src", "ipc-schema/schema"]
    };
    let mut hasher = DefaultHasher::new();
    for name in watched {
        println!("cargo:rerun-if-changed={}", root.join(name).display());
        hash_path(&root.join(name), &root, &mut hasher);
    }
    hasher.finish()
}

fn hash_path(path: &Path, root: &Path, hasher: &mut DefaultHasher) {
    if let Ok(entries) = fs::read_dir(path) {
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            hash_path(&path, root, hasher);
        }
    } else if let Ok(bytes) = fs::read(path) {
        path.strip_prefix(root).unwrap_or(path).hash(hasher);
        bytes.hash(hasher);
    }
}
