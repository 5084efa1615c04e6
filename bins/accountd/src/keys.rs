//! keyholder as accountd asks it: the pepper for verifiers, signatures for hosted domains.

use crate::auth::pepper::{Pepper, PepperError};
use futures::future::LocalBoxFuture;
use ipc::{
    Line, Unavailable, capnp,
    schema::keyholder_capnp::{accountd_keys, pepper, pepper::opened},
    within,
};
use std::time::Duration;
use types::{AccountId, Domain};
use zeroize::Zeroizing;

/// How long keyholder may take for one answer.
const CALL: Duration = Duration::from_secs(5);

/// The line to keyholder.
pub(crate) struct Keyholder {
    line: Line<accountd_keys::Client>,
}

fn away(error: Unavailable) -> PepperError {
    tracing::warn!(%error, "keyholder");
    PepperError::Away
}

impl Keyholder {
    pub(crate) fn new(line: Line<accountd_keys::Client>) -> Self {
        Self { line }
    }

    async fn pepper_client(&self) -> Result<pepper::Client, Unavailable> {
        // Not awaited: the capability is a promise, and the call on it travels in the same message.
        Ok(self.line.client().await?.pepper_request().send().pipeline.get_pepper())
    }

    /// Tells which domains DKIM signers may be made for.
    pub(crate) async fn hosted(&self, domains: &[Domain]) -> Result<(), Unavailable> {
        let admin = self.line.client().await?.key_admin_request().send().pipeline.get_admin();
        let mut request = admin.hosted_request();
        let names: Vec<&str> = domains.iter().map(Domain::as_ascii).collect();
        request.get().set_domains(names.as_slice()).map_err(|error| {
            tracing::error!(%error, "the list of domains");
            Unavailable::Broken
        })?;
        let _permit = self.line.permit().await;
        within(CALL, request.send().promise).await.map(|_| ())
    }
}

impl Pepper for Keyholder {
    fn seal<'a>(
        &'a self,
        account: AccountId,
        plain: &'a [u8],
    ) -> LocalBoxFuture<'a, Result<Vec<u8>, PepperError>> {
        Box::pin(async move {
            let mut request = self.pepper_client().await.map_err(away)?.seal_request();
            request.get().set_account(account.as_bytes());
            request.get().set_plain(plain);
            let _permit = self.line.permit().await;
            let response = within(CALL, request.send().promise).await.map_err(away)?;
            Ok(read(|| Ok(response.get()?.get_sealed()?.to_vec()))?)
        })
    }

    fn open<'a>(
        &'a self,
        account: AccountId,
        sealed: &'a [u8],
    ) -> LocalBoxFuture<'a, Result<Zeroizing<Vec<u8>>, PepperError>> {
        Box::pin(async move {
            let mut request = self.pepper_client().await.map_err(away)?.open_request();
            request.get().set_account(account.as_bytes());
            request.get().set_sealed(sealed);
            let _permit = self.line.permit().await;
            let response = within(CALL, request.send().promise).await.map_err(away)?;
            let plain = read(|| {
                Ok(match response.get()?.get_outcome()?.which()? {
                    opened::Which::Plain(plain) => Some(Zeroizing::new(plain?.to_vec())),
                    opened::Which::Damaged(()) => None,
                })
            })?;
            plain.ok_or(PepperError::Damaged)
        })
    }

    fn mac<'a>(
        &'a self,
        account: AccountId,
        data: &'a [u8],
    ) -> LocalBoxFuture<'a, Result<Vec<u8>, PepperError>> {
        Box::pin(async move {
            let mut request = self.pepper_client().await.map_err(away)?.mac_request();
            request.get().set_account(account.as_bytes());
            request.get().set_data(data);
            let _permit = self.line.permit().await;
            let response = within(CALL, request.send().promise).await.map_err(away)?;
            Ok(read(|| Ok(response.get()?.get_mac()?.to_vec()))?)
        })
    }
}

fn read<T>(read: impl FnOnce() -> Result<T, capnp::Error>) -> Result<T, PepperError> {
    read().map_err(|error| {
        tracing::error!(%error, "keyholder's answer");
        PepperError::Away
    })
}
