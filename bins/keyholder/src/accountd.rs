//! `AccountdKeys` and `HostKeys`: pepper, DKIM signatures and keys, as capabilities made for one
//! caller and one domain.

use crate::{
    dkim::{DkimError, DkimKeys, Outcome},
    edge::{EdgeError, Edges, Use},
    pepper::{MAX_PLAIN, Pepper},
};
use ipc::{
    Role, capnp,
    schema::keyholder_capnp::{accountd_keys, dkim_signer, host_keys, key_admin, pepper},
};
use mailauth::dkim::{Algorithm, MAX_BLOCK, Selector};
use std::{cell::RefCell, collections::BTreeSet, rc::Rc};
use types::Domain;

/// Domains that are hosted here at most.
const MAX_HOSTED: usize = 100_000;

/// What both interfaces are made of.
#[derive(Clone)]
pub(crate) struct Keys {
    pepper: Rc<Pepper>,
    dkim: Rc<DkimKeys>,
    // Outlives a connection of accountd, so that another one of it need not say it again.
    hosted: Hosted,
}

/// What DkimSigners may be made for: told by accountd; nothing before that.
type Hosted = Rc<RefCell<BTreeSet<Domain>>>;

impl Keys {
    pub(crate) fn new(pepper: Pepper, dkim: DkimKeys) -> Self {
        Self { pepper: Rc::new(pepper), dkim: Rc::new(dkim), hosted: Hosted::default() }
    }

    /// What accountd finds.
    pub(crate) fn for_accountd(&self, edges: Edges, host: Domain) -> capnp::capability::Client {
        let server = AccountdKeys { keys: self.clone(), edges, host };
        let client: accountd_keys::Client = ipc::new_client(server);
        client.client
    }

    /// All DKIM keys in words.
    pub(crate) fn describe(&self) -> Vec<String> {
        self.dkim.all()
    }

    /// What queue-runner finds.
    pub(crate) fn for_host(&self, edges: Edges, host: Domain) -> capnp::capability::Client {
        let server = HostKeys { keys: self.clone(), edges, host };
        let client: host_keys::Client = ipc::new_client(server);
        client.client
    }
}

fn refused(what: impl std::fmt::Display) -> capnp::Error {
    capnp::Error::failed(format!("refused: {what}"))
}

fn domain(text: capnp::text::Reader<'_>) -> Result<Domain, capnp::Error> {
    text.to_str()?.parse().map_err(refused)
}

fn selector(text: capnp::text::Reader<'_>) -> Result<Selector, capnp::Error> {
    text.to_str()?.parse().map_err(refused)
}

fn to_wire(error: &DkimError) -> capnp::Error {
    tracing::warn!(%error, "a DKIM call was refused");
    refused(error)
}

struct AccountdKeys {
    keys: Keys,
    edges: Edges,
    host: Domain,
}

impl accountd_keys::Server for AccountdKeys {
    async fn pepper(
        self: Rc<Self>,
        _params: accountd_keys::PepperParams,
        mut results: accountd_keys::PepperResults,
    ) -> Result<(), capnp::Error> {
        let client = ipc::new_client(PepperFor {
            pepper: Rc::clone(&self.keys.pepper),
            edges: self.edges.clone(),
        });
        results.get().set_pepper(client);
        Ok(())
    }

    async fn dkim(
        self: Rc<Self>,
        params: accountd_keys::DkimParams,
        mut results: accountd_keys::DkimResults,
    ) -> Result<(), capnp::Error> {
        let domain = domain(params.get()?.get_domain()?)?;
        if !self.keys.hosted.borrow().contains(&domain) {
            self.edges.count_refused(Role::Accountd);
            tracing::warn!(%domain, "asked to sign for a domain that is not hosted here");
            return Err(refused("not a hosted domain"));
        }
        let signer = Signer {
            dkim: Rc::clone(&self.keys.dkim),
            edges: self.edges.clone(),
            role: Role::Accountd,
            domain,
            hosted: Some(Rc::clone(&self.keys.hosted)),
        };
        results.get().set_signer(ipc::new_client(signer));
        Ok(())
    }

    async fn key_admin(
        self: Rc<Self>,
        _params: accountd_keys::KeyAdminParams,
        mut results: accountd_keys::KeyAdminResults,
    ) -> Result<(), capnp::Error> {
        let admin = KeyAdmin {
            dkim: Rc::clone(&self.keys.dkim),
            edges: self.edges.clone(),
            host: self.host.clone(),
            hosted: Rc::clone(&self.keys.hosted),
        };
        results.get().set_admin(ipc::new_client(admin));
        Ok(())
    }
}

struct HostKeys {
    keys: Keys,
    edges: Edges,
    host: Domain,
}

impl host_keys::Server for HostKeys {
    async fn dkim(
        self: Rc<Self>,
        _params: host_keys::DkimParams,
        mut results: host_keys::DkimResults,
    ) -> Result<(), capnp::Error> {
        let signer = Signer {
            dkim: Rc::clone(&self.keys.dkim),
            edges: self.edges.clone(),
            role: Role::QueueRunner,
            domain: self.host.clone(),
            hosted: None,
        };
        results.get().set_signer(ipc::new_client(signer));
        Ok(())
    }
}

struct PepperFor {
    pepper: Rc<Pepper>,
    edges: Edges,
}

/// Counts a use of accountd's. Above its rate it is asked to come again: an exception of its own
/// kind, so that no answer can be taken for one about a password.
fn may_use(edges: &Edges, what: Use) -> Result<(), capnp::Error> {
    edges.may_use(Role::Accountd, what).map_err(|error| match error {
        EdgeError::OverRate => capnp::Error::overloaded(error.to_string()),
        EdgeError::NoThread | EdgeError::TooManySlots | EdgeError::Key(_) => refused(error),
    })
}

fn bounded(octets: &[u8], most: usize) -> Result<&[u8], capnp::Error> {
    if octets.len() <= most { Ok(octets) } else { Err(refused("longer than this interface takes")) }
}

impl pepper::Server for PepperFor {
    async fn seal(
        self: Rc<Self>,
        params: pepper::SealParams,
        mut results: pepper::SealResults,
    ) -> Result<(), capnp::Error> {
        may_use(&self.edges, Use::Pepper)?;
        let params = params.get()?;
        let account = bounded(params.get_account()?, MAX_PLAIN)?;
        let plain = bounded(params.get_plain()?, MAX_PLAIN)?;
        let sealed = self.pepper.seal(account, plain);
        let sealed = sealed.map_err(|_| refused("the crypto library failed"))?;
        results.get().set_sealed(&sealed);
        Ok(())
    }

    async fn open(
        self: Rc<Self>,
        params: pepper::OpenParams,
        mut results: pepper::OpenResults,
    ) -> Result<(), capnp::Error> {
        may_use(&self.edges, Use::Pepper)?;
        let params = params.get()?;
        let account = bounded(params.get_account()?, MAX_PLAIN)?;
        let sealed = bounded(params.get_sealed()?, MAX_PLAIN + 64)?;
        let mut outcome = results.get().init_outcome();
        match self.pepper.open_sealed(account, sealed) {
            Some(plain) => outcome.set_plain(&plain),
            None => outcome.set_damaged(()),
        }
        Ok(())
    }

    async fn mac(
        self: Rc<Self>,
        params: pepper::MacParams,
        mut results: pepper::MacResults,
    ) -> Result<(), capnp::Error> {
        may_use(&self.edges, Use::Pepper)?;
        let params = params.get()?;
        let account = bounded(params.get_account()?, MAX_PLAIN)?;
        let data = bounded(params.get_data()?, MAX_PLAIN)?;
        results.get().set_mac(&self.pepper.mac(account, data));
        Ok(())
    }
}

/// The right to sign as one domain.
struct Signer {
    dkim: Rc<DkimKeys>,
    edges: Edges,
    role: Role,
    domain: Domain,
    // A domain that is no longer hosted signs no more, whoever still holds this.
    hosted: Option<Hosted>,
}

impl Signer {
    fn is_hosted(&self) -> bool {
        self.hosted.as_ref().is_none_or(|hosted| hosted.borrow().contains(&self.domain))
    }
}

impl dkim_signer::Server for Signer {
    async fn describe(
        self: Rc<Self>,
        _params: dkim_signer::DescribeParams,
        mut results: dkim_signer::DescribeResults,
    ) -> Result<(), capnp::Error> {
        let keys = if self.is_hosted() { self.dkim.describe(&self.domain) } else { Vec::new() };
        let length = u32::try_from(keys.len()).unwrap_or_default();
        let mut list = results.get().init_keys(length);
        for (at, (selector, algorithm)) in (0..length).zip(&keys) {
            let mut entry = list.reborrow().get(at);
            entry.set_selector(selector.as_str());
            entry.set_algorithm(algorithm.name());
        }
        Ok(())
    }

    async fn sign(
        self: Rc<Self>,
        params: dkim_signer::SignParams,
        mut results: dkim_signer::SignResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let selector = params.get_selector()?.to_str()?.to_owned();
        let block = bounded(params.get_headers()?, MAX_BLOCK)?.to_vec();
        let outcome = if self.is_hosted() {
            self.dkim.sign(&self.edges, self.role, &self.domain, &selector, block).await
        } else {
            Ok(Outcome::NoKey)
        };
        let outcome = outcome.map_err(|error| {
            self.edges.count_refused(self.role);
            to_wire(&error)
        })?;
        let mut result = results.get().init_outcome();
        match outcome {
            Outcome::Signature(signature) => result.set_signature(&signature),
            Outcome::StaleSelector => result.set_stale_selector(()),
            Outcome::NoKey => result.set_no_key(()),
            Outcome::OverRate => result.set_over_rate(()),
        }
        Ok(())
    }
}

struct KeyAdmin {
    dkim: Rc<DkimKeys>,
    edges: Edges,
    host: Domain,
    hosted: Hosted,
}

impl KeyAdmin {
    /// Keys are made for hosted domains and for our own host name, and for no other.
    fn allowed(&self, text: capnp::text::Reader<'_>) -> Result<Domain, capnp::Error> {
        let domain = domain(text)?;
        if domain == self.host || self.hosted.borrow().contains(&domain) {
            Ok(domain)
        } else {
            Err(refused("not a hosted domain"))
        }
    }
}

impl key_admin::Server for KeyAdmin {
    async fn hosted(
        self: Rc<Self>,
        params: key_admin::HostedParams,
        _results: key_admin::HostedResults,
    ) -> Result<(), capnp::Error> {
        may_use(&self.edges, Use::Admin)?;
        let list = params.get()?.get_domains()?;
        if list.len() as usize > MAX_HOSTED {
            return Err(refused("too many domains"));
        }
        let mut domains = BTreeSet::new();
        for text in list.iter() {
            domains.insert(domain(text?)?);
        }
        *self.hosted.borrow_mut() = domains;
        Ok(())
    }

    async fn generate_dkim(
        self: Rc<Self>,
        params: key_admin::GenerateDkimParams,
        mut results: key_admin::GenerateDkimResults,
    ) -> Result<(), capnp::Error> {
        may_use(&self.edges, Use::Admin)?;
        let params = params.get()?;
        let domain = self.allowed(params.get_domain()?)?;
        let selector = selector(params.get_selector()?)?;
        let algorithm = match params.get_algorithm()? {
            key_admin::Algorithm::Ed25519 => Algorithm::Ed25519Sha256,
            key_admin::Algorithm::Rsa2048 => Algorithm::RsaSha256,
        };
        let made = self.dkim.generate(&domain, &selector, algorithm).await;
        results.get().set_record(made.map_err(|error| to_wire(&error))?.as_str());
        Ok(())
    }

    async fn list_dkim(
        self: Rc<Self>,
        params: key_admin::ListDkimParams,
        mut results: key_admin::ListDkimResults,
    ) -> Result<(), capnp::Error> {
        may_use(&self.edges, Use::Admin)?;
        let domain = self.allowed(params.get()?.get_domain()?)?;
        let keys = self.dkim.list(&domain);
        let length = u32::try_from(keys.len()).unwrap_or_default();
        let mut list = results.get().init_keys(length);
        for (at, (selector, algorithm, record)) in (0..length).zip(&keys) {
            let mut entry = list.reborrow().get(at);
            entry.set_selector(selector.as_str());
            entry.set_algorithm(algorithm.name());
            entry.set_record(record.as_str());
        }
        Ok(())
    }

    async fn retire_dkim(
        self: Rc<Self>,
        params: key_admin::RetireDkimParams,
        _results: key_admin::RetireDkimResults,
    ) -> Result<(), capnp::Error> {
        may_use(&self.edges, Use::Admin)?;
        let params = params.get()?;
        let domain = self.allowed(params.get_domain()?)?;
        let selector = selector(params.get_selector()?)?;
        self.dkim.retire(&domain, &selector).map_err(|error| to_wire(&error))
    }
}
