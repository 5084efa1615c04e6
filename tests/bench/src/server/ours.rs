//! Our server as an administrator runs it: `moxd serve` as root, a uid for each role, everything at
//! its default but the limits of connections and messages, which a load from one machine would meet,
//! and questions to DNS, which the peers do not ask either.

use super::{PATIENCE, Ports, USERS, greeted};
use crate::load::{DOMAIN, PASSWORD, user};
use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Accounts of a folder that was made before their number was written down.
const FIRST_USERS: u64 = 15;

/// The first uid of its roles: not one that an installation or a test has.
const UID_BASE: u32 = 470_000;

/// Runs moxd where `/run` is its own, so that an installed server keeps its control sockets. The
/// process stays the same through all of it.
const IN_OWN_RUN: &str = r#"mount -t tmpfs tmpfs /run && exec "$0" "$@""#;

/// Ours.
pub(crate) struct Ours {
    folder: PathBuf,
    binaries: PathBuf,
    moxd: Option<Child>,
    pub(crate) ports: Ports,
}

impl Ours {
    pub(crate) fn new(folder: &Path, binaries: &Path) -> anyhow::Result<Self> {
        if !binaries.join("moxd").exists() {
            bail!("no moxd in {}: start this with `cargo xtask bench`", binaries.display());
        }
        let folder = folder.join("mox");
        fs::create_dir_all(&folder)?;
        let ours =
            Self { folder, binaries: binaries.into(), moxd: None, ports: Ports::from(29_100) };
        fs::write(ours.config(), ours.settings())?;
        Ok(ours)
    }

    fn config(&self) -> PathBuf {
        self.folder.join("mox.toml")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn mail(&self) -> PathBuf {
        self.data().join("accountd")
    }

    pub(crate) fn root(&self) -> Option<u32> {
        self.moxd.as_ref().map(Child::id)
    }

    fn settings(&self) -> String {
        let many = "[1000000000, 1000000000, 1000000000]";
        let octets = "[1000000000000000, 1000000000000000, 1000000000000000]";
        let (smtp, imap) = (self.ports.smtp.port(), self.ports.imap.port());
        let imaps = self.ports.imaps.port();
        format!(
            "hostname = \"mail.{DOMAIN}\"\n\
             data_dir = \"{}\"\n\
             uid_base = {UID_BASE}\n\
             [dns]\ncheck_senders = false\n\
             [limits.gate]\n\
             connections = {many}\nconnections_per_minute = {many}\n\
             failed_logins_per_minute = {many}\nfailed_logins_per_day = {many}\n\
             [limits.delivery]\n\
             messages_per_minute = {many}\nmessages_per_day = {many}\n\
             octets_per_minute = {octets}\noctets_per_day = {octets}\n\
             [listener.bench]\nips = [\"127.0.0.1\"]\ntls = {{ self_signed = true }}\n\
             smtp = {{ port = {smtp}, first_time_sender_delay = \"0s\" }}\n\
             imap = {{ port = {imap}, require_tls = false }}\n\
             imaps = {{ port = {imaps} }}\n",
            self.data().display()
        )
    }

    pub(crate) async fn start(&mut self) -> anyhow::Result<Duration> {
        let log = self.folder.join("moxd.log");
        let out = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let begin = Instant::now();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", IN_OWN_RUN]).arg(self.binaries.join("moxd"));
        command.args(["serve", "--config"]).arg(self.config());
        // Its own environment, and no journal: its log is a file, as that of the others.
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        self.moxd = Some(command.spawn().context("start unshare")?);
        greeted(self.ports.imap, &log).await?;
        let took = begin.elapsed();
        self.make_accounts()?;
        Ok(took)
    }

    fn make_accounts(&self) -> anyhow::Result<()> {
        let made = self.folder.join("accounts-made");
        if !made.exists() {
            self.moxctl(&["domain", "add", DOMAIN], "")?;
            fs::write(&made, "0")?;
        }
        // A folder of an earlier time may have fewer of them.
        let there = fs::read_to_string(&made)?.parse().unwrap_or(FIRST_USERS);
        for n in there..USERS {
            self.moxctl(&["account", "add", &format!("u{n}"), &user(n)], PASSWORD)?;
            fs::write(&made, (n + 1).to_string())?;
        }
        Ok(())
    }

    fn moxctl(&self, args: &[&str], line: &str) -> anyhow::Result<()> {
        let root = self.root().context("it does not run")?.to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &root, "--mount"]).arg(self.binaries.join("moxctl"));
        command.args(["--control", "/run/mox/control"]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start nsenter")?;
        writeln!(child.stdin.take().expect("it was piped"), "{line}")?;
        let out = child.wait_with_output()?;
        if !out.status.success() {
            bail!("moxctl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        }
        Ok(())
    }

    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut moxd) = self.moxd.take() else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(moxd.id())?), Signal::SIGTERM)?;
        let start = Instant::now();
        while moxd.try_wait()?.is_none() {
            if start.elapsed() > PATIENCE {
                bail!("moxd does not end");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

impl Drop for Ours {
    /// After a failure: the roles end when the supervisor is gone.
    fn drop(&mut self) {
        if let Some(moxd) = &mut self.moxd {
            let _ = moxd.kill();
            let _ = moxd.wait();
        }
    }
}
