//! TLS of a client with a certificate of its own, or protocols it asks for.

use crate::wire::Anybody;
use rustls::{
    ClientConfig, ClientConnection, StreamOwned,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use std::{io, net::TcpStream, sync::Arc};

/// A connection over TLS.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// What a client brings.
#[derive(Debug, Default)]
pub struct Client {
    /// Protocols it asks for by ALPN.
    pub alpn: Vec<Vec<u8>>,
    /// A certificate of its own and the key, both in DER; the key in PKCS#8.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl Client {
    /// Does the handshake, to its end.
    ///
    /// # Errors
    /// As socket and handshake say.
    ///
    /// # Panics
    /// When the certificate it brings cannot be used.
    pub fn connect(&self, stream: TcpStream) -> io::Result<Tls> {
        let provider = Arc::new(default_provider());
        let anybody = Arc::new(Anybody(Arc::clone(&provider)));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(anybody);
        let mut config = match &self.certificate {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::Pkcs8(key.clone().into());
                let chain = vec![CertificateDer::from(certificate.clone())];
                config.with_client_auth_cert(chain, key).expect("a key for the certificate")
            }
        };
        config.alpn_protocols.clone_from(&self.alpn);
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(connection, stream);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(tls)
    }
}
