//! An `Account` with fewer rights: each refuses what it was not given, and none gets it back.

use super::*;
use ipc::schema::account_capnp::expunged;

/// What an Account is narrowed to.
#[derive(Clone, Copy)]
struct Scope {
    writable: bool,
    mailbox: &'static str,
    append_only: bool,
}

const ALL: Scope = Scope { writable: true, mailbox: "", append_only: false };

async fn narrow(account: &account::Client, scope: Scope) -> Option<account::Client> {
    let mut request = account.narrow_request();
    let mut to = request.get().init_scope();
    to.set_writable(scope.writable);
    to.set_mailbox(scope.mailbox);
    to.set_append_only(scope.append_only);
    let response = request.send().promise.await.ok()?;
    Some(response.get().unwrap().get_account().unwrap())
}

/// Names of mailboxes it lists, and of subscriptions.
async fn list(account: &account::Client) -> (Vec<String>, Vec<String>) {
    let response = account.mailboxes_request().send().promise.await.unwrap();
    let answer = response.get().unwrap();
    let names = answer.get_list().unwrap().iter().map(|info| info.get_name().unwrap());
    let subscribed = answer.get_subscriptions().unwrap().iter().map(Result::unwrap);
    let text = |name: capnp::text::Reader<'_>| name.to_str().unwrap().to_owned();
    (names.map(text).collect(), subscribed.map(text).collect())
}

async fn may_open(account: &account::Client, name: &str) -> bool {
    let mut request = account.open_request();
    request.get().set_name(name);
    request.get().set_writable(true);
    let response = request.send().promise.await.unwrap();
    match response.get().unwrap().get_outcome().unwrap().which().unwrap() {
        opened::Which::Mailbox(_) => true,
        opened::Which::Missing(()) => false,
        opened::Which::Temporary(()) => panic!("temporary"),
    }
}

/// The UID a message gets, or why it gets none.
async fn try_append(account: &account::Client, name: &str) -> Result<u32, &'static str> {
    let mut request = account.append_request();
    request.get().set_mailbox(name);
    let response = request.send().promise.await.unwrap();
    match response.get().unwrap().get_outcome().unwrap().which().unwrap() {
        append_started::Which::Sink(_) => Ok(append(account, name, b"a: b\r\n\r\n").await.unwrap()),
        append_started::Which::Missing(()) => Err("missing"),
        append_started::Which::ReadOnly(()) => Err("read-only"),
        append_started::Which::OverQuota(())
        | append_started::Which::TooLarge(())
        | append_started::Which::KeywordLimit(())
        | append_started::Which::Temporary(()) => Err("another reason"),
    }
}

/// Copies or moves everything: whether it was done, or why not.
async fn take(mailbox: &mailbox::Client, to: &str, takes_away: bool) -> Result<(), &'static str> {
    let outcome = |outcome: copied::Reader<'_>| match outcome.which().unwrap() {
        copied::Which::Done(_) => Ok(()),
        copied::Which::Missing(()) => Err("missing"),
        copied::Which::ReadOnly(()) => Err("read-only"),
        copied::Which::OverQuota(())
        | copied::Which::Temporary(())
        | copied::Which::KeywordLimit(())
        | copied::Which::DiskFull(()) => Err("another reason"),
    };
    if takes_away {
        let mut request = mailbox.move_request();
        request.get().set_to(to);
        request.get().init_uids(1).get(0).set_last(9);
        let response = request.send().promise.await.unwrap();
        outcome(response.get().unwrap().get_outcome().unwrap())
    } else {
        let mut request = mailbox.copy_request();
        request.get().set_to(to);
        request.get().init_uids(1).get(0).set_last(9);
        let response = request.send().promise.await.unwrap();
        outcome(response.get().unwrap().get_outcome().unwrap())
    }
}

/// How many messages it finds by their text.
async fn found(mailbox: &mailbox::Client) -> u32 {
    let mut request = mailbox.search_text_request();
    request.get().set_needle("some text");
    request.get().set_scope(ipc::schema::account_capnp::TextScope::Body);
    let response = request.send().promise.await.unwrap();
    response.get().unwrap().get_uids().unwrap().len()
}

/// Create, rename, delete, subscribe: each is refused.
async fn assert_arranges_nothing(account: &account::Client) {
    let refused = |outcome: mailbox_outcome::Reader<'_>| {
        assert!(matches!(outcome.which().unwrap(), mailbox_outcome::Which::ReadOnly(())));
    };
    let mut request = account.create_request();
    request.get().set_name("New");
    let response = request.send().promise.await.unwrap();
    refused(response.get().unwrap().get_outcome().unwrap());
    let mut request = account.rename_request();
    request.get().set_from("Archive");
    request.get().set_to("New");
    let response = request.send().promise.await.unwrap();
    refused(response.get().unwrap().get_outcome().unwrap());
    let mut request = account.delete_request();
    request.get().set_name("Archive");
    let response = request.send().promise.await.unwrap();
    refused(response.get().unwrap().get_outcome().unwrap());
    let mut request = account.subscribe_request();
    request.get().set_name("Archive");
    request.get().set_on(false);
    let response = request.send().promise.await.unwrap();
    refused(response.get().unwrap().get_outcome().unwrap());
}

#[test]
fn fewer_rights_are_fewer_and_stay_so() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        bench.set_password("ann", PASSWORD).await;
        let mx: mx_door::Client = bench.door(Role::SmtpdMx, 0).await;
        deliver(&mx, &["ann@example.org"], MESSAGE).await.unwrap();
        let (whole, _, _) = session(&bench, "ann@example.org").await;
        let (names, subscribed) = list(&whole).await;
        assert!(names.len() > 2 && subscribed.len() > 2, "{names:?} {subscribed:?}");

        // Reads everything, changes nothing; asked for more, it stays what it is.
        let reader = narrow(&whole, Scope { writable: false, ..ALL }).await.unwrap();
        for account in [&reader, &narrow(&reader, ALL).await.unwrap()] {
            assert_eq!(list(account).await, (names.clone(), subscribed.clone()));
            let (inbox, total) = open(account, "INBOX", true).await;
            assert_eq!((total, found(&inbox).await), (1, 1));
            assert!(content(&inbox, 1).await.contains("Some text"));
            assert_eq!(take(&inbox, "Archive", false).await, Err("read-only"));
            assert_eq!(take(&inbox, "Archive", true).await, Err("read-only"));
            assert_eq!(try_append(account, "INBOX").await, Err("read-only"));
            let stored = inbox.store_request().send().promise.await.unwrap();
            let outcome = stored.get().unwrap().get_outcome().unwrap().which().unwrap();
            assert!(matches!(outcome, stored::Which::ReadOnly(())));
            let expunged = inbox.expunge_request().send().promise.await.unwrap();
            let outcome = expunged.get().unwrap().get_outcome().unwrap().which().unwrap();
            assert!(matches!(outcome, expunged::Which::ReadOnly(())));
            assert_arranges_nothing(account).await;
        }

        // One mailbox, however it is spelled: no other is seen, and nothing goes to one.
        let one = narrow(&whole, Scope { mailbox: "inbox", ..ALL }).await.unwrap();
        let again = narrow(&one, Scope { mailbox: "INBOX", ..ALL }).await.unwrap();
        for account in [&one, &narrow(&one, ALL).await.unwrap(), &again] {
            let inbox = vec!["Inbox".to_owned()];
            assert_eq!(list(account).await, (inbox.clone(), inbox));
            assert!(!may_open(account, "Archive").await);
            let (inbox, total) = open(account, "INBOX", true).await;
            assert_eq!((total, found(&inbox).await), (1, 1));
            assert_eq!(take(&inbox, "Archive", false).await, Err("missing"));
            assert_eq!(take(&inbox, "Archive", true).await, Err("missing"));
            assert_eq!(try_append(account, "Archive").await, Err("missing"));
            assert_arranges_nothing(account).await;
            assert!(narrow(account, Scope { mailbox: "Archive", ..ALL }).await.is_none());
        }
        assert_eq!(try_append(&one, "INBOX").await, Ok(2));

        // Puts in, and sees nothing of what is there.
        let append_only = Scope { append_only: true, ..ALL };
        let adder = narrow(&whole, append_only).await.unwrap();
        for account in [&adder, &narrow(&adder, ALL).await.unwrap()] {
            assert_eq!(list(account).await, (Vec::new(), Vec::new()));
            assert!(!may_open(account, "INBOX").await);
            assert!(try_append(account, "Archive").await.is_ok());
            assert_arranges_nothing(account).await;
        }
        let one = narrow(&adder, Scope { mailbox: "Archive", ..ALL }).await.unwrap();
        assert_eq!(try_append(&one, "Archive").await, Ok(3));
        assert_eq!(try_append(&one, "INBOX").await, Err("missing"));
        let none = narrow(&reader, append_only).await.unwrap();
        assert_eq!(try_append(&none, "Archive").await, Err("read-only"));
        // Nothing of all this came through.
        assert_eq!(list(&whole).await, (names, subscribed));
        assert_eq!(open(&whole, "INBOX", false).await.1, 2);
        assert_eq!(open(&whole, "Archive", false).await.1, 3);
        bench.stop().await;
    });
}
