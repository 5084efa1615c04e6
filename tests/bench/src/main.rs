//! mox-bench: measures our server beside Debian's Postfix and Dovecot on this machine, in turns.
//!
//! Run it by `cargo xtask bench`, which builds what it measures. It needs root: the peers want
//! several users, and ours is measured as it is installed. Everything is in one folder and on
//! loopback ports; nothing of an installation is touched. What must be reached stands in
//! `measures.rs`, the results of the last run in `docs/performance.md`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

mod client;
mod figures;
mod load;
mod measures;
mod message;
mod report;
mod rows;
mod server;

use anyhow::{Context as _, bail};
use clap::Parser;
use measures::{Figure, MEASURES};
use rows::{BIG, MILLION, Scale};
use server::{Ours, Peers, Server};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Measure mox beside Postfix and Dovecot.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// Rows of the table in docs/performance.md; all but 4m if none is named
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Measurements of each row and server, in turns
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Small loads, one round: shows that everything works
    #[arg(long)]
    quick: bool,
    /// Messages of each delivery and APPEND load: more of them for a profile
    #[arg(long)]
    messages: Option<u64>,
    /// Which servers: mox, peers
    #[arg(long, value_delimiter = ',', default_value = "mox,peers")]
    servers: Vec<String>,
    /// Where the servers keep everything; filled mailboxes are used again
    #[arg(long, default_value = "/var/tmp/mox-bench")]
    dir: PathBuf,
    /// Results are added to this file, one JSON object a line; DIR/results.jsonl
    #[arg(long)]
    out: Option<PathBuf>,
    /// Measure nothing; make the table from these results
    #[arg(long)]
    table: Option<PathBuf>,
    /// Folder of the binaries
    #[arg(long, default_value = "target/release", hide = true)]
    binaries: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(file) = &args.table {
        print!("{}", report::table(&results(file)?));
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("bench needs root: Postfix and Dovecot run under several users, and so does mox");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let dir = std::path::absolute(&args.dir)?;
    fs::create_dir_all(&dir)?;
    let mut servers = Vec::new();
    for name in &args.servers {
        servers.push(match name.as_str() {
            "mox" => Server::Ours(Ours::new(&dir, &fs::canonicalize(&args.binaries)?)?),
            "peers" => Server::Peers(Peers::new(&dir)?),
            other => bail!("--servers knows mox and peers, not {other}"),
        });
    }
    for server in &mut servers {
        server.start().await.with_context(|| format!("start {}", server.name()))?;
    }
    let out = args.out.clone().unwrap_or_else(|| dir.join("results.jsonl"));
    let measured = measure_all(args, &mut servers, &out).await;
    for server in &mut servers {
        server.stop().await?;
    }
    print!("{}", report::table(&measured?));
    Ok(())
}

async fn measure_all(
    args: &Args,
    servers: &mut [Server],
    out: &Path,
) -> anyhow::Result<Vec<Figure>> {
    let (mut scale, rounds) =
        if args.quick { (Scale::QUICK, 1) } else { (Scale::FULL, args.rounds.max(1)) };
    scale.messages = args.messages.unwrap_or(scale.messages);
    let rows = if args.rows.is_empty() { measures::usual_rows() } else { args.rows.clone() };
    if let Some(odd) = rows.iter().find(|row| MEASURES.iter().all(|m| m.row != **row)) {
        bail!("there is no row {odd}");
    }
    let mut book = Book { out, all: Vec::new() };
    let _limit = InotifyLimit::raise();
    for row in &rows {
        let full = match row.as_str() {
            "4" | "6" | "7" | "8" => Some(BIG),
            "4m" => Some(MILLION),
            _ => None,
        };
        let mine = |server: &Server| row != "4m" && row != "login" || server.is_ours();
        if let Some(user) = full {
            for server in servers.iter().filter(|s| mine(s)) {
                let filled = rows::fill(server, user, &scale).await;
                filled.with_context(|| format!("fill {}", server.name()))?;
            }
        }
        // Rows 1 and 2 are one load.
        if row == "2" && rows.iter().any(|r| r == "1") {
            continue;
        }
        // Neither varies, and both take a minute.
        let rounds = if row == "13" || row == "11" { 1 } else { rounds };
        for round in 0..rounds {
            let seed = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
            let mut turn: Vec<&mut Server> = servers.iter_mut().filter(|s| mine(s)).collect();
            if round % 2 == 1 {
                turn.reverse();
            }
            for server in turn {
                let figures = rows::measure(row, server, &scale, seed).await;
                let what = || format!("row {row} on {}", server.name());
                book.enter(server, round, figures.with_context(what)?)?;
            }
        }
    }
    Ok(book.all)
}

/// Where figures are written down as they come.
struct Book<'a> {
    out: &'a Path,
    all: Vec<Figure>,
}

impl Book<'_> {
    fn enter(
        &mut self,
        server: &Server,
        round: u32,
        figures: Vec<(&'static str, f64)>,
    ) -> anyhow::Result<()> {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.out)?;
        for (key, value) in figures {
            let server = server.name().to_owned();
            let figure = Figure { key: key.to_owned(), server, round, value };
            let line = serde_json::to_string(&figure)?;
            println!("{line}");
            writeln!(file, "{line}")?;
            self.all.push(figure);
        }
        Ok(())
    }
}

fn results(file: &Path) -> anyhow::Result<Vec<Figure>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Dovecot watches a folder for each connection in IDLE; the kernel's limit is for desktops. It is
/// raised for the time of the run.
struct InotifyLimit(Option<String>);

impl InotifyLimit {
    const FILE: &'static str = "/proc/sys/fs/inotify/max_user_instances";

    fn raise() -> Self {
        let before = fs::read_to_string(Self::FILE).ok();
        // Where it cannot be set, Dovecot says so in its log, and is slower to notice mail.
        let _ = fs::write(Self::FILE, "8192");
        Self(before)
    }
}

impl Drop for InotifyLimit {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = fs::write(Self::FILE, before.trim());
        }
    }
}
