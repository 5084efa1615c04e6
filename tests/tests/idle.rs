//! Many IDLE sessions through the death of accountd: none drops, all see the next message.
//!
//! 60 sessions in the gate, 1,000 with `MOX_NIGHTLY=1`.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use ipc::Role;
use mox_tests::{
    client::{Imap, Smtp},
    tree::Tree,
};
use std::net::Ipv4Addr;

const USER: &str = "mox@localhost";
const PASSWORD: &str = "moxmoxmox";

/// Networks of their own: connections are limited by where they come from.
fn source(number: u16) -> Ipv4Addr {
    let [_, low] = number.to_be_bytes();
    let high = u8::try_from(number / 32).unwrap();
    Ipv4Addr::new(127, 130 + high, (low % 32) * 8, 1)
}

#[test]
fn no_session_drops_when_accountd_dies() {
    let sessions: u16 = if std::env::var_os("MOX_NIGHTLY").is_some() { 1_000 } else { 60 };
    let tree = Tree::start();
    let mut idle: Vec<Imap> = (0..sessions)
        .map(|n| {
            let from = source(n);
            let mut imap = Imap::log_in_from(from, tree.address(143), USER, PASSWORD).unwrap();
            assert!(imap.command("SELECT INBOX").unwrap().is_ok());
            imap.start("IDLE").unwrap();
            assert_eq!(imap.response().unwrap().first(), Some(&b'+'));
            imap
        })
        .collect();
    tree.kill_and_wait(Role::Accountd, 0);
    let message = b"From: ann@example.org\r\nMessage-ID: <idle@example.org>\r\n\r\nhello\r\n";
    let mut smtp = Smtp::connect(tree.address(25)).unwrap();
    let reply = smtp.send("ann@example.org", &[USER], message).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
    for (n, imap) in idle.iter_mut().enumerate() {
        loop {
            let response = imap.response();
            let response = response.unwrap_or_else(|error| panic!("session {n}: {error}"));
            if response == b"* 1 EXISTS" {
                break;
            }
        }
    }
}
