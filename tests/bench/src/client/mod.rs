//! The clients: buffered connections, SMTP and IMAP as a load generator needs them.

pub(crate) mod conn;
pub(crate) mod imap;
pub(crate) mod smtp;

pub(crate) use conn::Transport;
pub(crate) use imap::Imap;
pub(crate) use smtp::Smtp;
