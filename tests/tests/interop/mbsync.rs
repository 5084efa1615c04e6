//! mbsync keeps a folder of files and an account alike: both directions, flags, deletions, new
//! mailboxes; a second run finds nothing to do.

use crate::{
    PASSWORD, USER, certificate, log_in,
    programs::{program, sasl_has_scram, succeeds, there},
    wait_for,
};
use mox_tests::{client::Imap, tree::Tree};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

fn message(subject: &str) -> Vec<u8> {
    format!(
        "From: Ann <ann@example.org>\r\nTo: {USER}\r\nSubject: {subject}\r\n\
         Message-ID: <{subject}@example.org>\r\n\r\nText of {subject}\r\n"
    )
    .into_bytes()
}

/// A folder with mbsync's settings and the mailboxes it keeps.
struct Local {
    folder: tempfile::TempDir,
}

impl Local {
    fn of(tree: &Tree, port: u16, how: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cert = certificate(&tree.folder().join("keys"), folder.path().join("cert.pem"));
        let address = tree.address(port);
        let settings = format!(
            "IMAPAccount mox\nHost {}\nPort {}\nUser {USER}\nPass {PASSWORD}\n{how}\n\
             CertificateFile {}\n\n\
             IMAPStore far\nAccount mox\n\n\
             MaildirStore near\nSubFolders Verbatim\nPath {mail}/\nInbox {mail}/INBOX\n\n\
             Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nRemove Both\n\
             Expunge Both\nSyncState *\n",
            address.ip(),
            address.port(),
            cert.display(),
            mail = folder.path().join("mail").display(),
        );
        std::fs::create_dir(folder.path().join("mail")).unwrap();
        std::fs::write(folder.path().join("mbsyncrc"), settings).unwrap();
        Self { folder }
    }

    /// One run; what it says it did at the end.
    fn sync(&self) -> String {
        let mut command = program("mbsync");
        command.arg("-V").arg("-c").arg(self.folder.path().join("mbsyncrc")).arg("-a");
        succeeds(command.env("HOME", self.folder.path()))
    }

    fn mailbox(&self, name: &str) -> PathBuf {
        self.folder.path().join("mail").join(name)
    }

    /// The messages of a mailbox: path by subject.
    fn messages(&self, mailbox: &str) -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        for part in ["new", "cur"] {
            for entry in std::fs::read_dir(self.mailbox(mailbox).join(part)).unwrap() {
                let path = entry.unwrap().path();
                let text = std::fs::read_to_string(&path).unwrap();
                let subject = text.lines().find_map(|l| l.strip_prefix("Subject: ")).unwrap();
                found.insert(subject.to_owned(), path);
            }
        }
        found
    }

    /// The flags of a message by the letters of its file's name.
    fn flags(&self, mailbox: &str, subject: &str) -> String {
        let messages = self.messages(mailbox);
        let name = messages[subject].file_name().unwrap().to_str().unwrap().to_owned();
        name.rsplit_once(":2,").map_or(String::new(), |(_, flags)| flags.to_owned())
    }

    /// Gives a message these flags, as a mail program does that reads the folder.
    fn set_flags(&self, mailbox: &str, subject: &str, flags: &str) {
        let path = &self.messages(mailbox)[subject];
        let name = path.file_name().unwrap().to_str().unwrap();
        let base = name.rsplit_once(":2,").map_or(name, |(base, _)| base);
        let to = self.mailbox(mailbox).join("cur").join(format!("{base}:2,{flags}"));
        std::fs::rename(path, to).unwrap();
    }

    /// Every file with its content: what a run without work must leave as it is.
    fn all(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(folder: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, into);
                } else {
                    into.insert(path.clone(), std::fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(&self.folder.path().join("mail"), &mut files);
        files
    }
}

/// What the server says of a mailbox that changes with every change of it.
fn highest(imap: &mut Imap) -> Vec<String> {
    let list = imap.command("LIST \"\" \"*\"").unwrap();
    let mut states = Vec::new();
    for line in &list.untagged {
        let line = String::from_utf8_lossy(line).into_owned();
        let name = line.rsplit_once("\"/\" ").unwrap().1.to_owned();
        let items = "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN)";
        states.push(imap.command(&format!("STATUS {name} {items}")).unwrap().text());
    }
    states
}

fn subjects(local: &Local, mailbox: &str) -> Vec<String> {
    local.messages(mailbox).into_keys().collect()
}

#[test]
fn mbsync_keeps_both_sides_alike() {
    if !(there(&["mbsync"]) && sasl_has_scram()) {
        return;
    }
    let tree = Tree::start();
    let mut imap = log_in(&tree);
    for n in 1..=4 {
        assert!(imap.append("INBOX", &message(&format!("far{n}"))).unwrap().is_ok());
    }
    assert!(imap.command("CREATE \"Work/Deep &AOQ-\"").unwrap().is_ok());
    assert!(imap.append("Work/Deep &AOQ-", &message("deep")).unwrap().is_ok());
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    assert!(imap.command("STORE 2 +FLAGS (\\Flagged \\Answered \\Seen)").unwrap().is_ok());

    // From there to here.
    let local = Local::of(&tree, 993, "SSLType IMAPS\nAuthMechs PLAIN");
    local.sync();
    assert_eq!(subjects(&local, "INBOX"), ["far1", "far2", "far3", "far4"]);
    assert_eq!(subjects(&local, "Work/Deep &AOQ-"), ["deep"]);
    assert_eq!(local.flags("INBOX", "far2"), "FRS");
    let kept = std::fs::read(&local.messages("INBOX")["far1"]).unwrap();
    let kept = String::from_utf8(kept).unwrap();
    // Files have lines of this system, and mbsync's own mark.
    let kept: Vec<&str> = kept.lines().filter(|line| !line.starts_with("X-TUID: ")).collect();
    let sent = String::from_utf8(message("far1")).unwrap();
    assert_eq!(kept, sent.lines().collect::<Vec<_>>());

    // Again: nothing, on neither side.
    let (files, far) = (local.all(), highest(&mut imap));
    local.sync();
    assert_eq!(local.all(), files);
    assert_eq!(highest(&mut imap), far);

    // From here to there: a new message, flags, a deletion, a new mailbox.
    std::fs::write(local.mailbox("INBOX/new/1.near"), message("near1")).unwrap();
    local.set_flags("INBOX", "far1", "S");
    local.set_flags("INBOX", "far2", "S");
    local.set_flags("INBOX", "far3", "ST");
    for part in ["new", "cur", "tmp"] {
        std::fs::create_dir_all(local.mailbox("Made here").join(part)).unwrap();
    }
    std::fs::write(local.mailbox("Made here/cur/2.near:2,F"), message("near2")).unwrap();
    // And from there to here at the same time.
    assert!(imap.command("STORE 4 +FLAGS (\\Deleted)").unwrap().is_ok());
    assert!(imap.command("EXPUNGE").unwrap().is_ok());
    assert!(imap.append("INBOX", &message("far5")).unwrap().is_ok());
    local.sync();
    assert_eq!(subjects(&local, "INBOX"), ["far1", "far2", "far5", "near1"]);
    wait_for(&mut imap, "INBOX", 4);
    wait_for(&mut imap, "Made here", 1);
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    let seen = imap.command("FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])").unwrap();
    let flags = |subject: &str| {
        let all = seen.untagged.iter().map(|r| String::from_utf8_lossy(r).into_owned());
        let line =
            all.into_iter().find(|r| r.contains(&format!("Subject: {subject}\r\n"))).unwrap();
        let start = line.find("FLAGS (").unwrap() + 7;
        line[start..start + line[start..].find(')').unwrap()].to_owned()
    };
    assert_eq!((flags("far1").as_str(), flags("far2").as_str()), ("\\Seen", "\\Seen"));
    assert_eq!((flags("far5").as_str(), flags("near1").as_str()), ("", ""));

    let (files, far) = (local.all(), highest(&mut imap));
    local.sync();
    assert_eq!(local.all(), files);
    assert_eq!(highest(&mut imap), far);
}

#[test]
fn mbsync_logs_in_by_every_mechanism() {
    if !(there(&["mbsync"]) && sasl_has_scram()) {
        return;
    }
    let tree = Tree::start();
    let mut imap = log_in(&tree);
    assert!(imap.append("INBOX", &message("one")).unwrap().is_ok());
    for mechanism in ["LOGIN", "PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"] {
        for (port, tls) in [(143, "STARTTLS"), (993, "IMAPS")] {
            let how = format!("SSLType {tls}\nAuthMechs {mechanism}");
            let local = Local::of(&tree, port, &how);
            local.sync();
            assert_eq!(subjects(&local, "INBOX"), ["one"], "{mechanism} {tls}");
        }
    }
}
