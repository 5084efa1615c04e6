//! `Mailbox`: one open mailbox of one session, with its lease on what it can still name.

use super::{account::Rights, watched, wire};
use crate::{
    auth::live::Live,
    store::{
        self, ChangesFrom, ContentRef, CopyOutcome, FlagChange, Lease, MailboxId, MetaWanted,
        ModSeq, SmallData, StoreError, TextKey, Uid, UidSet,
    },
};
use ipc::{
    capnp,
    schema::account_capnp::{
        StoreOp, TextScope, content_outcome, copied, expunged, mailbox, stored,
    },
};
use std::{cell::RefCell, rc::Rc, sync::Arc};

/// Octets of content read together: the store decompresses each such block by itself.
const BLOCK: u64 = 262_144;
/// Octets of a search needle.
const MAX_NEEDLE: usize = 4_096;

pub(super) struct MailboxServer {
    live: Rc<Live>,
    account: store::Account,
    mailbox: MailboxId,
    writable: bool,
    /// Of the account this was opened from: copies leave this mailbox.
    rights: Rights,
    lease: Lease,
    /// Where changes() goes on inside a modseq that did not fit one answer.
    cursor: RefCell<Option<(ModSeq, ChangesFrom)>>,
}

impl MailboxServer {
    pub(super) fn new(
        live: Rc<Live>,
        account: store::Account,
        mailbox: MailboxId,
        writable: bool,
        rights: Rights,
        lease: Lease,
    ) -> Self {
        Self { live, account, mailbox, writable, rights, lease, cursor: RefCell::default() }
    }

    fn check(&self) -> Result<(), capnp::Error> {
        self.live.check().map_err(wire::revoked)
    }

    async fn block(&self, content: ContentRef, at: u64) -> Result<Vec<u8>, StoreError> {
        let len = u32::try_from(BLOCK - at % BLOCK).unwrap_or(u32::MAX);
        self.account.read_content(content, at, len).await
    }

    /// Copies or moves to a mailbox by name.
    async fn transfer(
        &self,
        uids: UidSet,
        to: &str,
        takes_away: bool,
    ) -> Result<CopyOutcome, StoreError> {
        if !self.rights.reaches(to) {
            return Err(StoreError::NoSuchMailbox);
        }
        let target = self.account.mailbox_by_name(to.to_owned()).await?;
        let outcome = if takes_away {
            self.account.move_messages(self.mailbox, uids, target.id, None).await
        } else {
            self.account.copy(self.mailbox, uids, target.id, None).await
        };
        match outcome {
            // It is this mailbox that was deleted, and its messages with it.
            Err(StoreError::NoSuchMailbox) if self.is_gone().await? => Ok(CopyOutcome {
                uidvalidity: target.uidvalidity,
                modseq: self.account.modseq().await?,
                ..CopyOutcome::default()
            }),
            outcome => outcome,
        }
    }

    /// Whether somebody deleted this mailbox while it was open here.
    async fn is_gone(&self) -> Result<bool, StoreError> {
        match self.account.mailbox(self.mailbox).await {
            Ok(_) => Ok(false),
            Err(StoreError::NoSuchMailbox) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

fn later(error: &StoreError) -> capnp::Error {
    tracing::warn!(%error, "a mailbox cannot be read");
    capnp::Error::overloaded(error.to_string())
}

fn set_copied(mut to: copied::Builder<'_>, outcome: Result<CopyOutcome, StoreError>) {
    match outcome {
        Ok(outcome) => {
            let from = wire::ranges(outcome.uids.iter().map(|(from, _)| *from));
            let target = wire::ranges(outcome.uids.iter().map(|(_, to)| *to));
            let mut group = to.init_done();
            group.set_uid_validity(outcome.uidvalidity);
            group.set_modseq(outcome.modseq);
            wire::set_ranges(group.reborrow().init_from(wire::count(from.len())), &from);
            wire::set_ranges(group.init_to(wire::count(target.len())), &target);
        }
        Err(StoreError::NoSuchMailbox) => to.set_missing(()),
        Err(StoreError::OverQuota) => to.set_over_quota(()),
        Err(StoreError::TooManyKeywords) => to.set_keyword_limit(()),
        Err(StoreError::DiskFull) => to.set_disk_full(()),
        Err(error) => {
            tracing::warn!(%error, "messages were not copied");
            to.set_temporary(());
        }
    }
}

impl mailbox::Server for MailboxServer {
    async fn rows(
        self: Rc<Self>,
        params: mailbox::RowsParams,
        mut results: mailbox::RowsResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let from = params.get_from_uid().max(1);
        let to = Some(params.get_to_uid()).filter(|to| *to != 0).unwrap_or(Uid::MAX);
        // Before the rows: what changes meanwhile is told again, never missed.
        let modseq = self.account.modseq().await.map_err(|e| later(&e))?;
        let uids = UidSet::from_ranges([from..=to]);
        let batch = self.account.rows(self.mailbox, uids, from).await.map_err(|e| later(&e))?;
        let mut to = results.get();
        to.set_modseq(modseq);
        to.set_more(batch.next.is_some());
        let mut rows = to.init_rows(wire::count(batch.rows.len()));
        for (at, row) in (0..).zip(&batch.rows) {
            wire::set_row(rows.reborrow().get(at), row);
        }
        Ok(())
    }

    async fn changes(
        self: Rc<Self>,
        params: mailbox::ChangesParams,
        mut results: mailbox::ChangesResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let since = params.get()?.get_since_modseq();
        let cursor = self.cursor.borrow_mut().take();
        let from = match cursor {
            Some((asked, from)) if asked == since => from,
            Some(_) | None => ChangesFrom { modseq: since, uid: Uid::MAX },
        };
        let info = match self.account.mailbox(self.mailbox).await {
            Ok(info) => info,
            Err(StoreError::NoSuchMailbox) => {
                results.get().set_gone(true);
                return Ok(());
            }
            Err(error) => return Err(later(&error)),
        };
        let changes = self.account.changes(self.mailbox, from).await.map_err(|e| later(&e))?;
        let keywords = self.account.keywords(self.mailbox).await.map_err(|e| later(&e))?;
        if let Some(more) = changes.more {
            *self.cursor.borrow_mut() = Some((changes.upto, more));
        }
        let count = changes.changed.len() + changes.gone.len();
        let mut to = results.get();
        to.set_modseq(changes.upto);
        to.set_more(changes.more.is_some());
        wire::set_mailbox(to.reborrow().init_info(), &info, &keywords)?;
        let mut rows = to.init_rows(wire::count(count));
        // Gone ones last and with the modseq of the whole batch: the last row's modseq is then where
        // the next call goes on.
        for (at, row) in (0..).zip(&changes.changed) {
            wire::set_row(rows.reborrow().get(at), row);
        }
        for (at, uid) in (wire::count(changes.changed.len())..).zip(&changes.gone) {
            let mut row = rows.reborrow().get(at);
            row.set_uid(*uid);
            row.set_expunged(true);
            row.set_modseq(changes.upto);
        }
        if let Some(last) = wire::count(count).checked_sub(1).filter(|_| changes.more.is_some()) {
            let modseq = rows.reborrow().get(last).into_reader().get_modseq();
            if let Some(cursor) = self.cursor.borrow_mut().as_mut() {
                cursor.0 = modseq;
            }
        }
        Ok(())
    }

    async fn meta(
        self: Rc<Self>,
        params: mailbox::MetaParams,
        mut results: mailbox::MetaResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let uids = wire::uids(params.get_uids()?)?;
        let want = params.get_want()?;
        let wanted = MetaWanted {
            envelope: want.get_envelope(),
            body_structure: want.get_structure(),
            sections: false,
            headers: want.get_headers(),
            preview: want.get_preview(),
        };
        let batch =
            self.account.metas(self.mailbox, uids, 1, wanted).await.map_err(|e| later(&e))?;
        let mut to = results.get();
        to.set_next_uid(batch.next.unwrap_or(0));
        let mut items = to.init_items(wire::count(batch.metas.len()));
        for (at, meta) in (0..).zip(&batch.metas) {
            let mut item = items.reborrow().get(at);
            item.set_uid(meta.uid);
            item.set_envelope(&meta.envelope);
            item.set_structure(&meta.body_structure);
            item.set_headers(&meta.headers);
            item.set_preview(meta.preview.as_deref().unwrap_or_default());
            item.set_sent_unix_ns(meta.sent.map_or(0, |sent| sent.0));
        }
        Ok(())
    }

    async fn content(
        self: Rc<Self>,
        params: mailbox::ContentParams,
        mut results: mailbox::ContentResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let (offset, length) = (params.get_offset(), params.get_length());
        let sink = params.get_sink()?;
        let mut to: content_outcome::Builder<'_> = results.get().init_outcome();
        let content = match self.account.content(self.mailbox, params.get_uid()).await {
            Ok(content) => content,
            Err(StoreError::NoSuchMessage | StoreError::ContentGone) => {
                to.set_missing(());
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(%error, "content cannot be read");
                to.set_temporary(());
                return Ok(());
            }
        };
        let end = if length == 0 { content.size } else { offset.saturating_add(length) };
        let end = end.min(content.size);
        let mut at = offset;
        while at < end {
            let block = match self.block(content, at).await {
                Ok(block) => block,
                Err(StoreError::ContentGone) => {
                    to.set_missing(());
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(%error, "content cannot be read");
                    to.set_temporary(());
                    return Ok(());
                }
            };
            if block.is_empty() {
                to.set_missing(());
                return Ok(());
            }
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(block.len());
            watched::send(&sink, &block[..wanted]).await?;
            at += wanted as u64;
        }
        watched::finish(&sink).await?;
        to.set_sent(at.saturating_sub(offset));
        Ok(())
    }

    async fn small(
        self: Rc<Self>,
        params: mailbox::SmallParams,
        mut results: mailbox::SmallResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let uids = wire::uids(params.get_uids()?)?;
        let max_each = u64::from(params.get_max_each());
        let batch =
            self.account.smalls(self.mailbox, uids, 1, max_each).await.map_err(|e| later(&e))?;
        let mut to = results.get();
        to.set_next_uid(batch.next.unwrap_or(0));
        let mut list = to.init_items(wire::count(batch.items.len()));
        for (at, small) in (0..).zip(&batch.items) {
            let mut item = list.reborrow().get(at);
            item.set_uid(small.uid);
            item.set_size(small.size);
            match &small.data {
                SmallData::Whole(data) => item.set_data(data),
                SmallData::TooLarge => item.set_too_large(true),
                SmallData::Gone => item.set_missing(true),
            }
        }
        Ok(())
    }

    async fn store(
        self: Rc<Self>,
        params: mailbox::StoreParams,
        mut results: mailbox::StoreResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let uids = wire::uids(params.get_uids()?)?;
        let (flags, keywords) = wire::flags(params.get_flags()?)?;
        let change = match params.get_op()? {
            StoreOp::Replace => FlagChange::Replace,
            StoreOp::Add => FlagChange::Add,
            StoreOp::Remove => FlagChange::Remove,
        };
        let unchanged =
            Some(params.get_unchanged_since()).filter(|_| params.get_has_unchanged_since());
        let mut to: stored::Builder<'_> = results.get().init_outcome();
        if !self.writable {
            to.set_read_only(());
            return Ok(());
        }
        let outcome =
            self.account.store_flags(self.mailbox, uids, change, flags, keywords, unchanged).await;
        match outcome {
            Ok(outcome) => {
                let modified = wire::ranges(outcome.modified.iter().copied());
                let mut group = to.init_done();
                group.set_modseq(outcome.modseq.unwrap_or(0));
                wire::set_ranges(group.init_modified(wire::count(modified.len())), &modified);
            }
            // Deleted with all its messages: none is left to change, and changes() says so.
            Err(StoreError::NoSuchMailbox) => to.init_done().set_modseq(0),
            Err(StoreError::TooManyKeywords) => to.set_keyword_limit(()),
            Err(StoreError::DiskFull) => to.set_disk_full(()),
            Err(error) => {
                tracing::warn!(%error, "flags were not stored");
                to.set_temporary(());
            }
        }
        Ok(())
    }

    async fn copy(
        self: Rc<Self>,
        params: mailbox::CopyParams,
        mut results: mailbox::CopyResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let uids = wire::uids(params.get_uids()?)?;
        let mut to = results.get().init_outcome();
        if !self.rights.writable {
            to.set_read_only(());
            return Ok(());
        }
        set_copied(to, self.transfer(uids, params.get_to()?.to_str()?, false).await);
        Ok(())
    }

    async fn move_(
        self: Rc<Self>,
        params: mailbox::MoveParams,
        mut results: mailbox::MoveResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let uids = wire::uids(params.get_uids()?)?;
        let mut to = results.get().init_outcome();
        if !self.writable {
            to.set_read_only(());
            return Ok(());
        }
        set_copied(to, self.transfer(uids, params.get_to()?.to_str()?, true).await);
        Ok(())
    }

    async fn expunge(
        self: Rc<Self>,
        params: mailbox::ExpungeParams,
        mut results: mailbox::ExpungeResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let asked = wire::uids(params.get_uids()?)?;
        let uids = if asked.is_empty() { UidSet::all() } else { asked };
        let mut to: expunged::Builder<'_> = results.get().init_outcome();
        if !self.writable {
            to.set_read_only(());
            return Ok(());
        }
        let outcome = if params.get_only_deleted() {
            self.account.expunge(self.mailbox, uids).await
        } else {
            self.account.remove(self.mailbox, uids).await
        };
        // As in store(): a mailbox that was deleted has nothing left to expunge.
        let outcome = match outcome {
            Err(StoreError::NoSuchMailbox) => Ok(Vec::new()),
            outcome => outcome,
        };
        match outcome {
            Ok(gone) => {
                let ranges = wire::ranges(gone);
                let modseq = self.account.modseq().await.map_err(|e| later(&e))?;
                let mut group = to.init_done();
                group.set_modseq(modseq);
                wire::set_ranges(group.init_uids(wire::count(ranges.len())), &ranges);
            }
            Err(StoreError::DiskFull) => to.set_disk_full(()),
            Err(error) => {
                tracing::warn!(%error, "messages were not expunged");
                to.set_temporary(());
            }
        }
        Ok(())
    }

    async fn search_text(
        self: Rc<Self>,
        params: mailbox::SearchTextParams,
        mut results: mailbox::SearchTextResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let needle = params.get_needle()?.to_str()?;
        let header = params.get_header()?.to_str()?;
        if needle.len() > MAX_NEEDLE || header.len() > MAX_NEEDLE {
            return Err(wire::broken("a search text above its bound"));
        }
        let field = |name: &str| TextKey::Header(name.to_owned(), needle.to_owned());
        let key = match params.get_scope()? {
            TextScope::Text => TextKey::Text(needle.to_owned()),
            TextScope::Body => TextKey::Body(needle.to_owned()),
            TextScope::Header => field(header),
            TextScope::Subject => field("Subject"),
            TextScope::From => field("From"),
            TextScope::To => field("To"),
            TextScope::Cc => field("Cc"),
            TextScope::Bcc => field("Bcc"),
        };
        let asked = wire::uids(params.get_uids()?)?;
        let uids = if asked.is_empty() { UidSet::all() } else { asked };
        let keys: Arc<[TextKey]> = [key].into();
        let mut found = Vec::new();
        let mut next = Some(1);
        // One slice of 10 ms after another; who drops the call ends it between two.
        while let Some(from) = next {
            self.check()?;
            let step =
                self.account.search(self.mailbox, uids.clone(), from, Arc::clone(&keys)).await;
            match step {
                Ok(batch) => {
                    found.extend(batch.hits.iter().map(|(uid, _)| *uid));
                    next = batch.next;
                }
                Err(error) => {
                    tracing::warn!(%error, "a search did not come to its end");
                    results.get().init_outcome().set_temporary(());
                    return Ok(());
                }
            }
        }
        let ranges = wire::ranges(found);
        let mut to = results.get();
        wire::set_ranges(to.reborrow().init_uids(wire::count(ranges.len())), &ranges);
        to.init_outcome().set_done(());
        Ok(())
    }

    async fn applied(
        self: Rc<Self>,
        params: mailbox::AppliedParams,
        _: mailbox::AppliedResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        self.lease.seen(params.get()?.get_modseq());
        Ok(())
    }
}
