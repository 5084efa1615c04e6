//! The vaults, taken over: the worst there is, and still each without what the others hold.

use crate::{Outcome, Report, doors, keys, liars, orders::Orders};
use daemon::Inherited;
use ipc::{
    Limits, Line, Role,
    capnp::capability::FromClientHook as _,
    schema::{
        accountd_capnp::queue_door,
        keyholder_capnp::{accountd_keys, dkim_signer, host_keys},
        outbound_capnp::outbound,
        queue_capnp::{delivered, delivery},
        types_capnp::byte_sink,
    },
};
use std::{io::Read as _, path::Path, rc::Rc};

/// queue-runner: takes the outbox, delivers into mailboxes, signs as the host.
pub(crate) async fn queue_runner(
    inherited: &Inherited,
    orders: &Orders,
    report: &Report,
) -> anyhow::Result<()> {
    let dialer = |role| inherited.dialer(role).expect("the table has this edge");
    let (_line, at) = doors::open(&dialer(Role::Accountd)).await?;
    doors::try_all(&at, orders, report).await;
    let door: queue_door::Client = at.cast_to();
    let answer = door.outbox_request().send().promise.await?;
    let outbox = answer.get()?.get_outbox()?;
    report.tell("take the outbox", Outcome::of(outbox.take_request().send().promise.await));
    for (what, submission) in [("no submission", vec![7; 16]), ("a content id", vec![1; 8])] {
        let mut request = outbox.content_request();
        request.get().set_submission(&submission);
        request.get().set_sink(ipc::new_client(Nowhere));
        // Of an account that is not there: "later" is as good as "no".
        let found = match request.send().promise.await {
            Ok(answer) => answer.get()?.get_found(),
            Err(_) => false,
        };
        report.tell(&format!("read stored mail by {what}"), Outcome::when(found));
    }
    let answer = door.delivery_request().send().promise.await?;
    let delivery = answer.get()?.get_delivery()?;
    for (what, to, prefix) in [
        ("deliver into a mailbox", orders.user.as_str(), ""),
        ("deliver elsewhere by accountd", "somebody@example.com", ""),
        (
            "deliver with a prefix that ends the header",
            orders.user.as_str(),
            "A: b\r\n\r\nbody\r\n",
        ),
    ] {
        report.tell(what, deliver(&delivery, to, prefix).await);
    }
    let keyholder = dialer(Role::Keyholder);
    keys::every_interface(&keyholder, orders, report).await;
    let line: Line<host_keys::Client> = Line::new(keyholder.clone(), Limits::SHORT_CALLS);
    let host = line.client().await?;
    let answer = host.dkim_request().send().promise.await?;
    let signer = answer.get()?.get_signer()?;
    let described = signer.describe_request().send().promise.await;
    report.tell("ask for the host's selectors", Outcome::of(described));
    let block = keys::block(&orders.domain, "a");
    report.tell("sign as a hosted domain", keys::sign(&signer, "a", &block).await);
    let line: Line<outbound::Client> = Line::new(dialer(Role::Outbound), Limits::SHORT_CALLS);
    let mut request = line.client().await?.deliver_request();
    let mut job = request.get().init_job();
    job.set_domain("example.com");
    job.set_ehlo("mx.example.org");
    job.reborrow().init_recipients(1).set(0, "somebody@example.com");
    report.tell("send to another server", Outcome::of(request.send().promise.await));
    report.tell("ask DNS", liars::ask_resolver(inherited).await);
    keys::without_a_slot(&keyholder, orders, report).await;
    Ok(())
}

struct Nowhere;

impl byte_sink::Server for Nowhere {
    async fn write(self: Rc<Self>, _: byte_sink::WriteParams) -> Result<(), ipc::capnp::Error> {
        Ok(())
    }

    async fn end(
        self: Rc<Self>,
        _: byte_sink::EndParams,
        _: byte_sink::EndResults,
    ) -> Result<(), ipc::capnp::Error> {
        Ok(())
    }
}

async fn deliver(delivery: &delivery::Client, to: &str, prefix: &str) -> Outcome {
    let run = async {
        let mut request = delivery.deliver_request();
        let mut params = request.get();
        params.set_queue_id(&[3; 10]);
        params.set_from("anybody@example.com");
        params.set_to(to);
        params.set_header_prefix(prefix);
        let answer = request.send().promise.await?;
        let sink = answer.get()?.get_sink()?;
        let mut request = sink.write_request();
        request.get().set_chunk(b"From: anybody@example.com\r\nSubject: by-the-queue\r\n\r\nx\r\n");
        request.send().await?;
        let answer = sink.commit_request().send().promise.await?;
        let outcome = answer.get()?.get_outcome()?;
        Ok::<bool, ipc::capnp::Error>(matches!(outcome.which()?, delivered::Stored(())))
    };
    match run.await {
        Ok(got) => Outcome::when(got),
        Err(error) => Outcome::of::<()>(Err(error)),
    }
}

/// accountd: signatures of hosted domains and the pepper; no key, no TLS.
pub(crate) async fn accountd(
    inherited: &Inherited,
    orders: &Orders,
    report: &Report,
) -> anyhow::Result<()> {
    let keyholder = inherited.dialer(Role::Keyholder).expect("the table has this edge");
    let (line, at) = doors::open(&keyholder).await?;
    let keys: accountd_keys::Client = at.cast_to();
    let answer = keys.key_admin_request().send().promise.await?;
    let admin = answer.get()?.get_admin()?;
    let mut request = admin.hosted_request();
    request.get().init_domains(1).set(0, orders.domain.as_str());
    request.send().promise.await?;
    keys::every_interface(&keyholder, orders, report).await;
    let mut request = keys.dkim_request();
    request.get().set_domain(&orders.domain);
    let signer = request.send().promise.await?.get()?.get_signer()?;
    let selector = ed25519_selector(&signer).await?;
    let own = keys::block(&orders.domain, &selector);
    report.tell("sign as a hosted domain", keys::sign(&signer, &selector, &own).await);
    let other = keys::block("example.com", &selector);
    report.tell("sign as another domain", keys::sign(&signer, &selector, &other).await);
    let certificate = "0\u{82}\u{1}\u{0}".repeat(40);
    report.tell("sign a certificate", keys::sign(&signer, &selector, &certificate).await);
    // All that keyholder says of a key, for the test to look for the key in it.
    let mut request = admin.list_dkim_request();
    request.get().set_domain(&orders.domain);
    let answer = request.send().promise.await?;
    for key in answer.get()?.get_keys()?.iter() {
        tracing::info!("IMPOSTOR accountd | said of a key: {} | Got", key.get_record()?.to_str()?);
    }
    report.tell("have a message read", liars::ask_parser(inherited).await);
    report.tell("ask DNS", liars::ask_resolver(inherited).await);
    look_around(inherited, report);
    keys::without_a_slot(&keyholder, orders, report).await;
    drop(line);
    Ok(())
}

async fn ed25519_selector(signer: &dkim_signer::Client) -> anyhow::Result<String> {
    let answer = signer.describe_request().send().promise.await?;
    for key in answer.get()?.get_keys()?.iter() {
        if key.get_algorithm()?.to_str()? == "ed25519-sha256" {
            return Ok(key.get_selector()?.to_string()?);
        }
    }
    anyhow::bail!("the domain has no such key")
}

/// keyholder: everything, and nobody to tell: no dialler, no listener but the control socket.
pub(crate) fn keyholder(inherited: &Inherited, report: &Report) {
    report.tell("ask anybody", Outcome::when(!inherited.dialers.is_empty()));
    let tcp = |listener: &daemon::Listener| matches!(listener.socket, daemon::Socket::Tcp(_));
    report.tell("listen to the network", Outcome::when(inherited.listeners.iter().any(tcp)));
    look_around(inherited, report);
}

/// What a vault sees of the disk: its own folder.
fn look_around(inherited: &Inherited, report: &Report) {
    let Some(own) = &inherited.own_folder else {
        report.tell("its own folder", Outcome::Refused);
        return;
    };
    report.tell("its own folder", Outcome::when(readable(own)));
    for folder in ["accountd", "keys", "queue", "log", "run/control"] {
        let path = own.with_file_name(folder);
        if path != *own {
            report.tell(&format!("the folder {folder}"), Outcome::when(readable(&path)));
        }
    }
    report.tell("the folder /etc", Outcome::when(readable(Path::new("/etc"))));
    let mut octet = [0];
    let passwd = std::fs::File::open("/etc/passwd").and_then(|mut f| f.read(&mut octet));
    report.tell("a file in /etc", Outcome::when(passwd.is_ok()));
}

fn readable(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok()
}
