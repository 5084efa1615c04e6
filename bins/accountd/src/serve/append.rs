//! `AppendSink`: a message of the user's own on its way into a mailbox.

use super::wire;
use crate::{
    auth::live::Live,
    intake::spool::{Spool, SpoolError},
    service::Service,
    store::{self, Flags, Keyword, MailboxId, NewMessage, StoreError, Stored},
};
use ipc::{
    capnp,
    schema::account_capnp::{append_sink, appended},
};
use std::{cell::RefCell, rc::Rc};
use types::UnixNanos;

/// `AppendSink.maxChunk`.
const MAX_CHUNK: usize = 65_536;

pub(super) struct AppendServer {
    service: Rc<Service>,
    live: Rc<Live>,
    account: store::Account,
    mailbox: MailboxId,
    marks: (Flags, Vec<Keyword>),
    received: UnixNanos,
    spool: RefCell<Option<Spool>>,
}

enum Refused {
    DiskFull,
    Temporary,
    Store(StoreError),
}

impl From<SpoolError> for Refused {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::TooLarge => Refused::Store(StoreError::TooLarge),
            SpoolError::DiskFull => Refused::DiskFull,
            SpoolError::Io(error) => {
                tracing::error!(error, "an append could not be spooled");
                Refused::Temporary
            }
        }
    }
}

impl AppendServer {
    pub(super) fn new(
        service: Rc<Service>,
        live: Rc<Live>,
        account: store::Account,
        mailbox: MailboxId,
        marks: (Flags, Vec<Keyword>),
        received: UnixNanos,
    ) -> Self {
        let spool = RefCell::new(Some(service.spool()));
        Self { service, live, account, mailbox, marks, received, spool }
    }

    async fn store(&self) -> Result<Stored, Refused> {
        let spool = self.spool.borrow_mut().take().ok_or(Refused::Temporary)?;
        let message = spool.finish()?;
        if self.service.is_disk_low() {
            return Err(Refused::DiskFull);
        }
        let parsed = self.service.parsers.parse(&message).await.map_err(|_| Refused::Temporary)?;
        let content = message.content().map_err(SpoolError::from)?;
        let target = store::Target::Mailbox(self.mailbox);
        let mut copy = NewMessage::new(target, content, self.received);
        copy.facts = parsed.facts;
        (copy.flags, copy.keywords) = self.marks.clone();
        let stored = self.account.append(vec![copy]).await.map_err(Refused::Store)?;
        stored.into_iter().next().ok_or(Refused::Temporary)
    }
}

impl append_sink::Server for AppendServer {
    async fn write(self: Rc<Self>, params: append_sink::WriteParams) -> Result<(), capnp::Error> {
        let chunk = params.get()?.get_chunk()?;
        if chunk.len() > MAX_CHUNK {
            return Err(wire::broken("a chunk above its bound"));
        }
        // Chunks come one at a time, so nobody else looks for the spool meanwhile.
        let spool = self.spool.borrow_mut().take();
        let spool = spool.ok_or_else(|| wire::broken("a chunk after the end"))?;
        let spool = spool.push(chunk).await;
        *self.spool.borrow_mut() = Some(spool);
        Ok(())
    }

    async fn commit(
        self: Rc<Self>,
        _: append_sink::CommitParams,
        mut results: append_sink::CommitResults,
    ) -> Result<(), capnp::Error> {
        self.live.check().map_err(wire::revoked)?;
        let outcome = self.store().await;
        let mut to: appended::Builder<'_> = results.get().init_outcome();
        match outcome {
            Ok(stored) => {
                let mut group = to.init_stored();
                group.set_uid_validity(stored.uidvalidity);
                group.set_uid(stored.uid);
                group.set_modseq(stored.modseq);
            }
            Err(Refused::DiskFull | Refused::Store(StoreError::DiskFull)) => to.set_disk_full(()),
            Err(Refused::Temporary) => to.set_temporary(()),
            // Too large is over what the account can have; the session has refused the honest case
            // by the literal's length before.
            Err(Refused::Store(StoreError::OverQuota | StoreError::TooLarge)) => {
                to.set_over_quota(());
            }
            Err(Refused::Store(StoreError::NoSuchMailbox)) => to.set_missing(()),
            Err(Refused::Store(StoreError::TooManyKeywords)) => to.set_keyword_limit(()),
            Err(Refused::Store(error)) => {
                tracing::warn!(%error, "an append was not stored");
                to.set_temporary(());
            }
        }
        Ok(())
    }
}
