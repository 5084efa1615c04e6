//! A disk that fills up under the running tree: mail is refused for now, nothing is lost, and when
//! there is room again it goes on without a restart. Needs root, for a small tmpfs.

#![forbid(unsafe_code)]

use mox_tests::{
    client::{Imap, Smtp},
    disk::{Disk, skipped_without_root},
    tree::{Options, Tree},
};

const USER: &str = "mox@localhost";
const PASSWORD: &str = "moxmoxmox";

fn message(id: usize, octets: usize) -> Vec<u8> {
    let mut text = format!(
        "From: ann@example.org\r\nMessage-ID: <{id}@full.example>\r\nSubject: {id}\r\n\r\n"
    );
    // Text that does not compress well, in lines.
    let mut random = id as u64 + 0x9e37_79b9;
    while text.len() < octets {
        for _ in 0..4 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            text.push_str(&format!("{random:016x}"));
        }
        text.push_str("\r\n");
    }
    text.into_bytes()
}

#[test]
fn a_full_disk_refuses_for_now_and_loses_nothing() {
    if skipped_without_root() {
        return;
    }
    let disk = Disk::mount(48);
    let tree = Tree::with(Options { folder: Some(disk.path().join("mox")), ..Options::default() });
    let mut taken = Vec::new();
    let mut send = |id: usize, octets: usize| {
        let mut smtp = Smtp::connect(tree.address(25)).unwrap();
        let reply = smtp.send("ann@example.org", &[USER], &message(id, octets)).unwrap();
        if reply.code == 250 {
            taken.push(id);
        }
        reply
    };
    assert_eq!(send(0, 2_000).code, 250);

    // All of it but a little, so that both "low" and "full" are met on the way.
    disk.fill(3 << 20);
    let mut refused = 0;
    for id in 1..8 {
        let reply = send(id, 900_000);
        if reply.code != 250 {
            assert_eq!(reply.code, 452, "{reply:?}");
            // RFC 3463 §3.4: X.3.1, mail system full.
            assert!(reply.lines.iter().all(|line| line.contains("4.3.1 ")), "{reply:?}");
            refused += 1;
        }
    }
    assert!(refused > 0, "the disk was never full");
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    let appended = imap.append("Drafts", &message(100, 2_900_000)).unwrap();
    // RFC 5530 §3: temporary, and no fault of the client's.
    assert!(appended.tagged.starts_with("NO [UNAVAILABLE]"), "{}", appended.text());

    disk.free();
    assert_eq!(send(9, 900_000).code, 250, "there is room again");
    assert!(imap.append("Drafts", &message(101, 2_000)).unwrap().is_ok());

    assert!(imap.command("EXAMINE INBOX").unwrap().is_ok());
    let fetched = imap.command("FETCH 1:* (BODY.PEEK[])").unwrap();
    let bodies: Vec<&Vec<u8>> = fetched.untagged.iter().filter(|r| r.len() > 500).collect();
    assert_eq!(bodies.len(), taken.len());
    for (body, id) in bodies.iter().zip(&taken) {
        let octets = if *id == 0 { 2_000 } else { 900_000 };
        let whole = message(*id, octets);
        assert!(body.windows(whole.len()).any(|w| w == whole), "message {id} is not whole");
    }
}
