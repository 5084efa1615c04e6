//! LIST with its options (RFC 5258, RFC 9051 §6.3.9), LSUB, and the items of STATUS.

use super::{SyntaxError, cursor::Cursor};
use crate::{
    command::{ListCommand, ListReturn, ListSelect, StatusItem, Verb},
    name::Names,
    pattern::Pattern,
};

/// Patterns of one LIST.
const MAX_PATTERNS: usize = 20;

pub(super) fn list(at: &mut Cursor<'_>, names: Names) -> Result<Verb, SyntaxError> {
    at.space()?;
    let mut select = ListSelect::default();
    let mut extended = false;
    if at.eat(b'(') {
        extended = true;
        let mut first = true;
        while !at.eat(b')') {
            if !std::mem::take(&mut first) {
                at.space()?;
            }
            match at.word()?.to_ascii_uppercase().as_slice() {
                b"SUBSCRIBED" => select.subscribed = true,
                b"SPECIAL-USE" => select.special_use = true,
                b"RECURSIVEMATCH" => select.recursive = true,
                b"REMOTE" => {}
                _other => return Err(SyntaxError("unknown LIST selection option")),
            }
        }
        // RFC 5258 §3: RECURSIVEMATCH needs an option to apply to.
        if select.recursive && !select.subscribed && !select.special_use {
            return Err(SyntaxError("RECURSIVEMATCH alone"));
        }
        at.space()?;
    }
    let reference = at.astring()?;
    at.space()?;
    let mut raw = Vec::new();
    if at.eat(b'(') {
        extended = true;
        loop {
            if raw.len() >= MAX_PATTERNS {
                return Err(SyntaxError("too many patterns"));
            }
            raw.push(at.list_mailbox()?);
            if at.eat(b')') {
                break;
            }
            at.space()?;
        }
    } else {
        raw.push(at.list_mailbox()?);
    }
    let mut give = ListReturn::default();
    if at.eat(b' ') {
        extended = true;
        if !at.eat_word(b"RETURN") {
            return Err(SyntaxError("unknown LIST option"));
        }
        at.space()?;
        returns(at, &mut give)?;
    }
    let root_only = !extended && matches!(raw.as_slice(), [only] if only.is_empty());
    let patterns = raw.iter().map(|pattern| Pattern::new(&reference, pattern, names)).collect();
    Ok(Verb::List(ListCommand { select, patterns, root_only, give }))
}

fn returns(at: &mut Cursor<'_>, give: &mut ListReturn) -> Result<(), SyntaxError> {
    at.expect(b'(')?;
    let mut first = true;
    while !at.eat(b')') {
        if !std::mem::take(&mut first) {
            at.space()?;
        }
        match at.word()?.to_ascii_uppercase().as_slice() {
            b"SUBSCRIBED" => give.subscribed = true,
            b"CHILDREN" => give.children = true,
            // RFC 6154 §5.2: uses are always given, Apple Mail uses but does not ask for them.
            b"SPECIAL-USE" => {}
            b"STATUS" => {
                at.space()?;
                give.status = status_items(at)?;
            }
            _other => return Err(SyntaxError("unknown LIST return option")),
        }
    }
    Ok(())
}

pub(super) fn lsub(at: &mut Cursor<'_>, names: Names) -> Result<Verb, SyntaxError> {
    at.space()?;
    let reference = at.astring()?;
    at.space()?;
    let pattern = at.list_mailbox()?;
    Ok(Verb::Lsub(Pattern::new(&reference, &pattern, names)))
}

/// `"(" status-att *(SP status-att) ")"`.
pub(super) fn status_items(at: &mut Cursor<'_>) -> Result<Vec<StatusItem>, SyntaxError> {
    at.expect(b'(')?;
    let mut items = Vec::new();
    loop {
        let item = match at.word()?.to_ascii_uppercase().as_slice() {
            b"MESSAGES" => StatusItem::Messages,
            b"RECENT" => StatusItem::Recent,
            b"UIDNEXT" => StatusItem::UidNext,
            b"UIDVALIDITY" => StatusItem::UidValidity,
            b"UNSEEN" => StatusItem::Unseen,
            b"DELETED" => StatusItem::Deleted,
            b"SIZE" => StatusItem::Size,
            b"APPENDLIMIT" => StatusItem::AppendLimit,
            _other => return Err(SyntaxError("unknown STATUS item")),
        };
        if !items.contains(&item) {
            items.push(item);
        }
        if at.eat(b')') {
            return Ok(items);
        }
        at.space()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<ListCommand> {
        let mut at = Cursor::new(text.as_bytes());
        match list(&mut at, Names::Utf7) {
            Ok(Verb::List(list)) if at.at_end() => Some(list),
            Ok(_) | Err(_) => None,
        }
    }

    #[test]
    fn forms() {
        assert!(parse(" \"\" \"\"").unwrap().root_only);
        assert!(!parse(" \"\" \"\" RETURN ()").unwrap().root_only);
        assert!(!parse(" \"\" *").unwrap().root_only);
        let full = parse(
            " (SUBSCRIBED RECURSIVEMATCH REMOTE) \"\" (INBOX \"a/%\") \
             RETURN (CHILDREN STATUS (MESSAGES UNSEEN) SPECIAL-USE)",
        )
        .unwrap();
        assert!(full.select.subscribed && full.select.recursive && full.give.children);
        assert_eq!(full.give.status, [StatusItem::Messages, StatusItem::Unseen]);
        assert_eq!(full.patterns.unwrap().len(), 2);
        assert!(parse(" (SPECIAL-USE) \"\" *").unwrap().select.special_use);
        assert!(parse(" \"\" &AGE-").unwrap().patterns.is_err());
        for bad in [
            "",
            " \"\"",
            " (RECURSIVEMATCH) \"\" *",
            " (FOO) \"\" *",
            " \"\" ()",
            " \"\" * RETURN",
            " \"\" * RETURN (FOO)",
            " \"\" * RETURN (STATUS ())",
            " * *",
            " \"\" * FOO ()",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
