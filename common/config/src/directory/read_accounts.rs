//! Reads the tables of domains.toml and checks them against each other.

use super::{
    Account, Alias, Destination, Directory, Host, HostedDomain, MAX_ACCOUNT_NAME, MAX_ACCOUNTS,
    MAX_ALIAS_MEMBERS, MAX_DOMAINS, MAX_SEPARATORS, MAX_SHOWN_TEXT, Owned, Posting,
};
use crate::read::{Section, Source};
use types::{Address, Domain, Localpart};

const DEFAULT_PER_DAY: u32 = 1000;
const DEFAULT_FIRST_TIME_PER_DAY: u32 = 200;

/// The directory as far as it can be read; faults are in `source`.
pub(super) fn read<'a>(
    source: &'a Source<'a>,
    host: &Host,
    before: Option<&Directory>,
) -> Option<Directory> {
    let document = source.document()?;
    // The document must outlive its sections, which report what nobody asked for when they go.
    let mut directory = Directory { host: host.clone(), ..Directory::default() };
    read_tables(source, &document, before, &mut directory);
    Some(directory)
}

fn read_tables(
    source: &Source<'_>,
    document: &toml::Spanned<toml::de::DeTable<'_>>,
    before: Option<&Directory>,
    directory: &mut Directory,
) {
    let root = Section::root(source, document);
    let mut aliases = Vec::new();
    let domains = root.section("domain");
    let named = domains.named_sections();
    if named.len() > MAX_DOMAINS {
        domains.fault(format!("more than {MAX_DOMAINS} domains"));
    }
    for (name, section) in named {
        let read = read_domain(&section);
        match name.parse::<Domain>() {
            Ok(domain) => {
                for (localpart, alias) in section.section("alias").named_sections() {
                    aliases.push((domain.clone(), localpart, alias));
                }
                if directory.domains.insert(domain, read).is_some() {
                    section.fault(format!("the domain {name:?} is there twice"));
                }
            }
            Err(why) => section.fault(format!("{name:?}: {why}")),
        }
    }
    let accounts = root.section("account");
    let named = accounts.named_sections();
    if named.len() > MAX_ACCOUNTS {
        accounts.fault(format!("more than {MAX_ACCOUNTS} accounts"));
    }
    for (name, section) in &named {
        read_account(name.clone(), section, directory);
    }
    for (name, section) in &named {
        check_id(name, section, before, directory);
    }
    // Members are addresses of accounts, so aliases come last.
    for (domain, localpart, section) in aliases {
        read_alias(&domain, &localpart, &section, directory);
    }
}

fn read_domain(section: &Section<'_>) -> HostedDomain {
    let separators: Vec<String> = section.list("localpart_separators").unwrap_or_default();
    if separators.len() > MAX_SEPARATORS {
        section.fault_at("localpart_separators", format!("more than {MAX_SEPARATORS}"));
    }
    // An alphanumeric separator would cut ordinary names in two.
    let sound = |s: &String| !s.is_empty() && s.len() <= 4 && !s.chars().any(char::is_alphanumeric);
    if !separators.iter().all(|s| sound(s) && Localpart::from_unquoted(s).is_ok()) {
        section
            .fault_at("localpart_separators", "expected one to four signs, no letters or digits");
    }
    let dkim = section.section("dkim");
    HostedDomain {
        enabled: section.flag("enabled", true),
        description: shown(section, "description"),
        client_settings: section.parsed("client_settings_domain"),
        separators,
        case_sensitive: section.flag("localpart_case_sensitive", false),
        dkim_selectors: dkim.list("sign").unwrap_or_default(),
        aliases: std::collections::BTreeMap::new(),
    }
}

fn read_account(name: String, section: &Section<'_>, directory: &mut Directory) {
    if let Err(why) = check_account_name(&name) {
        section.fault(why);
    }
    let login_disabled = Some(shown(section, "login_disabled")).filter(|text| !text.is_empty());
    let mut account = Account {
        id: section.parsed("id"),
        login_disabled,
        default_domain: section.parsed("default_domain"),
        full_name: section.parsed("full_name").unwrap_or_default(),
        description: section.parsed("description").unwrap_or_default(),
        quota: section.size("quota", 0),
        custom_password: section.flag("custom_password", false),
        max_outgoing_per_day: section.count(
            "max_outgoing_messages_per_day",
            DEFAULT_PER_DAY,
            0..10_000_000,
        ),
        max_first_time_per_day: section.count(
            "max_first_time_recipients_per_day",
            DEFAULT_FIRST_TIME_PER_DAY,
            0..10_000_000,
        ),
        addresses: Vec::new(),
        catchalls: Vec::new(),
        name: name.clone(),
    };
    if let Some(domain) = &account.default_domain
        && !directory.domains.contains_key(domain)
    {
        section.fault_at("default_domain", format!("{domain} is not a domain of this file"));
    }
    for (text, address) in section.section("address").named_sections() {
        let destination = read_destination(&address);
        let owned = Owned { account: name.clone(), destination };
        if let Err(why) = add_address(&text, owned, &mut account, directory) {
            address.fault(format!("{text:?}: {why}"));
        }
    }
    if let Some(id) = account.id
        && let Some(other) = directory.ids.insert(id, name.clone())
    {
        section.fault_at("id", format!("the account {other:?} has the same id"));
    }
    directory.accounts.insert(name, account);
}

/// An id names a folder: another one under the name of an account is another account, and an empty
/// one. Its mail may change its name, or go with its block.
fn check_id(name: &str, section: &Section<'_>, before: Option<&Directory>, directory: &Directory) {
    let Some(was) = before.and_then(|before| before.account(name)).and_then(|known| known.id)
    else {
        return;
    };
    let now = directory.account(name).and_then(|account| account.id);
    if now == Some(was) || directory.account_by_id(was).is_some() {
        return;
    }
    section.fault_at(
        "id",
        format!(
            "this is another account: the mail of {name:?} is that of id {was}; if it is to go, \
             remove the account first"
        ),
    );
}

/// Whether a text may name an account.
pub(super) fn check_account_name(name: &str) -> Result<(), String> {
    let sound = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > MAX_ACCOUNT_NAME {
        return Err(format!("an account name has 1 to {MAX_ACCOUNT_NAME} octets"));
    }
    if !name.chars().all(sound) || name.starts_with(['-', '.']) {
        return Err(format!("{name:?}: an account name has letters, digits, '-', '_' and '.'"));
    }
    Ok(())
}

fn read_destination(section: &Section<'_>) -> Destination {
    let mailbox: Option<String> = section.parsed("mailbox");
    let refused: Option<String> = section.parsed("smtp_error");
    match (mailbox, refused) {
        (Some(_), Some(_)) => {
            section.fault("an address has a mailbox or an smtp_error, not both");
            Destination::Mailbox("Inbox".into())
        }
        (None, Some(text)) => match parse_smtp_error(&text) {
            Some(refused) => refused,
            None => {
                section.fault_at("smtp_error", "expected \"421 text\" or \"550 text\" in ASCII");
                Destination::Mailbox("Inbox".into())
            }
        },
        (mailbox, None) => {
            let mailbox = mailbox.unwrap_or_else(|| "Inbox".into());
            if let Err(why) = types::check_mailbox_name(&mailbox) {
                section.fault_at("mailbox", format!("not a mailbox name: {why}"));
            }
            Destination::Mailbox(mailbox)
        }
    }
}

fn parse_smtp_error(text: &str) -> Option<Destination> {
    if text.len() > MAX_SHOWN_TEXT || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return None;
    }
    let (code, rest) = text.split_once(' ')?;
    let code = match code {
        // 421 would also end the connection, and with it other recipients' mail.
        "421" | "451" => 451,
        "550" => 550,
        _ => return None,
    };
    Some(Destination::Refused { code, text: rest.trim().to_owned() })
}

fn add_address(
    text: &str,
    owned: Owned,
    account: &mut Account,
    directory: &mut Directory,
) -> Result<(), String> {
    if let Some(domain) = text.strip_prefix('@') {
        let domain: Domain = domain.parse().map_err(|why| format!("{why}"))?;
        if !directory.domains.contains_key(&domain) {
            return Err(format!("{domain} is not a domain of this file"));
        }
        account.catchalls.push(domain.clone());
        return match directory.catchalls.insert(domain, owned) {
            Some(other) => Err(format!("the account {:?} has it too", other.account)),
            None => Ok(()),
        };
    }
    let address: Address = text.parse().map_err(|why| format!("{why}"))?;
    let domain = directory
        .domains
        .get(address.domain())
        .ok_or_else(|| format!("{} is not a domain of this file", address.domain()))?;
    if domain.cuts(address.localpart().as_str()) {
        return Err("it contains a separator of its domain, so nothing would reach it".into());
    }
    let canonical = directory.canonical(&address);
    account.addresses.push(canonical.clone());
    match directory.addresses.insert(canonical, owned) {
        Some(other) => Err(format!("the account {:?} has it too", other.account)),
        None => Ok(()),
    }
}

/// The canonical forms of addresses, each of which is an account's and there once.
fn of_accounts(
    section: &Section<'_>,
    key: &'static str,
    addresses: &[Address],
    directory: &Directory,
) -> Vec<Address> {
    if addresses.len() > MAX_ALIAS_MEMBERS {
        section.fault_at(key, format!("more than {MAX_ALIAS_MEMBERS}"));
    }
    let mut all: Vec<Address> = Vec::new();
    for address in addresses {
        let canonical = directory.canonical(address);
        if !directory.addresses.contains_key(&canonical) {
            section.fault_at(key, format!("{address} is no address of an account here"));
        } else if all.contains(&canonical) {
            section.fault_at(key, format!("{address} is there twice"));
        } else {
            all.push(canonical);
        }
    }
    all
}

/// Who may send to an alias. Addresses of others than accounts here cannot be listed: that they wrote
/// a message is nothing we know.
fn read_posting(section: &Section<'_>, directory: &Directory) -> Posting {
    if !section.is_list("post") {
        let is_public = section.choice("post", &[("members", false), ("public", true)], false);
        return if is_public { Posting::Public } else { Posting::Members };
    }
    let listed: Vec<Address> = section.list("post").unwrap_or_default();
    if listed.is_empty() {
        section.fault_at("post", "nobody could send to it");
    }
    Posting::Listed(of_accounts(section, "post", &listed, directory))
}

fn read_alias(domain_name: &Domain, text: &str, section: &Section<'_>, directory: &mut Directory) {
    let members: Vec<Address> = section.list("members").unwrap_or_default();
    let posting = read_posting(section, directory);
    let members_visible = section.flag("members_visible", false);
    let allow_from = section.flag("allow_from", false);
    if members.is_empty() {
        section.fault("an alias needs at least one member");
    }
    let canonical_members = of_accounts(section, "members", &members, directory);
    let Some(domain) = directory.domains.get(domain_name) else { return };
    let canonical = domain.canonical_localpart(text);
    let address = Localpart::from_unquoted(text)
        .map(|localpart| directory.canonical(&Address::new(localpart, domain_name.clone())));
    match address {
        Err(why) => return section.fault(format!("{text:?}: {why}")),
        Ok(_) if domain.cuts(text) => {
            return section.fault(format!("{text:?} contains a separator of its domain"));
        }
        Ok(address) => {
            if let Some(owned) = directory.addresses.get(&address) {
                section.fault(format!("the account {:?} has this address", owned.account));
            }
        }
    }
    let alias = Alias { members: canonical_members, posting, members_visible, allow_from };
    if let Some(domain) = directory.domains.get_mut(domain_name)
        && domain.aliases.insert(canonical, alias).is_some()
    {
        section.fault(format!("the alias {text:?} is there twice"));
    }
}

/// A text that is shown to peers: printable ASCII, one line.
fn shown(section: &Section<'_>, key: &'static str) -> String {
    let text: String = section.parsed(key).unwrap_or_default();
    if text.len() > MAX_SHOWN_TEXT || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        section.fault_at(key, format!("expected at most {MAX_SHOWN_TEXT} printable ASCII signs"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        match Directory::parse("domains.toml", text, &Host::default()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn every_fault_has_its_place() {
        let text = r#"
[domain."example.org"]
localpart_separators = ["+"]
enabeld = true
[domain."example.org".alias.team]
members = ["nobody@example.org"]
[domain."example.org".alias.empty]
[account."a b"]
[account.ann.address."ann+x@example.org"]
[account.ann.address."ann@other.example"]
[account.ann.address."ann@example.org"]
mailbox = "Inbox"
smtp_error = "550 no"
[account.bob.address."ANN@example.org"]
[account.bob.address."x@example.org"]
smtp_error = "250 fine"
[account.bob.address."y@example.org"]
mailbox = "Lists//Rust"
"#;
        let faults = faults(text).join("\n");
        for expected in [
            "domains.toml:4:1: unknown key",
            "did you mean \"enabled\"?",
            "nobody@example.org is no address",
            "needs at least one member",
            "\"a b\"",
            "contains a separator",
            "other.example is not a domain",
            "not both",
            "has it too",
            "expected \"421 text\"",
            "domains.toml:18:11: account.bob.address.y@example.org.mailbox: not a mailbox name",
        ] {
            assert!(faults.contains(expected), "{expected} in\n{faults}");
        }
    }

    #[test]
    fn who_may_send_to_an_alias() {
        let text = |post: &str| {
            format!(
                "[domain.\"example.org\"]\n[domain.\"example.org\".alias.team]\n\
                 members = [\"ann@example.org\"]\n{post}\n\
                 [account.ann.address.\"ann@example.org\"]\n\
                 [account.bob.address.\"bob@example.org\"]\n"
            )
        };
        for (post, expected) in [
            ("", Posting::Members),
            ("post = \"members\"", Posting::Members),
            ("post = \"public\"", Posting::Public),
            (
                "post = [\"Bob@example.org\"]",
                Posting::Listed(vec!["bob@example.org".parse().unwrap()]),
            ),
        ] {
            let read = Directory::parse("d", &text(post), &Host::default()).unwrap();
            let domain = &read.domains[&"example.org".parse().unwrap()];
            assert_eq!(domain.aliases["team"].posting, expected, "{post}");
        }
        for (post, expected) in [
            ("post = []", "nobody could send to it"),
            ("post = [\"x@elsewhere.example\"]", "x@elsewhere.example is no address"),
            ("post = [\"nobody@example.org\"]", "nobody@example.org is no address"),
            ("post = [\"bob@example.org\", \"BOB@example.org\"]", "is there twice"),
            ("post = [\"not an address\"]", "post: "),
            ("post = \"everybody\"", "post: "),
            ("post = 1", "post: "),
        ] {
            let told = faults(&text(post));
            assert!(told[0].starts_with("domains.toml:4:"), "{told:?}");
            assert!(told[0].contains(expected), "{told:?}");
        }
    }

    #[test]
    fn ids_are_unique() {
        let text =
            "[account.a]\nid = \"aaaaaaaaaaaaaaab\"\n[account.b]\nid = \"aaaaaaaaaaaaaaab\"\n";
        assert!(faults(text).join("").contains("same id"));
        assert!(faults("[account.a]\nid = \"../../etc\"\n").join("").contains("not a valid id"));
    }

    #[test]
    fn an_account_keeps_its_id_while_it_is_there() {
        let host = Host::default();
        let before = "[account.a]\nid = \"aaaaaaaaaaaaaaab\"\n[account.new]\n";
        let before = Directory::parse("d", before, &host).unwrap();
        let faults = |text: &str| match Directory::parse_after("d", text, &host, Some(&before)) {
            Ok(_) => String::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        let other = "[account.a]\nid = \"caaaaaaaaaaaaaab\"\n";
        let told = faults(other);
        assert!(told.starts_with("d:2:6: account.a.id: this is another account"), "{told}");
        assert!(told.contains("aaaaaaaaaaaaaaab"), "{told}");
        assert!(faults("[account.a]\n").contains("d:1:"), "an id that was lost");
        let sound = [
            "[account.b]\nid = \"caaaaaaaaaaaaaab\"\n".to_owned(),
            format!("{other}[account.renamed]\nid = \"aaaaaaaaaaaaaaab\"\n"),
            "[account.a]\nid = \"aaaaaaaaaaaaaaab\"\n[account.new]\nid = \"caaaaaaaaaaaaaab\"\n"
                .to_owned(),
        ];
        for text in sound {
            assert_eq!(faults(&text), "", "{text}");
        }
    }

    #[test]
    fn syntax_faults_are_reported_alone() {
        assert_eq!(faults("[account").len(), 1);
        assert!(faults("").is_empty());
    }
}
