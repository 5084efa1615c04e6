//! The parser's own code: one interface over the `message` library, one job at a time.
//!
//! A job is a stream of octets and the facts found in it. It is bounded three times: by the limits
//! of `message` (work linear in the octets), by a watchdog that ends the process when a job takes
//! more CPU time than its size allows, and by the rlimits of the profile when the process was taken
//! over. After some jobs, some CPU time or any fault the process ends, and the next one begins with
//! clean memory.

#![forbid(unsafe_code)]

mod encode;
mod serve;
mod watchdog;

use daemon::{Figures, Stop};
use ipc::{Acceptor, Limits, Role};
use serve::Desk;
use std::{rc::Rc, time::Duration};
use tokio::sync::mpsc;

pub use watchdog::Watchdog;

/// What a parser holds.
pub struct Grants {
    /// Clients, as the supervisor wires them.
    pub clients: mpsc::Receiver<Acceptor>,
    /// Where jobs are counted.
    pub figures: Figures,
    /// Told when the process is to end.
    pub stop: Stop,
}

/// How long a parser lives and what a job may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// CPU time of a job before its size is counted.
    pub cpu_per_job: Duration,
    /// CPU time added for each MiB, whole or begun.
    pub cpu_per_mib: Duration,
    /// CPU time after which the process ends between two jobs.
    pub cpu_of_life: Duration,
    /// Jobs after which the process ends.
    pub jobs: u32,
    /// What of a message is looked at.
    pub message: message::Limits,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            cpu_per_job: Duration::from_secs(2),
            cpu_per_mib: Duration::from_millis(20),
            cpu_of_life: Duration::from_secs(30),
            jobs: 1_000,
            message: message::Limits::default(),
        }
    }
}

/// Reads messages until its share of work is done, a job failed, or it is told to stop; the job in
/// hand is finished first. Calls that wait for their turn then fail as disconnected, so that the
/// client asks the next life.
pub async fn run(grants: Grants, bounds: Bounds, watchdog: Watchdog) {
    let Grants { clients, figures, stop } = grants;
    let desk = Rc::new(Desk::new(bounds, watchdog, figures));
    let for_clients = Rc::clone(&desk);
    let bootstrap = move |role: Role, _| {
        ipc::edge(role, Role::Parser)?;
        Some(serve::bootstrap(Rc::clone(&for_clients)))
    };
    tokio::select! {
        biased;
        () = ipc::serve_clients(clients, Limits::default(), bootstrap) => {}
        () = desk.worn_out() => {}
        _ = stop.draining() => {
            desk.close();
            desk.idle().await;
        }
    }
}
