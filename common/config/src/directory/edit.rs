//! Edits of the text of domains.toml that leave every comment and line they do not touch alone.
//!
//! An edit only changes text; whether the result is sound is decided by reading it as a whole again,
//! so no rule stands in two places. What is checked here is only what the edit itself needs. Addresses
//! and domains are found by what they mean, however the file or the caller spells them.

use super::{Directory, Host, read_accounts::check_account_name};
use toml_edit::{DocumentMut, Item, Table, TableLike, value};
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
    // What case means is the domains' to say.
    let read = matches!(edit, Edit::AddressAdd { .. } | Edit::AddressRemove(_))
        .then(|| Directory::parse("domains.toml", text, &Host::default()).ok())
        .flatten();
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
            if find_address(addresses, address, read.as_ref()).is_some() {
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
                    .is_some_and(|addresses| {
                        find_address(addresses, address, read.as_ref())
                            .is_some_and(|key| addresses.remove(&key).is_some())
                    })
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

/// The key an address or `@domain` stands under, which may differ in case or be its Unicode form.
fn find_address(
    addresses: &dyn TableLike,
    wanted: &str,
    directory: Option<&Directory>,
) -> Option<String> {
    let wanted = meaning(wanted, directory);
    let is_it = |key: &&str| meaning(key, directory) == wanted;
    addresses.iter().map(|(key, _)| key).find(is_it).map(str::to_owned)
}

/// One spelling of all that mean the same address. Separators cut nothing here: to take
/// `ann+list@example.org` away must not take `ann@example.org`.
fn meaning(text: &str, directory: Option<&Directory>) -> String {
    if let Some(domain) = text.strip_prefix('@') {
        let domain = domain.parse::<Domain>();
        return domain.map_or_else(|_| text.to_owned(), |domain| format!("@{}", domain.as_ascii()));
    }
    let Ok(address) = text.parse::<Address>() else { return text.to_owned() };
    let domain = directory.and_then(|directory| directory.domain(address.domain()));
    let localpart = address.localpart().as_str();
    let localpart = if domain.is_some_and(|domain| domain.case_sensitive) {
        localpart.to_owned()
    } else {
        localpart.to_lowercase()
    };
    format!("{localpart}@{}", address.domain().as_ascii())
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

    #[test]
    fn an_address_is_found_however_it_is_written() {
        const MANY: &str = "[domain.\"bücher.example\"]\nlocalpart_separators = [\"+\"]\n\
            [domain.\"exact.example\"]\nlocalpart_case_sensitive = true\n\
            [account.ann.address.\"CaPs@bücher.example\"]\n\
            [account.ann.address.\"@bücher.example\"]\n\
            [account.ann.address.\"Ann@exact.example\"]\n";
        let remove = |address| apply(MANY, &Edit::AddressRemove(address));
        for same in ["CaPs@bücher.example", "caps@BÜCHER.example", "Caps@xn--bcher-kva.example"] {
            assert!(!remove(same).unwrap().contains("CaPs"), "{same}");
        }
        assert!(!remove("@xn--bcher-kva.example").unwrap().contains("\"@b"));
        assert!(!remove("Ann@EXACT.example").unwrap().contains("Ann@"));
        for other in ["ann@exact.example", "caps+x@bücher.example", "@exact.example", "caps", ""] {
            assert!(matches!(remove(other), Err(EditError::Missing(_))), "{other}");
        }
        let add = |address| apply(MANY, &Edit::AddressAdd { address, account: "ann" });
        assert!(matches!(add("caps@xn--bcher-kva.example"), Err(EditError::Exists(_))));
        assert!(add("ann@exact.example").unwrap().contains("\"ann@exact.example\""));
    }
}
