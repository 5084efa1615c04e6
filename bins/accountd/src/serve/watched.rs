//! Telling a watcher that something moved on: at most one call is on its way, only the newest number
//! counts, and the watch ends with its handle, with the watcher, or with the right it came from.

use ipc::{
    capnp,
    schema::types_capnp::{handle, watched},
};
use std::time::Duration;

/// A watcher that has not answered after this is gone, or stuck, and gets nothing more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends a task when it is dropped.
pub(super) struct TaskHandle(tokio::task::JoinHandle<()>);

impl Drop for TaskHandle {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl handle::Server for TaskHandle {}

/// Holds a value while the peer holds the handle.
struct Held<T: 'static> {
    _value: T,
}

impl<T: 'static> handle::Server for Held<T> {}

/// A handle that holds `value`.
pub(super) fn holding<T: 'static>(value: T) -> handle::Client {
    ipc::new_client(Held { _value: value })
}

/// Calls `sink` with each number that `next` gives, and tells it the end when `revoked` comes.
pub(super) fn watch(
    sink: watched::Client,
    mut next: impl AsyncFnMut() -> u64 + 'static,
    revoked: impl Future<Output = &'static str> + 'static,
) -> handle::Client {
    let task = tokio::task::spawn_local(async move {
        let mut revoked = std::pin::pin!(revoked);
        loop {
            tokio::select! {
                biased;
                why = &mut revoked => {
                    let mut request = sink.revoked_request();
                    request.get().set_why(why);
                    // Whether the watcher heard it does not matter: its next call fails anyhow.
                    let _ = ipc::within(PATIENCE, request.send().promise).await;
                    return;
                }
                number = next() => {
                    let mut request = sink.changed_request();
                    request.get().set_number(number);
                    if ipc::within(PATIENCE, request.send().promise).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    ipc::new_client(TaskHandle(task))
}

/// Sends octets into a peer's sink in chunks, each awaited, so that a slow reader slows us and not
/// our memory.
pub(super) async fn send(
    sink: &ipc::schema::types_capnp::byte_sink::Client,
    octets: &[u8],
) -> Result<(), capnp::Error> {
    for chunk in octets.chunks(MAX_CHUNK) {
        let mut request = sink.write_request();
        request.get().set_chunk(chunk);
        ipc::within(PATIENCE, request.send())
            .await
            .map_err(|why| capnp::Error::failed(why.to_string()))?;
    }
    Ok(())
}

/// Tells a sink that this was all.
pub(super) async fn finish(
    sink: &ipc::schema::types_capnp::byte_sink::Client,
) -> Result<(), capnp::Error> {
    ipc::within(PATIENCE, sink.end_request().send().promise)
        .await
        .map(|_| ())
        .map_err(|why| capnp::Error::failed(why.to_string()))
}

/// `ByteSink.maxChunk`.
const MAX_CHUNK: usize = 65_536;
