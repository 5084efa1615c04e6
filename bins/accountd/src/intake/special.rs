//! Localparts of a development server that make it fail as asked, for people who test their own
//! sending: `…temperror`, `…permerror`, `…[45]xx`, `…timeout`, at a place named by a prefix.

use super::refusal::Refusal;
use std::time::Duration;
use types::Address;

/// How long `timeout` gives no answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3600);

/// Where the failure is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    MailFrom,
    RcptTo,
    /// At the end of DATA: no prefix.
    Data,
    /// In the delivery from the queue.
    Queue,
}

/// What an address asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Special {
    Refuse(Refusal),
    Timeout,
}

impl Special {
    /// What `address` asks for at `place`.
    pub(crate) fn of(address: &Address, place: Place) -> Option<Self> {
        let localpart = address.localpart().as_str().to_ascii_lowercase();
        let (asked, rest) =
            [("mailfrom", Place::MailFrom), ("rcptto", Place::RcptTo), ("queue", Place::Queue)]
                .iter()
                .find_map(|(prefix, place)| Some((*place, localpart.strip_prefix(prefix)?)))
                .unwrap_or((Place::Data, localpart.as_str()));
        if asked != place {
            return None;
        }
        if rest.ends_with("temperror") {
            return Some(Self::Refuse(Refusal::new(451, "4.3.0", "Temporary error, as asked for")));
        }
        if rest.ends_with("permerror") {
            return Some(Self::Refuse(Refusal::new(550, "5.7.0", "Permanent error, as asked for")));
        }
        if rest.ends_with("timeout") {
            return Some(Self::Timeout);
        }
        let at = rest.len().checked_sub(3)?;
        let code = rest.get(at..).filter(|code| {
            code.starts_with(['4', '5']) && code.bytes().all(|b| b.is_ascii_digit())
        })?;
        let class = &code[..1];
        Some(Self::Refuse(Refusal::new(
            code.parse().ok()?,
            &format!("{class}.0.0"),
            "As asked for",
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_and_prefixes() {
        let of = |text: &str, place| Special::of(&text.parse().unwrap(), place);
        let code = |text: &str, place| match of(text, place) {
            Some(Special::Refuse(refusal)) => refusal.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code("x-temperror@a.example", Place::Data), 451);
        assert_eq!(code("permerror@a.example", Place::Data), 550);
        assert_eq!(code("rcpttopermerror@a.example", Place::RcptTo), 550);
        assert_eq!(code("mailfrom452@a.example", Place::MailFrom), 452);
        assert_eq!(code("queue554@a.example", Place::Queue), 554);
        assert_eq!(of("a-timeout@a.example", Place::Data), Some(Special::Timeout));
        for (text, place) in [
            ("rcpttopermerror@a.example", Place::Data),
            ("ann@a.example", Place::Data),
            ("x650@a.example", Place::Data),
            ("45@a.example", Place::Data),
        ] {
            assert_eq!(of(text, place), None, "{text}");
        }
    }
}
