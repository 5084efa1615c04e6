//! The tables of `queue.db`, as numbered migrations.

use storage::{Migration, Schema};

/// "moxQ".
const APPLICATION_ID: i32 = 0x6d6f_7851;

/// What the queue's database looks like.
pub(crate) const SCHEMA: Schema = Schema {
    application_id: APPLICATION_ID,
    migrations: &[Migration { sql: include_str!("0001-queue.sql"), min_reader: 1 }],
};
