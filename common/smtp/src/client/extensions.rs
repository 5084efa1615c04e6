//! What a server announces in its answer to EHLO.

/// Extensions of RFC 5321 §4.1.1.1, as far as a client of ours uses them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 1870: the largest message, if there is a limit and it is told.
    pub size: Option<u64>,
    /// RFC 1870 is announced at all.
    pub size_known: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 8689.
    pub requiretls: bool,
    /// RFC 2034.
    pub enhanced_codes: bool,
    /// RFC 9422: recipients of one transaction.
    pub rcpt_max: Option<u32>,
    /// RFC 4954: SASL mechanisms, in the server's order.
    pub auth: Vec<String>,
}

impl Extensions {
    /// The most SASL mechanisms remembered.
    const MAX_AUTH: usize = 32;

    /// Reads the lines of a reply; the first is the greeting and names none.
    pub(super) fn read(lines: &[String]) -> Self {
        let mut known = Self::default();
        for line in lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else {
                continue;
            };
            let is = |name: &str| keyword.eq_ignore_ascii_case(name);
            if is("PIPELINING") {
                known.pipelining = true;
            } else if is("SIZE") {
                known.size_known = true;
                // RFC 1870 §4: 0 means no limit.
                known.size = words.next().and_then(|n| n.parse().ok()).filter(|&n| n > 0);
            } else if is("STARTTLS") {
                known.starttls = true;
            } else if is("8BITMIME") {
                known.eight_bit_mime = true;
            } else if is("SMTPUTF8") {
                known.smtputf8 = true;
            } else if is("REQUIRETLS") {
                known.requiretls = true;
            } else if is("ENHANCEDSTATUSCODES") {
                known.enhanced_codes = true;
            } else if is("LIMITS") {
                known.rcpt_max = words.find_map(rcpt_max);
            } else if is("AUTH") {
                known.auth = words.take(Self::MAX_AUTH).map(str::to_ascii_uppercase).collect();
            }
        }
        known
    }
}

/// RFC 9422 §4: `RCPTMAX=` and a number of at most six digits without leading zero. What is
/// malformed is as if it were not there.
fn rcpt_max(word: &str) -> Option<u32> {
    let (name, value) = word.split_once('=')?;
    let sound = name.eq_ignore_ascii_case("RCPTMAX")
        && !value.starts_with('0')
        && value.len() <= 6
        && value.bytes().all(|b| b.is_ascii_digit());
    if sound { value.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_knows() {
        let lines: Vec<String> = [
            "mx.example.net PIPELINING is no extension here",
            "pipelining",
            "SIZE 1000",
            "8bitmime",
            "X-WHAT ever",
            "",
            "LIMITS MAILMAX=5 RCPTMAX=20",
            "AUTH plain LOGIN",
            "REQUIRETLS",
            "SMTPUTF8",
            "STARTTLS",
        ]
        .map(String::from)
        .into();
        let known = Extensions::read(&lines);
        assert!(known.pipelining && known.eight_bit_mime && known.requiretls && known.smtputf8);
        assert!(known.starttls && !known.enhanced_codes);
        assert_eq!((known.size, known.rcpt_max), (Some(1000), Some(20)));
        assert_eq!(known.auth, ["PLAIN", "LOGIN"]);
        assert!(!Extensions::read(&lines[..1]).pipelining);
        for bad in ["RCPTMAX=0", "RCPTMAX=", "RCPTMAX=1000000", "RCPTMAX=x", "RCPTMAX"] {
            assert_eq!(rcpt_max(bad), None, "{bad}");
        }
    }
}
