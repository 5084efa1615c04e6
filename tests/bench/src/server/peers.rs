//! Debian's Postfix and Dovecot, private: own folders, loopback ports, nothing in /etc. Postfix
//! hands mail to Dovecot by LMTP, which keeps it as maildir; both sync before they answer. Dovecot's
//! log-in processes serve many clients each, which is faster and smaller than its default.

use super::{Ports, USERS, end, greeted, run};
use crate::load::{DOMAIN, PASSWORD, user};
use anyhow::{Context as _, bail};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Costs of a password check, as ours: KiB, passes, lanes.
const ARGON2: (u32, u32, u32) = (19 << 10, 2, 1);

/// The services of Postfix that mail from another server to a mailbox needs.
const MASTER: &str = "
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
error     unix  - - n -     - error
retry     unix  - - n -     - error
lmtp      unix  - - n -     - lmtp
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
";

/// Both.
pub(crate) struct Peers {
    folder: PathBuf,
    dovecot: Option<std::process::Child>,
    pub(crate) ports: Ports,
}

impl Peers {
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        for (file, package) in [
            ("/usr/sbin/postfix", "postfix"),
            ("/usr/sbin/dovecot", "dovecot-imapd"),
            ("/usr/lib/dovecot/lmtp", "dovecot-lmtpd"),
        ] {
            if !Path::new(file).exists() {
                bail!("no {file}: install {package}, or measure ours alone (--servers mox)");
            }
        }
        let peers =
            Self { folder: folder.join("peers"), dovecot: None, ports: Ports::from(29_200) };
        peers.make()?;
        Ok(peers)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn mail(&self) -> PathBuf {
        self.at("mail")
    }

    fn make(&self) -> anyhow::Result<()> {
        for name in ["etc", "spool", "data", "mail", "run"] {
            fs::create_dir_all(self.at(name))?;
        }
        let id = |name: &str| -> anyhow::Result<u32> {
            let user = nix::unistd::User::from_name(name)?;
            Ok(user.with_context(|| format!("there is no user {name}"))?.uid.as_raw())
        };
        chown(self.at("mail"), Some(id("nobody")?), None)?;
        chown(self.at("data"), Some(id("postfix")?), None)?;
        if !self.at("key.pem").exists() {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
            fs::write(self.at("cert.pem"), made.cert.pem())?;
            fs::write(self.at("key.pem"), made.signing_key.serialize_pem())?;
            fs::set_permissions(self.at("key.pem"), fs::Permissions::from_mode(0o600))?;
        }
        let verifier = verifier()?;
        let mut users = String::new();
        for n in 0..USERS {
            writeln!(users, "{}:{{ARGON2ID}}{verifier}::::::", user(n))?;
        }
        fs::write(self.at("users"), users)?;
        fs::write(self.at("dovecot.conf"), self.dovecot_settings())?;
        fs::write(self.at("etc/main.cf"), self.postfix_settings())?;
        let smtpd = format!("{} inet n - n - - smtpd", self.ports.smtp);
        Ok(fs::write(self.at("etc/master.cf"), format!("{smtpd}{MASTER}"))?)
    }

    fn dovecot_settings(&self) -> String {
        let dir = self.folder.display();
        let (imap, imaps) = (self.ports.imap.port(), self.ports.imaps.port());
        format!(
            "base_dir = {dir}/run\nstate_dir = {dir}/run\nlog_path = {dir}/dovecot.log\n\
             instance_name = mox-bench\nprotocols = imap lmtp\nlisten = 127.0.0.1\n\
             ssl = yes\nssl_cert = <{dir}/cert.pem\nssl_key = <{dir}/key.pem\nssl_dh =\n\
             disable_plaintext_auth = no\nauth_mechanisms = plain\nfirst_valid_uid = 1\n\
             mail_uid = nobody\nmail_gid = nogroup\n\
             mail_location = maildir:{dir}/mail/%u\nmail_home = {dir}/mail/%u\n\
             mail_max_userip_connections = 100000\n\
             namespace inbox {{\n inbox = yes\n}}\n\
             passdb {{\n driver = passwd-file\n args = username_format=%u {dir}/users\n}}\n\
             userdb {{\n driver = static\n args = uid=nobody gid=nogroup home={dir}/mail/%u\n}}\n\
             protocol lmtp {{\n postmaster_address = postmaster@{DOMAIN}\n}}\n\
             service imap-login {{\n service_count = 0\n process_min_avail = 2\n\
             \x20client_limit = 5000\n\
             \x20inet_listener imap {{\n port = {imap}\n }}\n\
             \x20inet_listener imaps {{\n port = {imaps}\n ssl = yes\n }}\n}}\n\
             service imap {{\n process_limit = 5000\n}}\n\
             service auth {{\n client_limit = 20000\n}}\n\
             service anvil {{\n client_limit = 20000\n}}\n\
             service lmtp {{\n unix_listener from-postfix {{\n mode = 0666\n }}\n}}\n"
        )
    }

    fn postfix_settings(&self) -> String {
        let dir = self.folder.display();
        format!(
            "compatibility_level = 3.6\nqueue_directory = {dir}/spool\n\
             data_directory = {dir}/data\ncommand_directory = /usr/sbin\n\
             daemon_directory = /usr/lib/postfix/sbin\nmail_owner = postfix\n\
             setgid_group = postdrop\nmulti_instance_name = postfix-mox-bench\n\
             maillog_file = {dir}/mail.log\nmaillog_file_prefixes = {dir}\n\
             myhostname = mail.{DOMAIN}\nmydestination =\nmynetworks = 127.0.0.0/8\n\
             inet_interfaces = loopback-only\ninet_protocols = ipv4\n\
             alias_maps =\nalias_database =\nlocal_recipient_maps =\n\
             virtual_mailbox_domains = {DOMAIN}\nvirtual_mailbox_maps = static:all\n\
             virtual_transport = lmtp:unix:{dir}/run/from-postfix\n\
             smtpd_peername_lookup = no\n\
             smtpd_client_connection_count_limit = 0\nsmtpd_client_connection_rate_limit = 0\n"
        )
    }

    fn postfix_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.at("spool/pid/master.pid")).ok()?;
        let pid = text.trim().parse().ok()?;
        // An old file may name a process of somebody else's by now.
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        (cwd == self.at("spool")).then_some(pid)
    }

    pub(crate) fn roots(&self) -> Vec<u32> {
        self.dovecot
            .as_ref()
            .map(std::process::Child::id)
            .into_iter()
            .chain(self.postfix_pid())
            .collect()
    }

    pub(crate) async fn start(&mut self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let mut command = Command::new("/usr/sbin/dovecot");
        command.arg("-F").arg("-c").arg(self.at("dovecot.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        self.dovecot = Some(command.spawn()?);
        greeted(self.ports.imap, &self.at("dovecot.log")).await?;
        let took = begin.elapsed();
        // Its start script checks folders first, which no mail server has to do.
        for order in ["check", "start"] {
            run(Command::new("/usr/sbin/postfix").arg("-c").arg(self.at("etc")).arg(order))?;
        }
        Ok(took)
    }

    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.postfix_pid() {
            end(pid).await?;
        }
        if let Some(mut dovecot) = self.dovecot.take() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(dovecot.id())?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
            dovecot.wait()?;
        }
        Ok(())
    }
}

impl Drop for Peers {
    /// After a failure.
    fn drop(&mut self) {
        let signal = nix::sys::signal::Signal::SIGTERM;
        for pid in self.roots().into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        }
    }
}

/// Of the one password, at the cost that ours has.
fn verifier() -> anyhow::Result<String> {
    let (memory, passes, lanes) = ARGON2;
    let params = Params::new(memory, passes, lanes, None).map_err(|e| anyhow::anyhow!("{e}"))?;
    let salt = b"mox-bench-salt-1";
    let mut hash = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(PASSWORD.as_bytes(), salt, &mut hash)
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    Ok(format!("$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}"))
}
