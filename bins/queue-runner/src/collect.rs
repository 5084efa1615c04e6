//! The sink that a body is streamed into: straight to a spool file on the queue's thread, one chunk
//! at a time, so that the sender waits for the disk and nothing piles up here.

use crate::{
    spool::Draft,
    worker::{Shelf, Worker},
};
use ipc::{capnp, schema::types_capnp::byte_sink};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};
use storage::Error;
use types::SubmissionId;

/// The most octets a queued message may have, whatever its sender announced: the largest message
/// any listener may be configured to take.
const MAX_OCTETS: u64 = 1 << 31;

/// What has been collected so far.
pub(crate) struct Collector {
    worker: Worker,
    draft: RefCell<Option<Draft>>,
    ended: Cell<bool>,
}

impl Collector {
    pub(crate) async fn begin(
        worker: &Worker,
        submission: SubmissionId,
    ) -> anyhow::Result<Rc<Self>> {
        let draft = worker.run(move |shelf| Draft::begin(shelf, submission)).await??;
        let (draft, ended) = (RefCell::new(Some(draft)), Cell::new(false));
        Ok(Rc::new(Self { worker: worker.clone(), draft, ended }))
    }

    /// The capability to stream into it.
    pub(crate) fn sink(self: &Rc<Self>) -> byte_sink::Client {
        ipc::new_client(Sink(Rc::clone(self)))
    }

    /// Makes it durable; its length, or `None` when the sender did not come to the end.
    pub(crate) async fn finish(&self) -> anyhow::Result<Option<u64>> {
        let draft = self.draft.borrow_mut().take();
        match (draft, self.ended.get()) {
            (Some(draft), true) => {
                let finish = move |shelf: &mut Shelf| draft.finish(shelf);
                Ok(Some(self.worker.run(finish).await??))
            }
            _ => Ok(None),
        }
    }

    async fn append(&self, chunk: Vec<u8>) -> Result<(), Failed> {
        let mut draft = self.draft.borrow_mut().take().ok_or(Failed::Over)?;
        if draft.length() + chunk.len() as u64 > MAX_OCTETS {
            return Err(Failed::Over);
        }
        let work = move |_: &mut Shelf| draft.append(&chunk).map(|()| draft);
        let draft = self.worker.run(work).await.map_err(|_| Failed::Over)??;
        *self.draft.borrow_mut() = Some(draft);
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the sink is over")]
    Over,
    #[error(transparent)]
    Disk(#[from] Error),
}

struct Sink(Rc<Collector>);

impl byte_sink::Server for Sink {
    async fn write(self: Rc<Self>, params: byte_sink::WriteParams) -> Result<(), capnp::Error> {
        let chunk = params.get()?.get_chunk()?;
        if chunk.len() > byte_sink::MAX_CHUNK as usize {
            return Err(capnp::Error::failed("chunk too long".into()));
        }
        let chunk = chunk.to_vec();
        self.0.append(chunk).await.map_err(|e| capnp::Error::failed(e.to_string()))
    }

    async fn end(
        self: Rc<Self>,
        _: byte_sink::EndParams,
        _: byte_sink::EndResults,
    ) -> Result<(), capnp::Error> {
        self.0.ended.set(true);
        Ok(())
    }
}
