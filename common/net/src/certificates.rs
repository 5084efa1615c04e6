//! The certificates of an edge: chosen by the name a client asks for, replaced as a whole.

use crate::signing::{RemoteKey, Turn};
use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    pki_types::CertificateDer,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use x509_parser::{
    oid_registry::{
        OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ECDSA_WITH_SHA512,
    },
    prelude::{FromDer as _, X509Certificate},
};

/// Certificates in one table; above it the rest is refused and said.
pub(crate) const MAX_CERTIFICATES: usize = 4096;
/// How long a face that has just started waits for the first of them.
const FIRST: Duration = Duration::from_secs(3);
/// Certificates in one chain.
const MAX_CHAIN: usize = 16;

/// A certificate whose key is in keyholder, as it comes from there.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Names it is for: lower case, ASCII; `*.` in front for a wildcard.
    pub names: Vec<String>,
    /// DER, end entity first.
    pub chain: Vec<Vec<u8>>,
    /// First 8 octets of the SHA-256 of `spki`, big endian.
    pub key_id: u64,
    /// SubjectPublicKeyInfo of the key, DER.
    pub spki: Vec<u8>,
    /// TLS SignatureScheme code points the key can do, best first.
    pub schemes: Vec<u16>,
    /// For a client without SNI, or with a name none is for.
    pub is_default: bool,
}

/// Why a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// Nothing to send.
    #[error("the certificate chain is empty or longer than {MAX_CHAIN}")]
    Chain,
    /// The chain's first certificate is for another key.
    #[error("certificate and key do not belong together")]
    OtherKey,
    /// No signature scheme of TLS 1.2 or 1.3 that we know.
    #[error("the key can do no signature scheme of TLS")]
    NoScheme,
    /// The table is full.
    #[error("more than {MAX_CERTIFICATES} certificates")]
    TooMany,
}

/// The certificates of a process, shared with every handshake. Cheap to clone.
#[derive(Clone)]
pub struct Certificates {
    table: Arc<RwLock<Arc<Table>>>,
    filled: Arc<Notify>,
    since: Instant,
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Default)]
struct Table {
    by_name: BTreeMap<String, Vec<Entry>>,
    defaults: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    key: Arc<CertifiedKey>,
    end_point: Arc<[u8]>,
}

impl Certificates {
    /// An empty table: every handshake fails until [`Self::replace`].
    #[must_use]
    pub fn new() -> Self {
        Self { table: Arc::default(), filled: Arc::default(), since: Instant::now() }
    }

    /// Puts a new table in place; handshakes under way keep the old one. What cannot be used is
    /// left out and named: one broken certificate must not take the others away.
    pub fn replace(&self, certificates: Vec<Certificate>) -> Vec<(String, CertificateProblem)> {
        let mut problems = Vec::new();
        let mut table = Table::default();
        for (number, certificate) in certificates.into_iter().enumerate() {
            let label = certificate.names.first().cloned().unwrap_or_default();
            if number >= MAX_CERTIFICATES {
                problems.push((label, CertificateProblem::TooMany));
                break;
            }
            let Certificate { names, is_default, .. } = &certificate;
            match certified(&certificate) {
                Ok(entry) => {
                    if *is_default {
                        table.defaults.push(entry.clone());
                    }
                    for name in names {
                        let name = name.to_ascii_lowercase();
                        table.by_name.entry(name).or_default().push(entry.clone());
                    }
                }
                Err(problem) => problems.push((label, problem)),
            }
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        self.filled.notify_waiters();
        problems
    }

    /// Waits until there is a certificate.
    pub async fn wait(&self) {
        loop {
            // Registered before the look, so that a change between the two is not missed.
            let filled = self.filled.notified();
            if !self.is_empty() {
                return;
            }
            filled.await;
        }
    }

    /// Whether there are any. In the first moments of a face it waits for them.
    pub async fn are_there(&self) -> bool {
        timeout_at(self.since + FIRST, self.wait()).await.is_ok()
    }

    /// Whether no handshake can succeed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let table = self.table();
        table.by_name.is_empty() && table.defaults.is_empty()
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates").field(&self.table().by_name.keys()).finish()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.table().choose(hello.server_name(), hello.signature_schemes())?;
        Turn::note(|turn| turn.end_point = Some(chosen.end_point));
        Some(chosen.key)
    }
}

impl Table {
    /// By exact name, by wildcard of one label (RFC 6125 §6.4.3), else the default: an SMTP client
    /// may send any name, and one without a certificate of ours is better served than refused.
    fn choose(&self, name: Option<&str>, offered: &[SignatureScheme]) -> Option<Entry> {
        let usable = |entries: &[Entry]| {
            entries.iter().find(|entry| entry.key.key.choose_scheme(offered).is_some()).cloned()
        };
        let by_name = name.map(str::to_ascii_lowercase).and_then(|name| {
            let exact = self.by_name.get(&name).and_then(|keys| usable(keys));
            exact.or_else(|| {
                let (_, parent) = name.split_once('.')?;
                usable(self.by_name.get(&format!("*.{parent}"))?)
            })
        });
        by_name.or_else(|| usable(&self.defaults)).or_else(|| self.defaults.first().cloned())
    }
}

fn certified(certificate: &Certificate) -> Result<Entry, CertificateProblem> {
    let end_entity = certificate.chain.first().ok_or(CertificateProblem::Chain)?;
    if certificate.chain.len() > MAX_CHAIN {
        return Err(CertificateProblem::Chain);
    }
    let end_point = end_point(end_entity).ok_or(CertificateProblem::Chain)?;
    let id =
        digest(&SHA256, &certificate.spki).as_ref().first_chunk().map(|id| u64::from_be_bytes(*id));
    if id != Some(certificate.key_id) {
        return Err(CertificateProblem::OtherKey);
    }
    let schemes: Vec<_> = certificate
        .schemes
        .iter()
        .map(|&scheme| SignatureScheme::from(scheme))
        .filter(|&scheme| algorithm(scheme).is_some())
        .collect();
    let algorithm =
        schemes.first().and_then(|&s| algorithm(s)).ok_or(CertificateProblem::NoScheme)?;
    let key = RemoteKey {
        key_id: certificate.key_id,
        spki: certificate.spki.clone().into(),
        algorithm,
        schemes: schemes.into(),
    };
    let chain = certificate.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let certified = CertifiedKey::new(chain, Arc::new(key));
    certified.keys_match().map_err(|_| CertificateProblem::OtherKey)?;
    Ok(Entry { key: Arc::new(certified), end_point })
}

/// The channel binding `tls-server-end-point`: the certificate's hash, by the hash function of its
/// own signature, SHA-256 in place of older ones (RFC 5929 §4.1). For signatures that name no
/// single hash (Ed25519, PSS) the RFC has no rule; SHA-256 is what others do.
fn end_point(der: &[u8]) -> Option<Arc<[u8]>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let signed_with = &certificate.signature_algorithm.algorithm;
    let hash = if [OID_PKCS1_SHA384WITHRSA, OID_SIG_ECDSA_WITH_SHA384].contains(signed_with) {
        &SHA384
    } else if [OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA512].contains(signed_with) {
        &SHA512
    } else {
        &SHA256
    };
    Some(digest(hash, der).as_ref().into())
}

/// The kind of key a scheme belongs to; `None` for what TLS 1.2 and 1.3 servers of ours never do.
fn algorithm(scheme: SignatureScheme) -> Option<SignatureAlgorithm> {
    const RSA: [SignatureScheme; 6] = [
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::RSA_PSS_SHA384,
        SignatureScheme::RSA_PSS_SHA512,
        SignatureScheme::RSA_PKCS1_SHA256,
        SignatureScheme::RSA_PKCS1_SHA384,
        SignatureScheme::RSA_PKCS1_SHA512,
    ];
    const ECDSA: [SignatureScheme; 2] =
        [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384];
    if RSA.contains(&scheme) {
        Some(SignatureAlgorithm::RSA)
    } else if ECDSA.contains(&scheme) {
        Some(SignatureAlgorithm::ECDSA)
    } else if scheme == SignatureScheme::ED25519 {
        Some(SignatureAlgorithm::ED25519)
    } else {
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rcgen::PublicKeyData as _;

    /// A self-signed certificate and its key.
    pub(crate) fn made(names: &[&str], is_default: bool) -> (Certificate, rcgen::KeyPair) {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
        let spki = made.signing_key.subject_public_key_info();
        let key_id = u64::from_be_bytes(digest(&SHA256, &spki).as_ref()[..8].try_into().unwrap());
        let chain = vec![made.cert.der().to_vec()];
        let schemes = vec![0x0403];
        (Certificate { names, chain, key_id, spki, schemes, is_default }, made.signing_key)
    }

    fn chosen(table: &Certificates, name: Option<&str>) -> Option<Vec<u8>> {
        let offered = [SignatureScheme::ECDSA_NISTP256_SHA256];
        table.table().choose(name, &offered).map(|entry| entry.key.cert[0].to_vec())
    }

    #[test]
    fn names_wildcards_and_default() {
        let (plain, _) = made(&["mail.example.org", "imap.example.org"], false);
        let (wild, _) = made(&["*.example.org"], false);
        let (default, _) = made(&["mx.example.net"], true);
        let table = Certificates::new();
        assert!(table.is_empty());
        assert_eq!(table.replace(vec![plain.clone(), wild.clone(), default.clone()]), []);
        let of = |c: &Certificate| Some(c.chain[0].clone());
        assert_eq!(chosen(&table, Some("MAIL.example.org")), of(&plain));
        assert_eq!(chosen(&table, Some("imap.example.org")), of(&plain));
        assert_eq!(chosen(&table, Some("pop.example.org")), of(&wild));
        assert_eq!(chosen(&table, Some("a.b.example.org")), of(&default));
        assert_eq!(chosen(&table, Some("example.org")), of(&default));
        assert_eq!(chosen(&table, None), of(&default));
        // A new table replaces all of the old one.
        assert_eq!(table.replace(vec![plain.clone()]), []);
        assert_eq!(chosen(&table, Some("pop.example.org")), None);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_named() {
        let (good, _) = made(&["good.example"], true);
        let (other, _) = made(&["other.example"], false);
        let swapped = Certificate { chain: other.chain.clone(), ..good.clone() };
        let lying = Certificate { key_id: 1, ..good.clone() };
        let empty = Certificate { chain: vec![], ..good.clone() };
        let unable = Certificate { schemes: vec![0x0201], ..good.clone() };
        let table = Certificates::new();
        let problems = table.replace(vec![swapped, lying, empty, unable, good]);
        let kinds: Vec<_> = problems.into_iter().map(|(_, problem)| problem).collect();
        use CertificateProblem::{Chain, NoScheme, OtherKey};
        assert_eq!(kinds, [OtherKey, OtherKey, Chain, NoScheme]);
        assert!(chosen(&table, Some("good.example")).is_some());
    }
}
