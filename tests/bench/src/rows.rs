//! One round of one row against one server: the load, and what it cost.

use crate::{
    figures::{Syncs, cpu_ms, disk_octets, pss_kb},
    load::{connect, deliver::Deliver, fetch, fill::Fill, idle::Idle, median, percentile},
    message::{Rng, Shape},
    server::{Ports, Server, USERS},
};
use anyhow::{bail, ensure};
use std::time::Duration;

/// Users of the loads that spread over accounts.
const MANY: u64 = 10;
/// The user with the large mailbox.
pub(crate) const BIG: u64 = 10;
/// The one whose mailbox is small.
const SMALL: u64 = 11;
/// The one account of row 3.
const ONE: u64 = 12;
/// The one with a million.
pub(crate) const MILLION: u64 = 13;
/// The first of those whose disk use is measured, each once: what a mailbox held before is free pages
/// that the next mail goes into.
const DISK: u64 = 14;
/// Octets of a message.
const SIZE: usize = 5000;
/// Octets of each of the million.
const SMALL_SIZE: usize = 1000;

/// How much of each load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) messages: u64,
    pub(crate) big: u64,
    pub(crate) million: u64,
    pub(crate) idle: u64,
    pub(crate) handshakes: u64,
    pub(crate) log_ins: u64,
    pub(crate) disk: u64,
    pub(crate) rest: Duration,
}

impl Scale {
    pub(crate) const FULL: Self = Self {
        messages: 400,
        big: 20_000,
        million: 1_000_000,
        idle: 1000,
        handshakes: 2000,
        log_ins: 200,
        disk: 4000,
        rest: Duration::from_secs(75),
    };
    pub(crate) const QUICK: Self = Self {
        messages: 100,
        big: 2000,
        million: 10_000,
        idle: 100,
        handshakes: 100,
        log_ins: 20,
        disk: 400,
        rest: Duration::from_secs(1),
    };
}

type Figures = Vec<(&'static str, f64)>;

/// CPU of a server from here on, with the work that it does behind the answers.
struct Cpu {
    roots: Vec<u32>,
    begin: f64,
}

impl Cpu {
    fn begin(server: &Server) -> Self {
        let roots = server.roots();
        Self { begin: cpu_ms(&roots), roots }
    }

    async fn end(self) -> f64 {
        settle(&self.roots).await - self.begin
    }
}

/// Waits until a server has nothing more to do, or it seems to have for ever; its CPU time then.
async fn settle(roots: &[u32]) -> f64 {
    const LOOK: Duration = Duration::from_millis(300);
    /// CPU of a look at which it rests: its heartbeats.
    const REST: f64 = 10.0;
    const LOOKS: u32 = 30;
    let mut before = cpu_ms(roots);
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = cpu_ms(roots);
        if now - before <= REST {
            return now;
        }
        before = now;
    }
    before
}

/// Measures one row once.
pub(crate) async fn measure(
    row: &str,
    server: &mut Server,
    scale: &Scale,
    seed: u64,
) -> anyhow::Result<Figures> {
    match row {
        "1" | "2" => delivered(server, scale, seed).await,
        "3" => syncs(server, scale, seed).await,
        "4" => {
            let costs = ["full-cost", "full-cpu"];
            cost_of_full(server, scale, BIG, costs, seed).await
        }
        "4m" => {
            let costs = ["million-cost", "million-cpu"];
            cost_of_full(server, scale, MILLION, costs, seed).await
        }
        "6" => envelopes(server).await,
        "7" => flags(server).await,
        "8" => bodies(server).await,
        "10" => notices(server, seed).await,
        "11" => idle(server, scale).await,
        "12" => handshakes(server, scale).await,
        "13" => disk(server, scale, seed).await,
        "14" => rest(server).await,
        "15" => append(server, scale, seed).await,
        "login" => log_ins(server, scale).await,
        _ => bail!("there is no row {row}"),
    }
}

fn to_many(scale: &Scale, seed: u64) -> Deliver {
    let users = (0..MANY).collect();
    Deliver {
        connections: 10,
        messages: scale.messages,
        users,
        size: SIZE,
        shape: Shape::Plain,
        seed,
    }
}

fn to_one(user: u64, connections: u64, messages: u64, seed: u64) -> Deliver {
    Deliver { connections, messages, users: vec![user], size: SIZE, shape: Shape::Plain, seed }
}

async fn delivered(server: &Server, scale: &Scale, seed: u64) -> anyhow::Result<Figures> {
    let ready = to_many(scale, seed).prepare(&server.ports()).await?;
    settle(&server.roots()).await;
    let cpu = Cpu::begin(server);
    let done = ready.run().await?;
    let n = scale.messages as f64;
    let cpu = cpu.end().await / n;
    Ok(vec![("delivered", n / done.seconds), ("delivered-cpu", cpu)])
}

async fn syncs(server: &Server, scale: &Scale, seed: u64) -> anyhow::Result<Figures> {
    let mut figures = Vec::new();
    for (key, connections) in [("syncs-1", 1), ("syncs-50", 50)] {
        let messages = scale.messages;
        let seed = Rng::new(seed.wrapping_add(connections)).next();
        let ready = to_one(ONE, connections, messages, seed).prepare(&server.ports()).await?;
        settle(&server.roots()).await;
        let count = Syncs::begin(&server.roots())?;
        ready.run().await?;
        settle(&server.roots()).await;
        figures.push((key, count.end()? as f64 / messages as f64));
    }
    Ok(figures)
}

/// Deliveries on one connection into a full and a small mailbox, in turns of a few: what else the
/// machine does meets both.
async fn cost_of_full(
    server: &Server,
    scale: &Scale,
    full: u64,
    [time, cpu]: [&'static str; 2],
    seed: u64,
) -> anyhow::Result<Figures> {
    const TURNS: u64 = 4;
    let mut costs: [(Vec<f64>, f64); 2] = Default::default();
    for turn in 0..TURNS {
        for (n, into) in [SMALL, full].into_iter().zip(&mut costs) {
            let seed = Rng::new(seed.wrapping_add(turn * 2 + n)).next();
            let messages = scale.messages / TURNS;
            let ready = to_one(n, 1, messages, seed).prepare(&server.ports()).await?;
            settle(&server.roots()).await;
            let cpu = Cpu::begin(server);
            let done = ready.run().await?;
            into.1 += cpu.end().await;
            // Whoever answers before it delivers is measured by when the mail was there.
            let each = done.seconds * 1e3 / messages as f64;
            let accepted = median(&done.accept_ms);
            into.0.push(if server.is_ours() { accepted } else { each });
        }
    }
    let [small, full] = costs;
    Ok(vec![(time, median(&full.0) / median(&small.0)), (cpu, full.1 / small.1)])
}

/// What one account's mail takes when the account rests.
async fn disk(server: &Server, scale: &Scale, seed: u64) -> anyhow::Result<Figures> {
    let mut user = DISK;
    while messages_of(&server.ports(), user).await? > 0 {
        user += 1;
        ensure!(user < USERS, "every account for row 13 was used: begin a new folder");
    }
    let before = disk_octets(&server.mail())?;
    let plan = Deliver { shape: Shape::Mixed, ..to_one(user, 10, scale.disk, seed) };
    plan.prepare(&server.ports()).await?.run().await?;
    if server.is_ours() {
        // An account that rests for a minute has its log emptied and its mail in segments.
        tokio::time::sleep(scale.rest).await;
    }
    let octets = disk_octets(&server.mail())?.saturating_sub(before);
    Ok(vec![("disk", octets as f64 / scale.disk as f64)])
}

/// Fills a mailbox up to the scale.
pub(crate) async fn fill(server: &Server, user: u64, scale: &Scale) -> anyhow::Result<()> {
    let (wanted, size) =
        if user == MILLION { (scale.million, SMALL_SIZE) } else { (scale.big, SIZE) };
    let there = messages_of(&server.ports(), user).await?;
    let missing = wanted.saturating_sub(there);
    if missing == 0 {
        return Ok(());
    }
    let connections = if user == MILLION { 32 } else { 4 };
    let users = vec![user];
    let plan = Fill { connections, messages: missing, users, size, seed: there + 1 };
    plan.prepare(&server.ports()).await?.run().await?;
    settle(&server.roots()).await;
    Ok(())
}

async fn messages_of(ports: &Ports, user: u64) -> anyhow::Result<u64> {
    use crate::client::{Imap, Transport};
    let mut imap = Imap::connect(ports.imap, Transport::Clear).await?;
    imap.login(&crate::load::user(user), crate::load::PASSWORD).await?;
    imap.messages("INBOX").await
}

/// FETCH of everything, once to warm up, then `times`; milliseconds and CPU milliseconds of each,
/// and what came.
async fn fetched(
    server: &Server,
    items: &str,
    times: u32,
) -> anyhow::Result<(f64, f64, fetch::Fetched)> {
    fetch::prepare(&server.ports(), BIG).await?.run(items, 1).await?;
    let ready = fetch::prepare(&server.ports(), BIG).await?;
    settle(&server.roots()).await;
    let cpu = Cpu::begin(server);
    let done = ready.run(items, times).await?;
    let cpu = cpu.end().await / f64::from(times);
    Ok((median(&done.ms), cpu, done))
}

async fn envelopes(server: &Server) -> anyhow::Result<Figures> {
    let items = "(FLAGS UID RFC822.SIZE ENVELOPE BODYSTRUCTURE)";
    let (ms, cpu, _) = fetched(server, items, 3).await?;
    Ok(vec![("envelopes", ms), ("envelopes-cpu", cpu)])
}

async fn flags(server: &Server) -> anyhow::Result<Figures> {
    Ok(vec![("flags", fetched(server, "(UID FLAGS)", 5).await?.0)])
}

async fn bodies(server: &Server) -> anyhow::Result<Figures> {
    let (ms, cpu, done) = fetched(server, "(BODY.PEEK[])", 1).await?;
    let mb = done.octets as f64 / 1e6;
    Ok(vec![("bodies", mb / (ms / 1e3)), ("bodies-cpu", cpu / mb)])
}

async fn notices(server: &Server, seed: u64) -> anyhow::Result<Figures> {
    let mut idle = Idle::open(&server.ports(), 2 * MANY, MANY).await?;
    settle(&server.roots()).await;
    let all = idle.notices(&server.ports(), 4 * MANY, seed).await?;
    Ok(vec![("notice-p50", median(&all)), ("notice-p95", percentile(&all, 95.0))])
}

async fn idle(server: &Server, scale: &Scale) -> anyhow::Result<Figures> {
    settle(&server.roots()).await;
    let before = pss_kb(&server.roots());
    let idle = Idle::open(&server.ports(), scale.idle, MANY).await?;
    settle(&server.roots()).await;
    let each = (pss_kb(&server.roots()) - before) / scale.idle as f64;
    drop(idle);
    Ok(vec![("idle", each)])
}

async fn handshakes(server: &Server, scale: &Scale) -> anyhow::Result<Figures> {
    // The first ones pay for what later ones find.
    connect::handshakes(&server.ports(), 8, 8).await?;
    settle(&server.roots()).await;
    let cpu = Cpu::begin(server);
    let start = std::time::Instant::now();
    connect::handshakes(&server.ports(), 8, scale.handshakes).await?;
    let seconds = start.elapsed().as_secs_f64();
    let n = scale.handshakes as f64;
    Ok(vec![("handshake", n / seconds), ("handshake-cpu", cpu.end().await / n)])
}

async fn rest(server: &mut Server) -> anyhow::Result<Figures> {
    server.stop().await?;
    let start = server.start().await?;
    settle(&server.roots()).await;
    let memory = pss_kb(&server.roots()) / 1024.0;
    Ok(vec![("memory", memory), ("start", start.as_secs_f64())])
}

async fn append(server: &Server, scale: &Scale, seed: u64) -> anyhow::Result<Figures> {
    let users = (0..MANY).collect();
    let messages = scale.messages;
    let plan = Fill { connections: MANY, messages, users, size: SIZE, seed };
    let ready = plan.prepare(&server.ports()).await?;
    settle(&server.roots()).await;
    let cpu = Cpu::begin(server);
    let seconds = ready.run().await?;
    let n = messages as f64;
    Ok(vec![("append", n / seconds), ("append-cpu", cpu.end().await / n)])
}

async fn log_ins(server: &Server, scale: &Scale) -> anyhow::Result<Figures> {
    let (known, unknown) = connect::wrong_passwords(&server.ports(), scale.log_ins).await?;
    Ok(vec![("wrong-known", median(&known)), ("wrong-unknown", median(&unknown))])
}
