//! Dates of a header (RFC 5322 §3.3 and §4.3), read and written.

use crate::token::{Grammar, Lexer, Token};
use types::UnixNanos;

/// Octets of a date that are looked at.
const MAX_OCTETS: usize = 256;

const DAY: i64 = 86_400;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

/// A date with the zone it was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// The moment.
    pub at: UnixNanos,
    /// East of UTC, in minutes.
    pub zone_minutes: i16,
}

/// A day of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: i64,
    day: i64,
}

impl Civil {
    /// Days since 1970-01-01 in the Gregorian calendar.
    fn days(self) -> i64 {
        // Years begin in March, so that the leap day is their last one; 400 of them are an era.
        let year = if self.month <= 2 { self.year - 1 } else { self.year };
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
    }

    fn of_days(days: i64) -> Self {
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year + i64::from(month <= 2);
        Self { year, month, day: of_year - (153 * shifted + 2) / 5 + 1 }
    }

    fn is_valid(self) -> bool {
        // What fits into nanoseconds of 64 bits: 1678 to 2261.
        (1678..=2261).contains(&self.year)
            && (1..=12).contains(&self.month)
            && Self::of_days(self.days()) == self
    }
}

impl Date {
    /// Days since 1970-01-01 of the calendar day in its own zone: what SENTON and its kin compare
    /// (RFC 9051 §6.4.4, "disregarding time and timezone").
    #[must_use]
    pub fn day(&self) -> i64 {
        (self.at.seconds() + i64::from(self.zone_minutes) * 60).div_euclid(DAY)
    }

    /// Reads a Date value. Order and punctuation are lenient (asctime's order too), comments fall
    /// out, an unknown or impossible zone is UTC, a missing time is midnight; a day that does not
    /// exist, or lies outside 1678 to 2261, is none.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = &value[..value.len().min(MAX_OCTETS)];
        let mut read = Read::default();
        for token in Lexer::new(value, Grammar::Mime) {
            match token {
                Token::Atom(atom) => read.word(std::str::from_utf8(atom).ok()?),
                Token::Quoted(_) | Token::Literal(_) | Token::Comment(_) | Token::Special(_) => {}
            }
        }
        let civil = Civil { year: read.year?, month: read.month?, day: read.day? };
        if !civil.is_valid() {
            return None;
        }
        let zone = read.zone.unwrap_or(0);
        let seconds = civil.days() * DAY + read.time.unwrap_or(0) - zone * 60;
        let zone_minutes = i16::try_from(zone).unwrap_or(0);
        Some(Self { at: UnixNanos::from_seconds(seconds), zone_minutes })
    }

    /// Writes it as RFC 5322 §3.3 has it.
    #[must_use]
    pub fn to_rfc5322(&self) -> String {
        let local = self.at.seconds() + i64::from(self.zone_minutes) * 60;
        let days = local.div_euclid(DAY);
        let time = local.rem_euclid(DAY);
        let civil = Civil::of_days(days);
        let index = |value: i64| usize::try_from(value).unwrap_or_default();
        let weekday = WEEKDAYS[index(days.rem_euclid(7))];
        let month = MONTHS[index(civil.month - 1)];
        let sign = if self.zone_minutes < 0 { '-' } else { '+' };
        let zone = self.zone_minutes.unsigned_abs();
        format!(
            "{weekday}, {} {month} {:04} {:02}:{:02}:{:02} {sign}{:02}{:02}",
            civil.day,
            civil.year,
            time / 3600,
            time / 60 % 60,
            time % 60,
            zone / 60,
            zone % 60
        )
    }
}

#[derive(Debug, Default)]
struct Read {
    day: Option<i64>,
    month: Option<i64>,
    year: Option<i64>,
    time: Option<i64>,
    zone: Option<i64>,
}

impl Read {
    fn word(&mut self, word: &str) {
        if word.contains(':') {
            self.time = self.time.or_else(|| time(word));
            return;
        }
        if self.time.is_some() && word.starts_with(['+', '-']) {
            self.zone = self.zone.or_else(|| numeric_zone(word));
            return;
        }
        // `21-Nov-1997` is one word; so is `Mon,` with its comma cut off by the lexer.
        for piece in word.split(['-', '.']).filter(|piece| !piece.is_empty()) {
            self.piece(piece);
        }
    }

    fn piece(&mut self, piece: &str) {
        if piece.bytes().all(|b| b.is_ascii_digit()) {
            let number = if piece.len() <= 5 { piece.parse().ok() } else { None };
            match number {
                Some(number) if self.day.is_none() => self.day = Some(number),
                Some(number) if self.year.is_none() => self.year = Some(year(number, piece.len())),
                Some(_) | None => {}
            }
            return;
        }
        let head = piece.get(..3).unwrap_or(piece);
        let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(head));
        if let Some(month) = month.filter(|_| self.month.is_none()) {
            self.month = i64::try_from(month + 1).ok();
        } else if self.time.is_some() {
            self.zone = self.zone.or_else(|| named_zone(piece));
        }
    }
}

/// RFC 5322 §4.3: two digits below 50 are 20xx, other short years count from 1900.
fn year(number: i64, digits: usize) -> i64 {
    match digits {
        0..=2 if number < 50 => number + 2000,
        0..=3 => number + 1900,
        _ => number,
    }
}

fn time(word: &str) -> Option<i64> {
    let mut pieces = word
        .split(':')
        .map(|piece| (piece.len() <= 2).then(|| piece.parse::<u8>().ok()).flatten().map(i64::from));
    let hour = pieces.next()??;
    let minute = pieces.next()??;
    let second = pieces.next().unwrap_or(Some(0))?;
    // 60 is a leap second (RFC 5322 §3.3); it counts as the next one.
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

fn numeric_zone(word: &str) -> Option<i64> {
    let digits = word.get(1..)?;
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let hours: i64 = digits.get(..2)?.parse().ok()?;
    let minutes: i64 = digits.get(2..)?.parse().ok()?;
    let zone = hours * 60 + minutes;
    // A zone of a day or more is nonsense; UTC then (RFC 5256 §2.2).
    let zone = if hours < 24 && minutes < 60 { zone } else { 0 };
    Some(if word.starts_with('-') { -zone } else { zone })
}

/// RFC 5322 §4.3 `obs-zone`; military letters and unknown names mean UTC.
fn named_zone(word: &str) -> Option<i64> {
    let hours = match word.to_ascii_uppercase().as_str() {
        "EDT" => -4,
        "EST" | "CDT" => -5,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" => -8,
        "UT" | "UTC" | "GMT" | "Z" => 0,
        _ => return None,
    };
    Some(hours * 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_of_rfc_5322_and_of_the_wild() {
        let cases = [
            ("Fri, 21 Nov 1997 09:55:06 -0600", Some((880_127_706, -360))),
            // A time with blanks in it is not read; the day still counts.
            ("Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", Some((880_070_400, 0))),
            ("21 Nov 97 09:55:06 GMT", Some((880_106_106, 0))),
            ("Thu,\t13 Feb 1969 23:32 -0330 (Newfoundland Time)", Some((-27_723_480, -210))),
            ("Mon Nov 21 09:55:06 2026", Some((1_795_254_906, 0))),
            ("21-Nov-1997 09:55:06 PST", Some((880_134_906, -480))),
            ("1 Jan 2001 00:01:33 +0000", Some((978_307_293, 0))),
            ("1 Jan 2001 00:01:33 +9900", Some((978_307_293, 0))),
            ("1 January 2001", Some((978_307_200, 0))),
            ("29 Feb 2000 12:00:00 Z", Some((951_825_600, 0))),
            ("29 Feb 2001 12:00:00 Z", None),
            ("31 Apr 2001 12:00:00 Z", None),
            ("1 Jan 12001 00:00:00 Z", None),
            ("1 Jan 1500 00:00:00 Z", None),
            ("0 Jan 2001", None),
            ("", None),
            ("yesterday", None),
        ];
        for (value, expected) in cases {
            let read = Date::parse(value.as_bytes());
            let read = read.map(|date| (date.at.seconds(), date.zone_minutes));
            assert_eq!(read, expected, "{value}");
        }
    }

    #[test]
    fn written() {
        let date = Date { at: UnixNanos::from_seconds(880_127_706), zone_minutes: -360 };
        assert_eq!(date.to_rfc5322(), "Fri, 21 Nov 1997 09:55:06 -0600");
        let epoch = Date { at: UnixNanos::default(), zone_minutes: 0 };
        assert_eq!(epoch.to_rfc5322(), "Thu, 1 Jan 1970 00:00:00 +0000");
    }

    #[test]
    fn the_day_is_the_writers() {
        let date = Date::parse(b"1 Jan 1970 23:30:00 -0100").unwrap();
        assert_eq!((date.day(), date.at.seconds()), (0, DAY + 1800));
    }

    proptest! {
        #[test]
        fn written_then_read(seconds in -9_000_000_000i64..9_000_000_000, zone in -1439i16..1440) {
            let date = Date { at: UnixNanos::from_seconds(seconds), zone_minutes: zone };
            prop_assert_eq!(Date::parse(date.to_rfc5322().as_bytes()), Some(date));
        }

        #[test]
        fn any_octets(value: Vec<u8>) {
            let _ = Date::parse(&value);
        }
    }
}
