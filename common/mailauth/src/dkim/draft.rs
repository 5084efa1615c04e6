//! The signer's work around the key: which fields are signed, what the signature field says, the
//! block to sign, and the field with the signature in it.

use super::{
    Algorithm, BadHeader, Canonicalization, MAX_BLOCK, Selector, canonical::header_block,
    fields::Field,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use types::{Address, Domain, UnixNanos};

/// Names in `h=`; with sealing each name stands once more than it occurs.
const MAX_NAMES: usize = 200;
/// Lines of the signature field are folded here where they can be.
const FOLD_AT: usize = 76;

/// The fields that are signed where nothing else is configured.
pub const DEFAULT_SIGNED: [&str; 11] = [
    "From",
    "To",
    "Cc",
    "Bcc",
    "Reply-To",
    "References",
    "In-Reply-To",
    "Subject",
    "Date",
    "Message-Id",
    "Content-Type",
];

/// What a signature should say.
#[derive(Debug, Clone)]
pub struct Recipe<'a> {
    /// `d=`.
    pub domain: &'a Domain,
    /// `s=`.
    pub selector: &'a Selector,
    /// `a=`.
    pub algorithm: Algorithm,
    /// `c=` of the header.
    pub header: Canonicalization,
    /// `c=` of the body; the body hash must be made with it.
    pub body: Canonicalization,
    /// `i=`: who the signature speaks for. Left out when the address is not of `domain` or below.
    pub identity: Option<&'a Address>,
    /// Names of fields to sign. From is signed whether it stands here or not.
    pub signed: &'a [&'a str],
    /// Each name once more than it occurs, so that a field added later breaks the signature
    /// (RFC 6376 §5.4, §8.15).
    pub seal: bool,
    /// `t=`.
    pub time: UnixNanos,
    /// `x=`.
    pub expires: Option<UnixNanos>,
}

impl<'a> Recipe<'a> {
    /// How mail of ours is signed: relaxed, the usual fields, sealed, for as long as the key is
    /// published.
    #[must_use]
    pub fn usual(
        domain: &'a Domain,
        selector: &'a Selector,
        algorithm: Algorithm,
        time: UnixNanos,
    ) -> Self {
        Self {
            domain,
            selector,
            algorithm,
            header: Canonicalization::Relaxed,
            body: Canonicalization::Relaxed,
            identity: None,
            signed: &DEFAULT_SIGNED,
            seal: true,
            time,
            expires: None,
        }
    }
}

/// Why a message cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// The header is not in order.
    #[error(transparent)]
    Header(#[from] BadHeader),
    /// RFC 6376 §5.4: From has to be signed; with several, readers differ in which one counts.
    #[error("not exactly one From field")]
    From,
    /// More than a signature is made for.
    #[error("too many or too long fields to sign")]
    TooMuch,
    /// A name to sign that no field can have.
    #[error("a name to sign is no field name")]
    Name,
}

/// A signature field without its signature.
#[derive(Debug, Clone)]
pub struct Draft {
    // `DKIM-Signature: ...; b=`, folded, without a line end.
    unsigned: String,
    block: Vec<u8>,
}

impl Draft {
    /// Drafts the signature of a message with these header fields and this body hash.
    ///
    /// # Errors
    /// [`DraftError`].
    pub fn new(
        recipe: &Recipe<'_>,
        fields: &[Field<'_>],
        body_hash: &[u8; 32],
    ) -> Result<Self, DraftError> {
        let names = names(recipe, fields)?;
        let unsigned = unsigned_field(recipe, &names, body_hash);
        let with_end = format!("{unsigned}\r\n");
        let signature = Field::parse(with_end.as_bytes())?;
        let block = header_block(recipe.header, fields, names.iter().copied(), &signature);
        if block.len() > MAX_BLOCK {
            return Err(DraftError::TooMuch);
        }
        Ok(Self { unsigned, block })
    }

    /// What is to be signed: goes to keyholder.
    #[must_use]
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// The finished field with its CRLF, to be put in front of the message.
    #[must_use]
    pub fn finish(self, signature: &[u8]) -> String {
        let mut field = Folded::new(self.unsigned);
        // Inside b= white space does not count (RFC 6376 §3.5), so it is folded at will, and the
        // block stays what was signed.
        let text = STANDARD.encode(signature);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(field.room().min(rest.len()));
            field.push(piece);
            rest = tail;
            if !rest.is_empty() {
                field.fold();
            }
        }
        field.text + "\r\n"
    }
}

/// The names for `h=`.
fn names<'a>(recipe: &Recipe<'a>, fields: &[Field<'_>]) -> Result<Vec<&'a str>, DraftError> {
    let count = |name: &str| {
        fields.iter().filter(|field| field.name().eq_ignore_ascii_case(name.as_bytes())).count()
    };
    if count("From") != 1 {
        return Err(DraftError::From);
    }
    let listed = recipe.signed.iter().any(|name| name.eq_ignore_ascii_case("From"));
    let from = (!listed).then_some("From");
    let mut names: Vec<&str> = Vec::new();
    for name in from.into_iter().chain(recipe.signed.iter().copied()) {
        let is_name = !name.is_empty()
            && name.len() <= FOLD_AT / 2
            && name.bytes().all(|b| matches!(b, b'!'..=b'~') && b != b':' && b != b';');
        // RFC 6376 §3.7: the field must not be in its own h=.
        if !is_name || name.eq_ignore_ascii_case("DKIM-Signature") {
            return Err(DraftError::Name);
        }
        if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            continue;
        }
        let times = count(name) + usize::from(recipe.seal);
        if names.len() + times > MAX_NAMES {
            return Err(DraftError::TooMuch);
        }
        names.extend(std::iter::repeat_n(name, times));
    }
    Ok(names)
}

fn unsigned_field(recipe: &Recipe<'_>, names: &[&str], body_hash: &[u8; 32]) -> String {
    let mut field = Folded::new("DKIM-Signature:".to_owned());
    field.word(" v=1;");
    field.word(&format!(" d={};", recipe.domain.as_ascii()));
    field.word(&format!(" s={};", recipe.selector));
    let identity = recipe.identity.filter(|who| who.domain().is_at_or_below(recipe.domain));
    if let Some(who) = identity {
        let localpart = quoted(&who.localpart().to_string());
        field.word(&format!(" i={localpart}@{};", who.domain().as_ascii()));
    }
    field.word(&format!(" a={};", recipe.algorithm));
    field.word(&format!(" c={}/{};", recipe.header, recipe.body));
    field.word(&format!(" t={};", recipe.time.seconds()));
    if let Some(expires) = recipe.expires {
        field.word(&format!(" x={};", expires.seconds()));
    }
    for (number, name) in names.iter().enumerate() {
        let before = if number == 0 { " h=" } else { "" };
        let after = if number + 1 == names.len() { ";" } else { ":" };
        field.word(&format!("{before}{name}{after}"));
    }
    field.word(&format!(" bh={};", STANDARD.encode(body_hash)));
    field.word(" b=");
    field.text
}

/// dkim-quoted-printable (RFC 6376 §2.11).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        if matches!(octet, b'!'..=b'~') && octet != b';' && octet != b'=' {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("={octet:02X}"));
        }
    }
    out
}

/// A header field that is folded as it grows.
struct Folded {
    text: String,
    column: usize,
}

impl Folded {
    fn new(text: String) -> Self {
        let column = text.rsplit('\n').next().map_or(0, str::len);
        Self { text, column }
    }

    fn room(&self) -> usize {
        FOLD_AT.saturating_sub(self.column).max(1)
    }

    fn push(&mut self, piece: &str) {
        self.text.push_str(piece);
        self.column += piece.len();
    }

    fn fold(&mut self) {
        self.text.push_str("\r\n\t");
        self.column = 1;
    }

    /// Appends, on a new line where it would not fit; the fold takes the place of its space.
    fn word(&mut self, word: &str) {
        if word.len() > self.room() {
            self.fold();
            self.push(word.trim_start());
        } else {
            self.push(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkim::{BodyHash, check_signable, fields};
    use aws_lc_rs::{
        digest::{SHA256, digest},
        signature::{
            ED25519, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            UnparsedPublicKey,
        },
    };

    const HEADER: &[u8] = b"From: Joe SixPack <joe@football.example.com>\r\n\
        To: Suzie Q <suzie@shopping.example.net>\r\n\
        Subject: Is dinner ready?\r\n\
        Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
        Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n";
    const BODY: &[u8] = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";
    const SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";

    fn domain() -> Domain {
        "football.example.com".parse().unwrap()
    }

    /// RFC 8463 appendix A: what the block and both signatures must be.
    #[test]
    fn block_of_the_rfc_verifies_with_its_keys() {
        let h = "from : to : subject : date : message-id : from : subject : date";
        let names: Vec<&str> = h.split(':').map(str::trim).collect();
        let fields = fields(HEADER).unwrap();
        let block_of = |a: &str, s: &str, h: &str| {
            let text = format!(
                "DKIM-Signature: v=1; a={a}; c=relaxed/relaxed;\r\n d=football.example.com; \
                 i=@football.example.com;\r\n q=dns/txt; s={s}; t=1528637909; h={h};\r\n \
                 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=\r\n"
            );
            let signature = Field::parse(text.as_bytes()).unwrap();
            header_block(Canonicalization::Relaxed, &fields, names.iter().copied(), &signature)
        };
        let ed = block_of(
            "ed25519-sha256",
            "brisbane",
            "from : to :\r\n subject : date : message-id : from : subject : date",
        );
        let key = Ed25519KeyPair::from_seed_unchecked(&STANDARD.decode(SEED).unwrap()).unwrap();
        let signature = key.sign(digest(&SHA256, &ed).as_ref());
        assert_eq!(
            STANDARD.encode(signature.as_ref()),
            "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\
             Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="
        );
        let rsa = block_of(
            "rsa-sha256",
            "test",
            "from : to : subject :\r\n date : message-id : from : subject : date",
        );
        let spki = STANDARD
            .decode(
                "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR\
                 iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutAC\
                 DfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3\
                 Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
            )
            .unwrap();
        let signature = STANDARD
            .decode(
                "F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\
                 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\
                 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=",
            )
            .unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, &spki)
            .verify(&rsa, &signature)
            .unwrap();
        // What is signed there has the shape keyholder asks for.
        assert_eq!(check_signable(&ed, &domain()).unwrap().algorithm, Algorithm::Ed25519Sha256);
        assert_eq!(check_signable(&rsa, &domain()).unwrap().selector.as_str(), "test");
    }

    fn recipe<'a>(domain: &'a Domain, selector: &'a Selector) -> Recipe<'a> {
        Recipe {
            domain,
            selector,
            algorithm: Algorithm::Ed25519Sha256,
            header: Canonicalization::Relaxed,
            body: Canonicalization::Relaxed,
            identity: None,
            signed: &DEFAULT_SIGNED,
            seal: true,
            time: UnixNanos::from_seconds(1_528_637_909),
            expires: Some(UnixNanos::from_seconds(1_528_897_109)),
        }
    }

    fn body_hash() -> [u8; 32] {
        let mut hash = BodyHash::new(Canonicalization::Relaxed);
        hash.update(BODY);
        hash.finish()
    }

    /// A verifier made of the primitives, as a receiver would do it.
    fn verify(field: &str, header: &[u8]) -> bool {
        let start = field.rfind("b=").unwrap() + 2;
        let signature: String = field[start..].split_whitespace().collect();
        let emptied = format!("{}\r\n", &field[..start]);
        let h: String = field.split("h=").nth(1).unwrap().split(';').next().unwrap().to_owned();
        let names: Vec<String> = h.split(':').map(|name| name.trim().to_owned()).collect();
        let canonicalization =
            if field.contains("c=simple") { Canonicalization::Simple } else { Default::default() };
        let block = header_block(
            canonicalization,
            &fields(header).unwrap(),
            names.iter().map(String::as_str),
            &Field::parse(emptied.as_bytes()).unwrap(),
        );
        let key = Ed25519KeyPair::from_seed_unchecked(&STANDARD.decode(SEED).unwrap()).unwrap();
        UnparsedPublicKey::new(&ED25519, key.public_key().as_ref())
            .verify(digest(&SHA256, &block).as_ref(), &STANDARD.decode(signature).unwrap())
            .is_ok()
    }

    fn signed(recipe: &Recipe<'_>, header: &[u8]) -> String {
        let draft = Draft::new(recipe, &fields(header).unwrap(), &body_hash()).unwrap();
        let found = check_signable(draft.block(), recipe.domain).unwrap();
        assert_eq!((&found.selector, found.algorithm), (recipe.selector, recipe.algorithm));
        let key = Ed25519KeyPair::from_seed_unchecked(&STANDARD.decode(SEED).unwrap()).unwrap();
        let signature = key.sign(digest(&SHA256, draft.block()).as_ref());
        draft.finish(signature.as_ref())
    }

    #[test]
    fn a_signed_message_verifies_and_additions_break_it() {
        let (domain, selector) = (domain(), "2026a".parse().unwrap());
        for canonicalization in [Canonicalization::Relaxed, Canonicalization::Simple] {
            let recipe = Recipe { header: canonicalization, ..recipe(&domain, &selector) };
            let field = signed(&recipe, HEADER);
            assert!(verify(&field, HEADER), "{field}");
            // Fields that are not signed may come and go; a second Subject or a first Cc may not.
            assert!(verify(&field, &[b"Received: x\r\n", HEADER].concat()));
            for added in [&b"Subject: buy this\r\n"[..], b"Cc: x@y\r\n", b"from: e@vil\r\n"] {
                assert!(!verify(&field, &[added, HEADER].concat()));
                assert!(!verify(&field, &[HEADER, added].concat()));
            }
            let spaced = String::from_utf8_lossy(HEADER).replace("Subject: ", "SUBJECT:   ");
            let survives = canonicalization == Canonicalization::Relaxed;
            assert_eq!(verify(&field, spaced.as_bytes()), survives);
            let unsealed = signed(&Recipe { seal: false, ..recipe }, HEADER);
            assert!(verify(&unsealed, &[b"Cc: x@y\r\n", HEADER].concat()));
        }
    }

    #[test]
    fn the_field_is_folded_and_ordered() {
        let (domain, selector) = (domain(), "2026a".parse().unwrap());
        let who: Address = "\"joe; x\"@football.example.com".parse().unwrap();
        let field = signed(&Recipe { identity: Some(&who), ..recipe(&domain, &selector) }, HEADER);
        assert!(field.ends_with("\r\n") && field.is_ascii());
        assert!(field.lines().all(|line| line.len() <= FOLD_AT), "{field}");
        assert!(field.lines().skip(1).all(|line| line.starts_with('\t')));
        let flat: String = field.split_whitespace().collect();
        let order: Vec<usize> =
            ["v=", ";d=", ";s=", ";i=", ";a=", ";c=", ";t=", ";x=", ";h=", ";bh="]
                .iter()
                .map(|tag| flat.find(tag).unwrap())
                .collect();
        assert!(order.is_sorted(), "{flat}");
        assert!(flat.contains("i=\"joe=3B=20x\"@football"), "{flat}");
        assert!(flat.contains("h=From:From:To:To:Cc:Bcc:Reply-To:References:"), "{flat}");
        let stranger: Address = "joe@example.net".parse().unwrap();
        let recipe = Recipe { identity: Some(&stranger), ..recipe(&domain, &selector) };
        assert!(!signed(&recipe, HEADER).contains("i="));
    }

    #[test]
    fn what_cannot_be_signed() {
        let (domain, selector) = (domain(), "2026a".parse().unwrap());
        let recipe = recipe(&domain, &selector);
        let draft = |recipe: &Recipe<'_>, header: &[u8]| {
            Draft::new(recipe, &fields(header).unwrap(), &[0; 32]).map(drop)
        };
        assert_eq!(draft(&recipe, b"To: x\r\n"), Err(DraftError::From));
        assert_eq!(draft(&recipe, b"From: x\r\nFROM: y\r\n"), Err(DraftError::From));
        let many = [&b"From: x\r\n"[..], &b"To: y\r\n".repeat(MAX_NAMES)].concat();
        assert_eq!(draft(&recipe, &many), Err(DraftError::TooMuch));
        let long = format!("From: x\r\nSubject: {}\r\n", "x".repeat(MAX_BLOCK));
        assert_eq!(draft(&recipe, long.as_bytes()), Err(DraftError::TooMuch));
        for name in ["", "a b", "a:b", "a;b", "dkim-signature", "ü"] {
            let bad = Recipe { signed: &[name], ..recipe.clone() };
            assert_eq!(draft(&bad, HEADER), Err(DraftError::Name), "{name:?}");
        }
        // From is signed even when nothing asks for it.
        let bare = Recipe { signed: &["To"], seal: false, ..recipe };
        assert!(signed(&bare, HEADER).contains("h=From:To;"));
    }
}
