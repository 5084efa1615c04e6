//! swaks, curl, and Python's smtplib and imaplib: sending and reading as scripts do.

use crate::{
    PASSWORD, USER, certificate, fetch, log_in,
    programs::{PYTHON, program, said, script, succeeds, succeeds_with, there},
    wait_for,
};
use mox_tests::{client::Imap, tree::Tree};
use std::{path::PathBuf, process::Command};

/// A message from a file: long lines of 8-bit text, dots at the start of lines, white space at the
/// end of one, empty lines last.
fn awkward(subject: &str, from: &str) -> Vec<u8> {
    let mut text = format!(
        "From: {from}\r\nTo: {USER}\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\
         Message-ID: <{subject}@example.org>\r\nDate: Sat, 21 Nov 2026 01:10:50 +0000\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         .\r\n..two\r\nGrüße \t \r\n"
    );
    text.push_str(&"ä".repeat(400));
    text.push_str("\r\n\r\n\r\n");
    text.into_bytes()
}

/// What `swaks` is told for each way of sending.
fn swaks(tree: &Tree, port: u16, args: &[&str]) -> Command {
    let address = tree.address(port);
    let mut command = program("swaks");
    command.arg("--server").arg(address.ip().to_string()).arg("--port");
    command.arg(address.port().to_string()).args(["--to", USER, "--helo", "client.example.org"]);
    command.args(args);
    command
}

#[test]
fn swaks_sends_in_every_way_it_knows() {
    if !there(&["swaks"]) {
        return;
    }
    let tree = Tree::start();
    let stranger = ["--from", "ann@example.org"];
    let user = ["--from", USER, "--auth-user", USER, "--auth-password", PASSWORD];
    let ways: [(u16, &[&str], &[&str]); 8] = [
        (25, &stranger, &[]),
        (25, &stranger, &["--tls"]),
        (25, &stranger, &["--pipeline", "--tls"]),
        (587, &user, &["--tls", "--auth", "PLAIN"]),
        (587, &user, &["--tls", "--auth", "LOGIN"]),
        (587, &user, &["--auth", "PLAIN", "--pipeline"]),
        (465, &user, &["--tls-on-connect", "--auth", "PLAIN"]),
        (465, &user, &["--tls-on-connect", "--auth", "LOGIN"]),
    ];
    for (number, (port, who, how)) in ways.iter().enumerate() {
        let subject = format!("Subject: way {number}");
        let mut command = swaks(&tree, *port, &[who, *how].concat());
        let text = succeeds(command.args(["--header", &subject]));
        let tls = how.iter().any(|word| word.starts_with("--tls"));
        assert_eq!(text.contains("=== TLS started with cipher"), tls, "{text}");
        assert_eq!(text.contains(" 235 "), *port != 25, "{text}");
    }
    let (text, done) = said(&mut swaks(
        &tree,
        587,
        &["--from", USER, "--tls", "--auth-user", USER, "--auth-password", "wrong"],
    ));
    assert!(!done && text.contains(" 535 "), "{text}");

    let mut imap = log_in(&tree);
    wait_for(&mut imap, "INBOX", ways.len());
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    for number in 0..ways.len() {
        let found = imap.command(&format!("SEARCH SUBJECT \"way {number}\"")).unwrap().text();
        assert!(found.lines().any(|l| l.starts_with("* SEARCH ") && l.len() > 9), "{found}");
    }
}

/// `curl` for a service of the tree, which verifies its certificate by the name `localhost`.
fn curl(tree: &Tree, cert: &PathBuf, scheme: &str, port: u16, path: &str) -> Command {
    let address = tree.address(port);
    let mut command = program("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--cacert"]).arg(cert);
    let resolve = format!("localhost:{}:{}", address.port(), address.ip());
    command.arg("--resolve").arg(resolve);
    command.arg(format!("{scheme}://localhost:{}/{path}", address.port()));
    command
}

#[test]
fn curl_sends_and_reads_what_it_sent() {
    if !there(&["curl"]) {
        return;
    }
    let tree = Tree::start();
    let folder = tempfile::tempdir().unwrap();
    let cert = certificate(&tree.folder().join("keys"), folder.path().join("cert.pem"));
    let login = format!("{USER}:{PASSWORD}");
    // The same octets: each time curl heard that they were taken, so they are meant.
    let message = awkward("by-curl", USER);
    let ways = [
        ("smtp", 587, &["--ssl-reqd", "--login-options", "AUTH=PLAIN"][..]),
        ("smtp", 587, &["--ssl-reqd", "--login-options", "AUTH=LOGIN"][..]),
        ("smtps", 465, &["--login-options", "AUTH=PLAIN"][..]),
    ];
    for (scheme, port, more) in ways {
        let mut command = curl(&tree, &cert, scheme, port, "client.example.org");
        command.args(["--mail-from", USER, "--mail-rcpt", USER, "--user", &login, "-T", "-"]);
        succeeds_with(command.args(more), &message);
    }
    let mut imap = log_in(&tree);
    wait_for(&mut imap, "INBOX", 3);
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    for number in 1..=3 {
        let stored = fetch(&mut imap, number);
        assert!(stored.ends_with(&message), "{}", String::from_utf8_lossy(&stored));
    }

    // A URL is a whole message, by UID or by number, on both ports.
    let read = |scheme: &str, port, path: &str, more: &[&str]| {
        let mut command = curl(&tree, &cert, scheme, port, path);
        succeeds(command.args(["--user", &login]).args(more))
    };
    let whole = String::from_utf8(fetch(&mut imap, 1)).unwrap();
    let tls = ["--ssl-reqd"];
    assert_eq!(read("imaps", 993, "INBOX;MAILINDEX=1", &[]), whole);
    assert_eq!(read("imap", 143, "INBOX;UID=1", &tls), whole);
    assert!(read("imap", 143, "INBOX;UID=1;SECTION=TEXT", &tls).starts_with(".\r\n..two\r\n"));
    assert!(read("imaps", 993, "", &[]).contains("* LIST"));
    assert_eq!(read("imaps", 993, "INBOX?SUBJECT%20by-curl", &[]).trim(), "* SEARCH 1 2 3");
    let file = folder.path().join("message");
    std::fs::write(&file, &message).unwrap();
    let mut command = curl(&tree, &cert, "imaps", 993, "Drafts");
    succeeds(command.args(["--user", &login, "-T"]).arg(file));
    assert!(imap.command("SELECT Drafts").unwrap().is_ok());
    assert_eq!(fetch(&mut imap, 1), message, "APPEND changes nothing");
    let plain = ["--ssl-reqd", "--login-options", "AUTH=PLAIN"];
    assert_eq!(read("imap", 143, "INBOX;MAILINDEX=1", &plain), whole);
    let page = succeeds(&mut curl(&tree, &cert, "https", 443, ""));
    assert!(page.contains("<html") && page.contains("IMAP"), "{page}");
    assert!(succeeds(&mut curl(&tree, &cert, "http", 80, "healthz")).contains("ok"));
}

/// A script of ours, told where the server is.
fn python(name: &str, tree: &Tree, cert: &PathBuf) -> String {
    let mut command = script(name);
    command.env("MOX_HOST", tree.address(25).ip().to_string()).env("MOX_CERT", cert);
    command.env("MOX_USER", USER).env("MOX_PASSWORD", PASSWORD);
    for port in [25, 143, 465, 587, 993] {
        command.env(format!("MOX_PORT_{port}"), tree.address(port).port().to_string());
    }
    succeeds(&mut command)
}

#[test]
fn python_smtplib_sends_by_all_ports() {
    if !there(&[PYTHON]) {
        return;
    }
    let tree = Tree::start();
    let folder = tempfile::tempdir().unwrap();
    let cert = certificate(&tree.folder().join("keys"), folder.path().join("cert.pem"));
    let text = python("smtp.py", &tree, &cert);
    let sent: usize = text.trim().parse().unwrap_or_else(|_| panic!("{text}"));
    let mut imap: Imap = log_in(&tree);
    wait_for(&mut imap, "INBOX", sent);
}

#[test]
fn python_imaplib_reads_moves_flags_searches_and_idles() {
    if !there(&[PYTHON]) {
        return;
    }
    let tree = Tree::start();
    let folder = tempfile::tempdir().unwrap();
    let cert = certificate(&tree.folder().join("keys"), folder.path().join("cert.pem"));
    assert_eq!(python("imap.py", &tree, &cert).trim(), "done");
}
