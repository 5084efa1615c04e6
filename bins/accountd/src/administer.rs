//! What an administrator does to the directory and the credentials: each change whole, in the order
//! that a power cut cannot turn into half of it.

use crate::{
    auth::{authority::Failure, history::Attempt, opaque, records::ClientKey, vault::VaultError},
    directory::{ChangeError, Snapshot, folders},
    intake::header,
    service::Service,
    store::StoreError,
};
use config::directory::edit::{Edit, EditError};
use ipc::schema::keyholder_capnp::key_admin::Algorithm;
use types::{AccountId, Address, Domain};

/// Domains whose DKIM records the status shows.
const MAX_SHOWN_DOMAINS: usize = 20;
/// Octets of a key's label.
const MAX_LABEL: usize = 128;

/// What went wrong, for an administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) kind: ProblemKind,
    pub(crate) text: String,
}

/// Its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    Missing,
    Exists,
    Invalid,
    Temporary,
    InUse,
}

impl Trouble {
    fn new(kind: ProblemKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(crate) fn invalid(text: &str) -> Self {
        Self::new(ProblemKind::Invalid, text)
    }

    pub(crate) fn no_account(name: &str) -> Self {
        Self::new(ProblemKind::Missing, format!("account {name} does not exist"))
    }

    fn temporary(text: impl Into<String>) -> Self {
        Self::new(ProblemKind::Temporary, text)
    }
}

impl From<ChangeError> for Trouble {
    fn from(error: ChangeError) -> Self {
        let kind = match &error {
            ChangeError::Edit(EditError::Exists(_)) => ProblemKind::Exists,
            ChangeError::Edit(EditError::Missing(_)) => ProblemKind::Missing,
            ChangeError::Edit(EditError::InUse(_)) => ProblemKind::InUse,
            ChangeError::Edit(EditError::Syntax(_) | EditError::Invalid(_))
            | ChangeError::Faults(_)
            | ChangeError::Refused(_) => ProblemKind::Invalid,
            ChangeError::Modified | ChangeError::Unsound(_) => ProblemKind::InUse,
            ChangeError::Write(_) => ProblemKind::Temporary,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        let kind = if error.is_temporary() { ProblemKind::Temporary } else { ProblemKind::Missing };
        Self::new(kind, error.to_string())
    }
}

impl From<VaultError> for Trouble {
    fn from(error: VaultError) -> Self {
        Self::temporary(error.to_string())
    }
}

impl From<Failure> for Trouble {
    fn from(_: Failure) -> Self {
        Self::temporary("keyholder or the credential store does not answer; the log says more")
    }
}

impl From<opaque::BadPassword> for Trouble {
    fn from(error: opaque::BadPassword) -> Self {
        Self::invalid(&error.to_string())
    }
}

impl Service {
    /// The id of an account by its name.
    pub(crate) fn id_of(&self, name: &str) -> Result<AccountId, Trouble> {
        let snapshot = self.directories.now();
        let account = snapshot.directory.account(name).ok_or_else(|| Trouble::no_account(name))?;
        account.id.ok_or_else(|| Trouble::temporary("the account is being made"))
    }

    /// A new account: folder, databases and password first; the rename of domains.toml is the
    /// commit. What a power cut leaves before it is a folder without a block, and goes in time.
    pub(crate) async fn account_add(
        &self,
        name: &str,
        address: &Address,
        password: &str,
    ) -> Result<(), Trouble> {
        let prepared = match password {
            "" => None,
            password => Some(opaque::prepare_new(password)?),
        };
        let id = folders::fresh(&self.store).map_err(|e| Trouble::temporary(e.to_string()))?;
        let edit = Edit::AccountAdd { name, id, address };
        self.directories.would_accept(&edit)?;
        self.make(id).await?;
        if let Some(password) = prepared {
            self.authority.set_password(id, std::slice::from_ref(address), password).await?;
        }
        self.directories.change(&edit)?;
        tracing::info!(account = name, %id, "account made");
        Ok(())
    }

    /// Folder and databases of an account.
    async fn make(&self, id: AccountId) -> Result<(), Trouble> {
        match self.store.create_account(id).await {
            Ok(_) | Err(StoreError::AccountExists) => {}
            Err(error) => return Err(error.into()),
        }
        self.authority.vault.run(move |records| records.create(id)).await?;
        Ok(())
    }

    /// Makes what blocks without an id name, and what blocks with one name but nobody has made yet
    /// (a hand-edited file, or one from a backup).
    pub(crate) async fn make_missing(&self) -> Result<(), Trouble> {
        let snapshot = self.directories.now();
        for account in snapshot.directory.accounts() {
            match account.id {
                // The file cannot be given an id until it is mended; then this is asked again.
                None if self.directories.why_unsound().is_some() => {}
                None => {
                    let id = folders::fresh(&self.store)
                        .map_err(|e| Trouble::temporary(e.to_string()))?;
                    self.make(id).await?;
                    self.directories.change(&Edit::AccountId { name: &account.name, id })?;
                    tracing::info!(account = account.name, %id, "account made");
                }
                Some(id) if !self.store.folder(id).exists() => self.make(id).await?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Removes an account's block. Its sessions end; its folder is kept for 30 days.
    pub(crate) async fn account_remove(&self, name: &str) -> Result<(), Trouble> {
        let now = self.directories.now();
        let id = now.directory.account(name).map(|account| account.id);
        if id.is_some() && now.directory.host().postmaster.as_deref() == Some(name) {
            let text = format!(
                "{name} gets the postmaster's mail: name another account in [postmaster] of mox.toml \
                 first, and `moxctl reload`"
            );
            return Err(Trouble::new(ProblemKind::InUse, text));
        }
        let id = id.flatten();
        self.directories.change(&Edit::AccountRemove(name))?;
        if let Some(id) = id {
            self.authority.revoke_account(id, "the account was removed").await?;
        }
        self.sweep().await;
        Ok(())
    }

    /// Refuses log-ins, and ends sessions.
    pub(crate) async fn account_disable(&self, name: &str, message: &str) -> Result<(), Trouble> {
        if message.trim().is_empty() {
            return Err(Trouble::invalid("a disabled account needs a message for its user"));
        }
        self.directories.change(&Edit::LoginDisabled { name, message })?;
        let id = self.id_of(name)?;
        self.authority.revoke_account(id, "the account was disabled").await?;
        Ok(())
    }

    pub(crate) fn account_enable(&self, name: &str) -> Result<(), Trouble> {
        self.directories.change(&Edit::LoginDisabled { name, message: "" })?;
        Ok(())
    }

    pub(crate) async fn account_password(&self, name: &str, password: &str) -> Result<(), Trouble> {
        let id = self.id_of(name)?;
        let password = opaque::prepare_new(password)?;
        let snapshot = self.directories.now();
        let account = snapshot.directory.account(name);
        let addresses = account.map_or(&[][..], |account| &account.addresses);
        self.authority.set_password(id, addresses, password).await?;
        Ok(())
    }

    pub(crate) async fn admin_password(&self, password: &str) -> Result<(), Trouble> {
        let password = opaque::prepare_new(password)?;
        self.authority.set_admin_password(password).await?;
        Ok(())
    }

    /// The latest attempts to log in; an empty name: those of unknown names.
    pub(crate) async fn logins(&self, name: &str, max: u32) -> Result<Vec<Attempt>, Trouble> {
        let account = if name.is_empty() { None } else { Some(self.id_of(name)?) };
        Ok(self.authority.vault.run(move |records| records.attempts(account, max)).await?)
    }

    /// Keys of an account; an empty name: of all.
    pub(crate) async fn keys(&self, name: &str) -> Result<Vec<ClientKey>, Trouble> {
        let account = if name.is_empty() { None } else { Some(self.id_of(name)?) };
        Ok(self.authority.vault.run(move |records| records.keys(account)).await?)
    }

    pub(crate) async fn key_add(
        &self,
        name: &str,
        fingerprint: &[u8],
        label: &str,
        login: &str,
    ) -> Result<(), Trouble> {
        let id = self.id_of(name)?;
        let fingerprint = <[u8; 32]>::try_from(fingerprint)
            .map_err(|_| Trouble::invalid("a fingerprint has 32 octets"))?;
        if label.len() > MAX_LABEL || label.chars().any(char::is_control) {
            return Err(Trouble::invalid(
                "a label has at most 128 octets and no control characters",
            ));
        }
        let address: Address =
            login.parse().map_err(|why| Trouble::invalid(&format!("{login:?}: {why}")))?;
        let snapshot = self.directories.now();
        let owner = snapshot.directory.login(&address).and_then(|(account, _)| account.id);
        if owner != Some(id) {
            return Err(Trouble::invalid("the log-in address is not the account's"));
        }
        let (label, login) = (label.to_owned(), address.to_string());
        if self.authority.key_add(id, fingerprint, label, login).await? {
            Ok(())
        } else {
            Err(Trouble::new(
                ProblemKind::Exists,
                "the key belongs to an account, or the account has too many",
            ))
        }
    }

    pub(crate) async fn key_remove(&self, fingerprint: &[u8]) -> Result<(), Trouble> {
        let missing = || Trouble::new(ProblemKind::Missing, "no such key");
        let fingerprint = <[u8; 32]>::try_from(fingerprint).map_err(|_| missing())?;
        self.authority.key_remove(fingerprint).await?.map(|_| ()).ok_or_else(missing)
    }

    pub(crate) fn address_add(&self, address: &str, account: &str) -> Result<(), Trouble> {
        self.directories.change(&Edit::AddressAdd { address, account })?;
        Ok(())
    }

    pub(crate) fn address_remove(&self, address: &str) -> Result<(), Trouble> {
        self.directories.change(&Edit::AddressRemove(address))?;
        Ok(())
    }

    /// A new domain; with an account, its postmaster address is that account's.
    pub(crate) async fn domain_add(&self, domain: &Domain, account: &str) -> Result<(), Trouble> {
        if !account.is_empty() {
            self.id_of(account)?;
        }
        self.directories.change(&Edit::DomainAdd(domain))?;
        if !account.is_empty() {
            let address = format!("postmaster@{domain}");
            self.directories.change(&Edit::AddressAdd { address: &address, account })?;
        }
        self.tell_hosted().await;
        self.make_dkim_keys(domain).await;
        Ok(())
    }

    /// Gives a domain its first DKIM keys. A signature whose record is not published yet counts as
    /// none, so they may be used at once; `moxctl` shows the records.
    pub(crate) async fn make_dkim_keys(&self, domain: &Domain) {
        let year = header::year(self.clock.now());
        for (letter, algorithm) in [("a", Algorithm::Ed25519), ("b", Algorithm::Rsa2048)] {
            let selector = format!("{year}{letter}");
            if let Err(error) = self.keyholder.generate(domain, &selector, algorithm).await {
                tracing::warn!(%error, %domain, selector, "no DKIM key was made");
            }
        }
    }

    /// And the host name, as which notifications are signed; unless it is there from a year before.
    pub(crate) async fn make_host_keys(&self) {
        let host = &self.settings.hostname;
        match self.keyholder.records(host).await {
            Ok(records) if records.is_empty() => self.make_dkim_keys(host).await,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the keys of the host name"),
        }
    }

    pub(crate) async fn domain_remove(&self, domain: &Domain) -> Result<(), Trouble> {
        let snapshot = self.directories.now();
        let users = snapshot.directory.accounts_in(domain);
        if users > 0 {
            let text = format!("{users} accounts have addresses in {domain}; remove those first");
            return Err(Trouble::new(ProblemKind::InUse, text));
        }
        self.directories.change(&Edit::DomainRemove(domain))?;
        self.tell_hosted().await;
        Ok(())
    }

    /// A whole new text. Accounts it adds are made, sessions of those it removes or disables end.
    pub(crate) async fn directory_write(&self, text: &str, revision: u64) -> Result<(), Trouble> {
        let before = self.directories.now();
        self.directories.write(text.to_owned(), revision)?;
        self.settle(&before).await
    }

    /// Takes over what was written into domains.toml by hand, if it is sound.
    pub(crate) async fn look_at_directory(&self) {
        match self.directories.look() {
            Ok(None) => {}
            Ok(Some(before)) => {
                tracing::info!(revision = %format!("{:016x}", self.directories.now().revision),
                    "domains.toml was changed by hand, and counts");
                if let Err(trouble) = self.settle(&before).await {
                    tracing::error!(what = trouble.text, "alarm: accounts of domains.toml");
                }
            }
            Err(what) => {
                tracing::error!(what, "alarm: domains.toml is not sound; it changes nothing");
            }
        }
    }

    /// What a new state of the directory asks for.
    async fn settle(&self, before: &Snapshot) -> Result<(), Trouble> {
        self.make_missing().await?;
        let after = self.directories.now();
        for account in before.directory.accounts() {
            let Some(id) = account.id else { continue };
            let now = after.directory.account_by_id(id);
            let was_enabled = account.login_disabled.is_none();
            if now.is_none() {
                self.authority.revoke_account(id, "the account was removed").await?;
            } else if was_enabled && now.is_some_and(|a| a.login_disabled.is_some()) {
                self.authority.revoke_account(id, "the account was disabled").await?;
            }
        }
        self.sweep().await;
        self.tell_hosted().await;
        Ok(())
    }

    /// Notes detached folders and removes old ones.
    pub(crate) async fn sweep(&self) {
        let now = self.clock.now();
        let (vault, directories) = (&self.authority.vault, &self.directories);
        if let Err(error) = folders::sweep(&self.store, vault, directories, now).await {
            tracing::error!(%error, "folders of removed accounts");
        }
    }

    /// Removes copies of databases that were made before a migration long ago.
    pub(crate) async fn sweep_copies(&self) {
        let store = self.store.clone();
        let found = match self.workers.run(move || store.with_old_copies()).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return tracing::error!(%error, "old copies cannot be looked for"),
            Err(error) => return tracing::error!(%error, "old copies cannot be looked for"),
        };
        for account in found {
            if let Err(error) = self.store.account(account).remove_old_copies().await {
                tracing::warn!(%account, %error, "old copies of its database stay");
            }
        }
    }

    /// Tells keyholder which domains DKIM signers may be made for.
    pub(crate) async fn tell_hosted(&self) {
        let snapshot = self.directories.now();
        let domains: Vec<Domain> =
            snapshot.directory.domains().map(|(name, _)| name.clone()).collect();
        if let Err(error) = self.keyholder.hosted(&domains).await {
            tracing::warn!(%error, "keyholder does not know the hosted domains yet");
        }
    }

    /// How things stand, for `moxctl`.
    pub(crate) async fn status(&self) -> Vec<(String, String)> {
        let snapshot = self.directories.now();
        let mut lines: Vec<(String, String)> = [
            ("domains", snapshot.directory.domains().count().to_string()),
            ("accounts", snapshot.directory.accounts().count().to_string()),
            ("directory revision", format!("{:016x}", snapshot.revision)),
            ("sessions", self.authority.lives.count().to_string()),
            ("accounts with submissions for the queue", self.outboxes.waiting().to_string()),
            ("disk", if self.is_disk_low() { "low".into() } else { "ok".to_owned() }),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
        let alarms = self.alarms.told(self.clock.now()).into_iter();
        // In this order: the file first, whose fault everything else may be.
        let unsound = self.directories.why_unsound().map(|why| format!("not in force: {why}"));
        let parted = self.directories.why_parted();
        let parted = parted.map(|why| format!("in force since the last start all the same: {why}"));
        let postmaster = snapshot.directory.missing_postmaster().map(|name| {
            format!(
                "the account {name:?}, which [postmaster] of mox.toml names, does not exist: mail for \
                 postmaster is put off"
            )
        });
        let of_directory = unsound.into_iter().chain(parted).chain(postmaster);
        lines.extend(of_directory.chain(alarms).map(|what| ("alarm".to_owned(), what)));
        if !self.keyholder.knows_domains() {
            self.tell_hosted().await;
        }
        let host = &self.settings.hostname;
        let domains = snapshot.directory.domains().map(|(name, _)| name);
        let domains = domains.filter(|name| *name != host).take(MAX_SHOWN_DOMAINS);
        for domain in std::iter::once(host).chain(domains) {
            match self.keyholder.records(domain).await {
                Ok(records) => lines.extend(records),
                Err(error) => lines.push((format!("DKIM records of {domain}"), error.to_string())),
            }
        }
        lines
    }
}
