//! Forbidden things that are one system call each and take no path: what an attacker who runs code
//! in a role would reach for next. Numbers and buffers of ours; the kernel follows no other pointer.

use super::action::done;
use rustix::{io::Errno, process::Pid};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

/// A system call by number.
#[expect(unsafe_code, reason = "raw system calls: what is tried has no wrapper, or a changed one")]
fn call(number: i64, arguments: [i64; 6]) -> Result<(), Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: callers give numbers, and addresses of memory that outlives the call.
    done(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// The address of something, as the kernel takes it.
fn at<T>(value: &T) -> i64 {
    std::ptr::from_ref(value).expose_provenance().cast_signed() as i64
}

/// The address of something the kernel writes to.
fn into<T>(value: &mut T) -> i64 {
    std::ptr::from_mut(value).expose_provenance().cast_signed() as i64
}

fn id(sibling: Pid) -> i64 {
    sibling.as_raw_nonzero().get().into()
}

/// Make pages that were written executable: the other way around `mmap`.
#[expect(unsafe_code, reason = "memory is mapped")]
pub(super) fn protect_executable() -> Result<(), Errno> {
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping where the kernel likes, and nobody runs what is in it.
    unsafe {
        let page = mmap_anonymous(std::ptr::null_mut(), 4096, rights, MapFlags::PRIVATE)?;
        mprotect(page, 4096, MprotectFlags::READ | MprotectFlags::EXEC)
    }
}

pub(super) fn user_fault_descriptor() -> Result<(), Errno> {
    // UFFD_USER_MODE_ONLY: what an unprivileged process may ask for.
    call(libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0])
}

/// A call of another calling convention, whose numbers mean other things (x32).
pub(super) fn other_numbers() -> Result<(), Errno> {
    const X32: i64 = 0x4000_0000;
    call(X32 + libc::SYS_getpid, [0; 6])
}

/// A call by the gate of 32-bit programs. Kernels without one end the caller by a signal.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "there is no other way through that gate")]
pub(super) fn other_gate() -> Result<(), Errno> {
    /// getpid of i386.
    const GETPID: i64 = 20;
    let mut result = GETPID;
    // SAFETY: getpid has no argument; the gate changes rax alone, and r8 to r11.
    unsafe {
        std::arch::asm!(
            "int 0x80", inout("rax") result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _
        );
    }
    if result > 0 { Ok(()) } else { Err(Errno::NOSYS) }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn other_gate() -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// Type into the terminal that moxd was started from.
pub(super) fn type_into_terminal() -> Result<(), Errno> {
    #[expect(clippy::cast_possible_wrap, reason = "the number of an ioctl")]
    call(libc::SYS_ioctl, [0, libc::TIOCSTI as i64, at(&b'\n'), 0, 0, 0])
}

/// Be readable by every process of the uid again.
pub(super) fn become_dumpable() -> Result<(), Errno> {
    call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0, 0])
}

/// Live on without a supervisor.
pub(super) fn outlive() -> Result<(), Errno> {
    call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), 0, 0, 0, 0, 0])
}

/// Leave the process group, whose signals are the supervisor's.
pub(super) fn new_session() -> Result<(), Errno> {
    call(libc::SYS_setsid, [0; 6])
}

/// Have the kernel send a signal to another process.
pub(super) fn signal_by_ownership(sibling: Pid, descriptor: &OwnedFd) -> Result<(), Errno> {
    let set_owner = libc::F_SETOWN.into();
    call(libc::SYS_fcntl, [descriptor.as_raw_fd().into(), set_owner, id(sibling), 0, 0, 0])
}

/// Be asked before others may open a file.
pub(super) fn lease(file: &BorrowedFd<'_>) -> Result<(), Errno> {
    let (what, kind) = (libc::F_SETLEASE.into(), libc::F_RDLCK.into());
    call(libc::SYS_fcntl, [file.as_raw_fd().into(), what, kind, 0, 0, 0])
}

pub(super) fn timer() -> Result<(), Errno> {
    let mut made = 0i32;
    let clock = libc::CLOCK_MONOTONIC.into();
    call(libc::SYS_timer_create, [clock, 0, into(&mut made), 0, 0, 0])
}

/// Pages of ours in a pipe, and past every copy.
pub(super) fn gift_pages(pipe: &OwnedFd) -> Result<(), Errno> {
    let octet = 0u8;
    let pages = libc::iovec { iov_base: std::ptr::from_ref(&octet).cast_mut().cast(), iov_len: 1 };
    call(libc::SYS_vmsplice, [pipe.as_raw_fd().into(), at(&pages), 1, 0, 0, 0])
}

pub(super) fn slow_sibling(sibling: Pid) -> Result<(), Errno> {
    call(libc::SYS_setpriority, [libc::PRIO_PROCESS.into(), id(sibling), 19, 0, 0, 0])
}

pub(super) fn pin_sibling(sibling: Pid) -> Result<(), Errno> {
    let processors = 1u64;
    call(libc::SYS_sched_setaffinity, [id(sibling), 8, at(&processors), 0, 0, 0])
}

pub(super) fn idle_sibling(sibling: Pid) -> Result<(), Errno> {
    let priority = 0i32;
    let idle = libc::SCHED_IDLE.into();
    call(libc::SYS_sched_setscheduler, [id(sibling), idle, at(&priority), 0, 0, 0])
}

/// Whether two processes share something; it also tells addresses in the kernel apart.
pub(super) fn compare_with_sibling(sibling: Pid) -> Result<(), Errno> {
    let own = std::process::id().into();
    call(libc::SYS_kcmp, [own, id(sibling), 0, 0, 0, 0])
}

/// Memory by a key, for every process that knows the key.
pub(super) fn system_v_memory() -> Result<(), Errno> {
    call(libc::SYS_shmget, [libc::IPC_PRIVATE.into(), 4096, 0o600, 0, 0, 0])
}

pub(super) fn message_queue() -> Result<(), Errno> {
    call(libc::SYS_msgget, [libc::IPC_PRIVATE.into(), 0o600, 0, 0, 0, 0])
}

pub(super) fn watch_files() -> Result<(), Errno> {
    call(libc::SYS_inotify_init1, [0; 6])
}

pub(super) fn open_by_handle() -> Result<(), Errno> {
    let handle = [8u32, 1, 0, 0];
    call(libc::SYS_open_by_handle_at, [libc::AT_FDCWD.into(), at(&handle), 0, 0, 0, 0])
}

pub(super) fn other_root() -> Result<(), Errno> {
    let root = *b"/\0";
    call(libc::SYS_chroot, [at(&root), 0, 0, 0, 0, 0])
}

/// Set the clock to what it says.
pub(super) fn set_clock() -> Result<(), Errno> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let now = [now.tv_sec, now.tv_nsec];
    call(libc::SYS_clock_settime, [libc::CLOCK_REALTIME.into(), at(&now), 0, 0, 0, 0])
}

/// Put a filter of ours before a socket that others hold, too: it drops what it likes.
pub(super) fn filter_listener(listener: &OwnedFd) -> Result<(), Errno> {
    // BPF_RET | BPF_K with 0: nothing passes.
    let mut program = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    set_option(listener, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

/// A second listener on the same port takes half of its connections.
pub(super) fn share_port(listener: &OwnedFd) -> Result<(), Errno> {
    set_option(listener, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1i32)
}

fn set_option<T>(socket: &OwnedFd, level: i32, name: i32, value: &T) -> Result<(), Errno> {
    let size = i64::try_from(size_of::<T>()).map_err(|_| Errno::INVAL)?;
    let (socket, level, name) = (socket.as_raw_fd().into(), level.into(), name.into());
    call(libc::SYS_setsockopt, [socket, level, name, at(value), size, 0])
}
