//! Header fields we put before a message: Return-Path, Received, and for submissions what is missing.

use types::{Domain, ReversePath, UnixNanos};

/// Octets of trace fields a peer may give us to put in front.
pub(crate) const MAX_PREFIX: usize = 8_192;

/// Whether a text is whole header fields: each line ends in CRLF, none is empty, the first begins a
/// field. What a face gives us goes into a message, so a line end smuggled into it would make a
/// header of a stranger's choice.
pub(crate) fn is_fields(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let Some(body) = text.strip_suffix("\r\n") else { return false };
    let begins_field = |line: &str| {
        line.split_once(':').is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|b| (33..=126).contains(&b))
        })
    };
    let continues = |line: &str| line.starts_with([' ', '\t']) && !line.trim().is_empty();
    text.len() <= MAX_PREFIX
        && body.split("\r\n").enumerate().all(|(n, line)| {
            !line.contains(['\r', '\n', '\0']) && (begins_field(line) || n > 0 && continues(line))
        })
}

/// Whether our own fields need an empty line behind them: what came does not begin like a header, so
/// it is text alone, which would be taken for more of the header. `From ` is how a mailbox file
/// begins, with a header behind it.
pub(crate) fn lacks_header(content: &[u8]) -> bool {
    let line = content.split(|&octet| octet == b'\n').next().unwrap_or_default();
    let name = line.split(|&octet| octet == b':').next().unwrap_or_default();
    let is_field = name.len() < line.len()
        && !name.trim_ascii_end().is_empty()
        && name.trim_ascii_end().iter().all(|octet| (33..=126).contains(octet));
    !is_field && !matches!(line, b"" | b"\r") && !line.starts_with(b"From ")
}

/// Whether a text is what a face may put on top of a message: its one Received field, or nothing. It
/// comes there after the message was checked, so any other field would be one that nobody checked:
/// another From above the one that is the sender's own.
pub(crate) fn is_received(text: &str) -> bool {
    let starts = text.split_inclusive("\r\n").filter(|line| !line.starts_with([' ', '\t']));
    let names: Vec<&str> =
        starts.map(|line| line.split_once(':').map_or(line, |(name, _)| name)).collect();
    match names[..] {
        // A line that goes on from nothing would go on from the Return-Path.
        [] => text.is_empty(),
        [name] => name.eq_ignore_ascii_case("Received") && is_fields(text),
        _ => false,
    }
}

/// RFC 5321 §4.4: the reverse-path, put in front by the system that delivers.
pub(crate) fn return_path(from: &ReversePath) -> String {
    format!("Return-Path: {from}\r\n")
}

/// RFC 5322 §3.6.4, for a submission without one.
pub(crate) fn message_id(host: &Domain) -> Result<String, getrandom::Error> {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let mut random = [0; 16];
    getrandom::fill(&mut random)?;
    Ok(format!("{}@{host}", BASE64_URL_SAFE_NO_PAD.encode(random)))
}

/// The year, in UTC.
pub(crate) fn year(now: UnixNanos) -> String {
    date(now).split(' ').nth(3).unwrap_or_default().to_owned()
}

/// RFC 5322 §3.3 date-time, in UTC.
pub(crate) fn date(now: UnixNanos) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = now.seconds();
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days from 0000-03-01 in the Gregorian calendar: eras of 400 years, years that begin in March.
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = era * 400 + year_of_era + i64::from(month < 2);
    let name = |list: &[&'static str], at: i64| {
        usize::try_from(at).ok().and_then(|at| list.get(at).copied()).unwrap_or_default()
    };
    format!(
        "{}, {day_of_month} {} {year:04} {:02}:{:02}:{:02} +0000",
        name(&DAYS, day.rem_euclid(7)),
        name(&MONTHS, month),
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_700_000_000, "Tue, 14 Nov 2023 22:13:20 +0000"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 +0000"),
            (-1, "Wed, 31 Dec 1969 23:59:59 +0000"),
        ] {
            assert_eq!(date(UnixNanos::from_seconds(seconds)), text);
        }
        assert_eq!(year(UnixNanos::from_seconds(1_700_000_000)), "2023");
    }

    #[test]
    fn text_without_a_header_is_told_from_one() {
        for with in [&b""[..], b"\r\nx", b"A: b\r\n", b"A :b", b"From x 15:00\r\nA: b\r\n"] {
            assert!(!lacks_header(with), "{with:?}");
        }
        for without in [&b"hello\r\n"[..], b" A: b\r\n", b"it was 15:00\r\n", b":\r\n", b"\xe4: b"]
        {
            assert!(lacks_header(without), "{without:?}");
        }
    }

    #[test]
    fn a_face_puts_its_received_on_top_and_nothing_else() {
        assert!(is_received(""));
        assert!(is_received("Received: from a\r\n by b\r\n"));
        for bad in [
            "From: <bob@example.org>\r\n",
            "From: <bob@example.org>\r\nReceived: from a\r\n",
            "Received: from a\r\nFrom: <bob@example.org>\r\n",
            "Received: from a\r\nReceived: from b\r\n",
            "Received: from a\r\n\r\nbody\r\n",
            "Received: from a\nFrom: <bob@example.org>\r\n",
            "Received: from a\rFrom: <bob@example.org>\r\n",
            "Received : from a\r\n",
            " Received: from a\r\n",
            "Received: from a",
        ] {
            assert!(!is_received(bad), "{bad:?}");
        }
    }

    #[test]
    fn only_whole_fields_are_put_in_front() {
        assert!(is_fields(""));
        assert!(is_fields("Received: from a\r\n by b\r\n"));
        assert!(is_fields("A: b\r\nC: d\r\n"));
        for bad in [
            "A: b",
            "A: b\n",
            "A: b\r\n\r\n",
            " a: b\r\n",
            "A: b\r\nC\r\n",
            "A: b\r\n \r\n",
            "A b: c\r\n",
            "A: b\nC: d\r\n",
            "A: \0\r\n",
        ] {
            assert!(!is_fields(bad), "{bad:?}");
        }
        assert!(!is_fields(&format!("A: {}\r\n", "x".repeat(MAX_PREFIX))));
        assert!(is_fields(&return_path(&ReversePath::Null)));
    }
}
