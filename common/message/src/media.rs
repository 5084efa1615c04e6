//! Content-Type, Content-Disposition, Content-Transfer-Encoding and their parameters
//! (RFC 2045, RFC 2183, RFC 2231).

use crate::{
    Limits, charset, encoded_word,
    token::{Grammar, Lexer, Token},
};

/// The longest type, subtype or parameter name, in octets.
const MAX_NAME: usize = 127;

/// The longest parameter value, in octets. Boundaries are bounded by [`Limits::BOUNDARY`].
const MAX_VALUE: usize = 4096;

/// Segments of one RFC 2231 value that are joined.
const MAX_SEGMENTS: u32 = 64;

/// A parameter as written, without quotes: the name in lower case, RFC 2231 marks still in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// `charset`, `filename*0*`, in lower case.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// A media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// The type, in lower case.
    pub kind: String,
    /// The subtype, in lower case.
    pub subtype: String,
    /// The parameters, in order.
    pub params: Vec<Param>,
    /// Whether the message said so; else it is the default of its surroundings.
    pub declared: bool,
}

/// Content-Disposition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disposition {
    /// `inline`, `attachment` or another word, as written.
    pub kind: Vec<u8>,
    /// The parameters, in order.
    pub params: Vec<Param>,
}

/// Content-Transfer-Encoding (RFC 2045 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `7bit`, and the default.
    #[default]
    SevenBit,
    /// `8bit`.
    EightBit,
    /// `binary`.
    Binary,
    /// `base64`.
    Base64,
    /// `quoted-printable`.
    QuotedPrintable,
    /// Any other word: the content cannot be decoded.
    Other,
}

impl Encoding {
    /// Its name, if it is a known one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::SevenBit => Some("7bit"),
            Self::EightBit => Some("8bit"),
            Self::Binary => Some("binary"),
            Self::Base64 => Some("base64"),
            Self::QuotedPrintable => Some("quoted-printable"),
            Self::Other => None,
        }
    }

    /// Whether the stored octets are the content.
    #[must_use]
    pub fn is_identity(self) -> bool {
        matches!(self, Self::SevenBit | Self::EightBit | Self::Binary)
    }
}

impl Media {
    /// text/plain; charset=us-ascii (RFC 2045 §5.2), not declared.
    #[must_use]
    pub fn text_plain() -> Self {
        Self {
            kind: "text".to_owned(),
            subtype: "plain".to_owned(),
            params: vec![Param { name: b"charset".to_vec(), value: b"us-ascii".to_vec() }],
            declared: false,
        }
    }

    /// message/rfc822, the default inside multipart/digest (RFC 2046 §5.1.5), not declared.
    #[must_use]
    pub fn message_rfc822() -> Self {
        Self {
            kind: "message".to_owned(),
            subtype: "rfc822".to_owned(),
            params: Vec::new(),
            declared: false,
        }
    }

    fn octet_stream() -> Self {
        Self {
            kind: "application".to_owned(),
            subtype: "octet-stream".to_owned(),
            params: Vec::new(),
            declared: true,
        }
    }

    /// Whether it is this type, and this subtype if one is given (in lower case).
    #[must_use]
    pub fn is(&self, kind: &str, subtype: Option<&str>) -> bool {
        self.kind == kind && subtype.is_none_or(|subtype| self.subtype == subtype)
    }

    /// Whether it holds a message with a header block of its own (RFC 2046 §5.2.1, RFC 6532 §3.7).
    #[must_use]
    pub fn is_message(&self) -> bool {
        self.kind == "message" && matches!(self.subtype.as_str(), "rfc822" | "global")
    }

    /// A parameter's value as written, by name in lower case.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&[u8]> {
        self.params.iter().find(|p| p.name == name.as_bytes()).map(|p| p.value.as_slice())
    }

    /// Reads a Content-Type value. What is malformed keeps its type and subtype if both are tokens
    /// and not multipart, else it is application/octet-stream.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        let mut lexer = Lexer::new(value, Grammar::Mime);
        let Some(kind) = next_token(&mut lexer) else { return Self::text_plain() };
        let Some(kind) = name(&kind) else { return Self::octet_stream() };
        if next_token(&mut lexer) != Some(Token::Special(b'/')) {
            return Self::octet_stream();
        }
        let Some(subtype) = next_token(&mut lexer).as_ref().and_then(name) else {
            return Self::octet_stream();
        };
        let params = params(&mut lexer);
        Self { kind, subtype, params, declared: true }
    }
}

impl Disposition {
    /// Reads a Content-Disposition value; none if it is empty.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut lexer = Lexer::new(value, Grammar::Mime);
        let kind = match next_token(&mut lexer)? {
            Token::Atom(atom) => clipped(atom, MAX_NAME),
            Token::Quoted(text) => clipped(&text, MAX_NAME),
            // RFC 2183 §2.8: what is not understood is an attachment.
            Token::Special(_) | Token::Literal(_) | Token::Comment(_) => b"attachment".to_vec(),
        };
        Some(Self { kind, params: params(&mut lexer) })
    }
}

/// Reads Content-Transfer-Encoding; the name is given when it is unknown.
#[must_use]
pub fn parse_encoding(value: &[u8]) -> (Encoding, Option<Vec<u8>>) {
    let mut lexer = Lexer::new(value, Grammar::Mime);
    let word = match next_token(&mut lexer) {
        Some(Token::Atom(atom)) => clipped(atom, MAX_NAME),
        Some(Token::Quoted(text)) => clipped(&text, MAX_NAME),
        Some(Token::Special(_) | Token::Literal(_) | Token::Comment(_)) | None => {
            return (Encoding::SevenBit, None);
        }
    };
    let encoding = match word.to_ascii_lowercase().as_slice() {
        b"7bit" | b"7-bit" => Encoding::SevenBit,
        b"8bit" | b"8-bit" => Encoding::EightBit,
        b"binary" => Encoding::Binary,
        b"base64" => Encoding::Base64,
        b"quoted-printable" => Encoding::QuotedPrintable,
        _ => return (Encoding::Other, Some(word)),
    };
    (encoding, None)
}

/// Reads Content-Language (RFC 3282): the tags, at most [`Limits::PARAMETERS`].
#[must_use]
pub fn parse_languages(value: &[u8]) -> Vec<Vec<u8>> {
    Lexer::new(value, Grammar::Mime)
        .filter_map(|token| match token {
            Token::Atom(tag) => Some(clipped(tag, MAX_NAME)),
            Token::Quoted(_) | Token::Literal(_) | Token::Comment(_) | Token::Special(_) => None,
        })
        .take(Limits::PARAMETERS)
        .collect()
}

/// The next token that is no comment.
fn next_token<'a>(lexer: &mut Lexer<'a>) -> Option<Token<'a>> {
    lexer.find(|token| !matches!(token, Token::Comment(_)))
}

fn clipped(bytes: &[u8], limit: usize) -> Vec<u8> {
    bytes[..bytes.len().min(limit)].to_vec()
}

fn name(token: &Token<'_>) -> Option<String> {
    let Token::Atom(atom) = token else { return None };
    let good = atom.len() <= MAX_NAME && atom.iter().all(|b| b.is_ascii_graphic() && *b != b'\\');
    good.then(|| String::from_utf8_lossy(atom).to_ascii_lowercase())
}

/// Reads `; name=value` to the end of the value, at most [`Limits::PARAMETERS`]. Of two with one
/// name the first counts. Values without quotes may hold what RFC 2045 wants quoted (`/`, `=`,
/// blanks), as mailers write them.
fn params(lexer: &mut Lexer<'_>) -> Vec<Param> {
    let mut out: Vec<Param> = Vec::new();
    let mut at_start = false;
    while out.len() < Limits::PARAMETERS {
        let Some(token) = next_token(lexer) else { break };
        let name = match token {
            Token::Special(b';') => {
                at_start = true;
                continue;
            }
            Token::Atom(atom) if at_start && atom.len() <= MAX_NAME => atom.to_ascii_lowercase(),
            Token::Atom(_)
            | Token::Quoted(_)
            | Token::Literal(_)
            | Token::Comment(_)
            | Token::Special(_) => {
                lexer.skip_to_semicolon();
                at_start = true;
                continue;
            }
        };
        match next_token(lexer) {
            Some(Token::Special(b'=')) => {}
            Some(Token::Special(b';')) => continue,
            Some(_) => {
                lexer.skip_to_semicolon();
                continue;
            }
            None => break,
        }
        let value = value(lexer);
        at_start = true;
        if !out.iter().any(|param| param.name == name) {
            out.push(Param { name, value });
        }
    }
    out
}

/// Reads one value and the `;` behind it.
fn value(lexer: &mut Lexer<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut quoted = false;
    for token in lexer.by_ref() {
        let spaced = !out.is_empty();
        match token {
            Token::Special(b';') => break,
            Token::Comment(_) => {}
            Token::Quoted(text) if out.is_empty() && !quoted => {
                quoted = true;
                out = text;
            }
            // Behind a closing quote nothing belongs to the value.
            Token::Quoted(_) | Token::Atom(_) | Token::Special(_) | Token::Literal(_) if quoted => {
            }
            Token::Atom(text) => extend(&mut out, text, spaced),
            Token::Quoted(text) | Token::Literal(text) => extend(&mut out, &text, spaced),
            Token::Special(special) => out.push(special),
        }
        out.truncate(MAX_VALUE);
    }
    out.truncate(MAX_VALUE);
    out
}

fn extend(out: &mut Vec<u8>, text: &[u8], spaced: bool) {
    // Two tokens with nothing but blanks between: `name=two words`. A special glues instead.
    let glued = out.last().is_none_or(|&b| matches!(b, b'/' | b'=' | b','));
    if spaced && !glued {
        out.push(b' ');
    }
    out.extend_from_slice(text);
}

/// A parameter's text: RFC 2231 continuations joined, its charset decoded, else RFC 2047 words
/// decoded (which RFC 2231 forbids there and mailers write). Made fit for a file name: no path, no
/// control characters. None if it is absent or empty.
#[must_use]
pub fn decoded_param(params: &[Param], name: &str) -> Option<String> {
    let raw = |suffix: &str| {
        let wanted = format!("{name}{suffix}");
        params.iter().find(|p| p.name == wanted.as_bytes()).map(|p| p.value.as_slice())
    };
    let text = if let Some(value) = raw("*") {
        extended(value)
    } else if raw("*0").is_some() || raw("*0*").is_some() {
        continued(&raw)
    } else {
        encoded_word::decode(raw("")?, MAX_VALUE)
    };
    let base = text.rsplit(['/', '\\']).next().unwrap_or(&text);
    let clean: String = base.chars().filter(|c| !c.is_control()).collect();
    let clean = clean.trim();
    (!clean.is_empty() && clean != "." && clean != "..").then(|| clean.to_owned())
}

/// `charset'language'percent-encoded` (RFC 2231 §4).
fn extended(value: &[u8]) -> String {
    let mut pieces = value.splitn(3, |&b| b == b'\'');
    match (pieces.next(), pieces.next(), pieces.next()) {
        (Some(label), Some(_), Some(text)) => charset::decode(label, &percent(text)),
        _ => charset::decode(b"", &percent(value)),
    }
}

/// `name*0*=...; name*1=...` (RFC 2231 §3, §4.1).
fn continued<'a>(raw: &impl Fn(&str) -> Option<&'a [u8]>) -> String {
    let mut octets = Vec::new();
    let mut label: &[u8] = b"";
    for segment in 0..MAX_SEGMENTS {
        if let Some(value) = raw(&format!("*{segment}*")) {
            let mut text = value;
            if segment == 0 {
                let mut pieces = value.splitn(3, |&b| b == b'\'');
                if let (Some(first), Some(_), Some(rest)) =
                    (pieces.next(), pieces.next(), pieces.next())
                {
                    (label, text) = (first, rest);
                }
            }
            octets.extend(percent(text));
        } else if let Some(value) = raw(&format!("*{segment}")) {
            octets.extend_from_slice(value);
        } else {
            break;
        }
    }
    charset::decode(label, &octets)
}

fn percent(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|&b| char::from(b).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let pair = if text[at] == b'%' { digit(at + 1).zip(digit(at + 2)) } else { None };
        if let Some((high, low)) = pair {
            out.push(u8::try_from(high * 16 + low).unwrap_or_default());
            at += 3;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(value: &str) -> String {
        let media = Media::parse(value.as_bytes());
        let mut out = format!("{}/{}", media.kind, media.subtype);
        for param in &media.params {
            out.push_str(&format!(
                ";{}={}",
                String::from_utf8_lossy(&param.name),
                String::from_utf8_lossy(&param.value)
            ));
        }
        out
    }

    #[test]
    fn content_types() {
        let cases = [
            ("text/plain", "text/plain"),
            (" TEXT/Plain; CharSet=UTF-8", "text/plain;charset=UTF-8"),
            ("text/plain (c) ; (d) charset = \"a\\\"b\" (e)", "text/plain;charset=a\"b"),
            ("multipart/mixed;\r\n boundary=\"a b:c/d\"", "multipart/mixed;boundary=a b:c/d"),
            ("multipart/mixed; boundary=----=_x/y=z", "multipart/mixed;boundary=----=_x/y=z"),
            ("a/b; name=two words; c=d", "a/b;name=two words;c=d"),
            ("a/b; x; y=1; ;; z=\"\"; y=2", "a/b;y=1;z="),
            ("a/b; \"q\"=1; y=2", "a/b;y=2"),
            ("a/b charset=x; y=2", "a/b;y=2"),
            ("", "text/plain;charset=us-ascii"),
            ("text", "application/octet-stream"),
            ("/plain", "application/octet-stream"),
            ("te xt/plain", "application/octet-stream"),
            ("text/plain; charset=\"unclosed", "text/plain;charset=unclosed"),
        ];
        for (value, expected) in cases {
            assert_eq!(media(value), expected, "{value}");
        }
    }

    #[test]
    fn parameters_are_bounded() {
        let mut value = b"a/b".to_vec();
        for i in 0..100_000 {
            value.extend_from_slice(format!(";p{i}=x").as_bytes());
        }
        assert_eq!(Media::parse(&value).params.len(), Limits::PARAMETERS);
        let long = [b"a/b;x=".to_vec(), vec![b'y'; 1_000_000]].concat();
        assert_eq!(Media::parse(&long).params[0].value.len(), MAX_VALUE);
    }

    fn filename(value: &str) -> Option<String> {
        decoded_param(&Disposition::parse(value.as_bytes())?.params, "filename")
    }

    #[test]
    fn file_names() {
        let cases = [
            ("attachment; filename=x.pdf", Some("x.pdf")),
            ("attachment; filename*=UTF-8''%e2%82%ac%20rates", Some("€ rates")),
            ("attachment; filename*0*=iso-8859-1'de'gr%fc; filename*1=n.txt", Some("grün.txt")),
            ("attachment; filename*0=a; filename*1=b; filename*3=d", Some("ab")),
            ("attachment; filename=\"=?utf-8?q?gr=C3=BCn?=\"", Some("grün")),
            ("attachment; filename=\"../../etc/passwd\"", Some("passwd")),
            ("attachment; filename=\"C:\\\\x\\\\y.exe\"", Some("y.exe")),
            ("attachment; filename=\"..\"", None),
            ("attachment; filename=\"\"", None),
            ("attachment; filename*=%zz%4", Some("%zz%4")),
            ("attachment", None),
        ];
        for (value, expected) in cases {
            assert_eq!(filename(value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn encodings_and_languages() {
        assert_eq!(parse_encoding(b" Base64 (x)").0, Encoding::Base64);
        assert_eq!(parse_encoding(b"").0, Encoding::SevenBit);
        assert_eq!(parse_encoding(b"x-uu"), (Encoding::Other, Some(b"x-uu".to_vec())));
        assert_eq!(parse_languages(b"de, en (c)"), [b"de".to_vec(), b"en".to_vec()]);
    }
}
