//! What tells that a client heard the answer to its message, and what does not.

use super::{Client, Lab, Seen, connect, lab, local, serve_accountd, tls};
use base64::Engine as _;
use ipc::Line;
use smtp::server::Role;
use smtpd::Doors;
use std::{rc::Rc, time::Duration};
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream},
    sync::Notify,
};
use tokio_rustls::client::TlsStream;

const CONTENT: &str = "From: <alice@example.org>\r\n\r\nx\r\n.\r\n";

type User = Client<TlsStream<DuplexStream>>;

/// Where content is asked for.
async fn at_data(lab: &Lab, doors: &Doors) -> User {
    let mut client = tls(lab, connect(lab, doors)).await;
    client.hello().await;
    let login = base64::engine::general_purpose::STANDARD.encode("\0alice@example.org\0secret");
    client.says(&format!("AUTH PLAIN {login}"), "235").await;
    begin(&mut client).await;
    client
}

async fn begin(client: &mut User) {
    client.says("MAIL FROM:<alice@example.org>", "250").await;
    client.says("RCPT TO:<x@far.example>", "250").await;
    client.says("DATA", "354").await;
}

/// Nothing of any session is on its way to accountd any more.
async fn is_over(seen: &Seen) {
    while seen.passes.get() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn reaches(count: impl Fn() -> u32, wanted: u32) {
    while count() < wanted {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_is_said_behind_the_answer_tells_that_it_was_heard() {
    local(async {
        let (seen, lab) = (Rc::new(Seen::default()), lab(Role::Submission, true, true));
        let (dialer, acceptor) = ipc::memory_edge(ipc::Role::SmtpdSubmission, 0);
        let doors = Doors::Submission(Line::new(dialer, ipc::Limits::SESSIONS));
        let accountd = serve_accountd(acceptor, &seen, true);

        // Any command, and QUIT; each once.
        let mut client = at_data(&lab, &doors).await;
        client.says(CONTENT.trim_end(), "250").await;
        assert_eq!(seen.heard.get(), 0, "not by itself");
        client.says("NOOP", "250").await;
        reaches(|| seen.heard.get(), 1).await;
        begin(&mut client).await;
        client.says(CONTENT.trim_end(), "250").await;
        client.says("QUIT", "221").await;
        drop(client);
        is_over(&seen).await;
        assert_eq!(seen.heard.get(), 2);

        // In one piece with the content, and while that is being stored.
        let mut client = at_data(&lab, &doors).await;
        client.stream.write_all(format!("{CONTENT}QUIT\r\n").as_bytes()).await.unwrap();
        assert!(client.reply().await.starts_with("250"));
        assert!(client.reply().await.starts_with("221"));
        drop(client);
        is_over(&seen).await;
        let mut client = at_data(&lab, &doors).await;
        let hold = Rc::new(Notify::new());
        *seen.hold.borrow_mut() = Some(Rc::clone(&hold));
        client.stream.write_all(CONTENT.as_bytes()).await.unwrap();
        reaches(|| seen.commits.get(), 4).await;
        client.stream.write_all(b"QU").await.unwrap();
        hold.notify_one();
        *seen.hold.borrow_mut() = None;
        assert!(client.reply().await.starts_with("250"));
        client.says("IT", "221").await;
        drop(client);
        is_over(&seen).await;
        assert_eq!(seen.heard.get(), 2, "it did not wait for the answer");

        // Cut off.
        let mut client = at_data(&lab, &doors).await;
        client.says(CONTENT.trim_end(), "250").await;
        drop(client);
        is_over(&seen).await;
        assert_eq!(seen.heard.get(), 2);
        assert_eq!(seen.messages.borrow().len(), 5);
        accountd.abort();
    })
    .await;
}
