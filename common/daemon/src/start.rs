//! The frame around every process: from exec to its `run`, and around `run` to the end.
//!
//! The order is that of systems.md §4.1: nothing is opened before the supervision socket, nothing
//! is read from anyone else before the sandbox is closed, no thread runs before it.

use std::{
    collections::BTreeMap, fs::File, future::Future, os::fd::OwnedFd, path::PathBuf, pin::pin,
    process::ExitCode, rc::Rc, time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use ipc::{Acceptor, Dialer, Role};
use sandbox::{
    ConfineError, ConfineOptions, LayerState, Profile,
    channel::{Expect, recv_with_fds},
};
use tokio::sync::mpsc;

use crate::{
    Channel, Figures, Inherited, Listener, LogLevel, PlannedEnd, Ready, Stop, Stopper,
    figures::Count,
    inherited::ToSend,
    logging, panics, required,
    supervision::{Gift, MAX_MESSAGE, MAX_SLICE, Message, Report, START_DESCRIPTORS, Start},
};

/// How often a process says that its event loop runs.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// Acceptors and figures that may wait for `run` to take them.
const WAITING: usize = 256;

/// How a process exits that cannot start from a file an administrator writes (`EX_CONFIG`): the
/// supervisor takes no text from a process, and tells this from other ends by the number.
pub const BAD_FILE: u8 = 78;

/// Such a file is not sound; all that is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadFile(pub String);

/// Reports that may wait for the supervisor to read.
const REPORTS: usize = 64;

/// Runs a process that needs nothing from outside its grants.
///
/// `roles` are those the binary knows, `profile_of` gives each one's walls, `run` is the process.
/// Panics there and errors end the process with a line in the log; the supervisor starts it again.
pub fn start<F>(
    roles: &[Role],
    profile_of: fn(Role) -> &'static Profile,
    run: impl FnOnce(Inherited) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    start_prepared(roles, profile_of, |_, _| Ok(()), |inherited, ()| run(inherited))
}

/// As [`start`], for a process that reads something before its sandbox closes (resolv.conf, the
/// authorities of TLS): `prepare` gets role and slice, what it returns goes to `run`. It must start
/// no thread.
pub fn start_prepared<P, F>(
    roles: &[Role],
    profile_of: fn(Role) -> &'static Profile,
    prepare: impl FnOnce(Role, &[u8]) -> anyhow::Result<P>,
    run: impl FnOnce(Inherited, P) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    // In service this returns at once; as a twin of `moxctl confine test` it never does.
    let profiles: Vec<&Profile> = roles.iter().map(|&role| profile_of(role)).collect();
    sandbox::trial::run_if_twin(&profiles);
    match whole_life(roles, profile_of, prepare, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if tracing::dispatcher::has_been_set() {
                tracing::error!(error = format!("{error:#}"), "ends");
            } else {
                // Descriptor 2 is the log before anything is read, too.
                eprintln!("{}: {error:#}", std::env::args().next().unwrap_or_default());
            }
            error.chain().find_map(number_of).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

/// The code for an end that the supervisor tells from others.
fn number_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<BadFile>() {
        return Some(BAD_FILE);
    }
    let ConfineError::Required { layer, .. } = cause.downcast_ref()? else { return None };
    Some(required::code(*layer))
}

fn whole_life<P, F>(
    roles: &[Role],
    profile_of: fn(Role) -> &'static Profile,
    prepare: impl FnOnce(Role, &[u8]) -> anyhow::Result<P>,
    run: impl FnOnce(Inherited, P) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        bail!("this program is started by moxd, not by hand");
    }
    sandbox::process::close_inherited_from(3).context("close what was inherited")?;
    let socket = sandbox::process::take_supervision_socket().context("take descriptor 0")?;
    let (start, slice, memory) = first_message(&socket)?;
    if !roles.contains(&start.role) {
        bail!("told to be {}, which this binary is not", start.role);
    }
    let name = process_name(start.role, start.instance);
    sandbox::process::set_name(start.role.name()).context("set the name")?;
    let figures = Figures::over(sandbox::figures::map_to_write(&memory).context("map figures")?);
    figures.begin_life();
    let log_level = logging::init(&name, start.log, Some(figures));
    panics::install(figures, start.role == Role::Keyholder);
    let gifts = Gifts::receive(&socket, &start)?;

    let prepared = prepare(start.role, &slice)?;
    let options = ConfineOptions {
        own_folder: start.own_folder.clone().map(PathBuf::from),
        read_only: gifts.read_only_folders.clone(),
        without_root: start.without_root,
        supervisor: Some(start.supervisor),
        breach: if start.trap { sandbox::Breach::Trap } else { sandbox::Breach::Kill },
        require: required::layers_of(start.require),
    };
    let report = sandbox::confine(profile_of(start.role), &options).context("confine")?;
    // From here on nothing outside the profile can be done, and no input is trusted.
    if as_complete_as_can_be(&report, start.without_root) {
        tracing::debug!(%report);
    } else {
        tracing::warn!(%report, "a layer is missing");
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("event loop")?;
    let local = tokio::task::LocalSet::new();
    let served = local.block_on(&runtime, async move {
        let channel = Rc::new(Channel::new(socket).context("supervision channel")?);
        let (reports, to_send) = mpsc::channel(REPORTS);
        let (stopper, stop) = Stop::new();
        let (accepted, acceptors) = mpsc::channel(WAITING);
        let (seen, peer_figures) = mpsc::channel(WAITING);
        let dialers = start.dialers();
        let wiring = Wiring { dialers: dialers.clone(), accepted, seen };
        let ready = Ready::new(layer_bits(&report), reports.clone());
        let inherited = Inherited {
            role: start.role,
            instance: start.instance,
            slice,
            listeners: gifts.listeners,
            files: gifts.files,
            dialers,
            acceptors,
            figures,
            peer_figures,
            own_folder: start.own_folder.map(PathBuf::from),
            read_only_folders: gifts.read_only_folders,
            stop: stop.clone(),
            ready: ready.clone(),
            planned_end: PlannedEnd(reports.clone()),
        };
        for (gift, descriptor) in gifts.wiring {
            wiring.connect(&gift, descriptor);
        }
        tokio::task::spawn_local(tell(Rc::clone(&channel), to_send));
        tokio::task::spawn_local(beat(reports, figures));
        let orders = obey(channel, wiring, stopper, log_level);
        serve(announcing(run(inherited, prepared), ready), orders, stop).await
    });
    // Threads that still run (a blocking job) must not hold the end back.
    runtime.shutdown_background();
    served
}

/// Runs the process beside the supervisor's orders until it is done, told to stop, or orphaned.
async fn serve(
    run: impl Future<Output = anyhow::Result<()>>,
    orders: impl Future<Output = anyhow::Error>,
    stop: Stop,
) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        done = run => done,
        lost = orders => Err(lost),
        () = stop.over() => {
            // The normal end of a process that has nothing to finish and does not watch for it.
            tracing::info!("the time for draining is over; what is left is cut off");
            Ok(())
        }
    }
}

/// Says "ready" when `run` waits for the first time, unless it has deferred that.
async fn announcing<T>(run: impl Future<Output = T>, ready: Ready) -> T {
    let mut run = pin!(run);
    let mut first = true;
    std::future::poll_fn(move |context| {
        let polled = run.as_mut().poll(context);
        if std::mem::take(&mut first) && polled.is_pending() && !ready.is_deferred() {
            ready.announce();
        }
        polled
    })
    .await
}

/// Sends what the process says.
async fn tell(channel: Rc<Channel>, mut reports: mpsc::Receiver<ToSend>) {
    while let Some((report, sent)) = reports.recv().await {
        if channel.send(&report.encode(), &[]).await.is_err() {
            // The supervisor is gone; `obey` sees it too and ends the process.
            return;
        }
        if let Some(sent) = sent {
            // Whoever asked may have stopped waiting.
            let _ = sent.send(());
        }
    }
}

/// Says that the event loop runs, and keeps the figures of the process as a whole.
async fn beat(reports: mpsc::Sender<ToSend>, figures: Figures) {
    let mut every = tokio::time::interval(HEARTBEAT);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    for count in 1.. {
        every.tick().await;
        usage(figures);
        // A full queue means the supervisor does not read: it will see that without this beat.
        let _ = reports.try_send((Report::Heartbeat(count), None));
    }
}

fn usage(figures: Figures) {
    use nix::sys::{
        resource::{UsageWho, getrusage},
        time::TimeValLike as _,
    };
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let cpu = usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds();
        figures.set(Count::CpuMilliseconds, u64::try_from(cpu).unwrap_or(0));
        figures.set(Count::MaxMemoryKib, u64::try_from(usage.max_rss()).unwrap_or(0));
    }
}

/// Does what the supervisor says, until it is gone.
async fn obey(
    channel: Rc<Channel>,
    wiring: Wiring,
    stopper: Stopper,
    log_level: LogLevel,
) -> anyhow::Error {
    loop {
        let received = match channel.receive(MAX_MESSAGE, Expect::AtMost(1)).await {
            Ok(Some(received)) => received,
            Ok(None) => return anyhow!("the supervisor is gone"),
            Err(error) => return anyhow!(error).context("supervision channel"),
        };
        let descriptor = received.descriptors.into_iter().next();
        match (Message::decode(&received.bytes), descriptor) {
            (Ok(Message::Give(gift)), Some(descriptor)) => wiring.connect(&gift, descriptor),
            (Ok(Message::LogLevel(level)), None) => log_level.set(level),
            (Ok(Message::LogFile), Some(descriptor)) => {
                if let Err(error) = rustix::stdio::dup2_stderr(&descriptor) {
                    tracing::error!(%error, "the next log file could not be taken");
                }
            }
            (Ok(Message::Drain(millis)), None) => {
                tracing::info!(millis, "draining");
                stopper.drain(Duration::from_millis(u64::from(millis)));
            }
            (Ok(Message::Start(_) | Message::Give(_) | Message::LogFile), _)
            | (Ok(Message::Drain(_) | Message::LogLevel(_)), Some(_))
            | (Err(_), _) => tracing::error!("the supervisor said what makes no sense here"),
        }
    }
}

/// Where connectors go.
struct Wiring {
    dialers: BTreeMap<(Role, u16), Dialer>,
    accepted: mpsc::Sender<Acceptor>,
    seen: mpsc::Sender<(Role, u16, sandbox::figures::Figures)>,
}

impl Wiring {
    fn connect(&self, gift: &Gift, descriptor: OwnedFd) {
        let done = match gift {
            Gift::ToServer(role, instance) => self.renew(*role, *instance, descriptor),
            Gift::FromClient(role, instance) => {
                Acceptor::from_connector(*role, *instance, descriptor)
                    .map_err(anyhow::Error::from)
                    .and_then(|acceptor| {
                        self.accepted.try_send(acceptor).map_err(|_| anyhow!("nobody takes it"))
                    })
            }
            Gift::Figures(role, instance) => sandbox::figures::Figures::map_to_read(descriptor)
                .map_err(anyhow::Error::from)
                .and_then(|figures| {
                    self.seen
                        .try_send((*role, *instance, figures))
                        .map_err(|_| anyhow!("nobody takes it"))
                }),
            Gift::Listener(name) | Gift::File(name) | Gift::ReadOnlyFolder(name) => {
                Err(anyhow!("{name} came after the start"))
            }
        };
        if let Err(error) = done {
            tracing::error!(?gift, error = format!("{error:#}"), "a descriptor was not taken");
        }
    }

    fn renew(&self, role: Role, instance: u16, connector: OwnedFd) -> anyhow::Result<()> {
        let dialer = self.dialers.get(&(role, instance)).context("no such edge")?;
        Ok(dialer.renew(connector)?)
    }
}

/// What came before the sandbox.
#[derive(Default)]
struct Gifts {
    listeners: Vec<Listener>,
    files: Vec<(String, File)>,
    read_only_folders: Vec<PathBuf>,
    /// Connectors and figures wait for the event loop.
    wiring: Vec<(Gift, OwnedFd)>,
}

impl Gifts {
    fn receive(socket: &OwnedFd, start: &Start) -> anyhow::Result<Self> {
        let mut gifts = Self::default();
        for _ in 0..start.gifts {
            let (message, descriptors) = next_message(socket, Expect::Exactly(1))?;
            let descriptor = descriptors.into_iter().next().context("a gift without descriptor")?;
            let Message::Give(gift) = message else { bail!("expected a gift") };
            match gift {
                Gift::Listener(name) => gifts.listeners.push(Listener::new(name, descriptor)?),
                Gift::File(name) => gifts.files.push((name, File::from(descriptor))),
                Gift::ReadOnlyFolder(path) => gifts.read_only_folders.push(path.into()),
                wiring @ (Gift::ToServer(..) | Gift::FromClient(..) | Gift::Figures(..)) => {
                    gifts.wiring.push((wiring, descriptor));
                }
            }
        }
        Ok(gifts)
    }
}

/// Waits for a message, before there is an event loop.
fn next_message(socket: &OwnedFd, expect: Expect) -> anyhow::Result<(Message, Vec<OwnedFd>)> {
    let received = recv_with_fds(socket, MAX_MESSAGE, expect).context("supervision socket")?;
    let received = received.context("the supervisor is gone")?;
    Ok((Message::decode(&received.bytes)?, received.descriptors))
}

fn first_message(socket: &OwnedFd) -> anyhow::Result<(Start, Vec<u8>, OwnedFd)> {
    let (message, descriptors) = next_message(socket, Expect::Exactly(START_DESCRIPTORS))?;
    let Message::Start(start) = message else { bail!("expected to be told who we are") };
    let [slice, figures] = <[OwnedFd; 2]>::try_from(descriptors)
        .map_err(|_| anyhow!("expected the slice and the figures"))?;
    let slice = sandbox::memfd::read_sealed(&slice, MAX_SLICE).context("read the slice")?;
    Ok((start, slice, figures))
}

impl Start {
    /// One dialer for each process it may ask; they wait for their connectors.
    fn dialers(&self) -> BTreeMap<(Role, u16), Dialer> {
        let count = |role| self.instances.iter().find(|(r, _)| *r == role).map_or(1, |(_, n)| *n);
        self.role
            .asks()
            .flat_map(|edge| (0..count(edge.server)).map(move |n| (edge.server, n)))
            .map(|server| (server, Dialer::pending()))
            .collect()
    }
}

/// `parser.1`; `.0` is left out, since most roles are one process.
#[must_use]
pub fn process_name(role: Role, instance: u16) -> String {
    if instance == 0 { role.name().to_owned() } else { format!("{role}.{instance}") }
}

/// Whether nothing is missing but what a tree without root cannot have, which moxd has said once.
fn as_complete_as_can_be(report: &sandbox::Report, without_root: bool) -> bool {
    report.layers.iter().all(|(layer, state)| {
        let needs_root = matches!(layer, sandbox::Layer::Uid | sandbox::Layer::Threads);
        !matches!(state, LayerState::Missing(_)) || (without_root && needs_root)
    })
}

fn layer_bits(report: &sandbox::Report) -> u32 {
    let state = |layer| match report.state(layer) {
        LayerState::Enforced => 0,
        LayerState::Partly(_) => 1,
        LayerState::Missing(_) => 2,
    };
    let layers = sandbox::Layer::ALL.into_iter();
    layers.rev().fold(0, |bits, layer| bits << 2 | state(layer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn ready_is_said_at_the_first_wait_unless_deferred() {
        let (reports, mut said) = mpsc::channel(4);
        let ready = Ready::new(5, reports.clone());
        announcing(tokio::task::yield_now(), ready).await;
        assert_eq!(said.try_recv().ok().map(|(report, _)| report), Some(Report::Ready(5)));

        let ready = Ready::new(5, reports.clone());
        let mine = ready.clone();
        let run = async move {
            mine.defer();
            tokio::task::yield_now().await;
            assert!(said.try_recv().is_err());
            mine.announce();
            mine.announce();
            assert_eq!(said.try_recv().ok().map(|(report, _)| report), Some(Report::Ready(5)));
            assert!(said.try_recv().is_err(), "it is said once");
        };
        announcing(run, ready).await;
    }

    #[test]
    fn a_dialer_for_every_process_that_may_be_asked() {
        let start = Start {
            role: Role::Accountd,
            instance: 0,
            supervisor: 1,
            gifts: 0,
            without_root: true,
            trap: false,
            require: 0,
            log: config::Log::default(),
            instances: vec![(Role::Parser, 3)],
            own_folder: None,
        };
        let dialers = start.dialers();
        let parsers = dialers.keys().filter(|(role, _)| *role == Role::Parser);
        assert_eq!(parsers.count(), 3);
        assert!(dialers.contains_key(&(Role::Resolver, 0)));
        assert!(!dialers.contains_key(&(Role::Outbound, 0)));
    }
}
