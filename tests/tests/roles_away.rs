//! What an administrator is told of roles that begin, end or are not there at all.

#![forbid(unsafe_code)]

use mox_tests::{service::Service, tree::wait_until};
use std::{fs, net::Ipv4Addr, time::Duration};

/// A process that was told to end has ended by then.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_reload_says_who_begins_and_who_ends() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root for the well-known ports");
        return;
    }
    let service = Service::start(Ipv4Addr::new(127, 29, 0, 1), "mail.example.org", "");
    let file = service.data().parent().unwrap().join("mox.toml");
    let with = fs::read_to_string(&file).unwrap();
    let without = with.replace("imap = { require_tls = false }\nimaps = {}\n", "");
    assert_ne!(with, without);
    let said = |args: &[&str]| {
        let output = service.moxctl(args, "");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };

    fs::write(&file, without).unwrap();
    let (code, told) = said(&["reload"]);
    assert_eq!(code, Some(0), "{told}");
    for line in ["imapd-front ends", "imapd-session ends"] {
        assert!(told.lines().any(|told| told == line), "{line}: {told}");
    }
    assert!(!told.contains("imapd-front is replaced"), "{told}");
    for args in [&["restart", "imapd-front"][..], &["loglevel", "debug", "imapd-session"]] {
        let away = || {
            let (code, told) = said(args);
            code == Some(1) && told.contains(" is not in this configuration")
        };
        assert!(wait_until(PATIENCE, away), "{args:?}: {:?}", said(args));
    }

    fs::write(&file, with).unwrap();
    let (code, told) = said(&["reload"]);
    assert_eq!(code, Some(0), "{told}");
    for line in ["imapd-front is started", "imapd-session is started"] {
        assert!(told.lines().any(|told| told == line), "{line}: {told}");
    }
    let back = || said(&["restart", "imapd-front"]) == (Some(0), String::new());
    assert!(wait_until(PATIENCE, back), "{:?}", said(&["processes"]));
}
