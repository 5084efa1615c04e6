//! Mailboxes: names, hierarchy, special uses, subscriptions, and the keywords in use in each.

use super::{
    StoreError,
    index::{Index, KeywordUse, Tx},
    read,
    rows::{MailboxInfo, Renamed},
    types::{
        Keyword, KeywordBits, MAX_KEYWORDS, MAX_MESSAGE_KEYWORDS, MailboxId, ModSeq, Role, UidSet,
    },
};
use storage::rusqlite::{OptionalExtension as _, params};

/// Live mailboxes of an account.
const MAX_MAILBOXES: i64 = 10_000;
/// Subscribed names of an account.
const MAX_SUBSCRIPTIONS: i64 = 20_000;
/// Octets of the names of all live mailboxes, and of all subscribed names. Both lists travel to a
/// session in one answer, and one above its bound would end the line of every session there.
const MAX_NAMES: i64 = 1 << 20;

/// Checks a name and gives it the one form it is kept in: the first level `Inbox`, in any case, is
/// Inbox (RFC 9051 §5.1).
pub(crate) fn canonical(name: &str) -> Result<String, StoreError> {
    types::check_mailbox_name(name).map_err(StoreError::MailboxName)?;
    let (first, rest) = name.split_at(name.find('/').unwrap_or(name.len()));
    if first.eq_ignore_ascii_case("inbox") { Ok(format!("Inbox{rest}")) } else { Ok(name.into()) }
}

/// As SQLite counts them.
fn octets(name: &str) -> i64 {
    i64::try_from(name.len()).unwrap_or(i64::MAX)
}

/// The name one level up.
fn parent_of(name: &str) -> Option<&str> {
    name.rsplit_once('/').map(|(parent, _)| parent)
}

impl Index {
    pub(crate) fn create_mailbox(
        &mut self,
        name: &str,
        role: Option<Role>,
    ) -> Result<MailboxInfo, StoreError> {
        self.transact(|tx| {
            if tx.find_mailbox(name)?.is_some() {
                return Err(StoreError::MailboxExists);
            }
            let id = tx.make_mailbox(name, role)?;
            Ok(tx.mailbox(id)?.info.clone())
        })
    }

    pub(crate) fn delete_mailbox(&mut self, id: MailboxId) -> Result<ModSeq, StoreError> {
        self.transact(|tx| {
            let info = tx.mailbox(id)?.info.clone();
            if info.name == "Inbox" {
                return Err(StoreError::Inbox);
            }
            let child = "SELECT 1 FROM mailbox WHERE parent_id = ?1 AND expunged = 0";
            let child: Option<i64> = tx.c.query_row(child, [id.0], |r| r.get(0)).optional()?;
            if child.is_some() {
                return Err(StoreError::HasChildren);
            }
            tx.expunge(id, &UidSet::all(), false)?;
            let seq = tx.seq();
            tx.c.execute(
                "UPDATE annotation SET expunged = 1, value = NULL, modseq = ?2
                 WHERE mailbox_id = ?1 AND expunged = 0",
                params![id.0, seq],
            )?;
            // The tombstone keeps its name, for sessions that have to tell of it.
            let open = tx.touch(id)?;
            open.info.role = None;
            open.info.expunged = true;
            Ok(seq)
        })
    }

    pub(crate) fn rename_mailbox(
        &mut self,
        id: MailboxId,
        to: &str,
    ) -> Result<Vec<Renamed>, StoreError> {
        let to = canonical(to)?;
        self.transact(|tx| {
            let from = tx.mailbox(id)?.info.name.clone();
            if to == "Inbox" {
                return Err(StoreError::Inbox);
            }
            if tx.find_mailbox(&to)?.is_some() {
                return Err(StoreError::MailboxExists);
            }
            if from == "Inbox" {
                return tx.empty_inbox_into(id, &to);
            }
            tx.rename_tree(id, &from, &to)
        })
    }

    pub(crate) fn set_role(
        &mut self,
        id: MailboxId,
        role: Option<Role>,
    ) -> Result<ModSeq, StoreError> {
        self.transact(|tx| {
            if tx.mailbox(id)?.info.role != role {
                tx.give_role(id, role)?;
            }
            Ok(tx.meta.modseq)
        })
    }

    pub(crate) fn subscribe(&mut self, name: &str, on: bool) -> Result<bool, StoreError> {
        let name = canonical(name)?;
        self.transact(|tx| {
            if !on {
                return Ok(tx.c.execute("DELETE FROM subscription WHERE name = ?1", [&name])? > 0);
            }
            if !tx.may_subscribe(&name)? {
                return Err(StoreError::TooMany("subscriptions"));
            }
            Ok(tx.c.execute("INSERT OR IGNORE INTO subscription VALUES (?1)", [&name])? > 0)
        })
    }
}

impl Tx<'_> {
    pub(crate) fn find_mailbox(&mut self, name: &str) -> Result<Option<MailboxId>, StoreError> {
        let name = canonical(name)?;
        read::find(self.c, &name)
    }

    /// A mailbox and the parents it lacks. RFC 9051 §6.3.4: missing superior names are created; they
    /// are subscribed like it.
    pub(crate) fn make_mailbox(
        &mut self,
        name: &str,
        role: Option<Role>,
    ) -> Result<MailboxId, StoreError> {
        let name = canonical(name)?;
        let parent = match parent_of(&name) {
            None => None,
            Some(parent) => Some(match read::find(self.c, parent)? {
                Some(id) => id,
                None => self.make_mailbox(parent, None)?,
            }),
        };
        let (count, names) = self.mailbox_names()?;
        if count >= MAX_MAILBOXES || names + octets(&name) > MAX_NAMES {
            return Err(StoreError::TooMany("mailboxes"));
        }
        let uidvalidity = self.meta.next_uidvalidity;
        self.meta.next_uidvalidity =
            uidvalidity.checked_add(1).ok_or(StoreError::TooMany("UIDVALIDITY values"))?;
        let (seq, oid) = (self.seq(), self.oid());
        self.c.execute(
            "INSERT INTO mailbox(parent_id, name, uidvalidity, createseq, modseq, oid)
             VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
            params![parent.map(|p| p.0), name, uidvalidity, seq, oid.as_bytes()],
        )?;
        let id = MailboxId(self.c.last_insert_rowid());
        // Mail that makes its mailbox is not refused for names that somebody subscribed to.
        if self.may_subscribe(&name)? {
            self.c.execute("INSERT OR IGNORE INTO subscription VALUES (?1)", [&name])?;
        }
        if role.is_some() {
            self.give_role(id, role)?;
        }
        Ok(id)
    }

    /// How many live mailboxes there are, and the octets of their names.
    fn mailbox_names(&self) -> Result<(i64, i64), StoreError> {
        let count =
            "SELECT count(*), coalesce(sum(octet_length(name)), 0) FROM mailbox WHERE expunged = 0";
        Ok(self.c.query_row(count, [], |r| Ok((r.get(0)?, r.get(1)?)))?)
    }

    /// Whether there is room for one more subscribed name.
    fn may_subscribe(&self, name: &str) -> Result<bool, StoreError> {
        let count = "SELECT count(*), coalesce(sum(octet_length(name)), 0) FROM subscription";
        let (count, names): (i64, i64) =
            self.c.query_row(count, [], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(count < MAX_SUBSCRIPTIONS && names + octets(name) <= MAX_NAMES)
    }

    /// One live mailbox has a role: whoever had it loses it, and both count as changed.
    fn give_role(&mut self, id: MailboxId, role: Option<Role>) -> Result<(), StoreError> {
        if let Some(role) = role {
            let holder = "SELECT id FROM mailbox WHERE role = ?1 AND expunged = 0";
            let holder: Option<i64> =
                self.c.query_row(holder, [role as i64], |r| r.get(0)).optional()?;
            if let Some(holder) = holder {
                self.touch(MailboxId(holder))?.info.role = None;
                // At once: two holders would break the unique index while rows are written back.
                self.c.execute("UPDATE mailbox SET role = 0 WHERE id = ?1", [holder])?;
            }
        }
        self.touch(id)?.info.role = role;
        Ok(())
    }

    /// RFC 9051 §6.3.6: renaming INBOX moves its messages to a new mailbox and leaves it empty; its
    /// children stay.
    fn empty_inbox_into(&mut self, inbox: MailboxId, to: &str) -> Result<Vec<Renamed>, StoreError> {
        let id = self.make_mailbox(to, None)?;
        self.move_rows(inbox, &UidSet::all(), id, None)?;
        let seq = self.seq();
        self.c.execute(
            "INSERT INTO annotation(mailbox_id, name, is_string, value, createseq, modseq, expunged)
             SELECT ?2, name, is_string, value, ?3, ?3, 0 FROM annotation
             WHERE mailbox_id = ?1 AND expunged = 0",
            params![inbox.0, id.0, seq],
        )?;
        Ok(vec![Renamed { id, from: "Inbox".into(), to: to.into() }])
    }

    fn rename_tree(
        &mut self,
        id: MailboxId,
        from: &str,
        to: &str,
    ) -> Result<Vec<Renamed>, StoreError> {
        let below = format!("{from}/");
        let children: Vec<(i64, String)> = {
            // A range on the name's index: '0' is the character behind '/'.
            let mut query = self.c.prepare_cached(
                "SELECT id, name FROM mailbox INDEXED BY mailbox_name
                 WHERE expunged = 0 AND name > ?1 AND name < ?2 ORDER BY name",
            )?;
            let end = format!("{from}0");
            let rows = query.query_map([&below, &end], |r| Ok((r.get(0)?, r.get(1)?)))?;
            rows.collect::<Result<_, _>>()?
        };
        let mut renamed = vec![Renamed { id, from: from.into(), to: to.into() }];
        for (child, name) in children {
            let rest = name.strip_prefix(&below).unwrap_or_default();
            let new = canonical(&format!("{to}/{rest}"))?;
            renamed.push(Renamed { id: MailboxId(child), from: name, to: new });
        }
        // Moving below itself (a to a/b) leaves the old name to be made anew as a parent, so the
        // names change first, all of them through one that nobody can give.
        for r in &renamed {
            let aside = format!("\u{1}{}", r.id.0);
            self.c.execute("UPDATE mailbox SET name = ?2 WHERE id = ?1", params![r.id.0, aside])?;
        }
        for r in &renamed {
            if read::find(self.c, &r.to)?.is_some() {
                return Err(StoreError::MailboxExists);
            }
            self.c.execute("UPDATE mailbox SET name = ?2 WHERE id = ?1", params![r.id.0, r.to])?;
            self.touch(r.id)?.info.name.clone_from(&r.to);
        }
        let parent = match parent_of(to) {
            None => None,
            Some(parent) => Some(match read::find(self.c, parent)? {
                Some(id) => id.0,
                None => self.make_mailbox(parent, None)?.0,
            }),
        };
        self.c.execute("UPDATE mailbox SET parent_id = ?2 WHERE id = ?1", params![id.0, parent])?;
        // All below it may have longer names now.
        let (_, names) = self.mailbox_names()?;
        if names > MAX_NAMES {
            return Err(StoreError::TooMany("mailboxes"));
        }
        Ok(renamed)
    }

    fn keywords(&mut self, id: MailboxId) -> Result<&mut Vec<KeywordUse>, StoreError> {
        let c = self.c;
        let open = self.mailbox(id)?;
        if open.keywords.is_none() {
            open.keywords = Some(read::keyword_uses(c, id)?);
        }
        Ok(open.keywords.get_or_insert_default())
    }

    /// The list as it is now.
    pub(crate) fn keywords_now(&mut self, id: MailboxId) -> Result<Vec<KeywordUse>, StoreError> {
        Ok(self.keywords(id)?.clone())
    }

    /// Whether these could be given to one message of the mailbox.
    pub(crate) fn check_keywords(
        &mut self,
        id: MailboxId,
        names: &[Keyword],
    ) -> Result<(), StoreError> {
        if names.is_empty() {
            return Ok(());
        }
        let all = self.keywords(id)?;
        let mut new: Vec<&Keyword> =
            names.iter().filter(|n| all.iter().all(|k| k.name != **n)).collect();
        new.sort_unstable();
        new.dedup();
        let used = all.iter().filter(|k| k.uses > 0).count();
        if names.len() > MAX_MESSAGE_KEYWORDS || used + new.len() > MAX_KEYWORDS {
            return Err(StoreError::TooManyKeywords);
        }
        Ok(())
    }

    /// The numbers of these keywords, given out where they have none yet. Nothing is counted here:
    /// [`Self::count_keywords`] does that, before the next numbers are given out.
    pub(crate) fn number_keywords(
        &mut self,
        id: MailboxId,
        names: &[Keyword],
    ) -> Result<KeywordBits, StoreError> {
        let mut bits = KeywordBits::NONE;
        if names.is_empty() {
            return Ok(bits);
        }
        let all = self.keywords(id)?;
        for name in names {
            if let Some(known) = all.iter().find(|k| k.name == *name) {
                bits = bits.with(KeywordBits::one(known.bit));
            }
        }
        for name in names {
            if all.iter().any(|k| k.name == *name) {
                continue;
            }
            let is_free = |bit: &u8| {
                !bits.has(KeywordBits::one(*bit))
                    && all.iter().all(|k| k.bit != *bit || k.uses == 0)
            };
            let most = u8::try_from(MAX_KEYWORDS).unwrap_or(u8::MAX);
            let bit = (0..most).find(is_free).ok_or(StoreError::TooManyKeywords)?;
            all.retain(|k| k.bit != bit);
            all.push(KeywordUse { bit, name: name.clone(), uses: 0 });
            bits = bits.with(KeywordBits::one(bit));
        }
        Ok(bits)
    }

    /// Numbers keywords for one message and counts them.
    pub(crate) fn use_keywords(
        &mut self,
        id: MailboxId,
        names: &[Keyword],
    ) -> Result<KeywordBits, StoreError> {
        self.check_keywords(id, names)?;
        let bits = self.number_keywords(id, names)?;
        self.count_keywords(id, KeywordBits::NONE, bits)?;
        Ok(bits)
    }

    /// A message's keywords went from `old` to `new`.
    pub(crate) fn count_keywords(
        &mut self,
        id: MailboxId,
        old: KeywordBits,
        new: KeywordBits,
    ) -> Result<(), StoreError> {
        if old == new {
            return Ok(());
        }
        let (lost, won) = (old.without(new), new.without(old));
        for k in self.keywords(id)?.iter_mut() {
            let bit = KeywordBits::one(k.bit);
            if lost.has(bit) {
                k.uses = k.uses.saturating_sub(1);
            } else if won.has(bit) {
                k.uses = k.uses.saturating_add(1);
            }
        }
        self.mailbox(id)?.keywords_dirty = true;
        Ok(())
    }

    /// The names of a message's keywords: to give them to a copy in another mailbox.
    pub(crate) fn keyword_names(
        &mut self,
        id: MailboxId,
        bits: KeywordBits,
    ) -> Result<Vec<Keyword>, StoreError> {
        if bits.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.keywords(id)?;
        let has = |k: &&KeywordUse| bits.has(KeywordBits::one(k.bit));
        Ok(all.iter().filter(has).map(|k| k.name.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        assert_eq!(canonical("iNBOX").unwrap(), "Inbox");
        assert_eq!(canonical("INBOX/a").unwrap(), "Inbox/a");
        assert_eq!(canonical("Inboxes").unwrap(), "Inboxes");
        assert_eq!(canonical("a/inbox").unwrap(), "a/inbox");
        assert!(canonical("a//b").is_err());
    }
}
