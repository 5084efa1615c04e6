//! What moxctl may ask of the supervisor on its own control socket: fixed-size orders, answered by
//! lines of text. The supervisor is root and parses nothing, so there is nothing here to parse.
//!
//! One order a connection: 32 octets in, then text lines out until the end of the stream. The last
//! line is `ok` or `error: WHY`. This is the client's half too, so that both sides share it.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use config::Level;
use ipc::Role;

use crate::supervision::{level_from, level_number};

/// The size of every order.
pub const ORDER_OCTETS: usize = 32;

/// The first octets of an order: whoever speaks something else is told nothing.
const MAGIC: [u8; 4] = *b"mox1";

/// The longest answer a client reads.
const MAX_ANSWER: u64 = 16 << 20;

/// How long an order may take: an upgrade drains for 10 s and waits 30 s for the new tree.
const DEADLINE: Duration = Duration::from_secs(90);

/// The answer to [`Order::LogFiles`] where the journal has the logs: no path, which begins with `/`.
pub const IN_THE_JOURNAL: &str = "journal";

/// The name of a role's lines in the journal.
#[must_use]
pub fn journal_identifier(role: Role) -> String {
    format!("mox-{role}")
}

/// What is asked. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again and apply it.
    Reload,
    /// Drain and end.
    Stop,
    /// Drain the processes of a role and start them again.
    Restart(Role),
    /// Change to the binaries that are installed now.
    Upgrade,
    /// Log this much; of one role, or of all.
    LogLevel(Option<Role>, Level),
    /// The process table, one JSON object a line.
    Processes,
    /// The wiring table, one JSON object a line.
    Wiring,
    /// The log files, one path a line; [`IN_THE_JOURNAL`]; or nothing, on a developer's terminal.
    LogFiles,
    /// Try the walls of all roles, or of one, on this machine.
    ConfineTest(Option<Role>),
    /// The rights of each role: its system calls with reasons, one JSON object a line.
    Profiles,
    /// Which build runs, its id on one line.
    Build,
}

/// Not an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an order this supervisor knows")]
pub struct NotAnOrder;

impl Order {
    /// As it travels.
    #[must_use]
    pub fn encode(self) -> [u8; ORDER_OCTETS] {
        let number = |role: Option<Role>| role.map_or(0, Role::number);
        let (kind, role, level) = match self {
            Order::Reload => (1, 0, 0),
            Order::Stop => (2, 0, 0),
            Order::Restart(role) => (3, role.number(), 0),
            Order::Upgrade => (4, 0, 0),
            Order::LogLevel(role, level) => (5, number(role), level_number(level)),
            Order::Processes => (6, 0, 0),
            Order::Wiring => (7, 0, 0),
            Order::LogFiles => (8, 0, 0),
            Order::ConfineTest(role) => (9, number(role), 0),
            Order::Profiles => (10, 0, 0),
            Order::Build => (11, 0, 0),
        };
        let mut out = [0; ORDER_OCTETS];
        out[..4].copy_from_slice(&MAGIC);
        (out[4], out[5], out[6]) = (kind, role, level);
        out
    }

    /// The inverse of [`Self::encode`].
    ///
    /// # Errors
    /// [`NotAnOrder`], for anything else.
    pub fn decode(bytes: &[u8; ORDER_OCTETS]) -> Result<Self, NotAnOrder> {
        let [m, o, x, one, kind, role, level, zeros @ ..] = *bytes;
        if [m, o, x, one] != MAGIC || zeros != [0; 25] {
            return Err(NotAnOrder);
        }
        let some_role = || Role::from_number(role).ok_or(NotAnOrder);
        let any_role = || if role == 0 { Ok(None) } else { some_role().map(Some) };
        let order = match kind {
            1 => Order::Reload,
            2 => Order::Stop,
            3 => Order::Restart(some_role()?),
            4 => Order::Upgrade,
            5 => Order::LogLevel(any_role()?, level_from(level).ok_or(NotAnOrder)?),
            6 => Order::Processes,
            7 => Order::Wiring,
            8 => Order::LogFiles,
            9 => Order::ConfineTest(any_role()?),
            10 => Order::Profiles,
            11 => Order::Build,
            _ => return Err(NotAnOrder),
        };
        // Octets an order does not use must be zero, so that they can come to mean something.
        if order.encode() == *bytes { Ok(order) } else { Err(NotAnOrder) }
    }
}

/// Gives an order to the supervisor behind this socket and returns its lines.
///
/// # Errors
/// Nobody listens there (`NotFound`, `ConnectionRefused`), the socket's mode or the supervisor
/// refuses this user (`PermissionDenied`), or the supervisor answers with an error (`Other`).
pub fn give(socket: &Path, order: Order) -> io::Result<Vec<String>> {
    let mut stream = connect(socket)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.write_all(&order.encode())?;
    let mut text = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut text)?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match lines.pop() {
        Some(last) if last == "ok" => Ok(lines),
        Some(last) => Err(io::Error::other(last)),
        None => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the supervisor closed the connection: this user may give no orders",
        )),
    }
}

/// Connects to a Unix socket whose path may be longer than the 108 octets of a socket address.
///
/// # Errors
/// As `connect`.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    use std::os::fd::AsRawFd as _;
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let folder = std::fs::File::open(folder)?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_back_and_nothing_else() {
        let orders = [
            Order::Reload,
            Order::Stop,
            Order::Restart(Role::Parser),
            Order::Upgrade,
            Order::LogLevel(None, Level::Debug),
            Order::LogLevel(Some(Role::HttpdAdmin), Level::Error),
            Order::Processes,
            Order::Wiring,
            Order::LogFiles,
            Order::ConfineTest(None),
            Order::ConfineTest(Some(Role::SmtpdMx)),
            Order::Profiles,
            Order::Build,
        ];
        for order in orders {
            let bytes = order.encode();
            assert_eq!(Order::decode(&bytes), Ok(order));
            for at in 0..ORDER_OCTETS {
                for octet in 0..=255 {
                    let mut other = bytes;
                    other[at] = octet;
                    if let Ok(read) = Order::decode(&other) {
                        assert_eq!(read.encode(), other);
                    }
                }
            }
        }
        assert_eq!(Order::decode(&[0; ORDER_OCTETS]), Err(NotAnOrder));
    }
}
