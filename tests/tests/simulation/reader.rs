//! Users that read their mail by IMAP: what they were shown once must stay true.

use super::{
    scram::{self, Exchange},
    secrets::Used,
    talk::Lines,
    world::World,
};
use ipc::Role;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// The pause between two things a user does, at most.
const PAUSE: Duration = Duration::from_secs(120);
/// How often is tried what must come to something when all is calm.
const TRIES: u32 = 20;
/// What a user waits for news, at most.
const IDLE: Duration = Duration::from_secs(400);

/// What a user has seen of the Inbox.
#[derive(Debug, Default)]
pub(super) struct Seen {
    uid_validity: Option<u64>,
    uid_next: u64,
    /// Each message's envelope, by UID.
    envelopes: BTreeMap<u64, String>,
    /// Flags that were answered OK.
    flagged: BTreeSet<u64>,
}

/// A connection that is logged in.
pub(super) struct Session {
    lines: Lines,
    number: u32,
    /// What it rests on.
    used: Used,
}

/// What a command came to.
enum Came {
    Ok(Vec<String>),
    /// For now.
    No,
    /// The password is wrong, says the server.
    WrongPassword,
}

/// Reads, flags and files mail for `turns` turns.
pub(super) async fn read(world: Rc<World>, name: &'static str, turns: u64) -> Seen {
    let mut seen = Seen::default();
    let mut session: Option<Session> = None;
    for turn in 0..turns {
        sleep(world.up_to(PAUSE)).await;
        if session.is_none() {
            session = log_in(&world, name).await;
        }
        let Some(open) = &mut session else { continue };
        match open.turn(&world, name, turn, &mut seen).await {
            Ok(true) => {}
            Ok(false) => session = None,
            Err(error) => {
                world.note(&format!("{name} reads: {error}"));
                session = None;
            }
        }
    }
    seen
}

/// A last look when all is calm: everything that was shown is still so.
pub(super) async fn look_again(world: &Rc<World>, name: &'static str, seen: &mut Seen) {
    for _ in 0..TRIES {
        if let Some(mut session) = log_in(world, name).await {
            match session.look(world, name, seen).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => world.note(&format!("{name} looks: {error}")),
            }
        }
        sleep(Duration::from_secs(30)).await;
    }
    world.wrong(format!("{name} cannot read when all is calm"));
}

async fn log_in(world: &Rc<World>, name: &str) -> Option<Session> {
    let used = world.password(name);
    match enter(world, name, used).await? {
        (session, Came::Ok(_)) => Some(session),
        (session, Came::WrongPassword) if !world.password_may_fail(name, &session.used) => {
            world.wrong(format!("{name} was told that the password is wrong"));
            None
        }
        (_, Came::WrongPassword | Came::No) => None,
    }
}

/// A connection, and what came of the log-in.
async fn enter(world: &Rc<World>, name: &str, used: Used) -> Option<(Session, Came)> {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 251)), 40_000);
    let stream = world.visit(Role::ImapdFront, address)?;
    let mut session = Session { lines: Lines::new(stream), number: 0, used };
    let entered = async {
        let greeting = session.lines.line().await?.unwrap_or_default();
        world.note(&format!("{name} reads: {greeting}"));
        if !greeting.starts_with("* OK") {
            return Ok::<_, io::Error>(Came::No);
        }
        session.authenticate(world, name).await
    };
    match entered.await {
        Ok(came) => Some((session, came)),
        Err(error) => {
            world.note(&format!("{name} logs in: {error}"));
            None
        }
    }
}

/// Whether a password opens the account, asked until there is an answer.
pub(super) async fn opens(world: &Rc<World>, name: &str, used: &Used) -> Option<bool> {
    for _ in 0..TRIES {
        match enter(world, name, used.clone()).await {
            Some((_, Came::Ok(_))) => return Some(true),
            Some((_, Came::WrongPassword)) => return Some(false),
            Some((_, Came::No)) | None => sleep(Duration::from_secs(30)).await,
        }
    }
    None
}

/// A session that has selected the Inbox, and waits for news or does nothing.
pub(super) async fn watch(world: &Rc<World>, name: &str, is_idle: bool) -> Option<Session> {
    for _ in 0..TRIES {
        if let Some(mut session) = log_in(world, name).await {
            let begun = async {
                let selected = session.ask(world, name, "SELECT INBOX").await?;
                if is_idle {
                    let tag = session.tag();
                    session.lines.say(&format!("{tag} IDLE")).await?;
                    session.lines.line().await?;
                }
                Ok::<_, io::Error>(matches!(selected, Came::Ok(_)))
            };
            match begun.await {
                Ok(true) => return Some(session),
                Ok(false) => {}
                Err(error) => world.note(&format!("{name} watches: {error}")),
            }
        }
        sleep(Duration::from_secs(30)).await;
    }
    None
}

impl Session {
    fn tag(&mut self) -> String {
        self.number += 1;
        format!("t{}", self.number)
    }

    async fn ask(&mut self, world: &World, name: &str, command: &str) -> io::Result<Came> {
        let tag = self.tag();
        self.lines.say(&format!("{tag} {command}")).await?;
        self.answer(world, name, &tag).await
    }

    /// Shows the password, or more often proves it: that is cheaper for both.
    async fn authenticate(&mut self, world: &World, name: &str) -> io::Result<Came> {
        let password = self.used.password.clone();
        if world.below(8) == 0 {
            return self.ask(world, name, &format!("LOGIN {name} \"{password}\"")).await;
        }
        let tag = self.tag();
        let exchange = Exchange::new(world, name, &password);
        let command = format!("{tag} AUTHENTICATE {} {}", scram::NAME, exchange.first());
        self.lines.say(&command).await?;
        // The challenge, and the server's own proof.
        for _ in 0..2 {
            if !self.lines.is_next(b'+').await? {
                break;
            }
            let line = self.lines.line().await?.unwrap_or_default();
            world.note(&format!("{name} reads: {line}"));
            self.lines.say(&exchange.answer(line.trim_start_matches(['+', ' ']))).await?;
        }
        self.answer(world, name, &tag).await
    }

    async fn answer(&mut self, world: &World, name: &str, tag: &str) -> io::Result<Came> {
        let mut untagged = Vec::new();
        loop {
            let line = self.lines.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            world.note(&format!("{name} reads: {line}"));
            let Some(rest) = line.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) else {
                untagged.push(line);
                continue;
            };
            if rest.starts_with("OK") {
                world.served(name, &self.used);
                return Ok(Came::Ok(untagged));
            }
            if rest.starts_with("NO [AUTHENTICATIONFAILED]") {
                return Ok(Came::WrongPassword);
            }
            // RFC 5530 §3: for now.
            if !rest.starts_with("NO [UNAVAILABLE]") && !rest.starts_with("NO [INUSE]") {
                world.wrong(format!("{name} was told {rest}"));
            }
            return Ok(Came::No);
        }
    }

    /// Waits until the server has ended it.
    pub(super) async fn ended(mut self, world: &World, name: &str) {
        while let Ok(Some(line)) = self.lines.line().await {
            world.note(&format!("{name} reads: {line}"));
        }
    }

    /// One thing a user does; false when the session is of no more use.
    async fn turn(
        &mut self,
        world: &World,
        name: &'static str,
        turn: u64,
        seen: &mut Seen,
    ) -> io::Result<bool> {
        match world.below(5) {
            0 => self.look(world, name, seen).await,
            1 => self.wait_for_news(world, name).await,
            2 => self.append(world, name, turn).await,
            3 => {
                let Some(&uid) = seen.envelopes.keys().next_back() else { return Ok(true) };
                if !self.look(world, name, seen).await? {
                    return Ok(false);
                }
                let store = format!("UID STORE {uid} +FLAGS.SILENT (\\Flagged)");
                if let Came::Ok(_) = self.ask(world, name, &store).await? {
                    seen.flagged.insert(uid);
                }
                Ok(true)
            }
            _ => {
                self.ask(world, name, "NOOP").await?;
                Ok(true)
            }
        }
    }

    /// Selects the Inbox and reads all of it.
    async fn look(&mut self, world: &World, name: &str, seen: &mut Seen) -> io::Result<bool> {
        let Came::Ok(told) = self.ask(world, name, "SELECT INBOX").await? else {
            return Ok(false);
        };
        let of = |what: &str| told.iter().find_map(|line| number_after(line, what));
        let (validity, uid_next) = (of("UIDVALIDITY "), of("UIDNEXT ").unwrap_or(0));
        if *seen.uid_validity.get_or_insert(validity.unwrap_or(0)) != validity.unwrap_or(0) {
            world.wrong(format!("{name}: UIDVALIDITY is {validity:?}, it was another"));
        }
        if uid_next == 0 || uid_next < seen.uid_next {
            world.wrong(format!("{name}: UIDNEXT {uid_next} after {}", seen.uid_next));
        }
        seen.uid_next = uid_next;
        let fetch = "UID FETCH 1:* (UID FLAGS ENVELOPE)";
        let Came::Ok(rows) = self.ask(world, name, fetch).await? else { return Ok(true) };
        let mut there = BTreeMap::new();
        for row in rows.iter().filter(|row| row.contains(" FETCH (")) {
            let Some(uid) = number_after(row, "UID ") else { continue };
            let Some((_, envelope)) = row.split_once("ENVELOPE ") else { continue };
            there.insert(uid, (envelope.to_owned(), row.contains("\\Flagged")));
        }
        for (uid, envelope) in &seen.envelopes {
            match there.get(uid) {
                Some((now, _)) if now == envelope => {}
                now => world.wrong(format!("{name}: UID {uid} was {envelope} and is {now:?}")),
            }
        }
        for uid in &seen.flagged {
            if there.get(uid).is_some_and(|(_, is_flagged)| !is_flagged) {
                world.wrong(format!("{name}: UID {uid} has lost its flag"));
            }
        }
        seen.envelopes = there.into_iter().map(|(uid, (envelope, _))| (uid, envelope)).collect();
        Ok(true)
    }

    async fn wait_for_news(&mut self, world: &World, name: &str) -> io::Result<bool> {
        let tag = self.tag();
        self.lines.say(&format!("{tag} IDLE")).await?;
        let first = self.lines.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        world.note(&format!("{name} reads: {first}"));
        if !first.starts_with('+') {
            return Ok(false);
        }
        let patience = world.up_to(IDLE);
        let news = async {
            loop {
                match self.lines.line().await {
                    Ok(Some(line)) => world.note(&format!("{name} reads: {line}")),
                    Ok(None) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                    Err(error) => return Err(error),
                }
            }
        };
        match timeout(patience, news).await {
            Ok(ended) => return ended,
            Err(_) => self.lines.say("DONE").await?,
        }
        Ok(matches!(self.answer(world, name, &tag).await?, Came::Ok(_)))
    }

    async fn append(&mut self, world: &World, name: &'static str, turn: u64) -> io::Result<bool> {
        let token = format!("app-{}-{turn}", name.split('@').next().unwrap_or_default());
        let text = format!("Subject: {token}\r\nMessage-ID: <{token}@made.test>\r\n\r\nkept\r\n");
        let tag = self.tag();
        self.lines.say(&format!("{tag} APPEND INBOX {{{}+}}\r\n{text}", text.len())).await?;
        if let Came::Ok(_) = self.answer(world, name, &tag).await? {
            world.ledger.borrow_mut().filed.push((token, name));
        }
        Ok(true)
    }
}

fn number_after(line: &str, what: &str) -> Option<u64> {
    let (_, rest) = line.split_once(what)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest.get(..digits)?.parse().ok()
}
