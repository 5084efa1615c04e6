//! `moxctl confine test`: twins of each role try what is forbidden, on this machine.

use std::{
    path::{Path, PathBuf},
    thread,
};

use ipc::Role;
use sandbox::trial::{Targets, Trial};
use tokio::sync::oneshot;

use crate::{control::Answer, layout::own_folder, tree::Ground};

/// The longest path that fits a socket's address. Beyond it the twin would fail for another reason
/// than a wall, so nothing is tried.
const LONGEST_ADDRESS: usize = 107;

/// A socket that no role may connect to: accountd's for the administrator.
fn peer_socket(ground: &Ground) -> Option<String> {
    let path = ground.layout.control.join(Role::Accountd.name());
    let path = path.into_os_string().into_string().ok()?;
    Some(path).filter(|path| path.len() <= LONGEST_ADDRESS)
}

/// The mail of an account; while there is none, the file that accountd keeps for all of them. The
/// table says which it was.
fn account_file(accountd: &Path) -> PathBuf {
    let accounts = std::fs::read_dir(accountd.join("accounts")).into_iter().flatten().flatten();
    let mail = accounts.map(|account| account.path().join("index.db"));
    mail.filter(|file| file.is_file()).min().unwrap_or_else(|| accountd.join("accountd.db"))
}

/// Starts the trial of one role or all. It blocks for each twin, so it has a thread of its own,
/// which outlives the twins: they die with the thread that started them.
pub(crate) fn begin(ground: &Ground, role: Option<Role>, answer: oneshot::Sender<Answer>) {
    let trials: Vec<Trial> = Role::ALL
        .into_iter()
        .filter(|tried| role.is_none_or(|role| role == *tried))
        .filter_map(|role| {
            Some(Trial {
                profile: sandbox::profiles::of_role(role.name())?,
                binary: ground.binaries.path(role),
                identity: ground.identities.given(role).map(|who| (who.uid, who.gid)),
                own_folder: ground.layout.own_folder(role),
                read_only: Vec::new(),
            })
        })
        .collect();
    let path = |role: Role, file: &str| {
        let folder = own_folder(role).map(|name| ground.layout.data.join(name))?;
        folder.join(file).into_os_string().into_string().ok()
    };
    let account_file = account_file(&ground.layout.data.join("accountd"));
    let targets = Targets {
        account_file: account_file.into_os_string().into_string().ok(),
        key_folder: path(Role::Keyholder, ""),
        peer_socket: peer_socket(ground),
        sibling: None,
    };
    let begun = thread::Builder::new().name("trial".to_owned()).spawn(move || {
        let rows = sandbox::trial::table(&trials, &targets).map_err(|error| error.to_string());
        let lines = rows.and_then(|rows| {
            let lines = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>();
            lines.map_err(|error| error.to_string())
        });
        let _ = answer.send(lines);
    });
    if let Err(error) = begun {
        // The client sees its connection end; why, is here.
        tracing::error!(%error, "the trial was not begun");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accounts_own_mail_is_tried_where_there_is_one() {
        let accountd = tempfile::tempdir().unwrap();
        let at = |name: &str| accountd.path().join(name);
        assert_eq!(account_file(accountd.path()), at("accountd.db"));
        // One that is just being made has no mail yet.
        std::fs::create_dir_all(at("accounts/a")).unwrap();
        assert_eq!(account_file(accountd.path()), at("accountd.db"));
        std::fs::create_dir_all(at("accounts/b")).unwrap();
        std::fs::write(at("accounts/b/index.db"), b"").unwrap();
        assert_eq!(account_file(accountd.path()), at("accounts/b/index.db"));
    }
}
