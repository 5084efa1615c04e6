//! STORE: flags and keywords of messages that are there.

use super::{
    StoreError,
    deliver::bits,
    index::{Index, Tx},
    read::{self, FullRow},
    reputation,
    rows::{FlagChange, MessageRow, StoreOutcome},
    types::{Flags, Keyword, KeywordBits, MAX_MESSAGE_KEYWORDS, MailboxId, ModSeq, UidSet},
};
use storage::rusqlite::params;

impl Index {
    pub(crate) fn store_flags(
        &mut self,
        mailbox: MailboxId,
        uids: &UidSet,
        change: FlagChange,
        flags: Flags,
        keywords: &[Keyword],
        unchanged_since: Option<ModSeq>,
    ) -> Result<StoreOutcome, StoreError> {
        let mut names = keywords.to_vec();
        names.sort_unstable();
        names.dedup();
        self.transact(|tx| {
            tx.mailbox(mailbox)?;
            let before = tx.keywords_now(mailbox)?;
            let numbered = if change == FlagChange::Remove {
                // What no message has need not be numbered to be taken away.
                before
                    .iter()
                    .filter(|k| names.contains(&k.name))
                    .fold(KeywordBits::NONE, |all, k| all.with(KeywordBits::one(k.bit)))
            } else {
                tx.check_keywords(mailbox, &names)?;
                tx.number_keywords(mailbox, &names)?
            };
            let mut outcome = StoreOutcome::default();
            for row in read::full_rows(tx.c, mailbox, uids)? {
                // RFC 7162 §3.1.3: a message that changed since is left alone and named.
                if unchanged_since.is_some_and(|since| row.modseq > since) {
                    outcome.modified.push(row.uid);
                    continue;
                }
                let (new_flags, new_keywords) = match change {
                    FlagChange::Add => (row.flags.with(flags), row.keywords.with(numbered)),
                    FlagChange::Remove => {
                        (row.flags.without(flags), row.keywords.without(numbered))
                    }
                    FlagChange::Replace => (flags, numbered),
                };
                outcome.rows.push(tx.change_row(&row, new_flags, new_keywords)?);
            }
            let changed = outcome.rows.iter().any(|r| r.modseq == tx.meta.modseq);
            outcome.modseq = Some(tx.meta.modseq).filter(|_| changed && tx.is_bumped());
            let uses = tx.keywords_now(mailbox)?;
            outcome.keywords =
                uses.into_iter().filter(|k| k.uses > 0).map(|k| (k.bit, k.name)).collect();
            Ok(outcome)
        })
    }
}

impl Tx<'_> {
    /// Writes new flags of a row, counts them, and teaches the junk filter. A row that stays as it is
    /// keeps its modseq.
    pub(crate) fn change_row(
        &mut self,
        row: &FullRow,
        flags: Flags,
        keywords: KeywordBits,
    ) -> Result<MessageRow, StoreError> {
        if keywords.count() as usize > MAX_MESSAGE_KEYWORDS {
            return Err(StoreError::TooManyKeywords);
        }
        if flags == row.flags && keywords == row.keywords {
            return Ok(row.listed());
        }
        let new_bits = reputation::train(self, row.content, row.bits, flags)?;
        let seq = self.seq();
        let open = self.touch(row.mailbox)?;
        open.count(row.flags, row.size, false);
        open.count(flags, row.size, true);
        self.count_keywords(row.mailbox, row.keywords, keywords)?;
        let mut update = self.c.prepare_cached(
            "UPDATE msg SET flags = ?2, kw = ?3, modseq = ?4, bits = ?5 WHERE id = ?1",
        )?;
        let kw = keywords.to_column();
        update.execute(params![row.id.0, flags.bits(), kw, seq, new_bits])?;
        Ok(MessageRow { flags, keywords, modseq: seq, ..row.listed() })
    }

    /// Whether a row learned from is learned from the other way, or not any more.
    pub(crate) fn trained(row_bits: u32) -> Option<bool> {
        if row_bits & bits::TRAINED_JUNK != 0 {
            Some(true)
        } else if row_bits & bits::TRAINED_HAM != 0 {
            Some(false)
        } else {
            None
        }
    }
}
