//! A Postfix with its settings, queue and mail in a temporary folder, on port 25 of an address of
//! 127/8: the other server. Only root can start one.

use crate::programs::{find, program, said, succeeds, succeeds_with};
use mox_tests::tree::wait_until;
use std::{
    net::Ipv4Addr,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

/// The domain it takes mail for.
pub(crate) const DOMAIN: &str = "mail-b.test";

/// What it answers to some recipients (an access table of regular expressions).
const RULES: &str = "/^defer@/ 450 4.2.1 the mailbox rests\n/^reject@/ 550 5.1.1 no such user\n";

/// The services of its master, with the columns that differ: name, type, unprivileged, chroot,
/// wakeup, limit, program.
const SERVICES: &str = "pickup unix - n 60 1 pickup|cleanup unix - n - 0 cleanup|\
    qmgr unix - n 300 1 qmgr|tlsmgr unix - n 1000? 1 tlsmgr|\
    rewrite unix - n - - trivial-rewrite|bounce unix - n - 0 bounce|defer unix - n - 0 bounce|\
    trace unix - n - 0 bounce|proxymap unix - n - - proxymap|smtp unix - n - - smtp|\
    error unix - n - - error|retry unix - n - - error|showq unix - n - - showq|\
    virtual unix n n - - virtual|anvil unix - n - 1 anvil|scache unix - n - 1 scache|\
    postlog unix-dgram - n - 1 postlogd";

/// Those of them that commands reach.
const PUBLIC: [&str; 5] = ["pickup", "cleanup", "qmgr", "showq", "postlog"];

/// A running one; ended when dropped.
pub(crate) struct Postfix {
    folder: tempfile::TempDir,
    ip: Ipv4Addr,
}

impl Postfix {
    /// The programs it needs.
    pub(crate) const NEEDS: [&'static str; 4] = ["postfix", "postconf", "sendmail", "openssl"];

    /// Starts it; mail for `peer.0` goes to port 25 of `peer.1`.
    pub(crate) fn start(ip: Ipv4Addr, peer: (&str, Ipv4Addr)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        mode(folder.path(), 0o755);
        for name in ["etc", "spool", "data", "mail", "tls"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            mode(&folder.path().join(name), 0o755);
        }
        let id = |what: &str, user: &str| {
            succeeds(program("id").args([what, user])).trim().parse::<u32>().unwrap()
        };
        chown(folder.path().join("data"), Some(id("-u", "postfix")), None).unwrap();
        let nobody = (id("-u", "nobody"), id("-g", "nobody"));
        chown(folder.path().join("mail"), Some(nobody.0), Some(nobody.1)).unwrap();
        let it = Self { folder, ip };
        let (key, cert) = (it.path("tls/key.pem"), it.path("tls/cert.pem"));
        succeeds(
            program("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
                .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
                .args(["-subj", &format!("/CN=mx.{DOMAIN}"), "-keyout"])
                .arg(key)
                .arg("-out")
                .arg(cert),
        );
        it.write("etc/rules", RULES);
        it.write("etc/routes", &format!("{} smtp:[{}]:25\n{DOMAIN} virtual:\n", peer.0, peer.1));
        it.write("etc/master.cf", &it.services());
        it.write("etc/main.cf", &it.settings(nobody, peer.1));
        let (text, checked) = said(it.command("postfix").arg("check"));
        assert!(checked, "{text}\n{}", it.log());
        it.order("start");
        let up = || std::net::TcpStream::connect((ip, 25)).is_ok();
        assert!(wait_until(Duration::from_secs(20), up), "{}", it.log());
        it
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, name: &str) -> std::process::Command {
        let mut command = program(name);
        command.arg(if name == "sendmail" { "-C" } else { "-c" }).arg(self.path("etc"));
        // Its scripts look for each other there.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    fn order(&self, word: &str) {
        // Started as a daemon it keeps what it inherits, pipes too.
        let mut command = self.command("postfix");
        let null = std::process::Stdio::null;
        let status = command.arg(word).stdout(null()).stderr(null()).status().unwrap();
        assert!(status.success(), "postfix {word}: {}", self.log());
    }

    fn services(&self) -> String {
        let mut text = format!("{}:25 inet n - n - - smtpd\n", self.ip);
        for service in SERVICES.split('|') {
            let columns: Vec<&str> = service.split_whitespace().collect();
            let [name, kind, user, chroot, wakeup, limit, program] = columns[..] else {
                panic!("{service}: not seven columns")
            };
            let private = if PUBLIC.contains(&name) { 'n' } else { 'y' };
            let rest = format!("{user} {chroot} {wakeup} {limit} {program}");
            text.push_str(&format!("{name} {kind} {private} {rest}\n"));
        }
        text
    }

    fn settings(&self, nobody: (u32, u32), peer: Ipv4Addr) -> String {
        let at = |name: &str| self.path(name).display().to_string();
        let libexec = if find("/usr/lib/postfix/sbin/master").is_some() {
            "/usr/lib/postfix/sbin"
        } else {
            "/usr/libexec/postfix"
        };
        let pairs = [
            ("compatibility_level", "3.6".to_owned()),
            ("queue_directory", at("spool")),
            ("data_directory", at("data")),
            ("command_directory", "/usr/sbin".to_owned()),
            ("daemon_directory", libexec.to_owned()),
            ("mail_owner", "postfix".to_owned()),
            ("setgid_group", "postdrop".to_owned()),
            ("maillog_file", at("mail.log")),
            ("maillog_file_prefixes", self.folder.path().display().to_string()),
            ("myhostname", format!("mx.{DOMAIN}")),
            ("myorigin", DOMAIN.to_owned()),
            ("mydestination", String::new()),
            ("inet_interfaces", "loopback-only".to_owned()),
            ("inet_protocols", "ipv4".to_owned()),
            ("smtp_bind_address", self.ip.to_string()),
            // The server under test is a stranger: only what is for DOMAIN is taken from it.
            ("mynetworks", format!("{}/32", self.ip)),
            ("alias_maps", String::new()),
            ("local_recipient_maps", String::new()),
            ("virtual_mailbox_domains", DOMAIN.to_owned()),
            ("virtual_mailbox_base", at("mail")),
            ("virtual_mailbox_maps", "static:inbox/".to_owned()),
            ("virtual_minimum_uid", "1".to_owned()),
            ("virtual_uid_maps", format!("static:{}", nobody.0)),
            ("virtual_gid_maps", format!("static:{}", nobody.1)),
            ("transport_maps", format!("texthash:{}", at("etc/routes"))),
            (
                "smtpd_recipient_restrictions",
                format!(
                    "check_recipient_access regexp:{}, reject_unauth_destination",
                    at("etc/rules")
                ),
            ),
            ("smtpd_tls_cert_file", at("tls/cert.pem")),
            ("smtpd_tls_key_file", at("tls/key.pem")),
            ("smtpd_tls_security_level", "may".to_owned()),
            ("smtpd_tls_received_header", "yes".to_owned()),
            ("smtp_tls_security_level", "may".to_owned()),
            ("smtp_tls_loglevel", "1".to_owned()),
            ("smtp_host_lookup", "native".to_owned()),
            ("smtp_dns_support_level", "disabled".to_owned()),
            // Its whole dialogue with us is in the log.
            ("debug_peer_list", peer.to_string()),
            ("debug_peer_level", "1".to_owned()),
            ("smtputf8_enable", "yes".to_owned()),
            ("minimal_backoff_time", "1s".to_owned()),
            ("maximal_backoff_time", "2s".to_owned()),
            ("queue_run_delay", "1s".to_owned()),
            ("biff", "no".to_owned()),
        ];
        pairs.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
    }

    /// From now on it refuses nobody.
    pub(crate) fn take_all(&self) {
        self.write("etc/rules", "");
        self.order("reload");
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        let octets = std::fs::read(self.path("mail.log")).unwrap_or_default();
        String::from_utf8_lossy(&octets).into_owned()
    }

    /// The mail that was delivered, each with lines as they travel.
    pub(crate) fn mail(&self) -> Vec<Vec<u8>> {
        let Ok(entries) = std::fs::read_dir(self.path("mail/inbox/new")) else { return Vec::new() };
        let read = |path: PathBuf| {
            let text = std::fs::read(path).unwrap();
            let lines = text.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
            lines.join(&b"\r\n"[..])
        };
        entries.map(|entry| read(entry.unwrap().path())).collect()
    }

    /// Sends through it, as a program of its host.
    pub(crate) fn send(&self, from: &str, to: &str, message: &[u8]) {
        let mut command = self.command("sendmail");
        command.args(["-i", "-f", from, "--", to]);
        succeeds_with(&mut command, message);
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            for line in tail.iter().rev() {
                eprintln!("postfix: {line}");
            }
        }
        // It must be gone before its folder is.
        let _ = said(self.command("postfix").arg("stop"));
    }
}
