//! DKIM signatures of what we write ourselves, as our host name and nobody else.
//!
//! A notification that cannot be signed goes out without: it tells its reader something, and the
//! signature only who says it.

use crate::run::Shared;
use anyhow::Context as _;
use ipc::{
    schema::keyholder_capnp::dkim_signer::{self, outcome},
    within,
};
use mailauth::dkim::{Algorithm, BodyHash, Draft, Recipe, Selector, fields};
use std::time::Duration;
use types::UnixNanos;

/// How long keyholder may take for one answer.
const CALL: Duration = Duration::from_secs(5);

/// Signatures of one message.
const MAX_SIGNATURES: usize = 4;

/// The DKIM-Signature fields for a message of ours; empty when there is no key, or nobody signs.
pub(crate) async fn sign(shared: &Shared, message: &[u8], now: UnixNanos) -> String {
    try_sign(shared, message, now).await.unwrap_or_else(|error| {
        tracing::warn!(error = format!("{error:#}"), "a notification goes out unsigned");
        String::new()
    })
}

async fn try_sign(shared: &Shared, message: &[u8], now: UnixNanos) -> anyhow::Result<String> {
    let keys = shared.keyholder.client().await?;
    let signer = keys.dkim_request().send().pipeline.get_signer();
    let _turn = shared.keyholder.permit().await;
    let described = within(CALL, signer.describe_request().send().promise).await?;
    let end = message.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.context("a message without a body")? + 2;
    let (header, body) = message.split_at_checked(end).context("its header")?;
    let mut hash = BodyHash::new(mailauth::dkim::Canonicalization::Relaxed);
    hash.update(body.get(2..).unwrap_or_default());
    let hash = hash.finish();
    let mut signatures = String::new();
    for key in described.get()?.get_keys()?.iter().take(MAX_SIGNATURES) {
        let selector = key.get_selector()?.to_str()?.parse::<Selector>();
        let algorithm = key.get_algorithm()?.to_str()?.parse::<Algorithm>();
        // One that this build does not know is another's to use.
        let (Ok(selector), Ok(algorithm)) = (selector, algorithm) else { continue };
        let recipe = Recipe::usual(&shared.hostname, &selector, algorithm, now);
        let draft = Draft::new(&recipe, &fields(header)?, &hash)?;
        if let Some(signature) = with_key(&signer, &selector, draft.block()).await? {
            signatures.push_str(&draft.finish(&signature));
        }
    }
    Ok(signatures)
}

/// None when the key is no longer there.
async fn with_key(
    signer: &dkim_signer::Client,
    selector: &Selector,
    block: &[u8],
) -> anyhow::Result<Option<Vec<u8>>> {
    let mut request = signer.sign_request();
    request.get().set_selector(selector.as_str());
    request.get().set_headers(block);
    let answer = within(CALL, request.send().promise).await?;
    Ok(match answer.get()?.get_outcome()?.which()? {
        outcome::Signature(signature) => Some(signature?.to_vec()),
        outcome::StaleSelector(()) | outcome::NoKey(()) => None,
        outcome::OverRate(()) => anyhow::bail!("above the rate of this process"),
    })
}
