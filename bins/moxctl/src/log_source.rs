//! Where the log is: files of moxd, or systemd's journal.

use crate::failure::Failure;
use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufRead as _, BufReader, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// The longest line that is read.
const MAX_LINE: u64 = 1 << 20;

/// Lines of the journal that wait to be looked at.
const MAX_WAITING: usize = 4_096;

/// Files put aside that moxd keeps of each role.
const KEPT: u32 = 3;

/// The log of all processes.
pub(crate) enum Source {
    /// One file a role.
    Files(Vec<Tail>),
    /// The journal, under these names; behind the cursor only.
    Journal { identifiers: Vec<String>, cursor: Option<String> },
}

/// What is done with each line. An error ends the reading.
pub(crate) type Each<'a> = &'a mut dyn FnMut(&str) -> Result<(), Failure>;

impl Source {
    pub(crate) fn files(paths: &[String]) -> Result<Self, Failure> {
        paths.iter().map(|path| Tail::of(path.into())).collect::<Result<_, _>>().map(Self::Files)
    }

    pub(crate) fn journal(identifiers: Vec<String>) -> Self {
        Self::Journal { identifiers, cursor: None }
    }

    /// Every line that is there, from the first one; in the order of each process.
    pub(crate) fn past(&mut self, each: Each<'_>) -> Result<(), Failure> {
        match self {
            Self::Files(tails) => {
                for tail in tails {
                    tail.past(each)?;
                }
            }
            Self::Journal { identifiers, cursor } => {
                let mut child = journalctl(identifiers, &["--show-cursor"])?;
                let mut lines = Lines::of(child.stdout.take());
                while let Some(line) = lines.next()? {
                    // Its last line, which no process can write: theirs open with their name.
                    match line.strip_prefix("-- cursor: ") {
                        Some(at) => *cursor = Some(at.to_owned()),
                        None => each(&line)?,
                    }
                }
                ended(child)?;
            }
        }
        Ok(())
    }

    /// Lines as they come, in the order of their times, to the end of time.
    pub(crate) fn follow(&mut self, each: Each<'_>) -> Result<(), Failure> {
        let mut held = Held::default();
        match self {
            Self::Files(tails) => loop {
                for tail in &mut *tails {
                    tail.new_lines(&mut |line| {
                        held.new.push(line.to_owned());
                        Ok(())
                    })?;
                }
                held.look(each)?;
                thread::sleep(LOOK);
            },
            Self::Journal { identifiers, cursor } => {
                let behind = cursor.as_ref().map(|cursor| format!("--after-cursor={cursor}"));
                let arguments: Vec<&str> =
                    ["--follow", "--no-tail"].into_iter().chain(behind.as_deref()).collect();
                let mut child = journalctl(identifiers, &arguments)?;
                let mut lines = Lines::of(child.stdout.take());
                let (to, from) = mpsc::sync_channel(MAX_WAITING);
                thread::spawn(move || {
                    // Ends with either side; what journalctl met shows in its status.
                    while let Ok(Some(line)) = lines.next() {
                        if to.send(line).is_err() {
                            break;
                        }
                    }
                });
                loop {
                    thread::sleep(LOOK);
                    let ended_meanwhile = loop {
                        match from.try_recv() {
                            Ok(line) => held.new.push(line),
                            Err(mpsc::TryRecvError::Empty) => break false,
                            Err(mpsc::TryRecvError::Disconnected) => break true,
                        }
                    };
                    held.look(each)?;
                    if ended_meanwhile {
                        held.look(each)?;
                        return ended(child);
                    }
                }
            }
        }
    }
}

/// Lines of several processes that come at nearly the same time are held until the next look: only
/// then all that is older has been seen, and they can be told in their order.
#[derive(Default)]
struct Held {
    new: Vec<String>,
    held: Vec<String>,
}

impl Held {
    fn look(&mut self, each: Each<'_>) -> Result<(), Failure> {
        let horizon = self.held.iter().map(|line| time_of(line).to_owned()).max();
        let mut all = std::mem::take(&mut self.held);
        all.append(&mut self.new);
        all.sort_by(|a, b| time_of(a).cmp(time_of(b)));
        for line in all {
            if horizon.as_deref().is_some_and(|horizon| time_of(&line) <= horizon) {
                each(&line)?;
            } else {
                self.held.push(line);
            }
        }
        Ok(())
    }
}

/// The time in a line of text or JSON; texts of it sort by time.
pub(crate) fn time_of(line: &str) -> &str {
    // `process 2026-...Z LEVEL ...` or `{"process":"...","timestamp":"2026-...Z",...`.
    let mark = "\"timestamp\":\"";
    match line.find(mark) {
        Some(at) if line.starts_with('{') => {
            line.get(at + mark.len()..).and_then(|rest| rest.split('"').next()).unwrap_or_default()
        }
        _ => line.split_whitespace().nth(1).unwrap_or_default(),
    }
}

/// The journal's own reader: its files have no other documented way in.
fn journalctl(identifiers: &[String], more: &[&str]) -> Result<Child, Failure> {
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=cat", "--all"]);
    command.args(identifiers.iter().map(|name| format!("--identifier={name}")));
    command.args(more).stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().map_err(|error| Failure::Failed(format!("journalctl: {error}")))
}

fn ended(mut child: Child) -> Result<(), Failure> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(Failure::Failed(format!("journalctl: {status}"))) }
}

/// Whole lines of a stream; what is longer than the bound is cut into several.
struct Lines<R>(BufReader<R>);

impl<R: Read> Lines<R> {
    fn of(stream: Option<R>) -> Lines<impl Read> {
        Lines(BufReader::new(Maybe(stream)))
    }

    fn next(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        if (&mut self.0).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }
}

/// A stream that may be none: an empty one.
struct Maybe<R>(Option<R>);

impl<R: Read> Read for Maybe<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.as_mut().map_or(Ok(0), |stream| stream.read(into))
    }
}

/// A log file that grows, and may be put aside for a new one of the same name. That of a role that
/// does not run yet is not there yet.
pub(crate) struct Tail {
    path: PathBuf,
    reader: Option<BufReader<File>>,
    partial: Vec<u8>,
}

impl Tail {
    fn of(path: PathBuf) -> Result<Self, Failure> {
        let mut tail = Self { path, reader: None, partial: Vec::new() };
        tail.reader = tail.named()?;
        Ok(tail)
    }

    /// The file that has the name now.
    fn named(&self) -> Result<Option<BufReader<File>>, Failure> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(BufReader::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::connecting(&self.path.display().to_string(), &error)),
        }
    }

    /// Everything, those put aside first.
    fn past(&mut self, each: Each<'_>) -> Result<(), Failure> {
        for number in (1..=KEPT).rev() {
            if let Ok(file) = File::open(aside(&self.path, number)) {
                let mut lines = Lines::of(Some(file));
                while let Some(line) = lines.next()? {
                    each(&line)?;
                }
            }
        }
        self.reader = self.named()?;
        self.partial.clear();
        self.new_lines(each)
    }

    /// Whole lines that are new.
    fn new_lines(&mut self, each: Each<'_>) -> Result<(), Failure> {
        loop {
            self.rest(each)?;
            let Ok(named) = std::fs::metadata(&self.path) else { return Ok(()) };
            if let Some(open) = &self.reader {
                let open = open.get_ref().metadata()?;
                if (named.dev(), named.ino()) == (open.dev(), open.ino()) {
                    return Ok(());
                }
            }
            // What was written between the last look and the change of files is in the old one.
            self.rest(each)?;
            self.reader = self.named()?;
            self.partial.clear();
        }
    }

    fn rest(&mut self, each: Each<'_>) -> Result<(), Failure> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        while reader.read_until(b'\n', &mut self.partial)? > 0 {
            let long = u64::try_from(self.partial.len()).is_ok_and(|len| len > MAX_LINE);
            if self.partial.ends_with(b"\n") || long {
                let line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
                self.partial.clear();
                each(&line)?;
            }
        }
        Ok(())
    }
}

/// As moxd names a file that it puts aside.
fn aside(path: &Path, number: u32) -> OsString {
    path.with_extension(format!("log.{number}")).into_os_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn lines_are_sorted_by_their_time_not_by_their_process() {
        let text = "smtpd-mx 2026-11-21T01:00:00.123456Z  INFO smtpd: connected session=x";
        assert_eq!(time_of(text), "2026-11-21T01:00:00.123456Z");
        let json = r#"{"process":"accountd","timestamp":"2026-11-21T01:00:01Z","level":"INFO"}"#;
        assert_eq!(time_of(json), "2026-11-21T01:00:01Z");
        assert!(time_of(text) < time_of(json));
        assert_eq!(time_of("panicked"), "");
    }

    #[test]
    fn what_comes_late_is_told_in_its_place() {
        let (mut held, mut told) = (Held::default(), Vec::new());
        let mut look = |held: &mut Held, lines: &[&str]| {
            held.new.extend(lines.iter().map(|line| (*line).to_owned()));
            held.look(&mut |line| {
                told.push(line.to_owned());
                Ok(())
            })
            .unwrap();
            std::mem::take(&mut told)
        };
        assert!(look(&mut held, &["b 2 two", "b 4 four"]).is_empty());
        assert_eq!(
            look(&mut held, &["a 3 three", "a 5 five"]),
            ["b 2 two", "a 3 three", "b 4 four"]
        );
        assert_eq!(look(&mut held, &[]), ["a 5 five"]);
    }

    #[test]
    fn a_file_is_followed_through_its_change_for_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let append = |text: &str| {
            let mut file = File::options().append(true).create(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let mut tail = Tail::of(path.clone()).unwrap();
        append("one\ntwo");
        let look = |tail: &mut Tail, past: bool| {
            let mut seen = Vec::new();
            let mut each = |line: &str| {
                seen.push(line.to_owned());
                Ok(())
            };
            if past {
                tail.past(&mut each).unwrap()
            } else {
                tail.new_lines(&mut each).unwrap()
            }
            seen
        };
        assert_eq!(look(&mut tail, false), ["one"]);
        append("!\nthree\n");
        std::fs::rename(&path, aside(&path, 1)).unwrap();
        append("four\n");
        assert_eq!(look(&mut tail, false), ["two!", "three", "four"]);
        assert_eq!(look(&mut tail, false), [""; 0]);
        assert_eq!(look(&mut tail, true), ["one", "two!", "three", "four"]);
    }
}
