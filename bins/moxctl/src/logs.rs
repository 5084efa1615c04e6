//! `moxctl log follow`: one message or session through all processes.
//!
//! The ids of a message change on its way: it comes in a session, has a Message-ID, becomes a
//! submission and then queue ids. So every line that matches teaches the ids it carries, and lines
//! of those match from then on. A session that was learnt is shown and teaches nothing: other
//! messages of it are other messages.

use crate::{
    cli::Log,
    failure::Failure,
    log_source::{Source, time_of},
    reach::Sockets,
    show::Output,
    supervisor::ask,
};
use daemon::orders::{IN_THE_JOURNAL, Order, journal_identifier};
use ipc::Role;
use std::{collections::BTreeSet, io::Write as _};

/// Fields of a line that are ids of the same message.
const MESSAGE_KEYS: [&str; 4] = ["queue_id", "msg", "submission", "about"];

/// The field that is the session a line belongs to.
const SESSION_KEY: &str = "session";

/// The shortest id that is learnt.
const MIN_ID: usize = 8;

/// Ids that may be learnt: a following that matches everything is of no use.
const MAX_IDS: usize = 1_000;

pub(crate) fn run(sockets: &Sockets, what: Log, output: Output) -> Result<(), Failure> {
    let Log::Follow { id, once } = what;
    let places = ask(sockets, Order::LogFiles)?;
    let mut source = match places.first().map(String::as_str) {
        None => {
            let text = "there is no log to read: that of localserve is on its terminal";
            return Err(Failure::Failed(text.into()));
        }
        Some(IN_THE_JOURNAL) => {
            Source::journal(Role::ALL.into_iter().map(journal_identifier).collect())
        }
        Some(_) => Source::files(&places)?,
    };
    // As mail programs show it.
    let bare = id.trim_start_matches('<').trim_end_matches('>');
    let mut follower = Follower::of(bare);
    // Until nothing new is learnt: a process may have written first what another one explains.
    let mut known = 0;
    while known != follower.known() {
        known = follower.known();
        source.past(&mut |line| {
            follower.learn(line);
            Ok(())
        })?;
    }
    let mut lines = Vec::new();
    source.past(&mut |line| {
        follower.learn(line);
        if follower.matches(line) {
            lines.push(line.to_owned());
        }
        Ok(())
    })?;
    if lines.is_empty() {
        let nothing = format!("nothing in the log is about {bare}");
        if once {
            return Err(Failure::Failed(nothing));
        }
        // It may be on its way.
        output.failed(&format!("{nothing}; waiting for it"));
    }
    lines.sort_by(|a, b| time_of(a).cmp(time_of(b)));
    for line in lines {
        show(&line, output)?;
    }
    if once {
        return Ok(());
    }
    source.follow(&mut |line| {
        follower.learn(line);
        if follower.matches(line) { show(line, output) } else { Ok(()) }
    })
}

struct Follower {
    /// What was asked for, and ids of the same message.
    teaching: BTreeSet<String>,
    /// Sessions it went through.
    sessions: BTreeSet<String>,
}

impl Follower {
    fn of(id: &str) -> Self {
        Self { teaching: BTreeSet::from([id.to_owned()]), sessions: BTreeSet::new() }
    }

    fn known(&self) -> usize {
        self.teaching.len() + self.sessions.len()
    }

    fn matches(&self, line: &str) -> bool {
        let mut ids = self.teaching.iter().chain(&self.sessions);
        ids.any(|id| contains_word(line, id))
    }

    fn learn(&mut self, line: &str) {
        if self.known() < MAX_IDS && self.teaching.iter().any(|id| contains_word(line, id)) {
            for key in MESSAGE_KEYS {
                self.teaching.extend(values(line, key));
            }
            self.sessions.extend(values(line, SESSION_KEY));
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

/// Values of a field, in text lines (`key=value`, `key="value"`) and JSON lines (`"key":"value"`).
fn values(line: &str, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    for mark in [format!("{key}="), format!("\"{key}\":")] {
        for (at, _) in line.match_indices(&mark) {
            let whole_key = line
                .get(..at)
                .and_then(|s| s.chars().next_back())
                .is_none_or(|c| !c.is_alphanumeric() && c != '_');
            let rest = line.get(at + mark.len()..).unwrap_or_default();
            // A Message-ID may hold nearly anything, so quotes say where it ends.
            let value = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next().unwrap_or_default(),
                None => rest
                    .split(|c: char| c.is_whitespace() || ",}".contains(c))
                    .next()
                    .unwrap_or_default(),
            };
            if whole_key && value.len() >= MIN_ID {
                found.push(value.to_owned());
            }
        }
    }
    found
}

fn show(line: &str, output: Output) -> Result<(), Failure> {
    let clean: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut to = std::io::stdout();
    // A log in JSON is it already.
    let is_json = serde_json::from_str::<serde_json::Map<_, _>>(&clean).is_ok();
    // Not println!: a reader that has seen enough is no panic.
    if output.json && !is_json {
        writeln!(to, "{}", serde_json::json!({ "line": clean }))?;
    } else {
        writeln!(to, "{clean}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_words_and_teach_other_ids() {
        let line = "smtpd-mx 2026-11-21T01:00:00Z INFO stored session=abcdefghijklm \
                    msg=\"one:1@x.example\" queue_id=qqqqqqqqqqqqqqqq";
        assert!(contains_word(line, "abcdefghijklm"));
        assert!(!contains_word(line, "abcdefghijkl"));
        assert!(!contains_word(line, ""));
        assert_eq!(values(line, "msg"), ["one:1@x.example"]);
        assert_eq!(values(line, "queue_id"), ["qqqqqqqqqqqqqqqq"]);
        let json = r#"{"session":"abcdefghijklm","peer_session":"zzzzzzzzzz","msg":"y"}"#;
        assert_eq!(values(json, "session"), ["abcdefghijklm"]);
        assert!(values(json, "msg").is_empty(), "too short to be one");
    }

    #[test]
    fn a_session_shows_its_lines_and_teaches_no_other_message() {
        let lines = [
            "session=sessionsession connected",
            "session=sessionsession msg=\"first@a.example\" taken",
            "session=sessionsession msg=\"second@a.example\" taken",
            "msg=\"first@a.example\" queue_id=queuequeue1 queued",
            "msg=\"second@a.example\" queue_id=queuequeue2 queued",
        ];
        let seen = |id: &str| -> Vec<bool> {
            let mut follower = Follower::of(id);
            for _ in 0..3 {
                lines.iter().for_each(|line| follower.learn(line));
            }
            lines.iter().map(|line| follower.matches(line)).collect()
        };
        assert_eq!(seen("first@a.example"), [true, true, true, true, false]);
        assert_eq!(seen("queuequeue2"), [true, true, true, false, true]);
        assert_eq!(seen("sessionsession"), [true; 5]);
    }
}
