//! What happened, in order: its hash says whether two runs were the same, its end what led to a
//! failure.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    hash::{DefaultHasher, Hasher as _},
    time::Duration,
};

/// Lines that are kept for a report.
const KEPT: usize = 400;

/// A run's trace.
pub(super) struct Trace {
    hash: DefaultHasher,
    events: u64,
    last: VecDeque<String>,
    aloud: bool,
}

impl Trace {
    /// With `MOX_SIM_TRACE` set, each line is printed as it comes.
    pub(super) fn new() -> Self {
        Self {
            hash: DefaultHasher::new(),
            events: 0,
            last: VecDeque::new(),
            aloud: std::env::var_os("MOX_SIM_TRACE").is_some(),
        }
    }

    pub(super) fn note(&mut self, at: Duration, what: &str) {
        let mut line = String::new();
        // Writing to a String does not fail.
        let _ = write!(line, "{:>12.6} {what}", at.as_secs_f64());
        self.hash.write(line.as_bytes());
        self.events += 1;
        if self.aloud {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn last(&self, count: usize) -> Vec<String> {
        let from = self.last.len().saturating_sub(count);
        self.last.range(from..).cloned().collect()
    }
}
