//! The account store: one SQLite database per account, message content beside it in segments.
//!
//! The heart of the mail server. What was answered 250 or OK went through here and is on the disk;
//! what is read comes from here in bounded batches. `docs/architecture.md` says how content gets
//! from a delivery into a segment; the rules that a power cut tests are in [`index`] and its
//! siblings, at the lines that keep them.
//!
//! Layers, each in its files: `types`, `message`, `rows` and `error` are the words; `index` is one
//! open account (synchronous, no threads: what the crash tests drive) with its operations in
//! `deliver`, `mailbox`, `flags`, `transfer`, `erase`, `copies`, `outbox`, `settings`; `read`, `search` and
//! `reputation` only read; `segments` are the files; `shared` is the little of an account that stays
//! in memory; `codec` compresses, `text` is what was read in a content; `worker` owns the threads;
//! `handle` is the async face of it all.

mod codec;
mod copies;
mod deliver;
mod erase;
mod error;
mod flags;
mod front;
mod handle;
mod index;
mod mailbox;
mod message;
mod outbox;
mod read;
mod reputation;
mod rows;
mod search;
mod segments;
mod settings;
mod shared;
mod text;
mod thread;
mod transfer;
mod types;
mod verify;
mod worker;

pub use error::StoreError;
pub use front::Store;
pub use handle::Account;
pub use index::{Alarm, Ports, Random, Tuning};
pub(crate) use mailbox::canonical;
pub use message::{
    Content, Facts, MAX_MESSAGE, MAX_RECIPIENTS, MAX_REFERENCES, MAX_REPUTATION_KEYS, NewMessage,
    Once, Origin, Recipient, ReputationKey, ReputationKind, Target,
};
pub use reputation::{JunkCounts, KINDS as REPUTATION_KINDS, MAX_WORDS, words as junk_words};
pub use rows::{
    AccountChanges, Annotation, AnnotationEntry, ChangesFrom, ContentRef, CopyOutcome, Delivered,
    FlagChange, JunkMark, KeywordNames, MAX_TEXT_KEYS, MailboxChanges, MailboxInfo, MessageMeta,
    MessageRow, MetaBatch, MetaWanted, OutboxEntry, Renamed, Reparsed, ReputationHit, RowBatch,
    SearchBatch, SendLimits, Small, SmallBatch, SmallData, StoreOutcome, Stored, Submission,
    Submitted, TextKey, ThreadRow, Usage,
};
pub use shared::{Coming, Lease, Watch};
pub use types::{
    ContentId, FIRST_MODSEQ, Flags, Keyword, KeywordBits, KeywordError, MAX_KEYWORDS,
    MAX_MESSAGE_KEYWORDS, MailboxId, MessageId, ModSeq, Role, Uid, UidSet,
};
pub use verify::{Check, Finding, Progress};
pub use worker::Threads;

/// What the directory allows an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Most bytes of messages; `None` is no limit.
    pub quota: Option<u64>,
}

#[cfg(test)]
mod tests;
