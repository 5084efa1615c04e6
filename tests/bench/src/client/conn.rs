//! A buffered connection in clear text or TLS, from one of many loopback addresses: servers count
//! connections and messages by where a client comes from.

use anyhow::{Context as _, bail};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpSocket,
};
use tokio_rustls::TlsConnector;

/// Octets read at once; the longest line that needs no growth.
const BUFFER: usize = 64 << 10;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Clear,
    Tls,
}

/// One connection.
pub(crate) struct Conn {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Octets that came in.
    pub(crate) received: u64,
}

/// Source addresses that differ in their upper 24 bits, so that hardly two share one of the
/// networks by which limits are counted (/32, /26, /21).
fn next_source() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(2_654_435_761);
    let n = n.wrapping_add(std::process::id().wrapping_mul(40_503));
    let [a, b, c, _] = n.to_be_bytes();
    Ipv4Addr::new(127, a, b, 2 + c % 250)
}

impl Conn {
    pub(crate) async fn open(to: SocketAddr, transport: Transport) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(next_source().into(), 0)).context("bind")?;
        let tcp = socket.connect(to).await.with_context(|| format!("connect to {to}"))?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match transport {
            Transport::Clear => Box::new(tcp),
            Transport::Tls => {
                let name = ServerName::try_from("localhost")?;
                Box::new(connector().connect(name, tcp).await.context("TLS handshake")?)
            }
        };
        Ok(Self { stream, buffer: vec![0; BUFFER], start: 0, end: 0, received: 0 })
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        let n = self.stream.read(&mut self.buffer[self.end..]).await.context("read")?;
        if n == 0 {
            bail!("the server closed the connection");
        }
        self.end += n;
        self.received += n as u64;
        Ok(())
    }

    /// One line with its end; valid until the next read.
    pub(crate) async fn line(&mut self) -> anyhow::Result<&[u8]> {
        let mut seen = 0;
        loop {
            let fresh = &self.buffer[self.start + seen..self.end];
            if let Some(at) = fresh.iter().position(|&b| b == b'\n') {
                let line = self.start..self.start + seen + at + 1;
                self.start = line.end;
                return Ok(&self.buffer[line]);
            }
            seen = self.end - self.start;
            self.fill().await?;
        }
    }

    /// Reads `n` octets and forgets them.
    pub(crate) async fn skip(&mut self, mut n: usize) -> anyhow::Result<()> {
        loop {
            let have = (self.end - self.start).min(n);
            self.start += have;
            n -= have;
            if n == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    pub(crate) async fn send(&mut self, octets: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(octets).await.context("write")?;
        self.stream.flush().await.context("flush")
    }
}

fn connector() -> TlsConnector {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        // One key exchange that all servers have: else the handshakes would not be the same work.
        let x25519 = vec![aws_lc_rs::kx_group::X25519];
        let provider = CryptoProvider { kx_groups: x25519, ..aws_lc_rs::default_provider() };
        let provider = Arc::new(provider);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has all versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    });
    TlsConnector::from(Arc::clone(config))
}

/// The servers of a benchmark have certificates of their own making: any is taken, but the
/// signatures are checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let all = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, all)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let all = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, all)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
