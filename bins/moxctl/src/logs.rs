//! `moxctl log follow`: one message or session through all processes.
//!
//! The ids of a message change on its way: a session becomes a Message-ID, that becomes queue ids. So
//! every line that matches teaches the ids it carries, and lines of those match from then on.

use crate::{cli::Log, failure::Failure, reach::Sockets, show::Output, supervisor::ask};
use daemon::orders::Order;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    thread,
    time::Duration,
};

/// Fields of a line that are ids of the same message or session.
const ID_KEYS: [&str; 4] = ["session", "queue_id", "msg", "submission"];

/// Ids that may be learnt: a following that matches everything is of no use.
const MAX_IDS: usize = 1_000;

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// The longest line that is read.
const MAX_LINE: usize = 1 << 20;

pub(crate) fn run(sockets: &Sockets, what: Log, output: Output) -> Result<(), Failure> {
    let Log::Follow { id, once } = what;
    let files: Vec<PathBuf> =
        ask(sockets, Order::LogFiles)?.into_iter().map(PathBuf::from).collect();
    if files.is_empty() {
        return Err(Failure::Failed(format!(
            "there are no log files: the logs are in the journal (journalctl --grep {id}), or on the \
             terminal of localserve"
        )));
    }
    let mut follower = Follower { ids: BTreeSet::from([id]), files: Vec::new(), output };
    for path in files {
        let file = File::open(&path)
            .map_err(|error| Failure::connecting(&path.display().to_string(), &error))?;
        follower.files.push(Tail { path, reader: BufReader::new(file), partial: Vec::new() });
    }
    // Twice what is there: the second time with what the first taught.
    follower.past()?;
    if once {
        return Ok(());
    }
    loop {
        thread::sleep(LOOK);
        follower.look()?;
    }
}

struct Tail {
    path: PathBuf,
    reader: BufReader<File>,
    partial: Vec<u8>,
}

impl Tail {
    /// Whole lines that are new.
    fn lines(&mut self) -> std::io::Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let read = self.reader.read_until(b'\n', &mut self.partial)?;
            if read == 0 {
                break;
            }
            if self.partial.ends_with(b"\n") || self.partial.len() > MAX_LINE {
                let line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
                lines.push(line);
                self.partial.clear();
            }
        }
        // The file may have been put aside for a new one of the same name.
        if let (Ok(named), Ok(open)) =
            (std::fs::metadata(&self.path), self.reader.get_ref().metadata())
        {
            use std::os::unix::fs::MetadataExt as _;
            if named.ino() != open.ino() {
                self.reader = BufReader::new(File::open(&self.path)?);
            }
        }
        Ok(lines)
    }
}

struct Follower {
    ids: BTreeSet<String>,
    files: Vec<Tail>,
    output: Output,
}

impl Follower {
    fn past(&mut self) -> Result<(), Failure> {
        let mut known = 0;
        // Until nothing new is learnt.
        while known != self.ids.len() {
            known = self.ids.len();
            for at in 0..self.files.len() {
                if let Some(tail) = self.files.get_mut(at) {
                    tail.reader.seek(SeekFrom::Start(0))?;
                    tail.partial.clear();
                    for line in tail.lines()? {
                        self.learn(&line);
                    }
                }
            }
        }
        for tail in &mut self.files {
            tail.reader.seek(SeekFrom::Start(0))?;
            tail.partial.clear();
        }
        let mut all = Vec::new();
        for tail in &mut self.files {
            all.extend(tail.lines()?);
        }
        // Lines open with their time, in one form, so texts sort by time.
        all.sort();
        for line in all {
            if self.matches(&line) {
                self.show(&line)?;
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Failure> {
        let mut new = Vec::new();
        for tail in &mut self.files {
            new.extend(tail.lines()?);
        }
        new.sort();
        for line in new {
            self.learn(&line);
            if self.matches(&line) {
                self.show(&line)?;
            }
        }
        Ok(())
    }

    fn matches(&self, line: &str) -> bool {
        self.ids.iter().any(|id| contains_word(line, id))
    }

    fn show(&self, line: &str) -> Result<(), Failure> {
        let clean: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let is_json = serde_json::from_str::<serde_json::Map<_, _>>(&clean).is_ok();
        let shown = if self.output.json && !is_json {
            serde_json::json!({ "line": clean }).to_string()
        } else {
            clean
        };
        // Not println!: a reader that has seen enough is no panic.
        writeln!(std::io::stdout(), "{shown}")?;
        Ok(())
    }

    fn learn(&mut self, line: &str) {
        if self.ids.len() < MAX_IDS && self.matches(line) {
            self.ids.extend(ids_of(line));
        }
    }
}

/// Whether `id` stands in the line as a word of its own.
fn contains_word(line: &str, id: &str) -> bool {
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    !id.is_empty()
        && line.match_indices(id).any(|(at, _)| {
            let before = line.get(..at).and_then(|s| s.chars().next_back());
            let behind = line.get(at + id.len()..).and_then(|s| s.chars().next());
            boundary(before) && boundary(behind)
        })
}

/// Values of the fields that are ids, in text lines (`key=value`) and JSON lines (`"key":"value"`).
fn ids_of(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for key in ID_KEYS {
        for mark in [format!("{key}="), format!("\"{key}\":")] {
            for (at, _) in line.match_indices(&mark) {
                let whole_key = line
                    .get(..at)
                    .and_then(|s| s.chars().next_back())
                    .is_none_or(|c| !c.is_alphanumeric() && c != '_');
                let rest = line.get(at + mark.len()..).unwrap_or_default();
                let rest = rest.trim_start_matches('"');
                let end = rest.find(|c: char| c.is_whitespace() || "\",}:".contains(c));
                let value = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
                if whole_key && value.len() >= 8 {
                    found.push(value.to_owned());
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_words_and_teach_other_ids() {
        let line = "2026-11-21T01:00:00Z INFO smtpd-mx: stored session=abcdefghijklm \
                    msg=\"<one@x.example>\" queue_id=qqqqqqqqqqqqqqqq";
        assert!(contains_word(line, "abcdefghijklm"));
        assert!(!contains_word(line, "abcdefghijkl"));
        assert!(!contains_word(line, ""));
        let ids = ids_of(line);
        assert_eq!(ids, ["abcdefghijklm", "qqqqqqqqqqqqqqqq", "<one@x.example>"]);
        let json = r#"{"session":"abcdefghijklm","peer_session":"zzzzzzzzzz"}"#;
        assert_eq!(ids_of(json), ["abcdefghijklm"]);
    }
}
