//! Numbered, forward-only migrations in one transaction, and refusal of files from the future.
//!
//! `user_version` holds two numbers: the schema the file is at (low 16 bits) and the oldest schema
//! number a program must know to use it (`min_reader`, high 16 bits). So both change with the schema
//! in one transaction, and no table of ours has to be in somebody else's database. A release only
//! adds and leaves `min_reader` alone; the next one may remove and raise it: one step back always
//! works.

use crate::Error;
use rusqlite::{Connection, TransactionBehavior};

/// The tables of a kind of database, as the list of steps that made them.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Says what kind of database a file is (`PRAGMA application_id`).
    pub application_id: i32,
    /// Step number n (from 1) leads from schema n-1 to n.
    pub migrations: &'static [Migration],
}

/// One step.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// The statements.
    pub sql: &'static str,
    /// The oldest schema number a program must know to use a file this step was applied to.
    pub min_reader: u32,
}

impl Schema {
    /// The newest schema number this program knows.
    #[must_use]
    pub fn newest(&self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }

    /// Whether a program that knows `from` and nothing newer can use a file after the steps behind
    /// it: none of them takes anything away.
    pub(crate) fn only_adds(&self, from: u32) -> bool {
        let behind = self.migrations.iter().zip(1u32..).filter(|(_, number)| *number > from);
        behind.into_iter().all(|(step, _)| step.min_reader <= from)
    }
}

/// Where a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing in it yet.
    New,
    /// At a schema we know, older than ours.
    Older(u32),
    /// Ours, or a newer one that lets us in.
    Usable,
}

fn pack(version: u32, min_reader: u32) -> i64 {
    (i64::from(min_reader) << 16) | i64::from(version & 0xffff)
}

/// Looks at a file without writing to it.
pub(crate) fn state(connection: &Connection, schema: &Schema) -> Result<State, Error> {
    let application: i32 = connection.query_row("PRAGMA application_id", [], |r| r.get(0))?;
    let packed: i64 = connection.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    if packed == 0 && application == 0 && tables == 0 {
        return Ok(State::New);
    }
    if application != schema.application_id {
        return Err(Error::Foreign(application));
    }
    let version = u32::try_from(packed & 0xffff).unwrap_or(0);
    let min_reader = u32::try_from((packed >> 16) & 0x7fff).unwrap_or(u32::MAX);
    if min_reader > schema.newest() {
        return Err(Error::Newer { min_reader, known: schema.newest() });
    }
    Ok(if version < schema.newest() { State::Older(version) } else { State::Usable })
}

/// Runs all steps behind `from` in one transaction.
pub(crate) fn run(connection: &mut Connection, schema: &Schema, from: u32) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut min_reader = 0;
    for (step, number) in schema.migrations.iter().zip(1u32..) {
        min_reader = min_reader.max(step.min_reader);
        if number > from {
            transaction.execute_batch(step.sql)?;
        }
    }
    // A pragma takes no parameters; both values are ours.
    transaction.execute_batch(&format!(
        "PRAGMA application_id={}; PRAGMA user_version={}",
        schema.application_id,
        pack(schema.newest(), min_reader)
    ))?;
    transaction.commit()?;
    tracing::info!(from, to = schema.newest(), "database schema brought up to date");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[Migration] = &[Migration { sql: "CREATE TABLE a(x);", min_reader: 1 }];
    const TWO: &[Migration] = &[
        Migration { sql: "CREATE TABLE a(x);", min_reader: 1 },
        Migration { sql: "CREATE TABLE b(x);", min_reader: 1 },
    ];
    const THREE: &[Migration] = &[
        Migration { sql: "CREATE TABLE a(x);", min_reader: 1 },
        Migration { sql: "CREATE TABLE b(x);", min_reader: 1 },
        Migration { sql: "DROP TABLE a;", min_reader: 3 },
    ];

    fn schema(migrations: &'static [Migration]) -> Schema {
        Schema { application_id: 7, migrations }
    }

    #[test]
    fn steps_forward_and_one_step_back() {
        let mut c = Connection::open_in_memory().unwrap();
        assert_eq!(state(&c, &schema(ONE)).unwrap(), State::New);
        run(&mut c, &schema(ONE), 0).unwrap();
        assert_eq!(state(&c, &schema(TWO)).unwrap(), State::Older(1));
        run(&mut c, &schema(TWO), 1).unwrap();
        // The release before still works with what was only added to.
        assert_eq!(state(&c, &schema(ONE)).unwrap(), State::Usable);
        run(&mut c, &schema(THREE), 2).unwrap();
        assert!(matches!(state(&c, &schema(TWO)), Err(Error::Newer { min_reader: 3, known: 2 })));
    }

    #[test]
    fn a_step_that_fails_leaves_nothing() {
        const BAD: &[Migration] = &[
            Migration { sql: "CREATE TABLE a(x);", min_reader: 1 },
            Migration { sql: "CREATE TABLE b(x); CREATE TABLE b(x);", min_reader: 2 },
        ];
        let mut c = Connection::open_in_memory().unwrap();
        run(&mut c, &schema(ONE), 0).unwrap();
        assert!(run(&mut c, &schema(BAD), 1).is_err());
        assert_eq!(state(&c, &schema(BAD)).unwrap(), State::Older(1));
        let tables: i64 =
            c.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).unwrap();
        assert_eq!(tables, 1);
    }

    #[test]
    fn a_foreign_file_is_refused() {
        let c = Connection::open_in_memory().unwrap();
        c.execute_batch("CREATE TABLE something(x)").unwrap();
        assert!(matches!(state(&c, &schema(ONE)), Err(Error::Foreign(0))));
    }
}
