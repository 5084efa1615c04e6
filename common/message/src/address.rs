//! Address lists of a header (RFC 5322 §3.4), as IMAP's ENVELOPE needs them and decoded.
//!
//! One pass over the tokens, with what mail really holds: missing brackets, dots in names,
//! semicolons for commas, unclosed quotes. Nothing is refused; what is no address comes out as a
//! localpart without a host.

use crate::{
    Limits, encoded_word,
    token::{Grammar, Lexer, Token},
};
use types::{Address, Domain, Localpart};

/// The longest display name or group name kept, in octets.
const MAX_NAME: usize = 4096;

/// The longest localpart, host or route kept, in octets.
const MAX_ADDRESS: usize = 1024;

/// An entry of an address list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// One address.
    Mailbox(Mailbox),
    /// `name:` begins a group.
    GroupStart(Vec<u8>),
    /// `;` ends it.
    GroupEnd,
}

/// One address of a header, its octets as written but for quotes and comments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mailbox {
    /// The display name, encoded words left alone; a comment behind a bare address counts.
    pub name: Option<Vec<u8>>,
    /// The obsolete source route (RFC 5322 §4.4), with its `@`.
    pub route: Option<Vec<u8>>,
    /// The localpart without quotes.
    pub localpart: Vec<u8>,
    /// The domain or domain literal; empty when the header has none.
    pub host: Vec<u8>,
}

impl Mailbox {
    /// The display name with its encoded words decoded; empty if there is none.
    #[must_use]
    pub fn display_name(&self) -> String {
        let name = self.name.as_deref().unwrap_or_default();
        encoded_word::decode(name, MAX_NAME).trim().to_owned()
    }

    /// The address, if it is one.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        let localpart = std::str::from_utf8(&self.localpart).ok()?;
        let host = std::str::from_utf8(&self.host).ok()?;
        let domain: Domain = host.parse().ok()?;
        Some(Address::new(Localpart::from_unquoted(localpart).ok()?, domain))
    }

    fn weight(&self) -> usize {
        let optional = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        optional(&self.name) + optional(&self.route) + self.localpart.len() + self.host.len()
    }
}

impl Entry {
    /// The address, unless it is a group mark.
    #[must_use]
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Mailbox(mailbox) => Some(mailbox),
            Self::GroupStart(_) | Self::GroupEnd => None,
        }
    }

    /// What it counts against [`Limits::values`]: its octets, and something for being there.
    pub(crate) fn weight(&self) -> usize {
        const PRESENCE: usize = 16;
        match self {
            Self::Mailbox(mailbox) => PRESENCE + mailbox.weight(),
            // Its end is paid with it.
            Self::GroupStart(name) => 2 * PRESENCE + name.len(),
            Self::GroupEnd => 0,
        }
    }
}

/// Where the reader stands inside one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// Before any `<`: words of a name or a bare address.
    #[default]
    Open,
    /// Between `<` and `>`.
    Angle,
    /// Behind `>`.
    Behind,
}

#[derive(Debug, Default)]
struct Reader {
    entries: Vec<Entry>,
    in_group: bool,
    place: Place,
    /// All words outside the brackets, as a name.
    words: Vec<u8>,
    comment: Option<Vec<u8>>,
    route: Option<Vec<u8>>,
    localpart: Vec<u8>,
    host: Vec<u8>,
    at: bool,
}

fn append(out: &mut Vec<u8>, bytes: &[u8], limit: usize) {
    let room = limit.saturating_sub(out.len());
    out.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

impl Reader {
    fn text(&mut self, text: &[u8], spaced: bool) {
        match self.place {
            Place::Behind => return,
            Place::Open => {
                if spaced && !self.words.is_empty() {
                    append(&mut self.words, b" ", MAX_NAME);
                }
                append(&mut self.words, text, MAX_NAME);
            }
            Place::Angle => {}
        }
        let side = if self.at { &mut self.host } else { &mut self.localpart };
        // `john . q` is one localpart, `a@b c` is no address: the blank must not vanish.
        if spaced && text != b"." && side.last().is_some_and(|&b| !matches!(b, b'.' | b'@')) {
            append(side, b" ", MAX_ADDRESS);
        }
        append(side, text, MAX_ADDRESS);
    }

    fn at_sign(&mut self) {
        if self.place == Place::Behind {
            return;
        }
        if self.place == Place::Open {
            append(&mut self.words, b"@", MAX_NAME);
        }
        if self.at {
            // `a@b@c`: the last one separates, as in an SMTP path.
            append(&mut self.localpart, b"@", MAX_ADDRESS);
            let host = std::mem::take(&mut self.host);
            append(&mut self.localpart, &host, MAX_ADDRESS);
        }
        self.at = true;
    }

    fn open_angle(&mut self) {
        self.localpart.clear();
        self.host.clear();
        self.route = None;
        self.at = false;
        self.place = Place::Angle;
    }

    /// `<@a,@b:c@d>`: what came before the colon was a route.
    fn is_route(&self) -> bool {
        self.place == Place::Angle && self.at && self.localpart.first().is_none_or(|&b| b == b'@')
    }

    fn take_route(&mut self) {
        let mut route = std::mem::take(&mut self.localpart);
        append(&mut route, b"@", MAX_ADDRESS);
        let host = std::mem::take(&mut self.host);
        append(&mut route, &host, MAX_ADDRESS);
        self.route = Some(route);
        self.at = false;
    }

    fn finish_entry(&mut self) {
        let words = std::mem::take(&mut self.words);
        let comment = self.comment.take();
        let mut mailbox = Mailbox {
            name: None,
            route: self.route.take(),
            localpart: std::mem::take(&mut self.localpart),
            host: std::mem::take(&mut self.host),
        };
        let place = std::mem::take(&mut self.place);
        let at = std::mem::take(&mut self.at);
        if place == Place::Open {
            if words.is_empty() {
                return;
            }
            if !at {
                mailbox.localpart = words;
            }
        } else if !words.is_empty() {
            mailbox.name = Some(words);
        }
        if mailbox.name.is_none() {
            mailbox.name = comment.filter(|text| !text.is_empty());
        }
        self.entries.push(Entry::Mailbox(mailbox));
    }

    fn end_group(&mut self) {
        if self.in_group {
            self.in_group = false;
            self.entries.push(Entry::GroupEnd);
        }
    }

    fn start_group(&mut self) {
        self.end_group();
        let name = std::mem::take(&mut self.words);
        self.localpart.clear();
        self.host.clear();
        self.at = false;
        self.comment = None;
        self.in_group = true;
        self.entries.push(Entry::GroupStart(name));
    }

    fn special(&mut self, special: u8) {
        match special {
            b'@' => self.at_sign(),
            b'<' if self.place == Place::Open => self.open_angle(),
            b'>' if self.place == Place::Angle => self.place = Place::Behind,
            b'<' | b'>' => {}
            b':' if self.is_route() => self.take_route(),
            b':' if self.place == Place::Open && !self.at => self.start_group(),
            b',' if self.is_route() => {
                append(&mut self.host, b",", MAX_ADDRESS);
            }
            b',' => self.finish_entry(),
            b';' => {
                // Outside a group it is a separator: some mailers write lists so.
                self.finish_entry();
                self.end_group();
            }
            other => self.text(&[other], false),
        }
    }
}

/// Reads an address list; `value` is unfolded. At most [`Limits::ADDRESSES`] entries.
#[must_use]
pub fn parse_list(value: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::default();
    let mut lexer = Lexer::new(value, Grammar::Address);
    let mut commented = false;
    // Two places are kept for the entry at the end and the end of its group.
    while reader.entries.len() + 2 < Limits::ADDRESSES {
        let Some(token) = lexer.next() else { break };
        let spaced = lexer.spaced || std::mem::take(&mut commented);
        match token {
            Token::Special(special) => reader.special(special),
            Token::Atom(text) => reader.text(text, spaced),
            Token::Quoted(text) => reader.text(&text, spaced),
            Token::Literal(text) => reader.text(&text, spaced),
            Token::Comment(text) => {
                commented = true;
                reader.comment = Some(text);
            }
        }
    }
    reader.finish_entry();
    reader.end_group();
    reader.entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(value: &str) -> String {
        let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        parse_list(value.as_bytes())
            .iter()
            .map(|entry| match entry {
                Entry::GroupStart(name) => format!("[{}", show(name)),
                Entry::GroupEnd => "]".to_owned(),
                Entry::Mailbox(m) => format!(
                    "{}{}{}|{}",
                    m.name.as_ref().map(|n| format!("{}=", show(n))).unwrap_or_default(),
                    m.route.as_ref().map(|r| format!("{}:", show(r))).unwrap_or_default(),
                    show(&m.localpart),
                    show(&m.host)
                ),
            })
            .collect::<Vec<_>>()
            .join(" ; ")
    }

    #[test]
    fn address_lists() {
        let cases = [
            ("john@example.org", "john|example.org"),
            ("John Doe <jdoe@machine.example>", "John Doe=jdoe|machine.example"),
            (
                "\"Joe Q. Public\" <john.q.public@example.com>",
                "Joe Q. Public=john.q.public|example.com",
            ),
            (
                "Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
                "Mary Smith=mary|x.test ; jdoe|example.org ; Who?=one|y.test",
            ),
            (
                "<boss@nil.test>, \"Giant; \\\"Big\\\" Box\" <sysservices@example.net>",
                "boss|nil.test ; Giant; \"Big\" Box=sysservices|example.net",
            ),
            (
                "A Group:Ed Jones <joe@where.test>,john@one.test;",
                "[A Group ; Ed Jones=joe|where.test ; john|one.test ; ]",
            ),
            ("Undisclosed recipients:;", "[Undisclosed recipients ; ]"),
            (
                "Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
                "Pete=pete|silly.test",
            ),
            ("pete@silly.test (Pete)", "Pete=pete|silly.test"),
            (
                "Joe Q. Public <john . q . public@example.com>",
                "Joe Q. Public=john.q.public|example.com",
            ),
            (
                "Mary <@node.test,@b.test:mary@example.net>",
                "Mary=@node.test,@b.test:mary|example.net",
            ),
            ("foo@bar.test <x@y.test>", "foo@bar.test=x|y.test"),
            ("[Shop] Ann <a@x.test>", "[Shop] Ann=a|x.test"),
            ("\"a b\"@c.test", "a b|c.test"),
            ("a@b@c.test", "a@b|c.test"),
            ("x@[192.0.2.1]", "x|[192.0.2.1]"),
            ("a@b.test; c@d.test", "a|b.test ; c|d.test"),
            ("root", "root|"),
            ("John Smith", "John Smith|"),
            ("<>", "|"),
            ("", ""),
            (",,, ,", ""),
            ("Ann <ann@x.test", "Ann=ann|x.test"),
            ("=?utf-8?q?Foo:_Bar,_x?= <a@b.test>", "=?utf-8?q?Foo:_Bar,_x?==a|b.test"),
            ("=?utf-8?q?a?= =?utf-8?q?b?= <a@b>", "=?utf-8?q?a?= =?utf-8?q?b?==a|b"),
        ];
        for (value, expected) in cases {
            assert_eq!(list(value), expected, "{value}");
        }
    }

    #[test]
    fn decoded() {
        let entries = parse_list("=?utf-8?q?J=C3=B6rg?= <jörg@example.org>".as_bytes());
        let mailbox = entries[0].mailbox().unwrap();
        assert_eq!(mailbox.display_name(), "Jörg");
        assert_eq!(mailbox.address().unwrap().to_string(), "jörg@example.org");
        assert_eq!(parse_list(b"a@b c")[0].mailbox().unwrap().address(), None);
        assert_eq!(parse_list(b"root")[0].mailbox().unwrap().address(), None);
    }

    #[test]
    fn hostile_lists_are_bounded() {
        for unit in [
            &b"("[..],
            b",",
            b"<",
            b"a:",
            b"a@b,",
            b"\"",
            b";",
            b"a:b;",
            b"@",
            b"\\",
            b"[",
            b"<@a:",
        ] {
            let entries = parse_list(&unit.repeat(1_000_000 / unit.len()));
            assert!(entries.len() <= Limits::ADDRESSES, "{unit:?}");
            let weight: usize = entries.iter().map(Entry::weight).sum();
            assert!(weight <= 1_000_000 + 32 * entries.len(), "{unit:?}");
        }
    }

    proptest! {
        #[test]
        fn groups_are_closed(value in "[a@<>:;,. \"()\\\\\\[]{0,60}") {
            let mut open = false;
            for entry in parse_list(value.as_bytes()) {
                match entry {
                    Entry::GroupStart(_) => { prop_assert!(!open); open = true; }
                    Entry::GroupEnd => { prop_assert!(open); open = false; }
                    Entry::Mailbox(_) => {}
                }
            }
            prop_assert!(!open);
        }
    }
}
