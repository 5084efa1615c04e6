//! The base subject of RFC 5256 §2.1, and whether a subject is that of an answer.

/// What [`base_subject`] finds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BaseSubject {
    /// The subject without what answering and forwarding add, in lower case.
    pub text: String,
    /// Whether anything of that was there.
    pub is_response: bool,
}

/// Reduces a decoded subject. Linear: the blobs before a `re:` are taken one by one, which gives
/// what RFC 5256's step (3) gives when it looks behind all of them.
#[must_use]
pub fn base_subject(subject: &str) -> BaseSubject {
    if subject.contains('\0') {
        return BaseSubject::default();
    }
    let lower = subject.to_lowercase();
    let collapsed = lower.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = collapsed.as_str();
    let mut is_response = false;
    loop {
        // (2) trailers
        while let Some(shorter) = rest.trim_end().strip_suffix("(fwd)") {
            rest = shorter;
            is_response = true;
        }
        rest = rest.trim_end();
        // (3) to (5) leaders and blobs
        loop {
            rest = rest.trim_start();
            if let Some(behind) = refwd(rest) {
                rest = behind;
                is_response = true;
            } else if let Some(behind) = blob(rest).filter(|behind| !behind.is_empty()) {
                rest = behind;
            } else {
                break;
            }
        }
        // (6)
        match rest.strip_prefix("[fwd:").and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) => {
                rest = inner;
                is_response = true;
            }
            None => return BaseSubject { text: rest.to_owned(), is_response },
        }
    }
}

/// `subj-blob = "[" *BLOBCHAR "]" *WSP`: what is behind it.
fn blob(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('[')?;
    let end = inner.find(['[', ']'])?;
    inner[end..].strip_prefix(']').map(str::trim_start)
}

/// `subj-refwd = ("re" / ("fw" ["d"])) *WSP [subj-blob] ":"`: what is behind it.
fn refwd(text: &str) -> Option<&str> {
    let behind = ["re", "fwd", "fw"].iter().find_map(|word| text.strip_prefix(word))?.trim_start();
    blob(behind).unwrap_or(behind).strip_prefix(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_subjects() {
        let cases = [
            ("Hello", "hello", false),
            ("Re: Hello", "hello", true),
            ("RE : re[2]: Fwd:  Hello  World ", "hello world", true),
            ("Fw: x (fwd) (FWD)", "x", true),
            ("[list] Re: x", "x", true),
            ("[list] x", "x", false),
            ("[a] [b]", "[b]", false),
            ("[only]", "[only]", false),
            ("[a]re:", "", true),
            ("[Fwd: [Fwd: Re: deep]]", "deep", true),
            ("re", "re", false),
            ("regards", "regards", false),
            ("re [x] y", "re [x] y", false),
            ("a\0b", "", false),
            ("", "", false),
            ("Re: Grün", "grün", true),
        ];
        for (subject, text, is_response) in cases {
            let base = base_subject(subject);
            assert_eq!((base.text.as_str(), base.is_response), (text, is_response), "{subject}");
        }
    }

    #[test]
    fn repeated_marks_are_taken_once_each() {
        for unit in ["[a]", "re:", "[fwd:", "(fwd)", "[", "re [a]", "]"] {
            let base = base_subject(&unit.repeat(200_000));
            assert!(base.text.len() <= unit.len() * 200_000);
        }
    }
}
