//! Both faces against an accountd and a keyholder in small, over in-memory edges.

#![expect(clippy::unwrap_used, reason = "a fault in here is a failed test")]

use base64::Engine as _;
use daemon::{Figures, Stop, Stopper};
use ipc::{
    Acceptor, Dialer, Line, capnp,
    schema::{
        accountd_capnp::{door, gate, mx_door, submission_door},
        auth_capnp::{Failure, authenticator},
        inbound_capnp::{inbound, message_sink, submitter, transaction},
        types_capnp::handle,
    },
};
use net::{Certificate, Certificates, NoSlot, SigningSlots, TlsAcceptor, TlsOptions};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustls::{
    ClientConfig, RootCertStore, SignatureScheme,
    crypto::aws_lc_rs as provider,
    pki_types::{PrivateKeyDer, ServerName},
};
use smtp::server::{Role, Settings};
use smtpd::{Doors, Grants, Origin, Service, Store, serve_connection};
use std::{
    cell::{Cell, RefCell},
    net::TcpListener,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex},
    sync::Notify,
    task::{JoinHandle, JoinSet, LocalSet},
};
use types::{SessionId, SystemClock};

#[path = "faces/heard.rs"]
mod heard;

/// What the accountd in small does and has seen.
#[derive(Default)]
struct Seen {
    messages: RefCell<Vec<(String, Vec<u8>)>>,
    envelopes: RefCell<Vec<String>>,
    /// Commits wait for this while it is there.
    hold: RefCell<Option<Rc<Notify>>>,
    commits: Cell<u32>,
    heard: Cell<u32>,
    passes: Cell<i32>,
    refuse_entry: Cell<bool>,
    resumed: Cell<u32>,
}

struct Accountd(Rc<Seen>);

struct Pass(Rc<Seen>);
impl handle::Server for Pass {}
impl Drop for Pass {
    fn drop(&mut self) {
        self.0.passes.set(self.0.passes.get() - 1);
    }
}

impl door::Server for Accountd {
    async fn gate(
        self: Rc<Self>,
        _: door::GateParams,
        mut results: door::GateResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_gate(ipc::new_client(Accountd(Rc::clone(&self.0))));
        Ok(())
    }
}

impl gate::Server for Accountd {
    async fn enter(
        self: Rc<Self>,
        params: gate::EnterParams,
        mut results: gate::EnterResults,
    ) -> Result<(), capnp::Error> {
        assert_eq!(params.get()?.get_peer()?.get_ip()?, [192, 0, 2, 7]);
        let mut verdict = results.get().init_verdict();
        if self.0.refuse_entry.get() {
            verdict.set_too_many_connections(());
        } else {
            self.0.passes.set(self.0.passes.get() + 1);
            verdict.set_pass(ipc::new_client(Pass(Rc::clone(&self.0))));
        }
        Ok(())
    }
}

impl mx_door::Server for Accountd {
    async fn inbound(
        self: Rc<Self>,
        _: mx_door::InboundParams,
        mut results: mx_door::InboundResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_inbound(ipc::new_client(Accountd(Rc::clone(&self.0))));
        Ok(())
    }
}

impl inbound::Server for Accountd {
    async fn begin(
        self: Rc<Self>,
        params: inbound::BeginParams,
        mut results: inbound::BeginResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let (helo, from) = (params.get_helo()?.to_str()?, params.get_from()?.to_str()?);
        self.0.envelopes.borrow_mut().push(format!("{helo} {from}"));
        let mut outcome = results.get().init_outcome();
        if from == "nobody@example.net" {
            refuse(outcome.init_refused(), 550, "5.7.27", "cannot be answered", false);
        } else {
            outcome.set_transaction(ipc::new_client(Open(Rc::clone(&self.0))));
        }
        Ok(())
    }
}

fn refuse(
    mut to: ipc::schema::inbound_capnp::refusal::Builder<'_>,
    code: u16,
    enhanced: &str,
    text: &str,
    close: bool,
) {
    to.set_code(code);
    to.set_enhanced(enhanced);
    to.set_text(text);
    to.set_close(close);
}

struct Open(Rc<Seen>);

impl transaction::Server for Open {
    async fn recipient(
        self: Rc<Self>,
        params: transaction::RecipientParams,
        mut results: transaction::RecipientResults,
    ) -> Result<(), capnp::Error> {
        let to = params.get()?.get_to()?.to_str()?;
        let outcome = results.get().init_outcome();
        match to {
            "full@example.org" => {
                refuse(outcome.init_refused(), 452, "4.2.2", "Mailbox full", false)
            }
            "gone@example.org" => refuse(outcome.init_refused(), 550, "5.1.1", "x", false),
            "x@else.example" => refuse(outcome.init_refused(), 550, "5.1.2", "Not here", false),
            _ => {
                let mut outcome = outcome;
                outcome.set_accepted(());
            }
        }
        Ok(())
    }

    async fn data(
        self: Rc<Self>,
        _: transaction::DataParams,
        mut results: transaction::DataResults,
    ) -> Result<(), capnp::Error> {
        let sink = Sink { seen: Rc::clone(&self.0), content: RefCell::default() };
        results.get().set_sink(ipc::new_client(sink));
        Ok(())
    }
}

struct Sink {
    seen: Rc<Seen>,
    content: RefCell<Vec<u8>>,
}

impl message_sink::Server for Sink {
    async fn write(self: Rc<Self>, params: message_sink::WriteParams) -> Result<(), capnp::Error> {
        let chunk = params.get()?.get_chunk()?;
        assert!(chunk.len() <= usize::try_from(message_sink::MAX_CHUNK).unwrap());
        self.content.borrow_mut().extend_from_slice(chunk);
        Ok(())
    }

    async fn commit(
        self: Rc<Self>,
        params: message_sink::CommitParams,
        mut results: message_sink::CommitResults,
    ) -> Result<(), capnp::Error> {
        self.seen.commits.set(self.seen.commits.get() + 1);
        let hold = self.seen.hold.borrow().clone();
        if let Some(hold) = hold {
            hold.notified().await;
        }
        let received = params.get()?.get_received()?.to_str()?.to_owned();
        let content = self.content.take();
        let mut outcome = results.get().init_outcome();
        if content.windows(4).any(|w| w == b"junk") {
            refuse(outcome.init_refused(), 451, "4.3.0", "not now", true);
        } else {
            self.seen.messages.borrow_mut().push((received, content));
            outcome.reborrow().init_accepted().set_id("id1");
        }
        Ok(())
    }

    async fn heard(
        self: Rc<Self>,
        _: message_sink::HeardParams,
        _: message_sink::HeardResults,
    ) -> Result<(), capnp::Error> {
        self.seen.heard.set(self.seen.heard.get() + 1);
        Ok(())
    }
}

impl submission_door::Server for Accountd {
    async fn authenticator(
        self: Rc<Self>,
        _: submission_door::AuthenticatorParams,
        mut results: submission_door::AuthenticatorResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_authenticator(ipc::new_client(Accountd(Rc::clone(&self.0))));
        Ok(())
    }

    async fn resume(
        self: Rc<Self>,
        params: submission_door::ResumeParams,
        mut results: submission_door::ResumeResults,
    ) -> Result<(), capnp::Error> {
        assert_eq!(params.get()?.get_ticket()?, b"ticket");
        self.0.resumed.set(self.0.resumed.get() + 1);
        let mut given = results.get().init_outcome().init_submitter();
        given.set_submitter(ipc::new_client(Accountd(Rc::clone(&self.0))));
        given.set_ticket(b"ticket");
        Ok(())
    }
}

impl authenticator::Server for Accountd {
    async fn mechanisms(
        self: Rc<Self>,
        params: authenticator::MechanismsParams,
        mut results: authenticator::MechanismsResults,
    ) -> Result<(), capnp::Error> {
        assert_eq!(params.get()?.get_peer()?.get_tls()?.get_version(), 0x0304);
        results.get().init_names(1).set(0, "PLAIN");
        Ok(())
    }

    async fn start(
        self: Rc<Self>,
        params: authenticator::StartParams,
        mut results: authenticator::StartResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let mut step = results.get().init_step();
        if params.get_mechanism()?.to_str()? != "PLAIN" {
            step.set_failure(Failure::UnknownMechanism);
        } else if params.get_initial()? == b"\0alice@example.org\0secret" {
            let mut success = step.init_success();
            success.set_login("alice@example.org");
            let mut given = success.init_submitter();
            given.set_submitter(ipc::new_client(Accountd(Rc::clone(&self.0))));
            given.set_ticket(b"ticket");
        } else {
            step.set_failure(Failure::BadCredentials);
        }
        Ok(())
    }
}

impl submitter::Server for Accountd {
    async fn begin(
        self: Rc<Self>,
        params: submitter::BeginParams,
        mut results: submitter::BeginResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let hold = params.get_extra()?.get_hold_until_unix_ns();
        self.0.envelopes.borrow_mut().push(format!(
            "{} {}",
            params.get_from()?.to_str()?,
            hold > 0
        ));
        results.get().init_outcome().set_transaction(ipc::new_client(Open(Rc::clone(&self.0))));
        Ok(())
    }
}

/// Runs the accountd in small; aborting it ends its connections, as its death would.
fn serve_accountd(mut acceptor: Acceptor, seen: &Rc<Seen>, submission: bool) -> JoinHandle<()> {
    let seen = Rc::clone(seen);
    tokio::task::spawn_local(async move {
        let mut connections = JoinSet::new();
        while let Some(ipc::Incoming::Rpc(stream)) = acceptor.accept().await {
            let accountd = Accountd(Rc::clone(&seen));
            let bootstrap = if submission {
                let client: submission_door::Client = ipc::new_client(accountd);
                client.client
            } else {
                let client: mx_door::Client = ipc::new_client(accountd);
                client.client
            };
            connections.spawn_local(ipc::serve(stream, bootstrap, ipc::Limits::default()));
        }
    })
}

struct Lab {
    service: Rc<Service>,
    stopper: Stopper,
    roots: RootCertStore,
}

fn lab(role: Role, with_tls: bool, implicit: bool) -> Lab {
    let made = rcgen::generate_simple_self_signed(vec!["mx.example.org".to_owned()]).unwrap();
    let der = made.cert.der().to_vec();
    let table = Certificates::new();
    let mut roots = RootCertStore::empty();
    roots.add(der.clone().into()).unwrap();
    if with_tls {
        use rcgen::PublicKeyData as _;
        let spki = made.signing_key.subject_public_key_info();
        let hash = provider::default_provider().cipher_suites[0]
            .tls13()
            .map(|suite| suite.common.hash_provider.hash(&spki));
        // The key id is the SHA-256 of the SPKI; take the suite whose hash that is.
        let hash = hash.filter(|hash| hash.as_ref().len() == 32).unwrap_or_else(|| {
            let suites = provider::default_provider().cipher_suites;
            let sha256 = suites
                .iter()
                .filter_map(|suite| suite.tls13())
                .map(|suite| suite.common.hash_provider)
                .find(|hash| hash.output_len() == 32);
            sha256.unwrap().hash(&spki)
        });
        let key_id = u64::from_be_bytes(hash.as_ref()[..8].try_into().unwrap());
        let problems = table.replace(vec![Certificate {
            names: vec!["mx.example.org".to_owned()],
            chain: vec![der],
            key_id,
            spki,
            schemes: vec![0x0403],
            is_default: true,
        }]);
        assert_eq!(problems, []);
    }
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let key = provider::sign::any_supported_type(&key).unwrap();
    let slots = SigningSlots::new(move || {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let key = Arc::clone(&key);
        std::thread::spawn(move || {
            let mut request = [0; 300];
            while let Ok((_, got @ 10..)) = recv(&far, &mut request[..], RecvFlags::empty()) {
                let scheme = SignatureScheme::from(u16::from_be_bytes([request[8], request[9]]));
                let signature = key.choose_scheme(&[scheme]).unwrap().sign(&request[10..got]);
                send(&far, &signature.unwrap(), SendFlags::NOSIGNAL).unwrap();
            }
        });
        async { Ok::<_, NoSlot>(near) }
    });
    let options = TlsOptions {
        client_certificates: false,
        only_tls_1_3: false,
        alpn: Vec::new(),
        clock: Arc::new(SystemClock),
    };
    let mut settings = Settings::new(role, "mx.example.org".parse().unwrap());
    settings.limits.pacing = false;
    settings.implicit_tls = implicit;
    let (stopper, stop) = Stop::new();
    let service = Service {
        name: "public/smtp".to_owned(),
        settings: Arc::new(settings),
        tls: TlsAcceptor::new(table.clone(), slots, options).unwrap(),
        certificates: table,
        write: Duration::from_secs(5),
        handshake: Duration::from_secs(5),
        clock: Arc::new(SystemClock),
        figures: Figures::detached(),
        stop,
    };
    Lab { service: Rc::new(service), stopper, roots }
}

fn origin() -> Origin {
    Origin {
        peer: "192.0.2.7:4000".parse().unwrap(),
        local: "192.0.2.1".parse().unwrap(),
        id: SessionId::from_bytes([7; 8]),
    }
}

/// Connects a client to a new session.
fn connect(lab: &Lab, doors: &Doors) -> Client<DuplexStream> {
    let (near, far) = duplex(8 * 1024);
    let store = Store::new(doors.clone(), origin(), &lab.service);
    tokio::task::spawn_local(serve_connection(far, origin(), Rc::clone(&lab.service), store));
    Client { stream: near, read: Vec::new() }
}

struct Client<S> {
    stream: S,
    read: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            let mut buffer = [0; 4096];
            let read = tokio::time::timeout(Duration::from_secs(5), self.stream.read(&mut buffer));
            match read.await.expect("the server says nothing") {
                Ok(count) if count > 0 => self.read.extend_from_slice(&buffer[..count]),
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// The last line of the next reply.
    async fn reply(&mut self) -> String {
        loop {
            let line = self.line().await.expect("closed instead of a reply");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    async fn says(&mut self, text: &str, want: &str) {
        self.stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
        let reply = self.reply().await;
        assert!(reply.starts_with(want), "{text}: {reply}");
    }

    async fn envelope(&mut self) {
        self.says("MAIL FROM:<bob@example.net>", "250 2.1.0").await;
        self.says("RCPT TO:<alice@example.org>", "250 2.1.5").await;
        self.says("DATA", "354").await;
    }

    async fn hello(&mut self) {
        let greeting = self.reply().await;
        assert!(greeting.starts_with("220 mx.example.org ESMTP"), "{greeting}");
        self.says("EHLO client.example.net", "250 SMTPUTF8").await;
    }
}

fn mx() -> (Doors, Acceptor, Dialer) {
    let (dialer, acceptor) = ipc::memory_edge(ipc::Role::SmtpdMx, 0);
    (Doors::Mx(Line::new(dialer.clone(), ipc::Limits::SESSIONS)), acceptor, dialer)
}

async fn local<F: Future>(test: F) -> F::Output {
    LocalSet::new().run_until(test).await
}

#[tokio::test]
async fn a_message_is_streamed_and_answered_after_its_commit() {
    local(async {
        let (seen, lab) = (Rc::new(Seen::default()), lab(Role::Mx, false, false));
        let (doors, acceptor, _dialer) = mx();
        let accountd = serve_accountd(acceptor, &seen, false);
        let mut client = connect(&lab, &doors);
        client.hello().await;
        client.envelope().await;
        assert_eq!(seen.passes.get(), 1);
        let hold = Rc::new(Notify::new());
        *seen.hold.borrow_mut() = Some(Rc::clone(&hold));
        let line = "..dots and some text to make the line a little longer\r\n";
        let body = line.repeat(20_000);
        let wire = format!("Subject: large\r\n\r\n{body}.\r\n");
        client.stream.write_all(wire.as_bytes()).await.unwrap();
        while seen.commits.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Nothing is said while nothing is durable.
        let early = tokio::time::timeout(Duration::from_millis(100), client.line()).await;
        assert!(early.is_err(), "{early:?}");
        hold.notify_one();
        assert_eq!(client.reply().await, "250 2.2.0 Accepted id1");
        let (received, content) = seen.messages.borrow()[0].clone();
        assert!(received.starts_with("Received: from client.example.net ([192.0.2.7])"));
        assert!(received.contains("for <alice@example.org>;") || received.contains("\t<alice@"));
        let want = format!(
            "Subject: large\r\n\r\n{}",
            body.replace("\r\n..", "\r\n.").replacen("..", ".", 1)
        );
        assert_eq!(String::from_utf8(content).unwrap(), want);
        assert_eq!(*seen.envelopes.borrow(), ["client.example.net bob@example.net"]);
        client.says("QUIT", "221").await;
        assert_eq!(client.line().await, None);
        while seen.passes.get() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        accountd.abort();
    })
    .await;
}

#[tokio::test]
async fn refusals_come_from_accountd() {
    local(async {
        let (seen, lab) = (Rc::new(Seen::default()), lab(Role::Mx, false, false));
        let (doors, acceptor, _dialer) = mx();
        let _accountd = serve_accountd(acceptor, &seen, false);
        let mut client = connect(&lab, &doors);
        client.hello().await;
        let id = SessionId::from_bytes([7; 8]);
        let text = format!("550 5.7.27 cannot be answered ({id})");
        client.says("MAIL FROM:<nobody@example.net>", &text).await;
        client.says("MAIL FROM:<bob@example.net>", "250").await;
        client.says("RCPT TO:<full@example.org>", "452 4.2.2 Mailbox full").await;
        client.says("RCPT TO:<x@else.example>", "550 5.1.2").await;
        client.says("RCPT TO:<gone@example.org>", "550 5.1.1").await;
        client.says("DATA", "503 5.5.1").await;
        client.says("RSET", "250").await;
        assert_eq!(seen.commits.get(), 0);
        client.envelope().await;
        client.says("a: b\r\n\r\nx\r\n.\r\nNOOP\r\n.", "250 2.2.0").await;
        assert!(client.reply().await.starts_with("250 2.0.0"));
        assert!(client.reply().await.starts_with("500 5.5.1"));
        client.envelope().await;
        // Judged, and told to end the connection.
        client.says("a: b\r\n\r\njunk\r\n.", "451 4.3.0 not now").await;
        assert_eq!(client.line().await, None);
        seen.refuse_entry.set(true);
        let mut client = connect(&lab, &doors);
        assert!(client.reply().await.starts_with("421 4.7.0"));
        assert_eq!(client.line().await, None);
    })
    .await;
}

#[tokio::test]
async fn an_accountd_that_is_away_is_a_temporary_refusal() {
    local(async {
        let (seen, lab) = (Rc::new(Seen::default()), lab(Role::Mx, false, false));
        let (doors, acceptor, _dialer) = mx();
        let accountd = serve_accountd(acceptor, &seen, false);
        let mut client = connect(&lab, &doors);
        client.hello().await;
        client.envelope().await;
        client.stream.write_all(b"Subject: a\r\n\r\nsome\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        accountd.abort();
        let _ended = accountd.await;
        client.says("more\r\n.", "451 4.3.0").await;
        // The session goes on, and at every step it is our fault, never theirs.
        let began = std::time::Instant::now();
        client.says("MAIL FROM:<bob@example.net>", "451 4.3.0").await;
        assert!(began.elapsed() < Duration::from_secs(2));
        client.says("NOOP", "250").await;
        let mut late = connect(&lab, &doors);
        let began = std::time::Instant::now();
        assert!(late.reply().await.starts_with("421 4.3.0"));
        assert!(began.elapsed() < Duration::from_millis(1500));
        assert!(seen.messages.borrow().is_empty());
    })
    .await;
}

async fn tls<S: AsyncRead + AsyncWrite + Unpin>(
    lab: &Lab,
    client: Client<S>,
) -> Client<tokio_rustls::client::TlsStream<S>> {
    assert!(client.read.is_empty());
    let config = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(lab.roots.clone())
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("mx.example.org").unwrap();
    let stream = connector.connect(name, client.stream).await.unwrap();
    Client { stream, read: Vec::new() }
}

#[tokio::test]
async fn starttls_and_nothing_from_before_it() {
    local(async {
        let (seen, lab) = (Rc::new(Seen::default()), lab(Role::Mx, true, false));
        let (doors, acceptor, _dialer) = mx();
        let _accountd = serve_accountd(acceptor, &seen, false);
        let mut client = connect(&lab, &doors);
        client.hello().await;
        client.says("STARTTLS\r\nMAIL FROM:<eve@example.net>", "220 2.0.0").await;
        let mut client = tls(&lab, client).await;
        client.says("MAIL FROM:<bob@example.net>", "503 5.5.1").await;
        client.says("EHLO client.example.net", "250 SMTPUTF8").await;
        client.envelope().await;
        client.says("a: b\r\n\r\n.", "250 2.2.0").await;
        let received = seen.messages.borrow()[0].0.replace("\r\n\t", " ");
        assert!(received.contains("with ESMTPS id"), "{received}");
        assert!(received.contains("(TLSv1.3 TLS_AES_"), "{received}");
        assert_eq!(seen.envelopes.borrow().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn without_certificates_no_starttls_is_offered() {
    local(async {
        let (seen, lab) = (Rc::new(Seen::default()), lab(Role::Mx, false, false));
        let (doors, acceptor, _dialer) = mx();
        let _accountd = serve_accountd(acceptor, &seen, false);
        let mut client = connect(&lab, &doors);
        client.hello().await;
        client.says("STARTTLS", "503 5.5.1").await;
    })
    .await;
}

#[tokio::test]
async fn a_user_logs_in_and_outlives_a_restart_of_accountd() {
    local(async {
        let (seen, lab) = (Rc::new(Seen::default()), lab(Role::Submission, true, true));
        // A restart: connectors are renewed under the same dialer.
        let pair = || {
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap()
        };
        let (near, far) = pair();
        let dialer = Dialer::from_connector(near).unwrap();
        let role = ipc::Role::SmtpdSubmission;
        let acceptor = Acceptor::from_connector(role, 0, far).unwrap();
        let doors = Doors::Submission(Line::new(dialer.clone(), ipc::Limits::SESSIONS));
        let accountd = serve_accountd(acceptor, &seen, true);
        let client = connect(&lab, &doors);
        let mut client = tls(&lab, client).await;
        client.hello().await;
        client.says("MAIL FROM:<alice@example.org>", "530 5.7.0").await;
        let bad = base64::engine::general_purpose::STANDARD.encode("\0alice@example.org\0wrong");
        let good = base64::engine::general_purpose::STANDARD.encode("\0alice@example.org\0secret");
        client.says(&format!("AUTH PLAIN {bad}"), "535 5.7.8").await;
        client.says(&format!("AUTH LOGIN {good}"), "504 5.5.4").await;
        client.says(&format!("AUTH PLAIN {good}"), "235 2.7.0").await;
        client.says("MAIL FROM:<alice@example.org> HOLDFOR=60", "250").await;
        client.says("RCPT TO:<x@far.example>", "250").await;
        client.says("RSET", "250").await;
        accountd.abort();
        let _ended = accountd.await;
        let (near, far) = pair();
        dialer.renew(near).unwrap();
        let acceptor = Acceptor::from_connector(role, 0, far).unwrap();
        let _accountd = serve_accountd(acceptor, &seen, true);
        client.says("MAIL FROM:<alice@example.org>", "250").await;
        assert_eq!(seen.resumed.get(), 1);
        client.says("RCPT TO:<x@far.example>", "250").await;
        client.says("DATA", "354").await;
        client.says("From: <alice@example.org>\r\n\r\nx\r\n.", "250 2.2.0").await;
        let received = seen.messages.borrow()[0].0.replace("\r\n\t", " ");
        assert!(
            received.starts_with("Received: from mx.example.org by mx.example.org"),
            "{received}"
        );
        assert!(received.contains("with ESMTPSA id"), "{received}");
        assert_eq!(*seen.envelopes.borrow(), ["alice@example.org true", "alice@example.org false"]);
    })
    .await;
}

#[tokio::test]
async fn the_process_accepts_serves_and_drains() {
    local(async {
        let seen = Rc::new(Seen::default());
        let (accountd, acceptor) = ipc::memory_edge(ipc::Role::SmtpdMx, 0);
        let (keyholder, _nobody) = ipc::memory_edge(ipc::Role::SmtpdMx, 0);
        // The gate in small knows one address only; the loopback is another, so none here.
        drop(acceptor);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let slice = r#"{"hostname":"mx.example.org","listeners":[{"name":"public/smtp","hostname":"mx.example.org"}],"local":true}"#;
        let (stopper, stop) = Stop::new();
        let figures = Figures::detached();
        let run = tokio::task::spawn_local(smtpd::run(Grants {
            role: Role::Mx,
            slice: config_slice(slice),
            listeners: vec![("public/smtp".to_owned(), socket)],
            accountd,
            keyholder,
            clock: Arc::new(SystemClock),
            new_id: Rc::new(|| Some(SessionId::from_bytes([9; 8]))),
            figures,
            stop,
        }));
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut client = Client { stream, read: Vec::new() };
        assert!(client.reply().await.starts_with("421 4.3.0"));
        drop(client);
        stopper.drain(Duration::from_secs(5));
        tokio::time::timeout(Duration::from_secs(4), run).await.unwrap().unwrap().unwrap();
        assert!(seen.messages.borrow().is_empty());
    })
    .await;
}

fn config_slice(text: &str) -> config::slice::Smtpd {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_session_that_waits_is_told_to_go_when_the_process_stops() {
    local(async {
        let (seen, lab) = (Rc::new(Seen::default()), lab(Role::Mx, false, false));
        let (doors, acceptor, _dialer) = mx();
        let _accountd = serve_accountd(acceptor, &seen, false);
        let mut idle = connect(&lab, &doors);
        idle.hello().await;
        let mut busy = connect(&lab, &doors);
        busy.hello().await;
        busy.envelope().await;
        lab.stopper.drain(Duration::from_secs(5));
        assert!(idle.reply().await.starts_with("421 4.3.2"));
        assert_eq!(idle.line().await, None);
        busy.says("a: b\r\n\r\n.", "250 2.2.0").await;
        assert!(busy.reply().await.starts_with("421 4.3.2"));
        assert_eq!(busy.line().await, None);
    })
    .await;
}
