//! What smtpd holds.

use daemon::{Figures, Stop};
use ipc::Dialer;
use smtp::server::Role;
use std::{net::TcpListener, rc::Rc, sync::Arc};
use types::{Clock, SessionId};

/// Its rights and surroundings.
pub struct Grants {
    /// Which of the two it is.
    pub role: Role,
    /// What the administrator decided.
    pub slice: config::slice::Smtpd,
    /// Listening sockets with the name of their service in the slice.
    pub listeners: Vec<(String, TcpListener)>,
    /// `MxDoor` or `SubmissionDoor`.
    pub accountd: Dialer,
    /// `TlsDoor`, and signing slots.
    pub keyholder: Dialer,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Names for connections; none when the machine has no randomness left, and then no connection.
    pub new_id: Rc<dyn Fn() -> Option<SessionId>>,
    /// What is counted.
    pub figures: Figures,
    /// When to end.
    pub stop: Stop,
}
