//! The interface `Resolver`: decode, ask, encode.

use dns::{Answer, Dns, Failure, Kind, Outcome, Record};
use ipc::{
    capnp,
    schema::resolver_capnp::{self, answer, record, resolver},
};
use std::{net::IpAddr, rc::Rc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};

/// Questions on their way at once, over all clients.
const MAX_QUESTIONS: usize = 512;

/// How long one question may take, with retries over all servers.
const DEADLINE: Duration = Duration::from_secs(15);

/// The longest name that is looked at: a domain name in presentation form with every octet escaped.
const MAX_NAME: usize = 1_024;

/// Bounds what is asked at once.
pub(crate) struct Slots(Semaphore);

impl Default for Slots {
    fn default() -> Self {
        Self(Semaphore::new(MAX_QUESTIONS))
    }
}

struct Resolver {
    dns: Rc<Dns>,
    slots: Rc<Slots>,
}

pub(crate) fn bootstrap(dns: Rc<Dns>, slots: Rc<Slots>) -> capnp::capability::Client {
    let client: resolver::Client = ipc::new_client(Resolver { dns, slots });
    client.client
}

impl Resolver {
    async fn ask(&self, question: impl Future<Output = Answer>) -> Answer {
        let Ok(_slot) = self.slots.0.try_acquire() else { return failed(Failure::Overload) };
        timeout(DEADLINE, question).await.unwrap_or_else(|_| failed(Failure::Timeout))
    }
}

fn failed(why: Failure) -> Answer {
    Answer {
        outcome: Outcome::Failed(why),
        authentic: false,
        ttl_seconds: 0,
        final_name: String::new(),
    }
}

impl resolver::Server for Resolver {
    async fn lookup(
        self: Rc<Self>,
        params: resolver::LookupParams,
        mut results: resolver::LookupResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let (name, kind) = (params.get_name()?.to_str()?.to_owned(), kind(params.get_kind()?));
        let answer = if name.len() > MAX_NAME {
            failed(Failure::BadName)
        } else {
            self.ask(self.dns.lookup(&name, kind)).await
        };
        encode(&answer, results.get().init_answer());
        Ok(())
    }

    async fn reverse(
        self: Rc<Self>,
        params: resolver::ReverseParams,
        mut results: resolver::ReverseResults,
    ) -> Result<(), capnp::Error> {
        let octets = params.get()?.get_ip()?;
        let ip = <[u8; 4]>::try_from(octets)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
        let answer = match ip {
            Ok(ip) => self.ask(self.dns.reverse(ip)).await,
            Err(_) => failed(Failure::BadName),
        };
        encode(&answer, results.get().init_answer());
        Ok(())
    }
}

fn kind(kind: resolver_capnp::Kind) -> Kind {
    use resolver_capnp::Kind as Wire;
    match kind {
        Wire::A => Kind::A,
        Wire::Aaaa => Kind::Aaaa,
        Wire::Mx => Kind::Mx,
        Wire::Txt => Kind::Txt,
        Wire::Tlsa => Kind::Tlsa,
        Wire::Cname => Kind::Cname,
        Wire::Ns => Kind::Ns,
        Wire::Srv => Kind::Srv,
        Wire::Ptr => Kind::Ptr,
        Wire::Caa => Kind::Caa,
    }
}

fn encode(answer: &Answer, mut to: answer::Builder<'_>) {
    to.set_authentic(answer.authentic);
    to.set_ttl_seconds(answer.ttl_seconds);
    to.set_final_name(&answer.final_name);
    match &answer.outcome {
        Outcome::NoSuchName => to.set_no_such_name(()),
        Outcome::NoData => to.set_no_data(()),
        Outcome::Failed(why) => to.set_failed(match why {
            Failure::Timeout => resolver_capnp::Failure::Timeout,
            Failure::ServFail => resolver_capnp::Failure::Servfail,
            Failure::Bogus => resolver_capnp::Failure::Bogus,
            Failure::BadName => resolver_capnp::Failure::BadName,
            Failure::Overload => resolver_capnp::Failure::Overload,
        }),
        Outcome::Records(records) => {
            // `dns` cuts an answer at MAX_RECORDS, far below u32.
            let mut list = to.init_records(u32::try_from(records.len()).unwrap_or(0));
            for (at, record) in (0..).zip(records) {
                encode_record(record, list.reborrow().get(at));
            }
        }
    }
}

fn encode_record(record: &Record, mut to: record::Builder<'_>) {
    match record {
        Record::Ip(IpAddr::V4(ip)) => to.set_ip(&ip.octets()),
        Record::Ip(IpAddr::V6(ip)) => to.set_ip(&ip.octets()),
        Record::Mx { preference, exchange } => {
            let mut mx = to.init_mx();
            mx.set_preference(*preference);
            mx.set_exchange(exchange);
        }
        Record::Txt(text) => to.set_txt(text),
        Record::Name(name) => to.set_name(name),
        Record::Tlsa { usage, selector, matching, data } => {
            let mut tlsa = to.init_tlsa();
            tlsa.set_usage(*usage);
            tlsa.set_selector(*selector);
            tlsa.set_matching(*matching);
            tlsa.set_data(data);
        }
        Record::Srv { priority, weight, port, target } => {
            let mut srv = to.init_srv();
            srv.set_priority(*priority);
            srv.set_weight(*weight);
            srv.set_port(*port);
            srv.set_target(target);
        }
        Record::Other(text) => to.set_other(text),
    }
}
