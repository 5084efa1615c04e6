//! Durations and sizes as an administrator writes them: `"72h"`, `"1h30m"`, `"100MiB"`.

use std::time::Duration;

/// Parses a duration: one or more whole numbers, each with its unit (`ms s m h d w`).
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const WANTED: &str = "a duration like \"15s\", \"1h30m\", \"4w\" (units: ms s m h d w)";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err(format!("expected {WANTED}"));
    }
    while !rest.is_empty() {
        let (number, unit, after) = one(rest).ok_or_else(|| format!("expected {WANTED}"))?;
        let each = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            "w" => Duration::from_secs(7 * 86_400),
            _ => return Err(format!("unknown unit {unit:?}; expected {WANTED}")),
        };
        let part = u32::try_from(number).ok().and_then(|n| each.checked_mul(n));
        total = part
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| "this duration is too long".to_owned())?;
        rest = after;
    }
    Ok(total)
}

/// Parses a size in octets: a whole number with `KiB`, `MiB`, `GiB`, `TiB`, `B` or nothing.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const WANTED: &str = "a size like \"100MiB\" (units: B KiB MiB GiB TiB)";
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.parse().map_err(|_| format!("expected {WANTED}"))?;
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        other => return Err(format!("unknown unit {other:?}; expected {WANTED}")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "this size is too large".to_owned())
}

/// Splits `12h30m` into `12`, `h` and `30m`.
fn one(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number = text[..digits].parse().ok()?;
    let rest = &text[digits..];
    let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    Some((number, &rest[..unit], &rest[unit..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("4w"), Ok(Duration::from_secs(4 * 7 * 86_400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "15", "s", "1.5h", "-1s", "1y", "99999999999w", "4294967295w4294967295w1"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("100MiB"), Ok(104_857_600));
        assert_eq!(size("5 GiB"), Ok(5 << 30));
        assert_eq!(size("12"), Ok(12));
        for bad in ["", "MiB", "1.5MiB", "1MB", "99999999999TiB", "-1"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
