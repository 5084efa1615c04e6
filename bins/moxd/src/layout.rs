//! The folders: made with their owners and modes where they are missing, never mended where they
//! are wrong. Somebody else's folder made fit as root is how a path becomes a hole; so a wrong one
//! is refused, with the command that mends it.

use std::{
    fs::{DirBuilder, File},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use ipc::Role;

use crate::identity::{Identities, Identity};

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Layout {
    /// `data_dir`.
    pub(crate) data: PathBuf,
    /// Control sockets.
    pub(crate) control: PathBuf,
    /// Log files, where there is no journal.
    pub(crate) log: PathBuf,
    /// Held while we run: two supervisors over one folder would ruin it.
    _lock: File,
}

/// The folder of a role, if it owns one; its name below `data_dir`.
pub(crate) fn own_folder(role: Role) -> Option<&'static str> {
    match role {
        Role::Accountd => Some("accountd"),
        Role::Keyholder => Some("keys"),
        Role::QueueRunner => Some("queue"),
        Role::Resolver
        | Role::Parser
        | Role::Outbound
        | Role::ImapdSession
        | Role::ImapdFront
        | Role::SmtpdMx
        | Role::SmtpdSubmission
        | Role::HttpdWeb
        | Role::HttpdAdmin => None,
    }
}

impl Layout {
    /// Makes and checks all folders. `run` is where the control sockets' folder goes.
    pub(crate) fn prepare(
        data: &Path,
        run: &Path,
        identities: &Identities,
    ) -> anyhow::Result<Self> {
        make_parents(data)?;
        trusted_parents(data, identities.own.uid)?;
        searchable_parents(data, identities)?;
        let own = identities.own;
        // Roles must reach their folders in it, and need not list it.
        folder(data, own, 0o711)?;
        let lock = lock(&data.join("lock"))?;
        for role in Role::ALL {
            if let Some(name) = own_folder(role) {
                folder(&data.join(name), identities.of(role), 0o700)?;
            }
        }
        // The documented place of domains.toml is data_dir/directory/.
        let directory = data.join("directory");
        if directory.symlink_metadata().is_err() {
            std::os::unix::fs::symlink("accountd/directory", &directory)
                .with_context(|| format!("make {}", directory.display()))?;
        }
        let log = data.join("log");
        folder(&log, own, 0o700)?;
        folder(run, own, 0o755)?;
        let control = run.join("control");
        folder(&control, own, 0o755)?;
        Ok(Self { data: data.to_owned(), control, log, _lock: lock })
    }

    /// The folder of a role.
    pub(crate) fn own_folder(&self, role: Role) -> Option<PathBuf> {
        own_folder(role).map(|name| self.data.join(name))
    }
}

/// One folder: made if missing, refused if it is not as it must be.
fn folder(path: &Path, owner: Identity, mode: u32) -> anyhow::Result<()> {
    let shown = path.display();
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            // The umask has cut the mode.
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
                .with_context(|| format!("set the mode of {shown}"))?;
            std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))
                .with_context(|| format!("set the owner of {shown}"))?;
            return Ok(());
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("make the folder {shown}")),
    }
    let found = path.symlink_metadata().with_context(|| format!("look at {shown}"))?;
    if !found.is_dir() {
        bail!("{shown} is no folder; move it away");
    }
    if (found.uid(), found.gid()) != (owner.uid, owner.gid) {
        bail!(
            "{shown} belongs to {}:{}, not to {}:{}; mend it with: chown -R {}:{} {shown}",
            found.uid(),
            found.gid(),
            owner.uid,
            owner.gid,
            owner.uid,
            owner.gid
        );
    }
    let bits = found.mode() & 0o7777;
    if bits != mode {
        bail!("{shown} has mode {bits:04o}, not {mode:04o}; mend it with: chmod {mode:o} {shown}");
    }
    Ok(())
}

/// Makes the missing parents so that the roles can pass them, whatever the umask says.
fn make_parents(path: &Path) -> anyhow::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().skip(1).take_while(|parent| !parent.exists()).collect();
    for parent in missing.into_iter().rev() {
        let shown = parent.display();
        std::fs::create_dir(parent).with_context(|| format!("make the folder {shown}"))?;
        std::fs::set_permissions(parent, PermissionsExt::from_mode(0o755))
            .with_context(|| format!("set the mode of {shown}"))?;
    }
    Ok(())
}

/// Whoever owns a folder on the way can put another one in our place between two looks, and have
/// root change modes and owners there; so the way has to be root's, or ours.
fn trusted_parents(data: &Path, own: u32) -> anyhow::Result<()> {
    for parent in data.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        let shown = parent.display();
        // Of a link itself, too: its owner decides where it leads.
        let link = parent.symlink_metadata().with_context(|| format!("look at {shown}"))?;
        let found = parent.metadata().with_context(|| format!("look at {shown}"))?;
        for uid in [link.uid(), found.uid()] {
            if uid != 0 && uid != own {
                bail!(
                    "{shown}, on the way to {}, belongs to uid {uid}, who could put another \
                     folder in its place; choose another folder, or mend it with: chown root {shown}",
                    data.display()
                );
            }
        }
        // In a folder like /tmp only owners may replace what is theirs.
        if found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0 {
            bail!(
                "{shown}, on the way to {}, can be written by others; mend it with: \
                 chmod go-w {shown}",
                data.display()
            );
        }
    }
    Ok(())
}

/// A role reaches its own folder by its path, so its uid must be able to pass every parent.
fn searchable_parents(data: &Path, identities: &Identities) -> anyhow::Result<()> {
    if identities.without_root() {
        return Ok(());
    }
    for parent in data.ancestors().skip(1) {
        let found = parent.metadata().with_context(|| format!("look at {}", parent.display()))?;
        if found.mode() & 0o001 == 0 {
            let shown = parent.display();
            bail!(
                "the processes of mox cannot pass {shown} on the way to {}; mend it with: \
                 chmod o+x {shown}, or choose another folder",
                data.display()
            );
        }
    }
    Ok(())
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let shown = path.display();
    // Open for reading: held for as long as we live, one to be written to would keep an administrator
    // from making the disk read-only.
    let mut file = File::open(path);
    if file.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        file = File::create(path).and_then(|_| File::open(path));
    }
    let file = file.with_context(|| format!("open {shown}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("another moxd runs on this folder (it holds {shown})")
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {shown}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Identity {
        Identities::find(None).unwrap().own
    }

    #[test]
    fn made_once_then_only_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        folder(&path, own(), 0o711).unwrap();
        folder(&path, own(), 0o711).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        let refused = folder(&path, own(), 0o711).unwrap_err().to_string();
        assert!(refused.ends_with(&format!("mend it with: chmod 711 {}", path.display())));
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o777, "it was not touched");
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        assert!(folder(&dir.path().join("link"), own(), 0o777).is_err());
    }

    #[test]
    fn the_way_to_the_folder_is_ours() {
        let dir = tempfile::tempdir().unwrap();
        let way = dir.path().join("way");
        std::fs::create_dir(&way).unwrap();
        let check = |own: u32| trusted_parents(&way.join("data"), own);
        let mode = |mode| std::fs::set_permissions(&way, PermissionsExt::from_mode(mode)).unwrap();
        let uid = own().uid;
        mode(0o755);
        check(uid).unwrap();
        // As /tmp is, above us.
        mode(0o1777);
        check(uid).unwrap();
        mode(0o777);
        assert!(check(uid).unwrap_err().to_string().contains("chmod go-w"));
        mode(0o770);
        assert!(check(uid).is_err());
        mode(0o755);
        if uid == 0 {
            std::os::unix::fs::chown(&way, Some(65_534), None).unwrap();
            assert!(check(0).unwrap_err().to_string().contains("uid 65534"));
            check(65_534).unwrap();
            // A link of somebody else's, to a folder of ours.
            let link = dir.path().join("link");
            std::os::unix::fs::symlink("/usr", &link).unwrap();
            trusted_parents(&link.join("data"), 0).unwrap();
            std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
            assert!(trusted_parents(&link.join("data"), 0).is_err());
        } else {
            assert!(check(uid + 1).is_err());
        }
    }

    #[test]
    fn the_processes_can_pass_on_the_way_to_their_folders() {
        let dir = tempfile::tempdir().unwrap();
        let way = dir.path().join("way");
        std::fs::create_dir(&way).unwrap();
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        open(dir.path(), 0o711);
        let identities = Identities::find(Some(64_200)).unwrap();
        let check = || searchable_parents(&way.join("data"), &identities);
        open(&way, 0o700);
        if identities.without_root() {
            // All processes are ourselves.
            check().unwrap();
            return;
        }
        let refused = check().unwrap_err().to_string();
        let mend = format!("mend it with: chmod o+x {},", way.display());
        assert!(refused.contains(&mend), "{refused}");
        // To list it is not enough.
        open(&way, 0o744);
        assert!(check().is_err());
        open(&way, 0o711);
        check().unwrap();
    }

    #[test]
    fn one_supervisor_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(&dir.path().join("lock")).unwrap();
        assert!(lock(&dir.path().join("lock")).unwrap_err().to_string().contains("another moxd"));
        drop(held);
        lock(&dir.path().join("lock")).unwrap();
    }
}
