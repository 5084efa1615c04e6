//! The hands, taken over: what they say of the work in hand is believed as far as it goes, and goes
//! no further.

use crate::stage::{OTHER, OTHER_PASSWORD, PASSWORD, Stage, USER};
use ipc::Role;
use mox_tests::{
    client::{Imap, Smtp},
    tree::{Tree, wait_until},
};
use std::time::Duration;

/// The queue has come to its end with a message by then.
const PATIENCE: Duration = Duration::from_secs(30);

fn pids(tree: &Tree, roles: &[Role]) -> Vec<(Role, u16, u32)> {
    let all = tree.processes().into_iter().filter(|process| roles.contains(&process.role));
    all.map(|process| (process.role, process.instance, process.pid)).collect()
}

/// What a lying parser could break for others.
const READERS: [Role; 3] = [Role::Accountd, Role::ImapdSession, Role::QueueRunner];

fn lying(lie: &str) -> String {
    format!(
        "From: <x@example.com>\r\nTo: <{USER}>\r\nMessage-ID: <{lie}@example.com>\r\n\
         Subject: about {lie}\r\nX-Lie: {lie}\r\n\r\nThe body of {lie}\r\n"
    )
}

#[test]
fn a_lying_parser_spoils_the_messages_it_read_and_nothing_else() {
    let stage = Stage::set();
    let tree = stage.taken_over("parser");
    let lies = ["none", "behind", "overflow", "noise", "giant", "parts", "lines", "from"];
    let mut smtp = Smtp::connect(tree.address(25)).unwrap();
    for lie in lies {
        let reply = smtp.send("x@example.com", &[USER], lying(lie).as_bytes()).unwrap();
        assert_eq!(reply.code, 250, "{lie}: {reply:?}");
    }
    let before = pids(&tree, &READERS);
    // Somebody else's session of the same process is there all the time.
    let mut other = Imap::log_in(tree.address(143), OTHER, OTHER_PASSWORD).unwrap();
    assert!(other.command("SELECT INBOX").unwrap().is_ok());
    for (uid, lie) in (1u32..).zip(lies) {
        // One session a message: what costs the liar's message its session is told apart.
        let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
        assert!(imap.command("SELECT INBOX").unwrap().is_ok());
        for what in [
            "ENVELOPE",
            "BODYSTRUCTURE",
            "BODY",
            "BODY[1]",
            "BODY[1.MIME]",
            "BODY[2]",
            "BODY[200]",
            "BODY[HEADER]",
            "BODY[TEXT]",
            "RFC822.SIZE",
            "BINARY.SIZE[2]",
            "BINARY[3]",
        ] {
            let response = imap.command(&format!("UID FETCH {uid} ({what})"));
            let response = response.unwrap_or_else(|error| panic!("{lie} {what}: {error}"));
            // A line that the liar wrote is inside a string, or it is not there.
            for untagged in &response.untagged {
                assert!(untagged.starts_with(b"* "), "{lie} {what}: {}", response.text());
                assert!(!untagged.starts_with(b"* 99"), "{lie} {what}: {}", response.text());
                assert!(!untagged.starts_with(b"* BYE"), "{lie} {what}: {}", response.text());
            }
        }
        let whole = imap.command(&format!("UID FETCH {uid} (BODY.PEEK[])")).unwrap();
        let text = whole.text();
        assert!(text.contains(&lying(lie)), "{lie} {text}");
        for search in ["ALL", "TEXT about", "SENTBEFORE 1-Jan-2030", "HEADER X-Lie noise"] {
            assert!(imap.command(&format!("UID SEARCH {search}")).unwrap().is_ok(), "{search}");
        }
        assert!(other.command("UID SEARCH ALL").unwrap().is_ok());
    }
    assert_eq!(pids(&tree, &READERS), before, "nobody died of a lie");
    let output = tree.moxctl(&["account", "verify", "ann"]);
    assert!(output.status.success(), "{output:?}");
}

/// Sends by submission, as [`USER`].
fn submit(tree: &Tree, to: &[&str], words: &str) -> u16 {
    let mut smtp = Smtp::connect(tree.address(587)).unwrap();
    assert_eq!(smtp.log_in(USER, PASSWORD).unwrap().code, 235);
    let text = format!("From: <{USER}>\r\nSubject: {words}\r\n\r\nx\r\n");
    smtp.send(USER, to, text.as_bytes()).unwrap().code
}

fn queue(tree: &Tree) -> String {
    let output = tree.moxctl(&["queue", "list"]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_lying_outbound_is_believed_about_its_job_alone() {
    let stage = Stage::set();
    let tree = stage.taken_over("outbound");
    let vaults = [Role::Accountd, Role::QueueRunner];
    let before = pids(&tree, &vaults);
    let to = ["delivered@example.com", "failed@example.com", "silent@example.com"];
    assert_eq!(submit(&tree, &to, "three"), 250);
    // "Delivered" is believed, "failed" is reported to the sender, what is not reported waits.
    let settled = || {
        let queue = queue(&tree);
        queue.contains("silent@") && !queue.contains("delivered@") && !queue.contains("failed@")
    };
    assert!(wait_until(PATIENCE, settled), "{}", queue(&tree));
    let inbox = || {
        let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
        assert!(imap.command("SELECT INBOX").unwrap().is_ok());
        imap.command("FETCH 1:* (BODY.PEEK[])").unwrap().text()
    };
    assert!(wait_until(PATIENCE, || inbox().contains("failed@example.com")));
    let report = inbox();
    assert!(!report.contains("delivered@example.com\r\nAction: failed"), "{report}");
    for line in report.lines() {
        let line = line.trim_end_matches('\r');
        assert!(!line.starts_with("X-Forged"), "{report}");
        assert!(!line.starts_with("--forged"), "{report}");
        assert!(line.len() <= 998, "{line}");
    }
    assert!(report.len() < 32_768, "a report of {} octets", report.len());
    // What it said of those who were not in its job is nothing.
    assert_eq!(report.matches("Action: failed").count(), 1, "{report}");
    assert!(!report.contains("Final-Recipient: rfc822; ann@"), "{report}");
    assert_eq!(pids(&tree, &vaults), before);
}

#[test]
fn a_lying_resolver_decides_where_mail_goes_and_breaks_nobody() {
    let stage = Stage::set();
    let tree = stage.taken_over("resolver");
    let roles = [Role::Accountd, Role::QueueRunner, Role::Outbound];
    let before = pids(&tree, &roles);
    assert_eq!(submit(&tree, &["x@nonsense.example", "x@failing.example"], "nonsense"), 250);
    let tried = || {
        let queue = queue(&tree);
        queue.contains("failing") && !queue.contains("nonsense") || {
            let output = tree.moxctl(&["--json", "queue", "list"]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().all(|line| !line.contains("\"attempts\":0")) && !text.is_empty()
        }
    };
    assert!(wait_until(PATIENCE, tried), "{}", queue(&tree));
    // It decides where mail goes: this is what it gets. Port 25 is root's.
    if rustix::process::geteuid().is_root() {
        let std::net::IpAddr::V4(ip) = tree.address(25).ip() else { panic!("an IPv4 address") };
        let sink = std::net::TcpListener::bind((ip, 25)).unwrap();
        let [a, b, c, d] = ip.octets();
        let to = format!("x@{a}-{b}-{c}-{d}.to.example");
        assert_eq!(submit(&tree, &[&to], "led away"), 250);
        sink.set_nonblocking(true).unwrap();
        assert!(wait_until(PATIENCE, || sink.accept().is_ok()), "{}", queue(&tree));
    }
    // Local mail needs no DNS and goes on.
    assert_eq!(submit(&tree, &[OTHER], "local"), 250);
    let arrived = || crate::subjects(&tree, OTHER).contains("local");
    assert!(wait_until(PATIENCE, arrived));
    assert_eq!(pids(&tree, &roles), before);
}
