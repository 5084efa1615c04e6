//! Dates as IMAP writes them: `date-time` of APPEND and INTERNALDATE, `date` of SEARCH.
//!
//! Times are kept as seconds since 1970 with a zone, because a search by day compares the day in
//! the zone the message came with (RFC 9051 §6.4.4 disregards time and zone).

use std::fmt;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY: i64 = 86_400;

/// A day of the calendar, as days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CalendarDate(i64);

impl CalendarDate {
    /// The day of the Gregorian calendar; None if there is none such.
    #[must_use]
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        if day == 0 || day > days_in(year, month)? {
            return None;
        }
        // Days from civil: years begin in March, so the leap day is the last of a year.
        let (m, d) = (i64::from(month), i64::from(day));
        let y = i64::from(year).checked_sub(i64::from(month <= 2))?;
        let era = y.div_euclid(400);
        let of_era = y.rem_euclid(400);
        let shifted = m.checked_add(9)?.checked_rem(12)?;
        let of_year = shifted.checked_mul(153)?.checked_add(2)?.checked_div(5)?;
        let of_year = of_year.checked_add(d)?.checked_sub(1)?;
        let days = of_era.checked_mul(365)?;
        let days =
            days.checked_add(of_era.checked_div(4)?)?.checked_sub(of_era.checked_div(100)?)?;
        let days = days.checked_add(of_year)?;
        Some(Self(era.checked_mul(146_097)?.checked_add(days)?.checked_sub(719_468)?))
    }

    /// The day that a moment falls on, in UTC.
    #[must_use]
    pub const fn of_seconds(seconds: i64) -> Self {
        Self(seconds.div_euclid(DAY))
    }

    fn civil(self) -> (i64, i64, i64) {
        let days = self.0.saturating_add(719_468);
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let step = |over: i64| of_era.checked_div(over).unwrap_or(0);
        let years = of_era
            .saturating_sub(step(1_460))
            .saturating_add(step(36_524))
            .saturating_sub(step(146_096))
            .div_euclid(365);
        let start = years
            .saturating_mul(365)
            .saturating_add(years.div_euclid(4))
            .saturating_sub(years.div_euclid(100));
        let of_year = of_era.saturating_sub(start);
        let shifted = of_year.saturating_mul(5).saturating_add(2).div_euclid(153);
        let month_start = shifted.saturating_mul(153).saturating_add(2).div_euclid(5);
        let day = of_year.saturating_sub(month_start).saturating_add(1);
        let month =
            if shifted < 10 { shifted.saturating_add(3) } else { shifted.saturating_sub(9) };
        let year =
            era.saturating_mul(400).saturating_add(years).saturating_add(i64::from(month <= 2));
        (year, month, day)
    }

    /// `date-text`: `1*2DIGIT "-" date-month "-" 4DIGIT`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut parts = text.splitn(3, '-');
        let day = digits(parts.next()?, 1..=2)?;
        let month = month(parts.next()?)?;
        let year = digits(parts.next()?, 4..=4)?;
        Self::new(u16::try_from(year).ok()?, month, u8::try_from(day).ok()?)
    }
}

impl fmt::Display for CalendarDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        let at = usize::try_from(month.saturating_sub(1)).unwrap_or(0);
        write!(f, "{day}-{}-{year:04}", MONTHS.get(at).copied().unwrap_or("Jan"))
    }
}

/// A moment and the zone it was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime {
    /// Seconds since 1970 in UTC.
    pub seconds: i64,
    /// Minutes east of Greenwich.
    pub zone: i16,
}

impl DateTime {
    /// A moment in UTC.
    #[must_use]
    pub const fn utc(seconds: i64) -> Self {
        Self { seconds, zone: 0 }
    }

    /// As it is kept: nanoseconds since 1970, which reach from September 1677 to April 2262. None
    /// outside of that.
    #[must_use]
    pub const fn nanoseconds(self) -> Option<i64> {
        self.seconds.checked_mul(1_000_000_000)
    }

    fn local(self) -> i64 {
        self.seconds.saturating_add(i64::from(self.zone).saturating_mul(60))
    }

    /// The day on the calendar of its zone.
    #[must_use]
    pub fn date(self) -> CalendarDate {
        CalendarDate::of_seconds(self.local())
    }

    /// The inside of `date-time`: `date-day-fixed "-" date-month "-" date-year SP time SP zone`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let text = text.strip_prefix(' ').unwrap_or(text);
        let mut words = text.split(' ');
        let date = CalendarDate::parse(words.next()?.as_bytes())?;
        let time = words.next()?;
        let zone = words.next()?;
        if words.next().is_some() {
            return None;
        }
        let mut clock = time.splitn(3, ':').map(|part| digits(part, 2..=2));
        let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
        // RFC 3339 §5.6 allows a leap second; it counts as the one before.
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (sign, digits_of_zone) = match zone.as_bytes().first()? {
            b'+' => (1i64, zone.strip_prefix('+')?),
            b'-' => (-1, zone.strip_prefix('-')?),
            _other => return None,
        };
        let hhmm = digits(digits_of_zone, 4..=4)?;
        let (hours, minutes) = (hhmm.checked_div(100)?, hhmm.checked_rem(100)?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        let zone = hours.checked_mul(60)?.checked_add(minutes)?.checked_mul(sign)?;
        let of_day = hour.checked_mul(3600)?.checked_add(minute.checked_mul(60)?)?;
        let of_day = of_day.checked_add(second.min(59))?;
        let local = date.0.checked_mul(DAY)?.checked_add(of_day)?;
        let seconds = local.checked_sub(zone.checked_mul(60)?)?;
        Some(Self { seconds, zone: i16::try_from(zone).ok()? })
    }
}

impl fmt::Display for DateTime {
    /// Without the quotes around it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.local();
        let (year, month, day) = CalendarDate::of_seconds(local).civil();
        let of_day = local.rem_euclid(DAY);
        let at = usize::try_from(month.saturating_sub(1)).unwrap_or(0);
        let month = MONTHS.get(at).copied().unwrap_or("Jan");
        let (hour, minute) = (of_day.div_euclid(3600), of_day.div_euclid(60).rem_euclid(60));
        let second = of_day.rem_euclid(60);
        let sign = if self.zone < 0 { '-' } else { '+' };
        let zone = self.zone.unsigned_abs();
        let (zh, zm) = (zone.div_euclid(60), zone.rem_euclid(60));
        write!(
            f,
            "{day:2}-{month}-{year:04} {hour:02}:{minute:02}:{second:02} {sign}{zh:02}{zm:02}"
        )
    }
}

fn days_in(year: u16, month: u8) -> Option<u8> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 if leap => Some(29),
        2 => Some(28),
        _other => None,
    }
}

fn digits(text: &str, count: std::ops::RangeInclusive<usize>) -> Option<i64> {
    if !count.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn month(text: &str) -> Option<u8> {
    let at = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(text))?;
    u8::try_from(at).ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        let parse = |text: &str| DateTime::parse(text.as_bytes());
        // RFC 9051 §7.5.2.
        let example = parse("17-Jul-1996 02:44:25 -0700").unwrap();
        assert_eq!(example.seconds, 837_596_665);
        assert_eq!(example.to_string(), "17-Jul-1996 02:44:25 -0700");
        assert_eq!(example.date(), CalendarDate::parse(b"17-Jul-1996").unwrap());
        assert_eq!(parse(" 1-Jan-1970 00:00:00 +0000").unwrap(), DateTime::utc(0));
        assert_eq!(
            parse("29-feb-2000 12:00:00 +0000").unwrap().to_string(),
            "29-Feb-2000 12:00:00 +0000"
        );
        // Midnight in one zone is the day before in another.
        assert_eq!(parse("01-Mar-2024 00:30:00 +0100").unwrap().date().to_string(), "1-Mar-2024");
        assert_eq!(
            DateTime::utc(parse("01-Mar-2024 00:30:00 +0100").unwrap().seconds).date().to_string(),
            "29-Feb-2024"
        );
    }

    #[test]
    fn what_can_be_kept_has_ends() {
        let kept = |text: &str| DateTime::parse(text.as_bytes()).unwrap().nanoseconds();
        assert_eq!(kept(" 1-Jan-1970 00:00:01 +0000"), Some(1_000_000_000));
        assert_eq!(kept("11-Apr-2262 23:47:16 +0000"), Some(9_223_372_036_000_000_000));
        assert_eq!(kept("11-Apr-2262 23:47:17 +0000"), None);
        // It is the moment that counts, not what the zone makes of it.
        assert!(kept("12-Apr-2262 01:47:16 +0200").is_some());
        assert!(kept("21-Sep-1677 00:12:44 +0000").is_some());
        assert_eq!(kept("21-Sep-1677 00:12:43 +0000"), None);
        assert_eq!(kept("31-Dec-9999 23:59:59 +0000"), None);
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for bad in [
            "",
            "30-Feb-2000 00:00:00 +0000",
            "0-Jan-2000 00:00:00 +0000",
            "1-Jan-2000 24:00:00 +0000",
            "1-Jan-2000 00:60:00 +0000",
            "1-Jan-2000 00:00:00 0000",
            "1-Jan-2000 00:00:00 +000",
            "1-Jan-2000 00:00:00",
            "1-Jan-20000 00:00:00 +0000",
            "1-Jan-2000 00:00:00 +0000 x",
            "1-Foo-2000 00:00:00 +0000",
            "1-Jan-2000 0:00:00 +0000",
            "29-Feb-1900 00:00:00 +0000",
            "1-Jan-2000 00:00:00 +0060",
        ] {
            assert_eq!(DateTime::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(CalendarDate::parse(b"1-1-2000"), None);
        assert_eq!(CalendarDate::parse(b"001-Jan-2000"), None);
    }

    proptest! {
        #[test]
        fn print_then_parse(seconds in -62_000_000_000i64..250_000_000_000, zone in -1439i16..1440) {
            let moment = DateTime { seconds, zone };
            prop_assert_eq!(DateTime::parse(moment.to_string().as_bytes()), Some(moment));
        }
    }
}
