//! What is wrong with a configuration file, said so that it can be mended: place, fault, hint.

use std::fmt;

/// One fault in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as the administrator named it.
    pub file: String,
    /// From 1; 0 if the fault concerns the file as a whole.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Line and column, from 1, of an octet offset.
pub(crate) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// The longest name a hint is computed for: the distance costs the product of both lengths.
const MAX_HINTED_NAME: usize = 64;

/// The known name that differs least from `name`, if it is near enough to have been meant.
pub(crate) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if name.len() > MAX_HINTED_NAME {
        return None;
    }
    let near_enough = (name.chars().count() / 3).max(1);
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(far, _)| *far <= near_enough)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, remove, replace a character) between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one_and_in_characters() {
        assert_eq!(place("", 0), (1, 1));
        assert_eq!(place("a\nüb", 4), (2, 2));
        assert_eq!(place("a", 900), (1, 2));
    }

    #[test]
    fn hints_only_what_is_near() {
        let known = ["hostname", "data_dir", "log"];
        assert_eq!(nearest("hostnme", known.into_iter()), Some("hostname"));
        assert_eq!(nearest("datadir", known.into_iter()), Some("data_dir"));
        assert_eq!(nearest("unrelated", known.into_iter()), None);
        assert_eq!(nearest(&"h".repeat(65), known.into_iter()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
