//! What confinement achieved, layer by layer: for the log, `moxctl processes` and `[sandbox] require`.

use std::fmt;
use std::str::FromStr;

/// A wall around a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// A uid of its own, so that the kernel keeps roles apart.
    Uid,
    /// No capability in any set that could be used.
    Capabilities,
    /// Nor could an exec give one.
    BoundingSet,
    /// No core file, no ptrace or /proc/PID/mem by the same uid.
    NonDumpable,
    /// Killed when the supervisor dies.
    ParentDeath,
    /// Open files, memory, file size, CPU.
    Rlimits,
    /// A bound on the threads of the role's uid.
    Threads,
    /// No set-uid program gives anything.
    NoNewPrivs,
    /// Files, TCP, signals.
    Landlock,
    /// System calls.
    Seccomp,
}

impl Layer {
    /// All layers, in the order they are put up.
    pub const ALL: [Layer; 10] = [
        Layer::Uid,
        Layer::Capabilities,
        Layer::BoundingSet,
        Layer::NonDumpable,
        Layer::ParentDeath,
        Layer::Rlimits,
        Layer::Threads,
        Layer::NoNewPrivs,
        Layer::Landlock,
        Layer::Seccomp,
    ];

    /// The name in the configuration and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Layer::Uid => "uid",
            Layer::Capabilities => "capabilities",
            Layer::BoundingSet => "bounding-set",
            Layer::NonDumpable => "non-dumpable",
            Layer::ParentDeath => "parent-death",
            Layer::Rlimits => "rlimits",
            Layer::Threads => "threads",
            Layer::NoNewPrivs => "no-new-privs",
            Layer::Landlock => "landlock",
            Layer::Seccomp => "seccomp",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `[sandbox] require` names a layer that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no sandbox layer is called {0:?}")]
pub struct UnknownLayer(pub String);

impl FromStr for Layer {
    type Err = UnknownLayer;

    fn from_str(name: &str) -> Result<Self, UnknownLayer> {
        Layer::ALL
            .into_iter()
            .find(|layer| layer.as_str() == name)
            .ok_or_else(|| UnknownLayer(name.to_owned()))
    }
}

/// Whether a layer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerState {
    /// All of it.
    Enforced,
    /// It stands, with a gap that is named.
    Partly(String),
    /// It does not, for the reason given.
    Missing(String),
}

/// The result of confinement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The role.
    pub role: &'static str,
    /// Each layer once, in the order of [`Layer::ALL`].
    pub layers: Vec<(Layer, LayerState)>,
}

impl Report {
    pub(crate) fn new(role: &'static str) -> Self {
        Report { role, layers: Vec::with_capacity(Layer::ALL.len()) }
    }

    pub(crate) fn push(&mut self, layer: Layer, state: LayerState) {
        self.layers.push((layer, state));
    }

    /// How a layer stands; a layer that was not put up is missing.
    pub fn state(&self, layer: Layer) -> LayerState {
        self.layers.iter().find(|(which, _)| *which == layer).map_or_else(
            || LayerState::Missing("not put up".to_owned()),
            |(_, state)| state.clone(),
        )
    }

    /// Whether no layer is missing. A partial one counts as standing: Debian 12's kernel knows
    /// only the first half of Landlock, and no claim rests on Landlock alone.
    pub fn complete(&self) -> bool {
        Layer::ALL.into_iter().all(|layer| !matches!(self.state(layer), LayerState::Missing(_)))
    }
}

impl fmt::Display for Report {
    /// One line for the log: what stands, then each gap with its reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} confined:", self.role)?;
        for (layer, state) in &self.layers {
            match state {
                LayerState::Enforced => write!(f, " {layer}")?,
                LayerState::Partly(gap) => write!(f, " {layer} (partly: {gap})")?,
                LayerState::Missing(why) => write!(f, " NO {layer} ({why})")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for layer in Layer::ALL {
            assert_eq!(layer.as_str().parse::<Layer>().unwrap(), layer);
        }
        assert!("chroot".parse::<Layer>().is_err());
    }

    #[test]
    fn what_was_not_put_up_is_missing() {
        let mut report = Report::new("parser");
        report.push(Layer::Seccomp, LayerState::Enforced);
        assert_eq!(report.state(Layer::Seccomp), LayerState::Enforced);
        assert!(matches!(report.state(Layer::Uid), LayerState::Missing(_)));
        assert!(!report.complete());
    }
}
