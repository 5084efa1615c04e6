//! Running one Cap'n Proto connection, as its server or its client.

use crate::{
    Limits, Offence, Stream,
    gather::{Gather, Gathered},
    guard::{Guarded, Meter, MeteredWrite},
};
use capnp::{capability::FromClientHook, message::ReaderOptions};
use capnp_rpc::{Disconnector, RpcSystem, rpc_twoparty_capnp::Side, twoparty::VatNetwork};
use futures::io::BufReader;
use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};
use tokio::io::AsyncWrite;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

/// Octets a stream may have on its way unacknowledged; and the chunk size of our bodies.
const STREAM_WINDOW: usize = 64 * 1024;

/// What a socket is read in.
const BUFFER: usize = 32 * 1024;

/// How long the last frames of a connection that ends may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// How deep pointers of a message may nest.
const NESTING: i32 = 16;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The peer went away.
    Closed,
    /// The guard ended it.
    Refused(Offence),
    /// The peer sent what is no Cap'n Proto, or broke its rules.
    Broken(String),
}

/// A connection: the runtime, and what it writes on the way to the socket.
struct System {
    runtime: RpcSystem<Side>,
    meter: Rc<Meter>,
    gathered: Rc<Gathered>,
    socket: Box<dyn AsyncWrite + Unpin>,
}

fn system(
    stream: Stream,
    side: Side,
    bootstrap: Option<capnp::capability::Client>,
    limits: Limits,
) -> System {
    let meter = Meter::new(limits);
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(limits.message_words)).nesting_limit(NESTING);
    let reader = BufReader::with_capacity(BUFFER, stream.read.compat());
    let gathered = Rc::new(Gathered::default());
    let inner = Gather(Rc::clone(&gathered));
    let writer = MeteredWrite { inner, meter: Rc::clone(&meter) };
    let mut network = VatNetwork::new(reader, writer, side, options);
    network.set_window_size(STREAM_WINDOW);
    let guarded = Guarded { inner: network, meter: Rc::clone(&meter) };
    let runtime = RpcSystem::new(Box::new(guarded), bootstrap);
    System { runtime, meter, gathered, socket: stream.write }
}

/// Takes a connection apart when it ends before its time. The runtime does not do that: an object
/// of ours that holds one of the peer's holds the connection, the connection holds the object, and
/// dropped together they would stay for ever, with all else that the connection holds.
struct Parting(Disconnector<Side>);

impl Drop for Parting {
    fn drop(&mut self) {
        // The first poll does all but the shutdown of the socket, which ends with its last holder.
        // After an orderly end it finds nothing to do.
        let _ = Pin::new(&mut self.0).poll(&mut Context::from_waker(Waker::noop()));
    }
}

async fn run(system: System) -> Ended {
    let System { runtime, meter, gathered, mut socket } = system;
    let _parting = Parting(runtime.get_disconnector());
    let result = tokio::select! {
        biased;
        offence = meter.broken() => return Ended::Refused(offence),
        // The peer has closed its end.
        _ = gathered.pour(&mut socket) => return Ended::Closed,
        result = runtime => result,
    };
    // The last frame may say why. Who does not read it in time has lost nothing else.
    let _ = tokio::time::timeout(FAREWELL, gathered.pour_all(&mut socket)).await;
    match result {
        Ok(()) => Ended::Closed,
        Err(error) if is_gone(&error) => Ended::Closed,
        Err(error) => Ended::Broken(error.to_string()),
    }
}

/// Serves one connection until it ends. Everything the peer may do hangs on `bootstrap`.
pub async fn serve(stream: Stream, bootstrap: capnp::capability::Client, limits: Limits) -> Ended {
    run(system(stream, Side::Server, Some(bootstrap), limits)).await
}

/// Opens the client's side of one connection: the bootstrap capability, and the task that has to run
/// beside it. For a connection of its own kind, such as moxctl's; between processes a
/// [`crate::Line`] keeps it.
pub fn connect<C: FromClientHook>(
    stream: Stream,
    limits: Limits,
) -> (C, impl Future<Output = Ended>) {
    let mut system = system(stream, Side::Client, None, limits);
    // Once, right after new(): the runtime panics on a bootstrap after a disconnect.
    let client = system.runtime.bootstrap(Side::Server);
    (client, run(system))
}

/// Whether an error of a call means "temporary": the peer is gone or overloaded. Everything else is
/// a broken contract, ours or its.
#[must_use]
pub fn is_gone(error: &capnp::Error) -> bool {
    matches!(error.kind, capnp::ErrorKind::Disconnected | capnp::ErrorKind::Overloaded)
}
