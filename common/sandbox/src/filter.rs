//! Turns a profile into kernel filters and installs them.
//!
//! Two filters, because one has one action for what it lists and one for the rest: the first
//! answers clone3 with ENOSYS and lets all else pass, the second is the allow-list. In that order:
//! installing calls prctl and seccomp itself, which the list does not hold.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::confine::Breach;
use crate::profile::{Arg, Profile, Test};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct FilterError {
    step: &'static str,
    #[source]
    source: seccompiler::Error,
}

impl FilterError {
    fn at(step: &'static str) -> impl Fn(seccompiler::BackendError) -> FilterError {
        move |error| FilterError { step, source: seccompiler::Error::Backend(error) }
    }
}

pub(crate) fn install(profile: &Profile, breach: Breach) -> Result<(), FilterError> {
    let first = no_clone3()?;
    let second = allow_list(profile, breach)?;
    for program in [first, second] {
        seccompiler::apply_filter(&program)
            .map_err(|source| FilterError { step: "install", source })?;
    }
    Ok(())
}

fn no_clone3() -> Result<BpfProgram, FilterError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    program(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()))
}

pub(crate) fn allow_list(profile: &Profile, breach: Breach) -> Result<BpfProgram, FilterError> {
    // None: a group allows the call with any argument, whatever rules another group has for it.
    let mut merged: BTreeMap<i64, Option<Vec<&'static [Arg]>>> = BTreeMap::new();
    for call in profile.calls() {
        let entry = merged.entry(call.nr).or_insert_with(|| Some(Vec::new()));
        if call.rules.is_empty() {
            *entry = None;
        } else if let Some(rules) = entry {
            rules.extend_from_slice(call.rules);
        }
    }
    let own_pid = std::process::id();
    let mut rules = BTreeMap::new();
    for (nr, alternatives) in merged {
        let alternatives = alternatives
            .unwrap_or_default()
            .into_iter()
            .map(|tests| rule(tests, own_pid))
            .collect::<Result<Vec<_>, _>>()?;
        rules.insert(nr, alternatives);
    }
    let breach = match breach {
        Breach::Kill => SeccompAction::KillProcess,
        Breach::Trap => SeccompAction::Trap,
    };
    program(rules, breach, SeccompAction::Allow)
}

fn rule(tests: &[Arg], own_pid: u32) -> Result<SeccompRule, FilterError> {
    let conditions = tests
        .iter()
        .map(|arg| {
            let (length, operator, value) = match arg.test {
                Test::Is(value) => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value),
                Test::Masked { mask, value } => {
                    (SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask.into()), value)
                }
                Test::Null => (SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0),
                Test::OwnPid => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own_pid),
            };
            SeccompCondition::new(arg.index, length, operator, value.into())
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(FilterError::at("a condition"))?;
    SeccompRule::new(conditions).map_err(FilterError::at("a rule"))
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    unlisted: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(FilterError::at("this architecture"))?;
    SeccompFilter::new(rules, unlisted, listed, arch)
        .and_then(BpfProgram::try_from)
        .map_err(FilterError::at("compile"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profiles;

    #[test]
    fn every_profile_compiles_within_the_kernels_bound() {
        const BPF_MAXINSNS: usize = 4096;
        for profile in profiles::ALL {
            let program = allow_list(profile, Breach::Kill).unwrap();
            assert!(program.len() < BPF_MAXINSNS / 2, "{}: {}", profile.role, program.len());
        }
    }

    #[test]
    fn clone3_is_always_behind_the_first_filter() {
        assert!(!no_clone3().unwrap().is_empty());
    }
}
