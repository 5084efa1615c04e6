//! Strangers that send us mail, and users that send theirs: what each was promised is written down.

use super::{
    ledger::{Answer, Sent},
    scram::{self, Exchange},
    secrets::Used,
    talk::{Lines, Reply},
    world::World,
};
use base64::Engine as _;
use ipc::Role;
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};
use tokio::time::sleep;

/// A stranger's server gives up after so many tries; no run is so bad.
const TRIES: u32 = 300;
/// The pause between two tries, at most.
const PAUSE: Duration = Duration::from_secs(240);
/// Text of a large message: more than a spool keeps in memory.
const LARGE: usize = 90_000;

fn somewhere(world: &World) -> SocketAddr {
    let host = u8::try_from(world.below(200)).unwrap_or(0) + 1;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, host)), 40_000)
}

/// A message with a token in it. Some are large.
fn message(world: &World, token: &str, from: &str, to: &[&str]) -> Vec<u8> {
    let mut text = format!(
        "From: <{from}>\r\nTo: {}\r\nSubject: {token}\r\nMessage-ID: <{token}@made.test>\r\n\
         Date: Fri, 18 Sep 2026 10:00:00 +0000\r\n\r\nThis is {token}.\r\n",
        to.iter().map(|to| format!("<{to}>")).collect::<Vec<_>>().join(", "),
    );
    if world.below(6) == 0 {
        while text.len() < LARGE {
            text.push_str("Line after line, as people write.\r\n..and one with dots.\r\n");
        }
    }
    text.into_bytes()
}

/// As it goes over the wire.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(message);
    let mut out = String::with_capacity(text.len() + 64);
    for line in text.split_inclusive("\r\n") {
        if line.starts_with('.') {
            out.push('.');
        }
        out.push_str(line);
    }
    out.push_str(".\r\n");
    out.into_bytes()
}

/// Notes a reply; a refusal for good is wrong, whoever gets it.
fn heard(world: &World, whom: &str, what: &str, reply: &Reply) -> u16 {
    world.note(&format!("{whom} hears {} to {what}", reply.last));
    if reply.code >= 500 {
        world.wrong(format!("{whom}: {what} was refused for good: {}", reply.last));
    }
    reply.code
}

/// A stranger's server, which tries until we have taken its message for everybody.
pub(super) async fn stranger(world: Rc<World>, token: String, to: Vec<&'static str>) {
    let from = format!("{token}@made.test");
    let content = stuffed(&message(&world, &token, &from, &to));
    let mut open: BTreeSet<&str> = to.into_iter().collect();
    for _ in 0..TRIES {
        sleep(world.up_to(PAUSE)).await;
        let Some(stream) = world.visit(Role::SmtpdMx, somewhere(&world)) else { continue };
        let mut lines = Lines::new(stream);
        match offer(&world, &mut lines, &token, &from, &open, &content).await {
            Ok(taken) => {
                for to in taken {
                    open.remove(to);
                    world.ledger.borrow_mut().taken(&token, to);
                }
            }
            Err(error) => world.note(&format!("{token}: {error}")),
        }
        if open.is_empty() {
            return;
        }
    }
    world.wrong(format!("{token} was never taken for {open:?}"));
}

/// One try: for whom it was taken.
async fn offer<'a>(
    world: &World,
    lines: &mut Lines,
    token: &str,
    from: &str,
    to: &BTreeSet<&'a str>,
    content: &[u8],
) -> io::Result<Vec<&'a str>> {
    let greeting = lines.reply().await?;
    if heard(world, token, "greeting", &greeting) != 220 {
        return Ok(Vec::new());
    }
    heard(world, token, "EHLO", &lines.ask("EHLO made.test").await?);
    let mail = lines.ask(&format!("MAIL FROM:<{from}>")).await?;
    if heard(world, token, "MAIL", &mail) != 250 {
        return Ok(Vec::new());
    }
    let mut accepted = Vec::new();
    for to in to {
        let rcpt = lines.ask(&format!("RCPT TO:<{to}>")).await?;
        if heard(world, token, "RCPT", &rcpt) == 250 {
            accepted.push(*to);
        }
    }
    if accepted.is_empty() {
        return Ok(accepted);
    }
    if heard(world, token, "DATA", &lines.ask("DATA").await?) != 354 {
        return Ok(Vec::new());
    }
    lines.send(content).await?;
    let end = lines.reply().await?;
    let taken = heard(world, token, "message", &end) == 250;
    Ok(if taken { accepted } else { Vec::new() })
}

/// A user who sends some messages, one after the other, each once.
pub(super) async fn user(world: Rc<World>, name: &'static str, messages: Vec<Sent>) {
    let mut lines: Option<(Lines, Used)> = None;
    for mut sent in messages {
        sleep(world.up_to(PAUSE)).await;
        if lines.is_none() {
            lines = log_in(&world, name).await;
        }
        sent.answer = match &mut lines {
            None => Answer::Refused,
            Some((open, used)) => match submit(&world, open, name, used, &sent).await {
                Ok(answer) => answer,
                Err((error, answer)) => {
                    world.note(&format!("{}: {error}", sent.token));
                    lines = None;
                    answer
                }
            },
        };
        if sent.answer == Answer::Refused && world.below(2) == 0 {
            lines = None;
        }
        world.ledger.borrow_mut().sent.push(sent);
    }
}

async fn log_in(world: &Rc<World>, name: &str) -> Option<(Lines, Used)> {
    for _ in 0..TRIES {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 250)), 40_000);
        if let Some(stream) = world.visit(Role::SmtpdSubmission, address) {
            let mut lines = Lines::new(stream);
            let used = world.password(name);
            match greet(world, &mut lines, name, &used).await {
                Ok(true) => return Some((lines, used)),
                Ok(false) => {}
                Err(error) => world.note(&format!("{name}: {error}")),
            }
        }
        sleep(world.up_to(PAUSE)).await;
    }
    world.wrong(format!("{name} cannot log in"));
    None
}

async fn greet(world: &World, lines: &mut Lines, name: &str, used: &Used) -> io::Result<bool> {
    if heard(world, name, "greeting", &lines.reply().await?) != 220 {
        return Ok(false);
    }
    let hello = lines.ask("EHLO pc.example.org").await?;
    heard(world, name, "EHLO", &hello);
    // Without accountd there are no mechanisms: a client sees a server without log-in.
    if !hello.lines.iter().any(|line| line.contains("AUTH") && line.contains("PLAIN")) {
        return Ok(false);
    }
    // Shown one time in eight, else proved: that is cheaper for both.
    let auth = if world.below(8) == 0 {
        let plain = format!("\0{name}\0{}", used.password);
        let plain = base64::prelude::BASE64_STANDARD.encode(plain);
        lines.ask(&format!("AUTH PLAIN {plain}")).await?
    } else {
        let exchange = Exchange::new(world, name, &used.password);
        let first = format!("AUTH {} {}", scram::NAME, exchange.first());
        let mut reply = lines.ask(&first).await?;
        // The challenge, and the server's own proof.
        for _ in 0..2 {
            let Some(challenge) = reply.last.strip_prefix("334 ") else { break };
            reply = lines.ask(&exchange.answer(challenge)).await?;
        }
        reply
    };
    if auth.code == 535 && world.password_may_fail(name, used) {
        world.note(&format!("{name} hears {}", auth.last));
        return Ok(false);
    }
    Ok(heard(world, name, "AUTH", &auth) == 235)
}

/// One message. An error comes with what has to be thought of it.
async fn submit(
    world: &World,
    lines: &mut Lines,
    name: &str,
    used: &Used,
    sent: &Sent,
) -> Result<Answer, (io::Error, Answer)> {
    let token = &sent.token;
    let before = |error| (error, Answer::Refused);
    let to: Vec<&str> = sent.to.iter().map(String::as_str).collect();
    let content = stuffed(&message(world, token, name, &to));
    let mail = lines.ask(&format!("MAIL FROM:<{name}>")).await.map_err(before)?;
    if heard(world, token, "MAIL", &mail) != 250 {
        return Ok(Answer::Refused);
    }
    for to in &to {
        let rcpt = lines.ask(&format!("RCPT TO:<{to}>")).await.map_err(before)?;
        if heard(world, token, "RCPT", &rcpt) != 250 {
            let reset = lines.ask("RSET").await.map_err(before)?;
            heard(world, token, "RSET", &reset);
            return Ok(Answer::Refused);
        }
    }
    let data = lines.ask("DATA").await.map_err(before)?;
    if heard(world, token, "DATA", &data) != 354 {
        return Ok(Answer::Refused);
    }
    let faults = world.parser_faults();
    lines.send(&content).await.map_err(before)?;
    // From here on it may have been taken whatever we hear.
    let end = lines.reply().await.map_err(|error| (error, Answer::Unknown))?;
    if end.code == 554 && end.last.contains("cannot be read") && world.parser_faults() > faults {
        // A message that two parsers ended at is not read by a third, and a submission that nobody
        // can read is refused: whether they ended because of it cannot be known. (One of the two
        // may have been at its planned end.)
        world.note(&format!("{token} hears {}", end.last));
        return Ok(Answer::Refused);
    }
    Ok(match heard(world, token, "message", &end) {
        250 => {
            world.served(name, used);
            Answer::Taken
        }
        _ => Answer::Unknown,
    })
}
