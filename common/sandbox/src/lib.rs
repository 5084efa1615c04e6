//! Confinement of a process: uid, capabilities, rlimits, Landlock, seccomp; descriptors and shared memory. The only crate with unsafe code.
//!
//! What it is: a process's rights as *data* ([`Profile`], one constant per role under
//! [`profiles`]), one function that applies them in the one order that works ([`confine`]), the
//! passing of descriptors ([`channel`]), sealed memory ([`memfd`], [`figures`]) and the machinery
//! that proves on the running machine that the walls stand ([`trial`]).
//!
//! What it is not: a launcher. The supervisor starts a role with
//! `std::process::Command::new("/proc/self/fd/N").uid(..).gid(..)`; std does setgroups, setgid and
//! setuid between fork and exec, and the child arrives here without a capability. `confine` does
//! not believe that: it looks, and refuses to go on with uid 0 or with any capability.
//!
//! ```no_run
//! use sandbox::{ConfineOptions, confine, profiles};
//!
//! # fn main() -> Result<(), sandbox::ConfineError> {
//! let report = confine(&profiles::PARSER, &ConfineOptions::default())?;
//! assert!(report.complete());
//! # Ok(()) }
//! ```
//!
//! Before `confine` a role does what its list no longer allows afterwards: reads its files that
//! lie outside its folder, asks `available_parallelism` (which opens files under /proc), and draws
//! its first random bytes from aws-lc (which opens /dev/sysgenid once).

mod confine;
mod filter;
mod folders;
mod frames;
mod report;
mod trap;

pub mod channel;
pub mod figures;
pub mod groups;
pub mod memfd;
pub mod process;
pub mod profile;
pub mod profiles;
pub mod trial;

pub use confine::{Breach, ConfineError, ConfineOptions, confine};
pub use frames::frames;
pub use profile::{Arg, Call, Folders, Grant, Group, Limits, Profile, Tcp, Test};
pub use report::{Layer, LayerState, Report, UnknownLayer};
