//! The queue: takes what users sent out of accountd's outbox, delivers it, tries again, reports.

#![forbid(unsafe_code)]

mod admin;
mod attempt;
mod collect;
mod grants;
mod intake;
mod queue;
mod report;
mod run;
mod schedule;
mod schema;
mod signing;
mod spool;
mod worker;

pub use grants::{Allowed, Grants};
pub use run::run;
