//! Whether a database of credentials is as it should be.

use storage::{Error, Schema, rusqlite::Connection};

/// Faults of one kind that are listed.
const MAX_LISTED: u32 = 20;

/// What no row of `accountd.db` may be. Each query gives what is wrong, in words.
pub(super) const GLOBAL: &[&str] = &[
    "SELECT 'a client key of ' || length(fingerprint) || ' octets, of an account whose id has '
     || length(account) FROM client_key WHERE length(fingerprint) <> 32 OR length(account) <> 10",
    "SELECT 'failed log-ins of a network that is none: ' || hex(network) FROM failed
     WHERE length(network) <> 17 OR count < 0",
    "SELECT 'failed log-ins of a network that is none: ' || hex(network) FROM failed_minute
     WHERE length(network) <> 17 OR count < 0",
    "SELECT 'the verifier ' || name || ' is none' FROM verifier
     WHERE length(sealed) = 0 OR generation < 1",
    "SELECT 'a folder without an account whose id has ' || length(account) || ' octets'
     FROM detached WHERE length(account) <> 10",
    LOGINS,
];

/// What no row of an `auth.db` may be.
pub(super) const ACCOUNT: &[&str] = &[
    "SELECT 'the password is none' FROM password WHERE length(sealed) = 0 OR generation < 1",
    "SELECT 'there is no generation of the account' WHERE
     NOT EXISTS (SELECT 1 FROM account WHERE generation >= 1)",
    LOGINS,
];

const LOGINS: &str = "SELECT 'log-ins counted ' || count || ' times from ' || first_ns || ' to '
     || last_ns FROM login WHERE count < 1 OR first_ns > last_ns OR ok NOT IN (0, 1)";

/// What is wrong, in words; nothing of it can be mended.
pub(super) fn check(
    c: &Connection,
    schema: &Schema,
    invariants: &[&str],
) -> Result<Vec<String>, Error> {
    let mut wrong = Vec::new();
    let application: i32 = c.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application != schema.application_id {
        wrong.push(format!("application_id is {application:#x}"));
    }
    let version: i64 = c.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    // The low half is the schema's number: it was brought up to date when it was opened.
    if version & 0xffff < i64::from(schema.newest()) {
        wrong.push(format!("user_version is {version:#x}"));
    }
    let mut query = c.prepare(&format!("PRAGMA integrity_check({MAX_LISTED})"))?;
    for row in query.query_map([], |row| row.get::<_, String>(0))? {
        wrong.extend(Some(row?).filter(|text| text != "ok"));
    }
    let foreign: u32 =
        c.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))?;
    if foreign > 0 {
        wrong.push(format!("{foreign} rows name others that are not there"));
    }
    for sql in invariants {
        let mut query = c.prepare(&format!("SELECT * FROM ({sql}) LIMIT {MAX_LISTED}"))?;
        for row in query.query_map([], |row| row.get::<_, String>(0))? {
            wrong.push(row?);
        }
    }
    Ok(wrong)
}
