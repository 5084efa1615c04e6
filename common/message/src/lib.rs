//! RFC 5322 and MIME: structure, header values, text, composition.
//!
//! What it is: total functions over bytes that strangers wrote. A message goes in by chunks of any
//! size ([`Job`]), [`Facts`] come out: part structure with offsets into the stored bytes, the values
//! IMAP's ENVELOPE and BODYSTRUCTURE need, decoded text, preview and the keys of threading. The
//! facts have compact binary forms ([`codec`]) which accountd stores and imapd decodes again. The
//! decoders ([`transfer`], [`charset`], [`field`]) are also for faces that hand out parts of a
//! message. [`compose`] and [`dsn`] write the messages this server makes itself.
//!
//! What it is not: no I/O, no clock, no async; no judgement (that a message is malformed is a fact,
//! not an error); no HTML rendering or sanitising.
//!
//! Every function is total and takes time linear in its input: nothing recurses, nothing goes back
//! to an earlier byte, every list has a bound ([`Limits`]). A message beyond a bound is not refused;
//! what lies beyond is opaque.
//!
//! ```
//! use message::{Job, Limits, SectionKind};
//!
//! let mut job = Job::new(Limits::default());
//! job.push(b"From: Ann <ann@example.org>\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\n\r\nHello\r\n");
//! let facts = job.finish();
//! assert_eq!(facts.subject, "grün");
//! assert_eq!(facts.preview, "Hello");
//! let body = facts.structure.section(&[1], SectionKind::Content).expect("it has one part");
//! assert_eq!((body.start, body.end), (63, 70));
//! ```

#![forbid(unsafe_code)]

pub mod address;
pub mod charset;
pub mod codec;
pub mod compose;
pub mod date;
pub mod dsn;
pub mod encoded_word;
pub mod envelope;
pub mod field;
pub mod html;
pub mod media;
#[cfg(any(test, feature = "poison"))]
pub mod poison;
pub mod preview;
pub mod thread;
pub mod transfer;

mod base_subject;
mod facts;
mod index;
#[cfg(test)]
mod index_tests;
mod limits;
mod structure;
mod token;

pub use envelope::Envelope;
pub use facts::{Facts, Job, PartText};
pub use index::{Indexer, Sink};
pub use limits::Limits;
pub use structure::{Kind, Opaque, Part, SectionKind, Sections, Span, Structure};
