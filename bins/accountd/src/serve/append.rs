//! `AppendSink`: a message of the user's own on its way into a mailbox.

use super::wire;
use crate::{
    auth::live::Live,
    intake::spool::{Crowded, Spool, SpoolError, Way},
    service::Service,
    store::{self, Flags, Keyword, MailboxId, NewMessage, StoreError, Stored},
};
use ipc::{
    capnp,
    schema::account_capnp::{append_sink, appended},
};
use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    rc::Rc,
};
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
    /// Whether the last octet was a CR; None where octets are kept as they are.
    after_cr: Option<Cell<bool>>,
}

/// Gives every line its CRLF: programs append files as they lie on their disk, and everything that
/// looks into a message later, DKIM and clients above all, counts on it.
fn with_crlf<'a>(chunk: &'a [u8], after_cr: &Cell<bool>) -> Cow<'a, [u8]> {
    let mut before = after_cr.get();
    after_cr.set(chunk.last().map_or(before, |last| *last == b'\r'));
    let mut out = Vec::new();
    let mut copied = 0;
    for (at, _) in chunk.iter().enumerate().filter(|(_, octet)| **octet == b'\n') {
        before = if at == 0 { before } else { chunk[at - 1] == b'\r' };
        if !before {
            out.extend_from_slice(&chunk[copied..at]);
            out.push(b'\r');
            copied = at;
        }
    }
    if out.is_empty() {
        return Cow::Borrowed(chunk);
    }
    out.extend_from_slice(&chunk[copied..]);
    Cow::Owned(out)
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
            SpoolError::ReadOnly => Refused::Store(StoreError::ReadOnly),
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
        binary: bool,
    ) -> Result<Self, Crowded> {
        let spool = RefCell::new(Some(service.spool(Way::Append)?));
        let after_cr = (!binary).then(Cell::default);
        Ok(Self { service, live, account, mailbox, marks, received, spool, after_cr })
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
        let chunk = match &self.after_cr {
            Some(after_cr) => with_crlf(chunk, after_cr),
            None => Cow::Borrowed(chunk),
        };
        let spool = spool.push(&chunk).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_get_their_cr_in_any_split() {
        let message = b"\na: b\r\nc\n\nd\r\r\ne\rf\n";
        for cut in 0..=message.len() {
            let after_cr = Cell::default();
            let mut out = with_crlf(&message[..cut], &after_cr).into_owned();
            out.extend_from_slice(&with_crlf(&message[cut..], &after_cr));
            assert_eq!(out, b"\r\na: b\r\nc\r\n\r\nd\r\r\ne\rf\r\n", "{cut}");
        }
        assert!(matches!(with_crlf(b"a\r\nb", &Cell::default()), Cow::Borrowed(_)));
    }
}
