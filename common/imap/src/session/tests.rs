//! Whole commands against an account in memory, as a client sees them.

use super::*;
use crate::{Event, Limits, Piece, Reader};
use account::{Account, Folder};
use message::transfer::Decoder;

mod account;
mod much;
mod odd;

struct Client {
    account: Account,
    session: Session,
    reader: Reader,
    next: Next,
    closed: bool,
    /// The most that stood in the output at a time.
    most: usize,
}

impl Client {
    fn new(account: Account) -> Self {
        Self {
            session: Session::new(Limits::SESSION.message, account.modseq),
            account,
            reader: Reader::new(Limits::SESSION),
            next: Next::Read,
            closed: false,
            most: 0,
        }
    }

    fn selected(account: Account) -> Self {
        let mut client = Self::new(account);
        client.send("s SELECT INBOX\r\n");
        client
    }

    fn written(&mut self, out: &mut Out, text: &mut Vec<u8>) {
        for piece in out.take() {
            match piece {
                Piece::Bytes(bytes) => text.extend(bytes),
                Piece::Content { uid, from, to, binary } => {
                    let octets = self.account.bytes(uid, from, to);
                    text.extend(if binary { octets } else { crate::without_nul(&octets).into() });
                }
                Piece::Decoded { uid, from, to, encoding, skip, length } => {
                    let (mut decoder, mut decoded) = (Decoder::new(encoding), Vec::new());
                    decoder.push(&self.account.bytes(uid, from, to), &mut decoded);
                    decoder.finish(&mut decoded);
                    text.extend(&decoded[skip as usize..(skip + length) as usize]);
                }
            }
        }
    }

    /// What comes back for some octets, all at once.
    fn send(&mut self, input: &str) -> String {
        let (mut input, mut out, mut text) = (input.as_bytes(), Out::new(), Vec::new());
        loop {
            match self.next.clone() {
                Next::Ask(question) => {
                    let answer = self.account.answer(question);
                    self.next = self.session.answer(answer, &mut out);
                }
                Next::Flush => {
                    self.most = self.most.max(out.len());
                    self.written(&mut out, &mut text);
                    self.next = self.session.sent(&mut out);
                }
                Next::Message(wanted) => {
                    if wanted && self.reader.accept_message() {
                        out.text("+ \r\n");
                    } else if !wanted {
                        self.reader.refuse_message();
                    }
                    self.next = Next::Read;
                }
                Next::Close => self.closed = true,
                Next::Read | Next::Idle => {}
            }
            self.most = self.most.max(out.len());
            self.written(&mut out, &mut text);
            if self.closed {
                break;
            }
            if matches!(self.next, Next::Ask(_) | Next::Flush | Next::Message(_)) {
                continue;
            }
            if self.next == Next::Idle {
                self.reader.expect_line();
            }
            self.reader.set_names(self.session.names());
            match self.reader.feed(&mut input) {
                Event::More => break,
                Event::Continue => out.text("+ \r\n"),
                Event::Command(frame) => match crate::parse(&frame, self.session.names()) {
                    Ok(command) => self.next = self.session.command(command, &mut out),
                    Err(error) => {
                        let tag = crate::tag_of(&frame);
                        self.next = self.session.syntax_error(tag.as_ref(), error.0, &mut out);
                    }
                },
                Event::Line(line) => self.next = self.session.line(&line, &mut out),
                Event::Append(append) => self.next = self.session.append(append, &mut out),
                Event::Message(bytes) => {
                    if let Some((_, _, content)) = &mut self.account.appending {
                        content.extend(bytes);
                    }
                }
                Event::MessageEnd => self.next = self.session.message_end(&mut out),
                Event::Refused(refusal) => self.next = self.session.refused(&refusal, &mut out),
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The account says that something changed.
    fn told(&mut self) -> String {
        let mut out = Out::new();
        self.next = self.session.changed(self.account.modseq, &mut out);
        self.send("")
    }
}

const MAIL: &[u8] = b"Date: Wed, 5 Jun 2024 23:30:00 -0700\r\nFrom: Ann \"A\" <ann@a.test>\r\n\
    To: team: b@b.test;\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/mixed; boundary=x\r\n\r\npre\r\n--x\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
    gr=C3=BCn\r\n--x\r\nContent-Type: application/octet-stream; name=a.bin\r\n\
    Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=a.bin\r\n\r\n\
    AAECAw==\r\n--x\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nhello\r\n--x--\r\n";

fn plain(subject: &str) -> Vec<u8> {
    format!("Subject: {subject}\r\nFrom: x@y.test\r\n\r\nbody of {subject}\r\n").into_bytes()
}

fn account(count: usize) -> Account {
    let mut account = Account::default();
    account.folders.insert(MailboxName::new("Inbox").unwrap(), Folder::default());
    for at in 0..count {
        account.deliver(
            "Inbox",
            if at % 2 == 0 { "\\Seen" } else { "" },
            &plain(&format!("m{at}")),
        );
    }
    account
}

#[test]
fn selecting() {
    let mut client = Client::new(account(5));
    let text = client.send("a SELECT inbox\r\n");
    assert!(text.contains("* 5 EXISTS\r\n* 0 RECENT\r\n* OK [UNSEEN 2] "), "{text}");
    assert!(text.contains("* OK [UIDVALIDITY 7] ") && text.contains("* OK [UIDNEXT 6] "));
    assert!(text.contains("* FLAGS (\\Seen \\Answered \\Flagged \\Deleted \\Draft $Forwarded"));
    assert!(text.contains("\\*)] "), "{text}");
    assert!(text.ends_with("a OK [READ-WRITE] selected\r\n"));
    let text = client.send("b EXAMINE INBOX\r\n");
    assert!(text.starts_with("* OK [CLOSED] ") && text.contains("[PERMANENTFLAGS ()]"));
    assert!(text.ends_with("b OK [READ-ONLY] examined\r\n"));
    assert!(client.send("c STORE 1 FLAGS (\\Seen)\r\n").starts_with("c NO "));
    // A failed SELECT leaves nothing selected.
    let text = client.send("d SELECT nope\r\n");
    assert!(text.contains("[CLOSED]") && text.ends_with("d NO [NONEXISTENT] no such mailbox\r\n"));
    assert!(client.send("e FETCH 1 FLAGS\r\n").starts_with("e NO [CLIENTBUG]"));
    let text = client.send("f ENABLE IMAP4rev2\r\ng SELECT INBOX\r\n");
    assert!(text.starts_with("* ENABLED IMAP4rev2\r\nf OK "), "{text}");
    assert!(!text.contains("RECENT") && !text.contains("[UNSEEN"), "{text}");
    assert!(text.contains("* LIST () \"/\" INBOX\r\n"), "{text}");
}

#[test]
fn fetching() {
    let mut client = Client::selected(account(7));
    let text = client.send("a FETCH 2:4 (FLAGS UID)\r\n");
    assert_eq!(
        text,
        "* 2 FETCH (UID 2 FLAGS ())\r\n* 3 FETCH (UID 3 FLAGS (\\Seen))\r\n\
         * 4 FETCH (UID 4 FLAGS ())\r\na OK done\r\n"
    );
    let text = client.send("b UID FETCH 7,1 (RFC822.SIZE INTERNALDATE)\r\n");
    assert_eq!(
        text,
        "* 1 FETCH (UID 1 RFC822.SIZE 43 INTERNALDATE \" 2-Jan-1970 00:00:00 +0000\")\r\n\
         * 7 FETCH (UID 7 RFC822.SIZE 43 INTERNALDATE \" 8-Jan-1970 00:00:00 +0000\")\r\n\
         b OK done\r\n"
    );
    assert_eq!(client.send("c FETCH 8 FLAGS\r\n"), "c BAD no such sequence number\r\n");
    assert_eq!(client.send("d UID FETCH 100 FLAGS\r\n"), "d OK done\r\n");
    // Above the last UID `n:*` names the last message.
    assert!(client.send("e UID FETCH 100:* UID\r\n").starts_with("* 7 FETCH (UID 7)\r\n"));
    // Over several pages and batches.
    let text = client.send("f FETCH 1:* BODY.PEEK[TEXT]\r\n");
    assert_eq!(text.matches("* ").count(), 7, "{text}");
    assert!(text.contains("* 7 FETCH (BODY[TEXT] {12}\r\nbody of m6\r\n)\r\n"), "{text}");
    assert!(!client.account.asked.iter().any(|q| matches!(q, Question::Store { .. })));
}

#[test]
fn seen_is_set_by_reading() {
    let mut client = Client::selected(account(3));
    let text = client.send("a FETCH 1:3 BODY[HEADER.FIELDS (subject)]\r\n");
    assert!(text.contains("* 2 FETCH (BODY[HEADER.FIELDS (subject)] {15}\r\nSubject: m1\r\n\r\n FLAGS (\\Seen))\r\n"), "{text}");
    assert!(
        text.contains("* 1 FETCH (BODY[HEADER.FIELDS (subject)] {15}\r\nSubject: m0\r\n\r\n)\r\n")
    );
    let stores = client.account.asked.iter().filter(|q| matches!(q, Question::Store { .. }));
    assert_eq!(stores.count(), 1);
    // The client was told; it is not told again.
    assert_eq!(client.send("b NOOP\r\n"), "b OK done\r\n");
    client.send("c EXAMINE INBOX\r\n");
    client.account.deliver("Inbox", "", &plain("new"));
    assert!(client.send("d NOOP\r\n").contains("* 4 EXISTS"));
    assert!(!client.send("e FETCH 4 BODY[]\r\n").contains("FLAGS"));
}

#[test]
fn structure_and_parts() {
    let mut account = account(0);
    account.deliver("Inbox", "\\Seen", MAIL);
    let mut client = Client::selected(account);
    let text = client.send("a FETCH 1 (ENVELOPE)\r\n");
    assert_eq!(
        text,
        "* 1 FETCH (ENVELOPE (\"Wed, 5 Jun 2024 23:30:00 -0700\" \"=?utf-8?q?gr=C3=BCn?=\" \
         ((\"Ann A\" NIL \"ann\" \"a.test\")) ((\"Ann A\" NIL \"ann\" \"a.test\")) \
         ((\"Ann A\" NIL \"ann\" \"a.test\")) \
         ((NIL NIL \"team\" NIL)(NIL NIL \"b\" \"b.test\")(NIL NIL NIL NIL)) NIL NIL NIL NIL))\r\n\
         a OK done\r\n"
    );
    let text = client.send("b FETCH 1 BODYSTRUCTURE\r\n");
    assert_eq!(
        text,
        "* 1 FETCH (BODYSTRUCTURE (\
         (\"TEXT\" \"PLAIN\" (\"CHARSET\" \"utf-8\") NIL NIL \"QUOTED-PRINTABLE\" 9 0 NIL NIL NIL NIL)\
         (\"APPLICATION\" \"OCTET-STREAM\" (\"NAME\" \"a.bin\") NIL NIL \"BASE64\" 8 NIL \
         (\"attachment\" (\"FILENAME\" \"a.bin\")) NIL NIL)\
         (\"MESSAGE\" \"RFC822\" NIL NIL NIL \"7BIT\" 23 \
         (NIL \"inner\" NIL NIL NIL NIL NIL NIL NIL NIL) \
         (\"TEXT\" \"PLAIN\" (\"CHARSET\" \"us-ascii\") NIL NIL \"7BIT\" 5 0 NIL NIL NIL NIL) \
         2 NIL NIL NIL NIL) \
         \"MIXED\" (\"BOUNDARY\" \"x\") NIL NIL NIL))\r\nb OK done\r\n"
    );
    let text = client.send("c FETCH 1 BODY\r\n");
    assert!(
        text.contains("\"BASE64\" 8)(") && text.ends_with(" \"MIXED\"))\r\nc OK done\r\n"),
        "{text}"
    );
    let get = |client: &mut Client, item: &str| client.send(&format!("d FETCH 1 {item}\r\n"));
    let one = |item: &str, value: &str| format!("* 1 FETCH ({item} {value})\r\nd OK done\r\n");
    for (item, name, value) in [
        ("BODY.PEEK[1]", "BODY[1]", "{9}\r\ngr=C3=BCn"),
        ("BODY[2]<2.3>", "BODY[2]<2>", "{3}\r\nECA"),
        ("BODY[2]<99.3>", "BODY[2]<99>", "\"\""),
        ("BODY[3.HEADER]", "BODY[3.HEADER]", "{18}\r\nSubject: inner\r\n\r\n"),
        ("BODY[3.TEXT]", "BODY[3.TEXT]", "{5}\r\nhello"),
        ("BODY[3.1]", "BODY[3.1]", "{5}\r\nhello"),
        (
            "BODY[3.HEADER.FIELDS (Subject)]",
            "BODY[3.HEADER.FIELDS (Subject)]",
            "{18}\r\nSubject: inner\r\n\r\n",
        ),
        ("BODY[9]", "BODY[9]", "NIL"),
        ("BODY[1.1]", "BODY[1.1]", "NIL"),
        ("BINARY[1]", "BINARY[1]", "{5}\r\ngrün"),
        ("BINARY.PEEK[2]", "BINARY[2]", "~{4}\r\n\0\u{1}\u{2}\u{3}"),
        ("BINARY[2]<1.2>", "BINARY[2]<1>", "{2}\r\n\u{1}\u{2}"),
        ("BINARY.SIZE[2]", "BINARY.SIZE[2]", "4"),
    ] {
        assert_eq!(get(&mut client, item), one(name, value), "{item}");
    }
    let mime = get(&mut client, "BODY[3.MIME]");
    assert!(mime.contains("{32}\r\nContent-Type: message/rfc822\r\n\r\n"), "{mime}");
    assert!(get(&mut client, "RFC822.HEADER").contains("RFC822.HEADER {"));
}

#[test]
fn large_messages_are_streamed() {
    let mut account = account(0);
    let mut mail = b"Subject: big\r\nX-A: 1\r\nContent-Transfer-Encoding: base64\r\n\r\n".to_vec();
    mail.extend(b"QUJD".repeat(30_000));
    account.deliver("Inbox", "\\Seen", &mail);
    let mut client = Client::selected(account);
    let text = client.send("a FETCH 1 BODY[]\r\n");
    assert!(text.contains(&format!("BODY[] {{{}}}\r\nSubject", mail.len())));
    assert!(text.ends_with("QUJD)\r\na OK done\r\n"));
    let text = client.send("b FETCH 1 BINARY[1]<2.4>\r\n");
    assert_eq!(text, "* 1 FETCH (BINARY[1]<2> ~{4}\r\nCABC)\r\nb OK done\r\n");
    let text = client.send("c FETCH 1 (BODY[HEADER.FIELDS.NOT (Subject)] BODY[TEXT]<0.4>)\r\n");
    assert!(text.contains("BODY[HEADER.FIELDS.NOT (Subject)] {45}\r\nX-A: 1\r\n"), "{text}");
    assert!(text.contains("BODY[TEXT]<0> {4}\r\nQUJD)\r\n"), "{text}");
}

#[test]
fn storing() {
    let mut client = Client::selected(account(4));
    let text = client.send("a STORE 1:2 +FLAGS (\\Deleted Work)\r\n");
    assert!(text.starts_with("* FLAGS ("), "{text}");
    assert!(text.contains("* 1 FETCH (FLAGS (\\Seen \\Deleted work))\r\n"), "{text}");
    assert!(text.ends_with("* 2 FETCH (FLAGS (\\Deleted work))\r\na OK done\r\n"), "{text}");
    assert_eq!(client.send("b UID STORE 3 -FLAGS.SILENT \\Seen\r\n"), "b OK done\r\n");
    let text = client.send("c UID STORE 3 FLAGS ()\r\n");
    assert_eq!(text, "* 3 FETCH (UID 3 FLAGS ())\r\nc OK done\r\n");
    assert_eq!(client.send("d NOOP\r\n"), "d OK done\r\n");
    assert_eq!(client.send("e STORE 9 FLAGS ()\r\n"), "e BAD no such sequence number\r\n");
    // What somebody else changed after it is told.
    client.account.flag("Inbox", 1, "\\Flagged");
    let text = client.send("f NOOP\r\n");
    assert_eq!(text, "* 1 FETCH (UID 1 FLAGS (\\Seen \\Flagged \\Deleted work))\r\nf OK done\r\n");
}

#[test]
fn what_others_change_is_not_taken_for_ones_own() {
    let mut client = Client::selected(account(3));
    // There was nothing to change, because somebody else did it and more.
    client.account.flag("Inbox", 1, "\\Flagged");
    assert_eq!(client.send("a STORE 1 +FLAGS.SILENT (\\Seen)\r\n"), "a OK done\r\n");
    let text = client.send("b NOOP\r\n");
    assert_eq!(text, "* 1 FETCH (UID 1 FLAGS (\\Seen \\Flagged))\r\nb OK done\r\n");
    // There was, and somebody else's change lies before it, heard of or not.
    client.account.flag("Inbox", 3, "\\Flagged");
    client.send("a STORE 3 +FLAGS.SILENT (\\Draft)\r\n");
    let text = client.send("b NOOP\r\n");
    assert!(text.contains("* 3 FETCH (UID 3 FLAGS (\\Seen \\Flagged \\Draft))\r\n"), "{text}");
    client.account.flag("Inbox", 1, "\\Answered");
    client.told();
    client.send("a STORE 1 +FLAGS.SILENT (\\Draft)\r\n");
    let text = client.send("b NOOP\r\n");
    assert!(text.contains("(\\Seen \\Answered \\Flagged \\Draft)"), "{text}");
    // Somebody changes a message between the reading of its row and the setting of \Seen.
    let text = client.send("c FETCH 2 BODY[TEXT]\r\n");
    assert!(text.contains("FLAGS (\\Seen)"), "{text}");
    client.account.flag("Inbox", 2, "\\Answered");
    let text = client.send("d NOOP\r\n");
    assert_eq!(text, "* 2 FETCH (UID 2 FLAGS (\\Seen \\Answered))\r\nd OK done\r\n");
    assert_eq!(client.send("e NOOP\r\n"), "e OK done\r\n");
}

#[test]
fn expunge_only_where_allowed() {
    let mut client = Client::selected(account(6));
    client.account.remove("Inbox", 2);
    client.account.remove("Inbox", 5);
    client.account.deliver("Inbox", "", &plain("new"));
    client.told();
    // Commands with sequence numbers see the old numbers.
    let text = client.send("a FETCH 1:3 UID\r\n");
    assert!(text.contains("* 3 FETCH (UID 3)") && !text.contains("EXPUNGE"), "{text}");
    let text = client.send("b FETCH 1:3 FLAGS\r\n");
    assert!(!text.contains("* 2 FETCH"), "{text}");
    assert!(text.ends_with("b OK [EXPUNGEISSUED] done\r\n"), "{text}");
    assert!(!client.send("c SEARCH ALL\r\n").contains("EXPUNGE"));
    assert!(!client.send("d FETCH 99 FLAGS\r\n").contains("EXPUNGE"));
    let text = client.send("e NOOP\r\n");
    assert_eq!(text, "* 5 EXPUNGE\r\n* 2 EXPUNGE\r\n* 5 EXISTS\r\n* 0 RECENT\r\ne OK done\r\n");
    let text = client.send("f FETCH 5 UID\r\n");
    assert!(text.starts_with("* 5 FETCH (UID 7)"), "{text}");
}

#[test]
fn expunging() {
    let mut client = Client::selected(account(5));
    client.send("a STORE 2,4,5 +FLAGS.SILENT (\\Deleted)\r\n");
    let text = client.send("b UID EXPUNGE 4:9\r\n");
    assert_eq!(text, "* 5 EXPUNGE\r\n* 4 EXPUNGE\r\nb OK done\r\n");
    assert_eq!(client.send("c EXPUNGE\r\n"), "* 2 EXPUNGE\r\nc OK done\r\n");
    client.send("d STORE 1 +FLAGS.SILENT (\\Deleted)\r\n");
    assert_eq!(client.send("e CLOSE\r\n"), "e OK closed\r\n");
    assert!(client.send("f SELECT INBOX\r\n").contains("* 1 EXISTS"));
    client.send("g STORE 1 +FLAGS.SILENT (\\Deleted)\r\n");
    assert_eq!(client.send("h UNSELECT\r\n"), "h OK done\r\n");
    assert!(client.send("i SELECT INBOX\r\n").contains("* 1 EXISTS"));
}

#[test]
fn copying_and_moving() {
    let mut client = Client::selected(account(4));
    assert!(client.send("a COPY 1 there\r\n").starts_with("a NO [TRYCREATE] "));
    client.send("b CREATE there\r\n");
    assert_eq!(client.send("c COPY 2:3 there\r\n"), "c OK [COPYUID 9 2:3 1:2] copied\r\n");
    let text = client.send("d UID MOVE 1,4 there\r\n");
    assert_eq!(
        text,
        "* OK [COPYUID 9 1,4 3:4] moved\r\n* 4 EXPUNGE\r\n* 1 EXPUNGE\r\nd OK done\r\n"
    );
    assert_eq!(client.send("e UID MOVE 1,4 there\r\n"), "e OK nothing to do\r\n");
    // Into the same mailbox.
    let text = client.send("f COPY 1 INBOX\r\n");
    assert!(text.contains("* 3 EXISTS") && text.contains("f OK [COPYUID 9 2 5]"), "{text}");
    assert!(client.send("g MOVE 1 INBOX\r\n").starts_with("g NO [CANNOT]"));
}

#[test]
fn searching() {
    let mut account = account(6);
    account.deliver("Inbox", "work", MAIL);
    let mut client = Client::selected(account);
    let mut search = |program: &str| {
        let text = client.send(&format!("a SEARCH {program}\r\n"));
        text.strip_suffix("a OK done\r\n").unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    for (program, numbers) in [
        ("ALL", "1 2 3 4 5 6 7"),
        ("SEEN", "1 3 5"),
        ("UNSEEN 1:4", "2 4"),
        ("NOT SEEN NOT UID 4", "2 6 7"),
        ("OR 1 OR UID 3 7", "1 3 7"),
        ("KEYWORD WORK", "7"),
        ("UNKEYWORD work 6:7", "6"),
        ("LARGER 100", "7"),
        ("SMALLER 100 1:2", "1 2"),
        ("TEXT \"BODY OF M4\"", "5"),
        ("NOT TEXT \"body\" ALL", "7"),
        ("OR SUBJECT m1 SUBJECT m3", "2 4"),
        ("SINCE 6-Jan-1970 BEFORE 8-Jan-1970", "5 6"),
        ("ON 2-Jan-1970", "1"),
        // The day in the zone of the Date field, the named day itself included.
        ("SENTSINCE 5-Jun-2024", "7"),
        ("SENTON 5-Jun-2024", "7"),
        ("SENTBEFORE 5-Jun-2024", ""),
        ("NEW", ""),
        ("OLD 1", "1"),
        ("99", ""),
        ("(SEEN 1:2) HEADER From \"y.test\"", "1"),
    ] {
        let numbers = if numbers.is_empty() { String::new() } else { format!(" {numbers}") };
        assert_eq!(search(program), format!("* SEARCH{numbers}\r\n"), "{program}");
    }
    let text = search("RETURN (MIN MAX COUNT ALL) UNSEEN");
    assert_eq!(text, "* ESEARCH (TAG \"a\") MIN 2 MAX 7 COUNT 4 ALL 2,4,6:7\r\n");
    assert_eq!(search("RETURN (COUNT) 99"), "* ESEARCH (TAG \"a\") COUNT 0\r\n");
    assert_eq!(search("RETURN () 99"), "* ESEARCH (TAG \"a\")\r\n");
    assert_eq!(search("RETURN (SAVE) UNSEEN"), "");
    assert_eq!(search("RETURN (COUNT) $ 1:4"), "* ESEARCH (TAG \"a\") COUNT 2\r\n");
    let text = client.send("b FETCH $ UID\r\n");
    assert_eq!(text.matches(" FETCH ").count(), 4);
    assert!(
        client
            .send("c SEARCH CHARSET X TEXT y\r\n")
            .starts_with("c NO [BADCHARSET (US-ASCII UTF-8)]")
    );
    client.send("d SEARCH RETURN (SAVE MAX) ALL\r\n");
    assert_eq!(client.send("e UID FETCH $ UID\r\n").matches(" FETCH ").count(), 1);
    let text = client.send("f ENABLE IMAP4rev2\r\ng UID SEARCH SEEN\r\n");
    assert!(text.contains("* ESEARCH (TAG \"g\") UID ALL 1,3,5\r\n"), "{text}");
    // An empty mailbox.
    client.send("h CREATE e\r\ni SELECT e\r\n");
    assert!(client.send("j SEARCH 1:* UNSEEN\r\n").contains("* ESEARCH (TAG \"j\")\r\n"));
}

#[test]
fn listing() {
    let mut client = Client::new(account(2));
    assert_eq!(
        client.send("a LIST \"\" \"\"\r\n"),
        "* LIST (\\Noselect) \"/\" \"\"\r\na OK done\r\n"
    );
    client.send("b CREATE Sent (USE (\\Sent))\r\nc CREATE a\r\nd CREATE a/b\r\ne CREATE &Jjo-\r\n");
    let text = client.send("f LIST \"\" *\r\n");
    for line in [
        "(\\HasNoChildren) \"/\" INBOX",
        "(\\HasChildren) \"/\" a\r",
        "(\\HasNoChildren) \"/\" a/b",
        "(\\HasNoChildren) \"/\" &Jjo-",
        "(\\HasNoChildren \\Sent) \"/\" Sent",
    ] {
        assert!(text.contains(&format!("* LIST {line}")), "{line}: {text}");
    }
    assert!(!client.send("g LIST \"\" %\r\n").contains("a/b"));
    client.send("h SUBSCRIBE a/b\r\ni SUBSCRIBE gone\r\n");
    let text = client.send("j LIST (SUBSCRIBED) \"\" *\r\n");
    assert!(
        text.contains("* LIST (\\NonExistent \\HasNoChildren \\Subscribed) \"/\" gone\r\n"),
        "{text}"
    );
    assert_eq!(text.matches("* LIST").count(), 2);
    let text = client.send("k LIST (SUBSCRIBED RECURSIVEMATCH) \"\" %\r\n");
    assert!(
        text.contains("* LIST (\\HasChildren) \"/\" a (\"CHILDINFO\" (\"SUBSCRIBED\"))\r\n"),
        "{text}"
    );
    assert_eq!(client.send("l LIST (SPECIAL-USE) \"\" *\r\n").matches("* LIST").count(), 1);
    let text =
        client.send("m LIST \"\" INB* RETURN (STATUS (MESSAGES UNSEEN SIZE) SUBSCRIBED)\r\n");
    assert!(text.contains("* STATUS INBOX (MESSAGES 2 UNSEEN 1 SIZE 86)\r\n"), "{text}");
    let text = client.send("n LSUB \"\" %\r\n");
    assert!(
        text.contains("* LSUB (\\Noselect) \"/\" a\r\n") && text.contains("* LSUB () \"/\" gone")
    );
    let text = client.send("o STATUS INBOX (UIDNEXT UIDVALIDITY RECENT DELETED)\r\n");
    assert!(text.starts_with("* STATUS INBOX (UIDNEXT 3 UIDVALIDITY 7 RECENT 0 DELETED 0)\r\n"));
    assert!(client.send("p STATUS nope (MESSAGES)\r\n").starts_with("p NO [NONEXISTENT]"));
    let text = client.send("q ENABLE IMAP4REV2\r\nr LIST \"\" (a/% \"\u{263a}\")\r\n");
    assert!(text.contains("\"/\" \"\u{263a}\"\r\n") && text.contains("\"/\" a/b\r\n"), "{text}");
    assert!(client.send("s CREATE a//b\r\n").starts_with("s NO [CANNOT]"));
    assert!(client.send("t CREATE inbox\r\n").starts_with("t NO [ALREADYEXISTS]"));
    assert!(client.send("u CREATE a\r\n").starts_with("u NO [ALREADYEXISTS]"));
    assert!(client.send("v DELETE INBOX\r\n").starts_with("v NO [CANNOT]"));
    assert!(client.send("w DELETE nope\r\n").starts_with("w NO [NONEXISTENT]"));
    assert!(client.send("x RENAME a b\r\n").starts_with("x OK"));
    assert!(client.send("y CREATE z (USE (\\All))\r\n").starts_with("y NO [USEATTR]"));
    assert_eq!(
        client.send("z NAMESPACE\r\n"),
        "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\nz OK done\r\n"
    );
}

#[test]
fn appending() {
    let mut client = Client::selected(account(1));
    let text = client.send("a APPEND INBOX (\\Seen) {5}\r\nhello\r\n");
    assert_eq!(text, "+ \r\n* 2 EXISTS\r\n* 0 RECENT\r\na OK [APPENDUID 7 2] stored\r\n");
    // Refused before the data flows; the next command is understood.
    let text = client.send("b APPEND nope {5}\r\nc NOOP\r\n");
    assert_eq!(text, "b NO [TRYCREATE] no such mailbox\r\nc OK done\r\n");
    // Refused while the data flows.
    let text = client.send("d APPEND nope {5+}\r\nhello\r\ne NOOP\r\n");
    assert_eq!(text, "d NO [TRYCREATE] no such mailbox\r\ne OK done\r\n");
    assert!(client.send("f APPEND INBOX {0+}\r\n\r\n").starts_with("f NO "));
    assert!(client.send("g APPEND a//b {3+}\r\nabc\r\n").starts_with("g NO [CANNOT]"));
    // Dates that would be told as others later.
    for year in ["0001", "1677", "2263", "9999"] {
        let text =
            client.send(&format!("k APPEND INBOX \" 1-Jan-{year} 00:00:00 +0000\" {{5}}\r\n"));
        assert!(text.starts_with("k NO [CANNOT] dates before 21-Sep-1677"), "{year}: {text}");
    }
    let text = client.send("l APPEND INBOX \" 1-Jan-9999 00:00:00 +0000\" {5+}\r\nhello\r\n");
    assert!(text.starts_with("l NO [CANNOT] dates"), "{text}");
    // Above the limit: NO, since nothing is wrong with the command (RFC 7889 §4).
    let toobig = "h NO [TOOBIG] message is too large\r\n";
    assert_eq!(client.send("h APPEND INBOX {999999999}\r\n"), toobig);
    assert!(client.send("h2 CREATE {999999999}\r\n").starts_with("h2 BAD [TOOBIG]"));
    assert!(client.send("i FETCH 2 BODY[]\r\n").contains("BODY[] {5}\r\nhello)"));
    // One that does not wait is on its way: dropped if it is near the limit, else the end.
    client.reader = Reader::new(Limits { message: 10, ..Limits::SESSION });
    let text = client.send("h APPEND INBOX {11+}\r\nhello world\r\nj NOOP\r\n");
    assert_eq!(text, format!("{toobig}j OK done\r\n"));
    let text = client.send("h APPEND INBOX {9999999+}\r\nx LOGOUT\r\n");
    assert_eq!(text, format!("{toobig}* BYE cannot go on after that\r\n"));
    assert!(client.closed);
}

#[test]
fn idling() {
    let mut client = Client::selected(account(2));
    assert_eq!(client.send("a IDLE\r\n"), "+ idling\r\n");
    client.account.deliver("Inbox", "", &plain("x"));
    assert_eq!(client.told(), "* 3 EXISTS\r\n* 0 RECENT\r\n");
    assert_eq!(client.told(), "");
    client.account.remove("Inbox", 1);
    client.account.flag("Inbox", 2, "$junk");
    assert_eq!(client.told(), "* 2 FETCH (UID 2 FLAGS ($Junk))\r\n* 1 EXPUNGE\r\n");
    assert_eq!(client.send("done\r\n"), "a OK idle is over\r\n");
    assert_eq!(
        client.send("b IDLE\r\nFOO\r\n"),
        "+ idling\r\nb BAD expected DONE\r\n* BYE protocol error\r\n"
    );
    assert!(client.closed);
}

#[test]
fn the_account_goes_away() {
    let mut client = Client::selected(account(3));
    client.account.away = true;
    for command in ["FETCH 1 FLAGS", "SELECT INBOX", "LIST \"\" *", "STATUS INBOX (MESSAGES)"] {
        let text = client.send(&format!("a {command}\r\n"));
        assert!(text.ends_with("a NO [UNAVAILABLE] try again later\r\n"), "{text}");
        if command == "SELECT INBOX" {
            client.account.away = false;
            client.send("b SELECT INBOX\r\n");
            client.account.away = true;
        }
    }
    // What can be done without it is done.
    assert_eq!(client.send("c NOOP\r\n"), "c OK done\r\n");
    assert_eq!(client.send("d IDLE\r\n"), "+ idling\r\n");
    client.account.away = false;
    client.account.deliver("Inbox", "", &plain("x"));
    assert_eq!(client.told(), "* 4 EXISTS\r\n* 0 RECENT\r\n");
    assert_eq!(client.send("DONE\r\n"), "d OK idle is over\r\n");
}

#[test]
fn a_full_disk_is_no_reason_not_to_read() {
    let mut client = Client::selected(account(2));
    client.account.full = true;
    let text = client.send("a FETCH 2 BODY[TEXT]\r\n");
    assert!(text.contains("BODY[TEXT] {") && text.ends_with("a OK done\r\n"), "{text}");
    assert!(!text.contains("\\Seen"), "{text}");
    assert!(client.send("b STORE 2 +FLAGS (\\Seen)\r\n").starts_with("b NO [UNAVAILABLE]"));
}

#[test]
fn states_and_errors() {
    let mut client = Client::new(account(1));
    for command in [
        "FETCH 1 FLAGS",
        "STORE 1 FLAGS ()",
        "SEARCH ALL",
        "EXPUNGE",
        "CLOSE",
        "UNSELECT",
        "COPY 1 x",
        "CHECK",
        "UID FETCH 1 UID",
    ] {
        let text = client.send(&format!("a {command}\r\n"));
        assert!(text.starts_with("a NO [CLIENTBUG] no mailbox"), "{command}: {text}");
    }
    assert!(client.send("b LOGIN a b\r\n").starts_with("b BAD"));
    assert!(client.send("c STARTTLS\r\n").starts_with("c BAD"));
    assert!(client.send("d XYZZY\r\n").starts_with("d BAD"));
    assert!(client.send("e NOOP \r\n").starts_with("e BAD"));
    assert!(client.send("\r\n").starts_with("* BAD"));
    assert!(client.send("f ID NIL\r\n").starts_with("* ID ("));
    let text = client.send("g CAPABILITY\r\n");
    assert!(text.contains(" IMAP4rev1 ") && text.contains(" APPENDLIMIT=67108864"));
    assert!(!text.contains("STARTTLS") && !text.contains("AUTH="), "{text}");
    let text = client.send("h LOGOUT\r\n");
    assert!(text.starts_with("* BYE ") && text.contains("h OK ") && client.closed);
}

#[test]
fn an_idle_session_is_small() {
    let mut client = Client::selected(account(300));
    client.send("a FETCH 1:* (FLAGS ENVELOPE)\r\n");
    client.send("b IDLE\r\n");
    assert!(size_of::<Session>() < 256, "{}", size_of::<Session>());
    assert!(client.session.heap() < 1_024, "{}", client.session.heap());
    assert!(client.reader.heap() <= 512);
}

#[test]
fn random_commands_keep_client_and_account_in_step() {
    use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
    let mut runner = TestRunner::new(ProptestConfig::with_cases(64));
    runner
        .run(&vec((0u8..9, 1u32..12), 1..40), |steps| {
            let mut client = Client::selected(account(6));
            // What a client believes: UIDs by sequence number.
            let mut believed: Vec<u32> = (1..=6).collect();
            for (what, number) in steps {
                let live: Vec<u32> = client.account.folders[&MailboxName::new("Inbox").unwrap()]
                    .messages
                    .iter()
                    .filter(|(_, m)| !m.expunged)
                    .map(|(uid, _)| *uid)
                    .collect();
                let text = match what {
                    0 => {
                        client.account.deliver("Inbox", "", b"x: y\r\n\r\n");
                        client.told()
                    }
                    1 if live.contains(&number) => {
                        client.account.remove("Inbox", number);
                        client.told()
                    }
                    2 if live.contains(&number) => {
                        client.account.flag("Inbox", number, "\\Flagged");
                        client.told()
                    }
                    3 => client.send("a NOOP\r\n"),
                    4 => client.send(&format!("a UID STORE {number} +FLAGS (\\Deleted)\r\n")),
                    5 => client.send("a EXPUNGE\r\n"),
                    6 => client.send(&format!("a FETCH {number} (UID FLAGS)\r\n")),
                    7 => client.send(&format!("a UID COPY {number} INBOX\r\n")),
                    _ => client.send("a SEARCH ALL\r\n"),
                };
                for line in text.lines() {
                    let words: Vec<&str> = line.split(' ').collect();
                    match words.as_slice() {
                        ["*", seq, "EXPUNGE"] => {
                            prop_assert!(!matches!(what, 6 | 8), "{}", text);
                            believed.remove(seq.parse::<usize>().unwrap() - 1);
                        }
                        ["*", count, "EXISTS"] => {
                            let count = count.parse::<usize>().unwrap();
                            prop_assert!(count > believed.len());
                            while believed.len() < count {
                                believed.push(0);
                            }
                        }
                        ["*", seq, "FETCH", "(UID", uid, ..] => {
                            let uid = uid.trim_end_matches(')').parse::<u32>().unwrap();
                            let known = &mut believed[seq.parse::<usize>().unwrap() - 1];
                            prop_assert!(*known == 0 || *known == uid, "{}", text);
                            *known = uid;
                        }
                        _ => {}
                    }
                }
            }
            client.send("z NOOP\r\n");
            let text = client.send("z UID SEARCH ALL\r\n");
            let numbers: Vec<u32> = text.lines().next().unwrap()[8..]
                .split_whitespace()
                .map(|n| n.parse().unwrap())
                .collect();
            let live: Vec<u32> = client.account.folders[&MailboxName::new("Inbox").unwrap()]
                .messages
                .iter()
                .filter(|(_, m)| !m.expunged)
                .map(|(uid, _)| *uid)
                .collect();
            prop_assert_eq!(numbers, live);
            Ok(())
        })
        .unwrap();
}
