//! The store as a whole: starting and stopping it, making and removing accounts.

use super::{
    Account, StoreError,
    index::{Ports, Tuning},
    shared::Shared,
    worker::{Pool, Threads},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use storage::Error;
use types::AccountId;

/// Folders of accounts that are being removed begin with this.
const REMOVED: &str = "removed-";

/// All accounts below one folder. Cloning is cheap.
#[derive(Clone)]
pub struct Store {
    pool: Arc<Pool>,
    accounts: Arc<Mutex<BTreeMap<AccountId, Arc<Shared>>>>,
}

impl Store {
    /// Starts the threads over the accounts in `root` (which must exist), and finishes removals that
    /// were interrupted.
    ///
    /// # Errors
    /// When the folder cannot be read or a thread cannot be started.
    pub fn start(
        root: &Path,
        ports: Ports,
        tuning: Tuning,
        threads: Threads,
    ) -> Result<Self, StoreError> {
        let names =
            ports.disk.list(root).map_err(|e| Error::file("list the folder of accounts", &e))?;
        for name in names {
            if name.to_string_lossy().starts_with(REMOVED) {
                ports
                    .disk
                    .remove_tree(&root.join(name))
                    .map_err(|e| Error::file("finish a removal", &e))?;
            }
        }
        let pool = Arc::new(Pool::start(root.to_owned(), ports, tuning, threads)?);
        Ok(Self { pool, accounts: Arc::default() })
    }

    pub(super) fn ports(&self) -> &Ports {
        self.pool.ports()
    }

    /// A handle for an account; nothing is opened.
    #[must_use]
    pub fn account(&self, id: AccountId) -> Account {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = accounts.entry(id).or_insert_with(|| {
            let born = self.pool.ports().clock.monotonic();
            Arc::new(Shared::new(id, born))
        });
        Account { pool: Arc::clone(&self.pool), shared: Arc::clone(shared) }
    }

    /// Makes an account with its initial mailboxes; durable when this returns. One that was made
    /// before, whole, is [`StoreError::AccountExists`].
    ///
    /// # Errors
    /// [`StoreError::AccountExists`], or temporary ones.
    pub async fn create_account(&self, id: AccountId) -> Result<Account, StoreError> {
        let account = self.account(id);
        self.pool.create(&account.shared).await?;
        Ok(account)
    }

    /// Removes an account: at once and durably out of sight, then its files.
    ///
    /// # Errors
    /// [`StoreError::NoSuchAccount`], or temporary ones.
    pub async fn remove_account(&self, id: AccountId) -> Result<(), StoreError> {
        let account = self.account(id);
        let disk = Arc::clone(&self.pool.ports().disk);
        let root = self.pool.root().to_owned();
        let removal = move || {
            let (from, to) = (root.join(id.to_string()), root.join(format!("{REMOVED}{id}")));
            if !disk.exists(&from) {
                return Err(StoreError::NoSuchAccount);
            }
            disk.rename(&from, &to).map_err(|e| Error::file("remove an account", &e))?;
            disk.sync_dir(&root).map_err(|e| Error::sync("folder of accounts", &e))?;
            // Gone for good from here on; a crash leaves files for the next start to remove.
            disk.remove_tree(&to).map_err(|e| Error::file("remove an account", &e))?;
            Ok(())
        };
        self.pool.close(&account.shared, removal).await?;
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        Ok(())
    }

    /// The accounts that have a folder, sorted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn accounts(&self) -> Result<Vec<AccountId>, StoreError> {
        let names = self
            .pool
            .ports()
            .disk
            .list(self.pool.root())
            .map_err(|e| Error::file("list the folder of accounts", &e))?;
        let mut ids: Vec<AccountId> =
            names.iter().filter_map(|n| n.to_str()?.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The folder of an account: for what else belongs to it (`auth.db`).
    #[must_use]
    pub fn folder(&self, id: AccountId) -> PathBuf {
        self.pool.root().join(id.to_string())
    }

    /// Whether the account has a folder.
    pub fn has_account(&self, id: AccountId) -> bool {
        self.pool.ports().disk.exists(&self.folder(id))
    }

    /// Ends all threads after what they are doing; every later call says [`StoreError::Stopped`].
    /// Blocks for that long.
    pub fn stop(&self) {
        self.pool.stop();
    }
}
