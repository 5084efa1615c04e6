//! Mailbox lists of RFC 5322 §3.4, read strictly: for fields by which a right is decided.
//!
//! The reader of `common/message` takes whatever mail holds, and gives one reading of it. Others read
//! the same octets in another way, so what has more than one reading names nobody here. Of what the
//! grammar lacks three things are taken that clients and devices write and that name one address for
//! everybody: dots in names (`J. Doe <jd@x.example>`), words in square brackets (`[Shop] Ann <a@x>`),
//! and an address that is its own name (`a@x.example <a@x.example>`).

use types::{Address, Domain, Localpart};

/// Octets of a value.
const MAX_VALUE: usize = 8_192;
/// Comments inside of comments.
const MAX_DEPTH: usize = 20;

/// What stands before a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    None,
    Blank,
    Comment,
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    /// `atext` (§3.2.3), with octets above 127 (RFC 6532 §3.2).
    Atom(&'a [u8]),
    /// A quoted string without quotes and backslashes.
    Quoted(Vec<u8>),
    /// Words in square brackets.
    Bracketed,
    /// `< > , ; : @ .`
    Special(u8),
}

/// The tokens of a value. None: an octet that may not be there, or something that is never closed.
fn tokens(value: &[u8]) -> Option<Vec<(Gap, Token<'_>)>> {
    let mut out = Vec::new();
    let (mut rest, mut gap) = (value, Gap::None);
    while let Some((&first, behind)) = rest.split_first() {
        let token = match first {
            b' ' | b'\t' => {
                (rest, gap) = (behind, gap.max(Gap::Blank));
                continue;
            }
            b'(' => {
                (rest, gap) = (behind_comment(behind)?, Gap::Comment);
                continue;
            }
            b'<' | b'>' | b',' | b';' | b':' | b'@' | b'.' => {
                rest = behind;
                Token::Special(first)
            }
            b'"' => {
                let (text, behind) = quoted(behind)?;
                rest = behind;
                Token::Quoted(text)
            }
            b'[' => {
                rest = behind_brackets(behind)?;
                Token::Bracketed
            }
            _ => {
                let end = rest.iter().position(|&b| !is_atext(b)).unwrap_or(rest.len());
                let (atom, behind) = rest.split_at(end);
                rest = behind;
                Token::Atom(Some(atom).filter(|atom| !atom.is_empty())?)
            }
        };
        out.push((std::mem::replace(&mut gap, Gap::None), token));
    }
    Some(out)
}

fn is_atext(octet: u8) -> bool {
    octet > 127 || octet.is_ascii_graphic() && !b"()<>[]:;@\\,.\"".contains(&octet)
}

/// A control character, which no text here may hold.
fn is_control(octet: u8) -> bool {
    octet.is_ascii_control() && octet != b'\t'
}

/// What follows a comment whose parenthesis was opened. Angle brackets in it are an address to who
/// looks for these alone.
fn behind_comment(mut rest: &[u8]) -> Option<&[u8]> {
    let mut depth = 1;
    loop {
        let (&octet, behind) = rest.split_first()?;
        rest = behind;
        match octet {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b'\\' => {
                let (escaped, behind) = rest.split_first()?;
                if is_control(*escaped) {
                    return None;
                }
                rest = behind;
            }
            b'<' | b'>' => return None,
            other if is_control(other) => return None,
            _ => {}
        }
        match depth {
            0 => return Some(rest),
            1..=MAX_DEPTH => {}
            _ => return None,
        }
    }
}

/// What follows a square bracket that was opened, and closed behind nothing but words: it is text to
/// some and a domain literal to others, so nothing may stand in it that is more to either.
fn behind_brackets(rest: &[u8]) -> Option<&[u8]> {
    let is_word = |octet: u8| is_atext(octet) || matches!(octet, b' ' | b'\t' | b'.');
    let end = rest.iter().position(|&octet| !is_word(octet))?;
    rest[end..].strip_prefix(b"]")
}

/// The meaning of a quoted string that was begun, and what follows it.
fn quoted(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut text = Vec::new();
    loop {
        let (&octet, mut behind) = rest.split_first()?;
        let meant = match octet {
            b'"' => return Some((text, behind)),
            b'\\' => {
                let (&escaped, further) = behind.split_first()?;
                behind = further;
                escaped
            }
            other => other,
        };
        if is_control(meant) {
            return None;
        }
        text.push(meant);
        rest = behind;
    }
}

/// The octets of `atom *("." atom)` without anything between.
fn dot_atom(tokens: &[(Gap, Token<'_>)]) -> Option<String> {
    let mut out = Vec::new();
    for (at, (_, token)) in tokens.iter().enumerate() {
        match token {
            Token::Atom(atom) if at.is_multiple_of(2) => out.extend_from_slice(atom),
            Token::Special(b'.') if !at.is_multiple_of(2) => out.push(b'.'),
            Token::Atom(_) | Token::Quoted(_) | Token::Bracketed | Token::Special(_) => {
                return None;
            }
        }
    }
    // An even number ends in a dot, or is none at all.
    if tokens.len().is_multiple_of(2) { None } else { String::from_utf8(out).ok() }
}

/// `local@domain`, with nothing between its tokens. A domain literal is no address of ours.
fn addr_spec(tokens: &[(Gap, Token<'_>)]) -> Option<Address> {
    let at = tokens.iter().position(|(_, token)| *token == Token::Special(b'@'))?;
    if tokens.iter().skip(1).any(|(gap, _)| *gap != Gap::None) {
        return None;
    }
    let (local, domain) = (&tokens[..at], &tokens[at + 1..]);
    let local = match local {
        [(_, Token::Quoted(text))] => String::from_utf8(text.clone()).ok()?,
        other => dot_atom(other)?,
    };
    let domain: Domain = dot_atom(domain)?.parse().ok()?;
    Some(Address::new(Localpart::from_unquoted(&local).ok()?, domain))
}

fn mailbox(tokens: &[(Gap, Token<'_>)]) -> Option<Address> {
    let Some(((gap, Token::Special(b'>')), before)) = tokens.split_last() else {
        return addr_spec(tokens);
    };
    let open = before.iter().position(|(_, token)| *token == Token::Special(b'<'))?;
    let (name, spec) = (&before[..open], &before[open + 1..]);
    let is_phrase = name.iter().enumerate().all(|(at, (_, token))| match token {
        Token::Atom(_) | Token::Quoted(_) | Token::Bracketed => true,
        Token::Special(special) => *special == b'.' && at > 0,
    });
    let is_bare = spec.first().is_some_and(|(gap, _)| *gap != Gap::Comment) && *gap != Gap::Comment;
    let address = addr_spec(spec).filter(|_| is_bare)?;
    // Devices write an address as its own name; whichever of the two a reader takes is the same.
    (is_phrase || addr_spec(name).as_ref() == Some(&address)).then_some(address)
}

/// The addresses of a value without its line ends; at least one. None: it is no `mailbox-list`.
pub fn read(value: &[u8]) -> Option<Vec<Address>> {
    if value.len() > MAX_VALUE {
        return None;
    }
    let tokens = tokens(value)?;
    tokens.split(|(_, token)| *token == Token::Special(b',')).map(mailbox).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_write() {
        for (value, addresses) in [
            ("ann@example.org", "ann@example.org"),
            ("<ann@example.org>", "ann@example.org"),
            (" Ann <ann@example.org> ", "ann@example.org"),
            ("Ann B. Doe <ann@example.org>", "ann@example.org"),
            ("J. Doe <jd@example.org>", "jd@example.org"),
            ("Ann Doe Jr. <ann@example.org>", "ann@example.org"),
            ("\"Doe, Ann\" <ann@example.org>", "ann@example.org"),
            ("\"ann@example.org\" <ann@example.org>", "ann@example.org"),
            ("\"Ann \\\"A\\\" <x>\" <ann@example.org>", "ann@example.org"),
            ("\"Ann\"<ann@example.org>", "ann@example.org"),
            ("Ann O'Neil-Doe & Co! <ann@example.org>", "ann@example.org"),
            ("=?utf-8?Q?J=C3=B6rg_D=2E?= <ann@example.org>", "ann@example.org"),
            ("=?UTF-8?B?SsO2cmc=?=\t=?UTF-8?B?IEQ=?= <ann@example.org>", "ann@example.org"),
            ("\"=?utf-8?B?SsO2cmc=?=\" <ann@example.org>", "ann@example.org"),
            ("Jörg 日本 <jörg@example.org>", "jörg@example.org"),
            ("ann@example.org (Ann (A.) Doe, @home)", "ann@example.org"),
            ("(x) Ann (y) <ann@example.org> (z \\) w)", "ann@example.org"),
            ("root@example.org (Cron Daemon)", "root@example.org"),
            ("Ann < ann@example.org >", "ann@example.org"),
            ("ann+news.x/y=z@sub.example.org", "ann+news.x/y=z@sub.example.org"),
            ("\"ann b\"@example.org", "\"ann b\"@example.org"),
            ("Ann <\"ann\\@b\"@example.org>", "\"ann@b\"@example.org"),
            ("a@x.example, B <b@x.example>", "a@x.example b@x.example"),
            ("ann@example.org <ann@example.org>", "ann@example.org"),
            ("ann@example.org<ann@example.org>", "ann@example.org"),
            (" ann@Example.ORG (Scanner) <ann@example.org>", "ann@example.org"),
            ("\"ann b\"@example.org <\"ann b\"@example.org>", "\"ann b\"@example.org"),
            ("[Shop] Ann <ann@example.org>", "ann@example.org"),
            ("Ann [Shop No. 1] <ann@example.org>", "ann@example.org"),
            ("[] Ann[x]<ann@example.org>", "ann@example.org"),
        ] {
            let read = read(value.as_bytes()).unwrap_or_else(|| panic!("{value}"));
            let read: Vec<String> = read.iter().map(ToString::to_string).collect();
            assert_eq!(read.join(" "), addresses, "{value}");
        }
        assert!(read(b"J\xf6rg <ann@example.org>").is_some(), "a name in Latin-1");
    }

    #[test]
    fn what_has_more_than_one_reading_is_none() {
        for value in [
            "",
            " ",
            "Ann",
            "<>",
            "ann",
            "bob@example.org <ann@example.org>",
            "<ann@example.org> <bob@example.org>",
            "<ann@example.org> bob@example.org",
            "<ann@example.org>> <bob@example.org>",
            "<ann@example.org>@bob.example",
            "<ann@example.org",
            "bob@example.org< ann@example.org",
            "<<ann@example.org>",
            "<ann@example.org>>",
            "g:;<ann@example.org>",
            "g: ann@example.org;",
            "undisclosed:;",
            "ann@example.org;",
            "ann@example.org,",
            ",ann@example.org",
            "a@x.example,,b@x.example",
            "ann@example.org bob@example.org",
            "ann@bob@example.org",
            "ann @example.org",
            "ann@example. org",
            "ann@(x)example.org",
            "<ann@example.org(bob)>",
            "<(bob)ann@example.org>",
            "ann@example.org (<bob@example.org>)",
            "<@relay.example:ann@example.org>",
            "ann..b@example.org",
            ".ann@example.org",
            "ann.@example.org",
            ". <ann@example.org>",
            "bob@example.org ann@example.org <ann@example.org>",
            "ann@example.org ann@example.org <ann@example.org>",
            "Ann ann@example.org <ann@example.org>",
            "ann @example.org <ann@example.org>",
            "Ann@example.org <ann@example.org>",
            "ann@example.com <ann@example.org>",
            "ann@example.org, <bob@example.org",
            "ann@[192.0.2.1]",
            "ann@[192.0.2.1] <ann@[192.0.2.1]>",
            "[ann@example.org]",
            "[bob@example.org] <ann@example.org>",
            "[<bob@example.org>] <ann@example.org>",
            "[Shop, Ltd] <ann@example.org>",
            "[Shop: x] <ann@example.org>",
            "[\"Shop\"] <ann@example.org>",
            "[(Shop)] <ann@example.org>",
            "[[Shop]] <ann@example.org>",
            "[Shop\\] <ann@example.org>",
            "[Shop <ann@example.org>",
            "Shop] <ann@example.org>",
            "[Shop\0] <ann@example.org>",
            "Ann <[x]ann@example.org>",
            "Ann <ann@example.org> [x]",
            "ann@example.org [x]",
            "Ann \\x <ann@example.org>",
            "\"Ann <ann@example.org>",
            "Ann\" <ann@example.org>",
            "(Ann <ann@example.org>",
            "Ann) <ann@example.org>",
            "=?utf-8?q?bob@example.org?= <ann@example.org>",
            "Ann\0 <ann@example.org>",
            "\"Ann\0\" <ann@example.org>",
            "\"Ann\\\0\" <ann@example.org>",
            "(\r) <ann@example.org>",
            "Ann\u{7f} <ann@example.org>",
        ] {
            assert_eq!(read(value.as_bytes()), None, "{value:?}");
        }
        assert_eq!(read(b"<\xff@example.org>"), None);
        let deep = format!("{}{} a@x.example", "(".repeat(21), ")".repeat(21));
        assert_eq!(read(deep.as_bytes()), None);
        let long = format!("\"{}\" <a@x.example>", "n".repeat(MAX_VALUE));
        assert_eq!(read(long.as_bytes()), None);
    }
}
