//! The administrators' password: one, without a name, kept like an account's but in accountd.db.

use super::authority::{Authority, Failure, NOBODY};
use super::{live::Revoked, opaque, records::Records, verifier::Verifier};
use crate::peer::Peer;
use std::sync::{Arc, atomic::Ordering};
use types::Secret;

const ADMIN: &str = "admin";

/// That somebody knew the administrators' password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AdminProof {
    /// How often it had been changed in this life of the process, which no proof outlives.
    changes: u64,
}

impl Authority {
    /// Sets the administrators' password.
    pub(crate) async fn set_admin_password(&self, password: Secret<String>) -> Result<(), Failure> {
        let verifier = self.derive(&password).await?;
        let sealed = self.pepper.seal(NOBODY, &verifier.encode()).await?;
        let changes = Arc::clone(&self.admin_changes);
        // Counted where it is written, directly behind that and whether or not the writing was heard
        // to succeed: who asked for the change may be gone by then, and whoever was let in by what was
        // read before has a proof of the count before.
        let write = move |records: &mut Records| {
            let written = records.set_verifier(ADMIN, &sealed);
            changes.fetch_add(1, Ordering::AcqRel);
            written
        };
        self.vault.run(write).await?;
        Ok(())
    }

    /// Whether what was proved is still the password.
    pub(crate) fn check_admin(&self, proof: AdminProof) -> Result<(), Revoked> {
        if proof.changes == self.admin_changes.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(Revoked("the administrators' password was changed"))
        }
    }

    /// Checks it, within the limits of the address.
    pub(crate) async fn admin_login(
        &self,
        peer: &Peer,
        password: &str,
    ) -> Result<AdminProof, Failure> {
        let now = self.clock.now();
        // Before it is read: a change meanwhile leaves a proof of nothing.
        let proof = AdminProof { changes: self.admin_changes.load(Ordering::Acquire) };
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
        outcome.map(|()| proof)
    }

    async fn admin_check(&self, peer: &Peer, password: &str) -> Result<(), Failure> {
        let sealed = self.vault.run(|records| records.verifier(ADMIN)).await?;
        // None was set: the admin interface is closed.
        let sealed = sealed.ok_or(Failure::BadCredentials)?;
        let plain = self.pepper.open(NOBODY, &sealed.sealed).await?;
        let verifier = Verifier::decode(&plain).ok_or(Failure::Temporary)?;
        let password = opaque::prepare(password).map_err(|_| Failure::BadCredentials)?;
        match self.hashing.run(peer.ip, move |hasher| verifier.check(hasher, &password)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Failure::BadCredentials),
            Ok(Err(_)) | Err(_) => Err(Failure::Temporary),
        }
    }
}
