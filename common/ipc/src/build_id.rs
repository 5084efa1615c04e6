//! Which build a process is of. Different builds refuse each other: internal schemas promise
//! nothing from one build to the next.

use std::fmt;

/// The identity of a build, 16 octets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BuildId([u8; 16]);

impl BuildId {
    /// The build this code belongs to.
    pub const OURS: BuildId = BuildId(padded(env!("MOX_BUILD_ID")));

    /// As it travels.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// As it came.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// The first 16 octets of a text, with zeros behind a shorter one.
const fn padded(text: &str) -> [u8; 16] {
    let (bytes, mut out, mut n) = (text.as_bytes(), [0; 16], 0);
    while n < bytes.len() && n < 16 {
        out[n] = bytes[n];
        n += 1;
    }
    out
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.iter().position(|&b| b == 0).unwrap_or(16);
        write!(f, "{}", self.0[..end].escape_ascii())
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
