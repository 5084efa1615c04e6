//! Which processes are connected, as the kernel sees it: the other end of every Unix socket, by
//! sock_diag(7). The wiring table says what should be; this says what is.

use std::collections::{BTreeMap, BTreeSet};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use crate::proc::{Process, socket_inodes};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_AND_DUMP: u16 = 0x301;
const NLMSG_DONE: u16 = 3;
const AF_UNIX: u8 = 1;
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;
const NLMSG_HEADER: usize = 16;
const UNIX_DIAG_MESSAGE: usize = 16;

/// The inode of the other end of each connected Unix socket.
pub(crate) fn other_ends() -> BTreeMap<u64, u64> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )
    .unwrap();
    let mut request = Vec::new();
    request.extend(40u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST_AND_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([AF_UNIX, 0, 0, 0]);
    // All states, any inode, show the peer, any cookie.
    for word in [u32::MAX, 0, UDIAG_SHOW_PEER, u32::MAX, u32::MAX] {
        request.extend(word.to_ne_bytes());
    }
    rustix::net::send(&socket, &request, SendFlags::empty()).unwrap();

    let mut ends = BTreeMap::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (_, length) =
            rustix::net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty()).unwrap();
        let mut rest = &buffer[..length];
        while rest.len() >= NLMSG_HEADER {
            let size = usize::try_from(u32_at(rest, 0)).unwrap();
            if u16_at(rest, 4) == NLMSG_DONE {
                return ends;
            }
            assert_eq!(u16_at(rest, 4), SOCK_DIAG_BY_FAMILY, "the kernel refused the question");
            let message = &rest[NLMSG_HEADER..size];
            let mut attributes = &message[UNIX_DIAG_MESSAGE..];
            while attributes.len() >= 4 {
                let length = usize::from(u16_at(attributes, 0));
                // 0: the other end is closed.
                if u16_at(attributes, 2) == UNIX_DIAG_PEER && u32_at(attributes, 4) != 0 {
                    ends.insert(u32_at(message, 4).into(), u32_at(attributes, 4).into());
                }
                attributes = &attributes[length.next_multiple_of(4).min(attributes.len())..];
            }
            rest = &rest[size.next_multiple_of(4).min(rest.len())..];
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Pairs of processes, each at one end of a Unix socket; a process is its index in the list. What
/// leads to nobody in the list is told as the second result, with the descriptor's holder.
pub(crate) fn connected(processes: &[Process]) -> (BTreeSet<(usize, usize)>, BTreeSet<usize>) {
    // What each holds is read before and after the question, and counts if it is the same: a
    // connection that comes or goes meanwhile would look like one to nobody.
    let before: Vec<BTreeSet<u64>> = processes.iter().map(socket_inodes).collect();
    let ends = other_ends();
    let after: Vec<BTreeSet<u64>> = processes.iter().map(socket_inodes).collect();
    let (mut pairs, mut outside) = (BTreeSet::new(), BTreeSet::new());
    for (holder, inodes) in before.iter().enumerate() {
        for inode in inodes.intersection(&after[holder]) {
            let Some(end) = ends.get(inode) else { continue };
            let holders: Vec<usize> = (0..before.len())
                .filter(|other| before[*other].contains(end) || after[*other].contains(end))
                .collect();
            if holders.is_empty() {
                outside.insert(holder);
            }
            for other in holders {
                pairs.insert((holder.min(other), holder.max(other)));
            }
        }
    }
    (pairs, outside)
}
