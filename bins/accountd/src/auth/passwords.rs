//! Setting a password, and the names it can be proved with.
//!
//! SCRAM's server names a salt before anybody has proved anything. It is made of the typed name and of
//! nothing else, so it is the same for a name that is somebody's, for one that is nobody's, before and
//! after a change of password, and tells nobody which names are one account's. The price is that each
//! name needs keys of its own, which are derived while the password is known: when it is set, and when
//! it is shown with a name that has none.

use super::{
    authority::{Authority, Failure, NOBODY},
    live::Basis,
    ticket::Credential,
    verifier::{MAX_NAMES, NameKeys, SALT, Verifier},
};
use crate::peer::Peer;
use types::{AccountId, Address, Secret};

/// Whose password was shown, and was right.
pub(super) struct Shown {
    pub(super) account: AccountId,
    /// Whether it was shown with an address of the account's, and not with one that it catches.
    pub(super) is_own: bool,
    pub(super) salt: [u8; SALT],
    pub(super) verifier: Verifier,
    pub(super) generation: u64,
}

impl Authority {
    /// The salt of a canonical name.
    pub(super) async fn salt(&self, canonical: &str) -> Result<[u8; SALT], Failure> {
        let mac = self.pepper.mac(NOBODY, format!("salt {canonical}").as_bytes()).await?;
        mac.first_chunk().copied().ok_or(Failure::Temporary)
    }

    /// A verifier for what shows the password.
    pub(super) async fn derive(&self, password: &Secret<String>) -> Result<Verifier, Failure> {
        let (ourselves, password) = (Peer::ourselves(), password.clone());
        match self.hashing.run(ourselves.ip, move |h| Verifier::derive(h, &password)).await {
            Ok(Ok(verifier)) => Ok(verifier),
            Ok(Err(_)) | Err(_) => Err(Failure::Temporary),
        }
    }

    /// One job for each name: others have their turn in between.
    async fn keys(
        &self,
        peer: &Peer,
        password: &Secret<String>,
        salt: [u8; SALT],
    ) -> Result<NameKeys, Failure> {
        let password = password.clone();
        match self.hashing.run(peer.ip, move |_| NameKeys::derive(&password, salt)).await {
            Ok(Ok(keys)) => Ok(keys),
            Ok(Err(_)) | Err(_) => Err(Failure::Temporary),
        }
    }

    /// Sets an account's password and ends the sessions that rest on the old one. `addresses` are
    /// those it can be proved with at once: the first [`MAX_NAMES`].
    pub(crate) async fn set_password(
        &self,
        account: AccountId,
        addresses: &[Address],
        password: Secret<String>,
    ) -> Result<(), Failure> {
        let mut verifier = self.derive(&password).await?;
        for address in addresses.iter().take(MAX_NAMES) {
            let canonical = self.directories.now().directory.canonical(address).to_string();
            let salt = self.salt(&canonical).await?;
            verifier.add(self.keys(&Peer::ourselves(), &password, salt).await?);
        }
        let sealed = self.pepper.seal(account, &verifier.encode()).await?;
        let now = self.clock.now();
        let why = "the password was changed";
        let is_of_password = |basis: &Basis| basis.credential == Credential::Password;
        // Whoever asked may go away behind the commit, and then nobody comes to the next lines.
        let unheard = self.lives.unless_heard(account, why, is_of_password);
        let set = self.vault.run(move |records| records.set_password(account, &sealed, now)).await;
        unheard.heard();
        let generation = set?;
        let ended = self
            .lives
            .revoke(account, why, |basis| is_of_password(basis) && basis.generation != generation);
        tracing::info!(%account, ended, "password set");
        Ok(())
    }

    /// Derives keys for a name that the right password was shown with and that has none yet, so that
    /// SCRAM works with it the next time. Whoever showed it is let in whether or not this succeeds.
    pub(super) async fn learn(&self, peer: &Peer, shown: Shown, password: &Secret<String>) {
        let Shown { account, is_own, salt, mut verifier, generation } = shown;
        // No caught address takes the place of another.
        if verifier.keys_for(&salt).is_some() || !is_own && verifier.is_full() {
            return;
        }
        let learnt = async {
            verifier.add(self.keys(peer, password, salt).await?);
            let sealed = self.pepper.seal(account, &verifier.encode()).await?;
            let amend = self.vault.run(move |r| r.amend_password(account, generation, &sealed));
            Ok::<bool, Failure>(amend.await?)
        };
        match learnt.await {
            Ok(is_written) => tracing::debug!(%account, is_written, "SCRAM keys for a name"),
            Err(why) => tracing::warn!(%account, ?why, "no SCRAM keys for a name"),
        }
    }
}
