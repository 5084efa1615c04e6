//! keyholder's pepper as accountd sees it: what is sealed with it is worth nothing without keyholder.

use futures::future::LocalBoxFuture;
use types::AccountId;
use zeroize::Zeroizing;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PepperError {
    /// keyholder is away: temporary.
    #[error("keyholder does not answer")]
    Away,
    /// Not sealed by this pepper for this account.
    #[error("a sealed verifier is damaged")]
    Damaged,
}

type Answer<'a, T> = LocalBoxFuture<'a, Result<T, PepperError>>;

/// Seals and opens with the account as associated data.
pub(crate) trait Pepper {
    fn seal<'a>(&'a self, account: AccountId, plain: &'a [u8]) -> Answer<'a, Vec<u8>>;
    fn open<'a>(&'a self, account: AccountId, sealed: &'a [u8]) -> Answer<'a, Zeroizing<Vec<u8>>>;
    fn mac<'a>(&'a self, account: AccountId, data: &'a [u8]) -> Answer<'a, Vec<u8>>;
}

/// A pepper of our own that counts its calls.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use aws_lc_rs::hmac;
    use std::cell::Cell;

    #[derive(Default)]
    pub(crate) struct Counting {
        pub(crate) seals: Cell<u32>,
        pub(crate) opens: Cell<u32>,
        pub(crate) macs: Cell<u32>,
        pub(crate) away: Cell<bool>,
    }

    impl Counting {
        fn here(&self) -> Result<(), PepperError> {
            if self.away.get() { Err(PepperError::Away) } else { Ok(()) }
        }
    }

    fn tag(account: AccountId, data: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, account.as_bytes());
        hmac::sign(&key, data).as_ref().to_vec()
    }

    impl Pepper for Counting {
        fn seal<'a>(&'a self, account: AccountId, plain: &'a [u8]) -> Answer<'a, Vec<u8>> {
            Box::pin(async move {
                self.here()?;
                self.seals.set(self.seals.get() + 1);
                Ok([tag(account, plain), plain.to_vec()].concat())
            })
        }

        fn open<'a>(
            &'a self,
            account: AccountId,
            sealed: &'a [u8],
        ) -> Answer<'a, Zeroizing<Vec<u8>>> {
            Box::pin(async move {
                self.here()?;
                self.opens.set(self.opens.get() + 1);
                let (shown, plain) = sealed.split_at_checked(32).ok_or(PepperError::Damaged)?;
                if tag(account, plain) != shown {
                    return Err(PepperError::Damaged);
                }
                Ok(Zeroizing::new(plain.to_vec()))
            })
        }

        fn mac<'a>(&'a self, account: AccountId, data: &'a [u8]) -> Answer<'a, Vec<u8>> {
            Box::pin(async move {
                self.here()?;
                self.macs.set(self.macs.get() + 1);
                Ok(tag(account, data))
            })
        }
    }
}
