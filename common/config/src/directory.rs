//! domains.toml: the hosted domains, their accounts, addresses and aliases.
//!
//! The text is the truth: it is read as a whole, every fault is reported with its place, and only a
//! text without faults becomes a [`Directory`], which is immutable and answers what an address means
//! ([`Directory::resolve`]). Changes are edits of the text ([`edit`]) that keep comments and layout;
//! who writes it to the disk is accountd.
//!
//! ```
//! use config::directory::{Directory, Host, Resolved};
//! let text = "[domain.\"example.org\"]\nlocalpart_separators = [\"+\"]\n\
//!     [account.ann.address.\"ann@example.org\"]\n";
//! let directory = Directory::parse("domains.toml", text, &Host::default()).expect("no faults");
//! let address = "Ann+list@example.org".parse()?;
//! assert!(matches!(directory.resolve(&address), Resolved::Account { .. }));
//! # Ok::<(), types::AddressError>(())
//! ```

pub mod edit;
mod read_accounts;
mod resolve;

pub use resolve::Resolved;

use crate::{problem::Problem, read::Source};
use std::collections::BTreeMap;
use types::{AccountId, Address, Domain};

/// Domains in one directory.
pub const MAX_DOMAINS: usize = 20_000;
/// Accounts in one directory.
pub const MAX_ACCOUNTS: usize = 100_000;
/// Members of one alias.
pub const MAX_ALIAS_MEMBERS: usize = 1_000;
/// Separators of one domain.
pub const MAX_SEPARATORS: usize = 8;
/// Octets of an account's name.
pub const MAX_ACCOUNT_NAME: usize = 64;
/// Octets of a text that is shown to a peer (`login_disabled`, `smtp_error`).
pub const MAX_SHOWN_TEXT: usize = 256;

/// What the static configuration says that address resolution needs.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Our host name and those of the listeners that take mail: `postmaster` is valid at each.
    pub names: Vec<Domain>,
    /// The account that gets the postmaster's mail.
    pub postmaster: Option<String>,
    /// The mailbox there.
    pub postmaster_mailbox: Option<String>,
    /// For development: every address of every domain is local, and what is unknown goes to this
    /// account.
    pub catch_everything: Option<String>,
}

/// A hosted domain.
#[derive(Debug, Clone)]
pub struct HostedDomain {
    /// Off: its mail is deferred, and nothing is sent as it. Log-in still works.
    pub enabled: bool,
    /// For people.
    pub description: String,
    /// Name shown to mail clients.
    pub client_settings: Option<Domain>,
    /// Each cuts a localpart at its first occurrence.
    pub separators: Vec<String>,
    /// Localparts that differ in case are different.
    pub case_sensitive: bool,
    /// DKIM selectors in use; empty: every key that keyholder has for the domain.
    pub dkim_selectors: Vec<String>,
    /// Aliases by canonical localpart.
    pub aliases: BTreeMap<String, Alias>,
}

/// Who may send to an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posting {
    /// Its members, by the author of the message.
    Members,
    /// These canonical local addresses, by the author of the message, members or not.
    Listed(Vec<Address>),
    /// Anyone.
    Public,
}

/// An address that stands for several.
#[derive(Debug, Clone)]
pub struct Alias {
    /// Canonical local addresses.
    pub members: Vec<Address>,
    /// Who may send to it.
    pub posting: Posting,
    /// Members see each other.
    pub members_visible: bool,
    /// Members may send as it.
    pub allow_from: bool,
}

/// An account: a person's mail and rights.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its name in the directory, for people.
    pub name: String,
    /// Names its folder. None until accountd gave it one.
    pub id: Option<AccountId>,
    /// Set: log-in is refused with this text, delivery goes on.
    pub login_disabled: Option<String>,
    /// The domain new addresses are made in.
    pub default_domain: Option<Domain>,
    /// For people.
    pub full_name: String,
    /// For people.
    pub description: String,
    /// Octets it may hold; 0 is no limit.
    pub quota: u64,
    /// The user may choose a password, or only have one generated.
    pub custom_password: bool,
    /// Recipients a day.
    pub max_outgoing_per_day: u32,
    /// Recipients a day that were never written to before.
    pub max_first_time_per_day: u32,
    /// Its addresses, canonical, in order.
    pub addresses: Vec<Address>,
    /// Domains all of whose unknown localparts are this account's.
    pub catchalls: Vec<Domain>,
}

/// What happens to mail for one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// It goes to this mailbox.
    Mailbox(String),
    /// It is refused.
    Refused {
        /// 451 or 550.
        code: u16,
        /// Shown to the peer.
        text: String,
    },
}

/// Whose an address is.
#[derive(Debug, Clone)]
pub(crate) struct Owned {
    pub(crate) account: String,
    pub(crate) destination: Destination,
}

/// domains.toml without faults.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    domains: BTreeMap<Domain, HostedDomain>,
    accounts: BTreeMap<String, Account>,
    ids: BTreeMap<AccountId, String>,
    addresses: BTreeMap<Address, Owned>,
    catchalls: BTreeMap<Domain, Owned>,
    host: Host,
}

impl Directory {
    /// Reads a whole domains.toml.
    ///
    /// # Errors
    /// Every fault found, in the order of the file.
    pub fn parse(file: &str, text: &str, host: &Host) -> Result<Self, Vec<Problem>> {
        Self::parse_after(file, text, host, None)
    }

    /// As [`Self::parse`], a text that is to follow `before`: an account that both have keeps its id,
    /// or its mail would be gone without a word.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_after(
        file: &str,
        text: &str,
        host: &Host,
        before: Option<&Self>,
    ) -> Result<Self, Vec<Problem>> {
        let source = Source::new(file, text);
        let read = read_accounts::read(&source, host, before);
        let problems = source.problems();
        match read {
            Some(directory) if problems.is_empty() => Ok(directory),
            _ => Err(problems),
        }
    }

    /// The hosted domains.
    pub fn domains(&self) -> impl Iterator<Item = (&Domain, &HostedDomain)> {
        self.domains.iter()
    }

    /// One hosted domain.
    #[must_use]
    pub fn domain(&self, name: &Domain) -> Option<&HostedDomain> {
        self.domains.get(name)
    }

    /// The accounts by name.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// The accounts whose name comes after this one.
    pub fn accounts_after(&self, name: &str) -> impl Iterator<Item = &Account> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.accounts.range::<str, _>((Excluded(name), Unbounded)).map(|(_, account)| account)
    }

    /// One account.
    #[must_use]
    pub fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.get(name)
    }

    /// The account of a folder.
    #[must_use]
    pub fn account_by_id(&self, id: AccountId) -> Option<&Account> {
        self.ids.get(&id).and_then(|name| self.accounts.get(name))
    }

    /// Accounts with an address in this domain.
    #[must_use]
    pub fn accounts_in(&self, domain: &Domain) -> usize {
        let has = |account: &&Account| {
            account.addresses.iter().any(|address| address.domain() == domain)
                || account.catchalls.contains(domain)
        };
        self.accounts.values().filter(has).count()
    }

    /// What the static configuration says.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }
}

impl HostedDomain {
    /// The one spelling of a localpart of this domain: case folded unless it matters, and what
    /// follows a separator cut off.
    #[must_use]
    pub fn canonical_localpart(&self, localpart: &str) -> String {
        let mut canonical =
            if self.case_sensitive { localpart.to_owned() } else { localpart.to_lowercase() };
        for separator in &self.separators {
            // A cut at 0 would leave no localpart at all.
            if let Some(at) = canonical.find(separator.as_str()).filter(|&at| at > 0) {
                canonical.truncate(at);
            }
        }
        canonical
    }

    /// Whether it has a separator in it, so that it could never be reached.
    fn cuts(&self, localpart: &str) -> bool {
        self.separators.iter().any(|separator| localpart.contains(separator.as_str()))
    }
}
