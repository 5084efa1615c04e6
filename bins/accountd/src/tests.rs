//! The whole process over in-memory edges: mail in by the mx door, a log-in by the front door, the
//! mailbox by the session door, a submission and the queue's side of it. keyholder and parser are
//! played by small servers that keep to their schemas.

use crate::{
    run::{Grants, run},
    testing::hands::{FakeKeys, FakeParser, FakeResolver},
};
use append::append;
use ipc::{
    Dialer, Limits, Line, Role, capnp, memory_edge,
    schema::{
        account_capnp::{
            StoreOp, account, append_started, copied, mailbox, mailbox_outcome, opened, stored,
        },
        accountd_capnp::{front_door, mx_door, queue_door, session_door, submission_door},
        auth_capnp::{authenticator, redeemed, renewed, step, success},
        control_capnp::{account_admin, problem},
        inbound_capnp::{begun, committed, message_sink, rcpt_outcome, submitter, transaction},
        keyholder_capnp::accountd_keys,
        parser_capnp::parser,
        queue_capnp::{delivered, delivery, delivery_sink, outbox},
        resolver_capnp::resolver,
        types_capnp::{byte_sink, peer, watched},
    },
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::LocalSet,
};
use types::SystemClock;

mod administrators;
mod append;
mod development;
mod gone;
mod limits;
mod names;
mod narrowed;
mod repeats;
mod suspended;
mod verified;

const PASSWORD: &str = "correct horse";
const DOMAINS: &str = r#"
[domain."example.org"]
localpart_separators = ["+"]
[domain."example.org".alias.all]
members = ["ann@example.org", "bob@example.org"]
post = "public"
[account.ann]
max_outgoing_messages_per_day = 3
[account.ann.address."ann@example.org"]
[account.bob.address."bob@example.org"]
mailbox = "Work/In"
"#;

/// A body taken from accountd.
#[derive(Default)]
struct Taken {
    octets: RefCell<Vec<u8>>,
    ended: Cell<bool>,
}

struct TakenSink(Rc<Taken>);

impl byte_sink::Server for TakenSink {
    async fn write(self: Rc<Self>, params: byte_sink::WriteParams) -> Result<(), capnp::Error> {
        self.0.octets.borrow_mut().extend_from_slice(params.get()?.get_chunk()?);
        Ok(())
    }

    async fn end(
        self: Rc<Self>,
        _: byte_sink::EndParams,
        _: byte_sink::EndResults,
    ) -> Result<(), capnp::Error> {
        self.0.ended.set(true);
        Ok(())
    }
}

#[derive(Default)]
struct Watcher {
    at: Cell<u64>,
    revoked: RefCell<Option<String>>,
    moved: Notify,
}

struct WatcherServer(Rc<Watcher>);

impl watched::Server for WatcherServer {
    async fn changed(
        self: Rc<Self>,
        params: watched::ChangedParams,
        _: watched::ChangedResults,
    ) -> Result<(), capnp::Error> {
        self.0.at.set(params.get()?.get_number());
        self.0.moved.notify_one();
        Ok(())
    }

    async fn revoked(
        self: Rc<Self>,
        params: watched::RevokedParams,
        _: watched::RevokedResults,
    ) -> Result<(), capnp::Error> {
        *self.0.revoked.borrow_mut() = Some(params.get()?.get_why()?.to_str()?.to_owned());
        self.0.moved.notify_one();
        Ok(())
    }
}

/// A running accountd and its clients' dialers.
struct Bench {
    clients: mpsc::Sender<ipc::Acceptor>,
    control: std::path::PathBuf,
    poisoned: Rc<Cell<u32>>,
    /// A client whose dialer is gone is taken for dead.
    dialers: RefCell<Vec<Dialer>>,
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Bench {
    fn start(folder: &std::path::Path) -> Self {
        std::fs::create_dir_all(folder.join("directory")).unwrap();
        let file = folder.join("directory/domains.toml");
        if !file.exists() {
            std::fs::write(file, DOMAINS).unwrap();
        }
        Self::start_with(
            folder,
            r#"{"hostname":"mail.example.org","imap_sessions":2,"max_message_size":300000}"#,
        )
    }

    fn start_with(folder: &std::path::Path, slice: &str) -> Self {
        let (clients, waiting) = mpsc::channel(16);
        let (parser, parser_end) = memory_edge(Role::Accountd, 0);
        let (keyholder, keyholder_end) = memory_edge(Role::Accountd, 0);
        let (resolver, resolver_end) = memory_edge(Role::Accountd, 0);
        let poisoned = Rc::new(Cell::new(0));
        let failed = Rc::clone(&poisoned);
        play(parser_end, move || {
            ipc::new_client::<parser::Client, _>(FakeParser(Rc::clone(&failed))).client
        });
        play(keyholder_end, || ipc::new_client::<accountd_keys::Client, _>(FakeKeys).client);
        play(resolver_end, || ipc::new_client::<resolver::Client, _>(FakeResolver).client);
        let control = folder.join("control");
        let _ = std::fs::remove_file(&control);
        let listener = tokio::net::UnixListener::bind(&control).unwrap();
        let grants = Grants {
            slice: serde_json::from_str(slice).unwrap(),
            folder: folder.to_owned(),
            disk: Arc::new(storage::RealDisk),
            clock: Arc::new(SystemClock),
            boot_clock: Rc::new(|| Duration::from_secs(1000)),
            parsers: vec![parser],
            resolver,
            keyholder,
            clients: waiting,
            control: Some((listener, Rc::new(|_| true))),
            fatal: Arc::new(|what| panic!("{what}")),
            announce: Rc::new(|| {}),
            workers: daemon::Workers::Threads,
        };
        let (stop, stopped) = oneshot::channel();
        let running = tokio::task::spawn_local(run(grants, async {
            let _ = stopped.await;
        }));
        Self { clients, control, poisoned, dialers: RefCell::default(), stop, running }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }

    async fn edge(&self, role: Role, instance: u16) -> Dialer {
        let (dialer, acceptor) = memory_edge(role, instance);
        self.clients.send(acceptor).await.unwrap();
        self.dialers.borrow_mut().push(dialer.clone());
        dialer
    }

    async fn door<C: capnp::capability::FromClientHook + Clone + 'static>(
        &self,
        role: Role,
        instance: u16,
    ) -> C {
        let line: Line<C> = Line::new(self.edge(role, instance).await, Limits::default());
        line.client().await.unwrap()
    }

    async fn admin(&self) -> account_admin::Client {
        let socket = tokio::net::UnixStream::connect(&self.control).await.unwrap();
        let stream = ipc::Stream::from_unix(socket).unwrap();
        let (client, run) = ipc::connect(stream, Limits::default());
        tokio::task::spawn_local(run);
        client
    }

    async fn set_password(&self, name: &str, password: &str) {
        let admin = self.admin().await;
        let mut request = admin.account_password_request();
        request.get().set_name(name);
        request.get().set_password(password);
        let response = request.send().promise.await.unwrap();
        let problem = response.get().unwrap().get_problem().unwrap();
        assert_eq!(problem.get_kind().unwrap(), problem::Kind::None, "{:?}", problem.get_text());
    }
}

fn play(mut end: ipc::Acceptor, bootstrap: impl Fn() -> capnp::capability::Client + 'static) {
    tokio::task::spawn_local(async move {
        while let Some(ipc::Incoming::Rpc(stream)) = end.accept().await {
            tokio::task::spawn_local(ipc::serve(stream, bootstrap(), Limits::default()));
        }
    });
}

fn set_peer(mut to: peer::Builder<'_>) {
    to.set_ip(&[192, 0, 2, 1]);
    to.set_session(&[1; 8]);
    to.set_listener("public/submission");
    let mut tls = to.init_tls();
    tls.set_version(0x0304);
    tls.set_exporter(&[3; 32]);
}

const RECEIVED: &str = "Received: from client.example by mail.example.org; now\r\n";

/// A transaction, or the code.
async fn try_begin(
    door: &mx_door::Client,
    hello: (&str, bool),
    from: &str,
) -> Result<transaction::Client, u16> {
    let inbound = door.inbound_request().send().pipeline.get_inbound();
    let mut request = inbound.begin_request();
    set_peer(request.get().init_peer());
    request.get().set_helo(hello.0);
    request.get().init_params().set_extended(hello.1);
    request.get().set_from(from);
    let response = request.send().promise.await.unwrap();
    match response.get().unwrap().get_outcome().unwrap().which().unwrap() {
        begun::Which::Transaction(transaction) => Ok(transaction.unwrap()),
        begun::Which::Refused(refusal) => Err(refusal.unwrap().get_code()),
    }
}

async fn begin(door: &mx_door::Client, from: &str) -> transaction::Client {
    try_begin(door, ("client.example", true), from).await.unwrap()
}

/// 250, or the code.
async fn rcpt(transaction: &transaction::Client, to: &str) -> u16 {
    let mut request = transaction.recipient_request();
    request.get().set_to(to);
    let response = request.send().promise.await.unwrap();
    match response.get().unwrap().get_outcome().unwrap().which().unwrap() {
        rcpt_outcome::Which::Accepted(()) => 250,
        rcpt_outcome::Which::Refused(refusal) => refusal.unwrap().get_code(),
    }
}

async fn data(transaction: &transaction::Client, message: &[u8]) -> Result<String, u16> {
    give(&transaction.data_request().send().pipeline.get_sink(), message).await
}

async fn give(sink: &message_sink::Client, message: &[u8]) -> Result<String, u16> {
    for chunk in message.chunks(50_000) {
        let mut request = sink.write_request();
        request.get().set_chunk(chunk);
        request.send().await.unwrap();
    }
    let mut request = sink.commit_request();
    request.get().set_received(RECEIVED);
    let response = request.send().promise.await.unwrap();
    match response.get().unwrap().get_outcome().unwrap().which().unwrap() {
        committed::Which::Accepted(accepted) => {
            Ok(accepted.get_id().unwrap().to_str().unwrap().to_owned())
        }
        committed::Which::Refused(refusal) => Err(refusal.unwrap().get_code()),
    }
}

async fn deliver(door: &mx_door::Client, to: &[&str], message: &[u8]) -> Result<String, u16> {
    let transaction = begin(door, "sender@elsewhere.example").await;
    for to in to {
        assert_eq!(rcpt(&transaction, to).await, 250, "{to}");
    }
    data(&transaction, message).await
}

enum LoggedIn {
    HandOver { instance: u16, ticket: Vec<u8> },
    Submitter(submitter::Client, Vec<u8>),
}

async fn log_in(
    authenticator: &authenticator::Client,
    user: &str,
    password: &str,
) -> Result<LoggedIn, ipc::schema::auth_capnp::Failure> {
    let mut request = authenticator.start_request();
    set_peer(request.get().init_peer());
    request.get().set_mechanism("PLAIN");
    request.get().set_has_initial(true);
    request.get().set_initial(format!("\0{user}\0{password}").as_bytes());
    let response = request.send().promise.await.unwrap();
    let step = response.get().unwrap().get_step().unwrap();
    match step.which().unwrap() {
        step::Which::Success(success) => {
            let success = success.unwrap();
            assert_eq!(success.get_login().unwrap().to_str().unwrap(), user);
            Ok(match success.which().unwrap() {
                success::Which::HandOver(group) => LoggedIn::HandOver {
                    instance: group.get_session_instance(),
                    ticket: group.get_ticket().unwrap().to_vec(),
                },
                success::Which::Submitter(group) => LoggedIn::Submitter(
                    group.get_submitter().unwrap(),
                    group.get_ticket().unwrap().to_vec(),
                ),
                success::Which::Account(_) => panic!("an account on this edge"),
            })
        }
        step::Which::Failure(failure) => Err(failure.unwrap()),
        step::Which::Challenge(_) => panic!("a challenge"),
    }
}

async fn redeem(door: &session_door::Client, ticket: &[u8]) -> Option<(account::Client, Vec<u8>)> {
    let tickets = door.tickets_request().send().pipeline.get_tickets();
    let mut request = tickets.redeem_request();
    request.get().set_ticket(ticket);
    set_peer(request.get().init_peer());
    let response = request.send().promise.await.unwrap();
    match response.get().unwrap().get_outcome().unwrap().which().unwrap() {
        redeemed::Which::Account(group) => {
            Some((group.get_account().unwrap(), group.get_ticket().unwrap().to_vec()))
        }
        redeemed::Which::Refused(()) => None,
    }
}

/// Logs in by front and redeems in the session it names.
async fn session(bench: &Bench, user: &str) -> (account::Client, Vec<u8>, u16) {
    let front: front_door::Client = bench.door(Role::ImapdFront, 0).await;
    let authenticator = front.authenticator_request().send().pipeline.get_authenticator();
    let LoggedIn::HandOver { instance, ticket } =
        log_in(&authenticator, user, PASSWORD).await.unwrap()
    else {
        panic!("no hand-over");
    };
    let there: session_door::Client = bench.door(Role::ImapdSession, instance).await;
    let elsewhere: session_door::Client = bench.door(Role::ImapdSession, 1 - instance).await;
    assert!(redeem(&elsewhere, &ticket).await.is_none(), "worth nothing on another edge");
    let (account, newer) = redeem(&there, &ticket).await.unwrap();
    let renew = there.tickets_request().send().pipeline.get_tickets();
    let mut request = renew.renew_request();
    request.get().set_ticket(&newer);
    let response = request.send().promise.await.unwrap();
    let renewed = response.get().unwrap().get_outcome().unwrap();
    assert!(matches!(renewed.which().unwrap(), renewed::Which::Ticket(_)));
    (account, newer, instance)
}

/// An open mailbox and the number of its messages.
async fn open(account: &account::Client, name: &str, writable: bool) -> (mailbox::Client, u32) {
    let mut request = account.open_request();
    request.get().set_name(name);
    request.get().set_writable(writable);
    let response = request.send().promise.await.unwrap();
    match response.get().unwrap().get_outcome().unwrap().which().unwrap() {
        opened::Which::Mailbox(group) => {
            let info = group.get_info().unwrap();
            (group.get_mailbox().unwrap(), info.get_total())
        }
        opened::Which::Missing(()) => panic!("no mailbox {name}"),
        opened::Which::Temporary(()) => panic!("temporary"),
    }
}

async fn content(mailbox: &mailbox::Client, uid: u32) -> String {
    let taken = Rc::new(Taken::default());
    let mut request = mailbox.content_request();
    request.get().set_uid(uid);
    request.get().set_sink(ipc::new_client(TakenSink(Rc::clone(&taken))));
    request.send().promise.await.unwrap();
    assert!(taken.ended.get());
    String::from_utf8(taken.octets.take()).unwrap()
}

fn on_a_local_set(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(40), test).await.expect("a test that hangs");
    });
}

const MESSAGE: &[u8] =
    b"From: sender@elsewhere.example\r\nMessage-ID: <1@elsewhere.example>\r\nSubject: Hello\r\n\r\nSome text\r\n";

#[test]
fn mail_comes_in_and_is_read() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        bench.set_password("ann", PASSWORD).await;
        let mx: mx_door::Client = bench.door(Role::SmtpdMx, 0).await;

        deliver(&mx, &["ann+list@example.org"], MESSAGE).await.unwrap();
        // The same again, as after a lost answer: known by its delivery id.
        deliver(&mx, &["ann@example.org"], MESSAGE).await.unwrap();
        // One copy an account, whatever names it.
        let other = MESSAGE.to_ascii_uppercase();
        deliver(&mx, &["all@example.org", "ann@example.org", "bob@example.org"], &other)
            .await
            .unwrap();

        let (account, _, _) = session(&bench, "ann@example.org").await;
        let (inbox, total) = open(&account, "INBOX", true).await;
        assert_eq!(total, 2);
        let expected = format!("Return-Path: <sender@elsewhere.example>\r\n{RECEIVED}");
        let read = content(&inbox, 1).await;
        assert_eq!(read, format!("{expected}{}", String::from_utf8_lossy(MESSAGE)));

        let rows = inbox.rows_request().send().promise.await.unwrap();
        let rows = rows.get().unwrap();
        assert!(!rows.get_more());
        let uids: Vec<u32> = rows.get_rows().unwrap().iter().map(|row| row.get_uid()).collect();
        assert_eq!(uids, [1, 2]);
        let modseq = rows.get_modseq();

        // A search, a flag, and what a second session sees of it.
        let mut request = inbox.search_text_request();
        request.get().set_needle("some text");
        request.get().set_scope(ipc::schema::account_capnp::TextScope::Body);
        let found = request.send().promise.await.unwrap();
        let found = found.get().unwrap();
        assert!(matches!(
            found.get_outcome().unwrap().which().unwrap(),
            mailbox_outcome::Which::Done(())
        ));
        assert_eq!(found.get_uids().unwrap().get(0).get_last(), 2);

        let watcher = Rc::new(Watcher::default());
        let mut request = account.watch_request();
        request.get().set_sink(ipc::new_client(WatcherServer(Rc::clone(&watcher))));
        let watch = request.send().promise.await.unwrap();
        let mut request = inbox.store_request();
        {
            let mut params = request.get();
            params.set_op(StoreOp::Add);
            let mut range = params.reborrow().init_uids(1).get(0);
            range.set_first(2);
            range.set_last(2);
            let mut flags = params.init_flags();
            flags.set_system(1);
            flags.set_keywords(["$label1"].as_slice()).unwrap();
        }
        let outcome = request.send().promise.await.unwrap();
        let stored::Which::Done(_) = outcome.get().unwrap().get_outcome().unwrap().which().unwrap()
        else {
            panic!("not stored");
        };
        watcher.moved.notified().await;
        assert!(watcher.at.get() > modseq);
        let mut request = inbox.changes_request();
        request.get().set_since_modseq(modseq);
        let changes = request.send().promise.await.unwrap();
        let changes = changes.get().unwrap();
        let rows = changes.get_rows().unwrap();
        assert_eq!((rows.len(), rows.get(0).get_uid(), rows.get(0).get_system()), (1, 2, 1));
        assert_eq!(rows.get(0).get_keywords().unwrap(), [1]);
        let names = changes.get_info().unwrap().get_keywords().unwrap();
        assert_eq!(names.get(0).unwrap().to_str().unwrap(), "$label1");

        // Copy, append, and what only reads cannot do.
        let mut request = inbox.copy_request();
        request.get().set_to("Archive");
        request.get().reborrow().init_uids(1).get(0).set_first(1);
        request.get().get_uids().unwrap().get(0).set_last(9);
        let outcome = request.send().promise.await.unwrap();
        let copied::Which::Done(done) =
            outcome.get().unwrap().get_outcome().unwrap().which().unwrap()
        else {
            panic!("not copied");
        };
        assert_eq!(done.get_to().unwrap().get(0).get_last(), 2);
        let (archive, total) = open(&account, "Archive", false).await;
        assert_eq!(total, 2);
        let outcome = archive.expunge_request().send().promise.await.unwrap();
        assert!(matches!(
            outcome.get().unwrap().get_outcome().unwrap().which().unwrap(),
            ipc::schema::account_capnp::expunged::Which::ReadOnly(())
        ));
        let appended = append(&account, "Archive", b"Subject: mine\r\n\r\nx").await;
        assert_eq!(appended, Some(3));
        assert_eq!(append(&account, "Nowhere", b"x").await, None);
        assert_eq!(append(&account, "Archive", b"Subject: lines\n\nx\n").await, Some(4));
        assert_eq!(content(&archive, 4).await, "Subject: lines\r\n\r\nx\r\n");
        gone::what_a_deleted_mailbox_answers(&account).await;
        // Text alone does not become more of our header.
        deliver(&mx, &["ann@example.org"], b"hello\r\nworld\r\n").await.unwrap();
        assert_eq!(content(&inbox, 3).await, format!("{expected}\r\nhello\r\nworld\r\n"));

        // A changed password ends the session, and it is told.
        bench.set_password("ann", "another password").await;
        watcher.moved.notified().await;
        assert_eq!(watcher.revoked.borrow().as_deref(), Some("the password was changed"));
        assert!(inbox.rows_request().send().promise.await.is_err());
        drop(watch);
        bench.stop().await;
    });
}

#[test]
fn what_is_refused() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        bench.set_password("ann", PASSWORD).await;
        let mx: mx_door::Client = bench.door(Role::SmtpdMx, 0).await;
        // Nobody first: 250, further ones wait, and 550 at the end.
        let transaction = begin(&mx, "").await;
        assert_eq!(rcpt(&transaction, "nobody@example.org").await, 250);
        assert_eq!(rcpt(&transaction, "ann@example.org").await, 452);
        assert_eq!(data(&transaction, MESSAGE).await, Err(550));
        // Nobody after somebody: at once.
        let transaction = begin(&mx, "x@elsewhere.example").await;
        assert_eq!(rcpt(&transaction, "ann@example.org").await, 250);
        assert_eq!(rcpt(&transaction, "nobody@example.org").await, 550);
        assert_eq!(rcpt(&transaction, "x@elsewhere.example").await, 550);
        assert!(data(&transaction, MESSAGE).await.is_ok());
        // Too large, a loop.
        assert_eq!(deliver(&mx, &["ann@example.org"], &[b'x'; 300_001]).await, Err(552));
        let round = |times| [&b"Received: x\r\n".repeat(times)[..], MESSAGE].concat();
        assert!(deliver(&mx, &["bob@example.org"], &round(100)).await.is_ok());
        assert_eq!(deliver(&mx, &["ann@example.org"], &round(101)).await, Err(554));
        // What ends parsers twice is stored as octets, and is not tried a third time.
        let poison = b"Subject: POISON\r\n\r\nx\r\n".repeat(5000);
        deliver(&mx, &["ann@example.org"], &poison).await.unwrap();
        assert_eq!(bench.poisoned.get(), 2);
        let (account, _, _) = session(&bench, "ann@example.org").await;
        let (inbox, total) = open(&account, "INBOX", false).await;
        assert_eq!(total, 2);
        assert!(content(&inbox, 2).await.ends_with(&String::from_utf8(poison).unwrap()));
        bench.stop().await;
    });
}

async fn submit(
    submitter: &submitter::Client,
    from: &str,
    to: &[&str],
    message: &[u8],
) -> Result<String, u16> {
    let mut request = submitter.begin_request();
    set_peer(request.get().init_peer());
    request.get().set_from(from);
    let response = request.send().promise.await.unwrap();
    let transaction = match response.get().unwrap().get_outcome().unwrap().which().unwrap() {
        begun::Which::Transaction(transaction) => transaction.unwrap(),
        begun::Which::Refused(refusal) => return Err(refusal.unwrap().get_code()),
    };
    for to in to {
        match rcpt(&transaction, to).await {
            250 => {}
            code => return Err(code),
        }
    }
    data(&transaction, message).await
}

#[test]
fn a_submission_reaches_the_queue_and_comes_back() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        bench.set_password("ann", PASSWORD).await;
        let door: submission_door::Client = bench.door(Role::SmtpdSubmission, 0).await;
        let authenticator = door.authenticator_request().send().pipeline.get_authenticator();
        assert!(log_in(&authenticator, "ann@example.org", "wrong").await.is_err());
        let LoggedIn::Submitter(submitter, ticket) =
            log_in(&authenticator, "ann@example.org", PASSWORD).await.unwrap()
        else {
            panic!("no submitter");
        };
        let ann = "ann@example.org";
        let message =
            b"From: ann@example.org\r\nSender: <bob@example.org>\r\n\r\nhi\r\n".as_slice();
        assert_eq!(submit(&submitter, "bob@example.org", &[ann], message).await, Err(550));
        assert_eq!(submit(&submitter, ann, &["nobody@example.org"], message).await, Err(550));
        for (forged, code) in [
            ("From: bob@example.org", 550),
            ("Subject: x", 550),
            ("From: bob@example.org <ann@example.org>", 550),
            ("Sender: ann@example.org\r\nFrom: bob@example.org", 550),
            ("From: ann@example.org\r\nSender : bob@example.org", 554),
            ("From: ann@example.org\r\nFrom\0: bob@example.org", 554),
            (" From: bob@example.org\r\nFrom: ann@example.org", 554),
        ] {
            let forged = format!("{forged}\r\n\r\nhi\r\n");
            assert_eq!(submit(&submitter, ann, &[ann], forged.as_bytes()).await, Err(code));
        }
        let to = ["x@elsewhere.example", "bob@example.org"];
        submit(&submitter, ann, &to, message).await.unwrap();

        // A ticket gives a submitter again; the limit of the day holds.
        let mut request = door.resume_request();
        request.get().set_ticket(&ticket);
        let response = request.send().promise.await.unwrap();
        let resumed = response.get().unwrap().get_outcome().unwrap();
        let ipc::schema::auth_capnp::resume_submitter::Which::Submitter(group) =
            resumed.which().unwrap()
        else {
            panic!("refused");
        };
        let again = group.get_submitter().unwrap();
        assert_eq!(submit(&again, ann, &to, message).await, Err(451));

        // The queue takes it, also after a restart of ours.
        bench.stop().await;
        let bench = Bench::start(folder.path());
        let queue: queue_door::Client = bench.door(Role::QueueRunner, 0).await;
        let outbox: outbox::Client = queue.outbox_request().send().pipeline.get_outbox();
        let watcher = Rc::new(Watcher::default());
        let mut request = outbox.watch_request();
        request.get().set_sink(ipc::new_client(WatcherServer(Rc::clone(&watcher))));
        let _watch = request.send().promise.await.unwrap();
        let (id, content) = loop {
            let mut request = outbox.take_request();
            request.get().set_max(10);
            let response = request.send().promise.await.unwrap();
            let items = response.get().unwrap().get_items().unwrap();
            if items.is_empty() {
                // The background look through all accounts has not come there yet.
                watcher.moved.notified().await;
                continue;
            }
            assert_eq!(items.len(), 1);
            let item = items.get(0);
            let local: Vec<bool> =
                item.get_recipients().unwrap().iter().map(|r| r.get_local()).collect();
            assert_eq!(local, [false, true]);
            assert_eq!(item.get_account().unwrap().to_str().unwrap(), "ann");
            assert!(!item.get_message_id().unwrap().is_empty(), "one was added");
            let id = item.get_submission().unwrap().to_vec();
            let taken = Rc::new(Taken::default());
            let mut request = outbox.content_request();
            request.get().set_submission(&id);
            request.get().set_sink(ipc::new_client(TakenSink(Rc::clone(&taken))));
            assert!(request.send().promise.await.unwrap().get().unwrap().get_found());
            let content = taken.octets.take();
            assert_eq!(content.len() as u64, item.get_size());
            assert!(
                content[..usize::try_from(item.get_header_length()).unwrap()]
                    .ends_with(b"\r\n\r\n")
            );
            break (id, content);
        };
        let text = String::from_utf8(content.clone()).unwrap();
        assert!(
            text.starts_with("DKIM-Signature:")
                && text.contains(RECEIVED)
                && text.contains("\r\nDate: "),
            "{text}"
        );
        for _ in 0..2 {
            let mut request = outbox.done_request();
            request.get().set_submission(&id);
            request.send().promise.await.unwrap();
        }
        let mut request = outbox.take_request();
        request.get().set_max(10);
        let response = request.send().promise.await.unwrap();
        assert!(response.get().unwrap().get_items().unwrap().is_empty());

        // And delivers to the local recipient, exactly once.
        let delivery: delivery::Client = queue.delivery_request().send().pipeline.get_delivery();
        assert_eq!(from_queue(&delivery, "bob@example.org", &content).await, "stored");
        assert_eq!(from_queue(&delivery, "bob@example.org", &content).await, "duplicate");
        assert_eq!(from_queue(&delivery, "nobody@example.org", &content).await, "550");
        assert_eq!(from_queue(&delivery, "x@elsewhere.example", &content).await, "not local");
        bench.set_password("bob", PASSWORD).await;
        let (account, _, _) = session(&bench, "bob@example.org").await;
        let (_, total) = open(&account, "Work/In", false).await;
        assert_eq!(total, 1);
        bench.stop().await;
    });
}

async fn from_queue(delivery: &delivery::Client, to: &str, message: &[u8]) -> String {
    let mut request = delivery.deliver_request();
    request.get().set_queue_id(&[5; 10]);
    request.get().set_from("ann@example.org");
    request.get().set_to(to);
    let sink: delivery_sink::Client = request.send().pipeline.get_sink();
    let mut request = sink.write_request();
    request.get().set_chunk(message);
    request.send().await.unwrap();
    let response = sink.commit_request().send().promise.await.unwrap();
    match response.get().unwrap().get_outcome().unwrap().which().unwrap() {
        delivered::Which::Stored(()) => "stored".into(),
        delivered::Which::Duplicate(()) => "duplicate".into(),
        delivered::Which::NotLocal(()) => "not local".into(),
        delivered::Which::Fault(()) => "fault".into(),
        delivered::Which::Refused(group) => group.get_code().to_string(),
    }
}

#[test]
fn what_an_administrator_does() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        let admin = bench.admin().await;
        let kind = |outcome: problem::Reader<'_>| outcome.get_kind().unwrap();
        let add = async |name: &str, address: &str| {
            let mut request = admin.account_add_request();
            request.get().set_name(name);
            request.get().set_address(address);
            request.get().set_password(PASSWORD);
            let response = request.send().promise.await.unwrap();
            kind(response.get().unwrap().get_problem().unwrap())
        };
        assert_eq!(add("eve", "eve@example.org").await, problem::Kind::None);
        assert_eq!(add("eve", "eve2@example.org").await, problem::Kind::Exists);
        assert_eq!(add("eve2", "eve@example.org").await, problem::Kind::Invalid);
        assert_eq!(add("../x", "x@example.org").await, problem::Kind::Invalid);
        let response = admin.accounts_request().send().promise.await.unwrap();
        let accounts = response.get().unwrap().get_list().unwrap();
        let states: Vec<&str> =
            accounts.iter().map(|a| a.get_state().unwrap().to_str().unwrap()).collect();
        assert_eq!(states, ["ok", "ok", "ok"], "accounts of blocks without id were made too");

        let front: front_door::Client = bench.door(Role::ImapdFront, 0).await;
        let authenticator = front.authenticator_request().send().pipeline.get_authenticator();
        log_in(&authenticator, "eve@example.org", PASSWORD).await.ok().unwrap();
        let mut request = admin.account_disable_request();
        request.get().set_name("eve");
        request.get().set_message("on leave");
        request.send().promise.await.unwrap();
        assert_eq!(
            log_in(&authenticator, "eve@example.org", PASSWORD).await.err(),
            Some(ipc::schema::auth_capnp::Failure::AccountDisabled)
        );

        // The whole text, by somebody who read an older one, and by one who read this one.
        let read = admin.directory_read_request().send().promise.await.unwrap();
        let read = read.get().unwrap();
        let text = String::from_utf8(read.get_text().unwrap().to_vec()).unwrap();
        assert!(text.contains("login_disabled = \"on leave\""), "{text}");
        let write = async |text: &str, revision| {
            let mut request = admin.directory_write_request();
            request.get().set_text(text.as_bytes());
            request.get().set_revision(revision);
            let response = request.send().promise.await.unwrap();
            kind(response.get().unwrap().get_problem().unwrap())
        };
        let enabled = text.replace("login_disabled", "description");
        assert_eq!(write(&enabled, 1).await, problem::Kind::InUse);
        assert_eq!(write("[account", read.get_revision()).await, problem::Kind::Invalid);
        assert_eq!(write(&enabled, read.get_revision()).await, problem::Kind::None);
        log_in(&authenticator, "eve@example.org", PASSWORD).await.ok().unwrap();

        let mut request = admin.domain_remove_request();
        request.get().set_domain("example.org");
        let response = request.send().promise.await.unwrap();
        let outcome = response.get().unwrap().get_problem().unwrap();
        assert_eq!(outcome.get_kind().unwrap(), problem::Kind::InUse);
        bench.stop().await;
    });
}
