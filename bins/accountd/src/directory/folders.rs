//! The folders of accounts, kept in step with the directory.
//!
//! A new account's folder and databases come first; its block in domains.toml is the commit. So what
//! is found at start without a block is either an account that was never committed or one whose block
//! was removed: both wait 30 days, in case the block comes back, and are removed then. Nothing of this
//! is done by a directory that is known not to be the one on the disk.

use super::Directories;
use crate::{
    auth::vault::{Vault, VaultError},
    store::{Store, StoreError},
};
use std::{io, time::Duration};
use types::{AccountId, UnixNanos};

/// How long a folder without a block is kept.
pub(crate) const DETACHED_FOR: Duration = Duration::from_secs(30 * 86_400);

/// A fresh id; no folder has it.
pub(crate) fn fresh(store: &Store) -> io::Result<AccountId> {
    let mut bytes = [0; AccountId::OCTETS];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    let id = AccountId::from_bytes(bytes);
    if store.folder(id).exists() { Err(io::Error::other("a random id came twice")) } else { Ok(id) }
}

/// Notes which folders have no block now, and removes those that have had none for 30 days. While
/// the directory in force is not that of the file, a block that it lacks may well be there.
pub(crate) async fn sweep(
    store: &Store,
    vault: &Vault,
    directories: &Directories,
    now: UnixNanos,
) -> Result<Vec<AccountId>, SweepError> {
    if directories.why_unsound().is_some() {
        return Ok(Vec::new());
    }
    let snapshot = directories.now();
    let is_listed = |id| snapshot.directory.account_by_id(id).is_some();
    let without: Vec<AccountId> =
        store.accounts()?.into_iter().filter(|id| !is_listed(*id)).collect();
    let kept = i64::try_from(DETACHED_FOR.as_nanos()).unwrap_or(i64::MAX);
    let before = UnixNanos(now.0.saturating_sub(kept));
    let old = vault.run(move |records| records.detached(&without, now, before)).await?;
    for &account in &old {
        vault.run(move |records| records.forget(account)).await?;
        match store.remove_account(account).await {
            Ok(()) | Err(StoreError::NoSuchAccount) => {}
            Err(error) => return Err(error.into()),
        }
        tracing::info!(%account, "removed the folder of an account that left the directory");
    }
    Ok(old)
}

/// A sweep did not come to its end; the next one goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Vault(#[from] VaultError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::records::Records;
    use config::directory::Host;

    #[tokio::test]
    async fn folders_without_a_block_go_after_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::testing::store(folder.path());
        let records = Records::open(folder.path(), storage::Open::default()).unwrap();
        let vault = Vault::start(records, daemon::Workers::Threads).unwrap();
        let [kept, gone] = [1, 2].map(|n| AccountId::from_bytes([n; 10]));
        for id in [kept, gone] {
            store.create_account(id).await.unwrap();
            vault.run(move |records| records.create(id)).await.unwrap();
        }
        let day = |n: i64| UnixNanos::from_seconds(n * 86_400);
        let open = || Directories::open(folder.path(), Host::default()).unwrap();
        let directories = open();
        let text = format!("[account.kept]\nid = \"{kept}\"\n");
        directories.write(text, directories.now().revision).unwrap();
        let sweep =
            async |of: &Directories, n| super::sweep(&store, &vault, of, day(n)).await.unwrap();
        // Started from an older text: who is not in it is not noted as gone, and nobody goes.
        let path = folder.path().join("directory/domains.toml");
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, "[account").unwrap();
        let unsound = open();
        assert!(unsound.why_unsound().is_some());
        assert!(sweep(&unsound, 60).await.is_empty());
        std::fs::write(&path, good).unwrap();
        let directories = open();
        assert!(sweep(&directories, 100).await.is_empty(), "noted for the first time");
        assert!(sweep(&directories, 129).await.is_empty());
        std::fs::write(&path, "[account").unwrap();
        assert!(sweep(&open(), 131).await.is_empty());
        assert_eq!(sweep(&directories, 131).await, [gone]);
        assert_eq!(store.accounts().unwrap(), [kept]);
        assert!(!store.folder(gone).exists());
    }
}
