//! What is printed: aligned columns for people, one JSON object a line for programs.

use serde_json::{Map, Value};
use std::io::Write as _;

/// How to print.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    /// JSON instead of columns.
    pub(crate) json: bool,
}

impl Output {
    /// Prints rows; `columns` are the keys in JSON and, in capitals, the heads of the columns.
    pub(crate) fn table(self, columns: &[&str], rows: &[Vec<Value>]) {
        if self.json {
            for row in rows {
                let pairs = columns.iter().map(|c| (*c).to_owned()).zip(row.iter().cloned());
                say(&Value::Object(pairs.collect::<Map<_, _>>()).to_string());
            }
            return;
        }
        let cells: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(plain).collect()).collect();
        let heads: Vec<String> =
            columns.iter().map(|c| c.replace('_', " ").to_uppercase()).collect();
        let widths: Vec<usize> = (0..columns.len())
            .map(|at| {
                let of = |row: &Vec<String>| row.get(at).map_or(0, |cell| cell.chars().count());
                cells.iter().map(of).chain([of(&heads)]).max().unwrap_or(0)
            })
            .collect();
        for row in std::iter::once(&heads).chain(&cells) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let pad = width.saturating_sub(cell.chars().count()) + 2;
                line.extend(std::iter::repeat_n(' ', pad));
            }
            say(line.trim_end());
        }
    }

    /// Prints a line in words.
    pub(crate) fn line(self, line: &str) {
        if self.json {
            say(&serde_json::json!({ "line": line }).to_string());
        } else {
            say(&plain(&Value::String(line.to_owned())));
        }
    }

    /// Says on standard error why it did not work.
    pub(crate) fn failed(self, why: &str) {
        if self.json {
            eprintln!("{}", serde_json::json!({ "error": why }));
        } else {
            eprintln!("moxctl: {why}");
        }
    }

    /// Prints many facts: a line each, or one object in which what is told more than once is a list.
    pub(crate) fn facts(self, facts: &[(String, Value)]) {
        if self.json {
            say(&one_object(facts).to_string());
        } else {
            facts.iter().for_each(|(key, value)| self.fact(key, value));
        }
    }

    /// Prints one line that is a fact by itself.
    pub(crate) fn fact(self, key: &str, value: &Value) {
        if self.json {
            say(&serde_json::json!({ key: value }).to_string());
        } else {
            say(&format!("{key}: {}", plain(value)));
        }
    }
}

/// As [`say`], a whole text.
pub(crate) fn say_all(text: &[u8]) {
    let mut to = std::io::stdout();
    if to.write_all(text).and_then(|()| to.flush()).is_err() {
        std::process::exit(1);
    }
}

/// A line to standard output. A reader that has seen enough ends the program; but not with 0, as
/// what was to be found out may have been behind that.
fn say(line: &str) {
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(1);
    }
}

fn one_object(facts: &[(String, Value)]) -> Value {
    let mut object = Map::new();
    // A reader of alarms need not look whether there is one, none or many.
    object.insert("alarm".into(), Value::Array(Vec::new()));
    for (key, value) in facts {
        let value = number(value).unwrap_or_else(|| value.clone());
        match object.get_mut(key) {
            None => drop(object.insert(key.clone(), value)),
            Some(Value::Array(several)) => several.push(value),
            Some(one) => *one = Value::Array(vec![one.take(), value]),
        }
    }
    Value::Object(object)
}

/// The number that a vault told as text; what merely looks like one (a revision in hexadecimal digits)
/// is longer.
fn number(value: &Value) -> Option<Value> {
    let text = value.as_str().filter(|text| text.len() < 16)?;
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then(|| Value::from(number))
}

/// A value in a column. Control characters of foreign texts (a remote server's words) must not
/// reach the terminal, nor those that break or turn a line or are not seen.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null => return "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(layers) => said(layers),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    text.chars().map(|c| if is_odd(c) { '\u{fffd}' } else { c }).collect()
}

/// The layers of confinement in a column: only what is not as it should be.
fn said(layers: &Map<String, Value>) -> String {
    let odd = layers.iter().filter(|(_, state)| state.as_str() != Some("enforced"));
    let odd: Vec<String> =
        odd.map(|(layer, state)| format!("{layer} {}", state.as_str().unwrap_or("?"))).collect();
    if odd.is_empty() { "all".into() } else { odd.join(", ") }
}

/// A time for people, UTC.
pub(crate) fn time(unix_ns: i64) -> Value {
    if unix_ns == 0 {
        return Value::Null;
    }
    let seconds = unix_ns.div_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (h, m, s) = (second / 3_600, second / 60 % 60, second % 60);
    Value::String(format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z"))
}

/// The proleptic Gregorian date of a number of days since 1970-01-01, counted from 1 March of the
/// year 0 in cycles of 400 years.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (cycle, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + cycle * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        let at = |seconds: i64| time(seconds * 1_000_000_000 + 1);
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_223_445), "2026-11-21T01:10:45Z");
        assert_eq!(at(-1), "1969-12-31T23:59:59Z");
        assert_eq!(time(0), Value::Null);
    }

    #[test]
    fn facts_are_one_object_with_real_numbers() {
        let fact = |key: &str, value: &str| (key.to_owned(), Value::from(value));
        assert_eq!(one_object(&[]), serde_json::json!({ "alarm": [] }));
        let facts = [
            fact("accounts", "3"),
            fact("revision", "1234567890123456"),
            fact("alarm", "a"),
            fact("record", "x"),
            fact("record", "007"),
            fact("record", "z"),
        ];
        let expected = serde_json::json!({
            "accounts": 3, "revision": "1234567890123456", "alarm": ["a"],
            "record": ["x", "007", "z"],
        });
        assert_eq!(one_object(&facts), expected);
    }

    #[test]
    fn foreign_texts_do_not_drive_the_terminal() {
        assert_eq!(plain(&Value::String("a\u{1b}[2Jb\n".into())), "a\u{fffd}[2Jb\u{fffd}");
    }
}
