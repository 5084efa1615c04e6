//! The pepper: a secret that makes password verifiers on a stolen disk of accountd useless.
//!
//! Two keys are derived from it, so that what is sealed and what is authenticated can never be
//! taken for one another. The account is bound to both.

use crate::folder::Folder;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Salt},
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use zeroize::Zeroizing;

/// Octets of the file.
pub(crate) const PEPPER_OCTETS: usize = 32;
/// The longest text that is sealed, and account or data that is taken; `Pepper.maxPlain`.
pub(crate) const MAX_PLAIN: usize = 4096;
/// The first octet of what is sealed: the key and algorithm it was sealed with.
const VERSION: u8 = 1;

/// What a mark beside the pepper authenticates: it is about this pepper and no other.
const AFTER_LOSS: &[u8] = b"made after a loss";
/// The alarm.
const LOST: &str = "keys/pepper was missing and a new one was made: no password from before works. Put \
                    keys/pepper back from a backup, or set all passwords again and remove \
                    keys/pepper.lost; then: moxctl restart keyholder";

/// The keys made of the pepper.
pub(crate) struct Pepper {
    seal: RandomizedNonceKey,
    mac: hmac::Key,
}

struct KeyOctets;

impl KeyType for KeyOctets {
    fn len(&self) -> usize {
        32
    }
}

impl Pepper {
    /// Reads the pepper, or makes it at the first start.
    pub(crate) fn open(folder: &Folder) -> Result<Self, crate::StartError> {
        if let Some(octets) = folder.read_pepper()? {
            return Ok(Self::from_octets(&octets)?);
        }
        let mut octets = Zeroizing::new([0; PEPPER_OCTETS]);
        SystemRandom::new().fill(&mut octets[..])?;
        let pepper = Self::from_octets(&octets)?;
        if folder.has_keys() {
            // First, so that no death between the two can lose the alarm.
            folder.write_pepper_lost(&pepper.mac(b"", AFTER_LOSS))?;
        }
        folder.write_pepper(&octets)?;
        Ok(pepper)
    }

    /// What to tell the administrator if this pepper was made because the one before was lost: until
    /// that one is back, or the administrator has removed the mark.
    pub(crate) fn alarm(
        &self,
        folder: &Folder,
    ) -> Result<Option<&'static str>, crate::FolderError> {
        let Some(mark) = folder.read_pepper_lost()? else { return Ok(None) };
        if *mark == self.mac(b"", AFTER_LOSS) {
            tracing::error!("{LOST}");
            return Ok(Some(LOST));
        }
        folder.remove_pepper_lost()?;
        tracing::info!("the pepper that was lost is back");
        Ok(None)
    }

    fn from_octets(octets: &[u8; PEPPER_OCTETS]) -> Result<Self, Unspecified> {
        let root = Salt::new(HKDF_SHA256, b"mox pepper").extract(octets);
        let derive = |purpose: &'static [u8]| {
            let mut key = Zeroizing::new([0; 32]);
            root.expand(&[purpose], KeyOctets)?.fill(&mut key[..])?;
            Ok::<_, Unspecified>(key)
        };
        let seal = derive(b"seal 1")?;
        let mac = derive(b"mac 1")?;
        Ok(Self {
            seal: RandomizedNonceKey::new(&AES_256_GCM, &seal[..])?,
            mac: hmac::Key::new(hmac::HMAC_SHA256, &mac[..]),
        })
    }

    /// AES-256-GCM with a random nonce: version, nonce, sealed text.
    pub(crate) fn seal(&self, account: &[u8], plain: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut sealed = plain.to_vec();
        let nonce = self.seal.seal_in_place_append_tag(Aad::from(account), &mut sealed)?;
        Ok([&[VERSION][..], nonce.as_ref(), &sealed].concat())
    }

    /// `None`: not sealed by this pepper for this account.
    pub(crate) fn open_sealed(&self, account: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (&version, rest) = sealed.split_first()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        if version != VERSION {
            return None;
        }
        let mut plain = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.seal.open_in_place(nonce, Aad::from(account), &mut plain[..]).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    /// HMAC-SHA-256 over the account, its length in front, and the data.
    pub(crate) fn mac(&self, account: &[u8], data: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.mac);
        // A length, or account "ab" with data "c" would be account "a" with data "bc".
        context.update(&(account.len() as u64).to_be_bytes());
        context.update(account);
        context.update(data);
        context.sign().as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pepper(octet: u8) -> Pepper {
        Pepper::from_octets(&[octet; PEPPER_OCTETS]).unwrap()
    }

    #[test]
    fn sealed_is_opened_for_its_account_alone() {
        let pepper = pepper(1);
        let sealed = pepper.seal(b"alice", b"verifier").unwrap();
        assert_eq!(pepper.open_sealed(b"alice", &sealed).unwrap().as_slice(), b"verifier");
        assert!(pepper.open_sealed(b"bob", &sealed).is_none());
        assert!(super::tests::pepper(2).open_sealed(b"alice", &sealed).is_none());
        assert_ne!(sealed, pepper.seal(b"alice", b"verifier").unwrap());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(pepper.open_sealed(b"alice", &changed).is_none(), "{at}");
            assert!(pepper.open_sealed(b"alice", &sealed[..at]).is_none());
        }
        let empty = pepper.seal(b"", b"").unwrap();
        assert!(pepper.open_sealed(b"", &empty).unwrap().is_empty());
    }

    #[test]
    fn macs_are_stable_and_bound() {
        let pepper = pepper(1);
        assert_eq!(pepper.mac(b"a", b"data"), super::tests::pepper(1).mac(b"a", b"data"));
        let others = [
            pepper.mac(b"a", b"datb"),
            pepper.mac(b"b", b"data"),
            pepper.mac(b"ad", b"ata"),
            pepper.mac(b"", b"adata"),
            super::tests::pepper(2).mac(b"a", b"data"),
        ];
        assert!(others.iter().all(|mac| *mac != pepper.mac(b"a", b"data")));
        assert_eq!(pepper.mac(b"a", b"data").len(), 32);
    }

    #[test]
    fn made_once_and_kept() {
        let place = tempfile::tempdir().unwrap();
        let open = || Pepper::open(&Folder::open(place.path().join("keys")).unwrap()).unwrap();
        let sealed = open().seal(b"a", b"x").unwrap();
        assert_eq!(open().open_sealed(b"a", &sealed).unwrap().as_slice(), b"x");
    }
    #[test]
    fn a_loss_is_told_until_it_is_mended() {
        let place = tempfile::tempdir().unwrap();
        let keys = place.path().join("keys");
        let open = || {
            let folder = Folder::open(keys.clone()).unwrap();
            let pepper = Pepper::open(&folder).unwrap();
            pepper.alarm(&folder).unwrap()
        };
        assert_eq!(open(), None, "the first start is no loss");
        let backup = std::fs::read(keys.join("pepper")).unwrap();
        std::fs::write(keys.join("tls/mail.example.org.pem"), b"a key").unwrap();
        assert_eq!(open(), None);

        std::fs::remove_file(keys.join("pepper")).unwrap();
        assert_eq!(open(), Some(LOST));
        assert_eq!(open(), Some(LOST), "also after another start");
        std::fs::write(keys.join("pepper"), &backup).unwrap();
        assert_eq!(open(), None);
        assert!(!keys.join("pepper.lost").exists());

        std::fs::remove_file(keys.join("pepper")).unwrap();
        assert_eq!(open(), Some(LOST));
        std::fs::remove_file(keys.join("pepper.lost")).unwrap();
        assert_eq!(open(), None, "all passwords were set again");
    }
}
