//! Mail through the whole tree: in by SMTP, durable, read by IMAP, submitted, and every process
//! killed on the way.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use daemon::orders::Order;
use ipc::Role;
use mox_tests::{
    client::{Imap, Smtp},
    tree::{Tree, wait_until},
};
use std::time::Duration;

const USER: &str = "mox@localhost";
const PASSWORD: &str = "moxmoxmox";
const PATIENCE: Duration = Duration::from_secs(20);

fn message(id: &str) -> Vec<u8> {
    format!(
        "From: Ann <ann@example.org>\r\nTo: {USER}\r\nSubject: hello {id}\r\n\
         Message-ID: <{id}@example.org>\r\nDate: Sat, 21 Nov 2026 01:10:50 +0000\r\n\r\n\
         .A line with a dot and {id}\r\n"
    )
    .into_bytes()
}

fn count(imap: &mut Imap, mailbox: &str) -> usize {
    let text = imap.command(&format!("STATUS \"{mailbox}\" (MESSAGES)")).unwrap().text();
    let at = text.find("MESSAGES ").unwrap() + "MESSAGES ".len();
    text[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn what_came_by_smtp_is_read_by_imap() {
    let tree = Tree::start();
    let mut smtp = Smtp::connect(tree.address(25)).unwrap();
    // RFC 8601 §5.
    let results = |host: &str| format!("Authentication-Results: {host};\r\n\tdkim=pass\r\n");
    let forged =
        [results("LOCALHOST").into_bytes(), results("a.example").into_bytes(), message("one")];
    let reply = smtp.send("ann@example.org", &[USER], &forged.concat()).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");

    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    let fetched =
        imap.command("FETCH 1 (FLAGS ENVELOPE BODYSTRUCTURE RFC822.SIZE BODY.PEEK[])").unwrap();
    let text = fetched.text();
    assert!(fetched.is_ok(), "{text}");
    assert!(text.contains("hello one"), "{text}");
    assert!(text.contains(".A line with a dot and one\r\n"), "{text}");
    assert!(text.contains("Return-Path: <ann@example.org>"), "{text}");
    assert!(text.contains("Received: from client.example"), "{text}");
    assert!(text.contains(&results("a.example")), "{text}");
    assert!(!text.contains("LOCALHOST"), "{text}");

    let found = imap.command("SEARCH TEXT \"dot and one\"").unwrap().text();
    assert!(found.contains("SEARCH 1"), "{found}");
    assert!(imap.command("STORE 1 +FLAGS (\\Seen $label)").unwrap().is_ok());
    assert!(imap.command("COPY 1 Archive").unwrap().is_ok());
    assert!(imap.command("MOVE 1 Trash").unwrap().is_ok());
    assert_eq!(count(&mut imap, "INBOX"), 0);
    assert_eq!(count(&mut imap, "Archive"), 1);
    assert_eq!(count(&mut imap, "Trash"), 1);
    assert!(imap.append("Drafts", &message("draft")).unwrap().is_ok());
    assert_eq!(count(&mut imap, "Drafts"), 1);
}

/// The rows of the history: how it ended, where, and what the client called itself.
fn log_ins(tree: &Tree) -> Vec<String> {
    let listed = tree.moxctl(&["--json", "account", "logins", "mox"]).stdout;
    let row = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let fields = ["result", "local_ip", "listener", "agent"];
        fields.map(|field| row[field].as_str().unwrap().to_owned()).join(" ")
    };
    let mut rows: Vec<String> = String::from_utf8(listed).unwrap().lines().map(row).collect();
    rows.sort();
    rows
}

#[test]
fn what_is_submitted_comes_back_to_a_local_recipient() {
    let tree = Tree::start();
    let mut smtp = Smtp::connect(tree.address(587)).unwrap();
    let refused = smtp.command(&format!("MAIL FROM:<{USER}>")).unwrap();
    assert_eq!(refused.code, 530, "{refused:?}");
    let wrong = smtp.log_in(USER, "wrong").unwrap();
    assert_eq!(wrong.code, 535, "{wrong:?}");
    let right = smtp.log_in(USER, PASSWORD).unwrap();
    assert_eq!(right.code, 235, "{right:?}");
    let text = String::from_utf8(message("two")).unwrap().replace("ann@example.org", USER);
    let reply = smtp.send(USER, &[USER], text.as_bytes()).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");

    let mut imap = Imap::connect(tree.address(143)).unwrap();
    let id = imap.command("ID (\"name\" \"Bird\" \"version\" \"1.0\")").unwrap();
    assert!(id.is_ok());
    let mut imap = imap.logged_in(USER, PASSWORD).unwrap();
    assert!(wait_until(PATIENCE, || count(&mut imap, "INBOX") == 1), "it did not come back");
    assert!(wait_until(PATIENCE, || log_ins(&tree).len() == 3), "{:?}", log_ins(&tree));
    let ours = tree.address(143).ip();
    assert_eq!(
        log_ins(&tree),
        [
            format!("badcreds {ours} local/submission client.example"),
            format!("ok {ours} local/imap Bird 1.0"),
            format!("ok {ours} local/submission client.example"),
        ]
    );
    let listed = tree.moxctl(&["queue", "list", "--json"]);
    assert!(listed.status.success(), "{listed:?}");
    assert!(wait_until(PATIENCE, || tree.moxctl(&["--json", "queue", "list"]).stdout.is_empty()));
}

#[test]
fn a_watching_session_sees_new_mail_and_outlives_accountd() {
    let tree = Tree::start();
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    let tag = imap.start("IDLE").unwrap();
    assert_eq!(imap.response().unwrap().first(), Some(&b'+'));
    for round in 1..=3 {
        let mut smtp = Smtp::connect(tree.address(25)).unwrap();
        let reply =
            smtp.send("ann@example.org", &[USER], &message(&format!("idle{round}"))).unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
        loop {
            let response = String::from_utf8(imap.response().unwrap()).unwrap();
            if response == format!("* {round} EXISTS") {
                break;
            }
        }
        tree.kill_and_wait(Role::Accountd, 0);
    }
    imap.raw(b"DONE\r\n").unwrap();
    assert!(imap.finish(&tag).unwrap().is_ok());
    assert!(imap.command("FETCH 1:* (FLAGS)").unwrap().is_ok());
}

#[test]
fn what_was_acknowledged_survives_the_death_of_everything() {
    let mut tree = Tree::start();
    let mut sent = 0;
    for round in 0..3 {
        for n in 0..10 {
            let mut smtp = Smtp::connect(tree.address(25)).unwrap();
            let id = format!("{round}-{n}");
            let reply = smtp.send("ann@example.org", &[USER], &message(&id)).unwrap();
            assert_eq!(reply.code, 250, "{reply:?}");
            sent += 1;
        }
        tree.crash_and_restart();
        let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
        assert_eq!(count(&mut imap, "INBOX"), sent);
    }
}

#[test]
fn a_server_at_rest_ends_without_waiting_for_anything() {
    let tree = Tree::start();
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    tree.order(Order::Stop).unwrap();
    // RFC 9051 §7.1.5: a session is told.
    assert!(String::from_utf8(imap.response().unwrap()).unwrap().starts_with("* BYE"));
    assert!(wait_until(PATIENCE, || tree.logs().contains("everything has ended")));
    assert!(!tree.logs().contains("the time for draining is over"), "{}", tree.logs());
}
