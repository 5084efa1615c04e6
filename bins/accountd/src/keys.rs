//! keyholder as accountd asks it: the pepper for verifiers, signatures for hosted domains.

use crate::auth::pepper::{Pepper, PepperError};
use futures::future::LocalBoxFuture;
use ipc::{
    Line, Unavailable, capnp,
    schema::keyholder_capnp::{
        accountd_keys,
        dkim_signer::{self, outcome},
        key_admin,
        pepper::{self, opened},
    },
    within,
};
use mailauth::dkim::{Algorithm, Selector};
use std::{cell::Cell, time::Duration};
use types::{AccountId, Domain};
use zeroize::Zeroizing;

/// How long making a key may take; finding primes is luck.
const GENERATE: Duration = Duration::from_secs(60);
/// Keys of one domain.
const MAX_KEYS: usize = 16;

/// A DKIM key of a domain.
#[derive(Debug, Clone)]
pub(crate) struct SigningKey {
    pub(crate) selector: Selector,
    pub(crate) algorithm: Algorithm,
}

/// What became of a block to sign.
#[derive(Debug, Clone)]
pub(crate) enum Signed {
    Signature(Vec<u8>),
    /// The key was rotated since it was listed.
    Stale,
    NoKey,
    OverRate,
}

/// How long keyholder may take for one answer.
const CALL: Duration = Duration::from_secs(5);

/// The line to keyholder.
pub(crate) struct Keyholder {
    line: Line<accountd_keys::Client>,
    /// The life of keyholder that was told the hosted domains: it forgets them with its end.
    told: Cell<Option<u64>>,
}

fn away(error: Unavailable) -> PepperError {
    tracing::warn!(%error, "keyholder");
    PepperError::Away
}

impl Keyholder {
    pub(crate) fn new(line: Line<accountd_keys::Client>) -> Self {
        Self { line, told: Cell::new(None) }
    }

    async fn pepper_client(&self) -> Result<pepper::Client, Unavailable> {
        // Not awaited: the capability is a promise, and the call on it travels in the same message.
        Ok(self.line.client().await?.pepper_request().send().pipeline.get_pepper())
    }

    async fn signer(&self, domain: &Domain) -> Result<dkim_signer::Client, Unavailable> {
        let mut request = self.line.client().await?.dkim_request();
        request.get().set_domain(domain.as_ascii());
        Ok(request.send().pipeline.get_signer())
    }

    /// The keys a domain signs with.
    pub(crate) async fn signing_keys(
        &self,
        domain: &Domain,
    ) -> Result<Vec<SigningKey>, Unavailable> {
        let request = self.signer(domain).await?.describe_request();
        let _permit = self.line.permit().await;
        let response = within(CALL, request.send().promise).await?;
        read(|| {
            let mut keys = Vec::new();
            for key in response.get()?.get_keys()?.iter().take(MAX_KEYS) {
                let selector = key.get_selector()?.to_str()?.parse::<Selector>();
                let algorithm = key.get_algorithm()?.to_str()?.parse::<Algorithm>();
                // One that this build does not know is another's to use.
                if let (Ok(selector), Ok(algorithm)) = (selector, algorithm) {
                    keys.push(SigningKey { selector, algorithm });
                }
            }
            Ok(keys)
        })
        .map_err(|_| Unavailable::Broken)
    }

    /// Has a block signed.
    pub(crate) async fn dkim_sign(
        &self,
        domain: &Domain,
        selector: &Selector,
        block: &[u8],
    ) -> Result<Signed, Unavailable> {
        let mut request = self.signer(domain).await?.sign_request();
        request.get().set_selector(selector.as_str());
        request.get().set_headers(block);
        let _permit = self.line.permit().await;
        let response = within(CALL, request.send().promise).await?;
        read(|| {
            Ok(match response.get()?.get_outcome()?.which()? {
                outcome::Which::Signature(signature) => Signed::Signature(signature?.to_vec()),
                outcome::Which::StaleSelector(()) => Signed::Stale,
                outcome::Which::NoKey(()) => Signed::NoKey,
                outcome::Which::OverRate(()) => Signed::OverRate,
            })
        })
        .map_err(|_| Unavailable::Broken)
    }

    /// Tells which domains DKIM signers may be made for.
    pub(crate) async fn hosted(&self, domains: &[Domain]) -> Result<(), Unavailable> {
        let admin = self.line.client().await?.key_admin_request().send().pipeline.get_admin();
        let mut request = admin.hosted_request();
        let names: Vec<&str> = domains.iter().map(Domain::as_ascii).collect();
        request.get().set_domains(names.as_slice()).map_err(|error| {
            tracing::error!(%error, "the list of domains");
            Unavailable::Broken
        })?;
        let _permit = self.line.permit().await;
        let life = self.line.generation();
        within(CALL, request.send().promise).await?;
        self.told.set(Some(life));
        Ok(())
    }

    /// Makes a DKIM key for a hosted domain, if there is none of that selector yet.
    pub(crate) async fn generate(
        &self,
        domain: &Domain,
        selector: &str,
        algorithm: key_admin::Algorithm,
    ) -> Result<(), Unavailable> {
        let admin = self.line.client().await?.key_admin_request().send().pipeline.get_admin();
        let mut request = admin.generate_dkim_request();
        request.get().set_domain(domain.as_ascii());
        request.get().set_selector(selector);
        request.get().set_algorithm(algorithm);
        let _permit = self.line.permit().await;
        within(GENERATE, request.send().promise).await.map(|_| ())
    }

    /// The DNS records of a domain's keys: name and text.
    pub(crate) async fn records(
        &self,
        domain: &Domain,
    ) -> Result<Vec<(String, String)>, Unavailable> {
        let admin = self.line.client().await?.key_admin_request().send().pipeline.get_admin();
        let mut request = admin.list_dkim_request();
        request.get().set_domain(domain.as_ascii());
        let _permit = self.line.permit().await;
        let response = within(CALL, request.send().promise).await?;
        read(|| {
            let mut records = Vec::new();
            for key in response.get()?.get_keys()?.iter().take(MAX_KEYS) {
                let selector = key.get_selector()?.to_str()?;
                let name = format!("{selector}._domainkey.{domain}");
                records.push((name, key.get_record()?.to_str()?.to_owned()));
            }
            Ok(records)
        })
        .map_err(|_| Unavailable::Broken)
    }

    /// Whether the keyholder that runs now was told the hosted domains.
    pub(crate) fn knows_domains(&self) -> bool {
        self.told.get() == Some(self.line.generation())
    }
}

impl Pepper for Keyholder {
    fn seal<'a>(
        &'a self,
        account: AccountId,
        plain: &'a [u8],
    ) -> LocalBoxFuture<'a, Result<Vec<u8>, PepperError>> {
        Box::pin(async move {
            let mut request = self.pepper_client().await.map_err(away)?.seal_request();
            request.get().set_account(account.as_bytes());
            request.get().set_plain(plain);
            let _permit = self.line.permit().await;
            let response = within(CALL, request.send().promise).await.map_err(away)?;
            read(|| Ok(response.get()?.get_sealed()?.to_vec()))
        })
    }

    fn open<'a>(
        &'a self,
        account: AccountId,
        sealed: &'a [u8],
    ) -> LocalBoxFuture<'a, Result<Zeroizing<Vec<u8>>, PepperError>> {
        Box::pin(async move {
            let mut request = self.pepper_client().await.map_err(away)?.open_request();
            request.get().set_account(account.as_bytes());
            request.get().set_sealed(sealed);
            let _permit = self.line.permit().await;
            let response = within(CALL, request.send().promise).await.map_err(away)?;
            let plain = read(|| {
                Ok(match response.get()?.get_outcome()?.which()? {
                    opened::Which::Plain(plain) => Some(Zeroizing::new(plain?.to_vec())),
                    opened::Which::Damaged(()) => None,
                })
            })?;
            plain.ok_or(PepperError::Damaged)
        })
    }

    fn mac<'a>(
        &'a self,
        account: AccountId,
        data: &'a [u8],
    ) -> LocalBoxFuture<'a, Result<Vec<u8>, PepperError>> {
        Box::pin(async move {
            let mut request = self.pepper_client().await.map_err(away)?.mac_request();
            request.get().set_account(account.as_bytes());
            request.get().set_data(data);
            let _permit = self.line.permit().await;
            let response = within(CALL, request.send().promise).await.map_err(away)?;
            read(|| Ok(response.get()?.get_mac()?.to_vec()))
        })
    }
}

fn read<T>(read: impl FnOnce() -> Result<T, capnp::Error>) -> Result<T, PepperError> {
    read().map_err(|error| {
        tracing::error!(%error, "keyholder's answer");
        PepperError::Away
    })
}
