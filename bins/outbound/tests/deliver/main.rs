//! Delivery to mail servers on loopback, over a resolver in small.

#![expect(clippy::unwrap_used, reason = "a fault in here is a failed test")]

mod lab;

use ipc::schema::outbound_capnp::recipient_result::Kind as Word;
use lab::{Lab, Order, Says, Server, at, order, self_signed};
use std::time::Duration;
use tokio::task::LocalSet;

const BOB: &str = "bob@b.test";
const EVE: &str = "eve@b.test";

async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

fn plain() -> Server {
    Server { extensions: vec!["PIPELINING", "8BITMIME"], ..Server::default() }
}

fn greets(text: &str) -> Server {
    Server { greeting: Some(text.to_owned()), ..plain() }
}

/// What one recipient is told: kind, code, enhanced code, host.
async fn one(lab: &Lab, order: &Order) -> (Word, u16, String, String) {
    let mut told = lab.deliver(order).await;
    assert_eq!(told.len(), 1);
    let (address, word, code, enhanced, _, host) = told.remove(0);
    assert_eq!(address, order.to[0]);
    (word, code, enhanced, host)
}

#[tokio::test]
async fn exchangers_in_order_until_one_takes_it() {
    local(async {
        let mut lab = Lab::new();
        lab.server(2, plain());
        lab.ready();
        // The first refuses connections.
        let told = one(&lab, &order("b.test", &[BOB])).await;
        assert_eq!(told, (Word::Delivered, 250, "2.0.0".into(), "mx2.b.test".into()));
        let contents = lab.seen.contents.borrow();
        assert_eq!(contents.len(), 1);
        assert_eq!(contents[0], (at(2), false, b"Subject: x\r\n\r\nbody\r\n.\r\n".to_vec()));
        let commands = lab.seen.commands.borrow();
        let lines: Vec<&str> = commands.iter().map(|(_, line)| line.as_str()).collect();
        let path = ["MAIL FROM:<ann@a.test>", "RCPT TO:<bob@b.test>", "DATA", "QUIT"];
        assert_eq!(lines[0], "EHLO mx.a.test");
        assert_eq!(lines[1..], path);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_hangs_up_before_content_is_no_last_word() {
    for server in [
        greets("421 4.3.2 not now\r\n"),
        greets("554 5.3.2 go away\r\n"),
        Server { replies: [("MAIL", "")].into(), ..plain() },
        Server { replies: [("MAIL", "421 4.3.2 closing")].into(), ..plain() },
        greets(&"220-and so on\r\n".repeat(10_000)),
        greets(&format!("220 {}\r\n", "x".repeat(100_000))),
    ] {
        local(async {
            let mut lab = Lab::new();
            lab.server(1, server);
            lab.server(2, plain());
            let told = one(&lab, &order("b.test", &[BOB])).await;
            assert_eq!((told.0, told.3), (Word::Delivered, "mx2.b.test".into()));
            assert_eq!(lab.seen.contents.borrow().len(), 1);
        })
        .await;
    }
}

#[tokio::test]
async fn dns_decides_where_mail_goes() {
    local(async {
        let mut lab = Lab::new();
        lab.server(1, plain());
        lab.ready();
        lab.says("null.test", "MX", Says::Mx(vec![(0, ".")]));
        lab.says("gone.test", "MX", Says::NoSuchName);
        lab.says("fails.test", "MX", Says::Fails);
        lab.says("direct.test", "A", Says::Ip(at(1)));
        lab.says("dangling.test", "MX", Says::Mx(vec![(10, "nowhere.test")]));
        lab.says("nowhere.test", "A", Says::NoSuchName);
        lab.says("unsure.test", "MX", Says::Mx(vec![(10, "nowhere.test"), (20, "later.test")]));
        lab.says("later.test", "A", Says::Fails);
        for (domain, to, word, code, enhanced) in [
            ("null.test", "a@null.test", Word::Permanent, 556, "5.1.10"),
            ("gone.test", "a@gone.test", Word::Permanent, 550, "5.1.2"),
            ("fails.test", "a@fails.test", Word::Temporary, 451, "4.4.3"),
            ("direct.test", "a@direct.test", Word::Delivered, 250, "2.0.0"),
            ("dangling.test", "a@dangling.test", Word::Permanent, 550, "5.4.4"),
            ("empty.test", "a@empty.test", Word::Permanent, 550, "5.4.4"),
            ("unsure.test", "a@unsure.test", Word::Temporary, 451, "4.4.1"),
        ] {
            let told = one(&lab, &order(domain, &[to])).await;
            let host = if word == Word::Delivered { domain } else { "" };
            assert_eq!(told, (word, code, enhanced.into(), host.into()), "{domain}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_backup_asks_neither_itself_nor_those_behind_it() {
    local(async {
        let mut lab = Lab::new();
        lab.server(2, plain());
        lab.ready();
        let own = (20, "mx.a.test");
        lab.says("mx.a.test", "A", Says::Ip(at(2)));
        // The first refuses connections; the others would take it.
        lab.says("b.test", "MX", Says::Mx(vec![(10, "mx1.b.test"), own, (30, "mx2.b.test")]));
        let told = one(&lab, &order("b.test", &[BOB])).await;
        assert_eq!(told, (Word::Temporary, 451, "4.4.1".into(), String::new()));
        // Nobody is before us, or what is none: we say whether we host it.
        for before in [None, Some((0, "."))] {
            let exchangers = before.into_iter().chain([own, (30, "mx2.b.test")]).collect();
            lab.says("b.test", "MX", Says::Mx(exchangers));
            let told = one(&lab, &order("b.test", &[BOB])).await;
            assert_eq!(told, (Word::Delivered, 250, "2.0.0".into(), "mx.a.test".into()));
        }
    })
    .await;
}

#[tokio::test]
async fn tls_where_it_works_and_in_clear_where_it_does_not() {
    for (server, secured) in [
        (Server { tls: Some(self_signed()), ..plain() }, true),
        (Server { broken_tls: true, ..plain() }, false),
        (
            Server {
                tls: Some(self_signed()),
                replies: [("STARTTLS", "454 4.7.0 not now")].into(),
                ..plain()
            },
            false,
        ),
    ] {
        local(async {
            let mut lab = Lab::new();
            lab.server(1, server);
            lab.ready();
            let told = one(&lab, &order("b.test", &[BOB])).await;
            assert_eq!(told.0, Word::Delivered);
            let contents = lab.seen.contents.borrow();
            assert_eq!((contents.len(), contents[0].1), (1, secured));
        })
        .await;
    }
}

/// "NO STARTTLS" (2021): octets that came before TLS are no answers inside it.
#[tokio::test]
async fn answers_injected_behind_starttls_are_answers_to_nothing() {
    local(async {
        let mut lab = Lab::new();
        let injected = "220 go\r\n250-here\r\n250 2.1.0 fine\r\n250 2.1.5 fine\r\n354 go";
        let server = Server {
            tls: Some(self_signed()),
            replies: [("STARTTLS", injected)].into(),
            ..plain()
        };
        lab.server(1, server);
        lab.server(2, Server { tls: Some(self_signed()), ..plain() });
        one(&lab, &order("b.test", &[BOB])).await;
        let commands = lab.seen.commands.borrow();
        let of_first: Vec<&str> =
            commands.iter().filter(|(ip, _)| *ip == at(1)).map(|(_, line)| line.as_str()).collect();
        let starttls = of_first.iter().position(|line| *line == "STARTTLS").unwrap();
        // That connection is over: if it was tried again, it was from the start.
        assert!(of_first.get(starttls + 1).is_none_or(|next| next.starts_with("EHLO")));
        assert_eq!(lab.seen.contents.borrow().len(), 1, "and the message has arrived once");
    })
    .await;
}

#[tokio::test]
async fn what_requires_tls_goes_to_nobody_unproven() {
    local(async {
        let mut lab = Lab::new();
        lab.server(1, Server { tls: Some(self_signed()), ..plain() });
        lab.server(3, plain());
        lab.says("direct.test", "A", Says::Ip(at(1)));
        lab.says("clear.test", "A", Says::Ip(at(3)));
        for (domain, to) in
            [("b.test", BOB), ("direct.test", "a@direct.test"), ("clear.test", "a@clear.test")]
        {
            let wanted = Order { require_tls: true, ..order(domain, &[to]) };
            let told = one(&lab, &wanted).await;
            assert_eq!(told, (Word::Permanent, 550, "5.7.10".into(), String::new()), "{domain}");
        }
        assert!(lab.seen.contents.borrow().is_empty());
    })
    .await;
}

#[tokio::test]
async fn each_recipient_is_answered_for_itself() {
    local(async {
        let mut lab = Lab::new();
        let replies =
            [("RCPT TO:<eve", "550 5.1.1 no such user"), ("RCPT TO:<max", "450 4.2.1 later")];
        lab.server(1, Server { replies: replies.into(), ..plain() });
        lab.ready();
        let told = lab.deliver(&order("b.test", &[BOB, EVE, "max@b.test"])).await;
        let host = "mx1.b.test".to_owned();
        let line = |to: &str, word, code, enhanced: &str, text: &str| {
            (to.to_owned(), word, code, enhanced.to_owned(), text.to_owned(), host.clone())
        };
        assert_eq!(
            told,
            [
                line(BOB, Word::Delivered, 250, "2.0.0", "kept"),
                line(EVE, Word::Permanent, 550, "5.1.1", "no such user"),
                line("max@b.test", Word::Temporary, 450, "4.2.1", "later"),
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn a_server_that_hangs_up_in_content_gets_it_again_later() {
    local(async {
        let mut lab = Lab::new();
        let replies = [("RCPT TO:<eve", "550 5.1.1 no such user")];
        let server = Server { replies: replies.into(), hangs_up_after: Some(1_000), ..plain() };
        lab.server(1, server);
        lab.server(2, plain());
        let content = "a line of a mail\r\n".repeat(200_000).into_bytes();
        let told = lab.deliver(&Order { content, ..order("b.test", &[BOB, EVE]) }).await;
        assert_eq!((told[0].1, told[0].2, told[0].3.as_str()), (Word::Temporary, 451, "4.4.2"));
        assert!(told[0].4.starts_with("mx1.b.test: ") && told[0].5.is_empty(), "{:?}", told[0]);
        assert_eq!((told[1].1, told[1].5.as_str()), (Word::Permanent, "mx1.b.test"));
        assert_eq!(lab.seen.hosts(), [at(1)], "no other host: part of it was out");
    })
    .await;
}

#[tokio::test]
async fn a_host_that_fails_before_the_last_dot_is_no_last_word() {
    for server in [
        Server { at_dot: Some("451 4.3.0 no room"), ..plain() },
        Server { at_dot: Some("421 4.3.2 closing"), ..plain() },
        Server { replies: [("DATA", "451 4.3.0 not now")].into(), ..plain() },
        Server { replies: [("RCPT", "450 4.2.1 later")].into(), ..plain() },
    ] {
        local(async {
            let mut lab = Lab::new();
            lab.server(1, server);
            lab.server(2, plain());
            let told = one(&lab, &order("b.test", &[BOB])).await;
            assert_eq!((told.0, told.3), (Word::Delivered, "mx2.b.test".into()));
            let contents = lab.seen.contents.borrow();
            assert_eq!(contents.last().unwrap().2, b"Subject: x\r\n\r\nbody\r\n.\r\n");
        })
        .await;
    }
}

#[tokio::test]
async fn a_host_that_hangs_up_behind_the_last_dot_may_have_delivered() {
    local(async {
        let mut lab = Lab::new();
        lab.server(1, Server { at_dot: Some(""), ..plain() });
        lab.server(2, plain());
        let told = one(&lab, &order("b.test", &[BOB])).await;
        assert_eq!(told, (Word::Temporary, 451, "4.4.2".into(), String::new()));
        assert_eq!(lab.seen.hosts(), [at(1)]);
    })
    .await;
}

#[tokio::test]
async fn who_was_taken_is_not_asked_for_again() {
    local(async {
        let mut lab = Lab::new();
        let replies =
            [("RCPT TO:<eve", "550 5.1.1 no such user"), ("RCPT TO:<max", "450 4.2.1 later")];
        lab.server(1, Server { replies: replies.into(), ..plain() });
        lab.server(2, plain());
        let told = lab.deliver(&order("b.test", &[BOB, EVE, "max@b.test"])).await;
        let hosts: Vec<(Word, &str)> = told.iter().map(|one| (one.1, one.5.as_str())).collect();
        let wanted = [
            (Word::Delivered, "mx1.b.test"),
            (Word::Permanent, "mx1.b.test"),
            (Word::Delivered, "mx2.b.test"),
        ];
        assert_eq!(hosts, wanted);
        let commands = lab.seen.commands.borrow();
        let second = commands.iter().filter(|(ip, line)| *ip == at(2) && line.starts_with("RCPT"));
        assert_eq!(second.count(), 1);
    })
    .await;
}

#[tokio::test]
async fn more_recipients_than_a_server_takes_come_one_transaction_after_the_other() {
    local(async {
        let mut lab = Lab::new();
        lab.server(1, Server { extensions: vec!["LIMITS RCPTMAX=2"], ..plain() });
        lab.ready();
        let to = [BOB, EVE, "max@b.test", "zoe@b.test", "last@b.test"];
        let told = lab.deliver(&order("b.test", &to)).await;
        assert!(told.iter().all(|one| one.1 == Word::Delivered), "{told:?}");
        assert_eq!(lab.seen.contents.borrow().len(), 3);
        let commands = lab.seen.commands.borrow();
        assert_eq!(commands.iter().filter(|(_, line)| line.starts_with("EHLO")).count(), 1);
    })
    .await;
}

#[tokio::test]
async fn dots_and_many_octets_arrive_as_they_were() {
    local(async {
        let mut lab = Lab::new();
        lab.server(1, Server { tls: Some(self_signed()), ..plain() });
        lab.ready();
        let mut content = b".\r\n..\r\n.x\r\n\xff\r\n".to_vec();
        content.extend("0123456789abcdef\r\n".repeat(30_000).into_bytes());
        let told = one(&lab, &Order { content: content.clone(), ..order("b.test", &[BOB]) }).await;
        assert_eq!(told.0, Word::Delivered);
        let mut wanted = b"..\r\n...\r\n..x\r\n".to_vec();
        wanted.extend(&content[".\r\n..\r\n.x\r\n".len()..]);
        wanted.extend(b".\r\n");
        assert!(lab.seen.contents.borrow()[0].2 == wanted);
    })
    .await;
}

#[tokio::test]
async fn what_the_server_cannot_is_permanent_and_ours() {
    local(async {
        let mut lab = Lab::new();
        lab.server(1, Server { extensions: vec!["SIZE 30"], ..plain() });
        lab.ready();
        let utf8 = Order { smtputf8: true, ..order("b.test", &[BOB]) };
        let told = one(&lab, &utf8).await;
        assert_eq!(told, (Word::Permanent, 553, "5.6.7".into(), String::new()));
        let large = Order { content: vec![b'x'; 100], ..order("b.test", &[BOB]) };
        let told = one(&lab, &large).await;
        assert_eq!(told, (Word::Permanent, 552, "5.3.4".into(), String::new()));
        // A bare line end cannot be sent by SMTP, today or ever.
        lab.says("c.test", "A", Says::Ip(at(1)));
        let bare = Order { content: b"a\nb\r\n".to_vec(), ..order("c.test", &["a@c.test"]) };
        let told = one(&lab, &bare).await;
        assert_eq!(told, (Word::Permanent, 554, "5.6.0".into(), String::new()));
        assert!(lab.seen.contents.borrow().is_empty());
    })
    .await;
}

#[tokio::test]
async fn dropping_a_delivery_hangs_up() {
    local(async {
        let mut lab = Lab::new();
        lab.server(1, plain());
        lab.ready();
        let delivery = lab.begin(&order("b.test", &[BOB])).await;
        let in_data = async {
            while !lab.seen.commands.borrow().iter().any(|(_, line)| line == "DATA") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            drop(delivery);
            lab.seen.ended.notified().await;
        };
        tokio::time::timeout(Duration::from_secs(5), in_data).await.unwrap();
        assert!(lab.seen.contents.borrow().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_job_for_another_domain_is_refused() {
    local(async {
        let lab = Lab::new();
        let mut request = lab.request().await;
        let mut job = request.get().init_job();
        job.set_domain("b.test");
        job.set_from("ann@a.test");
        job.set_ehlo("mx.a.test");
        job.init_recipients(1).set(0, "x@c.test");
        let error = request.send().promise.await.err().unwrap();
        assert!(error.to_string().contains("another domain"), "{error}");
    })
    .await;
}
