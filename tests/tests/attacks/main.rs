//! Attacks on the running server: as a stranger, as a user, as another user of the machine, and as
//! the kernel that stops a process of ours for a while. Each stands for a lesson of
//! docs/lessons.md or a line of docs/threat-model.md.

#![expect(clippy::unwrap_used, reason = "tests")]

mod costly;
mod handshakes;
mod local;
mod revocation;
mod smuggling;
mod stopped;
mod users;
mod web;

/// The account of a development server.
const USER: &str = "mox@localhost";
const PASSWORD: &str = "moxmoxmox";
