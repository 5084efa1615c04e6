//! Our control socket: fixed-size orders in, lines out. Nothing here looks at more than 32 octets.

use std::{
    os::{fd::OwnedFd, unix::net::UnixListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use daemon::orders::{ORDER_OCTETS, Order};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use crate::identity::Identities;

/// Orders carried out or waiting at once.
const AT_ONCE: usize = 16;
/// How long a client may take to give its order, and to read a part of the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest an order takes: the trial of all walls.
const LONGEST: Duration = Duration::from_secs(120);

/// The answer to an order: its lines, or why not.
pub(crate) type Answer = Result<Vec<String>, String>;

/// An order and where its answer goes.
pub(crate) type Given = (Order, oneshot::Sender<Answer>);

/// Takes orders for ever.
pub(crate) async fn take_orders(
    socket: OwnedFd,
    who: Rc<Identities>,
    orders: mpsc::Sender<Given>,
) -> std::io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(UnixListener::from(socket))?;
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(PATIENCE).await;
                continue;
            }
        };
        let (who, orders) = (Rc::clone(&who), orders.clone());
        tokio::task::spawn_local(async move {
            one(stream, &who, &orders).await;
            drop(place);
        });
    }
}

/// One order. Whatever the client does wrong ends its connection and is nobody else's trouble.
async fn one(mut stream: UnixStream, who: &Identities, orders: &mpsc::Sender<Given>) {
    let Ok(peer) = sandbox::channel::peer(&stream) else { return };
    if !who.may_give_orders(peer.uid, peer.gid) {
        tracing::warn!(uid = peer.uid, "may give no orders");
        return;
    }
    let mut bytes = [0; ORDER_OCTETS];
    if !matches!(timeout(PATIENCE, stream.read_exact(&mut bytes)).await, Ok(Ok(_))) {
        return;
    }
    let answer = match Order::decode(&bytes) {
        Err(error) => Err(error.to_string()),
        Ok(order) => {
            tracing::info!(uid = peer.uid, pid = peer.pid, ?order, "order");
            let (answer, answered) = oneshot::channel();
            let given = orders.send((order, answer)).await.is_ok();
            match timeout(LONGEST, answered).await {
                Ok(Ok(answer)) if given => answer,
                Ok(_) => Err("the supervisor ends".to_owned()),
                Err(_) => Err("the order takes too long".to_owned()),
            }
        }
    };
    let mut text = String::new();
    let last = match answer {
        Ok(lines) => {
            for line in lines {
                text.push_str(&line);
                text.push('\n');
            }
            "ok".to_owned()
        }
        Err(why) => format!("error: {}", why.replace('\n', "; ")),
    };
    text.push_str(&last);
    text.push('\n');
    for part in text.as_bytes().chunks(64 << 10) {
        if !matches!(timeout(PATIENCE, stream.write_all(part)).await, Ok(Ok(()))) {
            return;
        }
    }
}
