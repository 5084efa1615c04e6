//! Reads a TOML document section by section and collects every fault, each with its place.
//!
//! Serde's derive stops at the first fault; an administrator wants all of them at once. So a section
//! is asked for its keys by name, and what nobody asked for when it is dropped is an unknown key:
//! the code that reads is the one list of what exists, and its names are what hints are made from.

use std::{
    cell::RefCell, collections::BTreeSet, fmt::Display, ops::Range, str::FromStr, time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    problem::{Problem, nearest, place},
    units,
};

/// The longest time a peer may be given.
const MAX_PATIENCE: Duration = Duration::from_secs(4 * 7 * 86_400);

/// RFC 5321 §4.5.3.1.7 asks for 64 KiB at least; no account keeps more than 1 GiB in one message.
const MESSAGE_SIZES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;

/// The largest configuration file that is read.
pub(crate) const MAX_FILE: usize = 4 << 20;

/// Faults reported of one file; more are counted.
const MAX_PROBLEMS: usize = 100;

/// The text being read and the faults found in it.
pub(crate) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    found: RefCell<Vec<(usize, Problem)>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, found: RefCell::new(Vec::new()) }
    }

    /// The whole document. Faults of syntax are reported alone: what follows from them misleads.
    pub(crate) fn document(&self) -> Option<Spanned<DeTable<'a>>> {
        if self.text.len() > MAX_FILE {
            self.report(0, format!("larger than {MAX_FILE} octets"), None);
            return None;
        }
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            self.report(at, error.message().replace('\n', "; "), None);
        }
        errors.is_empty().then_some(document)
    }

    /// Notes a fault at an octet offset.
    pub(crate) fn report(&self, at: usize, message: String, hint: Option<String>) {
        let (line, column) = place(self.text, at);
        let file = self.file.to_owned();
        self.found.borrow_mut().push((at, Problem { file, line, column, message, hint }));
    }

    /// All faults in the order of the file.
    pub(crate) fn problems(self) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(at, _)| *at);
        let more = found.len().saturating_sub(MAX_PROBLEMS);
        let mut problems: Vec<Problem> =
            found.into_iter().take(MAX_PROBLEMS).map(|(_, problem)| problem).collect();
        if more > 0 {
            let message = format!("and {more} more faults");
            let file = self.file.to_owned();
            problems.push(Problem { file, line: 0, column: 0, message, hint: None });
        }
        problems
    }
}

/// One table of the document. An absent table reads as an empty one, so that defaults have one
/// place.
pub(crate) struct Section<'a> {
    source: &'a Source<'a>,
    table: Option<&'a DeTable<'a>>,
    path: String,
    span: Range<usize>,
    asked: RefCell<BTreeSet<&'static str>>,
    /// Its keys are names chosen by the administrator: none is unknown.
    open: RefCell<bool>,
}

impl<'a> Section<'a> {
    pub(crate) fn root(source: &'a Source<'a>, document: &'a Spanned<DeTable<'a>>) -> Self {
        Self::over(source, Some(document.get_ref()), String::new(), 0..0)
    }

    fn over(
        source: &'a Source<'a>,
        table: Option<&'a DeTable<'a>>,
        path: String,
        span: Range<usize>,
    ) -> Self {
        let (asked, open) = (RefCell::default(), RefCell::new(false));
        Self { source, table, path, span, asked, open }
    }

    /// Whether the table is written in the file.
    pub(crate) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Notes a fault of this section as a whole.
    pub(crate) fn fault(&self, message: impl Into<String>) {
        self.source.report(self.span.start, message.into(), None);
    }

    /// Notes a fault of one key's value.
    pub(crate) fn fault_at(&self, key: &'static str, message: impl Into<String>) {
        let at = self.value(key).map_or(self.span.start, |value| value.span().start);
        self.source.report(at, format!("{}: {}", self.name(key), message.into()), None);
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn value(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(key);
        let table = self.table?;
        table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// A value read by `parse`, whose error becomes a fault at the value.
    pub(crate) fn take<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        match parse(value.get_ref()) {
            Ok(parsed) => Some(parsed),
            Err(why) => {
                let message = format!("{}: {why}", self.name(key));
                self.source.report(value.span().start, message, None);
                None
            }
        }
    }

    /// A text that `T` understands.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, key: &'static str) -> Option<T> {
        self.take(key, |value| parse_text(value))
    }

    /// As [`Self::parsed`], and a fault if it is absent.
    pub(crate) fn required<T: FromStr<Err: Display>>(&self, key: &'static str) -> Option<T> {
        if self.value(key).is_none() {
            self.fault(format!("{} is missing", self.name(key)));
        }
        self.parsed(key)
    }

    /// Whether a list stands there, where other things may.
    pub(crate) fn is_list(&self, key: &'static str) -> bool {
        self.value(key).is_some_and(|value| value.get_ref().is_array())
    }

    /// A list of texts that `T` understands; each wrong one is a fault of its own.
    pub(crate) fn list<T: FromStr<Err: Display>>(&self, key: &'static str) -> Option<Vec<T>> {
        self.items(key, parse_text)
    }

    fn items<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let Some(array) = value.get_ref().as_array() else {
            let message = format!("{}: expected a list", self.name(key));
            self.source.report(value.span().start, message, None);
            return None;
        };
        let mut out = Vec::new();
        for item in array.iter() {
            match parse(item.get_ref()) {
                Ok(parsed) => out.push(parsed),
                Err(why) => {
                    let message = format!("{}: {why}", self.name(key));
                    self.source.report(item.span().start, message, None);
                }
            }
        }
        Some(out)
    }

    /// One of some named choices.
    pub(crate) fn choice<T: Copy>(&self, key: &'static str, from: &[(&str, T)], default: T) -> T {
        self.take(key, |value| choose(value, from)).unwrap_or(default)
    }

    /// A list of named choices.
    pub(crate) fn choices<T: Copy>(&self, key: &'static str, from: &[(&str, T)]) -> Option<Vec<T>> {
        self.items(key, |value| choose(value, from))
    }

    pub(crate) fn flag(&self, key: &'static str, default: bool) -> bool {
        let read =
            |value: &DeValue<'_>| value.as_bool().ok_or_else(|| "expected true or false".into());
        self.take(key, read).unwrap_or(default)
    }

    /// A whole number inside bounds.
    pub(crate) fn number(&self, key: &'static str, default: u64, bounds: Range<u64>) -> u64 {
        self.take(key, |value| whole(value, &bounds)).unwrap_or(default)
    }

    /// As [`Self::number`], for 32 bits.
    pub(crate) fn count(&self, key: &'static str, default: u32, bounds: Range<u32>) -> u32 {
        let bounds = u64::from(bounds.start)..u64::from(bounds.end);
        u32::try_from(self.number(key, u64::from(default), bounds)).unwrap_or(default)
    }

    /// A TCP port.
    pub(crate) fn port(&self, key: &'static str, default: u16) -> u16 {
        u16::try_from(self.number(key, u64::from(default), 1..65_536)).unwrap_or(default)
    }

    pub(crate) fn duration(&self, key: &'static str, default: Duration) -> Duration {
        self.take(key, |value| units::duration(text(value)?)).unwrap_or(default)
    }

    /// A time that somebody is given: none at all would shut everybody out.
    pub(crate) fn patience(&self, key: &'static str, default: Duration) -> Duration {
        let read = self.duration(key, default);
        if (Duration::from_secs(1)..=MAX_PATIENCE).contains(&read) {
            return read;
        }
        self.fault_at(key, "expected a duration from 1s to 4w");
        default
    }

    pub(crate) fn durations(&self, key: &'static str) -> Option<Vec<Duration>> {
        self.items(key, |value| units::duration(text(value)?))
    }

    pub(crate) fn size(&self, key: &'static str, default: u64) -> u64 {
        self.take(key, |value| units::size(text(value)?)).unwrap_or(default)
    }

    /// The largest message that is taken, inside what any account can keep.
    pub(crate) fn message_size(&self, key: &'static str, default: u64) -> u64 {
        let read = self.size(key, default);
        if MESSAGE_SIZES.contains(&read) {
            return read;
        }
        self.fault_at(key, "expected a size from 64KiB to 1GiB");
        default
    }

    /// Three whole numbers, for the address classes 1, 2, 3.
    pub(crate) fn classes(&self, key: &'static str, default: [u64; 3]) -> [u64; 3] {
        let Some(read) = self.items(key, |value| whole(value, &(0..u64::MAX))) else {
            return default;
        };
        match <[u64; 3]>::try_from(read) {
            Ok(classes) if classes.is_sorted() => classes,
            Ok(_) => {
                self.fault_at(key, "a wider address class must not have a smaller limit");
                default
            }
            Err(_) => {
                self.fault_at(key, "expected three numbers: one address, its network, its region");
                default
            }
        }
    }

    /// A table inside this one.
    pub(crate) fn section(&self, key: &'static str) -> Section<'a> {
        let path = self.name(key);
        let Some(value) = self.value(key) else {
            return Self::over(self.source, None, path, self.span.clone());
        };
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.fault_at(key, "expected a table");
        }
        Self::over(self.source, table, path, value.span())
    }

    /// All tables inside this one, by the names the administrator gave them.
    pub(crate) fn named_sections(&self) -> Vec<(String, Section<'a>)> {
        *self.open.borrow_mut() = true;
        let mut out = Vec::new();
        for (name, value) in self.table.into_iter().flatten() {
            let path = self.name(name.get_ref());
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.source.report(value.span().start, format!("{path}: expected a table"), None);
            }
            let section = Self::over(self.source, table, path, value.span());
            out.push((name.get_ref().to_string(), section));
        }
        out
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        if *self.open.borrow() {
            return;
        }
        let asked = self.asked.borrow();
        for (name, _) in self.table.into_iter().flatten() {
            let key: &str = name.get_ref();
            if !asked.contains(key) {
                let hint = nearest(key, asked.iter().copied());
                let hint = hint.map(|known| format!("did you mean {known:?}?"));
                self.source.report(
                    name.span().start,
                    format!("unknown key {:?}", self.name(key)),
                    hint,
                );
            }
        }
    }
}

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("expected a text in quotes, not {}", value.type_str()))
}

fn parse_text<T: FromStr<Err: Display>>(value: &DeValue<'_>) -> Result<T, String> {
    let text = text(value)?;
    text.parse().map_err(|why| format!("{text:?}: {why}"))
}

fn choose<T: Copy>(value: &DeValue<'_>, from: &[(&str, T)]) -> Result<T, String> {
    let text = text(value)?;
    let names = || from.iter().map(|(name, _)| *name);
    from.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice).ok_or_else(|| {
        let hint = nearest(text, names()).map(|near| format!("; did you mean {near:?}?"));
        let all: Vec<_> = names().map(|name| format!("{name:?}")).collect();
        format!("{text:?} is none of {}{}", all.join(", "), hint.unwrap_or_default())
    })
}

fn whole(value: &DeValue<'_>, bounds: &Range<u64>) -> Result<u64, String> {
    let number = value.as_integer().ok_or("expected a whole number")?;
    let parsed = u64::from_str_radix(number.as_str(), number.radix());
    parsed
        .ok()
        .filter(|number| bounds.contains(number))
        .ok_or_else(|| format!("expected a number from {} to {}", bounds.start, bounds.end - 1))
}
