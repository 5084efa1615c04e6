//! DKIM keys: which domain has which, and the check before one is used.

use crate::{
    StartError,
    edge::{EdgeError, Edges},
    folder::{Folder, FolderError},
    key::{KeyError, PrivateKey},
};
use daemon::Workers;
use ipc::Role;
use mailauth::dkim::{Algorithm, NotSignable, Selector, check_signable};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};
use tokio::sync::Mutex;
use types::{Clock, Domain};

/// Keys of one domain.
const MAX_KEYS: usize = 32;

/// What became of a request to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Signature(Vec<u8>),
    StaleSelector,
    NoKey,
    OverRate,
}

/// What is wrong with a request. The caller is faulty or was taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DkimError {
    #[error(transparent)]
    NotSignable(#[from] NotSignable),
    #[error("the block names another selector or algorithm than the call")]
    OtherSelector,
    #[error("a key of this name and another algorithm is there already")]
    OtherAlgorithm,
    #[error("more than {MAX_KEYS} keys for one domain")]
    TooMany,
    #[error("there is no such key")]
    NoSuchKey,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Edge(#[from] EdgeError),
    #[error(transparent)]
    Folder(#[from] FolderError),
}

type OfDomain = BTreeMap<Selector, Arc<PrivateKey>>;

/// All DKIM keys.
pub(crate) struct DkimKeys {
    folder: Rc<Folder>,
    clock: Arc<dyn Clock>,
    keys: RefCell<BTreeMap<Domain, OfDomain>>,
    // Keys are made one at a time: RSA takes a core for a while.
    making: Mutex<()>,
    workers: Workers,
}

impl DkimKeys {
    /// Reads them. A file that holds no DKIM key is said and left out.
    pub(crate) fn load(
        folder: Rc<Folder>,
        clock: Arc<dyn Clock>,
        workers: Workers,
    ) -> Result<Self, StartError> {
        let mut keys: BTreeMap<Domain, OfDomain> = BTreeMap::new();
        for (domain, selector, text) in folder.read_all_dkim()? {
            match PrivateKey::from_pem(&text) {
                Ok(key) if key.dkim_algorithm().is_some() => {
                    keys.entry(domain).or_default().insert(selector, Arc::new(key));
                }
                Ok(_) => tracing::error!(%domain, %selector, "a key that DKIM cannot use"),
                Err(error) => tracing::error!(%domain, %selector, %error, "a DKIM key is not used"),
            }
        }
        Ok(Self { folder, clock, keys: RefCell::new(keys), making: Mutex::default(), workers })
    }

    /// Selectors and algorithms of a domain.
    pub(crate) fn describe(&self, domain: &Domain) -> Vec<(Selector, Algorithm)> {
        self.each(domain, |selector, key| Some((selector.clone(), key.dkim_algorithm()?)))
    }

    /// Selectors, algorithms and records of a domain.
    pub(crate) fn list(&self, domain: &Domain) -> Vec<(Selector, Algorithm, String)> {
        self.each(domain, |selector, key| {
            Some((selector.clone(), key.dkim_algorithm()?, key.dkim_record()?))
        })
    }

    /// All keys in words.
    pub(crate) fn all(&self) -> Vec<String> {
        let keys = self.keys.borrow();
        let all = keys.iter().flat_map(|(domain, of_domain)| {
            of_domain.iter().map(move |(selector, key)| {
                let record = key.dkim_record().unwrap_or_default();
                format!("dkim {selector}._domainkey.{domain} {record}")
            })
        });
        all.collect()
    }

    fn each<T>(
        &self,
        domain: &Domain,
        show: impl Fn(&Selector, &PrivateKey) -> Option<T>,
    ) -> Vec<T> {
        let keys = self.keys.borrow();
        let of_domain = keys.get(domain).into_iter().flatten();
        of_domain.filter_map(|(selector, key)| show(selector, key)).collect()
    }

    /// Signs a header block as `domain`, for the client `role`.
    pub(crate) async fn sign(
        &self,
        edges: &Edges,
        role: Role,
        domain: &Domain,
        selector: &str,
        block: Vec<u8>,
    ) -> Result<Outcome, DkimError> {
        let found = {
            let keys = self.keys.borrow();
            let of_domain = keys.get(domain);
            match of_domain.filter(|keys| !keys.is_empty()) {
                None => return Ok(Outcome::NoKey),
                Some(keys) => {
                    let selector = selector.parse::<Selector>().ok();
                    selector
                        .and_then(|selector| keys.get_key_value(&selector))
                        .map(|(s, key)| (s.clone(), Arc::clone(key)))
                }
            }
        };
        let Some((selector, key)) = found else { return Ok(Outcome::StaleSelector) };
        let signable = check_signable(&block, domain)?;
        if signable.selector != selector || Some(signable.algorithm) != key.dkim_algorithm() {
            return Err(DkimError::OtherSelector);
        }
        match edges.sign_dkim(role, key, block).await {
            Ok(signature) => Ok(Outcome::Signature(signature)),
            Err(EdgeError::OverRate) => Ok(Outcome::OverRate),
            Err(error @ (EdgeError::NoThread | EdgeError::TooManySlots | EdgeError::Key(_))) => {
                Err(error.into())
            }
        }
    }

    /// Makes a key, or finds the one that is there, and gives its record.
    pub(crate) async fn generate(
        &self,
        domain: &Domain,
        selector: &Selector,
        algorithm: Algorithm,
    ) -> Result<String, DkimError> {
        let _turn = self.making.lock().await;
        {
            let keys = self.keys.borrow();
            let of_domain = keys.get(domain);
            if let Some(key) = of_domain.and_then(|keys| keys.get(selector)) {
                if key.dkim_algorithm() != Some(algorithm) {
                    return Err(DkimError::OtherAlgorithm);
                }
                return Ok(key.dkim_record().ok_or(KeyError::Kind)?);
            }
            if of_domain.is_some_and(|keys| keys.len() >= MAX_KEYS) {
                return Err(DkimError::TooMany);
            }
        }
        let making = self.workers.run(move || PrivateKey::generate_dkim(algorithm));
        let (key, text) = making.await.map_err(|_| KeyError::Crypto)??;
        let record = key.dkim_record().ok_or(KeyError::Kind)?;
        // On the disk first: a record that was published for a key that is lost breaks all mail.
        self.folder.write_dkim(domain, selector, text.as_bytes())?;
        let mut keys = self.keys.borrow_mut();
        keys.entry(domain.clone()).or_default().insert(selector.clone(), Arc::new(key));
        tracing::info!(%domain, %selector, %algorithm, "made a DKIM key");
        Ok(record)
    }

    /// Moves a key to `old/`.
    pub(crate) fn retire(&self, domain: &Domain, selector: &Selector) -> Result<(), DkimError> {
        let mut keys = self.keys.borrow_mut();
        let of_domain = keys.get_mut(domain).ok_or(DkimError::NoSuchKey)?;
        if !of_domain.contains_key(selector) {
            return Err(DkimError::NoSuchKey);
        }
        self.folder.retire_dkim(domain, selector, self.clock.now())?;
        of_domain.remove(selector);
        tracing::info!(%domain, %selector, "retired a DKIM key");
        Ok(())
    }
}
