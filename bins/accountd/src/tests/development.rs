//! What is different on a development server.

use super::*;

async fn start(folder: &std::path::Path) -> Bench {
    let slice = r#"{"hostname":"localhost","imap_sessions":2,"seed":{"account":"mox",
        "address":"mox@localhost","password":"correct horse","admin_password":"moxadmin"}}"#;
    let bench = Bench::start_with(folder, slice);
    // The account is made in the background; until then a log-in fails.
    let front: front_door::Client = bench.door(Role::ImapdFront, 0).await;
    let authenticator = front.authenticator_request().send().pipeline.get_authenticator();
    while log_in(&authenticator, "mox@localhost", PASSWORD).await.is_err() {
        let admin = bench.admin().await;
        admin.limits_clear_request().send().promise.await.unwrap();
    }
    bench
}

#[test]
fn names_fail_where_they_say() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = start(folder.path()).await;
        let mx: mx_door::Client = bench.door(Role::SmtpdMx, 0).await;
        let hello = ("client.example", true);
        for (from, code) in [("mailfrom452@x.example", 452), ("mailfrompermerror@x.example", 550)] {
            assert_eq!(try_begin(&mx, hello, from).await.err(), Some(code), "{from}");
        }
        // At another place such a name is a name: a sender asks for nothing at RCPT or DATA.
        let transaction = begin(&mx, "rcptto451@x.example").await;
        assert_eq!(rcpt(&transaction, "mailfrom452@localhost").await, 250);
        assert_eq!(rcpt(&transaction, "queue554@localhost").await, 250);
        data(&transaction, MESSAGE).await.unwrap();
        let queue: queue_door::Client = bench.door(Role::QueueRunner, 0).await;
        let delivery = queue.delivery_request().send().pipeline.get_delivery();
        assert_eq!(from_queue(&delivery, "queue554@localhost", MESSAGE).await, "554");
        assert_eq!(from_queue(&delivery, "queuetemperror@localhost", MESSAGE).await, "451");

        // What asks for no answer gets none, while others are served.
        let hung = try_begin(&mx, hello, "mailfromtimeout@x.example");
        let transaction = begin(&mx, "sender@elsewhere.example").await;
        let to_recipient = rcpt(&transaction, "rcpttotimeout@localhost");
        let delivered = begin(&mx, "sender@elsewhere.example").await;
        assert_eq!(rcpt(&delivered, "x-timeout@localhost").await, 250);
        let at_data = data(&delivered, MESSAGE);
        let at_queue = from_queue(&delivery, "queuetimeout@localhost", MESSAGE);
        let meanwhile = deliver(&mx, &["ann@localhost"], b"Message-ID: <2@x>\r\n\r\n");
        tokio::select! {
            biased;
            _ = hung => panic!("MAIL was answered"),
            _ = to_recipient => panic!("RCPT was answered"),
            _ = at_data => panic!("DATA was answered"),
            _ = at_queue => panic!("the queue was answered"),
            taken = meanwhile => drop(taken.unwrap()),
        }
        bench.stop().await;
    });
}

#[test]
fn a_development_server_takes_everything() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = start(folder.path()).await;
        let mx: mx_door::Client = bench.door(Role::SmtpdMx, 0).await;
        deliver(&mx, &["anybody@anywhere.example"], MESSAGE).await.unwrap();
        assert_eq!(deliver(&mx, &["x-permerror@anywhere.example"], MESSAGE).await, Err(550));
        assert_eq!(deliver(&mx, &["x-452@anywhere.example"], MESSAGE).await, Err(452));
        let transaction = begin(&mx, "").await;
        assert_eq!(rcpt(&transaction, "rcptto451@anywhere.example").await, 451);
        let (account, _, _) = session(&bench, "mox@localhost").await;
        let (_, total) = open(&account, "INBOX", false).await;
        assert_eq!(total, 1);
        bench.stop().await;
    });
}
