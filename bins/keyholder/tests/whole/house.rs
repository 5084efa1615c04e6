//! A keyholder with the side of its supervisor, and clients of its TLS.

use daemon::Figures;
use ipc::{Acceptor, Dialer, Role};
use keyholder::{Control, GivenFiles, Grants};
use net::{TlsAcceptor, TlsOptions};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use std::{os::fd::OwnedFd, path::Path, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    net::UnixListener,
    sync::mpsc,
    task::JoinHandle,
};
use types::SystemClock;

/// A keyholder, and the side of its supervisor.
pub(crate) struct House {
    clients: mpsc::Sender<Acceptor>,
    pub(crate) running: JoinHandle<()>,
    pub(crate) figures: Figures,
}

impl House {
    pub(crate) fn start(folder: &Path, slice: &str) -> Self {
        Self::with(folder, slice, GivenFiles::default())
    }

    /// With certificates of the administrator.
    pub(crate) fn with(folder: &Path, slice: &str, files: GivenFiles) -> Self {
        let (clients, acceptors) = mpsc::channel(16);
        let figures = Figures::detached();
        let grants = Grants {
            slice: serde_json::from_str(slice).unwrap(),
            folder: folder.join("keys"),
            files,
            control: UnixListener::bind(folder.join("control")).ok().map(|listener| Control {
                listener,
                uids: vec![rustix::process::getuid().as_raw()],
            }),
            clients: acceptors,
            clock: Arc::new(SystemClock),
            figures,
            workers: daemon::Workers::Threads,
        };
        let running = tokio::task::spawn_local(async move {
            keyholder::run(grants).await.unwrap();
        });
        Self { clients, running, figures }
    }

    /// Wires a client.
    pub(crate) async fn wire(&self, role: Role, dialer: &Dialer) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        dialer.renew(near).unwrap();
        self.clients.send(Acceptor::from_connector(role, 0, far).unwrap()).await.unwrap();
    }

    pub(crate) async fn dialer(&self, role: Role) -> Dialer {
        let dialer = Dialer::pending();
        self.wire(role, &dialer).await;
        dialer
    }

    pub(crate) async fn slot(&self, role: Role) -> OwnedFd {
        let dialer = self.dialer(role).await;
        let slot = dialer.slot().await.unwrap();
        rustix::io::ioctl_fionbio(&slot, false).unwrap();
        slot
    }
}

pub(crate) fn options() -> TlsOptions {
    TlsOptions {
        client_certificates: false,
        only_tls_1_3: false,
        alpn: vec![],
        clock: Arc::new(SystemClock),
    }
}

/// A client that trusts this certificate, and speaks one version.
pub(crate) fn trusting(certificate: CertificateDer<'static>, tls12: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let versions: &[_] = if tls12 { &[&TLS12] } else { &[&TLS13] };
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Whether a client and a server come to an understanding.
pub(crate) async fn greet(
    acceptor: &TlsAcceptor,
    config: &Arc<ClientConfig>,
    name: &'static str,
) -> bool {
    let (near, far) = duplex(32 * 1024);
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    let (client, server) = tokio::join!(
        async {
            let name = ServerName::try_from(name).unwrap();
            let mut stream = connector.connect(name, near).await.ok()?;
            stream.read_u8().await.ok()
        },
        async {
            let (mut stream, _) = acceptor.accept(far).await.ok()?;
            stream.write_u8(7).await.ok()?;
            stream.flush().await.ok()?;
            let _ = stream.read_u8().await;
            Some(())
        }
    );
    client == Some(7) && server.is_some()
}
