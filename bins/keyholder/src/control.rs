//! `KeyControl`: what an administrator may see of keyholder over its control socket. Names, public
//! records and counts; no key, and nothing can be changed here.

use crate::Server;
use ipc::{Limits, Stream, capnp, schema::control_capnp::key_control};
use std::{rc::Rc, time::Duration};
use tokio::{net::UnixListener, task::JoinSet};

/// Lines of one answer: it has to fit into one message.
const MAX_LINES: usize = 1000;
/// Connections of administrators at once.
const MAX_CONNECTIONS: usize = 8;
/// The pause after accept() failed for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// The control socket, and whose uids may use it.
pub struct Control {
    /// Where moxctl connects.
    pub listener: UnixListener,
    /// Whom it serves.
    pub uids: Vec<u32>,
}

/// Serves moxctl, for ever. Whoever is not allowed is hung up on.
pub(crate) async fn serve(server: Rc<Server>, control: Control) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(_ended) = open.join_next() => continue,
            accepted = control.listener.accept(), if open.len() < MAX_CONNECTIONS => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                let uid = socket.peer_cred().map(|peer| peer.uid());
                if !uid.as_ref().is_ok_and(|uid| control.uids.contains(uid)) {
                    tracing::warn!(?uid, "control: refused by uid");
                    continue;
                }
                if let Ok(stream) = Stream::from_unix(socket) {
                    let client: key_control::Client =
                        ipc::new_client(KeyControl(Rc::clone(&server)));
                    open.spawn_local(ipc::serve(stream, client.client, Limits::SHORT_CALLS));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "control: accept");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

struct KeyControl(Rc<Server>);

impl key_control::Server for KeyControl {
    async fn keys(
        self: Rc<Self>,
        _params: key_control::KeysParams,
        mut results: key_control::KeysResults,
    ) -> Result<(), capnp::Error> {
        let mut lines = self.0.door.describe();
        lines.extend(self.0.keys.describe());
        if lines.len() > MAX_LINES {
            let more = lines.len() - MAX_LINES;
            lines.truncate(MAX_LINES);
            lines.push(format!("and {more} more"));
        }
        let mut list = results.get().init_list(u32::try_from(lines.len()).unwrap_or_default());
        for (at, line) in (0..).zip(&lines) {
            list.set(at, line.as_str());
        }
        Ok(())
    }

    async fn status(
        self: Rc<Self>,
        _params: key_control::StatusParams,
        mut results: key_control::StatusResults,
    ) -> Result<(), capnp::Error> {
        let of_pepper = self.0.pepper_alarm.map(str::to_owned).into_iter();
        let alarms = of_pepper.chain(self.0.door.alarms(self.0.clock.now()));
        let counts = self
            .0
            .edges
            .counts()
            .into_iter()
            .flat_map(|(role, counts)| counts.rows().map(|(what, count)| (role, what, count)))
            .filter(|(.., count)| *count > 0)
            .map(|(role, what, count)| (format!("{role} {what}"), count.to_string()));
        let lines: Vec<_> =
            alarms.map(|what| ("alarm".to_owned(), what)).chain(counts).take(MAX_LINES).collect();
        let mut list = results.get().init_lines(u32::try_from(lines.len()).unwrap_or_default());
        for (at, (key, value)) in (0..).zip(&lines) {
            let mut line = list.reborrow().get(at);
            line.set_key(key.as_str());
            line.set_value(value.as_bytes());
        }
        Ok(())
    }
}
