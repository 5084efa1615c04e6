//! The server's side of SCRAM (RFC 5802, RFC 7677), without I/O: messages in, messages out.
//!
//! Nothing here knows whether a user exists: the caller gives a salt and keys in any case, invented
//! ones for a name that is nobody's, so both go the same way to the same refusal.

use aws_lc_rs::{digest, hmac};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use subtle::ConstantTimeEq as _;

/// Octets of the shortest client nonce; a short one lets a thief of one exchange find a repeat.
const MIN_CLIENT_NONCE: usize = 8;
/// Octets of any attribute we read.
const MAX_ATTRIBUTE: usize = 1024;

/// The hash a mechanism is built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha1,
}

impl Hash {
    pub(crate) fn octets(self) -> usize {
        match self {
            Hash::Sha256 => 32,
            Hash::Sha1 => 20,
        }
    }

    pub(crate) fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref().to_vec()
    }

    pub(crate) fn digest(self, data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        };
        digest::digest(algorithm, data).as_ref().to_vec()
    }
}

/// What the connection offers to bind to (RFC 5929, RFC 9266). Empty: not on this connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bindings {
    pub(crate) exporter: Vec<u8>,
    pub(crate) end_point: Vec<u8>,
}

impl Bindings {
    pub(crate) fn any(&self) -> bool {
        !self.exporter.is_empty() || !self.end_point.is_empty()
    }
}

/// Why an exchange fails before the password is known to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScramError {
    /// RFC 5802 §7 says otherwise.
    #[error("not a SCRAM message")]
    Malformed,
    /// Acting for another user: nobody may.
    #[error("another authorization identity")]
    OtherIdentity,
    /// The binding is not this connection's, or was stripped on the way.
    #[error("channel binding does not match")]
    Binding,
}

/// client-first-message, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientFirst {
    /// The name to log in as.
    pub(crate) user: String,
    /// The GS2 header as it was sent: part of what is bound.
    gs2: String,
    /// Octets of the channel binding that the final message must repeat.
    binding: Vec<u8>,
    nonce: String,
    bare: String,
}

/// After the server's first message.
#[derive(Debug, Clone)]
pub(crate) struct Challenged {
    first: ClientFirst,
    server_first: String,
    nonce: String,
}

impl ClientFirst {
    /// Reads client-first-message. `plus`: the mechanism's name ends in -PLUS.
    pub(crate) fn parse(
        message: &[u8],
        plus: bool,
        bindings: &Bindings,
    ) -> Result<Self, ScramError> {
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
        let (flag, rest) = text.split_once(',').ok_or(ScramError::Malformed)?;
        let (authzid, bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
        let binding = match flag {
            // "I could, but you cannot": we can, so somebody took -PLUS out of our list
            // (RFC 5802 §6).
            "y" if bindings.any() => return Err(ScramError::Binding),
            "n" | "y" if plus => return Err(ScramError::Binding),
            "n" | "y" => Vec::new(),
            // Under the plain name too: one widespread library does that.
            "p=tls-exporter" => bindings.exporter.clone(),
            "p=tls-server-end-point" => bindings.end_point.clone(),
            other if other.starts_with("p=") => return Err(ScramError::Binding),
            _ => return Err(ScramError::Malformed),
        };
        if flag.starts_with('p') && binding.is_empty() {
            return Err(ScramError::Binding);
        }
        // RFC 5802 §5.1: an m= we do not know must fail.
        let user = bare.strip_prefix("n=").ok_or(ScramError::Malformed)?;
        let (user, rest) = user.split_once(',').ok_or(ScramError::Malformed)?;
        let user = unescape(user)?;
        let nonce = rest.split(',').next().and_then(|r| r.strip_prefix("r="));
        let nonce = nonce.ok_or(ScramError::Malformed)?;
        let printable = |c: u8| (0x21..=0x7e).contains(&c) && c != b',';
        if user.is_empty()
            || user.len() > MAX_ATTRIBUTE
            || !(MIN_CLIENT_NONCE..=MAX_ATTRIBUTE).contains(&nonce.len())
            || !nonce.bytes().all(printable)
        {
            return Err(ScramError::Malformed);
        }
        match authzid.strip_prefix("a=") {
            None if authzid.is_empty() => {}
            None => return Err(ScramError::Malformed),
            Some(name) if unescape(name)? == user => {}
            Some(_) => return Err(ScramError::OtherIdentity),
        }
        Ok(Self {
            user,
            gs2: format!("{flag},{authzid},"),
            binding,
            nonce: nonce.to_owned(),
            bare: bare.to_owned(),
        })
    }

    /// server-first-message, and the state that waits for the answer. `fresh` is our part of the
    /// nonce: random, never used before.
    pub(crate) fn challenge(self, salt: &[u8], iterations: u32, fresh: &[u8]) -> Challenged {
        let nonce = format!("{}{}", self.nonce, BASE64_STANDARD.encode(fresh));
        let server_first = format!("r={nonce},s={},i={iterations}", BASE64_STANDARD.encode(salt));
        Challenged { first: self, server_first, nonce }
    }
}

impl Challenged {
    /// server-first-message.
    pub(crate) fn message(&self) -> &[u8] {
        self.server_first.as_bytes()
    }

    /// Checks client-final-message: server-final-message if the proof is right, None if not.
    pub(crate) fn finish(
        &self,
        message: &[u8],
        hash: Hash,
        stored_key: &[u8],
        server_key: &[u8],
    ) -> Result<Option<Vec<u8>>, ScramError> {
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let proof = BASE64_STANDARD.decode(proof).map_err(|_| ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|a| a.strip_prefix("c="));
        let nonce = attributes.next().and_then(|a| a.strip_prefix("r="));
        let (Some(binding), Some(nonce)) = (binding, nonce) else {
            return Err(ScramError::Malformed);
        };
        let binding = BASE64_STANDARD.decode(binding).map_err(|_| ScramError::Malformed)?;
        let expected = [self.first.gs2.as_bytes(), &self.first.binding].concat();
        if !bool::from(binding.ct_eq(&expected)) {
            return Err(ScramError::Binding);
        }
        if nonce != self.nonce || proof.len() != hash.octets() {
            return Err(ScramError::Malformed);
        }
        let auth = format!("{},{},{without_proof}", self.first.bare, self.server_first);
        let signature = hash.hmac(stored_key, auth.as_bytes());
        // ClientKey = ClientProof XOR ClientSignature; its hash is what we keep.
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(p, s)| p ^ s).collect();
        // The server's signature is made in any case: right and wrong proofs cost the same.
        let server = hash.hmac(server_key, auth.as_bytes());
        if bool::from(hash.digest(&client_key).as_slice().ct_eq(stored_key)) {
            Ok(Some(format!("v={}", BASE64_STANDARD.encode(server)).into_bytes()))
        } else {
            Ok(None)
        }
    }
}

/// RFC 5802 §5.1 saslname: `=2C` is a comma, `=3D` an equals sign, another `=` is a fault.
fn unescape(name: &str) -> Result<String, ScramError> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('=') {
        out.push_str(before);
        let (sign, left) = match (after.strip_prefix("2C"), after.strip_prefix("3D")) {
            (Some(left), _) => (',', left),
            (None, Some(left)) => ('=', left),
            (None, None) => return Err(ScramError::Malformed),
        };
        out.push(sign);
        rest = left;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::verifier::scram_keys;
    use types::Secret;

    fn keys(hash: Hash, salt: &[u8]) -> (Vec<u8>, Vec<u8>) {
        scram_keys(hash, &Secret::new("pencil".to_owned()), salt, 4096)
    }

    /// The examples have server nonces that are no base64 of ours; this is the step in between.
    fn challenged(first: ClientFirst, server_first: &str) -> Challenged {
        let nonce = server_first.strip_prefix("r=").unwrap().split(',').next().unwrap();
        Challenged { first, server_first: server_first.to_owned(), nonce: nonce.to_owned() }
    }

    #[test]
    fn the_example_of_rfc_5802() {
        let first = ClientFirst::parse(
            b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
            false,
            &Bindings::default(),
        )
        .unwrap();
        assert_eq!(first.user, "user");
        let salt = BASE64_STANDARD.decode("QSXCR+Q6sek8bf92").unwrap();
        let (stored, server) = keys(Hash::Sha1, &salt);
        let state = challenged(
            first,
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        );
        let last = b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,\
            p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
        let done = state.finish(last, Hash::Sha1, &stored, &server).unwrap();
        assert_eq!(done.unwrap(), b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=");
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let first =
            ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", false, &Bindings::default())
                .unwrap();
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let (stored, server) = keys(Hash::Sha256, &salt);
        let state = challenged(
            first,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let done = state.finish(last.as_bytes(), Hash::Sha256, &stored, &server).unwrap();
        assert_eq!(done.unwrap(), b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        // A proof that is wrong in one bit is no proof.
        let wrong = last.replace("p=dHz", "p=eHz");
        assert_eq!(state.finish(wrong.as_bytes(), Hash::Sha256, &stored, &server), Ok(None));
        // Another nonce is another exchange.
        let wrong = last.replace("hNlF$k0,p", "hNlF$k1,p");
        assert_eq!(
            state.finish(wrong.as_bytes(), Hash::Sha256, &stored, &server),
            Err(ScramError::Malformed)
        );
    }

    #[test]
    fn binding_is_of_this_connection() {
        let bindings = Bindings { exporter: vec![1; 32], end_point: vec![2; 32] };
        let parse = |text: &str, plus| ClientFirst::parse(text.as_bytes(), plus, &bindings);
        let rest = ",,n=u,r=0123456789";
        let first = parse(&format!("p=tls-exporter{rest}"), true).unwrap();
        assert_eq!(first.binding, vec![1; 32]);
        assert!(parse(&format!("p=tls-server-end-point{rest}"), false).is_ok());
        for (flag, plus) in [("p=tls-unique", true), ("y", false), ("y", true), ("n", true)] {
            assert_eq!(parse(&format!("{flag}{rest}"), plus), Err(ScramError::Binding), "{flag}");
        }
        assert!(ClientFirst::parse(b"y,,n=u,r=0123456789", false, &Bindings::default()).is_ok());
        // A client that talks to somebody in between sends that one's binding.
        let state = first.challenge(b"salt", 4096, b"fresh");
        let other = [b"p=tls-exporter,,".as_slice(), &[9; 32]].concat();
        let last = format!(
            "c={},r={},p={}",
            BASE64_STANDARD.encode(other),
            state.nonce,
            BASE64_STANDARD.encode([0; 32])
        );
        assert_eq!(
            state.finish(last.as_bytes(), Hash::Sha256, &[0; 32], &[0; 32]),
            Err(ScramError::Binding)
        );
    }

    #[test]
    fn refuses_what_is_no_scram() {
        let none = Bindings::default();
        for text in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=u",
            "n,,n=u,r=",
            "n,,n=u,r=short",
            "n,,n=,r=0123456789",
            "n,,m=x,n=u,r=0123456789",
            "n,,n=a=b,r=0123456789",
            "x,,n=u,r=0123456789",
            "n,b=u,n=u,r=0123456789",
            "n,,n=u,r=0123456\u{7f}89",
        ] {
            assert_eq!(
                ClientFirst::parse(text.as_bytes(), false, &none),
                Err(ScramError::Malformed),
                "{text:?}"
            );
        }
        assert_eq!(
            ClientFirst::parse(b"n,a=other,n=u,r=0123456789", false, &none),
            Err(ScramError::OtherIdentity)
        );
        let first = ClientFirst::parse(b"n,a=a=2Cb=3D,n=a=2Cb=3D,r=0123456789", false, &none);
        assert_eq!(first.unwrap().user, "a,b=");
    }
}
