//! Messages made to break whoever reads them, through the running server: each is taken, each is
//! there to read octet by octet, and accountd never dies of one.

#![forbid(unsafe_code)]

use ipc::Role;
use message::poison;
use mox_tests::{
    client::{Imap, Smtp},
    tree::Tree,
};

const USER: &str = "mox@localhost";
const PASSWORD: &str = "moxmoxmox";

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
    let mut by_smtp = Vec::new();
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
    assert_eq!(tree.pid(Role::Accountd, 0), Some(accountd), "accountd died of a reader");
}
