//! The bounds of reading one message, in one place.

/// How much of a message is looked at. What lies beyond is kept as opaque bytes, never refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Multiparts and embedded messages inside each other.
    pub depth: usize,
    /// Parts of one message; the last one counted is opaque and runs to the end of the message.
    pub parts: usize,
    /// Octets of one header block beyond which its part is opaque.
    pub header: u64,
    /// Octets of one header block that are interpreted.
    pub header_read: usize,
    /// Octets of header values kept over the whole message: media parameters, embedded envelopes.
    pub values: usize,
    /// Octets of decoded text kept for one part.
    pub part_text: usize,
    /// Octets of decoded text kept for one message.
    pub text: usize,
    /// Octets of decoded header text kept for searching.
    pub header_text: usize,
}

impl Limits {
    /// The longest boundary honoured, in octets. RFC 2046 §5.1.1 allows 70; longer ones exist.
    pub const BOUNDARY: usize = 512;
    /// The longest delimiter line with its padding, in octets.
    pub const DELIMITER_LINE: usize = 1024;
    /// Parameters of one field.
    pub const PARAMETERS: usize = 64;
    /// Addresses (and group marks) of one envelope field.
    pub const ADDRESSES: usize = 8_192;
    /// Message-ids of References that are kept: the first one and the last ones.
    pub const REFERENCES: usize = 200;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 50,
            parts: 10_000,
            header: 1 << 20,
            header_read: 256 << 10,
            values: 1 << 20,
            part_text: 1 << 20,
            text: 8 << 20,
            header_text: 256 << 10,
        }
    }
}
