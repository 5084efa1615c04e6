//! Plays `transcripts/{smtp,imap}/*.txt` against the real tree, as far as it can be had there.

#![forbid(unsafe_code)]

use mox_tests::{
    real::{self, Protocol, Real},
    transcript::Transcript,
};
use std::time::{Duration, Instant};

/// RFC 5321 §4.5.3.1.7.
const SMALL: &str = "a listener takes messages of 64 KiB at least";

/// Transcripts that run on the pure machines alone, and why.
const NOT_HERE: [(&str, &str); 19] = [
    ("smtp/auth-cancel-last.txt", "needs a mechanism that proves nothing"),
    ("smtp/auth-exchange.txt", "needs a mechanism that proves nothing"),
    ("smtp/auth-guessing.txt", SLOW),
    ("smtp/auth-store-away.txt", AWAY),
    ("smtp/data-takes-too-long.txt", CLOCK),
    ("smtp/ehlo-store-away.txt", AWAY),
    ("smtp/idle.txt", CLOCK),
    ("smtp/judgement-slows-down.txt", JUDGEMENT),
    ("smtp/mailbox-full.txt", JUDGEMENT),
    ("smtp/mail-parameters.txt", SMALL),
    ("smtp/many-failed-messages.txt", JUDGEMENT),
    ("smtp/pedantic.txt", "a server is pedantic as a whole"),
    ("smtp/session-takes-too-long.txt", CLOCK),
    ("smtp/store-away.txt", AWAY),
    ("smtp/too-large.txt", SMALL),
    ("smtp/unknown-first-recipient.txt", SLOW),
    ("imap/list.txt", "an account has mailboxes from its start"),
    ("imap/silent-hides-nothing.txt", "when another's change is told is a matter of time"),
    ("imap/store-away.txt", AWAY),
];

/// Played with `MOX_NIGHTLY=1` alone.
const LONG: [(&str, &str); 1] =
    [("smtp/mail-loop.txt", "answers who was refused an octet a second")];

const CLOCK: &str = "moves the clock";
const SLOW: &str = "looks at how slowly octets are written, which takes minutes";
const JUDGEMENT: &str = "tells the store what to answer";
const AWAY: &str = "an accountd that is killed is back before the next line (kills.rs, idle.rs)";

#[test]
fn transcripts_hold_on_the_real_tree() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let mut files = Vec::new();
    for protocol in [Protocol::Smtp, Protocol::Imap] {
        let name = if protocol == Protocol::Smtp { "smtp" } else { "imap" };
        for entry in std::fs::read_dir(folder.join(name)).unwrap() {
            let file = entry.unwrap().file_name();
            files.push((format!("{name}/{}", file.to_string_lossy()), protocol));
        }
    }
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    let long = LONG.iter().filter(|_| std::env::var_os("MOX_NIGHTLY").is_none());
    let left_out: Vec<_> = NOT_HERE.iter().chain(long).collect();
    for (name, why) in &left_out {
        assert!(files.iter().any(|(file, _)| file == name), "{name} is no transcript");
        eprintln!("not here: {name}: {why}");
    }
    let here = files.iter().filter(|(file, _)| !left_out.iter().any(|(name, _)| name == file));
    let tree = real::start();
    let (mut faults, mut played) = (Vec::new(), 0_u8);
    for (name, protocol) in here {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let began = Instant::now();
        let mut world = Real::new(&tree, *protocol, played);
        if let Err(fault) = Transcript::parse(&text).and_then(|it| it.play(&mut world)) {
            eprintln!("{name}:{fault}");
            faults.push(format!("{name}:{fault}"));
        }
        world.end().unwrap();
        // Some replace a process.
        tree.wait_until_whole();
        if began.elapsed() > Duration::from_secs(2) {
            eprintln!("{name} took {:?}", began.elapsed());
        }
        played += 1;
    }
    eprintln!("{played} transcripts were played");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
