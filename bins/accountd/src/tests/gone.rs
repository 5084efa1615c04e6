//! What is answered about a mailbox that was deleted.

use super::{append, open};
use ipc::schema::account_capnp::{account, copied, expunged, stored};

/// Somebody deletes it while it is open here: there is nothing left to do, and that is no fault.
pub(super) async fn what_a_deleted_mailbox_answers(account: &account::Client) {
    let mut request = account.create_request();
    request.get().set_name("100%");
    request.send().promise.await.unwrap();
    append(account, "100%", b"Subject: x\r\n\r\n").await;
    let (mailbox, total) = open(account, "100%", true).await;
    assert_eq!(total, 1);
    let mut request = account.delete_request();
    request.get().set_name("100%");
    request.send().promise.await.unwrap();
    let mut request = mailbox.store_request();
    request.get().init_uids(1).get(0).set_last(9);
    let answer = request.send().promise.await.unwrap();
    let outcome = answer.get().unwrap().get_outcome().unwrap().which().unwrap();
    assert!(matches!(outcome, stored::Which::Done(done) if done.get_modseq() == 0));
    let answer = mailbox.expunge_request().send().promise.await.unwrap();
    let outcome = answer.get().unwrap().get_outcome().unwrap().which().unwrap();
    assert!(matches!(outcome, expunged::Which::Done(_)));
    let mut request = mailbox.copy_request();
    request.get().set_to("Archive");
    request.get().init_uids(1).get(0).set_last(9);
    let answer = request.send().promise.await.unwrap();
    let outcome = answer.get().unwrap().get_outcome().unwrap().which().unwrap();
    assert!(matches!(outcome, copied::Which::Done(done) if done.get_from().unwrap().is_empty()));
    let mut request = mailbox.copy_request();
    request.get().set_to("Nowhere");
    let answer = request.send().promise.await.unwrap();
    let outcome = answer.get().unwrap().get_outcome().unwrap().which().unwrap();
    assert!(matches!(outcome, copied::Which::Missing(())));
    let answer = mailbox.changes_request().send().promise.await.unwrap();
    assert!(answer.get().unwrap().get_gone());
}
