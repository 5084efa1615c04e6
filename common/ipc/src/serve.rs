//! Running one Cap'n Proto connection, as its server or its client.

use crate::{
    Limits, Offence, Stream,
    guard::{Guarded, Meter, MeteredWrite},
};
use capnp::{capability::FromClientHook, message::ReaderOptions};
use capnp_rpc::{Disconnector, RpcSystem, rpc_twoparty_capnp::Side, twoparty::VatNetwork};
use futures::io::{BufReader, BufWriter};
use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Waker},
};
use tokio_util::compat::{TokioAsyncReadCompatExt as _, TokioAsyncWriteCompatExt as _};

/// Octets a stream may have on its way unacknowledged; and the chunk size of our bodies.
const STREAM_WINDOW: usize = 64 * 1024;

/// What a socket is read and written in.
const BUFFER: usize = 32 * 1024;

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

fn system(
    stream: Stream,
    side: Side,
    bootstrap: Option<capnp::capability::Client>,
    limits: Limits,
) -> (RpcSystem<Side>, Rc<Meter>) {
    let meter = Meter::new(limits);
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(limits.message_words)).nesting_limit(NESTING);
    let reader = BufReader::with_capacity(BUFFER, stream.read.compat());
    let writer = MeteredWrite {
        inner: BufWriter::with_capacity(BUFFER, stream.write.compat_write()),
        meter: Rc::clone(&meter),
    };
    let mut network = VatNetwork::new(reader, writer, side, options);
    network.set_window_size(STREAM_WINDOW);
    let guarded = Guarded { inner: network, meter: Rc::clone(&meter) };
    (RpcSystem::new(Box::new(guarded), bootstrap), meter)
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

async fn run(system: RpcSystem<Side>, meter: Rc<Meter>) -> Ended {
    let _parting = Parting(system.get_disconnector());
    tokio::select! {
        biased;
        offence = meter.broken() => Ended::Refused(offence),
        result = system => match result {
            Ok(()) => Ended::Closed,
            Err(error) if is_gone(&error) => Ended::Closed,
            Err(error) => Ended::Broken(error.to_string()),
        },
    }
}

/// Serves one connection until it ends. Everything the peer may do hangs on `bootstrap`.
pub async fn serve(stream: Stream, bootstrap: capnp::capability::Client, limits: Limits) -> Ended {
    let (system, meter) = system(stream, Side::Server, Some(bootstrap), limits);
    run(system, meter).await
}

/// Opens the client's side of one connection: the bootstrap capability, and the task that has to run
/// beside it. For a connection of its own kind, such as moxctl's; between processes a
/// [`crate::Line`] keeps it.
pub fn connect<C: FromClientHook>(
    stream: Stream,
    limits: Limits,
) -> (C, impl Future<Output = Ended>) {
    let (mut system, meter) = system(stream, Side::Client, None, limits);
    // Once, right after new(): the runtime panics on a bootstrap after a disconnect.
    let client = system.bootstrap(Side::Server);
    (client, run(system, meter))
}

/// Whether an error of a call means "temporary": the peer is gone or overloaded. Everything else is
/// a broken contract, ours or its.
#[must_use]
pub fn is_gone(error: &capnp::Error) -> bool {
    matches!(error.kind, capnp::ErrorKind::Disconnected | capnp::ErrorKind::Overloaded)
}
