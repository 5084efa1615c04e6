//! Every key of `mox.toml` with a value that it cannot have: the fault names the key, its line and its
//! column. Which keys there are, mox.toml(5) says; one that is only here or only there is a fault of this test.

use std::collections::BTreeSet;

/// Section, key, and something that is no value of it.
const WRONG: &[(&str, &str, &str)] = &[
    ("", "hostname", "\"a b\""),
    ("", "data_dir", "\"relative\""),
    ("", "uid_base", "999"),
    ("", "pedantic", "1"),
    ("", "imap_sessions", "17"),
    ("", "parsers", "1"),
    ("log", "level", "\"loud\""),
    ("log", "format", "\"xml\""),
    ("dns", "servers", "[\"one\"]"),
    ("dns", "mode", "\"hope\""),
    ("dns", "check_senders", "\"yes\""),
    ("sandbox", "require", "[\"chroot\"]"),
    ("tls", "use_system_cas", "0"),
    ("tls", "extra_ca_files", "\"one.pem\""),
    ("postmaster", "account", "5"),
    ("postmaster", "mailbox", "\"\""),
    ("listener.x", "ips", "[\"1.2.3\"]"),
    ("listener.x", "nat_ips", "[\"127.0.0.1\"]"),
    ("listener.x", "hostname", "\"a b\""),
    ("listener.x", "role", "\"private\""),
    ("listener.x", "max_message_size", "\"1B\""),
    ("listener.x", "tls", "true"),
    ("listener.x", "smtp", "25"),
    ("listener.x", "submission", "587"),
    ("listener.x", "submissions", "465"),
    ("listener.x", "imap", "143"),
    ("listener.x", "imaps", "993"),
    ("listener.x", "http", "80"),
    ("listener.x", "https", "443"),
    ("listener.x", "admin", "8443"),
    ("listener.x", "metrics", "8010"),
    ("listener.x.tls", "cert_file", "5"),
    ("listener.x.tls", "key_file", "[]"),
    ("listener.x.tls", "self_signed", "\"yes\""),
    ("listener.x.tls", "client_auth", "1"),
    ("listener.x.tls", "min_version", "\"1.1\""),
    ("listener.x.smtp", "port", "0"),
    ("listener.x.imaps", "port", "65536"),
    ("listener.x.smtp", "starttls", "1"),
    ("listener.x.smtp", "require_starttls", "\"no\""),
    ("listener.x.submission", "require_tls", "0"),
    ("listener.x.imap", "require_tls", "0"),
    ("listener.x.submissions", "requiretls", "[]"),
    ("listener.x.smtp", "first_time_sender_delay", "\"soon\""),
    ("listener.x.smtp", "dnsbls", "\"bl.example\""),
    ("listener.x.http", "rate_limit", "100"),
    ("listener.x.https", "forwarded", "\"yes\""),
    ("listener.x.admin", "tls", "8443"),
    ("queue", "retry", "[\"10ms\"]"),
    ("queue", "delay_notice_after", "101"),
    ("queue", "concurrent", "0"),
    ("queue", "concurrent_per_domain", "101"),
    ("limits.gate", "connections", "[3, 2, 1]"),
    ("limits.gate", "connections_per_minute", "30"),
    ("limits.gate", "failed_logins_per_minute", "[1, 2]"),
    ("limits.gate", "failed_logins_per_day", "\"few\""),
    ("limits.delivery", "messages_per_minute", "[1]"),
    ("limits.delivery", "messages_per_day", "[1, 2, 3, 4]"),
    ("limits.delivery", "octets_per_minute", "\"1MiB\""),
    ("limits.delivery", "octets_per_day", "[]"),
    ("limits.smtp", "recipients", "99"),
    ("limits.smtp", "command_line", "512"),
    ("limits.smtp", "received_fields", "99"),
    ("limits.smtp", "bad_transactions", "0"),
    ("limits.smtp", "failed_logins", "101"),
    ("limits.smtp", "idle", "\"0\""),
    ("limits.smtp", "write", "\"5w\""),
    ("limits.smtp", "data", "30"),
    ("limits.smtp", "tls_handshake", "\"\""),
    ("limits.smtp", "session", "\"a day\""),
    ("limits.smtp", "connections", "-1"),
    ("limits.imap", "line", "8191"),
    ("limits.imap", "literal", "4095"),
    ("limits.imap", "literals_total", "67108865"),
    ("limits.imap", "literals", "0"),
    ("limits.imap", "append", "\"2GiB\""),
    ("limits.imap", "idle_before_login", "\"0s\""),
    ("limits.imap", "idle", "true"),
    ("limits.imap", "write", "[]"),
    ("limits.imap", "tls_handshake", "1.5"),
    ("limits.imap", "failed_logins", "\"10\""),
    ("limits.imap", "connections", "100001"),
    ("limits.http", "requests_per_minute", "1000"),
    ("limits.http", "requests_per_hour", "[2, 1, 3]"),
    ("limits.http", "header", "\"never\""),
    ("limits.http", "idle", "\"29d\""),
    ("limits.http", "header_octets", "4095"),
    ("limits.http", "tls_handshake", "60"),
    ("limits.http", "connections", "0"),
    ("limits.keys", "tls_alarm", "0"),
    ("limits.keys", "tls_refuse", "1"),
    ("limits.keys", "dkim_alarm", "1000001"),
    ("limits.keys", "dkim_refuse", "1"),
    ("limits.keys", "pepper_alarm", "0"),
    ("limits.keys", "pepper_refuse", "1"),
    ("limits.keys", "admin_alarm", "1000001"),
    ("limits.keys", "admin_refuse", "1"),
];

/// A file that is sound but for this line, and where that line's value begins.
fn file(section: &str, key: &str, value: &str) -> (String, String) {
    let line = format!("{key} = {value}\n");
    let host = if (section, key) == ("", "hostname") { "" } else { "hostname = \"a.example\"\n" };
    let head = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
    let ips = if (section, key) == ("listener.x", "ips") { "" } else { "ips = [\"127.0.0.1\"]\n" };
    let rest = match section {
        "listener.x" => ips.to_owned(),
        _ => format!("[listener.x]\n{ips}"),
    };
    let before = format!("{host}{head}");
    let place = format!("{}:{}", before.lines().count() + 1, key.len() + " = ".len() + 1);
    (format!("{before}{line}{rest}"), place)
}

#[test]
fn every_key_is_refused_a_wrong_value_at_its_place() {
    for (section, key, value) in WRONG {
        let (text, place) = file(section, key, value);
        let problems = config::Static::parse(&text, "mox.toml").expect_err(&text);
        let name = [*section, key].join(".");
        let expected = format!("mox.toml:{place}: {}: ", name.trim_start_matches('.'));
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        // In a list it may be one of the values that is meant.
        let of_list = || {
            let (line, column) = place.split_once(':').unwrap();
            let next = column.parse::<usize>().unwrap() + 1;
            format!("mox.toml:{line}:{next}: {}: ", name.trim_start_matches('.'))
        };
        let is_said = |start: &str| said.iter().any(|problem| problem.starts_with(start));
        assert!(
            is_said(&expected) || (value.starts_with("[\"") && is_said(&of_list())),
            "{expected}\n{said:#?}"
        );
    }
}

#[test]
fn what_is_missing_makes_no_other_key_unknown() {
    let text = "pedantic = true\n[postmaster]\nmailbox = \"In\"\n[listener.x]\nips = [\"127.0.0.1\"]\nsmtp = {}\n\
                [listener.x.tls]\nmin_version = \"1.3\"\nclient_auth = false\n";
    let problems = config::Static::parse(text, "mox.toml").unwrap_err();
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said.iter().all(|problem| !problem.contains("unknown key")), "{said:#?}");
}

#[test]
fn the_manual_has_these_keys_and_no_others() {
    let manual = include_str!("../../../packaging/man/mox.toml.5");
    let tables = manual.split(".Sh FILES").next().unwrap();
    let (before, limits) = tables.split_once(".Ss [limits.gate]").unwrap();
    let words = |line: &str| -> Vec<String> {
        line.split([',', ' ', ';']).filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let listed: BTreeSet<String> =
        before.lines().filter_map(|line| line.strip_prefix(".It Cm ")).flat_map(words).collect();
    let mentioned: BTreeSet<String> =
        before.lines().filter_map(|line| line.strip_prefix(".Cm ")).flat_map(words).collect();
    let mut limited = BTreeSet::new();
    let mut section = String::new();
    for line in limits.lines() {
        if let Some(name) = line.strip_prefix(".It Sy ") {
            section = format!("limits.{}", words(name)[0]);
        } else if let Some(key) = line.strip_prefix(".Cm ") {
            limited.insert((section.clone(), words(key).remove(0)));
        }
    }
    let tried: BTreeSet<(String, String)> =
        WRONG.iter().map(|(section, key, _)| ((*section).to_owned(), (*key).to_owned())).collect();
    let keys: BTreeSet<String> = tried.iter().map(|(_, key)| key.clone()).collect();
    for key in &listed {
        assert!(keys.contains(key), "{key} is in the manual and not tried");
    }
    for pair in &limited {
        assert!(tried.contains(pair), "{pair:?} is in the manual and not tried");
    }
    for (section, key) in &tried {
        let there = listed.contains(key)
            || mentioned.contains(key)
            || limited.contains(&(section.clone(), key.clone()));
        assert!(there, "{section} {key} is not in the manual");
    }
}
