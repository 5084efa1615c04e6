//! Every number that bounds what a client may do on one connection.
//!
//! Limits per network are not here: they are counted in one place for all faces (`Gate`).

use std::time::Duration;

/// What an administrator may set; [`Limits::default`] is what the constants below say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// [`MAX_RECIPIENTS`].
    pub recipients: u32,
    /// Octets of a command line with its end.
    pub command_line: usize,
    /// [`MAX_RECEIVED`].
    pub received: u32,
    /// [`MAX_FAILED_DATA`].
    pub failed_data: u32,
    /// [`MAX_FAILED_LOGINS`].
    pub failed_logins: u32,
    /// [`IDLE`].
    pub idle: Duration,
    /// [`DATA`].
    pub data: Duration,
    /// [`SESSION`].
    pub session: Duration,
    /// Pauses and slow mode against bad clients; off on development servers.
    pub pacing: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            recipients: MAX_RECIPIENTS,
            command_line: crate::Input::MAX_LINE,
            received: MAX_RECEIVED,
            failed_data: MAX_FAILED_DATA,
            failed_logins: MAX_FAILED_LOGINS,
            idle: IDLE,
            data: DATA,
            session: SESSION,
            pacing: true,
        }
    }
}

/// Recipients of one transaction, announced as LIMITS RCPTMAX (RFC 9422).
pub const MAX_RECIPIENTS: u32 = 1000;
/// Command lines that were wrong in form or order, in a session.
pub const MAX_BAD_COMMANDS: u32 = 20;
/// Commands since the last accepted message that were not part of a transaction (EHLO, NOOP, RSET
/// and the like): no honest client comes near, a flood does.
pub const MAX_IDLE_COMMANDS: u32 = 200;
/// Refused recipients in a session: whoever passes this is trying out names.
pub const MAX_REFUSED_RECIPIENTS: u32 = 100;
/// Recipients refused for now, in a session; a list of some thousand in one go is honest.
pub const MAX_DEFERRED_RECIPIENTS: u32 = 10_000;
/// Transactions in a session.
pub const MAX_TRANSACTIONS: u32 = 1000;
/// Failed DATA in a session that had no successful one.
pub const MAX_FAILED_DATA: u32 = 10;
/// Failed log-ins in a session.
pub const MAX_FAILED_LOGINS: u32 = 10;
/// Client lines of one SASL exchange; SCRAM needs three.
pub const MAX_SASL_LINES: u32 = 10;
/// Failed log-ins in a row from which on the connection is slowed down.
pub const SLOW_AFTER_LOGINS: u32 = 3;
/// Received fields a message may have (RFC 5321 §6.3 asks for at least 100).
pub const MAX_RECEIVED: u32 = 100;
/// The longest line of a message. RFC 5321 §4.5.3.1.6 says 1,000; newsletters in one line exist.
pub const MAX_TEXT_LINE: u64 = 1 << 20;
/// SIZE where nothing is configured.
pub const DEFAULT_MAX_SIZE: u64 = 100 << 20;

/// RFC 5321 §4.5.3.2.7: a server waits 5 minutes for a command.
pub const IDLE: Duration = Duration::from_secs(5 * 60);
/// The whole of one DATA.
pub const DATA: Duration = Duration::from_secs(30 * 60);
/// The whole session; it ends between two commands, never within a message.
pub const SESSION: Duration = Duration::from_secs(2 * 60 * 60);
/// A TLS handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(60);
/// Pause before the 550 when no recipient exists.
pub const UNKNOWN_PAUSE: Duration = Duration::from_secs(5);
/// How far ahead FUTURERELEASE reaches.
pub const MAX_HOLD: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// Octets of content put out in one step.
pub const CHUNK: usize = 32 << 10;
/// Replies of pipelined commands go out together (RFC 2920 §3.2), up to this size.
pub const MAX_UNSENT: usize = 16 << 10;
