//! What the kernel says of a process, from outside: /proc, read as numbers and kinds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One process of the tree.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// argv\[0\]: the role.
    pub(crate) role: String,
}

/// What a descriptor is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Descriptor {
    /// A listening TCP socket; of IPv4, which the trees of tests have alone.
    TcpListener(SocketAddr),
    /// Any other inet socket.
    Inet(&'static str),
    /// A listening Unix socket, with the name it was bound to.
    UnixListener(String),
    /// Another Unix socket: of packets, or a stream.
    Unix {
        /// Which.
        inode: u64,
        /// SOCK_SEQPACKET.
        packets: bool,
    },
    /// A socket of a family that nobody should have.
    OtherSocket,
    /// Shared memory, by its name.
    Memory(String),
    /// epoll, eventfd, and their like.
    Anonymous(String),
    /// A device.
    Device(PathBuf),
    /// A file or folder.
    Path(PathBuf),
}

/// The inodes of sockets by what they are.
pub(crate) struct Sockets {
    listening: BTreeMap<u64, SocketAddr>,
    inet: BTreeMap<u64, &'static str>,
    unix: BTreeMap<u64, Descriptor>,
}

impl Process {
    /// All children of a process.
    pub(crate) fn children_of(parent: u32) -> Vec<Process> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            let name = entry.unwrap().file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that ends meanwhile is no child any more.
            let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
            if field(&status, "PPid:").first() != Some(&parent.to_string()) {
                continue;
            }
            let Ok(command) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            let first = command.split(|byte| *byte == 0).next().unwrap_or_default();
            found.push(Process { pid, role: String::from_utf8_lossy(first).into_owned() });
        }
        found.sort_by(|a, b| (&a.role, a.pid).cmp(&(&b.role, b.pid)));
        found
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(name)
    }

    /// The status file of each thread.
    pub(crate) fn threads(&self) -> Vec<String> {
        let threads = fs::read_dir(self.path("task")).unwrap();
        threads
            .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok())
            .collect()
    }

    pub(crate) fn status(&self) -> String {
        fs::read_to_string(self.path("status")).unwrap()
    }

    /// Real, effective, saved and file system uid.
    pub(crate) fn uids(&self) -> Vec<u32> {
        numbers(&self.status(), "Uid:")
    }

    pub(crate) fn gids(&self) -> Vec<u32> {
        numbers(&self.status(), "Gid:")
    }

    /// A dumpable process's files under /proc are its own; another's are root's.
    pub(crate) fn is_dumpable(&self) -> bool {
        let owner = fs::metadata(self.path("environ")).unwrap().uid();
        owner == self.uids()[1]
    }

    /// A soft and a hard limit; `None` is none.
    pub(crate) fn limit(&self, name: &str) -> (Option<u64>, Option<u64>) {
        let limits = fs::read_to_string(self.path("limits")).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let mut words = line.split_whitespace().map(|word| word.parse().ok());
        (words.next().unwrap(), words.next().unwrap())
    }

    /// Its descriptors, all of them.
    pub(crate) fn descriptors(&self, sockets: &Sockets) -> BTreeMap<u32, Descriptor> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(self.path("fd")).unwrap() {
            let entry = entry.unwrap();
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            // One that is closed meanwhile (a connection that ended) is none.
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            found.insert(number, sockets.kind(&target));
        }
        found
    }

    /// Mappings that are writable and executable at once.
    pub(crate) fn writable_code(&self) -> Vec<String> {
        let maps = fs::read_to_string(self.path("maps")).unwrap();
        let permissions = |line: &str| line.split(' ').nth(1).unwrap_or_default().to_owned();
        let both = |line: &&str| permissions(line).contains('w') && permissions(line).contains('x');
        maps.lines().filter(both).map(str::to_owned).collect()
    }
}

impl Sockets {
    /// All sockets of this network namespace as they are now.
    pub(crate) fn now() -> Self {
        const LISTEN: &str = "0A";
        let mut sockets =
            Sockets { listening: BTreeMap::new(), inet: BTreeMap::new(), unix: BTreeMap::new() };
        for table in ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"] {
            // Without IPv6 there are no tables of it.
            let Ok(text) = fs::read_to_string(format!("/proc/net/{table}")) else { continue };
            for line in text.lines().skip(1) {
                let words: Vec<&str> = line.split_whitespace().collect();
                let inode = words[9].parse().unwrap();
                if table == "tcp" && words[3] == LISTEN {
                    sockets.listening.insert(inode, address(words[1]));
                } else {
                    sockets.inet.insert(inode, table);
                }
            }
        }
        let text = fs::read_to_string("/proc/net/unix").unwrap();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let inode = words[6].parse().unwrap();
            // __SO_ACCEPTCON.
            let listens = u32::from_str_radix(words[3], 16).unwrap() & 0x1_0000 != 0;
            let name = words.get(7).copied().unwrap_or_default().to_owned();
            let socket = match words[4] {
                _ if listens => Descriptor::UnixListener(name),
                "0001" | "0005" => Descriptor::Unix { inode, packets: words[4] == "0005" },
                _ => Descriptor::OtherSocket,
            };
            sockets.unix.insert(inode, socket);
        }
        sockets
    }

    fn kind(&self, target: &Path) -> Descriptor {
        let text = target.to_str().unwrap();
        if let Some(inode) = text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            let inode = inode.parse().unwrap();
            return if let Some(address) = self.listening.get(&inode) {
                Descriptor::TcpListener(*address)
            } else if let Some(table) = self.inet.get(&inode) {
                Descriptor::Inet(table)
            } else if let Some(socket) = self.unix.get(&inode) {
                socket.clone()
            } else {
                Descriptor::OtherSocket
            };
        }
        if let Some(name) = text.strip_prefix("/memfd:") {
            Descriptor::Memory(name.to_owned())
        } else if let Some(kind) = text.strip_prefix("anon_inode:") {
            Descriptor::Anonymous(kind.to_owned())
        } else if text.starts_with("/dev/") {
            Descriptor::Device(target.to_owned())
        } else {
            Descriptor::Path(target.to_owned())
        }
    }
}

/// An address of /proc/net/tcp: 0100007F:0019.
fn address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').unwrap();
    let ip = u32::from_str_radix(ip, 16).unwrap().to_ne_bytes();
    SocketAddr::from((ip, u16::from_str_radix(port, 16).unwrap()))
}

/// The words of a line of a status file.
pub(crate) fn field(status: &str, name: &str) -> Vec<String> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn numbers(status: &str, name: &str) -> Vec<u32> {
    field(status, name).iter().map(|word| word.parse().unwrap()).collect()
}

/// The inodes of the sockets a process holds, its three first descriptors excepted.
pub(crate) fn socket_inodes(process: &Process) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(process.path("fd")).unwrap() {
        let entry = entry.unwrap();
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let inode = target.to_str().and_then(|text| text.strip_prefix("socket:["));
        let inode = inode.and_then(|rest| rest.strip_suffix(']')?.parse::<u64>().ok());
        if number > 2 {
            found.extend(inode);
        }
    }
    found
}
