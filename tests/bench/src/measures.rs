//! What is measured, and what must be reached: the rows of the performance goals.

use serde::{Deserialize, Serialize};

/// What a figure must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Must {
    /// Ours, at most.
    AtMost(f64),
    /// Ours divided by the peers', at most.
    AtMostTimes(f64),
    /// Ours divided by the peers', at least.
    AtLeastTimes(f64),
    /// Nothing: it explains another figure.
    Nothing,
}

/// One figure of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    pub(crate) key: &'static str,
    pub(crate) row: &'static str,
    pub(crate) what: &'static str,
    pub(crate) must: Must,
}

const fn of(row: &'static str, key: &'static str, what: &'static str, must: Must) -> Measure {
    Measure { key, row, what, must }
}

/// All of them, in the order of the table.
pub(crate) const MEASURES: &[Measure] = &[
    of("1", "delivered", "delivered/s, 5 KB, 10 connections", Must::AtLeastTimes(1.5)),
    of("2", "delivered-cpu", "CPU ms per delivered message", Must::AtMostTimes(0.5)),
    of("3", "syncs-1", "sync calls per message into one account, 1 connection", Must::AtMost(1.3)),
    of("3", "syncs-50", "the same, 50 connections", Must::AtMost(0.6)),
    of("4", "full-cost", "time of a delivery, 20,000 messages there : empty", Must::AtMost(1.2)),
    of("4", "full-cpu", "CPU of a delivery, 20,000 : empty", Must::Nothing),
    of("4m", "million-cost", "time of a delivery, 1,000,000 : empty", Must::AtMost(1.2)),
    of("4m", "million-cpu", "CPU of a delivery, 1,000,000 : empty", Must::Nothing),
    of("6", "envelopes", "FETCH metadata of 20,000, warm, ms", Must::AtMostTimes(1.0)),
    of("6", "envelopes-cpu", "the same, CPU ms", Must::AtMostTimes(1.0)),
    of("7", "flags", "FETCH (UID FLAGS) of 20,000, ms", Must::AtMostTimes(1.74)),
    of("8", "bodies", "all bodies, MB/s", Must::AtLeastTimes(1.0)),
    of("8", "bodies-cpu", "the same, CPU ms per MB", Must::Nothing),
    of("10", "notice-p50", "end of DATA to EXISTS, 20 TLS connections, p50 ms", Must::Nothing),
    of("10", "notice-p95", "the same, p95 ms", Must::AtMost(19.0)),
    of("11", "idle", "1,000 idle TLS IMAP connections, KB each", Must::AtMost(50.0)),
    // 0.38 ms beside peers that took 0.41.
    of("12", "handshake-cpu", "IMAPS handshake, CPU ms", Must::AtMostTimes(0.93)),
    of("12", "handshake", "IMAPS handshakes/s, 8 at once", Must::Nothing),
    of("13", "disk", "disk octets per 5 KB message", Must::AtMost(6000.0)),
    of("14", "memory", "all processes, nothing to do, MB", Must::AtMost(60.0)),
    of("14", "start", "start to IMAP greeting, s", Must::AtMost(0.3)),
    of("15", "append", "APPEND/s, 10 connections of 10 users", Must::AtLeastTimes(1.0)),
    of("15", "append-cpu", "CPU ms per APPEND", Must::AtMostTimes(1.0)),
    of("login", "wrong-known", "wrong password of a user, ms", Must::Nothing),
    of("login", "wrong-unknown", "the same of a name that is not there, ms", Must::Nothing),
];

/// The rows that are measured if nobody says otherwise: the million takes long to fill.
pub(crate) fn usual_rows() -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for measure in MEASURES.iter().filter(|m| m.row != "4m") {
        if rows.last().is_none_or(|last| last != measure.row) {
            rows.push(measure.row.to_owned());
        }
    }
    rows
}

/// One result: a line of the results' file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) key: String,
    pub(crate) server: String,
    pub(crate) round: u32,
    pub(crate) value: f64,
}
