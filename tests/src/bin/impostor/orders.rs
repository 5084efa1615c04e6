//! What the test told the impostor before it started: a file beside its binary.

use anyhow::Context as _;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The file.
const FILE: &str = "impostor.json";

/// What an attacker may know: names, one password that was typed, public halves of keys.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Orders {
    /// Who types a password into this process.
    pub(crate) user: String,
    /// Which.
    pub(crate) password: String,
    /// Somebody who does not.
    pub(crate) other: String,
    /// A domain that is hosted.
    pub(crate) domain: String,
    /// The administrators' password.
    pub(crate) admin_password: String,
    /// By role: the public id of its TLS key.
    pub(crate) keys: BTreeMap<String, u64>,
    /// SHA-256 of a client key of `other`: every TLS 1.2 handshake shows its certificate.
    pub(crate) client_key: Vec<u8>,
}

impl Orders {
    /// Reads them, while a file can still be opened.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("our own file")?;
        let file = own.with_file_name(FILE);
        let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_slice(&text).context("orders")
    }
}
