//! parser: reads one message at a time for accountd and keeps nothing of it.
//!
//! Trust:   reads what strangers wrote; written on the assumption that it will be taken over.
//! Runs as: `_mox-parser`; no file, no socket but its edge, 256 MiB, 60 s of CPU a life.
//! Holds:   the message in hand. Asked by accountd (the wiring table).
//! Never:   learns whose mail it reads, asks anyone anything, keeps a byte between two jobs.
//! If it dies: restarted at once; accountd stores a message that kills it twice unread.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use daemon::figures::Count;
use ipc::Role;
use parser::{Bounds, Grants, Watchdog};
use std::process::ExitCode;

/// How the process ends when a job passes its CPU time. No clean-up: the job cannot be stopped.
const OVERRUN: i32 = 70;

fn main() -> ExitCode {
    daemon::start(
        &[Role::Parser],
        |_| &sandbox::profiles::PARSER,
        |inherited| async move {
            let slice: config::slice::Parser = inherited.slice().context("slice")?;
            let figures = inherited.figures;
            let watchdog = Watchdog::start(move || {
                figures.count(Count::ParserOverruns);
                tracing::error!("a message took more CPU time than its size allows; ends");
                std::process::exit(OVERRUN);
            })
            .context("watchdog")?;
            let bounds = Bounds {
                cpu_per_job: slice.cpu_per_job,
                cpu_per_mib: slice.cpu_per_mib,
                cpu_of_life: slice.cpu_of_life,
                ..Bounds::default()
            };
            let grants = Grants { clients: inherited.acceptors, figures, stop: inherited.stop };
            parser::run(grants, bounds, watchdog).await;
            inherited.planned_end.announce().await;
            // What was announced is sent by another task of this thread.
            for _ in 0..FLUSH_TURNS {
                tokio::task::yield_now().await;
            }
            Ok(())
        },
    )
}

/// Turns of the event loop in which the announcement of a planned end is sent.
const FLUSH_TURNS: usize = 16;
