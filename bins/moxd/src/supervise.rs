//! The supervisor's life: build the ground, start the tree, then answer events, signals and orders
//! until it ends or becomes another build.

use std::{
    os::fd::OwnedFd,
    path::Path,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use daemon::orders::Order;
use ipc::Role;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
};

use crate::{
    binaries::{self, Binaries},
    check::Check,
    control::{Answer, take_orders},
    handover::{self, Handed, Way},
    identity::Identities,
    layout::Layout,
    logs::Logs,
    notify::{Notify, listen_fds},
    ports::Ports,
    reload::Reloads,
    source::Source,
    table,
    tree::{Ground, Mode, Tree},
    trial,
};

/// Events that wait to be answered.
const EVENTS: usize = 1024;
/// How long the tree of a new build may take to serve before the old one is called back.
const NEW_TREE: Duration = Duration::from_secs(30);

/// Open files of one process; the largest limit of any profile is below it.
const OPEN_FILES: u64 = 131_072;

/// How we are run.
pub(crate) struct Run<'a> {
    pub(crate) source: Source,
    /// Where control sockets go.
    pub(crate) run_folder: &'a Path,
    pub(crate) development: bool,
    /// End when everything has served once.
    pub(crate) init_only: bool,
    /// Called when everything serves for the first time.
    pub(crate) on_whole: &'a dyn Fn(&Ports),
}

/// How it ended.
enum End {
    Stopped,
    Upgrade,
    CallOldBack,
    /// A wall that is required is missing.
    Refused(String),
}

/// Runs to the end; comes back only for good.
pub(crate) fn run(run: &Run<'_>) -> anyhow::Result<()> {
    let mut handed = handover::receive()?;
    let activated = if handed.is_none() { listen_fds()? } else { Vec::new() };
    let our_path = binaries::our_file()?;
    let our_binary = OwnedFd::from(std::fs::File::open(&our_path).context("open our own file")?);
    let mut settings = run.source.load()?;
    let identities = Identities::find(settings.uid_base)?;
    settings.control_uids = identities.admins();
    // Ports first: if another server has them, nothing else should have happened.
    let mut ports = match handed.as_mut() {
        Some(handed) => Ports::inherited(std::mem::take(&mut handed.ports)),
        None => Ports::activated(activated)?,
    };
    ports.apply(&settings, run.source.missing())?;
    let layout = Layout::prepare(&settings.data_dir, run.run_folder, &identities)?;
    ports.control(&layout.control, &identities)?;
    // Called back, we run the roles we had; else those that are installed now.
    let held = handed.as_mut().filter(|handed| handed.back);
    let role_binaries = match held.map(|handed| std::mem::take(&mut handed.binaries)) {
        Some(held) => Binaries::inherited(held),
        None => Binaries::open(&our_path)?,
    };
    raise_open_files();
    shed_rights(&identities);
    if identities.without_root() {
        tracing::warn!("not started by root: all processes share one uid, one wall less");
    }
    if run.development {
        settings.data_dir.clone_from(&layout.data);
    }
    let logs = if run.development { Logs::Inherit } else { Logs::of_service(&layout.log) };
    let ground = Ground { settings, identities, layout, ports, binaries: role_binaries, logs };

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    // From here on a signal is an order and no end.
    let mut signals = local.block_on(&runtime, async { Signals::new() })?;
    // Only here: who takes over a server that runs must not end it for a file.
    if handed.is_none() && !local.block_on(&runtime, are_files_sound(&ground, &mut signals))? {
        return Ok(());
    }
    let fresh = handed.as_ref().is_some_and(|handed| !handed.back);
    let (end, ground) = local.block_on(&runtime, live(run, ground, signals, fresh, &our_path))?;
    let error = match (end, &handed) {
        (End::Stopped, _) => return Ok(()),
        (End::Refused(why), _) => anyhow::bail!(why),
        (End::Upgrade, _) | (End::CallOldBack, None) => {
            let way = Way::Forth(&our_path);
            let error = handover::exec(&way, &ground.ports, &ground.binaries, &our_binary);
            tracing::error!(%error, "the installed build cannot be run, this one goes on");
            let way = Way::Back(&our_binary);
            handover::exec(&way, &ground.ports, &ground.binaries, &our_binary)
        }
        (End::CallOldBack, Some(Handed { moxd, binaries, .. })) => {
            let copies = binaries.iter().map(|(name, file)| Ok((name.clone(), file.try_clone()?)));
            let old = copies.collect::<std::io::Result<_>>().map(Binaries::inherited)?;
            handover::exec(&Way::Back(moxd), &ground.ports, &old, moxd)
        }
    };
    Err(error).context("become another build")
}

/// Processes set their own limits on open files, below ours: so ours is raised as far as it goes.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let set = |limit| setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit });
    let wanted = now.maximum.map(|hard| hard.max(OPEN_FILES));
    // Only root may raise the hard limit.
    if let Err(error) = set(wanted).or_else(|_| set(now.maximum)) {
        tracing::warn!(%error, "the limit of open files");
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < OPEN_FILES) {
        tracing::warn!(limit, wanted = OPEN_FILES, "few open files: fewer connections at once");
    }
}

/// What we ourselves no longer need, once everything is bound and opened.
fn shed_rights(identities: &Identities) {
    use caps::Capability as C;
    if let Err(error) = sandbox::process::forbid_new_privileges() {
        tracing::error!(%error, "no_new_privs");
    }
    if identities.without_root() {
        return;
    }
    // For restarts (uids, and emptying this very set in the child), reloads (ports, folders, key files
    // of the administrator), killing.
    let keep = [
        C::CAP_SETUID,
        C::CAP_SETGID,
        C::CAP_SETPCAP,
        C::CAP_KILL,
        C::CAP_NET_BIND_SERVICE,
        C::CAP_CHOWN,
        C::CAP_FOWNER,
        C::CAP_DAC_OVERRIDE,
        C::CAP_DAC_READ_SEARCH,
    ];
    if let Err(error) = sandbox::process::limit_bounding_set(&keep) {
        tracing::debug!(%error, "the bounding set stays as it is");
    }
}

/// Has the administrator's files looked at. False: we are to end before that is done.
async fn are_files_sound(ground: &Ground, signals: &mut Signals) -> anyhow::Result<bool> {
    let mut check = pin!(Check::prepare(ground, &ground.settings)?.run());
    loop {
        tokio::select! {
            found = &mut check => return found.map(|()| true).map_err(anyhow::Error::msg),
            asked = signals.next() => match asked {
                Asked::Stop => return Ok(false),
                // They are being read.
                Asked::Reload => {}
            },
        }
    }
}

async fn live(
    run: &Run<'_>,
    ground: Ground,
    mut signals: Signals,
    fresh: bool,
    our_path: &Path,
) -> anyhow::Result<(End, Ground)> {
    let notify = Notify::from_env();
    let (events, mut happened) = mpsc::channel(EVENTS);
    let (orders, mut given) = mpsc::channel(1);
    let socket = ground.ports.ours().context("our control socket")?.try_clone()?;
    let who = Rc::new(ground.identities.clone());
    let taking = tokio::task::spawn_local(take_orders(socket, who, orders));
    let mut tree = Tree::new(ground, events)?;
    let mut whole_by = fresh.then(|| Instant::now() + NEW_TREE);
    let mut reloads = Reloads::new();
    let mut end = End::Stopped;
    let watchdog = notify.watchdog.unwrap_or(Duration::from_secs(60));
    let mut alive = tokio::time::interval(watchdog);
    loop {
        tree.advance();
        if tree.is_down() {
            break;
        }
        if !tree.was_whole && tree.is_whole() {
            (tree.was_whole, whole_by) = (true, None);
            notify.say("READY=1");
            tracing::info!(processes = tree.slots.len(), "everything serves");
            (run.on_whole)(&tree.ground.ports);
            if run.init_only {
                tree.go_down();
            }
        }
        if let Some(why) = tree.refused.take().filter(|_| tree.mode == Mode::Running) {
            whole_by = None;
            end = if fresh { End::CallOldBack } else { End::Refused(why) };
            tree.go_down();
            continue;
        }
        let mut due = tree.next_due();
        if let Some(by) = whole_by {
            due = due.min(by);
            if by <= Instant::now() {
                tracing::error!("the new build does not come to serve: back to the old one");
                (end, whole_by) = (End::CallOldBack, None);
                tree.go_down();
            }
        }
        tokio::select! {
            biased;
            asked = signals.next() => match asked {
                Asked::Stop => stop(&mut tree, &notify),
                Asked::Reload => reloads.ask(None, &tree, &run.source, &notify),
            },
            Some(checked) = reloads.checked() => {
                reloads.finish(checked, &mut tree, &run.source, &notify);
            }
            Some((order, answer)) = given.recv() => {
                if order == Order::Upgrade {
                    if let Err(why) = Binaries::open(our_path) {
                        // Better told now than after everything has drained.
                        let _ = answer.send(Err(format!("nothing to upgrade to: {why:#}")));
                        continue;
                    }
                    end = End::Upgrade;
                }
                if order == Order::Reload {
                    reloads.ask(Some(answer), &tree, &run.source, &notify);
                    continue;
                }
                obey(order, answer, &mut tree, &notify);
            }
            _ = alive.tick(), if notify.watchdog.is_some() => notify.say("WATCHDOG=1"),
            // Below orders: what processes say must never keep the administrator waiting.
            Some(event) = happened.recv() => tree.on_event(&event),
            () = tokio::time::sleep_until(due.into()) => {}
        }
    }
    taking.abort();
    reloads.end().await;
    if matches!(end, End::Stopped) {
        tracing::info!("everything has ended");
    }
    Ok((end, tree.ground))
}

fn stop(tree: &mut Tree, notify: &Notify) {
    tracing::info!("ending");
    notify.say("STOPPING=1");
    tree.go_down();
}

fn obey(order: Order, answer: oneshot::Sender<Answer>, tree: &mut Tree, notify: &Notify) {
    let said: Answer = match order {
        Order::Stop => {
            stop(tree, notify);
            Ok(vec!["draining".to_owned()])
        }
        Order::Upgrade => {
            tree.go_down();
            Ok(vec!["draining, then the installed build takes over".to_owned()])
        }
        Order::Restart(role) => to_running(tree, role, |tree| tree.restart(role)),
        Order::LogLevel(Some(role), level) => {
            to_running(tree, role, |tree| tree.log_level(Some(role), level))
        }
        // Who is started later has it too.
        Order::LogLevel(None, level) => {
            tree.log_level(None, level);
            Ok(Vec::new())
        }
        Order::Processes => Ok(table::processes(tree)),
        Order::Wiring => Ok(table::wiring()),
        Order::Profiles => Ok(table::profiles()),
        Order::Build => Ok(vec![ipc::BuildId::OURS.to_string()]),
        Order::LogFiles if tree.ground.logs == Logs::Journal => {
            Ok(vec![daemon::orders::IN_THE_JOURNAL.to_owned()])
        }
        Order::LogFiles => {
            let files = Role::ALL.into_iter().filter_map(|role| tree.ground.logs.file(role));
            Ok(files.map(|path| path.display().to_string()).collect())
        }
        // It is answered when its files have been looked at: `Reloads`.
        Order::Reload => return,
        Order::ConfineTest(role) => {
            trial::begin(&tree.ground, role, answer);
            return;
        }
    };
    // A client that has gone needs no answer.
    let _ = answer.send(said);
}

/// Does something to the processes of a role that run; says which do not. If none does, it was in
/// vain.
fn to_running(tree: &mut Tree, role: Role, act: impl FnOnce(&mut Tree)) -> Answer {
    let absent = table::absent(tree, role);
    if !tree.runs(role) {
        return Err(absent.join("\n"));
    }
    act(tree);
    Ok(absent)
}

enum Asked {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}
