//! Mail between mox, served as an administrator serves it, and a Postfix: each finds the other by the
//! records of a name server, both speak STARTTLS, and what one cannot deliver comes back.

use crate::{
    PASSWORD, PATIENCE, count, fetch,
    postfix::{DOMAIN, Postfix},
    programs::{PYTHON, as_root, python_has, script, succeeds, there},
    says, wait_for,
    zone::{Record, Zone},
};
use mox_tests::{
    client::{Imap, Smtp},
    service::Service,
    tree::{own_address, wait_until},
};

/// The account of the server under test.
const ANN: &str = "ann@mail-a.test";

/// Both servers and the records that join them.
struct World {
    service: Service,
    postfix: Postfix,
    zone: Zone,
    folder: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let (ours, theirs) = (own_address(), own_address());
        let zone = Zone::start(ours);
        zone.add("mail-a.test", Record::Mx(10, "mx.mail-a.test".into()));
        zone.add("mx.mail-a.test", Record::A(ours));
        zone.add(DOMAIN, Record::Mx(10, format!("mx.{DOMAIN}")));
        zone.add(&format!("mx.{DOMAIN}"), Record::A(theirs));
        zone.add("null.test", Record::Mx(0, ".".into()));
        let more = format!(
            "[dns]\nservers = [\"{}\"]\nmode = \"trust-ad\"\n\n\
             [queue]\nretry = [{}]\ndelay_notice_after = 0\n",
            zone.address,
            vec!["\"1s\""; 60].join(", "),
        );
        let service = Service::start(ours, "mx.mail-a.test", &more);
        let _ = service.asks(&["domain", "add", "mail-a.test", ""], "");
        let password = format!("{PASSWORD}\n");
        let _ = service.asks(&["account", "add", "ann", ANN], &password);
        let postfix = Postfix::start(theirs, ("mail-a.test", ours));
        Self { service, postfix, zone, folder: tempfile::tempdir().unwrap() }
    }

    /// Takes both or says what is missing.
    fn possible() -> bool {
        there(&Postfix::NEEDS) && as_root()
    }

    fn imap(&self) -> Imap {
        Imap::log_in(self.service.address(143), ANN, PASSWORD).unwrap()
    }

    fn submit(&self, to: &[&str], message: &[u8]) {
        let mut smtp = Smtp::connect(self.service.address(587)).unwrap();
        assert_eq!(smtp.log_in(ANN, PASSWORD).unwrap().code, 235);
        let reply = smtp.send(ANN, to, message).unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
    }

    /// Waits until the Postfix has delivered so many; all of them.
    fn delivered(&self, messages: usize) -> Vec<Vec<u8>> {
        let all = || self.postfix.mail();
        assert!(wait_until(PATIENCE, || all().len() >= messages), "{}", self.postfix.log());
        let mail = all();
        assert_eq!(mail.len(), messages);
        mail
    }

    /// DKIM records as the administrator is shown them, for the zone and for a checker.
    fn publish_dkim(&self) -> std::path::PathBuf {
        let status = self.service.asks(&["--json", "status"], "");
        let mut lines = String::new();
        for line in status.lines() {
            let fact: serde_json::Value = serde_json::from_str(line).unwrap();
            for (key, value) in fact.as_object().unwrap() {
                if key.ends_with("._domainkey.mail-a.test") {
                    let text = value.as_str().unwrap();
                    let name = key.rsplit(' ').next().unwrap();
                    self.zone.add(name, Record::Txt(text.to_owned()));
                    lines.push_str(&format!("{name} {text}\n"));
                }
            }
        }
        assert_eq!(lines.lines().count(), 2, "Ed25519 and RSA: {status}");
        let path = self.folder.path().join("records");
        std::fs::write(&path, lines).unwrap();
        path
    }
}

fn message(subject: &str, to: &str) -> Vec<u8> {
    let mut text = format!(
        "From: Ann <{ANN}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\
         Message-ID: <{subject}@mail-a.test>\r\nDate: Sat, 21 Nov 2026 01:10:50 +0000\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         .\r\n..dots\r\nGrüße aus {subject}  \t\r\n"
    );
    text.push_str(&"ß".repeat(450));
    text.push_str("\r\n\r\n\r\n");
    text.into_bytes()
}

#[test]
fn what_is_submitted_reaches_another_server_whole_and_signed() {
    if !(World::possible() && there(&[PYTHON]) && python_has("dkim")) {
        return;
    }
    let world = World::start();
    let records = world.publish_dkim();
    let bob = format!("bob@{DOMAIN}");
    let sent = message("whole", &bob);
    world.submit(&[&bob], &sent);
    let came = world.delivered(1).remove(0);
    let text = String::from_utf8_lossy(&came).into_owned();
    assert!(came.ends_with(&sent), "byte by byte: {text}");
    let (trace, _) = text.split_once("From: Ann").unwrap();
    assert!(trace.contains(&format!("Return-Path: <{ANN}>")), "{trace}");
    assert!(trace.contains("using TLSv1.3"), "STARTTLS was used: {trace}");
    assert!(trace.contains("from mx.mail-a.test"), "{trace}");
    assert!(!trace.contains("X-TUID") && !trace.contains(PASSWORD), "{trace}");

    let path = world.folder.path().join("came");
    std::fs::write(&path, &came).unwrap();
    let verified = succeeds(script("verify.py").arg(path).arg(records));
    let mut algorithms: Vec<&str> = verified.lines().collect();
    algorithms.sort_unstable();
    assert_eq!(algorithms, ["ed25519-sha256", "rsa-sha256"]);

    let empty = || world.service.asks(&["--json", "queue", "list"], "").is_empty();
    assert!(wait_until(PATIENCE, empty), "the queue forgets what is delivered");
}

#[test]
fn what_is_put_off_is_tried_again_and_what_is_refused_comes_back_once() {
    if !World::possible() {
        return;
    }
    let world = World::start();
    let mut imap = world.imap();
    let at = |local: &str| format!("{local}@{DOMAIN}");
    // One message, three fates.
    let (good, defer, reject) = (at("good"), at("defer"), at("reject"));
    world.submit(&[&good, &defer, &reject], &message("three", &good));
    world.delivered(1);
    wait_for(&mut imap, "INBOX", 1);
    let waits = || world.service.asks(&["--json", "queue", "list"], "");
    let tried_again = || {
        let line: serde_json::Value = serde_json::from_str(waits().trim()).unwrap_or_default();
        line["attempts"].as_u64().is_some_and(|attempts| attempts >= 2)
    };
    assert!(wait_until(PATIENCE, tried_again), "{}", waits());
    assert!(waits().contains(&defer) && waits().contains("4.2.1"), "{}", waits());
    world.postfix.take_all();
    world.delivered(2);
    assert!(wait_until(PATIENCE, || waits().is_empty()), "{}", waits());

    // RFC 3464: one notification, of the refused one alone.
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    let notice = String::from_utf8(fetch(&mut imap, 1)).unwrap();
    assert!(notice.contains("Return-Path: <>"), "{notice}");
    assert!(notice.contains("report-type=delivery-status"), "{notice}");
    assert!(notice.contains(&format!("Final-Recipient: rfc822; {reject}")), "{notice}");
    assert!(notice.contains("Action: failed") && notice.contains("Status: 5.1.1"), "{notice}");
    assert!(notice.contains("no such user"), "the other server's words: {notice}");
    assert!(notice.contains("Subject: three"), "the header of what was sent: {notice}");
    assert!(!notice.contains(&defer) && !notice.contains(&format!("; {good}")), "{notice}");

    // Nobody sends in another one's name, and strangers reach nobody through us.
    let mut smtp = Smtp::connect(world.service.address(587)).unwrap();
    assert_eq!(smtp.log_in(ANN, PASSWORD).unwrap().code, 235);
    assert_eq!(smtp.command("MAIL FROM:<bob@mail-a.test>").unwrap().code, 550);
    let mut smtp = Smtp::connect(world.service.address(25)).unwrap();
    assert_eq!(smtp.command(&format!("MAIL FROM:<a@{DOMAIN}>")).unwrap().code, 250);
    assert_eq!(smtp.command(&format!("RCPT TO:<{good}>")).unwrap().code, 550);

    // Domains that do not want mail, do not exist, or have no host.
    for (number, (to, status)) in
        [("a@null.test", "5.1.10"), ("a@gone.test", "5.1.2")].into_iter().enumerate()
    {
        world.submit(&[to], &message("nowhere", to));
        wait_for(&mut imap, "INBOX", 2 + number);
        assert!(imap.command("NOOP").unwrap().is_ok());
        let notice = String::from_utf8(fetch(&mut imap, 2 + number)).unwrap();
        assert!(notice.contains(&format!("Status: {status}")), "{notice}");
        assert!(notice.contains(&format!("Final-Recipient: rfc822; {to}")), "{notice}");
    }
    assert_eq!(count(&mut imap, "INBOX"), 3, "one notification each");
    assert!(waits().is_empty(), "{}", waits());
}

#[test]
fn postfix_sends_to_us_with_all_it_can() {
    if !World::possible() {
        return;
    }
    let world = World::start();
    let mut imap = world.imap();
    let from = format!("bob@{DOMAIN}");
    let body = format!("Content-Transfer-Encoding: 8bit\n\n.\n..\nGrüße\n{}\n", "ü".repeat(400));
    let plain = format!(
        "From: {from}\nTo: {ANN}\nSubject: plain\nMessage-ID: <plain@{DOMAIN}>\n\
         Date: Sat, 21 Nov 2026 01:10:50 +0000\nMIME-Version: 1.0\n{body}"
    );
    world.postfix.send(&from, ANN, plain.as_bytes());
    wait_for(&mut imap, "INBOX", 1);
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    let came = String::from_utf8(fetch(&mut imap, 1)).unwrap();
    assert!(came.ends_with(&body.replace('\n', "\r\n")), "{came}");
    assert!(came.contains(&format!("Return-Path: <{from}>")), "{came}");
    assert!(says(&came, "with ESMTPS id"), "{came}");

    // RFC 6531: an address and a header in UTF-8.
    let from = format!("böb@{DOMAIN}");
    let international = format!("From: {from}\nTo: {ANN}\nSubject: Grüße\n\nHallo\n");
    world.postfix.send(&from, ANN, international.as_bytes());
    wait_for(&mut imap, "INBOX", 2);
    assert!(imap.command("NOOP").unwrap().is_ok());
    let came = String::from_utf8(fetch(&mut imap, 2)).unwrap();
    assert!(came.contains("Subject: Grüße\r\n") && says(&came, "with UTF8SMTPS id"), "{came}");
    assert!(came.contains(&format!("Return-Path: <{from}>")), "{came}");

    // Nobody there: Postfix gets our 550 and tells its sender.
    world.postfix.send(&format!("bob@{DOMAIN}"), "nobody@mail-a.test", plain.as_bytes());
    let bounce = world.delivered(1).remove(0);
    assert!(String::from_utf8_lossy(&bounce).contains("550 5.1.1"), "our words are in it");

    // What its client was offered, and used.
    let log = world.postfix.log();
    for word in ["STARTTLS", "PIPELINING", "SIZE ", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"] {
        let offered = log.lines().any(|l| l.contains(": < ") && l.contains(&format!("250-{word}")));
        let last = log.lines().any(|l| l.contains(": < ") && l.contains(&format!("250 {word}")));
        assert!(offered || last, "{word} was not offered:\n{log}");
    }
    let used = |words: &[&str]| {
        let mail = log.lines().filter(|line| line.contains("> ") && line.contains("MAIL FROM:<"));
        mail.into_iter().any(|line| words.iter().all(|word| line.contains(word)))
    };
    assert!(used(&["BODY=8BITMIME", "SIZE="]), "{log}");
    assert!(used(&["SMTPUTF8", "SIZE="]), "{log}");
    assert!(log.contains("TLS connection established to"), "{log}");
}
