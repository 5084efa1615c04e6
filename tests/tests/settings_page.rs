//! The page of settings for mail programs follows `domains.toml`, and outlives accountd.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use ipc::Role;
use mox_tests::{
    tree::{Tree, wait_until},
    wire::Wire,
};
use std::{
    fs,
    io::{Read as _, Write as _},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// The answer at this host name, but for its date.
fn page(tree: &Tree, host: &str, path: &str) -> String {
    let mut wire = Wire::dial(tree.address(443)).unwrap().secured().unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    wire.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // Whatever came before a peer that ends without closing TLS.
    let _ = wire.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    answer.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

#[test]
fn what_mail_programs_are_told_follows_the_directory() {
    let tree = Tree::start();
    let file = tree.folder().join("directory/domains.toml");
    let good = fs::read_to_string(&file).unwrap();
    let tell = |name: &str| {
        let told = format!("{good}\n[domain.\"a.example\"]\nclient_settings_domain = \"{name}\"\n");
        fs::write(&file, told).unwrap();
    };
    let is_told = |name: &str| {
        let server = format!("<code>{name}</code>");
        [("localhost", "/?domain=a.example"), (name, "/")]
            .iter()
            .all(|(host, path)| page(&tree, host, path).contains(&server))
    };
    let process = tree.pid(Role::HttpdWeb, 0).unwrap();
    let usual = page(&tree, "localhost", "/?domain=a.example");
    assert!(usual.starts_with("HTTP/1.1 200") && usual.contains("<code>"), "{usual}");
    tell("one.a.example");
    assert!(wait_until(PATIENCE, || is_told("one.a.example")), "the page never changed");
    assert_eq!(page(&tree, "localhost", "/"), usual, "others are told what they were");

    // accountd is stopped where it stands: the last word counts.
    let accountd = tree.pid(Role::Accountd, 0).unwrap();
    mox_tests::tree::stop(accountd).unwrap();
    assert!(is_told("one.a.example"), "without accountd the last word counts");
    mox_tests::tree::kill(accountd, rustix::process::Signal::CONT).unwrap();
    tree.kill_and_wait(Role::Accountd, 0);
    assert!(is_told("one.a.example"), "and after its death, too");
    tell("two.a.example");
    assert!(wait_until(PATIENCE, || is_told("two.a.example")), "its next life is not followed");
    assert!(page(&tree, "one.a.example", "/").starts_with("HTTP/1.1 404"), "and nobody is told");
    assert_eq!(tree.pid(Role::HttpdWeb, 0), Some(process), "without a restart of the web");
}
