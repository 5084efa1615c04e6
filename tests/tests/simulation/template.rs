//! The folder every run begins with: made once, by the product itself, and copied.

use super::chance::seed_the_system;
use anyhow::Context as _;
use daemon::{Figures, Stop, Workers};
use ipc::{
    Limits, Role,
    schema::control_capnp::{account_admin, problem},
};
use serde_json::json;
use std::{
    fs, io,
    path::Path,
    rc::Rc,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::LocalSet,
};
use types::{AccountId, Clock as _, ManualClock, UnixNanos};

/// The accounts there are.
pub(super) const ACCOUNTS: [&str; 2] = ["alice@example.org", "bob@example.org"];
/// Everybody's password.
pub(super) const PASSWORD: &str = "mellon42";
/// An Ed25519 and an RSA one.
const HOST_KEYS: usize = 2;
/// What the template itself draws: one account has the same id in every process that tests.
const SEED: u64 = 0x006d_6f78;

/// A fresh copy of the template.
pub(super) fn copy() -> anyhow::Result<TempDir> {
    static MADE: OnceLock<Result<TempDir, String>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let thread = std::thread::spawn(|| make().map_err(|error| format!("{error:#}")));
        thread.join().unwrap_or_else(|_| Err("the template panicked".into()))
    });
    let made = made.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    let folder = tempfile::tempdir()?;
    copy_tree(made.path(), folder.path())?;
    Ok(folder)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn make() -> anyhow::Result<TempDir> {
    seed_the_system(SEED);
    let folder = tempfile::tempdir()?;
    for role in [Role::Accountd, Role::QueueRunner, Role::Keyholder] {
        fs::create_dir_all(folder.path().join(role.to_string()))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Dropped whole, so that every file is closed when it is copied.
    LocalSet::new().block_on(&runtime, fill(folder.path()))?;
    Ok(folder)
}

async fn fill(folder: &Path) -> anyhow::Result<()> {
    let clock = ManualClock::at(UnixNanos::from_seconds(1_789_900_000));
    let (to_keyholder, at_keyholder) = ipc::memory_edge(Role::Accountd, 0);
    // Nobody answers there, and nobody is asked.
    let (to_resolver, _at_resolver) = ipc::memory_edge(Role::Accountd, 0);
    let (clients, acceptors) = mpsc::channel(1);
    clients.send(at_keyholder).await.map_err(|_| anyhow::anyhow!("keyholder"))?;
    tokio::task::spawn_local(keyholder::run(keyholder::Grants {
        slice: serde_json::from_value(json!({ "hostname": super::roles::HOST }))?,
        folder: folder.join(Role::Keyholder.to_string()),
        files: keyholder::GivenFiles::default(),
        control: None,
        clients: acceptors,
        clock: Arc::new(clock.clone()),
        figures: Figures::detached(),
        workers: Workers::InPlace,
    }));
    let sockets = tempfile::tempdir()?;
    let control = sockets.path().join("control");
    let listener = UnixListener::bind(&control)?;
    let (_nobody, nobodys) = mpsc::channel(1);
    let (stopper, stop) = Stop::new();
    let running = tokio::task::spawn_local(accountd::run(
        accountd::Grants {
            slice: serde_json::from_value(json!({ "hostname": super::roles::HOST }))?,
            folder: folder.join(Role::Accountd.to_string()),
            disk: Arc::new(storage::RealDisk),
            clock: Arc::new(clock.clone()),
            boot_clock: Rc::new(|| Duration::from_secs(100)),
            parsers: Vec::new(),
            resolver: to_resolver,
            keyholder: to_keyholder,
            clients: nobodys,
            control: Some((listener, Rc::new(|_| true))),
            fatal: Arc::new(|what| panic!("{what}")),
            announce: Rc::new(|| {}),
            workers: Workers::InPlace,
        },
        async move {
            stop.draining().await;
        },
    ));
    let stream = ipc::Stream::from_unix(UnixStream::connect(&control).await?)?;
    let (admin, serving) = ipc::connect::<account_admin::Client>(stream, Limits::default());
    tokio::task::spawn_local(serving);
    let mut request = admin.domain_add_request();
    request.get().set_domain("example.org");
    said(request.send().promise.await?.get()?.get_problem()?)?;
    for address in ACCOUNTS {
        let mut request = admin.account_add_request();
        let mut params = request.get();
        params.set_name(name(address));
        params.set_address(address);
        params.set_password(PASSWORD);
        said(request.send().promise.await?.get()?.get_problem()?)?;
    }
    drop(admin);
    // accountd has keyholder make keys for our own name: here, or every run would make them.
    let keys = folder.join(Role::Keyholder.to_string()).join("dkim").join(super::roles::HOST);
    while fs::read_dir(&keys).map_or(0, Iterator::count) < HOST_KEYS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    anyhow::ensure!(clock.now().seconds() > 0, "a clock that stands");
    stopper.drain(Duration::from_secs(1));
    running.await?
}

fn name(address: &str) -> &str {
    address.split_once('@').map_or(address, |(name, _)| name)
}

fn said(problem: problem::Reader<'_>) -> anyhow::Result<()> {
    anyhow::ensure!(problem.get_kind()? == problem::Kind::None, "{:?}", problem.get_text()?);
    Ok(())
}

/// The ids of the accounts, as accountd wrote them down.
pub(super) fn ids(accountd: &Path) -> anyhow::Result<Vec<(AccountId, &'static str)>> {
    let text = fs::read_to_string(accountd.join("directory/domains.toml"))?;
    let mut ids = Vec::new();
    for address in ACCOUNTS {
        let block = text.split_once(&format!("[account.{}]", name(address)));
        let (_, block) = block.context("an account is not in domains.toml")?;
        let id = block.split_once("id = \"").and_then(|(_, rest)| rest.split_once('"'));
        let (id, _) = id.context("an account without an id")?;
        ids.push((id.parse().map_err(|_| anyhow::anyhow!("{id} is no id"))?, address));
    }
    Ok(ids)
}
