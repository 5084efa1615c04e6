//! The test harness: the real tree in a folder of its own, small clients, and transcripts.
//!
//! Tests of the whole live in `tests/tests/`; what is here is what they share.

#![forbid(unsafe_code)]

pub mod client;
pub mod disk;
mod journal;
pub mod load;
pub mod names;
pub mod real;
pub mod second_build;
pub mod service;
pub mod tls;
pub mod transcript;
pub mod tree;
pub mod wire;

/// Whether what a test needs of the machine is there. If not, that is said past the capture of test
/// output: a test that passes without having tried anything must not look like one that did.
///
/// # Panics
/// Under CI (the variable `CI` is set), where all must be there.
#[must_use]
pub fn needs(there: bool, why_not: impl FnOnce() -> String) -> bool {
    use std::io::Write as _;
    if !there {
        let (why_not, test) = (why_not(), std::thread::current());
        assert!(std::env::var_os("CI").is_none(), "skipped, which CI must not: {why_not}");
        let name = test.name().unwrap_or("a test");
        // Nobody hears it: then nobody is misled, either.
        let _ = writeln!(std::io::stderr(), "SKIPPED {name}, nothing was proved: {why_not}");
    }
    there
}

/// Whether this is root, who alone can try some things; if not, that is said, as by [`needs`].
#[must_use]
pub fn needs_root(what_for: &str) -> bool {
    needs(rustix::process::geteuid().is_root(), || format!("only root can {what_for}"))
}
