//! What tests of several modules need: a store on a real disk.

pub(crate) mod hands;

use crate::store::{Ports, Random, Store, Threads, Tuning};
use std::{path::Path, sync::Arc};
use types::SystemClock;

struct TestRandom;

impl Random for TestRandom {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).unwrap();
    }
}

/// A store in `folder/accounts`.
pub(crate) fn store(folder: &Path) -> Store {
    let accounts = folder.join("accounts");
    std::fs::create_dir_all(&accounts).unwrap();
    let ports = Ports {
        disk: Arc::new(storage::RealDisk),
        clock: Arc::new(SystemClock),
        random: Arc::new(TestRandom),
        fatal: Arc::new(|what| panic!("{what}")),
        alarm: Arc::new(|account, what| panic!("{account}: {what}")),
        workers: daemon::Workers::Threads,
    };
    let threads = Threads { writers: 2, readers: 2, open: 8 };
    Store::start(&accounts, ports, Tuning::default(), threads).unwrap()
}
