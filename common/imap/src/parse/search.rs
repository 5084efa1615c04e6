//! `search-program`: what a client looks for.

use super::{SyntaxError, cursor::Cursor, sp_set, utf8};
use crate::{
    command::{DayKey, RowKey, SearchCommand, SearchKey, SearchReturn, Verb},
    flags::{Flag, System},
    session::TextScope,
};

/// Parentheses, NOT and OR inside each other.
const MAX_DEPTH: usize = 50;
/// Keys of one search.
const MAX_KEYS: usize = 1_000;
/// Keys that the account has to look through text for.
const MAX_TEXT_KEYS: usize = 50;
/// Octets of one needle.
const MAX_NEEDLE: usize = 1_000;

struct Budget {
    keys: usize,
    text_keys: usize,
}

pub(super) fn search(at: &mut Cursor<'_>, uid: bool) -> Result<Verb, SyntaxError> {
    at.space()?;
    let mut give = None;
    if at.eat_word(b"RETURN") {
        at.space()?;
        give = Some(returns(at)?);
        at.space()?;
    }
    let mut charset_known = true;
    if at.eat_word(b"CHARSET") {
        at.space()?;
        let charset = at.astring()?;
        charset_known =
            [&b"UTF-8"[..], b"US-ASCII"].iter().any(|known| known.eq_ignore_ascii_case(&charset));
        at.space()?;
        if !charset_known {
            // What follows is in a charset that cannot be read; BADCHARSET, not BAD.
            at.rest();
            let key = SearchKey::Nothing;
            return Ok(Verb::Search(SearchCommand { uid, give, charset_known, key }));
        }
    }
    let mut budget = Budget { keys: MAX_KEYS, text_keys: MAX_TEXT_KEYS };
    let mut keys = vec![key(at, &mut budget, 0)?];
    while at.eat(b' ') {
        keys.push(key(at, &mut budget, 0)?);
    }
    let key = SearchKey::And(keys);
    Ok(Verb::Search(SearchCommand { uid, give, charset_known, key }))
}

fn returns(at: &mut Cursor<'_>) -> Result<SearchReturn, SyntaxError> {
    at.expect(b'(')?;
    let mut give = SearchReturn::default();
    if at.eat(b')') {
        give.all = true;
        return Ok(give);
    }
    loop {
        match at.word()?.to_ascii_uppercase().as_slice() {
            b"MIN" => give.min = true,
            b"MAX" => give.max = true,
            b"ALL" => give.all = true,
            b"COUNT" => give.count = true,
            b"SAVE" => give.save = true,
            _other => return Err(SyntaxError("unknown SEARCH return option")),
        }
        if at.eat(b')') {
            return Ok(give);
        }
        at.space()?;
    }
}

fn key(at: &mut Cursor<'_>, budget: &mut Budget, depth: usize) -> Result<SearchKey, SyntaxError> {
    let deeper = depth.saturating_add(1);
    budget.keys = budget.keys.checked_sub(1).ok_or(SyntaxError("too many search keys"))?;
    if deeper > MAX_DEPTH {
        return Err(SyntaxError("search is nested too deeply"));
    }
    if at.eat(b'(') {
        let mut keys = vec![key(at, budget, deeper)?];
        while !at.eat(b')') {
            at.space()?;
            keys.push(key(at, budget, deeper)?);
        }
        return Ok(SearchKey::And(keys));
    }
    if matches!(at.peek(), Some(b'0'..=b'9' | b'*' | b'$')) {
        return Ok(SearchKey::Seqs(at.sequence_set()?));
    }
    let not = |key| SearchKey::Not(Box::new(key));
    let received = |day| SearchKey::Row(RowKey::Received(day));
    let system = |flag| SearchKey::Row(RowKey::System(flag));
    Ok(match at.word()?.to_ascii_uppercase().as_slice() {
        b"ALL" | b"OLD" => SearchKey::And(Vec::new()),
        // Without \Recent: nothing is new.
        b"NEW" | b"RECENT" => SearchKey::Nothing,
        b"ANSWERED" => system(System::Answered),
        b"DELETED" => system(System::Deleted),
        b"DRAFT" => system(System::Draft),
        b"FLAGGED" => system(System::Flagged),
        b"SEEN" => system(System::Seen),
        b"UNANSWERED" => not(system(System::Answered)),
        b"UNDELETED" => not(system(System::Deleted)),
        b"UNDRAFT" => not(system(System::Draft)),
        b"UNFLAGGED" => not(system(System::Flagged)),
        b"UNSEEN" => not(system(System::Seen)),
        b"KEYWORD" => keyword(at)?,
        b"UNKEYWORD" => not(keyword(at)?),
        b"BCC" => text(at, budget, TextScope::Bcc)?,
        b"BODY" => text(at, budget, TextScope::Body)?,
        b"CC" => text(at, budget, TextScope::Cc)?,
        b"FROM" => text(at, budget, TextScope::From)?,
        b"SUBJECT" => text(at, budget, TextScope::Subject)?,
        b"TEXT" => text(at, budget, TextScope::Text)?,
        b"TO" => text(at, budget, TextScope::To)?,
        b"HEADER" => {
            at.space()?;
            let name = utf8(at.astring()?)?;
            // RFC 5322 §2.2: what is no field name matches nothing, and never reaches the account.
            let is_name =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            let needle = needle(at, budget)?;
            if is_name { SearchKey::Header(name, needle) } else { SearchKey::Nothing }
        }
        b"BEFORE" => received(DayKey::Before(date(at)?)),
        b"ON" => received(DayKey::On(date(at)?)),
        b"SINCE" => received(DayKey::Since(date(at)?)),
        b"SENTBEFORE" => SearchKey::Sent(DayKey::Before(date(at)?)),
        b"SENTON" => SearchKey::Sent(DayKey::On(date(at)?)),
        b"SENTSINCE" => SearchKey::Sent(DayKey::Since(date(at)?)),
        b"LARGER" => SearchKey::Row(RowKey::Larger(number(at)?)),
        b"SMALLER" => SearchKey::Row(RowKey::Smaller(number(at)?)),
        b"UID" => SearchKey::Uids(sp_set(at)?),
        b"NOT" => {
            at.space()?;
            not(key(at, budget, deeper)?)
        }
        b"OR" => {
            at.space()?;
            let first = key(at, budget, deeper)?;
            at.space()?;
            SearchKey::Or(Box::new(first), Box::new(key(at, budget, deeper)?))
        }
        _other => return Err(SyntaxError("unknown search key")),
    })
}

fn keyword(at: &mut Cursor<'_>) -> Result<SearchKey, SyntaxError> {
    at.space()?;
    match Flag::new(at.word()?) {
        Some(Flag::Keyword(keyword)) => Ok(SearchKey::Row(RowKey::Keyword(keyword))),
        Some(Flag::System(flag)) => Ok(SearchKey::Row(RowKey::System(flag))),
        // Longer than any keyword of ours.
        None => Ok(SearchKey::Nothing),
    }
}

fn text(
    at: &mut Cursor<'_>,
    budget: &mut Budget,
    scope: TextScope,
) -> Result<SearchKey, SyntaxError> {
    Ok(SearchKey::Text(scope, needle(at, budget)?))
}

fn needle(at: &mut Cursor<'_>, budget: &mut Budget) -> Result<String, SyntaxError> {
    at.space()?;
    budget.text_keys = budget.text_keys.checked_sub(1).ok_or(SyntaxError("too many text keys"))?;
    let needle = utf8(at.astring()?)?;
    if needle.len() > MAX_NEEDLE { Err(SyntaxError("search text is too long")) } else { Ok(needle) }
}

fn date(at: &mut Cursor<'_>) -> Result<crate::date::CalendarDate, SyntaxError> {
    at.space()?;
    at.date()
}

fn number(at: &mut Cursor<'_>) -> Result<u64, SyntaxError> {
    at.space()?;
    at.number()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<SearchCommand> {
        let mut at = Cursor::new(text.as_bytes());
        match search(&mut at, false) {
            Ok(Verb::Search(search)) if at.at_end() => Some(search),
            Ok(_) | Err(_) => None,
        }
    }

    #[test]
    fn programs() {
        let search =
            parse(" RETURN (MIN COUNT) FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\"").unwrap();
        assert_eq!(
            search.give,
            Some(SearchReturn { min: true, count: true, ..Default::default() })
        );
        let SearchKey::And(keys) = search.key else { panic!() };
        assert_eq!(keys.len(), 3);
        assert!(parse(" RETURN () ALL").unwrap().give.unwrap().all);
        assert!(parse(" OR (1:3 UNSEEN) OR $ UID 5 HEADER x-y {3}\r\nabc").is_some());
        assert!(parse(" CHARSET utf-8 TEXT {2}\r\n\u{e4}").is_some());
        assert!(!parse(" CHARSET KOI8-R TEXT x").unwrap().charset_known);
        assert!(parse(" SENTON \"1-Feb-1994\" LARGER 10").is_some());
        for bad in [
            "",
            " ",
            " OR ALL",
            " NOT",
            " ()",
            " (ALL",
            " FOO",
            " RETURN ALL",
            " LARGER x",
            " RETURN (FOO) ALL",
            " BEFORE x",
            " ALL  ALL",
            " UID",
            " RETURN (ALL)",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn bounds() {
        assert_eq!(parse(&format!(" {}ALL", "NOT ".repeat(60))), None);
        assert_eq!(parse(&format!(" {}ALL{}", "(".repeat(60), ")".repeat(60))), None);
        assert_eq!(parse(&" ALL".repeat(1_100)), None);
        assert_eq!(parse(&" TEXT x".repeat(60)), None);
        assert_eq!(parse(&format!(" TEXT {}", "x".repeat(1_001))), None);
    }
}
