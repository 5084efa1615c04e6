//! Session tickets: a client that comes back spares both sides the signature.
//!
//! The keys live in this process only and die with it. Roles never share them: tickets carry no
//! role, and whoever took one process over could else read the resumed sessions of the others.

use crate::signing::Turn;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand::{SecureRandom as _, SystemRandom},
};
use rustls::server::ProducesTickets;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use types::Clock;

/// A key makes tickets for this long; then it opens them for as long again.
const KEY_AGE: Duration = Duration::from_secs(6 * 60 * 60);
/// What clients are told: a ticket made at the very end of its key's time is opened for
/// another [`KEY_AGE`], one made at its start for two.
const LIFETIME_SECONDS: u32 = 12 * 60 * 60;
/// Octets of the key's name in front of a ticket.
const NAME: usize = 16;
/// A longer ticket is not ours: our states are some hundred octets, with a client's certificate
/// some thousand.
const MAX_TICKET: usize = 32 * 1024;

struct Key {
    name: [u8; NAME],
    key: RandomizedNonceKey,
    made: Instant,
}

/// Makes and opens tickets with keys of this process.
pub(crate) struct Tickets {
    clock: Arc<dyn Clock>,
    // The newest first; at most two.
    keys: Mutex<Vec<Key>>,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, keys: Mutex::default() }
    }

    fn with_keys<T>(&self, act: impl FnOnce(&[Key]) -> Option<T>) -> Option<T> {
        let now = self.clock.monotonic();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|key| now.saturating_duration_since(key.made) < KEY_AGE * 2);
        if keys.first().is_none_or(|key| now.saturating_duration_since(key.made) >= KEY_AGE) {
            keys.insert(0, new_key(now)?);
            keys.truncate(2);
        }
        act(&keys)
    }
}

fn new_key(made: Instant) -> Option<Key> {
    let mut random = [0; NAME + 32];
    SystemRandom::new().fill(&mut random).ok()?;
    let (name, secret) = random.split_first_chunk::<NAME>()?;
    let key = RandomizedNonceKey::new(&AES_256_GCM, secret).ok()?;
    Some(Key { name: *name, key, made })
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() > MAX_TICKET - NAME - NONCE_LEN - AES_256_GCM.tag_len() {
            return None;
        }
        self.with_keys(|keys| {
            let key = keys.first()?;
            let mut sealed = plain.to_vec();
            let nonce = key.key.seal_in_place_append_tag(Aad::from(key.name), &mut sealed).ok()?;
            Some([&key.name[..], nonce.as_ref(), &sealed].concat())
        })
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > MAX_TICKET {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let plain = self.with_keys(|keys| {
            let key = keys.iter().find(|key| key.name == *name)?;
            let mut sealed = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let length = key.key.open_in_place(nonce, Aad::from(key.name), &mut sealed).ok()?.len();
            sealed.truncate(length);
            Some(sealed)
        })?;
        Turn::note(|turn| turn.ticket_opened = true);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{ManualClock, UnixNanos};

    #[test]
    fn tickets_last_as_long_as_their_key() {
        let clock = ManualClock::at(UnixNanos::from_seconds(0));
        let tickets = Tickets::new(Arc::new(clock.clone()));
        let first = tickets.encrypt(b"state").unwrap();
        assert_ne!(first, tickets.encrypt(b"state").unwrap());
        assert_eq!(tickets.decrypt(&first).unwrap(), b"state");
        clock.advance(KEY_AGE);
        let second = tickets.encrypt(b"state").unwrap();
        assert_ne!(first[..NAME], second[..NAME], "a new key");
        assert_eq!(tickets.decrypt(&first).unwrap(), b"state");
        clock.advance(KEY_AGE);
        assert_eq!(tickets.decrypt(&first), None);
        assert_eq!(tickets.decrypt(&second).unwrap(), b"state");
        // Long after the last use all keys are gone, not only renewed.
        clock.advance(KEY_AGE * 3);
        assert_eq!(tickets.decrypt(&second), None);
    }

    #[test]
    fn what_was_changed_or_is_of_another_process_is_refused() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(UnixNanos::from_seconds(0)));
        let tickets = Tickets::new(Arc::clone(&clock));
        let ticket = tickets.encrypt(b"state").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "octet {at}");
        }
        for length in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..length]), None);
        }
        assert_eq!(Tickets::new(clock).decrypt(&ticket), None);
        assert_eq!(tickets.decrypt(&vec![0; MAX_TICKET + 1]), None);
        assert_eq!(tickets.encrypt(&vec![0; MAX_TICKET]), None);
    }
}
