//! What seldom is: NULs in messages, mailboxes that went or changed their names meanwhile.

use super::*;

#[test]
fn no_nul_outside_of_binary() {
    for size in [10, 100_000] {
        let mut account = account(0);
        let mail = format!("Subject: a\0b\r\nX: a\0b\r\n\r\n{}\0", "y".repeat(size));
        account.deliver("Inbox", "", mail.as_bytes());
        let mut client = Client::selected(account);
        for item in ["BODY.PEEK[]", "RFC822", "BODY.PEEK[HEADER.FIELDS (X)]", "BODY.PEEK[TEXT]"] {
            let text = client.send(&format!("a FETCH 1 ({item} ENVELOPE)\r\n"));
            assert!(!text.contains('\0') && text.contains('\u{fffd}'), "{item}: {text:.200}");
        }
        let text = client.send("a FETCH 1 BINARY.PEEK[]\r\n");
        assert!(text.contains(&format!("BINARY[] ~{{{}}}\r\n{mail}", mail.len())), "{text:.200}");
    }
}

#[test]
fn storing_in_a_mailbox_that_is_gone() {
    for store in ["STORE 1 +FLAGS (\\Seen)", "UID STORE 1 FLAGS.SILENT (\\Flagged)"] {
        let mut client = Client::selected(account(2));
        // Nothing to change is no reason to say so.
        assert_eq!(client.send("a STORE 1 +FLAGS.SILENT (\\Seen)\r\n"), "a OK done\r\n");
        client.account.gone = true;
        let text = client.send(&format!("b {store}\r\n"));
        assert_eq!(text, "b NO [NONEXISTENT] mailbox was deleted\r\n", "{store}");
        assert!(client.send("c FETCH 1 FLAGS\r\n").starts_with("c NO [NONEXISTENT]"));
    }
}

#[test]
fn moving_to_a_namesake() {
    let mut client = Client::selected(account(2));
    assert!(client.send("a MOVE 1 INBOX\r\n").starts_with("a NO [CANNOT] it is there"));
    client.send("b CREATE D\r\n");
    client.account.deliver("D", "", &plain("d"));
    client.send("c SELECT D\r\n");
    assert!(client.send("d MOVE 1 D\r\n").starts_with("d NO [CANNOT] it is there"));
    // Another session renames it, and makes a new one of its name.
    let name = |text| MailboxName::new(text).unwrap();
    client.account.answer(Question::Rename(name("D"), name("E")));
    client.account.open = Some(name("E"));
    client.account.folders.entry(name("D")).or_default().remade = 1;
    let text = client.send("e MOVE 1 D\r\n");
    assert!(text.contains("[COPYUID ") && text.contains("* 1 EXPUNGE\r\ne OK "), "{text}");
    assert_eq!(client.account.folders[&name("D")].messages.len(), 1);
}
