//! Small steps of processes: names, descriptors at start, other processes by descriptor.
//!
//! What the supervisor does itself: `Command::uid` and `gid` (std then also empties the groups),
//! [`forbid_new_privileges`] and [`limit_bounding_set`] on itself before the first child, and
//! [`Running`] to wait for and end children without SIGCHLD and without racing for their ids.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// How many threads this process has. Needs /proc, so before confinement.
///
/// # Errors
/// /proc is not there or cannot be read.
pub fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Sets the name that `ps` and the kernel's log show (15 bytes of it). A binary that was run
/// through /proc/self/fd/3 would show as "3".
///
/// # Errors
/// The name holds a zero byte.
pub fn set_name(name: &str) -> rustix::io::Result<()> {
    let name = CString::new(name).map_err(|_| rustix::io::Errno::INVAL)?;
    rustix::thread::set_name(&name)
}

/// The supervision socket, which a child is given as standard input. Afterwards 0 is /dev/null, so
/// that the channel has one owner.
///
/// # Errors
/// 0 is not open, or /dev/null cannot be opened.
pub fn take_supervision_socket() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket)
}

/// Closes every descriptor from `first` on. The second safety net below close-on-exec: called
/// first thing in a child, when nothing but 0, 1 and 2 is its own.
///
/// # Errors
/// The kernel is older than 5.9.
#[expect(unsafe_code, reason = "close_range has no safe wrapper: it closes what others own")]
pub fn close_inherited_from(first: u32) -> io::Result<()> {
    // SAFETY: numbers only. By contract nobody in this process owns one of these descriptors yet,
    // so none is closed under an owner.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `no_new_privs` for this process and all it starts, for ever.
///
/// # Errors
/// Never on Linux.
pub fn forbid_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Limits what this process can ever gain by exec to these capabilities: the supervisor's step, with
/// what it needs itself after an upgrade in place. Its children get none of them ([`run_as`]).
///
/// # Errors
/// CAP_SETPCAP is missing.
pub fn limit_bounding_set(keep: &[caps::Capability]) -> io::Result<()> {
    for capability in caps::all() {
        if keep.contains(&capability) {
            continue;
        }
        // A capability this kernel does not know is not in the set.
        if caps::has_cap(None, caps::CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, caps::CapSet::Bounding, capability).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// Has a command run as somebody else, with no group but `gid`, and with nothing in its bounding set:
/// no capability can ever be gained by it, whatever it executes. The set is emptied as far as it
/// may be; a process looks itself ([`crate::confine`]).
#[expect(unsafe_code, reason = "what a child does between fork and exec")]
pub fn run_as(command: &mut std::process::Command, uid: u32, gid: u32) {
    let become_it = move || {
        // While we are root still: it needs CAP_SETPCAP.
        for capability in 0..=LAST_CAPABILITY {
            // SAFETY: a number to a call that takes no pointer.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
        // SAFETY: no pointer but one to a list of length 0.
        let done = unsafe {
            libc::setgroups(0, std::ptr::null()) == 0
                && libc::setgid(gid) == 0
                && libc::setuid(uid) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: it makes system calls and allocates nothing, as behind a fork it must.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, become_it) };
}

/// malloc takes all memory from one arena from now on. With several, glibc opens
/// /proc/sys/vm/overcommit_memory the first time a thread's arena shrinks (in `free`!), which
/// kills a process that may open nothing.
#[expect(unsafe_code, reason = "mallopt has no safe wrapper")]
pub(crate) fn one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers, and this process has one thread (checked by the caller).
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Writing past `RLIMIT_FSIZE` becomes an error instead of the end (SIGXFSZ).
#[expect(unsafe_code, reason = "signal has no safe wrapper")]
pub(crate) fn ignore_full_files() {
    // SAFETY: no handler is installed, the signal is ignored. It cannot fail for this signal.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// The highest number that a kernel can give a capability: its sets have 64 bits.
const LAST_CAPABILITY: libc::c_ulong = 63;

/// Another process, held by a descriptor: it cannot be confused with a later one of the same id.
#[derive(Debug)]
pub struct Running {
    descriptor: OwnedFd,
    id: u32,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it; SIGSYS (31) is a breach of its profile.
    Signal(i32),
}

impl Running {
    /// A child (or another process one may signal) by its id, which must not have been waited for.
    ///
    /// # Errors
    /// There is no such process.
    pub fn open(id: u32) -> io::Result<Self> {
        let pid = Pid::from_raw(id.cast_signed())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        // Close-on-exec by itself.
        let descriptor = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Running { descriptor, id })
    }

    /// Its process id, for messages.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone, or under another uid and we are not root.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.descriptor, signal)?)
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// As [`Running::signal`].
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Waits for a child and takes its exit status. The descriptor becomes readable when this
    /// would not block.
    ///
    /// # Errors
    /// It is not our child, or was waited for already.
    pub fn wait(&self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = self.wait_with(WaitIdOptions::EXITED)? {
                return Ok(exit);
            }
        }
    }

    /// Takes the exit status if the child has ended.
    ///
    /// # Errors
    /// As [`Running::wait`].
    pub fn try_wait(&self) -> io::Result<Option<Exit>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    fn wait_with(&self, options: WaitIdOptions) -> io::Result<Option<Exit>> {
        let status = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(WaitId::PidFd(self.descriptor.as_fd()), options)
        })?;
        Ok(status.and_then(|status| {
            status
                .exit_status()
                .map(Exit::Code)
                .or_else(|| status.terminating_signal().map(Exit::Signal))
        }))
    }
}

impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Opens a file by a path that must stay below the folder: no `..` out of it, no symbolic link
/// anywhere, no link of /proc. The names below a folder that others can write are not ours.
///
/// # Errors
/// As `open`; `EXDEV` or `ELOOP` where the path leads out.
pub fn open_beneath(
    folder: impl AsFd,
    path: &std::path::Path,
    flags: rustix::fs::OFlags,
    mode: rustix::fs::Mode,
) -> io::Result<OwnedFd> {
    use rustix::fs::{OFlags, ResolveFlags};
    Ok(rustix::fs::openat2(
        folder,
        path,
        flags | OFlags::CLOEXEC | OFlags::NOCTTY,
        mode,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    #[expect(clippy::zombie_processes, reason = "waited for by descriptor, which is the test")]
    fn a_child_is_waited_for_by_descriptor() {
        let mut command = std::process::Command::new("/bin/sh");
        let child = command.arg("-c").arg("exit 7").spawn().unwrap();
        let running = Running::open(child.id()).unwrap();
        assert_eq!(running.wait().unwrap(), Exit::Code(7));
        assert!(running.wait().is_err());

        let mut command = std::process::Command::new("/bin/sleep");
        let child = command.arg("600").spawn().unwrap();
        let running = Running::open(child.id()).unwrap();
        assert_eq!(running.try_wait().unwrap(), None);
        running.kill().unwrap();
        assert_eq!(running.wait().unwrap(), Exit::Signal(9));
    }

    #[test]
    fn paths_stay_beneath() {
        use rustix::fs::{Mode, OFlags};
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("in"), b"x").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("out")).unwrap();
        std::os::unix::fs::symlink("in", folder.path().join("link")).unwrap();
        let dir = std::fs::File::open(folder.path()).unwrap();
        let open = |path: &str| open_beneath(&dir, Path::new(path), OFlags::RDONLY, Mode::empty());
        assert!(open("in").is_ok());
        for outside in ["out", "link", "../../etc/hostname", "/etc/hostname"] {
            assert!(open(outside).is_err(), "{outside}");
        }
    }

    #[test]
    fn nobody_is_process_zero() {
        assert!(Running::open(0).is_err());
    }
}
