//! The lexer of structured header values (RFC 5322 §3.2): atoms, quoted strings, literals,
//! specials; comments and folding fall out. One pass, no way back, no recursion: a million open
//! parentheses cost a counter.

/// Room a comment may take in [`Token::Comment`]; the rest of it is dropped.
const MAX_COMMENT: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// Anything that is not special, blank or a comment; may hold 8-bit octets and controls.
    Atom(&'a [u8]),
    /// A quoted string without its quotes and backslashes.
    Quoted(Vec<u8>),
    /// A domain literal with its brackets, without blanks.
    Literal(Vec<u8>),
    /// The text of a comment (only the outermost one; nested parentheses stay in it).
    Comment(Vec<u8>),
    /// One of the specials in use.
    Special(u8),
}

/// Which octets stand alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grammar {
    /// RFC 5322 addresses: `< > , ; : @ .`
    Address,
    /// RFC 2045 §5.1 `tspecials` as far as they matter: `/ ; = ,`
    Mime,
}

#[derive(Debug, Clone)]
pub(crate) struct Lexer<'a> {
    rest: &'a [u8],
    grammar: Grammar,
    /// Whether a blank or comment stood before the token just given.
    pub(crate) spaced: bool,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(value: &'a [u8], grammar: Grammar) -> Self {
        Self { rest: value, grammar, spaced: false }
    }

    fn is_special(&self, byte: u8) -> bool {
        match self.grammar {
            Grammar::Address => matches!(byte, b'<' | b'>' | b',' | b';' | b':' | b'@' | b'.'),
            Grammar::Mime => matches!(byte, b'/' | b';' | b'=' | b','),
        }
    }

    /// Everything up to the next `;` outside quotes and comments is passed over.
    pub(crate) fn skip_to_semicolon(&mut self) {
        for token in self.by_ref() {
            if token == Token::Special(b';') {
                return;
            }
        }
    }

    fn quoted(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 1;
        while let Some(&byte) = self.rest.get(at) {
            at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    if let Some(&escaped) = self.rest.get(at) {
                        out.push(escaped);
                        at += 1;
                    }
                }
                // RFC 5322 §3.2.4: folding inside is not part of the string.
                b'\r' | b'\n' => {}
                other => out.push(other),
            }
        }
        // An unclosed quote takes the rest of the value; looking for a better end would go back.
        self.rest = &self.rest[at.min(self.rest.len())..];
        out
    }

    fn comment(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut depth = 0u64;
        let mut at = 0;
        while let Some(&byte) = self.rest.get(at) {
            at += 1;
            let mut keep = byte;
            match byte {
                b'(' => {
                    depth += 1;
                    if depth == 1 {
                        continue;
                    }
                }
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                b'\\' => {
                    let Some(&escaped) = self.rest.get(at) else { break };
                    keep = escaped;
                    at += 1;
                }
                b'\r' | b'\n' => continue,
                _ => {}
            }
            if out.len() < MAX_COMMENT {
                out.push(keep);
            }
        }
        self.rest = &self.rest[at..];
        out
    }

    fn literal(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        while let Some(&byte) = self.rest.get(at) {
            at += 1;
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b']' => {
                    out.push(byte);
                    break;
                }
                other => out.push(other),
            }
        }
        self.rest = &self.rest[at..];
        out
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let blanks = self.rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        self.spaced = blanks > 0;
        self.rest = &self.rest[blanks..];
        let &first = self.rest.first()?;
        if self.is_special(first) {
            self.rest = &self.rest[1..];
            return Some(Token::Special(first));
        }
        Some(match first {
            b'"' => Token::Quoted(self.quoted()),
            b'(' => Token::Comment(self.comment()),
            b'[' if self.grammar == Grammar::Address => Token::Literal(self.literal()),
            // An encoded word may not hold specials (RFC 2047 §5 (3)); many hold commas and colons.
            b'=' if self.grammar == Grammar::Address
                && crate::encoded_word::length(self.rest).is_some() =>
            {
                let length = crate::encoded_word::length(self.rest).unwrap_or_default();
                let (word, rest) = self.rest.split_at(length);
                self.rest = rest;
                Token::Atom(word)
            }
            _ => {
                let end = self
                    .rest
                    .iter()
                    .position(|&b| {
                        b.is_ascii_whitespace()
                            || matches!(b, b'"' | b'(')
                            || (b == b'[' && self.grammar == Grammar::Address)
                            || self.is_special(b)
                    })
                    .unwrap_or(self.rest.len());
                let (atom, rest) = self.rest.split_at(end);
                self.rest = rest;
                Token::Atom(atom)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_an_address() {
        let all: Vec<_> =
            Lexer::new(b"\"J. \\\"D\\\"\" (a (b) \\) c) <x.y@[1.2 .3.4]>,", Grammar::Address)
                .collect();
        assert_eq!(
            all,
            [
                Token::Quoted(b"J. \"D\"".to_vec()),
                Token::Comment(b"a (b) ) c".to_vec()),
                Token::Special(b'<'),
                Token::Atom(b"x"),
                Token::Special(b'.'),
                Token::Atom(b"y"),
                Token::Special(b'@'),
                Token::Literal(b"[1.2.3.4]".to_vec()),
                Token::Special(b'>'),
                Token::Special(b','),
            ]
        );
    }

    #[test]
    fn what_is_never_closed_ends_with_the_value() {
        for value in [&b"\"abc"[..], b"(((((", b"[1.2", b"\"a\\", b"(a\\"] {
            assert_eq!(Lexer::new(value, Grammar::Address).count(), 1, "{value:?}");
        }
        let parens = vec![b'('; 1_000_000];
        let Some(Token::Comment(text)) = Lexer::new(&parens, Grammar::Address).next() else {
            panic!("a comment was expected");
        };
        assert_eq!(text.len(), MAX_COMMENT);
    }
}
