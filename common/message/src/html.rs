//! HTML made into plain text, for searching and previews. Not a renderer and not a sanitiser:
//! nothing of the result is ever shown as HTML.
//!
//! One pass without a tree, so nesting costs nothing and a missing end tag harms only what is
//! behind it. Everything that looks ahead either moves on to what it finds or ends the document.

/// Quote marks shown at most.
const MAX_QUOTES: usize = 8;

/// The longest entity name and attribute value looked at, in octets.
const MAX_ENTITY: usize = 32;
const MAX_ALT: usize = 1024;

/// Elements whose content is no text of the message.
const SKIPPED: [&str; 7] = ["head", "svg", "template", "math", "map", "dialog", "title"];

/// Elements whose content is not even markup.
const RAW: [&str; 5] = ["script", "style", "xmp", "noembed", "iframe"];

/// Elements that begin and end a line.
const BLOCKS: [&str; 34] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "br",
    "center",
    "dd",
    "div",
    "dl",
    "dt",
    "fieldset",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "li",
    "main",
    "nav",
    "ol",
    "option",
    "p",
    "pre",
    "section",
    "table",
    "tr",
    "ul",
    "html",
];

/// The text of an HTML document, at most `limit` octets. Block elements begin lines, `blockquote`
/// gives `> `, images give their alternative text.
#[must_use]
pub fn to_text(html: &str, limit: usize) -> String {
    let mut reader = Reader { out: Text { limit, ..Text::default() }, skipped: None };
    let mut rest = html;
    while !rest.is_empty() && reader.out.text.len() < limit {
        rest = reader.step(rest);
    }
    let mut text = reader.out.text;
    text.truncate(text.trim_end().len());
    crate::charset::truncate(&mut text, limit);
    text
}

#[derive(Debug, Default)]
struct Text {
    text: String,
    limit: usize,
    space: bool,
    quotes: usize,
    preformatted: usize,
}

impl Text {
    fn at_line_start(&self) -> bool {
        self.text.is_empty() || self.text.ends_with('\n')
    }

    fn end_line(&mut self) {
        self.space = false;
        if !self.at_line_start() {
            self.text.push('\n');
        }
    }

    fn push(&mut self, c: char) {
        if self.text.len() >= self.limit {
            return;
        }
        if self.preformatted > 0 && c == '\n' {
            self.text.push('\n');
            return;
        }
        if c.is_ascii_whitespace() && self.preformatted == 0 {
            self.space = true;
            return;
        }
        if self.at_line_start() {
            for _ in 0..self.quotes.min(MAX_QUOTES) {
                self.text.push_str("> ");
            }
        } else if self.space {
            self.text.push(' ');
        }
        self.space = false;
        self.text.push(if c.is_control() { ' ' } else { c });
    }

    fn push_encoded(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.find('&') {
            rest[..at].chars().for_each(|c| self.push(c));
            rest = &rest[at..];
            match entity(rest) {
                Some((c, length)) => {
                    self.push(c);
                    rest = &rest[length..];
                }
                None => {
                    self.push('&');
                    rest = &rest[1..];
                }
            }
        }
        rest.chars().for_each(|c| self.push(c));
    }
}

#[derive(Debug)]
struct Reader {
    out: Text,
    /// The element that is skipped, and how many of it are inside each other.
    skipped: Option<(&'static str, usize)>,
}

/// A tag: its name in lower case, whether it ends an element, and its attributes.
struct Tag<'a> {
    name: String,
    is_end: bool,
    attributes: &'a str,
}

impl Reader {
    /// Takes one text run or one tag and gives what is behind it.
    fn step<'a>(&mut self, rest: &'a str) -> &'a str {
        if !rest.starts_with('<') {
            let end = rest.find('<').unwrap_or(rest.len());
            if self.skipped.is_none() {
                self.out.push_encoded(&rest[..end]);
            }
            return &rest[end..];
        }
        if let Some(comment) = rest.strip_prefix("<!--") {
            return comment.find("-->").map_or("", |end| &comment[end + 3..]);
        }
        if rest.starts_with("<!") || rest.starts_with("<?") {
            return rest.find('>').map_or("", |end| &rest[end + 1..]);
        }
        let Some((tag, behind)) = tag(rest) else {
            if self.skipped.is_none() {
                self.out.push('<');
            }
            return &rest[1..];
        };
        if !tag.is_end && RAW.contains(&tag.name.as_str()) {
            return behind_raw(behind, &tag.name);
        }
        self.element(&tag);
        behind
    }

    fn element(&mut self, tag: &Tag<'_>) {
        if let Some((name, depth)) = self.skipped {
            // A head that is never closed ends where the body begins.
            let ended = name == "head" && tag.name == "body";
            let depth = match (tag.name == name, tag.is_end) {
                (true, true) => depth - 1,
                (true, false) => depth + 1,
                (false, _) => depth,
            };
            self.skipped = if ended || depth == 0 { None } else { Some((name, depth)) };
            return;
        }
        let empty = tag.attributes.ends_with('/');
        if let Some(&name) = SKIPPED.iter().find(|&&name| name == tag.name) {
            if !tag.is_end && !empty {
                self.skipped = Some((name, 1));
            }
            return;
        }
        if BLOCKS.contains(&tag.name.as_str()) {
            self.out.end_line();
        }
        match (tag.name.as_str(), tag.is_end) {
            ("blockquote", false) => self.out.quotes = self.out.quotes.saturating_add(1),
            ("blockquote", true) => self.out.quotes = self.out.quotes.saturating_sub(1),
            ("pre", false) => self.out.preformatted = self.out.preformatted.saturating_add(1),
            ("pre", true) => self.out.preformatted = self.out.preformatted.saturating_sub(1),
            ("td" | "th", _) => self.out.space = true,
            ("img", false) => {
                if let Some(text) = attribute(tag.attributes, "alt") {
                    self.out.space = true;
                    self.out.push_encoded(text);
                    self.out.space = true;
                }
            }
            _ => {}
        }
    }
}

/// Reads `<name attributes>` or `</name>`; none if it is no tag. A tag that is never closed takes
/// the rest of the document.
fn tag(rest: &str) -> Option<(Tag<'_>, &str)> {
    let inner = &rest[1..];
    let (is_end, inner) = inner.strip_prefix('/').map_or((false, inner), |inner| (true, inner));
    if !inner.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let bytes = inner.as_bytes();
    let name_end = bytes
        .iter()
        .position(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/'))
        .unwrap_or(bytes.len());
    let mut quote = None;
    let mut end = bytes.len();
    let mut value = false;
    for (at, &byte) in bytes.iter().enumerate().skip(name_end) {
        match (quote, byte) {
            (None, b'>') => {
                end = at;
                break;
            }
            // A quote counts only where a value may begin: `<a title=it's>` has none.
            (None, b'"' | b'\'') if value => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
        value = byte == b'=' || (value && byte.is_ascii_whitespace());
    }
    // A name is cut where it is too long to be one of ours, and not inside of a character.
    let name = inner[..inner.floor_char_boundary(name_end.min(MAX_ENTITY))].to_ascii_lowercase();
    let attributes = &inner[name_end..end];
    Some((Tag { name, is_end, attributes }, inner.get(end + 1..).unwrap_or("")))
}

/// What is behind `</name` and its `>`.
fn behind_raw<'a>(text: &'a str, name: &str) -> &'a str {
    let mut from = 0;
    while let Some(found) = memchr::memchr(b'<', &text.as_bytes()[from..]) {
        let at = from + found;
        let close = text.get(at + 1..at + 2 + name.len());
        if close.is_some_and(|c| c.starts_with('/') && c[1..].eq_ignore_ascii_case(name)) {
            return text[at..].find('>').map_or("", |end| &text[at + end + 1..]);
        }
        from = at + 1;
    }
    ""
}

/// The value of an attribute, if it is quoted or a word.
fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let mut from = 0;
    let bytes = attributes.as_bytes();
    while let Some(found) = memchr::memchr(b'=', &bytes[from..]) {
        let equals = from + found;
        let before = attributes[from..equals].trim_ascii_end();
        let value = attributes[equals + 1..].trim_ascii_start();
        let start = attributes.len() - value.len();
        let (text, end) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let inner = &value[1..];
                let end = inner.find(quote).unwrap_or(inner.len());
                (&inner[..end], start + 1 + end + 1)
            }
            Some(_) | None => {
                let end = value.find(|c: char| c.is_ascii_whitespace()).unwrap_or(value.len());
                (&value[..end], start + end)
            }
        };
        let is_it = before.len() >= name.len()
            && before.is_char_boundary(before.len() - name.len())
            && before[before.len() - name.len()..].eq_ignore_ascii_case(name)
            && before[..before.len() - name.len()]
                .chars()
                .next_back()
                .is_none_or(|c| c.is_ascii_whitespace());
        if is_it {
            return Some(&text[..text.floor_char_boundary(MAX_ALT)]);
        }
        from = end.min(bytes.len());
    }
    None
}

/// Reads an entity at the beginning of a text: its character and its octets.
fn entity(text: &str) -> Option<(char, usize)> {
    let inner = &text.as_bytes()[1..text.len().min(MAX_ENTITY)];
    if inner.first() == Some(&b'#') {
        let (digits, radix, skip) = match inner.get(1) {
            Some(b'x' | b'X') => (&inner[2..], 16, 3),
            Some(_) | None => (&inner[1..], 10, 2),
        };
        let length = digits.iter().take_while(|b| char::from(**b).is_digit(radix)).count();
        let number = std::str::from_utf8(&digits[..length]).ok()?;
        let code = u32::from_str_radix(number, radix).ok()?;
        // HTML reads 128 to 159 as windows-1252.
        let c = match u8::try_from(code) {
            Ok(byte @ 128..=159) => crate::charset::decode(b"windows-1252", &[byte])
                .chars()
                .next()
                .unwrap_or('\u{fffd}'),
            Ok(_) | Err(_) => char::from_u32(code).unwrap_or('\u{fffd}'),
        };
        let end = usize::from(digits.get(length) == Some(&b';'));
        return Some((c, skip + length + end));
    }
    let length = inner.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    let closed = inner.get(length) == Some(&b';');
    let name = &inner[..length];
    let (_, c) = ENTITIES.iter().find(|(known, _)| known.as_bytes() == name)?;
    let bare = matches!(name, b"amp" | b"lt" | b"gt" | b"quot" | b"nbsp");
    (closed || bare).then_some((*c, 1 + length + usize::from(closed)))
}

/// The entities that mail has; others stay as they are written.
const ENTITIES: [(&str, char); 77] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", '\u{a0}'),
    ("auml", 'ä'),
    ("ouml", 'ö'),
    ("uuml", 'ü'),
    ("Auml", 'Ä'),
    ("Ouml", 'Ö'),
    ("Uuml", 'Ü'),
    ("szlig", 'ß'),
    ("eacute", 'é'),
    ("egrave", 'è'),
    ("ecirc", 'ê'),
    ("euml", 'ë'),
    ("Eacute", 'É'),
    ("Egrave", 'È'),
    ("agrave", 'à'),
    ("aacute", 'á'),
    ("acirc", 'â'),
    ("atilde", 'ã'),
    ("aring", 'å'),
    ("aelig", 'æ'),
    ("Aring", 'Å'),
    ("AElig", 'Æ'),
    ("ccedil", 'ç'),
    ("Ccedil", 'Ç'),
    ("iacute", 'í'),
    ("icirc", 'î'),
    ("iuml", 'ï'),
    ("ntilde", 'ñ'),
    ("Ntilde", 'Ñ'),
    ("oacute", 'ó'),
    ("ograve", 'ò'),
    ("ocirc", 'ô'),
    ("otilde", 'õ'),
    ("oslash", 'ø'),
    ("Oslash", 'Ø'),
    ("uacute", 'ú'),
    ("ugrave", 'ù'),
    ("ucirc", 'û'),
    ("yacute", 'ý'),
    ("euro", '€'),
    ("pound", '£'),
    ("yen", '¥'),
    ("cent", '¢'),
    ("copy", '©'),
    ("reg", '®'),
    ("trade", '™'),
    ("deg", '°'),
    ("sect", '§'),
    ("para", '¶'),
    ("middot", '·'),
    ("bull", '•'),
    ("hellip", '…'),
    ("ndash", '–'),
    ("mdash", '—'),
    ("lsquo", '\u{2018}'),
    ("rsquo", '\u{2019}'),
    ("sbquo", '\u{201a}'),
    ("ldquo", '\u{201c}'),
    ("rdquo", '\u{201d}'),
    ("bdquo", '\u{201e}'),
    ("laquo", '«'),
    ("raquo", '»'),
    ("times", '×'),
    ("iexcl", '¡'),
    ("iquest", '¿'),
    ("shy", '\u{ad}'),
    ("zwnj", '\u{200c}'),
    ("zwj", '\u{200d}'),
    ("ensp", '\u{2002}'),
    ("emsp", '\u{2003}'),
    ("thinsp", '\u{2009}'),
    ("rarr", '→'),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn documents() {
        let cases = [
            ("plain  text\n here", "plain text here"),
            ("<p>One</p><p>Two<br>Three</p>", "One\nTwo\nThree"),
            ("<head><title>t</title><style>p{}</style></head><body>x", "x"),
            ("<head>never closed<body>x", "x"),
            ("a<script>if (1 < 2) '</p>'</SCRIPT >b", "ab"),
            ("a<!-- <b> -->b<!doctype x>c", "abc"),
            ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</table>", "a b\nc"),
            ("<blockquote>q<blockquote>r</blockquote></blockquote>s", "> q\n> > r\ns"),
            ("<pre>a\n  b</pre>c", "a\n  b\nc"),
            ("x <img src=a alt=\"A &amp; B\"> y", "x A & B y"),
            ("x<img alt=word data-alt=no>", "x word"),
            ("&lt;&gt;&amp;&quot;&nbsp;|&#8364;&#x20AC;&#128;&bogus;&", "<>&\"\u{a0}|€€€&bogus;&"),
            ("a < b <> </ > c", "a < b <> </ > c"),
            ("<a title='>'>in</a> <a title=it's>b</a>", "in b"),
            ("<svg/>a<svg><svg>x</svg>y</svg>b", "ab"),
            ("<a href=\"never closed>text", ""),
            // The bound of a name lies inside of a character.
            ("<a123456789012345678901234567890\u{fc}>x", "x"),
        ];
        for (html, text) in cases {
            assert_eq!(to_text(html, 10_000), text, "{html}");
        }
    }

    #[test]
    fn hostile_documents_are_bounded() {
        for unit in [
            "<div>",
            "<blockquote>x",
            "<",
            "<!--",
            "&",
            "<script>",
            "<pre>\n",
            "<a b='",
            "</",
            "<svg>",
        ] {
            let html = unit.repeat(1_000_000 / unit.len());
            assert!(to_text(&html, 100_000).len() <= 100_000, "{unit}");
        }
    }

    proptest! {
        #[test]
        fn any_document(html in "[<>/!a-dp&#;='\" \n-]{0,100}", limit in 0usize..40) {
            prop_assert!(to_text(&html, limit).len() <= limit);
        }
    }
}
