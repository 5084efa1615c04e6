//! Other people's programs against the real tree: the clients that Debian ships, a Postfix as the
//! other server, and a Dovecot as the second opinion on MIME.
//!
//! What is missing on a machine is said, and its tests pass without having proved anything; under
//! CI that is a failure.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

mod clients;
mod corpus;
mod dovecot;
mod mbsync;
mod mime;
mod mutt;
mod postfix;
mod programs;
mod remote;
mod zone;

use mox_tests::{
    client::Imap,
    tree::{Tree, wait_until},
};
use std::{path::PathBuf, time::Duration};

const USER: &str = "mox@localhost";
const PASSWORD: &str = "moxmoxmox";

/// How long mail may be on its way.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many messages a mailbox has.
fn count(imap: &mut Imap, mailbox: &str) -> usize {
    let text = imap.command(&format!("STATUS \"{mailbox}\" (MESSAGES)")).unwrap().text();
    let at = text.find("MESSAGES ").unwrap_or_else(|| panic!("{text}")) + "MESSAGES ".len();
    text[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// Waits until a mailbox has so many messages.
fn wait_for(imap: &mut Imap, mailbox: &str, messages: usize) {
    let mut last = 0;
    let there = wait_until(PATIENCE, || {
        last = count(imap, mailbox);
        last >= messages
    });
    assert!(there && last == messages, "{mailbox} has {last} messages, not {messages}");
}

/// A session of the development server's account.
fn log_in(tree: &Tree) -> Imap {
    Imap::log_in(tree.address(143), USER, PASSWORD).unwrap()
}

/// A whole message of the selected mailbox, by its number.
fn fetch(imap: &mut Imap, number: usize) -> Vec<u8> {
    section(imap, number, "")
}

/// A section of a message of the selected mailbox, as the bytes of its literal or string.
fn section(imap: &mut Imap, number: usize, section: &str) -> Vec<u8> {
    let answer = imap.command(&format!("FETCH {number} (BODY.PEEK[{section}])")).unwrap();
    assert!(answer.is_ok(), "{}", answer.text());
    let response = answer.untagged.iter().find(|r| r.windows(6).any(|w| w == b" FETCH"));
    mime::value(response.unwrap_or_else(|| panic!("no FETCH: {}", answer.text())))
}

/// Whether a message says this, wherever its fields were folded.
fn says(message: &str, words: &str) -> bool {
    message.split_whitespace().collect::<Vec<_>>().join(" ").contains(words)
}

/// The certificate of a server, as PEM, in a file beside its folder's parent.
fn certificate(keys: &std::path::Path, to: PathBuf) -> PathBuf {
    let folder = keys.join("tls");
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    let texts = entries.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let text: String = texts.collect();
    let start = text.find("-----BEGIN CERTIFICATE-----").expect("a certificate in the folder");
    let end = text[start..].find("-----END CERTIFICATE-----").unwrap();
    let pem = format!("{}-----END CERTIFICATE-----\n", &text[start..start + end]);
    std::fs::write(&to, pem).unwrap();
    to
}
