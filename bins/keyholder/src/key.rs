//! Private keys in memory: what kinds there are, and the only things done with them.

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mailauth::dkim::Algorithm;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use std::fmt;
use zeroize::Zeroizing;

/// Octets of RSA moduli that are used: 2048 to 4096 bits. Shorter ones are no longer safe, longer
/// ones make a signature cost milliseconds.
const RSA_OCTETS: std::ops::RangeInclusive<usize> = 256..=512;

/// Why a key cannot be used. Says nothing of its octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("no private key in PEM form (PKCS#8, PKCS#1 or SEC 1, not encrypted)")]
    NoPem,
    #[error("neither RSA of 2048 to 4096 bits, nor ECDSA P-256 or P-384, nor Ed25519")]
    Kind,
    #[error("the crypto library failed")]
    Crypto,
}

/// A private key. Never printed, never serialised after it was made.
pub(crate) struct PrivateKey {
    kind: Kind,
    spki: Vec<u8>,
}

enum Kind {
    Rsa(Box<RsaKeyPair>),
    EcdsaP256(EcdsaKeyPair),
    EcdsaP384(EcdsaKeyPair),
    Ed25519(Box<Ed25519KeyPair>),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:016x})", self.id())
    }
}

impl PrivateKey {
    /// The first private key in a PEM text.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        match PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NoPem)? {
            PrivateKeyDer::Pkcs8(der) => Self::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => Self::rsa(RsaKeyPair::from_der(der.secret_pkcs1_der())),
            PrivateKeyDer::Sec1(der) => {
                let der = der.secret_sec1_der();
                let p256 = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der);
                match p256 {
                    Ok(key) => Self::of(Kind::EcdsaP256(key)),
                    Err(_) => {
                        let p384 = EcdsaKeyPair::from_private_key_der(
                            &ECDSA_P384_SHA384_ASN1_SIGNING,
                            der,
                        );
                        Self::of(Kind::EcdsaP384(p384.map_err(|_| KeyError::Kind)?))
                    }
                }
            }
            _other => Err(KeyError::Kind),
        }
    }

    /// A PKCS#8 structure, tried as each kind we know: it says inside which one it is.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der) {
            return Self::of(Kind::EcdsaP256(key));
        }
        if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Self::of(Kind::Ed25519(Box::new(key)));
        }
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, der) {
            return Self::of(Kind::EcdsaP384(key));
        }
        Self::rsa(RsaKeyPair::from_pkcs8(der))
    }

    fn rsa<E>(key: Result<RsaKeyPair, E>) -> Result<Self, KeyError> {
        let key = key.map_err(|_| KeyError::Kind)?;
        if !RSA_OCTETS.contains(&key.public_modulus_len()) {
            return Err(KeyError::Kind);
        }
        Self::of(Kind::Rsa(Box::new(key)))
    }

    fn of(kind: Kind) -> Result<Self, KeyError> {
        let spki = match &kind {
            Kind::Rsa(key) => key.public_key().as_der(),
            Kind::EcdsaP256(key) | Kind::EcdsaP384(key) => key.public_key().as_der(),
            Kind::Ed25519(key) => key.public_key().as_der(),
        };
        let spki = spki.map_err(|_| KeyError::Crypto)?.as_ref().to_vec();
        Ok(Self { kind, spki })
    }

    /// A new key for DKIM, and its PKCS#8 form in PEM for the disk.
    pub(crate) fn generate_dkim(
        algorithm: Algorithm,
    ) -> Result<(Self, Zeroizing<String>), KeyError> {
        let crypto = |_| KeyError::Crypto;
        let (kind, der) = match algorithm {
            Algorithm::RsaSha256 => {
                let key = RsaKeyPair::generate(KeySize::Rsa2048).map_err(crypto)?;
                let der = Zeroizing::new(key.as_der().map_err(crypto)?.as_ref().to_vec());
                (Kind::Rsa(Box::new(key)), der)
            }
            Algorithm::Ed25519Sha256 => {
                let key = Ed25519KeyPair::generate().map_err(crypto)?;
                let document = key.to_pkcs8v1().map_err(crypto)?;
                (Kind::Ed25519(Box::new(key)), Zeroizing::new(document.as_ref().to_vec()))
            }
        };
        Ok((Self::of(kind)?, pem("PRIVATE KEY", &der)))
    }

    /// SubjectPublicKeyInfo, DER.
    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Its name on signing slots: the start of the SHA-256 of the SPKI.
    pub(crate) fn id(&self) -> u64 {
        let hash = digest(&SHA256, &self.spki);
        hash.as_ref().first_chunk().map_or(0, |start| u64::from_be_bytes(*start))
    }

    /// TLS SignatureScheme code points it can do, best first.
    pub(crate) fn schemes(&self) -> &'static [u16] {
        match &self.kind {
            Kind::Rsa(_) => &[0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601],
            Kind::EcdsaP256(_) => &[0x0403],
            Kind::EcdsaP384(_) => &[0x0503],
            Kind::Ed25519(_) => &[0x0807],
        }
    }

    /// A TLS signature. The caller has checked the shape of the message.
    pub(crate) fn sign_tls(&self, scheme: u16, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        if !self.schemes().contains(&scheme) {
            return Err(KeyError::Kind);
        }
        match &self.kind {
            Kind::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = match scheme {
                    0x0804 => &RSA_PSS_SHA256,
                    0x0805 => &RSA_PSS_SHA384,
                    0x0806 => &RSA_PSS_SHA512,
                    0x0401 => &RSA_PKCS1_SHA256,
                    0x0501 => &RSA_PKCS1_SHA384,
                    0x0601 => &RSA_PKCS1_SHA512,
                    _other => return Err(KeyError::Kind),
                };
                sign_rsa(key, encoding, message)
            }
            Kind::EcdsaP256(key) | Kind::EcdsaP384(key) => {
                let signature = key.sign(&SystemRandom::new(), message);
                Ok(signature.map_err(|_| KeyError::Crypto)?.as_ref().to_vec())
            }
            Kind::Ed25519(key) => sign_ed25519(key, message),
        }
    }

    /// What it can do for DKIM.
    pub(crate) fn dkim_algorithm(&self) -> Option<Algorithm> {
        match &self.kind {
            Kind::Rsa(_) => Some(Algorithm::RsaSha256),
            Kind::Ed25519(_) => Some(Algorithm::Ed25519Sha256),
            Kind::EcdsaP256(_) | Kind::EcdsaP384(_) => None,
        }
    }

    /// A DKIM signature. The caller has checked the shape of the block.
    pub(crate) fn sign_dkim(&self, block: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.kind {
            Kind::Rsa(key) => sign_rsa(key, &RSA_PKCS1_SHA256, block),
            // RFC 8463 §3: the hash is what Ed25519 signs, as its message.
            Kind::Ed25519(key) => sign_ed25519(key, digest(&SHA256, block).as_ref()),
            Kind::EcdsaP256(_) | Kind::EcdsaP384(_) => Err(KeyError::Kind),
        }
    }

    /// The TXT record to publish (RFC 6376 §3.6.1, RFC 8463 §4).
    pub(crate) fn dkim_record(&self) -> Option<String> {
        match &self.kind {
            Kind::Rsa(_) => Some(format!("v=DKIM1;h=sha256;p={}", STANDARD.encode(&self.spki))),
            Kind::Ed25519(key) => {
                let public = STANDARD.encode(key.public_key());
                Some(format!("v=DKIM1;h=sha256;k=ed25519;p={public}"))
            }
            Kind::EcdsaP256(_) | Kind::EcdsaP384(_) => None,
        }
    }
}

fn sign_rsa(
    key: &RsaKeyPair,
    encoding: &'static dyn RsaEncoding,
    message: &[u8],
) -> Result<Vec<u8>, KeyError> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), message, &mut signature)
        .map_err(|_| KeyError::Crypto)?;
    Ok(signature)
}

fn sign_ed25519(key: &Ed25519KeyPair, message: &[u8]) -> Result<Vec<u8>, KeyError> {
    Ok(key.try_sign(message).map_err(|_| KeyError::Crypto)?.as_ref().to_vec())
}

/// A PEM text (RFC 7468).
pub(crate) fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use aws_lc_rs::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    pub(crate) fn ecdsa() -> (PrivateKey, Vec<u8>) {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = PrivateKey::from_pem(pair.serialize_pem().as_bytes()).unwrap();
        (key, pair.serialize_der())
    }

    #[test]
    fn dkim_keys_survive_the_disk_and_sign() {
        for algorithm in [Algorithm::RsaSha256, Algorithm::Ed25519Sha256] {
            let (made, text) = PrivateKey::generate_dkim(algorithm).unwrap();
            let read = PrivateKey::from_pem(text.as_bytes()).unwrap();
            assert_eq!(made.spki(), read.spki());
            assert_eq!(read.dkim_algorithm(), Some(algorithm));
            let signature = read.sign_dkim(b"block").unwrap();
            let record = read.dkim_record().unwrap();
            let public = STANDARD.decode(record.rsplit_once("p=").unwrap().1).unwrap();
            match algorithm {
                Algorithm::RsaSha256 => {
                    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public)
                        .verify(b"block", &signature)
                        .unwrap();
                }
                Algorithm::Ed25519Sha256 => {
                    assert_eq!(public.len(), 32);
                    UnparsedPublicKey::new(&ED25519, &public)
                        .verify(digest(&SHA256, b"block").as_ref(), &signature)
                        .unwrap();
                }
            }
        }
    }

    #[test]
    fn kinds_and_their_schemes() {
        let (p256, _) = ecdsa();
        assert_eq!(p256.schemes(), [0x0403]);
        assert!(p256.sign_tls(0x0403, b"x").is_ok());
        assert_eq!(p256.sign_tls(0x0804, b"x"), Err(KeyError::Kind));
        assert!(p256.dkim_algorithm().is_none() && p256.dkim_record().is_none());
        assert_eq!(p256.sign_dkim(b"x"), Err(KeyError::Kind));
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let p384 = PrivateKey::from_pem(pair.serialize_pem().as_bytes()).unwrap();
        assert_eq!(p384.schemes(), [0x0503]);
        assert_ne!(p384.id(), p256.id());
        let (rsa, _) = PrivateKey::generate_dkim(Algorithm::RsaSha256).unwrap();
        for &scheme in rsa.schemes() {
            assert_eq!(rsa.sign_tls(scheme, b"x").unwrap().len(), 256);
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(PrivateKey::from_pem(b"").unwrap_err(), KeyError::NoPem);
        let certificate = pem("CERTIFICATE", b"x");
        assert_eq!(PrivateKey::from_pem(certificate.as_bytes()).unwrap_err(), KeyError::NoPem);
        let broken = pem("PRIVATE KEY", b"not a key");
        assert_eq!(PrivateKey::from_pem(broken.as_bytes()).unwrap_err(), KeyError::Kind);
        // RFC 8463 appendix A.1: RSA of 1024 bits.
        let short = b"-----BEGIN RSA PRIVATE KEY-----\n\
            MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi\n\
            Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM\n\
            KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB\n\
            AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm\n\
            6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe\n\
            zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy\n\
            6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc\n\
            uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy\n\
            WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd\n\
            WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a\n\
            licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst\n\
            o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe\n\
            uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL\n\
            -----END RSA PRIVATE KEY-----\n";
        assert_eq!(PrivateKey::from_pem(short).unwrap_err(), KeyError::Kind);
    }

    #[test]
    fn nothing_of_a_key_is_printed() {
        let (key, der) = ecdsa();
        let shown = format!("{key:?}");
        assert!(shown.starts_with("PrivateKey(") && shown.len() < 40);
        assert!(!shown.contains(&STANDARD.encode(&der)[20..40]));
    }
}
