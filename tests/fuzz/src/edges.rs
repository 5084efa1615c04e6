//! The bootstrap objects of all edges and control sockets, as targets: an input is a conversation
//! with the real server.

use crate::{
    house::House,
    source::Source,
    wire::{
        peer::{Connector, Peer},
        play::{is_served, play},
    },
};
use ipc::Role;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    os::unix::net::UnixStream,
    sync::OnceLock,
    time::Duration,
};

/// After so many conversations the server has to serve an honest one.
const PROBE_EVERY: u32 = 64;
/// How long that may take on a busy machine.
const PROBE: Duration = Duration::from_secs(20);

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
