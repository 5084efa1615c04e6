//! The store as the rest of accountd sees it: cheap handles, async calls, nothing opened until it is
//! needed.
//!
//! An [`Account`] sends each call to the threads that own SQLite (one writer thread and one reader
//! thread for an account, of several) and waits for the answer on a oneshot channel. Reads come in
//! batches of at most 256 KiB or 10 ms and say where to go on, so that no call holds a thread, or the
//! write-ahead log, for long. What is returned is durable.

use super::{
    Limits, StoreError,
    index::Index,
    message::{NewMessage, ReputationKey},
    outbox, read, reputation,
    rows::{
        AccountChanges, Annotation, AnnotationEntry, ChangesFrom, ContentRef, CopyOutcome,
        Delivered, FlagChange, JunkMark, MailboxChanges, MailboxInfo, MetaBatch, MetaWanted,
        OutboxEntry, Renamed, Reparsed, ReputationHit, RowBatch, SearchBatch, SmallBatch,
        StoreOutcome, Stored, Submission, Submitted, TextKey, ThreadRow, Usage,
    },
    search, settings,
    shared::{Coming, Lease, Shared, Watch},
    types::{ContentId, Flags, Keyword, MailboxId, MessageId, ModSeq, Role, Uid, UidSet},
    verify::{self, Finding, Progress},
    worker::{Pool, View},
};
use std::sync::Arc;
use types::{AccountId, DeliveryId, SubmissionId, UnixNanos};

/// One account. Cloning is cheap; holding one opens nothing.
#[derive(Clone)]
pub struct Account {
    pub(super) pool: Arc<Pool>,
    pub(super) shared: Arc<Shared>,
}

impl Account {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> AccountId {
        self.shared.id
    }

    /// What the directory allows it; holds for every call that comes later, on any handle.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.set_limits(limits);
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Index) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.pool.write(&self.shared, work).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&View<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let outcome = self.pool.read(&self.shared, work).await;
        // One that could not be opened has raised its alarm already.
        if let Err(StoreError::Damaged(why)) = &outcome
            && self.shared.is_ready()
        {
            self.pool.alarm(self.shared.id, why);
        }
        outcome
    }

    /// Where the account stands.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn modseq(&self) -> Result<ModSeq, StoreError> {
        self.pool.ready(&self.shared).await?;
        Ok(self.shared.modseq())
    }

    /// Tells of changes, coalesced: only the newest modseq counts.
    ///
    /// # Errors
    /// When the account cannot be opened.
    pub async fn watch(&self) -> Result<Watch, StoreError> {
        self.pool.ready(&self.shared).await?;
        Ok(self.shared.watch())
    }

    /// Keeps what is expunged later than `seen` readable, for 24 hours at most. A session takes one
    /// when it selects and moves it on with what it has told its client.
    #[must_use]
    pub fn lease(&self, seen: ModSeq) -> Lease {
        Lease::new(&self.shared, seen)
    }

    /// Says that a delivery is about to come, as long as what this gives is held.
    #[must_use]
    pub fn coming(&self) -> Coming {
        Coming::new(&self.shared)
    }

    /// Delivers a message: the one door. What waits at the same moment, or is announced and comes
    /// within 2 ms, shares one commit; a lone one never waits. A repeat of a `delivery` is recognised.
    ///
    /// # Errors
    /// The message's own ([`StoreError::OverQuota`], [`StoreError::NoSuchMailbox`], ...), or a
    /// temporary one.
    pub async fn deliver(&self, message: NewMessage) -> Result<Delivered, StoreError> {
        self.pool.deliver(&self.shared, message).await
    }

    /// Notes that a delivery was made: what comes with this id until then is a repeat.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn remember_delivery(
        &self,
        id: DeliveryId,
        until: UnixNanos,
    ) -> Result<(), StoreError> {
        self.write(move |index| index.remember_delivery(id, until)).await
    }

    /// Forgets that a delivery was made: what comes next with this id is new.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn forget_delivery(&self, id: DeliveryId) -> Result<(), StoreError> {
        self.write(move |index| index.forget_delivery(id)).await
    }

    /// APPEND: all of them or none (RFC 3502), in one mailbox, with UIDs in order.
    ///
    /// # Errors
    /// As [`Self::deliver`].
    pub async fn append(&self, messages: Vec<NewMessage>) -> Result<Vec<Stored>, StoreError> {
        self.write(move |index| index.append(&messages)).await
    }

    /// REPLACE (RFC 8508): stores `message` and expunges `old`, in one step.
    ///
    /// # Errors
    /// As [`Self::deliver`]; [`StoreError::NoSuchMessage`] when `old` is gone.
    pub async fn replace(
        &self,
        mailbox: MailboxId,
        old: Uid,
        message: NewMessage,
    ) -> Result<Stored, StoreError> {
        self.write(move |index| index.replace(mailbox, old, message)).await
    }

    /// Gives a message to the queue: content, outbox row, limits and the copy in one commit.
    ///
    /// # Errors
    /// [`StoreError::TooManySent`], [`StoreError::TooManyFirstTime`], or as [`Self::deliver`].
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, StoreError> {
        self.write(move |index| index.submit(submission)).await
    }

    /// The client heard that this was submitted: the same again is no repeat.
    pub fn heard(&self, id: SubmissionId) {
        self.shared.hear(id);
    }

    /// Rows of the outbox behind `after`, oldest first; at most 100.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn outbox(
        &self,
        after: Option<SubmissionId>,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        self.read(move |view| outbox::list(view.connection, after)).await
    }

    /// Whether the outbox has rows. An account that nobody uses is not opened for that: after an
    /// upgrade it is not copied and brought up to date before its time.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn has_outbox_rows(&self) -> Result<bool, StoreError> {
        match self.pool.peek(&self.shared, |view| outbox::has_rows(view.connection)).await {
            Ok(any) => Ok(any),
            // Opening it says what is wrong, with an alarm if somebody must look at it.
            Err(_) => Ok(!self.outbox(None).await?.is_empty()),
        }
    }

    /// The queue has them durably: forgets these rows. Says how many there were.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn outbox_done(&self, ids: Vec<SubmissionId>) -> Result<usize, StoreError> {
        self.write(move |index| index.outbox_done(&ids)).await
    }

    /// All live mailboxes with their counters, by name.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn mailboxes(&self) -> Result<Vec<MailboxInfo>, StoreError> {
        self.read(|view| read::mailboxes(view.connection)).await
    }

    /// One live mailbox.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMailbox`], or temporary ones.
    pub async fn mailbox(&self, id: MailboxId) -> Result<MailboxInfo, StoreError> {
        self.read(move |view| read::mailbox(view.connection, id)).await
    }

    /// One live mailbox by name; `INBOX` in any case is Inbox.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMailbox`], or temporary ones.
    pub async fn mailbox_by_name(&self, name: String) -> Result<MailboxInfo, StoreError> {
        self.read(move |view| read::mailbox_by_name(view.connection, &name)).await
    }

    /// The keywords in use in a mailbox.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn keywords(&self, id: MailboxId) -> Result<Vec<(u8, Keyword)>, StoreError> {
        self.read(move |view| read::keyword_names(view.connection, id)).await
    }

    /// Makes a mailbox and its missing parents, subscribed, and takes `role` from whoever has it.
    ///
    /// # Errors
    /// [`StoreError::MailboxExists`], [`StoreError::MailboxName`], or temporary ones.
    pub async fn create_mailbox(
        &self,
        name: String,
        role: Option<Role>,
    ) -> Result<MailboxInfo, StoreError> {
        self.write(move |index| index.create_mailbox(&name, role)).await
    }

    /// Deletes a mailbox without children and expunges what is in it.
    ///
    /// # Errors
    /// [`StoreError::Inbox`], [`StoreError::HasChildren`], [`StoreError::NoSuchMailbox`], or
    /// temporary ones.
    pub async fn delete_mailbox(&self, id: MailboxId) -> Result<ModSeq, StoreError> {
        self.write(move |index| index.delete_mailbox(id)).await
    }

    /// Renames a mailbox and those below it; Inbox keeps its name and gives its messages
    /// (RFC 9051 §6.3.6).
    ///
    /// # Errors
    /// [`StoreError::MailboxExists`], [`StoreError::Inbox`], [`StoreError::MailboxName`],
    /// [`StoreError::NoSuchMailbox`], or temporary ones.
    pub async fn rename_mailbox(
        &self,
        id: MailboxId,
        to: String,
    ) -> Result<Vec<Renamed>, StoreError> {
        self.write(move |index| index.rename_mailbox(id, &to)).await
    }

    /// Gives a mailbox a special use, and takes it from whoever has it.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMailbox`], or temporary ones.
    pub async fn set_role(&self, id: MailboxId, role: Option<Role>) -> Result<ModSeq, StoreError> {
        self.write(move |index| index.set_role(id, role)).await
    }

    /// The subscribed names, whether such mailboxes exist or not.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn subscriptions(&self) -> Result<Vec<String>, StoreError> {
        self.read(|view| read::subscriptions(view.connection)).await
    }

    /// Subscribes to a name or gives it up; says whether that changed anything.
    ///
    /// # Errors
    /// [`StoreError::MailboxName`], [`StoreError::TooMany`], or temporary ones.
    pub async fn subscribe(&self, name: String, on: bool) -> Result<bool, StoreError> {
        self.write(move |index| index.subscribe(&name, on)).await
    }

    /// The UIDs in a mailbox from `from` on, ascending; at most 65,536.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn uids(&self, mailbox: MailboxId, from: Uid) -> Result<Vec<Uid>, StoreError> {
        self.read(move |view| read::uids(view.connection, mailbox, from)).await
    }

    /// The first UID without `\Seen`.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn first_unseen(&self, mailbox: MailboxId) -> Result<Option<Uid>, StoreError> {
        self.read(move |view| read::first_unseen(view.connection, mailbox)).await
    }

    /// Narrow rows of the living UIDs in `uids` from `from` on.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn rows(
        &self,
        mailbox: MailboxId,
        uids: UidSet,
        from: Uid,
    ) -> Result<RowBatch, StoreError> {
        self.read(move |view| read::rows(view, mailbox, &uids, from)).await
    }

    /// Wide parts of the UIDs in `uids` from `from` on. Expunged messages whose content is not
    /// erased yet are among them.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn metas(
        &self,
        mailbox: MailboxId,
        uids: UidSet,
        from: Uid,
        wanted: MetaWanted,
    ) -> Result<MetaBatch, StoreError> {
        self.read(move |view| read::metas(view, mailbox, &uids, from, wanted)).await
    }

    /// Whole contents of up to `max_each` bytes (at most 256 KiB) of the living UIDs in `uids` from
    /// `from` on; of larger ones that they are there.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn smalls(
        &self,
        mailbox: MailboxId,
        uids: UidSet,
        from: Uid,
        max_each: u64,
    ) -> Result<SmallBatch, StoreError> {
        let max_each = max_each.min(read::MAX_BATCH as u64);
        let again = uids.clone();
        let first = self
            .pool
            .read(&self.shared, move |view| read::smalls(view, mailbox, &uids, from, max_each))
            .await;
        match first {
            // As in `read_content`.
            Err(StoreError::Damaged(_)) => {
                self.read(move |view| read::smalls(view, mailbox, &again, from, max_each)).await
            }
            other => other,
        }
    }

    /// Finds the content of a message, also of an expunged one that is not erased yet.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMessage`], [`StoreError::ContentGone`], or temporary ones.
    pub async fn content(&self, mailbox: MailboxId, uid: Uid) -> Result<ContentRef, StoreError> {
        self.read(move |view| read::content(view.connection, mailbox, uid)).await
    }

    /// Reads a part of a content: at most 256 KiB; less at its end. Ask at multiples of 256 KiB for
    /// a large one: each is decompressed by itself.
    ///
    /// # Errors
    /// [`StoreError::ContentGone`], or temporary ones.
    pub async fn read_content(
        &self,
        content: ContentRef,
        offset: u64,
        len: u32,
    ) -> Result<Vec<u8>, StoreError> {
        let first = self
            .pool
            .read(&self.shared, move |view| {
                view.files.read(view.connection, content.id, offset, len)
            })
            .await;
        match first {
            // Compaction may have taken the segment away between the row and the file: the row says
            // where the bytes are now.
            Err(StoreError::Damaged(_)) => {
                self.read(move |view| view.files.read(view.connection, content.id, offset, len))
                    .await
            }
            other => other,
        }
    }

    /// What changed in a mailbox behind `from`, in batches.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn changes(
        &self,
        mailbox: MailboxId,
        from: ChangesFrom,
    ) -> Result<MailboxChanges, StoreError> {
        self.read(move |view| read::changes(view, mailbox, from)).await
    }

    /// What changed beside messages behind `since`.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn account_changes(&self, since: ModSeq) -> Result<AccountChanges, StoreError> {
        self.read(move |view| read::account_changes(view.connection, since)).await
    }

    /// Threads of a mailbox from `from` on: as rows, ascending by UID.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn threads(
        &self,
        mailbox: MailboxId,
        from: Uid,
    ) -> Result<Vec<ThreadRow>, StoreError> {
        self.read(move |view| read::threads(view.connection, mailbox, from)).await
    }

    /// Looks for texts in the messages of `uids` from `from` on, one slice of 10 ms. At most 64 keys.
    /// A message whose content is damaged has none; an alarm says so.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn search(
        &self,
        mailbox: MailboxId,
        uids: UidSet,
        from: Uid,
        keys: Arc<[TextKey]>,
    ) -> Result<SearchBatch, StoreError> {
        let (again, known) = (uids.clone(), Arc::clone(&keys));
        let first = self
            .pool
            .read(&self.shared, move |view| search::step(view, mailbox, &uids, from, &keys, None))
            .await;
        match first {
            // As in `read_content`; and what stays damaged must not hide all other messages.
            Err(StoreError::Damaged(_)) => {
                let (pool, id) = (Arc::clone(&self.pool), self.shared.id);
                self.read(move |view| {
                    let alarm: &dyn Fn(&str) = &|why| pool.alarm(id, why);
                    search::step(view, mailbox, &again, from, &known, Some(alarm))
                })
                .await
            }
            other => other,
        }
    }

    /// STORE.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMailbox`], [`StoreError::TooManyKeywords`], or temporary ones.
    pub async fn store_flags(
        &self,
        mailbox: MailboxId,
        uids: UidSet,
        change: FlagChange,
        flags: Flags,
        keywords: Vec<Keyword>,
        unchanged_since: Option<ModSeq>,
    ) -> Result<StoreOutcome, StoreError> {
        self.write(move |index| {
            index.store_flags(mailbox, &uids, change, flags, &keywords, unchanged_since)
        })
        .await
    }

    /// COPY: all or none; within the same mailbox too.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMailbox`], [`StoreError::OverQuota`],
    /// [`StoreError::TooManyKeywords`], or temporary ones.
    pub async fn copy(
        &self,
        from: MailboxId,
        uids: UidSet,
        to: MailboxId,
        mark: Option<JunkMark>,
    ) -> Result<CopyOutcome, StoreError> {
        self.write(move |index| index.copy(from, &uids, to, mark)).await
    }

    /// MOVE: all or none. Messages keep their ids.
    ///
    /// # Errors
    /// As [`Self::copy`].
    pub async fn move_messages(
        &self,
        from: MailboxId,
        uids: UidSet,
        to: MailboxId,
        mark: Option<JunkMark>,
    ) -> Result<CopyOutcome, StoreError> {
        self.write(move |index| index.move_messages(from, &uids, to, mark)).await
    }

    /// EXPUNGE: those of `uids` that have `\Deleted`. Says which, ascending.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMailbox`], or temporary ones.
    pub async fn expunge(&self, mailbox: MailboxId, uids: UidSet) -> Result<Vec<Uid>, StoreError> {
        self.write(move |index| index.expunge(mailbox, &uids, true)).await
    }

    /// Expunges messages whatever their flags (webmail, retention, Rejects).
    ///
    /// # Errors
    /// [`StoreError::NoSuchMailbox`], or temporary ones.
    pub async fn remove(&self, mailbox: MailboxId, uids: UidSet) -> Result<Vec<Uid>, StoreError> {
        self.write(move |index| index.expunge(mailbox, &uids, false)).await
    }

    /// Mutes or collapses the thread of a message.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMessage`], or temporary ones.
    pub async fn set_thread(
        &self,
        thread: MessageId,
        muted: Option<bool>,
        collapsed: Option<bool>,
    ) -> Result<ModSeq, StoreError> {
        self.write(move |index| index.set_thread(thread, muted, collapsed)).await
    }

    /// Annotations of a mailbox or of the server, by name.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn annotations(
        &self,
        mailbox: Option<MailboxId>,
    ) -> Result<Vec<Annotation>, StoreError> {
        self.read(move |view| settings::annotations(view.connection, mailbox)).await
    }

    /// Sets annotations, or takes away those without a value, all or none.
    ///
    /// # Errors
    /// [`StoreError::TooMany`], [`StoreError::NoSuchMailbox`], or temporary ones.
    pub async fn set_annotations(
        &self,
        mailbox: Option<MailboxId>,
        entries: Vec<AnnotationEntry>,
    ) -> Result<ModSeq, StoreError> {
        self.write(move |index| index.set_annotations(mailbox, entries)).await
    }

    /// A setting of the webmail or of a rule, by key.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn setting(&self, key: String) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |view| settings::setting(view.connection, &key)).await
    }

    /// Sets it, or takes it away.
    ///
    /// # Errors
    /// [`StoreError::TooMany`], or temporary ones.
    pub async fn set_setting(&self, key: String, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        self.write(move |index| index.set_setting(&key, value.as_deref())).await
    }

    /// What it uses.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn usage(&self) -> Result<Usage, StoreError> {
        self.read(|view| read::usage(view.connection)).await
    }

    /// Whether the account ever wrote to this address, or to anybody at this organisational domain
    /// when `localpart` is `None`.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn has_written_to(
        &self,
        localpart: Option<String>,
        domain: String,
    ) -> Result<bool, StoreError> {
        self.read(move |view| {
            outbox::has_written_to(view.connection, localpart.as_deref(), &domain)
        })
        .await
    }

    /// Messages judged junk or not that share `key`, newest first, at most `most` (1,000), not older
    /// than `since`, first delivered to `mailbox`.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn reputation(
        &self,
        key: ReputationKey,
        mailbox: Option<MailboxId>,
        since: UnixNanos,
        most: u32,
    ) -> Result<Vec<ReputationHit>, StoreError> {
        self.read(move |view| {
            reputation::hits(view.connection, &key, mailbox, since, most.min(1000))
        })
        .await
    }

    /// How often each word was in junk and in other mail, and the messages of both kinds learned.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn junk_words(
        &self,
        words: Vec<String>,
    ) -> Result<reputation::JunkCounts, StoreError> {
        self.read(move |view| reputation::junk_counts(view.connection, &words)).await
    }

    /// A message with this Message-ID (canonical) or content hash in a mailbox.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn find_same(
        &self,
        mailbox: MailboxId,
        message_id: Option<String>,
        hash: Option<[u8; 32]>,
    ) -> Result<Vec<Uid>, StoreError> {
        self.read(move |view| {
            reputation::find_same(view.connection, mailbox, message_id.as_deref(), hash)
        })
        .await
    }

    /// Puts new facts in place of the old ones, after the parser's version changed. Threads stay.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn reparsed(&self, all: Vec<Reparsed>) -> Result<(), StoreError> {
        self.write(move |index| index.reparsed(&all)).await
    }

    /// The version of the parser whose facts all messages have; 1 for a new account.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn parse_version(&self) -> Result<u32, StoreError> {
        self.read(|view| read::parse_version(view.connection)).await
    }

    /// Every message was parsed by this version.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn set_parse_version(&self, version: u32) -> Result<(), StoreError> {
        self.write(move |index| index.set_parse_version(version)).await
    }

    /// All contents behind `after`, in a fixed order; at most 1,000. For parsing everything again.
    ///
    /// # Errors
    /// Temporary ones.
    pub async fn contents(&self, after: Option<ContentId>) -> Result<Vec<ContentRef>, StoreError> {
        self.read(move |view| read::contents(view.connection, after)).await
    }

    /// Compares the account with what it should be (account-store §12), with `fix` mends counters
    /// and orphans. Deliveries come in between steps.
    ///
    /// # Errors
    /// When it cannot be opened or the disk fails.
    pub async fn verify(
        &self,
        fix: bool,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<Vec<Finding>, StoreError> {
        verify::run(&self.pool, &self.shared, fix, progress).await
    }
}
