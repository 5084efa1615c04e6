//! Tag lists (RFC 6376 §3.2): `v=1; a=rsa-sha256; ...`.

/// Tags in one list; ours have eleven.
const MAX_TAGS: usize = 32;

/// The tags of a list, in order, white space around names and values removed. A final `;` is
/// allowed by the grammar.
///
/// `None` for what is no tag list, has a tag twice, or too many.
pub(super) fn tags(list: &str) -> Option<Vec<(&str, &str)>> {
    let mut tags: Vec<(&str, &str)> = Vec::new();
    let list = list.trim_matches(is_space);
    let list = list.strip_suffix(';').unwrap_or(list);
    for tag in list.split(';') {
        let (name, value) = tag.split_once('=')?;
        let (name, value) = (name.trim_matches(is_space), value.trim_matches(is_space));
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let is_value = value.chars().all(|c| matches!(c, '!'..='~') || is_space(c));
        // RFC 6376 §3.2: "Tags with duplicate names MUST NOT occur".
        if !is_name || !is_value || tags.iter().any(|t| t.0 == name) || tags.len() == MAX_TAGS {
            return None;
        }
        tags.push((name, value));
    }
    Some(tags)
}

pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// A value without any white space in it.
pub(super) fn squeeze(value: &str) -> String {
    value.chars().filter(|&c| !is_space(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let list = tags(" v = 1;\r\n\ta=x=y ;b= ;").unwrap();
        assert_eq!(list, [("v", "1"), ("a", "x=y"), ("b", "")]);
        for bad in ["", "v", "v=1;;a=2", "1v=1", "v=1;v=2", "=1", "v=ü", "v=1\x07"] {
            assert_eq!(tags(bad), None, "{bad:?}");
        }
        assert_eq!(tags(&(0..40).map(|n| format!("t{n}=1;")).collect::<String>()), None);
    }
}
