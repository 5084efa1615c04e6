//! The administrators' password: one, without a name, kept like an account's but in accountd.db.

use super::authority::{Authority, Failure, NOBODY};
use super::{opaque, verifier::Verifier};
use crate::peer::Peer;
use types::Secret;

const ADMIN: &str = "admin";

impl Authority {
    /// Sets the administrators' password.
    pub(crate) async fn set_admin_password(&self, password: Secret<String>) -> Result<(), Failure> {
        let verifier = self.derive(&Peer::ourselves(), password).await?;
        let sealed = self.pepper.seal(NOBODY, &verifier.encode()).await?;
        self.vault.run(move |records| records.set_verifier(ADMIN, &sealed)).await?;
        Ok(())
    }

    /// Checks it, within the limits of the address.
    pub(crate) async fn admin_login(&self, peer: &Peer, password: &str) -> Result<(), Failure> {
        let now = self.clock.now();
        if !self.failed.borrow().may_try(peer.ip, now) {
            return Err(Failure::TooManyFailures);
        }
        self.failed.borrow_mut().failed(peer.ip, now);
        let outcome = self.admin_check(peer, password).await;
        let mut failed = self.failed.borrow_mut();
        match outcome {
            Ok(()) => {
                failed.refund(peer.ip, now);
                failed.succeeded(peer.ip, now);
            }
            Err(Failure::Temporary) => failed.refund(peer.ip, now),
            Err(_) => {}
        }
        outcome
    }

    async fn admin_check(&self, peer: &Peer, password: &str) -> Result<(), Failure> {
        let sealed = self.vault.run(|records| records.verifier(ADMIN)).await?;
        // None was set: the admin interface is closed.
        let sealed = sealed.ok_or(Failure::BadCredentials)?;
        let plain = self.pepper.open(NOBODY, &sealed.sealed).await?;
        let verifier = Verifier::decode(&plain).ok_or(Failure::Temporary)?;
        let password = opaque::prepare(password).map_err(|_| Failure::BadCredentials)?;
        match self.hashing.run(peer.ip, move || verifier.check(&password)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Failure::BadCredentials),
            Ok(Err(_)) | Err(_) => Err(Failure::Temporary),
        }
    }
}
