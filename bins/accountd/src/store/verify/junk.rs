//! Counts anew what the junk filter learned, and compares.
//!
//! However many words there are, memory is bounded: a step counts the first words behind a place, as
//! many as it may keep, and says where the next one begins. A reader looks first, in short jobs, as
//! others wait for it. What is trained between two of them it may miss: what does not agree then is
//! for the writer to say, in one transaction that reads every trained message.

use super::found::{Check, Found};
use crate::store::{
    StoreError, deliver::bits, index::Index, reputation, segments::SegmentFiles, types::ContentId,
    worker::View,
};
use std::collections::BTreeMap;
use storage::rusqlite::{Connection, params};

/// In how many other messages and in how many junk ones.
type Counts = (i64, i64);

/// Messages of a reader's job that were trained, if its time lasts so long.
const MESSAGES: usize = 200;
/// Messages it looks at for them.
const LOOKED_AT: i64 = 20_000;
const TRAINED: u32 = bits::TRAINED_JUNK | bits::TRAINED_HAM;

/// What was counted anew.
#[derive(Default)]
struct Counted {
    /// Of the words at or behind `from` and before `end`.
    words: BTreeMap<String, Counts>,
    /// The first word that is not counted.
    end: Option<String>,
    messages: Counts,
}

impl Counted {
    /// Adds a message's words, those from `from` on, and keeps at most `most`.
    fn add(&mut self, words: Vec<String>, row_bits: u32, from: &str, most: usize) {
        let junk = i64::from(row_bits & bits::TRAINED_JUNK != 0);
        let add = |n: &mut Counts| *n = (n.0 + 1 - junk, n.1 + junk);
        add(&mut self.messages);
        for word in words {
            // What was once too much stays so: all words before the end are counted in all messages.
            if word.as_str() < from || self.end.as_ref().is_some_and(|end| word >= *end) {
                continue;
            }
            add(self.words.entry(word).or_default());
            if self.words.len() > most.max(1) {
                self.end = self.words.pop_last().map(|(word, _)| word);
            }
        }
    }
}

/// A reader's count, between two jobs.
pub(super) struct Counting {
    from: String,
    /// The last message that was read.
    after: i64,
    counted: Counted,
}

impl Counting {
    pub(super) fn from(word: String) -> Self {
        Self { from: word, after: 0, counted: Counted::default() }
    }
}

/// What a reader can say.
pub(super) enum Looked {
    /// Nothing yet.
    More(Counting),
    /// What was learned is right before this word.
    Right(Option<String>),
    /// It is not, or it was learned while the reader counted, or compaction took a segment away from
    /// under it.
    Unsure,
}

/// Goes on with a reader's count, of at most `most` words.
pub(super) fn look(view: &View<'_>, mut now: Counting, most: usize) -> Result<Looked, StoreError> {
    let c = view.connection;
    let newest: i64 = c.query_row("SELECT ifnull(max(id), 0) FROM msg", [], |row| row.get(0))?;
    if now.after < newest {
        let until = now.after.saturating_add(LOOKED_AT).min(newest);
        let mut query = c.prepare_cached(
            "SELECT id, content_id, bits FROM msg
             WHERE id > ?1 AND id <= ?2 AND expunged = 0 AND bits & ?3 <> 0 ORDER BY id",
        )?;
        let mut rows = query.query(params![now.after, until, TRAINED])?;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            if read >= MESSAGES || view.is_late(read) {
                return Ok(Looked::More(now));
            }
            read += 1;
            now.after = row.get(0)?;
            let content: Option<i64> = row.get(1)?;
            let words = reputation::content_words(c, view.files, content.map(ContentId))?;
            let Some(words) = words else { continue };
            now.counted.add(words, row.get(2)?, &now.from, most);
        }
        now.after = until;
        return Ok(Looked::More(now));
    }
    let is_right = is_kept(c, &now.from, &now.counted)?;
    Ok(if is_right { Looked::Right(now.counted.end) } else { Looked::Unsure })
}

/// Compares the words from `from` on, at most `most` of them, and with the first also the number of
/// messages. Gives the word to go on with.
pub(super) fn check(
    index: &mut Index,
    from: &str,
    most: usize,
    fix: bool,
    found: &mut Found,
) -> Result<Option<String>, StoreError> {
    let files = &index.files;
    let (counted, is_right) = index.database.read(|c| {
        let counted = count(c, files, from, most)?;
        let is_right = is_kept(c, from, &counted)?;
        Ok::<_, StoreError>((counted, is_right))
    })?;
    if is_right {
        return Ok(counted.end);
    }
    let end = if fix {
        index.transact(|tx| {
            let counted = count(tx.c, tx.files, from, most)?;
            let old = "DELETE FROM junk_word WHERE word >= ?1 AND (?2 IS NULL OR word < ?2)";
            tx.c.execute(old, params![from, counted.end])?;
            let mut insert = tx.c.prepare("INSERT INTO junk_word VALUES (?1, ?2, ?3)")?;
            for (word, (ham, spam)) in counted.words {
                insert.execute(params![word, ham, spam])?;
            }
            let (ham, spam) = counted.messages;
            tx.c.execute("UPDATE junk_meta SET ham = ?1, spam = ?2", [ham, spam])?;
            Ok(counted.end)
        })?
    } else {
        counted.end
    };
    found.add(Check::Junk, "what was learned is not what the flags say".into(), fix);
    Ok(end)
}

fn count(
    c: &Connection,
    files: &SegmentFiles,
    from: &str,
    most: usize,
) -> Result<Counted, StoreError> {
    let mut query =
        c.prepare("SELECT content_id, bits FROM msg WHERE expunged = 0 AND bits & ?1 <> 0")?;
    let rows =
        query.query_map([TRAINED], |r| Ok((r.get::<_, Option<i64>>(0)?, r.get::<_, u32>(1)?)))?;
    let mut counted = Counted::default();
    for row in rows {
        let (content, row_bits) = row?;
        let words = reputation::content_words(c, files, content.map(ContentId))?;
        let Some(words) = words else { continue };
        counted.add(words, row_bits, from, most);
    }
    Ok(counted)
}

/// Whether the account says the same.
fn is_kept(c: &Connection, from: &str, counted: &Counted) -> Result<bool, StoreError> {
    let kept: Counts =
        c.query_row("SELECT ham, spam FROM junk_meta", [], |r| Ok((r.get(0)?, r.get(1)?)))?;
    if kept != counted.messages {
        return Ok(false);
    }
    let mut query = c.prepare(
        "SELECT word, ham, spam FROM junk_word
         WHERE (ham > 0 OR spam > 0) AND word >= ?1 AND (?2 IS NULL OR word < ?2) ORDER BY word",
    )?;
    let mut rows = query.query(params![from, counted.end])?;
    for (word, counts) in &counted.words {
        let Some(row) = rows.next()? else { return Ok(false) };
        let kept: (String, Counts) = (row.get(0)?, (row.get(1)?, row.get(2)?));
        if kept.0 != *word || kept.1 != *counts {
            return Ok(false);
        }
    }
    Ok(rows.next()?.is_none())
}
