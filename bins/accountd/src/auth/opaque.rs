//! Passwords in the one form in which they are hashed and compared: the OpaqueString profile of
//! RFC 8265 §4.2, so that a keyboard that composes "é" and one that does not log in alike.

use types::Secret;
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

/// Octets of the shortest password that may be set.
pub(crate) const MIN_OCTETS: usize = 8;
/// Octets of the longest one that is looked at; hashing time grows with it.
pub(crate) const MAX_OCTETS: usize = 1024;

/// A password that no account can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPassword {
    #[error("a password has at least {MIN_OCTETS} octets")]
    TooShort,
    #[error("a password has at most {MAX_OCTETS} octets")]
    TooLong,
    #[error("a password has no control characters and no unassigned ones")]
    Characters,
}

/// The prepared form of a password somebody typed.
pub(crate) fn prepare(text: &str) -> Result<Secret<String>, BadPassword> {
    if text.len() > MAX_OCTETS {
        return Err(BadPassword::TooLong);
    }
    // RFC 8265 §4.2.2: other spaces become U+0020, then NFC; case and width stay.
    let spaced = text.chars().map(|c| if is_other_space(c) { ' ' } else { c });
    let prepared = Zeroizing::new(spaced.nfc().collect::<String>());
    if prepared.is_empty() {
        return Err(BadPassword::TooShort);
    }
    if prepared.len() > MAX_OCTETS {
        return Err(BadPassword::TooLong);
    }
    if prepared.chars().any(is_disallowed) {
        return Err(BadPassword::Characters);
    }
    Ok(Secret::new(prepared.as_str().to_owned()))
}

/// The prepared form of a password that is to be set.
pub(crate) fn prepare_new(text: &str) -> Result<Secret<String>, BadPassword> {
    let prepared = prepare(text)?;
    if prepared.expose().len() < MIN_OCTETS { Err(BadPassword::TooShort) } else { Ok(prepared) }
}

/// General category Zs but U+0020. (The table of RFC 3454 also has U+200B, which is no space since
/// Unicode 4.0.1.)
fn is_other_space(c: char) -> bool {
    matches!(
        c,
        '\u{A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}'
    )
}

/// RFC 8264 §4.3.2, FreeformClass: what may not occur. (Unassigned code points of later Unicode
/// releases are let through: a password set with an older library must go on working.)
fn is_disallowed(c: char) -> bool {
    c.is_control()
        || stringprep::tables::non_character_code_point(c)
        || matches!(c,
            // Old Hangul Jamo (RFC 5892 §2.9).
            '\u{1100}'..='\u{11FF}' | '\u{A960}'..='\u{A97C}' | '\u{D7B0}'..='\u{D7FB}'
            // Default ignorable code points (RFC 8264 §9.13): invisible, so nobody could retype them.
            | '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
            | '\u{FFA0}' | '\u{FFF0}'..='\u{FFF8}' | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_rfc() {
        // RFC 8265 §4.3, table 4.
        for (typed, kept) in [
            ("correct horse battery staple", "correct horse battery staple"),
            ("Correct Horse Battery Staple", "Correct Horse Battery Staple"),
            ("\u{3C0}\u{DF}\u{E5}", "\u{3C0}\u{DF}\u{E5}"),
            ("Jack of \u{2666}s", "Jack of \u{2666}s"),
            ("foo\u{1680}bar", "foo bar"),
            ("e\u{301}clair", "\u{E9}clair"),
        ] {
            assert_eq!(prepare(typed).unwrap().expose(), kept);
        }
        for bad in ["", "my cat is a \tby", "a\0b", "a\u{200B}b"] {
            assert!(prepare(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bounds() {
        assert!(matches!(prepare_new("seven77"), Err(BadPassword::TooShort)));
        assert!(prepare_new("eight888").is_ok());
        assert!(matches!(prepare(&"a".repeat(1025)), Err(BadPassword::TooLong)));
    }
}
