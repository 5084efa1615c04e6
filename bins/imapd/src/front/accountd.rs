//! What front asks accountd of every connection before anybody is logged in: may it come in, and
//! which mechanisms are announced to it.

use super::{LATER, SHORT, TOO_MANY, TOO_MANY_FAILED};
use crate::peer::{Peer, Tls, TlsClass};
use ipc::{
    Dialer, Limits, Line, Unavailable,
    capnp::capability::FromClientHook,
    schema::{
        accountd_capnp::{door, front_door, gate},
        auth_capnp::authenticator,
        types_capnp::handle,
    },
    within,
};
use std::{cell::RefCell, time::Duration};
use tokio::time::timeout;

/// To come in. accountd away, or silent, for longer is BYE.
const ENTER: Duration = Duration::from_secs(1);

/// Who may connect, as accountd counts.
pub(super) enum Entry {
    /// The place in the limit is held as long as the handle is.
    Pass(#[expect(dead_code, reason = "held for its Drop")] handle::Client),
    Refused(&'static str),
}

/// What is announced to connections of one kind, before it is known whether this is one.
pub(super) struct Announced {
    class: TlsClass,
    mechanisms: Option<Vec<String>>,
}

impl Announced {
    /// The mechanisms, if they are those of `peer`'s connection.
    pub(super) fn to(self, peer: &Peer) -> Option<Vec<String>> {
        self.mechanisms.filter(|_| self.class == peer.tls.class())
    }
}

/// accountd, with the objects that every connection needs: fetched once for each of the line's.
pub(super) struct Accountd {
    line: Line<front_door::Client>,
    objects: RefCell<Option<Objects>>,
}

#[derive(Clone)]
struct Objects {
    connection: u64,
    gate: gate::Client,
    authenticator: authenticator::Client,
}

impl Accountd {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { line: Line::new(dialer, Limits::SESSIONS), objects: RefCell::new(None) }
    }

    async fn objects(&self) -> Result<Objects, Unavailable> {
        let front = self.line.client().await?;
        let connection = self.line.connections();
        let mut kept = self.objects.borrow_mut();
        if let Some(objects) = kept.as_ref().filter(|o| o.connection == connection) {
            return Ok(objects.clone());
        }
        let authenticator = front.authenticator_request().send().pipeline.get_authenticator();
        let door: door::Client = FromClientHook::new(front.into_client_hook());
        let gate = door.gate_request().send().pipeline.get_gate();
        Ok(kept.insert(Objects { connection, gate, authenticator }).clone())
    }

    /// What log-ins are made by.
    pub(super) async fn authenticator(&self) -> Result<authenticator::Client, Unavailable> {
        Ok(self.objects().await?.authenticator)
    }

    /// Asks whether `peer` may come in and, in the same breath, what is announced when its TLS turns
    /// out to be like `expected`: accountd is woken once for both.
    pub(super) async fn enter(&self, peer: &Peer, expected: Tls) -> (Entry, Announced) {
        let class = expected.class();
        let alike = Peer { tls: expected, ..peer.clone() };
        let mechanisms = timeout(ENTER, self.mechanisms(&alike));
        let (entry, mechanisms) = tokio::join!(self.gate(peer), mechanisms);
        (entry, Announced { class, mechanisms: mechanisms.ok().flatten() })
    }

    async fn gate(&self, peer: &Peer) -> Entry {
        let asked = async {
            let gate = self.objects().await?.gate;
            let _permit = self.line.permit().await;
            let mut request = gate.enter_request();
            peer.write(request.get().init_peer());
            within(ENTER, request.send().promise).await
        };
        // The turn among the short calls, too, is waited for no longer.
        let asked = timeout(ENTER, asked).await.unwrap_or(Err(Unavailable::Late));
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "gate");
                return Entry::Refused(LATER);
            }
        };
        let verdict = answer.get().and_then(|answer| answer.get_verdict());
        let pass = verdict.and_then(|verdict| {
            use gate::verdict::Which;
            Ok(match verdict.which()? {
                Which::Pass(pass) => Ok(pass?),
                Which::TooManyConnections(()) | Which::TooManyPerMinute(()) => Err(TOO_MANY),
                Which::TooManyFailedLogins(()) => Err(TOO_MANY_FAILED),
            })
        });
        match pass {
            Ok(Ok(pass)) => Entry::Pass(pass),
            Ok(Err(why)) => Entry::Refused(why),
            Err(error) => {
                tracing::error!(%error, "accountd's gate broke its contract");
                Entry::Refused(LATER)
            }
        }
    }

    /// SASL mechanisms for a connection like `peer`'s. None: accountd is away.
    pub(super) async fn mechanisms(&self, peer: &Peer) -> Option<Vec<String>> {
        let authenticator = self.authenticator().await.ok()?;
        let _permit = self.line.permit().await;
        let mut request = authenticator.mechanisms_request();
        peer.write(request.get().init_peer());
        let answer = within(SHORT, request.send().promise).await.ok()?;
        let names = answer.get().ok()?.get_names().ok()?;
        let names = names.iter().map(|name| name.ok()?.to_str().ok().map(str::to_owned));
        names.collect()
    }
}
