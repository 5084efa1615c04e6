//! Asking, by one of two back ends.
//!
//! Validation by hickory has two holes (measured): every negative answer behind a signed CNAME, and
//! every DNAME, comes out as bogus. The first is mended by walking the aliases hop by hop before
//! believing in "bogus"; the second stays a temporary failure. Behind a server that strips DNSSEC
//! *everything* would be bogus; that is told apart by a probe of the root's own keys.

use crate::{
    Answer, Failure, Kind, MAX_RECORDS, Mode, Outcome, Record, Settings, answer::host,
    negative::Negative,
};
use hickory_proto::{
    dnssec::Proof,
    op::{DnsRequest, DnsRequestOptions, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use hickory_resolver::{
    NameServerPool, PoolContext, Resolver, TlsConfig, TokioResolver,
    caching_client::CachingClient,
    lookup::Lookup,
    net::{
        DnsError, NetError, NoRecords, RetryDnsHandle, runtime::TokioRuntimeProvider,
        xfer::DnsHandle,
    },
};
use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// Aliases followed before a chain is given up (RFC 1034 §5.2.2 gives no number; resolvers use 8
/// to 16).
const MAX_ALIASES: usize = 8;

/// How often it is looked whether the servers pass DNSSEC on.
const PROBE_EVERY: Duration = Duration::from_secs(3_600);

/// Asks a name server for the AD bit (RFC 6840 §5.7).
#[derive(Clone)]
struct AskAd<H>(H);

impl<H: DnsHandle> DnsHandle for AskAd<H> {
    type Response = H::Response;
    type Runtime = H::Runtime;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let (mut message, options) = request.into_parts();
        message.metadata.authentic_data = true;
        self.0.send(DnsRequest::new(message, options))
    }
}

type Believing = CachingClient<AskAd<RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>>>;

enum BackEnd {
    Validating(Box<TokioResolver>),
    Believing(Believing),
}

/// The way to DNS.
pub struct Dns {
    back_end: BackEnd,
    plain: Option<TokioResolver>,
    negative: RefCell<Negative>,
    /// When the servers were last seen to strip DNSSEC, or to pass it on.
    probed: Cell<Option<(Instant, bool)>>,
}

/// The settings lead nowhere.
#[derive(Debug, thiserror::Error)]
pub enum BadSettings {
    /// No name server.
    #[error("no DNS servers: set [dns] servers or mend /etc/resolv.conf")]
    NoServers,
    /// The resolver could not be made.
    #[error("resolver: {0}")]
    Resolver(String),
}

impl Dns {
    /// Makes the resolver; asks nothing yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BadSettings`].
    pub fn new(settings: &Settings) -> Result<Self, BadSettings> {
        if settings.servers.is_empty() {
            return Err(BadSettings::NoServers);
        }
        let bad = |error: NetError| BadSettings::Resolver(error.to_string());
        let stub = |validate: bool| {
            let mut options = settings.options();
            options.validate = validate;
            Resolver::builder_with_config(settings.config(), TokioRuntimeProvider::default())
                .with_options(options)
                .build()
        };
        let (back_end, plain) = match settings.mode {
            Mode::Validate => (
                BackEnd::Validating(Box::new(stub(true).map_err(bad)?)),
                Some(stub(false).map_err(bad)?),
            ),
            Mode::TrustAd => {
                let tls = TlsConfig::new().map_err(|e| BadSettings::Resolver(e.to_string()))?;
                let context = Arc::new(PoolContext::new(settings.options(), tls));
                let servers = settings.config().name_servers().to_vec();
                let pool =
                    NameServerPool::from_config(servers, context, TokioRuntimeProvider::default());
                let handle = AskAd(RetryDnsHandle::new(pool, settings.options().attempts));
                let client = CachingClient::new(settings.options().cache_size, handle, true);
                (BackEnd::Believing(client), None)
            }
        };
        Ok(Self { back_end, plain, negative: RefCell::default(), probed: Cell::new(None) })
    }

    /// Asks for records of a name. Never fails but as an [`Outcome::Failed`].
    pub async fn lookup(&self, name: &str, kind: Kind) -> Answer {
        let Ok(mut asked) = Name::from_utf8(name) else {
            return Answer::failed(Failure::BadName);
        };
        asked.set_fqdn(true);
        let now = Instant::now();
        if let Some(known) = self.negative.borrow_mut().find(name, kind, now) {
            return known;
        }
        let answer = match &self.back_end {
            BackEnd::Validating(resolver) => self.validated(resolver, asked, kind).await,
            BackEnd::Believing(client) => {
                let mut options = DnsRequestOptions::default();
                options.use_edns = true;
                let query = Query::query(asked, kind.record_type());
                let found = client.lookup(query, options).await;
                let authentic = |lookup: &Lookup| lookup.message().authentic_data;
                read(found, kind, authentic, |_| false)
            }
        };
        self.negative.borrow_mut().keep(name, kind, &answer, now);
        answer
    }

    /// Asks for the names of an address.
    pub async fn reverse(&self, ip: IpAddr) -> Answer {
        self.lookup(&Name::from(ip).to_ascii(), Kind::Ptr).await
    }

    async fn validated(&self, resolver: &TokioResolver, asked: Name, kind: Kind) -> Answer {
        let found = resolver.lookup(asked.clone(), kind.record_type()).await;
        let mut answer = read(found, kind, proven, denied);
        if answer.outcome != Outcome::Failed(Failure::Bogus) {
            return answer;
        }
        if self.servers_strip_dnssec(resolver).await
            && let Some(plain) = &self.plain
        {
            let found = plain.lookup(asked, kind.record_type()).await;
            return read(found, kind, |_| false, |_| false);
        }
        // Not believed before every alias was looked at by itself.
        let (mut name, mut authentic) = (asked, true);
        for _ in 0..MAX_ALIASES {
            match resolver.lookup(name.clone(), RecordType::CNAME).await {
                Ok(lookup) => {
                    authentic &= proven(&lookup);
                    let alias = |record: &hickory_proto::rr::Record| {
                        let RData::CNAME(target) = &record.data else { return None };
                        Some(target.0.clone())
                    };
                    let Some(target) = lookup.answers().iter().find_map(alias) else { break };
                    name = target;
                }
                Err(NetError::Dns(DnsError::NoRecordsFound(_) | DnsError::Nsec { .. })) => {
                    let found = resolver.lookup(name, kind.record_type()).await;
                    answer = read(found, kind, proven, denied);
                    answer.authentic &= authentic;
                    return answer;
                }
                Err(_) => break,
            }
        }
        answer
    }

    /// Whether the servers drop the records that validation needs: then nothing is authentic, but
    /// nothing is bogus for that either.
    async fn servers_strip_dnssec(&self, resolver: &TokioResolver) -> bool {
        let now = Instant::now();
        if let Some((when, strip)) = self.probed.get()
            && now.duration_since(when) < PROBE_EVERY
        {
            return strip;
        }
        let keys = resolver.lookup(Name::root(), RecordType::DNSKEY).await;
        let strip = !matches!(&keys, Ok(lookup) if proven(lookup));
        if strip {
            tracing::warn!("the DNS servers pass no DNSSEC on: nothing is authentic, no DANE");
        }
        self.probed.set(Some((now, strip)));
        strip
    }
}

/// The weakest proof of the answer decides.
fn proven(lookup: &Lookup) -> bool {
    let mut records =
        lookup.answers().iter().filter(|r| r.record_type() != RecordType::RRSIG).peekable();
    records.peek().is_some() && records.all(|record| record.proof == Proof::Secure)
}

/// Whether the denial itself was signed.
fn denied(no: &NoRecords) -> bool {
    let authorities = no.authorities.as_deref().unwrap_or_default();
    let mut records =
        authorities.iter().filter(|r| r.record_type() != RecordType::RRSIG).peekable();
    records.peek().is_some() && records.all(|record| record.proof == Proof::Secure)
}

fn read(
    found: Result<Lookup, NetError>,
    kind: Kind,
    authentic: impl Fn(&Lookup) -> bool,
    authentic_denial: impl Fn(&NoRecords) -> bool,
) -> Answer {
    match found {
        Ok(lookup) => {
            let wanted = lookup.answers().iter().filter(|r| r.record_type() == kind.record_type());
            let wanted: Vec<_> = wanted.take(MAX_RECORDS).collect();
            let ttl_seconds = wanted.iter().map(|record| record.ttl).min().unwrap_or(0);
            let final_name = wanted.first().map(|record| host(&record.name)).unwrap_or_default();
            let records: Vec<Record> = wanted.iter().map(|r| Record::of(&r.data)).collect();
            let outcome =
                if records.is_empty() { Outcome::NoData } else { Outcome::Records(records) };
            Answer { outcome, authentic: authentic(&lookup), ttl_seconds, final_name }
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(no))) => {
            let authentic = authentic_denial(&no);
            absent(no.response_code, authentic, no.negative_ttl.unwrap_or(0))
        }
        Err(NetError::Dns(DnsError::Nsec { response, proof, .. })) => match proof {
            Proof::Secure => absent(response.response_code, true, 60),
            Proof::Insecure => absent(response.response_code, false, 60),
            Proof::Bogus | Proof::Indeterminate => Answer::failed(Failure::Bogus),
        },
        Err(NetError::Dns(DnsError::DnssecBogus)) => Answer::failed(Failure::Bogus),
        Err(NetError::Timeout) => Answer::failed(Failure::Timeout),
        Err(NetError::Busy) => Answer::failed(Failure::Overload),
        Err(_) => Answer::failed(Failure::ServFail),
    }
}

fn absent(code: ResponseCode, authentic: bool, ttl_seconds: u32) -> Answer {
    let outcome = if code == ResponseCode::NXDomain {
        Outcome::NoSuchName
    } else if code == ResponseCode::NoError {
        Outcome::NoData
    } else {
        return Answer::failed(Failure::ServFail);
    };
    Answer { outcome, authentic, ttl_seconds, final_name: String::new() }
}
