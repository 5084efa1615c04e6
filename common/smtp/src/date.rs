//! Dates as mail writes them: RFC 5322 §3.3 and RFC 3339, always in UTC.

use types::UnixNanos;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY: i64 = 86_400;

/// Year, month and day in the Gregorian calendar of a day counted from 1970-01-01.
///
/// Counts in 400-year eras that begin on 1 March, so that the leap day is the last of its year.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "days of an i64 of nanoseconds stay within 107,000 of 1970"
)]
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`] for years 1970 to 9999.
#[expect(clippy::arithmetic_side_effects, reason = "the caller bounds year, month and day")]
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn clock(seconds: i64) -> (i64, i64, i64) {
    let of_day = seconds.rem_euclid(DAY);
    (of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// `Sat, 21 Nov 2026 01:20:09 +0000`.
pub(crate) fn rfc5322(at: UnixNanos) -> String {
    let seconds = at.seconds();
    let days = seconds.div_euclid(DAY);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = clock(seconds);
    let name = |names: &[&'static str], at: i64| {
        usize::try_from(at).ok().and_then(|at| names.get(at)).copied().unwrap_or_default()
    };
    let weekday = name(&DAYS, days.rem_euclid(7));
    let month = name(&MONTHS, month.saturating_sub(1));
    format!("{weekday}, {day} {month} {year} {hour:02}:{minute:02}:{second:02} +0000")
}

/// `2026-11-21T01:20:09Z`.
pub(crate) fn rfc3339(at: UnixNanos) -> String {
    let seconds = at.seconds();
    let (year, month, day) = civil(seconds.div_euclid(DAY));
    let (hour, minute, second) = clock(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads RFC 3339 in UTC with a `Z`; a fraction is read and dropped.
pub(crate) fn parse_rfc3339_utc(text: &str) -> Option<UnixNanos> {
    let (date, time) = text.strip_suffix(['Z', 'z'])?.split_once(['T', 't'])?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = |text: &str, digits: usize| {
        let sound = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        if sound { text.parse::<i64>().ok() } else { None }
    };
    let mut date = date.split('-');
    let (year, month, day) =
        (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    let mut time = time.split(':');
    let (hour, minute, second) =
        (number(time.next()?, 2)?, number(time.next()?, 2)?, number(time.next()?, 2)?);
    let in_range = year >= 1970
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range || date.next().is_some() || time.next().is_some() {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // 31 June and 29 February of a common year come back as another day.
    if civil(days) != (year, month, day) {
        return None;
    }
    let of_day =
        hour.checked_mul(3600)?.checked_add(minute.checked_mul(60)?)?.checked_add(second)?;
    // Years beyond 2262 do not fit nanoseconds; from_seconds saturates, which is far enough away.
    Some(UnixNanos::from_seconds(days.checked_mul(DAY)?.checked_add(of_day)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, long, short) in [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000", "1970-01-01T00:00:00Z"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000", "2000-02-29T00:00:00Z"),
            (1_795_224_009, "Sat, 21 Nov 2026 01:20:09 +0000", "2026-11-21T01:20:09Z"),
            (-1, "Wed, 31 Dec 1969 23:59:59 +0000", "1969-12-31T23:59:59Z"),
        ] {
            let at = UnixNanos::from_seconds(seconds);
            assert_eq!((rfc5322(at).as_str(), rfc3339(at).as_str()), (long, short));
            if seconds >= 0 {
                assert_eq!(parse_rfc3339_utc(short), Some(at));
            }
        }
    }

    #[test]
    fn every_day_comes_back() {
        for days in 0..60_000 {
            let (year, month, day) = civil(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn what_is_no_date() {
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21T01:20:09",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T01:20:09+00:00",
            "26-11-21T01:20:09Z",
            "2026-11-21T01:20:09.Z",
            "+026-11-21T01:20:09Z",
        ] {
            assert_eq!(parse_rfc3339_utc(bad), None, "{bad}");
        }
        assert!(parse_rfc3339_utc("2026-11-21T01:20:09.123Z").is_some());
    }
}
