//! What is written of credentials: `auth.db` in each account's folder, and `accountd.db` beside them
//! for what belongs to no account. Synchronous; [`super::vault`] runs it on its own thread.

use super::{
    history::{self, Attempt},
    limiter::{Count, Failures, Network},
    sound,
};
use std::path::{Path, PathBuf};
use storage::{
    Database, Error, Gate, Migration, Open, Schema,
    rusqlite::{OptionalExtension as _, Row, params},
};
use types::{AccountId, UnixNanos};

const GLOBAL: Schema = Schema {
    application_id: 0x6d6f_7802,
    migrations: &[
        Migration { sql: include_str!("schema_global.sql"), min_reader: 1 },
        Migration { sql: include_str!("schema_global_2.sql"), min_reader: 1 },
        Migration { sql: include_str!("schema_login_from.sql"), min_reader: 1 },
    ],
};
const ACCOUNT: Schema = Schema {
    application_id: 0x6d6f_7803,
    migrations: &[
        Migration { sql: include_str!("schema_account.sql"), min_reader: 1 },
        Migration { sql: include_str!("schema_login_from.sql"), min_reader: 1 },
    ],
};

/// Frames of a write-ahead log (4 KiB each) that are worth a checkpoint: every log-in writes four,
/// there is a log for each account, and whoever opens it reads all of it.
const CHECKPOINT_FRAMES: u32 = 128;
/// auth.db files that stay open.
const MAX_OPEN: usize = 64;
/// Keys one account may have.
pub(crate) const MAX_KEYS: u32 = 100;

/// A sealed verifier and its generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) generation: u64,
    pub(crate) sealed: Vec<u8>,
}

/// A client key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientKey {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) account: AccountId,
    pub(crate) generation: u64,
    pub(crate) label: String,
    pub(crate) login: String,
}

/// Both generations of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generations {
    pub(crate) account: u64,
    /// None: it has no password.
    pub(crate) password: Option<u64>,
}

/// All databases of credentials.
pub(crate) struct Records {
    folder: PathBuf,
    how: Open,
    global: Database,
    /// Least recently used first.
    open: Vec<(AccountId, Database)>,
}

impl Records {
    /// Opens `accountd.db` in the process's folder.
    pub(crate) fn open(folder: &Path, how: Open) -> Result<Self, Error> {
        let how = Open { cache_kib: how.cache_kib.min(512), ..how };
        let global = Database::open(&folder.join("accountd.db"), &GLOBAL, &how)?;
        Ok(Self { folder: folder.to_owned(), how, global, open: Vec::new() })
    }

    /// Makes `auth.db` in the folder of a new account.
    pub(crate) fn create(&mut self, account: AccountId) -> Result<(), Error> {
        self.of(account).map(|_| ())
    }

    /// Forgets an open database: before its folder is removed.
    pub(crate) fn close(&mut self, account: AccountId) {
        self.open.retain(|(id, _)| *id != account);
    }

    fn of(&mut self, account: AccountId) -> Result<&mut Database, Error> {
        let entry = match self.open.iter().position(|(id, _)| *id == account) {
            Some(at) => self.open.remove(at),
            None => {
                let folder = self.folder.join("accounts").join(account.to_string());
                if !self.how.disk.exists(&folder) {
                    return Err(Error::Io(format!("account {account} has no folder")));
                }
                if self.open.len() >= MAX_OPEN {
                    self.open.remove(0);
                }
                (account, Database::open(&folder.join("auth.db"), &ACCOUNT, &self.how)?)
            }
        };
        self.open.push(entry);
        let last = self.open.len() - 1;
        Ok(&mut self.open[last].1)
    }

    /// Moves logs that have grown long into their databases. One that was long when its database was
    /// opened is seen with the first commit.
    pub(crate) fn checkpoint_when_long(&self) {
        for database in self.open.iter().map(|(_, database)| database).chain([&self.global]) {
            if database.wal_frames() <= CHECKPOINT_FRAMES {
                continue;
            }
            // Nobody else has it open.
            if let Err(error) = storage::checkpoint(database.connection(), &Gate::default()) {
                tracing::warn!(%error, path = %database.path().display(), "a checkpoint failed");
            }
        }
    }

    /// What is wrong with the database of an account, or with `accountd.db`.
    pub(crate) fn check(&mut self, account: Option<AccountId>) -> Result<Vec<String>, Error> {
        match account {
            Some(account) => self.of(account)?.read(|c| sound::check(c, &ACCOUNT, sound::ACCOUNT)),
            None => self.global.read(|c| sound::check(c, &GLOBAL, sound::GLOBAL)),
        }
    }

    /// The account's sealed password.
    pub(crate) fn password(&mut self, account: AccountId) -> Result<Option<Sealed>, Error> {
        self.of(account)?.read(|c| {
            c.prepare_cached("SELECT generation, sealed FROM password WHERE one = 1")?
                .query_row([], sealed)
                .optional()
                .map_err(Error::from)
        })
    }

    /// Sets it: its new generation.
    pub(crate) fn set_password(
        &mut self,
        account: AccountId,
        sealed: &[u8],
        now: UnixNanos,
    ) -> Result<u64, Error> {
        self.of(account)?.write(|w| {
            w.query_row(
                "INSERT INTO password VALUES (1, 1, ?1, ?2) ON CONFLICT(one) DO UPDATE SET \
                 generation = generation + 1, sealed = ?1, changed_ns = ?2 RETURNING generation",
                params![sealed, now.0],
                |row| unsigned(row, 0),
            )
            .map_err(Error::from)
        })
    }

    /// Writes the same password with more keys: its generation stays. False when it is another one by
    /// now.
    pub(crate) fn amend_password(
        &mut self,
        account: AccountId,
        generation: u64,
        sealed: &[u8],
    ) -> Result<bool, Error> {
        self.of(account)?.write(|w| {
            w.execute(
                "UPDATE password SET sealed = ?1 WHERE one = 1 AND generation = ?2",
                params![sealed, generation.cast_signed()],
            )
            .map(|changed| changed == 1)
            .map_err(Error::from)
        })
    }

    /// The generations that tickets and sessions are checked against.
    pub(crate) fn generations(&mut self, account: AccountId) -> Result<Generations, Error> {
        self.of(account)?.read(|c| {
            let account =
                c.query_row("SELECT generation FROM account", [], |row| unsigned(row, 0))?;
            let password = c
                .query_row("SELECT generation FROM password", [], |row| unsigned(row, 0))
                .optional()?;
            Ok(Generations { account, password })
        })
    }

    /// Ends everything made under the account's present generation.
    pub(crate) fn raise(&mut self, account: AccountId) -> Result<u64, Error> {
        self.of(account)?.write(|w| {
            w.query_row(
                "UPDATE account SET generation = generation + 1 RETURNING generation",
                [],
                |row| unsigned(row, 0),
            )
            .map_err(Error::from)
        })
    }

    /// A verifier that belongs to no account.
    pub(crate) fn verifier(&mut self, name: &str) -> Result<Option<Sealed>, Error> {
        self.global.read(|c| {
            c.prepare_cached("SELECT generation, sealed FROM verifier WHERE name = ?1")?
                .query_row([name], sealed)
                .optional()
                .map_err(Error::from)
        })
    }

    /// Sets one.
    pub(crate) fn set_verifier(&mut self, name: &str, sealed: &[u8]) -> Result<u64, Error> {
        self.global.write(|w| {
            w.query_row(
                "INSERT INTO verifier VALUES (?1, 1, ?2) ON CONFLICT(name) DO UPDATE SET \
                 generation = generation + 1, sealed = ?2 RETURNING generation",
                params![name, sealed],
                |row| unsigned(row, 0),
            )
            .map_err(Error::from)
        })
    }

    /// Whose key this is.
    pub(crate) fn key(&mut self, fingerprint: &[u8; 32]) -> Result<Option<ClientKey>, Error> {
        self.global.read(|c| {
            c.prepare_cached(
                "SELECT fingerprint, account, generation, label, login FROM client_key \
                 WHERE fingerprint = ?1",
            )?
            .query_row([fingerprint.as_slice()], client_key)
            .optional()
            .map_err(Error::from)
        })
    }

    /// The keys of an account, or of all.
    pub(crate) fn keys(&mut self, account: Option<AccountId>) -> Result<Vec<ClientKey>, Error> {
        self.global.read(|c| {
            let of = account.map(|a| a.as_bytes().to_vec());
            let mut statement = c.prepare_cached(
                "SELECT fingerprint, account, generation, label, login FROM client_key \
                 WHERE ?1 IS NULL OR account = ?1 ORDER BY created_ns LIMIT 10000",
            )?;
            let rows = statement.query_map([of], client_key)?;
            rows.collect::<Result<_, _>>().map_err(Error::from)
        })
    }

    /// Adds a key; false if somebody has it, or the account has too many.
    pub(crate) fn key_add(&mut self, key: &ClientKey, now: UnixNanos) -> Result<bool, Error> {
        self.global.write(|w| {
            let added = w.execute(
                "INSERT OR IGNORE INTO client_key SELECT ?1, ?2, ?3, ?4, ?5, ?6 \
                 WHERE (SELECT count(*) FROM client_key WHERE account = ?2) < ?7",
                params![
                    key.fingerprint.as_slice(),
                    key.account.as_bytes().as_slice(),
                    key.generation.cast_signed(),
                    key.label,
                    key.login,
                    now.0,
                    MAX_KEYS
                ],
            )?;
            Ok(added == 1)
        })
    }

    /// Removes a key: whose it was.
    pub(crate) fn key_remove(&mut self, fingerprint: &[u8]) -> Result<Option<AccountId>, Error> {
        self.global.write(|w| {
            w.query_row(
                "DELETE FROM client_key WHERE fingerprint = ?1 RETURNING account",
                [fingerprint],
                |row| account_id(row, 0),
            )
            .optional()
            .map_err(Error::from)
        })
    }

    /// Removes all of an account that is not in its folder.
    pub(crate) fn forget(&mut self, account: AccountId) -> Result<(), Error> {
        self.close(account);
        self.global.write(|w| {
            let id = account.as_bytes().as_slice();
            w.execute("DELETE FROM client_key WHERE account = ?1", [id])?;
            w.execute("DELETE FROM detached WHERE account = ?1", [id])?;
            Ok(())
        })
    }

    /// Notes since when folders have had no block in the directory: those in `without` now, no
    /// others. Returns those without one since `before` or longer.
    pub(crate) fn detached(
        &mut self,
        without: &[AccountId],
        now: UnixNanos,
        before: UnixNanos,
    ) -> Result<Vec<AccountId>, Error> {
        self.global.write(|w| {
            let mut known = w.prepare("SELECT account FROM detached")?;
            let known: Vec<AccountId> =
                known.query_map([], |row| account_id(row, 0))?.collect::<Result<_, _>>()?;
            for back in known.iter().filter(|id| !without.contains(id)) {
                let id = back.as_bytes().as_slice();
                w.execute("DELETE FROM detached WHERE account = ?1", [id])?;
            }
            for id in without {
                w.execute(
                    "INSERT OR IGNORE INTO detached VALUES (?1, ?2)",
                    params![id.as_bytes().as_slice(), now.0],
                )?;
            }
            let mut old = w.prepare("SELECT account FROM detached WHERE since_ns <= ?1")?;
            let old = old.query_map([before.0], |row| account_id(row, 0))?;
            old.collect::<Result<_, _>>().map_err(Error::from)
        })
    }

    /// Counted failures, as they were written down.
    pub(crate) fn failures(&mut self) -> Result<Failures, Error> {
        self.global.read(|c| {
            let of = |sql| -> Result<Vec<(Network, Count)>, Error> {
                let mut statement = c.prepare(sql)?;
                let rows = statement.query_map([], |row| {
                    let network = Network::from_bytes(row.get_ref(0)?.as_blob()?);
                    let count = Count { began: UnixNanos(row.get(1)?), count: row.get(2)? };
                    Ok(network.map(|network| (network, count)))
                })?;
                rows.filter_map(Result::transpose).collect::<Result<_, _>>().map_err(Error::from)
            };
            Ok(Failures {
                minute: of("SELECT network, began_ns, count FROM failed_minute")?,
                day: of("SELECT network, began_ns, count FROM failed")?,
            })
        })
    }

    /// Writes them down in place of the old ones.
    pub(crate) fn write_failures(&mut self, failures: &Failures) -> Result<(), Error> {
        self.global.write(|w| {
            for (delete, insert, rows) in [
                (
                    "DELETE FROM failed_minute",
                    "INSERT INTO failed_minute VALUES (?1, ?2, ?3)",
                    &failures.minute,
                ),
                ("DELETE FROM failed", "INSERT INTO failed VALUES (?1, ?2, ?3)", &failures.day),
            ] {
                w.execute(delete, [])?;
                let mut insert = w.prepare_cached(insert)?;
                for (network, count) in rows {
                    insert.execute(params![
                        network.to_bytes().as_slice(),
                        count.began.0,
                        count.count
                    ])?;
                }
            }
            Ok(())
        })
    }

    /// Notes attempts, of an account or of nobody.
    pub(crate) fn note(
        &mut self,
        account: Option<AccountId>,
        attempts: &[Attempt],
    ) -> Result<(), Error> {
        let database = match account {
            Some(account) => self.of(account)?,
            None => &mut self.global,
        };
        database.write(|w| history::note(w, attempts))
    }

    /// The latest attempts, newest first.
    pub(crate) fn attempts(
        &mut self,
        account: Option<AccountId>,
        most: u32,
    ) -> Result<Vec<Attempt>, Error> {
        let database = match account {
            Some(account) => self.of(account)?,
            None => &mut self.global,
        };
        database.read(|c| history::read(c, most))
    }
}

pub(super) fn unsigned(row: &Row<'_>, at: usize) -> storage::rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(at)?.cast_unsigned())
}

fn account_id(row: &Row<'_>, at: usize) -> storage::rusqlite::Result<AccountId> {
    Ok(AccountId::from_bytes(row.get(at)?))
}

fn sealed(row: &Row<'_>) -> storage::rusqlite::Result<Sealed> {
    Ok(Sealed { generation: unsigned(row, 0)?, sealed: row.get(1)? })
}

fn client_key(row: &Row<'_>) -> storage::rusqlite::Result<ClientKey> {
    Ok(ClientKey {
        fingerprint: row.get(0)?,
        account: account_id(row, 1)?,
        generation: unsigned(row, 2)?,
        label: row.get(3)?,
        login: row.get(4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{history::attempt, limiter::networks};

    fn id(n: u8) -> AccountId {
        AccountId::from_bytes([n; 10])
    }

    fn records(folder: &Path, accounts: u8) -> Records {
        for n in 0..accounts {
            std::fs::create_dir_all(folder.join("accounts").join(id(n).to_string())).unwrap();
        }
        Records::open(folder, Open::default()).unwrap()
    }

    #[test]
    fn passwords_and_generations() {
        let folder = tempfile::tempdir().unwrap();
        let mut records = records(folder.path(), 70);
        assert_eq!(records.password(id(0)).unwrap(), None);
        assert_eq!(records.set_password(id(0), b"one", UnixNanos(1)).unwrap(), 1);
        assert_eq!(records.set_password(id(0), b"two", UnixNanos(2)).unwrap(), 2);
        assert_eq!(records.raise(id(0)).unwrap(), 2);
        // More accounts than stay open.
        for n in 0..70 {
            records.create(id(n)).unwrap();
        }
        assert_eq!(records.open.len(), MAX_OPEN);
        let expected = Sealed { generation: 2, sealed: b"two".to_vec() };
        assert_eq!(records.password(id(0)).unwrap(), Some(expected));
        assert_eq!(
            records.generations(id(0)).unwrap(),
            Generations { account: 2, password: Some(2) }
        );
        assert!(records.password(id(99)).is_err(), "no folder, no database");
    }

    #[test]
    fn keys_belong_to_one_account() {
        let folder = tempfile::tempdir().unwrap();
        let mut records = records(folder.path(), 2);
        let key = |n: u8, account: u8| ClientKey {
            fingerprint: [n; 32],
            account: id(account),
            generation: u64::MAX - u64::from(n),
            label: "laptop".into(),
            login: "ann@example.org".into(),
        };
        assert!(records.key_add(&key(1, 0), UnixNanos(1)).unwrap());
        assert!(!records.key_add(&key(1, 1), UnixNanos(2)).unwrap(), "nobody takes a key over");
        assert_eq!(records.key(&[1; 32]).unwrap(), Some(key(1, 0)));
        assert_eq!(records.keys(Some(id(1))).unwrap(), Vec::new());
        for n in 2..=100 {
            assert!(records.key_add(&key(n, 0), UnixNanos(1)).unwrap());
        }
        assert!(!records.key_add(&key(101, 0), UnixNanos(1)).unwrap(), "bounded");
        assert_eq!(records.key_remove(&[1; 32]).unwrap(), Some(id(0)));
        assert_eq!(records.key_remove(&[1; 32]).unwrap(), None);
        records.forget(id(0)).unwrap();
        assert!(records.keys(None).unwrap().is_empty());
    }

    #[test]
    fn logs_stay_short() {
        let folder = tempfile::tempdir().unwrap();
        let mut records = records(folder.path(), 1);
        let counts = |n: u8| {
            let count = Count { began: UnixNanos(7), count: 1 };
            let hosts = (0..200).map(|host| format!("192.{n}.{host}.1").parse().unwrap());
            hosts.map(|ip| (networks(ip)[0], count)).collect::<Vec<_>>()
        };
        for n in 0..100 {
            records.note(Some(id(0)), &[attempt(n, &format!("name {n}"))]).unwrap();
            let n = u8::try_from(n).unwrap();
            let failures = Failures { minute: counts(n), day: counts(n) };
            records.write_failures(&failures).unwrap();
            records.checkpoint_when_long();
            if n == 50 {
                // What another process left long is seen, too.
                records.close(id(0));
            }
        }
        let own = folder.path().join("accounts").join(id(0).to_string()).join("auth.db-wal");
        for log in [own, folder.path().join("accountd.db-wal")] {
            let length = std::fs::metadata(&log).unwrap().len();
            assert!(length > 0 && length < 1 << 20, "{} has {length} octets", log.display());
        }
    }

    #[test]
    fn failures_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut records = records(folder.path(), 0);
        let rows = |ip: &str, count| {
            let count = Count { began: UnixNanos(7), count };
            networks(ip.parse().unwrap()).into_iter().map(|n| (n, count)).collect()
        };
        let failures = Failures { minute: rows("192.0.2.1", 3), day: rows("192.0.2.7", 4) };
        records.write_failures(&failures).unwrap();
        records.write_failures(&failures).unwrap();
        drop(records);
        let mut records = Records::open(folder.path(), Open::default()).unwrap();
        let mut read = records.failures().unwrap();
        read.minute.sort_by_key(|(n, _)| *n);
        read.day.sort_by_key(|(n, _)| *n);
        assert_eq!(read, failures);
    }

    #[test]
    fn damage_is_found() {
        let global = [
            "PRAGMA application_id = 1",
            "PRAGMA user_version = 0",
            "INSERT INTO client_key VALUES (x'00', zeroblob(10), 1, '', '', 0)",
            "INSERT INTO client_key VALUES (zeroblob(32), x'00', 1, '', '', 0)",
            "INSERT INTO failed VALUES (x'00', 0, 1)",
            "INSERT INTO failed_minute VALUES (x'00', 0, 1)",
            "INSERT INTO verifier VALUES ('decoy', 1, x'')",
            "INSERT INTO detached VALUES (x'00', 0)",
            "INSERT INTO login VALUES (x'00', 2, 1, 1, 0, '', '', '', '', '', '')",
            // An index that is a table.
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM
             sqlite_schema WHERE name = 'login') WHERE name = 'client_key_account';
             PRAGMA schema_version = 99",
        ];
        let account = [
            "PRAGMA application_id = 1",
            "PRAGMA user_version = 0",
            "UPDATE password SET sealed = x''",
            "DELETE FROM account",
            "INSERT INTO login VALUES (x'00', 1, 2, 0, 0, '', '', '', '', '', '')",
            "PRAGMA foreign_keys = OFF; INSERT INTO login_from VALUES (x'00', '', '', x'', '')",
        ];
        let of = |breaks: &[&'static str], account| {
            breaks.iter().map(move |sql| (*sql, account)).collect::<Vec<_>>()
        };
        for (sql, account) in [of(&global, None), of(&account, Some(id(0)))].concat() {
            let folder = tempfile::tempdir().unwrap();
            let mut records = records(folder.path(), 1);
            records.set_password(id(0), b"sealed", UnixNanos(1)).unwrap();
            records.note(account, &[attempt(1, "a")]).unwrap();
            assert_eq!(records.check(account).unwrap(), [""; 0]);
            let path = match account {
                Some(account) => folder.path().join(format!("accounts/{account}/auth.db")),
                None => folder.path().join("accountd.db"),
            };
            storage::rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
            // Or it cannot be read at all.
            assert!(records.check(account).ok().is_none_or(|found| !found.is_empty()), "{sql}");
        }
    }

    #[test]
    fn detached_folders_age_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut records = records(folder.path(), 0);
        let at = UnixNanos;
        assert!(records.detached(&[id(1), id(2)], at(100), at(0)).unwrap().is_empty());
        assert!(records.detached(&[id(1)], at(200), at(99)).unwrap().is_empty());
        assert_eq!(records.detached(&[id(1), id(2)], at(300), at(150)).unwrap(), [id(1)]);
    }
}
