//! What comes out of the store: rows, changes, outcomes.

use super::{
    message::Facts,
    types::{Flags, Keyword, KeywordBits, MailboxId, MessageId, ModSeq, Role, Uid},
};
use types::{ObjectId, SubmissionId, UnixNanos};

/// A mailbox and its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxInfo {
    /// Its id.
    pub id: MailboxId,
    /// Its full name, `/` between levels.
    pub name: String,
    /// MAILBOXID (RFC 8474).
    pub oid: ObjectId,
    /// Its special use.
    pub role: Option<Role>,
    /// UIDVALIDITY.
    pub uidvalidity: u32,
    /// UIDNEXT.
    pub uidnext: Uid,
    /// Messages in it, those with `\Deleted` too.
    pub messages: u32,
    /// Messages with `\Deleted`.
    pub deleted: u32,
    /// Messages without `\Seen`, those with `\Deleted` too.
    pub unseen: u32,
    /// Messages with neither `\Seen` nor `\Deleted`.
    pub unread: u32,
    /// Sum of their sizes.
    pub bytes: u64,
    /// Sum of the sizes of those with `\Deleted`.
    pub deleted_bytes: u64,
    /// When it was made.
    pub createseq: ModSeq,
    /// HIGHESTMODSEQ.
    pub modseq: ModSeq,
    /// Deleted; only seen in [`AccountChanges`].
    pub expunged: bool,
}

/// The narrow part of a message: what listing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRow {
    /// Its id.
    pub id: MessageId,
    /// Its UID.
    pub uid: Uid,
    /// Its flags.
    pub flags: Flags,
    /// Its keywords, numbered by the batch.
    pub keywords: KeywordBits,
    /// When it changed last.
    pub modseq: ModSeq,
    /// RFC822.SIZE.
    pub size: u64,
    /// INTERNALDATE.
    pub received: UnixNanos,
    /// SAVEDATE (RFC 8514).
    pub saved: UnixNanos,
    /// Its thread: equal numbers, one thread.
    pub thread: MessageId,
}

/// The names of keyword numbers in a mailbox at the time of the batch.
pub type KeywordNames = Vec<(u8, Keyword)>;

/// Some rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowBatch {
    /// Ascending by UID.
    pub rows: Vec<MessageRow>,
    /// What their keyword numbers mean.
    pub keywords: KeywordNames,
    /// Ask again from this UID on; `None` when that was all.
    pub next: Option<Uid>,
}

/// The wide part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageMeta {
    /// Its UID.
    pub uid: Uid,
    /// RFC822.SIZE.
    pub size: u64,
    /// EMAILID (RFC 8474), shared by copies.
    pub oid: ObjectId,
    /// How many octets of the message were put before what the parser saw: add to its offsets.
    pub prefix_len: u32,
    /// Date header.
    pub sent: Option<UnixNanos>,
    /// The parser's blobs; empty for a message it could not read.
    pub envelope: Vec<u8>,
    /// BODYSTRUCTURE.
    pub body_structure: Vec<u8>,
    /// Where the parts are.
    pub sections: Vec<u8>,
    /// Header values by name.
    pub headers: Vec<u8>,
    /// Preview.
    pub preview: Option<String>,
    /// Base subject.
    pub base_subject: String,
    /// Whether the parser could read it.
    pub parsed: bool,
}

/// Which blobs of [`MessageMeta`] are wanted; others come back empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetaWanted {
    /// The envelope.
    pub envelope: bool,
    /// The body structure.
    pub body_structure: bool,
    /// Where the parts are.
    pub sections: bool,
    /// Header values.
    pub headers: bool,
    /// The preview.
    pub preview: bool,
}

/// A whole content, as [`Account::smalls`](super::Account::smalls) reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Small {
    /// Its UID.
    pub uid: Uid,
    /// Octets of the message.
    pub size: u64,
    /// What there is.
    pub data: SmallData,
}

/// What of a content was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SmallData {
    /// All of it.
    Whole(Vec<u8>),
    /// Nothing: it is larger than was asked for.
    TooLarge,
    /// Nothing: it is erased.
    Gone,
}

/// Some contents, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SmallBatch {
    /// Ascending by UID.
    pub items: Vec<Small>,
    /// The first UID that was not looked at.
    pub next: Option<Uid>,
}

/// Some wide parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetaBatch {
    /// Ascending by UID.
    pub metas: Vec<MessageMeta>,
    /// Ask again from this UID on.
    pub next: Option<Uid>,
}

/// What changed in a mailbox behind a modseq.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailboxChanges {
    /// Messages that are there, new or changed, ascending by (modseq, UID).
    pub changed: Vec<MessageRow>,
    /// What their keyword numbers mean.
    pub keywords: KeywordNames,
    /// UIDs that are gone, ascending by (modseq, UID).
    pub gone: Vec<Uid>,
    /// All up to here was said, and the rest of the modseq `partial`, if any, was not.
    pub upto: ModSeq,
    /// More is left: ask again with this.
    pub more: Option<ChangesFrom>,
    /// Rows of expunged messages up to here may be missing: `gone` cannot be complete for somebody
    /// who knew less.
    pub purged: ModSeq,
}

/// Where to go on in the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangesFrom {
    /// Behind this modseq.
    pub modseq: ModSeq,
    /// And, within it, behind this UID. `Uid::MAX` for all of it.
    pub uid: Uid,
}

impl ChangesFrom {
    /// All that is newer than `modseq`.
    #[must_use]
    pub fn after(modseq: ModSeq) -> Self {
        Self { modseq, uid: Uid::MAX }
    }
}

/// What changed in the account beside messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountChanges {
    /// Mailboxes made, renamed, changed or deleted, ascending by modseq.
    pub mailboxes: Vec<MailboxInfo>,
    /// Annotations set or taken away: mailbox (`None`: of the server) and name.
    pub annotations: Vec<(Option<MailboxId>, String)>,
    /// The account's modseq.
    pub modseq: ModSeq,
}

/// A message that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where.
    pub mailbox: MailboxId,
    /// Its UIDVALIDITY.
    pub uidvalidity: u32,
    /// As what.
    pub uid: Uid,
    /// Its id.
    pub id: MessageId,
    /// EMAILID.
    pub oid: ObjectId,
    /// The modseq of its transaction.
    pub modseq: ModSeq,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// It is stored.
    Stored(Stored),
    /// It was stored before: a repeat.
    Repeat,
}

/// How STORE changes flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagChange {
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
    /// `FLAGS`
    Replace,
}

/// What STORE did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreOutcome {
    /// The rows of all UIDs named that are there and passed UNCHANGEDSINCE, as they are now.
    pub rows: Vec<MessageRow>,
    /// What their keyword numbers mean.
    pub keywords: KeywordNames,
    /// UIDs that failed UNCHANGEDSINCE (RFC 7162 §3.1.3).
    pub modified: Vec<Uid>,
    /// The modseq of the change; `None` when nothing had to be changed.
    pub modseq: Option<ModSeq>,
}

/// What COPY or MOVE did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyOutcome {
    /// UIDVALIDITY of the target.
    pub uidvalidity: u32,
    /// UIDs in the source and in the target, ascending.
    pub uids: Vec<(Uid, Uid)>,
    /// The modseq of the change.
    pub modseq: ModSeq,
}

/// Junk flags that a mailbox gives to what enters it; decided by the account's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JunkMark {
    /// `$Junk`
    pub junk: bool,
    /// `$NotJunk`
    pub not_junk: bool,
}

/// A mailbox that got another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// Which.
    pub id: MailboxId,
    /// Its name before.
    pub from: String,
    /// Its name now.
    pub to: String,
}

/// What an account uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Sum of the sizes of its messages.
    pub bytes: u64,
    /// Sum of the sizes of expunged messages whose bytes are not erased yet.
    pub pending_bytes: u64,
    /// Its messages.
    pub messages: u64,
    /// Its mailboxes.
    pub mailboxes: u32,
}

/// A text to look for; compared without regard to case, as a substring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextKey {
    /// In the header or the text (`TEXT`).
    Text(String),
    /// In the text (`BODY`).
    Body(String),
    /// In the values of header fields of this name (`HEADER`, `SUBJECT`, `FROM`, ...). An empty
    /// needle: the field is there.
    Header(String, String),
}

/// Most keys of one search step.
pub const MAX_TEXT_KEYS: usize = 64;

/// Some hits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchBatch {
    /// UID and which keys it holds (bit n: key n), for each message with any, ascending.
    pub hits: Vec<(Uid, u64)>,
    /// How many messages were looked at.
    pub looked_at: u32,
    /// Go on from this UID.
    pub next: Option<Uid>,
}

/// A message in its thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadRow {
    /// Its UID.
    pub uid: Uid,
    /// Its id.
    pub id: MessageId,
    /// Its thread.
    pub thread: MessageId,
    /// What it answers, if that is known; it may be in another mailbox or expunged.
    pub parent: Option<MessageId>,
    /// A link between it and its parent is missing, or was guessed.
    pub missing_link: bool,
}

/// An annotation (RFC 5464).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Whose: `None` is the server.
    pub mailbox: Option<MailboxId>,
    /// `/private/...` or `/shared/...`, lower case.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
    /// Whether it was given as a string, or as a literal8.
    pub is_string: bool,
}

/// An annotation to set: its name, and its value with whether that was given as a string; no value
/// takes it away.
pub type AnnotationEntry = (String, Option<(Vec<u8>, bool)>);

/// What an account gives to the queue.
pub struct Submission {
    /// Chosen by the caller: a repeat of it changes nothing.
    pub id: SubmissionId,
    /// A digest of what was said, where a repeat by the client is recognised, and until when.
    pub said: Option<([u8; 32], UnixNanos)>,
    /// The message; its `target` is where the copy for Sent goes when `keep_copy` is set.
    pub message: super::NewMessage,
    /// Keep a copy in the account (webmail).
    pub keep_copy: bool,
    /// Envelope, DSN parameters, whatever the queue needs, in its form.
    pub envelope: Vec<u8>,
    /// Whom it goes to, for the limits and for what is remembered.
    pub recipients: Vec<super::Recipient>,
    /// Not before this (FUTURERELEASE).
    pub release: Option<UnixNanos>,
    /// The limits of the account.
    pub limits: SendLimits,
}

/// How much an account may send in 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendLimits {
    /// Recipients.
    pub messages: u32,
    /// Recipients it never wrote to before.
    pub first_time: u32,
}

impl Default for SendLimits {
    fn default() -> Self {
        Self { messages: 1000, first_time: 200 }
    }
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Its id; of a repeat that of the first.
    pub id: SubmissionId,
    /// The copy in the account, if one was kept (and this is no repeat).
    pub copy: Option<Stored>,
    /// It was submitted before.
    pub repeat: bool,
}

/// A row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Its id.
    pub id: SubmissionId,
    /// Envelope and parameters as submitted.
    pub envelope: Vec<u8>,
    /// Its content.
    pub content: ContentRef,
    /// Not before this.
    pub release: Option<UnixNanos>,
    /// When it was submitted.
    pub submitted: UnixNanos,
}

/// Content that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRef {
    /// Which.
    pub id: super::ContentId,
    /// Its length, prefix included.
    pub size: u64,
    /// How much of it is the prefix.
    pub prefix_len: u32,
}

/// A message in the past that shares a reputation key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReputationHit {
    /// When it came.
    pub received: UnixNanos,
    /// The user (or a rule) says it is junk.
    pub junk: bool,
    /// The user (or a rule) says it is not.
    pub not_junk: bool,
}

/// Everything the parser says again, after its version changed.
pub struct Reparsed {
    /// Which message.
    pub content: super::ContentId,
    /// The new facts.
    pub facts: Facts,
}
