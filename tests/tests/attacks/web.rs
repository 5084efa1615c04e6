//! HTTP under attack: streams that are reset as fast as they are opened, and requests that two
//! readers could take for different ones.

use ipc::Role;
use mox_tests::{
    tls::{Client, Tls},
    tree::Tree,
};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

fn dial(tree: &Tree, port: u16) -> TcpStream {
    let stream = TcpStream::connect(tree.address(port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn is_served(tree: &Tree) {
    let mut web = dial(tree, 80);
    web.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    web.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// GET / of localhost, by the static table of RFC 7541.
fn request() -> Vec<u8> {
    [&[0x82, 0x87, 0x84, 0x41, 9][..], b"localhost"].concat()
}

fn http2(tree: &Tree) -> Tls {
    let client = Client { alpn: vec![b"h2".to_vec()], ..Client::default() };
    let mut tls = client.connect(dial(tree, 443)).unwrap();
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    tls.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    tls.flush().unwrap();
    tls
}

/// Reads frames to the end of the connection; whether it was ended by GOAWAY.
fn goes_away(tls: &mut Tls) -> bool {
    let mut all = Vec::new();
    // An end without close_notify is an error to read, and no less an end.
    let _ = tls.read_to_end(&mut all);
    let mut rest = &all[..];
    while let Some((head, after)) = rest.split_first_chunk::<9>() {
        if head[3] == GOAWAY {
            return true;
        }
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
        rest = after.get(length..).unwrap_or_default();
    }
    false
}

/// Sends pieces until the server hangs up, at most this many; whether it did.
fn flood(tls: &mut Tls, most: u32, mut piece: impl FnMut(u32) -> Vec<u8>) -> bool {
    for n in 0..most {
        if tls.write_all(&piece(n)).and_then(|()| tls.flush()).is_err() {
            return true;
        }
    }
    false
}

/// CVE-2023-44487, and its kin of 2019 and 2024.
#[test]
fn floods_of_http2_end_their_connection_alone() {
    let tree = Tree::start();
    let web = tree.pid(Role::HttpdWeb, 0);

    // Rapid reset: each stream opened and cancelled.
    let mut tls = http2(&tree);
    let hung_up = flood(&mut tls, 20_000, |n| {
        let stream = 2 * n + 1;
        let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &request());
        [open, frame(RST_STREAM, 0, stream, &CANCEL)].concat()
    });
    assert!(hung_up || goes_away(&mut tls), "20,000 resets were taken");
    is_served(&tree);

    // A header that never ends (CVE-2024-27316): CONTINUATION without END_HEADERS.
    let mut tls = http2(&tree);
    tls.write_all(&frame(HEADERS, END_STREAM, 1, &request())).unwrap();
    let field = [&[0, 1][..], b"x", &[127, 0x81, 0x7e], &[b'y'; 16_384]].concat();
    let piece = frame(CONTINUATION, 0, 1, &field[..16_000]);
    let hung_up = flood(&mut tls, 10_000, |_| piece.clone());
    assert!(hung_up || goes_away(&mut tls), "160 MB of a header were taken");
    is_served(&tree);

    // More streams than allowed, never read.
    let mut tls = http2(&tree);
    let open = |n| frame(HEADERS, END_HEADERS, 2 * n + 1, &request());
    flood(&mut tls, 2_000, open);
    is_served(&tree);

    // Settings and pings, whose answers nobody reads.
    let mut tls = http2(&tree);
    flood(&mut tls, 20_000, |_| [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[0; 8])].concat());
    is_served(&tree);
    assert_eq!(tree.pid(Role::HttpdWeb, 0), web, "httpd is the same as before");
}

/// A request that ends in two places, depending on who reads, is one request or none.
#[test]
fn requests_are_not_smuggled() {
    let tree = Tree::start();
    let hidden = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Hidden: yes\r\n\r\n";
    let length = hidden.len();
    let chunked = format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n");
    let all = [
        // Both lengths, in both orders: the shorter reading leaves a request behind.
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n{chunked}"),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!("Content-Length: {length}, 0\r\n\r\n{hidden}"),
        format!("Content-Length: +{length}\r\n\r\n{hidden}"),
        format!("Content-Length: 0x{length:x}\r\n\r\n{hidden}"),
        format!("Content-Length : {length}\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: xchunked\r\n\r\n{chunked}"),
        format!("Transfer-Encoding: chunked, identity\r\n\r\n{chunked}"),
        format!("Transfer-Encoding : chunked\r\n\r\n{chunked}"),
        format!("Transfer-Encoding:\r\n chunked\r\n\r\n{chunked}"),
        format!("X: y\r\n\tContent-Length: {length}\r\n\r\n{hidden}"),
        format!("X: y\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!("X: y\rContent-Length: {length}\r\n\r\n{hidden}"),
        format!("X: \0\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\n\r\n0;\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\n\r\n-1\r\n{hidden}"),
    ];
    let answers = &|method: &str, rest: &str| {
        let mut web = dial(&tree, 80);
        // The connection stays open for more: what was smuggled is answered by then.
        web.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let text = format!("{method} / HTTP/1.1\r\nHost: localhost\r\n{rest}");
        web.write_all(text.as_bytes()).unwrap();
        let mut text = Vec::new();
        let _ = web.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    };
    std::thread::scope(|scope| {
        for rest in &all {
            for method in ["GET", "POST"] {
                scope.spawn(move || {
                    let text = answers(method, rest);
                    let count = text.matches("HTTP/1.1 ").count();
                    assert!(count <= 1, "{method} {rest:?}: {text}");
                });
            }
        }
    });
    // The control: two requests, one after the other, are two.
    let text = answers("GET", &format!("\r\n{hidden}"));
    assert_eq!(text.matches("HTTP/1.1 ").count(), 2, "{text}");
    is_served(&tree);
}
