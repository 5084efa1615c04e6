//! `moxd localserve` as a command: what it refuses, what it leaves behind, what can be done with that.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mox_tests::{
    client::Imap,
    needs_root,
    tree::{As, Options, PORT_OFFSET, Tree, binary, own_address},
};

/// Runs it to its end.
fn localserve(folder: &Path, ip: Ipv4Addr, who: As, more: &[&str]) -> Output {
    let mut command = Command::new(binary("moxd"));
    command.arg("localserve").arg("--dir").arg(folder).args(["--ip", &ip.to_string()]);
    command.args(["--port-offset", &PORT_OFFSET.to_string()]).args(more);
    if let As::Root { uid_base } = who {
        command.args(["--uid-base", &uid_base.to_string()]);
    }
    command.env_clear().current_dir("/").stdin(Stdio::null()).output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn a_folder_whose_parent_the_processes_cannot_pass_is_refused_with_what_mends_it() {
    if !needs_root("have the processes be others than ourselves") {
        return;
    }
    // As mktemp(1) makes it: for its owner alone.
    let parent = tempfile::tempdir().unwrap();
    std::fs::set_permissions(parent.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let folder = parent.path().join("mox");
    let refused = localserve(&folder, own_address(), As::whoever(), &[]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    let mend = format!("chmod o+x {}", parent.path().display());
    assert!(said.contains("cannot pass") && said.contains(&mend), "{said}");
    assert!(!folder.exists(), "nothing is made that cannot be used");
}

#[test]
fn what_init_only_makes_is_there_and_serves() {
    let parent = tempfile::tempdir().unwrap();
    std::fs::set_permissions(parent.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let folder = parent.path().join("mox");
    let (ip, who) = (own_address(), As::whoever());
    // Twice: what is there is kept.
    let mut pepper = None;
    for _ in 0..2 {
        let done = localserve(&folder, ip, who, &["--init-only"]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert_eq!(
            text(&done.stdout),
            format!(
                "Keys and account are made in {}; nothing runs now.\n  \
                 account     mox@localhost, password moxmoxmox\n",
                folder.display()
            )
        );
        let domains = std::fs::read_to_string(folder.join("directory/domains.toml")).unwrap();
        assert!(domains.contains("localhost"), "{domains}");
        let now = std::fs::read(folder.join("keys/pepper")).unwrap();
        assert!(!now.is_empty() && pepper.replace(now.clone()).is_none_or(|before| before == now));
        let nobody = std::os::unix::net::UnixStream::connect(folder.join("run/control/moxd"));
        assert!(nobody.is_err(), "nothing runs now");
    }
    let tree = Tree::with(Options { who, folder: Some(folder), ..Options::default() });
    let mut imap = Imap::log_in(tree.address(143), "mox@localhost", "moxmoxmox").unwrap();
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
}
