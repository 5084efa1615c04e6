//! The whole tree behind its edges, without faces: the real servers, each in a thread of its own,
//! wired by real connectors, over one temporary folder.
//!
//! A fault of the file system ends the thread by a panic, as it ends the process.

use crate::wire::{lexicon::Lexicon, peer::Connector};
use config::slice;
use daemon::{Figures, Stop, Workers};
use ipc::{Acceptor, Dialer, Role};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use storage::RealDisk;
use tokio::{
    net::UnixListener,
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::LocalSet,
};
use types::{Clock, SystemClock, UnixNanos};

/// The account that is there from the start.
pub const LOGIN: &str = "mox@localhost";
/// Its password.
pub const PASSWORD: &str = "moxmoxmox";
/// The administrators'.
pub const ADMIN_PASSWORD: &str = "moxadmin";

/// The clock of the machine, which a test can put forward.
#[derive(Debug, Clone, Default)]
pub struct ShiftedClock(Arc<AtomicU64>);

impl ShiftedClock {
    /// Puts it forward.
    pub fn advance(&self, by: Duration) {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(ns, Ordering::SeqCst);
    }

    fn shift(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> UnixNanos {
        SystemClock.now().plus(self.shift())
    }

    fn monotonic(&self) -> Instant {
        SystemClock.monotonic() + self.shift()
    }
}

/// A connector on its way to its server.
struct Wired {
    client: Role,
    instance: u16,
    fd: OwnedFd,
}

/// Two ends of a connector.
fn connector() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket pair")
}

/// The servers, running.
pub struct House {
    servers: Vec<(Role, UnboundedSender<Wired>)>,
    folder: tempfile::TempDir,
    /// The clock of all of them.
    pub clock: ShiftedClock,
    /// What may be said to them.
    pub lexicon: Lexicon,
}

/// The server's side of a thread: its clients as they come.
struct Clients(UnboundedReceiver<Wired>);

impl Clients {
    /// As the servers want them.
    fn acceptors(mut self) -> mpsc::Receiver<Acceptor> {
        let (give, take) = mpsc::channel(64);
        tokio::task::spawn_local(async move {
            while let Some(Wired { client, instance, fd }) = self.0.recv().await {
                let acceptor = Acceptor::from_connector(client, instance, fd).expect("a socket");
                if give.send(acceptor).await.is_err() {
                    return;
                }
            }
            // Clients may come as long as the house stands.
            std::future::pending::<()>().await;
        });
        take
    }
}

impl House {
    /// Starts all servers and waits until the account is there.
    #[must_use]
    pub fn start() -> Self {
        let memory = Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let mut house = Self {
            servers: Vec::new(),
            folder: folder.expect("a folder"),
            clock: ShiftedClock::default(),
            lexicon: Lexicon::default(),
        };
        house.start_resolver();
        house.start_keyholder();
        house.serve(
            Role::Parser,
            |clients, ()| async move {
                let (stopper, stop) = Stop::new();
                let (clients, figures) = (clients.acceptors(), Figures::detached());
                // A process of its own would end after its share of CPU time; this one is shared.
                let cpu = Duration::from_secs(1 << 30);
                let bounds = parser::Bounds {
                    jobs: u32::MAX,
                    cpu_of_life: cpu,
                    cpu_per_job: cpu,
                    ..parser::Bounds::default()
                };
                let grants = parser::Grants { clients, figures, stop };
                parser::run(grants, bounds, parser::Watchdog::asleep()).await;
                drop(stopper);
                panic!("the parser ended: a job failed");
            },
            (),
        );
        let resolver = house.wire(Role::Outbound, Role::Resolver);
        house.serve(
            Role::Outbound,
            |clients, resolver| async move {
                let roots = rustls::RootCertStore::empty();
                outbound::run(outbound::Grants {
                    // Nobody listens there.
                    connect: outbound::tcp(Vec::new(), 1),
                    tls: net::ClientTls::new(roots).expect("no authorities at all"),
                    resolver: Dialer::from_connector(resolver).expect("a socket"),
                    clients: clients.acceptors(),
                })
                .await;
            },
            resolver,
        );
        let ready = house.start_accountd();
        let to = [Role::Accountd, Role::Outbound, Role::Keyholder]
            .map(|to| house.wire(Role::QueueRunner, to));
        let (path, clock) = (house.folder("queue"), house.clock.clone());
        let control = house.control(Role::QueueRunner);
        house.serve(
            Role::QueueRunner,
            |_nobody_asks_it, (to, path, clock, control)| async move {
                let [accountd, outbound, keyholder] =
                    to.map(|fd| Dialer::from_connector(fd).expect("a socket"));
                let listener = UnixListener::bind(control).expect("a control socket");
                let grants = queue_runner::Grants {
                    hostname: "localhost".parse().expect("a domain"),
                    queue: config::Queue::default(),
                    folder: path,
                    disk: Arc::new(RealDisk),
                    clock: Rc::new(clock),
                    accountd,
                    outbound,
                    keyholder,
                    figures: Figures::detached(),
                    control: Some((listener, Rc::new(|_| true))),
                    fatal: Arc::new(|error| panic!("the queue's disk: {error}")),
                    workers: Workers::Threads,
                };
                let ended = queue_runner::run(grants).await;
                panic!("queue-runner ended: {ended:?}");
            },
            (to, path, clock, control),
        );
        let accountd = house.wire(Role::ImapdSession, Role::Accountd);
        house.serve(
            Role::ImapdSession,
            |clients, accountd| async move {
                let (stopper, stop) = Stop::new();
                let grants = imapd::session::Grants {
                    limits: config::limits::Imap::default(),
                    accountd: Dialer::from_connector(accountd).expect("a socket"),
                    fronts: clients.acceptors(),
                    stop,
                };
                imapd::session::run(grants).await;
                drop(stopper);
            },
            accountd,
        );
        ready.recv_timeout(Duration::from_secs(60)).expect("accountd made its account");
        crate::login::learn(&mut house);
        house
    }

    /// A server in a thread.
    fn serve<S: Send + 'static, F: Future<Output = ()>>(
        &mut self,
        role: Role,
        run: impl FnOnce(Clients, S) -> F + Send + 'static,
        state: S,
    ) {
        let (give, take) = unbounded_channel();
        let work = move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, async move { run(Clients(take), state).await });
        };
        thread::Builder::new().name(role.name().to_owned()).spawn(work).expect("a thread");
        self.servers.push((role, give));
    }

    fn wire_as(&self, client: Role, instance: u16, server: Role) -> OwnedFd {
        let (near, far) = connector();
        let (_, to) = self.servers.iter().find(|(role, _)| *role == server).expect("a server");
        to.send(Wired { client, instance, fd: far }).expect("the server lives");
        near
    }

    fn wire(&self, client: Role, server: Role) -> OwnedFd {
        self.wire_as(client, 0, server)
    }

    /// A new connector, as the supervisor would give it to this client.
    #[must_use]
    pub fn connector(&self, client: Role, instance: u16, server: Role) -> Connector {
        Connector(self.wire_as(client, instance, server))
    }

    /// Where a process serves administrators.
    #[must_use]
    pub fn control(&self, role: Role) -> PathBuf {
        self.folder.path().join(format!("{role}.control"))
    }

    /// The folder of a process.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    }

    fn start_resolver(&mut self) {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
        let address = server.local_addr().expect("its address");
        thread::spawn(move || nothing_exists(&server));
        self.serve(
            Role::Resolver,
            |clients, address: SocketAddr| async move {
                let settings = dns::Settings::new(&[address], dns::Mode::TrustAd);
                let grants = resolver::Grants { settings, clients: clients.acceptors() };
                resolver::run(grants).await.expect("a name server to ask");
            },
            address,
        );
    }

    fn start_keyholder(&mut self) {
        keyholder::draw_first_random().expect("random numbers");
        let slice: slice::Keyholder = serde_json::from_str(
            r#"{"hostname": "localhost", "self_signed": ["localhost"], "edges": {
                "smtpd-mx": ["localhost"], "smtpd-submission": ["localhost"],
                "imapd-front": ["localhost"], "httpd-web": ["localhost"],
                "httpd-admin": ["localhost"]}}"#,
        )
        .expect("a slice");
        let state = (slice, self.folder("keys"), self.control(Role::Keyholder), self.clock.clone());
        self.serve(
            Role::Keyholder,
            |clients, (slice, folder, control, clock)| async move {
                let listener = UnixListener::bind(control).expect("a control socket");
                let uids = vec![rustix::process::getuid().as_raw()];
                let grants = keyholder::Grants {
                    slice,
                    folder,
                    files: keyholder::GivenFiles::default(),
                    control: Some(keyholder::Control { listener, uids }),
                    clients: clients.acceptors(),
                    clock: Arc::new(clock),
                    figures: Figures::detached(),
                    workers: Workers::Threads,
                };
                keyholder::run(grants).await.expect("keyholder runs");
            },
            state,
        );
    }

    /// accountd; tells when its account is there.
    fn start_accountd(&mut self) -> std::sync::mpsc::Receiver<()> {
        let slice: slice::Accountd = serde_json::from_str(&format!(
            r#"{{"hostname": "localhost", "imap_sessions": 1,
                "clear_text_logins": ["test/submission", "test/imap"],
                "seed": {{"account": "mox", "address": "{LOGIN}", "password": "{PASSWORD}",
                    "admin_password": "{ADMIN_PASSWORD}"}}}}"#
        ))
        .expect("a slice");
        let to =
            [Role::Parser, Role::Keyholder, Role::Resolver].map(|to| self.wire(Role::Accountd, to));
        let (tell, told) = std::sync::mpsc::channel();
        let state = (slice, self.folder("accountd"), to, self.clock.clone(), tell);
        let control = self.control(Role::Accountd);
        self.serve(
            Role::Accountd,
            |clients, (slice, folder, to, clock, tell)| async move {
                let [parser, keyholder, resolver] =
                    to.map(|fd| Dialer::from_connector(fd).expect("a socket"));
                let listener = UnixListener::bind(control).expect("a control socket");
                let begin = Instant::now();
                let boot = clock.clone();
                let grants = accountd::Grants {
                    slice,
                    folder,
                    disk: Arc::new(RealDisk),
                    clock: Arc::new(clock),
                    boot_clock: Rc::new(move || begin.elapsed() + boot.shift()),
                    parsers: vec![parser],
                    resolver,
                    keyholder,
                    clients: clients.acceptors(),
                    control: Some((listener, Rc::new(|_| true))),
                    fatal: Arc::new(|what: &str| panic!("accountd's disk: {what}")),
                    announce: Rc::new(move || {
                        let _ = tell.send(());
                    }),
                    workers: Workers::Threads,
                };
                let ended = accountd::run(grants, std::future::pending()).await;
                panic!("accountd ended: {ended:?}");
            },
            state,
        );
        told
    }
}

/// A name server for which no name exists: the question comes back as NXDOMAIN (RFC 1035 §4.1.1).
fn nothing_exists(server: &UdpSocket) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = server.recv_from(&mut buffer) {
        let Some(labels) = buffer.get(12..length).and_then(|q| q.iter().position(|&b| b == 0))
        else {
            continue;
        };
        let mut answer = buffer[..(12 + labels + 5).min(length)].to_vec();
        answer[2] |= 0x80;
        answer[3] = 0x83;
        answer[6..12].fill(0);
        let _ = server.send_to(&answer, from);
    }
}
