//! TLS identities: a chain and its key, and which edge may use it.
//!
//! Start and reload refuse a pair that cannot be used ([`check`]). Where one is found later, when
//! keyholder is started again, it is left out and an alarm: one broken file must not take the others
//! away, and a server without one certificate is better than no server.

use crate::{
    folder::{Folder, read_bounded},
    key::{KeyError, PrivateKey, pem},
};
use config::slice::Keyholder;
use daemon::PairFault;
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
/// It is made anew when less than this is left.
const RENEW_DAYS: i64 = 30;
/// An administrator's is an alarm when less than this is left, or than a third of its life where that
/// is shorter: whoever renews in time never sees it.
const ALARM_DAYS: i64 = 14;
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
    #[error("{0}")]
    Pair(#[from] PairFault),
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
    not_before: UnixNanos,
    not_after: UnixNanos,
}

/// An identity on an edge.
#[derive(Debug, Clone)]
pub(crate) struct OnEdge {
    pub(crate) identity: Arc<Identity>,
    pub(crate) is_default: bool,
}

/// All identities.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    /// By the role that may use them.
    pub(crate) of_roles: BTreeMap<Role, Vec<OnEdge>>,
    /// What was left out, and who is without one.
    faults: Vec<String>,
    /// Those of the administrator, by listener: nobody renews them here.
    given: Vec<(String, Arc<Identity>)>,
}

impl Identity {
    fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, PairFault> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain)
            .take(MAX_CHAIN + 1)
            .map(|der| der.map(|der| der.to_vec()))
            .collect();
        let chain = chain.map_err(|_| PairFault::Chain)?;
        if chain.is_empty() || chain.len() > MAX_CHAIN {
            return Err(PairFault::Chain);
        }
        let key = PrivateKey::from_pem(key).map_err(|error| match error {
            KeyError::NoPem => PairFault::NoKey,
            KeyError::Kind | KeyError::Crypto => PairFault::KeyKind,
        })?;
        let (names, not_before, not_after) = {
            let der = chain.first().ok_or(PairFault::Chain)?;
            let (_, leaf) = X509Certificate::from_der(der).map_err(|_| PairFault::EndEntity)?;
            if leaf.tbs_certificate.subject_pki.raw != key.spki() {
                return Err(PairFault::OtherKey);
            }
            let validity = leaf.validity();
            let at = |time: x509_parser::time::ASN1Time| UnixNanos::from_seconds(time.timestamp());
            (dns_names(&leaf), at(validity.not_before), at(validity.not_after))
        };
        Ok(Self { names, chain, key: Arc::new(key), not_before, not_after })
    }

    fn days_left(&self, now: UnixNanos) -> i64 {
        (self.not_after.seconds() - now.seconds()).div_euclid(DAY)
    }

    /// What is to be said of its time, if anything.
    fn alarm(&self, now: UnixNanos) -> Option<String> {
        let life = self.not_after.seconds() - self.not_before.seconds();
        let left = self.not_after.seconds() - now.seconds();
        if now.seconds() < self.not_before.seconds() {
            Some("is not valid yet".to_owned())
        } else if left < 0 {
            Some("has ended".to_owned())
        } else if left < (ALARM_DAYS * DAY).min(life / 3) {
            Some(format!("ends in {} days", left / DAY))
        } else {
            None
        }
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
        let (mut faults, mut given) = (Vec::new(), Vec::new());
        for listed in &slice.certificates {
            let name = &listed.name;
            match pair(files, name) {
                Ok(identity) => {
                    if let Some(what) = identity.alarm(now) {
                        tracing::warn!(name, what, "the certificate of a listener");
                    }
                    let identity = Arc::new(identity);
                    given.push((name.clone(), Arc::clone(&identity)));
                    for role in listed.roles.iter().filter_map(|role| role.parse().ok()) {
                        let entry = OnEdge { identity: Arc::clone(&identity), is_default: false };
                        all.entry(role).or_default().push(entry);
                    }
                }
                Err(error) => {
                    let file = if error.is_of_key() { "key file" } else { "certificate file" };
                    tracing::error!(name, file, %error, "a certificate is not used");
                    let whose = format!("the certificate of listener {name} is not used");
                    faults.push(format!("{whose}: {file}: {error}"));
                }
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
                Err(error) => {
                    tracing::error!(%name, %error, "a certificate is not used");
                    faults.push(format!("the certificate of {name} is not used: {error}"));
                }
            }
        }
        for (role, names) in &slice.edges {
            let Ok(role) = role.parse::<Role>() else { continue };
            let on_edge = all.entry(role).or_default();
            on_edge.truncate(MAX_ON_EDGE);
            set_default(on_edge, names.0.first());
            if on_edge.is_empty() {
                tracing::error!(%role, "there is no certificate for this role: no TLS there");
                faults.push(format!("{role} has no certificate: no TLS there"));
            }
            for name in names.0.iter().filter(|n| !on_edge.iter().any(|e| e.identity.covers(n))) {
                tracing::warn!(%role, %name, "no certificate is for this name");
            }
        }
        Ok(Self { of_roles: all, faults, given })
    }

    /// What an administrator must look at.
    pub(crate) fn alarms(&self, now: UnixNanos) -> Vec<String> {
        let of_time = self.given.iter().filter_map(|(name, identity)| {
            identity.alarm(now).map(|what| format!("the certificate of listener {name} {what}"))
        });
        self.faults.iter().cloned().chain(of_time).collect()
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

/// Whether certificate and key of this listener can be used.
///
/// # Errors
/// What is wrong with them.
pub fn check(listener: &str, files: &GivenFiles) -> Result<(), PairFault> {
    pair(files, listener).map(drop)
}

fn pair(files: &GivenFiles, listener: &str) -> Result<Identity, PairFault> {
    let file = |what: &str| files.0.get(&format!("tls/{listener}/{what}"));
    let chain = file("cert").ok_or(PairFault::CertificateFile)?;
    Identity::from_pem(chain, file("key").ok_or(PairFault::KeyFile)?)
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
    Ok(Identity::from_pem(text.as_bytes(), text.as_bytes()).map_err(CertificateError::Pair))
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
        let on_edge = all.of_roles.get(&role).map(Vec::as_slice).unwrap_or_default();
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
            let identity = &all.of_roles[&Role::SmtpdMx][0].identity;
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
        let identity = &all.of_roles[&Role::HttpdWeb][0].identity;
        for (name, covered) in [
            ("mail.example.org", true),
            ("a.example.net", true),
            ("a.b.example.net", false),
            ("example.net", false),
        ] {
            assert_eq!(identity.covers(&name.parse().unwrap()), covered, "{name}");
        }
        let unused = |what| format!("the certificate of listener {what}");
        let bad = unused(
            "bad is not used: certificate file: it holds no certificate in PEM form, one that is broken, or more than 16",
        );
        assert_eq!(all.alarms(now), [bad.as_str()]);
        // A key of another certificate: not used, and the start goes on.
        let without = load(&other);
        assert!(on(&without, Role::SmtpdMx).is_empty());
        assert_eq!(
            without.alarms(now),
            [
                bad,
                unused("public is not used: key file: its key is not that of the certificate"),
                "httpd-web has no certificate: no TLS there".to_owned(),
                "smtpd-mx has no certificate: no TLS there".to_owned(),
            ]
        );
    }
    #[test]
    fn a_pair_is_checked_and_its_time_watched() {
        let start = 1_800_000_000;
        let of_days = |days: i64| {
            let mut parameters =
                rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            let at = |seconds| {
                rcgen::date_time_ymd(1970, 1, 1)
                    + Duration::from_secs(u64::try_from(seconds).unwrap())
            };
            parameters.not_before = at(start);
            parameters.not_after = at(start + days * DAY);
            let key = rcgen::KeyPair::generate().unwrap();
            (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let (cert, key) = of_days(90);
        let found = |cert: Option<&str>, key: Option<&str>| {
            let file = |what: &str, text: Option<&str>| {
                Some((format!("tls/a/{what}"), text?.as_bytes().to_vec()))
            };
            let files = file("cert", cert).into_iter().chain(file("key", key)).collect();
            check("a", &GivenFiles::of(files))
        };
        let text = Some;
        assert_eq!(found(text(&cert), text(&key)), Ok(()));
        let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (cert, key, fault) in [
            (None, text(&key), PairFault::CertificateFile),
            (text(&cert), None, PairFault::KeyFile),
            (text(&key), text(&key), PairFault::Chain),
            (text(odd), text(&key), PairFault::EndEntity),
            (text(&cert), text(&cert), PairFault::NoKey),
            (text(&cert), text("garbage"), PairFault::NoKey),
            (text(&cert), text(broken), PairFault::KeyKind),
            (text(&cert), text(&of_days(90).1), PairFault::OtherKey),
        ] {
            assert_eq!(found(cert, key), Err(fault));
        }

        let says = |days: i64, hours: i64| {
            let (cert, key) = of_days(days);
            let identity = Identity::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
            identity.alarm(UnixNanos::from_seconds(start + hours * 3_600))
        };
        assert_eq!(says(90, 75 * 24), None);
        assert_eq!(says(90, 77 * 24), Some("ends in 13 days".to_owned()));
        assert_eq!(says(90, 91 * 24), Some("has ended".to_owned()));
        assert_eq!(says(90, -1), Some("is not valid yet".to_owned()));
        // A short life, as some authorities give: it is not an alarm from its first day on.
        assert_eq!(says(6, 3 * 24), None);
        assert_eq!(says(6, 5 * 24), Some("ends in 1 days".to_owned()));
    }
}
