//! Handshakes against a signer behind signing slots.

use super::*;
use crate::{Certificate, certificates::tests::made};
use rcgen::KeyPair;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustls::{
    ClientConfig, NamedGroup, RootCertStore, SignatureScheme,
    crypto::{CryptoProvider, aws_lc_rs as provider},
    pki_types::{PrivateKeyDer, ServerName},
};
use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    task::LocalSet,
};
use types::SystemClock;

/// A keyholder in small: a thread a slot, all keys good for all.
struct Signer {
    key: Arc<dyn rustls::sign::SigningKey>,
    alive: AtomicBool,
    signatures: AtomicU64,
    dials: AtomicU64,
    pause: Duration,
}

impl Signer {
    fn new(key: &KeyPair, pause: Duration) -> Arc<Self> {
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(Self {
            key: provider::sign::any_supported_type(&der).unwrap(),
            alive: AtomicBool::new(true),
            signatures: AtomicU64::new(0),
            dials: AtomicU64::new(0),
            pause,
        })
    }

    fn serve(&self, slot: &OwnedFd) {
        let mut request = [0; 300];
        while let Ok((_, got)) = recv(slot, &mut request[..], RecvFlags::empty()) {
            if got < 10 || !self.alive.load(Ordering::SeqCst) {
                return;
            }
            std::thread::sleep(self.pause);
            let scheme = SignatureScheme::from(u16::from_be_bytes([request[8], request[9]]));
            let signer = self.key.choose_scheme(&[scheme]).unwrap();
            let signature = signer.sign(&request[10..got]).unwrap();
            self.signatures.fetch_add(1, Ordering::SeqCst);
            if send(slot, &signature, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    }

    fn slots(self: &Arc<Self>) -> SigningSlots {
        let signer = Arc::clone(self);
        SigningSlots::new(move || {
            signer.dials.fetch_add(1, Ordering::SeqCst);
            let dialled = if signer.alive.load(Ordering::SeqCst) {
                let flags = SocketFlags::CLOEXEC;
                let (near, far) =
                    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
                let signer = Arc::clone(&signer);
                std::thread::spawn(move || signer.serve(&far));
                Ok(near)
            } else {
                Err(NoSlot)
            };
            async { dialled }
        })
    }
}

struct Lab {
    acceptor: TlsAcceptor,
    signer: Arc<Signer>,
    certificate: Certificate,
}

fn lab_with(pause: Duration, client_certificates: bool, alpn: &[&[u8]]) -> Lab {
    let (certificate, key) = made(&["mail.example.org"], true);
    let signer = Signer::new(&key, pause);
    let certificates = Certificates::new();
    assert_eq!(certificates.replace(vec![certificate.clone()]), []);
    let alpn = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let clock = Arc::new(SystemClock);
    let options = TlsOptions { client_certificates, only_tls_1_3: false, alpn, clock };
    let acceptor = TlsAcceptor::new(certificates, signer.slots(), options).unwrap();
    Lab { acceptor, signer, certificate }
}

fn lab() -> Lab {
    lab_with(Duration::ZERO, false, &[])
}

/// A client that knows the lab's certificate.
fn client(lab: &Lab, provider: CryptoProvider, tls12: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(lab.certificate.chain[0].clone().into()).unwrap();
    let versions: &[_] = if tls12 { &[&TLS12] } else { &[&TLS13] };
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn name() -> ServerName<'static> {
    ServerName::try_from("mail.example.org").unwrap()
}

type Connected = (io::Result<[u8; 2]>, Result<TlsFacts, TlsError>);

/// One handshake, and two octets through it.
async fn greet(lab: &Lab, config: &Arc<ClientConfig>) -> Connected {
    let (near, far) = duplex(32 * 1024);
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    tokio::join!(
        async {
            let mut stream = connector.connect(name(), near).await?;
            let mut greeting = [0; 2];
            stream.read_exact(&mut greeting).await?;
            Ok(greeting)
        },
        async {
            let (mut stream, facts) = lab.acceptor.accept(far).await?;
            stream.write_all(b"hi").await?;
            stream.flush().await?;
            // The end of the client's side: it has read the greeting and its ticket.
            let _ = stream.read(&mut [0; 1]).await;
            Ok(facts)
        }
    )
}

#[tokio::test]
async fn tls13_and_tls12_with_their_facts() {
    let lab = lab();
    for tls12 in [false, true] {
        let config = Arc::new(client(&lab, provider::default_provider(), tls12));
        let (greeting, facts) = greet(&lab, &config).await;
        let facts = facts.unwrap();
        assert_eq!(greeting.unwrap(), *b"hi");
        assert_eq!(facts.version, if tls12 { 0x0303 } else { 0x0304 });
        assert_eq!(facts.exporter.is_some(), !tls12);
        assert_eq!(facts.server_name, Some("mail.example.org".parse().unwrap()));
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &lab.certificate.chain[0]);
        assert_eq!(facts.end_point.as_deref(), Some(hash.as_ref()));
        assert!(facts.cipher_suite != 0 && !facts.resumed && facts.client_key.is_none());
    }
    assert_eq!(lab.signer.signatures.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn both_sides_see_the_same_exporter() {
    let lab = lab();
    let config = Arc::new(client(&lab, provider::default_provider(), false));
    let (near, far) = duplex(32 * 1024);
    let connector = tokio_rustls::TlsConnector::from(config);
    let (client, server) = tokio::join!(connector.connect(name(), near), lab.acceptor.accept(far));
    let theirs = client.unwrap().get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None);
    assert_eq!(server.unwrap().1.exporter, Some(theirs.unwrap()));
}

#[tokio::test]
async fn tickets_resume_without_a_signature() {
    for tls12 in [false, true] {
        let lab = lab();
        let config = Arc::new(client(&lab, provider::default_provider(), tls12));
        let (_, first) = greet(&lab, &config).await;
        let (greeting, second) = greet(&lab, &config).await;
        assert_eq!(greeting.unwrap(), *b"hi");
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(!first.resumed && second.resumed, "TLS 1.2: {tls12}");
        assert_eq!(second.end_point, first.end_point);
        assert_eq!(lab.signer.signatures.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn two_hundred_at_once_finish_while_one_dawdles() {
    // A signer that takes 2 ms: 8 slots are 4,000 a second, one after the other 500.
    let lab = lab_with(Duration::from_millis(2), false, &[]);
    LocalSet::new()
        .run_until(async move {
            // Says half a hello, and nothing more.
            let (mut dawdler, far) = duplex(1024);
            dawdler.write_all(&[22, 3, 1, 0, 200, 1, 0]).await.unwrap();
            let acceptor = lab.acceptor.clone();
            let dawdling = tokio::task::spawn_local(async move { acceptor.accept(far).await });
            let mut config = client(&lab, provider::default_provider(), false);
            config.resumption = rustls::client::Resumption::disabled();
            let config = Arc::new(config);
            let handshakes = (0..200).map(|_| greet(&lab, &config));
            let started = Instant::now();
            for (greeting, facts) in futures_join(handshakes).await {
                assert_eq!(greeting.unwrap(), *b"hi");
                assert!(!facts.unwrap().resumed);
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
            assert_eq!(lab.signer.signatures.load(Ordering::SeqCst), 200);
            assert!(lab.signer.dials.load(Ordering::SeqCst) <= 8, "slots are kept");
            assert!(!dawdling.is_finished());
            drop(dawdler);
            assert!(dawdling.await.unwrap().is_err());
        })
        .await;
}

/// All of them, interleaved, in order of their start.
async fn futures_join<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        let mut waiting = false;
        for (future, outcome) in &mut all {
            if outcome.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(done) => *outcome = Some(done),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    all.into_iter().filter_map(|(_, outcome)| outcome).collect()
}

#[tokio::test]
async fn a_busy_signer_does_not_stop_the_worker() {
    let lab = lab_with(Duration::from_millis(300), false, &[]);
    let config = Arc::new(client(&lab, provider::default_provider(), false));
    let mut ticks = 0u32;
    let handshake = greet(&lab, &config);
    tokio::pin!(handshake);
    let (greeting, _) = loop {
        tokio::select! {
            biased;
            done = &mut handshake => break done,
            () = tokio::time::sleep(Duration::from_millis(5)) => ticks += 1,
        }
    };
    assert_eq!(greeting.unwrap(), *b"hi");
    assert!(ticks >= 20, "other tasks ran {ticks} times in 300 ms");
}

#[tokio::test]
async fn a_dead_signer_fails_handshakes_and_comes_back() {
    let lab = lab();
    let mut config = client(&lab, provider::default_provider(), false);
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    assert!(greet(&lab, &config).await.1.is_ok());
    // Dies while a slot is idle: it answers no more, and no new slot is to be had.
    lab.signer.alive.store(false, Ordering::SeqCst);
    let (greeting, refused) = greet(&lab, &config).await;
    assert!(greeting.is_err() && refused.is_err());
    let (greeting, refused) = greet(&lab, &config).await;
    assert!(greeting.is_err());
    assert!(matches!(refused, Err(TlsError::NoSlot(_))));
    lab.signer.alive.store(true, Ordering::SeqCst);
    let (greeting, facts) = greet(&lab, &config).await;
    assert_eq!(greeting.unwrap(), *b"hi");
    assert!(facts.is_ok());
}

#[tokio::test]
async fn a_hello_retry_request_is_signed_off_the_worker() {
    // Its only key share is for P-256; a server that prefers nothing but X25519 asks again.
    let lab = lab_with(Duration::from_millis(100), false, &[]);
    let mut server = provider::default_provider();
    server.kx_groups = vec![provider::kx_group::X25519];
    let mut config = (*lab.acceptor.config).clone();
    let certificates = Certificates::new();
    certificates.replace(vec![lab.certificate.clone()]);
    let built = ServerConfig::builder_with_provider(Arc::new(server))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.clone_from(&built);
    let acceptor = TlsAcceptor { config: Arc::new(config), ..lab.acceptor.clone() };
    let lab = Lab { acceptor, ..lab };

    let mut both = provider::default_provider();
    both.kx_groups = vec![provider::kx_group::SECP256R1, provider::kx_group::X25519];
    let config = Arc::new(client(&lab, both, false));
    let (near, far) = duplex(32 * 1024);
    let connector = tokio_rustls::TlsConnector::from(config);
    let mut ticks = 0u32;
    let handshake =
        async { tokio::join!(connector.connect(name(), near), lab.acceptor.accept(far)) };
    tokio::pin!(handshake);
    let (client, server) = loop {
        tokio::select! {
            biased;
            done = &mut handshake => break done,
            () = tokio::time::sleep(Duration::from_millis(5)) => ticks += 1,
        }
    };
    let client = client.unwrap();
    let kind = client.get_ref().1.handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::FullWithHelloRetryRequest));
    let group = client.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519);
    assert!(server.unwrap().1.end_point.is_some());
    assert!(ticks >= 5, "the worker ran on while the signature took 100 ms: {ticks}");
}

#[tokio::test]
async fn any_client_certificate_is_taken_and_its_key_noted() {
    let lab = lab_with(Duration::ZERO, true, &[]);
    let (certificate, key) = made(&["anybody"], false);
    let mut roots = RootCertStore::empty();
    roots.add(lab.certificate.chain[0].clone().into()).unwrap();
    let expected = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certificate.spki);
    for versions in [[&TLS13], [&TLS12]] {
        let config = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(&versions)
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(
                vec![certificate.chain[0].clone().into()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        for resumed in [false, true] {
            let (_, facts) = greet(&lab, &config).await;
            let facts = facts.unwrap();
            assert_eq!(facts.resumed, resumed);
            assert_eq!(facts.client_key.as_ref().map(|k| &k[..]), Some(expected.as_ref()));
        }
    }
    let without = Arc::new(client(&lab, provider::default_provider(), false));
    assert_eq!(greet(&lab, &without).await.1.unwrap().client_key, None);
}

#[tokio::test]
async fn alpn_is_agreed_on() {
    let lab = lab_with(Duration::ZERO, false, &[b"h2", b"http/1.1"]);
    let mut config = client(&lab, provider::default_provider(), false);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (_, facts) = greet(&lab, &Arc::new(config)).await;
    assert_eq!(facts.unwrap().alpn.as_deref(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn what_is_no_tls_is_refused() {
    let lab = lab();
    for text in [&b"EHLO there\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", &[0x80, 0x2e, 1, 0, 2]] {
        let (mut near, far): (DuplexStream, _) = duplex(1024);
        near.write_all(text).await.unwrap();
        near.shutdown().await.unwrap();
        assert!(matches!(lab.acceptor.accept(far).await, Err(TlsError::Failed(_))));
    }
    // TLS 1.1 and older: an alert, no signature.
    let (mut near, far) = duplex(1024);
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0, 47, 1, 0]);
    near.write_all(&hello).await.unwrap();
    assert!(lab.acceptor.accept(far).await.is_err());
    let mut alert = [0; 7];
    near.read_exact(&mut alert).await.unwrap();
    assert_eq!(alert[0], 21, "an alert record");
    assert_eq!(lab.signer.signatures.load(Ordering::SeqCst), 0);
}
