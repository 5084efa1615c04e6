//! What comes again because its sender did not hear the answer, and what only looks like it.

use super::{
    Bench, LoggedIn, PASSWORD, RECEIVED, Taken, TakenSink, content, deliver, give, log_in,
    on_a_local_set, open, rcpt, session, set_peer, submit,
};
use ipc::{
    Role,
    schema::{
        accountd_capnp::{mx_door, queue_door, submission_door},
        control_capnp::{account_admin, problem},
        inbound_capnp::{begun, message_sink, submitter},
        queue_capnp::outbox,
    },
};
use std::rc::Rc;

/// Submissions that wait for the queue.
async fn waiting(bench: &Bench) -> u32 {
    let queue: queue_door::Client = bench.door(Role::QueueRunner, 0).await;
    let outbox: outbox::Client = queue.outbox_request().send().pipeline.get_outbox();
    let mut request = outbox.take_request();
    request.get().set_max(10);
    let response = request.send().promise.await.unwrap();
    response.get().unwrap().get_items().unwrap().len()
}

const BOB: &str = "bob@example.org";

/// Bob's right to send.
pub(super) async fn submitter(bench: &Bench) -> submitter::Client {
    bench.set_password("bob", PASSWORD).await;
    let door: submission_door::Client = bench.door(Role::SmtpdSubmission, 0).await;
    let authenticator = door.authenticator_request().send().pipeline.get_authenticator();
    match log_in(&authenticator, BOB, PASSWORD).await.unwrap() {
        LoggedIn::Submitter(submitter, _) => submitter,
        _ => panic!("no submitter"),
    }
}

#[test]
fn a_submission_that_comes_again_is_the_first_one() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        let submitter = submitter(&bench).await;
        let bob = BOB;
        let send = async |to: &[&str], message: &str| {
            let message = format!("From: {bob}\r\n{message}");
            submit(&submitter, bob, to, message.as_bytes()).await.unwrap()
        };
        let named = "Message-ID: <1@pc.example>\r\n\r\nhi\r\n";
        let first = send(&["x@elsewhere.example"], named).await;
        assert_eq!(send(&["x@elsewhere.example"], named).await, first);
        assert_eq!(waiting(&bench).await, 1, "nothing was added");
        // To somebody else, or with other words, it is another one.
        assert_ne!(send(&["y@elsewhere.example"], named).await, first);
        let other = "Message-ID: <1@pc.example>\r\n\r\nho\r\n";
        assert_ne!(send(&["x@elsewhere.example"], other).await, first);
        assert_eq!(waiting(&bench).await, 3);
        // A script that says the same twice means it.
        let alarm = "Subject: the disk is full\r\n\r\n";
        let one = send(&["x@elsewhere.example"], alarm).await;
        assert_ne!(send(&["x@elsewhere.example"], alarm).await, one);
        assert_eq!(waiting(&bench).await, 5);
        bench.stop().await;
    });
}

#[test]
fn a_submission_that_was_heard_is_none_that_comes_again() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        let submitter = submitter(&bench).await;
        // Held until then, in the client's words; gives what was answered, and who hears whether that
        // was heard.
        let send = async |until: i64, asked: &str| -> (String, message_sink::Client) {
            let mut request = submitter.begin_request();
            set_peer(request.get().init_peer());
            request.get().set_from(BOB);
            let mut extra = request.get().init_extra();
            extra.set_hold_until_unix_ns(until);
            extra.set_hold_asked(asked);
            let response = request.send().promise.await.unwrap();
            let outcome = response.get().unwrap().get_outcome().unwrap().which().unwrap();
            let begun::Which::Transaction(transaction) = outcome else { panic!("refused") };
            let transaction = transaction.unwrap();
            assert_eq!(rcpt(&transaction, "x@elsewhere.example").await, 250);
            let sink = transaction.data_request().send().pipeline.get_sink();
            let message = b"From: bob@example.org\r\nMessage-ID: <1@pc.example>\r\n\r\nhi\r\n";
            (give(&sink, message).await.unwrap(), sink)
        };
        let hears = async |sink: message_sink::Client| {
            sink.heard_request().send().promise.await.unwrap();
        };
        let (first, answer) = send(0, "").await;
        hears(answer).await;
        let (second, _) = send(0, "").await;
        assert_ne!(second, first, "it is meant");
        let (again, answer) = send(0, "").await;
        assert_eq!(again, second, "of that nobody knows");
        // That it was taken before is an answer that is heard, too.
        hears(answer).await;
        let (third, _) = send(0, "").await;
        assert_ne!(third, second);
        assert_eq!(waiting(&bench).await, 3);

        // For later, and for still later; "in a minute" is another time when it is said again.
        let (later, _) = send(2_000_000_000_000_000_000, "60").await;
        assert_eq!(send(2_000_000_001_000_000_000, "60").await.0, later);
        assert_ne!(send(2_000_000_060_000_000_000, "120").await.0, later);
        assert_ne!(later, third);
        assert_eq!(waiting(&bench).await, 5);
        bench.stop().await;
    });
}

async fn set_quota(admin: &account_admin::Client, bytes: u64) {
    let read = admin.directory_read_request().send().promise.await.unwrap();
    let read = read.get().unwrap();
    let text = String::from_utf8(read.get_text().unwrap().to_vec()).unwrap();
    let others = text.lines().filter(|line| !line.starts_with("quota"));
    let text = others.collect::<Vec<_>>().join("\n");
    let text = text.replace("[account.bob]", &format!("[account.bob]\nquota = \"{bytes}B\""));
    let mut request = admin.directory_write_request();
    request.get().set_text(text.as_bytes());
    request.get().set_revision(read.get_revision());
    let response = request.send().promise.await.unwrap();
    let problem = response.get().unwrap().get_problem().unwrap();
    assert_eq!(problem.get_kind().unwrap(), problem::Kind::None, "{:?}", problem.get_text());
}

#[test]
fn mail_without_a_message_id_comes_again_only_to_who_lacks_it() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        for name in ["ann", "bob"] {
            bench.set_password(name, PASSWORD).await;
        }
        let admin = bench.admin().await;
        let mx: mx_door::Client = bench.door(Role::SmtpdMx, 0).await;
        let both = ["ann@example.org", "bob@example.org"];
        let alarm = b"Subject: the disk is full\r\n\r\n".as_slice();
        let (ann, _, _) = session(&bench, both[0]).await;
        let (bob, _, _) = session(&bench, both[1]).await;
        let counts =
            async || (open(&ann, "INBOX", false).await.1, open(&bob, "Work/In", false).await.1);
        deliver(&mx, &["bob@example.org"], b"Message-ID: <1@x>\r\n\r\n").await.unwrap();
        assert_eq!(counts().await, (0, 1));

        // For bob there is no room for a second one; ann has it, whether the sender comes again for both or, as bob
        // is refused before DATA, for ann alone.
        set_quota(&admin, 200).await;
        assert_eq!(deliver(&mx, &both, alarm).await, Err(452));
        assert_eq!(counts().await, (1, 1));
        assert_eq!(deliver(&mx, &both, alarm).await, Err(452));
        assert_eq!(counts().await, (1, 1));
        set_quota(&admin, 100_000).await;
        deliver(&mx, &both, alarm).await.unwrap();
        assert_eq!(counts().await, (1, 2));

        // It was taken: the next alarm is another one.
        deliver(&mx, &both, alarm).await.unwrap();
        assert_eq!(counts().await, (2, 3));
        deliver(&mx, &both[..1], alarm).await.unwrap();
        deliver(&mx, &both[..1], alarm).await.unwrap();
        assert_eq!(counts().await, (4, 3));

        // As above, and the repeat is for ann alone.
        set_quota(&admin, 450).await;
        assert_eq!(deliver(&mx, &both, alarm).await, Err(452));
        deliver(&mx, &both[..1], alarm).await.unwrap();
        assert_eq!(counts().await, (5, 3));
        deliver(&mx, &both[..1], alarm).await.unwrap();
        assert_eq!(counts().await, (6, 3));
        bench.stop().await;
    });
}

#[test]
fn results_in_our_name_are_removed_and_a_repeat_is_known() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        let submitter = submitter(&bench).await;
        let mx: mx_door::Client = bench.door(Role::SmtpdMx, 0).await;
        let forged = "Authentication-Results: (x)\r\n MAIL.example.org; dkim=pass\r\n";
        let others = "Authentication-Results: mx.elsewhere.example; spf=pass\r\n";
        // Larger than one chunk and than what stays in memory.
        let body = "Authentication-Results: mail.example.org; x\r\n".repeat(2_000);
        let left = format!("Message-ID: <1@x>\r\n{others}From: {BOB}\r\n\r\n{body}");
        let message = left.replace("From", &format!("{forged}From"));
        for _ in 0..2 {
            deliver(&mx, &[BOB], format!("{forged}{message}").as_bytes()).await.unwrap();
        }
        let (bob, _, _) = session(&bench, BOB).await;
        let (inbox, count) = open(&bob, "Work/In", false).await;
        assert_eq!(count, 1);
        let stored = content(&inbox, 1).await;
        assert!(stored.ends_with(&format!("{RECEIVED}{left}")), "{stored:.999}");

        // Nor may a user write them.
        let first = submit(&submitter, BOB, &["x@elsewhere.example"], message.as_bytes()).await;
        let again = submit(&submitter, BOB, &["x@elsewhere.example"], message.as_bytes()).await;
        assert!(first.is_ok() && first == again);
        let queue: queue_door::Client = bench.door(Role::QueueRunner, 0).await;
        let outbox: outbox::Client = queue.outbox_request().send().pipeline.get_outbox();
        let mut request = outbox.take_request();
        request.get().set_max(10);
        let response = request.send().promise.await.unwrap();
        let items = response.get().unwrap().get_items().unwrap();
        assert_eq!(items.len(), 1);
        let taken = Rc::new(Taken::default());
        let mut request = outbox.content_request();
        request.get().set_submission(items.get(0).get_submission().unwrap());
        request.get().set_sink(ipc::new_client(TakenSink(Rc::clone(&taken))));
        assert!(request.send().promise.await.unwrap().get().unwrap().get_found());
        assert!(String::from_utf8(taken.octets.take()).unwrap().ends_with(&left));

        // Text alone stays whole; the empty line above it is ours.
        deliver(&mx, &[BOB], format!("text\r\n{forged}").as_bytes()).await.unwrap();
        assert!(content(&inbox, 2).await.ends_with(&format!("{RECEIVED}\r\ntext\r\n{forged}")));
        deliver(&mx, &[BOB], format!("{forged}text\r\n").as_bytes()).await.unwrap();
        assert!(content(&inbox, 3).await.ends_with(&format!("{RECEIVED}\r\ntext\r\n")));
        bench.stop().await;
    });
}
