//! The bootstrap objects of all edges and control sockets, as targets: an input is a conversation
//! with the real server.

use crate::{
    house::House,
    source::Source,
    wire::{
        peer::{Connector, Peer, ready},
        play::{is_served, play},
    },
};
use ipc::{Role, schema::imap_capnp::hand_over as over};
use rustix::{
    event::PollFlags,
    net::{RecvFlags, SendFlags, recv, send},
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::OnceLock,
    time::{Duration, Instant},
};

/// After so many conversations the server has to serve an honest one.
const PROBE_EVERY: u32 = 64;
/// How long that may take on a busy machine.
const PROBE: Duration = Duration::from_secs(20);

/// Connections handed over by one input.
const MAX_SOCKETS: usize = 16;
/// How a hand-over begins.
const KIND_HAND_OVER: u8 = 3;
const TAGS: [&str; 5] = ["a1", "", "*", "+", "a b"];
/// RFC 8446 §4.4.3, behind its padding.
const TLS_1_3: &[u8] = b"TLS 1.3, server CertificateVerify\0";

/// The house all inputs of this process are played in.
pub fn house() -> &'static House {
    static HOUSE: OnceLock<House> = OnceLock::new();
    HOUSE.get_or_init(House::start)
}

thread_local! {
    static CONNECTORS: RefCell<BTreeMap<(Role, Role), Connector>> = const { RefCell::new(BTreeMap::new()) };
    static PLAYED: Cell<u32> = const { Cell::new(0) };
}

/// A connection over the long-lived connector of an edge. The server bounds the connections of a
/// client, and hears of the end of the last ones a little later: then there is another connector.
fn dial(client: Role, server: Role) -> Peer {
    CONNECTORS.with_borrow_mut(|known| {
        let fresh = || house().connector(client, 0, server);
        let connector = known.entry((client, server)).or_insert_with(fresh);
        if let Some(fd) = connector.ask(1) {
            return Peer::new(fd);
        }
        *connector = fresh();
        Peer::new(connector.ask(1).expect("the server is there"))
    })
}

fn is_time_to_probe() -> bool {
    PLAYED.set(PLAYED.get() + 1);
    PLAYED.get().is_multiple_of(PROBE_EVERY)
}

/// Plays an input on an edge.
pub(crate) fn edge(client: Role, server: Role, input: &[u8]) {
    let door = ipc::edge(client, server).expect("an edge").bootstrap;
    play(&mut dial(client, server), door, input, &house().lexicon);
    if is_time_to_probe() {
        let served = (0..3).any(|_| is_served(&mut dial(client, server), door, PROBE));
        assert!(served, "{server} serves {client} no more");
    }
}

/// Plays an input on a control socket.
pub(crate) fn control(server: Role, door: &str, input: &[u8]) {
    let dial = || {
        let socket = UnixStream::connect(house().control(server)).expect("a control socket");
        Peer::new(socket.into())
    };
    play(&mut dial(), door, input, &house().lexicon);
    if is_time_to_probe() {
        assert!((0..3).any(|_| is_served(&mut dial(), door, PROBE)), "{door} is not served");
    }
}

/// What a client says over its connector, before any connection: messages of any kind.
pub(crate) fn connector(input: &[u8]) {
    let mut source = Source::new(input);
    let server = *source.pick(&[Role::Keyholder, Role::Accountd, Role::ImapdSession]);
    let connector = house().connector(Role::ImapdFront, 0, server);
    while !source.is_empty() {
        let marks = source.octet();
        let length = source.below(300);
        let mut message = vec![marks & 3];
        if marks & 4 == 0 {
            message.extend(ipc::BuildId::OURS.to_bytes());
        }
        message.extend(source.octets(length));
        if connector.say(&message).is_none() {
            break;
        }
        let _ = connector.answer(Duration::from_millis(5));
    }
    if is_time_to_probe() {
        assert!(house().connector(Role::ImapdFront, 0, Role::Accountd).ask(1).is_some());
    }
}

/// Hand-overs from front, each with a socket: octets of any kind, and messages that are right but for
/// what stands in their fields.
pub(crate) fn hand_over(input: &[u8]) {
    let mut source = Source::new(input);
    let connector = house().connector(Role::ImapdFront, 0, Role::ImapdSession);
    let mut sockets = Vec::new();
    while !source.is_empty() && sockets.len() < MAX_SOCKETS {
        let is_right = source.octet() & 1 == 0;
        let length = source.below(300);
        let mut message = if is_right {
            let mut message = ipc::capnp::message::Builder::new_default();
            let mut root: over::Builder<'_> = message.init_root();
            let [state, zone, ..] = source.array::<4>();
            root.set_ticket(source.octets(length));
            root.set_tag(TAGS[usize::from(state >> 4) % TAGS.len()]);
            root.set_login("ann@example.org");
            root.set_buffered(b"a1 NOOP\r\n");
            root.set_state(u32::from(state));
            let mut peer = root.init_peer();
            peer.set_ip(&[zone; 17][..usize::from(state) % 18]);
            peer.set_port(7);
            ipc::capnp::serialize::write_message_to_words(&message)
        } else {
            source.octets(length).to_vec()
        };
        if is_right && !source.is_empty() {
            let at = source.below(message.len());
            message[at] ^= source.octet();
        }
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let request = [&[KIND_HAND_OVER][..], &ipc::BuildId::OURS.to_bytes(), &message].concat();
        if connector.hand(&request, &theirs).is_none() {
            break;
        }
        sockets.push(ours);
    }
    if is_time_to_probe() {
        assert!(house().connector(Role::ImapdFront, 0, Role::Accountd).ask(1).is_some());
    }
}

/// Packets on a signing slot: nothing but a handshake is signed, and each gets one answer.
pub(crate) fn slot(input: &[u8]) {
    let mut source = Source::new(input);
    let (_connector, slot) = new_slot().expect("keyholder is there");
    while !source.is_empty() {
        // Beginnings that get further than chance does.
        let mut packet = source.octets(10).to_vec();
        match source.octet() % 4 {
            0 => packet.extend([[b' '; 64].as_slice(), TLS_1_3].concat()),
            1 => packet.extend([[7; 64].as_slice(), &[3, 0, 0x1d, 32]].concat()),
            _ => {}
        }
        let length = source.below(300);
        packet.extend(source.octets(length));
        if send(&slot, &packet, SendFlags::NOSIGNAL).is_err() {
            break;
        }
        let mut answer = [0; 1024];
        ready(&slot, PollFlags::IN, PROBE);
        let got = recv(&slot, &mut answer[..], RecvFlags::DONTWAIT);
        let got = got.map_or(0, |(_, got)| got);
        let said = answer.get(..got).unwrap_or_default();
        // None of our keys has an id that anybody could guess.
        assert!(matches!(said, [] | [b's' | b'k' | b'r']), "{said:?}");
        if !matches!(said, [b'k' | b'r']) {
            break;
        }
    }
    if is_time_to_probe() {
        assert!(new_slot().is_some());
    }
}

/// A signing slot, as a process gets one that asks again: sixteen may wait for the thread of their
/// edge, and inputs without a packet come and go faster than a busy machine wakes it.
fn new_slot() -> Option<(Connector, OwnedFd)> {
    let began = Instant::now();
    while began.elapsed() < PROBE {
        let connector = house().connector(Role::SmtpdMx, 0, Role::Keyholder);
        if let Some(slot) = connector.ask(2) {
            return Some((connector, slot));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}
