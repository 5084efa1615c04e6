//! DKIM signatures for what our users send, made by keyholder for the From domain.
//!
//! The message stays here: keyholder sees the block of canonical header fields, which holds the
//! body's hash, and looks at that block before a key touches it.

use crate::{
    intake::{refusal::Refusal, spool::Spooled},
    keys::{Signed, SigningKey},
    service::Service,
    store::Content,
};
use ipc::Unavailable;
use mailauth::dkim::{BodyHash, Canonicalization, Draft, Recipe, fields};
use types::Address;

/// A header longer than this is not signed.
const MAX_HEADER: u64 = 1 << 20;
/// Signatures of one message.
const MAX_SIGNATURES: usize = 4;
/// Octets of a body hashed together.
const PIECE: u64 = 65_536;

impl Service {
    /// The DKIM-Signature fields for a message with `added` in front of it; empty when the domain
    /// has no key. keyholder being away is temporary: unsigned mail of a domain that signs is
    /// refused elsewhere.
    pub(crate) async fn sign(
        &self,
        author: &Address,
        message: &Spooled,
        added: &str,
        header_length: u64,
    ) -> Result<String, Refusal> {
        let snapshot = self.directories.now();
        let Some(domain) = snapshot.directory.domain(author.domain()) else {
            return Ok(String::new());
        };
        if !self.keyholder.knows_domains() {
            self.tell_hosted().await;
        }
        let mut keys = self.keyholder.signing_keys(author.domain()).await.map_err(away)?;
        keys.retain(|key| {
            domain.dkim_selectors.is_empty()
                || domain.dkim_selectors.iter().any(|name| *name == key.selector.as_str())
        });
        keys.truncate(MAX_SIGNATURES);
        if keys.is_empty() || header_length > MAX_HEADER {
            return Ok(String::new());
        }
        let content = message.content().map_err(|error| unreadable(&error))?;
        // Off the thread that answers calls: hashing 100 MiB takes a third of a second.
        let hashed = self.workers.run(move || read(&content, header_length)).await;
        let (header, body_hash) =
            hashed.map_err(|_| Refusal::ours())?.map_err(|error| unreadable(&error))?;
        let header = [added.as_bytes(), &header].concat();
        let mut signatures = String::new();
        for key in &keys {
            signatures.push_str(&self.sign_with(key, author, &header, &body_hash).await?);
        }
        Ok(signatures)
    }

    /// One signature; empty if the header is not in the order that signing needs.
    async fn sign_with(
        &self,
        key: &SigningKey,
        author: &Address,
        header: &[u8],
        body_hash: &[u8; 32],
    ) -> Result<String, Refusal> {
        let now = self.clock.now();
        let recipe = Recipe::usual(author.domain(), &key.selector, key.algorithm, now);
        let draft = fields(header)
            .map_err(mailauth::dkim::DraftError::from)
            .and_then(|fields| Draft::new(&recipe, &fields, body_hash));
        let draft = match draft {
            Ok(draft) => draft,
            Err(error) => {
                tracing::warn!(%error, domain = %author.domain(), "a message goes out unsigned");
                return Ok(String::new());
            }
        };
        match self.keyholder.dkim_sign(author.domain(), &key.selector, draft.block()).await {
            Ok(Signed::Signature(signature)) => Ok(draft.finish(&signature)),
            // Rotated since it was listed: the sender's next try finds the new key.
            Ok(Signed::Stale | Signed::OverRate) => Err(Refusal::ours()),
            Ok(Signed::NoKey) => Ok(String::new()),
            Err(error) => Err(away(error)),
        }
    }
}

fn away(error: Unavailable) -> Refusal {
    tracing::warn!(%error, "keyholder does not sign");
    Refusal::ours()
}

fn unreadable(error: &std::io::Error) -> Refusal {
    tracing::error!(%error, "a spooled message");
    Refusal::ours()
}

/// Header section and body hash of a message.
fn read(content: &Content, header_length: u64) -> std::io::Result<(Vec<u8>, [u8; 32])> {
    let len = usize::try_from(header_length).unwrap_or(usize::MAX);
    let mut header = vec![0; len];
    content.read_at(&mut header, 0)?;
    let mut hash = BodyHash::new(Canonicalization::Relaxed);
    let mut at = header_length;
    while at < content.len() {
        let len = PIECE.min(content.len() - at);
        let mut piece = vec![0; usize::try_from(len).unwrap_or(0)];
        content.read_at(&mut piece, at)?;
        hash.update(&piece);
        at += len;
    }
    Ok((header, hash.finish()))
}
