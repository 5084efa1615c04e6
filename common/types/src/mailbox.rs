//! What the name of a mailbox may be: one rule for the store that keeps it and the configuration
//! that names it.

use unicode_normalization::is_nfc;

/// Octets of a name.
const MAX_NAME: usize = 1000;
/// Levels of a name.
const MAX_LEVELS: usize = 20;

/// Checks a name: UTF-8, `/` between its levels (RFC 9051 §5.1).
///
/// ```
/// assert!(types::check_mailbox_name("Lists/Rust").is_ok());
/// assert!(types::check_mailbox_name("Lists//Rust").is_err());
/// ```
///
/// # Errors
/// Why it is none, in a few words.
pub fn check_mailbox_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("empty");
    }
    if name.len() > MAX_NAME {
        return Err("longer than 1000 octets");
    }
    // RFC 5198 §2, as RFC 9051 §5.1 asks: NFC, no controls.
    if !is_nfc(name) {
        return Err("not in Unicode normal form C");
    }
    if name.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err("control character");
    }
    if name.starts_with('#') {
        return Err("# begins a namespace");
    }
    if name.split('/').count() > MAX_LEVELS {
        return Err("more than 20 levels");
    }
    if name.split('/').any(str::is_empty) {
        return Err("empty level");
    }
    if name.split('/').any(|level| matches!(level, "." | "..")) {
        return Err("level of dots");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_mailbox() {
        // Wildcards of LIST, and yet names: `100%` comes with mail from elsewhere.
        for good in ["Inbox", "a/inbox", "100%/*&", "é", &vec!["x"; 20].join("/")] {
            assert_eq!(check_mailbox_name(good), Ok(()), "{good:?}");
        }
        let (deep, long) = (vec!["x"; 21].join("/"), "x".repeat(1001));
        for bad in
            ["", "/a", "a/", "a//b", "#news", "a\nb", "..", "a/./b", "e\u{301}", &deep, &long]
        {
            assert!(check_mailbox_name(bad).is_err(), "{bad:?}");
        }
    }
}
