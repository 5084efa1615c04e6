//! Edges with somebody in the middle: each message of each connection is let through, held up, or
//! ends the connection or a process, as the seed says.

use super::world::{Who, World};
use ipc::{Dialer, Incoming, Stream};
use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::Notify,
    time::{sleep, timeout},
};

/// How long a client waits for a server that is being restarted, as at a connector.
const DIAL: Duration = Duration::from_millis(900);

/// A message of more segments, or longer, is none of ours.
const MAX_SEGMENTS: u32 = 512;
const MAX_OCTETS: usize = 64 << 20;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives, after this.
    Arrives(Duration),
    /// The connection breaks before it arrives.
    Breaks,
    /// The process that sent it dies, before it arrives or after.
    SenderDies { arrives: bool },
    /// The process it goes to dies, before it arrives or after.
    ReceiverDies { arrives: bool },
}

/// The edge from a client process to a server process, over the lives of both.
pub(super) struct Wire {
    pub(super) client: Who,
    pub(super) server: Who,
    dialer: RefCell<Option<Dialer>>,
    renewed: Notify,
    connections: Cell<u32>,
    /// Held by what the newest life of the client has of it.
    life: RefCell<Weak<()>>,
}

impl Wire {
    pub(super) fn new(client: Who, server: Who) -> Rc<Self> {
        Rc::new(Self {
            client,
            server,
            dialer: RefCell::default(),
            renewed: Notify::new(),
            connections: Cell::new(0),
            life: RefCell::default(),
        })
    }

    /// Is held by what the client has of it; soon after its death by nothing.
    pub(super) fn life(&self) -> Weak<()> {
        self.life.borrow().clone()
    }

    /// The server has begun a new life, or ended one.
    pub(super) fn renew(&self, dialer: Option<Dialer>) {
        *self.dialer.borrow_mut() = dialer;
        self.renewed.notify_waiters();
    }

    /// The client's end, for one life of it.
    pub(super) fn attach(self: &Rc<Self>, world: &Rc<World>) -> Dialer {
        let (dialer, mut acceptor) = ipc::memory_edge(self.client.role, self.client.instance);
        let (wire, world, held) = (Rc::clone(self), Rc::clone(world), Rc::new(()));
        *self.life.borrow_mut() = Rc::downgrade(&held);
        tokio::task::spawn_local(async move {
            while let Some(incoming) = acceptor.accept().await {
                match incoming {
                    Incoming::Rpc(stream) => {
                        let (wire, world) = (Rc::clone(&wire), Rc::clone(&world));
                        let held = Rc::clone(&held);
                        tokio::task::spawn_local(async move {
                            wire.carry(&world, stream).await;
                            drop(held);
                        });
                    }
                    Incoming::HandOver(over) => wire.hand_over(&world, over).await,
                    Incoming::Slot(_) => world.wrong("a signing slot was asked for".into()),
                }
            }
        });
        dialer
    }

    async fn server(&self) -> Option<Dialer> {
        let there = async {
            loop {
                // Registered before the look, so that no renewal is missed.
                let renewed = self.renewed.notified();
                if let Some(dialer) = self.dialer.borrow().clone() {
                    return dialer;
                }
                renewed.await;
            }
        };
        timeout(DIAL, there).await.ok()
    }

    async fn hand_over(&self, world: &World, over: ipc::HandOver) {
        world.note(&format!("{}>{} hand-over", self.client, self.server));
        if let Some(dialer) = self.server().await {
            // Whoever is at the other end of the socket finds out by its end.
            let _ = dialer.hand_over(&over.message, &over.fd).await;
        }
    }

    /// One connection, until either end or fate ends it.
    async fn carry(&self, world: &Rc<World>, client: Stream) {
        let number = self.connections.get() + 1;
        self.connections.set(number);
        let Some(dialer) = self.server().await else { return };
        let Ok(server) = dialer.dial().await else { return };
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_halves(), server.into_halves());
        let (there, back) = (self.client, self.server);
        let asked = Cell::new(world.commits(back));
        let line = |from, to| Direction { world, from, to, number, server: back, asked: &asked };
        let (going, coming) = (line(there, back), line(back, there));
        tokio::select! {
            biased;
            () = going.carry(from_client, to_server) => {}
            () = coming.carry(from_server, to_client) => {}
        }
        world.note(&format!("{there}>{back} {number} over"));
    }
}

/// One direction of a connection.
struct Direction<'a> {
    world: &'a Rc<World>,
    from: Who,
    to: Who,
    number: u32,
    server: Who,
    /// The server's commits when its client last spoke.
    asked: &'a Cell<u64>,
}

impl Direction<'_> {
    /// Carries it, message by message.
    async fn carry(&self, mut source: impl AsyncRead + Unpin, mut sink: impl AsyncWrite + Unpin) {
        let Self { world, from, to, number, server, asked } = *self;
        let mut buffer = Vec::new();
        loop {
            let length = match frame(&buffer) {
                Ok(Some(length)) => length,
                Ok(None) => match source.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => continue,
                },
                Err(why) => return world.wrong(format!("{from}>{to}: {why}")),
            };
            let rest = buffer.split_off(length);
            let message = std::mem::replace(&mut buffer, rest);
            if world.is_mute(from) {
                return;
            }
            let is_answer = from == server && world.commits(server) > asked.get();
            let fate = world.fate(from, to, is_answer);
            world.note(&format!("{from}>{to} {number} {length} {fate:?}"));
            let (arrives, dies) = match fate {
                Fate::Arrives(after) => {
                    if !after.is_zero() {
                        sleep(after).await;
                    }
                    (true, None)
                }
                Fate::Breaks => return,
                Fate::SenderDies { arrives } => (arrives, Some(from)),
                Fate::ReceiverDies { arrives } => (arrives, Some(to)),
            };
            if arrives {
                if to == server {
                    asked.set(world.commits(server));
                }
                let written = async {
                    sink.write_all(&message).await?;
                    sink.flush().await
                };
                if written.await.is_err() {
                    return;
                }
            }
            if let Some(who) = dies {
                if arrives {
                    // It has had time to begin with it.
                    for _ in 0..world.below(40) {
                        tokio::task::yield_now().await;
                    }
                }
                return world.kill(who);
            }
        }
    }
}

/// The length of the first message, once all of it is there.
fn frame(buffer: &[u8]) -> Result<Option<usize>, String> {
    let word = |at: usize| {
        let octets = buffer.get(at..at + 4)?;
        Some(u32::from_le_bytes(octets.try_into().ok()?))
    };
    let Some(more) = word(0) else { return Ok(None) };
    if more >= MAX_SEGMENTS {
        return Err(format!("{more} segments"));
    }
    let count = usize::try_from(more).unwrap_or(usize::MAX) + 1;
    // The table is padded to a word of eight octets.
    let mut length = (4 + 4 * count).next_multiple_of(8);
    for n in 0..count {
        let Some(words) = word(4 + 4 * n) else { return Ok(None) };
        length += usize::try_from(words).unwrap_or(usize::MAX) * 8;
    }
    if length > MAX_OCTETS {
        return Err(format!("a message of {length} octets"));
    }
    Ok((buffer.len() >= length).then_some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_or_not_there() {
        let one = [[0, 0, 0, 0, 1, 0, 0, 0], [7; 8]].concat();
        for end in 0..one.len() {
            assert_eq!(frame(&one[..end]), Ok(None));
        }
        assert_eq!(frame(&[one.as_slice(), &[9]].concat()), Ok(Some(16)));
        let two = [[1, 0, 0, 0, 1, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(frame(&[two, vec![0; 24]].concat()), Ok(Some(40)));
        assert!(frame(&[255; 8]).is_err());
    }
}
