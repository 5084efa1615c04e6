//! The structure of messages, byte by byte against Dovecot: every part of every message, its header,
//! the header of the message in it, its text, and what both say of the whole.
//!
//! A difference is a failure, unless it stands in [`OURS_IS_RIGHT`] with the reason.

use crate::{corpus, dovecot::Dovecot, log_in, programs::there};
use mox_tests::{
    client::Imap,
    tree::{Tree, own_address},
};
use std::collections::{BTreeMap, BTreeSet};

/// Items of one FETCH: its line must stay far below the bound of lines.
const BATCH: usize = 60;

/// Where Dovecot reads otherwise and the standard is on our side: message, item, why. A `*` at the
/// end stands for any rest.
const OURS_IS_RIGHT: [(&str, &str, &str); 55] = [
    ("message-encoded", "BODYSTRUCTURE", ENCODED),
    ("message-encoded", "BODY[1*", ENCODED),
    ("rfc-008.eml", "BODYSTRUCTURE", ENCODED),
    ("rfc-008.eml", "BODY[2*", ENCODED),
    ("message-empty", "BODYSTRUCTURE", LINE_END),
    ("message-empty", "BODY[1]", LINE_END),
    ("message-header-alone", "BODYSTRUCTURE", LINE_END),
    ("message-header-alone", "BODY[1]", LINE_END),
    ("malformed-020.eml", "BODY[1]", LINE_END),
    ("malformed-021.eml", "BODY[1]", LINE_END),
    ("malformed-022.eml", "BODYSTRUCTURE", LINE_END),
    ("malformed-022.eml", "BODY[2]", LINE_END),
    ("thirdparty-007.eml", "BODYSTRUCTURE", LINE_END),
    ("thirdparty-007.eml", "BODY[3]", LINE_END),
    ("thirdparty-007.eml", "BODY[3.TEXT]", LINE_END),
    ("thirdparty-008.eml", "BODY[2.2]", LINE_END),
    ("thirdparty-015.eml", "BODYSTRUCTURE", LINE_END),
    ("thirdparty-015.eml", "BODY[2]", LINE_END),
    ("thirdparty-015.eml", "BODY[2.1.MIME]", LINE_END),
    ("thirdparty-015.eml", "BODY[3]", LINE_END),
    ("thirdparty-015.eml", "BODY[3.1.MIME]", LINE_END),
    ("no-boundary", "BODYSTRUCTURE", NO_PARTS),
    ("no-boundary", "BODY[1*", NO_PARTS),
    ("no-parts", "BODYSTRUCTURE", NO_PARTS),
    ("no-parts", "BODY[1*", NO_PARTS),
    ("boundary-never-comes", "BODYSTRUCTURE", NO_PARTS),
    ("boundary-never-comes", "BODY[1*", NO_PARTS),
    ("boundary-closes-it", "BODYSTRUCTURE", NO_PARTS),
    ("boundary-closes-it", "BODY[1*", NO_PARTS),
    ("malformed-001.eml", "BODYSTRUCTURE", NO_PARTS),
    ("malformed-001.eml", "BODY[1*", NO_PARTS),
    ("malformed-002.eml", "BODYSTRUCTURE", NO_PARTS),
    ("malformed-002.eml", "BODY[1*", NO_PARTS),
    ("malformed-004.eml", "BODYSTRUCTURE", WHOLE_LINE),
    ("malformed-004.eml", "BODY[1*", WHOLE_LINE),
    ("malformed-007.eml", "BODYSTRUCTURE", WHOLE_LINE),
    ("malformed-007.eml", "BODY[1*", WHOLE_LINE),
    ("malformed-016.eml", "BODYSTRUCTURE", WHOLE_LINE),
    ("malformed-016.eml", "BODY[1*", WHOLE_LINE),
    ("malformed-007.eml", "BODY[2*", WHOLE_LINE),
    ("malformed-007.eml", "BODY[3*", WHOLE_LINE),
    (
        "message-global",
        "BODYSTRUCTURE",
        "RFC 9051 §7.5.2, RFC 6532 §3.7: it is a message as message/rfc822 is",
    ),
    (
        "message-global",
        "BODY[1.HEADER]",
        "RFC 9051 §7.5.2, RFC 6532 §3.7: it is a message as message/rfc822 is",
    ),
    (
        "message-global",
        "BODY[1.TEXT]",
        "RFC 9051 §7.5.2, RFC 6532 §3.7: it is a message as message/rfc822 is",
    ),
    ("malformed-017.eml", "BODYSTRUCTURE", "RFC 2045 §5.1: a type is a token, which is not empty"),
    (
        "malformed-019.eml",
        "ENVELOPE",
        "RFC 5322 §3.6: one Date; of several the first, as of every field",
    ),
    (
        "parameters",
        "BODYSTRUCTURE",
        "RFC 9051 §7.5.2: parameters as the message has them (RFC 2231 is the client's)",
    ),
    (
        "rfc-001.eml",
        "BODYSTRUCTURE",
        "RFC 2045 §5.1: it is not well-formed; a value without quotes goes to the semicolon",
    ),
    (
        "thirdparty-004.eml",
        "BODYSTRUCTURE",
        "RFC 9051 §7.5.2: the encoding as the message names it",
    ),
    (
        "envelope",
        "ENVELOPE",
        "RFC 5322 §2.2.3: unfolding takes the line end away, not the blank behind it",
    ),
    ("rfc-001.eml", "ENVELOPE", NO_DOMAIN),
    ("rfc-004.eml", "ENVELOPE", NO_DOMAIN),
    ("thirdparty-007.eml", "ENVELOPE", NO_DOMAIN),
    ("rfc-004.eml", "BODYSTRUCTURE", NO_DOMAIN),
    (
        "rfc-009.eml",
        "BODYSTRUCTURE",
        "RFC 5322 §3.4: words alone are no address with a display name",
    ),
];

/// A message/rfc822 under a transfer encoding is not allowed, so it is octets.
const ENCODED: &str = "RFC 2046 §5.2.1: no encoding of a message/rfc822 but 7bit, 8bit and binary";

/// The line end before a delimiter.
const LINE_END: &str = "RFC 2046 §5.1.1: the line end before a delimiter belongs to the delimiter";

/// What cannot be taken apart is shown whole, and not as a part that is not there.
const NO_PARTS: &str = "RFC 2046 §5.1.1: a multipart has a boundary and at least one part";

/// One boundary may be the beginning of another one.
const WHOLE_LINE: &str = "RFC 2046 §5.1.1: behind the boundary of a delimiter are blanks at most";

/// What is no address has no domain, and NIL would make it the name of a group.
const NO_DOMAIN: &str = "RFC 9051 §7.5.2: the host is what the message says; NIL begins a group";

/// A value of IMAP (RFC 9051 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Nil,
    /// Of an atom or number.
    Word(String),
    /// Of a quoted string or literal.
    Text(Vec<u8>),
    List(Vec<Value>),
}

/// Reads values one after another.
struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.octets.get(self.at).copied()
    }

    fn value(&mut self) -> Option<Value> {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
        match self.peek()? {
            b'(' => {
                self.at += 1;
                let mut list = Vec::new();
                while self.peek()? != b')' {
                    list.push(self.value()?);
                    while self.peek() == Some(b' ') {
                        self.at += 1;
                    }
                }
                self.at += 1;
                Some(Value::List(list))
            }
            b'"' => {
                self.at += 1;
                let mut text = Vec::new();
                while self.peek()? != b'"' {
                    if self.peek() == Some(b'\\') {
                        self.at += 1;
                    }
                    text.push(self.peek()?);
                    self.at += 1;
                }
                self.at += 1;
                Some(Value::Text(text))
            }
            b'{' => {
                let rest = &self.octets[self.at + 1..];
                let end = rest.iter().position(|&b| b == b'}')?;
                let len: usize = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
                let start = self.at + 1 + end + 3;
                self.at = start + len;
                Some(Value::Text(self.octets.get(start..self.at)?.to_vec()))
            }
            _ => self.word(),
        }
    }

    /// An atom, with a section in brackets if it has one.
    fn word(&mut self) -> Option<Value> {
        let (start, mut inside) = (self.at, false);
        while let Some(octet) = self.peek() {
            match octet {
                b'[' => inside = true,
                b']' => inside = false,
                b' ' | b'(' | b')' if !inside => break,
                _ => {}
            }
            self.at += 1;
        }
        let word = std::str::from_utf8(&self.octets[start..self.at]).ok()?;
        match word {
            "" => None,
            "NIL" => Some(Value::Nil),
            word => Some(Value::Word(word.to_owned())),
        }
    }
}

/// The items of a FETCH response by their names.
fn items(response: &[u8]) -> BTreeMap<String, Value> {
    let start = response.windows(7).position(|w| w == b"FETCH (").expect("a FETCH response") + 6;
    let mut reader = Reader { octets: response, at: start };
    let Some(Value::List(list)) = reader.value() else {
        panic!("not a FETCH: {}", String::from_utf8_lossy(response))
    };
    let mut found = BTreeMap::new();
    for pair in list.chunks(2) {
        let [Value::Word(name), value] = pair else { panic!("no pair: {pair:?}") };
        found.insert(name.clone(), value.clone());
    }
    found
}

/// The only text in a FETCH response of one section.
pub(crate) fn value(response: &[u8]) -> Vec<u8> {
    let found = items(response).into_values().find_map(|value| match value {
        Value::Text(text) => Some(text),
        Value::Nil | Value::Word(_) | Value::List(_) => None,
    });
    found.unwrap_or_default()
}

/// All that is asked about a message but its parts.
const WHOLE: [&str; 6] = [
    "BODY.PEEK[]",
    "BODY.PEEK[HEADER]",
    "BODY.PEEK[TEXT]",
    "BODYSTRUCTURE",
    "ENVELOPE",
    "RFC822.SIZE",
];

/// Items about the parts of a structure, depth first (RFC 9051 §6.4.5).
fn sections(structure: &Value) -> Vec<String> {
    fn walk(value: &Value, path: &str, out: &mut Vec<String>) {
        let Value::List(list) = value else { return };
        let below = |n: usize| {
            if path.is_empty() { n.to_string() } else { format!("{path}.{n}") }
        };
        if matches!(list.first(), Some(Value::List(_))) {
            let parts = list.iter().take_while(|part| matches!(part, Value::List(_)));
            for (n, part) in parts.enumerate() {
                let path = below(n + 1);
                entity(part, &path, out);
            }
        } else if path.is_empty() {
            entity(value, "1", out);
        }
    }
    fn entity(value: &Value, path: &str, out: &mut Vec<String>) {
        out.push(format!("BODY.PEEK[{path}]"));
        out.push(format!("BODY.PEEK[{path}.MIME]"));
        let Value::List(list) = value else { return };
        if matches!(list.first(), Some(Value::List(_))) {
            walk(value, path, out);
        } else if is_message(list) {
            out.push(format!("BODY.PEEK[{path}.HEADER]"));
            out.push(format!("BODY.PEEK[{path}.TEXT]"));
            let Some(inner) = list.get(8) else { return };
            match inner {
                Value::List(parts) if matches!(parts.first(), Some(Value::List(_))) => {
                    walk(inner, path, out);
                }
                Value::List(_) => entity(inner, &format!("{path}.1"), out),
                Value::Nil | Value::Word(_) | Value::Text(_) => {}
            }
        }
    }
    let mut out = Vec::new();
    walk(structure, "", &mut out);
    out
}

fn is_message(list: &[Value]) -> bool {
    let is = |at: usize, word: &str| match list.get(at) {
        Some(Value::Text(text)) => text.eq_ignore_ascii_case(word.as_bytes()),
        Some(Value::Nil | Value::Word(_) | Value::List(_)) | None => false,
    };
    is(0, "message") && (is(1, "rfc822") || is(1, "global"))
}

/// A structure in one form: types, encodings and names of parameters in lower case (RFC 2045 §5.1),
/// and the character set of a text that does not name one written out (RFC 2046 §4.1.2).
fn folded(value: &Value) -> Value {
    match value {
        Value::Text(text) => Value::Text(text.to_ascii_lowercase()),
        Value::List(list) => {
            let mut list: Vec<Value> = list.iter().map(folded).collect();
            let is_text = list.first() == Some(&Value::Text(b"text".to_vec()));
            if let (true, Some(params)) = (is_text, list.get_mut(2)) {
                let charset = Value::Text(b"charset".to_vec());
                let default = [charset.clone(), Value::Text(b"us-ascii".to_vec())];
                match params {
                    Value::Nil => *params = Value::List(default.to_vec()),
                    Value::List(pairs) if !pairs.contains(&charset) => pairs.extend(default),
                    Value::List(_) | Value::Word(_) | Value::Text(_) => {}
                }
            }
            Value::List(list)
        }
        Value::Nil | Value::Word(_) => value.clone(),
    }
}

/// Where two values begin to differ, and what each has there.
fn first_difference(ours: &Value, theirs: &Value) -> String {
    if let (Value::List(left), Value::List(right)) = (ours, theirs) {
        for (at, (one, other)) in left.iter().zip(right).enumerate() {
            if one != other {
                return format!("{}.{}", at + 1, first_difference(one, other));
            }
        }
        if left.len() != right.len() {
            return format!(" {} and {} elements", left.len(), right.len());
        }
    }
    format!("\n  ours   {}\n  theirs {}", shown(ours), shown(theirs))
}

/// Asks one server about its message of a number.
fn ask(imap: &mut Imap, number: usize, wanted: &[String]) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for batch in wanted.chunks(BATCH) {
        let answer = imap.command(&format!("FETCH {number} ({})", batch.join(" "))).unwrap();
        assert!(answer.is_ok(), "{}", answer.text());
        for response in &answer.untagged {
            if response.windows(7).any(|w| w == b"FETCH (") {
                found.extend(items(response));
            }
        }
    }
    found
}

fn shown_whole(value: &Value) -> String {
    match value {
        Value::Nil => "NIL".to_owned(),
        Value::Word(word) => word.clone(),
        Value::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        Value::List(list) => {
            format!("({})", list.iter().map(shown_whole).collect::<Vec<_>>().join(" "))
        }
    }
}

fn shown(value: &Value) -> String {
    let mut out = shown_whole(value);
    if let Some((end, _)) = out.char_indices().nth(400) {
        out.truncate(end);
        out.push('…');
    }
    out
}

fn is(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => pattern == text,
    }
}

#[test]
fn every_part_is_the_one_that_dovecot_finds() {
    if !there(&Dovecot::NEEDS) {
        return;
    }
    let messages = [corpus::ours(), corpus::theirs()].concat();
    let (tree, dovecot) = (Tree::start(), Dovecot::start(own_address()));
    let (mut ours, mut theirs) = (log_in(&tree), dovecot.log_in());
    for imap in [&mut ours, &mut theirs] {
        for (name, octets) in &messages {
            let answer = imap.append("INBOX", octets).unwrap();
            assert!(answer.is_ok(), "{name}: {}", answer.text());
        }
        assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    }
    let (mut differences, mut known, mut compared) = (Vec::new(), BTreeSet::new(), 0);
    for (at, (name, octets)) in messages.iter().enumerate() {
        let number = at + 1;
        let mut wanted = WHOLE.map(str::to_owned).to_vec();
        let structure = ask(&mut theirs, number, &wanted).remove("BODYSTRUCTURE").unwrap();
        wanted.extend(sections(&structure));
        let mut left = ask(&mut ours, number, &wanted);
        // RFC 9051 §9: no literal of BODY holds NUL; both servers send the same octet for it.
        let sent = octets.iter().map(|octet| if *octet == 0 { 0x80 } else { *octet }).collect();
        assert_eq!(left.get("BODY[]"), Some(&Value::Text(sent)), "{name}");
        for (item, mut theirs) in ask(&mut theirs, number, &wanted) {
            compared += 1;
            let mut ours = left.remove(&item).unwrap_or(Value::Nil);
            if item == "BODYSTRUCTURE" {
                (ours, theirs) = (folded(&ours), folded(&theirs));
            }
            if ours == theirs {
                continue;
            }
            match OURS_IS_RIGHT.iter().position(|(m, i, _)| is(m, name) && is(i, &item)) {
                Some(entry) => {
                    known.insert(entry);
                }
                None => {
                    let where_ = first_difference(&ours, &theirs);
                    differences.push(format!("{name} {item} {where_}"));
                }
            }
        }
    }
    assert!(compared > messages.len() * 8, "{compared} items of {} messages", messages.len());
    for (at, entry) in OURS_IS_RIGHT.iter().enumerate() {
        if !known.contains(&at) {
            differences.push(format!("{entry:?}: there is no such difference any more"));
        }
    }
    let count = differences.len();
    assert!(count == 0, "{count} of {compared} items differ:\n{}", differences.join("\n"));
}

/// Where Dovecot goes on, we stop: below the fiftieth level all is one part, and nothing of it is lost.
#[test]
fn what_is_deeper_than_our_bound_is_one_part() {
    let tree = Tree::start();
    let mut imap = log_in(&tree);
    let message = format!("MIME-Version: 1.0\r\n{}", corpus::deep(60));
    assert!(imap.append("INBOX", message.as_bytes()).unwrap().is_ok());
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    let mut wanted = vec!["BODYSTRUCTURE".to_owned()];
    let structure = ask(&mut imap, 1, &wanted).remove("BODYSTRUCTURE").unwrap();
    let levels = shown_whole(&structure).matches("\"MIXED\"").count();
    let bound = message::Limits::default().depth;
    assert_eq!(levels, bound, "{}", shown_whole(&structure));
    let innermost = vec!["1"; levels].join(".");
    wanted = vec![format!("BODY[{innermost}]")];
    let Some(Value::Text(octets)) = ask(&mut imap, 1, &wanted).remove(&wanted[0]) else {
        panic!("no part {innermost}");
    };
    let rest = String::from_utf8(octets).unwrap();
    assert!(rest.contains("leaf") && rest.contains("--d0x"), "{rest}");
}
