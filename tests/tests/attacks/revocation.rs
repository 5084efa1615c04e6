//! A right that was taken away ends at once, in the sessions that live on it, whatever they do.

use crate::{PASSWORD, USER};
use base64::Engine as _;
use mox_tests::{
    client::{Imap, Smtp},
    tls::{Client, Tls},
    tree::{Tree, wait_until},
};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    time::Duration,
};

/// The bound of docs/threat-model.md.
const AT_ONCE: Duration = Duration::from_secs(2);
const NEW_PASSWORD: &str = "another one entirely";

fn run(tree: &Tree, args: &[&str], line: &str) {
    // What reads no line may have ended before one could be given.
    let output = if line.is_empty() { tree.moxctl(args) } else { tree.moxctl_with(args, line) };
    assert!(output.status.success(), "{args:?}: {output:?}");
}

/// A session in IDLE, whose end is heard without a question.
struct Idle(BufReader<TcpStream>);

impl Idle {
    fn new(tree: &Tree, password: &str) -> Self {
        let mut imap = BufReader::new(TcpStream::connect(tree.address(143)).unwrap());
        imap.get_ref().set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut session = Self({
            imap.get_mut()
                .write_all(format!("a LOGIN {USER} \"{password}\"\r\n").as_bytes())
                .unwrap();
            imap
        });
        session.until("a OK");
        session.say("b SELECT INBOX\r\n");
        session.until("b OK");
        session.say("c IDLE\r\n");
        session.until("+ ");
        session.0.get_ref().set_read_timeout(Some(AT_ONCE)).unwrap();
        session
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn until(&mut self, start: &str) {
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "waiting for {start}");
            if line.starts_with(start) {
                return;
            }
        }
    }

    fn ends(mut self) {
        self.until("* BYE");
        let mut line = String::new();
        assert_eq!(self.0.read_line(&mut line).unwrap(), 0, "{line}");
    }
}

/// A session of submission that is logged in.
fn submission(tree: &Tree, password: &str) -> Smtp {
    let mut smtp = Smtp::connect(tree.address(587)).unwrap();
    assert_eq!(smtp.log_in(USER, password).unwrap().code, 235);
    smtp
}

fn sends(smtp: &mut Smtp) -> u16 {
    let text = format!("From: <{USER}>\r\nSubject: x\r\n\r\nx\r\n");
    smtp.send(USER, &[USER], text.as_bytes()).map_or(0, |reply| reply.code)
}

/// A client key: the certificate and key in DER, and its fingerprint.
struct Key {
    client: Client,
    fingerprint: String,
}

impl Key {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["client.example".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let public = rcgen::PublicKeyData::subject_public_key_info(&key);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &public);
        Self {
            client: Client {
                certificate: Some((certificate.der().to_vec(), key.serialize_der())),
                ..Client::default()
            },
            fingerprint: hash.as_ref().iter().map(|octet| format!("{octet:02x}")).collect(),
        }
    }

    fn dial(&self, tree: &Tree, port: u16) -> BufReader<Tls> {
        let stream = TcpStream::connect(tree.address(port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        BufReader::new(self.client.connect(stream).unwrap())
    }
}

/// Sends a line and reads lines to one that begins with one of these.
fn ask(tls: &mut BufReader<Tls>, line: &str, until: &[&str]) -> String {
    tls.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    tls.get_mut().flush().unwrap();
    loop {
        let mut line = String::new();
        match tls.read_line(&mut line) {
            Ok(0) | Err(_) => return String::new(),
            Ok(_) if until.iter().any(|start| line.starts_with(start)) => return line,
            Ok(_) => {}
        }
    }
}

/// Logs in by the certificate it showed.
fn by_key(imap: &mut BufReader<Tls>, as_whom: &str) -> String {
    let initial = base64::engine::general_purpose::STANDARD.encode(as_whom);
    let initial = if initial.is_empty() { "=".to_owned() } else { initial };
    ask(imap, &format!("k AUTHENTICATE EXTERNAL {initial}"), &["k "])
}

#[test]
fn a_changed_password_ends_what_rests_on_it() {
    let tree = Tree::start();
    let key = Key::new();
    run(&tree, &["clientkey", "add", "mox", &key.fingerprint, USER], "");
    let mut keyed = key.dial(&tree, 993);
    assert!(by_key(&mut keyed, "").starts_with("k OK"), "by key");
    let (idle, mut submission) = (Idle::new(&tree, PASSWORD), submission(&tree, PASSWORD));
    assert_eq!(sends(&mut submission), 250);
    run(&tree, &["account", "password", "mox"], NEW_PASSWORD);
    idle.ends();
    assert_ne!(sends(&mut submission), 250);
    assert!(Imap::log_in(tree.address(143), USER, PASSWORD).is_err());
    // What rests on something else goes on.
    assert!(ask(&mut keyed, "n NOOP", &["n "]).starts_with("n OK"));
    Idle::new(&tree, NEW_PASSWORD);
}

#[test]
fn a_disabled_account_has_no_session() {
    let tree = Tree::start();
    let key = Key::new();
    run(&tree, &["clientkey", "add", "mox", &key.fingerprint, USER], "");
    let mut keyed = key.dial(&tree, 993);
    assert!(by_key(&mut keyed, "").starts_with("k OK"), "by key");
    let (idle, mut submission) = (Idle::new(&tree, PASSWORD), submission(&tree, PASSWORD));
    run(&tree, &["account", "disable", "mox", "call 555"], "");
    idle.ends();
    assert_ne!(sends(&mut submission), 250);
    assert!(!ask(&mut keyed, "n NOOP", &["n ", "* BYE"]).starts_with("n OK"));
    assert!(!by_key(&mut key.dial(&tree, 993), "").starts_with("k OK"));
    run(&tree, &["account", "enable", "mox"], "");
    Idle::new(&tree, PASSWORD);
}

#[test]
fn a_key_is_good_for_who_registered_it_until_it_is_removed() {
    let tree = Tree::start();
    let (key, other) = (Key::new(), Key::new());
    run(&tree, &["clientkey", "add", "mox", &key.fingerprint, USER], "");
    // Somebody else's certificate, nobody's, and one's own for somebody else's address.
    assert!(!by_key(&mut other.dial(&tree, 993), "").starts_with("k OK"));
    assert!(!by_key(&mut other.dial(&tree, 993), USER).starts_with("k OK"));
    assert!(!by_key(&mut key.dial(&tree, 993), "other@localhost").starts_with("k OK"));
    let without = Key { client: Client::default(), fingerprint: String::new() };
    assert!(!by_key(&mut without.dial(&tree, 993), USER).starts_with("k OK"));

    let mut imap = key.dial(&tree, 993);
    assert!(by_key(&mut imap, USER).starts_with("k OK"));
    let mut submission = key.dial(&tree, 465);
    ask(&mut submission, "EHLO client.example", &["250 "]);
    assert!(ask(&mut submission, "AUTH EXTERNAL =", &["235", "5", "4"]).starts_with("235"));
    let password = Idle::new(&tree, PASSWORD);
    run(&tree, &["clientkey", "remove", &key.fingerprint], "");
    let ended = || !ask(&mut imap, "n NOOP", &["n ", "* BYE"]).starts_with("n OK");
    assert!(wait_until(AT_ONCE, ended), "IMAP goes on");
    let mail = format!("MAIL FROM:<{USER}>");
    let refused = ask(&mut submission, &mail, &["2", "4", "5"]);
    assert!(!refused.starts_with('2'), "{refused}");
    assert!(!by_key(&mut key.dial(&tree, 993), USER).starts_with("k OK"));
    // The password's session is not concerned.
    let mut password = password;
    password.say("DONE\r\n");
    password.until("c OK");
}
