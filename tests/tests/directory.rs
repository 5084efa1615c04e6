//! domains.toml edited by hand under the running tree, and what moxctl says of it.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ipc::Role;
use mox_tests::{
    client::{Imap, Smtp},
    tree::{Tree, binary, kill, wait_until},
};
use std::{
    fs,
    net::Ipv4Addr,
    process::{Command, Stdio},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a command of moxctl prints, and its exit status.
fn moxctl(tree: &Tree, args: &[&str]) -> (String, i32) {
    let output = tree.moxctl(args);
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

/// The alarms of `moxctl status` about the file.
fn alarms(tree: &Tree) -> Vec<String> {
    let (status, _) = moxctl(tree, &["status"]);
    let of_file = |line: &&str| line.starts_with("alarm: not in force: ");
    status.lines().filter(of_file).map(str::to_owned).collect()
}

#[test]
fn a_hand_edit_counts_when_it_is_sound_and_is_an_alarm_when_it_is_not() {
    let tree = Tree::start();
    // The documented place, which is a link into accountd's folder.
    let file = tree.folder().join("directory/domains.toml");
    assert_eq!(alarms(&tree), [""; 0]);
    let good = fs::read_to_string(&file).unwrap();

    fs::write(&file, format!("{good}\n[domain.\"new.example\"]\nenabeld = true\n")).unwrap();
    assert!(wait_until(PATIENCE, || !alarms(&tree).is_empty()), "nobody noticed");
    let line = good.lines().count() + 3;
    let alarm = alarms(&tree).remove(0);
    assert!(alarm.contains(&format!("domains.toml:{line}:1: ")), "{alarm}");
    assert!(tree.logs().contains("alarm: domains.toml is not sound"));
    let (listed, _) = moxctl(&tree, &["domain", "list"]);
    assert!(!listed.contains("new.example"), "it changes nothing: {listed}");
    let (_, refused) = moxctl(&tree, &["domain", "add", "other.example", "mox"]);
    assert_eq!(refused, 1, "nothing may overwrite what somebody is writing");

    fs::write(&file, format!("{good}\n[domain.\"new.example\"]\n")).unwrap();
    let is_there = || moxctl(&tree, &["domain", "list"]).0.contains("new.example");
    assert!(wait_until(PATIENCE, is_there), "it never counted");
    assert_eq!(alarms(&tree), [""; 0]);
    let (_, added) = moxctl(&tree, &["domain", "add", "other.example", "mox"]);
    assert_eq!(added, 0);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("new.example") && text.contains("other.example"), "{text}");
}

/// A process of the table, by its role.
fn told_of(tree: &Tree, role: &str, key: &str) -> String {
    let (text, _) = moxctl(tree, &["--json", "processes"]);
    let process = text.lines().find(|line| line.contains(&format!("\"role\":\"{role}\"")));
    let process: serde_json::Value = serde_json::from_str(process.unwrap()).unwrap();
    process[key].to_string()
}

#[test]
fn a_bad_hand_edit_and_a_crash_leave_the_server_up_and_moxctl_can_mend_it() {
    let tree = Tree::start();
    let file = tree.folder().join("directory/domains.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}\n[account.mox]\n")).unwrap();
    tree.kill_and_wait(Role::Accountd, 0);
    let line = good.lines().count() + 2;
    assert!(wait_until(PATIENCE, || !alarms(&tree).is_empty()), "no alarm");
    let alarm = alarms(&tree).remove(0);
    assert!(alarm.contains(&format!("domains.toml:{line}:")), "{alarm}");
    let (listed, _) = moxctl(&tree, &["account", "list"]);
    assert!(listed.contains("mox"), "{listed}");
    let mut mx = Smtp::connect(tree.address(25)).unwrap();
    let took = mx.send("a@remote.example", &["mox@localhost"], b"Subject: on\r\n\r\ngoes\r\n");
    assert_eq!(took.unwrap().code, 250);

    // An editor that takes the last line away again.
    let mut edit = Command::new(binary("moxctl"));
    edit.arg("--control").arg(tree.control()).args(["config", "edit"]);
    edit.env_remove("VISUAL").env("EDITOR", "sed -i $d").stdin(Stdio::null());
    let edited = edit.output().unwrap();
    assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    assert_eq!(alarms(&tree), [""; 0]);
    assert_eq!(fs::read_to_string(&file).unwrap().trim_end(), good.trim_end());
}

#[test]
fn without_any_sound_text_the_reason_is_told_at_once() {
    let tree = Tree::start();
    let file = tree.folder().join("directory/domains.toml");
    for entry in fs::read_dir(file.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("domains.toml") {
            fs::write(path, "[account").unwrap();
        }
    }
    let pid = tree.pid(Role::Accountd, 0).unwrap();
    kill(pid, rustix::process::Signal::KILL).unwrap();
    let why = "exit 78: a file it starts from is not sound";
    assert!(wait_until(PATIENCE, || told_of(&tree, "accountd", "last_end").contains(why)));
    let (status, code) = moxctl(&tree, &["status"]);
    assert_eq!(code, 1);
    let alarm = |line: &str| line.starts_with("alarm: accountd died ") && line.contains(why);
    assert!(status.lines().any(alarm), "{status}");
    let asked = tree.moxctl(&["account", "list"]);
    let error = String::from_utf8(asked.stderr).unwrap();
    assert!(error.contains("accountd does not stay up") && error.contains(why), "{error}");

    // What is done to its processes is done to nobody; each try is short.
    for args in [&["restart", "accountd"][..], &["loglevel", "debug", "accountd"]] {
        let vain = || {
            let (error, code) = refused(&tree, args);
            code == 1 && error.contains("accountd does not run: it ended by exit 78")
        };
        assert!(wait_until(PATIENCE, vain), "{args:?}: {:?}", refused(&tree, args));
    }
}

/// What it says on standard error, and its exit status.
fn refused(tree: &Tree, args: &[&str]) -> (String, i32) {
    let output = tree.moxctl(args);
    (String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
}

#[test]
fn words_that_mean_nothing_are_wrong_usage_and_what_matches_nothing_is_said() {
    let tree = Tree::start();
    for (args, expected, says) in [
        (&["queue", "retry"][..], 2, "--all"),
        (&["queue", "drop"], 2, "--all"),
        (&["queue", "drop", "0000"], 2, "not a queue id"),
        (&["queue", "list", "0000"], 2, "not a queue id"),
        (&["message", "show", "mox"], 2, "UID"),
        (&["account", "disable", "mox", " "], 2, "message"),
        (&["clientkey", "add", "mox", "1234", "mox@localhost"], 2, "64 hex digits"),
        (&["account", "verify"], 2, "--all"),
        (&["queue", "retry", "--to", "remote.example"], 2, "@remote.example"),
        (&["queue", "list", "--from", "remote.example"], 2, "@remote.example"),
        (&["account", "logins", "--max", "0", "mox"], 2, "0 is not in 1.."),
        (&["queue", "drop", "--account", "nosuch"], 1, "nothing in the queue"),
        (&["account", "verify", "nosuch"], 1, "account nosuch does not exist"),
    ] {
        let (error, code) = refused(&tree, args);
        assert_eq!(code, expected, "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
    }
    let (error, code) = refused(&tree, &["--json", "queue", "nonsense"]);
    let told: serde_json::Value = serde_json::from_str(&error).unwrap();
    assert!(code == 2 && told["error"].as_str().unwrap().contains("nonsense"), "{error}");
    let (found, code) = moxctl(&tree, &["account", "verify", "--all"]);
    assert_eq!((found.as_str(), code), ("1 account: nothing found\n", 0));
    let (profiles, _) = moxctl(&tree, &["processes", "profiles"]);
    assert!(profiles.lines().all(|line| line.len() < 200), "{profiles}");
    let (status, _) = moxctl(&tree, &["--json", "status"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(status["accounts"] == 1 && status["alarm"].is_array(), "{status}");

    let mut edit = Command::new(binary("moxctl"));
    edit.arg("--control").arg(tree.control()).args(["config", "edit"]).env_remove("VISUAL");
    let failed = edit.env("EDITOR", "/nonexistent/ed").output().unwrap();
    let error = String::from_utf8(failed.stderr).unwrap();
    assert!(error.contains("the editor \"/nonexistent/ed\" cannot be run"), "{error}");
    let mut script = Command::new(binary("moxctl"));
    script.args(["completion", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut script = script.spawn().unwrap();
    drop(script.stdout.take());
    let ended = script.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

#[test]
fn addresses_are_known_however_they_are_written() {
    let tree = Tree::start();
    let ok = |args: &[&str]| assert_eq!(refused(&tree, args), (String::new(), 0), "{args:?}");
    ok(&["domain", "add", "bücher.example", "mox"]);
    for (added, removed) in [
        ("CaPs@bücher.example", "caps@xn--bcher-kva.example"),
        ("info@xn--bcher-kva.example", "INFO@BÜCHER.example"),
    ] {
        ok(&["address", "add", added, "mox"]);
        let (listed, _) = moxctl(&tree, &["address", "list", "mox"]);
        assert_eq!(listed.lines().count(), 4, "{listed}");
        ok(&["address", "remove", removed]);
    }
    let (error, code) = refused(&tree, &["address", "remove", "caps@xn--bcher-kva.example"]);
    assert!(code == 1 && error.contains("does not exist"), "{error}");
}

#[test]
fn the_user_of_a_disabled_account_is_told_why_and_nobody_else() {
    let tree = Tree::start();
    let text = "on leave, ask ann@example.org";
    assert_eq!(refused(&tree, &["account", "disable", "mox", text]).1, 0);
    let imap = |user: &str, password: &str| {
        let mut imap = Imap::connect(tree.address(143)).unwrap();
        let answer = imap.command(&format!("LOGIN {user} {password}")).unwrap();
        assert!(!answer.is_ok());
        answer.text()
    };
    let told = imap("mox@localhost", "moxmoxmox");
    assert!(told.contains(&format!("NO [CONTACTADMIN] {text}")), "{told}");
    let stranger = imap("mox@localhost", "wrong-wrong");
    assert!(!stranger.contains("leave") && !stranger.contains("CONTACTADMIN"), "{stranger}");
    let mut smtp = Smtp::connect(tree.address(587)).unwrap();
    let reply = smtp.log_in("mox@localhost", "moxmoxmox").unwrap();
    assert!(reply.code == 525 && reply.lines[0].contains(text), "{reply:?}");
    let reply = smtp.log_in("mox@localhost", "wrong-wrong").unwrap();
    assert!(reply.code == 535 && !format!("{reply:?}").contains("leave"), "{reply:?}");
}

/// What an attempt with a wrong password is answered, by every protocol and mechanism. Of what SCRAM
/// asks, which is another thing each time, the length.
fn answers(tree: &Tree, from: Ipv4Addr, user: &str) -> Vec<String> {
    let b64 = |text: String| BASE64_STANDARD.encode(text);
    let plain = b64(format!("\0{user}\0wrong-wrong"));
    let first = b64(format!("n,,n={user},r=a-nonce-of-the-client"));
    let proof = |challenge: &str| {
        let asked = BASE64_STANDARD.decode(challenge).unwrap();
        let asked = String::from_utf8(asked).unwrap();
        let nonce = asked.split(',').next().unwrap();
        b64(format!("c=biws,{nonce},p={}", BASE64_STANDARD.encode([7; 32])))
    };
    let mut all = Vec::new();
    let mut smtp = Smtp::connect_from(from, tree.address(587)).unwrap();
    // Without the session's name behind a failure.
    let mut say = |text: &str| {
        let line = smtp.command(text).unwrap().lines.join("\n");
        line.split(" (").next().unwrap().to_owned()
    };
    all.push(say(&format!("AUTH PLAIN {plain}")));
    all.extend(["AUTH LOGIN", &b64(user.to_owned()), &b64("wrong-wrong".to_owned())].map(&mut say));
    let challenge = say(&format!("AUTH SCRAM-SHA-256 {first}"));
    all.push(challenge.len().to_string());
    all.push(say(&proof(challenge.strip_prefix("334 ").unwrap())));
    let wire = || mox_tests::wire::Wire::dial_from(from, tree.address(143)).unwrap();
    let mut imap = Imap::over(wire()).unwrap();
    for command in [format!("LOGIN \"{user}\" wrong-wrong"), format!("AUTHENTICATE PLAIN {plain}")]
    {
        all.push(imap.command(&command).unwrap().text());
    }
    let tag = imap.start(&format!("AUTHENTICATE SCRAM-SHA-256 {first}")).unwrap();
    let challenge = String::from_utf8(imap.response().unwrap()).unwrap();
    all.push(challenge.len().to_string());
    imap.raw(format!("{}\r\n", proof(challenge.strip_prefix("+ ").unwrap())).as_bytes()).unwrap();
    all.push(imap.finish(&tag).unwrap().text());
    all
}

#[test]
fn nobody_is_answered_like_somebody() {
    let tree = Tree::start();
    // One without a password, one that may not log in.
    let file = tree.folder().join("directory/domains.toml");
    let mut text = fs::read_to_string(&file).unwrap();
    text.push_str("\n[account.bob.address.\"bob@localhost\"]\n");
    fs::write(&file, text).unwrap();
    let is_there = || moxctl(&tree, &["account", "list"]).0.contains("bob");
    assert!(wait_until(PATIENCE, is_there));
    let known = answers(&tree, Ipv4Addr::new(127, 11, 0, 1), "mox@localhost");
    assert_eq!(known.iter().filter(|answer| answer.starts_with("535 ")).count(), 3, "{known:?}");
    let failed = "NO [AUTHENTICATIONFAILED]";
    assert_eq!(known.iter().filter(|answer| answer.contains(failed)).count(), 3, "{known:?}");
    assert_eq!(refused(&tree, &["account", "disable", "mox", "on leave"]).1, 0);
    for (n, other) in
        (12..).zip(["mox@localhost", "bob@localhost", "who@localhost", "who@other.example"])
    {
        // Each from a network of its own: a limit is no answer.
        let others = answers(&tree, Ipv4Addr::new(127, n, 0, 1), other);
        assert_eq!(others, known, "{other}");
    }
}

#[test]
fn json_is_an_object_a_line_whatever_is_asked() {
    let tree = Tree::start();
    for args in [
        &["status"][..],
        &["processes"],
        &["processes", "wiring"],
        &["processes", "profiles"],
        &["reload"],
        &["loglevel", "info"],
        &["account", "list"],
        &["account", "logins", "mox"],
        &["account", "verify", "--all", "--fix"],
        &["address", "list", "mox"],
        &["domain", "list"],
        &["clientkey", "list", "mox"],
        &["queue", "list"],
        &["queue", "retry", "--all"],
    ] {
        let (text, code) = moxctl(&tree, &[&["--json"], args].concat());
        assert_eq!(code, 0, "{args:?}: {text}");
        for line in text.lines() {
            let read: Result<serde_json::Map<_, _>, _> = serde_json::from_str(line);
            assert!(read.is_ok(), "{args:?}: {line}");
        }
    }
    let failed = tree.moxctl(&["--json", "address", "list", "nobody"]);
    assert_eq!(failed.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&failed.stderr).unwrap();
    assert!(told["error"].as_str().unwrap().contains("nobody"), "{told}");
    let mut nowhere = Command::new(binary("moxctl"));
    nowhere.args(["--control", "/nonexistent", "status"]);
    assert_eq!(nowhere.output().unwrap().status.code(), Some(3));
    // A reader of alarms must not take it for a server without any.
    let silent = nowhere.arg("--json").output().unwrap();
    assert_eq!((silent.stdout.as_slice(), silent.status.code()), (&b""[..], Some(3)));
}

#[test]
fn records_of_keys_are_told_by_a_keyholder_that_has_just_begun() {
    let tree = Tree::start();
    assert_eq!(moxctl(&tree, &["domain", "add", "kept.example", ""]).1, 0);
    let records = || moxctl(&tree, &["status"]).0.matches("._domainkey.kept.example").count();
    assert!(wait_until(PATIENCE, || records() == 2));
    let before = tree.pid(Role::Keyholder, 0);
    assert_eq!(moxctl(&tree, &["restart", "keyholder"]).1, 0);
    let is_another = || tree.pid(Role::Keyholder, 0).is_some_and(|pid| Some(pid) != before);
    assert!(wait_until(PATIENCE, is_another));
    // Nothing is signed meanwhile.
    assert!(wait_until(PATIENCE, || records() == 2), "{}", moxctl(&tree, &["status"]).0);
}
