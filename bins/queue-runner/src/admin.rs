//! `QueueAdmin`: the administrator's view of the queue, for moxctl over the control socket.

use crate::{
    queue::{Message, PAGE, Recipient},
    run::Shared,
    spool,
};
use ipc::{
    Limits, Stream, capnp,
    schema::control_capnp::{problem, queue_admin, queue_filter, queue_item},
};
use std::{rc::Rc, time::Duration};
use tokio::net::UnixListener;
use types::{QueueId, SubmissionId};

/// What is read from the spool and sent at once.
const CHUNK: usize = 64 * 1024;

/// Ids one filter may name.
const MAX_FILTER_IDS: u32 = 1_000;

/// The pause after accept() failed for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

fn bootstrap(shared: &Rc<Shared>) -> capnp::capability::Client {
    let client: queue_admin::Client = ipc::new_client(Admin(Rc::clone(shared)));
    client.client
}

/// Serves moxctl. Whoever is not allowed is hung up on; moxctl tells its user why.
pub(crate) async fn control(
    shared: &Rc<Shared>,
    listener: &UnixListener,
    allowed: &dyn Fn(u32) -> bool,
) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let uid = socket.peer_cred().map(|cred| cred.uid());
                if !uid.as_ref().is_ok_and(|&uid| allowed(uid)) {
                    tracing::warn!(?uid, "control: refused by uid");
                    continue;
                }
                if let Ok(stream) = Stream::from_unix(socket) {
                    let served = ipc::serve(stream, bootstrap(shared), Limits::default());
                    tokio::task::spawn_local(served);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "control: accept");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

struct Admin(Rc<Shared>);

/// Which recipients are meant.
struct Filter {
    ids: Vec<QueueId>,
    account: String,
    from: String,
    to: String,
    all: bool,
}

impl Filter {
    fn read(filter: queue_filter::Reader<'_>) -> Result<Self, capnp::Error> {
        let ids = filter.get_ids()?;
        if ids.len() > MAX_FILTER_IDS {
            return Err(capnp::Error::failed("too many ids in a filter".into()));
        }
        let bad = |_| capnp::Error::failed("not a queue id".into());
        Ok(Self {
            ids: ids
                .iter()
                .map(|id| QueueId::try_from(id?).map_err(bad))
                .collect::<Result<_, _>>()?,
            account: filter.get_account()?.to_string()?,
            from: filter.get_from()?.to_string()?,
            to: filter.get_to()?.to_string()?,
            all: filter.get_all(),
        })
    }

    /// Nothing given means nothing, not everything: a slip must not drop the queue.
    fn matches(&self, recipient: &Recipient, message: &Message) -> bool {
        let given = !self.ids.is_empty()
            || !self.account.is_empty()
            || !self.from.is_empty()
            || !self.to.is_empty();
        (given || self.all)
            && (self.ids.is_empty() || self.ids.contains(&recipient.queue_id))
            && (self.account.is_empty() || self.account == message.account)
            && address_matches(&self.from, &message.from)
            && address_matches(&self.to, &recipient.address)
    }
}

/// `@domain` or a whole address; empty matches all.
fn address_matches(wanted: &str, address: &str) -> bool {
    if wanted.is_empty() {
        return true;
    }
    if wanted.starts_with('@') {
        return address
            .rfind('@')
            .and_then(|at| address.get(at..))
            .is_some_and(|domain| domain.eq_ignore_ascii_case(wanted));
    }
    address.eq_ignore_ascii_case(wanted)
}

fn fault(error: impl std::fmt::Display) -> capnp::Error {
    capnp::Error::overloaded(error.to_string())
}

/// Runs work in a task of its own: a method's future ends where it is when its caller hangs up.
async fn to_its_end<T: 'static>(
    work: impl Future<Output = Result<T, capnp::Error>> + 'static,
) -> Result<T, capnp::Error> {
    tokio::task::spawn_local(work).await.map_err(fault)?
}

impl Admin {
    /// A page of the queue.
    async fn page(
        &self,
        after: Option<QueueId>,
    ) -> Result<Vec<(Recipient, Message)>, capnp::Error> {
        let page = self.0.worker.run(move |shelf| shelf.list(after)).await;
        page.map_err(fault)?.map_err(fault)
    }

    /// Every recipient the filter means, page by page.
    async fn matching(&self, filter: &Filter) -> Result<Vec<QueueId>, capnp::Error> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(after).await?;
            after = page.last().map(|(recipient, _)| recipient.queue_id);
            let whole = page.len() == PAGE;
            found.extend(
                page.iter()
                    .filter(|(recipient, message)| filter.matches(recipient, message))
                    .map(|(recipient, _)| recipient.queue_id),
            );
            if !whole {
                return Ok(found);
            }
        }
    }
}

impl queue_admin::Server for Admin {
    async fn list(
        self: Rc<Self>,
        params: queue_admin::ListParams,
        mut results: queue_admin::ListResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let filter = Filter::read(params.get_filter()?)?;
        let after = params.get_after()?;
        let bad = |_| capnp::Error::failed("not a queue id".into());
        let mut after = match after {
            [] => None,
            id => Some(QueueId::try_from(id).map_err(bad)?),
        };
        let mut kept = Vec::new();
        // On to the next page while the filter leaves nothing of this one: an answer with `more` is
        // never empty, so its last id always moves the caller on.
        let more = loop {
            let page = self.page(after).await?;
            let more = page.len() == PAGE;
            after = page.last().map(|(recipient, _)| recipient.queue_id);
            kept.extend(page.into_iter().filter(|(r, m)| filter.matches(r, m)));
            if !more || !kept.is_empty() {
                break more;
            }
        };
        let mut results = results.get();
        results.set_more(more);
        let mut items = results.init_items(u32::try_from(kept.len()).unwrap_or(0));
        for (at, (recipient, message)) in (0..).zip(&kept) {
            encode(recipient, message, items.reborrow().get(at));
        }
        Ok(())
    }

    async fn retry(
        self: Rc<Self>,
        params: queue_admin::RetryParams,
        mut results: queue_admin::RetryResults,
    ) -> Result<(), capnp::Error> {
        let filter = Filter::read(params.get()?.get_filter()?)?;
        let whole = async move {
            let ids = self.matching(&filter).await?;
            let (count, now) = (ids.len() as u64, self.0.clock.now());
            let done = self.0.worker.run(move |shelf| shelf.retry(&ids, now)).await;
            done.map_err(fault)?.map_err(fault)?;
            self.0.changed.notify_one();
            Ok::<_, capnp::Error>(count)
        };
        results.get().set_count(to_its_end(whole).await?);
        Ok(())
    }

    async fn drop(
        self: Rc<Self>,
        params: queue_admin::DropParams,
        mut results: queue_admin::DropResults,
    ) -> Result<(), capnp::Error> {
        let filter = Filter::read(params.get()?.get_filter()?)?;
        let whole = async move {
            let ids = self.matching(&filter).await?;
            let (count, now) = (ids.len() as u64, self.0.clock.now());
            let gone: Vec<_> = ids.iter().map(|&id| (id, crate::queue::Settled::Gone)).collect();
            let done = self.0.worker.run(move |shelf| shelf.settle(&gone, &[], now)).await;
            done.map_err(fault)?.map_err(fault)?;
            for id in &ids {
                tracing::info!(queue_id = %id, "dropped by the administrator");
            }
            Ok::<_, capnp::Error>(count)
        };
        results.get().set_count(to_its_end(whole).await?);
        Ok(())
    }

    async fn show(
        self: Rc<Self>,
        params: queue_admin::ShowParams,
        mut results: queue_admin::ShowResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let sink = params.get_sink()?;
        let id = QueueId::try_from(params.get_queue_id()?).ok();
        let found = match id {
            Some(id) => self.0.worker.run(move |shelf| shelf.submission_of(id)).await,
            None => Ok(Ok(None)),
        };
        let Some(submission) = found.map_err(fault)?.map_err(fault)? else {
            let mut problem = results.get().init_problem();
            problem.set_kind(problem::Kind::Missing);
            problem.set_text("no such message in the queue");
            return Ok(());
        };
        let mut offset = 0;
        loop {
            let chunk = self.0.worker.run(move |s| spool::read(s, submission, offset, CHUNK)).await;
            let chunk = chunk.map_err(fault)?.map_err(fault)?;
            if chunk.is_empty() {
                break;
            }
            offset += chunk.len() as u64;
            let mut request = sink.write_request();
            request.get().set_chunk(&chunk);
            request.send().await?;
        }
        sink.end_request().send().promise.await?;
        Ok(())
    }

    async fn status(
        self: Rc<Self>,
        _: queue_admin::StatusParams,
        mut results: queue_admin::StatusResults,
    ) -> Result<(), capnp::Error> {
        let counts = self.0.worker.run(|shelf| shelf.counts()).await;
        let (all, deferred) = counts.map_err(fault)?.map_err(fault)?;
        let in_hand = self.0.in_hand.borrow().len();
        let lines = [
            ("queued", all.to_string()),
            ("deferred", deferred.to_string()),
            ("in delivery", in_hand.to_string()),
        ];
        let mut list = results.get().init_lines(3);
        for (at, (key, value)) in (0..).zip(&lines) {
            let mut line = list.reborrow().get(at);
            line.set_key(key);
            line.set_value(value.as_bytes());
        }
        Ok(())
    }
}

fn encode(recipient: &Recipient, message: &Message, mut item: queue_item::Builder<'_>) {
    item.set_id(recipient.queue_id.as_bytes());
    item.set_account(&message.account);
    item.set_from(&message.from);
    item.set_to(&recipient.address);
    item.set_size(message.size);
    item.set_queued_unix_ns(message.queued.0);
    item.set_next_attempt_unix_ns(recipient.next_attempt.0);
    item.set_attempts(recipient.attempts);
    item.set_last_error(&recipient.last_error);
    item.set_submission(message.submission.as_bytes());
}

impl crate::worker::Shelf {
    /// The message a recipient belongs to.
    fn submission_of(&mut self, id: QueueId) -> Result<Option<SubmissionId>, storage::Error> {
        use storage::rusqlite::OptionalExtension as _;
        self.database.read(|db| {
            db.query_row(
                "SELECT submission FROM recipient WHERE queue_id = ?1",
                [id.as_bytes()],
                |row| row.get(0).map(SubmissionId::from_bytes),
            )
            .optional()
            .map_err(storage::Error::from)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_match_whole_or_by_domain() {
        assert!(address_matches("", "a@x.example"));
        assert!(address_matches("A@X.example", "a@x.example"));
        assert!(address_matches("@x.example", "a@X.example"));
        assert!(!address_matches("@x.example", "a@y.x.example"));
        assert!(!address_matches("@x.example", ""));
    }
}
