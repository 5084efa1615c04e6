//! The rest of the world: a zone, and a mail server in it that is as bad as the seed wants.

use super::{talk::Lines, world::World};
use ipc::{
    capnp,
    schema::resolver_capnp::{Kind, resolver},
};
use outbound::{Connect, Wire};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    rc::Rc,
    time::Duration,
};
use tokio::io::{DuplexStream, duplex};

/// The domain of other people.
pub(super) const DOMAIN: &str = "remote.test";
const EXCHANGER: &str = "mx.remote.test";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 25);
/// Where strangers write from.
pub(super) const STRANGERS: &str = "made.test";
/// Nobody of this name is there.
pub(super) const NOBODY: &str = "nobody@remote.test";

/// What has arrived there, and how it behaves.
#[derive(Default)]
pub(super) struct Remote {
    /// Recipient and content, as often as they came.
    pub(super) arrived: RefCell<Vec<(String, Vec<u8>)>>,
    /// Of ten thousand steps so many go wrong.
    pub(super) badness: Cell<u64>,
}

struct Zones;

/// Answers for all names there are.
pub(super) fn zones() -> capnp::capability::Client {
    let client: resolver::Client = ipc::new_client(Zones);
    client.client
}

impl resolver::Server for Zones {
    async fn lookup(
        self: Rc<Self>,
        params: resolver::LookupParams,
        mut results: resolver::LookupResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let name = params.get_name()?.to_str()?.trim_end_matches('.');
        let mut answer = results.get().init_answer();
        match (name, params.get_kind()?) {
            (DOMAIN | STRANGERS, Kind::Mx) => {
                let mut mx = answer.init_records(1).get(0).init_mx();
                mx.set_preference(10);
                mx.set_exchange(EXCHANGER);
            }
            (EXCHANGER, Kind::A) => answer.init_records(1).get(0).set_ip(&ADDRESS.octets()),
            (DOMAIN | STRANGERS | EXCHANGER, _) => answer.set_no_data(()),
            _ => answer.set_no_such_name(()),
        }
        Ok(())
    }

    async fn reverse(
        self: Rc<Self>,
        _: resolver::ReverseParams,
        mut results: resolver::ReverseResults,
    ) -> Result<(), capnp::Error> {
        results.get().init_answer().set_no_such_name(());
        Ok(())
    }
}

/// Connections to it.
pub(super) fn connect(world: &Rc<World>) -> Connect {
    let world = Rc::clone(world);
    Rc::new(move |ip| {
        let world = Rc::clone(&world);
        Box::pin(async move {
            if ip != ADDRESS || world.remote_errs() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = duplex(64 * 1024);
            // It lives outside of every process of ours.
            world.at_the_remote(far);
            Ok(Box::new(near) as Box<dyn Wire>)
        })
    })
}

/// A transaction under way.
#[derive(Default)]
struct Transaction {
    recipients: Vec<String>,
}

/// Serves one connection. The end of it is silence or a hang-up.
pub(super) async fn serve(world: &Rc<World>, stream: DuplexStream) {
    let mut lines = Lines::new(stream);
    if lines.say("220 mx.remote.test ESMTP").await.is_err() {
        return;
    }
    let mut transaction = Transaction::default();
    while let Ok(Some(line)) = lines.line().await {
        if world.remote_errs() {
            world.note("remote hangs up");
            return;
        }
        let answered = command(world, &mut lines, &mut transaction, &line).await;
        if !matches!(answered, Ok(true)) {
            return;
        }
    }
}

/// One command; false at the end.
async fn command(
    world: &World,
    lines: &mut Lines,
    transaction: &mut Transaction,
    line: &str,
) -> io::Result<bool> {
    let verb: String = line.chars().take(4).collect::<String>().to_ascii_uppercase();
    let busy = world.remote_errs();
    match verb.as_str() {
        "EHLO" => lines.say("250-mx.remote.test\r\n250-PIPELINING\r\n250 SIZE").await?,
        "MAIL" => {
            *transaction = Transaction::default();
            lines.say("250 2.1.0 ok").await?;
        }
        "RCPT" if busy => lines.say("450 4.2.1 busy").await?,
        "RCPT" => match line.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
            Some((NOBODY, _)) => lines.say("550 5.1.1 no such user").await?,
            Some((to, _)) => {
                transaction.recipients.push(to.to_owned());
                lines.say("250 2.1.5 ok").await?;
            }
            None => lines.say("501 5.5.4 what?").await?,
        },
        "DATA" if transaction.recipients.is_empty() => lines.say("503 5.5.1 to whom?").await?,
        "DATA" => {
            lines.say("354 go on").await?;
            let content = lines.content().await?;
            if world.remote_errs() {
                lines.say("451 4.3.0 not now").await?;
                return Ok(true);
            }
            for to in std::mem::take(&mut transaction.recipients) {
                world.note(&format!("remote has mail for {to}"));
                world.remote.arrived.borrow_mut().push((to, content.clone()));
            }
            if world.remote_errs() {
                // It has the message, and nobody hears of it.
                world.note("remote hangs up behind a message");
                world.remote_was_rude();
                return Ok(false);
            }
            lines.say("250 2.0.0 taken").await?;
        }
        "QUIT" => {
            lines.say("221 2.0.0 bye").await?;
            return Ok(false);
        }
        _ => lines.say("250 2.0.0 ok").await?,
    }
    Ok(true)
}

impl World {
    fn remote_errs(&self) -> bool {
        let badness = self.remote.badness.get();
        badness > 0 && self.below(10_000) < badness
    }

    fn at_the_remote(self: &Rc<Self>, stream: DuplexStream) {
        self.outside.borrow_mut().push_back(stream);
        self.arrival.notify_one();
    }

    /// Serves connections to the remote server, outside of every process of ours.
    pub(super) async fn be_the_remote(self: Rc<Self>) {
        loop {
            let next = self.outside.borrow_mut().pop_front();
            match next {
                Some(stream) => {
                    let world = Rc::clone(&self);
                    tokio::task::spawn_local(async move { serve(&world, stream).await });
                }
                None => self.arrival.notified().await,
            }
        }
    }

    /// How often each recipient at the remote has a message with this token.
    pub(super) fn remote_copies(&self, token: &str) -> BTreeMap<String, usize> {
        let mut copies = BTreeMap::new();
        for (to, content) in self.remote.arrived.borrow().iter() {
            if String::from_utf8_lossy(content).contains(token) {
                *copies.entry(to.clone()).or_default() += 1;
            }
        }
        copies
    }
}

/// What is waited for at most on either side of a conversation.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
