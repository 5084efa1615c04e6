//! Whom a message is for: recipients to accounts and mailboxes.

use super::refusal::Refusal;
use crate::{
    directory::{Directories, Snapshot},
    store,
};
use config::directory::{Account, Posting, Resolved};
use std::collections::BTreeMap;
use types::{AccountId, Address};

/// Recipients of one message.
pub(crate) const MAX_RECIPIENTS: usize = 1_000;
/// Accounts one message goes to after aliases are expanded.
pub(crate) const MAX_TARGETS: usize = 2_000;

/// Where one copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) account: AccountId,
    pub(crate) name: String,
    pub(crate) mailbox: String,
    pub(crate) quota: u64,
}

/// Who asks: decides about aliases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From<'a> {
    /// Anybody; who wrote the message is not proved.
    Stranger,
    /// A user of ours, or the queue on his behalf. The author is checked where the message is seen.
    Local,
    /// The queue, with the authors of the message: submission has checked them.
    Authors(&'a [Address]),
    /// The queue for itself: what it tells a sender reaches him even where his domain is switched off.
    Queue(&'a [Address]),
}

/// What a recipient comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recipient {
    Targets(Vec<Target>),
    /// Hosted domain, nobody's localpart.
    Unknown,
    /// Not hosted here.
    Remote,
    Refused(Refusal),
}

/// What `to` comes to. `to` is what stood between the brackets. While the text in force is not the
/// file's, whom it does not know may well be there: that is a fault of ours, and not of the peer.
pub(crate) fn resolve_now(directories: &Directories, to: &str, from: From<'_>) -> Recipient {
    let found = resolve(&directories.now(), to, from);
    let is_nobody = match found {
        Recipient::Unknown => true,
        // What a user writes to elsewhere goes out.
        Recipient::Remote => from != From::Local,
        Recipient::Targets(_) | Recipient::Refused(_) => false,
    };
    if is_nobody && directories.why_unsound().is_some() {
        return Recipient::Refused(Refusal::ours());
    }
    found
}

fn resolve(snapshot: &Snapshot, to: &str, from: From<'_>) -> Recipient {
    let directory = &snapshot.directory;
    let resolved = if to.eq_ignore_ascii_case("postmaster") {
        directory.bare_postmaster().unwrap_or(Resolved::UnknownLocalpart)
    } else {
        match to.parse::<Address>() {
            Ok(address) => match from {
                From::Queue(_) => directory.resolve_even_disabled(&address),
                From::Stranger | From::Local | From::Authors(_) => directory.resolve(&address),
            },
            Err(_) => {
                return Recipient::Refused(Refusal::new(553, "5.1.3", "Not a valid address"));
            }
        }
    };
    match resolved {
        Resolved::Account { account, mailbox, .. } => match target(account, mailbox) {
            Some(target) => Recipient::Targets(vec![target]),
            None => Recipient::Refused(Refusal::ours()),
        },
        Resolved::Alias { alias, .. } => {
            let (may, text) = match &alias.posting {
                Posting::Public => return members(snapshot, alias, from),
                Posting::Members => (&alias.members, "Only members may send to this address"),
                Posting::Listed(listed) => (listed, "Only some may send to this address"),
            };
            let is_one = |author: &Address| may.contains(&directory.canonical(author));
            let may_post = match from {
                From::Local => true,
                // Who is not logged in cannot be told from somebody who claims to be him.
                From::Stranger => false,
                From::Authors(authors) | From::Queue(authors) => {
                    !authors.is_empty() && authors.iter().all(is_one)
                }
            };
            if !may_post {
                return Recipient::Refused(Refusal::new(550, "5.7.2", text));
            }
            members(snapshot, alias, from)
        }
        Resolved::Refused { code, text } => {
            let enhanced = if code < 500 { "4.3.0" } else { "5.1.1" };
            Recipient::Refused(Refusal::new(code, enhanced, text))
        }
        Resolved::DomainDisabled => {
            Recipient::Refused(Refusal::new(450, "4.2.1", "Mail for this domain is suspended"))
        }
        Resolved::UnknownDomain => Recipient::Remote,
        Resolved::UnknownLocalpart => Recipient::Unknown,
    }
}

/// A copy for each member but the author.
fn members(snapshot: &Snapshot, alias: &config::directory::Alias, from: From<'_>) -> Recipient {
    let directory = &snapshot.directory;
    let wrote = |member: &Address| match from {
        From::Authors(authors) | From::Queue(authors) => {
            authors.iter().any(|author| directory.canonical(author) == *member)
        }
        From::Stranger | From::Local => false,
    };
    let mut targets = BTreeMap::new();
    let mut refused = None;
    for member in alias.members.iter().filter(|member| !wrote(member)) {
        match directory.resolve(member) {
            Resolved::Account { account, mailbox, .. } => match target(account, mailbox) {
                Some(target) => {
                    targets.entry(target.account).or_insert(target);
                }
                None => return Recipient::Refused(Refusal::ours()),
            },
            // A member whose domain is switched off for a while must get his copy later.
            Resolved::DomainDisabled => {
                let text = "Mail for this domain is suspended";
                return Recipient::Refused(Refusal::new(450, "4.2.1", text));
            }
            Resolved::Refused { code, text } => {
                refused =
                    Some(Refusal::new(code, if code < 500 { "4.3.0" } else { "5.1.1" }, text));
            }
            Resolved::Alias { .. } | Resolved::UnknownDomain | Resolved::UnknownLocalpart => {}
        }
    }
    match refused {
        Some(refusal) if targets.is_empty() => Recipient::Refused(refusal),
        // None at all: the author is the only member, and has his copy.
        Some(_) | None => Recipient::Targets(targets.into_values().collect()),
    }
}

fn target(account: &Account, mailbox: &str) -> Option<Target> {
    Some(Target {
        account: account.id?,
        name: account.name.clone(),
        mailbox: mailbox.to_owned(),
        quota: account.quota,
    })
}

/// An address as the store remembers whom an account wrote to.
pub(crate) fn stored(address: &Address) -> store::Recipient {
    let domain = address.domain().as_ascii().to_owned();
    store::Recipient {
        localpart: address.localpart().as_str().to_lowercase(),
        // The organisational domain needs the list of public suffixes; until accountd is given one,
        // a domain stands for itself.
        org_domain: domain.clone(),
        domain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::directory::{Directory, Host};

    const TEXT: &str = r#"
[domain."example.org"]
[domain."example.org".alias.team]
members = ["ann@example.org", "bob@example.org"]
[domain."example.org".alias.all]
members = ["ann@example.org"]
post = "public"
[domain."example.org".alias.news]
members = ["ann@example.org"]
post = ["bob@example.org"]
[account.ann]
id = "aaaaaaaaaaaaaaab"
[account.ann.address."ann@example.org"]
[account.bob]
id = "aaaaaaaaaaaaaaac"
[account.bob.address."bob@example.org"]
mailbox = "Work"
[account.new.address."new@example.org"]
"#;

    fn snapshot() -> Snapshot {
        let directory = Directory::parse("d", TEXT, &Host::default()).unwrap();
        Snapshot { number: 1, revision: 1, text: TEXT.into(), directory }
    }

    fn names(recipient: Recipient) -> Vec<String> {
        match recipient {
            Recipient::Targets(targets) => {
                targets.into_iter().map(|t| format!("{}/{}", t.name, t.mailbox)).collect()
            }
            Recipient::Refused(refusal) => vec![refusal.code.to_string()],
            Recipient::Unknown => vec!["unknown".into()],
            Recipient::Remote => vec!["remote".into()],
        }
    }

    #[test]
    fn aliases_are_for_their_posters() {
        let snapshot = snapshot();
        let of = |to: &str, from: From<'_>| names(resolve(&snapshot, to, from));
        let ann: Address = "Ann@example.org".parse().unwrap();
        let other: Address = "x@elsewhere.example".parse().unwrap();
        assert_eq!(of("team@example.org", From::Stranger), ["550"]);
        assert_eq!(of("team@example.org", From::Local).len(), 2);
        assert_eq!(of("team@example.org", From::Authors(std::slice::from_ref(&ann))), ["bob/Work"]);
        assert_eq!(of("team@example.org", From::Authors(&[ann.clone(), other.clone()])), ["550"]);
        assert_eq!(of("team@example.org", From::Authors(&[])), ["550"]);
        assert_eq!(of("all@example.org", From::Stranger), ["ann/Inbox"]);
        // Who is listed and no member; a member who is not listed.
        let bob: Address = "Bob@example.org".parse().unwrap();
        assert_eq!(
            of("news@example.org", From::Authors(std::slice::from_ref(&bob))),
            ["ann/Inbox"]
        );
        assert_eq!(of("news@example.org", From::Queue(&[bob])), ["ann/Inbox"]);
        assert_eq!(of("news@example.org", From::Authors(std::slice::from_ref(&ann))), ["550"]);
        assert_eq!(of("news@example.org", From::Stranger), ["550"]);
        assert!(of("all@example.org", From::Authors(&[ann])).is_empty());
        assert_eq!(of("all@example.org", From::Authors(&[other])), ["ann/Inbox"]);
    }

    #[test]
    fn what_cannot_be_delivered() {
        let snapshot = snapshot();
        let of = |to: &str| names(resolve(&snapshot, to, From::Stranger));
        assert_eq!(of("x@elsewhere.example"), ["remote"]);
        assert_eq!(of("x@example.org"), ["unknown"]);
        assert_eq!(of("x@[192.0.2.1]"), ["553"]);
        assert_eq!(of("new@example.org"), ["451"], "no folder yet is a fault of ours");
        assert_eq!(of("Postmaster"), ["unknown"]);
    }

    #[test]
    fn nobody_is_refused_for_good_by_a_directory_that_is_not_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Directories::open(folder.path(), Host::default()).unwrap();
        let sound = open();
        sound.write(TEXT.into(), sound.now().revision).unwrap();
        std::fs::write(folder.path().join("directory/domains.toml"), "[account").unwrap();
        let unsound = open();
        for (to, from, known, waits) in [
            ("x@example.org", From::Stranger, "unknown", "451"),
            ("x@example.org", From::Local, "unknown", "451"),
            ("x@example.org", From::Queue(&[]), "unknown", "451"),
            ("x@new.example", From::Stranger, "remote", "451"),
            ("x@new.example", From::Authors(&[]), "remote", "451"),
            ("x@new.example", From::Local, "remote", "remote"),
            ("bob@example.org", From::Stranger, "bob/Work", "bob/Work"),
        ] {
            assert_eq!(names(resolve_now(&sound, to, from)), [known], "{to} {from:?}");
            assert_eq!(names(resolve_now(&unsound, to, from)), [waits], "{to} {from:?}");
        }
    }
}
