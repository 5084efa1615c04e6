//! A face's side of its edge to keyholder: certificates that follow keyholder's, and slots.

use crate::{
    Certificate, Certificates, NoSlot, SigningSlots, TlsAcceptor, TlsOptions,
    certificates::MAX_CERTIFICATES,
};
use ipc::{
    Dialer, Limits, Line, Unavailable, capnp,
    schema::{
        keyholder_capnp::tls_door,
        types_capnp::{handle, watched},
    },
};
use std::{rc::Rc, time::Duration};
use tokio::sync::watch;

/// How long keyholder has for an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// The pause between two attempts while keyholder is away.
const PAUSE: Duration = Duration::from_millis(500);

impl TlsAcceptor {
    /// TLS for a face: certificates and signatures come over its edge to keyholder, and follow it
    /// through restarts. Needs a `LocalSet`. Until the first certificates are there, handshakes
    /// fail; [`Self::wait_for_certificates`] waits for them.
    ///
    /// Clone the acceptor for listeners with the same options.
    ///
    /// # Errors
    /// As [`TlsAcceptor::new`].
    pub fn of_edge(dialer: Dialer, options: TlsOptions) -> Result<Self, rustls::Error> {
        let certificates = Certificates::new();
        let slot_dialer = dialer.clone();
        let slots = SigningSlots::new(move || {
            let dialer = slot_dialer.clone();
            async move { dialer.slot().await.map_err(|_| NoSlot) }
        });
        tokio::task::spawn_local(follow_certificates(dialer, certificates.clone()));
        Self::new(certificates, slots, options)
    }
}

/// Keeps the table as keyholder says, for ever. For a face whose listeners share one table;
/// [`TlsAcceptor::of_edge`] does it by itself.
pub async fn follow_certificates(dialer: Dialer, certificates: Certificates) {
    let line: Line<tls_door::Client> = Line::new(dialer, Limits::SHORT_CALLS);
    loop {
        if let Err(error) = follow_once(&line, &certificates).await {
            tracing::debug!(%error, "keyholder is away; certificates stay as they are");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Follows until the connection ends.
async fn follow_once(
    line: &Line<tls_door::Client>,
    certificates: &Certificates,
) -> Result<(), Unavailable> {
    let door = line.client().await?;
    let (news, mut newest) = watch::channel(0);
    let mut request = door.watch_request();
    request.get().set_sink(ipc::new_client(Sink { news }));
    // Watching before asking: what changes in between is not missed.
    let watching = ipc::within(DEADLINE, request.send().promise).await?;
    let _held: handle::Client = watching
        .get()
        .and_then(|watching| watching.get_handle())
        .map_err(|_| Unavailable::Broken)?;
    loop {
        let answer = ipc::within(DEADLINE, door.certificates_request().send().promise).await?;
        let read = answer.get().and_then(|answer| Ok((answer.get_number(), decode(answer)?)));
        let (number, decoded) = read.map_err(|error| {
            tracing::error!(%error, "keyholder's certificates cannot be read");
            Unavailable::Broken
        })?;
        tracing::debug!(number, certificates = decoded.len(), "certificates from keyholder");
        for (name, problem) in certificates.replace(decoded) {
            tracing::error!(name, %problem, "a certificate of keyholder's cannot be used");
        }
        // What we were told of before the answer was made is in it. The sink is dropped with the
        // connection, and the wait ends.
        if newest.wait_for(|&newest| newest > number).await.is_err() {
            return Ok(());
        }
    }
}

fn decode(
    answer: tls_door::certificates_results::Reader<'_>,
) -> Result<Vec<Certificate>, capnp::Error> {
    let mut decoded = Vec::new();
    for entry in answer.get_list()?.iter().take(MAX_CERTIFICATES) {
        let mut names = Vec::new();
        for name in entry.get_names()?.iter() {
            names.push(name?.to_string()?);
        }
        let mut chain = Vec::new();
        for der in entry.get_chain()?.iter() {
            chain.push(der?.to_vec());
        }
        decoded.push(Certificate {
            names,
            chain,
            key_id: entry.get_key_id(),
            spki: entry.get_spki()?.to_vec(),
            schemes: entry.get_schemes()?.iter().collect(),
            is_default: entry.get_is_default(),
        });
    }
    Ok(decoded)
}

struct Sink {
    news: watch::Sender<u64>,
}

impl watched::Server for Sink {
    async fn changed(
        self: Rc<Self>,
        params: watched::ChangedParams,
        _results: watched::ChangedResults,
    ) -> Result<(), capnp::Error> {
        let number = params.get()?.get_number();
        self.news.send_replace(number);
        Ok(())
    }

    async fn revoked(
        self: Rc<Self>,
        _params: watched::RevokedParams,
        _results: watched::RevokedResults,
    ) -> Result<(), capnp::Error> {
        // keyholder revokes nothing: whoever lost the edge is restarted without it.
        Ok(())
    }
}
