//! accountd: directory, credentials and mail. See `main.rs` for the process's page.

#![forbid(unsafe_code)]

mod administer;
mod alarms;
mod auth;
mod directory;
mod files;
mod gate;
mod intake;
mod keys;
mod outbox;
mod peer;
mod run;
mod serve;
mod service;
mod signing;
pub mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use run::{Allowed, Grants, run};
