//! The folders of accounts, kept in step with the directory.
//!
//! A new account's folder and databases come first; its block in domains.toml is the commit. So what
//! is found at start without a block is either an account that was never committed or one whose block
//! was removed: both wait 30 days, in case the block comes back, and are removed then.

use crate::auth::vault::{Vault, VaultError};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};
use types::{AccountId, UnixNanos};

/// How long a folder without a block is kept.
pub(crate) const DETACHED_FOR: Duration = Duration::from_secs(30 * 86_400);
/// Accounts whose folder is being removed carry this, so that half a removal is finished at start.
const REMOVED: &str = ".removed";

/// Where the account's databases and segments are.
pub(crate) fn of(folder: &Path, account: AccountId) -> PathBuf {
    folder.join("accounts").join(account.to_string())
}

/// A fresh id; no folder has it.
pub(crate) fn fresh(folder: &Path) -> io::Result<AccountId> {
    let mut bytes = [0; AccountId::OCTETS];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    let id = AccountId::from_bytes(bytes);
    if of(folder, id).exists() { Err(io::Error::other("a random id came twice")) } else { Ok(id) }
}

/// The ids of all account folders; finishes removals that were cut off.
pub(crate) fn all(folder: &Path) -> io::Result<Vec<AccountId>> {
    let accounts = folder.join("accounts");
    fs::create_dir_all(&accounts)?;
    let mut ids = Vec::new();
    for entry in fs::read_dir(&accounts)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(REMOVED) {
            fs::remove_dir_all(entry.path())?;
        } else if let Ok(id) = name.parse() {
            ids.push(id);
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Removes an account's folder: out of sight first, in one step.
pub(crate) fn remove(folder: &Path, account: AccountId) -> io::Result<()> {
    let path = of(folder, account);
    let removed = folder.join("accounts").join(format!("{account}{REMOVED}"));
    match fs::rename(&path, &removed) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    crate::files::sync_folder(&removed)?;
    fs::remove_dir_all(&removed)
}

/// Notes which folders have no block now, and removes those that have had none for 30 days.
pub(crate) async fn sweep(
    folder: &Path,
    vault: &Vault,
    is_listed: impl Fn(AccountId) -> bool,
    now: UnixNanos,
) -> Result<Vec<AccountId>, SweepError> {
    let without: Vec<AccountId> = all(folder)?.into_iter().filter(|id| !is_listed(*id)).collect();
    let kept = i64::try_from(DETACHED_FOR.as_nanos()).unwrap_or(i64::MAX);
    let before = UnixNanos(now.0.saturating_sub(kept));
    let old = vault.run(move |records| records.detached(&without, now, before)).await?;
    for &account in &old {
        vault.run(move |records| records.forget(account)).await?;
        remove(folder, account)?;
        tracing::info!(%account, "removed the folder of an account that left the directory");
    }
    Ok(old)
}

/// A sweep did not come to its end; the next one goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Vault(#[from] VaultError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::records::Records;

    #[tokio::test]
    async fn folders_without_a_block_go_after_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let vault =
            Vault::start(Records::open(folder.path(), storage::Open::default()).unwrap()).unwrap();
        let (kept, gone) = (AccountId::from_bytes([1; 10]), AccountId::from_bytes([2; 10]));
        for id in [kept, gone] {
            fs::create_dir_all(of(folder.path(), id)).unwrap();
            vault.run(move |records| records.create(id)).await.unwrap();
        }
        fs::create_dir_all(folder.path().join("accounts/cut-off.removed/x")).unwrap();
        let day = |n: i64| UnixNanos::from_seconds(n * 86_400);
        let sweep = async |n| sweep(folder.path(), &vault, |id| id == kept, day(n)).await.unwrap();
        assert!(sweep(100).await.is_empty());
        assert!(sweep(129).await.is_empty());
        assert_eq!(sweep(131).await, [gone]);
        assert_eq!(all(folder.path()).unwrap(), [kept]);
        assert_eq!(fs::read_dir(folder.path().join("accounts")).unwrap().count(), 1);
    }
}
