//! Connections that come and go leave nothing behind: no descriptor, and no memory.
//!
//! 1,500 of them in the gate, 10,000 with `MOX_NIGHTLY=1`, of every kind that a client can make.
//!
//! Memory is measured as `RssAnon` and `VmSwap` of `/proc/PID/status`: what a process has written
//! to and nobody could drop, so its heap and stacks. The resident size or PSS would also count pages
//! of binaries and of databases in the page cache, which grow with use and are the kernel's to take
//! back; the size of the heap as the allocator sees it would hide what the allocator wastes.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use mox_tests::{
    client::{Imap, Smtp},
    needs_root,
    tree::{Tree, wait_until},
    wire::Wire,
};
use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

const USER: &str = "mox@localhost";
const PASSWORD: &str = "moxmoxmox";

/// Clients at the same time.
const CLIENTS: u32 = 8;

/// Networks they come from, so that no limit of any is met; few, so that what is counted for each
/// is there after the first round.
const SOURCES: u32 = 64;

/// How much a process may grow once it is warm, in KiB.
const GROWTH: u64 = 1024;

/// Descriptors that a process may have more of. Signing slots are kept for the next handshake, up to
/// eight in each of the four faces that have TLS here, each with its other end in keyholder; nobody
/// else has a reason.
fn slots(process: &str) -> usize {
    match process.rsplit_once('.').map_or(process, |(role, _)| role) {
        "keyholder" => 32,
        "smtpd-mx" | "smtpd-submission" | "imapd-front" | "httpd-web" => 8,
        _ => 0,
    }
}

/// Closed connections are gone by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks in a row that see the same.
const QUIET: u32 = 25;

/// How many connections make a tree warm, and how many come then.
fn size() -> (u32, u32) {
    if std::env::var_os("MOX_NIGHTLY").is_some() { (1_000, 9_000) } else { (500, 1_000) }
}

fn source(number: u32) -> Ipv4Addr {
    let place = u8::try_from(number % SOURCES).unwrap();
    Ipv4Addr::new(127, 180 + place / 32, place % 32 * 8, 1)
}

/// Where the services are.
#[derive(Clone, Copy)]
struct Ports {
    smtp: SocketAddr,
    submission: SocketAddr,
    submissions: SocketAddr,
    imap: SocketAddr,
    imaps: SocketAddr,
    http: SocketAddr,
    https: SocketAddr,
    metrics: SocketAddr,
}

/// Makes one connection and closes it, politely or not.
fn come_and_go(ports: &Ports, number: u32) {
    let from = source(number);
    let plain = |to| Wire::dial_from(from, to).unwrap();
    let tls = |to| plain(to).secured().unwrap();
    let polite = (number / KINDS).is_multiple_of(2);
    match number % KINDS {
        0 => strangers_smtp(Smtp::over(plain(ports.smtp)).unwrap(), polite),
        1 => strangers_smtp(Smtp::over(plain(ports.smtp)).unwrap().start_tls().unwrap(), polite),
        2 => users_smtp(Smtp::over(plain(ports.submission)).unwrap().start_tls().unwrap(), polite),
        3 => users_smtp(Smtp::over(tls(ports.submissions)).unwrap(), polite),
        4 => users_imap(Imap::over(plain(ports.imap)).unwrap(), polite),
        5 => users_imap(Imap::over(tls(ports.imaps)).unwrap(), polite),
        6 => http(plain(ports.http), "/healthz"),
        7 => http(tls(ports.https), "/"),
        8 => http(plain(ports.metrics), "/metrics"),
        // Gone before anything was said, and in the middle of a handshake.
        9 => drop(plain(ports.smtp)),
        _ => {
            let mut wire = plain(ports.imaps);
            wire.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
        }
    }
}

/// How many kinds [`come_and_go`] knows.
const KINDS: u32 = 11;

fn strangers_smtp(mut client: Smtp, polite: bool) {
    assert_eq!(client.command("MAIL FROM:<ann@example.org>").unwrap().code, 250);
    assert_eq!(client.command(&format!("RCPT TO:<{USER}>")).unwrap().code, 250);
    if polite {
        assert_eq!(client.command("QUIT").unwrap().code, 221);
    } else {
        assert_eq!(client.command("DATA").unwrap().code, 354);
        client.raw(b"Subject: never finished\r\n").unwrap();
    }
}

fn users_smtp(mut client: Smtp, polite: bool) {
    let reply = client.log_in(USER, PASSWORD).unwrap();
    assert_eq!(reply.code, 235, "{reply:?}");
    if polite {
        assert_eq!(client.command("QUIT").unwrap().code, 221);
    }
}

fn users_imap(client: Imap, polite: bool) {
    let mut client = client.logged_in(USER, PASSWORD).unwrap();
    assert!(client.command("SELECT INBOX").unwrap().is_ok());
    if polite {
        assert!(client.command("LOGOUT").unwrap().is_ok());
    } else {
        client.start("IDLE").unwrap();
        assert_eq!(client.response().unwrap().first(), Some(&b'+'));
    }
}

fn http(mut wire: Wire, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    wire.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 12];
    wire.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// Makes connections with these numbers, some at a time.
fn come_and_go_all(ports: &Ports, numbers: std::ops::Range<u32>) {
    let next = AtomicU32::new(numbers.start);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        break;
                    }
                    come_and_go(ports, number);
                }
            });
        }
    });
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Unknown where only root may look.
    descriptors: Option<usize>,
    kibibytes: u64,
}

fn held(pid: u32) -> Held {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let figure = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok().map(Iterator::count);
    Held { descriptors, kibibytes: figure("RssAnon") + figure("VmSwap") }
}

/// All processes by name and pid, the supervisor among them.
fn all_held(tree: &Tree) -> BTreeMap<(String, u32), Held> {
    let named = |p: mox_tests::tree::Process| (format!("{}.{}", p.role, p.instance), p.pid);
    let processes = tree.processes().into_iter().map(named);
    let all = processes.chain([("moxd".to_owned(), tree.supervisor())]);
    all.map(|(name, pid)| ((name, pid), held(pid))).collect()
}

/// What they hold when the last connection is gone for its server, too: when nobody's descriptors
/// have changed for a while.
fn settled(tree: &Tree) -> BTreeMap<(String, u32), Held> {
    let (mut last, mut same) = (all_held(tree), 0);
    let quiet = wait_until(PATIENCE, || {
        let now = all_held(tree);
        let unchanged = now.iter().all(|(who, now)| {
            last.get(who).is_some_and(|then| then.descriptors == now.descriptors)
        });
        same = if unchanged { same + 1 } else { 0 };
        last = now;
        same >= QUIET
    });
    assert!(quiet, "descriptors come and go though nobody is there");
    last
}

#[test]
fn connections_leave_nothing_behind() {
    let tree = Tree::start();
    let ports = Ports {
        smtp: tree.address(25),
        submission: tree.address(587),
        submissions: tree.address(465),
        imap: tree.address(143),
        imaps: tree.address(993),
        http: tree.address(80),
        https: tree.address(443),
        metrics: tree.address(81),
    };
    let (warm, more) = size();
    come_and_go_all(&ports, 0..warm);
    let before = settled(&tree);
    come_and_go_all(&ports, warm..warm + more);
    let after = settled(&tree);

    for (who, now) in &after {
        eprintln!("{:16} {:?} -> {now:?}", who.0, before.get(who));
    }
    if after.values().all(|held| held.descriptors.is_none()) {
        let _ = needs_root("count descriptors");
    }
    assert!(before.keys().eq(after.keys()), "a process was started again");
    for (then, (who, now)) in before.values().zip(&after) {
        let more = now.descriptors.unwrap_or(0).saturating_sub(then.descriptors.unwrap_or(0));
        assert!(more <= slots(&who.0), "{} left {more} descriptors behind", who.0);
        let growth = now.kibibytes.saturating_sub(then.kibibytes);
        assert!(growth < GROWTH, "{} grew by {growth} KiB", who.0);
    }
}
