//! The faces of SMTP: carries bytes between clients, the pure session of `smtp` and accountd.
//!
//! What a session answers is decided in `smtp::server`; what mail may come in and who may log in,
//! in accountd. Here is only what does I/O: listeners, TLS, deadlines, and the calls.

#![forbid(unsafe_code)]

mod grants;
mod listen;
mod session;
mod store;

pub use grants::Grants;
pub use listen::{Face, run};
pub use session::{Origin, Service, serve_connection};
pub use store::{Doors, Store};
