//! Sessions with servers that behave, and with some that do not.

#![expect(clippy::wildcard_enum_match_arm, reason = "every other step is the failure")]

use super::*;
use types::ReversePath;

fn client(tls: TlsUse) -> Client {
    Client::new(Settings { hello: "us.example".parse().unwrap(), tls })
}

fn transaction(recipients: &[&str]) -> Transaction {
    Transaction {
        from: ReversePath::Address("a@us.example".parse().unwrap()),
        recipients: recipients.iter().map(|r| r.parse().unwrap()).collect(),
        size: 5,
        eight_bit: true,
        smtputf8: false,
        requiretls: false,
    }
}

/// The next step has to be this text to send.
#[track_caller]
fn sends(client: &mut Client, want: &str) {
    match client.poll() {
        Step::Send(bytes) => assert_eq!(String::from_utf8(bytes).unwrap(), want),
        other => panic!("wanted {want:?}, got {other:?}"),
    }
}

#[track_caller]
fn reads(client: &mut Client, answer: &str) {
    assert!(matches!(client.poll(), Step::Read(_)));
    client.received(answer.as_bytes());
}

#[track_caller]
fn done(client: &mut Client) -> Vec<RecipientResult> {
    match client.poll() {
        Step::Done(results) => results,
        other => panic!("{other:?}"),
    }
}

fn ready(tls: TlsUse, ehlo: &str) -> Client {
    let mut client = client(tls);
    reads(&mut client, "220 mx\r\n");
    sends(&mut client, "EHLO us.example\r\n");
    reads(&mut client, ehlo);
    if tls == TlsUse::Never {
        assert!(matches!(client.poll(), Step::Ready));
    }
    client
}

fn code(result: &RecipientResult) -> (char, u16) {
    match result {
        RecipientResult::Delivered(r) => ('d', r.code()),
        RecipientResult::Temporary(r) => ('t', r.code()),
        RecipientResult::Permanent(r) => ('p', r.code()),
        RecipientResult::Another => ('a', 0),
    }
}

fn write_body(client: &mut Client, content: &[u8], wire: &[u8]) {
    assert!(matches!(client.poll(), Step::Body));
    let mut out = Vec::new();
    client.body(content, &mut out).unwrap();
    client.body_end(&mut out).unwrap();
    assert_eq!(out, wire);
}

#[test]
fn pipelined_with_starttls() {
    let mut c = ready(TlsUse::Offered, "250-mx\r\n250-SIZE 10\r\n250 STARTTLS\r\n");
    sends(&mut c, "STARTTLS\r\n");
    reads(&mut c, "220 go\r\n");
    assert!(matches!(c.poll(), Step::StartTls));
    c.secured();
    sends(&mut c, "EHLO us.example\r\n");
    reads(&mut c, "250-mx\r\n250-PIPELINING\r\n250-SIZE\r\n250 8BITMIME\r\n");
    assert!(matches!(c.poll(), Step::Ready));
    assert!(!c.extensions().starttls && c.is_secured());
    c.send(transaction(&["b@x.example", "c@x.example", "d@x.example"])).unwrap();
    sends(
        &mut c,
        "MAIL FROM:<a@us.example> SIZE=5 BODY=8BITMIME\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\nRCPT TO:<d@x.example>\r\nDATA\r\n",
    );
    reads(&mut c, "250 ok\r\n250 ok\r\n550 5.1.1 no c\r\n452 too many\r\n354 go\r\n");
    write_body(&mut c, b".a\r\n", b"..a\r\n.\r\n");
    reads(&mut c, "250 2.0.0 taken\r\n");
    let results = done(&mut c);
    assert_eq!(results.iter().map(code).collect::<Vec<_>>(), [('d', 250), ('p', 550), ('a', 0)]);
    assert!(matches!(c.poll(), Step::Ready));
    c.quit();
    sends(&mut c, "QUIT\r\n");
    c.closed();
    assert!(matches!(c.poll(), Step::Ended(Ended::Quit)));
}

#[test]
fn one_command_at_a_time_without_pipelining() {
    let mut c = ready(TlsUse::Never, "250 mx\r\n");
    c.send(transaction(&["b@x.example", "c@x.example"])).unwrap();
    sends(&mut c, "MAIL FROM:<a@us.example>\r\n");
    reads(&mut c, "250 ok\r\n");
    sends(&mut c, "RCPT TO:<b@x.example>\r\n");
    reads(&mut c, "451 later\r\n");
    sends(&mut c, "RCPT TO:<c@x.example>\r\n");
    reads(&mut c, "250 ok\r\n");
    sends(&mut c, "DATA\r\n");
    reads(&mut c, "354 go\r\n");
    write_body(&mut c, b"x", b"x\r\n.\r\n");
    reads(&mut c, "554 5.7.1 spam\r\n");
    assert_eq!(done(&mut c).iter().map(code).collect::<Vec<_>>(), [('t', 451), ('p', 554)]);
    sends(&mut c, "RSET\r\n");
    reads(&mut c, "250 ok\r\n");
    assert!(matches!(c.poll(), Step::Ready));
}

#[test]
fn a_refused_mail_is_everybodys_result() {
    for ehlo in ["250 mx\r\n", "250-mx\r\n250 PIPELINING\r\n"] {
        let mut c = ready(TlsUse::Never, ehlo);
        c.send(transaction(&["b@x.example", "c@x.example"])).unwrap();
        assert!(matches!(c.poll(), Step::Send(_)));
        let rest = if ehlo.contains("PIPE") { "503 a\r\n503 b\r\n503 c\r\n" } else { "" };
        reads(&mut c, &format!("550 5.7.1 not you\r\n{rest}"));
        assert_eq!(done(&mut c).iter().map(code).collect::<Vec<_>>(), [('p', 550), ('p', 550)]);
        sends(&mut c, "RSET\r\n");
    }
}

#[test]
fn data_without_recipients_gets_a_lone_dot() {
    let mut c = ready(TlsUse::Never, "250-mx\r\n250 PIPELINING\r\n");
    c.send(transaction(&["b@x.example"])).unwrap();
    assert!(matches!(c.poll(), Step::Send(_)));
    reads(&mut c, "250 ok\r\n550 no\r\n354 go\r\n");
    sends(&mut c, ".\r\n");
    reads(&mut c, "554 no recipients\r\n");
    assert_eq!(done(&mut c).iter().map(code).collect::<Vec<_>>(), [('p', 550)]);
}

#[test]
fn a_server_that_hangs_up_after_rcpt_leaves_its_last_word() {
    let mut c = ready(TlsUse::Never, "250-mx\r\n250 PIPELINING\r\n");
    c.send(transaction(&["b@x.example", "c@x.example"])).unwrap();
    assert!(matches!(c.poll(), Step::Send(_)));
    reads(&mut c, "250 ok\r\n550 no\r\n");
    assert!(matches!(c.poll(), Step::Read(_)));
    c.closed();
    assert_eq!(done(&mut c).iter().map(code).collect::<Vec<_>>(), [('p', 550), ('t', 451)]);
    assert!(matches!(c.poll(), Step::Ended(Ended::Closed)));
}

#[test]
fn a_long_list_goes_in_windows() {
    let mut c = ready(TlsUse::Never, "250-mx\r\n250-LIMITS RCPTMAX=950\r\n250 PIPELINING\r\n");
    let names: Vec<String> = (0..1000).map(|n| format!("r{n}@x.example")).collect();
    c.send(transaction(&names.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
    let (mut sent, mut answered) = (0, 0);
    loop {
        match c.poll() {
            Step::Send(bytes) => sent += bytes.iter().filter(|&&b| b == b'\n').count(),
            Step::Read(_) if sent > answered => {
                assert!(sent - answered <= WINDOW_AND_DATA);
                let code = if answered == 951 { 354 } else { 250 };
                c.received(format!("{code} x\r\n").as_bytes());
                answered += 1;
            }
            Step::Body => break,
            other => panic!("{other:?} after {sent} and {answered}"),
        }
    }
    assert_eq!(sent, 952);
    let mut out = Vec::new();
    c.body_end(&mut out).unwrap();
    reads(&mut c, "250 x\r\n");
    let results = done(&mut c);
    assert_eq!(results.len(), 1000);
    assert_eq!(results.iter().filter(|r| **r == RecipientResult::Another).count(), 50);
}

const WINDOW_AND_DATA: usize = 101;

#[test]
fn lacks_are_told_before_anything_is_sent() {
    let mut c = ready(TlsUse::Never, "250-mx\r\n250 SIZE 4\r\n");
    assert!(matches!(c.poll(), Step::Ready));
    assert_eq!(c.send(transaction(&["b@x.example"])), Err(Lack::Size(4)));
    let mut small = transaction(&["é@x.example"]);
    small.size = 1;
    assert_eq!(c.send(small.clone()), Err(Lack::SmtpUtf8));
    small.recipients = vec!["e@x.example".parse().unwrap()];
    small.requiretls = true;
    assert_eq!(c.send(small), Err(Lack::RequireTls));
    assert!(matches!(c.poll(), Step::Ready));
}

#[test]
fn tls_that_cannot_be_had() {
    let mut c = ready(TlsUse::Required, "250 mx\r\n");
    assert!(matches!(c.poll(), Step::Ended(Ended::NoStartTls)));
    let mut c = ready(TlsUse::Required, "250-mx\r\n250 STARTTLS\r\n");
    sends(&mut c, "STARTTLS\r\n");
    reads(&mut c, "554 no\r\n");
    assert!(matches!(c.poll(), Step::Ended(Ended::StartTlsRefused(r)) if r.code() == 554));
    // A reply in the clear that pretends to have come through TLS.
    let mut c = ready(TlsUse::Offered, "250-mx\r\n250 STARTTLS\r\n");
    sends(&mut c, "STARTTLS\r\n");
    reads(&mut c, "220 go\r\n250-mx\r\n250 AUTH PLAIN\r\n");
    assert!(matches!(c.poll(), Step::Ended(Ended::Injected)));
}

#[test]
fn helo_for_old_servers() {
    let mut c = ready(TlsUse::Offered, "502 what\r\n");
    sends(&mut c, "HELO us.example\r\n");
    reads(&mut c, "250 mx\r\n");
    assert!(matches!(c.poll(), Step::Ready));
    assert_eq!(*c.extensions(), Extensions::default());
}

#[test]
fn refusals_at_the_door() {
    let mut c = client(TlsUse::Never);
    reads(&mut c, "554 5.7.1 go away\r\n");
    assert!(matches!(c.poll(), Step::Ended(Ended::Refused(r)) if r.code() == 554));
    let mut c = client(TlsUse::Never);
    reads(&mut c, "HTTP/1.1 400 Bad Request\r\n");
    assert!(matches!(c.poll(), Step::Ended(Ended::Protocol(_))));
}

#[test]
fn bad_content_never_ends_a_message() {
    let mut c = ready(TlsUse::Never, "250-mx\r\n250 PIPELINING\r\n");
    c.send(transaction(&["b@x.example"])).unwrap();
    assert!(matches!(c.poll(), Step::Send(_)));
    reads(&mut c, "250 ok\r\n250 ok\r\n354 go\r\n");
    assert!(matches!(c.poll(), Step::Body));
    assert!(c.body(b"a\n.\n", &mut Vec::new()).is_err());
    assert_eq!(done(&mut c).iter().map(code).collect::<Vec<_>>(), [('p', 554)]);
    assert!(matches!(c.poll(), Step::Ended(Ended::BadContent)));
}

#[test]
fn time_runs_out_after_the_dot() {
    let mut c = ready(TlsUse::Never, "250-mx\r\n250 PIPELINING\r\n");
    c.send(transaction(&["b@x.example"])).unwrap();
    assert!(matches!(c.poll(), Step::Send(_)));
    reads(&mut c, "250 ok\r\n250 ok\r\n354 go\r\n");
    write_body(&mut c, b"", b".\r\n");
    assert!(matches!(c.poll(), Step::Read(timeouts::DATA_END)));
    c.timed_out();
    assert_eq!(done(&mut c).iter().map(code).collect::<Vec<_>>(), [('t', 451)]);
}

#[test]
fn logging_in_at_a_smarthost() {
    let mut c = ready(TlsUse::Never, "250-mx\r\n250 AUTH PLAIN SCRAM-SHA-256\r\n");
    assert!(matches!(c.poll(), Step::Ready));
    c.authenticate("PLAIN", Some(b"\0a\0b"));
    sends(&mut c, "AUTH PLAIN AGEAYg==\r\n");
    reads(&mut c, "535 5.7.8 no\r\n");
    assert!(matches!(c.poll(), Step::LoginRefused(r) if r.code() == 535));
    assert!(matches!(c.poll(), Step::Ready));
    c.authenticate("X", None);
    sends(&mut c, "AUTH X\r\n");
    reads(&mut c, "334 YWJj\r\n");
    assert!(matches!(c.poll(), Step::Challenge(data) if data == b"abc"));
    c.respond(b"d");
    sends(&mut c, "ZA==\r\n");
    reads(&mut c, "235 2.7.0 ok\r\n");
    assert!(matches!(c.poll(), Step::LoggedIn));
    assert!(matches!(c.poll(), Step::Ready));
}

#[test]
fn random_servers_never_confuse_it() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let words = [
        "220 a\r\n",
        "250 b\r\n",
        "250-c\r\n",
        "354 d\r\n",
        "421 e\r\n",
        "452 f\r\n",
        "550 g\r\n",
        "334 =\r\n",
        "\r\n",
        "xx",
        "250 STARTTLS\r\n",
    ];
    for _ in 0..3000 {
        let mut c = client(if random() % 2 == 0 { TlsUse::Never } else { TlsUse::Offered });
        let (mut promised, mut told) = (0, 0);
        for _ in 0..60 {
            match c.poll() {
                Step::Send(_) | Step::LoginRefused(_) | Step::LoggedIn => {}
                Step::Read(_) => c.received(words[(random() % 11) as usize].as_bytes()),
                Step::StartTls => c.secured(),
                Step::Ready if random() % 8 == 0 => c.quit(),
                Step::Ready => {
                    promised += 1;
                    c.send(transaction(&["b@x.example", "c@x.example"])).unwrap();
                }
                Step::Challenge(_) => c.cancel(),
                Step::Body => c.body_end(&mut Vec::new()).unwrap(),
                Step::Done(results) => {
                    assert_eq!(results.len(), 2);
                    told += 1;
                }
                Step::Ended(_) => break,
            }
        }
        c.closed();
        while let Step::Done(_) | Step::Send(_) = c.poll() {
            told += 1;
        }
        assert!(told >= promised || promised - told == 0, "{told} of {promised}");
    }
}
