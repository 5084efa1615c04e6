//! Landlock: the second wall, for files, TCP and signals.
//!
//! Debian 12's kernel knows its first half only (no TCP, no signals), so nothing the threat model
//! claims rests on it alone; seccomp without `openat` and the uids hold what it would.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope, make_bitflags,
};

use crate::confine::{ConfineError, ConfineOptions};
use crate::profile::{Folders, Profile, Tcp};
use crate::report::LayerState;

/// The newest interface these rules were tried on.
const TRIED: ABI = ABI::V7;

/// In its own folder a role makes, changes, renames and removes files and folders; it executes
/// nothing and makes no device, socket, pipe or link.
fn own() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir
            | Refer
    })
}

fn read_only() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir})
}

pub(crate) fn restrict(
    profile: &Profile,
    options: &ConfineOptions,
) -> Result<LayerState, ConfineError> {
    let refused = |source: RulesetError| ConfineError::Landlock { role: profile.role, source };
    let mut granted = Vec::new();
    match profile.folders {
        Folders::None => {}
        Folders::Own => {
            if let Some(folder) = &options.own_folder {
                granted.push((open(folder)?, own()));
            }
        }
        Folders::ReadOnly => {
            for folder in &options.read_only {
                granted.push((open(folder)?, read_only()));
            }
        }
    }

    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TRIED))
        .and_then(|rules| rules.scope(Scope::from_all(TRIED)))
        .and_then(|rules| rules.handle_access(AccessNet::BindTcp))
        .map_err(refused)?;
    if profile.tcp == Tcp::None {
        rules = rules.handle_access(AccessNet::ConnectTcp).map_err(refused)?;
    }
    let mut rules = rules.create().map_err(refused)?;
    if profile.tcp == Tcp::Outgoing {
        // Port 0 is the kernel's choice of a port: a source address may be bound, a service not.
        rules = rules.add_rule(NetPort::new(0, AccessNet::BindTcp)).map_err(refused)?;
    }
    for (folder, access) in granted {
        rules = rules.add_rule(PathBeneath::new(folder, access)).map_err(refused)?;
    }
    let status = rules.restrict_self().map_err(refused)?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => LayerState::Enforced,
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            LayerState::Partly(gap(effective_abi))
        }
        (RulesetStatus::PartiallyEnforced, _) => LayerState::Partly("an old kernel".to_owned()),
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            LayerState::Missing("switched off when this kernel was started".to_owned())
        }
        (RulesetStatus::NotEnforced, _) => {
            LayerState::Missing("not built into this kernel".to_owned())
        }
    })
}

fn open(folder: &Path) -> Result<PathFd, ConfineError> {
    PathFd::new(folder)
        .map_err(|source| ConfineError::OpenFolder { path: folder.to_owned(), source })
}

/// What a kernel of this age leaves open.
fn gap(abi: ABI) -> String {
    let mut open = Vec::new();
    for (since, what) in [
        (ABI::V2, "moving files between folders"),
        (ABI::V3, "truncating"),
        (ABI::V4, "TCP"),
        (ABI::V5, "ioctl on devices"),
        (ABI::V6, "signals and abstract sockets"),
    ] {
        if abi < since {
            open.push(what);
        }
    }
    format!("this kernel does not restrict {}", open.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_of_debian_12_is_named() {
        let gap = gap(ABI::V2);
        assert!(gap.contains("TCP") && gap.contains("truncating") && !gap.contains("moving"));
    }

    #[test]
    fn nothing_may_be_executed() {
        assert!(!own().contains(AccessFs::Execute) && !read_only().contains(AccessFs::Execute));
    }
}
