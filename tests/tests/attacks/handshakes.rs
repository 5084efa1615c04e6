//! TLS under attack: another protocol asked for, and a keyholder that is stopped or dies in the
//! middle of many handshakes.

use crate::{PASSWORD, USER};
use ipc::Role;
use mox_tests::{
    client::{Imap, Smtp},
    tls::Client,
    tree::{Tree, kill, wait_until},
};
use rustix::process::Signal;
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// A handshake is over by then, well or badly.
const PATIENCE: Duration = Duration::from_secs(20);

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// ALPACA (2021): a browser that is led to a mail server asks for HTTP by ALPN, and is refused
/// before a request can be sent.
#[test]
fn another_protocol_by_alpn_is_refused() {
    let tree = Tree::start();
    let asking = |port: u16, alpn: &[&str]| {
        let alpn = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Client { alpn, ..Client::default() }.connect(dial(tree.address(port)))
    };
    for (port, own) in [(993, "imap"), (443, "http/1.1"), (443, "h2")] {
        asking(port, &[own]).unwrap();
        asking(port, &[]).unwrap();
        for other in ["smtp", "ftp", "acme-tls/1", "imap", "h2", "http/1.1"] {
            let is_http = |name: &str| name == "h2" || name == "http/1.1";
            if other == own || (is_http(other) && is_http(own)) {
                continue;
            }
            let refused = asking(port, &[other]).unwrap_err().to_string();
            assert!(refused.contains("NoApplicationProtocol"), "{port} {other}: {refused}");
        }
        asking(port, &["unknown", own]).unwrap();
    }
}

/// CRIME (2012) and its kin: what is secret is not compressed together with what a stranger chose.
#[test]
fn nothing_is_compressed() {
    let tree = Tree::start();
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    let offered = imap.command("CAPABILITY").unwrap().text();
    assert!(offered.contains("IMAP4rev1") && !offered.contains("COMPRESS"), "{offered}");
    assert!(!imap.command("COMPRESS DEFLATE").unwrap().is_ok());
    let mut web = Client::default().connect(dial(tree.address(443))).unwrap();
    web.write_all(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip, br, zstd, deflate\r\n\
          Connection: close\r\n\r\n",
    )
    .unwrap();
    let mut answer = Vec::new();
    let _ = web.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200") && !answer.contains("content-encoding"), "{answer}");
}

/// 200 handshakes at once while keyholder is killed: each comes to an end, and the next ones work.
#[test]
fn handshakes_end_well_or_badly_when_keyholder_dies() {
    const CLIENTS: usize = 200;
    let tree = Tree::start();
    // Limits are counted by address: they come from several.
    let address = tree.address(993);
    let begun = AtomicUsize::new(0);
    let keyholder = tree.pid(Role::Keyholder, 0).unwrap();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let begun = &begun;
                scope.spawn(move || {
                    let source = std::net::Ipv4Addr::new(127, 3, u8::try_from(n).unwrap(), 1);
                    begun.fetch_add(1, Ordering::Relaxed);
                    let stream = mox_tests::wire::stream_from(source, address)?;
                    Client::default().connect(stream).map(drop)
                })
            })
            .collect();
        assert!(wait_until(PATIENCE, || begun.load(Ordering::Relaxed) >= CLIENTS / 4));
        kill(keyholder, Signal::KILL).unwrap();
        for client in clients {
            // Well or badly, but said: nobody is left waiting.
            if let Err(error) = client.join().unwrap() {
                let silent = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
                assert!(!silent, "{error}");
            }
        }
    });
    let again = || Client::default().connect(dial(address)).is_ok();
    assert!(wait_until(PATIENCE, again), "TLS does not come back");
}

/// A stopped keyholder stalls handshakes, each for a moment, and nothing that needs no signature.
#[test]
fn a_stopped_keyholder_stalls_nobody_who_is_in() {
    let tree = Tree::start();
    let mut inside = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    let mut tls = Client::default().connect(dial(tree.address(993))).unwrap();
    let keyholder = tree.pid(Role::Keyholder, 0).unwrap();
    mox_tests::tree::stop(keyholder).unwrap();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let address = tree.address(993);
            std::thread::spawn(move || Client::default().connect(dial(address)).is_ok())
        })
        .collect();
    // Meanwhile: who is in, with TLS or without, who comes in clear text, and mail that arrives.
    assert!(inside.command("NOOP").unwrap().is_ok());
    tls.write_all(b"a NOOP\r\n").unwrap();
    let mut answer = [0; 4096];
    assert!(tls.read(&mut answer).unwrap() > 0);
    let mut smtp = Smtp::connect(tree.address(25)).unwrap();
    let text = b"From: <x@example.org>\r\nSubject: x\r\n\r\nx\r\n";
    assert_eq!(smtp.send("x@example.org", &[USER], text).unwrap().code, 250);
    for client in clients {
        assert!(!client.join().unwrap(), "nobody can have signed");
    }
    kill(keyholder, Signal::CONT).unwrap();
    let again = || Client::default().connect(dial(tree.address(993))).is_ok();
    assert!(wait_until(PATIENCE, again), "TLS does not come back");
    assert_eq!(tree.pid(Role::Keyholder, 0), Some(keyholder), "it was not killed for being slow");
}
