//! Answers of a name server in small on loopback, in the mode that believes its AD bit.

#![expect(clippy::unwrap_used, reason = "a fault in here is a failed test")]

use dns::{Dns, Failure, Kind, Mode, Outcome, Record, Settings};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::net::UdpSocket;

/// Where the question ends, and its name in text.
fn question(query: &[u8]) -> (usize, String) {
    let (mut at, mut name) = (12, String::new());
    while query[at] != 0 {
        let len = usize::from(query[at]);
        name.push_str(std::str::from_utf8(&query[at + 1..at + 1 + len]).unwrap());
        name.push('.');
        at += 1 + len;
    }
    (at + 5, name.to_ascii_lowercase())
}

/// A record for the name asked for.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0xc0, 12];
    out.extend(kind.to_be_bytes());
    out.extend([0, 1, 0, 0, 0, 60]);
    out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
    out
}

/// The SOA that a denial carries, with a negative TTL of 60.
fn soa() -> Vec<u8> {
    let mut data = vec![0, 0];
    for n in [1_u32, 3_600, 600, 86_400, 60] {
        data.extend(n.to_be_bytes());
    }
    record(6, &data)
}

fn answer(query: &[u8]) -> Vec<u8> {
    const AD: u8 = 0x20;
    let (end, name) = question(query);
    let kind = u16::from_be_bytes([query[end - 4], query[end - 3]]);
    let txt = |text: &str| {
        let mut data = vec![u8::try_from(text.len()).unwrap()];
        data.extend(text.as_bytes());
        data
    };
    let (mut ad, mut code, mut answers, mut authority) = (AD, 0, Vec::new(), Vec::new());
    match (name.as_str(), kind) {
        ("mail.test.", 15) => {
            answers.push(record(15, &[0, 10, 3, b'm', b'x', b'1', 0xc0, 12]));
            answers.push(record(15, &[0, 5, 3, b'm', b'x', b'2', 0xc0, 12]));
        }
        ("null.test.", 15) => answers.push(record(15, &[0, 0, 0])),
        ("_dmarc.mail.test.", 16) => answers.push(record(16, &txt("v=DMARC1"))),
        ("_25._tcp.mx1.mail.test.", 52) => answers.push(record(52, &[3, 1, 1, 0xaa, 0xbb])),
        ("unsigned.test.", 1) => {
            ad = 0;
            answers.push(record(1, &[192, 0, 2, 1]));
        }
        ("7.2.0.192.in-addr.arpa.", 12) => answers.push(record(12, b"\x02mx\x04test\x00")),
        ("gone.test.", _) => {
            code = 3;
            authority.push(soa());
        }
        ("broken.test.", _) => code = 2,
        _ => authority.push(soa()),
    }
    let mut out = query[..2].to_vec();
    out.extend([0x81, 0x80 | ad | code, 0, 1]);
    out.extend(u16::try_from(answers.len()).unwrap().to_be_bytes());
    out.extend(u16::try_from(authority.len()).unwrap().to_be_bytes());
    out.extend([0, 0]);
    out.extend(&query[12..end]);
    out.extend(answers.concat());
    out.extend(authority.concat());
    out
}

async fn server() -> (SocketAddr, Arc<AtomicU32>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (socket.local_addr().unwrap(), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut query = [0; 1_500];
        loop {
            let (len, from) = socket.recv_from(&mut query).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            socket.send_to(&answer(&query[..len]), from).await.unwrap();
        }
    });
    (address, asked)
}

#[tokio::test]
async fn answers_come_as_they_were_said() {
    let (address, _) = server().await;
    let dns = Dns::new(&Settings::new(&[address], Mode::TrustAd)).unwrap();
    let mx = dns.lookup("mail.test", Kind::Mx).await;
    let exchange =
        |preference, exchange: &str| Record::Mx { preference, exchange: exchange.into() };
    let mut found = mx.records().to_vec();
    found.sort_by_key(|record| matches!(record, Record::Mx { preference: 10, .. }));
    assert_eq!(found, [exchange(5, "mx2.mail.test"), exchange(10, "mx1.mail.test")]);
    assert!(mx.authentic);
    assert_eq!((mx.ttl_seconds, mx.final_name.as_str()), (60, "mail.test"));

    let null = dns.lookup("null.test", Kind::Mx).await;
    assert_eq!(null.records(), [exchange(0, ".")]);
    let dmarc = dns.lookup("_dmarc.mail.test", Kind::Txt).await;
    assert_eq!(dmarc.records(), [Record::Txt(b"v=DMARC1".to_vec())]);
    let tlsa = dns.lookup("_25._tcp.mx1.mail.test", Kind::Tlsa).await;
    let data = vec![0xaa, 0xbb];
    assert_eq!(tlsa.records(), [Record::Tlsa { usage: 3, selector: 1, matching: 1, data }]);
    let unsigned = dns.lookup("unsigned.test", Kind::A).await;
    assert_eq!(unsigned.records(), [Record::Ip("192.0.2.1".parse().unwrap())]);
    assert!(!unsigned.authentic);
    let reverse = dns.reverse("192.0.2.7".parse().unwrap()).await;
    assert_eq!(reverse.records(), [Record::Name("mx.test".into())]);
}

#[tokio::test]
async fn absence_and_failure_are_told_apart_and_absence_is_kept() {
    let (address, asked) = server().await;
    let dns = Dns::new(&Settings::new(&[address], Mode::TrustAd)).unwrap();
    for _ in 0..3 {
        assert_eq!(dns.lookup("gone.test", Kind::Mx).await.outcome, Outcome::NoSuchName);
        assert_eq!(dns.lookup("mail.test", Kind::A).await.outcome, Outcome::NoData);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "a denial is kept for its time");
    let broken = dns.lookup("broken.test", Kind::Mx).await;
    assert_eq!(broken.outcome, Outcome::Failed(Failure::ServFail));
    let long = "x".repeat(64);
    for name in [&*format!("{long}.test"), "a..test", &"a.".repeat(200)] {
        let bad = dns.lookup(name, Kind::A).await;
        assert_eq!(bad.outcome, Outcome::Failed(Failure::BadName), "{name}");
    }
}
