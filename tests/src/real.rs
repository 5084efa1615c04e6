//! Transcripts against the real tree: sockets, TLS, accounts made by moxctl, mail put in by IMAP.
//!
//! One tree serves many transcripts: each has a network and accounts of its own. What a real tree
//! cannot have (a clock that is moved, a judge that is told what to think) is refused in words.

use crate::{
    client::Imap,
    transcript::{Heard, Wanted, World},
    tree::{As, Options, Tree, wait_until},
    wire::Wire,
};
use daemon::orders::Order;
use ipc::Role;
use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Write as _},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

/// Who runs the tree, if we are root.
const USER: u32 = 64_311;

/// How long something that is wanted is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long something that should not come may take to come.
const QUIET: Duration = Duration::from_millis(250);

/// The password of accounts of which none is told.
const PASSWORD: &str = "never mind which";

/// Connections that one address may have open.
const OPEN: usize = 30;

/// The settings: the listeners of all transcripts side by side, limits as the pure machines' worlds
/// have them.
const SETTINGS: &str = r#"
hostname = "mx.example.org"
data_dir = "${data}"
imap_sessions = 2
parsers = 2
[dns]
servers = ["${dns}"]
mode = "trust-ad"
[postmaster]
account = "keeper"
[limits.imap]
append = "1000000"
failed_logins = 5
[listener.main]
ips = ["${ip}"]
tls = { self_signed = true }
smtp = { port = 20025 }
submission = { port = 20587 }
submissions = { port = 20465 }
imap = { port = 20143 }
imaps = { port = 20993 }
[listener.strict]
ips = ["${ip}"]
tls = { self_signed = true }
smtp = { port = 21025, require_starttls = true }
[listener.bare]
ips = ["${ip}"]
smtp = { port = 22025, starttls = false, requiretls = false }
"#;

/// Starts a tree that transcripts can be played against.
///
/// # Panics
/// When it does not come up.
#[must_use]
pub fn start() -> Tree {
    let me = rustix::process::geteuid();
    let uid = if me.is_root() { USER } else { me.as_raw() };
    let names = crate::names::serve().expect("a socket on loopback");
    let settings = Some(SETTINGS.replace("${dns}", &names.to_string()));
    let tree = Tree::with(Options { who: As::User(uid), settings, ..Options::default() });
    for (args, password) in [
        (["domain", "add", "example.org"].as_slice(), ""),
        (["account", "add", "keeper", "keeper@example.org"].as_slice(), PASSWORD),
    ] {
        let done = tree.moxctl_with(args, password);
        assert!(done.status.success(), "{done:?}");
    }
    tree
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// SMTP and submission.
    Smtp,
    /// IMAP.
    Imap,
}

/// A world for one transcript.
pub struct Real<'t> {
    tree: &'t Tree,
    protocol: Protocol,
    source: Ipv4Addr,
    port: u16,
    /// TLS before anything is said, and nothing of it in the transcript.
    secured: bool,
    /// Address and password, in the order they were given.
    accounts: Vec<(String, String)>,
    /// Mail and mailboxes given before there was an account.
    waiting: Vec<Vec<String>>,
    conns: BTreeMap<u32, Conn>,
    /// Connections that take up room.
    held: Vec<Wire>,
    began: Instant,
}

struct Conn {
    /// None while a handshake goes on, or when one has failed.
    wire: Option<BufReader<Wire>>,
    partial: Vec<u8>,
}

impl<'t> Real<'t> {
    /// The world of the transcript with this number, below 256.
    #[must_use]
    pub fn new(tree: &'t Tree, protocol: Protocol, number: u8) -> Self {
        let (port, secured) = match protocol {
            Protocol::Smtp => (20_025, false),
            Protocol::Imap => (20_993, true),
        };
        Self {
            tree,
            protocol,
            source: Ipv4Addr::new(127, 140 + number / 32, number % 32 * 8, 1),
            port,
            secured,
            accounts: Vec::new(),
            waiting: Vec::new(),
            conns: BTreeMap::new(),
            held: Vec::new(),
            began: Instant::now(),
        }
    }

    fn moxctl(&self, args: &[&str], line: &str) -> Result<String, String> {
        let done = self.tree.moxctl_with(args, line);
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        Err(format!("{args:?}: {}", String::from_utf8_lossy(&done.stderr)))
    }

    fn make_account(&mut self, address: &str, password: &str) -> Result<(), String> {
        self.moxctl(&["account", "add", &account_of(address), address], password)?;
        self.accounts.push((address.to_owned(), password.to_owned()));
        for words in std::mem::take(&mut self.waiting) {
            self.put(&words)?;
        }
        Ok(())
    }

    /// A session of the first account, or of the one that has this address.
    fn session(&self, address: Option<&str>) -> Result<Imap, String> {
        let wanted = |(known, _): &&(String, String)| address.is_none_or(|name| name == known);
        let (name, password) = self.accounts.iter().find(wanted).ok_or("no such account")?;
        let wire = Wire::dial(self.tree.at(20_993)).and_then(Wire::secured);
        let session = wire.and_then(Imap::over).and_then(|imap| imap.logged_in(name, password));
        session.map_err(|error| error.to_string())
    }

    /// Puts mail or mailboxes into the account, by a session beside those of the transcript.
    fn put(&self, words: &[String]) -> Result<(), String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut imap = self.session(None)?;
        let commands = match words.as_slice() {
            ["mailbox", name] => {
                let made = command(&mut imap, &format!("CREATE \"{name}\""))?;
                return if made.contains("OK") || made.contains("[ALREADYEXISTS]") {
                    Ok(())
                } else {
                    Err(made)
                };
            }
            ["message", subject, flags @ ..] => {
                let mail = format!("Subject: {subject}\r\nFrom: bob@example.net\r\n\r\nbody\r\n");
                return append(&mut imap, &flags.join(" "), &mail);
            }
            ["large", "message", octets] => {
                let octets = octets.parse().map_err(|_| "no number")?;
                let mail = format!("Subject: large\r\n\r\n{}\r\n", "x".repeat(octets));
                return append(&mut imap, "", &mail);
            }
            ["flag", uid, flag] => vec![format!("UID STORE {uid} +FLAGS ({flag})")],
            // Marked and expunged it would be told of twice.
            ["remove", uid] => vec![format!("UID MOVE {uid} Trash")],
            other => return Err(format!("cannot be given: {other:?}")),
        };
        command(&mut imap, "SELECT INBOX")?;
        for text in commands {
            command(&mut imap, &text)?;
        }
        Ok(())
    }

    fn listen(&mut self, kind: &str, options: &[&str]) -> Result<(), String> {
        let (port, secured) = match (self.protocol, kind, options) {
            (Protocol::Smtp, "mx", []) => (20_025, false),
            (Protocol::Smtp, "mx", ["require-tls"]) => (21_025, false),
            (Protocol::Smtp, "mx", ["no-starttls"]) => (22_025, false),
            (Protocol::Smtp, "submission", []) => (20_587, false),
            // The handshake is a step of the transcript.
            (Protocol::Smtp, "submissions", []) => (20_465, false),
            (Protocol::Imap, "starttls", []) => (20_143, false),
            (Protocol::Imap, "tls", []) => (20_993, true),
            other => return Err(format!("no such listener: {other:?}")),
        };
        (self.port, self.secured) = (port, secured);
        Ok(())
    }

    /// The messages of an account's inbox, or what waits for an address elsewhere.
    fn messages_of(&self, address: &str) -> Result<Vec<String>, String> {
        if !address.ends_with("@example.org") {
            let listed = self.moxctl(&["--json", "queue", "list", "--to", address], "")?;
            let id = |line: &str| -> Result<String, String> {
                let row: serde_json::Value =
                    serde_json::from_str(line).map_err(|error| error.to_string())?;
                let id = row.get("id").and_then(serde_json::Value::as_str);
                self.moxctl(&["message", "show", id.ok_or("no id")?], "")
            };
            return listed.lines().map(id).collect();
        }
        let mut imap = self.session(Some(address))?;
        command(&mut imap, "EXAMINE INBOX")?;
        let fetched = imap.command("UID FETCH 1:* (BODY.PEEK[])").map_err(|e| e.to_string())?;
        let bodies = fetched
            .untagged
            .iter()
            .filter(|response| response.windows(6).any(|window| window == b"FETCH "));
        Ok(bodies.map(|body| String::from_utf8_lossy(body).into_owned()).collect())
    }

    /// Closes what is open and removes what was made.
    ///
    /// # Errors
    /// What moxctl says.
    pub fn end(mut self) -> Result<(), String> {
        self.conns.clear();
        self.held.clear();
        for (address, _) in std::mem::take(&mut self.accounts) {
            self.moxctl(&["account", "remove", &account_of(&address)], "")?;
        }
        Ok(())
    }
}

/// The name of the account with an address.
fn account_of(address: &str) -> String {
    let localpart = address.split('@').next().unwrap_or_default();
    localpart.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { 'x' }).collect()
}

fn command(imap: &mut Imap, text: &str) -> Result<String, String> {
    let answered = imap.command(text).map_err(|error| error.to_string())?;
    let text = answered.text();
    if answered.is_ok() || text.contains("[ALREADYEXISTS]") { Ok(text) } else { Err(text) }
}

fn append(imap: &mut Imap, flags: &str, mail: &str) -> Result<(), String> {
    let tried = (|| {
        let tag = imap.start(&format!("APPEND INBOX ({flags}) {{{}}}", mail.len()))?;
        imap.response()?;
        imap.raw(mail.as_bytes())?;
        imap.raw(b"\r\n")?;
        imap.finish(&tag)
    })();
    let answered = tried.map_err(|error: io::Error| error.to_string())?;
    if answered.is_ok() { Ok(()) } else { Err(answered.tagged) }
}

fn one_line(text: &str) -> String {
    let text = text.replace("\r\n", " / ");
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

impl World for Real<'_> {
    fn given(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["account", address] => self.make_account(address, PASSWORD),
            ["account", address, "password", password] => self.make_account(address, password),
            ["listener", kind, options @ ..] => self.listen(kind, options),
            ["gate", "refuses"] => {
                for _ in 0..OPEN {
                    // Its greeting says that it was counted.
                    let wire = Wire::dial_from(self.source, self.tree.at(20_025));
                    let mut reader = BufReader::new(wire.map_err(|error| error.to_string())?);
                    reader.read_line(&mut String::new()).map_err(|error| error.to_string())?;
                    self.held.push(reader.into_inner());
                }
                Ok(())
            }
            ["stop"] => {
                let ordered = self.tree.order(Order::Restart(Role::SmtpdMx));
                ordered.map(drop).map_err(|error| error.to_string())
            }
            ["mailbox" | "message" | "large" | "flag" | "remove", ..] => {
                let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
                if self.accounts.is_empty() {
                    self.waiting.push(words);
                    return Ok(());
                }
                self.put(&words)
            }
            other => Err(format!("cannot be given: {other:?}")),
        }
    }

    fn expect(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["account", address, "mailbox", "INBOX", "has", number, "messages" | "message"] => {
                let found = self.messages_of(address)?;
                let holds = found.len().to_string() == *number;
                if holds { Ok(()) } else { Err(format!("it has {found:?}")) }
            }
            ["account", address, "holds", text @ ..] => {
                // The transcript knows its client by an address of the documentation.
                let text = text.join(" ").replace("192.0.2.7", &self.source.to_string());
                let mut found = Ok(Vec::new());
                // What is submitted goes to the queue behind the answer.
                let holds = wait_until(PATIENCE, || {
                    found = self.messages_of(address);
                    let found = found.as_deref().unwrap_or_default();
                    found.iter().any(|message| one_line(message).contains(&text))
                });
                if holds { Ok(()) } else { Err(format!("no {text:?} in {found:?}")) }
            }
            ["mailbox", name, "has", number, "messages"] => {
                let mut imap = self.session(None)?;
                let status = command(&mut imap, &format!("STATUS \"{name}\" (MESSAGES)"))?;
                let holds = status.contains(&format!("(MESSAGES {number})"));
                if holds { Ok(()) } else { Err(status) }
            }
            ["message", uid, "has", flag] => {
                let mut imap = self.session(None)?;
                command(&mut imap, "EXAMINE INBOX")?;
                let flags = command(&mut imap, &format!("UID FETCH {uid} (FLAGS)"))?;
                if flags.contains(flag) { Ok(()) } else { Err(flags) }
            }
            // The pauses are real ones here; the whole took longer than they did.
            ["paused", seconds, "seconds"] => {
                let seconds = seconds.parse().map_err(|_| "no number")?;
                let took = self.began.elapsed();
                let holds = took >= Duration::from_secs(seconds);
                if holds { Ok(()) } else { Err(format!("the whole took {took:?}")) }
            }
            other => Err(format!("cannot be expected: {other:?}")),
        }
    }

    fn advance(&mut self, _: Duration) -> Result<(), String> {
        Err("the clock is the machine's".to_owned())
    }

    fn open(&mut self, connection: u32) -> Result<(), String> {
        let wire = Wire::dial_from(self.source, self.tree.at(self.port));
        let wire = if self.secured { wire.and_then(Wire::secured) } else { wire };
        let wire = wire.map_err(|error| error.to_string())?;
        let wire = Some(BufReader::new(wire));
        self.conns.insert(connection, Conn { wire, partial: Vec::new() });
        Ok(())
    }

    fn send(&mut self, connection: u32, bytes: &[u8]) -> Result<(), String> {
        let conn = self.conns.get_mut(&connection).ok_or("no such connection")?;
        let Some(wire) = &mut conn.wire else { return Ok(()) };
        // A client may write into a connection that is closed on the other side.
        let _ = wire.get_mut().write_all(bytes).and_then(|()| wire.get_mut().flush());
        Ok(())
    }

    fn hear(&mut self, connection: u32, wanted: Wanted) -> Result<Heard, String> {
        let conn = self.conns.get_mut(&connection).ok_or("no such connection")?;
        let Some(wire) = &mut conn.wire else { return Ok(Heard::Closed) };
        let patience = match wanted {
            Wanted::Something => PATIENCE,
            Wanted::Silence => QUIET,
        };
        let socket = wire.get_ref().socket();
        socket.set_read_timeout(Some(patience)).map_err(|error| error.to_string())?;
        match wire.read_until(b'\n', &mut conn.partial) {
            Ok(_) if conn.partial.ends_with(b"\r\n") => {
                let line = std::mem::take(&mut conn.partial);
                let line = String::from_utf8_lossy(&line);
                Ok(Heard::Line(line.trim_end_matches("\r\n").to_owned()))
            }
            Ok(_) => Ok(Heard::Closed),
            Err(error) => {
                use io::ErrorKind::{ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
                if matches!(error.kind(), WouldBlock | TimedOut) {
                    Ok(Heard::Silence)
                } else if matches!(error.kind(), ConnectionReset | UnexpectedEof) {
                    Ok(Heard::Closed)
                } else {
                    Err(error.to_string())
                }
            }
        }
    }

    fn tls(&mut self, connection: u32) -> Result<(), String> {
        let conn = self.conns.get_mut(&connection).ok_or("no such connection")?;
        let wire = conn.wire.take().ok_or("no connection")?;
        if !wire.buffer().is_empty() || !conn.partial.is_empty() {
            return Err("the server waits for no handshake".to_owned());
        }
        // A server may end it instead: then it is closed, and the next line says whether it may.
        conn.wire = wire.into_inner().secured().ok().map(BufReader::new);
        Ok(())
    }
}
