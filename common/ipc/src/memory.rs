//! Edges inside one thread, for the simulated tree.

use crate::{Acceptor, Dialer, Role};
use tokio::sync::mpsc;

/// What one direction of an in-memory connection holds, as a Unix socket's buffer would.
pub(crate) const BUFFER: usize = 64 * 1024;

/// Requests that may wait at an in-memory connector.
const WAITING: usize = 64;

/// Both ends of an edge between two tasks of one thread. Dropping the acceptor is what the death
/// of the server is.
#[must_use]
pub fn memory_edge(client: Role, instance: u16) -> (Dialer, Acceptor) {
    let (requests, waiting) = mpsc::channel(WAITING);
    (Dialer::in_memory(requests), Acceptor::in_memory(client, instance, waiting))
}
