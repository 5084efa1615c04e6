//! The supervisor's side: starts twins, and makes the table of roles and actions.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::action::Action;
use super::twin::Order;
use super::{ALLOWED, LARGEST_ERRNO, Layers, NO_TARGET, NOT_SET_UP, Outcome, SIBLING, TWIN};
use crate::process::Running;
use crate::profile::Profile;

/// A twin that has not ended by then hangs, which is a result too: an error.
const TWIN_DEADLINE: Duration = Duration::from_secs(10);
/// How much of a twin's complaint is read.
const MAX_COMPLAINT: u64 = 4096;

/// How to start twins of one role.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The role's profile.
    pub profile: &'static Profile,
    /// The role's own binary; `/proc/self/fd/N` for the descriptor opened at start.
    pub binary: PathBuf,
    /// The role's uid and gid; `None` in a tree that was started without root.
    pub identity: Option<(u32, u32)>,
    /// The role's own folder, as in [`crate::ConfineOptions`].
    pub own_folder: Option<PathBuf>,
    /// The role's folders to read.
    pub read_only: Vec<PathBuf>,
}

/// What twins try their hands on; what is not given is not tried.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// A file of some account.
    pub account_file: Option<String>,
    /// The folder of the private keys.
    pub key_folder: Option<String>,
    /// A Unix socket in a folder that only its owner may enter.
    pub peer_socket: Option<String>,
    /// A process of another role, best a [`Sibling`].
    pub sibling: Option<u32>,
}

/// Why a trial has no result.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The twin could not be started or waited for.
    #[error("twin of {role}")]
    Start {
        /// Which role.
        role: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The twin says that it could not confine itself.
    #[error("twin of {role} did not get as far as trying {action}: {complaint}")]
    NotSetUp {
        /// Which role.
        role: &'static str,
        /// What it should have tried.
        action: &'static str,
        /// In its words.
        complaint: String,
    },
    /// It ended in a way that no twin ends.
    #[error("twin of {role} trying {action} ended with {status}")]
    Strange {
        /// Which role.
        role: &'static str,
        /// What it tried.
        action: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
    /// It did not end.
    #[error("twin of {role} trying {action} hung and was killed")]
    Hung {
        /// Which role.
        role: &'static str,
        /// What it tried.
        action: &'static str,
    },
}

/// One cell of the table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// The role.
    pub role: String,
    /// What was tried.
    pub action: String,
    /// The file, folder or socket it was tried on, where that is one of this machine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What came of trying one action as one role.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// Refused; by this layer first.
    Refused {
        /// `uids`, `landlock` or `seccomp`.
        by: String,
        /// The kernel's error, or SIGSYS.
        how: String,
    },
    /// The role's own work.
    Own,
    /// Allowed with all walls up: a hole. Written in capitals, as `moxctl` looks for it.
    #[serde(rename = "ALLOWED")]
    Allowed,
    /// There was nothing to try it on, or the trial failed.
    NotTried {
        /// Why.
        why: String,
    },
}

impl Trial {
    /// Starts one twin and says what the kernel did to it. Blocks for some milliseconds.
    ///
    /// # Errors
    /// The twin could not be started, set up or waited for: no statement about the walls.
    pub fn run(
        &self,
        layers: Layers,
        action: Action,
        targets: &Targets,
    ) -> Result<Outcome, TrialError> {
        let start = |source| TrialError::Start { role: self.profile.role, source };
        let mut child = self.spawn_twin(layers, action, targets).map_err(start)?;
        let ended = wait_at_most(&mut child, TWIN_DEADLINE).map_err(start)?;
        let Some(status) = ended else {
            return Err(TrialError::Hung { role: self.profile.role, action: action.as_str() });
        };
        match (status.code(), status.signal()) {
            (Some(ALLOWED), _) => Ok(Outcome::Allowed),
            (Some(NO_TARGET), _) => Ok(Outcome::NoTarget),
            (Some(errno @ 1..=LARGEST_ERRNO), _) => Ok(Outcome::Refused(errno)),
            (None, Some(libc::SIGSYS)) => Ok(Outcome::Killed),
            // A kernel without the gate of 32-bit programs.
            (None, Some(libc::SIGSEGV)) if action == Action::OtherGate => {
                Ok(Outcome::Refused(libc::ENOSYS))
            }
            (Some(NOT_SET_UP), _) => {
                let mut complaint = String::new();
                if let Some(pipe) = child.stderr.take() {
                    pipe.take(MAX_COMPLAINT).read_to_string(&mut complaint).map_err(start)?;
                }
                Err(TrialError::NotSetUp {
                    role: self.profile.role,
                    action: action.as_str(),
                    complaint: complaint.trim_end().to_owned(),
                })
            }
            (_, _) => Err(TrialError::Strange {
                role: self.profile.role,
                action: action.as_str(),
                status,
            }),
        }
    }

    /// One cell: tried with all walls, then, if refused, with fewer to see which came first.
    pub fn verdict(&self, action: Action, targets: &Targets) -> Verdict {
        if action.allowed_as_own(self.profile) {
            return Verdict::Own;
        }
        match self.first_refusal(action, targets) {
            Ok(verdict) => verdict,
            Err(error) => Verdict::NotTried { why: with_causes(&error) },
        }
    }

    fn first_refusal(&self, action: Action, targets: &Targets) -> Result<Verdict, TrialError> {
        let all = self.run(Layers::All, action, targets)?;
        match all {
            Outcome::Allowed => return Ok(Verdict::Allowed),
            Outcome::NoTarget => {
                return Ok(Verdict::NotTried { why: "nothing there to try it on".to_owned() });
            }
            Outcome::Refused(_) | Outcome::Killed => {}
        }
        for layers in [Layers::Uids, Layers::Landlock] {
            if let Outcome::Refused(errno) = self.run(layers, action, targets)? {
                return Ok(refused(layers, Outcome::Refused(errno)));
            }
        }
        Ok(refused(Layers::All, all))
    }

    /// Starts a process of this role for others to try their hands on.
    ///
    /// # Errors
    /// It could not be started or confined.
    pub fn sibling(&self) -> Result<Sibling, TrialError> {
        let start = |source| TrialError::Start { role: self.profile.role, source };
        let mut command = self.command();
        command.arg(SIBLING).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut sibling = Sibling { child: command.spawn().map_err(start)? };
        let mut byte = [0];
        let Some(out) = sibling.child.stdout.as_mut() else {
            return Err(start(std::io::Error::other("no pipe")));
        };
        // It writes when it has become what it is; its end without a word is an error.
        out.read_exact(&mut byte).map_err(start)?;
        Ok(sibling)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env_clear().current_dir("/").arg0(self.profile.role);
        if let Some((uid, gid)) = self.identity {
            crate::process::run_as(&mut command, uid, gid);
        }
        command
    }

    fn spawn_twin(
        &self,
        layers: Layers,
        action: Action,
        targets: &Targets,
    ) -> std::io::Result<Child> {
        let path = action.path_of(targets);
        let order = Order {
            role: self.profile.role.to_owned(),
            layers,
            action,
            path,
            sibling: targets.sibling,
            without_root: self.identity.is_none(),
            own_folder: self.own_folder.clone(),
            read_only: self.read_only.clone(),
        };
        self.command()
            .arg(TWIN)
            .args(order.arguments())
            .stdin(Stdio::from(read_only_file()?))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    }
}

/// A file of ours that a twin holds for reading and must not be able to write.
fn read_only_file() -> std::io::Result<OwnedFd> {
    crate::figures::read_only(crate::memfd::create("mox trial")?)
}

fn wait_at_most(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let running = Running::open(child.id())?;
    let limit = Timespec::try_from(limit).map_err(std::io::Error::other)?;
    let mut polled = [PollFd::from_borrowed_fd(running.as_fd(), PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&limit)))?;
    if ready == 0 {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    }
    child.wait().map(Some)
}

fn refused(layers: Layers, outcome: Outcome) -> Verdict {
    let how = match outcome {
        Outcome::Refused(errno) => rustix::io::Errno::from_raw_os_error(errno).to_string(),
        Outcome::Killed | Outcome::Allowed | Outcome::NoTarget => "SIGSYS".to_owned(),
    };
    Verdict::Refused { by: layers.as_str().to_owned(), how }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A process of another role; ended and waited for when dropped.
#[derive(Debug)]
pub struct Sibling {
    child: Child,
}

impl Sibling {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Sibling {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The whole table: every action as every role, each against a process of another role. Takes some
/// seconds of waiting for twins: not for a thread that has other work.
///
/// # Errors
/// A sibling could not be started. What goes wrong with single twins is in their rows.
pub fn table(trials: &[Trial], targets: &Targets) -> Result<Vec<Row>, TrialError> {
    let mut rows = Vec::with_capacity(trials.len() * Action::ALL.len());
    for (index, trial) in trials.iter().enumerate() {
        let sibling = match targets.sibling {
            Some(_) => None,
            None => Some(sibling_for(index, trials)?),
        };
        let id = targets.sibling.or(sibling.as_ref().map(Sibling::id));
        let targets = Targets { sibling: id, ..targets.clone() };
        for action in Action::ALL {
            rows.push(Row {
                role: trial.profile.role.to_owned(),
                action: action.as_str().to_owned(),
                on: action.path_of(&targets),
                verdict: trial.verdict(action, &targets),
            });
        }
    }
    Ok(rows)
}

/// A process of the next role in the list whose binary starts; a list of one role gives a second
/// process of its own.
fn sibling_for(index: usize, trials: &[Trial]) -> Result<Sibling, TrialError> {
    let (before, from) = trials.split_at(index + 1);
    let mut others = from.iter().chain(before);
    let Some(next) = others.next() else {
        return Err(TrialError::Start { role: "nobody", source: io::ErrorKind::NotFound.into() });
    };
    next.sibling().or_else(|error| others.find_map(|other| other.sibling().ok()).ok_or(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_as_moxctl_reads_them() {
        let row = |verdict| Row { role: "parser".into(), action: "fork".into(), on: None, verdict };
        let refused = Verdict::Refused { by: "uids".into(), how: "EPERM".into() };
        let not_tried = Verdict::NotTried { why: "gone".into() };
        for (verdict, json) in [
            (Verdict::Allowed, r#"{"role":"parser","action":"fork","verdict":"ALLOWED"}"#),
            (Verdict::Own, r#"{"role":"parser","action":"fork","verdict":"own"}"#),
            (
                refused,
                r#"{"role":"parser","action":"fork","verdict":"refused","by":"uids","how":"EPERM"}"#,
            ),
            (not_tried, r#"{"role":"parser","action":"fork","verdict":"not-tried","why":"gone"}"#),
        ] {
            let row = row(verdict);
            assert_eq!(serde_json::to_string(&row).unwrap(), json);
            assert_eq!(serde_json::from_str::<Row>(json).unwrap(), row);
        }
        let on = Row { on: Some("/a".into()), ..row(Verdict::Own) };
        let json = r#"{"role":"parser","action":"fork","on":"/a","verdict":"own"}"#;
        assert_eq!(serde_json::to_string(&on).unwrap(), json);
        assert_eq!(serde_json::from_str::<Row>(json).unwrap(), on);
    }
}
