//! `TlsDoor`: the certificates of the names of one edge.

use crate::{
    certificates::{Identities, OnEdge},
    edge::KeyTable,
};
use ipc::{
    Role, capnp,
    schema::{
        keyholder_capnp::tls_door,
        types_capnp::{handle, watched},
    },
};
use std::{cell::RefCell, rc::Rc, sync::Arc};
use tokio::{sync::watch, task::AbortHandle};
use types::UnixNanos;

/// All doors.
pub(crate) struct Door {
    inner: Rc<Inner>,
}

struct Inner {
    identities: RefCell<Identities>,
    number: watch::Sender<u64>,
}

impl Door {
    pub(crate) fn new(identities: Identities) -> Self {
        let (number, _) = watch::channel(1);
        Self { inner: Rc::new(Inner { identities: RefCell::new(identities), number }) }
    }

    /// Puts others in place and tells who watches.
    pub(crate) fn replace(&self, identities: Identities) {
        *self.inner.identities.borrow_mut() = identities;
        self.inner.number.send_modify(|number| *number += 1);
    }

    /// The keys a role may sign with.
    pub(crate) fn keys_of(&self, role: Role) -> KeyTable {
        let identities = self.inner.identities.borrow();
        let on_edge = identities.of_roles.get(&role).map(Vec::as_slice).unwrap_or_default();
        on_edge.iter().map(|e| (e.identity.key.id(), Arc::clone(&e.identity.key))).collect()
    }

    /// What an administrator must look at.
    pub(crate) fn alarms(&self, now: UnixNanos) -> Vec<String> {
        self.inner.identities.borrow().alarms(now)
    }

    /// All identities in words.
    pub(crate) fn describe(&self) -> Vec<String> {
        let identities = self.inner.identities.borrow();
        let all = identities.of_roles.iter().flat_map(|(role, on_edge)| {
            on_edge.iter().map(move |entry| {
                let identity = &entry.identity;
                let default = if entry.is_default { " (default)" } else { "" };
                let names = identity.names.join(" ");
                format!("tls {role} {:016x}{default} {names}", identity.key.id())
            })
        });
        all.collect()
    }

    /// What a client of this role finds.
    pub(crate) fn client(&self, role: Role) -> capnp::capability::Client {
        let door: tls_door::Client =
            ipc::new_client(DoorOf { role, inner: Rc::clone(&self.inner) });
        door.client
    }
}

struct DoorOf {
    role: Role,
    inner: Rc<Inner>,
}

impl tls_door::Server for DoorOf {
    async fn certificates(
        self: Rc<Self>,
        _params: tls_door::CertificatesParams,
        mut results: tls_door::CertificatesResults,
    ) -> Result<(), capnp::Error> {
        let mut results = results.get();
        results.set_number(*self.inner.number.borrow());
        let identities = self.inner.identities.borrow();
        let on_edge = identities.of_roles.get(&self.role).map(Vec::as_slice).unwrap_or_default();
        let length = u32::try_from(on_edge.len()).unwrap_or_default();
        let mut list = results.init_list(length);
        for (at, entry) in (0..length).zip(on_edge) {
            encode(entry, list.reborrow().get(at));
        }
        Ok(())
    }

    async fn watch(
        self: Rc<Self>,
        params: tls_door::WatchParams,
        mut results: tls_door::WatchResults,
    ) -> Result<(), capnp::Error> {
        let sink = params.get()?.get_sink()?;
        let watching = tokio::task::spawn_local(tell(self.inner.number.subscribe(), sink));
        let held: handle::Client = ipc::new_client(Held(watching.abort_handle()));
        results.get().set_handle(held);
        Ok(())
    }
}

fn encode(entry: &OnEdge, mut to: tls_door::certificate::Builder<'_>) {
    let identity = &entry.identity;
    let count = |length: usize| u32::try_from(length).unwrap_or_default();
    let mut names = to.reborrow().init_names(count(identity.names.len()));
    for (at, name) in (0..).zip(&identity.names) {
        names.set(at, name.as_str());
    }
    let mut chain = to.reborrow().init_chain(count(identity.chain.len()));
    for (at, der) in (0..).zip(&identity.chain) {
        chain.set(at, der);
    }
    to.set_key_id(identity.key.id());
    to.set_spki(identity.key.spki());
    let schemes = identity.key.schemes();
    let mut list = to.reborrow().init_schemes(count(schemes.len()));
    for (at, &scheme) in (0..).zip(schemes) {
        list.set(at, scheme);
    }
    to.set_is_default(entry.is_default);
}

/// Tells a watcher each new number, one call at a time.
async fn tell(mut number: watch::Receiver<u64>, sink: watched::Client) {
    loop {
        let now = *number.borrow_and_update();
        let mut request = sink.changed_request();
        request.get().set_number(now);
        if request.send().promise.await.is_err() || number.changed().await.is_err() {
            return;
        }
    }
}

/// Ends a watch when the client lets go of it.
struct Held(AbortHandle);

impl handle::Server for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}
