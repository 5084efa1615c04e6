//! FETCH of much: long headers, many items, many messages.

use super::*;

/// A message with a header of many lines.
fn long_header(lines: usize) -> Vec<u8> {
    let lines: String = (0..lines).map(|n| format!("X{n}: {}\r\n", "n".repeat(900))).collect();
    format!("Subject: long\r\n{lines}\r\nx\r\n").into_bytes()
}

#[test]
fn no_more_is_written_at_once_than_one_item() {
    let mut account = account(0);
    for _ in 0..3 {
        account.deliver("Inbox", "", &long_header(900));
    }
    let mut client = Client::selected(account);
    let item = 900 * 907;
    // Said two hundred times it is said once.
    let not = vec!["BODY.PEEK[HEADER.FIELDS.NOT (Subject)]"; 200].join(" ");
    let text = client.send(&format!("a FETCH 1:* ({not})\r\n"));
    assert_eq!(text.matches("BODY[HEADER.FIELDS.NOT (Subject)] {").count(), 3);
    assert!(client.most < FLUSH + item, "{}", client.most);
    // Different ones are written one by one.
    let different: Vec<String> =
        (0..60).map(|n| format!("BODY.PEEK[HEADER.FIELDS.NOT (S{n})]")).collect();
    let text = client.send(&format!("b FETCH 1:2 ({})\r\n", different.join(" ")));
    assert_eq!(text.matches("\r\n BODY[HEADER.FIELDS.NOT (S").count(), 2 * 59);
    assert!(text.ends_with(")\r\nb OK done\r\n"));
    assert!(client.most < FLUSH + item, "{}", client.most);
    // And small ones until they are many.
    let mut client = Client::selected(account_of_small(400));
    let text = client.send("c FETCH 1:* (UID FLAGS BODY.PEEK[] BODY.PEEK[TEXT])\r\n");
    assert_eq!(text.matches(" FETCH (UID ").count(), 400);
    assert!(client.most < FLUSH + 10_100, "{}", client.most);
}

#[test]
fn long_headers_of_embedded_messages_are_all_read() {
    let part = |n: usize| {
        let inner = String::from_utf8(long_header(900)).unwrap();
        format!("--x\r\nContent-Type: message/rfc822\r\n\r\nNumber: {n}\r\n{inner}\r\n")
    };
    let parts: String = (1..=3).map(part).collect();
    let mail = format!("Content-Type: multipart/digest; boundary=x\r\n\r\n{parts}--x--\r\n");
    let mut account = account(0);
    account.deliver("Inbox", "", mail.as_bytes());
    let mut client = Client::selected(account);
    let mut asked = |command: &str, expected: &str| {
        let before = client.account.asked.len();
        assert_eq!(client.send(command), format!("* 1 FETCH ({expected})\r\na OK done\r\n"));
        let asked = client.account.asked[before..].iter();
        asked.filter(|question| matches!(question, Question::Content { .. })).count()
    };
    let items = |field: &str| {
        let items = (1..=3).map(|n| format!("BODY.PEEK[{n}.HEADER.FIELDS ({field})]"));
        items.collect::<Vec<_>>().join(" ")
    };
    let value = |n: usize, field: &str, line: &str| {
        format!("BODY[{n}.HEADER.FIELDS ({field})] {{{}}}\r\n{line}\r\n\r\n", line.len() + 4)
    };
    let values = |field: &str, line: fn(usize) -> String| {
        (1..=3).map(|n| value(n, field, &line(n))).collect::<Vec<_>>().join(" ")
    };
    let number: fn(usize) -> String = |n| format!("Number: {n}");
    let subject: fn(usize) -> String = |_| "Subject: long".to_owned();
    let (n, s) = (values("Number", number), values("Subject", subject));
    let count = asked(&format!("a FETCH 1 ({})\r\n", items("Number")), &n);
    assert_eq!(count, 3);
    // Whatever stands first, and when they come again behind others.
    let both = format!("{} {}", items("Number"), items("Subject"));
    let count =
        asked(&format!("a FETCH 1 (UID {both} FLAGS)\r\n"), &format!("UID 1 {n} {s} FLAGS ()"));
    assert_eq!(count, 6);
    let count = asked(&format!("a UID FETCH 1 ({both} UID)\r\n"), &format!("UID 1 {n} {s}"));
    assert_eq!(count, 6);
    // Neighbours have one reading.
    let two = "BODY.PEEK[2.HEADER.FIELDS (Number)] BODY.PEEK[2.HEADER.FIELDS (Subject)]";
    let told =
        format!("{} {}", value(2, "Number", "Number: 2"), value(2, "Subject", "Subject: long"));
    assert_eq!(asked(&format!("a FETCH 1 ({two})\r\n"), &told), 1);
}

fn account_of_small(count: usize) -> Account {
    let mut account = account(0);
    let mail = format!("Subject: s\r\n\r\n{}\r\n", "y".repeat(10_000));
    for _ in 0..count {
        account.deliver("Inbox", "", mail.as_bytes());
    }
    account
}

#[test]
fn looking_at_much_lets_others_have_their_turn() {
    let mut account = account(0);
    for _ in 0..40 {
        account.deliver("Inbox", "", &long_header(60));
    }
    let mut client = Client::selected(account);
    let none: Vec<String> = (0..60).map(|n| format!("BODY.PEEK[HEADER.FIELDS (No{n})]")).collect();
    let (mut out, mut turns) = (Out::new(), 0);
    let frame = format!("a FETCH 1:* ({})\r\n", none.join(" "));
    client.reader.set_names(client.session.names());
    let Event::Command(frame) = client.reader.feed(&mut frame.as_bytes()) else { panic!() };
    let command = crate::parse(&frame, client.session.names()).unwrap();
    let mut next = client.session.command(command, &mut out);
    loop {
        next = match next {
            Next::Ask(question) => {
                let answer = client.account.answer(question);
                client.session.answer(answer, &mut out)
            }
            Next::Flush => {
                turns += 1;
                client.session.sent(&mut out)
            }
            Next::Read | Next::Idle | Next::Message(_) | Next::Close => break,
        };
    }
    // 40 messages x 60 items x 54 KiB, a turn after each MiB.
    assert!(turns > 100, "{turns}");
}
