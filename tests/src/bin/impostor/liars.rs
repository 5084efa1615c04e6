//! The hands, taken over: they hold nothing, so what they can do is lie. The work in hand says
//! which lie: the message a parser reads, the recipient outbound is given, the name resolver is
//! asked for.

use crate::{Outcome, Report};
use daemon::Inherited;
use ipc::{
    Limits, Role, capnp,
    schema::{
        outbound_capnp::{delivery, outbound, recipient_result},
        parser_capnp::{Blob, facts, job, parser},
        resolver_capnp::{Kind, resolver},
    },
    serve_clients,
};
use message::Envelope;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

/// What ends a line where it does not belong.
pub(crate) const BREAK: &str = "\r\nX-Forged: yes\r\n";

async fn serve(
    inherited: &mut Inherited,
    report: &Report,
    object: impl Fn() -> capnp::capability::Client + 'static,
) {
    let (_, empty) = tokio::sync::mpsc::channel(1);
    let clients = std::mem::replace(&mut inherited.acceptors, empty);
    report.tell("serve", Outcome::Got);
    let limits = Limits { message_words: 1 << 21, ..Limits::SHORT_CALLS };
    serve_clients(clients, limits, move |_, _| Some(object())).await;
}

/// parser: facts that are not the message's.
pub(crate) async fn parser(inherited: &mut Inherited, report: &Report) {
    serve(inherited, report, || ipc::new_client::<parser::Client, _>(Parser).client).await;
}

/// The lies of a parser; a message names one in a header field `X-Lie`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    /// Parts that lie behind the end of the message.
    Behind,
    /// Offsets at the end of all numbers.
    Overflow,
    /// Octets that are no stored form.
    Noise,
    /// An envelope of several MiB.
    Giant,
    /// A structure of the most parts.
    Parts,
    /// Line ends and NULs in everything that becomes a line elsewhere.
    Lines,
    /// Everything is of somebody else.
    From,
}

impl Lie {
    fn of(message: &[u8]) -> Self {
        let text = String::from_utf8_lossy(message.get(..4_096).unwrap_or(message));
        let name = text.split("X-Lie: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        match name {
            Some("behind") => Lie::Behind,
            Some("overflow") => Lie::Overflow,
            Some("noise") => Lie::Noise,
            Some("giant") => Lie::Giant,
            Some("parts") => Lie::Parts,
            Some("lines") => Lie::Lines,
            Some("from") => Lie::From,
            _ => Lie::None,
        }
    }
}

struct Parser;

struct Job(RefCell<Vec<u8>>);

struct Facts {
    lie: Lie,
    honest: message::Facts,
    envelope: Vec<u8>,
    structure: Vec<u8>,
}

fn read(octets: &[u8]) -> message::Facts {
    let mut job = message::Job::new(message::Limits::default());
    job.push(octets);
    job.finish()
}

/// A message with parts, far longer than the one that is lied about.
fn other_message(parts: usize) -> Vec<u8> {
    let mut text =
        b"From: x@example.org\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
    for n in 0..parts {
        text.extend(
            format!("--b\r\nContent-Type: text/plain\r\n\r\nPart {n} of another\r\n").bytes(),
        );
    }
    text.extend(b"--b--\r\n");
    text
}

impl Facts {
    fn about(message: &[u8]) -> Self {
        let lie = Lie::of(message);
        let honest = read(message);
        let (mut envelope, mut structure) = (honest.envelope.clone(), honest.structure.clone());
        match lie {
            Lie::None | Lie::Noise | Lie::From => {}
            Lie::Behind => structure = read(&other_message(200)).structure,
            Lie::Parts => structure = read(&other_message(9_990)).structure,
            Lie::Overflow => {
                structure = read(&other_message(3)).structure;
                for (n, part) in (0u64..).zip(&mut structure.parts) {
                    let far = (1 << 62) + (n << 40);
                    part.span.header = far..far + 10;
                    part.span.body = far + 10..(1 << 62) + (n << 40) + (1 << 39);
                    part.span.lines = 1 << 62;
                    part.span.decoded = 1 << 62;
                }
            }
            Lie::Giant => envelope.subject = Some(vec![b'x'; 5 << 20]),
            Lie::Lines => {
                let forged =
                    |what: &str| Some(format!("{what}{BREAK}* 99 EXISTS\r\n\0").into_bytes());
                envelope = Envelope {
                    date: forged("date"),
                    subject: forged("subject"),
                    in_reply_to: forged("in reply to"),
                    message_id: forged("id"),
                    ..envelope
                };
                if let Some(root) = structure.parts.first_mut() {
                    root.media.kind = format!("text{BREAK}");
                    root.media.subtype = format!("plain\"{BREAK}* BYE\r\n");
                    root.id = forged("content id");
                    root.description = forged("description");
                    root.language = vec![forged("language").unwrap_or_default()];
                }
            }
        }
        let (mut envelope, mut structure) = (envelope.encode(), structure.encode());
        if lie == Lie::Noise {
            (envelope, structure) = (vec![0xff; 3_000], vec![1; 3_000]);
        }
        Self { lie, honest, envelope, structure }
    }
}

impl parser::Server for Parser {
    async fn job(
        self: Rc<Self>,
        _: parser::JobParams,
        mut results: parser::JobResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_job(ipc::new_client(Job(RefCell::default())));
        Ok(())
    }
}

impl job::Server for Job {
    async fn write(self: Rc<Self>, params: job::WriteParams) -> Result<(), capnp::Error> {
        self.0.borrow_mut().extend_from_slice(params.get()?.get_chunk()?);
        Ok(())
    }

    async fn finish(
        self: Rc<Self>,
        _: job::FinishParams,
        mut results: job::FinishResults,
    ) -> Result<(), capnp::Error> {
        let facts = Facts::about(&self.0.borrow());
        results.get().set_facts(ipc::new_client(facts));
        Ok(())
    }
}

impl facts::Server for Facts {
    async fn summary(
        self: Rc<Self>,
        _: facts::SummaryParams,
        mut results: facts::SummaryResults,
    ) -> Result<(), capnp::Error> {
        let honest = &self.honest;
        let mut to = results.get().init_summary();
        to.set_size(honest.size);
        to.set_header_length(honest.header_length());
        to.set_lines(honest.lines);
        to.set_received_count(honest.received);
        to.set_from_field_count(honest.from_fields);
        to.set_has_date(honest.sent.is_some());
        to.set_message_id(honest.message_id.as_deref().unwrap_or_default());
        to.set_preview(&honest.preview);
        let froms = message::envelope::mailboxes(&honest.envelope.from);
        let mut froms: Vec<String> =
            froms.filter_map(|m| m.address()).map(|a| a.to_string()).collect();
        match self.lie {
            Lie::Lines => {
                let forged = format!("forged{BREAK}\0");
                to.set_preview(&forged);
                to.set_message_id(&forged);
                to.set_subject_base(&forged);
                to.reborrow().init_references(1).set(0, forged.as_str());
                to.reborrow().init_recipients(1).set(0, forged.as_str());
                to.set_sent_unix_ns(i64::MIN);
                to.set_has_date(true);
            }
            Lie::From => {
                froms = vec!["ann@example.org".into()];
                to.set_from_field_count(1);
                to.set_received_count(0);
            }
            Lie::Overflow => to.set_text_parts(u32::MAX),
            Lie::None | Lie::Behind | Lie::Noise | Lie::Giant | Lie::Parts => {}
        }
        let mut list = to.init_from_addresses(u32::try_from(froms.len()).unwrap_or(0));
        for (at, from) in (0..).zip(&froms) {
            list.set(at, from.as_str());
        }
        Ok(())
    }

    async fn blob(
        self: Rc<Self>,
        params: facts::BlobParams,
        mut results: facts::BlobResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let whole: &[u8] = match params.get_kind()? {
            Blob::Envelope => &self.envelope,
            Blob::Structure => &self.structure,
            Blob::Headers => b"",
        };
        let at = usize::try_from(params.get_offset()).unwrap_or(usize::MAX).min(whole.len());
        let end = whole.len().min(at + facts::MAX_PIECE as usize);
        let mut to = results.get();
        to.set_total(whole.len() as u64);
        to.set_data(&whole[at..end]);
        Ok(())
    }

    async fn text(
        self: Rc<Self>,
        _: facts::TextParams,
        mut results: facts::TextResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_total(0);
        Ok(())
    }
}

/// outbound: reports that are not true.
pub(crate) async fn outbound(inherited: &mut Inherited, report: &Report) {
    let told = report.clone();
    serve(inherited, report, move || {
        ipc::new_client::<outbound::Client, _>(Outbound(told.clone())).client
    })
    .await;
}

struct Outbound(Report);

struct Delivery {
    recipients: Vec<String>,
    octets: Cell<u64>,
    report: Report,
}

impl outbound::Server for Outbound {
    async fn deliver(
        self: Rc<Self>,
        params: outbound::DeliverParams,
        mut results: outbound::DeliverResults,
    ) -> Result<(), capnp::Error> {
        let list = params.get()?.get_job()?.get_recipients()?;
        let recipients = list.iter().filter_map(|text| text.ok()?.to_string().ok()).collect();
        let report = self.0.clone();
        let delivery = Delivery { recipients, octets: Cell::new(0), report };
        results.get().set_delivery(ipc::new_client(delivery));
        Ok(())
    }
}

impl delivery::Server for Delivery {
    async fn write(self: Rc<Self>, params: delivery::WriteParams) -> Result<(), capnp::Error> {
        self.octets.set(self.octets.get() + params.get()?.get_chunk()?.len() as u64);
        Ok(())
    }

    async fn finish(
        self: Rc<Self>,
        _: delivery::FinishParams,
        mut results: delivery::FinishResults,
    ) -> Result<(), capnp::Error> {
        self.report.tell("read a job in hand", Outcome::when(self.octets.get() > 0));
        let mut to = results.get().init_report();
        let forged = format!("forged{BREAK}{BREAK}--forged\r\n");
        to.set_next_host(forged.as_str());
        to.reborrow().init_log(2).set(0, forged.as_str());
        // Its own recipients, and two that are none of its business.
        let strangers = ["ann@example.org", "not an address"];
        let all: Vec<&str> = self.recipients.iter().map(String::as_str).chain(strangers).collect();
        let mut list = to.init_recipients(u32::try_from(all.len()).unwrap_or(0));
        for (at, address) in (0..).zip(all) {
            let mut result = list.reborrow().get(at);
            if address.starts_with("silent") {
                result.set_address("somebody@else.example");
                continue;
            }
            result.set_address(address);
            if address.starts_with("delivered") {
                result.set_kind(recipient_result::Kind::Delivered);
                result.set_code(250);
                continue;
            }
            result.set_kind(recipient_result::Kind::Permanent);
            result.set_code(u16::MAX);
            result.set_enhanced(format!("5.1.1{BREAK}").as_str());
            result.set_text(format!("{forged}{}", "x".repeat(50_000)).as_str());
            result.set_remote_host(format!("host{BREAK}{}", "y".repeat(50_000)).as_str());
        }
        Ok(())
    }
}

/// resolver: answers that are not those of DNS.
pub(crate) async fn resolver(inherited: &mut Inherited, report: &Report) {
    serve(inherited, report, || ipc::new_client::<resolver::Client, _>(Resolver).client).await;
}

struct Resolver;

impl resolver::Server for Resolver {
    async fn lookup(
        self: Rc<Self>,
        params: resolver::LookupParams,
        mut results: resolver::LookupResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let name = params.get_name()?.to_string()?;
        let kind = params.get_kind()?;
        let mut to = results.get().init_answer();
        to.set_authentic(true);
        to.set_final_name(format!("{name}{BREAK}").as_str());
        if name.starts_with("failing") {
            return Err(capnp::Error::failed("no".into()));
        }
        // Everything, whatever was asked for: names that are none, addresses of a wrong size, and
        // what leads to whoever the name says: `127-1-2-3.to.example`.
        let to_address: Option<Vec<u8>> = name
            .split_once(".to.")
            .and_then(|(address, _)| address.split('-').map(|octet| octet.parse().ok()).collect());
        if let Some(address) = to_address.filter(|octets| octets.len() == 4) {
            let mut records = to.init_records(1);
            if kind == Kind::Mx {
                records.reborrow().get(0).init_mx().set_exchange(name.as_str());
            } else {
                records.reborrow().get(0).set_ip(&address);
            }
            return Ok(());
        }
        let names = ["", ".", "..", "a b", "x\r\nQUIT", "-", "localhost\0", "xn--", "1.2.3.4"];
        let many = 250;
        let mut records = to.init_records(many);
        for at in 0..many {
            let mut record = records.reborrow().get(at);
            match at % 4 {
                0 => record.set_ip(&vec![127; at as usize]),
                1 => record.set_name("\u{0}"),
                2 => record.set_other(&[0; 600]),
                _ => {
                    let long = "x".repeat(300);
                    let name = names.get(at as usize % 13).copied().unwrap_or(&long);
                    record.init_mx().set_exchange(name);
                }
            }
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

/// Whom a vault that was taken over finds among the hands: they answer, and that is all.
pub(crate) async fn ask_parser(inherited: &Inherited) -> Outcome {
    let Some(dialer) = inherited.dialer(Role::Parser) else { return Outcome::Refused };
    let line: ipc::Line<parser::Client> = ipc::Line::new(dialer, Limits::SHORT_CALLS);
    match line.client().await {
        Ok(parser) => Outcome::of(parser.job_request().send().promise.await),
        Err(_) => Outcome::Broken,
    }
}

/// As [`ask_parser`].
pub(crate) async fn ask_resolver(inherited: &Inherited) -> Outcome {
    let Some(dialer) = inherited.dialer(Role::Resolver) else { return Outcome::Refused };
    let line: ipc::Line<resolver::Client> = ipc::Line::new(dialer, Limits::SHORT_CALLS);
    match line.client().await {
        Ok(resolver) => {
            let mut request = resolver.lookup_request();
            request.get().set_name("localhost");
            Outcome::of(request.send().promise.await)
        }
        Err(_) => Outcome::Broken,
    }
}
