//! The bounded vat network: Cap'n Proto's Rust runtime has no budget of any kind, so a peer that
//! floods calls and reads no answers would make a server grow by 150 MB/s (measured). Every
//! connection of mox runs behind this guard.
//!
//! - Unsent octets above their bound stop us *reading* from the peer; 10 s of that end the
//!   connection. An honest peer that is busy catches up.
//! - Open calls and exported objects fall only by frames of the peer. Not reading would never help,
//!   and reading on for 10 s costs 1.5 GB, so passing their bound ends the connection at once. Our
//!   own clients stay far below by a semaphore ([`crate::Line::permit`]).

use crate::ledger::{Ledger, Unsent};
use capnp::{Error, capability::Promise, message};
use capnp_rpc::{
    Connection, FlowController, IncomingMessage, OutgoingMessage, VatNetwork, rpc_capnp,
    rpc_twoparty_capnp::Side,
};
use futures::AsyncWrite;
use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::Notify;

/// What one peer may make us hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls of the peer that are open at once.
    pub open_calls: usize,
    /// Objects of ours the peer holds.
    pub exports: usize,
    /// Octets we have sent and the peer has not read.
    pub unsent_octets: usize,
    /// How long unsent octets may stay above their bound.
    pub patience: Duration,
    /// The longest message, in words of 8 octets; also bounds how much of it may be read.
    pub message_words: usize,
}

impl Limits {
    /// Enough for calls of a few sessions at a time.
    pub const SHORT_CALLS: Limits = Limits {
        open_calls: 1_024,
        exports: 4_096,
        unsent_octets: 1 << 20,
        patience: Duration::from_secs(10),
        message_words: 1 << 17,
    };

    /// For an edge that carries many long-lived sessions: each holds a few objects and at most two
    /// waiting calls. 20,000 sessions of one process pass.
    pub const SESSIONS: Limits =
        Limits { open_calls: 40_960, exports: 163_840, ..Self::SHORT_CALLS };
}

impl Default for Limits {
    fn default() -> Self {
        Self::SHORT_CALLS
    }
}

/// Why a connection was ended by the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// More open calls than allowed.
    #[error("too many open calls")]
    OpenCalls,
    /// More of our objects held than allowed.
    #[error("too many objects held")]
    Exports,
    /// Did not read its answers for too long.
    #[error("does not read its answers")]
    UnreadAnswers,
}

/// What the guard knows of one connection, shared by its parts.
pub(crate) struct Meter {
    limits: Limits,
    ledger: RefCell<Ledger>,
    unsent: Unsent,
    drained: Notify,
    offence: Cell<Option<Offence>>,
    broken: Notify,
}

impl Meter {
    pub(crate) fn new(limits: Limits) -> Rc<Self> {
        Rc::new(Self {
            limits,
            ledger: RefCell::default(),
            unsent: Unsent::default(),
            drained: Notify::new(),
            offence: Cell::new(None),
            broken: Notify::new(),
        })
    }

    /// Returns when the connection has to end. The error alone does not end one whose peer does not
    /// read: the runtime wants to flush its queue first (tried: it hangs on).
    pub(crate) async fn broken(&self) -> Offence {
        loop {
            let next = self.broken.notified();
            if let Some(offence) = self.offence.get() {
                return offence;
            }
            next.await;
        }
    }

    fn end(&self, offence: Offence) -> Error {
        self.offence.set(Some(offence));
        self.broken.notify_waiters();
        Error::overloaded(offence.to_string())
    }

    fn check(&self) -> Result<(), Error> {
        let ledger = self.ledger.borrow();
        if ledger.open_calls() > self.limits.open_calls {
            return Err(self.end(Offence::OpenCalls));
        }
        if ledger.exported() > self.limits.exports {
            return Err(self.end(Offence::Exports));
        }
        Ok(())
    }

    /// Waits until the peer has read enough of what we sent.
    async fn room(&self) -> Result<(), Error> {
        if self.unsent.octets() <= self.limits.unsent_octets {
            return Ok(());
        }
        let drained = async {
            loop {
                let next = self.drained.notified();
                if self.unsent.octets() <= self.limits.unsent_octets {
                    return;
                }
                next.await;
            }
        };
        match tokio::time::timeout(self.limits.patience, drained).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.end(Offence::UnreadAnswers)),
        }
    }

    /// Books a frame of the peer.
    fn received(&self, body: capnp::any_pointer::Reader<'_>) -> Result<(), Error> {
        use rpc_capnp::message::Which;
        let mut ledger = self.ledger.borrow_mut();
        match body.get_as::<rpc_capnp::message::Reader<'_>>()?.which() {
            Ok(Which::Call(call)) => ledger.called(call?.get_question_id()),
            Ok(Which::Bootstrap(bootstrap)) => ledger.called(bootstrap?.get_question_id()),
            Ok(Which::Finish(finish)) => {
                let finish = finish?;
                ledger.finished(finish.get_question_id(), finish.get_release_result_caps());
            }
            Ok(Which::Release(release)) => {
                let release = release?;
                ledger.released(release.get_id(), release.get_reference_count());
            }
            // The other frames hold nothing of ours, and what is new to us the runtime refuses.
            Ok(_) | Err(capnp::NotInSchema(_)) => {}
        }
        Ok(())
    }

    /// Books a frame of ours.
    fn sending(&self, body: capnp::any_pointer::Reader<'_>) -> Result<(), Error> {
        use rpc_capnp::message::Which;
        let mut ledger = self.ledger.borrow_mut();
        match body.get_as::<rpc_capnp::message::Reader<'_>>()?.which() {
            Ok(Which::Return(answer)) => {
                let answer = answer?;
                if let rpc_capnp::return_::Results(results) = answer.which()? {
                    let ids = exports_of(results?)?;
                    ledger.answered(answer.get_answer_id(), &ids);
                }
            }
            Ok(Which::Call(call)) => ledger.sent(&exports_of(call?.get_params()?)?),
            Ok(Which::Resolve(resolve)) => {
                if let rpc_capnp::resolve::Cap(cap) = resolve?.which()? {
                    ledger.sent(&export_of(cap?)?.into_iter().collect::<Vec<_>>());
                }
            }
            Ok(_) | Err(capnp::NotInSchema(_)) => {}
        }
        Ok(())
    }
}

fn exports_of(payload: rpc_capnp::payload::Reader<'_>) -> Result<Vec<u32>, Error> {
    let mut ids = Vec::new();
    for cap in payload.get_cap_table()?.iter() {
        ids.extend(export_of(cap)?);
    }
    Ok(ids)
}

fn export_of(cap: rpc_capnp::cap_descriptor::Reader<'_>) -> Result<Option<u32>, Error> {
    use rpc_capnp::cap_descriptor::Which;
    Ok(match cap.which()? {
        Which::SenderHosted(id) | Which::SenderPromise(id) => Some(id),
        Which::None(())
        | Which::ReceiverHosted(_)
        | Which::ReceiverAnswer(_)
        | Which::ThirdPartyHosted(_) => None,
    })
}

/// A writer that books what the socket took.
pub(crate) struct MeteredWrite<W> {
    pub(crate) inner: W,
    pub(crate) meter: Rc<Meter>,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for MeteredWrite<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(octets)) = wrote {
            self.meter.unsent.taken(octets);
            self.meter.drained.notify_waiters();
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// A vat network behind the guard.
pub(crate) struct Guarded<N> {
    pub(crate) inner: N,
    pub(crate) meter: Rc<Meter>,
}

impl<N: VatNetwork<Side>> VatNetwork<Side> for Guarded<N> {
    fn connect(&mut self, host: Side) -> Option<Box<dyn Connection<Side>>> {
        let meter = Rc::clone(&self.meter);
        let inner = self.inner.connect(host)?;
        Some(Box::new(GuardedConnection { inner, meter }))
    }

    fn accept(&mut self) -> Promise<Box<dyn Connection<Side>>, Error> {
        let (accepted, meter) = (self.inner.accept(), Rc::clone(&self.meter));
        Promise::from_future(async move {
            let inner = accepted.await?;
            Ok(Box::new(GuardedConnection { inner, meter }) as Box<dyn Connection<Side>>)
        })
    }

    fn drive_until_shutdown(&mut self) -> Promise<(), Error> {
        self.inner.drive_until_shutdown()
    }
}

struct GuardedConnection {
    inner: Box<dyn Connection<Side>>,
    meter: Rc<Meter>,
}

impl Connection<Side> for GuardedConnection {
    fn get_peer_vat_id(&self) -> Side {
        self.inner.get_peer_vat_id()
    }

    fn new_outgoing_message(&mut self, first_segment_words: u32) -> Box<dyn OutgoingMessage> {
        Box::new(GuardedMessage {
            inner: self.inner.new_outgoing_message(first_segment_words),
            meter: Rc::clone(&self.meter),
        })
    }

    fn receive_incoming_message(&mut self) -> Promise<Option<Box<dyn IncomingMessage>>, Error> {
        let (next, meter) = (self.inner.receive_incoming_message(), Rc::clone(&self.meter));
        Promise::from_future(async move {
            meter.check()?;
            meter.room().await?;
            let Some(message) = next.await? else { return Ok(None) };
            meter.received(message.get_body()?)?;
            meter.check()?;
            Ok(Some(message))
        })
    }

    fn new_stream(&mut self) -> (Box<dyn FlowController>, Promise<(), Error>) {
        // Forwarded, or the window that was set on the network is lost.
        self.inner.new_stream()
    }

    fn shutdown(&mut self, result: capnp::Result<()>) -> Promise<(), Error> {
        self.inner.shutdown(result)
    }
}

struct GuardedMessage {
    inner: Box<dyn OutgoingMessage>,
    meter: Rc<Meter>,
}

impl OutgoingMessage for GuardedMessage {
    fn get_body(&mut self) -> capnp::Result<capnp::any_pointer::Builder<'_>> {
        self.inner.get_body()
    }

    fn get_body_as_reader(&self) -> capnp::Result<capnp::any_pointer::Reader<'_>> {
        self.inner.get_body_as_reader()
    }

    fn send(self: Box<Self>) -> (Promise<(), Error>, Rc<message::Builder<message::HeapAllocator>>) {
        // A frame of ours that cannot be read back would be a fault of the runtime; the books then
        // miss its exports, and the peer gains nothing by it.
        if let Ok(body) = self.inner.get_body_as_reader()
            && let Err(error) = self.meter.sending(body)
        {
            tracing::error!(%error, "a frame of ours could not be booked");
        }
        // The segment table is at most a few words; 8 octets are close enough for a bound.
        self.meter.unsent.add(self.inner.size_in_words() * 8 + 8);
        self.inner.send()
    }

    fn take(self: Box<Self>) -> message::Builder<message::HeapAllocator> {
        self.inner.take()
    }

    fn size_in_words(&self) -> usize {
        self.inner.size_in_words()
    }
}
