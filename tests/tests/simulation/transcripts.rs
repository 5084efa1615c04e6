//! The transcripts once more, on the simulated tree: what the pure machines say, the processes say.

use super::{
    talk::Lines,
    template,
    world::{Who, World},
};
use ipc::Role;
use mox_tests::transcript::{self, Heard, Transcript, Wanted};
use std::{collections::BTreeMap, io, net::SocketAddr, path::Path, rc::Rc, thread, time::Duration};
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    task::LocalSet,
    time::{sleep, timeout},
};

/// Who is silent for so long says nothing: longer than a wait for a process that is away, and than
/// the pause between two octets for a client that is being slowed down.
const SILENCE: Duration = Duration::from_secs(2);
/// The client's address, as the pure machines have it.
const CLIENT: &str = "192.0.2.7:4000";
/// Of these files so many at least can be played here: those without what the simulated tree has
/// not.
const PLAYED: [(&str, usize); 2] = [("smtp", 26), ("imap", 16)];

/// Why a transcript cannot be played here.
fn why_not(text: &str) -> Option<&'static str> {
    let line = |of: &dyn Fn(&[&str]) -> bool| {
        text.lines().any(|line| of(&line.split_ascii_whitespace().collect::<Vec<_>>()))
    };
    let is_other = |name: &str| !template::ACCOUNTS.contains(&name);
    if line(&|words| matches!(words, [word] if word.ends_with("tls"))) {
        return Some("TLS");
    }
    if line(&|words| matches!(words, ["given", "account", name, ..] if is_other(name))) {
        return Some("an account that is not there");
    }
    if text.contains("LSUB") {
        return Some("an account with no mailbox but its Inbox");
    }
    let staged = |words: &[&str]| match words {
        ["given", "listener", "mx"] => false,
        ["given", what, ..] => {
            ["listener", "recipient", "judgement", "gate", "stop"].contains(what)
                || words.contains(&"loses-content")
        }
        ["expect", what, ..] => ["slow", "fast", "paused"].contains(what),
        _ => false,
    };
    line(&staged).then_some("something only a fake can do")
}

/// A tree with a client in front of it.
struct Stage {
    runtime: Runtime,
    local: LocalSet,
    world: Rc<World>,
    face: Role,
    open: BTreeMap<u32, Lines>,
    _folder: TempDir,
}

impl Stage {
    fn new(face: Role) -> Self {
        let folder = template::copy().unwrap();
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
        let (runtime, local) = (runtime.unwrap(), LocalSet::new());
        let world = local.block_on(&runtime, async {
            let world = World::new(folder.path(), 0).unwrap();
            world.start_all();
            // Until accountd has made what it makes at its start.
            sleep(Duration::from_secs(2)).await;
            world
        });
        Self { runtime, local, world, face, open: BTreeMap::new(), _folder: folder }
    }

    fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.local.block_on(&self.runtime, what)
    }

    /// What a reader of an account is told, all of it, to each of some commands.
    fn read(&self, account: &str, commands: &[String]) -> Result<String, String> {
        self.wait(async {
            let stream = self.world.visit(Role::ImapdFront, CLIENT.parse().unwrap());
            let mut lines = Lines::new(stream.ok_or("front is away")?);
            let mut all = String::new();
            let login = format!("LOGIN {account} \"{}\"", template::PASSWORD);
            let mut tell = async |command: &str| -> io::Result<String> {
                lines.say(&format!("x {command}")).await?;
                loop {
                    let line = lines.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
                    if line.starts_with("x ") {
                        return Ok(line);
                    }
                    all.push_str(&line);
                    all.push_str("\r\n");
                }
            };
            for command in std::iter::once(&login).chain(commands) {
                let end = tell(command).await.map_err(|error| error.to_string())?;
                if !end.starts_with("x OK") {
                    return Err(format!("{command}: {end}"));
                }
            }
            // Whoever is told of what was done has been.
            sleep(Duration::from_secs(1)).await;
            Ok(all)
        })
    }

    fn append(&self, flags: &str, mail: &str) -> Result<(), String> {
        let append = format!("APPEND INBOX ({flags}) {{{}+}}\r\n{mail}", mail.len());
        self.read(template::ACCOUNTS[0], &[append]).map(drop)
    }

    fn count(&self, account: &str, mailbox: &str, wanted: &str) -> Result<(), String> {
        let told = self.read(account, &[format!("STATUS \"{mailbox}\" (MESSAGES)")])?;
        if told.contains(&format!("(MESSAGES {wanted})")) { Ok(()) } else { Err(told) }
    }
}

impl transcript::World for Stage {
    fn given(&mut self, words: &[&str]) -> Result<(), String> {
        let alice = template::ACCOUNTS[0];
        match words {
            ["account", _] | ["listener", "mx"] => Ok(()),
            ["account", _, "password", password] if *password == template::PASSWORD => Ok(()),
            ["store", "away"] => {
                self.wait(self.world.hold(Who::the(Role::Accountd)));
                Ok(())
            }
            ["store", "back"] => {
                self.wait(self.world.let_go(Who::the(Role::Accountd)));
                Ok(())
            }
            // Every account has some.
            ["mailbox", "Drafts"] => Ok(()),
            ["mailbox", name] => self.read(alice, &[format!("CREATE {name}")]).map(drop),
            ["message", subject, flags @ ..] => {
                let mail = format!("Subject: {subject}\r\nFrom: bob@example.net\r\n\r\nbody\r\n");
                self.append(&flags.join(" "), &mail)
            }
            ["large", "message", octets] => {
                let octets: usize = octets.parse().map_err(|_| "no number".to_owned())?;
                self.append("", &format!("Subject: large\r\n\r\n{}\r\n", "x".repeat(octets)))
            }
            ["flag", uid, flag] => {
                let store = format!("UID STORE {uid} +FLAGS ({flag})");
                self.read(alice, &["SELECT INBOX".into(), store]).map(drop)
            }
            ["remove", uid] => {
                let away = format!("UID MOVE {uid} Trash");
                self.read(alice, &["SELECT INBOX".into(), away]).map(drop)
            }
            other => Err(format!("cannot be given: {other:?}")),
        }
    }

    fn expect(&mut self, words: &[&str]) -> Result<(), String> {
        let alice = template::ACCOUNTS[0];
        match words {
            ["account", name, "mailbox", mailbox, "has", number, _] => {
                self.count(name, mailbox, number)
            }
            ["mailbox", mailbox, "has", number, _] => self.count(alice, mailbox, number),
            ["account", name, "holds", text @ ..] => {
                let fetch = "UID FETCH 1:* BODY.PEEK[]".to_owned();
                let told = self.read(name, &["EXAMINE INBOX".into(), fetch])?;
                let told = told.replace("\r\n", " / ");
                let plain = told.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
                if plain.contains(&text.join(" ")) { Ok(()) } else { Err(plain) }
            }
            ["message", uid, "has", flag] => {
                let fetch = format!("UID FETCH {uid} FLAGS");
                let told = self.read(alice, &["EXAMINE INBOX".into(), fetch])?;
                if told.contains(flag) { Ok(()) } else { Err(told) }
            }
            other => Err(format!("cannot be expected: {other:?}")),
        }
    }

    fn advance(&mut self, by: Duration) -> Result<(), String> {
        self.wait(async { sleep(by).await });
        Ok(())
    }

    fn open(&mut self, connection: u32) -> Result<(), String> {
        let client: SocketAddr = CLIENT.parse().unwrap();
        let stream = self.world.visit(self.face, client).ok_or("the face is away")?;
        self.open.insert(connection, Lines::new(stream));
        Ok(())
    }

    fn send(&mut self, connection: u32, bytes: &[u8]) -> Result<(), String> {
        let mut lines = self.open.remove(&connection).ok_or("not open")?;
        // A client may write into a connection that is closed on the other side.
        let _ = self.wait(async { timeout(SILENCE, lines.send(bytes)).await });
        self.open.insert(connection, lines);
        Ok(())
    }

    fn hear(&mut self, connection: u32, _: Wanted) -> Result<Heard, String> {
        let mut lines = self.open.remove(&connection).ok_or("not open")?;
        let heard = self.wait(async {
            loop {
                let before = lines.begun();
                match timeout(SILENCE, lines.line()).await {
                    Err(_) if lines.begun() > before => {}
                    heard => return heard,
                }
            }
        });
        self.open.insert(connection, lines);
        Ok(match heard {
            Ok(Ok(Some(line))) => Heard::Line(line),
            Ok(Ok(None) | Err(_)) => Heard::Closed,
            Err(_) => Heard::Silence,
        })
    }

    fn tls(&mut self, _: u32) -> Result<(), String> {
        Err("there is no TLS here".into())
    }
}

/// Plays all of a folder that can be played.
fn play(kind: &str, face: Role) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts").join(kind);
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut faults, mut played) = (Vec::new(), 0);
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file).unwrap();
        if why_not(&text).is_some() {
            continue;
        }
        played += 1;
        let mut stage = Stage::new(face);
        if let Err(fault) = Transcript::parse(&text).and_then(|it| it.play(&mut stage)) {
            faults.push(format!("{kind}/{name}: {fault}"));
        }
        faults.extend(stage.world.wrongs().into_iter().map(|wrong| format!("{name}: {wrong}")));
    }
    let expected = PLAYED.iter().find(|(of, _)| *of == kind).map(|(_, count)| *count);
    if expected.is_none_or(|least| played < least) {
        faults.push(format!("{kind}: {played} files were played, not {expected:?}"));
    }
    faults
}

#[test]
fn transcripts_hold_for_the_processes_too() {
    let play = |kind: &'static str, face| {
        let thread = thread::Builder::new().stack_size(super::run::STACK);
        thread.spawn(move || play(kind, face)).unwrap().join().unwrap()
    };
    let faults = [play("smtp", Role::SmtpdMx), play("imap", Role::ImapdFront)].concat();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
