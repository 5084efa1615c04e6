//! `list-mailbox`: the patterns of LIST and LSUB.

use crate::name::{MailboxName, NameError, Names, decode};

/// Wildcards in one pattern: each may cost a walk over the name.
const MAX_WILDCARDS: usize = 20;
/// Octets of a pattern.
const MAX_PATTERN: usize = 1_000;

/// A pattern with its reference name put before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<char>);

impl Pattern {
    /// The reference and the pattern as a client wrote them (RFC 9051 §6.3.9.6: joined as they are).
    ///
    /// # Errors
    /// If they are not encoded as this session does, or too long.
    pub fn new(reference: &[u8], pattern: &[u8], names: Names) -> Result<Self, NameError> {
        let joined = format!("{}{}", decode(reference, names)?, decode(pattern, names)?);
        let wild = joined.chars().filter(|c| matches!(c, '*' | '%')).count();
        if joined.len() > MAX_PATTERN || wild > MAX_WILDCARDS {
            return Err(NameError::Bound);
        }
        Ok(Self(joined.chars().collect()))
    }

    /// Whether a mailbox's name matches. The inbox matches in any case, also in part (`INB*`).
    #[must_use]
    pub fn matches(&self, name: &MailboxName) -> bool {
        let name: Vec<char> = name.as_str().chars().collect();
        let inbox: Vec<char> = MailboxName::INBOX.chars().collect();
        let folded = match name.get(..inbox.len()) {
            Some(start) if start == inbox && matches!(name.get(inbox.len()), None | Some('/')) => {
                inbox.len()
            }
            Some(_) | None => 0,
        };
        self.walk(&name, folded)
    }

    /// Whether names below it could match, for `%` showing a parent: kept simple on purpose, used
    /// by LSUB alone.
    #[must_use]
    pub fn ends_in_percent(&self) -> bool {
        self.0.last() == Some(&'%')
    }

    /// Reachable positions of the pattern, one step a character of the name: linear in both, where
    /// backtracking would be exponential for `*a*a*a*`.
    fn walk(&self, name: &[char], folded: usize) -> bool {
        let mut reach = vec![false; self.0.len().saturating_add(1)];
        if let Some(first) = reach.first_mut() {
            *first = true;
        }
        self.skip_empty(&mut reach);
        for (at, &c) in name.iter().enumerate() {
            let mut next = vec![false; reach.len()];
            for (position, _) in reach.iter().enumerate().filter(|(_, on)| **on) {
                let to = match self.0.get(position) {
                    Some('*') => position,
                    Some('%') if c != '/' => position,
                    Some(&wanted) if same(wanted, c, at < folded) => position.saturating_add(1),
                    Some(_) | None => continue,
                };
                if let Some(on) = next.get_mut(to) {
                    *on = true;
                }
            }
            self.skip_empty(&mut next);
            reach = next;
        }
        reach.last().copied().unwrap_or(false)
    }

    /// A wildcard may stand for nothing.
    fn skip_empty(&self, reach: &mut [bool]) {
        for (position, c) in self.0.iter().enumerate() {
            let on = reach.get(position).copied().unwrap_or(false) && matches!(c, '*' | '%');
            if let (true, Some(next)) = (on, reach.get_mut(position.saturating_add(1))) {
                *next = true;
            }
        }
    }
}

fn same(wanted: char, c: char, folded: bool) -> bool {
    wanted == c || (folded && wanted.eq_ignore_ascii_case(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(reference: &str, pattern: &str, name: &str) -> bool {
        let pattern = Pattern::new(reference.as_bytes(), pattern.as_bytes(), Names::Utf8).unwrap();
        pattern.matches(&MailboxName::new(name).unwrap())
    }

    #[test]
    fn wildcards() {
        assert!(matches("", "*", "a/b/c"));
        assert!(!matches("", "%", "a/b"));
        assert!(matches("", "%", "a"));
        assert!(matches("a/", "%", "a/b"));
        assert!(!matches("a/", "%", "a/b/c"));
        assert!(matches("a/", "*c", "a/b/c"));
        assert!(matches("", "%/%", "a/b"));
        assert!(matches("", "a*", "a"));
        assert!(!matches("", "", "a"));
        assert!(!matches("", "/*", "a"));
        assert!(!matches("", "work", "Work"));
    }

    #[test]
    fn the_inbox_in_any_case() {
        for pattern in ["INBOX", "inb*", "%NBOX", "iNbOx"] {
            assert!(matches("", pattern, "inbox"), "{pattern}");
        }
        assert!(matches("", "INBOX/A", "Inbox/A"));
        assert!(!matches("", "INBOX/a", "Inbox/A"));
        assert!(!matches("", "inboxes", "Inboxes"));
    }

    #[test]
    fn hostile_patterns_are_cheap() {
        let name = "a".repeat(900);
        assert!(!matches("", &"*a".repeat(20), &format!("{name}b")));
        assert!(Pattern::new(b"", "*".repeat(21).as_bytes(), Names::Utf8).is_err());
    }
}
