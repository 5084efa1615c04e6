//! What is kept of a password: an argon2id hash for mechanisms that show it, SCRAM's StoredKey and
//! ServerKey for those that do not. Neither lets a thief of the disk log in; the sealed form that is
//! written cannot even be guessed against without keyholder's pepper.

use super::scram::Hash;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::pbkdf2;
use std::{cell::RefCell, num::NonZeroU32};
use subtle::ConstantTimeEq as _;
use types::Secret;
use zeroize::{Zeroize as _, Zeroizing};

/// Memory of one argon2id hash in KiB, and its passes.
const ARGON2_KIB: u32 = 19 * 1024;
const ARGON2_PASSES: u32 = 2;
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

/// A hash could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("hashing failed")]
pub(crate) struct HashFailed;

impl Verifier {
    /// Derives everything from a prepared password. Takes 0.2 s: for the hashing threads.
    pub(crate) fn derive(password: &Secret<String>) -> Result<Self, HashFailed> {
        let (mut argon2_salt, mut scram_salt) = ([0; SALT], [0; SALT]);
        getrandom::fill(&mut argon2_salt).map_err(|_| HashFailed)?;
        getrandom::fill(&mut scram_salt).map_err(|_| HashFailed)?;
        let argon2_hash = argon2id(password, &argon2_salt)?;
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

    /// Whether a prepared password is this one. Takes 20 ms: for the hashing threads.
    pub(crate) fn check(&self, password: &Secret<String>) -> Result<bool, HashFailed> {
        let hash = argon2id(password, &self.argon2_salt)?;
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

thread_local! {
    /// The memory of the hashes of this thread. Taken anew for each, it would be 350 MiB after some
    /// thirty log-ins: the allocator finds no room for an aligned piece where one just was.
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

fn argon2id(password: &Secret<String>, salt: &[u8]) -> Result<[u8; 32], HashFailed> {
    let params = Params::new(ARGON2_KIB, ARGON2_PASSES, 1, Some(32)).map_err(|_| HashFailed)?;
    let mut out = [0; 32];
    BLOCKS.with_borrow_mut(|blocks| {
        blocks.resize(params.block_count(), Block::default());
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(password.expose().as_bytes(), salt, &mut out, blocks)
            .map_err(|_| HashFailed)
    })?;
    Ok(out)
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
        let verifier = Verifier::derive(&password).unwrap();
        let read = Verifier::decode(&verifier.encode()).unwrap();
        assert!(read.check(&password).unwrap());
        assert!(!read.check(&Secret::new("correct horsf".to_owned())).unwrap());
        let again = scram_keys(Hash::Sha1, &password, &read.scram_salt, SCRAM_ITERATIONS);
        assert_eq!((again.0.as_slice(), again.1.as_slice()), read.scram(Hash::Sha1));
    }

    #[test]
    fn only_what_was_encoded_is_read() {
        let verifier = Verifier::derive(&Secret::new("x".to_owned())).unwrap();
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
