//! domains.toml edited by hand under the running tree, and what moxctl says of it.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use mox_tests::tree::{Tree, binary, wait_until};
use std::{fs, process::Command, time::Duration};

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
}
