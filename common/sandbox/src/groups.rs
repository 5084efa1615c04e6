//! The groups of system calls that profiles are made of.
//!
//! Found by strace of each kind of process, then added to by reason: a trace misses what races
//! (`clock_nanosleep` was absent from one and killed the reader on the next run). Calls are added
//! here with a reason, never by "it was killed, so allow it".
//!
//! In no group, whatever the role: listen, execve, fork without CLONE_THREAD, ptrace, kill,
//! process_vm_*, pidfd_*, io_uring_*, unshare, setns, mount, keyctl, bpf, perf_event_open,
//! userfaultfd, memfd_create, prlimit64 that sets, personality, seccomp.

use crate::profile::{Arg, Call, Group, Test, is, masked, sys};

/// Event loop, timers and sleeping of tokio and std.
pub static RUNTIME: Group = Group {
    name: "runtime",
    why: "event loop, timers, locks, reading and writing what is already open",
    calls: &[
        sys!(SYS_epoll_create1),
        sys!(SYS_epoll_ctl),
        #[cfg(target_arch = "x86_64")]
        sys!(SYS_epoll_wait),
        sys!(SYS_epoll_pwait),
        // A signing slot waits for its answer with a deadline, outside the event loop.
        #[cfg(target_arch = "x86_64")]
        sys!(SYS_poll),
        sys!(SYS_ppoll),
        sys!(SYS_eventfd2),
        sys!(SYS_futex),
        sys!(SYS_read),
        sys!(SYS_readv),
        sys!(SYS_write),
        sys!(SYS_writev),
        sys!(SYS_close),
        // F_GETFD: std looks whether a descriptor is valid before closing it in debug builds.
        // F_GET_SEALS: a receiver checks shared memory before it believes its size.
        sys!(SYS_fcntl:
            [is(1, libc::F_DUPFD_CLOEXEC)], [is(1, libc::F_GETFD)], [is(1, libc::F_SETFD)],
            [is(1, libc::F_GETFL)], [is(1, libc::F_SETFL)], [is(1, libc::F_GET_SEALS)]),
        // No other ioctl: TIOCSTI would type into the terminal moxd was started from.
        sys!(SYS_ioctl: [FIONBIO], [FIOCLEX]),
        // tokio's signal driver. Never SOCK_DGRAM: such a socket could still `sendto` any socket
        // by path, the journal's for one.
        sys!(SYS_socketpair:
            [is(0, libc::AF_UNIX), masked(1, SOCKET_KIND, libc::SOCK_STREAM)],
            [is(0, libc::AF_UNIX), masked(1, SOCKET_KIND, libc::SOCK_SEQPACKET)]),
        sys!(SYS_getrandom),
        sys!(SYS_clock_gettime),
        sys!(SYS_clock_nanosleep),
        sys!(SYS_restart_syscall),
        sys!(SYS_sched_yield),
        sys!(SYS_sched_getaffinity),
        // Its own figures (CPU, memory) and its own limits, read only.
        sys!(SYS_getrusage),
        sys!(SYS_prlimit64: [is(0, 0), NO_NEW_LIMIT]),
    ],
};

/// Threads of this process; a new process cannot be made with it.
pub static THREADS: Group = Group {
    name: "threads",
    why: "start, name and end threads; never a process",
    calls: &[
        sys!(SYS_clone: [masked(0, THREAD_OR_NAMESPACE, libc::CLONE_THREAD)]),
        // Its flags lie behind a pointer, where no filter can look. It is allowed here only
        // because the first filter has answered it with ENOSYS already (the stricter of two
        // answers wins, and "kill" is stricter); libc then falls back to clone.
        sys!(SYS_clone3),
        sys!(SYS_rseq),
        sys!(SYS_set_robust_list),
        sys!(SYS_sigaltstack),
        sys!(SYS_gettid),
        sys!(SYS_prctl: [is(0, libc::PR_SET_NAME)]),
        sys!(SYS_exit),
    ],
};

/// Memory, but none that can be executed.
pub static MEMORY: Group = Group {
    name: "memory",
    why: "allocate and give back memory, map shared figures; nothing executable",
    calls: &[
        sys!(SYS_mmap: [masked(2, libc::PROT_EXEC, 0)]),
        sys!(SYS_mprotect: [masked(2, libc::PROT_EXEC, 0)]),
        sys!(SYS_munmap),
        sys!(SYS_mremap),
        sys!(SYS_brk),
        // WIPEONFORK: aws-lc marks its random state. DONTDUMP: pages with secrets. The guard
        // advice is how newer libcs protect thread stacks.
        sys!(SYS_madvise:
            [is(2, libc::MADV_DONTNEED)], [is(2, libc::MADV_FREE)],
            [is(2, libc::MADV_WIPEONFORK)], [is(2, libc::MADV_DONTDUMP)],
            [is(2, libc::MADV_DONTFORK)], [is(2, MADV_GUARD_INSTALL)], [is(2, MADV_GUARD_REMOVE)]),
    ],
};

/// Signals to oneself and the end of the process.
pub static DYING: Group = Group {
    name: "dying",
    why: "handle signals, panic, abort and exit",
    calls: &[
        sys!(SYS_rt_sigprocmask),
        sys!(SYS_rt_sigaction),
        sys!(SYS_rt_sigreturn),
        // abort() raises SIGABRT in its own thread. Without the process id tested, a tree that
        // was started without root could kill its siblings.
        sys!(SYS_tgkill: [Arg { index: 0, test: Test::OwnPid }]),
        sys!(SYS_getpid),
        sys!(SYS_exit_group),
    ],
};

/// Bytes over sockets that are already there.
pub static SOCKET_IO: Group = Group {
    name: "socket io",
    why: "send and receive on sockets that others made, and tune them",
    calls: &[
        sys!(SYS_recvfrom),
        // Without MSG_FASTOPEN: it connects. A face could shut the reading side of its listener,
        // which makes a fresh socket of it, and send itself out into the world, without connect(2)
        // and past Landlock (tried: `Action::ConnectListener`).
        sys!(SYS_sendto: [masked(3, libc::MSG_FASTOPEN, 0)]),
        // The writing side only. Shutting the reading side of a listener ends it for everybody
        // who holds it, the supervisor and the role's next instance among them.
        sys!(SYS_shutdown: [is(1, libc::SHUT_WR)]),
        // By name, because SOL_SOCKET also holds SO_ATTACH_FILTER and TCP_ULP loads code.
        sys!(SYS_setsockopt:
            [is(1, libc::IPPROTO_TCP), is(2, libc::TCP_NODELAY)],
            [is(1, libc::IPPROTO_TCP), is(2, libc::TCP_KEEPIDLE)],
            [is(1, libc::IPPROTO_TCP), is(2, libc::TCP_KEEPINTVL)],
            [is(1, libc::IPPROTO_TCP), is(2, libc::TCP_KEEPCNT)],
            [is(1, libc::IPPROTO_TCP), is(2, libc::TCP_USER_TIMEOUT)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_KEEPALIVE)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_LINGER)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_RCVTIMEO)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_SNDTIMEO)],
            [is(1, libc::SOL_SOCKET), is(2, SO_RCVTIMEO_NEW)],
            [is(1, libc::SOL_SOCKET), is(2, SO_SNDTIMEO_NEW)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_RCVBUF)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_SNDBUF)]),
        sys!(SYS_getsockopt:
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_ERROR)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_PEERCRED)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_DOMAIN)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_TYPE)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_PROTOCOL)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_ACCEPTCONN)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_RCVTIMEO)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_SNDTIMEO)],
            [is(1, libc::SOL_SOCKET), is(2, SO_RCVTIMEO_NEW)],
            [is(1, libc::SOL_SOCKET), is(2, SO_SNDTIMEO_NEW)]),
    ],
};

/// Take connections from a listener that the supervisor made.
pub static ACCEPT: Group = Group {
    name: "accept",
    why: "take connections from listeners the supervisor opened",
    calls: &[sys!(SYS_accept4), sys!(SYS_getpeername), sys!(SYS_getsockname)],
};

/// Descriptors in messages.
pub static FD_CHANNEL: Group = Group {
    name: "descriptor channel",
    why: "receive and send descriptors (supervision channel, connectors)",
    calls: &[
        sys!(SYS_recvmsg),
        sys!(SYS_sendmsg: [masked(2, libc::MSG_FASTOPEN, 0)]),
        // The kind and size of what was received; sealed memory is read by offset.
        sys!(SYS_fstat),
        sys!(SYS_pread64),
        // Only onto 1 and 2: the next log file arrives as a descriptor.
        #[cfg(target_arch = "x86_64")]
        sys!(SYS_dup2: [is(1, 1)], [is(1, 2)]),
        sys!(SYS_dup3: [is(1, 1)], [is(1, 2)]),
    ],
};

/// Files of the role's own folder, and SQLite over them.
pub static FILES: Group = Group {
    name: "files",
    why: "its own folder: SQLite databases, segments, spool, keys",
    calls: &[
        sys!(SYS_openat),
        sys!(SYS_openat2),
        sys!(SYS_newfstatat),
        sys!(SYS_fstat),
        sys!(SYS_statx),
        sys!(SYS_fstatfs),
        sys!(SYS_statfs),
        sys!(SYS_lseek),
        sys!(SYS_pread64),
        sys!(SYS_pwrite64),
        sys!(SYS_preadv),
        sys!(SYS_pwritev),
        sys!(SYS_ftruncate),
        sys!(SYS_fallocate),
        sys!(SYS_fadvise64),
        sys!(SYS_copy_file_range),
        sys!(SYS_fsync),
        sys!(SYS_fdatasync),
        #[cfg(target_arch = "x86_64")]
        sys!(SYS_rename),
        sys!(SYS_renameat),
        sys!(SYS_renameat2),
        #[cfg(target_arch = "x86_64")]
        sys!(SYS_unlink),
        sys!(SYS_unlinkat),
        #[cfg(target_arch = "x86_64")]
        sys!(SYS_rmdir),
        #[cfg(target_arch = "x86_64")]
        sys!(SYS_mkdir),
        sys!(SYS_mkdirat),
        sys!(SYS_getdents64),
        // SQLite resolves links itself, asks whether files are there, and gives a journal the
        // owner and mode of its database.
        #[cfg(target_arch = "x86_64")]
        sys!(SYS_readlink),
        sys!(SYS_readlinkat),
        #[cfg(target_arch = "x86_64")]
        sys!(SYS_access),
        sys!(SYS_faccessat),
        sys!(SYS_faccessat2),
        sys!(SYS_getcwd),
        sys!(SYS_geteuid),
        sys!(SYS_fchown),
        sys!(SYS_fchmod),
        sys!(SYS_fcntl:
            [is(1, libc::F_GETLK)], [is(1, libc::F_SETLK)], [is(1, libc::F_SETLKW)]),
    ],
};

/// Files to read, in folders that were given.
pub static FILES_READ: Group = Group {
    name: "files to read",
    why: "read assets and document roots",
    calls: &[
        sys!(SYS_openat: [masked(2, OPEN_FOR_WRITING, 0)]),
        // Its flags lie behind a pointer; RESOLVE_BENEATH is worth more than testing them, since
        // the role's uid owns nothing and Landlock leaves reading only.
        sys!(SYS_openat2),
        sys!(SYS_newfstatat),
        sys!(SYS_fstat),
        sys!(SYS_statx),
        sys!(SYS_lseek),
        sys!(SYS_pread64),
        sys!(SYS_getdents64),
    ],
};

/// Outgoing TCP.
pub static OUTGOING_TCP: Group = Group {
    name: "outgoing TCP",
    why: "make TCP connections to other machines; never listen",
    calls: &[
        sys!(SYS_socket:
            [is(0, libc::AF_INET), masked(1, SOCKET_KIND, libc::SOCK_STREAM), is(2, 0)],
            [is(0, libc::AF_INET), masked(1, SOCKET_KIND, libc::SOCK_STREAM), is(2, libc::IPPROTO_TCP)],
            [is(0, libc::AF_INET6), masked(1, SOCKET_KIND, libc::SOCK_STREAM), is(2, 0)],
            [is(0, libc::AF_INET6), masked(1, SOCKET_KIND, libc::SOCK_STREAM), is(2, libc::IPPROTO_TCP)]),
        sys!(SYS_connect),
        // The source address an administrator chose.
        sys!(SYS_bind),
        sys!(SYS_getsockname),
        sys!(SYS_getpeername),
        sys!(SYS_setsockopt:
            [is(1, libc::IPPROTO_IP), is(2, libc::IP_BIND_ADDRESS_NO_PORT)],
            [is(1, libc::IPPROTO_IPV6), is(2, libc::IPV6_V6ONLY)],
            [is(1, libc::SOL_SOCKET), is(2, libc::SO_REUSEADDR)]),
    ],
};

/// Outgoing UDP.
pub static OUTGOING_UDP: Group = Group {
    name: "outgoing UDP",
    why: "ask DNS servers",
    calls: &[
        sys!(SYS_socket:
            [is(0, libc::AF_INET), masked(1, SOCKET_KIND, libc::SOCK_DGRAM), is(2, 0)],
            [is(0, libc::AF_INET), masked(1, SOCKET_KIND, libc::SOCK_DGRAM), is(2, libc::IPPROTO_UDP)],
            [is(0, libc::AF_INET6), masked(1, SOCKET_KIND, libc::SOCK_DGRAM), is(2, 0)],
            [is(0, libc::AF_INET6), masked(1, SOCKET_KIND, libc::SOCK_DGRAM), is(2, libc::IPPROTO_UDP)]),
        sys!(SYS_sendmmsg: [masked(3, libc::MSG_FASTOPEN, 0)]),
        sys!(SYS_recvmmsg),
        // Answers that were pieced together from fragments can be forged (RFC 9715 §3.1).
        sys!(SYS_setsockopt:
            [is(1, libc::IPPROTO_IP), is(2, libc::IP_MTU_DISCOVER)],
            [is(1, libc::IPPROTO_IPV6), is(2, libc::IPV6_MTU_DISCOVER)]),
    ],
};

/// The first four bits of socket's second argument; the rest are SOCK_CLOEXEC and SOCK_NONBLOCK.
const SOCKET_KIND: i32 = 0xf;
/// A clone with a namespace flag is no thread of ours, even where the kernel would refuse it.
const THREAD_OR_NAMESPACE: i32 = libc::CLONE_THREAD
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_VFORK;
const OPEN_FOR_WRITING: i32 = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
/// The numbers that rustix uses, for times after 2038.
const SO_RCVTIMEO_NEW: i32 = 66;
const SO_SNDTIMEO_NEW: i32 = 67;
/// Not in libc yet (Linux 6.13).
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;
#[expect(clippy::cast_possible_truncation, reason = "ioctl numbers have 32 bits")]
const FIONBIO: Arg = Arg { index: 1, test: Test::Is(libc::FIONBIO as u32) };
#[expect(clippy::cast_possible_truncation, reason = "ioctl numbers have 32 bits")]
const FIOCLEX: Arg = Arg { index: 1, test: Test::Is(libc::FIOCLEX as u32) };
/// prlimit64's third argument: without it the call only reads.
const NO_NEW_LIMIT: Arg = Arg { index: 2, test: Test::Null };

/// Every group there is, for tests and tables.
pub static ALL: [&Group; 11] = [
    &RUNTIME,
    &THREADS,
    &MEMORY,
    &DYING,
    &SOCKET_IO,
    &ACCEPT,
    &FD_CHANNEL,
    &FILES,
    &FILES_READ,
    &OUTGOING_TCP,
    &OUTGOING_UDP,
];

/// The name of a listed call by its number, for a message; unlisted ones have only the number.
pub(crate) fn name_of(nr: i64) -> Option<&'static str> {
    ALL.iter().flat_map(|group| group.calls).find(|call| call.nr == nr).map(Call::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_is_in_no_group() {
        let absent = [
            "listen",
            "execve",
            "execveat",
            "fork",
            "vfork",
            "ptrace",
            "kill",
            "tkill",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_open",
            "pidfd_getfd",
            "pidfd_send_signal",
            "io_uring_setup",
            "io_uring_enter",
            "unshare",
            "setns",
            "mount",
            "umount2",
            "keyctl",
            "add_key",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "memfd_create",
            "personality",
            "seccomp",
            "setuid",
            "setresuid",
            "setgroups",
            "capset",
            "chroot",
            "pivot_root",
            "setrlimit",
            "reboot",
            "init_module",
            "shmat",
            "open_by_handle_at",
            "pkey_mprotect",
            "accept",
        ];
        for group in ALL {
            for call in group.calls {
                assert!(!absent.contains(&call.name()), "{} lists {}", group.name, call.name());
            }
        }
    }

    #[test]
    fn the_dangerous_calls_are_never_without_rules() {
        for name in [
            "clone",
            "mmap",
            "mprotect",
            "socket",
            "socketpair",
            "ioctl",
            "prctl",
            "fcntl",
            "madvise",
            "setsockopt",
            "sendto",
            "sendmsg",
            "sendmmsg",
            "shutdown",
            "tgkill",
            "prlimit64",
        ] {
            let calls: Vec<_> =
                ALL.iter().flat_map(|g| g.calls).filter(|c| c.name() == name).collect();
            assert!(!calls.is_empty(), "{name}");
            assert!(calls.iter().all(|call| !call.rules.is_empty()), "{name}");
        }
    }
}
