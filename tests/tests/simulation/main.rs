//! The simulated tree: all processes in one thread, over in-memory edges, with a seeded schedule, a
//! clock that jumps and disks that forget.
//!
//! What is the product's own: the `run` of accountd, queue-runner, parser, keyholder, outbound and
//! imapd session, and what smtpd and imapd front do with a connection. SQLite, hashing and the
//! parser run in place (`daemon::Workers`).
//! What is played: the supervisor, clients, DNS, and other people's mail server. What is left out:
//! TLS (a blocking signer would wait for itself), listening sockets, httpd.
//!
//! At each message of each edge the seed decides whether it arrives, is held up, ends its
//! connection, or a process. An answer right behind a commit is lost more often, and a process may
//! die when it has committed and before it says so: then its clients repeat what was done. Disks are
//! full for a while, and passwords are changed. Then it becomes calm, and what was promised must
//! have been kept: `ledger.rs`. The same seed gives the same run, octet by octet of its trace.
//!
//! `MOX_SIM_SEED=n` runs one seed (`MOX_SIM_TRACE=1` tells all of it); `MOX_NIGHTLY=1` runs 10,000.

#![expect(clippy::unwrap_used, reason = "a fault in here is a failed test")]

mod chance;
mod clients;
mod disks;
mod ledger;
mod randomness;
mod reader;
mod remote;
mod roles;
mod run;
mod scram;
mod secrets;
mod talk;
mod template;
mod trace;
mod transcripts;
mod wires;
mod world;

use run::{Outcome, run};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long the seeds of the gate may take together, and how many they are at least and at most.
const BUDGET: Duration = Duration::from_secs(60);
const FEWEST: u64 = 12;
const MOST: u64 = 2_000;
/// The long form.
const NIGHTLY: u64 = 10_000;
/// Threads, each with a run of its own.
const SIDE_BY_SIDE: usize = 2;

fn told(outcome: &Outcome) -> String {
    format!(
        "seed {}: {} events, {} deaths\n{}\n\n{}\n\nagain: MOX_SIM_SEED={} cargo nextest run -p \
         mox-tests --test simulation -- one_seed",
        outcome.seed,
        outcome.events,
        outcome.deaths,
        outcome.last.join("\n"),
        outcome.wrongs.join("\n"),
        outcome.seed,
    )
}

#[test]
fn promises_are_kept_whatever_goes_wrong() {
    let nightly = std::env::var_os("MOX_NIGHTLY").is_some();
    let (next, began) = (AtomicU64::new(0), Instant::now());
    let failed: Mutex<Vec<Outcome>> = Mutex::default();
    let (events, deaths) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = if nightly {
                        seed >= NIGHTLY
                    } else {
                        seed >= MOST || seed >= FEWEST && began.elapsed() > BUDGET
                    };
                    if enough || failed.lock().unwrap().len() > 3 {
                        return;
                    }
                    let outcome = run(seed);
                    events.fetch_add(outcome.events, Ordering::Relaxed);
                    deaths.fetch_add(outcome.deaths.into(), Ordering::Relaxed);
                    if !outcome.wrongs.is_empty() {
                        failed.lock().unwrap().push(outcome);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.iter().map(told).collect::<Vec<_>>().join("\n\n"));
    let (events, deaths) = (events.into_inner(), deaths.into_inner());
    let seeds = next.into_inner();
    eprintln!("up to seed {seeds}: {events} events, {deaths} deaths");
    assert!(events > 0 && deaths > 0, "{events} events, {deaths} deaths");
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in [2, 7, 11] {
        let (one, two) = (run(seed), run(seed));
        assert_eq!((one.hash, one.events), (two.hash, two.events), "seed {seed}");
        assert_eq!(one, two);
    }
    assert_ne!(run(2).hash, run(3).hash);
}

#[test]
fn one_seed() {
    let Ok(seed) = std::env::var("MOX_SIM_SEED") else { return };
    let outcome = run(seed.parse().unwrap());
    eprintln!("{} events, {} deaths, hash {:016x}", outcome.events, outcome.deaths, outcome.hash);
    assert!(outcome.wrongs.is_empty(), "{}", told(&outcome));
}
