//! httpd over loopback, with a keyholder in small behind it.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use daemon::{Count, Figures, Stop, Stopper};
use http_body_util::{BodyExt as _, Empty};
use httpd::{Grants, Side};
use hyper::{Request, body::Bytes};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ipc::{
    Acceptor, Dialer, Incoming, Limits, Role, capnp,
    schema::{keyholder_capnp::tls_door, types_capnp::handle},
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustls::{
    ClientConfig, RootCertStore, SignatureScheme,
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use std::{
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    task::{JoinHandle, LocalSet},
};
use types::SystemClock;

/// A keyholder in small: one certificate, and a thread for each slot.
struct SmallKeyholder {
    certificate: CertificateDer<'static>,
    key: Arc<dyn rustls::sign::SigningKey>,
    spki: Vec<u8>,
}

impl SmallKeyholder {
    fn new() -> Rc<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["mail.example.org".to_owned()]).unwrap();
        let der = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&made.signing_key);
        let certificate = made.cert.der().clone();
        Rc::new(Self { certificate, key: any_supported_type(&der).unwrap(), spki })
    }

    /// Serves an edge; gives its client's end.
    fn edge(self: &Rc<Self>) -> Dialer {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let mut acceptor = Acceptor::from_connector(Role::HttpdWeb, 0, far).unwrap();
        let keyholder = Rc::clone(self);
        tokio::task::spawn_local(async move {
            while let Some(incoming) = acceptor.accept().await {
                match incoming {
                    Incoming::Rpc(stream) => {
                        let door: tls_door::Client = ipc::new_client(Door(Rc::clone(&keyholder)));
                        tokio::task::spawn_local(ipc::serve(
                            stream,
                            door.client,
                            Limits::SHORT_CALLS,
                        ));
                    }
                    Incoming::Slot(slot) => {
                        rustix::io::ioctl_fionbio(&slot, false).unwrap();
                        let key = Arc::clone(&keyholder.key);
                        std::thread::spawn(move || {
                            let mut request = [0; 300];
                            while let Ok((_, got @ 10..)) =
                                recv(&slot, &mut request[..], RecvFlags::empty())
                            {
                                let scheme = u16::from_be_bytes([request[8], request[9]]);
                                let signer =
                                    key.choose_scheme(&[SignatureScheme::from(scheme)]).unwrap();
                                let signature = signer.sign(&request[10..got]).unwrap();
                                send(&slot, &signature, SendFlags::NOSIGNAL).unwrap();
                            }
                        });
                    }
                    Incoming::HandOver(_) => panic!("a hand-over"),
                }
            }
        });
        Dialer::from_connector(near).unwrap()
    }
}

struct Door(Rc<SmallKeyholder>);

struct Held;

impl handle::Server for Held {}

impl tls_door::Server for Door {
    async fn certificates(
        self: Rc<Self>,
        _: tls_door::CertificatesParams,
        mut results: tls_door::CertificatesResults,
    ) -> Result<(), capnp::Error> {
        let mut entry = results.get().init_list(1).get(0);
        entry.reborrow().init_names(1).set(0, "mail.example.org");
        entry.reborrow().init_chain(1).set(0, &self.0.certificate);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.0.spki);
        entry.set_key_id(u64::from_be_bytes(hash.as_ref()[..8].try_into().unwrap()));
        entry.set_spki(&self.0.spki);
        entry.reborrow().init_schemes(1).set(0, 0x0403);
        entry.set_is_default(true);
        Ok(())
    }

    async fn watch(
        self: Rc<Self>,
        _: tls_door::WatchParams,
        mut results: tls_door::WatchResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_handle(ipc::new_client(Held));
        Ok(())
    }
}

struct Web {
    clear: SocketAddr,
    tls: SocketAddr,
    keyholder: Rc<SmallKeyholder>,
    figures: Figures,
    stopper: Stopper,
    running: JoinHandle<()>,
}

fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A web role with a clear and a TLS service. `limits` are fields of `limits::Http`.
fn web(limits: &str) -> Web {
    let slice = format!(
        r#"{{"hostname": "mail.example.org",
             "listeners": [{{"name": "public/http", "rate_limit": true,
                             "hostname": "mail.example.org"}},
                           {{"name": "public/https", "tls": true,
                             "hostname": "mail.example.org"}}],
             "mail": [{{"imap": true, "host": "imap.example.org", "port": 993,
                        "implicit_tls": true}}],
             "limits": {{{limits}}}}}"#
    );
    let ((clear_socket, clear), (tls_socket, tls)) = (bind(), bind());
    let keyholder = SmallKeyholder::new();
    let figures = Figures::detached();
    let (stopper, stop) = Stop::new();
    let (_, peer_figures) = mpsc::channel(1);
    let grants = Grants {
        side: Side::Web,
        slice: serde_json::from_str(&slice).unwrap(),
        listeners: vec![
            ("public/http".to_owned(), clear_socket),
            ("public/https".to_owned(), tls_socket),
        ],
        keyholder: Some(keyholder.edge()),
        accountd: None,
        peer_figures,
        figures,
        clock: Arc::new(SystemClock),
        stop,
    };
    let running = tokio::task::spawn_local(async move { httpd::run(grants).await.unwrap() });
    Web { clear, tls, keyholder, figures, stopper, running }
}

/// Sends a text and reads to the end.
async fn talk(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: mail.example.org\r\nConnection: close\r\n{more}\r\n")
}

async fn connect_tls(web: &Web, alpn: &[&[u8]]) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(web.keyholder.certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    loop {
        let stream = TcpStream::connect(web.tls).await.unwrap();
        let name = ServerName::try_from("mail.example.org").unwrap();
        match connector.connect(name, stream).await {
            Ok(stream) => return stream,
            // Until the first certificates are there.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[tokio::test]
async fn pages_in_clear_text() {
    LocalSet::new()
        .run_until(async {
            let web = web("");
            let page = talk(web.clear, &get("/", "")).await;
            assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
            assert!(page.contains("imap.example.org") && page.contains("x-frame-options: DENY"));
            let head = talk(web.clear, &get("/", "").replace("GET", "HEAD")).await;
            let length = |answer: &str| {
                let lines = answer.lines();
                lines.filter_map(|l| l.strip_prefix("content-length: ")).next().unwrap().to_owned()
            };
            assert_eq!(length(&head), length(&page));
            assert!(head.ends_with("\r\n\r\n"));
            assert!(talk(web.clear, &get("/healthz", "")).await.ends_with("\r\n\r\nok\n"));
            assert!(talk(web.clear, &get("/nothing", "")).await.starts_with("HTTP/1.1 404"));
            let post = get("/", "Content-Length: 3\r\n").replace("GET", "POST") + "a=b";
            assert!(talk(web.clear, &post).await.starts_with("HTTP/1.1 405"));
            assert!(talk(web.clear, "rubbish\r\n\r\n").await.starts_with("HTTP/1.1 400"));
            let hosts = get("/", "Host: evil.example\r\n");
            assert!(talk(web.clear, &hosts).await.starts_with("HTTP/1.1 400"));
            assert!(talk(web.clear, &get("*", "")).await.starts_with("HTTP/1.1 400"));
            // Two requests at once are two answers.
            let two = get("/healthz", "").replace("close", "keep-alive") + &get("/healthz", "");
            assert_eq!(talk(web.clear, &two).await.matches("HTTP/1.1 200").count(), 2);
            // No HTTP/2 in the clear.
            let preface = talk(web.clear, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            assert!(!preface.starts_with("HTTP/1.1 200"), "{preface}");
            assert!(web.figures.value(Count::HttpRequests) >= 7);
            assert_eq!(web.figures.value(Count::HttpErrors), 0);
        })
        .await;
}

#[tokio::test]
async fn too_much_of_a_header_and_too_slow() {
    LocalSet::new()
        .run_until(async {
            let web = web(r#""header": {"secs": 0, "nanos": 200000000}, "header_octets": 8192"#);
            let long = format!("X-Long: {}\r\n", "x".repeat(20_000));
            assert!(talk(web.clear, &get("/", &long)).await.starts_with("HTTP/1.1 431"));
            let many = "A: b\r\n".repeat(200);
            assert!(talk(web.clear, &get("/", &many)).await.starts_with("HTTP/1.1 431"));
            let started = Instant::now();
            talk(web.clear, "GET / HTTP/1.1\r\nHost: mail.exa").await;
            assert!(started.elapsed() < Duration::from_secs(5), "the slow one was cut off");
            // A connection that says nothing at all, too.
            talk(web.clear, "").await;
            assert!(started.elapsed() < Duration::from_secs(5));
        })
        .await;
}

#[tokio::test]
async fn tls_with_http2_and_http1() {
    LocalSet::new()
        .run_until(async {
            let web = web("");
            let stream = connect_tls(&web, &[b"h2", b"http/1.1"]).await;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let (mut sender, connection) = hyper::client::conn::http2::handshake::<
                _,
                _,
                Empty<Bytes>,
            >(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
            tokio::task::spawn_local(connection);
            for (method, path, status) in
                [("GET", "/", 200), ("HEAD", "/", 200), ("GET", "/x", 404), ("PUT", "/", 405)]
            {
                let request = Request::builder()
                    .method(method)
                    .uri(format!("https://mail.example.org{path}"))
                    .body(Empty::new())
                    .unwrap();
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.status().as_u16(), status, "{method} {path}");
                let declared: usize =
                    response.headers()["content-length"].to_str().unwrap().parse().unwrap();
                assert!(declared > 0);
                let body = response.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body.len(), if method == "HEAD" { 0 } else { declared });
            }
            let mut stream = connect_tls(&web, &[b"http/1.1"]).await;
            stream.write_all(get("/", "").as_bytes()).await.unwrap();
            let mut page = String::new();
            let _ = stream.read_to_string(&mut page).await;
            assert!(page.starts_with("HTTP/1.1 200") && page.contains("imap.example.org"));
            assert!(web.figures.value(Count::TlsHandshakes) >= 2);
        })
        .await;
}

#[tokio::test]
async fn limits_of_requests_and_connections() {
    LocalSet::new()
        .run_until(async {
            let web = web(r#""requests_per_minute": [3, 100, 100], "connections": 2"#);
            for _ in 0..3 {
                assert!(talk(web.clear, &get("/", "")).await.starts_with("HTTP/1.1 200"));
            }
            let refused = talk(web.clear, &get("/", "")).await;
            assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after: 60"));
            // Without a proxy that is believed the field is nobody's business.
            let forged = get("/", "X-Forwarded-For: 192.0.2.1\r\n");
            assert!(talk(web.clear, &forged).await.starts_with("HTTP/1.1 429"));
            let held = [
                TcpStream::connect(web.clear).await.unwrap(),
                TcpStream::connect(web.clear).await.unwrap(),
            ];
            let waiting = talk(web.clear, "GET /healthz HTTP/1.0\r\n\r\n");
            tokio::pin!(waiting);
            let soon = Duration::from_millis(100);
            assert!(tokio::time::timeout(soon, &mut waiting).await.is_err(), "no place");
            drop(held);
            waiting.await;
        })
        .await;
}

#[tokio::test]
async fn draining_ends_what_is_idle_and_then_run() {
    LocalSet::new()
        .run_until(async {
            let web = web("");
            let mut idle = TcpStream::connect(web.clear).await.unwrap();
            let text = get("/healthz", "").replace("close", "keep-alive");
            idle.write_all(text.as_bytes()).await.unwrap();
            let mut some = [0; 16];
            idle.read_exact(&mut some).await.unwrap();
            web.stopper.drain(Duration::from_secs(10));
            let started = Instant::now();
            web.running.await.unwrap();
            assert!(started.elapsed() < Duration::from_secs(2), "at once, not at the deadline");
            let mut rest = Vec::new();
            idle.read_to_end(&mut rest).await.unwrap();
            assert!(TcpStream::connect(web.clear).await.is_err(), "nobody listens");
        })
        .await;
}

#[tokio::test]
async fn figures_for_administrators() {
    LocalSet::new()
        .run_until(async {
            let (socket, address) = bind();
            let (sender, peer_figures) = mpsc::channel(4);
            let memory = sandbox::figures::create("test").unwrap();
            Figures::over(sandbox::figures::map_to_write(&memory).unwrap()).add(Count::Panics, 3);
            let read_only = sandbox::figures::read_only(&memory).unwrap();
            let mapped = sandbox::figures::Figures::map_to_read(read_only).unwrap();
            sender.send((Role::Accountd, 0, mapped)).await.unwrap();
            let (_stopper, stop) = Stop::new();
            let slice = r#"{"listeners": [{"name": "internal/metrics", "metrics": true}]}"#;
            let grants = Grants {
                side: Side::Admin,
                slice: serde_json::from_str(slice).unwrap(),
                listeners: vec![("internal/metrics".to_owned(), socket)],
                keyholder: None,
                accountd: None,
                peer_figures,
                figures: Figures::detached(),
                clock: Arc::new(SystemClock),
                stop,
            };
            tokio::task::spawn_local(async move { httpd::run(grants).await.unwrap() });
            let text = talk(address, "GET /metrics HTTP/1.0\r\n\r\n").await;
            assert!(text.contains("text/plain; version=0.0.4"));
            assert!(
                text.contains("mox_panic_total{process=\"accountd\",instance=\"0\"} 3"),
                "{text}"
            );
        })
        .await;
}
