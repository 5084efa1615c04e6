//! Hostile peers on every edge of the wiring table, against the real servers: garbage, giants,
//! floods, rights used after their end, tickets on other edges and after their time, bodies that
//! stop in the middle. Each time the server goes on serving others and holds a bounded amount of
//! memory.
//!
//! A row without a case here fails ([`case`]).

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test")]

use ipc::{
    Carries, Dialer, Edge, Limits, Role, Stream, WIRING, capnp,
    schema::{
        accountd_capnp::{mx_door, queue_door, session_door, submission_door, web_door},
        auth_capnp::{redeemed, resume_submitter, tickets},
        control_capnp::account_admin,
        inbound_capnp::begun,
        keyholder_capnp::{accountd_keys, dkim_signer},
        outbound_capnp::outbound,
        parser_capnp::parser,
    },
};
use mox_fuzz::{
    Connector,
    attack::{self, Flooded},
    house::{House, LOGIN},
    login::{self, honest, open},
};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::{
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// What is particular to the interface behind an edge.
struct Case {
    /// How a right that was got here ends before its connection does.
    revoked: Revoked,
    /// The body that can be left half written.
    body: Body,
}

/// With what a right ends.
enum Revoked {
    /// There is no such right: what is held ends with the connection, or the connector.
    Connection,
    /// A log-in: ends with its password.
    Password,
    /// The right to sign: ends when the domain is not hosted any more.
    Domain,
}

enum Body {
    /// Nothing streams.
    None,
    Message,
    Submission,
    Append,
    ParserJob,
    Delivery,
    Job,
}

/// The case of a row. A row that is added needs one.
fn case(edge: &Edge) -> Case {
    let (revoked, body) = match edge.bootstrap {
        "MxDoor" => (Revoked::Connection, Body::Message),
        "SubmissionDoor" => (Revoked::Password, Body::Submission),
        "SessionDoor" => (Revoked::Password, Body::Append),
        "WebDoor" => (Revoked::Password, Body::Append),
        "QueueDoor" => (Revoked::Connection, Body::Delivery),
        "Parser" => (Revoked::Connection, Body::ParserJob),
        "Outbound" => (Revoked::Connection, Body::Job),
        "AccountdKeys" => (Revoked::Domain, Body::None),
        // A ticket for a session is all that a log-in gives to front.
        "FrontDoor" | "HandOver" => (Revoked::Connection, Body::None),
        "TlsDoor" | "AdminDoor" | "HostKeys" | "Resolver" => (Revoked::Connection, Body::None),
        other => panic!("an edge without a case of hostile peers: {other}"),
    };
    Case { revoked, body }
}

/// The rows whose connections carry calls.
fn rpc() -> impl Iterator<Item = &'static Edge> {
    WIRING.iter().filter(|edge| edge.carries != Carries::HandOver)
}

/// Memory is measured for the whole process: one test at a time, however they are run.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_row_has_a_case() {
    for edge in WIRING {
        case(edge);
    }
    assert!(WIRING.iter().filter(|edge| edge.carries == Carries::HandOver).count() <= 1);
}

#[test]
fn garbage_giants_and_nonsense() {
    let _turn = alone();
    let house = House::start();
    for edge in rpc() {
        attack::garbage(&house, edge, 120);
        attack::giants(&house, edge);
        attack::nonsense(&house, edge, 12);
    }
}

#[test]
fn references_that_are_over() {
    let _turn = alone();
    let house = House::start();
    for edge in rpc() {
        attack::use_after_release(&house, edge);
        attack::use_after_rewiring(&house, edge);
    }
}

/// Octets that all floods at once may cost. Unbounded, each one costs more than 100 MB a second.
const FLOODS: u64 = 600 << 20;

#[test]
fn floods() {
    let _turn = alone();
    let house = House::start();
    attack::forget_peak();
    let before = attack::peak();
    let house = &house;
    thread::scope(|scope| {
        for edge in rpc() {
            scope.spawn(move || {
                let open = attack::flood_of_open_calls(house, edge);
                let unread = attack::flood_without_reading(house, edge);
                println!("{} to {}: {open:?}, {unread:?}", edge.client, edge.server);
                assert_eq!(open, Flooded::Ended, "{}: calls without bound", edge.bootstrap);
                // parser answers one call at a time, so that there is nothing to leave unread.
                let unread_ends = unread == Flooded::Ended || edge.server == Role::Parser;
                assert!(unread_ends, "{}: answers without bound", edge.bootstrap);
            });
            // Meanwhile others are served.
            scope.spawn(move || attack::assert_served(house, edge));
        }
    });
    let grown = attack::peak().saturating_sub(before);
    println!("all together: {grown} octets");
    assert!(grown < FLOODS, "floods cost {grown} octets");
    for edge in rpc() {
        attack::assert_served(house, edge);
    }
}

/// How long accountd may take to hear of something: architecture says 2 s; machines are busy.
const SOON: Duration = Duration::from_secs(20);

async fn soon(mut done: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + SOON;
    while Instant::now() < end {
        if done().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

async fn admin(house: &House) -> account_admin::Client {
    let socket = tokio::net::UnixStream::connect(house.control(Role::Accountd)).await.unwrap();
    let (admin, run) = ipc::connect(Stream::from_unix(socket).unwrap(), Limits::default());
    tokio::task::spawn_local(run);
    admin
}

/// Messages in the account.
async fn stored(house: &House) -> u64 {
    let answer = admin(house).await.accounts_request().send().promise.await.unwrap();
    answer.get().unwrap().get_list().unwrap().get(0).get_messages()
}

async fn door<C: capnp::capability::FromClientHook + 'static>(house: &House, edge: &Edge) -> C {
    open(house, edge.client, 0, edge.server).await
}

async fn redeem(
    tickets: &tickets::Client,
    ticket: &[u8],
) -> Option<ipc::schema::account_capnp::account::Client> {
    let mut request = tickets.redeem_request();
    request.get().set_ticket(ticket);
    login::peer(request.get().init_peer());
    let answer = request.send().promise.await.unwrap();
    match answer.get().unwrap().get_outcome().unwrap().which().unwrap() {
        redeemed::Account(account) => Some(account.get_account().unwrap()),
        redeemed::Refused(()) => None,
    }
}

async fn resume(
    house: &House,
    ticket: &[u8],
) -> Option<ipc::schema::inbound_capnp::submitter::Client> {
    let door: submission_door::Client = open(house, Role::SmtpdSubmission, 0, Role::Accountd).await;
    let mut request = door.resume_request();
    request.get().set_ticket(ticket);
    let answer = request.send().promise.await.unwrap();
    match answer.get().unwrap().get_outcome().unwrap().which().unwrap() {
        resume_submitter::Submitter(of) => Some(of.get_submitter().unwrap()),
        resume_submitter::Refused(()) => None,
    }
}

async fn session_tickets(house: &House, instance: u16) -> tickets::Client {
    let door: session_door::Client =
        open(house, Role::ImapdSession, instance, Role::Accountd).await;
    door.tickets_request().send().pipeline.get_tickets()
}

async fn web_tickets(house: &House) -> tickets::Client {
    let door: web_door::Client = open(house, Role::HttpdWeb, 0, Role::Accountd).await;
    door.tickets_request().send().pipeline.get_tickets()
}

/// Which of the three tickets are taken where.
async fn taken(house: &House, tickets: &[Vec<u8>]) -> Vec<(&'static str, usize)> {
    let mut taken = Vec::new();
    for (at, ticket) in tickets.iter().enumerate() {
        if redeem(&session_tickets(house, 0).await, ticket).await.is_some() {
            taken.push(("session 0", at));
        }
        if redeem(&session_tickets(house, 1).await, ticket).await.is_some() {
            taken.push(("session 1", at));
        }
        if resume(house, ticket).await.is_some() {
            taken.push(("submission", at));
        }
        if redeem(&web_tickets(house).await, ticket).await.is_some() {
            taken.push(("web", at));
        }
    }
    taken
}

#[test]
fn tickets_on_other_edges_and_after_their_time() {
    let _turn = alone();
    let house = House::start();
    honest(async {
        let tickets = login::tickets(&house).await;
        let own = [("session 0", 0), ("submission", 1), ("web", 2)];
        assert_eq!(taken(&house, &tickets).await, own, "each on its edge, and nowhere else");
        for ticket in &tickets {
            for bit in (0..ticket.len() * 8).step_by(7) {
                let mut bent = ticket.clone();
                bent[bit / 8] ^= 1 << (bit % 8);
                assert!(resume(&house, &bent).await.is_none());
                assert!(redeem(&web_tickets(&house).await, &bent).await.is_none());
            }
        }
        house.clock.advance(Duration::from_secs(11 * 60));
        assert_eq!(taken(&house, &tickets).await, [], "after their time");
    });
}

#[test]
fn rights_that_were_revoked() {
    let _turn = alone();
    for edge in rpc() {
        match case(edge).revoked {
            // What is held ends in `references_that_are_over`.
            Revoked::Connection => {}
            Revoked::Password => revoked_by_password(edge),
            Revoked::Domain => revoked_by_domain(edge),
        }
    }
}

fn revoked_by_password(edge: &Edge) {
    let house = House::start();
    honest(async {
        let tickets = login::tickets(&house).await;
        let held = match edge.client {
            Role::SmtpdSubmission => Held::Submitter(resume(&house, &tickets[1]).await.unwrap()),
            Role::ImapdSession => {
                Held::Account(redeem(&session_tickets(&house, 0).await, &tickets[0]).await.unwrap())
            }
            client => {
                assert_eq!(client, Role::HttpdWeb, "nobody else logs users in");
                Held::Account(redeem(&web_tickets(&house).await, &tickets[2]).await.unwrap())
            }
        };
        assert!(held.works().await);
        let mut request = admin(&house).await.account_password_request();
        request.get().set_name("mox");
        request.get().set_password("another-password");
        request.send().promise.await.unwrap();
        assert!(soon(async || !held.works().await).await, "{}: used after revoke", edge.bootstrap);
        assert_eq!(taken(&house, &tickets).await, [], "its ticket is worthless too");
    });
    attack::assert_served(&house, edge);
}

enum Held {
    Submitter(ipc::schema::inbound_capnp::submitter::Client),
    Account(ipc::schema::account_capnp::account::Client),
}

impl Held {
    async fn works(&self) -> bool {
        match self {
            Held::Account(account) => account.describe_request().send().promise.await.is_ok(),
            Held::Submitter(submitter) => {
                let mut request = submitter.begin_request();
                request.get().set_helo("localhost");
                request.get().set_from(LOGIN);
                login::peer(request.get().init_peer());
                let Ok(answer) = request.send().promise.await else { return false };
                let outcome = answer.get().unwrap().get_outcome().unwrap();
                matches!(outcome.which(), Ok(begun::Transaction(_)))
            }
        }
    }
}

fn revoked_by_domain(edge: &Edge) {
    let house = House::start();
    honest(async {
        let keys: accountd_keys::Client = door(&house, edge).await;
        let admin = keys.key_admin_request().send().pipeline.get_admin();
        let host = async |domains: &[&str]| {
            let mut request = admin.hosted_request();
            request.get().set_domains(domains).unwrap();
            request.send().promise.await.unwrap();
        };
        let renewed = async || {
            let mut request = keys.dkim_request();
            request.get().set_domain("localhost");
            request.send().promise.await?.get()?.get_signer()
        };
        // The accountd of a development server names its domain and makes a key for it when it
        // serves already; what is named before that would be overruled.
        let made = async || match renewed().await {
            Ok(signer) => signs(&signer).await,
            Err(_) => false,
        };
        assert!(soon(made).await, "it signs");
        let signer = renewed().await.unwrap();
        host(&["example.org"]).await;
        assert!(!signs(&signer).await, "and signs no more");
        assert!(renewed().await.is_err(), "and there is no other signer");
    });
    attack::assert_served(&house, edge);
}

async fn signs(signer: &dkim_signer::Client) -> bool {
    let answer = signer.describe_request().send().promise.await.unwrap();
    !answer.get().unwrap().get_keys().unwrap().is_empty()
}

/// What a body is made of before it stops.
const HALF: &[u8] = b"From: ann@example.net\r\nMessage-ID: <half@example.net>\r\n\r\nhalf a mess";

#[test]
fn bodies_that_stop_in_the_middle() {
    let _turn = alone();
    let house = House::start();
    for edge in rpc() {
        let before = honest(stored(&house));
        for _ in 0..20 {
            // The connection dies with the body in the middle.
            honest(half(&house, edge));
        }
        assert_eq!(honest(stored(&house)), before, "{}: half a message is none", edge.bootstrap);
        attack::assert_served(&house, edge);
    }
    let spool: Vec<_> = std::fs::read_dir(house.folder("accountd").join("spool"))
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    assert!(spool.is_empty(), "left lying about: {spool:?}");
}

macro_rules! write_half {
    ($sink:expr) => {{
        let sink = $sink;
        for _ in 0..3 {
            let mut request = sink.write_request();
            request.get().set_chunk(HALF);
            // The bound of the sink may refuse it; then the body is over all the same.
            if request.send().await.is_err() {
                break;
            }
        }
    }};
}

async fn half(house: &House, edge: &Edge) {
    match case(edge).body {
        Body::None => {}
        Body::Message => {
            let door: mx_door::Client = door(house, edge).await;
            let inbound = door.inbound_request().send().pipeline.get_inbound();
            let mut request = inbound.begin_request();
            request.get().set_helo("a.example");
            request.get().set_from("ann@example.net");
            login::peer(request.get().init_peer());
            transaction(request.send().promise.await.unwrap().get().unwrap().get_outcome()).await;
        }
        Body::Submission => {
            let ticket = &house.lexicon.tickets[1];
            let submitter = resume(house, ticket).await.unwrap();
            let mut request = submitter.begin_request();
            request.get().set_helo("localhost");
            request.get().set_from(LOGIN);
            login::peer(request.get().init_peer());
            transaction(request.send().promise.await.unwrap().get().unwrap().get_outcome()).await;
        }
        Body::Append => {
            let mut request = redeemed_account(house, edge).await.append_request();
            request.get().set_mailbox("Inbox");
            let answer = request.send().promise.await.unwrap();
            let outcome = answer.get().unwrap().get_outcome().unwrap();
            let Ok(ipc::schema::account_capnp::append_started::Sink(sink)) = outcome.which() else {
                panic!("no sink")
            };
            write_half!(sink.unwrap());
        }
        Body::ParserJob => {
            let parser: parser::Client = door(house, edge).await;
            let job = parser.job_request().send().promise.await.unwrap();
            write_half!(job.get().unwrap().get_job().unwrap());
        }
        Body::Delivery => {
            let door: queue_door::Client = door(house, edge).await;
            let delivery = door.delivery_request().send().pipeline.get_delivery();
            let mut request = delivery.deliver_request();
            request.get().set_queue_id(&[7; 16]);
            request.get().set_to(LOGIN);
            let sink = request.send().pipeline.get_sink();
            write_half!(sink);
        }
        Body::Job => {
            let outbound: outbound::Client = door(house, edge).await;
            let mut request = outbound.deliver_request();
            let mut job = request.get().init_job();
            job.set_domain("example.org");
            job.set_ehlo("localhost");
            job.set_recipients(&["ann@example.org"][..]).unwrap();
            let delivery = request.send().pipeline.get_delivery();
            write_half!(delivery);
        }
    }
}

async fn redeemed_account(
    house: &House,
    edge: &Edge,
) -> ipc::schema::account_capnp::account::Client {
    let (tickets, at) = if edge.client == Role::ImapdSession {
        (session_tickets(house, 0).await, 0)
    } else {
        (web_tickets(house).await, 2)
    };
    redeem(&tickets, &house.lexicon.tickets[at]).await.unwrap()
}

async fn transaction(outcome: Result<begun::Reader<'_>, capnp::Error>) {
    let Ok(begun::Transaction(transaction)) = outcome.unwrap().which() else {
        panic!("the envelope was refused")
    };
    let transaction = transaction.unwrap();
    let mut request = transaction.recipient_request();
    request.get().set_to(LOGIN);
    request.send().promise.await.unwrap();
    let sink = transaction.data_request().send().pipeline.get_sink();
    write_half!(sink);
}

#[test]
fn signing_slots() {
    let _turn = alone();
    let house = House::start();
    for edge in rpc().filter(|edge| edge.carries == Carries::RpcAndSigningSlots) {
        let connector = house.connector(edge.client, 0, edge.server);
        for request in [&b""[..], b"x", &[0; 9], &[b' '; 200], &[0xff; 4000]] {
            let slot = connector.ask(2).unwrap();
            send(&slot, request, SendFlags::NOSIGNAL).unwrap();
            assert!(is_refused(&slot), "{}: {request:?}", edge.client);
        }
        // Requests without number, answers unread.
        let slot = connector.ask(2).unwrap();
        let good_shape =
            [&[0; 8][..], &[4, 3], &[b' '; 64], b"TLS 1.3, server CertificateVerify\0", &[7; 32]]
                .concat();
        let end = Instant::now() + SOON;
        while send(&slot, &good_shape, SendFlags::NOSIGNAL).is_ok() {
            assert!(Instant::now() < end, "a slot that is never read is borne");
        }
        attack::assert_served(&house, edge);
        assert!(connector.ask(2).is_some());
    }
}

/// One octet that says why not, or the end.
fn is_refused(slot: &OwnedFd) -> bool {
    rustix::io::ioctl_fionbio(slot, false).unwrap();
    let mut answer = [0; 600];
    !matches!(recv(slot, &mut answer[..], RecvFlags::empty()), Ok((_, 2..)))
}

fn handed(connector: &Connector, ticket: &[u8]) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let dialer_end = rustix::io::dup(&connector.0).unwrap();
    let message = hand_over(ticket);
    honest(async {
        let dialer = Dialer::from_connector(dialer_end).unwrap();
        dialer.hand_over(&message, &theirs.into()).await.unwrap();
    });
    ours.set_read_timeout(Some(SOON)).unwrap();
    ours
}

fn hand_over(ticket: &[u8]) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    let mut root: ipc::schema::imap_capnp::hand_over::Builder<'_> = message.init_root();
    root.set_ticket(ticket);
    root.set_tag("a1");
    root.set_login(LOGIN);
    login::peer(root.init_peer());
    capnp::serialize::write_message_to_words(&message)
}

fn hears(stream: &mut UnixStream, wanted: &str) -> bool {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(octets @ 1..) = stream.read(&mut buffer) {
        heard.extend(&buffer[..octets]);
        if String::from_utf8_lossy(&heard).contains(wanted) {
            return true;
        }
    }
    false
}

/// The row that carries connections and no calls.
#[test]
fn hand_overs() {
    let _turn = alone();
    let house = House::start();
    let edge = WIRING.iter().find(|edge| edge.carries == Carries::HandOver).unwrap();
    let session = |house: &House| house.connector(edge.client, 0, edge.server);
    let ticket = &house.lexicon.tickets[0];
    let is_served = || {
        let mut stream = handed(&session(&house), ticket);
        stream.write_all(b"b NOOP\r\n").unwrap();
        hears(&mut stream, "b OK")
    };
    assert!(is_served());
    attack::forget_peak();
    let before = attack::peak();

    // Nonsense ends its connector; words that make none end their connection.
    for octets in [&b""[..], b"\x03", &[3; 17], &[0xff; 4000], &[1; 17]] {
        let connector = session(&house);
        let _ = connector.say(octets);
        assert!(connector.answer(Duration::from_millis(50)).is_none());
    }
    let honest_words = hand_over(ticket);
    for bit in (0..honest_words.len() * 8).step_by(13) {
        let connector = session(&house);
        let mut words = honest_words.clone();
        words[bit / 8] ^= 1 << (bit % 8);
        let (_ours, theirs) = UnixStream::pair().unwrap();
        honest(async {
            let dialer = Dialer::from_connector(connector.0).unwrap();
            dialer.hand_over(&words, &theirs.into()).await.unwrap();
        });
    }
    // Tickets of other edges, bent ones and none: the connection is not served.
    for wrong in [&house.lexicon.tickets[1], &house.lexicon.tickets[2], &Vec::new()] {
        let mut stream = handed(&session(&house), wrong);
        let _ = stream.write_all(b"b SELECT Inbox\r\n");
        assert!(!hears(&mut stream, "b OK"), "a ticket of another edge was taken");
    }
    // Many at once that read nothing and stop in the middle of a command.
    let connector = session(&house);
    let mut open = Vec::new();
    for _ in 0..400 {
        let mut stream = handed(&connector, ticket);
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write(&b"b FETCH 1:* ALL\r\n".repeat(500));
        let _ = stream.write(b"c APPEND Inbox {1000+}\r\nhalf");
        open.push(stream);
    }
    assert!(is_served(), "others are served meanwhile");
    drop(open);
    // After its time the ticket is worth nothing here, either.
    house.clock.advance(Duration::from_secs(11 * 60));
    let mut stream = handed(&session(&house), ticket);
    let _ = stream.write_all(b"b NOOP\r\n");
    assert!(!hears(&mut stream, "b OK"), "a ticket after its time was taken");
    let grown = attack::peak().saturating_sub(before);
    assert!(grown < 200 << 20, "hand-overs cost {grown} octets");
}
