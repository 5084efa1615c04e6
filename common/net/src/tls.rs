//! TLS for clients that connect to us, with keys that are in keyholder.
//!
//! A handshake has three parts:
//!
//! 1. Reading the ClientHello, on the worker. A slow client holds nothing but its connection.
//! 2. Processing it, which signs: on a blocking thread with a signing slot. It needs no octet from
//!    the client, so the thread is held for one signature, at most its deadline.
//! 3. The rest, on the worker again.
//!
//! The exception is a client whose key share is of no group of ours: it is asked for another
//! (HelloRetryRequest, RFC 8446 §4.1.4) and we sign after its second hello. Such a handshake is
//! finished on a blocking thread as a whole; since that waits for the client, few may do so at
//! once and not for long.

use crate::{
    Certificates, NoSlot, ServerTlsStream, SigningSlots,
    client_certificate::{AnyCertificate, spki_sha256},
    signing::Turn,
    tickets::Tickets,
};
use rustls::{
    HandshakeKind, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    server::{Acceptor, NoServerSessionStorage},
    version::{TLS12, TLS13},
};
use std::{fmt, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::Accept};
use types::{Clock, Domain};

/// A whole handshake (architecture §6).
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(60);
/// Handshakes with a HelloRetryRequest under way at once: half of the signing slots.
const RETRIES_AT_ONCE: usize = 4;
/// What such a client has for its second hello and the rest, while it holds a thread.
const RETRY_DEADLINE: Duration = Duration::from_secs(5);
/// RFC 9266 §2 and §4.2.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// What differs between listeners.
pub struct TlsOptions {
    /// Ask for a certificate; any is accepted and its key noted. Browsers bother people with that.
    pub client_certificates: bool,
    /// Refuse TLS 1.2.
    pub only_tls_1_3: bool,
    /// Protocols for ALPN, best first; none: the extension is not used.
    pub alpn: Vec<Vec<u8>>,
    /// For the age of ticket keys.
    pub clock: Arc<dyn Clock>,
}

/// What was agreed in a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// 0x0303 or 0x0304.
    pub version: u16,
    /// As in the IANA table.
    pub cipher_suite: u16,
    /// Channel binding `tls-exporter` (RFC 9266); only with TLS 1.3, where it is sound without
    /// further conditions.
    pub exporter: Option<[u8; 32]>,
    /// Channel binding `tls-server-end-point` (RFC 5929) of the certificate for this client.
    pub end_point: Option<Vec<u8>>,
    /// SHA-256 of the SPKI of the client's certificate, whose private key it has shown to hold.
    pub client_key: Option<[u8; 32]>,
    /// The name the client asked for.
    pub server_name: Option<Domain>,
    /// The protocol agreed on.
    pub alpn: Option<Vec<u8>>,
    /// Resumed with a ticket, so without a signature.
    pub resumed: bool,
}

/// Why there is no TLS connection. None of them concerns the next client.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The client took too long.
    #[error("TLS handshake not done in time")]
    Late,
    /// keyholder is away: a fault of ours, temporary.
    #[error(transparent)]
    NoSlot(#[from] NoSlot),
    /// The client, the network or the signer failed.
    #[error("TLS handshake failed: {0}")]
    Failed(#[from] io::Error),
}

/// Makes TLS connections of accepted ones. Cheap to clone.
#[derive(Clone)]
pub struct TlsAcceptor {
    config: Arc<ServerConfig>,
    certificates: Certificates,
    slots: SigningSlots,
    retries: Arc<Semaphore>,
}

/// Draws random numbers once. The first time, the crypto library opens a device that the sandbox
/// does not know: every process with TLS calls this before it is confined.
///
/// # Errors
/// When the machine gives none.
pub fn draw_first_random() -> Result<(), aws_lc_rs::error::Unspecified> {
    use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
    SystemRandom::new().fill(&mut [0; 32])
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl TlsAcceptor {
    /// TLS with these certificates, signed for over these slots.
    ///
    /// Acceptors of one process should be clones of one another where the options allow it: each
    /// new one has ticket keys of its own.
    ///
    /// # Errors
    /// When the crypto provider cannot do TLS 1.2 and 1.3, which would be a broken build.
    pub fn new(
        certificates: Certificates,
        slots: SigningSlots,
        options: TlsOptions,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(default_provider());
        let versions: &[_] = if options.only_tls_1_3 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?;
        let builder = if options.client_certificates {
            builder.with_client_cert_verifier(Arc::new(AnyCertificate::new(provider)))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates.clone()));
        config.alpn_protocols = options.alpn;
        // Sessions are in the tickets: no memory per client.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(Tickets::new(options.clock));
        config.send_tls13_tickets = 1;
        // Early data can be replayed (RFC 8446 §8); no protocol of ours is safe against that.
        config.max_early_data_size = 0;
        let retries = Arc::new(Semaphore::new(RETRIES_AT_ONCE));
        Ok(Self { config: Arc::new(config), certificates, slots, retries })
    }

    /// Waits until there is a certificate, so that the first client is served.
    pub async fn wait_for_certificates(&self) {
        self.certificates.wait().await;
    }

    /// Shakes hands. After STARTTLS, `stream` must come from [`crate::LineReader::into_clean`].
    ///
    /// # Errors
    /// [`TlsError`]. The stream is gone then; the client has been sent an alert where that was
    /// possible.
    pub async fn accept<S>(&self, stream: S) -> Result<(ServerTlsStream<S>, TlsFacts), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        timeout(HANDSHAKE_DEADLINE, self.shake_hands(stream)).await.map_err(|_| TlsError::Late)?
    }

    async fn shake_hands<S>(&self, stream: S) -> Result<(ServerTlsStream<S>, TlsFacts), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        self.certificates.are_there().await;
        // Not before the hello is there: a client that says nothing must not hold a slot.
        let turn = Turn::new(self.slots.lease().await?);
        let config = Arc::clone(&self.config);
        let (accept, mut turn) = blocking(move || turn.run(|| start.into_stream(config))).await?;
        let (stream, turn) = if turn.signed || turn.ticket_opened {
            turn.release();
            (accept.await?, turn)
        } else {
            self.finish_retry(accept, turn).await?
        };
        let facts = facts(&stream, &turn);
        Ok((stream, facts))
    }

    /// Nothing was signed and nothing resumed: a HelloRetryRequest, or a hello that is refused.
    async fn finish_retry<S>(
        &self,
        accept: Accept<S>,
        turn: Turn,
    ) -> Result<(ServerTlsStream<S>, Turn), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let permit = Arc::clone(&self.retries).acquire_owned().await.map_err(|_| NoSlot)?;
        let runtime = tokio::runtime::Handle::current();
        let (accepted, turn) = blocking(move || {
            let _permit = permit;
            turn.run(|| runtime.block_on(async { timeout(RETRY_DEADLINE, accept).await }))
        })
        .await?;
        Ok((accepted.map_err(|_| TlsError::Late)??, turn))
    }
}

async fn blocking<T: Send + 'static>(step: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(step).await.map_err(io::Error::other)
}

fn facts<S>(stream: &ServerTlsStream<S>, turn: &Turn) -> TlsFacts {
    let (_, connection) = stream.get_ref();
    let version = connection.protocol_version().map_or(0, u16::from);
    let exporter = (version == u16::from(TLS13.version))
        .then(|| connection.export_keying_material([0; 32], EXPORTER_LABEL, None).ok());
    let client = connection.peer_certificates().and_then(<[_]>::first);
    TlsFacts {
        version,
        cipher_suite: connection.negotiated_cipher_suite().map_or(0, |s| u16::from(s.suite())),
        exporter: exporter.flatten(),
        end_point: turn.end_point.as_ref().map(|hash| hash.to_vec()),
        client_key: client.and_then(|der| spki_sha256(der)),
        server_name: connection.server_name().and_then(|name| name.parse().ok()),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

#[cfg(test)]
mod tests;
