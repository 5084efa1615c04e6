//! SMTP (RFC 5321) as decisions on bytes: grammar, replies, and the state machines of both sides.
//!
//! What it is not: it opens no socket, knows no clock and no runtime, and interprets no message.
//! Whoever carries it out ([`server::Connection`], [`client::Client`]) asks what to do next, does
//! it, and hands back what came of it; so a whole session can be replayed in a test.
//!
//! ```
//! use smtp::{Reply, Command, Dialect};
//! let command = Command::parse(b"MAIL FROM:<bob@example.net> SIZE=2000", &Dialect::mx())?;
//! assert!(matches!(command, Command::Mail(mail) if mail.params.size == Some(2000)));
//!
//! let mut wire = Vec::new();
//! Reply::new(550, (5, 1, 1), "No such address").write(&mut wire);
//! assert_eq!(wire, b"550 5.1.1 No such address\r\n");
//! # Ok::<(), smtp::SyntaxError>(())
//! ```

#![forbid(unsafe_code)]
// Everything in here reads what strangers send.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::string_slice
    )
)]

pub mod client;
mod command;
mod data;
mod date;
mod line;
mod path;
mod received;
mod refusal;
mod reply;
mod response;
pub mod server;

pub use command::{Body, Command, Dialect, Hello, Hold, Mail, MailParams, SyntaxError};
pub use data::{DataEnd, Defect, Receiver, Stuffer};
pub use line::{Input, Line};
pub use path::{ForwardPath, ReverseGiven};
pub use received::{Received, TlsFacts};
pub use refusal::{
    AdmitRefused, AuthRefused, CommitRefused, DataRefused, MailRefused, RcptRefused,
};
pub use reply::{Enhanced, Reply};
pub use response::{Response, ResponseError, ResponseParser};
