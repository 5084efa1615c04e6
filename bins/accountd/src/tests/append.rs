//! Appending a message, as a session does.

use ipc::schema::account_capnp::{account, append_sink, append_started, appended};

/// The UID it gets; none where there is no such mailbox.
pub(super) async fn append(
    account: &account::Client,
    mailbox: &str,
    message: &[u8],
) -> Option<u32> {
    let mut request = account.append_request();
    request.get().set_mailbox(mailbox);
    let response = request.send().promise.await.unwrap();
    let outcome = response.get().unwrap().get_outcome().unwrap().which().unwrap();
    let append_started::Which::Sink(sink) = outcome else {
        assert!(matches!(outcome, append_started::Which::Missing(())));
        return None;
    };
    let sink: append_sink::Client = sink.unwrap();
    let mut request = sink.write_request();
    request.get().set_chunk(message);
    request.send().await.unwrap();
    let response = sink.commit_request().send().promise.await.unwrap();
    let outcome = response.get().unwrap().get_outcome().unwrap().which().unwrap();
    let appended::Which::Stored(stored) = outcome else { panic!("not stored") };
    Some(stored.get_uid())
}
