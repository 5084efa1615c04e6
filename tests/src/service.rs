//! `moxd serve` as an administrator runs it: a `mox.toml` of the test, well-known ports on an address
//! of its own, its own folders; ended with the test. Only root can bind the ports.

use crate::{journal, tree::binary};
use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

/// The tree is whole by then.
const START: Duration = Duration::from_secs(60);

/// Where the processes log to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// Files of moxd.
    Files,
    /// A journal of the test's own, which speaks with processes as systemd's does.
    Journal,
}

/// A running server.
pub struct Service {
    moxd: Child,
    folder: tempfile::TempDir,
    ip: Ipv4Addr,
}

impl Service {
    /// Starts one on `ip`. `more` is appended to its `mox.toml`, which has a host name, one public
    /// listener with every mail service, and log-in also in clear, for small clients.
    ///
    /// # Panics
    /// When it does not come up; with its log.
    #[must_use]
    pub fn start(ip: Ipv4Addr, hostname: &str, more: &str) -> Self {
        Self::start_with(ip, hostname, more, Logs::Files)
    }

    /// As [`Self::start`], with its logs there.
    ///
    /// # Panics
    /// When it does not come up; with its log.
    #[must_use]
    pub fn start_with(ip: Ipv4Addr, hostname: &str, more: &str, logs: Logs) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let passable = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(folder.path(), passable).expect("it is ours");
        let data = folder.path().join("mox");
        let [_, a, b, c] = ip.octets();
        let uid_base = 2_000_000 + u32::from_be_bytes([0, a, b, c]) * 16;
        let settings = format!(
            "hostname = \"{hostname}\"\ndata_dir = \"{data}\"\nuid_base = {uid_base}\n\n\
             [listener.public]\nrole = \"public\"\nips = [\"{ip}\"]\ntls = {{ self_signed = true }}\n\
             smtp = {{}}\nsubmission = {{ require_tls = false }}\nsubmissions = {{}}\n\
             imap = {{ require_tls = false }}\nimaps = {{}}\n\n{more}",
            data = data.display(),
        );
        let config = folder.path().join("mox.toml");
        std::fs::write(&config, settings).expect("the folder is ours");
        let told = folder.path().join("notify");
        let hears = UnixDatagram::bind(&told).expect("the folder is ours");
        hears.set_read_timeout(Some(START)).expect("a socket");
        let own_log = File::create(folder.path().join("moxd.log")).expect("the folder is ours");
        let mut command = match logs {
            Logs::Files => {
                let mut command = Command::new(binary("moxd"));
                command.env_clear();
                command
            }
            Logs::Journal => journal::moxd(folder.path()),
        };
        let moxd = command
            .args(["serve", "--config"])
            .arg(&config)
            .env("NOTIFY_SOCKET", &told)
            .env("RUNTIME_DIRECTORY", folder.path().join("run"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(own_log)
            .spawn()
            .expect("moxd starts");
        let mut service = Self { moxd, folder, ip };
        let mut state = [0; 1_024];
        loop {
            let said = hears.recv(&mut state);
            let Ok(len) = said else {
                service.end();
                panic!("the server did not start: {said:?}\n{}", service.logs());
            };
            let text = String::from_utf8_lossy(state.get(..len).unwrap_or_default()).into_owned();
            if text.lines().any(|line| line == "READY=1") {
                return service;
            }
        }
    }

    /// The address of a service.
    #[must_use]
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.ip, port))
    }

    /// Everything of the server.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("mox")
    }

    /// Runs moxctl, with `input` on its standard input.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn moxctl(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut child = self.start_moxctl(args);
        let mut to = child.stdin.take().expect("it was piped");
        // It may have ended before it read.
        let _ = to.write_all(input.as_bytes());
        drop(to);
        child.wait_with_output().expect("it ends")
    }

    /// Starts moxctl, all its channels piped.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_moxctl(&self, args: &[&str]) -> Child {
        let mut command = Command::new(binary("moxctl"));
        command.arg("--control").arg(self.folder.path().join("run/control")).args(args);
        // Where the journal is ours its reader is, too.
        let path = std::env::var("PATH").unwrap_or_default();
        let own = self.folder.path().join(journal::PROGRAMS);
        command.env("PATH", format!("{}:{path}", own.display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("moxctl starts")
    }

    /// As [`Self::moxctl`]; what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn asks(&self, args: &[&str], input: &str) -> String {
        let output = self.moxctl(args, input);
        assert!(output.status.success(), "moxctl {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What moxd and its processes have logged, each into a file of its own.
    #[must_use]
    pub fn logs(&self) -> String {
        let own = std::fs::read_to_string(self.folder.path().join("moxd.log"));
        own.unwrap_or_default() + &logs(&self.data().join("log"))
    }

    fn end(&mut self) {
        // Fails only if it is gone.
        let _ = self.moxd.kill();
        let _ = self.moxd.wait();
    }
}

fn logs(folder: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else { return String::new() };
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    let all = texts.collect::<String>();
    let mut lines: Vec<&str> = all.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.logs();
            let tail: Vec<&str> = logs.lines().rev().take(100).collect();
            eprintln!("the last lines of the logs:");
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
        self.end();
    }
}
