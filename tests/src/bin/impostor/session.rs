//! imapd session, taken over: redeems whatever it is handed, and looks around in what it gets.

use crate::{Outcome, Report, doors, orders::Orders};
use daemon::Inherited;
use ipc::{
    Incoming, Role,
    capnp::capability::FromClientHook as _,
    schema::{
        account_capnp::{account, mailbox_outcome, opened},
        accountd_capnp::session_door,
        auth_capnp::{redeemed, renewed, tickets},
        control_capnp::account_admin,
    },
};
use std::time::Duration;

/// When no more hand-overs come, the attack is over.
const QUIET: Duration = Duration::from_secs(2);

/// Does all of it.
pub(crate) async fn attack(
    inherited: &mut Inherited,
    orders: &Orders,
    report: &Report,
) -> anyhow::Result<()> {
    let dialer = inherited.dialer(Role::Accountd).expect("the table has this edge");
    let (_line, at) = doors::open(&dialer).await?;
    doors::try_all(&at, orders, report).await;
    let door: session_door::Client = at.cast_to();
    let answer = door.tickets_request().send().promise.await?;
    let tickets = answer.get()?.get_tickets()?;
    let Some(mut front) = inherited.acceptors.recv().await else { return Ok(()) };
    report.tell("who hands over", Outcome::when(front.client().0 == Role::ImapdFront));
    let mut handed = 0;
    loop {
        let next = match handed {
            // The first may take its time: front starts last.
            0 => front.accept().await,
            _ => match tokio::time::timeout(QUIET, front.accept()).await {
                Ok(next) => next,
                Err(_) => return Ok(()),
            },
        };
        let Some(Incoming::HandOver(over)) = next else { return Ok(()) };
        handed += 1;
        let mut parts = over.message.splitn(2, |&octet| octet == b'|');
        let what = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        redeem(&tickets, &what, parts.next().unwrap_or_default(), report).await?;
    }
}

async fn redeem(
    tickets: &tickets::Client,
    what: &str,
    ticket: &[u8],
    report: &Report,
) -> anyhow::Result<()> {
    let mut request = tickets.renew_request();
    request.get().set_ticket(ticket);
    let answer = request.send().promise.await?;
    let got = matches!(answer.get()?.get_outcome()?.which()?, renewed::Ticket(_));
    report.tell(&format!("renew {what}"), Outcome::when(got));
    let mut request = tickets.redeem_request();
    request.get().set_ticket(ticket);
    doors::describe(request.get().init_peer(), &[]);
    let answer = request.send().promise.await?;
    let redeemed::Account(group) = answer.get()?.get_outcome()?.which()? else {
        report.tell(&format!("redeem {what}"), Outcome::Refused);
        return Ok(());
    };
    report.tell(&format!("redeem {what}"), Outcome::Got);
    within_an_account(&group.get_account()?, report).await
}

/// An account is one account: no name and no narrowing leads out of it.
pub(crate) async fn within_an_account(
    account: &account::Client,
    report: &Report,
) -> anyhow::Result<()> {
    report.tell("read the account", Outcome::of(account.describe_request().send().promise.await));
    for (what, name) in [
        ("open its own Inbox", "Inbox"),
        ("open a path upwards", "../../accounts"),
        ("open a path from the root", "/etc/passwd"),
        ("open a name with a NUL", "Inbox\0"),
        ("open somebody else's", "bob@example.org/Inbox"),
    ] {
        let mut request = account.open_request();
        request.get().set_name(name);
        let outcome = match request.send().promise.await {
            Ok(answer) => {
                Outcome::when(matches!(answer.get()?.get_outcome()?.which()?, opened::Mailbox(_)))
            }
            Err(error) => Outcome::of::<()>(Err(error)),
        };
        report.tell(what, outcome);
    }
    // Narrowed once, it stays narrow whatever it is asked for.
    let mut request = account.narrow_request();
    request.get().init_scope().set_writable(false);
    let narrow = request.send().promise.await?.get()?.get_account()?;
    let mut request = narrow.narrow_request();
    request.get().init_scope().set_writable(true);
    let wider = request.send().promise.await?.get()?.get_account()?;
    for (what, account) in
        [("create, narrowed to reading", narrow), ("create, narrowed and widened", wider)]
    {
        let mut request = account.create_request();
        request.get().set_name("Wider");
        let outcome = match request.send().promise.await {
            Ok(answer) => Outcome::when(matches!(
                answer.get()?.get_outcome()?.which()?,
                mailbox_outcome::Done(())
            )),
            Err(error) => Outcome::of::<()>(Err(error)),
        };
        report.tell(what, outcome);
    }
    let admin: account_admin::Client = account.clone().cast_to();
    let accounts = admin.accounts_request().send().promise.await;
    report.tell("administer by an account", Outcome::of(accounts));
    Ok(())
}
