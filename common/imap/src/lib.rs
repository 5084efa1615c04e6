//! IMAP as a grammar and as state machines: what a client may say, what a server answers, when.
//!
//! It holds the command reader ([`Reader`]), the typed commands ([`Command`]), the response writer
//! ([`Out`]), the machine of a connection before log-in ([`front::Front`]) and the one behind it
//! ([`session::Session`]). All of it is pure: bytes and answers go in, bytes and questions come
//! out. It deliberately knows no socket, no clock, no account and no async; what carries out the
//! questions is the `imapd` process. Spoken are IMAP4rev1 (RFC 3501) and IMAP4rev2 (RFC 9051).
//!
//! ```
//! use imap::{Event, Limits, Reader, Verb};
//! let mut reader = Reader::new(Limits::SESSION);
//! let mut input: &[u8] = b"a1 LIST \"\" {1+}\r\n*\r\n";
//! let Event::Command(frame) = reader.feed(&mut input) else { panic!("complete") };
//! let command = imap::parse(&frame, imap::Names::Utf7).expect("valid");
//! assert!(matches!(command.verb, Verb::List(_)));
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::string_slice
    )
)]

// The account in memory that tests speak to is also used from outside of this crate.
#[cfg(test)]
extern crate self as imap;

mod command;
mod date;
mod flags;
pub mod front;
mod index;
mod name;
mod out;
mod parse;
mod pattern;
mod reader;
mod response;
pub mod session;
mod set;

pub use command::{
    Append, Command, DayKey, Fetch, FetchItem, FetchPartial, ListCommand, ListReturn, ListSelect,
    Login, PartPath, RowKey, SearchCommand, SearchKey, SearchReturn, SectionText, StatusItem,
    Store, StoreHow, Tag, Verb,
};
pub use date::{CalendarDate, DateTime};
pub use flags::{Flag, Flags, Keyword, System};
pub use index::UidIndex;
pub use name::{MailboxName, NameError, Names, SpecialUse};
pub use out::{Out, Piece, without_nul};
pub use parse::{SyntaxError, parse, tag_of};
pub use pattern::Pattern;
pub use reader::{Event, Fault, Limits, Reader, Refusal};
pub use response::{Condition, ResponseCode};
pub use set::{NumberSet, SequenceSet};
