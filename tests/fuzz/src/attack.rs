//! What a client that was taken over does to the server of its edge. Each attack says by a panic
//! that the server did not hold.

use crate::{
    house::House,
    source::Source,
    wire::{
        frames::{self, Target},
        peer::Peer,
        play::{call_on, is_served, play, simple_call},
    },
};
use ipc::Edge;
use std::{fs, time::Duration};

/// How long an honest client may have to wait meanwhile, on a busy machine.
const HONEST: Duration = Duration::from_secs(20);

/// A connection of an edge, over a connector of its own.
#[must_use]
pub fn dial(house: &House, edge: &Edge) -> Peer {
    let connector = house.connector(edge.client, 0, edge.server);
    Peer::new(connector.ask(1).expect("a connection")).with(connector)
}

/// An honest client of the edge is served.
pub fn assert_served(house: &House, edge: &Edge) {
    let served = is_served(&mut dial(house, edge), edge.bootstrap, HONEST);
    assert!(served, "{} serves {} no more", edge.server, edge.client);
}

/// Octets of memory this process holds at most since [`forget_peak`].
#[must_use]
pub fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// The peak is what is held now.
pub fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("procfs");
}

/// Octets that are no frames, and frames with some bits turned; some cut off in the middle, the
/// connection closed or left open behind them.
pub fn garbage(house: &House, edge: &Edge, rounds: u32) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(edge.client.number());
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let connector = house.connector(edge.client, 0, edge.server);
    let honest = [frames::bootstrap(0), simple_call(1, edge.bootstrap)].concat();
    let mut open = Vec::new();
    for round in 0..rounds {
        let Some(fd) = connector.ask(1) else {
            panic!("{} gives {} no connection", edge.server, edge.client)
        };
        let mut peer = Peer::new(fd);
        let mut octets = honest.clone();
        if round % 4 == 0 {
            octets = (0..32).flat_map(|_| next().to_le_bytes()).collect();
        } else {
            for _ in 0..round % 4 {
                let bit = usize::try_from(next() >> 1).unwrap_or(0) % (octets.len() * 8);
                octets[bit / 8] ^= 1 << (bit % 8);
            }
        }
        if round % 2 == 1 {
            let cut = usize::try_from(next() >> 1).unwrap_or(0) % octets.len();
            octets.truncate(cut);
        }
        peer.send(&octets, Duration::from_millis(100));
        peer.hear(Duration::from_millis(1), Duration::from_millis(5), |_| false);
        // A few stay open, half a frame in them.
        if round % 16 == 1 && open.len() < 4 {
            open.push(peer);
        }
    }
    assert_served(house, edge);
}

/// Conversations of well-formed calls with hostile values in them.
pub fn nonsense(house: &House, edge: &Edge, rounds: u32) {
    let mut random = 0x2545_f491_u32 ^ u32::from(edge.client.number());
    for _ in 0..rounds {
        let input: Vec<u8> = (0..160)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                random.to_le_bytes()[1]
            })
            .collect();
        play(&mut dial(house, edge), edge.bootstrap, &input, &house.lexicon);
    }
    assert_served(house, edge);
}

/// A header that declares more than any message has ends its connection at once.
pub fn giants(house: &House, edge: &Edge) {
    forget_peak();
    let before = peak();
    for head in [
        // One segment of 2 GiB, one of 2 MiB, 512 segments, 4 thousand million segments.
        [[0, 0, 0, 0], [0, 0, 0, 0x10]].concat(),
        [[0, 0, 0, 0], [0, 0, 4, 0]].concat(),
        [vec![0xff, 1, 0, 0], vec![0xff; 2052]].concat(),
        vec![0xff; 8],
    ] {
        let mut peer = dial(house, edge);
        peer.send(&head, HONEST);
        assert!(peer.ends(HONEST), "{}: a giant is waited for: {head:?}", edge.server);
    }
    let grown = peak().saturating_sub(before);
    assert!(grown < 16 << 20, "{}: a giant costs {grown} octets", edge.server);
    assert_served(house, edge);
}

/// Octets of one flood: far more than a server may hold for one client.
const FLOOD: usize = 12 << 20;

/// How a flood ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flooded {
    /// The server ended the connection.
    Ended,
    /// The server took all of it, and so held none of it.
    Taken,
}

/// Calls that are never finished: the server ends that at its bound.
#[must_use]
pub fn flood_of_open_calls(house: &House, edge: &Edge) -> Flooded {
    flood(house, edge, (1..).map(|question| simple_call(question, edge.bootstrap)))
}

/// Calls a client leaves open in a flood of calls that it does finish: fewer than the bound.
const OPEN: u32 = 500;

/// Calls that are finished after a while, and answers that nobody reads: the server stops reading,
/// then ends it; where nothing is answered there is nothing to hold.
#[must_use]
pub fn flood_without_reading(house: &House, edge: &Edge) -> Flooded {
    let calls = (1..).map(|question: u32| {
        let mut frames = simple_call(question, edge.bootstrap);
        if let Some(old) = question.checked_sub(OPEN) {
            frames.extend(frames::finish(old, true));
        }
        frames
    });
    flood(house, edge, calls)
}

fn flood(house: &House, edge: &Edge, calls: impl Iterator<Item = Vec<u8>>) -> Flooded {
    let mut peer = dial(house, edge);
    let mut given = 0;
    let frames = std::iter::once(frames::bootstrap(0)).chain(calls).take_while(|frame| {
        given += frame.len();
        given < FLOOD
    });
    // A server that takes nothing more for so long has to end it.
    let patience = Duration::from_secs(30);
    if peer.flood(frames, patience) {
        return Flooded::Taken;
    }
    assert!(peer.over || peer.ends(HONEST), "{} bears {}", edge.server, edge.client);
    Flooded::Ended
}

/// A reference that was given back, or never given, is worth nothing.
pub fn use_after_release(house: &House, edge: &Edge) {
    let use_export = |peer: &mut Peer, question, export| {
        let target = Target::Export(export);
        let call = call_on(&target, question, edge.bootstrap, &mut Source::new(&[]));
        peer.send(&call, HONEST);
        peer.hear(HONEST, HONEST, |peer| peer.answer_to(question).is_some());
        peer.answer_to(question)
    };
    for released in [0, 1, u32::MAX] {
        let mut peer = dial(house, edge);
        peer.send(&frames::bootstrap(0), HONEST);
        peer.hear(HONEST, HONEST, |peer| peer.answer_to(0).is_some());
        // The runtime numbers exports from zero.
        assert_eq!(use_export(&mut peer, 1, 0), Some(true), "{}: its own", edge.bootstrap);
        peer.send(&frames::finish(1, true), HONEST);
        peer.send(&frames::finish(0, false), HONEST);
        peer.send(&frames::release(0, 1), HONEST);
        let used = use_export(&mut peer, 2, released);
        assert_ne!(used, Some(true), "{}: export {released}", edge.bootstrap);
    }
    assert_served(house, edge);
}

/// When the supervisor gives the edge to another process, what the old one held ends.
pub fn use_after_rewiring(house: &House, edge: &Edge) {
    let connector = house.connector(edge.client, 0, edge.server);
    let mut peer = Peer::new(connector.ask(1).expect("a connection"));
    assert!(is_served(&mut peer, edge.bootstrap, HONEST));
    drop(connector);
    assert!(peer.ends(HONEST), "{}: a connection outlives its connector", edge.server);
}
