//! Content of messages: streamed from accountd towards the client, and from the client to accountd.

use super::account::Trouble;
use ipc::{
    capnp,
    schema::{
        account_capnp::{append_sink, appended, content_outcome, mailbox},
        types_capnp::byte_sink,
    },
    within,
};
use std::{ops::AsyncFnMut, pin::pin, rc::Rc, time::Duration};
use tokio::sync::mpsc;

/// The next chunk of a content, or the end of it.
const CHUNK: Duration = Duration::from_secs(30);
/// The commit of an APPEND: the message is parsed and judged before it is stored.
const COMMIT: Duration = Duration::from_secs(120);

/// Takes chunks from accountd. At most one waits: a client that reads slowly slows accountd down.
struct Sink(mpsc::Sender<Vec<u8>>);

impl byte_sink::Server for Sink {
    async fn write(self: Rc<Self>, params: byte_sink::WriteParams) -> Result<(), capnp::Error> {
        let chunk = params.get()?.get_chunk()?;
        if chunk.len() > byte_sink::MAX_CHUNK as usize {
            return Err(capnp::Error::failed("chunk too long".into()));
        }
        let chunk = chunk.to_vec();
        self.0.send(chunk).await.map_err(|_| capnp::Error::failed("nobody reads any more".into()))
    }

    async fn end(
        self: Rc<Self>,
        _: byte_sink::EndParams,
        _: byte_sink::EndResults,
    ) -> Result<(), capnp::Error> {
        Ok(())
    }
}

/// How a content ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streamed {
    /// All of it came.
    Whole,
    /// The message is gone for good.
    Missing,
}

/// Reads `from..to` of a message and gives each chunk to `each`, which may stop it.
pub(super) async fn stream<E: From<Trouble>>(
    mailbox: &mailbox::Client,
    uid: u32,
    (from, to): (u64, u64),
    mut each: impl AsyncFnMut(&[u8]) -> Result<(), E>,
) -> Result<Streamed, E> {
    let wanted = to.saturating_sub(from);
    if wanted == 0 {
        return Ok(Streamed::Whole);
    }
    let (sender, mut chunks) = mpsc::channel(1);
    let mut request = mailbox.content_request();
    let mut params = request.get();
    params.set_uid(uid);
    params.set_offset(from);
    params.set_length(wanted);
    params.set_sink(ipc::new_client(Sink(sender)));
    let mut call = pin!(request.send().promise);
    let mut answer = None;
    let mut got = 0u64;
    loop {
        let next = async {
            tokio::select! {
                biased;
                chunk = chunks.recv() => Ok(chunk),
                answer = &mut call, if answer.is_none() => Err(answer),
            }
        };
        match tokio::time::timeout(CHUNK, next).await.map_err(|_| Trouble::Away)? {
            Ok(Some(chunk)) => {
                got = got.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
                if got > wanted {
                    tracing::error!("accountd sent more content than was asked for");
                    return Err(Trouble::Away.into());
                }
                each(&chunk).await?;
            }
            // The sink is gone, so all chunks came: what is left is the answer.
            Ok(None) if answer.is_some() => break,
            Ok(None) => {
                let last = tokio::time::timeout(CHUNK, &mut call).await;
                answer = Some(last.map_err(|_| Trouble::Away)?);
                break;
            }
            Err(result) => {
                let failed = result.is_err();
                answer = Some(result);
                if failed {
                    break;
                }
                // Chunks sent before the answer were written before it; at most one waits.
                if let Ok(chunk) = chunks.try_recv() {
                    got = got.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
                    each(&chunk).await?;
                }
                break;
            }
        }
    }
    let Some(Ok(answer)) = answer else { return Err(Trouble::Away.into()) };
    let outcome = || -> Result<Option<Streamed>, capnp::Error> {
        Ok(match answer.get()?.get_outcome()?.which()? {
            content_outcome::Sent(_) => Some(Streamed::Whole),
            content_outcome::Missing(()) => Some(Streamed::Missing),
            content_outcome::Temporary(()) => None,
        })
    };
    match outcome().map_err(Trouble::from)? {
        Some(Streamed::Whole) if got == wanted => Ok(Streamed::Whole),
        Some(Streamed::Missing) => Ok(Streamed::Missing),
        Some(Streamed::Whole) | None => Err(Trouble::Away.into()),
    }
}

/// The message of an APPEND on its way to accountd.
pub(super) struct Appending {
    sink: append_sink::Client,
}

impl Appending {
    pub(super) fn new(sink: append_sink::Client) -> Self {
        Self { sink }
    }

    /// Passes octets on; waits while accountd is behind.
    pub(super) async fn write(&mut self, octets: &[u8]) -> Result<(), Trouble> {
        for chunk in octets.chunks(append_sink::MAX_CHUNK as usize) {
            let mut request = self.sink.write_request();
            request.get().set_chunk(chunk);
            within(CHUNK, request.send()).await?;
        }
        Ok(())
    }

    /// Asks for it to be stored. Only the answer says that it was.
    pub(super) async fn commit<T>(
        self,
        read: impl FnOnce(appended::Reader<'_>) -> Result<T, capnp::Error>,
    ) -> Result<T, Trouble> {
        let answer = within(COMMIT, self.sink.commit_request().send().promise).await?;
        Ok(read(answer.get()?.get_outcome()?)?)
    }
}
