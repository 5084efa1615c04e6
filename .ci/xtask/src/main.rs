//! cargo xtask: the gate and the chores of this workspace.
//!
//! `cargo xtask ci` is the whole gate and the pipeline only calls it; `cargo xtask localserve`
//! builds all binaries and runs the server on this machine.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

mod bench;
mod ci;
mod fuzz;
mod localserve;
mod run;
mod schema;
mod tidy;

use clap::{Parser, Subcommand};

/// Chores of the mox workspace.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build everything for release, then measure the server beside Postfix and Dovecot (as root).
    Bench {
        /// Arguments of the benchmark, such as --rows 1,3 --rounds 5; --help lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Everything that must hold before a change lands, in order.
    Ci,
    /// Build all binaries and run the server for this machine; arguments go to `moxd localserve`.
    Localserve {
        /// Arguments of `moxd localserve`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build all binaries and run all tests.
    Test {
        /// Arguments of nextest or `cargo test`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// All tests in their long forms: more messages, more crashes, more seeds. Takes an hour or more.
    Nightly,
    /// Run the targets of tests/fuzz under libFuzzer.
    Fuzz {
        /// For how long, each.
        #[arg(long, default_value_t = 5)]
        seconds: u32,
        /// Merge what reaches further into tests/corpus.
        #[arg(long)]
        keep: bool,
        /// Only these targets.
        targets: Vec<String>,
    },
    /// Generate the Rust half of ipc-schema from its .capnp files.
    Schema {
        /// Change nothing; fail if the committed code is not what would be generated.
        #[arg(long)]
        check: bool,
    },
    /// Check the import table, and that files open with what they are and are not too long.
    Tidy,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().chore {
        Chore::Bench { args } => bench::run(&args),
        Chore::Ci => ci::gate(),
        Chore::Localserve { args } => localserve::run(&args),
        Chore::Test { args } => ci::test(&args),
        Chore::Nightly => ci::nightly(),
        Chore::Fuzz { seconds, keep, targets } => fuzz::fuzz(seconds, &targets, keep),
        Chore::Schema { check } => schema::generate(check),
        Chore::Tidy => tidy::check(),
    }
}
