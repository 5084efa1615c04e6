//! The forbidden things, each as a few system calls.
//!
//! Everything a try needs is made before the twin confines itself (paths, sockets that stand for
//! inherited ones); what runs after is the one call in question, or the shortest way to it that an
//! attacker has.

use std::ffi::CString;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::str::FromStr;

use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::{Targets, UnknownName, calls};
use crate::profile::Profile;

/// A thing that a process under attack might try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Open /etc/passwd, as an example of what every uid may read.
    OpenSystemFile,
    /// Open a file of an account.
    OpenAccountFile,
    /// Open the folder of the private keys.
    OpenKeyFolder,
    /// Make a file in a folder where every uid may.
    WriteElsewhere,
    /// Open a read-only descriptor of another's file again, for writing.
    ReopenForWriting,
    /// A TCP socket.
    InetSocket,
    /// A TCP socket, connected to this machine.
    InetConnect,
    /// A UDP socket.
    InetDatagram,
    /// Serve: listen on a TCP socket that was there already.
    Listen,
    /// Shut a listener that was there already, for everybody who holds it.
    EndListener,
    /// Turn such a listener into an outgoing connection, without `connect`.
    ConnectListener,
    /// A netlink socket.
    NetlinkSocket,
    /// Connect to a Unix socket in another role's folder.
    ConnectPeerSocket,
    /// Execute a program.
    Execute,
    /// Make a process.
    Fork,
    /// Trace a process of another role.
    TraceSibling,
    /// Signal a process of another role.
    SignalSibling,
    /// Signal the supervisor.
    SignalSupervisor,
    /// Read another role's memory by its process id.
    ReadSiblingMemory,
    /// Open /proc/PID/mem of another role.
    OpenSiblingMemory,
    /// Take a descriptor out of another role's process.
    TakeSiblingDescriptor,
    /// Mount.
    Mount,
    /// A user namespace, in which one is root.
    UserNamespace,
    /// Become root.
    BecomeRoot,
    /// Raise a resource limit.
    RaiseLimit,
    /// Memory that can be executed.
    ExecutableMemory,
    /// A ring of calls that no filter sees.
    IoUring,
    /// Load a program into the kernel.
    Bpf,
    /// Kernel performance events.
    PerfEvents,
    /// The kernel's keyrings.
    Keyring,
    /// A file without a name (something to execute or to hide in).
    AnonymousFile,
    /// Open /proc/self/mem, which writes where memory is read-only.
    OpenOwnMemory,
    /// Make written memory executable.
    ProtectExecutable,
    /// Handle one's own page faults, and stop the kernel in the middle of a copy.
    UserFaults,
    /// System calls by the numbers of x32.
    OtherNumbers,
    /// System calls by the gate of 32-bit programs.
    OtherGate,
    /// Type into the terminal of whoever started the server.
    TypeIntoTerminal,
    /// Be readable again for processes of the same uid.
    BecomeDumpable,
    /// Live on when the supervisor is gone.
    Outlive,
    /// A session and process group of one's own.
    NewSession,
    /// Have the kernel signal another role: F_SETOWN.
    SignalByOwnership,
    /// Hold a file against those who open it: F_SETLEASE.
    Lease,
    /// A timer that sends signals.
    Timer,
    /// vmsplice: pages of ours in a pipe.
    GiftPages,
    /// Take the processor from another role.
    SlowSibling,
    /// Tie another role to one processor.
    PinSibling,
    /// Let another role run only when nobody else does.
    IdleSibling,
    /// Ask what another role shares with us: kcmp.
    CompareWithSibling,
    /// Memory for whoever knows its key.
    SharedMemory,
    /// A message queue for whoever knows its key.
    MessageQueue,
    /// Be told what happens to files.
    WatchFiles,
    /// Open a file by its number, past all folders.
    OpenByHandle,
    /// Another root folder.
    OtherRoot,
    /// Set the machine's clock.
    SetClock,
    /// A filter on a listener that others hold, too.
    FilterListener,
    /// Another listener on the same port.
    SharePort,
    /// A Unix socket by a name that no folder protects.
    AbstractSocket,
    /// A datagram socket, which can send to every other one by its path.
    DatagramPair,
    /// Leave something in /dev/shm.
    SharedFolder,
}

/// A port that nobody serves; a refusal by it already comes from beyond the walls.
const DISCARD: u16 = 9;
/// Not in rustix.
const MSG_FASTOPEN: u32 = libc::MSG_FASTOPEN.cast_unsigned();

/// What a twin is given to try its action on.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) path: Option<String>,
    pub(super) sibling: Option<u32>,
}

/// What is left to do after confinement.
pub(super) type Attempt = Box<dyn FnOnce() -> Result<(), Errno>>;

impl Action {
    /// All, in the order of the table.
    pub const ALL: [Action; 59] = [
        Action::OpenSystemFile,
        Action::OpenAccountFile,
        Action::OpenKeyFolder,
        Action::WriteElsewhere,
        Action::ReopenForWriting,
        Action::InetSocket,
        Action::InetConnect,
        Action::InetDatagram,
        Action::Listen,
        Action::EndListener,
        Action::ConnectListener,
        Action::NetlinkSocket,
        Action::ConnectPeerSocket,
        Action::Execute,
        Action::Fork,
        Action::TraceSibling,
        Action::SignalSibling,
        Action::SignalSupervisor,
        Action::ReadSiblingMemory,
        Action::OpenSiblingMemory,
        Action::TakeSiblingDescriptor,
        Action::Mount,
        Action::UserNamespace,
        Action::BecomeRoot,
        Action::RaiseLimit,
        Action::ExecutableMemory,
        Action::IoUring,
        Action::Bpf,
        Action::PerfEvents,
        Action::Keyring,
        Action::AnonymousFile,
        Action::OpenOwnMemory,
        Action::ProtectExecutable,
        Action::UserFaults,
        Action::OtherNumbers,
        Action::OtherGate,
        Action::TypeIntoTerminal,
        Action::BecomeDumpable,
        Action::Outlive,
        Action::NewSession,
        Action::SignalByOwnership,
        Action::Lease,
        Action::Timer,
        Action::GiftPages,
        Action::SlowSibling,
        Action::PinSibling,
        Action::IdleSibling,
        Action::CompareWithSibling,
        Action::SharedMemory,
        Action::MessageQueue,
        Action::WatchFiles,
        Action::OpenByHandle,
        Action::OtherRoot,
        Action::SetClock,
        Action::FilterListener,
        Action::SharePort,
        Action::AbstractSocket,
        Action::DatagramPair,
        Action::SharedFolder,
    ];

    /// The name in tables and arguments.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::OpenSystemFile => "open-system-file",
            Action::OpenAccountFile => "open-account-file",
            Action::OpenKeyFolder => "open-key-folder",
            Action::WriteElsewhere => "write-elsewhere",
            Action::ReopenForWriting => "reopen-for-writing",
            Action::InetSocket => "inet-socket",
            Action::InetConnect => "inet-connect",
            Action::InetDatagram => "inet-datagram",
            Action::Listen => "listen",
            Action::EndListener => "end-listener",
            Action::ConnectListener => "connect-listener",
            Action::NetlinkSocket => "netlink-socket",
            Action::ConnectPeerSocket => "connect-peer-socket",
            Action::Execute => "execute",
            Action::Fork => "fork",
            Action::TraceSibling => "trace-sibling",
            Action::SignalSibling => "signal-sibling",
            Action::SignalSupervisor => "signal-supervisor",
            Action::ReadSiblingMemory => "read-sibling-memory",
            Action::OpenSiblingMemory => "open-sibling-memory",
            Action::TakeSiblingDescriptor => "take-sibling-descriptor",
            Action::Mount => "mount",
            Action::UserNamespace => "user-namespace",
            Action::BecomeRoot => "become-root",
            Action::RaiseLimit => "raise-limit",
            Action::ExecutableMemory => "executable-memory",
            Action::IoUring => "io-uring",
            Action::Bpf => "bpf",
            Action::PerfEvents => "perf-events",
            Action::Keyring => "keyring",
            Action::AnonymousFile => "anonymous-file",
            Action::OpenOwnMemory => "open-own-memory",
            Action::ProtectExecutable => "protect-executable",
            Action::UserFaults => "user-faults",
            Action::OtherNumbers => "other-numbers",
            Action::OtherGate => "other-gate",
            Action::TypeIntoTerminal => "type-into-terminal",
            Action::BecomeDumpable => "become-dumpable",
            Action::Outlive => "outlive",
            Action::NewSession => "new-session",
            Action::SignalByOwnership => "signal-by-ownership",
            Action::Lease => "lease",
            Action::Timer => "timer",
            Action::GiftPages => "gift-pages",
            Action::SlowSibling => "slow-sibling",
            Action::PinSibling => "pin-sibling",
            Action::IdleSibling => "idle-sibling",
            Action::CompareWithSibling => "compare-with-sibling",
            Action::SharedMemory => "shared-memory",
            Action::MessageQueue => "message-queue",
            Action::WatchFiles => "watch-files",
            Action::OpenByHandle => "open-by-handle",
            Action::OtherRoot => "other-root",
            Action::SetClock => "set-clock",
            Action::FilterListener => "filter-listener",
            Action::SharePort => "share-port",
            Action::AbstractSocket => "abstract-socket",
            Action::DatagramPair => "datagram-pair",
            Action::SharedFolder => "shared-folder",
        }
    }

    /// Whether this is the role's own work: then being able to do it is no hole.
    pub fn allowed_as_own(self, profile: &Profile) -> bool {
        let own: &[Action] = match profile.role {
            "accountd" => &[Action::OpenAccountFile],
            "keyholder" => &[Action::OpenKeyFolder],
            "outbound" => &[Action::InetSocket, Action::InetConnect],
            "resolver" => &[Action::InetSocket, Action::InetConnect, Action::InetDatagram],
            _ => &[],
        };
        own.contains(&self)
    }

    /// The path it is tried on, of those that were given.
    pub(super) fn path_of(self, targets: &Targets) -> Option<String> {
        let of = [
            (Action::OpenAccountFile, &targets.account_file),
            (Action::OpenKeyFolder, &targets.key_folder),
            (Action::ConnectPeerSocket, &targets.peer_socket),
        ];
        of.into_iter().find(|(action, _)| *action == self).and_then(|(_, path)| path.clone())
    }

    /// Errors that come from beyond the walls: the kernel was ready to do it.
    pub(super) fn passed_the_walls(self, errno: Errno) -> bool {
        let connects = [Action::InetConnect, Action::ConnectListener, Action::ConnectPeerSocket];
        let beyond: &[Errno] = if connects.contains(&self) {
            &[
                Errno::CONNREFUSED,
                Errno::NETUNREACH,
                Errno::HOSTUNREACH,
                Errno::TIMEDOUT,
                Errno::INPROGRESS,
                Errno::PROTOTYPE,
            ]
        } else if self == Action::ReadSiblingMemory {
            // Permission is looked at first, then the address, which we gave as nonsense.
            &[Errno::FAULT]
        } else if self == Action::TypeIntoTerminal {
            // No terminal here: where there is one, it would have been typed into.
            &[Errno::NOTTY]
        } else if self == Action::Lease {
            // No lease on this kind of file.
            &[Errno::AGAIN, Errno::INVAL]
        } else if self == Action::Mount {
            // Permission first, then the name of the file system, which does not exist.
            &[Errno::NODEV]
        } else {
            &[]
        };
        beyond.contains(&errno)
    }

    /// Makes ready what the action needs. `None`: the target it needs was not given.
    pub(super) fn prepare(self, target: &Target) -> std::io::Result<Option<Attempt>> {
        let path = target.path.as_deref().map(CString::new).transpose()?;
        let sibling = target.sibling.and_then(|id| Pid::from_raw(id.cast_signed()));
        let attempt: Attempt = match self {
            Action::OpenSystemFile => open(c"/etc/passwd".to_owned(), OFlags::RDONLY),
            Action::OpenAccountFile => match path {
                Some(path) => open(path, OFlags::RDONLY),
                None => return Ok(None),
            },
            Action::OpenKeyFolder => match path {
                Some(path) => open(path, OFlags::RDONLY | OFlags::DIRECTORY),
                None => return Ok(None),
            },
            // O_TMPFILE: a real file, gone with the twin.
            Action::WriteElsewhere => open(c"/tmp".to_owned(), OFlags::TMPFILE | OFlags::WRONLY),
            Action::ReopenForWriting => open(c"/proc/self/fd/0".to_owned(), OFlags::RDWR),
            Action::InetSocket => socket(AddressFamily::INET, SocketType::STREAM),
            Action::InetDatagram => socket(AddressFamily::INET, SocketType::DGRAM),
            Action::NetlinkSocket => socket(AddressFamily::NETLINK, SocketType::RAW),
            Action::InetConnect => Box::new(|| {
                let socket = inet_stream()?;
                rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, DISCARD))
            }),
            Action::Listen => {
                let socket = inet_bound()?;
                Box::new(move || rustix::net::listen(&socket, 1))
            }
            Action::EndListener => {
                let socket = inet_listener()?;
                Box::new(move || rustix::net::shutdown(&socket, Shutdown::Read))
            }
            Action::ConnectListener => {
                let socket = inet_listener()?;
                // A listener whose reading side is shut is a fresh socket again, and sending with
                // MSG_FASTOPEN connects it, past Landlock too: its hook is not on that way.
                rustix::net::shutdown(&socket, Shutdown::Read)?;
                Box::new(move || {
                    let fast_open = SendFlags::from_bits_retain(MSG_FASTOPEN);
                    let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, DISCARD);
                    rustix::net::sendto(&socket, b"x", fast_open, &to).map(drop)
                })
            }
            Action::ConnectPeerSocket => {
                let Some(path) = path else { return Ok(None) };
                let address = SocketAddrUnix::new(path.as_c_str())?;
                Box::new(move || {
                    let socket = rustix::net::socket_with(
                        AddressFamily::UNIX,
                        SocketType::STREAM,
                        SocketFlags::CLOEXEC,
                        None,
                    )?;
                    rustix::net::connect(&socket, &address)
                })
            }
            Action::TraceSibling => match sibling {
                Some(sibling) => Box::new(move || trace(sibling)),
                None => return Ok(None),
            },
            Action::SignalSibling => match sibling {
                Some(sibling) => Box::new(move || rustix::process::test_kill_process(sibling)),
                None => return Ok(None),
            },
            Action::ReadSiblingMemory => match sibling {
                Some(sibling) => Box::new(move || read_memory(sibling)),
                None => return Ok(None),
            },
            Action::OpenSiblingMemory => match sibling {
                Some(sibling) => {
                    let id = sibling.as_raw_nonzero();
                    open(CString::new(format!("/proc/{id}/mem"))?, OFlags::RDONLY)
                }
                None => return Ok(None),
            },
            Action::TakeSiblingDescriptor => match sibling {
                Some(sibling) => Box::new(move || take_descriptor(sibling)),
                None => return Ok(None),
            },
            Action::SignalSupervisor => {
                let Some(parent) = rustix::process::getppid() else { return Ok(None) };
                Box::new(move || rustix::process::test_kill_process(parent))
            }
            Action::RaiseLimit => {
                let hard = rustix::process::getrlimit(rustix::process::Resource::Core).maximum;
                let more = Some(hard.unwrap_or(0).max(1 << 20) + 1);
                let limit = rustix::process::Rlimit { current: more, maximum: more };
                Box::new(move || rustix::process::setrlimit(rustix::process::Resource::Core, limit))
            }
            Action::AnonymousFile => {
                Box::new(|| rustix::fs::memfd_create(c"trial", MemfdFlags::CLOEXEC).map(drop))
            }
            Action::Execute => Box::new(execute),
            Action::Fork => Box::new(fork),
            Action::Mount => Box::new(mount),
            Action::UserNamespace => Box::new(user_namespace),
            Action::BecomeRoot => Box::new(become_root),
            Action::ExecutableMemory => Box::new(executable_memory),
            Action::IoUring => Box::new(io_uring),
            Action::Bpf => Box::new(bpf),
            Action::PerfEvents => Box::new(perf_events),
            Action::Keyring => Box::new(keyring),
            Action::OpenOwnMemory => open(c"/proc/self/mem".to_owned(), OFlags::RDWR),
            Action::SharedFolder => open(c"/dev/shm".to_owned(), OFlags::TMPFILE | OFlags::WRONLY),
            Action::ProtectExecutable => Box::new(calls::protect_executable),
            Action::UserFaults => Box::new(calls::user_fault_descriptor),
            Action::OtherNumbers => Box::new(calls::other_numbers),
            Action::OtherGate => Box::new(calls::other_gate),
            Action::TypeIntoTerminal => Box::new(calls::type_into_terminal),
            Action::BecomeDumpable => Box::new(calls::become_dumpable),
            Action::Outlive => Box::new(calls::outlive),
            Action::NewSession => Box::new(calls::new_session),
            Action::Lease => Box::new(|| calls::lease(&rustix::stdio::stdin())),
            Action::Timer => Box::new(calls::timer),
            Action::SharedMemory => Box::new(calls::system_v_memory),
            Action::MessageQueue => Box::new(calls::message_queue),
            Action::WatchFiles => Box::new(calls::watch_files),
            Action::OpenByHandle => Box::new(calls::open_by_handle),
            Action::OtherRoot => Box::new(calls::other_root),
            Action::SetClock => Box::new(calls::set_clock),
            Action::GiftPages => {
                let (reader, writer) = rustix::pipe::pipe()?;
                Box::new(move || {
                    let given = calls::gift_pages(&writer);
                    // Open until then: a pipe without a reader refuses for another reason.
                    drop(reader);
                    given
                })
            }
            Action::FilterListener => {
                let socket = inet_listener()?;
                Box::new(move || calls::filter_listener(&socket))
            }
            Action::SharePort => {
                let socket = inet_listener()?;
                Box::new(move || calls::share_port(&socket))
            }
            Action::AbstractSocket => Box::new(abstract_socket),
            Action::DatagramPair => Box::new(|| {
                let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
                rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None).map(drop)
            }),
            Action::SignalByOwnership => match sibling {
                Some(sibling) => {
                    let socket = inet_bound()?;
                    Box::new(move || calls::signal_by_ownership(sibling, &socket))
                }
                None => return Ok(None),
            },
            Action::SlowSibling => return Ok(to_sibling(sibling, calls::slow_sibling)),
            Action::PinSibling => return Ok(to_sibling(sibling, calls::pin_sibling)),
            Action::IdleSibling => return Ok(to_sibling(sibling, calls::idle_sibling)),
            Action::CompareWithSibling => {
                return Ok(to_sibling(sibling, calls::compare_with_sibling));
            }
        };
        Ok(Some(attempt))
    }
}

impl FromStr for Action {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Action::ALL
            .into_iter()
            .find(|action| action.as_str() == name)
            .ok_or_else(|| UnknownName(name.to_owned()))
    }
}

/// What needs a sibling and nothing else.
fn to_sibling(sibling: Option<Pid>, call: fn(Pid) -> Result<(), Errno>) -> Option<Attempt> {
    sibling.map(|sibling| Box::new(move || call(sibling)) as Attempt)
}

fn open(path: CString, flags: OFlags) -> Attempt {
    Box::new(move || {
        rustix::fs::open(path.as_c_str(), flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
            .map(drop)
    })
}

fn socket(family: AddressFamily, kind: SocketType) -> Attempt {
    Box::new(move || rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).map(drop))
}

fn inet_stream() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

fn inet_bound() -> Result<OwnedFd, Errno> {
    let socket = inet_stream()?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    Ok(socket)
}

fn inet_listener() -> Result<OwnedFd, Errno> {
    let socket = inet_bound()?;
    rustix::net::listen(&socket, 1)?;
    Ok(socket)
}

/// SEIZE does not stop the other, and ends with us.
#[expect(unsafe_code, reason = "ptrace has no safe wrapper")]
fn trace(sibling: Pid) -> Result<(), Errno> {
    let id = sibling.as_raw_nonzero().get();
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: no pointer is followed.
    done(unsafe { libc::ptrace(libc::PTRACE_SEIZE, id, nothing, nothing) })
}

#[expect(unsafe_code, reason = "process_vm_readv has no safe wrapper")]
fn read_memory(sibling: Pid) -> Result<(), Errno> {
    let id = sibling.as_raw_nonzero().get();
    let mut byte = 0u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(8), iov_len: 1 };
    // SAFETY: one byte of ours is written at most; the other's address is the kernel's to check.
    let read = unsafe { libc::process_vm_readv(id, &raw const local, 1, &raw const remote, 1, 0) };
    done(read as i64)
}

fn take_descriptor(sibling: Pid) -> Result<(), Errno> {
    let other = rustix::process::pidfd_open(sibling, PidfdFlags::empty())?;
    rustix::process::pidfd_getfd(&other, 0, PidfdGetfdFlags::empty()).map(drop)
}

#[expect(unsafe_code, reason = "execve has no safe wrapper that leaves descriptors alone")]
fn execute() -> Result<(), Errno> {
    let arguments = [c"trial".as_ptr(), c"--twin-reached".as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null()];
    // SAFETY: path and arguments are C strings, both arrays end in null.
    done(i64::from(unsafe {
        libc::execve(c"/proc/self/exe".as_ptr(), arguments.as_ptr(), environment.as_ptr())
    }))
}

#[expect(unsafe_code, reason = "fork has no safe wrapper")]
fn fork() -> Result<(), Errno> {
    // SAFETY: one thread runs, and the child calls nothing but _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) }
    }
    done(child.into())
}

#[expect(unsafe_code, reason = "mount has no safe wrapper here")]
fn mount() -> Result<(), Errno> {
    let kind = c"mox-trial-no-such-type".as_ptr();
    // SAFETY: C strings and no data. The type does not exist, so nothing can be mounted.
    done(i64::from(unsafe {
        libc::mount(c"trial".as_ptr(), c"/".as_ptr(), kind, 0, std::ptr::null())
    }))
}

#[expect(unsafe_code, reason = "unshare has no safe wrapper here")]
fn user_namespace() -> Result<(), Errno> {
    // SAFETY: a number.
    done(i64::from(unsafe { libc::unshare(libc::CLONE_NEWUSER) }))
}

#[expect(unsafe_code, reason = "the raw call: libc's wants to tell all threads")]
fn become_root() -> Result<(), Errno> {
    // SAFETY: numbers.
    done(unsafe { libc::syscall(libc::SYS_setresuid, 0u32, 0u32, 0u32) })
}

#[expect(unsafe_code, reason = "memory is mapped")]
fn executable_memory() -> Result<(), Errno> {
    let protection = ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC;
    let anywhere = std::ptr::null_mut();
    // SAFETY: a new mapping where the kernel likes; it replaces nothing.
    unsafe { rustix::mm::mmap_anonymous(anywhere, 4096, protection, MapFlags::PRIVATE) }.map(drop)
}

#[expect(unsafe_code, reason = "a raw system call")]
fn io_uring() -> Result<(), Errno> {
    let mut parameters = [0u64; 15];
    // SAFETY: the kernel reads and writes 120 bytes, the size of the array.
    done(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1u32, parameters.as_mut_ptr()) })
}

#[expect(unsafe_code, reason = "a raw system call")]
fn bpf() -> Result<(), Errno> {
    // BPF_MAP_CREATE of an array: type 2, key 4, value 4, one entry.
    let attributes = [2u32, 4, 4, 1];
    // SAFETY: the kernel reads 16 bytes, the size of the array.
    done(unsafe { libc::syscall(libc::SYS_bpf, 0, attributes.as_ptr(), 16u32) })
}

#[expect(unsafe_code, reason = "a raw system call")]
fn perf_events() -> Result<(), Errno> {
    // A software counter of our own: type 1, size 64.
    let attributes = [1u64 | (64u64 << 32), 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the kernel reads 64 bytes, the size of the array.
    done(unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0u64) })
}

#[expect(unsafe_code, reason = "a raw system call")]
fn keyring() -> Result<(), Errno> {
    // SAFETY: numbers: KEYCTL_GET_KEYRING_ID of the session's keyring, made if there is none.
    done(unsafe { libc::syscall(libc::SYS_keyctl, 0, -3i64, 1) })
}

fn abstract_socket() -> Result<(), Errno> {
    let name = format!("mox-trial-{}", std::process::id());
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &address)
}

pub(super) fn done(result: i64) -> Result<(), Errno> {
    if result >= 0 {
        return Ok(());
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Err(Errno::from_raw_os_error(errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profiles;

    #[test]
    fn names_are_read_back_and_distinct() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse::<Action>().unwrap(), action);
        }
        assert!("reboot".parse::<Action>().is_err());
    }

    #[test]
    fn nobodys_own_work_is_dangerous() {
        for profile in profiles::ALL {
            for action in [Action::Execute, Action::Fork, Action::Listen, Action::BecomeRoot] {
                assert!(!action.allowed_as_own(profile), "{} {action:?}", profile.role);
            }
        }
        assert!(Action::OpenKeyFolder.allowed_as_own(&profiles::KEYHOLDER));
        assert!(!Action::OpenKeyFolder.allowed_as_own(&profiles::ACCOUNTD));
        assert!(!Action::InetDatagram.allowed_as_own(&profiles::OUTBOUND));
    }
}
