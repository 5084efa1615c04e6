//! A user who asks for what costs much: mailboxes without end, structures of ten thousand parts,
//! searches made to be slow, messages that never fit. It costs him an answer, and nobody else theirs.

use crate::{PASSWORD, USER};
use ipc::Role;
use mox_tests::{
    client::{Imap, Responses},
    tree::{Tree, wait_until},
    wire::stream_from,
};
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

/// Somebody else, who is to notice nothing.
const OTHER: &str = "other@localhost";

/// What one process may grow by under an attack of this size, in KiB.
const GROWTH: u64 = 48 * 1024;

/// The limit of the account store's specification.
const MAX_MAILBOXES: usize = 10_000;

/// Attackers at once.
const CROWD: u8 = 16;

const PATIENCE: Duration = Duration::from_secs(60);

/// Networks of their own: connections are limited by where they come from.
fn source(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 8, number, 1)
}

fn log_in(tree: &Tree, number: u8, user: &str) -> Imap {
    Imap::log_in_from(source(number), tree.address(143), user, PASSWORD).unwrap()
}

fn ok(imap: &mut Imap, command: &str) -> Responses {
    let responses = imap.command(command).unwrap();
    assert!(responses.is_ok(), "{}: {}", &command[..command.len().min(80)], responses.tagged);
    responses
}

/// A tree with somebody else in it.
fn tree_for_two() -> Tree {
    let tree = Tree::start();
    let made = tree.moxctl_with(&["account", "add", "other", OTHER], PASSWORD);
    assert!(made.status.success(), "{made:?}");
    tree
}

/// What the processes that serve mailboxes have written to, in KiB: all session instances are
/// looked at, since which of them has an account is not told.
fn memory(tree: &Tree) -> u64 {
    let of_mailboxes = [Role::Accountd, Role::ImapdFront, Role::ImapdSession];
    let processes = tree.processes().into_iter().filter(|p| of_mailboxes.contains(&p.role));
    let anonymous = processes.map(|process| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    });
    anonymous.sum()
}

/// What a process has used of a CPU, in hundredths of a second.
fn cpu(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, behind_name) = stat.rsplit_once(')').unwrap();
    let figures: Vec<&str> = behind_name.split_whitespace().collect();
    // proc(5): utime and stime are the fields 14 and 15, and the name was the second.
    [11, 12].iter().map(|at| figures[*at].parse::<u64>().unwrap()).sum()
}

/// Somebody else's day: reads, writes and lists.
fn lives(other: &mut Imap) {
    ok(other, "SELECT INBOX");
    assert!(other.append("INBOX", b"Subject: x\r\n\r\nx\r\n").unwrap().is_ok());
    ok(other, "FETCH 1:* (FLAGS BODYSTRUCTURE)");
    ok(other, "STORE 1 +FLAGS (\\Flagged)");
    ok(other, "LIST \"\" *");
}

/// Says all of this on a connection of its own and reads only the first octets of what comes.
fn deaf(tree: &Tree, number: u8, commands: &str) -> TcpStream {
    let mut stream = stream_from(source(number), tree.address(143)).unwrap();
    let all = format!("a LOGIN {USER} {PASSWORD}\r\nb SELECT INBOX\r\n{commands}");
    stream.write_all(all.as_bytes()).unwrap();
    assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    stream
}

/// As deep as a name may be, below a mailbox that nobody has.
fn deep(number: usize) -> String {
    format!("{number:06}{}", "/ddddddddd".repeat(18))
}

#[test]
fn mailboxes_have_an_end() {
    let tree = tree_for_two();
    let mut imap = log_in(&tree, 0, USER);
    // Each command makes as many as it can: a hundred thousand, if there were no end.
    let create = |n| format!("CREATE {}", deep(n));
    let refused = (0..5_263).find_map(|n| {
        let responses = imap.command(&create(n)).unwrap();
        (!responses.is_ok()).then_some(responses.tagged)
    });
    // RFC 5530 §3.
    let refused = refused.expect("there is no end of mailboxes");
    assert!(refused.starts_with("NO [LIMIT]"), "{refused}");
    // What is left of them one by one, and names that are subscribed to and are none.
    let mut until_refused = |command: &str| {
        let all = (0..20_000).map(|n| imap.command(&format!("{command}{n}")).unwrap().tagged);
        let refused = all.into_iter().find(|tagged| !tagged.starts_with("OK"));
        let refused = refused.expect("there is no end of names");
        assert!(refused.starts_with("NO [LIMIT]"), "{refused}");
    };
    until_refused("CREATE single");
    until_refused(&format!("SUBSCRIBE {}", "n".repeat(900)));
    assert_eq!(ok(&mut imap, "LIST \"\" *").untagged.len(), MAX_MAILBOXES);
    let none = ok(&mut imap, &format!("LIST \"\" \"{}z\"", "%*".repeat(8)));
    assert!(none.untagged.is_empty(), "{}", none.untagged.len());

    // Lists that nobody reads, of a megabyte each.
    let lists = "c LIST \"\" *\r\nc LSUB \"\" *\r\n".repeat(100);
    let mut held: Vec<TcpStream> = (1..4).map(|n| deaf(&tree, n, &lists)).collect();
    let before = memory(&tree);
    held.extend((4..4 + CROWD).map(|n| deaf(&tree, n, &lists)));
    lives(&mut log_in(&tree, 100, OTHER));
    let grown = memory(&tree).saturating_sub(before);
    assert!(grown < GROWTH + u64::from(CROWD) * 4 * 1024, "{grown} KiB");
    drop(held);
    // And there is a way back.
    ok(&mut imap, &format!("DELETE {}", deep(0)));
    ok(&mut imap, "CREATE again");
    assert!(imap.command("CREATE and-again").unwrap().tagged.starts_with("NO [LIMIT]"));
}

#[test]
fn a_structure_of_ten_thousand_parts_is_bounded() {
    let tree = tree_for_two();
    let mut imap = log_in(&tree, 0, USER);
    let part = "--b\r\nContent-Type: text/plain; name=\"a long name of a file.txt\"\r\n\r\nx\r\n";
    let head = "Subject: parts\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n";
    let text = format!("{head}{}--b--\r\n", part.repeat(9_990));
    assert!(imap.append("INBOX", text.as_bytes()).unwrap().is_ok());
    ok(&mut imap, "SELECT INBOX");
    let structure = ok(&mut imap, "FETCH 1 BODYSTRUCTURE");
    let parts = String::from_utf8_lossy(&structure.untagged[0]).matches("file.txt").count();
    assert_eq!(parts, 9_990);

    let fetches = "c FETCH 1 (BODYSTRUCTURE BODY ENVELOPE)\r\n".repeat(200);
    let mut held: Vec<TcpStream> = (1..4).map(|n| deaf(&tree, n, &fetches)).collect();
    let before = memory(&tree);
    held.extend((4..4 + CROWD).map(|n| deaf(&tree, n, &fetches)));
    lives(&mut log_in(&tree, 100, OTHER));
    // One who reads what he asks for, and one who asks for the last part of it, each for itself.
    for _ in 0..3 {
        assert_eq!(ok(&mut imap, "FETCH 1 BODYSTRUCTURE").untagged, structure.untagged);
        let last = ok(&mut imap, "FETCH 1 (BODY.PEEK[9990])").text();
        assert!(last.contains("BODY[9990] {1}"), "{last}");
    }
    let grown = memory(&tree).saturating_sub(before);
    // Each of them holds one answer of it, no more.
    assert!(grown < GROWTH + u64::from(CROWD) * 4 * 1024, "{grown} KiB");
    drop(held);
}

#[test]
fn who_asks_for_long_headers_and_reads_none_kills_nobody() {
    let tree = tree_for_two();
    let mut others: Vec<Imap> = (200..204).map(|n| log_in(&tree, n, OTHER)).collect();
    for other in &mut others {
        ok(other, "SELECT INBOX");
    }
    let mut imap = log_in(&tree, 0, USER);
    let lines: String = (0..1_000).map(|n| format!("X{n}: {}\r\n", "n".repeat(900))).collect();
    for _ in 0..3 {
        let text = format!("Subject: long\r\n{lines}\r\nx\r\n");
        assert!(imap.append("INBOX", text.as_bytes()).unwrap().is_ok());
    }
    let same = ["BODY.PEEK[HEADER.FIELDS.NOT (Subject)]"; 200].join(" ");
    let different: Vec<String> =
        (0..60).map(|n| format!("BODY.PEEK[HEADER.FIELDS.NOT (S{n})]")).collect();
    let before = memory(&tree);
    let attack = |n: u8| {
        let items = if n.is_multiple_of(2) { &same } else { &different.join(" ") };
        deaf(&tree, n, &format!("c FETCH 1:* ({items} ENVELOPE BODYSTRUCTURE)\r\n"))
    };
    let held: Vec<TcpStream> = (1..28).map(attack).collect();
    // Two rounds behind them all: what they can make stand stands.
    for other in others.iter_mut().chain([&mut log_in(&tree, 100, OTHER)]) {
        lives(other);
        ok(other, "NOOP");
    }
    let grown = memory(&tree).saturating_sub(before);
    // Each of them holds one header and one item of it.
    assert!(grown < GROWTH + 27 * 4 * 1024, "{grown} KiB");
    drop(held);
    ok(&mut imap, "NOOP");
}

/// Text that is in no dictionary, so that every search goes through all of it.
fn long_text(number: usize) -> String {
    let line =
        format!("lorem {number} ipsum dolor sit amet aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n");
    format!("Subject: long {number}\r\n\r\n{}", line.repeat(4_000))
}

#[test]
fn searches_are_bounded_and_end_with_their_client() {
    let tree = tree_for_two();
    let mut imap = log_in(&tree, 0, USER);
    let nested = |levels: usize| {
        let open = "OR NOT (SUBJECT x NOT ".repeat(levels);
        format!("SEARCH {open}ALL{}", ") SEEN".repeat(levels))
    };
    for n in 0..40 {
        assert!(imap.append("INBOX", long_text(n).as_bytes()).unwrap().is_ok());
    }
    ok(&mut imap, "SELECT INBOX");
    // Nested and many: within the bounds it is an answer, beyond them it is a refusal.
    ok(&mut imap, &nested(10));
    for command in [
        nested(60),
        format!("SEARCH {}ALL{}", "(".repeat(3_000), ")".repeat(3_000)),
        format!("SEARCH {}ALL", "NOT ".repeat(3_000)),
        format!("SEARCH{}", " OR SEEN UNSEEN".repeat(600)),
        format!("SEARCH{}", " TEXT a".repeat(60)),
        format!("SEARCH TEXT {}", "a".repeat(2_000)),
    ] {
        let said = imap.command(&command).unwrap();
        assert!(said.tagged.starts_with("BAD"), "{}: {}", &command[..60], said.tagged);
    }

    // All the text that one command may ask for, each of it needing all of the mailbox.
    let keys: String =
        (0..50).map(|n| format!(" NOT TEXT aaaaaaaaaaaaaaaaaaaaaaaaaa{n}b")).collect();
    let costly = format!("c SEARCH{keys}\r\n").repeat(100);
    let before = memory(&tree);
    let mut crowd: Vec<TcpStream> = (1..=CROWD).map(|n| deaf(&tree, n, &costly)).collect();
    let mut other = log_in(&tree, 100, OTHER);
    for _ in 0..5 {
        lives(&mut other);
        // And the same account's.
        ok(&mut imap, "NOOP");
        ok(&mut imap, "FETCH 1:5 (FLAGS ENVELOPE)");
    }
    let grown = memory(&tree).saturating_sub(before);
    assert!(grown < GROWTH, "{grown} KiB");
    // They wait for theirs meanwhile: or it was not costly, and this test shows nothing.
    for stream in &mut crowd {
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let done = String::from_utf8_lossy(&said).matches("c OK").count();
        assert!(done < 100, "all its searches are done");
    }
    // Who hangs up leaves no work behind.
    drop(crowd);
    let accountd = tree.pid(Role::Accountd, 0).unwrap();
    let idle = wait_until(PATIENCE, || {
        let before = cpu(accountd);
        std::thread::sleep(Duration::from_secs(1));
        cpu(accountd) - before < 20
    });
    assert!(idle, "accountd searches for those who are gone");
    lives(&mut other);
}

#[test]
fn a_long_line_is_a_command_and_one_too_long_is_told() {
    let tree = Tree::start();
    let mut imap = log_in(&tree, 0, USER);
    ok(&mut imap, "SELECT INBOX");
    // What a client that is in step with a large mailbox may ask (RFC 7162 §4 wants 8,192).
    let uids: Vec<String> = (1..20_001).step_by(2).map(|uid| uid.to_string()).collect();
    let set = uids.join(",");
    assert!((50_000..64_000).contains(&set.len()), "{}", set.len());
    ok(&mut imap, &format!("UID FETCH {set} FLAGS"));
    ok(&mut imap, &format!("UID SEARCH UID {set}"));
    // There is an end, with a line or without one, and the client hears of it.
    for (number, end) in [(1, "\r\n"), (2, "")] {
        let mut stream = stream_from(source(number), tree.address(143)).unwrap();
        let long = "1,".repeat(35_000);
        let text = format!("a LOGIN {USER} {PASSWORD}\r\nb UID FETCH {long}1 FLAGS{end}");
        stream.write_all(text.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.contains("\r\nb BAD [TOOBIG] line is too long\r\n* BYE "), "{said}");
    }
    ok(&mut imap, "NOOP");
}

#[test]
fn messages_that_do_not_fit_are_refused_before_they_come() {
    let tree = Tree::start();
    let mut imap = log_in(&tree, 0, USER);
    let said = ok(&mut imap, "CAPABILITY").text();
    let limit = said.split_once("APPENDLIMIT=").unwrap().1;
    let limit: u64 = limit.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    // Told before the octets, and the connection goes on (RFC 7889 §4).
    for size in [limit + 1, u64::from(u32::MAX), u64::MAX / 2, u64::MAX] {
        let said = imap.command(&format!("APPEND INBOX {{{size}}}")).unwrap().tagged;
        assert!(said.starts_with("NO [TOOBIG]"), "{size}: {said}");
    }
    for size in ["18446744073709551616", "99999999999999999999999999", "-1"] {
        let said = imap.command(&format!("APPEND INBOX {{{size}}}")).unwrap().tagged;
        assert!(!said.starts_with("OK"), "{size}: {said}");
    }
    ok(&mut imap, "NOOP");
    // What comes without being asked for is not kept, and its connection ends.
    let before = memory(&tree);
    for (n, size) in [limit + 1, u64::from(u32::MAX), u64::MAX / 2].into_iter().enumerate() {
        let number = u8::try_from(n).unwrap() + 1;
        let mut stream = stream_from(source(number), tree.address(143)).unwrap();
        let text = format!("a LOGIN {USER} {PASSWORD}\r\nb APPEND INBOX {{{size}+}}\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        let piece = [b'x'; 65_536];
        // More than sockets hold on the way.
        let taken = (0..1_024).take_while(|_| stream.write_all(&piece).is_ok()).count();
        assert!(taken < 1_024, "{size}: 64 MiB were taken");
    }
    let grown = memory(&tree).saturating_sub(before);
    assert!(grown < GROWTH, "{grown} KiB");
    ok(&mut imap, "NOOP");
    let listed = ok(&mut imap, "STATUS INBOX (MESSAGES)").text();
    assert!(listed.contains("MESSAGES 0"), "{listed}");
}
