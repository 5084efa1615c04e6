//! accountd above its rate at keyholder: an alarm, and no word against anybody's password.

#![forbid(unsafe_code)]

use mox_tests::{
    client::{Imap, Smtp},
    service::Service,
    tree::wait_until,
};
use std::{fs, net::Ipv4Addr, time::Duration};

#[test]
fn a_log_in_above_the_rate_of_the_pepper_is_asked_to_come_again() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root for the well-known ports");
        return;
    }
    let limits = "[limits.keys]\npepper_alarm = 1\npepper_refuse = 100\n";
    let service = Service::start(Ipv4Addr::new(127, 9, 86, 1), "mail.example.org", limits);
    let _ = service.asks(&["domain", "add", "a.test", ""], "");
    let add = || service.moxctl(&["account", "add", "ann", "ann@a.test"], "right-horse\n");
    assert!(wait_until(Duration::from_secs(20), || add().status.success()));

    // A log-in takes two uses of the pepper, and one is all that is ever there: none succeeds.
    let config = service.data().with_file_name("mox.toml");
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, settings.replace("pepper_refuse = 100", "pepper_refuse = 1")).unwrap();
    assert!(service.asks(&["reload"], "").contains("keyholder is replaced"));
    let right = "LOGIN ann@a.test right-horse";
    for _ in 0..15 {
        let mut imap = Imap::connect(service.address(143)).unwrap();
        let said = imap.command(right).unwrap().text();
        assert!(said.contains("NO [UNAVAILABLE]"), "{said}");
    }
    let mut smtp = Smtp::connect(service.address(587)).unwrap();
    let reply = smtp.log_in("ann@a.test", "right-horse").unwrap();
    // RFC 4954 §6: 454 4.7.0 is a temporary authentication failure.
    assert_eq!(reply.code, 454, "{reply:?}");
    let alarm = service.logs();
    let alarm = alarm.lines().find(|line| line.contains("ALARM")).unwrap();
    assert!(alarm.contains("pepper") && alarm.contains("accountd"), "{alarm}");
    assert!(service.asks(&["status"], "").contains("pepper refused"));
}
