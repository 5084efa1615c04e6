//! Transcripts: protocol behaviour as a conversation in a text file, played against any [`World`].
//!
//! The same file runs on a pure state machine, on the simulated tree and on real processes; only
//! the world behind it differs.
//!
//! | Line | Meaning |
//! |---|---|
//! | `# text` | comment |
//! | `given WORDS` | prepare the world |
//! | `C: text` | the client sends the text and CRLF |
//! | `C= "bytes"` | the client sends exactly these bytes; `\r \n \t \0 \\ \" \xNN` and `*N` repeats |
//! | `S: pattern` | the next line of the server |
//! | `S* pattern` | any number of continuation lines (`NNN-`), then this one |
//! | `S! pattern` | nothing that the server has said by now and nobody has read matches |
//! | `silence` | the server says nothing |
//! | `closed` | the server closes the connection |
//! | `tls` | both sides secure the connection now |
//! | `advance 30m` | the clock moves |
//! | `expect WORDS` | the world must look so |
//!
//! In patterns `...` stands for any text; `${x}` binds at its first use and is compared later; it
//! also works in `C:`. `1C:`, `2S:` name connections; without a number it is connection 1. A
//! comment may follow behind two spaces.

use std::{collections::BTreeMap, time::Duration};

/// The most steps of one file; a longer one is a mistake.
const MAX_STEPS: usize = 10_000;

/// What a server did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A line, without its end.
    Line(String),
    /// It closed the connection.
    Closed,
    /// Nothing, and it waits for the client.
    Silence,
}

/// What the script wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A line, or the end.
    Something,
    /// Nothing more.
    Silence,
}

/// Where a transcript is played.
pub trait World {
    /// `given` and what follows it.
    ///
    /// # Errors
    /// A text that says why this cannot be had here.
    fn given(&mut self, words: &[&str]) -> Result<(), String>;

    /// `expect` and what follows it.
    ///
    /// # Errors
    /// What is there instead.
    fn expect(&mut self, words: &[&str]) -> Result<(), String>;

    /// Moves the clock.
    ///
    /// # Errors
    /// Worlds with a real clock cannot.
    fn advance(&mut self, by: Duration) -> Result<(), String>;

    /// Opens a connection.
    ///
    /// # Errors
    /// It cannot be made.
    fn open(&mut self, connection: u32) -> Result<(), String>;

    /// Sends bytes.
    ///
    /// # Errors
    /// The connection is gone.
    fn send(&mut self, connection: u32, bytes: &[u8]) -> Result<(), String>;

    /// What the server does next. A world with a real clock waits long for something that is
    /// wanted, and not long for what should not come.
    ///
    /// # Errors
    /// The connection is broken.
    fn hear(&mut self, connection: u32, wanted: Wanted) -> Result<Heard, String>;

    /// Does the TLS handshake from the client's side.
    ///
    /// # Errors
    /// The server did not ask for one, or it failed.
    fn tls(&mut self, connection: u32) -> Result<(), String>;
}

/// One line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    Given(String),
    Expect(String),
    Advance(Duration),
    Send(u32, Vec<u8>),
    /// A text with `${x}` in it, and CRLF.
    Say(u32, String),
    Hear(u32, String),
    HearLast(u32, String),
    HearNot(u32, String),
    Silence(u32),
    Closed(u32),
    Tls(u32),
}

/// A file, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    acts: Vec<(usize, Act)>,
}

/// Where and why a transcript does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line of the file, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for Fault {}

impl Transcript {
    /// Reads a file.
    ///
    /// # Errors
    /// The first line that is none of the known kinds.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut acts = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let fault = |why: &str| Fault { line: number, why: why.to_owned() };
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if acts.len() >= MAX_STEPS {
                return Err(fault("too many lines"));
            }
            acts.push((number, parse_line(line).map_err(|why| fault(&why))?));
        }
        Ok(Self { acts })
    }

    /// Plays it.
    ///
    /// # Errors
    /// The first line that does not hold.
    pub fn play(&self, world: &mut dyn World) -> Result<(), Fault> {
        let mut play =
            Play { world, bound: BTreeMap::new(), ahead: BTreeMap::new(), open: Vec::new() };
        for (line, act) in &self.acts {
            play.act(act).map_err(|why| Fault { line: *line, why })?;
        }
        Ok(())
    }
}

fn parse_line(line: &str) -> Result<Act, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (number, kind) = word.split_at(digits);
    let connection = if number.is_empty() {
        1
    } else {
        number.parse().map_err(|_| "bad connection number".to_owned())?
    };
    let text = || without_comment(rest).to_owned();
    Ok(match kind {
        "given" => Act::Given(text()),
        "expect" => Act::Expect(text()),
        "advance" => Act::Advance(duration(without_comment(rest))?),
        "C:" => Act::Say(connection, text()),
        "C=" => Act::Send(connection, literal(without_comment(rest))?),
        "S:" => Act::Hear(connection, text()),
        "S*" => Act::HearLast(connection, text()),
        "S!" => Act::HearNot(connection, text()),
        "silence" => Act::Silence(connection),
        "closed" => Act::Closed(connection),
        "tls" => Act::Tls(connection),
        other => return Err(format!("unknown kind of line {other:?}")),
    })
}

fn without_comment(text: &str) -> &str {
    text.split_once("  #").map_or(text, |(text, _)| text).trim_end()
}

fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.chars().last().ok_or("no duration")?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(format!("unknown unit in {text:?}")),
    };
    let number: u64 =
        text.trim_end_matches(unit).parse().map_err(|_| format!("no number in {text:?}"))?;
    Ok(Duration::from_secs(number * factor))
}

/// `"a\r\n" "b"*1000`: literals in a row, each perhaps repeated.
fn literal(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (part, tail) = one_literal(rest)?;
        let (times, tail) = match tail.strip_prefix('*') {
            None => (1, tail),
            Some(tail) => {
                let digits = tail.bytes().take_while(u8::is_ascii_digit).count();
                let (number, tail) = tail.split_at(digits);
                (number.parse().map_err(|_| "bad repetition".to_owned())?, tail)
            }
        };
        out.extend(part.repeat(times));
        rest = tail.trim_start();
    }
    Ok(out)
}

fn one_literal(text: &str) -> Result<(Vec<u8>, &str), String> {
    let body = text.strip_prefix('"').ok_or("bytes stand in quotes")?;
    let mut out = Vec::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, &body[at + 1..])),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('r') => out.push(b'\r'),
                Some('n') => out.push(b'\n'),
                Some('t') => out.push(b'\t'),
                Some('0') => out.push(0),
                Some('\\') => out.push(b'\\'),
                Some('"') => out.push(b'"'),
                Some('x') => {
                    let hex: String = chars.by_ref().take(2).map(|(_, c)| c).collect();
                    out.push(u8::from_str_radix(&hex, 16).map_err(|_| "bad \\x".to_owned())?);
                }
                other => return Err(format!("unknown escape {other:?}")),
            },
            other => out.extend(other.to_string().bytes()),
        }
    }
    Err("quotes without end".to_owned())
}

type Bound = BTreeMap<String, String>;

struct Play<'a> {
    world: &'a mut dyn World,
    bound: Bound,
    /// Heard for `S!` and not yet read by anything else.
    ahead: BTreeMap<u32, Vec<Heard>>,
    open: Vec<u32>,
}

impl Play<'_> {
    fn act(&mut self, act: &Act) -> Result<(), String> {
        match act {
            Act::Given(text) => self.world.given(&words(text)),
            Act::Expect(text) => {
                let text = self.fill(text)?;
                self.world.expect(&words(&text))
            }
            Act::Advance(by) => self.world.advance(*by),
            Act::Send(connection, bytes) => {
                self.connect(*connection)?;
                self.world.send(*connection, bytes)
            }
            Act::Say(connection, text) => {
                self.connect(*connection)?;
                let line = format!("{}\r\n", self.fill(text)?);
                self.world.send(*connection, line.as_bytes())
            }
            Act::Hear(connection, pattern) => {
                let line = self.line(*connection, pattern)?;
                self.compare(pattern, &line)
            }
            Act::HearLast(connection, pattern) => loop {
                let line = self.line(*connection, pattern)?;
                if line.as_bytes().get(3) != Some(&b'-') {
                    return self.compare(pattern, &line);
                }
            },
            Act::HearNot(connection, pattern) => self.hear_not(*connection, pattern),
            Act::Silence(connection) => match self.hear(*connection, Wanted::Silence)? {
                Heard::Silence => Ok(()),
                heard @ (Heard::Line(_) | Heard::Closed) => {
                    Err(format!("wanted silence, heard {heard:?}"))
                }
            },
            Act::Closed(connection) => match self.hear(*connection, Wanted::Something)? {
                Heard::Closed => Ok(()),
                heard @ (Heard::Line(_) | Heard::Silence) => {
                    Err(format!("wanted the end, heard {heard:?}"))
                }
            },
            Act::Tls(connection) => {
                self.connect(*connection)?;
                self.world.tls(*connection)
            }
        }
    }

    fn connect(&mut self, connection: u32) -> Result<(), String> {
        if self.open.contains(&connection) {
            return Ok(());
        }
        self.open.push(connection);
        self.world.open(connection)
    }

    fn hear(&mut self, connection: u32, wanted: Wanted) -> Result<Heard, String> {
        self.connect(connection)?;
        match self.ahead.get_mut(&connection) {
            Some(ahead) if !ahead.is_empty() => Ok(ahead.remove(0)),
            _ => self.world.hear(connection, wanted),
        }
    }

    fn line(&mut self, connection: u32, wanted: &str) -> Result<String, String> {
        match self.hear(connection, Wanted::Something)? {
            Heard::Line(line) => Ok(line),
            heard @ (Heard::Closed | Heard::Silence) => {
                Err(format!("wanted {wanted:?}, heard {heard:?}"))
            }
        }
    }

    fn hear_not(&mut self, connection: u32, pattern: &str) -> Result<(), String> {
        self.connect(connection)?;
        let ahead = self.ahead.entry(connection).or_default();
        while ahead.len() < MAX_STEPS {
            match self.world.hear(connection, Wanted::Silence)? {
                Heard::Silence => break,
                Heard::Closed => {
                    ahead.push(Heard::Closed);
                    break;
                }
                line @ Heard::Line(_) => ahead.push(line),
            }
        }
        for heard in ahead.iter() {
            if let Heard::Line(line) = heard
                && matches(pattern, line, &mut self.bound.clone())
            {
                return Err(format!("heard {line:?}"));
            }
        }
        Ok(())
    }

    fn compare(&mut self, pattern: &str, line: &str) -> Result<(), String> {
        // A file's lines lose the white space at their end in any editor; so do the server's.
        if matches(pattern, line.trim_end(), &mut self.bound) {
            Ok(())
        } else {
            Err(format!("wanted {pattern:?}, heard {line:?}"))
        }
    }

    fn fill(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((head, tail)) = rest.split_once("${") {
            let (name, tail) = tail.split_once('}').ok_or("${ without }")?;
            out.push_str(head);
            out.push_str(self.bound.get(name).ok_or_else(|| format!("{name} is not bound"))?);
            rest = tail;
        }
        out.push_str(rest);
        Ok(out)
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_ascii_whitespace().collect()
}

/// Whether a line fits a pattern; binds what the pattern names.
fn matches(pattern: &str, line: &str, bound: &mut Bound) -> bool {
    if let Some(rest) = pattern.strip_prefix("...") {
        return ends(line).any(|at| matches(rest, &line[at..], bound));
    }
    if let Some((name, rest)) = pattern.strip_prefix("${").and_then(|p| p.split_once('}')) {
        if let Some(value) = bound.get(name) {
            let Some(line) = line.strip_prefix(value.as_str()) else { return false };
            return matches(rest, line, bound);
        }
        // A name takes no space: it is a word of the server's.
        return ends(line).take_while(|&at| !line[..at].contains(' ')).any(|at| {
            let mut trial = bound.clone();
            trial.insert(name.to_owned(), line[..at].to_owned());
            let fits = at > 0 && matches(rest, &line[at..], &mut trial);
            if fits {
                *bound = trial;
            }
            fits
        });
    }
    match (pattern.chars().next(), line.chars().next()) {
        (None, None) => true,
        (Some(p), Some(l)) if p == l => {
            matches(&pattern[p.len_utf8()..], &line[l.len_utf8()..], bound)
        }
        _ => false,
    }
}

/// Every place where a character ends, and 0.
fn ends(line: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(line.char_indices().map(|(at, c)| at + c.len_utf8()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let mut bound = Bound::new();
        assert!(matches("220 ${host} ESMTP ...", "220 mx.example.org ESMTP mox", &mut bound));
        assert_eq!(bound.get("host").map(String::as_str), Some("mx.example.org"));
        assert!(matches("250 ${host}", "250 mx.example.org", &mut bound));
        assert!(!matches("250 ${host}", "250 other", &mut bound));
        assert!(!matches("250 ${host}", "250 mx.example.org hi", &mut bound));
        assert!(matches("...b...", "abc", &mut bound) && matches("...", "", &mut bound));
        assert!(!matches("a", "ab", &mut bound));
    }

    #[test]
    fn literals() {
        assert_eq!(literal(r#""a\r\n" "b"*3 "\x00\"""#).unwrap(), b"a\r\nbbb\0\"");
        assert!(literal("\"a").is_err() && literal("a").is_err());
    }

    #[test]
    fn lines_of_every_kind() {
        let text = "# c\ngiven a b\nC: x\n2S: y  # why\nadvance 30m\nS! z\n2closed\nexpect q";
        let read = Transcript::parse(text).unwrap();
        assert_eq!(read.acts[2], (4, Act::Hear(2, "y".to_owned())));
        assert_eq!(read.acts[3].1, Act::Advance(Duration::from_secs(1800)));
        assert_eq!(Transcript::parse("C: a\nX: b").unwrap_err().line, 2);
    }

    /// A server that answers each line with what it was told to.
    struct Echo(Vec<Heard>);

    impl World for Echo {
        fn given(&mut self, _: &[&str]) -> Result<(), String> {
            Ok(())
        }
        fn expect(&mut self, words: &[&str]) -> Result<(), String> {
            if words == ["${x}"] { Err("not filled".into()) } else { Ok(()) }
        }
        fn advance(&mut self, _: Duration) -> Result<(), String> {
            Err("no clock".into())
        }
        fn open(&mut self, _: u32) -> Result<(), String> {
            Ok(())
        }
        fn send(&mut self, _: u32, bytes: &[u8]) -> Result<(), String> {
            self.0.push(Heard::Line(String::from_utf8_lossy(bytes).trim_end().to_owned()));
            Ok(())
        }
        fn hear(&mut self, _: u32, _: Wanted) -> Result<Heard, String> {
            Ok(if self.0.is_empty() { Heard::Silence } else { self.0.remove(0) })
        }
        fn tls(&mut self, _: u32) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn a_false_transcript_fails_where_it_is_false() {
        let play = |text: &str| Transcript::parse(text).unwrap().play(&mut Echo(Vec::new()));
        assert_eq!(play("C: 250-a\nC: 250-b\nC: 250 c\nS* 250 c\nsilence"), Ok(()));
        assert_eq!(play("C: a ${x}").unwrap_err().why, "x is not bound");
        assert_eq!(play("C: a\nS: b").unwrap_err().line, 2);
        assert_eq!(play("C: a\nS! a").unwrap_err().line, 2);
        assert_eq!(play("C: a\nS! b\nS: a\nsilence"), Ok(()));
        assert_eq!(play("C: a b\nS: a ${x}\nC: ${x}\nS: b\nexpect ${x}"), Ok(()));
        assert!(play("closed").is_err() && play("advance 1s").is_err());
    }
}
