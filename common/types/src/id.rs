//! Names of things that are never typed by a person: random, fixed length, printable.

use std::{fmt, str::FromStr};

/// RFC 4648 §6 base32 in lower case: no letter that differs from another by case alone, so an id
/// can be read over the phone and be a file name anywhere.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A text that is not an id of the kind asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id")]
pub struct IdError;

fn encode(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (mut buffer, mut bits) = (0u32, 0u32);
    for &byte in bytes {
        buffer = (buffer << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            write!(f, "{}", char::from(ALPHABET[((buffer >> bits) & 31) as usize]))?;
        }
    }
    if bits > 0 {
        write!(f, "{}", char::from(ALPHABET[((buffer << (5 - bits)) & 31) as usize]))?;
    }
    Ok(())
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    if text.len() != (N * 8).div_ceil(5) {
        return Err(IdError);
    }
    let (mut out, mut at, mut buffer, mut bits) = ([0u8; N], 0usize, 0u32, 0u32);
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|&a| a == byte).ok_or(IdError)?;
        buffer = ((buffer << 5) | value as u32) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            *out.get_mut(at).ok_or(IdError)? = ((buffer >> bits) & 0xff) as u8;
            at += 1;
        }
    }
    // The bits left over must be zero, or two texts would name one thing.
    if at == N && buffer & ((1 << bits) - 1) == 0 { Ok(out) } else { Err(IdError) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $octets:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $octets]);

        impl $name {
            /// Its size in octets.
            pub const OCTETS: usize = $octets;

            /// An id of these octets.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $octets]) -> Self {
                Self(bytes)
            }

            /// The octets.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $octets] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                encode(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                encode(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                decode(text).map(Self)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError)
            }
        }
    };
}

id!(
    /// An account: the name of its folder. Random, never used twice, kept when the account is
    /// renamed.
    AccountId, 10
);
id!(
    /// A connection of a client, in replies, `Received` and logs: 64 random bits.
    SessionId, 8
);
id!(
    /// A message for one recipient in the queue.
    QueueId, 10
);
id!(
    /// What an account handed to the queue in one transaction.
    SubmissionId, 16
);
id!(
    /// RFC 8474 OBJECTID of a mailbox or an email.
    ObjectId, 16
);
id!(
    /// The identity of one delivery to one account: repeats of it are recognised (a hash, see
    /// `docs/architecture.md`, life of a message).
    DeliveryId, 32
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_octets_are_one_to_one() {
        for seed in 0..=255u8 {
            let id = SessionId::from_bytes([seed, 1, 2, 3, 255, 0, seed ^ 0x5a, 9]);
            assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
            assert_eq!(id.to_string().len(), 13);
        }
        assert_eq!(AccountId::from_bytes([0; 10]).to_string(), "a".repeat(16));
        // 64 bits in 13 characters leave one bit that must be zero.
        assert!("aaaaaaaaaaaab".parse::<SessionId>().is_err());
        assert!("aaaaaaaaaaaaA".parse::<SessionId>().is_err());
        assert!("".parse::<SessionId>().is_err());
    }
}
