//! The administrator's certificate and key: files that cannot be used change nothing, and are named.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use mox_tests::{
    service::Service,
    tree::{binary, wait_until},
};
use serde_json::Value;
use std::{fs, net::Ipv4Addr, path::Path, process::Command, time::Duration};

/// A process that was started again serves by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// A certificate for a host of ours, and its key.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["mail.example.org".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// A listener with these files, beside those that the service has anyway.
fn listener(ip: Ipv4Addr, folder: &Path) -> String {
    format!(
        "[listener.files]\nips = [\"{ip}\"]\nimaps = {{ port = 9993 }}\n\
         tls = {{ cert_file = \"{0}/cert.pem\", key_file = \"{0}/key.pem\" }}\n",
        folder.display()
    )
}

fn keyholder(service: &Service) -> u64 {
    let table = service.asks(&["--json", "processes"], "");
    let mut rows = table.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let row = rows.find(|row| row["process"] == "keyholder").unwrap();
    row["pid"].as_u64().unwrap()
}

#[test]
fn a_pair_that_cannot_be_used_is_refused_and_named() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root for the well-known ports");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (cert_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let ((cert, key), (other_cert, other_key)) = (pair(), pair());
    fs::write(&cert_file, &cert).unwrap();
    fs::write(&key_file, &key).unwrap();
    let ip = Ipv4Addr::new(127, 9, 83, 1);
    let service = Service::start(ip, "mail.example.org", &listener(ip, folder.path()));
    let before = keyholder(&service);
    let reload = || {
        let output = service.moxctl(&["reload"], "");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{output:?}");
        text
    };
    for (key, why) in [
        (other_key.as_str(), "its key is not that of the certificate"),
        (cert.as_str(), "it holds no private key in PEM form"),
        ("garbage", "it holds no private key in PEM form"),
    ] {
        fs::write(&key_file, key).unwrap();
        let refusal = reload();
        let named = format!("listener files: {}: {why}", key_file.display());
        assert!(refusal.contains(&named), "{refusal}");
    }
    fs::write(&cert_file, "garbage").unwrap();
    let refusal = reload();
    assert!(refusal.contains(&cert_file.display().to_string()), "{refusal}");
    fs::remove_file(&cert_file).unwrap();
    let refusal = reload();
    assert!(refusal.contains(&cert_file.display().to_string()), "{refusal}");
    assert_eq!(keyholder(&service), before, "nothing has changed");
    assert!(!service.asks(&["status"], "").contains("certificate"));

    // keyholder is started again without being asked: what is sound serves, the rest is an alarm.
    fs::write(&cert_file, &cert).unwrap();
    let _ = service.asks(&["restart", "keyholder"], "");
    let status = wait_for(&service, before);
    assert!(status.contains("the certificate of listener files is not used: key file"), "{status}");

    fs::write(&cert_file, &other_cert).unwrap();
    fs::write(&key_file, &other_key).unwrap();
    let (before, replaced) = (keyholder(&service), service.asks(&["reload"], ""));
    assert!(replaced.contains("keyholder is replaced"), "{replaced}");
    let status = wait_for(&service, before);
    assert!(!status.contains("certificate"), "{status}");
}

/// What `status` says when another keyholder than this one serves.
fn wait_for(service: &Service, before: u64) -> String {
    let mut status = None;
    let changed = wait_until(PATIENCE, || {
        let output = service.moxctl(&["--json", "processes"], "");
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut rows = table.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_new = rows.any(|row| {
            row["process"] == "keyholder"
                && row["state"] == "serving"
                && row["pid"].as_u64() != Some(before)
        });
        let asked = service.moxctl(&["status"], "");
        if is_new && asked.status.success() {
            status = Some(String::from_utf8_lossy(&asked.stdout).into_owned());
        }
        status.is_some()
    });
    assert!(changed, "no other keyholder serves");
    status.unwrap_or_default()
}

#[test]
fn a_server_does_not_start_with_a_pair_that_cannot_be_used() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root for the uids of the processes");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (cert, _) = pair();
    fs::write(folder.path().join("cert.pem"), cert).unwrap();
    fs::write(folder.path().join("key.pem"), pair().1).unwrap();
    let ip = Ipv4Addr::new(127, 9, 83, 2);
    let config = folder.path().join("mox.toml");
    let data = folder.path().join("data");
    let text = format!(
        "hostname = \"mail.example.org\"\ndata_dir = {data:?}\nuid_base = 2200000\n{}",
        listener(ip, folder.path())
    );
    fs::write(&config, text).unwrap();
    let output = Command::new("timeout")
        .arg("60")
        .arg(binary("moxd"))
        .args(["serve", "--config"])
        .arg(&config)
        .env("RUNTIME_DIRECTORY", folder.path().join("run"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let named =
        format!("{}/key.pem: its key is not that of the certificate", folder.path().display());
    assert!(said.contains(&named), "{said}");
}
