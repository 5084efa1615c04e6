//! The processes: which there are, how each is, who is wired to whom, who is started when.
//!
//! Everything happens in answer to an event, a timer or an order, in one task; nothing here waits.
//! Start order needs no list of its own: a process is started when every process it asks has been
//! ready once (or has failed so often that waiting for it would keep the rest of the house dark).

use std::{
    collections::{BTreeMap, btree_map::Entry},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use config::{Level, Static};
use daemon::supervision::{Gift, Message, Report, Start};
use ipc::Role;
use sandbox::process::Exit;
use tokio::sync::mpsc;

use crate::{
    backoff::{Backoff, Life},
    binaries::Binaries,
    child::{Child, Event, Recipe, What},
    identity::Identities,
    layout::Layout,
    logs::Logs,
    ports::Ports,
    required,
    wires::Held,
};

/// How long a process may drain.
const DRAIN: Duration = Duration::from_secs(10);
/// How long one may whose clients have ended, or that holds nothing longer than a question.
const SHORT_DRAIN: Duration = Duration::from_secs(1);
/// What is left a moment after that is killed.
const GRACE: Duration = Duration::from_secs(1);
/// Silence that raises an alarm. Nobody is killed for it: a process that is slow is not dead.
const SILENCE: Duration = Duration::from_secs(30);
/// Faults of a server after which its clients are started without it.
const GIVEN_UP_WAITING: u32 = 3;
/// How often sizes of log files and heartbeats are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Role and instance.
pub(crate) type Key = (Role, u16);

/// What the tree stands on.
pub(crate) struct Ground {
    pub(crate) settings: Static,
    pub(crate) identities: Identities,
    pub(crate) layout: Layout,
    pub(crate) ports: Ports,
    pub(crate) binaries: Binaries,
    pub(crate) logs: Logs,
}

/// One process through all its lives.
pub(crate) struct Slot {
    pub(crate) figures: OwnedFd,
    pub(crate) backoff: Backoff,
    pub(crate) lives: u32,
    pub(crate) ever_ready: bool,
    pub(crate) last_end: Option<Exit>,
    start_at: Option<Instant>,
    pub(crate) now: Option<Running>,
}

/// One life.
pub(crate) struct Running {
    pub(crate) life: u64,
    pub(crate) child: Child,
    pub(crate) since: Instant,
    pub(crate) ready: Option<Instant>,
    pub(crate) layers: u32,
    pub(crate) heard: Instant,
    alarmed: bool,
    planned: bool,
    pub(crate) kill_at: Option<Instant>,
    /// Ends of connectors for its peers: they get them when it serves.
    held: Vec<Held>,
}

/// What the tree is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Running,
    /// Draining, group by group of [`crate::ending`].
    Stopping(usize),
    Down,
}

/// All processes.
pub(crate) struct Tree {
    pub(crate) ground: Ground,
    pub(crate) slots: BTreeMap<Key, Slot>,
    events: mpsc::Sender<Event>,
    lives: u64,
    pub(crate) mode: Mode,
    /// Whether all processes have served at once.
    pub(crate) was_whole: bool,
    /// Why it must not go on: a wall that is required is missing before it has ever served.
    pub(crate) refused: Option<String>,
    next_look: Instant,
}

impl Tree {
    pub(crate) fn new(ground: Ground, events: mpsc::Sender<Event>) -> anyhow::Result<Self> {
        let mut tree = Self {
            ground,
            slots: BTreeMap::new(),
            events,
            lives: 0,
            mode: Mode::Running,
            was_whole: false,
            refused: None,
            next_look: Instant::now() + LOOK,
        };
        tree.make_slots()?;
        Ok(tree)
    }

    /// Makes the slots that the settings call for and are not there; those no longer called for are
    /// drained and go when they have ended.
    pub(crate) fn make_slots(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        for role in Role::ALL {
            for instance in 0..self.instances(role) {
                if let Entry::Vacant(free) = self.slots.entry((role, instance)) {
                    let name = daemon::process_name(role, instance);
                    free.insert(Slot {
                        figures: sandbox::figures::create(&name)?,
                        backoff: Backoff::default(),
                        lives: 0,
                        ever_ready: false,
                        last_end: None,
                        start_at: Some(now),
                        now: None,
                    });
                }
            }
        }
        let surplus: Vec<Key> =
            self.slots.keys().filter(|(role, n)| *n >= self.instances(*role)).copied().collect();
        for key in surplus {
            self.drain(key);
        }
        Ok(())
    }

    /// How many processes a role has.
    pub(crate) fn instances(&self, role: Role) -> u16 {
        let serves = |role| self.ground.ports.of(role).next().is_some();
        match role {
            Role::Parser => self.ground.settings.parsers,
            Role::ImapdSession if serves(Role::ImapdFront) => self.ground.settings.imap_sessions,
            Role::ImapdSession => 0,
            Role::SmtpdMx
            | Role::SmtpdSubmission
            | Role::ImapdFront
            | Role::HttpdWeb
            | Role::HttpdAdmin => u16::from(serves(role)),
            Role::Resolver
            | Role::Keyholder
            | Role::Outbound
            | Role::Accountd
            | Role::QueueRunner => 1,
        }
    }

    /// Whether all processes serve.
    pub(crate) fn is_whole(&self) -> bool {
        self.slots.values().all(|slot| slot.now.as_ref().is_some_and(|now| now.ready.is_some()))
    }

    /// Whether any process of a role runs.
    pub(crate) fn runs(&self, role: Role) -> bool {
        self.slots.iter().any(|(key, slot)| key.0 == role && slot.now.is_some())
    }

    /// Whether it has ended for good.
    pub(crate) fn is_down(&self) -> bool {
        self.mode == Mode::Down
    }

    /// When there is something to do without an event.
    pub(crate) fn next_due(&self) -> Instant {
        let starts = self.slots.values().filter(|slot| slot.now.is_none());
        let starts = starts.filter_map(|slot| slot.start_at);
        let kills = self.slots.values().filter_map(|slot| slot.now.as_ref()?.kill_at);
        let now = Instant::now();
        // A start that waits for its servers is due at their events, not at once again.
        let starts = starts.filter(|at| *at > now);
        starts.chain(kills).chain([self.next_look]).min().unwrap_or(self.next_look)
    }

    /// Does what is due.
    pub(crate) fn advance(&mut self) {
        let now = Instant::now();
        for (key, slot) in &mut self.slots {
            if let Some(running) =
                slot.now.as_mut().filter(|r| r.kill_at.is_some_and(|at| at <= now))
            {
                running.kill_at = None;
                tracing::warn!(process = %name(*key), "did not end in time, killed");
                running.child.kill();
            }
        }
        if self.mode == Mode::Running {
            for role in Role::ALL {
                for instance in 0..self.instances(role) {
                    let key = (role, instance);
                    let slot = &self.slots[&key];
                    let due = slot.now.is_none() && slot.start_at.is_some_and(|at| at <= now);
                    if due && self.may_start(role) {
                        self.start(key);
                    }
                }
            }
        }
        if self.next_look <= now {
            self.next_look = now + LOOK;
            self.look(now);
        }
    }

    fn may_start(&self, role: Role) -> bool {
        role.asks().all(|edge| {
            self.slots
                .iter()
                .filter(|((server, _), _)| *server == edge.server)
                .all(|(_, slot)| slot.ever_ready || slot.backoff.faults() >= GIVEN_UP_WAITING)
        })
    }

    fn start(&mut self, key: Key) {
        self.lives += 1;
        let life = self.lives;
        let started = self.try_start(key, life);
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.lives = slot.lives.saturating_add(1);
        slot.start_at = None;
        if let Err(error) = started {
            tracing::error!(process = %name(key), error = format!("{error:#}"), "was not started");
            slot.now = None;
            slot.start_at = Some(slot.backoff.next(Life::Stillborn, false, Instant::now()));
        }
    }

    fn try_start(&mut self, key: Key, life: u64) -> anyhow::Result<()> {
        let (role, instance) = key;
        let ground = &self.ground;
        let binary = ground.binaries.path(role);
        let recipe = Recipe {
            role,
            binary: &binary,
            identity: ground.identities.given(role),
            log: ground.logs.stream(role).unwrap_or_else(|error| {
                // A journal that restarts must not keep the mail waiting.
                tracing::error!(%role, %error, "no log stream, it logs to ours");
                std::process::Stdio::inherit()
            }),
        };
        let slice = ground.settings.slice(role.name()).expect("every role has a slice");
        let slice = sandbox::memfd::sealed("slice", &slice)?;
        let figures = self.slots[&key].figures.try_clone()?;
        let gifts = self.gifts(key)?;
        let (ends, peers) = self.connectors(key)?;
        // Who serves the new process hears of it at once: it may need to ask before it serves. Its
        // own clients wait until it does.
        let (at_once, held): (Vec<Held>, Vec<Held>) =
            peers.into_iter().partition(|held| matches!(held.gift, Gift::FromClient(..)));
        let start = Start {
            role,
            instance,
            supervisor: std::process::id(),
            gifts: u16::try_from(gifts.len() + ends.len())?,
            without_root: ground.identities.without_root(),
            trap: false,
            require: required::bits(&ground.settings),
            log: ground.settings.log,
            instances: Role::ALL.into_iter().map(|role| (role, self.instances(role))).collect(),
            own_folder: match ground.layout.own_folder(role) {
                Some(path) => Some(path.into_os_string().into_string().map_err(|path| {
                    anyhow::anyhow!("the folder {} is not named in UTF-8", path.display())
                })?),
                None => None,
            },
        };
        let child = Child::start(recipe, life, self.events.clone())?;
        tracing::info!(process = %name(key), pid = child.id(), "started");
        let mut told = child.tell(&Message::Start(start), vec![slice, figures]);
        for (gift, descriptor) in gifts.into_iter().chain(ends) {
            told &= child.tell(&Message::Give(gift), vec![descriptor]);
        }
        if !told {
            child.kill();
        }
        self.hand_out(at_once);
        let now = Instant::now();
        let running = Running {
            life,
            child,
            since: now,
            ready: None,
            layers: 0,
            heard: now,
            alarmed: false,
            planned: false,
            kill_at: None,
            held,
        };
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.now = Some(running);
        }
        Ok(())
    }

    /// Something happened to a process.
    pub(crate) fn on_event(&mut self, event: &Event) {
        let found = self.slots.iter_mut().find_map(|(key, slot)| {
            slot.now.as_mut().filter(|running| running.life == event.life).map(|now| (*key, now))
        });
        // What a life says after it was given up concerns nobody.
        let Some((key, running)) = found else { return };
        running.heard = Instant::now();
        if std::mem::take(&mut running.alarmed) {
            tracing::info!(process = %name(key), "answers again");
        }
        match event.what {
            What::Said(Report::Heartbeat(_)) => {}
            What::Said(Report::PlannedEnd) => running.planned = true,
            What::Said(Report::Ready(layers)) => self.on_ready(key, layers),
            What::Nonsense => {
                tracing::error!(process = %name(key), "said what is none of ours, killed");
                running.child.kill();
            }
            What::Ended(exit) => self.on_end(key, exit),
        }
    }

    fn on_ready(&mut self, key: Key, layers: u32) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let Some(running) = slot.now.as_mut() else { return };
        if running.ready.is_some() {
            return;
        }
        running.ready = Some(Instant::now());
        running.layers = layers;
        slot.ever_ready = true;
        tracing::info!(process = %name(key), "ready");
        let held = std::mem::take(&mut running.held);
        self.hand_out(held);
    }

    /// Gives peers their ends of connectors.
    fn hand_out(&self, held: Vec<Held>) {
        for Held { peer, life, gift, descriptor } in held {
            let peer_now = self.slots.get(&peer).and_then(|slot| slot.now.as_ref());
            // A peer that was restarted meanwhile has made a connector of its own.
            if let Some(peer_now) = peer_now.filter(|now| now.life == life)
                && !peer_now.child.tell(&Message::Give(gift), vec![descriptor])
            {
                tracing::error!(process = %name(peer), "does not read what it is told, killed");
                peer_now.child.kill();
            }
        }
    }

    fn on_end(&mut self, key: Key, exit: Exit) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let Some(running) = slot.now.take() else { return };
        let now = Instant::now();
        let life = match (running.planned, running.ready) {
            (true, _) => Life::Planned,
            (false, Some(ready)) => Life::Served(now - ready),
            (false, None) => Life::Stillborn,
        };
        slot.last_end = Some(exit);
        let process = name(key);
        // From one that serves, or served, the same number is any other end.
        let lacks = match exit {
            Exit::Code(code) if life == Life::Stillborn => daemon::missing_layer(code),
            Exit::Code(_) | Exit::Signal(_) => None,
        };
        if let Some(layer) = lacks.filter(|layer| required::names(&self.ground.settings, *layer)) {
            let why = required::refusal(key, layer);
            tracing::error!("{why}");
            if !self.was_whole {
                self.refused = Some(why);
            }
        }
        match exit {
            Exit::Signal(31) => {
                tracing::error!(%process, pid = running.child.id(), "was killed for a system call outside its profile; the kernel's audit log names it");
            }
            Exit::Code(0) if life == Life::Planned => tracing::debug!(%process, "ended as planned"),
            Exit::Code(code) => tracing::warn!(%process, code, "ended"),
            Exit::Signal(signal) => tracing::warn!(%process, signal, "was ended by a signal"),
        }
        let hand = key.0 == Role::Parser;
        slot.start_at = Some(slot.backoff.next(life, hand, now));
        if key.1 >= self.instances(key.0) {
            self.slots.remove(&key);
        }
        self.go_down_further();
    }

    /// Tells a process to drain; its end is then planned.
    pub(crate) fn drain(&mut self, key: Key) {
        let Some(running) = self.slots.get_mut(&key).and_then(|slot| slot.now.as_mut()) else {
            return;
        };
        running.planned = true;
        let short = match key.0 {
            Role::Resolver | Role::Keyholder => true,
            Role::Parser | Role::Outbound => self.mode != Mode::Running,
            Role::Accountd
            | Role::QueueRunner
            | Role::ImapdSession
            | Role::ImapdFront
            | Role::SmtpdMx
            | Role::SmtpdSubmission
            | Role::HttpdWeb
            | Role::HttpdAdmin => false,
        };
        let time = if short { SHORT_DRAIN } else { DRAIN };
        let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        if running.child.tell(&Message::Drain(millis), Vec::new()) {
            running.kill_at = Some(Instant::now() + time + GRACE);
        } else {
            running.child.kill();
        }
    }

    /// Drains all processes of a role; they are started again when they have ended.
    pub(crate) fn restart(&mut self, role: Role) {
        let keys: Vec<Key> = self.slots.keys().filter(|key| key.0 == role).copied().collect();
        for key in keys {
            self.drain(key);
        }
    }

    /// Changes what a role, or everyone, logs.
    pub(crate) fn log_level(&mut self, role: Option<Role>, level: Level) {
        for (key, slot) in &self.slots {
            let Some(now) = slot.now.as_ref().filter(|_| role.is_none_or(|r| r == key.0)) else {
                continue;
            };
            now.child.tell(&Message::LogLevel(level), Vec::new());
        }
        if role.is_none() {
            self.ground.settings.log.level = level;
        }
    }

    /// Looks at heartbeats and log files.
    fn look(&mut self, now: Instant) {
        for (key, slot) in &mut self.slots {
            let Some(running) = slot.now.as_mut() else { continue };
            if !running.alarmed && now.duration_since(running.heard) >= SILENCE {
                running.alarmed = true;
                let seconds = now.duration_since(running.heard).as_secs();
                tracing::error!(process = %name(*key), seconds, "has not been heard of");
            }
        }
        for role in Role::ALL {
            match self.ground.logs.next_file(role) {
                Ok(None) => {}
                Ok(Some(file)) => self.give_log_file(role, &file),
                Err(error) => tracing::error!(%role, %error, "the log file was not put aside"),
            }
        }
    }

    fn give_log_file(&self, role: Role, file: &OwnedFd) {
        let of_role = self.slots.iter().filter(|(key, _)| key.0 == role);
        for running in of_role.filter_map(|(_, slot)| slot.now.as_ref()) {
            match file.try_clone() {
                Ok(file) => drop(running.child.tell(&Message::LogFile, vec![file])),
                Err(error) => tracing::error!(%role, %error, "the next log file"),
            }
        }
    }
}

/// The name of a process in logs and tables.
pub(crate) fn name((role, instance): Key) -> String {
    daemon::process_name(role, instance)
}
