//! moxd: binds the ports, starts the processes of mox and starts them again when they end.
//!
//! Trust:   root; reads `mox.toml` (root's) and orders of 32 octets, nothing from outside.
//! Runs as: root, or a developer's own user (one wall less).
//! Holds:   listening sockets, the open binaries, the wiring table.
//! Never:   reads a byte from the network, a message, a key, or a text from a process.
//! If it dies: its children die with it; systemd starts it again.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "localserve says on the terminal what to connect to")]

mod args;
mod backoff;
mod binaries;
mod check;
mod child;
mod control;
mod ending;
mod files;
mod handover;
mod identity;
mod layout;
mod local;
mod logs;
mod notify;
mod ports;
mod reload;
mod required;
mod source;
mod supervise;
mod table;
mod tree;
mod trial;
mod wires;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    abort_on_panic();
    match local::dispatch(args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("moxd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A panic in a task would leave a supervisor that half works; systemd starts a whole one.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
