//! Reaching the server: each vault and the supervisor on a control socket of its own.

use crate::failure::Failure;
use ipc::{Limits, Stream, capnp::capability::FromClientHook};
use std::{path::PathBuf, time::Duration};

/// How long a short call may take.
pub(crate) const SHORT: Duration = Duration::from_secs(30);

/// How long a look at a whole account may take between two signs of progress.
pub(crate) const LONG: Duration = Duration::from_secs(24 * 3_600);

/// The folder of control sockets.
pub(crate) struct Sockets(PathBuf);

impl Sockets {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The socket of this name: the role, or `moxd`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Connects to a vault and runs `work` with what it offers an administrator.
    pub(crate) fn ask<C: FromClientHook, T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(C) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let socket = daemon::orders::connect(&self.path(name))
            .map_err(|error| Failure::connecting(name, &error))?;
        socket.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let stream = Stream::from_unix(tokio::net::UnixStream::from_std(socket)?)?;
            let (client, run) = ipc::connect::<C>(stream, Limits::default());
            tokio::select! {
                biased;
                done = work(client) => done,
                // The connection's end shows in the calls; this arm only keeps it running.
                _ = async { run.await; std::future::pending::<()>().await } => unreachable!(),
            }
        })
    }
}
