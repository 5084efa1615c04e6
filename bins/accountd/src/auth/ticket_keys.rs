//! The file of MAC keys for tickets: a new one every day, the last two accepted.

use super::ticket::{ACCEPTED_KEYS, KEY, Keys, new_key};
use crate::files;
use std::{cell::RefCell, io, path::PathBuf, time::Duration};
use types::{Secret, UnixNanos};

const FILE: &str = "ticket-keys";
const DAY: Duration = Duration::from_secs(86_400);
/// Octets of one entry: when it was made, and the key.
const ENTRY: usize = 8 + KEY;

/// The keys and their file.
pub(crate) struct TicketKeys {
    path: PathBuf,
    now: RefCell<Held>,
}

struct Held {
    /// Newest first.
    entries: Vec<(UnixNanos, Secret<Vec<u8>>)>,
    keys: Keys,
}

impl TicketKeys {
    /// Reads the file of the process's folder, or makes it.
    pub(crate) fn open(folder: &std::path::Path, now: UnixNanos) -> io::Result<Self> {
        let path = folder.join(FILE);
        let read = match std::fs::read(&path) {
            Ok(bytes) => read(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let entries = next(read, now)?;
        let held = Held { keys: keys(&entries)?, entries };
        let this = Self { path, now: RefCell::new(held) };
        this.write()?;
        Ok(this)
    }

    /// Makes today's key when it is time; called now and then.
    pub(crate) fn turn(&self, now: UnixNanos) -> io::Result<()> {
        let entries = self.now.borrow().entries.clone();
        let newest = entries.first().map_or(UnixNanos(i64::MIN), |(made, _)| *made);
        let entries = next(entries, now)?;
        if entries.first().is_some_and(|(made, _)| *made == newest) {
            return Ok(());
        }
        *self.now.borrow_mut() = Held { keys: keys(&entries)?, entries };
        self.write()
    }

    /// The keys as they are now.
    pub(crate) fn keys(&self) -> Keys {
        self.now.borrow().keys.clone()
    }

    fn write(&self) -> io::Result<()> {
        let mut out = zeroize::Zeroizing::new(Vec::with_capacity(ENTRY * ACCEPTED_KEYS));
        for (made, key) in &self.now.borrow().entries {
            out.extend_from_slice(&made.0.to_be_bytes());
            out.extend_from_slice(key.expose());
        }
        files::replace(&self.path, &out)
    }
}

fn keys(entries: &[(UnixNanos, Secret<Vec<u8>>)]) -> io::Result<Keys> {
    Keys::new(entries.iter().map(|(_, key)| key.clone()).collect())
        .ok_or_else(|| io::Error::other("no ticket key"))
}

fn read(bytes: &[u8]) -> Vec<(UnixNanos, Secret<Vec<u8>>)> {
    let (entries, rest) = bytes.as_chunks::<ENTRY>();
    if !rest.is_empty() {
        // Half a file cannot be (it is replaced as a whole); one of another format is not ours.
        tracing::warn!("the file of ticket keys is not readable; sessions log in again");
        return Vec::new();
    }
    let entry = |entry: &[u8; ENTRY]| {
        let (made, key) = entry.split_first_chunk::<8>()?;
        Some((UnixNanos(i64::from_be_bytes(*made)), Secret::new(key.to_vec())))
    };
    entries.iter().filter_map(entry).take(ACCEPTED_KEYS).collect()
}

/// The entries as they have to be at `now`.
fn next(
    mut entries: Vec<(UnixNanos, Secret<Vec<u8>>)>,
    now: UnixNanos,
) -> io::Result<Vec<(UnixNanos, Secret<Vec<u8>>)>> {
    let fresh = |made: UnixNanos| made <= now && now < made.plus(DAY);
    if !entries.first().is_some_and(|(made, _)| fresh(*made)) {
        entries.insert(0, (now, new_key().map_err(|e| io::Error::other(e.to_string()))?));
        entries.truncate(ACCEPTED_KEYS);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::ticket::{Credential, EdgeId, LIFETIME, Scope, Ticket};
    use types::{AccountId, SessionId};

    #[test]
    fn survive_a_restart_and_turn_each_day() {
        let folder = tempfile::tempdir().unwrap();
        let day = |n: i64| UnixNanos::from_seconds(1_000_000 + n * 86_400);
        let edge = EdgeId { role: 1, instance: 0 };
        let ticket = Ticket {
            account: AccountId::from_bytes([1; 10]),
            scope: Scope::Account,
            edge,
            credential: Credential::Password,
            generation: 1,
            account_generation: 1,
            session: SessionId::from_bytes([1; 8]),
            login: "a@b.example".into(),
            expires: LIFETIME,
        };
        let first = TicketKeys::open(folder.path(), day(0)).unwrap();
        let sealed = first.keys().seal(&ticket);
        let again = TicketKeys::open(folder.path(), day(0)).unwrap();
        let opens = |keys: &TicketKeys| keys.keys().open(&sealed, edge, Duration::ZERO).is_some();
        assert!(opens(&again));
        again.turn(day(1)).unwrap();
        assert!(opens(&again));
        assert!(opens(&TicketKeys::open(folder.path(), day(1)).unwrap()));
        again.turn(day(2)).unwrap();
        assert!(!opens(&again));
        let mode = std::fs::metadata(folder.path().join(FILE)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&mode) & 0o777, 0o600);
    }
}
