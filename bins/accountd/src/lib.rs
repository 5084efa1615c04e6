//! accountd: directory, credentials and mail. See `main.rs` for the process's page.

#![forbid(unsafe_code)]

mod auth;
mod directory;
mod files;
mod peer;
pub mod store;
