//! imapd session: the commands of those who are logged in.
//!
//! Connections arrive from front with a ticket; a ticket becomes an `Account` at accountd, and
//! becomes one again when accountd was restarted, without the client noticing more than a NO with
//! `UNAVAILABLE` meanwhile.

mod account;
mod calls;
mod connection;
mod content;
mod rows;

use crate::front::HandOver;
use config::limits;
use daemon::Stop;
use ipc::{Acceptor, Dialer, Incoming, Limits, Line, Role, schema::accountd_capnp::session_door};
use std::{cell::RefCell, rc::Rc};
use tokio::{
    net::UnixStream,
    sync::{Semaphore, mpsc},
};
use tokio_util::task::TaskTracker;

/// Sessions of one instance; front opens no more connections than this in all.
const MAX_SESSIONS: usize = 20_000;
/// Octets read at a time, by whichever session is ready: a buffer of the process.
const SCRATCH: usize = 64 * 1024;

/// As every edge of many sessions, but answers may be longer: one message of the most parts and
/// addresses the parser tells of has 3 MiB of structure and envelope, which come in one piece.
const ANSWERS: Limits = Limits { message_words: 1 << 19, ..Limits::SESSIONS };

/// What a session instance holds.
pub struct Grants {
    /// Limits of a connection.
    pub limits: limits::Imap,
    /// `SessionDoor`.
    pub accountd: Dialer,
    /// Where connections come from.
    pub fronts: mpsc::Receiver<Acceptor>,
    /// When to end.
    pub stop: Stop,
}

/// What the sessions share.
struct Shared {
    limits: limits::Imap,
    door: Line<session_door::Client>,
    stop: Stop,
    scratch: RefCell<Box<[u8]>>,
    places: Semaphore,
    /// Every front that may still hand over, and every session.
    busy: TaskTracker,
}

/// Serves what front hands over until it is drained and the last session and the last front are
/// gone, or the time for that is over.
pub async fn run(grants: Grants) {
    let shared = Rc::new(Shared {
        limits: grants.limits,
        door: Line::new(grants.accountd, ANSWERS),
        stop: grants.stop.clone(),
        scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
        places: Semaphore::new(MAX_SESSIONS),
        busy: TaskTracker::new(),
    });
    let mut fronts = grants.fronts;
    let ended = async {
        grants.stop.draining().await;
        shared.busy.close();
        shared.busy.wait().await;
    };
    tokio::pin!(ended);
    loop {
        let acceptor = tokio::select! {
            biased;
            acceptor = fronts.recv() => acceptor,
            () = &mut ended => return,
            () = grants.stop.over() => return,
        };
        let Some(acceptor) = acceptor else { break };
        shared.busy.spawn_local(take(Rc::clone(&shared), acceptor));
    }
    tokio::select! {
        () = ended => {}
        () = grants.stop.over() => {}
    }
}

async fn take(shared: Rc<Shared>, mut acceptor: Acceptor) {
    if acceptor.client().0 != Role::ImapdFront {
        tracing::error!(client = %acceptor.client().0, "a client without a right to be here");
        return;
    }
    while let Some(incoming) = acceptor.accept().await {
        let Incoming::HandOver(over) = incoming else {
            tracing::warn!("front asked for what this edge does not carry");
            return;
        };
        let about = match HandOver::decode(&over.message) {
            Ok(about) => about,
            Err(error) => {
                tracing::error!(%error, "a hand-over that makes no sense");
                continue;
            }
        };
        let socket = std::os::unix::net::UnixStream::from(over.fd);
        let socket = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
        match socket {
            Ok(socket) => {
                let shared = Rc::clone(&shared);
                let busy = shared.busy.clone();
                busy.spawn_local(async move {
                    // Above the bound the connection is dropped: front closes it.
                    let Ok(_place) = shared.places.try_acquire() else { return };
                    connection::run(&shared, about, socket).await;
                });
            }
            Err(error) => tracing::error!(%error, "a hand-over without a usable socket"),
        }
    }
}
