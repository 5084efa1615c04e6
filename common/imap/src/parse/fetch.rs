//! `fetch-att`: what a client asks of messages.

use super::{SyntaxError, cursor::Cursor, is_atom_char, sp_set, utf8};
use crate::command::{Fetch, FetchItem, FetchPartial, PartPath, SectionText, Verb};

/// Items of one FETCH as they are written, repeated ones too. Those with content have no bound of
/// their own: clients ask for `.MIME` of all parts at once, and writing stops between items.
const MAX_ITEMS: usize = 200;
/// Field names of one section.
const MAX_FIELDS: usize = 200;
/// Numbers in a section: no deeper than the structure of a message is indexed.
const MAX_PATH: usize = 50;

pub(super) fn fetch(at: &mut Cursor<'_>, uid: bool) -> Result<Verb, SyntaxError> {
    let set = sp_set(at)?;
    at.space()?;
    let mut items = Vec::new();
    if at.eat(b'(') {
        let mut room = MAX_ITEMS;
        loop {
            let Some(less) = room.checked_sub(1) else {
                return Err(SyntaxError("too many FETCH items"));
            };
            room = less;
            // RFC 9051 §6.4.5 asks for a set of data items: said twice is told once.
            let item = item(at)?;
            if !items.contains(&item) {
                items.push(item);
            }
            if at.eat(b')') {
                break;
            }
            at.space()?;
        }
    } else if at.eat_word(b"ALL") {
        items = fast();
        items.push(FetchItem::Envelope);
    } else if at.eat_word(b"FULL") {
        items = fast();
        items.extend([FetchItem::Envelope, FetchItem::Body]);
    } else if at.eat_word(b"FAST") {
        items = fast();
    } else {
        items.push(item(at)?);
    }
    Ok(Verb::Fetch(Fetch { set, uid, items }))
}

fn fast() -> Vec<FetchItem> {
    vec![FetchItem::Flags, FetchItem::InternalDate, FetchItem::Size]
}

fn item(at: &mut Cursor<'_>) -> Result<FetchItem, SyntaxError> {
    let word = at.take_while(|b| is_atom_char(b) && !matches!(b, b'[' | b'<')).to_ascii_uppercase();
    Ok(match (word.as_slice(), at.peek()) {
        (b"BODY", Some(b'[')) => section(at, false)?,
        (b"BODY.PEEK", Some(b'[')) => section(at, true)?,
        (b"BINARY", Some(b'[')) => binary(at, false)?,
        (b"BINARY.PEEK", Some(b'[')) => binary(at, true)?,
        (b"BINARY.SIZE", Some(b'[')) => {
            at.expect(b'[')?;
            let (path, _) = path(at)?;
            at.expect(b']')?;
            FetchItem::BinarySize(path)
        }
        (b"FLAGS", _) => FetchItem::Flags,
        (b"UID", _) => FetchItem::Uid,
        (b"INTERNALDATE", _) => FetchItem::InternalDate,
        (b"RFC822.SIZE", _) => FetchItem::Size,
        (b"ENVELOPE", _) => FetchItem::Envelope,
        (b"BODY", _) => FetchItem::Body,
        (b"BODYSTRUCTURE", _) => FetchItem::BodyStructure,
        (b"RFC822", _) => FetchItem::Rfc822,
        (b"RFC822.HEADER", _) => FetchItem::Rfc822Header,
        (b"RFC822.TEXT", _) => FetchItem::Rfc822Text,
        (_other, _) => return Err(SyntaxError("unknown FETCH item")),
    })
}

fn section(at: &mut Cursor<'_>, peek: bool) -> Result<FetchItem, SyntaxError> {
    at.expect(b'[')?;
    let (path, dot) = path(at)?;
    let text = match at.peek() {
        Some(b']') => SectionText::All,
        Some(_) if path.is_empty() || dot => section_text(at, &path)?,
        Some(_) | None => return Err(SyntaxError("bad section")),
    };
    at.expect(b']')?;
    Ok(FetchItem::Section { path, text, partial: partial(at)?, peek })
}

/// `section-part`, and whether a dot stands behind it.
fn path(at: &mut Cursor<'_>) -> Result<(PartPath, bool), SyntaxError> {
    let mut dot = false;
    let mut path = Vec::new();
    while matches!(at.peek(), Some(b'0'..=b'9')) {
        let number = at.number()?;
        let number = u32::try_from(number).ok().filter(|&n| n > 0);
        path.push(number.ok_or(SyntaxError("bad part number"))?);
        if path.len() > MAX_PATH {
            return Err(SyntaxError("section is too deep"));
        }
        dot = at.eat(b'.');
        if !dot {
            break;
        }
        if at.peek() == Some(b']') {
            return Err(SyntaxError("section ends in a dot"));
        }
    }
    Ok((path, dot))
}

fn section_text(at: &mut Cursor<'_>, path: &PartPath) -> Result<SectionText, SyntaxError> {
    let word = at.take_while(|b| b.is_ascii_alphabetic() || b == b'.').to_ascii_uppercase();
    Ok(match word.as_slice() {
        b"HEADER" => SectionText::Header,
        b"TEXT" => SectionText::Text,
        // RFC 9051 §9: MIME comes behind a part number only.
        b"MIME" if !path.is_empty() => SectionText::Mime,
        b"HEADER.FIELDS" | b"HEADER.FIELDS.NOT" => {
            at.space()?;
            at.expect(b'(')?;
            let mut names = Vec::new();
            loop {
                if names.len() >= MAX_FIELDS {
                    return Err(SyntaxError("too many header fields"));
                }
                names.push(utf8(at.astring()?)?);
                if at.eat(b')') {
                    break;
                }
                at.space()?;
            }
            SectionText::Fields { names, not: word.ends_with(b"NOT") }
        }
        _other => return Err(SyntaxError("unknown section")),
    })
}

fn binary(at: &mut Cursor<'_>, peek: bool) -> Result<FetchItem, SyntaxError> {
    at.expect(b'[')?;
    let (path, _) = path(at)?;
    at.expect(b']')?;
    Ok(FetchItem::Binary { path, partial: partial(at)?, peek })
}

fn partial(at: &mut Cursor<'_>) -> Result<Option<FetchPartial>, SyntaxError> {
    if !at.eat(b'<') {
        return Ok(None);
    }
    let offset = at.number()?;
    at.expect(b'.')?;
    let length = at.number()?;
    at.expect(b'>')?;
    if length == 0 {
        return Err(SyntaxError("partial of nothing"));
    }
    Ok(Some(FetchPartial { offset, length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Option<Vec<FetchItem>> {
        let mut at = Cursor::new(text.as_bytes());
        match fetch(&mut at, false) {
            Ok(Verb::Fetch(fetch)) if at.at_end() => Some(fetch.items),
            Ok(_) | Err(_) => None,
        }
    }

    #[test]
    fn sections() {
        assert_eq!(items(" 1 FAST").unwrap().len(), 3);
        assert_eq!(items(" 1 full").unwrap().len(), 5);
        let all = items(
            " 1:* (UID body BODY[] BODY.PEEK[1.2.MIME]<0.10> BODY[HEADER.FIELDS (From \"To\")] \
             BODY[1.HEADER.FIELDS.NOT (X)] BINARY.PEEK[1] BINARY.SIZE[2] BODY[TEXT] BINARY[])",
        )
        .unwrap();
        assert_eq!(all[1], FetchItem::Body);
        assert_eq!(
            all[3],
            FetchItem::Section {
                path: vec![1, 2],
                text: SectionText::Mime,
                partial: Some(FetchPartial { offset: 0, length: 10 }),
                peek: true,
            }
        );
        assert!(
            matches!(&all[4], FetchItem::Section { text: SectionText::Fields { names, not: false }, .. }
            if names == &["From", "To"])
        );
        assert_eq!(all[7], FetchItem::BinarySize(vec![2]));
    }

    #[test]
    fn equal_items_are_one() {
        let repeated = |item: &str, count| format!(" 1 ({})", vec![item; count].join(" "));
        assert_eq!(items(&repeated("BODYSTRUCTURE", 200)), Some(vec![FetchItem::BodyStructure]));
        assert_eq!(items(&repeated("UID", 201)), None);
        let same = items(" 1 (BODY[HEADER.FIELDS (A)] FLAGS BODY[HEADER.FIELDS (A)] FLAGS)");
        assert_eq!(same.unwrap().len(), 2);
    }

    #[test]
    fn as_many_parts_as_items() {
        for (before, behind) in [
            ("BODY.PEEK[", ".MIME]"),
            ("BODY.PEEK[", "]"),
            ("BINARY.SIZE[", "]"),
            ("BODY.PEEK[", ".HEADER.FIELDS (Subject)]"),
        ] {
            let parts = |count: usize| {
                let parts = (1..=count).map(|n| format!("{before}{n}{behind}"));
                items(&format!(" 1 (UID {})", parts.collect::<Vec<_>>().join(" ")))
            };
            assert_eq!(parts(MAX_ITEMS - 1).unwrap().len(), MAX_ITEMS, "{before}{behind}");
            assert_eq!(parts(MAX_ITEMS), None, "{before}{behind}");
        }
    }

    #[test]
    fn what_is_none() {
        for bad in [
            "",
            " 1",
            " 1 ()",
            " 1 (FAST)",
            " 1 BODY[",
            " 1 BODY[1.]",
            " 1 BODY[0]",
            " 1 BODY[MIME]",
            " 1 BODY[1]<0.0>",
            " 1 BODY[1]<0>",
            " 1 BODY[HEADER.FIELDS ()]",
            " 1 BODY[1HEADER]",
            " 1 BINARY[TEXT]",
            " 1 FOO",
            " 1 (UID  FLAGS)",
            " 0 UID",
            " 1 BODY[99999999999]",
            " 1 BODY.PEEK",
            " 1 BINARY",
        ] {
            assert_eq!(items(bad), None, "{bad}");
        }
        assert_eq!(items(&format!(" 1 BODY[{}1]", "1.".repeat(60))), None);
    }
}
