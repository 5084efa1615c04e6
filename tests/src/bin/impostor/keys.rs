//! What an edge to keyholder gives: signatures of the shapes and names of that edge.

use crate::{Outcome, Report, orders::Orders};
use ipc::{
    Dialer, Limits, Line, Role,
    capnp::capability::FromClientHook as _,
    schema::keyholder_capnp::{accountd_keys, dkim_signer, host_keys, tls_door},
};
use std::{os::fd::OwnedFd, time::Duration};

/// ecdsa_secp256r1_sha256: what the keys of the tests can do.
const SCHEME: u16 = 0x0403;
/// A signature is longer than the octet that refuses one.
const SHORTEST: usize = 32;

/// The octets a TLS 1.3 server signs.
fn handshake() -> Vec<u8> {
    [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 32]].concat()
}

fn request(key: u64, message: &[u8]) -> Vec<u8> {
    [&key.to_be_bytes()[..], &SCHEME.to_be_bytes(), message].concat()
}

async fn ask(dialer: &Dialer, request: &[u8]) -> Outcome {
    let Ok(slot) = dialer.slot().await else { return Outcome::Broken };
    exchange(&slot, request).await
}

async fn exchange(slot: &OwnedFd, request: &[u8]) -> Outcome {
    use rustix::net::{RecvFlags, SendFlags, recv, send};
    if send(slot, request, SendFlags::NOSIGNAL).is_err() {
        return Outcome::Broken;
    }
    let mut answer = [0; 600];
    for _ in 0..2_000 {
        match recv(slot, &mut answer[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Outcome::Broken,
            Ok((_, got)) => return Outcome::when(got >= SHORTEST),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    Outcome::Broken
}

/// A face: TLS as its own names.
pub(crate) async fn as_a_face(dialer: &Dialer, role: Role, orders: &Orders, report: &Report) {
    let own = orders.keys.get(role.name()).copied().unwrap_or_default();
    report.tell("sign TLS as itself", ask(dialer, &request(own, &handshake())).await);
    for (other, key) in orders.keys.iter().filter(|(other, _)| *other != role.name()) {
        let outcome = ask(dialer, &request(*key, &handshake())).await;
        report.tell(&format!("sign TLS as {other}"), outcome);
    }
    let shapes: [(&str, &[u8]); 4] = [
        ("a client's handshake", &client_handshake()),
        ("a certificate request", &[&[0x30, 0x82, 1, 0][..], &[7; 200]].concat()),
        ("a DKIM header", b"from:ann@example.org\r\ndkim-signature:v=1; d=example.org; b="),
        ("anything", &[7; 32]),
    ];
    for (name, octets) in shapes {
        let outcome = ask(dialer, &request(own, octets)).await;
        report.tell(&format!("sign {name}"), outcome);
    }
    every_interface(dialer, orders, report).await;
}

/// Whose edge carries no slots: keyholder hangs up on who asks for one, so this comes last.
pub(crate) async fn without_a_slot(dialer: &Dialer, orders: &Orders, report: &Report) {
    for (name, key) in &orders.keys {
        let outcome = ask(dialer, &request(*key, &handshake())).await;
        report.tell(&format!("sign TLS as {name}"), Outcome::when(outcome == Outcome::Got));
    }
}

fn client_handshake() -> Vec<u8> {
    [&[b' '; 64][..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat()
}

/// Each interface that keyholder has, asked for over the one edge there is.
pub(crate) async fn every_interface(dialer: &Dialer, orders: &Orders, report: &Report) {
    let line: Line<tls_door::Client> = Line::new(dialer.clone(), Limits::SHORT_CALLS);
    let Ok(at) = line.client().await else {
        report.tell("keyholder", Outcome::Broken);
        return;
    };
    let certificates = at.certificates_request().send().promise.await;
    report.tell("TlsDoor.certificates", Outcome::of(certificates));
    let accountd: accountd_keys::Client = at.clone().cast_to();
    let pepper = accountd.pepper_request().send().promise.await;
    report.tell("AccountdKeys.pepper", Outcome::of(pepper));
    let admin = accountd.key_admin_request().send().promise.await;
    report.tell("AccountdKeys.keyAdmin", Outcome::of(admin));
    for (name, domain) in [("hosted", orders.domain.as_str()), ("other", "example.com")] {
        let mut request = accountd.dkim_request();
        request.get().set_domain(domain);
        let signer = request.send().promise.await;
        report.tell(&format!("AccountdKeys.dkim, a domain {name}"), Outcome::of(signer));
    }
    let host: host_keys::Client = at.cast_to();
    let signer = host.dkim_request().send().promise.await;
    report.tell("HostKeys.dkim", Outcome::of(signer));
}

/// Whether a signer signs this block with some selector.
pub(crate) async fn sign(signer: &dkim_signer::Client, selector: &str, block: &str) -> Outcome {
    let mut request = signer.sign_request();
    request.get().set_selector(selector);
    request.get().set_headers(block.as_bytes());
    match request.send().promise.await {
        Ok(answer) => {
            let outcome = answer.get().and_then(|answer| answer.get_outcome());
            let which = outcome.map(|outcome| outcome.which());
            Outcome::when(matches!(which, Ok(Ok(dkim_signer::outcome::Signature(Ok(_))))))
        }
        Err(error) => Outcome::of::<()>(Err(error)),
    }
}

/// A block as accountd would send it, for a domain.
pub(crate) fn block(domain: &str, selector: &str) -> String {
    let hash = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [7; 32]);
    format!(
        "from:ann@{domain}\r\ndkim-signature:v=1; d={domain}; s={selector}; a=ed25519-sha256; \
         c=relaxed/relaxed; h=from; bh={hash}; b="
    )
}
