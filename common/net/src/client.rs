//! TLS towards other servers: opportunistic or verified.

use crate::ClientTlsStream;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs::default_provider},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};
use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use types::Domain;

/// What the server has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Nothing (RFC 7435): any certificate will do, the result is noted. Helps against listeners,
    /// not against somebody in between.
    Opportunistic,
    /// A certificate for the name under our roots.
    Pkix,
}

/// What was agreed with a server.
#[derive(Debug, Clone)]
pub struct PeerFacts {
    /// 0x0303 or 0x0304.
    pub version: u16,
    /// As in the IANA table.
    pub cipher_suite: u16,
    /// The chain it sent, DER, end entity first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whether the chain verified for the name, whatever was asked for; else why not.
    pub pkix: Result<(), Error>,
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// The name cannot stand in a certificate.
    #[error("not a host name for TLS")]
    Name,
    /// The server took too long.
    #[error("TLS handshake not done in time")]
    Late,
    /// Its certificate does not verify.
    #[error("certificate refused: {0}")]
    Certificate(Error),
    /// TLS failed otherwise.
    #[error("TLS handshake failed: {0}")]
    Tls(Error),
    /// The connection broke.
    #[error("connection broke in the TLS handshake: {0}")]
    Broken(io::Error),
}

/// Makes TLS connections to servers. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    provider: Arc<CryptoProvider>,
    // None: there are no roots at all, so nothing verifies.
    pkix: Option<Arc<WebPkiServerVerifier>>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("roots", &self.pkix.is_some()).finish()
    }
}

/// The machine's certificate authorities, or the ones built in where it has none. Opens files:
/// call it before the sandbox closes.
#[must_use]
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate authority of the machine cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

impl ClientTls {
    /// Verifies under these roots.
    ///
    /// # Errors
    /// When the verifier cannot be made of them.
    pub fn new(roots: RootCertStore) -> Result<Self, rustls::server::VerifierBuilderError> {
        let provider = Arc::new(default_provider());
        let pkix = if roots.is_empty() {
            None
        } else {
            let builder =
                WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
            Some(builder.build()?)
        };
        Ok(Self { provider, pkix })
    }

    /// Shakes hands with the server called `name`, within `deadline`.
    ///
    /// Sessions are not resumed: what is verified has to be shown anew on each connection.
    ///
    /// # Errors
    /// [`ClientTlsError`].
    pub async fn connect<S>(
        &self,
        stream: S,
        name: &Domain,
        verify: Verify,
        deadline: Duration,
    ) -> Result<(ClientTlsStream<S>, PeerFacts), ClientTlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let server =
            ServerName::try_from(name.as_ascii().to_owned()).map_err(|_| ClientTlsError::Name)?;
        let witness = Arc::new(Witness {
            pkix: self.pkix.clone(),
            provider: Arc::clone(&self.provider),
            must_verify: verify == Verify::Pkix,
            seen: Mutex::default(),
        });
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(ClientTlsError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<_>)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let connected = timeout(deadline, connector.connect(server, stream)).await;
        let stream = connected.map_err(|_| ClientTlsError::Late)?.map_err(sort)?;
        let (_, connection) = stream.get_ref();
        let seen = witness.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        let facts = PeerFacts {
            version: connection.protocol_version().map_or(0, u16::from),
            cipher_suite: connection.negotiated_cipher_suite().map_or(0, |s| s.suite().into()),
            chain: connection
                .peer_certificates()
                .unwrap_or_default()
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
            pkix: seen.unwrap_or(Err(Error::NoCertificatesPresented)),
        };
        Ok((stream, facts))
    }
}

fn sort(error: io::Error) -> ClientTlsError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner @ Error::InvalidCertificate(_)) => ClientTlsError::Certificate(inner.clone()),
        Some(inner) => ClientTlsError::Tls(inner.clone()),
        None => ClientTlsError::Broken(error),
    }
}

/// Verifies, notes what came out, and insists on it where it must.
#[derive(Debug)]
struct Witness {
    pkix: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    must_verify: bool,
    seen: Mutex<Option<Result<(), Error>>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let outcome = match &self.pkix {
            Some(pkix) => pkix
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(drop),
            None => Err(Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)),
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome.clone());
        if self.must_verify {
            outcome?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // That the server holds the certificate's key is checked in both modes: without it the
    // certificate that is noted would be anybody's.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ServerConfig, pki_types::PrivateKeyDer};

    const DEADLINE: Duration = Duration::from_secs(5);

    struct Server {
        config: Arc<ServerConfig>,
        authority: CertificateDer<'static>,
    }

    /// A server for `name` under an authority of its own.
    fn server(name: &str) -> Server {
        let mut parameters = rcgen::CertificateParams::new(vec![]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let authority = parameters.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(parameters, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Server { config: Arc::new(config), authority: authority.der().clone() }
    }

    async fn connect(
        server: &Server,
        client: &ClientTls,
        name: &str,
        verify: Verify,
    ) -> Result<PeerFacts, ClientTlsError> {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let accepting = tokio_rustls::TlsAcceptor::from(Arc::clone(&server.config)).accept(far);
        let name = name.parse().unwrap();
        let (connected, _) = tokio::join!(client.connect(near, &name, verify, DEADLINE), accepting);
        connected.map(|(_, facts)| facts)
    }

    #[tokio::test]
    async fn verified_is_verified_and_opportunistic_is_noted() {
        let server = server("mx.example.org");
        let mut roots = RootCertStore::empty();
        roots.add(server.authority.clone()).unwrap();
        let knows = ClientTls::new(roots).unwrap();
        let knows_nobody = ClientTls::new(RootCertStore::empty()).unwrap();

        let facts = connect(&server, &knows, "mx.example.org", Verify::Pkix).await.unwrap();
        assert!(facts.pkix.is_ok() && facts.version == 0x0304 && facts.chain.len() == 1);
        for (client, name) in [(&knows, "mx.example.net"), (&knows_nobody, "mx.example.org")] {
            let refused = connect(&server, client, name, Verify::Pkix).await;
            assert!(matches!(refused, Err(ClientTlsError::Certificate(_))), "{name}");
            let facts = connect(&server, client, name, Verify::Opportunistic).await.unwrap();
            assert!(facts.pkix.is_err() && facts.chain.len() == 1);
        }
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_or_no_tls_ends() {
        let client = ClientTls::new(RootCertStore::empty()).unwrap();
        let name: Domain = "mx.example.org".parse().unwrap();
        let soon = Duration::from_millis(20);
        let (near, _far) = tokio::io::duplex(1024);
        let silent = client.connect(near, &name, Verify::Opportunistic, soon).await;
        assert!(matches!(silent, Err(ClientTlsError::Late)));
        let (near, mut far) = tokio::io::duplex(1024);
        tokio::io::AsyncWriteExt::write_all(&mut far, b"454 no TLS now\r\n").await.unwrap();
        drop(far);
        let plain = client.connect(near, &name, Verify::Opportunistic, DEADLINE).await;
        assert!(matches!(plain, Err(ClientTlsError::Tls(_) | ClientTlsError::Broken(_))));
    }

    #[test]
    fn this_machine_has_roots() {
        assert!(!system_roots().is_empty());
    }
}
