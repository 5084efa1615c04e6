//! Messages made to break whoever reads them, through the running server: each is taken, each is
//! there to read octet by octet, and accountd never dies of one.

#![forbid(unsafe_code)]

use ipc::Role;
use message::poison;
use mox_tests::{
    client::{Imap, Smtp},
    tree::Tree,
};
use std::collections::BTreeMap;

const USER: &str = "mox@localhost";
const PASSWORD: &str = "moxmoxmox";

/// How much a process may grow by a message, in KiB: less than the message is long.
const GROWTH: u64 = 24 << 10;

/// What SMTP carries: lines that end in CRLF, no other CR or LF, no NUL. The poison that is in line
/// ends is refused by smtpd before it gets anywhere (`tests/transcripts/smtp/smuggling-*`), and is
/// brought in by APPEND here.
fn can_travel(octets: &[u8]) -> bool {
    let text = octets.strip_suffix(b"\r\n").unwrap_or(octets);
    !octets.is_empty()
        && text.split(|&b| b == b'\n').rev().skip(1).all(|line| line.ends_with(b"\r"))
        && !octets.contains(&0)
        && octets.iter().filter(|&&b| b == b'\r').count()
            == octets.windows(2).filter(|w| w == b"\r\n").count()
}

#[test]
fn poison_is_stored_and_read_and_costs_nobody_anything() {
    let tree = Tree::start();
    let accountd = tree.pid(Role::Accountd, 0).unwrap();
    let (mut by_smtp, mut by_append) = (Vec::new(), Vec::new());
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    for poison in poison::ALL {
        let (name, octets) = (poison.name, poison.message());
        let mut travelled = false;
        if can_travel(&octets) {
            let mut smtp = Smtp::connect(tree.address(25)).unwrap();
            let reply = smtp.send("ann@example.org", &[USER], &octets).unwrap();
            // Lines without end and mail that goes round in circles are refused for good.
            let refused = ["line that is too long", "loop"];
            let last = reply.lines.last().unwrap();
            travelled = reply.code == 250;
            assert!(travelled || refused.iter().any(|r| last.contains(r)), "{name}: {reply:?}");
        }
        if travelled {
            by_smtp.push((name, octets));
        } else if !octets.contains(&0) && !octets.is_empty() {
            let appended = imap.append("Archive", &octets).unwrap();
            assert!(appended.is_ok(), "{name}: {}", appended.tagged);
            by_append.push((name, octets));
        }
    }
    assert!(by_smtp.len() > 20, "{} travelled", by_smtp.len());
    assert_eq!(tree.pid(Role::Accountd, 0), Some(accountd), "accountd died of a message");

    assert!(imap.command("EXAMINE INBOX").unwrap().is_ok());
    for (n, (name, octets)) in by_smtp.iter().enumerate() {
        let command = format!("FETCH {} (ENVELOPE BODYSTRUCTURE BODY.PEEK[])", n + 1);
        let fetched = imap.command(&command).unwrap();
        assert!(fetched.is_ok(), "{name}: {}", fetched.tagged);
        let stored = fetched.untagged.first().unwrap();
        let mut whole = octets.clone();
        if !whole.ends_with(b"\r\n") {
            whole.extend_from_slice(b"\r\n");
        }
        // Behind our trace fields, before the closing parenthesis of the response.
        let end = stored.len() - 1;
        assert!(stored.get(..end).unwrap().ends_with(&whole), "{name} is not what was sent");
    }
    // By APPEND it is the very octets, each line with its CRLF.
    assert!(imap.command("EXAMINE Archive").unwrap().is_ok());
    assert!(by_append.len() > 2, "{} appended", by_append.len());
    for (n, (name, octets)) in by_append.iter().enumerate() {
        let command = format!("FETCH {} (ENVELOPE BODYSTRUCTURE BODY.PEEK[])", n + 1);
        let fetched = imap.command(&command).unwrap();
        assert!(fetched.is_ok(), "{name}: {}", fetched.tagged);
        let stored = fetched.untagged.first().unwrap();
        let mut whole = Vec::with_capacity(octets.len());
        for &octet in octets {
            if octet == b'\n' && whole.last() != Some(&b'\r') {
                whole.push(b'\r');
            }
            whole.push(octet);
        }
        let end = [format!("{{{}}}\r\n", whole.len()).as_bytes(), &whole, b")"].concat();
        assert!(stored.ends_with(&end), "{name} is not what was appended");
    }
    assert_eq!(tree.pid(Role::Accountd, 0), Some(accountd), "accountd died of a reader");
}

/// What the processes of the tree have written to and nobody could drop, in KiB.
fn kibibytes(tree: &Tree) -> BTreeMap<u32, (Role, u64)> {
    let of = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
    };
    tree.processes().into_iter().map(|p| (p.pid, (p.role, of(p.pid)))).collect()
}

/// The longest message that is taken goes all the way, and is nowhere whole in memory. Of 100 MiB
/// with `MOX_NIGHTLY=1`; in the gate of 32, and the parser alone reads one of 100
/// (`bins/parser/tests/jobs.rs`).
#[test]
fn a_long_message_passes_in_bounded_memory() {
    let size: usize = if std::env::var_os("MOX_NIGHTLY").is_some() { 100 << 20 } else { 32 << 20 };
    let tree = Tree::start();
    let mut text = b"From: ann@example.org\r\nSubject: long\r\n\r\n".to_vec();
    let line = [&[b'Q'; 76][..], b"\r\n"].concat();
    while text.len() + line.len() <= size {
        text.extend_from_slice(&line);
    }
    let rest = size - text.len();
    text.extend(vec![b'q'; rest.saturating_sub(2)]);
    text.extend_from_slice(if rest > 2 { b"\r\n" } else { b"" });
    let mut smtp = Smtp::connect(tree.address(25)).unwrap();
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    let before = kibibytes(&tree);
    assert_eq!(smtp.send("ann@example.org", &[USER], &text).unwrap().code, 250);
    assert!(imap.command("NOOP").unwrap().is_ok());
    let fetched = imap.command("FETCH 1 (BODYSTRUCTURE BODY.PEEK[])").unwrap();
    assert!(fetched.is_ok(), "{}", fetched.tagged);
    let stored = fetched.untagged.iter().max_by_key(|response| response.len()).unwrap();
    assert!(stored.strip_suffix(b")").unwrap().ends_with(&text), "it is not what was sent");
    for (pid, (role, now)) in kibibytes(&tree) {
        let Some((_, then)) = before.get(&pid) else { continue };
        let growth = now.saturating_sub(*then);
        assert!(growth < GROWTH, "{role} grew by {growth} KiB");
    }
}
