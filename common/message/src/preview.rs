//! The preview of a message (RFC 8970): the first words its sender wrote, without what was quoted.

/// The longest preview, in characters.
pub const MAX_CHARS: usize = 256;

/// It is long enough at this many octets.
const ENOUGH: usize = 250;

/// Octets of text that are looked at.
const LOOK_AT: usize = 64 << 10;

/// Lines a signature has at most.
const SIGNATURE_LINES: usize = 5;

/// What stands for quoted text.
const ELLIPSIS: &str = "[...]";

/// The preview of a plain text, on one line; empty if there is nothing to show.
#[must_use]
pub fn preview(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(LOOK_AT)];
    let mut out = String::new();
    let mut lines = text.lines();
    let mut quoted = false;
    while let Some(line) = lines.next() {
        if out.len() >= ENOUGH || begins_signature(line, lines.clone()) {
            break;
        }
        if line.starts_with('>') {
            quoted = true;
            continue;
        }
        if let Some(length) = introduction(line, lines.clone()) {
            quoted = true;
            if length > 1 {
                lines.next();
            }
            continue;
        }
        let condensed = condense(line);
        if condensed.is_empty() {
            continue;
        }
        if std::mem::take(&mut quoted) {
            push_word(&mut out, ELLIPSIS);
        }
        push_word(&mut out, &condensed);
    }
    if quoted && out.len() < ENOUGH {
        push_word(&mut out, ELLIPSIS);
    }
    match out.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => out[..end].trim_end().to_owned(),
        None => out,
    }
}

fn push_word(out: &mut String, text: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    // No more of a line than can be shown.
    out.push_str(&text[..text.floor_char_boundary(4 * MAX_CHARS)]);
}

/// "On ... wrote:" on one line or two, with a quoted line behind it: how many lines.
fn introduction(line: &str, mut behind: std::str::Lines<'_>) -> Option<usize> {
    if !line.starts_with("On ") {
        return None;
    }
    let ends = |line: &str| line.trim_end().ends_with("wrote:");
    let mut length = 1;
    if !ends(line) {
        if !ends(behind.next()?) {
            return None;
        }
        length = 2;
    }
    // One empty line may stand between.
    let next = behind.by_ref().take(2).find(|next| !next.trim().is_empty())?;
    next.starts_with('>').then_some(length)
}

fn is_dashes(line: &str) -> bool {
    let line = line.trim_end();
    line.len() >= 2 && line.bytes().all(|b| b == b'-')
}

fn begins_signature(line: &str, behind: std::str::Lines<'_>) -> bool {
    if !is_dashes(line) {
        return false;
    }
    let mut count = 0;
    for next in behind.take(SIGNATURE_LINES) {
        if next.trim().is_empty() {
            return false;
        }
        count += 1;
    }
    count < SIGNATURE_LINES
}

/// Blanks and what shows as nothing (newsletters fill previews with it) become one blank.
fn condense(line: &str) -> String {
    let mut out = String::new();
    let mut gap = false;
    for c in line.chars().take(16 * MAX_CHARS) {
        let hidden = matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffc}');
        if hidden {
            continue;
        }
        if c.is_whitespace() || c.is_control() {
            gap = true;
            continue;
        }
        if gap && !out.is_empty() {
            out.push(' ');
        }
        gap = false;
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previews() {
        let cases = [
            ("Hello\r\nWorld\r\n", "Hello World"),
            ("", ""),
            ("\n\n \u{200b}\u{a0}\u{feff}\n", ""),
            ("a\u{200b}\u{a0}\u{200b}b", "a b"),
            ("> quoted\n> more\nanswer", "[...] answer"),
            ("On Monday, x wrote:\n\n> quoted\n\nyes\n> again\nno", "[...] yes [...] no"),
            ("On Monday, x\nwrote:\n> quoted\nyes", "[...] yes"),
            ("On time.\nwe wrote: x", "On time. we wrote: x"),
            ("text\n-- \nAnn\nPhone", "text"),
            ("text\n---\na\nb\nc\nd\ne\nf", "text --- a b c d e f"),
            ("text\n--\n\nmore", "text -- more"),
            ("> only quotes", "[...]"),
        ];
        for (text, expected) in cases {
            assert_eq!(preview(text), expected, "{text:?}");
        }
    }

    #[test]
    fn it_is_short() {
        let long = "日本 ".repeat(1_000_000);
        assert!(preview(&long).chars().count() <= MAX_CHARS);
        let lines = "x\n".repeat(1_000_000);
        assert!(preview(&lines).len() <= ENOUGH + 2);
        for unit in [">\n", "--\n", "On \n", "\n", "> ", "-"] {
            assert!(preview(&unit.repeat(100_000)).chars().count() <= MAX_CHARS, "{unit:?}");
        }
    }
}
