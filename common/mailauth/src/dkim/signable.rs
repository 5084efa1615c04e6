//! The check keyholder makes before a DKIM key touches anything: is this the header block of a
//! message, with our own signature field at its end, for this domain?
//!
//! Whoever takes the signing process over can have mail signed (that is the process's right), but
//! must not get the key to sign anything else: a TLS handshake, a certificate request, or mail in
//! the name of another domain.

use super::{
    Algorithm, Canonicalization, Selector,
    fields::{Field, fields},
    tags::{squeeze, tags},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use types::Domain;

/// The longest block that is signed; `DkimSigner.maxHeaderBytes`.
pub const MAX_BLOCK: usize = 65_536;

/// What a signable block says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signable {
    /// `s=`.
    pub selector: Selector,
    /// `a=`.
    pub algorithm: Algorithm,
}

/// Why a block is not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSignable {
    /// Longer than [`MAX_BLOCK`].
    #[error("block too long")]
    TooLong,
    /// Not header fields with a DKIM-Signature at the end.
    #[error("not a DKIM header block")]
    Shape,
    /// The signature field has tags that do not belong there, lacks some, or has them wrong.
    #[error("not the signature field of a new DKIM signature")]
    Tags,
    /// `d=` or `i=` is not of the domain that is allowed.
    #[error("names another domain")]
    OtherDomain,
    /// The fields are not those that `h=` names, or not in its canonical form.
    #[error("the fields are not what h= and c= say")]
    Fields,
}

/// Checks a block that is to be signed for `domain`.
///
/// # Errors
/// [`NotSignable`].
pub fn check_signable(block: &[u8], domain: &Domain) -> Result<Signable, NotSignable> {
    if block.len() > MAX_BLOCK {
        return Err(NotSignable::TooLong);
    }
    // The last field has no CRLF (RFC 6376 §3.7), and so its empty b= is the very end.
    if !block.ends_with(b"b=") || block.starts_with(b"\r\n") {
        return Err(NotSignable::Shape);
    }
    let ended = [block, b"\r\n"].concat();
    let all = fields(&ended).map_err(|_| NotSignable::Shape)?;
    let (signature, signed) = all.split_last().ok_or(NotSignable::Shape)?;
    let covered: usize = all.iter().map(|field| field.raw().len()).sum();
    // Nothing behind an empty line: the block is fields from end to end.
    if covered != ended.len() || !signature.name().eq_ignore_ascii_case(b"DKIM-Signature") {
        return Err(NotSignable::Shape);
    }
    let value = std::str::from_utf8(signature.value()).map_err(|_| NotSignable::Tags)?;
    let tags = Tags::of(value)?;
    if tags.domain.parse().as_ref() != Ok(domain) {
        return Err(NotSignable::OtherDomain);
    }
    if let Some(identity) = tags.identity {
        let (_, at) = identity.rsplit_once('@').ok_or(NotSignable::Tags)?;
        let at: Domain = at.parse().map_err(|_| NotSignable::OtherDomain)?;
        if !at.is_at_or_below(domain) {
            return Err(NotSignable::OtherDomain);
        }
    }
    check_fields(signed, signature, &tags)?;
    Ok(Signable { selector: tags.selector, algorithm: tags.algorithm })
}

struct Tags<'a> {
    domain: &'a str,
    identity: Option<&'a str>,
    selector: Selector,
    algorithm: Algorithm,
    header: Canonicalization,
    names: Vec<String>,
}

impl<'a> Tags<'a> {
    fn of(value: &'a str) -> Result<Self, NotSignable> {
        const KNOWN: [&str; 12] = ["v", "d", "s", "i", "a", "c", "q", "t", "x", "h", "bh", "b"];
        let tags = tags(value).ok_or(NotSignable::Tags)?;
        let find = |name: &str| tags.iter().find(|tag| tag.0 == name).map(|tag| tag.1);
        let need = |name: &str| find(name).ok_or(NotSignable::Tags);
        // l= (a signature over a part of the body) and what we do not know is not signed for.
        let known = tags.iter().all(|(name, _)| KNOWN.contains(name));
        let last_is_empty = tags.last() == Some(&("b", ""));
        let body_hash = STANDARD.decode(squeeze(need("bh")?)).map_err(|_| NotSignable::Tags)?;
        if !known || !last_is_empty || need("v")? != "1" || body_hash.len() != 32 {
            return Err(NotSignable::Tags);
        }
        if find("q").is_some_and(|query| query != "dns/txt") {
            return Err(NotSignable::Tags);
        }
        let seconds = |name: &str| {
            find(name).map(|text| text.parse::<u64>().map_err(|_| NotSignable::Tags)).transpose()
        };
        if let (Some(time), Some(expires)) = (seconds("t")?, seconds("x")?)
            && expires <= time
        {
            return Err(NotSignable::Tags);
        }
        // RFC 6376 §3.5: simple/simple where c= is missing.
        let (header, body) =
            find("c").map_or(("simple", "simple"), |c| c.split_once('/').unwrap_or((c, "simple")));
        body.parse::<Canonicalization>().map_err(|_| NotSignable::Tags)?;
        let names = need("h")?.split(':').map(|name| squeeze(name).to_ascii_lowercase());
        Ok(Self {
            domain: need("d")?,
            identity: find("i"),
            selector: need("s")?.parse().map_err(|_| NotSignable::Tags)?,
            algorithm: need("a")?.parse().map_err(|_| NotSignable::Tags)?,
            header: header.parse().map_err(|_| NotSignable::Tags)?,
            names: names.collect(),
        })
    }
}

/// The block's fields have to be those of `h=`, in its order (a name without a field is left
/// out), From among them, each in the canonical form that `c=` promises.
fn check_fields(
    signed: &[Field<'_>],
    signature: &Field<'_>,
    tags: &Tags<'_>,
) -> Result<(), NotSignable> {
    let mut names = tags.names.iter();
    for field in signed {
        // `names` only moves forward: each name is used for at most one field.
        if !names.any(|name| field.name().eq_ignore_ascii_case(name.as_bytes())) {
            return Err(NotSignable::Fields);
        }
    }
    let from = signed.iter().filter(|field| field.name().eq_ignore_ascii_case(b"From")).count();
    let own = tags.names.iter().any(|name| name == "dkim-signature");
    if from != 1 || own {
        return Err(NotSignable::Fields);
    }
    let mut canonical = Vec::new();
    for field in signed.iter().chain([signature]) {
        canonical.clear();
        tags.header.header_field(field, &mut canonical);
        if canonical != field.raw() {
            return Err(NotSignable::Fields);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BH: &str = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=";

    fn check(block: &str) -> Result<Signable, NotSignable> {
        check_signable(block.as_bytes(), &"example.org".parse().unwrap())
    }

    fn block(tags: &str) -> String {
        format!("from:a@example.org\r\nsubject:x\r\ndkim-signature:{tags}")
    }

    fn usual() -> String {
        block(&format!(
            "v=1; d=example.org; s=s1; a=rsa-sha256; c=relaxed/relaxed; t=5; x=6; \
             h=From:From:To:Subject; bh={BH}; b="
        ))
    }

    #[test]
    fn the_usual_block_is_signable() {
        let found = check(&usual()).unwrap();
        assert_eq!((found.selector.as_str(), found.algorithm), ("s1", Algorithm::RsaSha256));
        let below = usual().replace("s=s1;", "s=s1; i=a@mail.example.org;");
        assert!(check(&below).is_ok());
    }

    #[test]
    fn other_domains_are_refused() {
        for (from, to) in [
            ("d=example.org", "d=example.net"),
            ("d=example.org", "d=mail.example.org"),
            ("d=example.org", "d=org"),
            ("s=s1;", "s=s1; i=a@example.net;"),
            ("s=s1;", "s=s1; i=a@notexample.org;"),
        ] {
            let refused = check(&usual().replace(from, to));
            assert_eq!(refused, Err(NotSignable::OtherDomain), "{to}");
        }
        assert_eq!(
            check_signable(usual().as_bytes(), &"example.net".parse().unwrap()),
            Err(NotSignable::OtherDomain)
        );
    }

    #[test]
    fn tags_that_do_not_belong_there() {
        for (from, to) in [
            ("v=1;", "v=2;"),
            ("v=1; ", ""),
            ("s=s1;", "s=../s1;"),
            ("s=s1; ", ""),
            ("a=rsa-sha256", "a=rsa-sha1"),
            ("c=relaxed/relaxed", "c=relaxed/other"),
            ("t=5;", "t=7;"),
            ("t=5;", "t=now;"),
            ("t=5;", "t=5; l=10;"),
            ("t=5;", "t=5; t=5;"),
            ("t=5;", "t=5; z=From:x;"),
            ("t=5;", "t=5; q=other;"),
            (BH, "AAAA"),
            (BH, "?"),
            ("h=From:From:To:Subject; ", ""),
            ("; b=", "; b=; b="),
            ("b=", "bb="),
        ] {
            let refused = check(&usual().replace(from, to));
            assert_eq!(refused, Err(NotSignable::Tags), "{from} -> {to}");
        }
    }

    #[test]
    fn fields_that_h_and_c_do_not_say() {
        for (from, to) in [
            ("h=From:From:To:Subject", "h=Subject:From"),
            ("h=From:From:To:Subject", "h=From:To"),
            ("h=From:From:To:Subject", "h=From:From:To:Subject:DKIM-Signature"),
            ("from:a@example.org\r\n", ""),
            ("subject:x", "subject: x"),
            ("subject:x", "Subject:x"),
            ("subject:x", "subject:x  y"),
            ("subject:x", "from:x"),
            ("v=1; d", "v=1;  d"),
        ] {
            let refused = check(&usual().replace(from, to));
            assert_eq!(refused, Err(NotSignable::Fields), "{from} -> {to}");
        }
    }

    #[test]
    fn what_is_no_block_at_all() {
        let mut handshake = " ".repeat(64);
        handshake.push_str("TLS 1.3, server CertificateVerify\0");
        handshake.push_str(&"x".repeat(32));
        for bad in [
            String::new(),
            "b=".to_owned(),
            handshake.clone(),
            format!("{handshake}b="),
            usual() + "\r\n",
            usual().replace("b=", "b=AAAA"),
            usual().replace("dkim-signature", "x-signature"),
            usual().replace("subject:x\r\n", "subject:x\r\n\r\n"),
            usual().replace("subject:x\r\n", "subject:x\n"),
            format!("\r\n{}", usual()),
            usual().replace("from:a@example.org\r\n", " from:a@example.org\r\n"),
        ] {
            let refused = check(&bad);
            assert_eq!(refused, Err(NotSignable::Shape), "{bad:?}");
        }
        let long = usual().replace("subject:x", &format!("subject:{}", "x".repeat(MAX_BLOCK)));
        assert_eq!(check(&long), Err(NotSignable::TooLong));
        let wild = [usual().as_bytes(), b"\xff\xfeb="].concat();
        assert!(check_signable(&wild, &"example.org".parse().unwrap()).is_err());
    }

    #[test]
    fn simple_blocks_keep_their_folds() {
        let simple = format!(
            "From: a@example.org\r\nSubject: x\r\n  y\r\nDKIM-Signature: v=1; d=example.org;\r\n\t\
             s=s1; a=ed25519-sha256;\r\n\tc=simple/relaxed; h=From:\r\n\tSubject; bh={BH};\r\n\tb="
        );
        assert_eq!(check(&simple).unwrap().algorithm, Algorithm::Ed25519Sha256);
    }
}
