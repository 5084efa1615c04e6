//! Tries the walls on the running machine.

/// Exit code of a process whose profile lacked a call, under [`crate::Breach::Trap`].
pub const TRAPPED: i32 = 252;
