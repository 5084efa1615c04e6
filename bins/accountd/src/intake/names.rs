//! What DNS says of the names a stranger gives: whether the host of HELO exists, and whether the
//! domain of MAIL takes mail, so that it can be told when its mail comes to nothing.
//!
//! DNS that does not answer is no reason to refuse anybody: mail of a sender whose name servers are
//! away for an hour is taken, and so is all mail while `resolver` is away.

use super::refusal::Refusal;
use ipc::{
    Line, Unavailable, capnp,
    schema::resolver_capnp::{Kind, answer, record, resolver},
    within,
};
use std::time::Duration;
use types::Domain;

/// All questions of one MAIL together, the wait for a turn among them included.
const CHECK: Duration = Duration::from_secs(10);

/// Mail exchangers of one domain that are looked up. A zone may list hundreds.
const MAX_EXCHANGES: usize = 5;

/// The way to DNS.
pub(crate) struct Names {
    resolver: Line<resolver::Client>,
}

/// What an answer comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// Mail exchangers by preference; for questions of addresses, none.
    Some(Vec<(u16, String)>),
    None,
    Unknown,
}

impl Names {
    pub(crate) fn new(resolver: Line<resolver::Client>) -> Self {
        Self { resolver }
    }

    /// Looks up the name of HELO and the domain of MAIL, as far as they are given.
    pub(crate) async fn check(
        &self,
        hello: Option<&Domain>,
        from: Option<&Domain>,
    ) -> Result<(), Refusal> {
        let asked = async {
            if let Some(hello) = hello
                && self.has_address(hello.as_ascii()).await == Some(false)
            {
                let text = "The name given with HELO does not exist";
                return Err(Refusal::new(550, "5.5.0", text));
            }
            match from {
                Some(domain) => self.check_sender(domain).await,
                None => Ok(()),
            }
        };
        tokio::time::timeout(CHECK, asked).await.unwrap_or(Ok(()))
    }

    /// RFC 5321 §5.1 read backwards: where an answer to this domain would go.
    async fn check_sender(&self, domain: &Domain) -> Result<(), Refusal> {
        let nowhere = |text| Err(Refusal::new(550, "5.7.27", text));
        let mut exchanges = match self.ask(domain.as_ascii(), Kind::Mx).await {
            Found::Unknown => return Ok(()),
            Found::None => Vec::new(),
            Found::Some(exchanges) => exchanges,
        };
        // RFC 7505 §4.2: whoever says that he takes no mail sends none either.
        if !exchanges.is_empty() && exchanges.iter().all(|(_, host)| host == ".") {
            return nowhere("The domain of the sender takes no mail (null MX)");
        }
        exchanges.sort();
        let hosts = exchanges.iter().map(|(_, host)| host.as_str()).take(MAX_EXCHANGES);
        // The domain itself last: one whose exchangers are all gone may still be reached there.
        for host in hosts.chain([domain.as_ascii()]) {
            if self.has_address(host).await != Some(false) {
                return Ok(());
            }
        }
        nowhere("The domain of the sender has no host that takes mail")
    }

    /// Whether a host has an address; none when DNS does not know at the moment.
    async fn has_address(&self, host: &str) -> Option<bool> {
        let mut is_known = true;
        for kind in [Kind::A, Kind::Aaaa] {
            match self.ask(host, kind).await {
                Found::Some(_) => return Some(true),
                Found::None => {}
                Found::Unknown => is_known = false,
            }
        }
        is_known.then_some(false)
    }

    async fn ask(&self, name: &str, kind: Kind) -> Found {
        let call = async {
            let resolver = self.resolver.client().await?;
            let _turn = self.resolver.permit().await;
            let mut request = resolver.lookup_request();
            request.get().set_name(name);
            request.get().set_kind(kind);
            within(CHECK, async { read(request.send().promise.await?.get()?.get_answer()?) }).await
        };
        call.await.unwrap_or_else(|why: Unavailable| {
            tracing::info!(%why, "resolver does not answer: a sender goes unchecked");
            Found::Unknown
        })
    }
}

fn read(answer: answer::Reader<'_>) -> Result<Found, capnp::Error> {
    Ok(match answer.which()? {
        answer::Records(records) => {
            let mut exchanges = Vec::new();
            for record in records?.iter() {
                if let record::Mx(mx) = record.which()? {
                    exchanges.push((mx.get_preference(), mx.get_exchange()?.to_string()?));
                }
            }
            Found::Some(exchanges)
        }
        answer::NoSuchName(()) | answer::NoData(()) => Found::None,
        answer::Failed(why) => {
            tracing::debug!(why = ?why?, "DNS does not know: a sender goes unchecked");
            Found::Unknown
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::{Limits, Role, memory_edge};
    use std::rc::Rc;
    use tokio::task::LocalSet;

    /// Answers by the name that is asked for.
    struct Zone;

    impl resolver::Server for Zone {
        async fn lookup(
            self: Rc<Self>,
            params: resolver::LookupParams,
            mut results: resolver::LookupResults,
        ) -> Result<(), capnp::Error> {
            let params = params.get()?;
            let (name, kind) = (params.get_name()?.to_str()?, params.get_kind()?);
            let mut answer = results.get().init_answer();
            match (name, kind) {
                ("mx.example" | "a.example" | "dead-mx.example", Kind::A)
                | ("aaaa.example", Kind::Aaaa) => {
                    answer.init_records(1).get(0).set_ip(&[192, 0, 2, 1]);
                }
                ("has-mx.example" | "dead-mx.example", Kind::Mx) => {
                    let mut records = answer.init_records(2);
                    for (at, host) in [(0, "gone.example"), (1, "mx.example")] {
                        let mut mx = records.reborrow().get(at).init_mx();
                        mx.set_preference(10);
                        let is_dead = name == "dead-mx.example";
                        mx.set_exchange(if is_dead { "gone.example" } else { host });
                    }
                }
                ("null.example", Kind::Mx) => {
                    answer.init_records(1).get(0).init_mx().set_exchange(".");
                }
                ("lost-mx.example", Kind::Mx) => {
                    answer.init_records(1).get(0).init_mx().set_exchange("away.example");
                }
                ("away.example", _) => {
                    answer.set_failed(ipc::schema::resolver_capnp::Failure::Timeout);
                }
                ("aaaa.example" | "a.example", _) => answer.set_no_data(()),
                _ => answer.set_no_such_name(()),
            }
            Ok(())
        }
    }

    fn check(hello: Option<&str>, from: Option<&str>) -> u16 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (dialer, mut end) = memory_edge(Role::Accountd, 0);
            tokio::task::spawn_local(async move {
                while let Some(ipc::Incoming::Rpc(stream)) = end.accept().await {
                    let zone: resolver::Client = ipc::new_client(Zone);
                    tokio::task::spawn_local(ipc::serve(stream, zone.client, Limits::default()));
                }
            });
            let names = Names::new(Line::new(dialer, Limits::default()));
            let domain = |text: &str| text.parse::<Domain>().unwrap();
            let (hello, from) = (hello.map(domain), from.map(domain));
            let checked = names.check(hello.as_ref(), from.as_ref()).await;
            checked.err().map_or(250, |refusal| refusal.code)
        })
    }

    #[test]
    fn senders_that_cannot_be_answered_are_refused() {
        for taken in ["has-mx.example", "a.example", "aaaa.example", "dead-mx.example"] {
            assert_eq!(check(None, Some(taken)), 250, "{taken}");
        }
        for refused in ["null.example", "gone.example"] {
            assert_eq!(check(None, Some(refused)), 550, "{refused}");
        }
    }

    #[test]
    fn hosts_of_helo_exist() {
        assert_eq!(check(Some("aaaa.example"), None), 250);
        assert_eq!(check(Some("gone.example"), None), 550);
        assert_eq!(check(Some("gone.example"), Some("a.example")), 550);
    }

    #[test]
    fn dns_that_does_not_answer_refuses_nobody() {
        assert_eq!(check(Some("away.example"), Some("away.example")), 250);
        assert_eq!(check(None, Some("lost-mx.example")), 250, "its exchanger may be there");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (dialer, end) = memory_edge(Role::Accountd, 0);
            drop(end);
            let names = Names::new(Line::new(dialer, Limits::default()));
            let domain = "gone.example".parse().unwrap();
            assert!(names.check(Some(&domain), Some(&domain)).await.is_ok());
        });
    }
}
