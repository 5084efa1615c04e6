//! Puts the walls up, in the one order that works.
//!
//! The supervisor has done setgroups, setgid and setuid between fork and exec, under its own
//! `no_new_privs`. Here, after exec, before any thread and before any input:
//! look that no privilege is left; bounding set; non-dumpable (exec sets it back, so not earlier);
//! death with the parent (setuid clears it, so not earlier) and then a look whether the parent is
//! still the supervisor; rlimits; no_new_privs; Landlock (per thread: a thread made before would
//! stay free); seccomp last, since its list holds none of the calls above.

use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, Signal};

use crate::profile::{Folders, Profile};
use crate::report::{Layer, LayerState, Report};
use crate::{filter, folders, process, trap};

/// What the supervisor tells a role about its walls.
#[derive(Debug, Clone, Default)]
pub struct ConfineOptions {
    /// The role's own folder, to read and write ([`Folders::Own`]).
    pub own_folder: Option<PathBuf>,
    /// Folders to read ([`Folders::ReadOnly`]).
    pub read_only: Vec<PathBuf>,
    /// The tree was started without root: all roles share one uid, and a bound on its threads
    /// would count the user's other programs.
    pub without_root: bool,
    /// The supervisor's process id, from the first message: if the parent is another one by now,
    /// the supervisor died before the kernel was told to end us with it.
    pub supervisor: Option<u32>,
    /// What happens on a call that is not listed.
    pub breach: Breach,
    /// Layers without which the role must not run (`[sandbox] require`).
    pub require: Vec<Layer>,
}

/// What a system call outside the profile does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Breach {
    /// The kernel kills the process with SIGSYS and writes an audit line with the call's number.
    #[default]
    Kill,
    /// A handler prints the call's number and ends the process with [`crate::trial::TRAPPED`]. For tests: a
    /// process under attack could replace the handler.
    Trap,
}

/// Why a role must not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfineError {
    /// More than one thread: Landlock and seccomp would hold only this one.
    #[error("{0} threads run already; confinement must come before the first one")]
    Threads(usize),
    /// It could not be found out how many threads there are.
    #[error("the threads of this process cannot be counted under /proc")]
    Proc(#[source] std::io::Error),
    /// uid or gid 0, real, effective or saved.
    #[error("refuses to run as root (uid {uid}, gid {gid})")]
    Root {
        /// A uid, 0 if that is the offence.
        uid: u32,
        /// A gid, 0 if that is the offence.
        gid: u32,
    },
    /// A capability is left.
    #[error("refuses to run with capabilities ({0})")]
    Capabilities(String),
    /// The supervisor is gone.
    #[error("the supervisor (process {expected}) is gone, the parent is {found}")]
    SupervisorGone {
        /// Who started us.
        expected: u32,
        /// Who is the parent now.
        found: u32,
    },
    /// The options do not fit the profile.
    #[error("role {role}: {what}")]
    Folder {
        /// The role.
        role: &'static str,
        /// What does not fit.
        what: &'static str,
    },
    /// A step that always works failed.
    #[error("{step} failed")]
    Step {
        /// Which step.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// Landlock is there and refused the rules.
    #[error("Landlock refused the rules of {role}")]
    Landlock {
        /// The role.
        role: &'static str,
        /// What it said.
        #[source]
        source: landlock::RulesetError,
    },
    /// A folder that was given cannot be opened.
    #[error("cannot open the folder {path}")]
    OpenFolder {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: landlock::PathFdError,
    },
    /// The filter could not be made or installed.
    #[error("seccomp filter")]
    Seccomp(#[from] filter::FilterError),
    /// A layer of `[sandbox] require` does not stand.
    #[error("the required layer {layer} does not stand: {why}")]
    Required {
        /// Which.
        layer: Layer,
        /// Why it does not stand.
        why: String,
    },
}

/// Which of the last two walls to put up; only a twin leaves any out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walls {
    pub(crate) landlock: bool,
    pub(crate) seccomp: bool,
}

/// Confines this process to the profile for the rest of its life.
///
/// # Errors
/// The role must not run: it has privileges or threads, a step failed that works on every kernel,
/// or a required layer does not stand whole. Another layer that this kernel lacks is no error, but in the report.
pub fn confine(profile: &Profile, options: &ConfineOptions) -> Result<Report, ConfineError> {
    apply(profile, options, Walls { landlock: true, seccomp: true })
}

/// Makes rustix look for the vDSO now, once for the whole process: its first clock_gettime asks the
/// kernel for the auxiliary vector by a prctl that no role needs afterwards.
fn find_vdso() {
    let _ = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
}

pub(crate) fn apply(
    profile: &Profile,
    options: &ConfineOptions,
    walls: Walls,
) -> Result<Report, ConfineError> {
    check_folders(profile, options)?;
    let threads = process::threads().map_err(ConfineError::Proc)?;
    if threads != 1 {
        return Err(ConfineError::Threads(threads));
    }

    find_vdso();
    let mut report = Report::new(profile.role);
    refuse_privilege()?;
    report.push(
        Layer::Uid,
        if options.without_root {
            LayerState::Missing("started without root: all processes share one uid".to_owned())
        } else {
            LayerState::Enforced
        },
    );
    report.push(Layer::Capabilities, LayerState::Enforced);
    report.push(Layer::BoundingSet, empty_bounding_set());

    step("set the process's name", process::set_name(profile.role))?;
    step(
        "become non-dumpable",
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable),
    )?;
    report.push(Layer::NonDumpable, LayerState::Enforced);
    report.push(Layer::ParentDeath, die_with_supervisor(options.supervisor)?);
    set_limits(profile, options, &mut report)?;
    step("set no_new_privs", rustix::thread::set_no_new_privs(true))?;
    report.push(Layer::NoNewPrivs, LayerState::Enforced);
    if !profile.lists("openat") {
        process::one_arena();
    }

    if walls.landlock {
        report.push(Layer::Landlock, folders::restrict(profile, options)?);
    }
    if walls.seccomp {
        // Asked before the filter stands: a kernel without seccomp answers EINVAL here.
        let supported = rustix::thread::secure_computing_mode();
        let state = match supported {
            Ok(_) => {
                // What is missing must be said while it still can be, and what is required
                // refused before the list makes reporting harder.
                require(options, &report, &[Layer::Seccomp])?;
                if options.breach == Breach::Trap {
                    trap::install()?;
                }
                filter::install(profile, options.breach)?;
                LayerState::Enforced
            }
            Err(errno) => LayerState::Missing(format!("this kernel has no seccomp: {errno}")),
        };
        report.push(Layer::Seccomp, state);
    }
    if walls.landlock && walls.seccomp {
        require(options, &report, &[])?;
    }
    Ok(report)
}

/// Refuses if a required layer does not stand whole, those in `later` excepted. Who requires one
/// that this machine can only put up in part is to know that, and not to rely on the rest.
fn require(options: &ConfineOptions, report: &Report, later: &[Layer]) -> Result<(), ConfineError> {
    for layer in options.require.iter().copied().filter(|layer| !later.contains(layer)) {
        let why = match report.state(layer) {
            LayerState::Enforced => continue,
            LayerState::Partly(gap) => format!("only part of it: {gap}"),
            LayerState::Missing(why) => why,
        };
        return Err(ConfineError::Required { layer, why });
    }
    Ok(())
}

fn step<T>(step: &'static str, result: Result<T, Errno>) -> Result<T, ConfineError> {
    result.map_err(|errno| ConfineError::Step { step, source: errno.into() })
}

fn check_folders(profile: &Profile, options: &ConfineOptions) -> Result<(), ConfineError> {
    let what = match profile.folders {
        Folders::Own if options.own_folder.is_none() => "owns a folder and was given none",
        Folders::None | Folders::ReadOnly if options.own_folder.is_some() => {
            "owns no folder and was given one"
        }
        Folders::None | Folders::Own if !options.read_only.is_empty() => {
            "reads no folders and was given some"
        }
        Folders::None | Folders::Own | Folders::ReadOnly => return Ok(()),
    };
    Err(ConfineError::Folder { role: profile.role, what })
}

/// The supervisor gave the ids; this looks whether it did. All three of each: a saved id of 0 is a
/// way back.
fn refuse_privilege() -> Result<(), ConfineError> {
    let uids = nix::unistd::getresuid();
    let gids = nix::unistd::getresgid();
    let (uids, gids) = match (uids, gids) {
        (Ok(uids), Ok(gids)) => (uids, gids),
        (Err(errno), _) | (_, Err(errno)) => {
            return Err(ConfineError::Step { step: "read the user ids", source: errno.into() });
        }
    };
    let least = |ids: [u32; 3]| ids.into_iter().min().unwrap_or(0);
    let uid = least([uids.real.as_raw(), uids.effective.as_raw(), uids.saved.as_raw()]);
    let gid = least([gids.real.as_raw(), gids.effective.as_raw(), gids.saved.as_raw()]);
    if uid == 0 || gid == 0 {
        return Err(ConfineError::Root { uid, gid });
    }
    let groups = nix::unistd::getgroups()
        .map_err(|errno| ConfineError::Step { step: "read the groups", source: errno.into() })?;
    if groups.iter().any(|group| group.as_raw() == 0) {
        return Err(ConfineError::Root { uid, gid: 0 });
    }
    let sets = [
        caps::CapSet::Permitted,
        caps::CapSet::Effective,
        caps::CapSet::Inheritable,
        caps::CapSet::Ambient,
    ];
    for set in sets {
        let left = caps::read(None, set).map_err(|error| ConfineError::Step {
            step: "read the capability sets",
            source: std::io::Error::other(error),
        })?;
        if !left.is_empty() {
            return Err(ConfineError::Capabilities(format!("{set:?} {left:?}")));
        }
    }
    Ok(())
}

/// Dropping from the bounding set needs CAP_SETPCAP, which is gone with the uid; so it is emptied
/// before that ([`process::run_as`]). Started without root nobody may: then what is left in it could
/// be gained only by executing a file that gives it, which `no_new_privs` forbids.
fn empty_bounding_set() -> LayerState {
    let mut left = 0;
    for capability in caps::all() {
        if caps::has_cap(None, caps::CapSet::Bounding, capability).unwrap_or(false)
            && caps::drop(None, caps::CapSet::Bounding, capability).is_err()
        {
            left += 1;
        }
    }
    if left == 0 {
        LayerState::Enforced
    } else {
        LayerState::Partly(format!("{left} stay in it, out of reach under no_new_privs"))
    }
}

fn die_with_supervisor(supervisor: Option<u32>) -> Result<LayerState, ConfineError> {
    step(
        "ask to die with the supervisor",
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)),
    )?;
    let Some(expected) = supervisor else {
        return Ok(LayerState::Partly("the supervisor's id was not given".to_owned()));
    };
    // The supervisor may have died between the fork and the line above; then no signal comes.
    let found = Pid::as_raw(rustix::process::getppid()).cast_unsigned();
    if found != expected {
        return Err(ConfineError::SupervisorGone { expected, found });
    }
    Ok(LayerState::Enforced)
}

fn set_limits(
    profile: &Profile,
    options: &ConfineOptions,
    report: &mut Report,
) -> Result<(), ConfineError> {
    let limits = &profile.limits;
    let wanted = [
        (Resource::Core, Some(0)),
        (Resource::Nofile, Some(limits.open_files)),
        (Resource::Data, Some(limits.memory)),
        (Resource::Fsize, limits.file_size),
        (Resource::Cpu, limits.cpu_seconds),
    ];
    for (resource, limit) in wanted {
        if let Some(limit) = limit {
            limit_both(resource, limit)?;
        }
    }
    if limits.file_size.is_some() {
        // A log file that is full must cost lines, not the process: a stranger decides how much
        // there is to log.
        process::ignore_full_files();
    }
    report.push(Layer::Rlimits, LayerState::Enforced);
    report.push(
        Layer::Threads,
        if options.without_root {
            LayerState::Missing("the limit would count the user's other programs".to_owned())
        } else {
            limit_both(Resource::Nproc, limits.threads)?;
            LayerState::Enforced
        },
    );
    Ok(())
}

/// Sets soft and hard limit to `limit`, or to the hard limit in force where that is lower: raising
/// it would need a capability. A lower one is less to work with and no less of a wall.
fn limit_both(resource: Resource, limit: u64) -> Result<(), ConfineError> {
    let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let set = limit.min(hard);
    step(
        "set a resource limit",
        rustix::process::setrlimit(resource, Rlimit { current: Some(set), maximum: Some(set) }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profiles;

    #[test]
    fn folders_must_fit_the_profile() {
        let with = |own: bool, read: bool| ConfineOptions {
            own_folder: own.then(|| "/tmp".into()),
            read_only: if read { vec!["/tmp".into()] } else { Vec::new() },
            ..ConfineOptions::default()
        };
        let fits = |profile, own, read| check_folders(profile, &with(own, read)).is_ok();
        assert!(fits(&profiles::PARSER, false, false));
        assert!(!fits(&profiles::PARSER, true, false));
        assert!(!fits(&profiles::PARSER, false, true));
        assert!(fits(&profiles::ACCOUNTD, true, false));
        assert!(!fits(&profiles::ACCOUNTD, false, false));
        assert!(!fits(&profiles::ACCOUNTD, true, true));
        assert!(fits(&profiles::HTTPD_WEB, false, true));
        assert!(fits(&profiles::HTTPD_WEB, false, false));
        assert!(!fits(&profiles::HTTPD_WEB, true, false));
    }

    #[test]
    fn a_process_with_threads_is_refused_and_left_as_it_was() {
        // libtest has at least two.
        let refused = confine(&profiles::PARSER, &ConfineOptions::default()).unwrap_err();
        assert!(matches!(refused, ConfineError::Threads(2..)), "{refused}");
        assert!(!rustix::thread::no_new_privs().unwrap());
    }

    #[test]
    fn what_is_required_and_does_not_stand_is_named() {
        let mut report = Report::new("parser");
        report.push(Layer::Landlock, LayerState::Missing("not built in".to_owned()));
        report.push(Layer::Uid, LayerState::Partly("a gap".to_owned()));
        report.push(Layer::Rlimits, LayerState::Enforced);
        let options = ConfineOptions {
            require: vec![Layer::Uid, Layer::Landlock, Layer::Seccomp],
            ..ConfineOptions::default()
        };
        let error = require(&options, &report, &[Layer::Seccomp]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the required layer uid does not stand: only part of it: a gap"
        );
        let options = ConfineOptions { require: vec![Layer::Seccomp, Layer::Landlock], ..options };
        let error = require(&options, &report, &[Layer::Seccomp]).unwrap_err();
        assert_eq!(error.to_string(), "the required layer landlock does not stand: not built in");
        let options = ConfineOptions { require: vec![Layer::Rlimits, Layer::Seccomp], ..options };
        assert!(require(&options, &report, &[Layer::Seccomp]).is_ok());
    }
}
