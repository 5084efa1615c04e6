//! `moxctl log follow` over a server that runs: one message through every process, one session, as it
//! happens and afterwards, from files and from a journal.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use mox_tests::{
    client::{Imap, Smtp},
    needs,
    service::{Logs, Service},
    tree::{own_address, wait_until},
};
use std::{
    io::{BufRead as _, BufReader},
    process::Child,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

const PASSWORD: &str = "moxmoxmox";
const PATIENCE: Duration = Duration::from_secs(30);

/// Only root can serve on the ports of mail.
fn possible() -> bool {
    needs(rustix::process::geteuid().is_root(), || "only root can start this server".to_owned())
}

fn start(logs: Logs, more: &str) -> Service {
    let service = Service::start_with(own_address(), "mx.a.test", more, logs);
    let _ = service.asks(&["domain", "add", "a.test", ""], "");
    for name in ["ann", "bob"] {
        let password = format!("{PASSWORD}\n");
        let _ = service.asks(&["account", "add", name, &format!("{name}@a.test")], &password);
    }
    service
}

/// From ann to bob, both of this server: through submission, queue and delivery.
fn submit(service: &Service, id: &str) {
    let mut smtp = Smtp::connect(service.address(587)).unwrap();
    assert_eq!(smtp.log_in("ann@a.test", PASSWORD).unwrap().code, 235);
    let message = format!(
        "From: ann@a.test\r\nTo: bob@a.test\r\nSubject: x\r\nMessage-ID: <{id}>\r\n\r\nthe body\r\n"
    );
    let reply = smtp.send("ann@a.test", &["bob@a.test"], message.as_bytes()).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
}

/// What `log follow` prints while it runs.
struct Followed {
    moxctl: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Followed {
    fn of(service: &Service, id: &str) -> Self {
        let mut moxctl = service.start_moxctl(&["log", "follow", id]);
        let (lines, out) = (Arc::<Mutex<Vec<String>>>::default(), moxctl.stdout.take().unwrap());
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Self { moxctl, lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait_for(&self, wanted: &[(&str, &str)]) -> Vec<String> {
        let complete = || wanted.iter().all(|wanted| has(&self.lines(), *wanted));
        assert!(wait_until(PATIENCE, complete), "{wanted:?} in {:#?}", self.lines());
        self.lines()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // Fails only if it is gone.
        let _ = self.moxctl.kill();
        let _ = self.moxctl.wait();
    }
}

/// Whether a process said these words.
fn has(lines: &[String], (process, words): (&str, &str)) -> bool {
    let mut of = lines.iter().filter(|line| line.starts_with(&format!("{process} ")));
    of.any(|line| line.contains(words))
}

/// What one message leaves behind on its way from a user to a user.
const WAY: [(&str, &str); 8] = [
    ("smtpd-submission", "connected"),
    ("smtpd-submission", "logged in"),
    ("accountd", "log-in"),
    ("accountd", "submitted"),
    ("smtpd-submission", "message taken"),
    ("queue-runner", "queued"),
    ("accountd", "delivered"),
    ("queue-runner", "delivered"),
];

/// Everything of one message, nothing of another one, in the order of time.
fn sound(lines: &[String], other: &str) {
    assert!(!lines.iter().any(|line| line.contains(other)), "{lines:#?}");
    assert!(!lines.iter().any(|l| l.contains(PASSWORD) || l.contains("the body")), "{lines:#?}");
    let times: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    assert!(times.is_sorted(), "{lines:#?}");
}

fn afterwards(service: &Service, id: &str) -> Vec<String> {
    let text = service.asks(&["log", "follow", "--once", id], "");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn one_message_is_followed_through_all_processes() {
    if !possible() {
        return;
    }
    let service = start(Logs::Files, "");
    submit(&service, "before-it@a.test");
    let live = Followed::of(&service, "<the-one@a.test>");
    submit(&service, "the-one@a.test");
    submit(&service, "another@a.test");
    // What came before a line that teaches an id has gone by: a live look begins with the first line
    // that names the message.
    let lines = live.wait_for(&WAY[3..]);
    sound(&lines, "another@a.test");

    // Afterwards all of it is found, by any of its ids.
    let lines = afterwards(&service, "<the-one@a.test>");
    for wanted in WAY {
        assert!(has(&lines, wanted), "{wanted:?} in {lines:#?}");
    }
    sound(&lines, "another@a.test");
    let field = |key: &str| {
        let at = lines.iter().find_map(|line| line.split_once(&format!(" {key}="))).unwrap().1;
        at.split(' ').next().unwrap().to_owned()
    };
    for key in ["queue_id", "submission", "session"] {
        assert_eq!(afterwards(&service, &field(key)), lines, "{key}");
    }
    let none = service.moxctl(&["log", "follow", "--once", "<nothing-like-it@a.test>"], "");
    assert_eq!((none.status.code(), none.stdout.as_slice()), (Some(1), &b""[..]));
    let error = String::from_utf8(none.stderr).unwrap();
    assert_eq!(error, "moxctl: nothing in the log is about nothing-like-it@a.test\n");
    let objects = service.asks(&["--json", "log", "follow", "--once", &field("queue_id")], "");
    assert_eq!(objects.lines().count(), lines.len());
    assert!(objects.lines().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()));
}

#[test]
fn one_session_is_followed_and_json_logs_are_read_too() {
    if !possible() {
        return;
    }
    let service = start(Logs::Files, "[log]\nformat = \"json\"\n");
    let mut imap = Imap::log_in(service.address(143), "bob@a.test", PASSWORD).unwrap();
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    assert!(imap.command("LOGOUT").unwrap().is_ok());
    let session = || {
        let logs = service.logs();
        let line = logs.lines().find(|l| l.contains("imapd-session") && l.contains("is over"))?;
        let object: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(object["session"].as_str()?.to_owned())
    };
    assert!(wait_until(PATIENCE, || session().is_some()), "{}", service.logs());
    let lines = service.asks(&["log", "follow", "--once", &session().unwrap()], "");
    for process in ["imapd-front", "accountd", "imapd-session"] {
        assert!(lines.contains(&format!("\"process\":\"{process}")), "{process}: {lines}");
    }
}

#[test]
fn a_journal_is_followed_as_files_are() {
    if !possible() {
        return;
    }
    let service = start(Logs::Journal, "");
    submit(&service, "before-it@a.test");
    let live = Followed::of(&service, "the-one@a.test");
    submit(&service, "the-one@a.test");
    submit(&service, "another@a.test");
    sound(&live.wait_for(&WAY[3..]), "another@a.test");
    let lines = afterwards(&service, "the-one@a.test");
    for wanted in WAY {
        assert!(has(&lines, wanted), "{wanted:?} in {lines:#?}");
    }
    sound(&lines, "another@a.test");
    assert!(!service.data().join("log/accountd.log").exists(), "the journal has them");
}
