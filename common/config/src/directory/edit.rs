//! Edits of the text of domains.toml that leave every comment and line they do not touch alone.
//!
//! An edit only changes text; whether the result is sound is decided by reading it as a whole again,
//! so no rule stands in two places. What is checked here is only what the edit itself needs.

use super::read_accounts::check_account_name;
use toml_edit::{DocumentMut, Item, Table, value};
use types::{AccountId, Address, Domain};

/// Why an edit cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The text is no TOML.
    #[error("the file cannot be read: {0}")]
    Syntax(String),
    /// What is to be added is there.
    #[error("{0} exists already")]
    Exists(String),
    /// What is to be changed is not there.
    #[error("{0} does not exist")]
    Missing(String),
    /// Something else stands on it.
    #[error("{0}")]
    InUse(String),
    /// It cannot be that.
    #[error("{0}")]
    Invalid(String),
}

/// A change of domains.toml.
#[derive(Debug, Clone)]
pub enum Edit<'a> {
    /// A new account with one address.
    AccountAdd {
        /// Its name.
        name: &'a str,
        /// Its id.
        id: AccountId,
        /// Its first address.
        address: &'a Address,
    },
    /// Gives a block without id the id of its folder.
    AccountId {
        /// Which account.
        name: &'a str,
        /// The id.
        id: AccountId,
    },
    /// Removes an account's block; what aliases say of it must go first.
    AccountRemove(&'a str),
    /// Refuses log-in with a text; empty: allows it again.
    LoginDisabled {
        /// Which account.
        name: &'a str,
        /// The text users see.
        message: &'a str,
    },
    /// A further address, or `@domain`.
    AddressAdd {
        /// As it stands in the file.
        address: &'a str,
        /// Whose.
        account: &'a str,
    },
    /// Removes an address.
    AddressRemove(&'a str),
    /// A new domain.
    DomainAdd(&'a Domain),
    /// Removes a domain's block.
    DomainRemove(&'a Domain),
}

/// The text after an edit.
///
/// # Errors
/// [`EditError`] says which; the caller validates the result as a whole.
pub fn apply(text: &str, edit: &Edit<'_>) -> Result<String, EditError> {
    let mut document: DocumentMut =
        text.parse().map_err(|why: toml_edit::TomlError| EditError::Syntax(why.to_string()))?;
    match edit {
        Edit::AccountAdd { name, id, address } => {
            check_account_name(name).map_err(EditError::Invalid)?;
            let accounts = tables(&mut document, "account")?;
            if accounts.contains_key(name) {
                return Err(EditError::Exists(format!("account {name}")));
            }
            let mut block = Table::new();
            block["id"] = value(id.to_string());
            block["default_domain"] = value(address.domain().as_ascii());
            let mut addresses = implicit();
            addresses.insert(&address.to_string(), Item::Table(Table::new()));
            block.insert("address", Item::Table(addresses));
            accounts.insert(name, Item::Table(block));
        }
        Edit::AccountId { name, id } => account(&mut document, name)?["id"] = value(id.to_string()),
        Edit::AccountRemove(name) => {
            if tables(&mut document, "account")?.remove(name).is_none() {
                return Err(EditError::Missing(format!("account {name}")));
            }
        }
        Edit::LoginDisabled { name, message } => {
            let account = account(&mut document, name)?;
            if message.is_empty() {
                account.remove("login_disabled");
            } else {
                account["login_disabled"] = value(*message);
            }
        }
        Edit::AddressAdd { address, account: name } => {
            let account = account(&mut document, name)?;
            let addresses = account
                .entry("address")
                .or_insert_with(|| Item::Table(implicit()))
                .as_table_mut()
                .ok_or_else(|| EditError::Invalid("address is no table".into()))?;
            if addresses.contains_key(address) {
                return Err(EditError::Exists((*address).to_owned()));
            }
            addresses.insert(address, Item::Table(Table::new()));
        }
        Edit::AddressRemove(address) => {
            let accounts = tables(&mut document, "account")?;
            let removed = accounts.iter_mut().any(|(_, account)| {
                account
                    .as_table_like_mut()
                    .and_then(|account| account.get_mut("address"))
                    .and_then(Item::as_table_like_mut)
                    .is_some_and(|addresses| addresses.remove(address).is_some())
            });
            if !removed {
                return Err(EditError::Missing((*address).to_owned()));
            }
        }
        Edit::DomainAdd(domain) => {
            let domains = tables(&mut document, "domain")?;
            if find_domain(domains, domain).is_some() {
                return Err(EditError::Exists(format!("domain {domain}")));
            }
            let mut block = Table::new();
            let mut separators = toml_edit::Array::new();
            separators.push("+");
            block["localpart_separators"] = value(separators);
            domains.insert(domain.as_ascii(), Item::Table(block));
        }
        Edit::DomainRemove(domain) => {
            let domains = tables(&mut document, "domain")?;
            let key = find_domain(domains, domain)
                .ok_or_else(|| EditError::Missing(format!("domain {domain}")))?;
            domains.remove(&key);
        }
    }
    Ok(document.to_string())
}

/// The key a domain stands under, which may be its Unicode form.
fn find_domain(domains: &Table, domain: &Domain) -> Option<String> {
    let is_it = |key: &str| key.parse::<Domain>().is_ok_and(|parsed| parsed == *domain);
    domains.iter().map(|(key, _)| key).find(|key| is_it(key)).map(str::to_owned)
}

fn implicit() -> Table {
    let mut table = Table::new();
    table.set_implicit(true);
    table
}

fn tables<'d>(document: &'d mut DocumentMut, key: &str) -> Result<&'d mut Table, EditError> {
    document
        .entry(key)
        .or_insert_with(|| Item::Table(implicit()))
        .as_table_mut()
        .ok_or_else(|| EditError::Invalid(format!("{key} is no table")))
}

fn account<'d>(document: &'d mut DocumentMut, name: &str) -> Result<&'d mut Table, EditError> {
    let missing = || EditError::Missing(format!("account {name}"));
    let block = tables(document, "account")?
        .get_mut(name)
        .ok_or_else(missing)?
        .as_table_mut()
        .ok_or_else(|| EditError::Invalid(format!("account {name} is no table")))?;
    // `[account.x.address."a@b"]` alone makes x an implicit table, whose own keys would not print.
    block.set_implicit(false);
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{Directory, Host};

    const TEXT: &str = "# our domains\n[domain.\"bücher.example\"]  # the shop\nenabled = true\n\n\
        # staff\n[account.ann.address.\"ann@bücher.example\"]\nmailbox = \"Inbox\" # keep\n";

    fn id() -> AccountId {
        AccountId::from_bytes([7; 10])
    }

    #[test]
    fn comments_and_untouched_lines_stay() {
        let domain: Domain = "new.example".parse().unwrap();
        let address: Address = "bob@new.example".parse().unwrap();
        let mut text = TEXT.to_owned();
        for edit in [
            Edit::DomainAdd(&domain),
            Edit::AccountAdd { name: "bob", id: id(), address: &address },
            Edit::AccountId { name: "ann", id: AccountId::from_bytes([8; 10]) },
            Edit::AddressAdd { address: "@new.example", account: "ann" },
            Edit::LoginDisabled { name: "bob", message: "on leave" },
        ] {
            text = apply(&text, &edit).unwrap();
            Directory::parse("d", &text, &Host::default())
                .unwrap_or_else(|faults| panic!("{faults:?}\n{text}"));
        }
        for kept in ["# our domains\n", "# the shop\n", "# staff\n", "mailbox = \"Inbox\" # keep\n"]
        {
            assert!(text.contains(kept), "{kept:?} in\n{text}");
        }
        let directory = Directory::parse("d", &text, &Host::default()).unwrap();
        assert_eq!(directory.account("bob").unwrap().id, Some(id()));
        assert_eq!(directory.account("bob").unwrap().login_disabled.as_deref(), Some("on leave"));
        assert!(directory.account("ann").unwrap().id.is_some());
        // And back again.
        let shop: Domain = "xn--bcher-kva.example".parse().unwrap();
        for edit in [
            Edit::LoginDisabled { name: "bob", message: "" },
            Edit::AddressRemove("@new.example"),
            Edit::AccountRemove("bob"),
            Edit::DomainRemove(&domain),
        ] {
            text = apply(&text, &edit).unwrap();
        }
        assert!(!text.contains("new.example"), "{text}");
        assert!(matches!(apply(&text, &Edit::DomainAdd(&shop)), Err(EditError::Exists(_))));
    }

    #[test]
    fn refuses_what_cannot_be() {
        let address: Address = "x@y.example".parse().unwrap();
        let add = |name| apply(TEXT, &Edit::AccountAdd { name, id: id(), address: &address });
        assert!(matches!(add("ann"), Err(EditError::Exists(_))));
        assert!(matches!(add("../x"), Err(EditError::Invalid(_))));
        assert!(matches!(apply(TEXT, &Edit::AccountRemove("nobody")), Err(EditError::Missing(_))));
        assert!(matches!(apply("[", &Edit::AccountRemove("x")), Err(EditError::Syntax(_))));
    }
}
