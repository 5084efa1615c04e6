//! Every door of accountd and every interface behind one, tried over the one edge there is: an
//! interface is a number in a call, and nothing keeps a caller from sending another number.

use crate::{Outcome, Report, orders::Orders};
use ipc::{
    Dialer, Limits, Line,
    capnp::{self, capability::FromClientHook as _},
    schema::{
        accountd_capnp::{
            admin_door, door, front_door, mx_door, queue_door, session_door, submission_door,
            web_door,
        },
        control_capnp::{account_admin, key_control, problem, queue_admin},
        types_capnp::peer,
    },
};
use std::time::Duration;

/// accountd may still be starting.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of whatever is behind an edge, waiting for it to be there.
pub(crate) async fn open(dialer: &Dialer) -> anyhow::Result<(Line<door::Client>, door::Client)> {
    let line: Line<door::Client> = Line::new(dialer.clone(), Limits::SHORT_CALLS);
    let client = tokio::time::timeout(PATIENCE, async {
        loop {
            match line.client().await {
                Ok(client) => break client,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    let client = client.await?;
    Ok((line, client))
}

/// A stranger at an address that was made up.
pub(crate) fn describe(mut to: peer::Builder<'_>, client_key: &[u8]) {
    to.set_ip(&[203, 0, 113, 7]);
    to.set_session(&[7; 8]);
    to.set_listener("users/imaps");
    let mut tls = to.init_tls();
    tls.set_version(0x0304);
    tls.set_client_key(client_key);
}

macro_rules! attempt {
    ($report:expr, $name:literal, $client:expr, $door:ident, $request:ident) => {{
        let request = $client.clone().cast_to::<$door::Client>().$request();
        $report.tell($name, Outcome::of(request.send().promise.await));
    }};
}

/// Tries all doors. Those that are its own answer, too: else nothing is proved.
pub(crate) async fn try_all(at: &door::Client, orders: &Orders, report: &Report) {
    attempt!(report, "Door.config", at, door, config_request);
    attempt!(report, "Door.gate", at, door, gate_request);
    attempt!(report, "MxDoor.inbound", at, mx_door, inbound_request);
    attempt!(report, "SubmissionDoor.authenticator", at, submission_door, authenticator_request);
    attempt!(report, "SubmissionDoor.resume", at, submission_door, resume_request);
    attempt!(report, "FrontDoor.authenticator", at, front_door, authenticator_request);
    attempt!(report, "SessionDoor.tickets", at, session_door, tickets_request);
    attempt!(report, "WebDoor.authenticator", at, web_door, authenticator_request);
    attempt!(report, "WebDoor.tickets", at, web_door, tickets_request);
    attempt!(report, "QueueDoor.outbox", at, queue_door, outbox_request);
    attempt!(report, "QueueDoor.delivery", at, queue_door, delivery_request);
    attempt!(report, "AccountAdmin.accounts", at, account_admin, accounts_request);
    attempt!(report, "AccountAdmin.directoryRead", at, account_admin, directory_read_request);
    attempt!(report, "QueueAdmin.status", at, queue_admin, status_request);
    attempt!(report, "KeyControl.keys", at, key_control, keys_request);
    let outcome = administrator(at, "not the password", report).await;
    report.tell("AdminDoor.login, a wrong password", outcome);
    let outcome = administrator(at, &orders.admin_password, report).await;
    report.tell("AdminDoor.login, the right password", outcome);
    // The edge has survived all of this.
    attempt!(report, "Door.gate, again", at, door, gate_request);
}

async fn administrator(at: &door::Client, password: &str, report: &Report) -> Outcome {
    use ipc::schema::auth_capnp::admin_outcome;
    let mut request = at.clone().cast_to::<admin_door::Client>().login_request();
    request.get().set_password(password);
    describe(request.get().init_peer(), &[]);
    let run = async {
        let answer = request.send().promise.await?;
        let admin_outcome::Admin(admin) = answer.get()?.get_outcome()?.which()? else {
            return Ok(false);
        };
        let admin = admin?;
        let accounts = admin.accounts_request().send().promise.await;
        report.tell("administer accounts", Outcome::of(accounts));
        let mut request = admin.message_show_request();
        request.get().set_account("ann");
        request.get().set_mailbox("Inbox");
        request.get().set_uid(1);
        // Whether there is such a message is not the question: whether it may be asked for is.
        let answer = request.send().promise.await?;
        let refused = answer.get()?.get_problem()?.get_kind()? == problem::Kind::Invalid;
        report.tell("read mail as an administrator", Outcome::when(!refused));
        Ok::<bool, capnp::Error>(true)
    };
    match run.await {
        Ok(got) => Outcome::when(got),
        Err(error) => Outcome::of::<()>(Err(error)),
    }
}
