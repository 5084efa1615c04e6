//! The client of SCRAM-SHA-256 (RFC 5802, RFC 7677): most log-ins of a run. What a password costs is
//! computed once for all runs, by whoever needs it first.

use super::world::World;
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use std::{collections::BTreeMap, num::NonZeroU32, sync::Mutex};

/// Its name in both protocols.
pub(super) const NAME: &str = "SCRAM-SHA-256";

/// A password with the server's salt and count.
type Salted = BTreeMap<(String, Vec<u8>, u32), [u8; 32]>;
static KNOWN: Mutex<Salted> = Mutex::new(Salted::new());

/// One exchange.
pub(super) struct Exchange {
    password: String,
    bare: String,
}

impl Exchange {
    pub(super) fn new(world: &World, name: &str, password: &str) -> Self {
        let bare = format!("n={name},r={:016x}", world.below(u64::MAX));
        Self { password: password.to_owned(), bare }
    }

    /// What the client says first. No channel binding: there is no TLS here.
    pub(super) fn first(&self) -> String {
        BASE64_STANDARD.encode(format!("n,,{}", self.bare))
    }

    /// What it says to a challenge. To what is none, that it gives up.
    pub(super) fn answer(&self, challenge: &str) -> String {
        self.proof(challenge).unwrap_or_else(|| "*".to_owned())
    }

    fn proof(&self, challenge: &str) -> Option<String> {
        let challenge = BASE64_STANDARD.decode(challenge).ok()?;
        let challenge = String::from_utf8(challenge).ok()?;
        if challenge.starts_with("v=") {
            return Some(String::new());
        }
        let mut attributes = challenge.split(',');
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let salt = BASE64_STANDARD.decode(attributes.next()?.strip_prefix("s=")?).ok()?;
        let rounds = attributes.next()?.strip_prefix("i=")?.parse().ok()?;
        let client = mac(&salted(&self.password, salt, rounds)?, b"Client Key");
        let without_proof = format!("c={},r={nonce}", BASE64_STANDARD.encode("n,,"));
        let said = format!("{},{challenge},{without_proof}", self.bare);
        let signature = mac(digest::digest(&digest::SHA256, &client).as_ref(), said.as_bytes());
        let proof: Vec<u8> = client.iter().zip(&signature).map(|(key, s)| key ^ s).collect();
        let proof = BASE64_STANDARD.encode(proof);
        Some(BASE64_STANDARD.encode(format!("{without_proof},p={proof}")))
    }
}

fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
}

fn salted(password: &str, salt: Vec<u8>, rounds: u32) -> Option<[u8; 32]> {
    let count = NonZeroU32::new(rounds)?;
    let key = (password.to_owned(), salt, rounds);
    if let Some(known) = KNOWN.lock().unwrap().get(&key) {
        return Some(*known);
    }
    let mut salted = [0; 32];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, count, &key.1, password.as_bytes(), &mut salted);
    KNOWN.lock().unwrap().insert(key, salted);
    Some(salted)
}
