//! `Outbox` and `Delivery`: the queue's side. queue-runner pulls; accountd never calls it.

use super::{watched, wire};
use crate::{
    intake::{
        deliver::Identity,
        header,
        recipients::{self, Recipient},
        refusal::Refusal,
        special::{self, Place, Special},
        spool::Spool,
    },
    outbox::{Item, owner},
    service::Service,
};
use ipc::{
    capnp,
    schema::queue_capnp::{delivered, delivery, delivery_sink, item, outbox},
};
use mailauth::trace;
use std::{cell::RefCell, rc::Rc};
use types::{Address, QueueId, ReversePath, SubmissionId};

/// `Outbox.maxTake`.
const MAX_TAKE: u32 = 100;
/// `DeliverySink.maxChunk`.
const MAX_CHUNK: usize = 65_536;
/// Octets of content read together.
const BLOCK: u32 = 262_144;
/// Addresses of one isLocal().
const MAX_ADDRESSES: u32 = 1_000;

pub(super) struct OutboxServer {
    pub(super) service: Rc<Service>,
}

fn submission(octets: &[u8]) -> Result<SubmissionId, capnp::Error> {
    SubmissionId::try_from(octets).map_err(|_| wire::broken("a submission of 16 octets"))
}

impl outbox::Server for OutboxServer {
    async fn watch(
        self: Rc<Self>,
        params: outbox::WatchParams,
        mut results: outbox::WatchResults,
    ) -> Result<(), capnp::Error> {
        let sink = params.get()?.get_sink()?;
        let mut commits = self.service.outboxes.watch();
        let next = async move || {
            if commits.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            *commits.borrow_and_update()
        };
        results.get().set_handle(watched::watch(sink, next, std::future::pending()));
        Ok(())
    }

    async fn take(
        self: Rc<Self>,
        params: outbox::TakeParams,
        mut results: outbox::TakeResults,
    ) -> Result<(), capnp::Error> {
        let max = params.get()?.get_max().clamp(1, MAX_TAKE);
        let max = usize::try_from(max).unwrap_or(1);
        let (items, more) = self.service.outbox_take(max).await;
        let mut to = results.get();
        to.set_more(more);
        let mut list = to.init_items(wire::count(items.len()));
        for (at, one) in (0..).zip(&items) {
            set_item(&self.service, list.reborrow().get(at), one);
        }
        Ok(())
    }

    async fn content(
        self: Rc<Self>,
        params: outbox::ContentParams,
        mut results: outbox::ContentResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let id = submission(params.get_submission()?)?;
        let sink = params.get_sink()?;
        let later = |error: crate::store::StoreError| {
            tracing::warn!(%error, submission = %id, "an outbox row cannot be read");
            capnp::Error::overloaded(error.to_string())
        };
        let Some(content) = self.service.outbox_content(id).await.map_err(later)? else {
            results.get().set_found(false);
            return Ok(());
        };
        let account = self.service.store.account(owner(id));
        let mut at = 0;
        while at < content.size {
            let block = account.read_content(content, at, BLOCK).await.map_err(later)?;
            if block.is_empty() {
                return Err(capnp::Error::failed("content is shorter than it was".into()));
            }
            watched::send(&sink, &block).await?;
            at += block.len() as u64;
        }
        watched::finish(&sink).await?;
        results.get().set_found(true);
        Ok(())
    }

    async fn done(
        self: Rc<Self>,
        params: outbox::DoneParams,
        _: outbox::DoneResults,
    ) -> Result<(), capnp::Error> {
        let id = submission(params.get()?.get_submission()?)?;
        self.service.outbox_done(id).await.map_err(|error| {
            tracing::warn!(%error, submission = %id, "an outbox row could not be removed");
            capnp::Error::overloaded(error.to_string())
        })
    }
}

fn set_item(service: &Service, mut to: item::Builder<'_>, item: &Item) {
    let snapshot = service.directories.now();
    let name = snapshot.directory.account_by_id(item.account).map(|a| a.name.as_str());
    to.set_submission(item.entry.id.as_bytes());
    to.set_account(name.unwrap_or_default());
    to.set_from(item.envelope.from.as_str());
    to.set_size(item.entry.content.size);
    to.set_header_length(item.envelope.header_length);
    to.set_smtputf8(item.envelope.smtputf8);
    to.set_eight_bit(item.envelope.eight_bit);
    to.set_require_tls(item.envelope.require_tls);
    to.set_submitted_unix_ns(item.entry.submitted.0);
    to.set_not_before_unix_ns(item.entry.release.map_or(0, |release| release.0));
    to.set_message_id(item.envelope.message_id.as_str());
    to.set_subject(item.envelope.subject.as_str());
    let mut list = to.init_recipients(wire::count(item.envelope.recipients.len()));
    for (at, address) in (0..).zip(&item.envelope.recipients) {
        let mut recipient = list.reborrow().get(at);
        recipient.set_address(address.as_str());
        recipient.set_local(is_local(service, address));
    }
}

fn is_local(service: &Service, address: &str) -> bool {
    let snapshot = service.directories.now();
    address.parse::<Address>().is_ok_and(|a| snapshot.directory.is_local(a.domain()))
}

pub(super) struct DeliveryServer {
    pub(super) service: Rc<Service>,
}

impl delivery::Server for DeliveryServer {
    async fn deliver(
        self: Rc<Self>,
        params: delivery::DeliverParams,
        mut results: delivery::DeliverResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let queue = QueueId::try_from(params.get_queue_id()?)
            .map_err(|_| wire::broken("a queue id of 10 octets"))?;
        let from = ReversePath::from_inner(params.get_from()?.to_str()?)
            .map_err(|_| wire::broken("no reverse-path"))?;
        let prefix = params.get_header_prefix()?.to_str()?;
        if !trace::is_fields(prefix) {
            return Err(wire::broken("a prefix that is no header"));
        }
        let sink = DeliverySink {
            queue,
            prefix: format!("{}{prefix}", header::return_path(&from)),
            to: params.get_to()?.to_str()?.to_owned(),
            notification: params.get_notification(),
            spool: RefCell::new(Some(self.service.spool_from_queue().map_err(wire::later)?)),
            service: Rc::clone(&self.service),
        };
        results.get().set_sink(ipc::new_client(sink));
        Ok(())
    }

    async fn is_local(
        self: Rc<Self>,
        params: delivery::IsLocalParams,
        mut results: delivery::IsLocalResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let addresses = params.get_addresses()?;
        if addresses.len() > MAX_ADDRESSES {
            return Err(wire::broken("too many addresses"));
        }
        let from = ReversePath::from_inner(params.get_from()?.to_str()?)
            .map_err(|_| wire::broken("no reverse-path"))?;
        results.get().set_suspended(from.address().is_some_and(|a| {
            let snapshot = self.service.directories.now();
            snapshot.directory.domain(a.domain()).is_some_and(|domain| !domain.enabled)
        }));
        let mut list = results.get().init_local(addresses.len());
        for (at, address) in (0..).zip(addresses.iter()) {
            list.set(at, is_local(&self.service, address?.to_str()?));
        }
        Ok(())
    }
}

/// A queued message for one local recipient.
struct DeliverySink {
    service: Rc<Service>,
    queue: QueueId,
    prefix: String,
    to: String,
    /// Of the queue's own, to who sent something.
    notification: bool,
    spool: RefCell<Option<Spool>>,
}

enum Outcome {
    Stored,
    Duplicate,
    NotLocal,
    Refused(Refusal),
}

impl DeliverySink {
    async fn take(&self) -> Result<Outcome, Refusal> {
        let service = &self.service;
        let spool = self.spool.borrow_mut().take().ok_or_else(Refusal::ours)?;
        let message = spool.finish()?.with_prefix(self.prefix.clone().into_bytes());
        let asked = self.to.parse::<Address>().ok().filter(|_| service.settings.is_local);
        match asked.and_then(|address| Special::of(&address, Place::Queue)) {
            Some(Special::Refuse(refusal)) => return Err(refusal),
            Some(Special::Timeout) => {
                tokio::time::sleep(special::TIMEOUT).await;
                return Err(Refusal::ours());
            }
            None => {}
        }
        if service.is_disk_low() {
            return Err(Refusal::disk_full());
        }
        let parsed = service.parsers.parse(&message).await?;
        let authors: Vec<Address> =
            parsed.from_addresses.iter().filter_map(|text| text.parse().ok()).collect();
        let from = if self.notification {
            recipients::From::Queue(&authors)
        } else {
            recipients::From::Authors(&authors)
        };
        let targets = match recipients::resolve_now(&service.directories, &self.to, from) {
            Recipient::Targets(targets) => targets,
            Recipient::Remote => return Ok(Outcome::NotLocal),
            Recipient::Unknown => return Err(Refusal::unknown_recipient()),
            Recipient::Refused(refusal) => return Err(refusal),
        };
        let identity = Identity::Queue(self.queue);
        let was_there = !targets.is_empty();
        let repeat = service.deliver(&message, &parsed, targets, &identity).await?;
        Ok(if repeat && was_there { Outcome::Duplicate } else { Outcome::Stored })
    }
}

impl delivery_sink::Server for DeliverySink {
    async fn write(self: Rc<Self>, params: delivery_sink::WriteParams) -> Result<(), capnp::Error> {
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
        _: delivery_sink::CommitParams,
        mut results: delivery_sink::CommitResults,
    ) -> Result<(), capnp::Error> {
        let outcome = self.take().await.unwrap_or_else(Outcome::Refused);
        let mut to: delivered::Builder<'_> = results.get().init_outcome();
        match outcome {
            Outcome::Stored => to.set_stored(()),
            Outcome::Duplicate => to.set_duplicate(()),
            Outcome::NotLocal => to.set_not_local(()),
            Outcome::Refused(refusal) if refusal == Refusal::ours() => to.set_fault(()),
            Outcome::Refused(refusal) => {
                let mut group = to.init_refused();
                group.set_code(refusal.code);
                group.set_enhanced(refusal.enhanced.as_str());
                group.set_text(refusal.text.as_str());
            }
        }
        Ok(())
    }
}
