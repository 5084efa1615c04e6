//! Values that must not reach a log.

use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, Zeroizing};

/// A secret: wiped when dropped, without `Debug` or `Display`, compared in constant time.
#[derive(Clone, Default)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes it over.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// Shows it; every caller is a place to look at in a review.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + AsRef<[u8]>> Secret<T> {
    /// Whether both are equal, in time that depends on their lengths alone.
    #[must_use]
    pub fn same_as(&self, other: &[u8]) -> bool {
        self.0.as_ref().ct_eq(other).into()
    }
}
