//! Tries the walls on the running machine: what `moxctl confine test` and `tests/privsep` ask.
//!
//! For each role and each forbidden [`Action`] a *twin* is started: the role's own binary, under
//! its uid, with its profile, told by a hidden argument to confine itself, try one thing and exit
//! with a code that says what the kernel did. Not a fork of a running process: that would carry
//! its threads' locks and its secrets. A new twin each time, since seccomp kills it.
//!
//! Each action is tried under the uid alone, with Landlock added, and with everything, so that the
//! table tells which wall holds and how many more stand behind it. A role's own work is shown as
//! own, never as a hole; anything else that is allowed with all walls up is a hole.

mod action;
mod calls;
mod table;
mod twin;

pub use action::Action;
pub use table::{Row, Sibling, Targets, Trial, TrialError, Verdict, table};
pub use twin::run_if_twin;

use std::str::FromStr;

/// Exit code of a process whose profile lacked a call, under [`crate::Breach::Trap`].
pub const TRAPPED: i32 = 252;

/// A twin's exit codes; 1 to 199 are the number of the kernel's error. 0 is not among them, so
/// that no accident looks like a result.
const ALLOWED: i32 = 250;
const NO_TARGET: i32 = 253;
const NOT_SET_UP: i32 = 251;
const LARGEST_ERRNO: i32 = 199;

/// First argument of a twin.
const TWIN: &str = "--twin";
/// First argument of a twin that only waits, for others to try their hands on.
const SIBLING: &str = "--twin-sibling";
/// First argument of what a twin executes: being started is the result.
const REACHED: &str = "--twin-reached";
/// In place of an argument that a twin does not have.
const NONE: &str = "-";

/// Which walls a twin puts up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layers {
    /// Its uid, no capabilities, limits.
    Uids,
    /// And Landlock.
    Landlock,
    /// And seccomp: as in service.
    All,
}

impl Layers {
    /// All, the weakest first.
    pub const ALL: [Layers; 3] = [Layers::Uids, Layers::Landlock, Layers::All];

    /// The name of what this step adds.
    pub fn as_str(self) -> &'static str {
        match self {
            Layers::Uids => "uids",
            Layers::Landlock => "landlock",
            Layers::All => "seccomp",
        }
    }
}

/// Not a step of the trial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no layer or action is called {0:?}")]
pub struct UnknownName(pub String);

impl FromStr for Layers {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Layers::ALL
            .into_iter()
            .find(|layers| layers.as_str() == name)
            .ok_or_else(|| UnknownName(name.to_owned()))
    }
}

/// What the kernel did to one twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It let it do the thing.
    Allowed,
    /// It refused with this error.
    Refused(i32),
    /// It killed it by SIGSYS.
    Killed,
    /// There was nothing to try it on (no such file).
    NoTarget,
}
