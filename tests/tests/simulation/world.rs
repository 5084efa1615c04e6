//! The tree in one thread: its processes as sets of tasks, their lives and deaths.

use super::{
    chance::Chance,
    ledger::Ledger,
    remote::Remote,
    roles,
    secrets::Secrets,
    trace::Trace,
    wires::{Fate, Wire},
};
use daemon::{Stop, Stopper};
use ipc::{Acceptor, Role};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    future::{Future, poll_fn},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use storage::{Forgetful, Kind};
use tokio::{
    io::{DuplexStream, duplex},
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinError, LocalSet},
    time::{Instant, sleep},
};
use types::{Clock, UnixNanos};

/// Clients of one process that may wait to be wired.
const CLIENTS: usize = 64;
/// What one direction of a connection from outside holds.
const SOCKET: usize = 64 * 1024;
/// After this nothing of a dead process is left: longer than a message is held up.
const LET_GO: Duration = Duration::from_secs(30);
/// The wall clock when a run begins.
const BEGIN: UnixNanos = UnixNanos::from_seconds(1_790_000_000);
/// The boot clock then.
const UP: Duration = Duration::from_secs(1_000);

/// A process of the tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who {
    pub(super) role: Role,
    pub(super) instance: u16,
}

impl Who {
    pub(super) const fn the(role: Role) -> Self {
        Self { role, instance: 0 }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.instance == 0 {
            write!(f, "{}", self.role)
        } else {
            write!(f, "{}.{}", self.role, self.instance)
        }
    }
}

/// The time of the simulation: that of its runtime, which jumps when nothing is to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct SimClock(Instant);

impl SimClock {
    pub(super) fn passed(&self) -> Duration {
        self.0.elapsed()
    }

    pub(super) fn since_boot(&self) -> Duration {
        UP + self.passed()
    }
}

impl Clock for SimClock {
    fn now(&self) -> UnixNanos {
        BEGIN.plus(self.passed())
    }

    fn monotonic(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

/// How much goes wrong: so many times of ten thousand messages.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// A message is held up for milliseconds.
    pub(super) slow: u64,
    /// For seconds.
    pub(super) stuck: u64,
    /// Its connection breaks.
    pub(super) breaks: u64,
    /// A process dies.
    pub(super) deaths: u64,
    /// Of ten thousand answers right behind a commit: nobody hears it.
    pub(super) unheard: u64,
    /// Of ten thousand turns in which a process committed: it dies before it says anything.
    pub(super) commits: u64,
}

/// A connection from outside.
pub(super) struct Visit {
    pub(super) stream: DuplexStream,
    pub(super) peer: SocketAddr,
}

/// One life of a process.
struct Life {
    abort: AbortHandle,
    stopper: Stopper,
    clients: mpsc::Sender<Acceptor>,
    visits: mpsc::Sender<Visit>,
}

/// What a life is made of.
pub(super) struct Birth {
    pub(super) acceptors: mpsc::Receiver<Acceptor>,
    pub(super) visits: mpsc::Receiver<Visit>,
    pub(super) stop: Stop,
}

/// A process's own code, to be polled inside its own set of tasks.
pub(super) type Main = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// All of it.
pub(super) struct World {
    pub(super) folder: PathBuf,
    pub(super) clock: Arc<SimClock>,
    pub(super) remote: Remote,
    pub(super) ledger: RefCell<Ledger>,
    pub(super) secrets: RefCell<Secrets>,
    /// Those whose disk has no room now.
    pub(super) full: RefCell<BTreeSet<Role>>,
    /// Connections to the remote server that nobody has taken yet.
    pub(super) outside: RefCell<VecDeque<DuplexStream>>,
    pub(super) arrival: Notify,
    chance: RefCell<Chance>,
    trace: RefCell<Trace>,
    faults: Cell<Faults>,
    wrongs: RefCell<Vec<String>>,
    disks: BTreeMap<Role, Forgetful>,
    lives: RefCell<BTreeMap<Who, Life>>,
    wires: Vec<Rc<Wire>>,
    over: Cell<bool>,
    /// Is not started again before it may.
    held: RefCell<BTreeSet<Who>>,
    /// Died before its last words were written.
    mute: RefCell<BTreeSet<Who>>,
    deaths: Cell<u32>,
    breaks: Cell<u32>,
    parser_faults: Cell<u32>,
}

impl World {
    /// Over a folder with a subfolder for each role that has one.
    pub(super) fn new(folder: &Path, seed: u64) -> std::io::Result<Rc<Self>> {
        let mut disks = BTreeMap::new();
        for role in [Role::Accountd, Role::QueueRunner] {
            disks.insert(role, Forgetful::over(&folder.join(role.to_string()))?);
        }
        Ok(Rc::new(Self {
            folder: folder.to_owned(),
            clock: Arc::new(SimClock(Instant::now())),
            remote: Remote::default(),
            ledger: RefCell::default(),
            secrets: RefCell::default(),
            full: RefCell::default(),
            outside: RefCell::default(),
            arrival: Notify::new(),
            chance: RefCell::new(Chance::new(seed)),
            trace: RefCell::new(Trace::new()),
            faults: Cell::default(),
            wrongs: RefCell::default(),
            disks,
            lives: RefCell::default(),
            wires: roles::EDGES.iter().map(|&(client, server)| Wire::new(client, server)).collect(),
            over: Cell::new(false),
            held: RefCell::default(),
            mute: RefCell::default(),
            deaths: Cell::new(0),
            breaks: Cell::new(0),
            parser_faults: Cell::new(0),
        }))
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.chance.borrow_mut().below(bound)
    }

    /// A time between nothing and `most`.
    pub(super) fn up_to(&self, most: Duration) -> Duration {
        let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.below(millis.saturating_add(1)))
    }

    pub(super) fn note(&self, what: &str) {
        self.trace.borrow_mut().note(self.clock.passed(), what);
    }

    /// Something that must not be.
    pub(super) fn wrong(&self, what: String) {
        self.note(&format!("WRONG: {what}"));
        self.wrongs.borrow_mut().push(what);
    }

    pub(super) fn wrongs(&self) -> Vec<String> {
        self.wrongs.borrow().clone()
    }

    pub(super) fn trace(&self) -> std::cell::Ref<'_, Trace> {
        self.trace.borrow()
    }

    /// How often a job of a parser may have come to nothing.
    pub(super) fn parser_faults(&self) -> u32 {
        self.parser_faults.get()
    }

    pub(super) fn deaths(&self) -> u32 {
        self.deaths.get()
    }

    /// Whether a message on its way to another server may have been sent twice for a good reason.
    pub(super) fn was_rough(&self) -> bool {
        self.deaths.get() + self.breaks.get() > 0
    }

    /// The other server has kept an answer to itself.
    pub(super) fn remote_was_rude(&self) {
        self.breaks.set(self.breaks.get() + 1);
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.faults.set(faults);
    }

    pub(super) fn disk(&self, role: Role) -> Forgetful {
        self.disks.get(&role).expect("the roles with a disk are fixed").clone()
    }

    pub(super) fn own_folder(&self, role: Role) -> PathBuf {
        self.folder.join(role.to_string())
    }

    /// How often a process has made something durable.
    pub(super) fn commits(&self, who: Who) -> u64 {
        let disk = self.disks.get(&who.role);
        disk.and_then(|disk| disk.syncs().get(&Kind::Journal).copied()).unwrap_or(0)
    }

    /// Whether what is left of its words was never said.
    pub(super) fn is_mute(&self, who: Who) -> bool {
        self.mute.borrow().contains(&who)
    }

    /// A process that has committed in its last turn may have died right behind it.
    fn behind_commits(&self, who: Who) {
        if self.below(10_000) < self.faults.get().commits {
            self.note(&format!("{who} has committed, and tells nobody"));
            self.mute.borrow_mut().insert(who);
            self.kill(who);
        }
    }

    /// What becomes of the next message, which may be the answer to something that was committed.
    pub(super) fn fate(&self, from: Who, to: Who, is_behind_commit: bool) -> Fate {
        let Faults { slow, stuck, breaks, deaths, unheard, .. } = self.faults.get();
        if slow + stuck + breaks + deaths + unheard == 0 {
            return Fate::Arrives(Duration::ZERO);
        }
        if is_behind_commit && self.below(10_000) < unheard {
            if self.below(2) == 0 {
                return Fate::SenderDies { arrives: false };
            }
            self.breaks.set(self.breaks.get() + 1);
            return Fate::Breaks;
        }
        let mut roll = self.below(10_000);
        for (times, kind) in [(slow, 0), (stuck, 1), (breaks, 2), (deaths, 3)] {
            if roll >= times {
                roll -= times;
                continue;
            }
            if kind > 0 && [from.role, to.role].contains(&Role::Parser) {
                self.parser_faults.set(self.parser_faults.get() + 1);
            }
            return match kind {
                0 => Fate::Arrives(self.up_to(Duration::from_millis(30))),
                1 => Fate::Arrives(self.up_to(Duration::from_secs(20))),
                2 => {
                    self.breaks.set(self.breaks.get() + 1);
                    Fate::Breaks
                }
                _ => {
                    let arrives = self.below(2) == 0;
                    if self.below(2) == 0 {
                        Fate::SenderDies { arrives }
                    } else {
                        Fate::ReceiverDies { arrives }
                    }
                }
            };
        }
        Fate::Arrives(Duration::ZERO)
    }

    /// The dialer of a client for a new life of it.
    pub(super) fn dialer(self: &Rc<Self>, client: Who, server: Who) -> ipc::Dialer {
        let wire = self.wires.iter().find(|w| (w.client, w.server) == (client, server));
        wire.expect("every edge that a role asks for is in EDGES").attach(self)
    }

    /// Starts every process, servers before their clients.
    pub(super) fn start_all(self: &Rc<Self>) {
        for who in roles::PROCESSES {
            self.start(who);
        }
    }

    fn start(self: &Rc<Self>, who: Who) {
        self.note(&format!("{who} starts"));
        let (clients, acceptors) = mpsc::channel(CLIENTS);
        let (visits_in, visits) = mpsc::channel(CLIENTS);
        let (stopper, stop) = Stop::new();
        let main = roles::main(self, who, Birth { acceptors, visits, stop });
        self.mute.borrow_mut().remove(&who);
        let world = Rc::clone(self);
        let task = tokio::task::spawn_local(async move {
            // Its tasks are its own: they end with it, whatever they do.
            let own = LocalSet::new();
            let mut life = pin!(own.run_until(main));
            let mut commits = world.commits(who);
            poll_fn(|context| {
                let polled = life.as_mut().poll(context);
                let before = std::mem::replace(&mut commits, world.commits(who));
                if polled.is_pending() && commits > before {
                    world.behind_commits(who);
                }
                polled
            })
            .await
        });
        let abort = task.abort_handle();
        let life = Life { abort, stopper, clients, visits: visits_in };
        for wire in self.wires.iter().filter(|wire| wire.server == who) {
            let (dialer, acceptor) = ipc::memory_edge(wire.client.role, wire.client.instance);
            // There is room: an edge is wired once a life.
            let _ = life.clients.try_send(acceptor);
            wire.renew(Some(dialer));
        }
        self.lives.borrow_mut().insert(who, life);
        let world = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let ended = task.await;
            world.ended(who, ended).await;
        });
    }

    /// As SIGKILL: nothing of it runs any more.
    pub(super) fn kill(&self, who: Who) {
        if let Some(life) = self.lives.borrow().get(&who) {
            self.note(&format!("{who} is killed"));
            self.deaths.set(self.deaths.get() + 1);
            life.abort.abort();
        }
    }

    /// Buries a process, and after a while starts it again.
    async fn ended(self: &Rc<Self>, who: Who, how: Result<anyhow::Result<()>, JoinError>) {
        self.lives.borrow_mut().remove(&who);
        for wire in self.wires.iter().filter(|wire| wire.server == who) {
            wire.renew(None);
        }
        let killed = match how {
            Ok(Ok(())) => false,
            // It comes again, and by then there may be room.
            Ok(Err(error)) if self.full.borrow().contains(&who.role) => {
                self.note(&format!("{who} has no room: {error:#}"));
                false
            }
            Ok(Err(error)) => {
                self.wrong(format!("{who} failed: {error:#}"));
                false
            }
            Err(error) if error.is_cancelled() => true,
            Err(error) => {
                self.wrong(format!("{who} panicked: {error}"));
                false
            }
        };
        self.note(&format!("{who} ended, killed {killed}"));
        if let Some(disk) = self.disks.get(&who.role) {
            if disk.open_files() > 0 {
                self.wrong(format!("{who} left {} files open", disk.open_files()));
            } else if killed && self.below(2) == 0 {
                // The power went, too.
                let seed = self.below(1 << 30);
                self.note(&format!("{who} loses what it did not sync, {}", seed % 3));
                if let Err(error) = disk.cut(seed) {
                    self.wrong(format!("the disk of {who}: {error}"));
                }
            }
        }
        for wire in self.wires.iter().filter(|wire| wire.client == who) {
            let (world, life, server) = (Rc::clone(self), wire.life(), wire.server);
            tokio::task::spawn_local(async move {
                sleep(LET_GO).await;
                if life.strong_count() > 0 {
                    world.wrong(format!("{who} is dead and holds its edge to {server}"));
                }
            });
        }
        if self.over.get() {
            return;
        }
        sleep(self.up_to(Duration::from_secs(4))).await;
        while self.held.borrow().contains(&who) {
            sleep(Duration::from_secs(1)).await;
        }
        if !self.over.get() {
            self.start(who);
        }
    }

    /// Ends a process for a while.
    pub(super) async fn hold(&self, who: Who) {
        self.held.borrow_mut().insert(who);
        self.kill(who);
        while self.lives.borrow().contains_key(&who) {
            tokio::task::yield_now().await;
        }
    }

    /// The while is over.
    pub(super) async fn let_go(&self, who: Who) {
        self.held.borrow_mut().remove(&who);
        while !self.lives.borrow().contains_key(&who) {
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// A connection from outside; None while the process is away.
    pub(super) fn visit(&self, role: Role, peer: SocketAddr) -> Option<DuplexStream> {
        let lives = self.lives.borrow();
        let life = lives.get(&Who::the(role))?;
        let (near, far) = duplex(SOCKET);
        life.visits.try_send(Visit { stream: far, peer }).ok()?;
        Some(near)
    }

    /// Ends all of it in order, clients before their servers.
    pub(super) async fn end(self: &Rc<Self>) {
        self.over.set(true);
        for who in roles::PROCESSES.into_iter().rev() {
            let told = self.lives.borrow().get(&who).map(|life| {
                life.stopper.drain(Duration::from_secs(5));
            });
            if told.is_none() {
                continue;
            }
            for _ in 0..60 {
                if !self.lives.borrow().contains_key(&who) {
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
            if let Some(life) = self.lives.borrow().get(&who) {
                self.wrong(format!("{who} does not stop"));
                life.abort.abort();
            }
        }
        sleep(LET_GO * 2).await;
    }
}
