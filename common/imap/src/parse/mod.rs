//! The grammar of commands: from the octets of a whole command to its type.
//!
//! The octets include the literals as they came, `{n}` CRLF and n octets, so that one pass over one
//! slice reads everything. Errors carry a fixed text and no input: before log-in what a client sent
//! must not come back to it, and a password in a log is one leak more.

mod cursor;
mod fetch;
mod list;
mod search;

use crate::{
    command::{Append, Command, Login, Named, Store, StoreHow, Tag, Verb},
    date::DateTime,
    flags::{Flag, Flags, MAX_KEYWORDS},
    name::{MailboxName, Names, SpecialUse},
    set::SequenceSet,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use cursor::Cursor;
use types::Secret;

/// Pairs in an ID command (RFC 2971 §3.3).
const MAX_ID_FIELDS: usize = 30;
/// Names in one ENABLE.
const MAX_ENABLE: usize = 30;

/// A command that does not follow the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SyntaxError(pub &'static str);

/// `ATOM-CHAR`.
pub(crate) const fn is_atom_char(byte: u8) -> bool {
    !matches!(byte, 0..=b' ' | b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']' | 0x7f..)
}

/// `ASTRING-CHAR`.
pub(crate) const fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']'
}

/// The tag a command begins with, if it has one: for answering BAD.
#[must_use]
pub fn tag_of(frame: &[u8]) -> Option<Tag> {
    let line = frame.split(|&byte| matches!(byte, b'\r' | b'\n')).next()?;
    Tag::new(line.split(|&byte| byte == b' ').next()?)
}

/// Reads a command, without the CRLF at its end.
///
/// # Errors
/// If it is none.
pub fn parse(frame: &[u8], names: Names) -> Result<Command, SyntaxError> {
    let mut at = Cursor::new(frame);
    let tag = at.tag()?;
    at.space()?;
    let word = at.word()?.to_ascii_uppercase();
    let verb = match word.as_slice() {
        b"CAPABILITY" => Verb::Capability,
        b"NOOP" => Verb::Noop,
        b"LOGOUT" => Verb::Logout,
        b"ID" => id(&mut at)?,
        b"STARTTLS" => Verb::StartTls,
        b"AUTHENTICATE" => authenticate(&mut at)?,
        b"LOGIN" => login(&mut at)?,
        b"ENABLE" => enable(&mut at)?,
        b"SELECT" => Verb::Select { mailbox: sp_mailbox(&mut at, names)?, read_only: false },
        b"EXAMINE" => Verb::Select { mailbox: sp_mailbox(&mut at, names)?, read_only: true },
        b"CREATE" => create(&mut at, names)?,
        b"DELETE" => Verb::Delete(sp_mailbox(&mut at, names)?),
        b"RENAME" => {
            Verb::Rename { from: sp_mailbox(&mut at, names)?, to: sp_mailbox(&mut at, names)? }
        }
        b"SUBSCRIBE" => Verb::Subscribe { mailbox: sp_mailbox(&mut at, names)?, on: true },
        b"UNSUBSCRIBE" => Verb::Subscribe { mailbox: sp_mailbox(&mut at, names)?, on: false },
        b"LIST" => list::list(&mut at, names)?,
        b"LSUB" => list::lsub(&mut at, names)?,
        b"NAMESPACE" => Verb::Namespace,
        b"STATUS" => {
            let mailbox = sp_mailbox(&mut at, names)?;
            at.space()?;
            Verb::Status { mailbox, items: list::status_items(&mut at)? }
        }
        b"IDLE" => Verb::Idle,
        b"CHECK" => Verb::Check,
        b"CLOSE" => Verb::Close,
        b"UNSELECT" => Verb::Unselect,
        b"EXPUNGE" => Verb::Expunge(None),
        b"UID" => {
            at.space()?;
            let word = at.word()?.to_ascii_uppercase();
            match selected(&word, true, &mut at, names)? {
                Some(verb) => verb,
                None if word == b"EXPUNGE" => Verb::Expunge(Some(sp_set(&mut at)?)),
                None => return Err(SyntaxError("unknown command")),
            }
        }
        word => match selected(word, false, &mut at, names)? {
            Some(verb) => verb,
            None => return Err(SyntaxError("unknown command")),
        },
    };
    at.end()?;
    Ok(Command { tag, verb })
}

fn selected(
    word: &[u8],
    uid: bool,
    at: &mut Cursor<'_>,
    names: Names,
) -> Result<Option<Verb>, SyntaxError> {
    Ok(Some(match word {
        b"SEARCH" => search::search(at, uid)?,
        b"FETCH" => fetch::fetch(at, uid)?,
        b"STORE" => store(at, uid)?,
        b"COPY" | b"MOVE" => Verb::Copy {
            set: sp_set(at)?,
            uid,
            to: sp_mailbox(at, names)?,
            and_remove: word == b"MOVE",
        },
        _other => return Ok(None),
    }))
}

/// The beginning of a command that ends in the literal marker at `marker`: Some if it is an APPEND
/// whose message comes now, None if the literal is something else.
pub(crate) fn append_prefix(
    frame: &[u8],
    marker: usize,
    size: u64,
    waits: bool,
    names: Names,
) -> Result<Option<Append>, SyntaxError> {
    let mut at = Cursor::new(frame.get(..marker).unwrap_or_default());
    let is_append = at.tag().is_ok_and(|_| at.eat(b' ') && at.eat_word(b"APPEND"));
    if !is_append {
        return Ok(None);
    }
    let mut at = Cursor::new(frame.get(..marker).unwrap_or_default());
    let tag = at.tag()?;
    at.space()?;
    at.word()?;
    at.space()?;
    if at.at_end() {
        return Ok(None);
    }
    let mailbox = MailboxName::from_wire(&at.astring()?, names);
    at.space()?;
    let mut flags = Flags::default();
    if at.peek() == Some(b'(') {
        flags = flag_list(&mut at)?;
        at.space()?;
    }
    let mut date = None;
    if at.peek() == Some(b'"') {
        let text = at.quoted()?;
        date = Some(DateTime::parse(&text).ok_or(SyntaxError("not a date-time"))?);
        at.space()?;
    }
    // literal8 (RFC 3516 §4.4).
    let binary = at.eat(b'~');
    at.end()?;
    Ok(Some(Append { tag, mailbox, flags, date, size, binary, waits }))
}

fn sp_mailbox(at: &mut Cursor<'_>, names: Names) -> Result<Named, SyntaxError> {
    at.space()?;
    Ok(MailboxName::from_wire(&at.astring()?, names))
}

fn sp_set(at: &mut Cursor<'_>) -> Result<SequenceSet, SyntaxError> {
    at.space()?;
    at.sequence_set()
}

/// `id = "ID" SP id-params-list` of RFC 2971 §4.
fn id(at: &mut Cursor<'_>) -> Result<Verb, SyntaxError> {
    at.space()?;
    let mut fields: Vec<(String, Option<String>)> = Vec::new();
    if at.eat_word(b"NIL") {
        return Ok(Verb::Id(fields));
    }
    at.expect(b'(')?;
    while !at.eat(b')') {
        if !fields.is_empty() {
            at.space()?;
        }
        if fields.len() >= MAX_ID_FIELDS {
            return Err(SyntaxError("too many ID fields"));
        }
        let key = utf8(at.string()?)?.to_ascii_lowercase();
        at.space()?;
        let value = if at.eat_word(b"NIL") { None } else { Some(utf8(at.string()?)?) };
        // RFC 2971 §3.3: no field twice.
        if fields.iter().any(|(known, _)| *known == key) {
            return Err(SyntaxError("ID field given twice"));
        }
        fields.push((key, value));
    }
    Ok(Verb::Id(fields))
}

fn authenticate(at: &mut Cursor<'_>) -> Result<Verb, SyntaxError> {
    at.space()?;
    let mechanism = utf8(at.word()?.to_ascii_uppercase())?;
    let mut initial = None;
    if at.eat(b' ') {
        let rest = at.rest();
        // RFC 4959 §3: "=" stands for an initial response without octets.
        let octets = if rest == b"=" { Vec::new() } else { sasl_base64(rest)? };
        initial = Some(Secret::new(octets));
    }
    Ok(Verb::Authenticate { mechanism, initial })
}

/// A line of a SASL exchange.
pub(crate) fn sasl_base64(text: &[u8]) -> Result<Vec<u8>, SyntaxError> {
    BASE64.decode(text).map_err(|_| SyntaxError("not base64"))
}

fn login(at: &mut Cursor<'_>) -> Result<Verb, SyntaxError> {
    at.space()?;
    let user = utf8(at.astring()?)?;
    at.space()?;
    let password = Secret::new(at.astring()?);
    Ok(Verb::Login(Login { user, password }))
}

fn enable(at: &mut Cursor<'_>) -> Result<Verb, SyntaxError> {
    let mut wanted = Vec::new();
    while at.eat(b' ') {
        if wanted.len() >= MAX_ENABLE {
            return Err(SyntaxError("too many capabilities"));
        }
        wanted.push(utf8(at.word()?.to_ascii_uppercase())?);
    }
    if wanted.is_empty() { Err(SyntaxError("ENABLE of nothing")) } else { Ok(Verb::Enable(wanted)) }
}

/// `CREATE SP mailbox [SP "(" "USE" SP "(" use-attr.. ")" ")"]` (RFC 6154 §3).
fn create(at: &mut Cursor<'_>, names: Names) -> Result<Verb, SyntaxError> {
    let mailbox = sp_mailbox(at, names)?;
    let mut role = Ok(None);
    if at.eat(b' ') {
        at.expect(b'(')?;
        if !at.eat_word(b"USE") {
            return Err(SyntaxError("unknown CREATE parameter"));
        }
        at.space()?;
        at.expect(b'(')?;
        let mut first = true;
        while !at.eat(b')') {
            if !std::mem::take(&mut first) {
                at.space()?;
            }
            let known = SpecialUse::parse(&at.flag()?);
            // A mailbox of ours has one use.
            role = match (role, known) {
                (Ok(None), Some(known)) => Ok(Some(known)),
                (Ok(Some(had)), Some(known)) if had == known => Ok(Some(had)),
                (Ok(_) | Err(()), _) => Err(()),
            };
        }
        at.expect(b')')?;
    }
    Ok(Verb::Create { mailbox, role })
}

fn store(at: &mut Cursor<'_>, uid: bool) -> Result<Verb, SyntaxError> {
    let set = sp_set(at)?;
    at.space()?;
    let word = at.take_while(is_atom_char).to_ascii_uppercase();
    let (how, rest) = match word.split_first() {
        Some((b'+', rest)) => (StoreHow::Add, rest),
        Some((b'-', rest)) => (StoreHow::Remove, rest),
        Some(_) | None => (StoreHow::Replace, word.as_slice()),
    };
    let silent = match rest {
        b"FLAGS" => false,
        b"FLAGS.SILENT" => true,
        _other => return Err(SyntaxError("unknown STORE item")),
    };
    at.space()?;
    let flags = if at.peek() == Some(b'(') {
        flag_list(at)?
    } else {
        let mut flags = vec![settable(&at.flag()?)?];
        while at.eat(b' ') {
            flags.push(settable(&at.flag()?)?);
            if flags.len() > MAX_KEYWORDS {
                return Err(SyntaxError("too many flags"));
            }
        }
        flags.into_iter().collect()
    };
    Ok(Verb::Store(Store { set, uid, how, silent, flags }))
}

fn settable(text: &[u8]) -> Result<Flag, SyntaxError> {
    Flag::new(text).ok_or(SyntaxError("not a flag that can be set"))
}

/// `flag-list`.
fn flag_list(at: &mut Cursor<'_>) -> Result<Flags, SyntaxError> {
    at.expect(b'(')?;
    let mut flags = Vec::new();
    while !at.eat(b')') {
        if !flags.is_empty() {
            at.space()?;
        }
        if flags.len() >= MAX_KEYWORDS {
            return Err(SyntaxError("too many flags"));
        }
        flags.push(settable(&at.flag()?)?);
    }
    Ok(flags.into_iter().collect())
}

fn utf8(octets: Vec<u8>) -> Result<String, SyntaxError> {
    String::from_utf8(octets).map_err(|_| SyntaxError("not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verb(text: &str) -> Verb {
        parse(format!("t {text}").as_bytes(), Names::Utf7).unwrap().verb
    }

    fn bad(text: &str) -> bool {
        parse(format!("t {text}").as_bytes(), Names::Utf7).is_err()
    }

    #[test]
    fn strings_in_all_their_forms() {
        for text in ["LOGIN a b", "login \"a\" \"b\"", "LOGIN {1}\r\na {1+}\r\nb"] {
            let Verb::Login(login) = verb(text) else { panic!("{text}") };
            assert_eq!(login.user, "a");
            assert!(login.password.same_as(b"b"));
        }
        // An escaped backslash is a backslash.
        let Verb::Login(login) = verb("LOGIN a \"b\\\\\\\"c\"") else { panic!() };
        assert!(login.password.same_as(b"b\\\"c"));
        for text in [
            "LOGIN a",
            "LOGIN a b c",
            "LOGIN  a b",
            "LOGIN a \"b",
            "LOGIN a \"\\n\"",
            "LOGIN \u{1a} b",
            "LOGIN a \u{7f}",
            "LOGIN {2}\r\na b",
            "LOGIN a {1}b",
            "LOGIN a b ",
            "LOGIN (a b",
        ] {
            assert!(bad(text), "{text}");
        }
        assert!(parse(b"t LOGIN \"\xff\" b", Names::Utf7).is_err());
        assert!(parse(b"+ NOOP", Names::Utf7).is_err());
        assert!(parse(b"a+b NOOP", Names::Utf7).is_err());
        assert!(parse(b"", Names::Utf7).is_err());
    }

    #[test]
    fn commands() {
        assert!(matches!(verb("noop"), Verb::Noop));
        assert!(bad("NOOP "));
        assert!(bad("XYZZY"));
        assert!(bad("UID NOOP"));
        assert!(matches!(verb("ENABLE imap4rev2 X"), Verb::Enable(w) if w == ["IMAP4REV2", "X"]));
        assert!(matches!(verb("ID NIL"), Verb::Id(f) if f.is_empty()));
        assert!(matches!(verb("ID (\"name\" \"x\" \"os\" NIL)"), Verb::Id(f) if f.len() == 2));
        assert!(bad("ID (\"name\" \"x\" \"NAME\" \"y\")"));
        assert!(matches!(verb("SELECT &Jjo-"), Verb::Select { mailbox: Ok(m), read_only: false }
            if m.as_str() == "☺"));
        assert!(matches!(verb("EXAMINE &AGE-"), Verb::Select { mailbox: Err(_), .. }));
        assert!(matches!(
            verb("CREATE x (USE (\\sent))"),
            Verb::Create { role: Ok(Some(SpecialUse::Sent)), .. }
        ));
        assert!(matches!(verb("CREATE x (USE (\\All))"), Verb::Create { role: Err(()), .. }));
        assert!(bad("CREATE x (FOO)"));
        assert!(matches!(verb("UID EXPUNGE 1:3"), Verb::Expunge(Some(_))));
        assert!(matches!(verb("AUTHENTICATE plain ="),
            Verb::Authenticate { mechanism, initial: Some(i) } if mechanism == "PLAIN" && i.expose().is_empty()));
        assert!(bad("AUTHENTICATE PLAIN !!"));
        assert!(matches!(
            verb("STORE $ -flags.silent \\Seen foo"),
            Verb::Store(Store { how: StoreHow::Remove, silent: true, .. })
        ));
        assert!(bad("STORE 1 FLAGS (\\Recent)"));
        assert!(matches!(verb("STORE 1 FLAGS ()"), Verb::Store(s) if s.flags.is_empty()));
        assert!(matches!(verb("UID MOVE 1 a"), Verb::Copy { uid: true, and_remove: true, .. }));
    }

    #[test]
    fn append_up_to_its_message() {
        let prefix = |text: &str| append_prefix(text.as_bytes(), text.len(), 5, true, Names::Utf7);
        let append =
            prefix("a APPEND x (\\Seen) \" 1-Jan-1970 00:00:01 +0000\" ").unwrap().unwrap();
        assert_eq!(append.date, Some(DateTime::utc(1)));
        assert_eq!(append.flags.to_string(), "\\Seen");
        assert!(!append.binary);
        assert!(prefix("a append {1}\r\nx ~").unwrap().unwrap().binary);
        // The literal is the mailbox's name, or belongs to another command.
        assert!(prefix("a APPEND ").unwrap().is_none());
        assert!(prefix("a LOGIN ").unwrap().is_none());
        assert!(prefix("a APPEND x y").is_err());
        assert!(prefix("a APPEND x").is_err());
        assert!(prefix("a APPEND x (\\Seen)").is_err());
    }

    #[test]
    fn nothing_makes_it_panic() {
        use proptest::test_runner::TestRunner;
        let words = [
            "t ",
            "UID ",
            "FETCH ",
            "SEARCH ",
            "LIST ",
            "(",
            ")",
            "{3}\r\n",
            "\"",
            "1:*",
            " ",
            "BODY[",
            "]",
            "<0.1>",
            "OR ",
            "NOT ",
            "RETURN ",
            "\\",
            "$",
            "STATUS ",
            "x",
            "HEADER",
            ".FIELDS ",
            "CHARSET ",
            "\0",
            "\u{ff}",
            "BINARY[1.",
            "1-Jan-2020 ",
            "APPEND ",
        ];
        let strategy = proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..14);
        TestRunner::default()
            .run(&strategy, |parts| {
                let text = format!("t {}", parts.concat());
                let _ = parse(text.as_bytes(), Names::Utf8);
                let _ = append_prefix(text.as_bytes(), text.len() / 2, 1, false, Names::Utf7);
                Ok(())
            })
            .unwrap();
    }
}
