//! What the account remembers for judging: how mail that was like this one turned out, and which
//! words are in junk.
//!
//! Training happens in the transaction that changes a flag, so the two cannot part. The words of a
//! message are found in its decoded text by one total function, the same for training and for
//! judging ([`words`]).

use super::{
    StoreError,
    deliver::bits,
    index::{Index, Tx, hash},
    message::{ReputationKey, ReputationKind},
    rows::{Reparsed, ReputationHit},
    search::fold,
    segments::{self, SegmentFiles},
    text,
    types::{ContentId, Flags, MailboxId, Uid},
};
use std::collections::BTreeSet;
use storage::rusqlite::{Connection, OptionalExtension as _, params};
use types::UnixNanos;

/// Words of one message that are learned or judged.
pub const MAX_WORDS: usize = 2000;
/// Characters of a word; longer runs are no words.
const WORD_CHARS: std::ops::RangeInclusive<usize> = 3..=40;
/// Header fields whose words count, each as its own kind of word.
const FIELDS: [&str; 8] =
    ["from", "to", "cc", "bcc", "reply-to", "subject", "sender", "return-path"];
/// Rows that a reputation look-up passes over: unflagged history must not make it slow.
const MAX_LOOKED_AT: u32 = 5000;

/// How often words were in junk and in other mail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JunkCounts {
    /// For each word asked for: in how many other messages, and in how many junk ones.
    pub words: Vec<(u64, u64)>,
    /// Other messages learned.
    pub ham: u64,
    /// Junk messages learned.
    pub spam: u64,
}

/// The words of a message for the junk filter, each once, sorted: those of some header fields with
/// the field's name before them, and those of the text.
#[must_use]
pub fn words(header_text: &str, body_text: &[String]) -> Vec<String> {
    words_of(header_text, body_text.iter().map(String::as_str))
}

fn words_of<'a>(header: &str, body: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all = BTreeSet::new();
    let split = |text: &str, prefix: &str, all: &mut BTreeSet<String>| {
        for word in text.split(|c: char| !c.is_alphanumeric()) {
            if all.len() >= MAX_WORDS {
                return;
            }
            if WORD_CHARS.contains(&word.chars().count()) {
                all.insert(format!("{prefix}{word}"));
            }
        }
    };
    for line in header.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let name = name.trim_end().to_ascii_lowercase();
        if FIELDS.contains(&name.as_str()) {
            split(&fold(value), &format!("{name}:"), &mut all);
        }
    }
    for part in body {
        split(&fold(part), "", &mut all);
    }
    all.into_iter().collect()
}

pub(crate) fn key_hash(hash_key: &[u8; 16], key: &ReputationKey) -> i64 {
    hash(hash_key, &format!("{}:{}", key.kind as i64, key.value))
}

/// Learns a message as its flags now say, and unlearns what was learned otherwise. Gives the row's
/// new bits.
pub(crate) fn train(
    tx: &mut Tx<'_>,
    content: Option<ContentId>,
    row_bits: u32,
    flags: Flags,
) -> Result<u32, StoreError> {
    let wanted = match (flags.has(Flags::JUNK), flags.has(Flags::NOT_JUNK)) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        (true, true) | (false, false) => None,
    };
    let trained = Tx::trained(row_bits);
    if wanted == trained {
        return Ok(row_bits);
    }
    let Some(words) = content_words(tx.c, tx.files, content)? else { return Ok(row_bits) };
    if let Some(is_junk) = trained {
        learn(tx.c, &words, is_junk, -1)?;
    }
    if let Some(is_junk) = wanted {
        learn(tx.c, &words, is_junk, 1)?;
    }
    let cleared = row_bits & !(bits::TRAINED_JUNK | bits::TRAINED_HAM);
    Ok(match wanted {
        Some(true) => cleared | bits::TRAINED_JUNK,
        Some(false) => cleared | bits::TRAINED_HAM,
        None => cleared,
    })
}

pub(crate) fn content_words(
    c: &Connection,
    files: &SegmentFiles,
    content: Option<ContentId>,
) -> Result<Option<Vec<String>>, StoreError> {
    let Some(content) = content else { return Ok(None) };
    let text = match text::read(c, files, content) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(None),
        // A flag can be set on a message all the same.
        Err(StoreError::Damaged(why)) => {
            tracing::warn!(content = content.0, why, "nothing is learned of a damaged content");
            return Ok(None);
        }
        Err(other) => return Err(other),
    };
    let (header, body) = text::split(&text)
        .ok_or_else(|| StoreError::Damaged("decoded text is malformed".into()))?;
    Ok(Some(words_of(header, body.split('\0'))))
}

fn learn(c: &Connection, words: &[String], is_junk: bool, by: i64) -> Result<(), StoreError> {
    let (ham, spam) = if is_junk { (0, by) } else { (by, 0) };
    let mut update = c.prepare_cached(
        "INSERT INTO junk_word VALUES (?1, max(?2, 0), max(?3, 0))
         ON CONFLICT(word) DO UPDATE SET ham = max(ham + ?2, 0), spam = max(spam + ?3, 0)",
    )?;
    for word in words {
        update.execute(params![word, ham, spam])?;
    }
    c.prepare_cached(
        "UPDATE junk_meta SET ham = max(ham + ?1, 0), spam = max(spam + ?2, 0) WHERE one = 1",
    )?
    .execute([ham, spam])?;
    Ok(())
}

pub(crate) fn junk_counts(c: &Connection, words: &[String]) -> Result<JunkCounts, StoreError> {
    let (ham, spam) =
        c.query_row("SELECT ham, spam FROM junk_meta", [], |r| Ok((r.get(0)?, r.get(1)?)))?;
    let mut query = c.prepare_cached("SELECT ham, spam FROM junk_word WHERE word = ?1")?;
    let mut counts = Vec::with_capacity(words.len().min(MAX_WORDS));
    for word in words.iter().take(MAX_WORDS) {
        let row = query.query_row([word], |r| Ok((r.get(0)?, r.get(1)?))).optional()?;
        counts.push(row.unwrap_or((0, 0)));
    }
    Ok(JunkCounts { words: counts, ham, spam })
}

pub(crate) fn hits(
    c: &Connection,
    key: &ReputationKey,
    mailbox: Option<MailboxId>,
    since: UnixNanos,
    most: u32,
) -> Result<Vec<ReputationHit>, StoreError> {
    let hash_key: [u8; 16] = c.query_row("SELECT hash_key FROM meta", [], |r| r.get(0))?;
    let mut query = c.prepare_cached(
        "SELECT r.received, m.flags FROM
           (SELECT received, content_id FROM reputation WHERE key = ?1 AND received >= ?2
            ORDER BY received DESC, content_id DESC LIMIT ?6) r
         JOIN msg m ON m.content_id = r.content_id AND m.expunged = 0
         WHERE m.flags & ?3 <> 0 AND (?4 IS NULL OR m.orig_mailbox_id = ?4)
         ORDER BY r.received DESC LIMIT ?5",
    )?;
    let judged = Flags::JUNK.with(Flags::NOT_JUNK).bits();
    let rows = query.query_map(
        params![
            key_hash(&hash_key, key),
            since.0,
            judged,
            mailbox.map(|m| m.0),
            most,
            MAX_LOOKED_AT
        ],
        |r| {
            let flags = Flags::from_bits(r.get(1)?);
            Ok(ReputationHit {
                received: UnixNanos(r.get(0)?),
                junk: flags.has(Flags::JUNK),
                not_junk: flags.has(Flags::NOT_JUNK),
            })
        },
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Live messages of a mailbox with this Message-ID or this content hash.
pub(crate) fn find_same(
    c: &Connection,
    mailbox: MailboxId,
    message_id: Option<&str>,
    content_hash: Option<[u8; 32]>,
) -> Result<Vec<Uid>, StoreError> {
    let mut uids = BTreeSet::new();
    if let Some(message_id) = message_id {
        let hash_key: [u8; 16] = c.query_row("SELECT hash_key FROM meta", [], |r| r.get(0))?;
        let mut query = c.prepare_cached(
            "SELECT m.uid FROM content c JOIN content_meta cm ON cm.content_id = c.id
             JOIN msg m ON m.content_id = c.id AND m.expunged = 0
             WHERE c.msgid_h = ?1 AND cm.msgid = ?2 AND m.mailbox_id = ?3",
        )?;
        let hashed = hash(&hash_key, message_id);
        let rows = query.query_map(params![hashed, message_id, mailbox.0], |r| r.get(0))?;
        for uid in rows {
            uids.insert(uid?);
        }
    }
    if let Some(content_hash) = content_hash {
        let mut query = c.prepare_cached(
            "SELECT m.uid FROM content c JOIN msg m ON m.content_id = c.id AND m.expunged = 0
             WHERE c.hash = ?1 AND m.mailbox_id = ?2",
        )?;
        let rows = query.query_map(params![content_hash, mailbox.0], |r| r.get(0))?;
        for uid in rows {
            uids.insert(uid?);
        }
    }
    Ok(uids.into_iter().collect())
}

impl Index {
    /// All facts stored are of this version of the parser.
    pub(crate) fn set_parse_version(&mut self, version: u32) -> Result<(), StoreError> {
        self.transact(|tx| {
            tx.c.execute("UPDATE meta SET parse_version = ?1", [version])?;
            Ok(())
        })
    }

    /// New facts for contents that are there. Threads stay as they are; what was learned of the old
    /// text is unlearned and learned from the new.
    pub(crate) fn reparsed(&mut self, all: &[Reparsed]) -> Result<(), StoreError> {
        self.transact(|tx| {
            for Reparsed { content, facts } in all {
                let exists = "SELECT 1 FROM content WHERE id = ?1";
                let exists: Option<i64> =
                    tx.c.query_row(exists, [content.0], |r| r.get(0)).optional()?;
                if exists.is_none() {
                    continue;
                }
                let rows: Vec<(i64, u32)> = {
                    let mut query = tx.c.prepare_cached(
                        "SELECT id, bits FROM msg WHERE content_id = ?1 AND expunged = 0",
                    )?;
                    let rows = query.query_map([content.0], |r| Ok((r.get(0)?, r.get(1)?)))?;
                    rows.collect::<Result<_, _>>()?
                };
                let old = content_words(tx.c, tx.files, Some(*content))?;
                let plain = segments::position(tx.c, *content)?
                    .filter(|p| p.size <= text::MAX_MODEL as u64)
                    .and_then(|p| tx.files.read_at(tx.c, *content, &p, 0, u32::MAX).ok());
                let text = text::pack(facts, plain.as_deref())?;
                tx.add_facts(*content, facts, &text)?;
                let new = content_words(tx.c, tx.files, Some(*content))?.unwrap_or_default();
                for (_, row_bits) in &rows {
                    if let (Some(is_junk), Some(old)) = (Tx::trained(*row_bits), &old) {
                        learn(tx.c, old, is_junk, -1)?;
                        learn(tx.c, &new, is_junk, 1)?;
                    }
                }
                let msgid_h = facts.message_id.as_deref().map(|m| tx.hash(m));
                let subj_h =
                    Some(&facts.base_subject).filter(|s| !s.is_empty()).map(|s| tx.hash(s));
                tx.c.execute(
                    "UPDATE content SET msgid_h = ?2, subj_h = ?3 WHERE id = ?1",
                    params![content.0, msgid_h, subj_h],
                )?;
            }
            Ok(())
        })
    }
}

/// The kinds in use, for a loop over all of them.
pub const KINDS: [ReputationKind; 12] = [
    ReputationKind::From,
    ReputationKind::FromDomain,
    ReputationKind::FromOrgDomain,
    ReputationKind::DkimDomain,
    ReputationKind::MailFrom,
    ReputationKind::MailFromDomain,
    ReputationKind::Ehlo,
    ReputationKind::Ip1,
    ReputationKind::Ip2,
    ReputationKind::Ip3,
    ReputationKind::FromUnvalidated,
    ReputationKind::FromDomainUnvalidated,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_folded_bounded_and_each_once() {
        let found = words("Subject: Big WIN now\nX-Other: nothing\n", &["win WIN ab Größe".into()]);
        assert_eq!(found, ["größe", "subject:big", "subject:now", "subject:win", "win"]);
        let many: String = (0..5000).map(|n| format!("word{n} ")).collect();
        assert_eq!(words("", &[many]).len(), MAX_WORDS);
    }
}
