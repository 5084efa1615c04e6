//! A Dovecot with its settings and mail in a temporary folder, on an address of 127/8: another reading
//! of the same messages. It needs no root.

use crate::programs::{program, said, succeeds};
use mox_tests::{client::Imap, tree::wait_until};
use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    time::Duration,
};

const USER: &str = "peer";
const PASSWORD: &str = "secret";
const PORT: u16 = 20_143;

/// A running one; ended when dropped.
pub(crate) struct Dovecot {
    folder: tempfile::TempDir,
    ip: Ipv4Addr,
}

impl Dovecot {
    /// The programs it needs.
    pub(crate) const NEEDS: [&'static str; 2] = ["dovecot", "/usr/lib/dovecot/imap"];

    pub(crate) fn start(ip: Ipv4Addr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let it = Self { folder, ip };
        let id = |args: &[&str]| succeeds(program("id").args(args)).trim().to_owned();
        let root = rustix::process::geteuid().is_root();
        let me = (id(&["-un"]), id(&["-gn"]));
        let (user, group, mail, login) = if root {
            ("dovecot", "dovecot", ("nobody", "nogroup"), "dovenull")
        } else {
            (me.0.as_str(), me.1.as_str(), (me.0.as_str(), me.1.as_str()), me.0.as_str())
        };
        std::fs::create_dir(it.path("mail")).unwrap();
        if root {
            let number = |what| id(&[what, mail.0]).parse().ok();
            chown(it.path("mail"), number("-u"), number("-g")).unwrap();
        }
        let at = |name: &str| it.path(name).display().to_string();
        let settings = format!(
            "base_dir = {run}\nstate_dir = {run}\nlog_path = {log}\ninstance_name = interop\n\
             protocols = imap\nlisten = {ip}\nssl = no\ndisable_plaintext_auth = no\n\
             auth_mechanisms = plain login\nfirst_valid_uid = 1\n\
             default_internal_user = {user}\ndefault_internal_group = {group}\n\
             default_login_user = {login}\nmail_uid = {}\nmail_gid = {}\n\
             mail_location = maildir:{mail}\nmail_home = {mail}\n\
             passdb {{\n driver = static\n args = password={PASSWORD}\n}}\n\
             userdb {{\n driver = static\n args = uid={} gid={} home={mail}\n}}\n\
             service imap-login {{\n chroot =\n inet_listener imap {{\n  port = {PORT}\n }}\n\
             inet_listener imaps {{\n  port = 0\n }}\n}}\n\
             service anvil {{\n chroot =\n}}\nservice stats {{\n chroot =\n}}\n",
            mail.0,
            mail.1,
            mail.0,
            mail.1,
            run = at("run"),
            log = at("log"),
            mail = at("mail"),
        );
        std::fs::create_dir(it.path("run")).unwrap();
        std::fs::write(it.path("dovecot.conf"), settings).unwrap();
        // Started as a daemon it keeps what it inherits, pipes too.
        let said = std::fs::File::create(it.path("said")).unwrap();
        let also = said.try_clone().unwrap();
        let started = it.command(&[]).stdout(said).stderr(also).status().unwrap().success();
        assert!(started, "{}", std::fs::read_to_string(it.path("said")).unwrap());
        let up = || std::net::TcpStream::connect(it.address()).is_ok();
        assert!(wait_until(Duration::from_secs(20), up), "{}", it.log());
        it
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = program("dovecot");
        command.arg("-c").arg(self.path("dovecot.conf")).args(args);
        command
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((self.ip, PORT))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A session of its only user.
    pub(crate) fn log_in(&self) -> Imap {
        Imap::log_in(self.address(), USER, PASSWORD)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // It must be gone before its folder is.
        let _ = said(&mut self.command(&["stop"]));
    }
}
