//! The decoded text of a content: what SEARCH looks through and the junk filter learns.
//!
//! Most of it stands in the content too, word for word. So it is compressed with the plain content as
//! its model and takes a tenth of what it would take by itself; who reads it reads the content first,
//! from wherever that lies by now: the text does not know. Where the content is large, or mostly
//! something else than text, reading it would cost more than is won, and the text stands alone.

use super::{
    StoreError, codec,
    message::Facts,
    segments::{Position, SegmentFiles},
    types::ContentId,
};
use storage::rusqlite::{Connection, Row, params};

/// Decoded text kept of one message.
const MAX_TEXT: usize = 8 << 20;
/// A longer content is no model for its text.
pub(crate) const MAX_MODEL: usize = 64 * 1024;
/// Nor is one that is more than so many times as long as the text.
const MAX_RATIO: usize = 4;

/// Text as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackedText {
    size: u64,
    data: Vec<u8>,
    by_content: bool,
}

/// Packs the text of a message; `content` is the whole of it where that is at hand.
pub(crate) fn pack(facts: &Facts, content: Option<&[u8]>) -> Result<PackedText, StoreError> {
    let text = join(facts);
    let size = text.len() as u64;
    let is_model = |c: &&[u8]| c.len() <= MAX_MODEL.min(MAX_RATIO.saturating_mul(text.len()));
    if let Some(content) = content.filter(is_model)
        && let Some(data) = codec::compress_like(content, &text)?
    {
        return Ok(PackedText { size, data, by_content: true });
    }
    Ok(PackedText { size, data: codec::compress(&text)?, by_content: false })
}

/// Puts it in the place of what was there.
pub(crate) fn store(c: &Connection, id: ContentId, text: &PackedText) -> Result<(), StoreError> {
    let mut insert = c.prepare_cached(
        "INSERT INTO content_text(content_id, size, data, by_content) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT(content_id) DO UPDATE SET size=?2, data=?3, by_content=?4",
    )?;
    insert.execute(params![id.0, text.size, text.data, text.by_content])?;
    Ok(())
}

/// Columns of `content_text t` and of `content c`, from which [`unpack`] makes the text.
pub(crate) const COLUMNS: &str =
    "t.size, t.data, t.by_content, c.size, c.zsize, c.seg, c.off, c.crc, c.frames";

/// The text of a row with [`COLUMNS`] from column `at` on, `None` where the parser read none.
pub(crate) fn unpack(
    row: &Row<'_>,
    at: usize,
    c: &Connection,
    files: &SegmentFiles,
    id: ContentId,
) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(size) = row.get::<_, Option<usize>>(at)? else { return Ok(None) };
    let data = row.get_ref(at + 1)?.as_blob().map_err(storage::rusqlite::Error::from)?;
    let text = if row.get::<_, bool>(at + 2)? {
        let content = files.read_at(c, id, &Position::of(row, at + 3)?, 0, u32::MAX)?;
        codec::decompress_like(&content, data, size)?
    } else {
        codec::decompress(data, size)?
    };
    match split(&text) {
        Some(_) => Ok(Some(text)),
        None => Err(StoreError::Damaged("decoded text is malformed".into())),
    }
}

/// The text of a content, `None` where there is none.
pub(crate) fn read(
    c: &Connection,
    files: &SegmentFiles,
    id: ContentId,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut query = c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM content c JOIN content_text t ON t.content_id = c.id
         WHERE c.id = ?1"
    ))?;
    let mut rows = query.query([id.0])?;
    match rows.next()? {
        Some(row) => unpack(row, 0, c, files, id),
        None => Ok(None),
    }
}

/// The header's text, then each part's: length of the header (32 bits, little-endian), header, parts
/// with a NUL between them, so that a needle never spans two.
fn join(facts: &Facts) -> Vec<u8> {
    let mut text = Vec::new();
    let header = cut(&facts.header_text, MAX_TEXT / 2);
    text.extend_from_slice(&u32::try_from(header.len()).unwrap_or(0).to_le_bytes());
    text.extend_from_slice(header.as_bytes());
    for part in &facts.body_text {
        let room = MAX_TEXT.saturating_sub(text.len());
        text.extend_from_slice(cut(part, room).as_bytes());
        text.push(0);
    }
    text
}

/// The header's text and the parts', as [`join`] joined them.
pub(crate) fn split(text: &[u8]) -> Option<(&str, &str)> {
    let (len, rest) = text.split_at_checked(4)?;
    let len = u32::from_le_bytes(len.try_into().ok()?) as usize;
    let (header, body) = rest.split_at_checked(len)?;
    Some((std::str::from_utf8(header).ok()?, std::str::from_utf8(body).ok()?))
}

/// The first `most` octets, at a character's end.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
