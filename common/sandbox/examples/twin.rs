//! For the tests of `sandbox::trial`: a binary with every role, and some with a hole in them.
//!
//! Each `weak-*` role is a true one plus what its profile must not have; the table of a trial must
//! show the hole, or the trial proves nothing.

#![forbid(unsafe_code)]

use sandbox::{Call, Folders, Grant, Group, Limits, Profile, Tcp, groups, profiles};

static EXECUTABLE: Group = Group {
    name: "a hole",
    why: "mmap without the rule that nothing is executable",
    calls: &[Call::with_any_arguments("mmap", libc_numbers::MMAP)],
};
static SOCKETS: Group = Group {
    name: "a hole",
    why: "any socket, connected to anything",
    calls: &[
        Call::with_any_arguments("socket", libc_numbers::SOCKET),
        Call::with_any_arguments("connect", libc_numbers::CONNECT),
    ],
};
static PROCESSES: Group = Group {
    name: "a hole",
    why: "clone without the rule that it makes threads",
    calls: &[Call::with_any_arguments("clone", libc_numbers::CLONE)],
};

/// Numbers of this architecture.
#[cfg(target_arch = "x86_64")]
mod libc_numbers {
    pub(crate) const MMAP: i64 = 9;
    pub(crate) const SOCKET: i64 = 41;
    pub(crate) const CONNECT: i64 = 42;
    pub(crate) const CLONE: i64 = 56;
}
#[cfg(not(target_arch = "x86_64"))]
mod libc_numbers {
    pub(crate) const MMAP: i64 = 222;
    pub(crate) const SOCKET: i64 = 198;
    pub(crate) const CONNECT: i64 = 203;
    pub(crate) const CLONE: i64 = 220;
}

const LIMITS: Limits = Limits {
    open_files: 64,
    memory: 256 << 20,
    file_size: None,
    threads: 64,
    cpu_seconds: Some(60),
};

/// The parser, with a hole of each kind.
static WEAK: Profile = Profile {
    role: "weak-parser",
    grants: &[
        Grant { group: &groups::RUNTIME, why: "as parser" },
        Grant { group: &groups::THREADS, why: "as parser" },
        Grant { group: &groups::MEMORY, why: "as parser" },
        Grant { group: &groups::DYING, why: "as parser" },
        Grant { group: &groups::SOCKET_IO, why: "as parser" },
        Grant { group: &groups::FD_CHANNEL, why: "as parser" },
        Grant { group: &EXECUTABLE, why: "a hole" },
        Grant { group: &SOCKETS, why: "a hole" },
        Grant { group: &PROCESSES, why: "a hole" },
    ],
    limits: LIMITS,
    folders: Folders::None,
    tcp: Tcp::Outgoing,
};

fn main() {
    let mut roles = profiles::ALL.to_vec();
    roles.push(&WEAK);
    sandbox::trial::run_if_twin(&roles);
    // Started without an order: nothing to do, and no result.
    std::process::exit(2);
}
