//! The interface `Outbound`: decode, deliver, encode.

use crate::{
    Shared,
    content::Content,
    dialogue::{self, Report, Said, Whose},
    job::Job,
};
use ipc::{
    capnp,
    schema::outbound_capnp::{self, delivery, outbound, recipient_result},
};
use smtp::{Response, client::RecipientResult};
use std::{rc::Rc, sync::Arc};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
};

/// Jobs at once.
const MAX_JOBS: usize = 256;

/// Bounds the jobs at once.
pub(crate) struct Slots(Arc<Semaphore>);

impl Default for Slots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_JOBS)))
    }
}

struct Outbound {
    shared: Rc<Shared>,
    slots: Rc<Slots>,
}

pub(crate) fn bootstrap(shared: &Rc<Shared>, slots: &Rc<Slots>) -> capnp::capability::Client {
    let outbound = Outbound { shared: Rc::clone(shared), slots: Rc::clone(slots) };
    let client: outbound::Client = ipc::new_client(outbound);
    client.client
}

impl outbound::Server for Outbound {
    async fn deliver(
        self: Rc<Self>,
        params: outbound::DeliverParams,
        mut results: outbound::DeliverResults,
    ) -> Result<(), capnp::Error> {
        let job = Job::read(params.get()?.get_job()?)?;
        let slot = Arc::clone(&self.slots.0)
            .try_acquire_owned()
            .map_err(|_| capnp::Error::overloaded("too many jobs".into()))?;
        let (chunks, content) = mpsc::channel(1);
        let shared = Rc::clone(&self.shared);
        let content = Content::new(content);
        let running =
            tokio::task::spawn_local(async move { dialogue::run(&shared, &job, content).await });
        results.get().set_delivery(ipc::new_client(Delivery {
            chunks,
            running: Mutex::new(Some(running)),
            _slot: slot,
        }));
        Ok(())
    }
}

/// A job under way. Dropping it cancels the dialogue.
struct Delivery {
    chunks: mpsc::Sender<Option<Vec<u8>>>,
    running: Mutex<Option<JoinHandle<Report>>>,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(running) = self.running.get_mut() {
            running.abort();
        }
    }
}

impl delivery::Server for Delivery {
    async fn write(self: Rc<Self>, params: delivery::WriteParams) -> Result<(), capnp::Error> {
        let chunk = params.get()?.get_chunk()?;
        if chunk.len() > delivery::MAX_CHUNK as usize {
            return Err(capnp::Error::failed("chunk too long".into()));
        }
        // A dialogue that is over wants no content; that is no error.
        let _ = self.chunks.send(Some(chunk.to_vec())).await;
        Ok(())
    }

    async fn finish(
        self: Rc<Self>,
        _: delivery::FinishParams,
        mut results: delivery::FinishResults,
    ) -> Result<(), capnp::Error> {
        let _ = self.chunks.send(None).await;
        let mut running = self.running.lock().await;
        let Some(job) = running.as_mut() else {
            return Err(capnp::Error::failed("finished before".into()));
        };
        let done = job.await;
        // Whatever came out: a task that ended must not be awaited again.
        *running = None;
        let report = done.map_err(|error| capnp::Error::failed(error.to_string()))?;
        encode(&report, results.get().init_report());
        Ok(())
    }
}

fn encode(report: &Report, mut to: outbound_capnp::report::Builder<'_>) {
    to.set_next_host(&report.host);
    to.set_tls_used(report.tls);
    // The dialogue bounds both lists far below u32.
    let mut lines = to.reborrow().init_log(u32::try_from(report.log.len()).unwrap_or(0));
    for (at, line) in (0..).zip(&report.log) {
        lines.set(at, line);
    }
    let count = u32::try_from(report.results.len()).unwrap_or(0);
    let mut list = to.init_recipients(count);
    let again = Response::made(452, (4, 5, 3), "the server takes fewer recipients at once");
    let untried = Response::made(451, (4, 3, 0), "not tried");
    for (at, told) in (0..).zip(&report.results) {
        let mut entry = list.reborrow().get(at);
        entry.set_address(told.to.to_string());
        let (kind, response) = match told.said.as_ref().map(|said| &said.result) {
            Some(RecipientResult::Delivered(response)) => {
                (recipient_result::Kind::Delivered, response)
            }
            Some(RecipientResult::Permanent(response)) => {
                (recipient_result::Kind::Permanent, response)
            }
            Some(RecipientResult::Temporary(response)) => {
                (recipient_result::Kind::Temporary, response)
            }
            // The content is gone: it comes again with the next attempt.
            Some(RecipientResult::Another) => (recipient_result::Kind::Temporary, &again),
            None => (recipient_result::Kind::Temporary, &untried),
        };
        // RFC 3464 §2.3.5: only of what a server said may be reported that it said so.
        if let Some(Said { whose: Whose::Theirs, host, result }) = &told.said
            && *result != RecipientResult::Another
        {
            entry.set_remote_host(host);
        }
        entry.set_kind(kind);
        entry.set_code(response.code());
        entry.set_text(response.text());
        if let Some(enhanced) = response.enhanced() {
            entry.set_enhanced(enhanced.to_string());
        }
    }
}
