//! What is wrong with a certificate and its key. The supervisor parses neither, so a keyholder that
//! only looks at them says it in the one way that carries no text: the code it ends with.

/// Why a certificate and its key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PairFault {
    /// The certificate file, read to its end.
    #[error("it cannot be read, or is longer than 1 MiB")]
    CertificateFile,
    /// The key file, read to its end.
    #[error("it cannot be read, or is longer than 1 MiB")]
    KeyFile,
    /// Nothing in it that is a chain.
    #[error("it holds no certificate in PEM form, one that is broken, or more than 16")]
    Chain,
    /// The first certificate is none.
    #[error("its first certificate cannot be understood")]
    EndEntity,
    /// No key in it.
    #[error("it holds no private key in PEM form (PKCS#8, PKCS#1 or SEC 1, not encrypted)")]
    NoKey,
    /// A key that is not used here.
    #[error(
        "its key is broken, or neither RSA of 2048 to 4096 bits, nor ECDSA P-256 or P-384, nor Ed25519"
    )]
    KeyKind,
    /// Each is sound, but they are no pair.
    #[error("its key is not that of the certificate")]
    OtherKey,
}

impl PairFault {
    /// Everything that can be wrong.
    pub const ALL: [Self; 7] = [
        Self::CertificateFile,
        Self::KeyFile,
        Self::Chain,
        Self::EndEntity,
        Self::NoKey,
        Self::KeyKind,
        Self::OtherKey,
    ];

    /// The code that a process ends with to say it: none that a shell, a panic or a signal gives.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::CertificateFile => 81,
            Self::KeyFile => 82,
            Self::Chain => 83,
            Self::EndEntity => 84,
            Self::NoKey => 85,
            Self::KeyKind => 86,
            Self::OtherKey => 87,
        }
    }

    /// The inverse of [`Self::code`].
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| i32::from(fault.code()) == code)
    }

    /// Whether it is the key file that is to be looked at, and not the certificate's.
    #[must_use]
    pub fn is_of_key(self) -> bool {
        match self {
            Self::CertificateFile | Self::Chain | Self::EndEntity => false,
            Self::KeyFile | Self::NoKey | Self::KeyKind | Self::OtherKey => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_code_of_its_own() {
        for fault in PairFault::ALL {
            assert_eq!(PairFault::from_code(i32::from(fault.code())), Some(fault));
        }
        for code in [-1, 0, 1, 2, 101, 126, 127, 137] {
            assert_eq!(PairFault::from_code(code), None, "{code}");
        }
    }
}
