//! Every kind of key that a certificate may have.

use crate::house::{House, greet, options, trusting};
use daemon::Count;
use ipc::Role;
use keyholder::GivenFiles;
use net::TlsAcceptor;
use rcgen::{KeyPair, RsaKeySize};
use tokio::task::LocalSet;

const NAME: &str = "mx.example.org";
const SLICE: &str = r#"{
    "hostname": "host.example.org",
    "edges": {"smtpd-mx": ["mx.example.org"]},
    "certificates": [{"name": "public", "roles": ["smtpd-mx"]}]
}"#;

fn files(cert: &str, key: &str) -> GivenFiles {
    let file = |what: &str, text: &str| (format!("tls/public/{what}"), text.as_bytes().to_vec());
    GivenFiles::of(vec![file("cert", cert), file("key", key)])
}

fn certified(key: &KeyPair) -> rcgen::Certificate {
    rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(key).unwrap()
}

/// Handshakes of both versions with a key of this kind.
async fn shake_hands(key: KeyPair) {
    let certificate = certified(&key);
    let files = files(&certificate.pem(), &key.serialize_pem());
    keyholder::check("public", &files).unwrap();
    let place = tempfile::tempdir().unwrap();
    LocalSet::new()
        .run_until(async {
            let house = House::with(place.path(), SLICE, files);
            let acceptor =
                TlsAcceptor::of_edge(house.dialer(Role::SmtpdMx).await, options()).unwrap();
            acceptor.wait_for_certificates().await;
            for tls12 in [false, true] {
                let client = trusting(certificate.der().clone(), tls12);
                assert!(greet(&acceptor, &client, NAME).await, "TLS 1.2: {tls12}");
            }
            assert_eq!(house.figures.value(Count::Signatures), 2);
        })
        .await;
}

#[tokio::test]
async fn rsa_of_2048_bits() {
    shake_hands(KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap())
        .await;
}

#[tokio::test]
async fn rsa_of_4096_bits() {
    shake_hands(KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA512, RsaKeySize::_4096).unwrap())
        .await;
}

#[tokio::test]
async fn ecdsa_p256() {
    shake_hands(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()).await;
}

#[tokio::test]
async fn ecdsa_p384() {
    shake_hands(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap()).await;
}

#[tokio::test]
async fn ed25519() {
    shake_hands(KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()).await;
}

/// Shorter ones are not safe, and longer ones a way to keep a core busy.
#[test]
fn rsa_of_other_lengths_is_refused() {
    let cert = certified(&KeyPair::generate().unwrap()).pem();
    for key in [include_str!("keys/rsa-1024.pem"), include_str!("keys/rsa-8192.pem")] {
        let refused = keyholder::check("public", &files(&cert, key)).unwrap_err();
        assert!(matches!(refused, daemon::PairFault::KeyKind), "{refused}");
    }
}
