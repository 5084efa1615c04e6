//! TLS identities: a chain and its key, and which edge may use it.
//!
//! A certificate that cannot be used is left out and said: one broken file must not take the
//! others away, and a server without one certificate is better than no server.

use crate::{
    folder::{Folder, read_bounded},
    key::{PrivateKey, pem},
};
use config::slice::Keyholder;
use ipc::Role;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::{collections::BTreeMap, fs::File, sync::Arc, time::Duration};
use types::{Domain, UnixNanos};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};
use zeroize::Zeroizing;

/// Certificates in a chain.
const MAX_CHAIN: usize = 16;
/// Certificates of one edge; their list has to fit into one message.
const MAX_ON_EDGE: usize = 64;
/// How long a self-signed certificate is good for.
const SELF_SIGNED_DAYS: u64 = 4 * 365;
/// It is made anew when less than this is left; an administrator's is then warned about.
const RENEW_DAYS: i64 = 30;
const DAY: i64 = 24 * 60 * 60;

/// Files that the supervisor has opened, by the names it gave them.
#[derive(Default)]
pub struct GivenFiles(BTreeMap<String, Zeroizing<Vec<u8>>>);

impl GivenFiles {
    /// Reads them.
    #[must_use]
    pub fn read(files: Vec<(String, File)>) -> Self {
        let mut read = BTreeMap::new();
        for (name, file) in files {
            match read_bounded(file) {
                Ok(octets) => {
                    read.insert(name, octets);
                }
                Err(error) => tracing::error!(name, %error, "a file cannot be read"),
            }
        }
        Self(read)
    }

    /// From texts, for tests.
    #[must_use]
    pub fn of(files: Vec<(String, Vec<u8>)>) -> Self {
        let files = files.into_iter();
        Self(files.map(|(name, octets)| (name, Zeroizing::new(octets))).collect())
    }
}

/// Why a certificate is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("its files were not given")]
    NoFiles,
    #[error("no certificates in PEM form, or more than {MAX_CHAIN}")]
    Chain,
    #[error("the first certificate cannot be read")]
    EndEntity,
    #[error("key and certificate do not belong together")]
    OtherKey,
    #[error("its key: {0}")]
    Key(#[from] crate::key::KeyError),
    #[error("a self-signed one cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// A chain and its key.
#[derive(Debug)]
pub(crate) struct Identity {
    /// DNS names in it, lower case, wildcards among them.
    pub(crate) names: Vec<String>,
    /// DER, end entity first.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: Arc<PrivateKey>,
    not_after: UnixNanos,
}

/// An identity on an edge.
#[derive(Debug, Clone)]
pub(crate) struct OnEdge {
    pub(crate) identity: Arc<Identity>,
    pub(crate) is_default: bool,
}

/// All identities, by the role that may use them.
#[derive(Debug, Default)]
pub(crate) struct Identities(pub(crate) BTreeMap<Role, Vec<OnEdge>>);

impl Identity {
    fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain)
            .take(MAX_CHAIN + 1)
            .map(|der| der.map(|der| der.to_vec()))
            .collect();
        let chain = chain.map_err(|_| CertificateError::Chain)?;
        if chain.is_empty() || chain.len() > MAX_CHAIN {
            return Err(CertificateError::Chain);
        }
        let key = PrivateKey::from_pem(key)?;
        let (names, not_after) = {
            let der = chain.first().ok_or(CertificateError::Chain)?;
            let (_, leaf) =
                X509Certificate::from_der(der).map_err(|_| CertificateError::EndEntity)?;
            if leaf.tbs_certificate.subject_pki.raw != key.spki() {
                return Err(CertificateError::OtherKey);
            }
            (dns_names(&leaf), UnixNanos::from_seconds(leaf.validity().not_after.timestamp()))
        };
        Ok(Self { names, chain, key: Arc::new(key), not_after })
    }

    fn days_left(&self, now: UnixNanos) -> i64 {
        (self.not_after.seconds() - now.seconds()).div_euclid(DAY)
    }

    fn covers(&self, name: &Domain) -> bool {
        let name = name.as_ascii();
        self.names.iter().any(|known| {
            known == name
                || known.strip_prefix("*.").is_some_and(|parent| {
                    name.split_once('.').is_some_and(|(_, above)| above == parent)
                })
        })
    }
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let mut found = Vec::new();
    for name in &names.value.general_names {
        if let GeneralName::DNSName(name) = name {
            found.push(name.to_ascii_lowercase());
        }
    }
    found
}

impl Identities {
    /// All that the slice speaks of; makes and renews the self-signed ones.
    pub(crate) fn load(
        slice: &Keyholder,
        files: &GivenFiles,
        folder: &Folder,
        now: UnixNanos,
    ) -> Result<Self, crate::FolderError> {
        let mut all: BTreeMap<Role, Vec<OnEdge>> = BTreeMap::new();
        for listed in &slice.certificates {
            let name = &listed.name;
            match given(files, name) {
                Ok(identity) => {
                    let days = identity.days_left(now);
                    if days < RENEW_DAYS {
                        tracing::warn!(name, days, "a certificate is about to end, or has ended");
                    }
                    let identity = Arc::new(identity);
                    for role in listed.roles.iter().filter_map(|role| role.parse().ok()) {
                        let entry = OnEdge { identity: Arc::clone(&identity), is_default: false };
                        all.entry(role).or_default().push(entry);
                    }
                }
                Err(error) => tracing::error!(name, %error, "a certificate is not used"),
            }
        }
        for name in &slice.self_signed {
            match self_signed(folder, name, now)? {
                Ok(identity) => {
                    let identity = Arc::new(identity);
                    let uses = slice.edges.iter().filter(|(_, names)| names.0.contains(name));
                    for role in uses.filter_map(|(role, _)| role.parse().ok()) {
                        let entry = OnEdge { identity: Arc::clone(&identity), is_default: false };
                        all.entry(role).or_default().push(entry);
                    }
                }
                Err(error) => tracing::error!(%name, %error, "a certificate is not used"),
            }
        }
        for (role, names) in &slice.edges {
            let Ok(role) = role.parse::<Role>() else { continue };
            let on_edge = all.entry(role).or_default();
            on_edge.truncate(MAX_ON_EDGE);
            set_default(on_edge, names.0.first());
            if on_edge.is_empty() {
                tracing::error!(%role, "there is no certificate for this role: no TLS there");
            }
            for name in names.0.iter().filter(|n| !on_edge.iter().any(|e| e.identity.covers(n))) {
                tracing::warn!(%role, %name, "no certificate is for this name");
            }
        }
        Ok(Self(all))
    }
}

/// For clients that name no host: the certificate for the edge's first name, else the first one.
fn set_default(on_edge: &mut [OnEdge], name: Option<&Domain>) {
    let fits = |entry: &OnEdge| name.is_some_and(|name| entry.identity.covers(name));
    let chosen = on_edge.iter().position(fits).unwrap_or(0);
    if let Some(entry) = on_edge.get_mut(chosen) {
        entry.is_default = true;
    }
}

fn given(files: &GivenFiles, name: &str) -> Result<Identity, CertificateError> {
    let file =
        |what: &str| files.0.get(&format!("tls/{name}/{what}")).ok_or(CertificateError::NoFiles);
    Identity::from_pem(file("cert")?, file("key")?)
}

/// The self-signed identity of a name: what is on the disk, or made (with the same key where there
/// is one, so that a client that pinned it is not surprised).
fn self_signed(
    folder: &Folder,
    name: &Domain,
    now: UnixNanos,
) -> Result<Result<Identity, CertificateError>, crate::FolderError> {
    let old = folder.read_tls(name)?;
    if let Some(text) = &old
        && let Ok(identity) = Identity::from_pem(text, text)
        && identity.covers(name)
        && identity.days_left(now) >= RENEW_DAYS
    {
        return Ok(Ok(identity));
    }
    let text = match make(name, old.as_deref().map(Vec::as_slice), now) {
        Ok(text) => text,
        Err(error) => return Ok(Err(error)),
    };
    folder.write_tls(name, text.as_bytes())?;
    tracing::info!(%name, "made a self-signed certificate");
    Ok(Identity::from_pem(text.as_bytes(), text.as_bytes()))
}

/// Key and certificate in PEM.
fn make(
    name: &Domain,
    old: Option<&[u8]>,
    now: UnixNanos,
) -> Result<Zeroizing<String>, CertificateError> {
    let old = old.and_then(|text| std::str::from_utf8(text).ok());
    let key = old.and_then(|text| rcgen::KeyPair::from_pem(text).ok());
    let key = match key {
        Some(key) => key,
        None => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
    };
    let mut parameters = rcgen::CertificateParams::new(vec![name.as_ascii().to_owned()])?;
    let seconds = u64::try_from(now.seconds()).unwrap_or_default();
    let today = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    // A day back, for clients whose clock is slow.
    parameters.not_before = today - Duration::from_secs(DAY.unsigned_abs());
    parameters.not_after = today + Duration::from_secs(SELF_SIGNED_DAYS * DAY.unsigned_abs());
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name.as_ascii());
    parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = parameters.self_signed(&key)?;
    let der = Zeroizing::new(key.serialize_der());
    let mut text = pem("PRIVATE KEY", &der);
    text.push_str(&pem("CERTIFICATE", certificate.der()));
    Ok(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const YEAR: i64 = 365 * DAY;

    pub(crate) fn slice(json: &str) -> Keyholder {
        serde_json::from_str(json).unwrap()
    }

    fn folder() -> (tempfile::TempDir, Folder) {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path().join("keys")).unwrap();
        (place, folder)
    }

    fn on(all: &Identities, role: Role) -> Vec<(&[String], bool)> {
        let on_edge = all.0.get(&role).map(Vec::as_slice).unwrap_or_default();
        on_edge.iter().map(|e| (e.identity.names.as_slice(), e.is_default)).collect()
    }

    #[test]
    fn self_signed_is_made_kept_and_renewed_with_its_key() {
        let (_place, folder) = folder();
        let slice = slice(
            r#"{"edges": {"smtpd-mx": ["mx.example.org"], "imapd-front": ["imap.example.org"]},
                "self_signed": ["mx.example.org", "imap.example.org"]}"#,
        );
        let load = |seconds| {
            let now = UnixNanos::from_seconds(seconds);
            Identities::load(&slice, &GivenFiles::default(), &folder, now).unwrap()
        };
        let start = 1_800_000_000;
        let first = load(start);
        assert_eq!(on(&first, Role::SmtpdMx), [(&["mx.example.org".to_owned()][..], true)]);
        assert_eq!(on(&first, Role::ImapdFront), [(&["imap.example.org".to_owned()][..], true)]);
        assert!(on(&first, Role::HttpdWeb).is_empty(), "an edge gets its own names only");
        let of = |all: &Identities| {
            let identity = &all.0[&Role::SmtpdMx][0].identity;
            (identity.key.id(), identity.chain[0].clone(), identity.not_after)
        };
        assert_eq!(of(&load(start + YEAR)), of(&first), "kept while it is good");
        let renewed = load(start + 4 * YEAR - 20 * DAY);
        assert_eq!(of(&renewed).0, of(&first).0, "the same key");
        assert_ne!(of(&renewed).1, of(&first).1);
        assert!(of(&renewed).2 > of(&first).2);
    }

    #[test]
    fn files_of_the_administrator() {
        let (_place, folder) = folder();
        let made = rcgen::generate_simple_self_signed(vec![
            "Mail.Example.org".to_owned(),
            "*.example.net".to_owned(),
        ])
        .unwrap();
        let slice = slice(
            r#"{"edges": {"smtpd-mx": ["mx.example.org"], "httpd-web": ["a.example.net"]},
                "certificates": [{"name": "bad", "roles": ["smtpd-mx"]},
                                 {"name": "public", "roles": ["smtpd-mx", "httpd-web", "x"]}]}"#,
        );
        let now = UnixNanos::from_seconds(1_700_000_000);
        let cert = made.cert.pem().into_bytes();
        let key = made.signing_key.serialize_pem().into_bytes();
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem().into_bytes();
        let load = |key: &[u8]| {
            let files = GivenFiles::of(vec![
                ("tls/public/cert".to_owned(), cert.clone()),
                ("tls/public/key".to_owned(), key.to_vec()),
                ("tls/bad/cert".to_owned(), b"nonsense".to_vec()),
                ("tls/bad/key".to_owned(), b"nonsense".to_vec()),
            ]);
            Identities::load(&slice, &files, &folder, now).unwrap()
        };
        let names = ["mail.example.org".to_owned(), "*.example.net".to_owned()];
        let all = load(&key);
        assert_eq!(on(&all, Role::SmtpdMx), [(&names[..], true)]);
        assert_eq!(on(&all, Role::HttpdWeb), [(&names[..], true)]);
        let identity = &all.0[&Role::HttpdWeb][0].identity;
        for (name, covered) in [
            ("mail.example.org", true),
            ("a.example.net", true),
            ("a.b.example.net", false),
            ("example.net", false),
        ] {
            assert_eq!(identity.covers(&name.parse().unwrap()), covered, "{name}");
        }
        // A key of another certificate: not used, and the start goes on.
        assert!(on(&load(&other), Role::SmtpdMx).is_empty());
    }
}
