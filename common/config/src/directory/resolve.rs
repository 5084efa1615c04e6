//! What an address means: the order of look-up, exactly once in the product.

use super::{Account, Alias, Destination, Directory};
use types::{Address, Domain, Localpart};

/// What an address means.
#[derive(Debug, Clone)]
pub enum Resolved<'a> {
    /// It is an account's.
    Account {
        /// Whose.
        account: &'a Account,
        /// Its one spelling.
        canonical: Address,
        /// The mailbox its mail goes to, unless rules say otherwise.
        mailbox: &'a str,
    },
    /// It stands for several addresses.
    Alias {
        /// Which.
        alias: &'a Alias,
        /// Its one spelling.
        canonical: Address,
    },
    /// Its owner wants its mail refused.
    Refused {
        /// 451 or 550.
        code: u16,
        /// For the peer.
        text: &'a str,
    },
    /// The domain is hosted and switched off.
    DomainDisabled,
    /// The domain is not hosted here.
    UnknownDomain,
    /// The domain is, the localpart is nobody's.
    UnknownLocalpart,
}

const POSTMASTER: &str = "postmaster";
const INBOX: &str = "Inbox";

impl Directory {
    /// What mail to this address is to do.
    #[must_use]
    pub fn resolve(&self, address: &Address) -> Resolved<'_> {
        self.look_up(address, false)
    }

    /// And what word of our own to the user of this address is to do: his domain may be switched off.
    #[must_use]
    pub fn resolve_even_disabled(&self, address: &Address) -> Resolved<'_> {
        self.look_up(address, true)
    }

    fn look_up(&self, address: &Address, even_disabled: bool) -> Resolved<'_> {
        let is_postmaster = address.localpart().as_str().eq_ignore_ascii_case(POSTMASTER);
        let is_host = self.host.names.contains(address.domain());
        // Only an account: while it is missing, an address that exists is not to wait for it.
        if is_postmaster
            && is_host
            && let Some(found @ Resolved::Account { .. }) = self.postmaster(address)
        {
            return found;
        }
        let Some(domain) = self.domains.get(address.domain()) else {
            if is_postmaster
                && is_host
                && let Some(found) = self.postmaster(address)
            {
                return found;
            }
            // The host's own name is ours, too ([`Self::is_local`]): nobody else would know more.
            let nobody = if is_host { Resolved::UnknownLocalpart } else { Resolved::UnknownDomain };
            return self.everything(address).unwrap_or(nobody);
        };
        if !domain.enabled && !even_disabled {
            return Resolved::DomainDisabled;
        }
        let canonical = self.canonical(address);
        if let Some(alias) = domain.aliases.get(canonical.localpart().as_str()) {
            return Resolved::Alias { alias, canonical };
        }
        let owned =
            self.addresses.get(&canonical).or_else(|| self.catchalls.get(canonical.domain()));
        if let Some(owned) = owned
            && let Some(account) = self.accounts.get(&owned.account)
        {
            return match &owned.destination {
                Destination::Mailbox(mailbox) => Resolved::Account { account, canonical, mailbox },
                Destination::Refused { code, text } => Resolved::Refused { code: *code, text },
            };
        }
        // RFC 5321 §4.5.1: postmaster exists at every domain mail is accepted for.
        if is_postmaster && let Some(found) = self.postmaster(address) {
            return found;
        }
        self.everything(address).unwrap_or(Resolved::UnknownLocalpart)
    }

    /// The account that is to get the postmaster's mail, if it is not there.
    #[must_use]
    pub fn missing_postmaster(&self) -> Option<&str> {
        self.host.postmaster.as_deref().filter(|name| !self.accounts.contains_key(*name))
    }

    /// The meaning of `<postmaster>` without a domain (RFC 5321 §4.1.1.3).
    #[must_use]
    pub fn bare_postmaster(&self) -> Option<Resolved<'_>> {
        let localpart = Localpart::from_unquoted(POSTMASTER).ok()?;
        let domain = self.host.names.first().or_else(|| self.domains.keys().next())?;
        self.postmaster(&Address::new(localpart, domain.clone()))
    }

    /// Whose log-in name an address is. Disabled domains do not matter here; aliases and the host's
    /// postmaster are nobody's log-in name.
    #[must_use]
    pub fn login(&self, address: &Address) -> Option<(&Account, Address)> {
        if let Some(owned) = self.owner(address) {
            return self.accounts.get(&owned.account).map(|a| (a, self.canonical(address)));
        }
        None
    }

    /// Whether an account may send as this address: its own, with separators and catch-alls, or an
    /// alias that allows it and that it is a member of.
    #[must_use]
    pub fn may_send_as(&self, account: &Account, address: &Address) -> bool {
        let is_own = |address: &Address| {
            self.owner(address).is_some_and(|owned| owned.account == account.name)
        };
        if let Some(domain) = self.domains.get(address.domain()) {
            let canonical = domain.canonical_localpart(address.localpart().as_str());
            if let Some(alias) = domain.aliases.get(&canonical) {
                return alias.allow_from && alias.members.iter().any(is_own);
            }
        }
        is_own(address)
            || self.host.catch_everything.as_ref() == Some(&account.name)
                && self.owner(address).is_none()
    }

    /// The one spelling of an address; unknown domains keep the localpart as it is.
    #[must_use]
    pub fn canonical(&self, address: &Address) -> Address {
        let Some(domain) = self.domains.get(address.domain()) else { return address.clone() };
        let localpart = domain.canonical_localpart(address.localpart().as_str());
        match Localpart::from_unquoted(&localpart) {
            Ok(localpart) => Address::new(localpart, address.domain().clone()),
            Err(_) => address.clone(),
        }
    }

    /// Whether mail for this domain stays here.
    #[must_use]
    pub fn is_local(&self, domain: &Domain) -> bool {
        self.domains.contains_key(domain)
            || self.host.names.contains(domain)
            || self.host.catch_everything.is_some()
    }

    fn owner(&self, address: &Address) -> Option<&super::Owned> {
        let domain = self.domains.get(address.domain())?;
        let canonical = self.canonical(address);
        if domain.aliases.contains_key(canonical.localpart().as_str()) {
            return None;
        }
        self.addresses.get(&canonical).or_else(|| self.catchalls.get(canonical.domain()))
    }

    fn postmaster(&self, address: &Address) -> Option<Resolved<'_>> {
        let Some(account) = self.accounts.get(self.host.postmaster.as_ref()?) else {
            // An administrator's slip, which `missing_postmaster` tells: the mail can wait for him.
            let text = "No postmaster at the moment, try again later";
            return Some(Resolved::Refused { code: 451, text })
                .filter(|_| self.host.catch_everything.is_none());
        };
        let mailbox = self.host.postmaster_mailbox.as_deref().unwrap_or(INBOX);
        Some(Resolved::Account { account, canonical: self.canonical(address), mailbox })
    }

    fn everything(&self, address: &Address) -> Option<Resolved<'_>> {
        let account = self.accounts.get(self.host.catch_everything.as_ref()?)?;
        Some(Resolved::Account { account, canonical: self.canonical(address), mailbox: INBOX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Host;

    const TEXT: &str = r#"
[domain."example.org"]
localpart_separators = ["+", "-"]
[domain."example.org".alias.team]
members = ["ann@example.org", "bob@example.org"]
allow_from = true
[domain."example.org".alias.quiet]
members = ["ann@example.org"]
[domain."exact.example"]
localpart_case_sensitive = true
[domain."off.example"]
enabled = false
[domain."all.example"]

[account.ann]
[account.ann.address."ann@example.org"]
[account.ann.address."Ann@exact.example"]
mailbox = "Exact"
[account.ann.address."ann@off.example"]
[account.ann.address."@all.example"]
[account.bob.address."bob@example.org"]
[account.bob.address."gone@example.org"]
smtp_error = "550 This address is gone"
"#;

    fn host() -> Host {
        Host {
            names: vec!["mail.example.org".parse().unwrap()],
            postmaster: Some("bob".into()),
            postmaster_mailbox: Some("Postmaster".into()),
            catch_everything: None,
        }
    }

    fn directory() -> Directory {
        Directory::parse("domains.toml", TEXT, &host()).unwrap()
    }

    /// A resolution in a few words, so that a table of them can be read.
    fn said(directory: &Directory, address: &str) -> String {
        match directory.resolve(&address.parse().unwrap()) {
            Resolved::Account { account, canonical, mailbox } => {
                format!("{} {canonical} {mailbox}", account.name)
            }
            Resolved::Alias { canonical, .. } => format!("alias {canonical}"),
            Resolved::Refused { code, text } => format!("{code} {text}"),
            Resolved::DomainDisabled => "disabled".into(),
            Resolved::UnknownDomain => "unknown domain".into(),
            Resolved::UnknownLocalpart => "unknown localpart".into(),
        }
    }

    #[test]
    fn the_order_of_lookup() {
        let directory = directory();
        for (address, meaning) in [
            ("ann@example.org", "ann ann@example.org Inbox"),
            ("ANN+news-x@Example.ORG", "ann ann@example.org Inbox"),
            ("ann-x+y@example.org", "ann ann@example.org Inbox"),
            ("+ann@example.org", "unknown localpart"),
            ("team@example.org", "alias team@example.org"),
            ("Team+x@example.org", "alias team@example.org"),
            ("gone@example.org", "550 This address is gone"),
            ("nobody@example.org", "unknown localpart"),
            ("Ann@exact.example", "ann Ann@exact.example Exact"),
            ("ann@exact.example", "unknown localpart"),
            ("ann@off.example", "disabled"),
            ("anything@all.example", "ann anything@all.example Inbox"),
            ("x@elsewhere.example", "unknown domain"),
            ("PostMaster@mail.example.org", "bob PostMaster@mail.example.org Postmaster"),
            ("x@mail.example.org", "unknown localpart"),
            ("postmaster@example.org", "bob postmaster@example.org Postmaster"),
            ("postmaster@all.example", "ann postmaster@all.example Inbox"),
            ("postmaster@elsewhere.example", "unknown domain"),
        ] {
            assert_eq!(said(&directory, address), meaning, "{address}");
            // Mail that stays here and has nowhere to go here would go round for ever.
            let address: Address = address.parse().unwrap();
            let is_local = directory.is_local(address.domain());
            assert_eq!(is_local, meaning != "unknown domain", "{address}");
        }
        assert!(matches!(directory.bare_postmaster(), Some(Resolved::Account { .. })));
    }

    #[test]
    fn who_may_log_in_and_send_as_what() {
        let directory = directory();
        let login =
            |text: &str| directory.login(&text.parse().unwrap()).map(|(a, _)| a.name.clone());
        assert_eq!(login("ann+x@example.org").as_deref(), Some("ann"));
        assert_eq!(login("ann@off.example").as_deref(), Some("ann"));
        assert_eq!(login("any@all.example").as_deref(), Some("ann"));
        assert_eq!(login("team@example.org"), None);
        assert_eq!(login("postmaster@mail.example.org"), None);
        assert_eq!(login("postmaster@example.org"), None);
        let may = |account: &str, address: &str| {
            let account = directory.account(account).unwrap();
            directory.may_send_as(account, &address.parse().unwrap())
        };
        assert!(may("ann", "ann+tag@example.org"));
        assert!(may("ann", "any@all.example"));
        assert!(may("bob", "team@example.org"));
        assert!(!may("ann", "quiet@example.org"));
        assert!(!may("bob", "ann@example.org"));
        assert!(!may("bob", "postmaster@example.org"));
        assert!(!may("bob", "x@elsewhere.example"));
    }

    #[test]
    fn development_mode_takes_everything() {
        let host = Host { catch_everything: Some("ann".into()), ..host() };
        let directory = Directory::parse("domains.toml", TEXT, &host).unwrap();
        assert_eq!(said(&directory, "x@elsewhere.example"), "ann x@elsewhere.example Inbox");
        assert_eq!(said(&directory, "nobody@example.org"), "ann nobody@example.org Inbox");
        assert_eq!(said(&directory, "bob@example.org"), "bob bob@example.org Inbox");
        assert!(directory.is_local(&"elsewhere.example".parse().unwrap()));
        let ann = directory.account("ann").unwrap();
        assert!(directory.may_send_as(ann, &"x@elsewhere.example".parse().unwrap()));
        assert!(!directory.may_send_as(ann, &"bob@example.org".parse().unwrap()));
    }

    #[test]
    fn mail_for_a_postmaster_who_is_missing_waits() {
        let host = Host {
            names: vec!["mail.example.org".parse().unwrap()],
            postmaster: Some("nobody".into()),
            ..Host::default()
        };
        let directory = Directory::parse("d", TEXT, &host).unwrap();
        assert_eq!(directory.missing_postmaster(), Some("nobody"));
        let waits = |found: Resolved<'_>| matches!(found, Resolved::Refused { code: 451, .. });
        for address in ["postmaster@mail.example.org", "Postmaster@example.org"] {
            assert!(waits(directory.resolve(&address.parse().unwrap())), "{address}");
        }
        assert!(waits(directory.bare_postmaster().unwrap()));
        let other = directory.resolve(&"x@mail.example.org".parse().unwrap());
        assert!(matches!(other, Resolved::UnknownLocalpart));
        // An address that somebody has does not wait, not even where the host name is a domain.
        let names = ["example.org", "exact.example", "all.example"].map(|n| n.parse().unwrap());
        let host = Host { names: names.into(), ..host };
        let owned = "[account.bob.address.\"postmaster@example.org\"]\n";
        let directory = Directory::parse("d", &format!("{TEXT}{owned}"), &host).unwrap();
        assert_eq!(said(&directory, "postmaster@example.org"), "bob postmaster@example.org Inbox");
        assert_eq!(said(&directory, "postmaster@all.example"), "ann postmaster@all.example Inbox");
        assert!(waits(directory.resolve(&"postmaster@exact.example".parse().unwrap())));
        let there = Host { postmaster: Some("bob".into()), ..Host::default() };
        assert_eq!(Directory::parse("d", TEXT, &there).unwrap().missing_postmaster(), None);
    }
}
