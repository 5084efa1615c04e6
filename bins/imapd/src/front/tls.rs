//! TLS as the IMAP names: certificates from keyholder, kept up to date.

use config::slice::ImapListener;
use ipc::{
    Dialer, Limits, Line, capnp,
    schema::{keyholder_capnp::tls_door, types_capnp::watched},
    within,
};
use net::{Certificate, Certificates, NoSlot, SigningSlots, TlsAcceptor, TlsOptions};
use std::{cell::Cell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};
use tokio::sync::Notify;
use types::Clock;

/// A call to keyholder.
const SHORT: Duration = Duration::from_secs(5);
/// Between two tries while keyholder is away.
const RETRY: Duration = Duration::from_secs(1);
/// Looked at again even when nothing was said.
const LOOK: Duration = Duration::from_secs(600);
/// RFC 7301 registry.
const ALPN: &[u8] = b"imap";

/// One for each set of options a listener may have.
pub(super) struct Acceptors {
    by_options: BTreeMap<Options, TlsAcceptor>,
}

/// Whether client certificates are asked for, whether TLS 1.2 is refused.
type Options = (bool, bool);

impl Acceptors {
    pub(super) fn of(&self, listener: &ImapListener) -> Option<TlsAcceptor> {
        self.by_options.get(&(listener.client_auth, listener.only_tls_1_3)).cloned()
    }
}

pub(super) async fn acceptors(
    keyholder: Dialer,
    clock: &Arc<dyn Clock>,
) -> Result<Acceptors, rustls::Error> {
    let certificates = Certificates::new();
    let slots = SigningSlots::new({
        let keyholder = keyholder.clone();
        move || {
            let keyholder = keyholder.clone();
            async move { keyholder.slot().await.map_err(|_| NoSlot) }
        }
    });
    let mut by_options = BTreeMap::new();
    for options in [(false, false), (false, true), (true, false), (true, true)] {
        let (client_certificates, only_tls_1_3) = options;
        let tls = TlsOptions {
            client_certificates,
            only_tls_1_3,
            alpn: vec![ALPN.to_vec()],
            clock: Arc::clone(clock),
        };
        by_options.insert(options, TlsAcceptor::new(certificates.clone(), slots.clone(), tls)?);
    }
    let acceptors = Acceptors { by_options };
    let line: Line<tls_door::Client> = Line::new(keyholder, Limits::default());
    // The first look before the first client, if keyholder is there.
    let first = watch(&line).await;
    if let Some(watching) = &first {
        look(watching, &certificates).await;
    }
    tokio::task::spawn_local(keep(line, certificates, first));
    Ok(acceptors)
}

async fn keep(line: Line<tls_door::Client>, certificates: Certificates, first: Option<Watching>) {
    let mut next = first;
    loop {
        let watching = match next.take() {
            Some(watching) => watching,
            None => match watch(&line).await {
                Some(watching) => watching,
                None => {
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            },
        };
        while !watching.word.lost.get() {
            if !look(&watching, &certificates).await {
                break;
            }
            // At least a pause between two looks, however often it is said that something changed.
            tokio::time::sleep(RETRY).await;
            let _ = tokio::time::timeout(LOOK, watching.word.said.notified()).await;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// A watch at keyholder, in one of its lives.
struct Watching {
    door: tls_door::Client,
    word: Rc<Word>,
    _handle: ipc::schema::types_capnp::handle::Client,
}

#[derive(Default)]
struct Word {
    said: Notify,
    lost: Cell<bool>,
}

/// Watches; certificates are read behind it, so that no change falls between.
async fn watch(line: &Line<tls_door::Client>) -> Option<Watching> {
    let watched = async {
        let door = line.client().await?;
        let _permit = line.permit().await;
        let word = Rc::new(Word::default());
        let mut request = door.watch_request();
        request.get().set_sink(ipc::new_client(Ear(Rc::clone(&word))));
        let answer = within(SHORT, request.send().promise).await?;
        Ok::<_, ipc::Unavailable>((door, word, answer))
    };
    let (door, word, answer) = match watched.await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "certificates cannot be watched");
            return None;
        }
    };
    match answer.get().and_then(|answer| answer.get_handle()) {
        Ok(handle) => Some(Watching { door, word, _handle: handle }),
        Err(error) => {
            tracing::error!(%error, "keyholder broke its contract");
            None
        }
    }
}

/// Reads the certificates; false if they cannot be had.
async fn look(watching: &Watching, certificates: &Certificates) -> bool {
    let call = watching.door.certificates_request().send().promise;
    let Ok(answer) = within(SHORT, call).await else { return false };
    let read = || {
        let list = answer.get()?.get_list()?;
        list.iter().map(certificate).collect::<Result<Vec<_>, capnp::Error>>()
    };
    match read() {
        Ok(list) => {
            for (name, problem) in certificates.replace(list) {
                tracing::error!(name, %problem, "a certificate cannot be used");
            }
            true
        }
        Err(error) => {
            tracing::error!(%error, "keyholder broke its contract");
            false
        }
    }
}

fn certificate(from: tls_door::certificate::Reader<'_>) -> Result<Certificate, capnp::Error> {
    let names = from.get_names()?.iter().map(|name| Ok(name?.to_str()?.to_owned()));
    let chain = from.get_chain()?.iter().map(|der| Ok(der?.to_vec()));
    Ok(Certificate {
        names: names.collect::<Result<_, capnp::Error>>()?,
        chain: chain.collect::<Result<_, capnp::Error>>()?,
        key_id: from.get_key_id(),
        spki: from.get_spki()?.to_vec(),
        schemes: from.get_schemes()?.iter().collect(),
        is_default: from.get_is_default(),
    })
}

/// Hears of new certificates, and of the end of keyholder.
struct Ear(Rc<Word>);

impl Drop for Ear {
    fn drop(&mut self) {
        self.0.lost.set(true);
        self.0.said.notify_one();
    }
}

impl watched::Server for Ear {
    async fn changed(
        self: Rc<Self>,
        _: watched::ChangedParams,
        _: watched::ChangedResults,
    ) -> Result<(), capnp::Error> {
        self.0.said.notify_one();
        Ok(())
    }

    async fn revoked(
        self: Rc<Self>,
        _: watched::RevokedParams,
        _: watched::RevokedResults,
    ) -> Result<(), capnp::Error> {
        self.0.lost.set(true);
        self.0.said.notify_one();
        Ok(())
    }
}
