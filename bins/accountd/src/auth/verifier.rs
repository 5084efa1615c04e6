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

/// Names one password has SCRAM keys for: with them all it is as large as what keyholder seals may be.
pub(crate) const MAX_NAMES: usize = 32;

const FORMAT: u8 = 2;
/// The format before: one salt for all names of an account, by which they could be told to belong
/// together. Its SCRAM keys are of no use any more.
const FORMAT_OF_ONE_SALT: u8 = 1;
/// Octets of a name's keys, with salt and rounds.
const NAME_KEYS: usize = SALT + 4 + 2 * 32 + 2 * 20;

/// What is kept of one password.
#[derive(Clone)]
pub(crate) struct Verifier {
    argon2_salt: [u8; SALT],
    argon2_hash: [u8; 32],
    /// By the names it may be used with; the oldest first.
    names: Vec<NameKeys>,
}

/// SCRAM's keys of a password, as it is proved with one log-in name.
#[derive(Clone)]
pub(crate) struct NameKeys {
    /// Made of the name alone. It serves both mechanisms: their PBKDF2 differ in the hash.
    pub(crate) salt: [u8; SALT],
    pub(crate) iterations: u32,
    sha256: ScramKeys<32>,
    sha1: ScramKeys<20>,
}

/// RFC 5802 §3: what the server keeps.
#[derive(Clone)]
struct ScramKeys<const N: usize> {
    stored: [u8; N],
    server: [u8; N],
}

impl<const N: usize> Drop for ScramKeys<N> {
    fn drop(&mut self) {
        self.stored.zeroize();
        self.server.zeroize();
    }
}

impl NameKeys {
    /// Derives them from a prepared password. Takes 0.1 s.
    pub(crate) fn derive(password: &Secret<String>, salt: [u8; SALT]) -> Result<Self, HashFailed> {
        let keys = |hash: Hash| scram_keys(hash, password, &salt, SCRAM_ITERATIONS);
        let (sha256, sha1) = (keys(Hash::Sha256), keys(Hash::Sha1));
        Ok(Self {
            salt,
            iterations: SCRAM_ITERATIONS,
            sha256: fixed(&sha256).ok_or(HashFailed)?,
            sha1: fixed(&sha1).ok_or(HashFailed)?,
        })
    }

    /// Keys that no password has, for a name that has none.
    pub(crate) fn of_no_password(salt: [u8; SALT]) -> Result<Self, HashFailed> {
        fn random<const N: usize>() -> Result<ScramKeys<N>, HashFailed> {
            let mut keys = ScramKeys { stored: [0; N], server: [0; N] };
            getrandom::fill(&mut keys.stored).map_err(|_| HashFailed)?;
            getrandom::fill(&mut keys.server).map_err(|_| HashFailed)?;
            Ok(keys)
        }
        Ok(Self { salt, iterations: SCRAM_ITERATIONS, sha256: random()?, sha1: random()? })
    }

    /// StoredKey and ServerKey of one SCRAM mechanism.
    pub(crate) fn of(&self, hash: Hash) -> (&[u8], &[u8]) {
        match hash {
            Hash::Sha256 => (&self.sha256.stored, &self.sha256.server),
            Hash::Sha1 => (&self.sha1.stored, &self.sha1.server),
        }
    }
}

impl Verifier {
    /// Derives what is needed where a prepared password is shown; SCRAM keys are added by name. Takes
    /// 20 ms.
    pub(crate) fn derive(
        hasher: &mut Hasher,
        password: &Secret<String>,
    ) -> Result<Self, HashFailed> {
        let mut argon2_salt = [0; SALT];
        getrandom::fill(&mut argon2_salt).map_err(|_| HashFailed)?;
        let argon2_hash = hasher.argon2id(password, &argon2_salt)?;
        Ok(Self { argon2_salt, argon2_hash, names: Vec::new() })
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

    /// The SCRAM keys for the name of this salt.
    pub(crate) fn keys_for(&self, salt: &[u8; SALT]) -> Option<&NameKeys> {
        self.names.iter().find(|keys| keys.salt == *salt)
    }

    /// Whether there is room for another name.
    pub(crate) fn is_full(&self) -> bool {
        self.names.len() >= MAX_NAMES
    }

    /// Adds a name's keys; above [`MAX_NAMES`] the oldest go.
    pub(crate) fn add(&mut self, keys: NameKeys) {
        self.names.retain(|known| known.salt != keys.salt);
        if self.is_full() {
            self.names.remove(0);
        }
        self.names.push(keys);
    }

    /// The octets that are sealed and written.
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Taken at once: what a vector grew out of would be left behind.
        let octets = 2 + SALT + 32 + self.names.len() * NAME_KEYS;
        let mut out = Zeroizing::new(Vec::with_capacity(octets));
        out.push(FORMAT);
        out.extend_from_slice(&self.argon2_salt);
        out.extend_from_slice(&self.argon2_hash);
        out.push(u8::try_from(self.names.len()).unwrap_or(u8::MAX));
        for keys in &self.names {
            out.extend_from_slice(&keys.salt);
            out.extend_from_slice(&keys.iterations.to_be_bytes());
            out.extend_from_slice(&keys.sha256.stored);
            out.extend_from_slice(&keys.sha256.server);
            out.extend_from_slice(&keys.sha1.stored);
            out.extend_from_slice(&keys.sha1.server);
        }
        out
    }

    /// The inverse of [`Self::encode`]; None for anything else.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let [format] = next(bytes)?;
        let (argon2_salt, argon2_hash) = (next(bytes)?, next(bytes)?);
        let mut names = Vec::new();
        match format {
            FORMAT => {
                let [count] = next(bytes)?;
                if usize::from(count) > MAX_NAMES {
                    return None;
                }
                for _ in 0..count {
                    names.push(NameKeys {
                        salt: next(bytes)?,
                        iterations: u32::from_be_bytes(next(bytes)?),
                        sha256: ScramKeys { stored: next(bytes)?, server: next(bytes)? },
                        sha1: ScramKeys { stored: next(bytes)?, server: next(bytes)? },
                    });
                }
            }
            FORMAT_OF_ONE_SALT => drop(next::<NAME_KEYS>(bytes)?),
            _ => return None,
        }
        bytes.is_empty().then_some(Self { argon2_salt, argon2_hash, names })
    }
}

fn next<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
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

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    /// A password's verifier with keys for some names.
    fn verifier(hasher: &mut Hasher, password: &str, names: u8) -> Verifier {
        let mut verifier = Verifier::derive(hasher, &secret(password)).unwrap();
        for name in 0..names {
            verifier.add(NameKeys::derive(&secret(password), [name; SALT]).unwrap());
        }
        verifier
    }

    #[test]
    fn a_password_is_itself_and_no_other() {
        let hasher = &mut Hasher::default();
        let verifier = verifier(hasher, "correct horse", 2);
        let read = Verifier::decode(&verifier.encode()).unwrap();
        assert!(read.check(hasher, &secret("correct horse")).unwrap());
        assert!(!read.check(hasher, &secret("correct horsf")).unwrap());
        for name in 0..2 {
            let keys = read.keys_for(&[name; SALT]).unwrap();
            for hash in [Hash::Sha1, Hash::Sha256] {
                let again =
                    scram_keys(hash, &secret("correct horse"), &keys.salt, SCRAM_ITERATIONS);
                assert_eq!((again.0.as_slice(), again.1.as_slice()), keys.of(hash));
            }
        }
        assert!(read.keys_for(&[2; SALT]).is_none());
    }

    #[test]
    fn the_oldest_names_go() {
        let mut verifier = verifier(&mut Hasher::default(), "x", 0);
        let bound = u8::try_from(MAX_NAMES).unwrap();
        for name in (0..bound).chain([0, bound]) {
            verifier.add(NameKeys::of_no_password([name; SALT]).unwrap());
        }
        let read = Verifier::decode(&verifier.encode()).unwrap();
        let kept: Vec<u8> = (0..=bound).filter(|n| read.keys_for(&[*n; SALT]).is_some()).collect();
        // 0 came again, so 1 was the oldest.
        assert_eq!(kept, (0..=bound).filter(|n| *n != 1).collect::<Vec<u8>>());
    }

    #[test]
    fn only_what_was_encoded_is_read() {
        let bytes = verifier(&mut Hasher::default(), "x", 2).encode();
        for cut in 0..bytes.len() {
            assert!(Verifier::decode(&bytes[..cut]).is_none());
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(Verifier::decode(&longer).is_none());
        longer[0] = 9;
        assert!(Verifier::decode(&longer[..bytes.len()]).is_none());
    }

    #[test]
    fn a_password_of_the_format_before_is_checked_where_it_is_shown() {
        let hasher = &mut Hasher::default();
        let now = verifier(hasher, "x", 1).encode();
        let head = 1 + SALT + 32;
        // Behind the head, the count was not there.
        let mut before = [&now[..head], &now[head + 1..]].concat();
        before[0] = FORMAT_OF_ONE_SALT;
        let read = Verifier::decode(&before).unwrap();
        assert!(read.check(hasher, &secret("x")).unwrap());
        assert!(read.keys_for(&[0; SALT]).is_none());
        assert!(Verifier::decode(&before[..before.len() - 1]).is_none());
    }
}
