//! One process stands still, as by `kill -STOP` or a machine under load: whoever needs it says "try
//! again" and is not stalled, and nobody else notices.

use crate::{PASSWORD, USER};
use ipc::Role;
use mox_tests::{
    client::{Imap, Smtp},
    tls::Client,
    tree::{Tree, kill, wait_until},
};
use rustix::process::Signal;
use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// A client that is answered is answered by then. The deadlines behind it are of one second; the
/// rest is for a machine that is busy with other tests.
const PROMPT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// Stops a process, and lets it go on at the end.
struct Stopped(u32);

impl Stopped {
    fn new(tree: &Tree, role: Role, instance: u16) -> Self {
        let pid = tree.pid(role, instance).unwrap();
        mox_tests::tree::stop(pid).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Gone only if the tree is.
        let _ = kill(self.0, Signal::CONT);
    }
}

fn dial(tree: &Tree, port: u16) -> TcpStream {
    let stream = TcpStream::connect(tree.address(port)).unwrap();
    stream.set_read_timeout(Some(PROMPT)).unwrap();
    stream
}

/// The first line a service says.
fn greeting(tree: &Tree, port: u16) -> String {
    let mut line = String::new();
    BufReader::new(dial(tree, port)).read_line(&mut line).unwrap();
    line
}

fn delivers(tree: &Tree) {
    let mut smtp = Smtp::connect(tree.address(25)).unwrap();
    let text = b"From: <x@example.org>\r\nSubject: x\r\n\r\nx\r\n";
    assert_eq!(smtp.send("x@example.org", &[USER], text).unwrap().code, 250);
}

fn submits(tree: &Tree) {
    let mut smtp = Smtp::connect(tree.address(587)).unwrap();
    assert_eq!(smtp.log_in(USER, PASSWORD).unwrap().code, 235);
    let text = format!("From: <{USER}>\r\nSubject: x\r\n\r\nx\r\n");
    assert_eq!(smtp.send(USER, &[USER], text.as_bytes()).unwrap().code, 250);
}

fn reads(tree: &Tree) {
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
}

fn serves_pages(tree: &Tree) {
    let mut web = dial(tree, 80);
    web.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    web.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// What a face is there for.
type Works = fn(&Tree);

#[test]
fn who_does_not_need_it_does_not_notice() {
    let tree = Tree::start();
    let all: [(Role, Works); 4] = [
        (Role::SmtpdMx, delivers),
        (Role::SmtpdSubmission, submits),
        (Role::ImapdFront, reads),
        (Role::HttpdWeb, serves_pages),
    ];
    for stopped in [
        Role::SmtpdMx,
        Role::SmtpdSubmission,
        Role::ImapdFront,
        Role::HttpdWeb,
        Role::HttpdAdmin,
        Role::Outbound,
        Role::Resolver,
        Role::QueueRunner,
    ] {
        let _stopped = Stopped::new(&tree, stopped, 0);
        for (_, works) in all.into_iter().filter(|(face, _)| *face != stopped) {
            works(&tree);
        }
    }
    // What waited in the queue meanwhile arrives.
    for (_, works) in all {
        works(&tree);
    }
    let queue = || tree.moxctl(&["--json", "queue", "list"]).stdout;
    assert!(wait_until(PATIENCE, || queue().is_empty()));
}

#[test]
fn a_store_that_stands_still_is_a_temporary_refusal() {
    let tree = Tree::start();
    let mut inside = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert!(inside.command("SELECT INBOX").unwrap().is_ok());
    {
        let _stopped = Stopped::new(&tree, Role::Accountd, 0);
        // More than there may be short calls at once: none waits behind the others.
        let crowd: Vec<TcpStream> = (0..80).map(|_| dial(&tree, 143)).collect();
        for port in [25, 587] {
            let said = greeting(&tree, port);
            assert!(said.starts_with("421 4."), "{port}: {said}");
        }
        let said = greeting(&tree, 143);
        assert!(said.starts_with("* BYE") && said.contains("UNAVAILABLE"), "{said}");
        let mut tls = Client::default().connect(dial(&tree, 993)).unwrap();
        let mut said = [0; 256];
        let got = tls.read(&mut said).unwrap();
        assert!(said[..got].starts_with(b"* BYE"), "{}", String::from_utf8_lossy(&said[..got]));
        serves_pages(&tree);
        drop(crowd);
    }
    // Who is let in at the crowd's door comes behind the crowd: it counts for no limit any more.
    let back = || {
        let reads = Imap::log_in(tree.address(143), USER, PASSWORD).is_ok();
        reads && Smtp::connect(tree.address(25)).is_ok()
    };
    assert!(wait_until(PATIENCE, back));
    delivers(&tree);
    submits(&tree);
    // Whoever was in is in.
    assert!(inside.command("NOOP").unwrap().is_ok());
}

/// How long moxd goes without a word of a process before that is an alarm, and a bit.
const NOTICED: Duration = Duration::from_secs(45);

/// One of several of a kind: the others do its work, or it concerns those alone whom it served.
#[test]
fn one_of_several_that_stands_still_costs_the_others_nothing() {
    let tree = Tree::start();
    // Which account is served where is not told: of so many, some are at each instance.
    let accounts: Vec<String> = (0..8).map(|n| format!("u{n}")).collect();
    for name in &accounts {
        let address = format!("{name}@localhost");
        let made = tree.moxctl_with(&["account", "add", name, &address], PASSWORD);
        assert!(made.status.success(), "{made:?}");
    }
    let address = tree.address(143);
    let log_in = move |name: &String| {
        let user = format!("{name}@localhost");
        Imap::log_in(address, &user, PASSWORD)
    };
    let mut inside: Vec<Imap> = accounts.iter().map(|name| log_in(name).unwrap()).collect();
    let session = Stopped::new(&tree, Role::ImapdSession, 0);
    let parser = Stopped::new(&tree, Role::Parser, 0);
    // Mail is parsed by the other parser, at the latest when the first one had its time.
    for _ in 0..3 {
        delivers(&tree);
    }
    let outcomes: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let again = |name| scope.spawn(move || log_in(name).map(drop));
        let all: Vec<_> = accounts.iter().map(again).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let served: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
    assert!(served.contains(&true) && served.contains(&false), "{outcomes:?}");
    for (outcome, imap) in outcomes.iter().zip(&mut inside) {
        match outcome {
            // Who is served by another one goes on.
            Ok(()) => assert!(imap.command("NOOP").unwrap().is_ok()),
            // Who is not is told so, and not left waiting.
            Err(error) => assert!(error.to_string().contains("UNAVAILABLE"), "{error}"),
        }
    }
    // It is said; nobody is killed for being slow.
    let status = || String::from_utf8(tree.moxctl(&["status"]).stdout).unwrap();
    let alarm = |of: &str| status().contains(&format!("alarm: {of} was not heard of"));
    assert!(wait_until(NOTICED, || alarm("imapd-session") && alarm("parser")), "{}", status());
    let stopped = [session.0, parser.0];
    drop((session, parser));
    let quiet = || !status().contains("was not heard of");
    assert!(wait_until(PATIENCE, quiet), "{}", status());
    for (name, mut imap) in accounts.iter().zip(inside) {
        assert!(imap.command("NOOP").unwrap().is_ok(), "{name}");
        log_in(name).unwrap();
    }
    let now = [Role::ImapdSession, Role::Parser].map(|role| tree.pid(role, 0).unwrap());
    assert_eq!(now[0], stopped[0]);

    // And an administrator who does not wait replaces it.
    let _stopped = Stopped::new(&tree, Role::ImapdSession, 0);
    let restarted = tree.moxctl(&["restart", "imapd-session"]);
    assert!(restarted.status.success(), "{restarted:?}");
    let another = || tree.pid(Role::ImapdSession, 0).is_some_and(|pid| pid != stopped[0]);
    assert!(wait_until(PATIENCE, another), "it is not replaced");
    let back = || accounts.iter().all(|name| log_in(name).is_ok());
    assert!(wait_until(PATIENCE, back), "not everybody is served again");
}
