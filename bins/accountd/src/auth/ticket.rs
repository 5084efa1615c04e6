//! Tickets: what a logged-in session shows after accountd was restarted, or in the process it was
//! handed to, to get its object again without a password.
//!
//! A ticket is a MAC over what it is good for. It is no secret store: everything in it but the MAC is
//! known to the holder, and it says nothing that is not checked again (generations, the account's
//! state) when it is shown. Bound to an edge, so a ticket read in one face is worth nothing in
//! another.

use aws_lc_rs::hmac;
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use types::{AccountId, Secret, SessionId};
use zeroize::Zeroizing;

/// How long a ticket is good for; its holder renews it every 5 minutes.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);
/// Octets of a MAC key.
pub(crate) const KEY: usize = 32;
/// Octets of a log-in address in a ticket.
const MAX_LOGIN: usize = 512;
const MAC: usize = 32;
const FORMAT: u8 = 1;

/// What a ticket gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The account's mail.
    Account,
    /// The right to send as it.
    Submit,
}

/// What somebody proved to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Credential {
    /// The account's password.
    Password,
    /// A TLS client key, by the SHA-256 of its SPKI.
    Key([u8; 32]),
}

/// An edge: the number of the client's role, and its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EdgeId {
    pub(crate) role: u8,
    pub(crate) instance: u16,
}

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) account: AccountId,
    pub(crate) scope: Scope,
    pub(crate) edge: EdgeId,
    pub(crate) credential: Credential,
    /// The credential's generation when it was proved.
    pub(crate) generation: u64,
    /// The account's.
    pub(crate) account_generation: u64,
    pub(crate) session: SessionId,
    /// The address that was typed, for logs and the sender check.
    pub(crate) login: String,
    /// End of life on CLOCK_BOOTTIME, which goes on in sleep and never jumps.
    pub(crate) expires: Duration,
}

/// The MAC keys: today's, with which tickets are made, and yesterday's.
#[derive(Clone)]
pub(crate) struct Keys {
    newest_first: Vec<Secret<Vec<u8>>>,
}

/// How many keys are accepted.
pub(crate) const ACCEPTED_KEYS: usize = 2;

impl Keys {
    /// None unless there is one key at least and each has the right size.
    pub(crate) fn new(newest_first: Vec<Secret<Vec<u8>>>) -> Option<Self> {
        let sound = (1..=ACCEPTED_KEYS).contains(&newest_first.len())
            && newest_first.iter().all(|key| key.expose().len() == KEY);
        sound.then_some(Self { newest_first })
    }

    /// The ticket in the form that travels.
    pub(crate) fn seal(&self, ticket: &Ticket) -> Vec<u8> {
        let mut out = encode(ticket);
        if let Some(key) = self.newest_first.first() {
            out.extend_from_slice(&mac(key, &out));
        }
        out
    }

    /// What a ticket says, if we made it, for this edge, and it is still good at `now`.
    pub(crate) fn open(&self, sealed: &[u8], edge: EdgeId, now: Duration) -> Option<Ticket> {
        let (body, shown) = sealed.split_last_chunk::<MAC>()?;
        let ours = |key: &Secret<Vec<u8>>| bool::from(mac(key, body).ct_eq(shown));
        if !self.newest_first.iter().any(ours) {
            return None;
        }
        let ticket = decode(body)?;
        // An end further away than any ticket's is one from before a restart of the machine, whose
        // boot clock begins anew.
        let good = ticket.edge == edge && ticket.expires > now && ticket.expires <= now + LIFETIME;
        good.then_some(ticket)
    }
}

fn mac(key: &Secret<Vec<u8>>, body: &[u8]) -> [u8; MAC] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), body);
    let mut out = [0; MAC];
    out.copy_from_slice(tag.as_ref());
    out
}

/// A fresh MAC key.
pub(crate) fn new_key() -> Result<Secret<Vec<u8>>, getrandom::Error> {
    let mut key = Zeroizing::new(vec![0; KEY]);
    getrandom::fill(&mut key)?;
    Ok(Secret::new(key.to_vec()))
}

fn encode(ticket: &Ticket) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    out.push(FORMAT);
    out.extend_from_slice(ticket.account.as_bytes());
    out.push(match ticket.scope {
        Scope::Account => 1,
        Scope::Submit => 2,
    });
    out.push(ticket.edge.role);
    out.extend_from_slice(&ticket.edge.instance.to_be_bytes());
    match ticket.credential {
        Credential::Password => out.push(1),
        Credential::Key(fingerprint) => {
            out.push(2);
            out.extend_from_slice(&fingerprint);
        }
    }
    out.extend_from_slice(&ticket.generation.to_be_bytes());
    out.extend_from_slice(&ticket.account_generation.to_be_bytes());
    out.extend_from_slice(ticket.session.as_bytes());
    let expires = u64::try_from(ticket.expires.as_nanos()).unwrap_or(u64::MAX);
    out.extend_from_slice(&expires.to_be_bytes());
    out.extend_from_slice(ticket.login.as_bytes());
    out
}

fn decode(mut bytes: &[u8]) -> Option<Ticket> {
    fn next<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (head, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(*head)
    }
    let bytes = &mut bytes;
    if next::<1>(bytes)? != [FORMAT] {
        return None;
    }
    let account = AccountId::from_bytes(next(bytes)?);
    let scope = match next::<1>(bytes)? {
        [1] => Scope::Account,
        [2] => Scope::Submit,
        _ => return None,
    };
    let [role] = next::<1>(bytes)?;
    let edge = EdgeId { role, instance: u16::from_be_bytes(next(bytes)?) };
    let credential = match next::<1>(bytes)? {
        [1] => Credential::Password,
        [2] => Credential::Key(next(bytes)?),
        _ => return None,
    };
    let generation = u64::from_be_bytes(next(bytes)?);
    let account_generation = u64::from_be_bytes(next(bytes)?);
    let session = SessionId::from_bytes(next(bytes)?);
    let expires = Duration::from_nanos(u64::from_be_bytes(next(bytes)?));
    let login = std::str::from_utf8(bytes).ok().filter(|l| l.len() <= MAX_LOGIN)?.to_owned();
    Some(Ticket {
        account,
        scope,
        edge,
        credential,
        generation,
        account_generation,
        session,
        login,
        expires,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: EdgeId = EdgeId { role: 7, instance: 3 };
    const NOW: Duration = Duration::from_secs(5000);

    fn ticket(credential: Credential) -> Ticket {
        Ticket {
            account: AccountId::from_bytes([3; 10]),
            scope: Scope::Submit,
            edge: EDGE,
            credential,
            generation: 77,
            account_generation: 5,
            session: SessionId::from_bytes([9; 8]),
            login: "ann+x@example.org".into(),
            expires: NOW + LIFETIME,
        }
    }

    fn keys() -> Keys {
        Keys::new(vec![new_key().unwrap()]).unwrap()
    }

    #[test]
    fn comes_back_as_it_was_on_its_edge_and_in_its_time() {
        let keys = keys();
        for credential in [Credential::Password, Credential::Key([8; 32])] {
            let ticket = ticket(credential);
            let sealed = keys.seal(&ticket);
            assert_eq!(keys.open(&sealed, EDGE, NOW), Some(ticket));
            assert!(keys.open(&sealed, EdgeId { instance: 2, ..EDGE }, NOW).is_none());
            assert!(keys.open(&sealed, EdgeId { role: 8, ..EDGE }, NOW).is_none());
            assert!(keys.open(&sealed, EDGE, NOW + LIFETIME).is_none());
            // After a restart of the machine the clock is near zero.
            assert!(keys.open(&sealed, EDGE, Duration::from_secs(1)).is_none());
        }
    }

    #[test]
    fn no_octet_can_be_changed() {
        let keys = keys();
        let sealed = keys.seal(&ticket(Credential::Password));
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            assert!(keys.open(&forged, EDGE, NOW).is_none(), "octet {at}");
            assert!(keys.open(&sealed[..at], EDGE, NOW).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn the_last_two_keys_are_accepted() {
        let (old, new, newer) = (new_key().unwrap(), new_key().unwrap(), new_key().unwrap());
        let sealed = Keys::new(vec![old.clone()]).unwrap().seal(&ticket(Credential::Password));
        let next_day = Keys::new(vec![new.clone(), old]).unwrap();
        assert!(next_day.open(&sealed, EDGE, NOW).is_some());
        assert!(Keys::new(vec![newer, new]).unwrap().open(&sealed, EDGE, NOW).is_none());
        assert!(Keys::new(Vec::new()).is_none());
    }
}
