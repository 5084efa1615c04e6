//! What is different on a development server.

use super::*;

#[test]
fn a_development_server_takes_everything() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let slice = r#"{"hostname":"localhost","imap_sessions":2,"seed":{"account":"mox",
            "address":"mox@localhost","password":"correct horse","admin_password":"moxadmin"}}"#;
        let bench = Bench::start_with(folder.path(), slice);
        // The account is made in the background; until then a log-in fails.
        let front: front_door::Client = bench.door(Role::ImapdFront, 0).await;
        let authenticator = front.authenticator_request().send().pipeline.get_authenticator();
        while log_in(&authenticator, "mox@localhost", PASSWORD).await.is_err() {
            let admin = bench.admin().await;
            admin.limits_clear_request().send().promise.await.unwrap();
        }
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
