//! Header fields we put before a message: Return-Path, Received, and for submissions what is missing.

use types::{Domain, ReversePath, UnixNanos};

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
}
