//! The steps of SASL mechanisms (RFC 4422), without I/O: what the client's octets mean and what is to
//! be asked next. Checking credentials is [`super::authority`]'s.

use super::scram::{Bindings, Challenged, ClientFirst, Hash, ScramError};
use crate::peer::Peer;
use types::Secret;

/// Octets of one message of a client (RFC 4954 §4 asks for 12288 in base64).
pub(crate) const MAX_MESSAGE: usize = 12_288;

/// Mechanisms we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    External,
    Scram(Hash, Plus),
    Plain,
    Login,
}

/// Whether a SCRAM name ends in -PLUS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    Yes,
    No,
}

/// In the order in which they are announced: the strongest first.
const ALL: [(&str, Mechanism); 7] = [
    ("EXTERNAL", Mechanism::External),
    ("SCRAM-SHA-256-PLUS", Mechanism::Scram(Hash::Sha256, Plus::Yes)),
    ("SCRAM-SHA-256", Mechanism::Scram(Hash::Sha256, Plus::No)),
    ("SCRAM-SHA-1-PLUS", Mechanism::Scram(Hash::Sha1, Plus::Yes)),
    ("SCRAM-SHA-1", Mechanism::Scram(Hash::Sha1, Plus::No)),
    ("PLAIN", Mechanism::Plain),
    ("LOGIN", Mechanism::Login),
];

impl Mechanism {
    /// By its name, which is upper case (RFC 4422 §3.1).
    pub(crate) fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|(known, _)| *known == name).map(|(_, mechanism)| *mechanism)
    }

    /// Its name in the log-in history.
    pub(crate) fn name(self) -> String {
        let name = ALL.iter().find(|(_, mechanism)| *mechanism == self).map(|(name, _)| *name);
        name.unwrap_or_default().to_lowercase()
    }
}

/// The mechanisms to announce on a connection. `clear_text`: log-in is allowed without TLS there.
pub(crate) fn announced(peer: &Peer, clear_text: bool) -> Vec<&'static str> {
    let usable = |mechanism: Mechanism| match (&peer.tls, mechanism) {
        (None, Mechanism::External | Mechanism::Scram(_, Plus::Yes)) => false,
        (None, _) => clear_text,
        (Some(tls), Mechanism::External) => tls.client_key.is_some(),
        (Some(tls), Mechanism::Scram(_, Plus::Yes)) => tls.bindings.any(),
        (Some(_), _) => true,
    };
    ALL.iter().filter(|(_, mechanism)| usable(*mechanism)).map(|(name, _)| *name).collect()
}

/// What the client wants checked.
pub(crate) enum Claim {
    /// A name and its password.
    Password { user: String, password: Secret<String> },
    /// The key of the TLS connection; perhaps as a certain address.
    Key { login: Option<String> },
    /// The first message of SCRAM: salt and keys of this user are needed.
    Scram { first: ClientFirst, hash: Hash },
}

/// A fault in what the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Malformed,
    /// Acting for somebody else.
    Identity,
    Binding,
}

impl From<ScramError> for Fault {
    fn from(error: ScramError) -> Self {
        match error {
            ScramError::Malformed => Fault::Malformed,
            ScramError::OtherIdentity => Fault::Identity,
            ScramError::Binding => Fault::Binding,
        }
    }
}

/// An exchange that waits for the client's next message.
pub(crate) enum Waiting {
    /// For the first message of a mechanism.
    First(Mechanism, Bindings),
    /// LOGIN: for the password.
    LoginPassword { user: String },
}

/// What comes next.
pub(crate) enum Next {
    Ask(Vec<u8>, Waiting),
    Check(Claim),
}

/// SCRAM between its two client messages, with what it is checked against.
pub(crate) struct ScramWaiting {
    pub(crate) challenged: Challenged,
    pub(crate) hash: Hash,
}

impl Waiting {
    /// Begins an exchange. `initial`: the client's first message, if it came with the command.
    pub(crate) fn begin(
        mechanism: Mechanism,
        peer: &Peer,
        initial: Option<&[u8]>,
    ) -> Result<Next, Fault> {
        let bindings = peer.tls.as_ref().map(|tls| tls.bindings.clone()).unwrap_or_default();
        let waiting = Waiting::First(mechanism, bindings);
        match (initial, mechanism) {
            (Some(message), _) => waiting.step(message),
            (None, Mechanism::Login) => Ok(Next::Ask(b"Username:".to_vec(), waiting)),
            (None, Mechanism::External | Mechanism::Scram(..) | Mechanism::Plain) => {
                Ok(Next::Ask(Vec::new(), waiting))
            }
        }
    }

    /// The name that was typed already.
    pub(crate) fn typed(&self) -> &str {
        match self {
            Waiting::First(..) => "",
            Waiting::LoginPassword { user } => user,
        }
    }

    /// Takes the client's message.
    pub(crate) fn step(self, message: &[u8]) -> Result<Next, Fault> {
        if message.len() > MAX_MESSAGE {
            return Err(Fault::Malformed);
        }
        match self {
            Waiting::First(Mechanism::Plain, _) => plain(message).map(Next::Check),
            Waiting::First(Mechanism::Login, _) => {
                let user = text(message)?.to_owned();
                Ok(Next::Ask(b"Password:".to_vec(), Waiting::LoginPassword { user }))
            }
            Waiting::LoginPassword { user } => {
                let password = Secret::new(text(message)?.to_owned());
                Ok(Next::Check(Claim::Password { user, password }))
            }
            Waiting::First(Mechanism::External, _) => {
                let login = Some(text(message)?.to_owned()).filter(|login| !login.is_empty());
                Ok(Next::Check(Claim::Key { login }))
            }
            Waiting::First(Mechanism::Scram(hash, plus), bindings) => {
                let first = ClientFirst::parse(message, plus == Plus::Yes, &bindings)?;
                Ok(Next::Check(Claim::Scram { first, hash }))
            }
        }
    }
}

/// RFC 4616: `[authzid] NUL authcid NUL passwd`.
fn plain(message: &[u8]) -> Result<Claim, Fault> {
    let mut fields = text(message)?.split('\0');
    let (Some(authzid), Some(authcid), Some(password), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(Fault::Malformed);
    };
    if authcid.is_empty() || password.is_empty() {
        return Err(Fault::Malformed);
    }
    if !authzid.is_empty() && authzid != authcid {
        return Err(Fault::Identity);
    }
    let password = Secret::new(password.to_owned());
    Ok(Claim::Password { user: authcid.to_owned(), password })
}

fn text(message: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(message).map_err(|_| Fault::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Tls;

    fn over_tls(bindings: Bindings, client_key: Option<[u8; 32]>) -> Peer {
        let tls = Tls {
            version: 0x0304,
            cipher_suite: 0x1301,
            bindings,
            client_key,
            server_name: String::new(),
        };
        Peer { tls: Some(tls), ..Peer::ourselves() }
    }

    #[test]
    fn announces_what_can_work() {
        let clear = Peer::ourselves();
        assert!(announced(&clear, false).is_empty());
        assert_eq!(announced(&clear, true), ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"]);
        let bound = Bindings { exporter: vec![1; 32], end_point: Vec::new() };
        assert_eq!(announced(&over_tls(bound, Some([0; 32])), false).len(), 7);
        assert_eq!(
            announced(&over_tls(Bindings::default(), None), false),
            ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"]
        );
        assert!(Mechanism::named("plain").is_none());
        assert!(Mechanism::named("CRAM-MD5").is_none());
    }

    fn claim(next: Result<Next, Fault>) -> (String, String) {
        match next {
            Ok(Next::Check(Claim::Password { user, password })) => {
                (user, password.expose().clone())
            }
            _ => panic!("no password claim"),
        }
    }

    #[test]
    fn plain_and_login_lead_to_the_same_claim() {
        let peer = Peer::ourselves();
        let expected = ("ann".to_owned(), "secret".to_owned());
        let plain = Waiting::begin(Mechanism::Plain, &peer, Some(b"\0ann\0secret"));
        assert_eq!(claim(plain), expected);
        assert_eq!(
            claim(Waiting::begin(Mechanism::Plain, &peer, Some(b"ann\0ann\0secret"))),
            expected
        );
        let Ok(Next::Ask(prompt, waiting)) = Waiting::begin(Mechanism::Login, &peer, None) else {
            panic!("no prompt");
        };
        assert_eq!(prompt, b"Username:");
        let Ok(Next::Ask(prompt, waiting)) = waiting.step(b"ann") else { panic!("no prompt") };
        assert_eq!(prompt, b"Password:");
        assert_eq!(claim(waiting.step(b"secret")), expected);
    }

    #[test]
    fn refuses_what_is_not_well_formed() {
        let peer = Peer::ourselves();
        let fault = |message: &[u8]| Waiting::begin(Mechanism::Plain, &peer, Some(message)).err();
        for message in
            [b"".as_slice(), b"ann", b"\0ann", b"\0ann\0", b"\0\0x", b"\0a\0b\0c", b"\0a\0\xff"]
        {
            assert_eq!(fault(message), Some(Fault::Malformed), "{message:?}");
        }
        assert_eq!(fault(b"bob\0ann\0secret"), Some(Fault::Identity));
        assert_eq!(fault(&vec![b'a'; MAX_MESSAGE + 1]), Some(Fault::Malformed));
    }
}
