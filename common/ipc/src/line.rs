//! A client's line to one server: one connection, opened when needed and again after it broke.

use crate::{Dialer, Limits, Unavailable, serve::connect};
use capnp::capability::FromClientHook;
use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

/// Short calls one client has open on an edge at once; far below what the server would refuse.
const SHORT_CALLS: usize = 64;

/// The right to have one more short call open; given back when dropped.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its Drop")] OwnedSemaphorePermit);

/// A line of bootstrap type `C`. Cheap to clone.
pub struct Line<C> {
    inner: Rc<Inner<C>>,
}

struct Inner<C> {
    dialer: Dialer,
    limits: Limits,
    now: RefCell<Option<Connected<C>>>,
    dialling: Mutex<()>,
    connections: Cell<u64>,
    short: Arc<Semaphore>,
}

struct Connected<C> {
    client: C,
    alive: Rc<Cell<bool>>,
}

impl<C> Clone for Line<C> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<C: FromClientHook + Clone + 'static> Line<C> {
    /// A line that is opened at its first use. Needs a `LocalSet`.
    #[must_use]
    pub fn new(dialer: Dialer, limits: Limits) -> Self {
        Self {
            inner: Rc::new(Inner {
                dialer,
                limits,
                now: RefCell::new(None),
                dialling: Mutex::new(()),
                connections: Cell::new(0),
                short: Arc::new(Semaphore::new(SHORT_CALLS)),
            }),
        }
    }

    /// The bootstrap capability of a living connection.
    ///
    /// # Errors
    /// [`Unavailable`] when there is none within a second.
    pub async fn client(&self) -> Result<C, Unavailable> {
        if let Some(client) = self.living() {
            return Ok(client);
        }
        // One dials, the others find its connection.
        let _turn = self.inner.dialling.lock().await;
        if let Some(client) = self.living() {
            return Ok(client);
        }
        let stream = self.inner.dialer.dial().await?;
        let (client, run) = connect::<C>(stream, self.inner.limits);
        let alive = Rc::new(Cell::new(true));
        let flag = Rc::clone(&alive);
        tokio::task::spawn_local(async move {
            let ended = run.await;
            flag.set(false);
            tracing::debug!(?ended, "a line to another process ended");
        });
        self.inner.connections.set(self.inner.connections.get() + 1);
        let kept = Connected { client: client.clone(), alive };
        *self.inner.now.borrow_mut() = Some(kept);
        Ok(client)
    }

    /// Waits for the right to have one more short call open.
    pub async fn permit(&self) -> Permit {
        let permit = Arc::clone(&self.inner.short).acquire_owned().await;
        Permit(permit.expect("the semaphore of a line is never closed"))
    }

    /// Counts the server's lives: changes when it was restarted.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.dialer.generation()
    }

    /// Counts its connections: objects of one are of no use on the next.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.inner.connections.get()
    }

    fn living(&self) -> Option<C> {
        let mut now = self.inner.now.borrow_mut();
        if now.as_ref().is_some_and(|connected| !connected.alive.get()) {
            *now = None;
        }
        now.as_ref().map(|connected| connected.client.clone())
    }
}

/// Awaits a call, but not for ever. A peer that is gone, overloaded, late or broken is one thing to
/// the caller: temporary. What it was is in the log.
///
/// # Errors
/// [`Unavailable::Late`] after `deadline`, [`Unavailable::Broken`] when the call failed.
pub async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, capnp::Error>>,
) -> Result<T, Unavailable> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            if crate::is_gone(&error) {
                tracing::debug!(%error, "a call met a peer that is gone");
            } else {
                tracing::error!(%error, "a call failed");
            }
            Err(Unavailable::Broken)
        }
        Err(_) => Err(Unavailable::Late),
    }
}
