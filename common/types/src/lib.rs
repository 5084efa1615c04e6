//! Addresses, ids, secrets and time: the words every other crate speaks.
//!
//! Everything here is parsed once, at the edge, into a type that cannot be wrong, and passed on as
//! that type. This crate knows no protocol, no file and no socket.
//!
//! ```
//! use types::{Address, Domain};
//! let address: Address = "Alice@Example.ORG".parse()?;
//! assert_eq!(address.domain(), &"example.org".parse::<Domain>()?);
//! # Ok::<(), types::AddressError>(())
//! ```

#![forbid(unsafe_code)]

mod address;
mod clock;
mod domain;
mod id;
mod mailbox;
mod secret;

pub use address::{Address, AddressError, HostLiteral, Localpart, ReversePath};
pub use clock::{Clock, ManualClock, SystemClock, UnixNanos};
pub use domain::{Domain, DomainError};
pub use id::{AccountId, DeliveryId, IdError, ObjectId, QueueId, SessionId, SubmissionId};
pub use mailbox::check_mailbox_name;
pub use secret::Secret;
