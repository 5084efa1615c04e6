//! keyholder as its clients see it: real connectors, real handshakes, real signatures.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

mod house;
mod kinds;

use daemon::Count;
use house::{House, greet, options, trusting};
use ipc::{
    Limits, Line, Role,
    schema::{
        control_capnp::key_control,
        keyholder_capnp::{accountd_keys, dkim_signer, host_keys, key_admin, pepper},
    },
};
use mailauth::dkim::{Algorithm, DEFAULT_SIGNED, Draft, Recipe, Selector, fields};
use net::TlsAcceptor;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::{ClientConfig, pki_types::CertificateDer};
use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::UnixStream, task::LocalSet};
use types::{Domain, UnixNanos};

const SLICE: &str = r#"{
    "hostname": "host.example.org",
    "edges": {"smtpd-mx": ["mx.example.org"], "imapd-front": ["imap.example.org"]},
    "self_signed": ["mx.example.org", "imap.example.org"],
    "limits": {"tls_alarm": 100, "tls_refuse": 1000}
}"#;

/// A client that trusts what stands in a self-signed file of keyholder's.
fn client(folder: &Path, name: &str, tls12: bool) -> Arc<ClientConfig> {
    use rustls::pki_types::pem::PemObject as _;
    let text = std::fs::read(folder.join(format!("keys/tls/{name}.pem"))).unwrap();
    trusting(CertificateDer::from_pem_slice(&text).unwrap(), tls12)
}

#[tokio::test]
async fn handshakes_through_a_keyholder_and_its_restart() {
    let place = tempfile::tempdir().unwrap();
    LocalSet::new()
        .run_until(async {
            let house = House::start(place.path(), SLICE);
            let dialer = house.dialer(Role::SmtpdMx).await;
            let acceptor = TlsAcceptor::of_edge(dialer.clone(), options()).unwrap();
            acceptor.wait_for_certificates().await;
            for tls12 in [false, true] {
                let config = client(place.path(), "mx.example.org", tls12);
                assert!(greet(&acceptor, &config, "mx.example.org").await, "TLS 1.2: {tls12}");
            }
            assert_eq!(house.figures.value(Count::Signatures), 2);
            // Another edge's certificate is not to be had here.
            let other = client(place.path(), "imap.example.org", false);
            assert!(!greet(&acceptor, &other, "imap.example.org").await);

            let config = client(place.path(), "mx.example.org", false);
            let mut many = Vec::new();
            for _ in 0..200 {
                let (acceptor, config) = (acceptor.clone(), Arc::clone(&config));
                many.push(tokio::task::spawn_local(async move {
                    greet(&acceptor, &config, "mx.example.org").await
                }));
            }
            for one in many {
                assert!(one.await.unwrap());
            }

            // keyholder dies; with it the slots. Then there is another one.
            house.running.abort();
            let _ = house.running.await;
            let next = House::start(place.path(), SLICE);
            next.wire(Role::SmtpdMx, &dialer).await;
            let mut tries = 0;
            while !greet(&acceptor, &config, "mx.example.org").await {
                tries += 1;
                assert!(tries < 10, "handshakes come back");
            }
            assert!(next.figures.value(Count::Signatures) >= 1);
        })
        .await;
}

fn request(id: u64, scheme: u16, message: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &scheme.to_be_bytes(), message].concat()
}

fn tls13() -> Vec<u8> {
    [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 32]].concat()
}

async fn ask(slot: &OwnedFd, request: Vec<u8>) -> Vec<u8> {
    let slot = rustix::io::dup(slot).unwrap();
    tokio::task::spawn_blocking(move || {
        if send(&slot, &request, SendFlags::NOSIGNAL).is_err() {
            return Vec::new();
        }
        let mut answer = vec![0; 600];
        // A slot that is closed under us is reset or at its end, whichever comes first.
        let got = recv(&slot, &mut answer[..], RecvFlags::empty()).map_or(0, |(_, got)| got);
        answer.truncate(got);
        answer
    })
    .await
    .unwrap()
}

fn key_id(folder: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(folder.join(format!("keys/tls/{name}.pem"))).unwrap();
    let pair = rcgen::KeyPair::from_pem(&text).unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki);
    u64::from_be_bytes(hash.as_ref()[..8].try_into().unwrap())
}

#[tokio::test]
async fn a_slot_signs_handshakes_of_its_edge_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    LocalSet::new()
        .run_until(async {
            let house = House::start(place.path(), SLICE);
            let slot = house.slot(Role::SmtpdMx).await;
            let mx = key_id(place.path(), "mx.example.org");
            let imap = key_id(place.path(), "imap.example.org");
            assert!(ask(&slot, request(mx, 0x0403, &tls13())).await.len() > 60);
            assert_eq!(ask(&slot, request(imap, 0x0403, &tls13())).await, b"k");
            assert_eq!(ask(&slot, request(7, 0x0403, &tls13())).await, b"k");
            assert_eq!(ask(&slot, request(mx, 0x0804, &tls13())).await, b"k");
            assert!(ask(&slot, request(mx, 0x0403, &tls13())).await.len() > 60, "still served");
            let client = {
                let mut message = tls13();
                message[73..79].copy_from_slice(b"client");
                message
            };
            for wrong in [
                request(mx, 0x0403, &client),
                request(mx, 0x0403, b"anything at all"),
                request(mx, 0x0401, &tls13()),
                request(mx, 0x0403, &[b' '; 300]),
                b"short".to_vec(),
            ] {
                let slot = house.slot(Role::SmtpdMx).await;
                assert_eq!(ask(&slot, wrong).await, b"s");
                assert_eq!(ask(&slot, request(mx, 0x0403, &tls13())).await, b"", "slot closed");
            }
            assert_eq!(house.figures.value(Count::Signatures), 2);
            assert_eq!(house.figures.value(Count::SignaturesRefused), 8);
        })
        .await;
}

/// All that is logged from here on by any thread of this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
        log
    }

    fn alarms(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains("ALARM")).map(str::to_owned).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn above_its_rate_an_edge_is_refused_and_others_are_not() {
    let log = Log::start();
    let place = tempfile::tempdir().unwrap();
    let limits = r#""tls_alarm": 1, "tls_refuse": 10, "dkim_alarm": 1, "dkim_refuse": 10,
        "pepper_alarm": 1, "pepper_refuse": 10, "admin_alarm": 3, "admin_refuse": 10"#;
    let slice = SLICE.replace(r#""tls_alarm": 100, "tls_refuse": 1000"#, limits);
    LocalSet::new()
        .run_until(async {
            let house = House::start(place.path(), &slice);
            let (mx, imap) = (house.slot(Role::SmtpdMx).await, house.slot(Role::ImapdFront).await);
            let id = key_id(place.path(), "mx.example.org");
            let mut refused = 0;
            for _ in 0..40 {
                let answer = ask(&mx, request(id, 0x0403, &tls13())).await;
                refused += u32::from(answer == b"r");
                assert!(answer == b"r" || answer.len() > 60);
            }
            assert!(refused > 0, "ten times the alarm's rate is the end");
            let id = key_id(place.path(), "imap.example.org");
            assert!(ask(&imap, request(id, 0x0403, &tls13())).await.len() > 60);

            let asker = Asker::new(&house).await;
            asker.hosted(&["example.org"]).await;
            asker.generate("example.org", "s1", false).await.unwrap();
            let signer = asker.signer("example.org").await.unwrap();
            let block = draft("example.org", "s1", Algorithm::Ed25519Sha256);
            let mut over_rate = 0;
            for _ in 0..40 {
                match sign(&signer, "s1", block.block()).await {
                    Signed::Signature(_) => {}
                    Signed::OverRate => over_rate += 1,
                    other @ (Signed::Stale | Signed::NoKey | Signed::Refused) => {
                        panic!("{other:?}")
                    }
                }
            }
            assert!(over_rate > 0);

            // Neither waits for the other, and a refusal is never an answer about a password.
            let pepper = asker.pepper().await;
            let mut overloaded = 0;
            for n in 0..60 {
                let failure = match n % 3 {
                    0 => pepper.seal_request().send().promise.await.err(),
                    1 => pepper.open_request().send().promise.await.err(),
                    _ => pepper.mac_request().send().promise.await.err(),
                };
                if let Some(failure) = failure {
                    assert_eq!(failure.kind, ipc::capnp::ErrorKind::Overloaded, "{failure}");
                    overloaded += 1;
                }
            }
            assert!(overloaded > 0);
            let mut orders = 0;
            for _ in 0..40 {
                let mut list = asker.admin.list_dkim_request();
                list.get().set_domain("example.org");
                orders += u32::from(list.send().promise.await.is_err());
            }
            assert!(orders > 0);
            let status = status(place.path()).await;
            for (what, least) in [
                ("smtpd-mx tls refused", refused),
                ("accountd dkim refused", over_rate),
                ("accountd pepper refused", overloaded),
                ("accountd admin refused", orders),
            ] {
                assert_eq!(status[what], least.to_string(), "{what}");
            }
            assert_eq!(
                house.figures.value(Count::PepperUses) + u64::from(overloaded),
                60,
                "each is counted"
            );
            let alarms = log.alarms();
            for (edge, kind) in [
                ("smtpd-mx", "TLS"),
                ("accountd", "DKIM"),
                ("accountd", "pepper"),
                ("accountd", "admin"),
            ] {
                for refused in ["false", "true"] {
                    let said = format!("edge={edge} kind=\"{kind}\" refused={refused}");
                    assert!(alarms.iter().any(|line| line.contains(&said)), "{said}: {alarms:?}");
                }
            }
        })
        .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_slot_and_stalls_nobody() {
    let place = tempfile::tempdir().unwrap();
    LocalSet::new()
        .run_until(async {
            let house = House::start(place.path(), SLICE);
            let dialer = house.dialer(Role::SmtpdMx).await;
            let (bad, good) = (dialer.slot().await.unwrap(), dialer.slot().await.unwrap());
            rustix::io::ioctl_fionbio(&good, false).unwrap();
            let id = key_id(place.path(), "mx.example.org");
            let one = request(id, 0x0403, &tls13());
            // Sends as long as it is taken, and reads nothing.
            let mut waits = 0;
            while waits < 200 {
                match send(&bad, &one, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(_) => {}
                    Err(rustix::io::Errno::AGAIN) => {
                        waits += 1;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Err(_) => break,
                }
            }
            assert!(waits < 200, "the slot was closed");
            assert!(ask(&good, one).await.len() > 60 || house.figures.value(Count::Signatures) > 9);
        })
        .await;
}

struct Asker {
    // The connector: without it keyholder takes the client for dead.
    _line: Line<accountd_keys::Client>,
    keys: accountd_keys::Client,
    admin: key_admin::Client,
}

impl Asker {
    async fn new(house: &House) -> Self {
        let line: Line<accountd_keys::Client> =
            Line::new(house.dialer(Role::Accountd).await, Limits::SHORT_CALLS);
        let keys = line.client().await.unwrap();
        let admin = keys.key_admin_request().send().promise.await.unwrap();
        let admin = admin.get().unwrap().get_admin().unwrap();
        Self { _line: line, keys, admin }
    }

    async fn hosted(&self, domains: &[&str]) {
        let mut request = self.admin.hosted_request();
        let mut list = request.get().init_domains(domains.len() as u32);
        for (at, domain) in domains.iter().enumerate() {
            list.set(at as u32, domain);
        }
        request.send().promise.await.unwrap();
    }

    async fn generate(&self, domain: &str, selector: &str, rsa: bool) -> Result<String, String> {
        let mut request = self.admin.generate_dkim_request();
        let mut params = request.get();
        params.set_domain(domain);
        params.set_selector(selector);
        params.set_algorithm(if rsa {
            key_admin::Algorithm::Rsa2048
        } else {
            key_admin::Algorithm::Ed25519
        });
        let answer = request.send().promise.await.map_err(|error| error.to_string())?;
        Ok(answer.get().unwrap().get_record().unwrap().to_string().unwrap())
    }

    async fn pepper(&self) -> pepper::Client {
        let answer = self.keys.pepper_request().send().promise.await.unwrap();
        answer.get().unwrap().get_pepper().unwrap()
    }

    async fn signer(&self, domain: &str) -> Option<dkim_signer::Client> {
        let mut request = self.keys.dkim_request();
        request.get().set_domain(domain);
        let answer = request.send().promise.await.ok()?;
        answer.get().unwrap().get_signer().ok()
    }
}

#[derive(Debug, PartialEq)]
enum Signed {
    Signature(Vec<u8>),
    Stale,
    NoKey,
    OverRate,
    Refused,
}

async fn sign(signer: &dkim_signer::Client, selector: &str, block: &[u8]) -> Signed {
    use dkim_signer::outcome::Which;
    let mut request = signer.sign_request();
    request.get().set_selector(selector);
    request.get().set_headers(block);
    let Ok(answer) = request.send().promise.await else { return Signed::Refused };
    match answer.get().unwrap().get_outcome().unwrap().which().unwrap() {
        Which::Signature(octets) => Signed::Signature(octets.unwrap().to_vec()),
        Which::StaleSelector(()) => Signed::Stale,
        Which::NoKey(()) => Signed::NoKey,
        Which::OverRate(()) => Signed::OverRate,
    }
}

fn draft(domain: &str, selector: &str, algorithm: Algorithm) -> Draft {
    let (domain, selector): (Domain, Selector) =
        (domain.parse().unwrap(), selector.parse().unwrap());
    let recipe = Recipe {
        domain: &domain,
        selector: &selector,
        algorithm,
        header: Default::default(),
        body: Default::default(),
        identity: None,
        signed: &DEFAULT_SIGNED,
        seal: true,
        time: UnixNanos::from_seconds(1_800_000_000),
        expires: None,
    };
    let header = b"From: a@example.org\r\nSubject: x\r\n";
    Draft::new(&recipe, &fields(header).unwrap(), &[7; 32]).unwrap()
}

#[tokio::test]
async fn dkim_keys_are_made_used_and_retired_for_hosted_domains_only() {
    let place = tempfile::tempdir().unwrap();
    LocalSet::new()
        .run_until(async {
            let house = House::start(place.path(), SLICE);
            let asker = Asker::new(&house).await;
            assert!(asker.signer("example.org").await.is_none(), "nothing is hosted yet");
            assert!(asker.generate("example.org", "s1", false).await.is_err());
            asker.hosted(&["example.org", "example.net"]).await;
            let record = asker.generate("example.org", "s1", false).await.unwrap();
            assert!(record.starts_with("v=DKIM1;h=sha256;k=ed25519;p="), "{record}");
            assert_eq!(asker.generate("example.org", "s1", false).await.unwrap(), record);
            assert!(asker.generate("example.org", "s1", true).await.is_err(), "another kind");
            assert!(asker.generate("example.org", "../../x", false).await.is_err());
            asker.generate("example.org", "s2", true).await.unwrap();

            let signer = asker.signer("example.org").await.unwrap();
            let ed = draft("example.org", "s1", Algorithm::Ed25519Sha256);
            let Signed::Signature(signature) = sign(&signer, "s1", ed.block()).await else {
                panic!("not signed")
            };
            let public = {
                use base64::{Engine as _, engine::general_purpose::STANDARD};
                STANDARD.decode(record.rsplit_once("p=").unwrap().1).unwrap()
            };
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, ed.block());
            aws_lc_rs::signature::UnparsedPublicKey::new(
                &aws_lc_rs::signature::ED25519,
                &public,
            )
            .verify(hash.as_ref(), &signature)
            .unwrap();
            let rsa = draft("example.org", "s2", Algorithm::RsaSha256);
            assert!(matches!(sign(&signer, "s2", rsa.block()).await, Signed::Signature(s) if s.len() == 256));

            // Other selectors, other domains, other shapes.
            assert_eq!(sign(&signer, "s3", ed.block()).await, Signed::Stale);
            assert_eq!(sign(&signer, "s2", ed.block()).await, Signed::Refused);
            let stranger = draft("example.net", "s1", Algorithm::Ed25519Sha256);
            assert_eq!(sign(&signer, "s1", stranger.block()).await, Signed::Refused);
            assert_eq!(sign(&signer, "s1", &tls13()).await, Signed::Refused);
            assert_eq!(sign(&signer, "s1", &vec![b'x'; 65_537]).await, Signed::Refused);
            let empty = asker.signer("example.net").await.unwrap();
            assert_eq!(sign(&empty, "s1", stranger.block()).await, Signed::NoKey);

            // No longer hosted: whoever holds the signer holds nothing.
            asker.hosted(&["example.net"]).await;
            assert_eq!(sign(&signer, "s1", ed.block()).await, Signed::NoKey);
            asker.hosted(&["example.org"]).await;
            assert!(matches!(sign(&signer, "s1", ed.block()).await, Signed::Signature(_)));

            let mut retire = asker.admin.retire_dkim_request();
            retire.get().set_domain("example.org");
            retire.get().set_selector("s1");
            retire.send().promise.await.unwrap();
            assert_eq!(sign(&signer, "s1", ed.block()).await, Signed::Stale);
            let described = signer.describe_request().send().promise.await.unwrap();
            let keys = described.get().unwrap().get_keys().unwrap();
            assert_eq!(keys.len(), 1);
            assert_eq!(keys.get(0).get_selector().unwrap(), "s2");
            assert_eq!(keys.get(0).get_algorithm().unwrap(), "rsa-sha256");
            assert_eq!(house.figures.value(Count::DkimSignatures), 3);
        })
        .await;
}

#[tokio::test]
async fn host_keys_sign_as_the_host_name() {
    let place = tempfile::tempdir().unwrap();
    LocalSet::new()
        .run_until(async {
            let house = House::start(place.path(), SLICE);
            let line: Line<host_keys::Client> =
                Line::new(house.dialer(Role::QueueRunner).await, Limits::SHORT_CALLS);
            let keys = line.client().await.unwrap();
            let signer = keys.dkim_request().send().promise.await.unwrap();
            let signer = signer.get().unwrap().get_signer().unwrap();
            let block = draft("host.example.org", "h", Algorithm::Ed25519Sha256);
            assert_eq!(sign(&signer, "h", block.block()).await, Signed::NoKey);
            let asker = Asker::new(&house).await;
            asker.generate("host.example.org", "h", false).await.unwrap();
            assert!(matches!(sign(&signer, "h", block.block()).await, Signed::Signature(_)));
            let other = draft("example.org", "h", Algorithm::Ed25519Sha256);
            assert_eq!(sign(&signer, "h", other.block()).await, Signed::Refused);
        })
        .await;
}

#[tokio::test]
async fn the_pepper_survives_a_restart() {
    let place = tempfile::tempdir().unwrap();
    LocalSet::new()
        .run_until(async {
            let house = House::start(place.path(), SLICE);
            let asker = Asker::new(&house).await;
            let first = asker.pepper().await;
            let mut seal = first.seal_request();
            seal.get().set_account(b"alice");
            seal.get().set_plain(b"verifier");
            let sealed = seal.send().promise.await.unwrap();
            let sealed = sealed.get().unwrap().get_sealed().unwrap().to_vec();
            let mut long = first.seal_request();
            long.get().set_plain(&[0; 4097]);
            assert!(long.send().promise.await.is_err());
            house.running.abort();

            let house = House::start(place.path(), SLICE);
            let asker = Asker::new(&house).await;
            let second = asker.pepper().await;
            for (account, ok) in [(&b"alice"[..], true), (b"bob", false)] {
                let mut open = second.open_request();
                open.get().set_account(account);
                open.get().set_sealed(&sealed);
                let answer = open.send().promise.await.unwrap();
                let outcome = answer.get().unwrap().get_outcome().unwrap();
                use pepper::opened::Which;
                match outcome.which().unwrap() {
                    Which::Plain(plain) => assert!(ok && plain.unwrap() == b"verifier"),
                    Which::Damaged(()) => assert!(!ok),
                }
            }
        })
        .await;
}

async fn control(folder: &Path) -> key_control::Client {
    let socket = UnixStream::connect(folder.join("control")).await.unwrap();
    let stream = ipc::Stream::from_unix(socket).unwrap();
    let (control, run) = ipc::connect::<key_control::Client>(stream, Limits::SHORT_CALLS);
    tokio::task::spawn_local(run);
    control
}

/// What moxctl shows.
async fn status(folder: &Path) -> BTreeMap<String, String> {
    let status = control(folder).await.status_request().send().promise.await.unwrap();
    let lines = status.get().unwrap().get_lines().unwrap();
    let text = |line: ipc::schema::types_capnp::key_value::Reader<'_>| {
        let value = String::from_utf8(line.get_value().unwrap().to_vec()).unwrap();
        (line.get_key().unwrap().to_string().unwrap(), value)
    };
    lines.iter().map(text).collect()
}

#[tokio::test]
async fn administrators_see_names_and_counts() {
    let place = tempfile::tempdir().unwrap();
    LocalSet::new()
        .run_until(async {
            let house = House::start(place.path(), SLICE);
            let asker = Asker::new(&house).await;
            asker.hosted(&["example.org"]).await;
            asker.generate("example.org", "s1", false).await.unwrap();
            let slot = house.slot(Role::SmtpdMx).await;
            let id = key_id(place.path(), "mx.example.org");
            assert!(ask(&slot, request(id, 0x0403, &tls13())).await.len() > 60);

            let control = control(place.path()).await;
            let keys = control.keys_request().send().promise.await.unwrap();
            let keys: Vec<String> = keys
                .get()
                .unwrap()
                .get_list()
                .unwrap()
                .iter()
                .map(|line| line.unwrap().to_string().unwrap())
                .collect();
            assert!(keys.iter().any(|line| line.starts_with("tls smtpd-mx")
                && line.ends_with("(default) mx.example.org")));
            assert!(keys.iter().any(|line| line.starts_with("dkim s1._domainkey.example.org v=")));
            assert_eq!(status(place.path()).await["smtpd-mx tls"], "1");
        })
        .await;
}

#[tokio::test]
async fn clients_without_a_right_find_nothing() {
    let place = tempfile::tempdir().unwrap();
    LocalSet::new()
        .run_until(async {
            let house = House::start(place.path(), SLICE);
            let outbound = house.dialer(Role::Outbound).await;
            assert!(outbound.dial().await.is_err());
            // accountd has no business with TLS keys.
            let accountd = Rc::new(house.dialer(Role::Accountd).await);
            match accountd.slot().await {
                Err(_) => {}
                Ok(slot) => {
                    let id = key_id(place.path(), "mx.example.org");
                    assert_eq!(ask(&slot, request(id, 0x0403, &tls13())).await, b"");
                }
            }
        })
        .await;
}
