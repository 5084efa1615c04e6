//! Starting and running: what the process is given becomes the service, and the service meets its
//! clients.

use crate::{
    alarms::Alarms,
    auth::{
        authority::{Authority, BootClock},
        hashing::Hashing,
        limiter::FailedLogins,
        live::Lives,
        look_ups::LookUps,
        records::Records,
        ticket_keys::TicketKeys,
        vault::Vault,
    },
    directory::Directories,
    gate::Gate,
    intake::{
        names::Names,
        parse::Parsers,
        spool::{self, Places},
        turns::Turns,
    },
    keys::Keyholder,
    outbox::Outboxes,
    serve::doors,
    service::{Service, Settings},
    store::{Ports, Random, Store, Threads, Tuning},
};
use anyhow::Context as _;
use config::directory::{Host, edit::Edit};
use daemon::Workers;
use ipc::{Acceptor, Dialer, Limits, Line, Stream};
use std::{cell::RefCell, path::PathBuf, rc::Rc, sync::Arc, time::Duration};
use storage::{Disk, Open};
use tokio::{net::UnixListener, sync::mpsc, time::Instant};
use types::{AccountId, Address, Clock, Domain, Secret};

/// domains.toml is looked at this often, and whether somebody came to his limit of failed log-ins.
const LOOK: Duration = Duration::from_secs(2);
/// Failed log-ins are written down this often, ticket keys and detached folders looked at.
const WRITE_LIMITS: Duration = Duration::from_secs(10);
const HOURLY: Duration = Duration::from_secs(3_600);
/// The pause before keyholder is asked again at the start.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The pause after accept() failed for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Decides by uid who may use the control socket.
pub type Allowed = Rc<dyn Fn(u32) -> bool>;

/// Everything accountd may use.
pub struct Grants {
    /// The static configuration.
    pub slice: config::slice::Accountd,
    /// Its own folder.
    pub folder: PathBuf,
    /// The disk below it.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Time since the machine started, sleep included; never jumps.
    pub boot_clock: Rc<dyn Fn() -> Duration>,
    /// One for each parser.
    pub parsers: Vec<Dialer>,
    /// To resolver.
    pub resolver: Dialer,
    /// To keyholder.
    pub keyholder: Dialer,
    /// Clients, as the supervisor wires them.
    pub clients: mpsc::Receiver<Acceptor>,
    /// The control socket, and who may use it.
    pub control: Option<(UnixListener, Allowed)>,
    /// Nobody knows what is on the disk: ends the process.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
    /// Says that clients may come: a development server waits for its account.
    pub announce: Rc<dyn Fn()>,
    /// Where SQL, hashing and large files are worked on.
    pub workers: Workers,
}

/// The machine's randomness.
struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("getrandom() never fails once the machine has started");
    }
}

/// Runs until `stop` is done, then writes down what is only in memory.
///
/// # Errors
/// When the folder, the directory or a database cannot be opened.
pub async fn run(grants: Grants, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let service = open(&grants)?;
    service.make_missing().await.map_err(|t| anyhow::anyhow!(t.text)).context("new accounts")?;
    let background = tokio::task::spawn_local(background(
        Rc::clone(&service),
        grants.slice.seed,
        grants.announce,
    ));
    let at_doors = Rc::clone(&service);
    let serving = ipc::serve_clients(grants.clients, Limits::SESSIONS, move |role, instance| {
        doors::door(&at_doors, role, instance)
    });
    let controlling = serve_control(&service, grants.control);
    tokio::select! {
        biased;
        () = stop => {}
        () = async { tokio::join!(serving, controlling); } => {}
    }
    background.abort();
    write_limits(&service).await;
    let store = service.store.clone();
    // Ends the threads after what they are doing.
    service.workers.run(move || store.stop()).await.context("stop the store")?;
    Ok(())
}

fn open(grants: &Grants) -> anyhow::Result<Rc<Service>> {
    let folder = &grants.folder;
    let slice = &grants.slice;
    spool::prepare(folder).context("the folder of spooled messages")?;
    let accounts = folder.join("accounts");
    std::fs::create_dir_all(&accounts).context("the folder of accounts")?;
    let now = grants.clock.now();
    let mut names = vec![slice.hostname.clone()];
    names.extend(slice.smtp_hostnames.iter().filter(|n| **n != slice.hostname).cloned());
    let host = Host {
        names,
        postmaster: slice.postmaster.as_ref().map(|p| p.account.clone()),
        postmaster_mailbox: slice.postmaster.as_ref().map(|p| p.mailbox.clone()),
        catch_everything: slice.seed.as_ref().map(|seed| seed.account.clone()),
    };
    let directories = Rc::new(Directories::open(folder, host).context("domains.toml")?);
    let how = Open { disk: Arc::clone(&grants.disk), ..Open::default() };
    let mut records = Records::open(folder, how).context("accountd.db")?;
    let mut failed = FailedLogins::new(&slice.gate);
    failed.restore(records.failures().context("accountd.db")?);
    let alarms = Alarms::default();
    let (raised, clock) = (alarms.clone(), Arc::clone(&grants.clock));
    let ports = Ports {
        disk: Arc::clone(&grants.disk),
        clock: Arc::clone(&grants.clock),
        random: Arc::new(SystemRandom),
        fatal: Arc::clone(&grants.fatal),
        alarm: Arc::new(move |account: AccountId, what: &str| {
            raised.raise(account, what, clock.now());
        }),
        workers: grants.workers,
    };
    let store = Store::start(&accounts, ports, Tuning::default(), Threads::default())
        .context("the account store")?;
    let keyholder = Rc::new(Keyholder::new(Line::new(grants.keyholder.clone(), Limits::default())));
    let boot_clock: BootClock = Rc::clone(&grants.boot_clock);
    let authority = Authority {
        directories: Rc::clone(&directories),
        vault: Vault::start(records, grants.workers).context("the thread of credentials")?,
        hashing: Hashing::start(grants.workers).context("the hashing threads")?,
        pepper: Rc::clone(&keyholder) as Rc<dyn crate::auth::pepper::Pepper>,
        failed: RefCell::new(failed),
        look_ups: LookUps::default(),
        lives: Lives::default(),
        ticket_keys: TicketKeys::open(folder, now).context("the ticket keys")?,
        clock: Arc::clone(&grants.clock),
        boot_clock,
        clear_text: slice.clear_text_logins.clone(),
        admin_changes: Arc::default(),
    };
    let parsers = grants.parsers.iter().map(|dialer| Line::new(dialer.clone(), Limits::default()));
    Ok(Rc::new(Service {
        folder: folder.clone(),
        settings: Settings {
            hostname: slice.hostname.clone(),
            max_message: slice.max_message_size,
            received: slice.received_fields,
            sessions: slice.imap_sessions,
            is_local: slice.seed.is_some(),
            check_senders: slice.check_senders,
        },
        authority,
        directories,
        store,
        parsers: Parsers::new(parsers),
        names: Names::new(Line::new(grants.resolver.clone(), Limits::default())),
        places: Places::default(),
        turns: Turns::default(),
        keyholder,
        gate: Rc::new(RefCell::new(Gate::new(&slice.gate, &slice.delivery))),
        outboxes: Outboxes::default(),
        alarms,
        clock: Arc::clone(&grants.clock),
        disk: Arc::clone(&grants.disk),
        workers: grants.workers,
    }))
}

/// What goes on beside the calls: preparations that need keyholder, then housekeeping.
async fn background(service: Rc<Service>, seed: Option<config::Local>, announce: Rc<dyn Fn()>) {
    if seed.is_none() {
        announce();
    }
    // Log-ins are refused as temporary until this is done.
    while service.authority.prepare().await.is_err() {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    let mut local = None;
    if let Some(seed) = seed {
        match plant(&service, &seed).await {
            Ok(domain) => local = Some(domain),
            Err(error) => tracing::error!(%error, "the development account could not be made"),
        }
        announce();
    }
    service.tell_hosted().await;
    if let Some(domain) = local {
        service.make_dkim_keys(&domain).await;
    }
    service.make_host_keys().await;
    service.find_left_rows().await;
    service.sweep().await;
    service.sweep_copies().await;
    let mut next_hour = Instant::now() + HOURLY;
    let mut next_write = Instant::now() + WRITE_LIMITS;
    loop {
        tokio::time::sleep(LOOK).await;
        service.look_at_directory().await;
        if Instant::now() < next_write {
            if service.authority.failed.borrow().are_urgent() {
                write_limits(&service).await;
            }
            continue;
        }
        next_write = Instant::now() + WRITE_LIMITS;
        write_limits(&service).await;
        service.authority.lives.sweep();
        if Instant::now() >= next_hour {
            next_hour = Instant::now() + HOURLY;
            if let Err(error) = service.authority.ticket_keys.turn(service.clock.now()) {
                tracing::error!(%error, "ticket keys");
            }
            service.find_left_rows().await;
            service.sweep().await;
            service.sweep_copies().await;
        }
    }
}

async fn write_limits(service: &Service) {
    let rows = service.authority.failed.borrow_mut().unwritten(service.clock.now());
    let Some(rows) = rows else { return };
    let written = service.authority.vault.run(move |records| records.write_failures(&rows)).await;
    if let Err(error) = written {
        tracing::error!(%error, "failed log-ins were not written down");
        service.authority.failed.borrow_mut().not_written();
    }
}

/// The account of a development server, if it is not there: its domain.
async fn plant(service: &Service, seed: &config::Local) -> anyhow::Result<Domain> {
    let address: Address = seed.address.parse().context("its address")?;
    let snapshot = service.directories.now();
    if snapshot.directory.domain(address.domain()).is_none() {
        service.directories.change(&Edit::DomainAdd(address.domain()))?;
    }
    if snapshot.directory.account(&seed.account).is_none() {
        service
            .account_add(&seed.account, &address, &seed.password)
            .await
            .map_err(|trouble| anyhow::anyhow!(trouble.text))?;
        service
            .authority
            .set_admin_password(Secret::new(seed.admin_password.clone()))
            .await
            .map_err(|_| anyhow::anyhow!("keyholder does not answer"))?;
    }
    Ok(address.domain().clone())
}

/// Serves moxctl. Whoever is not allowed is hung up on; moxctl tells its user why.
async fn serve_control(service: &Rc<Service>, control: Option<(UnixListener, Allowed)>) {
    let Some((listener, allowed)) = control else { return };
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let uid = socket.peer_cred().map(|peer| peer.uid());
                if !uid.as_ref().is_ok_and(|uid| allowed(*uid)) {
                    tracing::warn!(?uid, "control: refused by uid");
                    continue;
                }
                if let Ok(stream) = Stream::from_unix(socket) {
                    let served = ipc::serve(stream, doors::control(service), Limits::default());
                    tokio::task::spawn_local(served);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "control: accept");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}
