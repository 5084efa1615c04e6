//! What only an honest client gets: log-ins, tickets, a block that is signed.

use crate::house::{House, LOGIN, PASSWORD};
use ipc::{
    Dialer, Limits, Role, capnp,
    schema::{
        accountd_capnp::{front_door, submission_door, web_door},
        auth_capnp::{authenticator, step, success},
        types_capnp::peer,
    },
};
use mailauth::dkim::{Algorithm, Canonicalization, DEFAULT_SIGNED, Draft, Recipe, fields};
use types::{Domain, UnixNanos};

/// Runs honest calls in a runtime of their own.
pub fn honest<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// An honest client's end of an edge, open as long as the returned object is held.
pub async fn open<C: capnp::capability::FromClientHook + 'static>(
    house: &House,
    client: Role,
    instance: u16,
    server: Role,
) -> C {
    let connector = house.connector(client, instance, server);
    let dialer = Dialer::from_connector(connector.0).expect("a socket");
    let stream = dialer.dial().await.expect("the server is there");
    let (object, run) = ipc::connect::<C>(stream, Limits::default());
    tokio::task::spawn_local(async move {
        run.await;
        // The connector is held as long as the connection is.
        drop(dialer);
    });
    object
}

/// Where the client of a face comes from.
pub fn peer(mut to: peer::Builder<'_>) {
    to.set_ip(&[127, 0, 0, 1]);
    to.set_port(2525);
    to.set_session(&[5; 8]);
    to.set_listener("test/submission");
}

/// The ticket of a log-in.
pub async fn ticket(authenticator: authenticator::Client) -> Vec<u8> {
    let mut request = authenticator.start_request();
    let mut params = request.get();
    params.set_mechanism("PLAIN");
    params.set_initial(format!("\0{LOGIN}\0{PASSWORD}").as_bytes());
    params.set_has_initial(true);
    peer(params.init_peer());
    let answer = request.send().promise.await.expect("an answer");
    let step = answer.get().expect("results").get_step().expect("a step");
    let Ok(step::Success(Ok(success))) = step.which() else { panic!("the log-in was refused") };
    let ticket = match success.which() {
        Ok(success::Submitter(of)) => of.get_ticket(),
        Ok(success::HandOver(of)) => of.get_ticket(),
        Ok(success::Account(of)) => of.get_ticket(),
        Err(_) => panic!("a log-in that gives nothing"),
    };
    ticket.expect("a ticket").to_vec()
}

/// A ticket of each edge: submission, front (for a session), web.
pub async fn tickets(house: &House) -> Vec<Vec<u8>> {
    let door: submission_door::Client = open(house, Role::SmtpdSubmission, 0, Role::Accountd).await;
    let submission = door.authenticator_request().send().pipeline.get_authenticator();
    let door: front_door::Client = open(house, Role::ImapdFront, 0, Role::Accountd).await;
    let front = door.authenticator_request().send().pipeline.get_authenticator();
    let door: web_door::Client = open(house, Role::HttpdWeb, 0, Role::Accountd).await;
    let web = door.authenticator_request().send().pipeline.get_authenticator();
    vec![ticket(front).await, ticket(submission).await, ticket(web).await]
}

/// What the lexicon of a house needs.
pub(crate) fn learn(house: &mut House) {
    let tickets = honest(tickets(house));
    house.lexicon.tickets = tickets;
    house.lexicon.block = block();
}

/// A block that keyholder would sign for `localhost`, had it a key of selector `2026a`.
fn block() -> Vec<u8> {
    let header =
        b"From: mox@localhost\r\nSubject: x\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n\r\n";
    let domain: Domain = "localhost".parse().expect("a domain");
    let selector = "2026a".parse().expect("a selector");
    let recipe = Recipe {
        domain: &domain,
        selector: &selector,
        algorithm: Algorithm::Ed25519Sha256,
        header: Canonicalization::Relaxed,
        body: Canonicalization::Relaxed,
        identity: None,
        signed: &DEFAULT_SIGNED,
        seal: true,
        time: UnixNanos::from_seconds(1_790_000_000),
        expires: None,
    };
    let fields = fields(header).expect("a sound header");
    Draft::new(&recipe, &fields, &[7; 32]).expect("a draft").block().to_vec()
}
