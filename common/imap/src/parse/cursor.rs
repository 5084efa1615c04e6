//! The terminals of the grammar, read from one slice.

use super::{SyntaxError, is_astring_char, is_atom_char};
use crate::{command::Tag, date::CalendarDate, set::SequenceSet};

type Result<T> = std::result::Result<T, SyntaxError>;

pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(super) const fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn end(&self) -> Result<()> {
        if self.at_end() { Ok(()) } else { Err(SyntaxError("too much at the end of the command")) }
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn advance(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.advance(1);
        }
        found
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<()> {
        if self.eat(byte) { Ok(()) } else { Err(SyntaxError("missing punctuation")) }
    }

    /// SP is exactly one space.
    pub(super) fn space(&mut self) -> Result<()> {
        if self.eat(b' ') { Ok(()) } else { Err(SyntaxError("missing space or argument")) }
    }

    pub(super) fn take_while(&mut self, mut keep: impl FnMut(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&b| !keep(b)).unwrap_or(self.rest.len());
        self.advance(end)
    }

    /// Takes `word`, in any case, if it stands here and no atom character follows it.
    pub(super) fn eat_word(&mut self, word: &[u8]) -> bool {
        let here = self.rest.get(..word.len()).is_some_and(|w| w.eq_ignore_ascii_case(word));
        let ends = !self.rest.get(word.len()).copied().is_some_and(is_atom_char);
        if here && ends {
            self.advance(word.len());
        }
        here && ends
    }

    /// Takes `text`, in any case, whatever follows.
    pub(super) fn eat_text(&mut self, text: &[u8]) -> bool {
        let here = self.rest.get(..text.len()).is_some_and(|w| w.eq_ignore_ascii_case(text));
        if here {
            self.advance(text.len());
        }
        here
    }

    pub(super) fn tag(&mut self) -> Result<Tag> {
        Tag::new(self.take_while(|b| is_astring_char(b) && b != b'+'))
            .ok_or(SyntaxError("missing tag"))
    }

    /// `atom`.
    pub(super) fn word(&mut self) -> Result<&'a [u8]> {
        let word = self.take_while(is_atom_char);
        if word.is_empty() { Err(SyntaxError("missing word")) } else { Ok(word) }
    }

    /// `flag`, also with a backslash.
    pub(super) fn flag(&mut self) -> Result<Vec<u8>> {
        let mut flag = Vec::new();
        if self.eat(b'\\') {
            flag.push(b'\\');
        }
        flag.extend_from_slice(self.word()?);
        Ok(flag)
    }

    pub(super) fn astring(&mut self) -> Result<Vec<u8>> {
        match self.peek() {
            Some(b'"' | b'{') => self.string(),
            Some(byte) if is_astring_char(byte) => Ok(self.take_while(is_astring_char).to_vec()),
            Some(_) | None => Err(SyntaxError("missing string")),
        }
    }

    /// `list-mailbox = 1*list-char / string`.
    pub(super) fn list_mailbox(&mut self) -> Result<Vec<u8>> {
        match self.peek() {
            Some(b'"' | b'{') => self.string(),
            Some(_) | None => {
                let list_char = |b| is_astring_char(b) || matches!(b, b'%' | b'*');
                let text = self.take_while(list_char);
                if text.is_empty() {
                    Err(SyntaxError("missing pattern"))
                } else {
                    Ok(text.to_vec())
                }
            }
        }
    }

    /// `string = quoted / literal`.
    pub(super) fn string(&mut self) -> Result<Vec<u8>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal(),
            Some(_) | None => Err(SyntaxError("missing string")),
        }
    }

    /// `quoted`: a backslash stands before `"` and `\` alone; octets above 127 are UTF-8.
    pub(super) fn quoted(&mut self) -> Result<Vec<u8>> {
        self.expect(b'"')?;
        let mut text = Vec::new();
        loop {
            text.extend_from_slice(
                self.take_while(|b| !matches!(b, b'"' | b'\\' | 0 | b'\r' | b'\n')),
            );
            if self.eat(b'"') {
                break;
            }
            self.expect(b'\\')?;
            match self.peek() {
                Some(byte @ (b'"' | b'\\')) => {
                    self.advance(1);
                    text.push(byte);
                }
                Some(_) | None => return Err(SyntaxError("bad escape in quoted string")),
            }
        }
        if std::str::from_utf8(&text).is_err() {
            return Err(SyntaxError("quoted string is not UTF-8"));
        }
        Ok(text)
    }

    fn literal(&mut self) -> Result<Vec<u8>> {
        self.expect(b'{')?;
        let size = self.number()?;
        self.eat(b'+');
        if !self.eat_text(b"}\r\n") {
            return Err(SyntaxError("bad literal"));
        }
        let size = usize::try_from(size).map_err(|_| SyntaxError("bad literal"))?;
        if self.rest.len() < size {
            return Err(SyntaxError("literal is cut short"));
        }
        let octets = self.advance(size);
        // RFC 9051 §9: a literal holds CHAR8, which NUL is not.
        if octets.contains(&0) { Err(SyntaxError("NUL in literal")) } else { Ok(octets.to_vec()) }
    }

    /// `number64`, at most 18 digits.
    pub(super) fn number(&mut self) -> Result<u64> {
        let digits = self.take_while(|b| b.is_ascii_digit());
        if !(1..=18).contains(&digits.len()) {
            return Err(SyntaxError("missing number"));
        }
        std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or(SyntaxError("missing number"))
    }

    pub(super) fn sequence_set(&mut self) -> Result<SequenceSet> {
        let text = self.take_while(|b| matches!(b, b'0'..=b'9' | b':' | b',' | b'*' | b'$'));
        SequenceSet::parse(text).ok_or(SyntaxError("not a sequence set"))
    }

    /// `date`, quoted or not.
    pub(super) fn date(&mut self) -> Result<CalendarDate> {
        let text = match self.peek() {
            Some(b'"') => self.quoted()?,
            Some(_) | None => self.word()?.to_vec(),
        };
        CalendarDate::parse(&text).ok_or(SyntaxError("not a date"))
    }
}
