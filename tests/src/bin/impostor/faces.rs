//! The faces, taken over: what strangers reach first.

use crate::{Outcome, Report, doors, keys, orders::Orders};
use daemon::Inherited;
use ipc::{
    Role,
    capnp::{self, capability::FromClientHook as _},
    schema::{
        accountd_capnp::{door, front_door, mx_door, submission_door, web_door},
        auth_capnp::{authenticator, step, success},
        inbound_capnp::{begun, committed, rcpt_outcome, transaction},
    },
};
use std::{collections::BTreeMap, os::fd::OwnedFd};

/// Does all of it.
pub(crate) async fn attack(
    inherited: &mut Inherited,
    orders: &Orders,
    report: &Report,
) -> anyhow::Result<()> {
    let role = inherited.role;
    let dialer = |role| inherited.dialer(role).expect("the table has this edge");
    let (_line, at) = doors::open(&dialer(Role::Accountd)).await?;
    // Words first, nonsense later: nonsense is counted against the address.
    match role {
        Role::SmtpdMx => deliver(&at, orders, report).await?,
        Role::SmtpdSubmission => submit(&at, orders, report).await?,
        Role::ImapdFront => front(inherited, &at, orders, report).await?,
        Role::HttpdWeb => web(&at, orders, report).await?,
        Role::HttpdAdmin
        | Role::ImapdSession
        | Role::Accountd
        | Role::QueueRunner
        | Role::Keyholder
        | Role::Parser
        | Role::Outbound
        | Role::Resolver => {}
    }
    doors::try_all(&at, orders, report).await;
    keys::as_a_face(&dialer(Role::Keyholder), role, orders, report).await;
    Ok(())
}

/// A message with the words that the test looks for.
fn message(from: &str, words: &str) -> String {
    format!(
        "From: <{from}>\r\nMessage-ID: <{words}@impostor>\r\nSubject: {words}\r\n\r\n{words}\r\n"
    )
}

/// The field that a face puts on top.
const RECEIVED: &str = "Received: from impostor by us; Sat, 28 Nov 2026 12:00:00 +0000\r\n";

/// From RCPT to the end of DATA.
async fn send(
    transaction: &transaction::Client,
    to: &str,
    message: &str,
    on_top: &str,
) -> Result<bool, capnp::Error> {
    let mut request = transaction.recipient_request();
    request.get().set_to(to);
    let answer = request.send().promise.await?;
    if let rcpt_outcome::Refused(_) = answer.get()?.get_outcome()?.which()? {
        return Ok(false);
    }
    let answer = transaction.data_request().send().promise.await?;
    let sink = answer.get()?.get_sink()?;
    let mut request = sink.write_request();
    request.get().set_chunk(message.as_bytes());
    request.send().await?;
    let mut request = sink.commit_request();
    request.get().set_received(on_top);
    let answer = request.send().promise.await?;
    Ok(matches!(answer.get()?.get_outcome()?.which()?, committed::Accepted(_)))
}

fn outcome(result: Result<bool, capnp::Error>) -> Outcome {
    match result {
        Ok(got) => Outcome::when(got),
        Err(error) => Outcome::of::<()>(Err(error)),
    }
}

/// smtpd mx: any bytes to a local recipient, from anybody.
async fn deliver(at: &door::Client, orders: &Orders, report: &Report) -> anyhow::Result<()> {
    let door: mx_door::Client = at.clone().cast_to();
    let inbound = door.inbound_request().send().promise.await?;
    let inbound = inbound.get()?.get_inbound()?;
    for (what, to) in [
        ("deliver to a local recipient", orders.user.as_str()),
        ("deliver to somebody elsewhere", "somebody@example.com"),
        ("deliver to a path", "../../accountd/accounts@example.org"),
    ] {
        let mut request = inbound.begin_request();
        let mut params = request.get();
        params.set_helo("anybody.example");
        params.set_from("anybody@example.com");
        doors::describe(params.init_peer(), &[]);
        let answer = request.send().promise.await?;
        let begun::Transaction(transaction) = answer.get()?.get_outcome()?.which()? else {
            report.tell(what, Outcome::Broken);
            continue;
        };
        let text = message("anybody@example.com", "by-the-mx");
        report.tell(what, outcome(send(&transaction?, to, &text, RECEIVED).await));
    }
    Ok(())
}

/// What a log-in gave, if anything: an answer whose step is a success.
type LoggedIn = Option<capnp::capability::Response<authenticator::start_results::Owned>>;

/// Logs in by a mechanism.
async fn log_in(
    authenticator: &authenticator::Client,
    mechanism: &str,
    initial: &[u8],
    client_key: &[u8],
) -> Result<LoggedIn, capnp::Error> {
    let mut request = authenticator.start_request();
    let mut params = request.get();
    params.set_mechanism(mechanism);
    params.set_initial(initial);
    params.set_has_initial(true);
    doors::describe(params.init_peer(), client_key);
    let answer = request.send().promise.await?;
    let got = matches!(answer.get()?.get_step()?.which()?, step::Success(_));
    Ok(Some(answer).filter(|_| got))
}

fn gave(
    logged_in: &capnp::capability::Response<authenticator::start_results::Owned>,
) -> Result<success::WhichReader<'_>, capnp::Error> {
    match logged_in.get()?.get_step()?.which()? {
        step::Success(success) => Ok(success?.which()?),
        step::Challenge(_) | step::Failure(_) => Err(capnp::Error::failed("no success".into())),
    }
}

fn plain(user: &str, password: &str) -> Vec<u8> {
    format!("\0{user}\0{password}").into_bytes()
}

/// What every face that takes passwords tries with them; what the right one gave.
async fn passwords(
    authenticator: &authenticator::Client,
    orders: &Orders,
    report: &Report,
) -> anyhow::Result<LoggedIn> {
    let right = plain(&orders.user, &orders.password);
    let logged_in = log_in(authenticator, "PLAIN", &right, &[]).await?;
    report.tell("log in as who types a password here", Outcome::when(logged_in.is_some()));
    let wrong = plain(&orders.other, &orders.password);
    let other = log_in(authenticator, "PLAIN", &wrong, &[]).await?;
    report.tell("log in as somebody else", Outcome::when(other.is_some()));
    let acting = format!("{}\0{}\0{}", orders.other, orders.user, orders.password);
    let acting = log_in(authenticator, "PLAIN", acting.as_bytes(), &[]).await?;
    report.tell("act as somebody else with one's own password", Outcome::when(acting.is_some()));
    let nobody = log_in(authenticator, "EXTERNAL", b"", &[]).await?;
    report.tell("log in by a key that nobody showed", Outcome::when(nobody.is_some()));
    let unknown = log_in(authenticator, "EXTERNAL", b"", &[9; 32]).await?;
    report.tell("log in by a key that nobody registered", Outcome::when(unknown.is_some()));
    let claimed = log_in(authenticator, "EXTERNAL", b"", &orders.client_key).await?;
    report.tell("log in by claiming a registered key", Outcome::when(claimed.is_some()));
    Ok(logged_in)
}

/// smtpd submission: sends as who logged in.
async fn submit(at: &door::Client, orders: &Orders, report: &Report) -> anyhow::Result<()> {
    let door: submission_door::Client = at.clone().cast_to();
    let answer = door.authenticator_request().send().promise.await?;
    let logged_in = passwords(&answer.get()?.get_authenticator()?, orders, report).await?;
    let Some(logged_in) = logged_in else { return Ok(()) };
    let success::Submitter(group) = gave(&logged_in)? else {
        report.tell("a log-in gives an account", Outcome::Got);
        return Ok(());
    };
    let (submitter, ticket) = (group.get_submitter()?, group.get_ticket()?.to_vec());
    let forged = format!("From: <{}>\r\n{RECEIVED}", orders.other);
    for (what, from, author, on_top) in [
        ("send as who logged in", &orders.user, &orders.user, RECEIVED),
        ("send with somebody else's reverse-path", &orders.other, &orders.user, RECEIVED),
        ("send with somebody else's From", &orders.user, &orders.other, RECEIVED),
        ("send with somebody else's From on top", &orders.user, &orders.user, &forged),
    ] {
        let mut request = submitter.begin_request();
        let mut params = request.get();
        params.set_helo("anybody.example");
        params.set_from(from);
        doors::describe(params.init_peer(), &[]);
        let answer = request.send().promise.await?;
        let sent = match answer.get()?.get_outcome()?.which()? {
            begun::Transaction(transaction) => {
                let text = message(author, "by-submission");
                outcome(send(&transaction?, &orders.other, &text, on_top).await)
            }
            begun::Refused(_) => Outcome::Refused,
        };
        report.tell(what, sent);
    }
    let mut changed = ticket.clone();
    if let Some(octet) = changed.get_mut(5) {
        *octet ^= 1;
    }
    for (what, ticket) in [("resume by its own ticket", ticket), ("resume by another's", changed)] {
        let mut request = door.resume_request();
        request.get().set_ticket(&ticket);
        let answer = request.send().promise.await?;
        use ipc::schema::auth_capnp::resume_submitter;
        let got = matches!(answer.get()?.get_outcome()?.which()?, resume_submitter::Submitter(_));
        report.tell(what, Outcome::when(got));
    }
    Ok(())
}

/// imapd front: a ticket, and nothing to turn it into an account with; it hands it to everybody.
async fn front(
    inherited: &Inherited,
    at: &door::Client,
    orders: &Orders,
    report: &Report,
) -> anyhow::Result<()> {
    let door: front_door::Client = at.clone().cast_to();
    let answer = door.authenticator_request().send().promise.await?;
    let logged_in = passwords(&answer.get()?.get_authenticator()?, orders, report).await?;
    let Some(logged_in) = logged_in else { return Ok(()) };
    let success::HandOver(group) = gave(&logged_in)? else {
        report.tell("a log-in gives more than a ticket", Outcome::Got);
        return Ok(());
    };
    let (ticket, place) = (group.get_ticket()?.to_vec(), group.get_session_instance());
    // A ticket names its edge; every octet of it is under the MAC.
    let mut tickets = BTreeMap::from([(format!("a ticket for {place}"), ticket.clone())]);
    for at in [1, 5, 11, 12, 13, 14, 20, ticket.len() - 1] {
        let mut changed = ticket.clone();
        changed[at] ^= 1;
        tickets.insert(format!("a ticket changed at {at}"), changed);
    }
    tickets.insert("no ticket".into(), vec![0; 120]);
    for ((role, instance), dialer) in &inherited.dialers {
        if *role != Role::ImapdSession {
            continue;
        }
        for (what, ticket) in &tickets {
            let (_ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            let text = [what.as_bytes(), b"|", ticket].concat();
            let sent = dialer.hand_over(&text, &OwnedFd::from(theirs)).await;
            if sent.is_err() {
                report.tell(&format!("hand {what} to {instance}"), Outcome::Broken);
            }
        }
    }
    Ok(())
}

/// httpd web: the account of who logs in.
async fn web(at: &door::Client, orders: &Orders, report: &Report) -> anyhow::Result<()> {
    let door: web_door::Client = at.clone().cast_to();
    let answer = door.authenticator_request().send().promise.await?;
    let logged_in = passwords(&answer.get()?.get_authenticator()?, orders, report).await?;
    let Some(logged_in) = logged_in else { return Ok(()) };
    let success::Account(group) = gave(&logged_in)? else {
        report.tell("a log-in gives an account", Outcome::Refused);
        return Ok(());
    };
    crate::session::within_an_account(&group.get_account()?, report).await
}
