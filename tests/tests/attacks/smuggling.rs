//! SMTP smuggling against the running server: whatever a line end may look like, there is one end of
//! DATA, and what stands behind another one is never a command.

use crate::{PASSWORD, USER};
use mox_tests::{
    client::{Imap, Smtp},
    tree::Tree,
};

/// What ends DATA for some servers, but is not CRLF.CRLF.
const NO_ENDS: [&str; 20] = [
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r.\r\n",
    "\r\n.\r",
    "\r.\n",
    "\n.\r",
    "\r\n.\r\r\n",
    "\r\n.\r.\r\n",
    "\n\n.\n\n",
    "\r\n\0.\r\n",
    "\r\n.\0\r\n",
    "\r\n.\n\r\n",
    "\r\n. \r\n",
    "\r\n.\t\r\n",
    "\r\n..\r\n",
    "\u{2028}.\u{2028}",
    "\u{85}.\u{85}",
    "\r\n\u{ff0e}\r\n",
];

#[test]
fn nothing_but_crlf_dot_crlf_ends_data() {
    let tree = Tree::start();
    let inside = |end: &str| {
        format!(
            "From: <a@example.org>\r\nSubject: outer\r\n\r\nbody{end}MAIL FROM:<eve@example.org>\r\n\
             RCPT TO:<{USER}>\r\nDATA\r\nFrom: <eve@example.org>\r\nSubject: smuggled\r\n\r\nx\r\n"
        )
    };
    for end in NO_ENDS {
        let mut smtp = Smtp::connect(tree.address(25)).unwrap();
        for command in ["MAIL FROM:<a@example.org>", &format!("RCPT TO:<{USER}>")] {
            assert_eq!(smtp.command(command).unwrap().code, 250);
        }
        assert_eq!(smtp.command("DATA").unwrap().code, 354);
        smtp.raw(inside(end).as_bytes()).unwrap();
        // The server may have hung up already: that is an answer, too.
        let _ = smtp.raw(b".\r\n");
        let first = smtp.reply();
        if let Ok(reply) = &first
            && reply.code == 250
        {
            // It was one message; no second answer is on its way.
            assert_eq!(smtp.command("NOOP").unwrap().code, 250, "{end:?}");
        }
    }
    // The control: behind the true end there is a command.
    let mut smtp = Smtp::connect(tree.address(25)).unwrap();
    let all = format!("MAIL FROM:<a@example.org>\r\nRCPT TO:<{USER}>\r\nDATA\r\n");
    smtp.raw(all.as_bytes()).unwrap();
    for code in [250, 250, 354] {
        assert_eq!(smtp.reply().unwrap().code, code);
    }
    let second = inside("\r\n.\r\n").replace("smuggled", "pipelined");
    smtp.raw(format!("{second}.\r\n").as_bytes()).unwrap();
    for code in [250, 250, 250, 354, 250] {
        assert_eq!(smtp.reply().unwrap().code, code);
    }

    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    let subjects = imap.command("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])").unwrap().text();
    assert!(!subjects.contains("smuggled"), "{subjects}");
    assert!(subjects.contains("pipelined"), "{subjects}");
    // And what was taken has no line ends that another server could take for others.
    for message in imap.command("FETCH 1:* (BODY.PEEK[])").unwrap().untagged {
        for (at, octet) in message.iter().enumerate() {
            let after_cr = at > 0 && message[at - 1] == b'\r';
            assert!(*octet != b'\n' || after_cr, "a bare LF at {at}");
            let before_lf = message.get(at + 1) == Some(&b'\n');
            assert!(*octet != b'\r' || before_lf, "a bare CR at {at}");
        }
    }
}
