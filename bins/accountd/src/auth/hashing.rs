//! Password hashing on its own two threads, behind a bounded waiting room that is served round-robin
//! by network: a flood from one network waits behind itself, not in front of everybody.
//!
//! A password is hashed with a [`Hasher`], and only these threads have one: it counts, so what a
//! log-in costs can be told, and its memory is taken once.

use super::limiter::{Network, networks};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use daemon::Workers;
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, oneshot};
use types::Secret;

/// Threads; each hash takes 19 MiB and 20 ms of one.
const THREADS: usize = 2;
/// Jobs that wait over all networks: 2.5 s of work.
const MAX_WAITING: usize = 256;
/// Jobs that wait of one network.
const MAX_OF_NETWORK: usize = 16;

/// Memory of one argon2id hash in KiB, and its passes.
const ARGON2_KIB: u32 = 19 * 1024;
const ARGON2_PASSES: u32 = 2;

type Job = Box<dyn FnOnce(&mut Hasher) + Send>;

/// A hash could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("hashing failed")]
pub(crate) struct HashFailed;

/// What a thread hashes with.
#[derive(Default)]
pub(crate) struct Hasher {
    /// Taken anew for each hash, it would be 350 MiB after some thirty log-ins: the allocator finds
    /// no room for an aligned piece where one just was.
    blocks: Vec<Block>,
    hashes: Arc<AtomicU64>,
}

impl Hasher {
    /// The argon2id hash of a password; takes 20 ms.
    pub(super) fn argon2id(
        &mut self,
        password: &Secret<String>,
        salt: &[u8],
    ) -> Result<[u8; 32], HashFailed> {
        let params = Params::new(ARGON2_KIB, ARGON2_PASSES, 1, Some(32)).map_err(|_| HashFailed)?;
        let mut out = [0; 32];
        self.blocks.resize(params.block_count(), Block::default());
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(
                password.expose().as_bytes(),
                salt,
                &mut out,
                &mut self.blocks,
            )
            .map_err(|_| HashFailed)?;
        self.hashes.fetch_add(1, Ordering::Relaxed);
        Ok(out)
    }
}

/// The waiting room is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords wait to be checked")]
pub(crate) struct Full;

/// The threads and who waits for them.
#[derive(Clone)]
pub(crate) struct Hashing {
    shared: Arc<Shared>,
    #[expect(dead_code, reason = "its Drop ends the threads")]
    alive: Arc<Alive>,
}

struct Shared {
    room: Mutex<Room>,
    wake: Notify,
    /// Finished since the start.
    hashes: Arc<AtomicU64>,
}

struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        lock(&self.0.room).closed = true;
        self.0.wake.notify_waiters();
    }
}

/// Who waits, by network, and whose turn it is.
#[derive(Default)]
struct Room {
    waiting: BTreeMap<Network, VecDeque<Job>>,
    turns: VecDeque<Network>,
    total: usize,
    closed: bool,
}

impl Room {
    fn add(&mut self, network: Network, job: Job) -> Result<(), Full> {
        let queue = self.waiting.entry(network).or_default();
        if self.total >= MAX_WAITING || queue.len() >= MAX_OF_NETWORK {
            if queue.is_empty() {
                self.waiting.remove(&network);
            }
            return Err(Full);
        }
        if queue.is_empty() {
            self.turns.push_back(network);
        }
        queue.push_back(job);
        self.total += 1;
        Ok(())
    }

    fn next(&mut self) -> Option<Job> {
        let network = self.turns.pop_front()?;
        let queue = self.waiting.get_mut(&network)?;
        let job = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&network);
        } else {
            self.turns.push_back(network);
        }
        self.total -= usize::from(job.is_some());
        job
    }
}

fn lock(room: &Mutex<Room>) -> MutexGuard<'_, Room> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hashing {
    /// Starts the threads.
    pub(crate) fn start(workers: Workers) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            room: Mutex::default(),
            wake: Notify::new(),
            hashes: Arc::default(),
        });
        for n in 0..THREADS {
            let shared = Arc::clone(&shared);
            workers.start(&format!("hash-{n}"), move || work(shared))?;
        }
        Ok(Self { alive: Arc::new(Alive(Arc::clone(&shared))), shared })
    }

    /// Hashes finished since the start.
    #[cfg(test)]
    pub(crate) fn hashes(&self) -> u64 {
        self.shared.hashes.load(Ordering::Relaxed)
    }

    /// Runs `hash` on one of the threads, when its network's turn comes.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        ip: IpAddr,
        hash: impl FnOnce(&mut Hasher) -> T + Send + 'static,
    ) -> Result<T, Full> {
        let (answer, waiting) = oneshot::channel();
        let job: Job = Box::new(move |hasher| {
            // Who went away is not hashed for.
            if !answer.is_closed() {
                let _ = answer.send(hash(hasher));
            }
        });
        // The middle class: one host with many addresses is one network.
        let [_, network, _] = networks(ip);
        lock(&self.shared.room).add(network, job)?;
        self.shared.wake.notify_one();
        waiting.await.map_err(|_| Full)
    }
}

async fn work(shared: Arc<Shared>) {
    let mut hasher = Hasher { hashes: Arc::clone(&shared.hashes), ..Hasher::default() };
    loop {
        // Before the look, so that a word between the two is not missed.
        let mut word = std::pin::pin!(shared.wake.notified());
        word.as_mut().enable();
        let (job, closed) = {
            let mut room = lock(&shared.room);
            (room.next(), room.closed)
        };
        let Some(job) = job else {
            if closed {
                return;
            }
            word.await;
            continue;
        };
        // A panic ends this job alone: its asker sees a closed channel.
        let hash = std::panic::AssertUnwindSafe(|| job(&mut hasher));
        if std::panic::catch_unwind(hash).is_err() {
            tracing::error!("a hash panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        networks(text.parse().unwrap())[1]
    }

    #[test]
    fn networks_take_turns() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut room = Room::default();
        for name in ["a1", "a2", "a3", "b1", "c1"] {
            let ip = format!("192.0.{}.1", name.as_bytes()[0]);
            let order = Arc::clone(&order);
            room.add(network(&ip), Box::new(move |_| order.lock().unwrap().push(name))).unwrap();
        }
        while let Some(job) = room.next() {
            job(&mut Hasher::default());
        }
        assert_eq!(*order.lock().unwrap(), ["a1", "b1", "c1", "a2", "a3"]);
        assert_eq!((room.total, room.waiting.len(), room.turns.len()), (0, 0, 0));
    }

    #[test]
    fn the_room_is_bounded() {
        let mut room = Room::default();
        for _ in 0..MAX_OF_NETWORK {
            room.add(network("192.0.2.1"), Box::new(|_| ())).unwrap();
        }
        assert_eq!(room.add(network("192.0.2.2"), Box::new(|_| ())), Err(Full));
        let mut others = 0..=255u8;
        while room.total < MAX_WAITING {
            let ip = format!("198.{}.0.1", others.next().unwrap());
            room.add(network(&ip), Box::new(|_| ())).unwrap();
        }
        assert_eq!(room.add(network("203.0.113.1"), Box::new(|_| ())), Err(Full));
        assert!(!room.waiting.contains_key(&network("203.0.113.1")));
    }

    #[tokio::test]
    async fn answers_and_survives_a_panic() {
        let hashing = Hashing::start(Workers::Threads).unwrap();
        let ip = "192.0.2.1".parse().unwrap();
        assert_eq!(hashing.run(ip, |_| 7).await, Ok(7));
        for _ in 0..4 {
            let died: Result<(), Full> = hashing.run(ip, |_| panic!("a hash that panics")).await;
            assert_eq!(died, Err(Full));
        }
        assert_eq!(hashing.run(ip, |_| 8).await, Ok(8));
    }
}
