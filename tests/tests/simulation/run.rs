//! One seed from beginning to end.

use super::{
    chance::{Chance, seed_the_system},
    clients, disks,
    ledger::{self, Answer, Sent},
    reader, remote, secrets, template,
    world::{Faults, World},
};
use std::{cell::RefCell, path::Path, rc::Rc, sync::Once, thread, time::Duration};
use tokio::{
    task::{JoinSet, LocalSet},
    time::{sleep, timeout},
};

/// So long things go wrong.
const ROUGH: Duration = Duration::from_secs(40 * 60);
/// Then all must have been said within this,
const LAST_WORD: Duration = Duration::from_secs(24 * 3_600);
/// and after this nothing may be on its way: longer than the queue's last wait, which is an hour.
const CALM: Duration = Duration::from_secs(100 * 60);
/// Calls of Cap'n Proto nest deeply in a build without optimisation.
pub(super) const STACK: usize = 32 << 20;

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    /// Of all that happened, in order.
    pub(super) hash: u64,
    pub(super) events: u64,
    pub(super) deaths: u32,
    /// What must not be; empty if all is well.
    pub(super) wrongs: Vec<String>,
    /// What happened before.
    pub(super) last: Vec<String>,
}

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// A panic in a run is a fault, caught or not.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let kept = PANICS.with(|panics| {
                let mut panics = panics.borrow_mut();
                panics.as_mut().map(|panics| panics.push(panic.to_string())).is_some()
            });
            if !kept {
                before(panic);
            }
        }));
    });
}

/// Runs a seed in a thread of its own, so that nothing is left of the one before.
pub(super) fn run(seed: u64) -> Outcome {
    watch_panics();
    let folder = template::copy().unwrap();
    let path = folder.path().to_owned();
    let thread = thread::Builder::new().name(format!("seed-{seed}")).stack_size(STACK);
    let running = thread.spawn(move || {
        PANICS.with(|panics| *panics.borrow_mut() = Some(Vec::new()));
        seed_the_system(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let mut outcome = LocalSet::new().block_on(&runtime, simulate(&path, seed));
        drop(runtime);
        outcome.wrongs.extend(PANICS.with(|panics| panics.take()).unwrap_or_default());
        outcome
    });
    running.unwrap().join().unwrap()
}

async fn simulate(folder: &Path, seed: u64) -> Outcome {
    let world = World::new(folder, seed).unwrap();
    let mut plan = Chance::new(!seed);
    world.start_all();
    tokio::task::spawn_local(Rc::clone(&world).be_the_remote());
    let calming = tokio::task::spawn_local({
        let (world, faults) = (Rc::clone(&world), faults(&mut plan));
        world.remote.badness.set(faults.breaks * 10);
        world.set_faults(faults);
        async move {
            sleep(ROUGH).await;
            world.note("calm");
            world.remote.badness.set(0);
            world.set_faults(Faults::default());
        }
    });
    let changes = if plan.below(3) == 0 { 1 + plan.below(2) } else { 0 };
    let mut busy = JoinSet::new();
    if changes > 0 {
        busy.spawn_local(secrets::change_some(Rc::clone(&world), changes, ROUGH / 2));
    }
    if plan.below(3) == 0 {
        busy.spawn_local(disks::fill_some(Rc::clone(&world), 1 + plan.below(4)));
    }
    for n in 0..=plan.below(5) {
        let to = match plan.below(3) {
            0 => vec![template::ACCOUNTS[0]],
            1 => vec![template::ACCOUNTS[1]],
            _ => template::ACCOUNTS.to_vec(),
        };
        busy.spawn_local(clients::stranger(Rc::clone(&world), format!("in-{n}"), to));
    }
    for name in template::ACCOUNTS {
        let messages = (0..=plan.below(4)).map(|n| message(&mut plan, name, n)).collect();
        busy.spawn_local(clients::user(Rc::clone(&world), name, messages));
    }
    let mut reading = JoinSet::new();
    for name in template::ACCOUNTS {
        let (world, turns) = (Rc::clone(&world), plan.below(25));
        reading.spawn_local(async move { (name, reader::read(world, name, turns).await) });
    }
    let all = async {
        while busy.join_next().await.is_some() {}
        let mut seen = Vec::new();
        while let Some(of_one) = reading.join_next().await {
            seen.extend(of_one);
        }
        seen
    };
    let seen = timeout(LAST_WORD, all).await;
    if seen.is_err() {
        world.wrong("somebody still waits for an answer".into());
    }
    let _ = calming.await;
    sleep(CALM).await;
    for (name, mut seen) in seen.unwrap_or_default() {
        reader::look_again(&world, name, &mut seen).await;
    }
    if changes > 0 {
        secrets::change_in_calm(&world, template::ACCOUNTS[0]).await;
    }
    world.end().await;
    if let Err(error) = ledger::settle(&world).await {
        world.wrong(format!("{error:#}"));
    }
    let trace = world.trace();
    Outcome {
        seed,
        hash: trace.hash(),
        events: trace.events(),
        deaths: world.deaths(),
        wrongs: world.wrongs(),
        last: trace.last(80),
    }
}

fn faults(plan: &mut Chance) -> Faults {
    let none = Faults::default();
    match plan.below(10) {
        0 => none,
        1 => Faults { slow: 5_000, ..none },
        2 => Faults { slow: 3_000, stuck: 10, breaks: 20, deaths: 10, ..none },
        // Nothing else goes wrong than that answers are lost.
        3 => Faults { slow: 2_000, unheard: 4_000, ..none },
        4 => Faults { slow: 2_000, commits: 1_000, ..none },
        5 | 6 => {
            Faults { slow: 3_000, stuck: 10, breaks: 20, deaths: 10, unheard: 2_000, commits: 300 }
        }
        7 | 8 => {
            Faults { slow: 2_000, stuck: 30, breaks: 60, deaths: 50, unheard: 1_000, commits: 200 }
        }
        _ => {
            Faults { slow: 1_000, stuck: 100, breaks: 150, deaths: 200, unheard: 500, commits: 100 }
        }
    }
}

fn message(plan: &mut Chance, from: &'static str, n: u64) -> Sent {
    let [alice, bob] = template::ACCOUNTS;
    let carol = format!("carol@{}", remote::DOMAIN);
    let dan = format!("dan@{}", remote::DOMAIN);
    let to: Vec<String> = match plan.below(6) {
        0 => vec![alice.into(), bob.into()],
        1 => vec![carol],
        2 => vec![bob.into(), carol, dan],
        3 => vec![alice.into(), remote::NOBODY.into()],
        4 => vec![carol, remote::NOBODY.into()],
        _ => vec![bob.into()],
    };
    let name = from.split('@').next().unwrap_or_default();
    Sent { token: format!("out-{name}-{n}"), from, to, answer: Answer::Open }
}
