//! A user, and a stranger before log-in, against what all share: memory, the disk, other accounts.

use crate::{PASSWORD, USER};
use ipc::Role;
use mox_tests::{
    client::{Imap, Smtp},
    tree::Tree,
};
use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// What one process may grow by under an attack of this size, in KiB.
const GROWTH: u64 = 48 * 1024;

/// Resident memory, in KiB.
fn memory(tree: &Tree, role: Role) -> u64 {
    let pid = tree.pid(role, 0).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn dial(tree: &Tree, port: u16) -> TcpStream {
    let stream = TcpStream::connect(tree.address(port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Literals before log-in: announced sizes are not believed, and what is sent is not kept.
#[test]
fn literals_before_log_in_cost_nothing() {
    let tree = Tree::start();
    let before = memory(&tree, Role::ImapdFront);
    let mut held = Vec::new();
    for announced in ["4294967295", "100000000", "18446744073709551616", "5000", "999", "-1"] {
        for plus in ["", "+"] {
            for command in ["LOGIN", "AUTHENTICATE", "ID (", "APPEND INBOX", "X"] {
                let mut stream = dial(&tree, 143);
                let text = format!("a {command} {{{announced}{plus}}}\r\n");
                let _ = stream.write_all(text.as_bytes());
                // As much of it as the server takes.
                let piece = [b'x'; 65_536];
                for _ in 0..16 {
                    if stream.write_all(&piece).is_err() {
                        break;
                    }
                }
                held.push(stream);
            }
        }
        // The limit of one address is not what is tested here.
        held.truncate(20);
    }
    let grown = memory(&tree, Role::ImapdFront).saturating_sub(before);
    assert!(grown < GROWTH, "{grown} KiB");
    drop(held);
    Imap::log_in_from([127, 9, 9, 9].into(), tree.address(143), USER, PASSWORD).unwrap();
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

/// Names of mailboxes are rows and never paths; what cannot be a name is refused, and what was made
/// can be listed and deleted again.
#[test]
fn names_of_mailboxes_touch_no_file() {
    // Only root may look into the folders of others.
    let tree = Tree::start();
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    let before = files(&tree.folder().join("accountd"));
    let deep = vec!["d"; 400].join("/");
    let long = "n".repeat(4_000);
    let names = [
        "../../etc/passwd",
        "..",
        ".",
        "/",
        "//",
        "/etc/passwd",
        "a//b",
        "a/",
        "/a",
        "INBOX/../x",
        "inbox",
        "INBOX",
        "INBOX/x",
        "a/../../b",
        "~",
        "~root",
        "$(id)",
        "`id`",
        "a;b",
        "a|b",
        "-rf",
        "con",
        "*",
        "%",
        "a*b",
        "&AAAA-",
        "&AAA",
        "&",
        "&-",
        "&Jjo",
        "&2AA-",
        "&AGE-",
        "\u{202e}gnp.exe",
        "e\u{301}",
        "a\tb",
        "a\u{7f}b",
        "a\u{1}b",
        "a\u{2028}b",
        "#news",
        &deep,
        &long,
    ];
    let mut made = 0;
    for name in names {
        let tag = imap.start(&format!("CREATE {{{}+}}\r\n{name}", name.len())).unwrap();
        let created = imap.finish(&tag).unwrap();
        let tag = imap.start(&format!("STATUS {{{}+}}\r\n{name} (MESSAGES)", name.len())).unwrap();
        let status = imap.finish(&tag).unwrap();
        assert!(!created.is_ok() || status.is_ok(), "{name:?}: {}", status.text());
        made += usize::from(created.is_ok());
        let tag = imap.start(&format!("DELETE {{{}+}}\r\n{name}", name.len())).unwrap();
        imap.finish(&tag).unwrap();
    }
    assert!(made > 3, "none could be made");
    // NUL, which no literal but a literal8 may hold.
    for octets in [&b"a\0b"[..], b"\0", b"a\rb", b"a\nb", b"a\r\nb", b"\xff\xfe", b"\xc0\xaf"] {
        let mut text = format!("z CREATE {{{}+}}\r\n", octets.len()).into_bytes();
        text.extend_from_slice(octets);
        text.extend_from_slice(b"\r\n");
        imap.raw(&text).unwrap();
        assert!(!imap.finish("z").unwrap().is_ok(), "{octets:?}");
    }
    assert!(imap.command("LIST \"\" *").unwrap().is_ok());
    let after = files(&tree.folder().join("accountd"));
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
}

/// Sessions that race for the last of a quota do not pass it.
#[test]
fn a_quota_holds_against_a_race() {
    const QUOTA: u64 = 4 << 20;
    let tree = Tree::start();
    let editor = tree.folder().with_file_name("editor");
    std::fs::write(
        &editor,
        "#!/bin/sh\nexec sed -i 's/^\\[account.mox\\]$/&\\nquota = \"4MiB\"/' \"$1\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = std::process::Command::new(mox_tests::tree::binary("moxctl"))
        .arg("--control")
        .arg(tree.control())
        .args(["config", "edit"])
        .env("VISUAL", &editor)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !said.contains("unchanged"), "{output:?}");
    // 16 times 12 messages of 100 KiB: five times what fits.
    let taken: usize = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..16u32)
            .map(|n| {
                let tree = &tree;
                scope.spawn(move || race(tree, n))
            })
            .collect();
        sessions.into_iter().map(|session| session.join().unwrap()).sum()
    });
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    let sizes = imap.command("FETCH 1:* (RFC822.SIZE)").unwrap();
    let sizes: Vec<u64> = sizes
        .untagged
        .iter()
        .filter_map(|line| {
            let text = String::from_utf8_lossy(line).into_owned();
            text.split_once("RFC822.SIZE ")?.1.trim_end_matches(')').parse().ok()
        })
        .collect();
    assert_eq!(sizes.len(), taken, "what was acknowledged is there");
    let all: u64 = sizes.iter().sum();
    assert!(all <= QUOTA, "{all} of {QUOTA}");
    assert!(all >= QUOTA / 2, "{all}: nearly nothing was taken");
}

/// Half of the sessions APPEND, half deliver; how many were taken.
fn race(tree: &Tree, n: u32) -> usize {
    let body = format!("{n} {}\r\n", "0123456789abcdef".repeat(60)).repeat(103);
    let text = format!("From: <x@example.org>\r\nSubject: {n}\r\n\r\n{body}");
    let source = [127, 5, u8::try_from(n).unwrap(), 1].into();
    let mut taken = 0;
    if n.is_multiple_of(2) {
        let mut imap = Imap::log_in_from(source, tree.address(143), USER, PASSWORD).unwrap();
        for _ in 0..12 {
            taken += usize::from(imap.append("INBOX", text.as_bytes()).unwrap().is_ok());
        }
    } else {
        let mut smtp = Smtp::connect_from(source, tree.address(25)).unwrap();
        for at in 0..12 {
            let text = format!("Message-ID: <{n}.{at}@example.org>\r\n{text}");
            match smtp.send("x@example.org", &[USER], text.as_bytes()) {
                Ok(reply) => taken += usize::from(reply.code == 250),
                Err(_) => break,
            }
        }
    }
    taken
}

/// Who sends commands and reads no answers is left alone with them.
#[test]
fn unread_answers_cost_their_session_only() {
    let tree = Tree::start();
    let mut imap = Imap::log_in(tree.address(143), USER, PASSWORD).unwrap();
    let text = format!("Subject: big\r\n\r\n{}", "0123456789abcdef\r\n".repeat(60_000));
    assert!(imap.append("INBOX", text.as_bytes()).unwrap().is_ok());
    let address = tree.address(143);
    let mut deaf = Vec::new();
    let mut grow = |by: std::ops::Range<u8>| {
        for n in by {
            let mut stream = mox_tests::wire::stream_from([127, 6, n, 1].into(), address).unwrap();
            let all = format!(
                "a LOGIN {USER} {PASSWORD}\r\nb SELECT INBOX\r\n{}",
                "c FETCH 1 (BODY.PEEK[])\r\n".repeat(200)
            );
            stream.write_all(all.as_bytes()).unwrap();
            // It is served, up to what its network takes.
            assert!(stream.read(&mut [0; 64]).unwrap() > 0);
            deaf.push(stream);
        }
        // Somebody who reads is served meanwhile.
        assert!(imap.command("SELECT INBOX").unwrap().is_ok());
        for _ in 0..20 {
            assert!(imap.command("FETCH 1 (BODY.PEEK[])").unwrap().is_ok());
        }
        [memory(&tree, Role::Accountd), memory(&tree, Role::ImapdFront)]
    };
    // Hashing, databases and their caches are there after the first ones; each of the second ones
    // asks for 200 MB.
    let before = grow(0..16);
    let after = grow(16..32);
    for (before, after) in before.iter().zip(after) {
        assert!(after.saturating_sub(*before) < GROWTH, "{before} KiB, then {after}");
    }
}
