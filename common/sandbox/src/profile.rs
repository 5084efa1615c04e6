//! What a role may ask of the kernel, as plain data.
//!
//! Data rather than code, so that `moxctl processes` can print a role's rights with the reason
//! beside each, a test can compare them with what a running process shows under /proc, and a twin
//! can be linked with a profile that lacks one rule to prove that the test would see it.

/// Everything one role may do. One constant per role, under [`crate::profiles`].
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// The role's name, as the log, `ps` and the configuration say it.
    pub role: &'static str,
    /// The system calls, in groups; a call that no group lists ends the process.
    pub grants: &'static [Grant],
    /// Resource limits, set so that the process cannot raise them.
    pub limits: Limits,
    /// Which files Landlock leaves reachable.
    pub folders: Folders,
    /// Which TCP operations Landlock leaves (kernels from 6.7).
    pub tcp: Tcp,
}

/// One group of calls given to one role, with the reason that this role needs it.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// The calls.
    pub group: &'static Group,
    /// Why this role has them.
    pub why: &'static str,
}

/// System calls that are needed together, for one reason.
#[derive(Debug)]
pub struct Group {
    /// Short name, for tables.
    pub name: &'static str,
    /// What a process does with them.
    pub why: &'static str,
    /// The calls.
    pub calls: &'static [Call],
}

/// One system call, and the arguments it may be made with.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub(crate) constant: &'static str,
    /// Number on this architecture.
    pub nr: i64,
    /// Any one of these rules allows the call, a rule holds when all its tests do. No rule at
    /// all: every argument is allowed.
    pub rules: &'static [&'static [Arg]],
}

impl Call {
    /// A call with any arguments, by name and number. The groups of this crate use rules where
    /// arguments matter; this is for twins that are weak on purpose.
    pub const fn with_any_arguments(name: &'static str, nr: i64) -> Self {
        Call { constant: name, nr, rules: &[] }
    }

    /// The call's name as strace prints it.
    pub fn name(&self) -> &'static str {
        self.constant.strip_prefix("SYS_").unwrap_or(self.constant)
    }
}

/// A test of one argument.
#[derive(Debug, Clone, Copy)]
pub struct Arg {
    /// 0 to 5.
    pub index: u8,
    /// What it must be.
    pub test: Test,
}

/// What an argument must be. The kernel's filter sees numbers, never what a pointer points at.
#[derive(Debug, Clone, Copy)]
pub enum Test {
    /// Its low 32 bits are this. The calls we test take an int there, so the kernel itself
    /// ignores the upper half.
    Is(u32),
    /// Its low 32 bits under the mask are this.
    Masked {
        /// The bits that are looked at.
        mask: u32,
        /// Their value.
        value: u32,
    },
    /// All 64 bits are zero: no pointer.
    Null,
    /// This process's own id: it may signal itself (abort), never a sibling that runs under the
    /// same uid because the tree was started without root.
    OwnPid,
}

/// Resource limits, soft and hard alike. Core files are always 0: they would hold mail and keys.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `RLIMIT_NOFILE`.
    pub open_files: u64,
    /// `RLIMIT_DATA`, bytes of private writable memory. Not `RLIMIT_AS`: malloc and thread stacks
    /// reserve address space that is never touched, and a bound on that says nothing.
    pub memory: u64,
    /// `RLIMIT_FSIZE` where a role writes nothing but its log; its log file is the floor.
    pub file_size: Option<u64>,
    /// `RLIMIT_NPROC`: all threads of all instances of the role together, for two generations
    /// during an upgrade, plus its twins. Never 0: tokio's first blocking task would panic.
    pub threads: u64,
    /// `RLIMIT_CPU`, seconds of a whole life.
    pub cpu_seconds: Option<u64>,
}

/// Which files a role reaches by name. Nobody may execute any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folders {
    /// None at all.
    None,
    /// Its own folder, to read and write.
    Own,
    /// The folders it is given, to read.
    ReadOnly,
}

/// Which TCP operations a role has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tcp {
    /// Neither bind nor connect. Accepting on an inherited listener goes on.
    None,
    /// Connect anywhere; bind to a source address without choosing the port.
    Outgoing,
}

impl Profile {
    /// All calls of all groups, as they were written; a call may appear more than once.
    pub fn calls(&self) -> impl Iterator<Item = &'static Call> {
        self.grants.iter().flat_map(|grant| grant.group.calls.iter())
    }

    /// Whether the call is listed at all, with whatever arguments.
    pub fn lists(&self, name: &str) -> bool {
        self.calls().any(|call| call.name() == name)
    }
}

/// The argument is this number.
pub(crate) const fn is(index: u8, value: i32) -> Arg {
    Arg { index, test: Test::Is(value.cast_unsigned()) }
}

/// The argument's bits under the mask are this number.
pub(crate) const fn masked(index: u8, mask: i32, value: i32) -> Arg {
    Arg { index, test: Test::Masked { mask: mask.cast_unsigned(), value: value.cast_unsigned() } }
}

/// `sys!(SYS_read)`, or with rules `sys!(SYS_fcntl: [is(1, F_GETFL)], [is(1, F_SETFL)])`.
macro_rules! sys {
    ($call:ident) => {
        $crate::profile::Call { constant: stringify!($call), nr: libc::$call, rules: &[] }
    };
    ($call:ident : $([$($arg:expr),+ $(,)?]),+ $(,)?) => {
        $crate::profile::Call {
            constant: stringify!($call),
            nr: libc::$call,
            rules: &[$(&[$($arg),+]),+],
        }
    };
}
pub(crate) use sys;
