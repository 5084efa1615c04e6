//! Reaching the server: each vault and the supervisor on a control socket of its own.

use crate::failure::Failure;
use daemon::orders::Order;
use ipc::{Limits, Stream, capnp::capability::FromClientHook};
use serde_json::Value;
use std::{
    cell::Cell,
    io,
    path::PathBuf,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::unix::OwnedReadHalf,
};

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

    /// Fails if the supervisor knows that a vault does not come up: the control socket is the
    /// supervisor's and takes connections that nobody answers. What the supervisor cannot say the
    /// vault itself will.
    fn check_standing(&self, name: &str) -> Result<(), Failure> {
        let told = daemon::orders::give(&self.path("moxd"), Order::Processes).unwrap_or_default();
        let why = told
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|process| process["role"] == name)
            .and_then(|process| why_down(&process));
        why.map_or(Ok(()), |why| Err(Failure::Failed(why)))
    }

    /// Connects to a vault and runs `work` with what it offers an administrator.
    pub(crate) fn ask<C: FromClientHook, T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(C) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.check_standing(name)?;
        let socket = daemon::orders::connect(&self.path(name))
            .map_err(|error| Failure::connecting(name, &error))?;
        socket.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let (read, write) = tokio::net::UnixStream::from_std(socket)?.into_split();
            let heard = Rc::new(Cell::new(false));
            let read = Listening { read, heard: Rc::clone(&heard) };
            let (client, run) = ipc::connect::<C>(Stream::new(read, write), Limits::default());
            let done = tokio::select! {
                biased;
                done = work(client) => done,
                // The connection's end shows in the calls; this arm only keeps it running.
                _ = async { run.await; std::future::pending::<()>().await } => unreachable!(),
            };
            match done {
                // The socket's mode let us in, then the vault looked at our uid and hung up.
                Err(Failure::Broken) if !heard.get() => {
                    Err(Failure::Refused("the process closed the connection".into()))
                }
                done => done,
            }
        })
    }
}

/// Why a process of the supervisor's table will not answer soon. One end is none: it is started again
/// at once.
fn why_down(process: &Value) -> Option<String> {
    let faults = process["faults"].as_u64()?;
    if process["state"] == "serving" || faults < 2 {
        return None;
    }
    let name = process["process"].as_str().unwrap_or("?");
    let end = process["last_end"].as_str().unwrap_or("?");
    Some(format!("{name} does not stay up: it died {faults} times lately, {end}"))
}

/// The server's half of a connection, with whether anything came over it.
struct Listening {
    read: OwnedReadHalf,
    heard: Rc<Cell<bool>>,
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.read).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.heard.set(true);
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dies_again_and_again_is_not_asked() {
        let process = |state: &str, faults: u64| {
            why_down(&serde_json::json!({
                "process": "accountd", "state": state, "faults": faults, "last_end": "exit 78",
            }))
        };
        assert_eq!(process("serving", 9), None);
        assert_eq!(process("waiting", 1), None);
        let why = process("waiting", 2).unwrap();
        assert_eq!(why, "accountd does not stay up: it died 2 times lately, exit 78");
        assert!(process("starting", 5).is_some());
        assert_eq!(why_down(&Value::Null), None);
    }
}
