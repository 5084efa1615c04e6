//! mutt at a terminal nobody watches: keys are pushed, and what it wrote is read.

use crate::{
    PASSWORD, USER, certificate, count, fetch, log_in,
    programs::{program, succeeds, succeeds_with, there},
    says, wait_for,
};
use mox_tests::{client::Smtp, tree::Tree};
use std::path::{Path, PathBuf};

/// A home with mutt's settings.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    /// `scheme` and `port` of the mail store, of submission, and the mechanism of both.
    fn of(tree: &Tree, imap: (&str, u16), smtp: (&str, u16), mechanism: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cert = certificate(&tree.folder().join("keys"), folder.path().join("cert.pem"));
        let url = |(scheme, port): (&str, u16)| {
            format!("{scheme}://{}@{}", USER.replace('@', "%40"), tree.address(port))
        };
        let settings = format!(
            "set folder = \"{store}/\"\nset spoolfile = \"+INBOX\"\nset record = \"+Sent\"\n\
             set postponed = \"+Drafts\"\nset trash = \"\"\nset smtp_url = \"{submit}\"\n\
             set imap_pass = \"{PASSWORD}\"\nset smtp_pass = \"{PASSWORD}\"\n\
             set imap_authenticators = \"{mechanism}\"\nset smtp_authenticators = \"{mechanism}\"\n\
             set ssl_force_tls = yes\nset ssl_starttls = yes\nset ssl_verify_host = no\n\
             set ssl_ca_certificates_file = \"{cert}\"\n\
             set certificate_file = \"{cert}\"\n\
             set from = \"{USER}\"\nset realname = \"Mox\"\nset use_from = yes\nset copy = yes\n\
             set delete = yes\nset confirmappend = no\nset confirmcreate = no\nset quit = yes\n\
             set wait_key = no\nset pipe_decode = no\nset mark_old = no\nset move = no\n\
             set header_cache = \"\"\nset imap_check_subscribed = no\nset beep = no\n\
             set auto_tag = yes\nset sort = mailbox-order\nset resolve = no\nset save_empty = yes\nset tmpdir = \"{tmp}\"\n",
            store = url(imap),
            submit = url(smtp),
            cert = cert.display(),
            tmp = folder.path().display(),
        );
        std::fs::write(folder.path().join("muttrc"), settings).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Opens the mailbox and presses these keys, the last of which must end it.
    fn keys(&self, keys: &str) {
        let rc = self.path("muttrc");
        let push = self.path("keys");
        // `push` puts its keys before those of an earlier one: one line holds them all.
        std::fs::write(&push, format!("push \"{}\"\n", keys.replace('"', "\\\""))).unwrap();
        let line = format!("mutt -n -F {} -e 'source {}'", rc.display(), push.display());
        let mut command = program("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        succeeds(command.env("TERM", "xterm").env("HOME", self.folder.path()));
    }

    /// Sends a message with an attachment, as a script does.
    fn send(&self, subject: &str, body: &str, attachment: &Path) {
        let mut command = program("mutt");
        command.arg("-n").arg("-F").arg(self.path("muttrc")).args(["-s", subject, "-a"]);
        command.arg(attachment).args(["--", USER]).env("HOME", self.folder.path());
        succeeds_with(&mut command, body.as_bytes());
    }
}

fn deliver(tree: &Tree, subject: &str) {
    let mut smtp = Smtp::connect(tree.address(25)).unwrap();
    let message = format!(
        "From: Ann <ann@example.org>\r\nTo: {USER}\r\nSubject: {subject}\r\n\
         Message-ID: <{subject}@example.org>\r\nDate: Sat, 21 Nov 2026 01:10:50 +0000\r\n\r\n\
         Text of {subject}\r\n"
    );
    let reply = smtp.send("ann@example.org", &[USER], message.as_bytes()).unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
}

#[test]
fn mutt_reads_flags_moves_deletes_and_postpones() {
    if !there(&["mutt", "script"]) {
        return;
    }
    let tree = Tree::start();
    for subject in ["one", "two", "three"] {
        deliver(&tree, subject);
    }
    let home = Home::of(&tree, ("imaps", 993), ("smtps", 465), "scram-sha-256");
    let (read, list) = (home.path("read"), home.path("list"));
    // Listed, the first one read, the second flagged, the third moved.
    home.keys(&format!(
        "<first-entry><display-message><exit><pipe-message>cat > {}<enter>\
         <next-entry><flag-message><pipe-message>cat > {}<enter>\
         <last-entry><save-message>=Archive<enter><sync-mailbox><quit>",
        read.display(),
        list.display(),
    ));
    let text = std::fs::read_to_string(read).unwrap();
    assert!(text.contains("Subject: one") && text.contains("Text of one"), "{text}");
    assert!(std::fs::read_to_string(list).unwrap().contains("Text of two"));
    let mut imap = log_in(&tree);
    wait_for(&mut imap, "INBOX", 2);
    wait_for(&mut imap, "Archive", 1);
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    let flags = imap.command("FETCH 1:2 (FLAGS)").unwrap().text();
    let (first, second) = flags.split_once('\n').unwrap();
    assert!(first.contains("\\Seen") && !first.contains("\\Flagged"), "{flags}");
    assert!(second.contains("\\Flagged"), "{flags}");

    // Searched on the server, and deleted.
    home.keys("<delete-pattern>~b 'Text of two'<enter><sync-mailbox><quit>");
    wait_for(&mut imap, "INBOX", 1);
    assert!(imap.command("NOOP").unwrap().is_ok());
    assert!(String::from_utf8(fetch(&mut imap, 1)).unwrap().contains("Subject: one"));
}

#[test]
fn mutt_sends_and_keeps_a_copy() {
    if !there(&["mutt"]) {
        return;
    }
    let tree = Tree::start();
    let mut imap = log_in(&tree);
    let ways = [
        (("imaps", 993), ("smtps", 465), "scram-sha-256"),
        (("imap", 143), ("smtp", 587), "scram-sha-1"),
        (("imap", 143), ("smtp", 587), "plain"),
        (("imaps", 993), ("smtps", 465), "login"),
    ];
    for (number, (store, submit, mechanism)) in ways.into_iter().enumerate() {
        let home = Home::of(&tree, store, submit, mechanism);
        let attachment = home.path("bytes.bin");
        std::fs::write(&attachment, (0..=255).collect::<Vec<u8>>()).unwrap();
        home.send(mechanism, "Grüße\n.\nend\n", &attachment);
        wait_for(&mut imap, "INBOX", number + 1);
        assert_eq!(count(&mut imap, "Sent"), number + 1, "{mechanism}: the copy by APPEND");
    }
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    let came = String::from_utf8_lossy(&fetch(&mut imap, 1)).into_owned();
    assert!(says(&came, "with ESMTPSA id"), "{came}");
    let structure = imap.command("FETCH 1 (BODYSTRUCTURE)").unwrap().text();
    assert!(structure.contains("\"bytes.bin\""), "{structure}");
}
