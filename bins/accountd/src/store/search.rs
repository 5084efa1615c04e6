//! Text search by brute force over the decoded text kept beside each content.
//!
//! IMAP asks for substrings without regard to case (RFC 9051 §6.4.4). Text and needle are folded
//! alike: Unicode lower case after normal form C. Nothing here parses a message: the parser decoded
//! it at delivery.

use super::{
    StoreError, read,
    rows::{MAX_TEXT_KEYS, SearchBatch, TextKey},
    text,
    types::{ContentId, MailboxId, Uid, UidSet},
    worker::View,
};
use std::borrow::Cow;
use storage::rusqlite::params;
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// Hits of one answer.
const MAX_HITS: usize = 8192;

/// The form in which text and needle are compared.
pub(crate) fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Cow::Owned(text.to_ascii_lowercase());
        }
        return Cow::Borrowed(text);
    }
    let lower = text.to_lowercase();
    if is_nfc(&lower) { Cow::Owned(lower) } else { Cow::Owned(lower.nfc().collect()) }
}

/// A key, folded once.
enum Folded {
    Text(String),
    Body(String),
    Header(String, String),
}

fn fold_key(key: &TextKey) -> Folded {
    match key {
        TextKey::Text(needle) => Folded::Text(fold(needle).into_owned()),
        TextKey::Body(needle) => Folded::Body(fold(needle).into_owned()),
        TextKey::Header(name, needle) => {
            Folded::Header(name.to_ascii_lowercase(), fold(needle).into_owned())
        }
    }
}

fn has_field(header: &str, name: &str, needle: &str) -> bool {
    header.lines().any(|line| {
        line.split_once(':')
            .is_some_and(|(n, value)| n.trim_end() == name && value.contains(needle))
    })
}

/// Which keys a text holds.
fn matches(keys: &[Folded], text: &[u8]) -> Result<u64, StoreError> {
    let (header, body) =
        text::split(text).ok_or_else(|| StoreError::Damaged("decoded text is malformed".into()))?;
    let (header, body) = (fold(header), fold(body));
    let mut found = 0;
    for (n, key) in keys.iter().enumerate() {
        let hit = match key {
            Folded::Text(needle) => {
                header.contains(needle.as_str()) || body.contains(needle.as_str())
            }
            Folded::Body(needle) => body.contains(needle.as_str()),
            Folded::Header(name, needle) => has_field(&header, name, needle),
        };
        if hit {
            found |= 1 << n;
        }
    }
    Ok(found)
}

/// One slice of a search. When the text of its first message is damaged, `alarm` is told, and that
/// one passed over; without one the slice fails.
pub(crate) fn step(
    view: &View<'_>,
    mailbox: MailboxId,
    uids: &UidSet,
    from: Uid,
    keys: &[TextKey],
    alarm: Option<&dyn Fn(&str)>,
) -> Result<SearchBatch, StoreError> {
    if keys.len() > MAX_TEXT_KEYS {
        return Err(StoreError::TooMany("search keys"));
    }
    let keys: Vec<Folded> = keys.iter().map(fold_key).collect();
    let (c, files) = (view.connection, view.files);
    let mut query = c.prepare_cached(&format!(
        "SELECT m.uid, m.content_id, {} FROM msg m
         LEFT JOIN content_text t ON t.content_id = m.content_id
         LEFT JOIN content c ON c.id = t.content_id
         WHERE m.mailbox_id = ?1 AND m.uid BETWEEN ?2 AND ?3 AND m.expunged = 0 ORDER BY m.uid",
        text::COLUMNS
    ))?;
    let mut batch = SearchBatch::default();
    batch.next = read::each_range(uids, from, |start, end| {
        let mut found = query.query(params![mailbox.0, start, end])?;
        while let Some(r) = found.next()? {
            let uid: Uid = r.get(0)?;
            let is_full = batch.hits.len() >= MAX_HITS || view.is_late(batch.looked_at as usize);
            if is_full {
                return Ok(Some(uid));
            }
            let id = ContentId(r.get::<_, Option<i64>>(1)?.unwrap_or(0));
            let text = match text::unpack(r, 2, c, files, id) {
                // Compaction may have taken the segment away since this transaction began: the next
                // slice sees where the bytes are now.
                Err(StoreError::Damaged(_)) if batch.looked_at > 0 => return Ok(Some(uid)),
                Err(StoreError::Damaged(why)) if let Some(alarm) = alarm => {
                    alarm(&why);
                    None
                }
                other => other?,
            };
            batch.looked_at += 1;
            // What the parser could not read has no text to find anything in.
            let Some(text) = text else { continue };
            let bits = matches(&keys, &text)?;
            if bits != 0 {
                batch.hits.push((uid, bits));
            }
        }
        Ok(None)
    })?;
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_is_by_unicode() {
        assert_eq!(fold("ÄÖ Straße"), fold("äö straße"));
        assert_eq!(fold("E\u{301}"), fold("É"));
        assert!(matches!(fold("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn keys_find_where_they_should() {
        let header = "Subject: Über uns\nFrom: A <a@b.example>\nX-Empty:\n";
        let mut text = u32::try_from(header.len()).unwrap().to_le_bytes().to_vec();
        text.extend_from_slice(header.as_bytes());
        text.extend_from_slice("Guten Tag\0zweiter Teil\0".as_bytes());
        let keys = [
            TextKey::Text("über".into()),
            TextKey::Body("über".into()),
            TextKey::Body("TAG".into()),
            TextKey::Header("subject".into(), "UNS".into()),
            TextKey::Header("Subject".into(), "a@b".into()),
            TextKey::Header("x-empty".into(), String::new()),
            TextKey::Header("x-none".into(), String::new()),
            TextKey::Body("tagzweiter".into()),
        ];
        let keys: Vec<Folded> = keys.iter().map(fold_key).collect();
        assert_eq!(matches(&keys, &text).unwrap(), 0b0010_1101);
        assert!(matches(&keys, &[9, 0, 0, 0, b'x']).is_err());
    }
}
