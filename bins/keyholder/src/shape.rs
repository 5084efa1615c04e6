//! The exact shapes of what a TLS server signs in a handshake. Nothing else is signed with a TLS
//! key: whoever took a face over would else have an oracle for certificate requests, DKIM or
//! client authentication with it.

/// RFC 8446 §4.4.3: what comes before the transcript's hash.
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
const PADDING: usize = 64;
/// RFC 5246 §7.4.3: two randoms before the parameters.
const RANDOMS: usize = 64;
/// RFC 8422 §5.4: ECCurveType named_curve.
const NAMED_CURVE: u8 = 3;

/// A TLS version in which a server signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    Tls12,
    Tls13,
}

/// Which handshake this message is of, if any.
pub(crate) fn handshake(message: &[u8]) -> Option<Handshake> {
    if is_tls13(message) {
        Some(Handshake::Tls13)
    } else if is_tls12(message) {
        Some(Handshake::Tls12)
    } else {
        None
    }
}

/// 64 spaces, the context, the hash of the transcript by SHA-256 or SHA-384.
fn is_tls13(message: &[u8]) -> bool {
    let Some((padding, rest)) = message.split_at_checked(PADDING) else { return false };
    let Some(hash) = rest.strip_prefix(CONTEXT) else { return false };
    padding.iter().all(|&octet| octet == b' ') && matches!(hash.len(), 32 | 48)
}

/// The client's random, the server's, and our share of the key exchange: named_curve, the group,
/// and one point of exactly that group's size.
fn is_tls12(message: &[u8]) -> bool {
    let Some((_, parameters)) = message.split_at_checked(RANDOMS) else { return false };
    let [NAMED_CURVE, group_high, group_low, length, point @ ..] = parameters else {
        return false;
    };
    let (octets, uncompressed) = match u16::from_be_bytes([*group_high, *group_low]) {
        0x001d => (32, false),
        0x0017 => (65, true),
        0x0018 => (97, true),
        _ => return false,
    };
    usize::from(*length) == octets
        && point.len() == octets
        && (!uncompressed || point.first() == Some(&4))
}

impl Handshake {
    /// Whether TLS uses a signature scheme there. RFC 8446 §4.2.3 has no PKCS#1 v1.5 in 1.3.
    pub(crate) fn allows(self, scheme: u16) -> bool {
        match self {
            Handshake::Tls12 => true,
            Handshake::Tls13 => !matches!(scheme, 0x0401 | 0x0501 | 0x0601),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn tls13(hash: usize) -> Vec<u8> {
        [&[b' '; 64][..], CONTEXT, &vec![7; hash]].concat()
    }

    pub(crate) fn tls12(group: u16, octets: u8) -> Vec<u8> {
        let mut message = vec![9; RANDOMS];
        message.push(NAMED_CURVE);
        message.extend_from_slice(&group.to_be_bytes());
        message.push(octets);
        message.extend(std::iter::repeat_n(4, usize::from(octets)));
        message
    }

    #[test]
    fn handshakes_are_recognised() {
        assert_eq!(handshake(&tls13(32)), Some(Handshake::Tls13));
        assert_eq!(handshake(&tls13(48)), Some(Handshake::Tls13));
        for (group, octets) in [(0x001d, 32), (0x0017, 65), (0x0018, 97)] {
            assert_eq!(handshake(&tls12(group, octets)), Some(Handshake::Tls12));
        }
        assert!(Handshake::Tls12.allows(0x0401) && !Handshake::Tls13.allows(0x0401));
        assert!(Handshake::Tls13.allows(0x0804) && Handshake::Tls13.allows(0x0403));
    }

    #[test]
    fn everything_else_is_refused() {
        let client = {
            let mut message = vec![b' '; 64];
            message.extend_from_slice(b"TLS 1.3, client CertificateVerify\0");
            message.extend_from_slice(&[7; 32]);
            message
        };
        let mut tab = tls13(32);
        tab[10] = b'\t';
        let mut compressed = tls12(0x0017, 65);
        compressed[RANDOMS + 4] = 2;
        let mut explicit = tls12(0x001d, 32);
        explicit[RANDOMS] = 1;
        let longer = [tls12(0x001d, 32), vec![0]].concat();
        for message in [
            client,
            tab,
            compressed,
            explicit,
            longer,
            tls13(0),
            tls13(20),
            tls13(33),
            tls13(64),
            tls12(0x001d, 31),
            tls12(0x0019, 133),
            tls12(0x11ec, 200),
            b"from:a@b\r\ndkim-signature:v=1; b=".to_vec(),
            // The start of a certificate request (PKCS#10) in DER.
            [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256]].concat(),
            vec![],
            vec![b' '; 64],
            vec![3; 68],
        ] {
            assert_eq!(handshake(&message), None, "{message:02x?}");
        }
    }

    #[test]
    fn every_cut_and_flip_of_a_handshake_is_refused_or_the_same_kind() {
        let whole = tls13(32);
        for length in 0..whole.len() {
            assert_eq!(handshake(&whole[..length]), None, "{length}");
        }
        // A flipped octet of the fixed part makes it nothing, or at most a TLS 1.2 share.
        for at in 0..PADDING + CONTEXT.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x20;
            assert_ne!(handshake(&flipped), Some(Handshake::Tls13), "{at}");
        }
    }
}
