//! One life of one process: started from an open binary with three descriptors, watched by a
//! pidfd, spoken to over its supervision socket. It never holds us up: what it does not read waits
//! in a bounded queue, and a queue that is full ends it.

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use daemon::{
    Channel,
    supervision::{MAX_MESSAGE, Message, REPORT_OCTETS, Report},
};
use ipc::Role;
use sandbox::{
    channel::Expect,
    process::{Exit, Running},
};
use tokio::sync::mpsc;

use crate::identity::Identity;

/// Messages for a process that it has not read yet. A start brings the most: every listener and a
/// connector for each process it talks to.
const UNREAD: usize = 4096;

/// Reports of one process in [`WINDOW`]; an honest one sends a handful. One that was taken over
/// must not keep us busy.
const REPORTS: u32 = 64;
const WINDOW: Duration = Duration::from_secs(5);

/// What happens to a process, with the number of its life.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) life: u64,
    pub(crate) what: What,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum What {
    /// It said this.
    Said(Report),
    /// It said what is none of ours, brought a descriptor, or flooded: taken over or broken.
    Nonsense,
    /// It ended.
    Ended(Exit),
}

/// How to start it.
pub(crate) struct Recipe<'a> {
    pub(crate) role: Role,
    pub(crate) binary: &'a Path,
    pub(crate) identity: Option<Identity>,
    pub(crate) log: Stdio,
}

/// A process that runs.
#[derive(Debug)]
pub(crate) struct Child {
    running: Running,
    outbox: mpsc::Sender<(Vec<u8>, Vec<OwnedFd>)>,
}

/// How many pools of memory the C library may keep in a process: one for each CPU. By default a
/// process of many threads, as accountd is, keeps up to eight for each CPU, and what one thread has
/// given back no other can use.
fn arenas() -> String {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).to_string()
}

impl Child {
    /// Starts it. Its end and what it says come as events of life number `life`.
    pub(crate) fn start(
        recipe: Recipe<'_>,
        life: u64,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let (ours, theirs) = sandbox::channel::seqpacket_pair()?;
        let mut command = Command::new(recipe.binary);
        command
            .arg0(recipe.role.name())
            .env_clear()
            .env("MALLOC_ARENA_MAX", arenas())
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(recipe.log)
            // Its own group: an interrupt typed at a terminal is ours to act on.
            .process_group(0);
        if let Some(identity) = recipe.identity {
            sandbox::process::run_as(&mut command, identity.uid, identity.gid);
        }
        let running = Running::open(command.spawn()?.id())?;
        let ended = daemon::watch(running.as_fd().try_clone_to_owned()?)?;
        let channel = Rc::new(Channel::new(ours)?);
        let (outbox, unread) = mpsc::channel(UNREAD);
        tokio::task::spawn_local(deliver(Rc::clone(&channel), unread));
        let watched = Running::open(running.id())?;
        tokio::task::spawn_local(async move {
            listen(&channel, life, &events).await;
            // Its words are read to the end before its death is told.
            let exit = match ended.readable().await {
                Ok(_) => watched.wait().unwrap_or(Exit::Code(-1)),
                Err(_) => Exit::Code(-1),
            };
            let _ = events.send(Event { life, what: What::Ended(exit) }).await;
        });
        Ok(Self { running, outbox })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// Queues a message. `false`: it does not read, or is gone.
    pub(crate) fn tell(&self, message: &Message, descriptors: Vec<OwnedFd>) -> bool {
        let bytes = message.encode();
        debug_assert!(bytes.len() <= MAX_MESSAGE && descriptors.len() == message.descriptors());
        self.outbox.try_send((bytes, descriptors)).is_ok()
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        if let Err(error) = self.running.kill() {
            tracing::debug!(%error, pid = self.running.id(), "it was gone already");
        }
    }
}

async fn deliver(channel: Rc<Channel>, mut unread: mpsc::Receiver<(Vec<u8>, Vec<OwnedFd>)>) {
    while let Some((bytes, descriptors)) = unread.recv().await {
        let borrowed: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
        if channel.send(&bytes, &borrowed).await.is_err() {
            return;
        }
    }
}

/// Passes on what it says until it has closed its end, talks nonsense or floods.
async fn listen(channel: &Channel, life: u64, events: &mpsc::Sender<Event>) {
    let (mut window, mut reports) = (Instant::now(), 0);
    loop {
        // One octet more than a report, so that a longer packet is seen and refused.
        let received = channel.receive(REPORT_OCTETS + 1, Expect::Exactly(0)).await;
        let what = match received {
            Ok(None) => return,
            Ok(Some(received)) => {
                if window.elapsed() >= WINDOW {
                    (window, reports) = (Instant::now(), 0);
                }
                reports += 1;
                match Report::decode(&received.bytes) {
                    Ok(report) if reports <= REPORTS => What::Said(report),
                    Ok(_) | Err(_) => What::Nonsense,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => What::Nonsense,
            Err(_) => return,
        };
        let nonsense = matches!(what, What::Nonsense);
        if events.send(Event { life, what }).await.is_err() || nonsense {
            return;
        }
    }
}
