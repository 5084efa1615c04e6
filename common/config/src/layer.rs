//! The walls around a process by name: what `[sandbox] require` may ask for. The same that
//! `moxctl processes` shows; this crate knows none of their insides.

/// A wall around a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// A uid for each role.
    Uid,
    /// No capability.
    Capabilities,
    /// Nor could an exec give one.
    BoundingSet,
    /// No core file, no ptrace.
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
    /// All of them, by name.
    pub const ALL: [(&'static str, Layer); 10] = [
        ("uid", Layer::Uid),
        ("capabilities", Layer::Capabilities),
        ("bounding-set", Layer::BoundingSet),
        ("non-dumpable", Layer::NonDumpable),
        ("parent-death", Layer::ParentDeath),
        ("rlimits", Layer::Rlimits),
        ("threads", Layer::Threads),
        ("no-new-privs", Layer::NoNewPrivs),
        ("landlock", Layer::Landlock),
        ("seccomp", Layer::Seccomp),
    ];
}
