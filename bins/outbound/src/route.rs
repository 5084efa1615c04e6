//! Which hosts to try, in which order: RFC 5321 §5.1 on the answers of DNS.

use crate::Shared;
use ipc::{
    Unavailable, capnp,
    schema::resolver_capnp::{Kind, answer, record},
    within,
};
use std::{net::IpAddr, time::Duration};
use types::Domain;

/// Hosts tried for one domain. A zone may list hundreds.
const MAX_HOSTS: usize = 10;

/// Addresses tried of one host in each family: a host with many of one must not hide the other.
const MAX_ADDRESSES: usize = 3;

/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(20);

/// Why there is nowhere to go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoute {
    /// RFC 7505: the domain says that it takes no mail.
    #[error("domain does not accept mail (null MX)")]
    NullMx,
    /// The domain does not exist, or has neither MX nor addresses.
    #[error("domain not found in DNS, or without a host for mail")]
    NoSuchDomain,
    /// DNS does not know at the moment.
    #[error("DNS: {0}")]
    Temporary(String),
}

/// The records of an answer that we understand.
enum Found {
    /// With whether DNSSEC vouches for them.
    Records(Vec<Item>, bool),
    Nothing {
        name_exists: bool,
    },
}

enum Item {
    Ip(IpAddr),
    Mx(u16, String),
}

impl Shared {
    async fn ask(&self, name: &str, kind: Kind) -> Result<Found, NoRoute> {
        let unavailable = |why: Unavailable| NoRoute::Temporary(why.to_string());
        let resolver = self.resolver.client().await.map_err(unavailable)?;
        let _permit = self.resolver.permit().await;
        let mut request = resolver.lookup_request();
        request.get().set_name(name);
        request.get().set_kind(kind);
        let answer = within(QUESTION, request.send().promise).await.map_err(unavailable)?;
        let read = || read(answer.get()?.get_answer()?);
        read().map_err(|error: capnp::Error| NoRoute::Temporary(error.to_string()))?
    }

    /// Mail exchangers of a domain in the order they are to be tried, and whether it is certain that
    /// these are they.
    pub(crate) async fn hosts(
        &self,
        domain: &Domain,
        own: &Domain,
    ) -> Result<(Vec<Domain>, bool), NoRoute> {
        let (mut exchanges, authentic) = match self.ask(domain.as_ascii(), Kind::Mx).await? {
            Found::Nothing { name_exists: false } => return Err(NoRoute::NoSuchDomain),
            // RFC 5321 §5.1: a domain without MX is its own exchanger.
            Found::Nothing { name_exists: true } => {
                return Ok((vec![domain.clone()], true));
            }
            Found::Records(records, authentic) => (mx(records), authentic),
        };
        // RFC 7505 §3: a lone root name.
        if !exchanges.is_empty() && exchanges.iter().all(|(_, host)| host == ".") {
            return Err(NoRoute::NullMx);
        }
        exchanges = before(exchanges, own);
        // RFC 5321 §5.1: equal preferences in random order. What the peer cannot foresee is not
        // needed here, only that many senders spread.
        let start = std::collections::hash_map::RandomState::new();
        exchanges.sort_by_cached_key(|(preference, host)| {
            use std::hash::BuildHasher as _;
            (*preference, start.hash_one(host))
        });
        let hosts: Vec<Domain> =
            exchanges.iter().filter_map(|(_, host)| host.parse().ok()).take(MAX_HOSTS).collect();
        if hosts.is_empty() { Err(NoRoute::NoSuchDomain) } else { Ok((hosts, authentic)) }
    }

    /// The addresses of a host, IPv6 first as RFC 6724 would have it. None: it has none, for certain.
    pub(crate) async fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, NoRoute> {
        let mut found = Vec::new();
        let mut temporary = None;
        for kind in [Kind::Aaaa, Kind::A] {
            match self.ask(host.as_ascii(), kind).await {
                Ok(Found::Records(records, _)) => {
                    found.extend(records.iter().filter_map(ip).take(MAX_ADDRESSES));
                }
                Ok(Found::Nothing { .. }) => {}
                Err(error) => temporary = Some(error),
            }
        }
        match temporary {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }
}

fn mx(records: Vec<Item>) -> Vec<(u16, String)> {
    let exchanger = |item| match item {
        Item::Mx(preference, host) => Some((preference, host)),
        Item::Ip(_) => None,
    };
    records.into_iter().filter_map(exchanger).collect()
}

/// RFC 5321 §5.1: who is an exchanger himself tries those before him alone, lest mail goes in
/// circles: a backup that asked itself would be told that it does not host the domain. Where nobody
/// is before us all stay: asking ourselves is how it is refused, or taken if it is hosted by now.
fn before(exchanges: Vec<(u16, String)>, own: &Domain) -> Vec<(u16, String)> {
    let domain = |host: &str| host.parse::<Domain>().ok();
    let is_own = |host: &str| domain(host).is_some_and(|host| host == *own);
    let ours = exchanges.iter().filter(|(_, host)| is_own(host)).map(|(at, _)| *at).min();
    match ours {
        // What is no name (a root that is not alone, RFC 7505 §3) is nobody to be asked.
        Some(ours) if exchanges.iter().any(|(at, host)| *at < ours && domain(host).is_some()) => {
            exchanges.into_iter().filter(|(at, _)| *at < ours).collect()
        }
        _ => exchanges,
    }
}

fn ip(item: &Item) -> Option<IpAddr> {
    match item {
        Item::Ip(ip) => Some(*ip),
        Item::Mx(..) => None,
    }
}

fn read(answer: answer::Reader<'_>) -> Result<Result<Found, NoRoute>, capnp::Error> {
    let authentic = answer.get_authentic();
    Ok(match answer.which()? {
        answer::Records(records) => {
            let mut items = Vec::new();
            for record in records?.iter() {
                items.extend(read_record(record)?);
            }
            Ok(Found::Records(items, authentic))
        }
        answer::NoSuchName(()) => Ok(Found::Nothing { name_exists: false }),
        answer::NoData(()) => Ok(Found::Nothing { name_exists: true }),
        answer::Failed(why) => Err(NoRoute::Temporary(format!("{:?}", why?))),
    })
}

fn read_record(record: record::Reader<'_>) -> Result<Option<Item>, capnp::Error> {
    Ok(match record.which()? {
        record::Ip(octets) => {
            let octets = octets?;
            <[u8; 4]>::try_from(octets)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
                .ok()
                .map(Item::Ip)
        }
        record::Mx(mx) => Some(Item::Mx(mx.get_preference(), mx.get_exchange()?.to_string()?)),
        record::Txt(_) | record::Name(_) | record::Tlsa(_) | record::Srv(_) | record::Other(_) => {
            None
        }
    })
}
