//! The log-in history: who tried to log in, from where, with what result. Of an account in its
//! `auth.db`, of nobody in `accountd.db`; both have the same tables for it.

use super::records::unsigned;
use storage::{
    Error,
    rusqlite::{Connection, params},
};
use types::UnixNanos;

/// Failed log-ins kept of one account; the oldest go first.
const MAX_FAILED: u32 = 10_000;
/// Successful ones.
const MAX_OK: u32 = 10_000;
/// How long an attempt is kept.
const KEPT_NS: i64 = 30 * 86_400 * 1_000_000_000;

/// One attempt to log in, or many alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) first: UnixNanos,
    pub(crate) last: UnixNanos,
    pub(crate) count: u64,
    pub(crate) ok: bool,
    pub(crate) ip: String,
    pub(crate) protocol: String,
    pub(crate) mechanism: String,
    pub(crate) login: String,
    pub(crate) result: String,
    pub(crate) tls: String,
    /// This and what follows is empty in rows from before it was kept.
    pub(crate) local_ip: String,
    pub(crate) listener: String,
    /// Fingerprint; empty unless the mechanism was EXTERNAL.
    pub(crate) client_key: Vec<u8>,
    pub(crate) agent: String,
}

impl Attempt {
    /// Equal for attempts that are counted together. Fields are length-prefixed, so that no two
    /// different attempts run into one.
    fn key(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for field in [
            self.ip.as_bytes(),
            self.protocol.as_bytes(),
            self.mechanism.as_bytes(),
            self.login.as_bytes(),
            self.result.as_bytes(),
            self.tls.as_bytes(),
            self.local_ip.as_bytes(),
            self.listener.as_bytes(),
            &self.client_key,
            self.agent.as_bytes(),
        ] {
            all.extend_from_slice(&(field.len() as u64).to_be_bytes());
            all.extend_from_slice(field);
        }
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &all).as_ref()[..16].to_vec()
    }
}

/// Notes attempts, and forgets those that are too old or too many.
pub(super) fn note(c: &Connection, attempts: &[Attempt]) -> Result<(), Error> {
    for attempt in attempts {
        note_one(c, attempt)?;
    }
    let newest = attempts.iter().map(|a| a.last.0).max().unwrap_or(0);
    c.execute("DELETE FROM login WHERE last_ns < ?1", [newest - KEPT_NS])?;
    for (ok, most) in [(false, MAX_FAILED), (true, MAX_OK)] {
        c.execute(
            "DELETE FROM login WHERE ok = ?1 AND key IN (SELECT key FROM login \
             WHERE ok = ?1 ORDER BY last_ns DESC LIMIT -1 OFFSET ?2)",
            params![ok, most],
        )?;
    }
    Ok(())
}

fn note_one(c: &Connection, a: &Attempt) -> Result<(), Error> {
    let key = a.key();
    c.prepare_cached(
        "INSERT INTO login VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
         ON CONFLICT(key) DO UPDATE SET last_ns = max(last_ns, ?3), count = count + ?4",
    )?
    .execute(params![
        key,
        a.first.0,
        a.last.0,
        a.count.cast_signed(),
        a.ok,
        a.ip,
        a.protocol,
        a.mechanism,
        a.login,
        a.result,
        a.tls
    ])?;
    c.prepare_cached("INSERT OR IGNORE INTO login_from VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![key, a.local_ip, a.listener, a.client_key, a.agent])?;
    Ok(())
}

/// The latest attempts, newest first.
pub(super) fn read(c: &Connection, most: u32) -> Result<Vec<Attempt>, Error> {
    let mut statement = c.prepare_cached(
        "SELECT first_ns, last_ns, count, ok, ip, protocol, mechanism, login, result, tls, \
         ifnull(local_ip, ''), ifnull(listener, ''), ifnull(client_key, x''), ifnull(agent, '') \
         FROM login LEFT JOIN login_from USING (key) ORDER BY last_ns DESC LIMIT ?1",
    )?;
    let rows = statement.query_map([most], |row| {
        Ok(Attempt {
            first: UnixNanos(row.get(0)?),
            last: UnixNanos(row.get(1)?),
            count: unsigned(row, 2)?,
            ok: row.get(3)?,
            ip: row.get(4)?,
            protocol: row.get(5)?,
            mechanism: row.get(6)?,
            login: row.get(7)?,
            result: row.get(8)?,
            tls: row.get(9)?,
            local_ip: row.get(10)?,
            listener: row.get(11)?,
            client_key: row.get(12)?,
            agent: row.get(13)?,
        })
    })?;
    rows.collect::<Result<_, _>>().map_err(Error::from)
}

/// A failed one at a time.
#[cfg(test)]
pub(super) fn attempt(n: i64, login: &str) -> Attempt {
    Attempt {
        first: UnixNanos(n),
        last: UnixNanos(n),
        count: 1,
        ok: false,
        ip: "192.0.2.1".into(),
        protocol: "imap".into(),
        mechanism: "plain".into(),
        login: login.into(),
        result: "badcreds".into(),
        tls: String::new(),
        local_ip: "192.0.2.9".into(),
        listener: "public/imaps".into(),
        client_key: Vec::new(),
        agent: "Bird 1.0".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::records::Records;
    use std::path::Path;
    use storage::{Database, Migration, Open, Schema};
    use types::AccountId;

    fn ann() -> AccountId {
        AccountId::from_bytes([1; 10])
    }

    fn records(folder: &Path) -> Records {
        std::fs::create_dir_all(folder.join("accounts").join(ann().to_string())).unwrap();
        Records::open(folder, Open::default()).unwrap()
    }

    #[test]
    fn attempts_alike_are_one_row() {
        let folder = tempfile::tempdir().unwrap();
        let mut records = records(folder.path());
        let other = Attempt { agent: "Mule 2".into(), ..attempt(2, "a") };
        let all = [attempt(1, "a"), attempt(5, "a"), attempt(3, "b"), other.clone()];
        records.note(Some(ann()), &all).unwrap();
        let rows = records.attempts(Some(ann()), 10).unwrap();
        let expected = Attempt { last: UnixNanos(5), count: 2, ..attempt(1, "a") };
        assert_eq!(rows, [expected, attempt(3, "b"), other]);
        // A month later the old ones are gone, with all of theirs.
        records.note(Some(ann()), &[attempt(KEPT_NS + 100, "c")]).unwrap();
        assert_eq!(records.attempts(Some(ann()), 10).unwrap(), [attempt(KEPT_NS + 100, "c")]);
        let path = folder.path().join(format!("accounts/{}/auth.db", ann()));
        let more = Connection::open(path).unwrap().query_row(
            "SELECT count(*) FROM login_from",
            [],
            |row| row.get::<_, u32>(0),
        );
        assert_eq!(more, Ok(1));
        assert!(records.attempts(None, 10).unwrap().is_empty());
    }

    const GLOBAL_BEFORE: &[Migration] = &[
        Migration { sql: include_str!("schema_global.sql"), min_reader: 1 },
        Migration { sql: include_str!("schema_global_2.sql"), min_reader: 1 },
    ];
    const ACCOUNT_BEFORE: &[Migration] =
        &[Migration { sql: include_str!("schema_account.sql"), min_reader: 1 }];

    /// As a program one step older writes it.
    fn note_before(path: &Path, schema: &Schema, login: &str) {
        let mut database = Database::open(path, schema, &Open::default()).unwrap();
        let note = "INSERT INTO login \
                    VALUES (CAST(?1 AS BLOB), 1, 2, 3, 0, 'ip', 'imap', 'plain', ?1, 'no', '')";
        database.write(|w| w.execute(note, [login]).map_err(Error::from)).unwrap();
    }

    #[test]
    fn what_was_noted_before_more_was_kept_stays_and_the_older_program_may_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("accounts").join(ann().to_string());
        std::fs::create_dir_all(&own).unwrap();
        let global = Schema { application_id: 0x6d6f_7802, migrations: GLOBAL_BEFORE };
        let account = Schema { application_id: 0x6d6f_7803, migrations: ACCOUNT_BEFORE };
        let places = [
            (None, folder.path().join("accountd.db"), global),
            (Some(ann()), own.join("auth.db"), account),
        ];
        let noted = |of: Option<AccountId>| {
            let mut records = records(folder.path());
            let rows = records.attempts(of, 10).unwrap();
            assert_eq!(records.check(of).unwrap(), [""; 0]);
            rows.iter().map(|a| format!("{} {} {}", a.login, a.count, a.agent)).collect::<Vec<_>>()
        };
        for (of, path, schema) in places {
            note_before(&path, &schema, "old");
            assert_eq!(noted(of), ["old 3 "]);
            records(folder.path()).note(of, &[attempt(9, "new")]).unwrap();
            note_before(&path, &schema, "older");
            let mut all = noted(of);
            all.sort();
            assert_eq!(all, ["new 1 Bird 1.0", "old 3 ", "older 3 "]);
        }
    }
}
