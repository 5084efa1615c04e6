//! DKIM signatures (RFC 6376, RFC 8301, RFC 8463): the signer's half.
//!
//! The work is split between processes. The one that has the message makes a [`BodyHash`] and a
//! [`Draft`], which gives the block to sign; keyholder looks at that block with [`check_signable`]
//! before a key touches it; the draft becomes the finished field with the signature.

mod body;
mod canonical;
mod draft;
mod fields;
mod selector;
mod signable;
mod tags;

pub use body::BodyHash;
pub use canonical::{Canonicalization, header_block};
pub use draft::{DEFAULT_SIGNED, Draft, DraftError, Recipe};
pub use fields::{BadHeader, Field, fields};
pub use selector::{BadSelector, Selector};
pub use signable::{MAX_BLOCK, NotSignable, Signable, check_signable};

use std::{fmt, str::FromStr};

/// What signs, and over which hash. RFC 8301 forbids rsa-sha1, so it does not exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 over the SHA-256 of the block.
    RsaSha256,
    /// Ed25519 over the SHA-256 of the block, as a message of 32 octets (RFC 8463 §3).
    Ed25519Sha256,
}

impl Algorithm {
    /// The value of `a=`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::RsaSha256 => "rsa-sha256",
            Algorithm::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no algorithm of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither rsa-sha256 nor ed25519-sha256")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        match name {
            "rsa-sha256" => Ok(Algorithm::RsaSha256),
            "ed25519-sha256" => Ok(Algorithm::Ed25519Sha256),
            _unknown => Err(UnknownAlgorithm),
        }
    }
}
