//! Copies of databases that were made before a migration, and are not needed any more.

use super::{Account, Store, StoreError, index::Index};
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use storage::{Error, old_copies};
use types::{AccountId, Clock};

/// How long a copy is kept: a release that turned out wrong was left again long before.
pub(crate) const COPIES_KEPT: Duration = Duration::from_secs(14 * 24 * 3600);

fn bound(clock: &dyn Clock) -> SystemTime {
    let now = u64::try_from(clock.now().seconds()).unwrap_or(0);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
    now.checked_sub(COPIES_KEPT).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn database(folder: &Path) -> PathBuf {
    folder.join("index.db")
}

impl Store {
    /// The accounts that have a copy which is old enough to go. Blocks: reads each one's folder.
    ///
    /// # Errors
    /// When the folder of accounts cannot be read.
    pub fn with_old_copies(&self) -> Result<Vec<AccountId>, StoreError> {
        let ports = self.ports();
        let before = bound(ports.clock.as_ref());
        let mut accounts = self.accounts()?;
        accounts.retain(|id| {
            // One that was removed meanwhile has none.
            old_copies(ports.disk.as_ref(), &database(&self.folder(*id)), before)
                .is_ok_and(|copies| !copies.is_empty())
        });
        Ok(accounts)
    }
}

impl Account {
    /// Removes old copies of its database. One that this build cannot open keeps them: somebody may
    /// have to go back to one.
    ///
    /// # Errors
    /// When it cannot be opened or the disk fails.
    pub async fn remove_old_copies(&self) -> Result<(), StoreError> {
        self.write(Index::remove_old_copies).await
    }
}

impl Index {
    pub(crate) fn remove_old_copies(&mut self) -> Result<(), StoreError> {
        if let Some(why) = &self.damaged {
            return Err(StoreError::Damaged(why.clone()));
        }
        let disk = self.ports.disk.as_ref();
        let before = bound(self.ports.clock.as_ref());
        // A crash that brings one back leaves it to the next time.
        for copy in old_copies(disk, &database(&self.folder), before)? {
            disk.remove(&copy).map_err(|e| Error::file("remove an old copy", &e))?;
            let (account, copy) = (self.shared.id, copy.display());
            tracing::info!(%account, %copy, "a copy made before a migration was removed");
        }
        Ok(())
    }
}
