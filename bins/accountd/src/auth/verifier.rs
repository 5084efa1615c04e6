//! What is kept of a password: an argon2id hash for mechanisms that show it, SCRAM's StoredKey and
//! ServerKey for those that do not. Neither lets a thief of the disk log in; the sealed form that is
//! written cannot even be guessed against without keyholder's pepper.

use super::{
    hashing::{HashFailed, Hasher},
    scram::Hash,
};
use aws_lc_rs::pbkdf2;
use std::num::NonZeroU32;
use subtle::ConstantTimeEq as _;
use types::Secret;
use zeroize::{Zeroize as _, Zeroizing};

/// PBKDF2 rounds of both SCRAM mechanisms. The verifier is sealed, so this only slows a guess by
/// somebody who has taken over accountd itself. Cyrus SASL, on which many mail programs are built,
/// refuses to compute more than 65,536.
pub(crate) const SCRAM_ITERATIONS: u32 = 65_536;
/// Octets of a salt.
pub(crate) const SALT: usize = 16;

const FORMAT: u8 = 1;

/// What is kept of one password.
#[derive(Clone)]
pub(crate) struct Verifier {
    argon2_salt: [u8; SALT],
    argon2_hash: [u8; 32],
    /// One salt serves both SCRAM mechanisms: their PBKDF2 differ in the hash.
    pub(crate) scram_salt: [u8; SALT],
    pub(crate) scram_iterations: u32,
    pub(crate) sha256: ScramKeys<32>,
    pub(crate) sha1: ScramKeys<20>,
}

/// RFC 5802 §3: what the server keeps.
#[derive(Clone)]
pub(crate) struct ScramKeys<const N: usize> {
    pub(crate) stored: [u8; N],
    pub(crate) server: [u8; N],
}

impl<const N: usize> Drop for ScramKeys<N> {
    fn drop(&mut self) {
        self.stored.zeroize();
        self.server.zeroize();
    }
}

impl Verifier {
    /// Derives everything from a prepared password. Takes 0.2 s.
    pub(crate) fn derive(
        hasher: &mut Hasher,
        password: &Secret<String>,
    ) -> Result<Self, HashFailed> {
        let (mut argon2_salt, mut scram_salt) = ([0; SALT], [0; SALT]);
        getrandom::fill(&mut argon2_salt).map_err(|_| HashFailed)?;
        getrandom::fill(&mut scram_salt).map_err(|_| HashFailed)?;
        let argon2_hash = hasher.argon2id(password, &argon2_salt)?;
        let keys = |hash: Hash| scram_keys(hash, password, &scram_salt, SCRAM_ITERATIONS);
        let (sha256, sha1) = (keys(Hash::Sha256), keys(Hash::Sha1));
        Ok(Self {
            argon2_salt,
            argon2_hash,
            scram_salt,
            scram_iterations: SCRAM_ITERATIONS,
            sha256: fixed(&sha256).ok_or(HashFailed)?,
            sha1: fixed(&sha1).ok_or(HashFailed)?,
        })
    }

    /// Whether a prepared password is this one. Takes 20 ms.
    pub(crate) fn check(
        &self,
        hasher: &mut Hasher,
        password: &Secret<String>,
    ) -> Result<bool, HashFailed> {
        let hash = hasher.argon2id(password, &self.argon2_salt)?;
        Ok(hash.ct_eq(&self.argon2_hash).into())
    }

    /// StoredKey and ServerKey of one SCRAM mechanism.
    pub(crate) fn scram(&self, hash: Hash) -> (&[u8], &[u8]) {
        match hash {
            Hash::Sha256 => (&self.sha256.stored, &self.sha256.server),
            Hash::Sha1 => (&self.sha1.stored, &self.sha1.server),
        }
    }

    /// The octets that are sealed and written.
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(173));
        out.push(FORMAT);
        out.extend_from_slice(&self.argon2_salt);
        out.extend_from_slice(&self.argon2_hash);
        out.extend_from_slice(&self.scram_salt);
        out.extend_from_slice(&self.scram_iterations.to_be_bytes());
        out.extend_from_slice(&self.sha256.stored);
        out.extend_from_slice(&self.sha256.server);
        out.extend_from_slice(&self.sha1.stored);
        out.extend_from_slice(&self.sha1.server);
        out
    }

    /// The inverse of [`Self::encode`]; None for anything else.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        fn next<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (head, rest) = bytes.split_first_chunk::<N>()?;
            *bytes = rest;
            Some(*head)
        }
        let bytes = &mut bytes;
        if next::<1>(bytes)? != [FORMAT] {
            return None;
        }
        let verifier = Self {
            argon2_salt: next(bytes)?,
            argon2_hash: next(bytes)?,
            scram_salt: next(bytes)?,
            scram_iterations: u32::from_be_bytes(next(bytes)?),
            sha256: ScramKeys { stored: next(bytes)?, server: next(bytes)? },
            sha1: ScramKeys { stored: next(bytes)?, server: next(bytes)? },
        };
        bytes.is_empty().then_some(verifier)
    }
}

fn fixed<const N: usize>(keys: &(Vec<u8>, Vec<u8>)) -> Option<ScramKeys<N>> {
    let stored = keys.0.as_slice().try_into().ok()?;
    let server = keys.1.as_slice().try_into().ok()?;
    Some(ScramKeys { stored, server })
}

/// StoredKey and ServerKey (RFC 5802 §3) of a password.
pub(crate) fn scram_keys(
    hash: Hash,
    password: &Secret<String>,
    salt: &[u8],
    iterations: u32,
) -> (Vec<u8>, Vec<u8>) {
    let mut salted = Zeroizing::new(vec![0; hash.octets()]);
    let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    let algorithm = match hash {
        Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
    };
    pbkdf2::derive(algorithm, rounds, salt, password.expose().as_bytes(), &mut salted);
    let client = Zeroizing::new(hash.hmac(&salted, b"Client Key"));
    (hash.digest(&client), hash.hmac(&salted, b"Server Key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_itself_and_no_other() {
        let password = Secret::new("correct horse".to_owned());
        let hasher = &mut Hasher::default();
        let verifier = Verifier::derive(hasher, &password).unwrap();
        let read = Verifier::decode(&verifier.encode()).unwrap();
        assert!(read.check(hasher, &password).unwrap());
        assert!(!read.check(hasher, &Secret::new("correct horsf".to_owned())).unwrap());
        let again = scram_keys(Hash::Sha1, &password, &read.scram_salt, SCRAM_ITERATIONS);
        assert_eq!((again.0.as_slice(), again.1.as_slice()), read.scram(Hash::Sha1));
    }

    #[test]
    fn only_what_was_encoded_is_read() {
        let verifier =
            Verifier::derive(&mut Hasher::default(), &Secret::new("x".to_owned())).unwrap();
        let bytes = verifier.encode();
        for cut in 0..bytes.len() {
            assert!(Verifier::decode(&bytes[..cut]).is_none());
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(Verifier::decode(&longer).is_none());
        longer[0] = 9;
        assert!(Verifier::decode(&longer[..bytes.len()]).is_none());
    }
}
