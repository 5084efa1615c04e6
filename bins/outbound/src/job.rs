//! One job, from words on the wire to types that cannot be wrong.

use ipc::{
    capnp,
    schema::outbound_capnp::{TlsPolicy, job},
};
use types::{Address, Domain, ReversePath};

/// Recipients of one job.
const MAX_RECIPIENTS: u32 = 100;

/// What is to be done about TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Wherever it is offered; in clear where it is not, or does not work (RFC 7435).
    Opportunistic,
    /// Or not at all.
    Require,
    /// None.
    Never,
}

/// A message for recipients of one domain.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) domain: Domain,
    pub(crate) ehlo: Domain,
    pub(crate) from: ReversePath,
    pub(crate) recipients: Vec<Address>,
    pub(crate) size: u64,
    pub(crate) smtputf8: bool,
    pub(crate) eight_bit: bool,
    pub(crate) requiretls: bool,
    pub(crate) tls: Tls,
}

fn bad(what: &str) -> capnp::Error {
    capnp::Error::failed(format!("job: {what}"))
}

impl Job {
    pub(crate) fn read(job: job::Reader<'_>) -> Result<Self, capnp::Error> {
        let domain: Domain =
            job.get_domain()?.to_str()?.parse().map_err(|_| bad("not a domain"))?;
        let list = job.get_recipients()?;
        if list.is_empty() || list.len() > MAX_RECIPIENTS {
            return Err(bad("number of recipients"));
        }
        let recipients = list
            .iter()
            .map(|text| {
                let address: Address =
                    text?.to_str()?.parse().map_err(|_| bad("not an address"))?;
                // A job for one domain must not reach another one.
                if *address.domain() == domain { Ok(address) } else { Err(bad("another domain")) }
            })
            .collect::<Result<Vec<_>, capnp::Error>>()?;
        Ok(Self {
            domain,
            ehlo: job.get_ehlo()?.to_str()?.parse().map_err(|_| bad("EHLO name"))?,
            from: ReversePath::from_inner(job.get_from()?.to_str()?)
                .map_err(|_| bad("reverse-path"))?,
            recipients,
            size: job.get_size(),
            smtputf8: job.get_smtputf8(),
            eight_bit: job.get_eight_bit(),
            requiretls: job.get_require_tls(),
            tls: match job.get_tls()? {
                TlsPolicy::Opportunistic => Tls::Opportunistic,
                TlsPolicy::Require => Tls::Require,
                TlsPolicy::None => Tls::Never,
            },
        })
    }
}
