//! Where the settings come from: `mox.toml`, or the arguments of `localserve`.

use std::{
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use config::{Level, Static};

use crate::ports::Missing;

/// The largest configuration file that is opened.
const MAX_FILE: u64 = 4 << 20;

/// A source that can be read again.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// `mox.toml`.
    File(PathBuf),
    /// A development server.
    Local {
        dir: PathBuf,
        ips: Vec<IpAddr>,
        offset: u16,
        uid_base: Option<u32>,
        level: Level,
        /// The addresses are our choice, so one that is missing is left out.
        chosen_by_us: bool,
    },
}

impl Source {
    /// Reads and checks the settings.
    pub(crate) fn load(&self) -> anyhow::Result<Static> {
        match self {
            Source::File(path) => load(path),
            Source::Local { dir, ips, offset, uid_base, level, .. } => {
                let mut settings = Static::local(dir.clone(), ips.clone(), *offset);
                settings.uid_base = *uid_base;
                settings.log.level = *level;
                Ok(settings)
            }
        }
    }

    /// What to do about addresses this machine does not have.
    pub(crate) fn missing(&self) -> Missing {
        match self {
            Source::Local { chosen_by_us: true, .. } => Missing::Skip,
            Source::Local { .. } | Source::File(_) => Missing::Refuse,
        }
    }
}

/// Whoever can write `mox.toml` decides what runs as root, so only root (or we) may.
fn load(path: &Path) -> anyhow::Result<Static> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("open {shown}"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let own = nix::unistd::geteuid().as_raw();
    let found = [
        (path, file.metadata().with_context(|| format!("look at {shown}"))?),
        (folder, folder.metadata().with_context(|| format!("look at {}", folder.display()))?),
    ];
    for (path, found) in &found {
        let shown = path.display();
        if found.uid() != 0 && found.uid() != own {
            bail!(
                "{shown} belongs to uid {}, who could change it; mend it with: chown root {shown}",
                found.uid()
            );
        }
        // A folder like /tmp, where only owners may replace files, is safe enough.
        if found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0 {
            bail!("{shown} can be written by others; mend it with: chmod go-w {shown}");
        }
    }
    if found[0].1.len() > MAX_FILE {
        bail!("{shown} is larger than {MAX_FILE} octets");
    }
    let text = std::io::read_to_string(file).with_context(|| format!("read {shown}"))?;
    Static::parse(&text, &shown.to_string()).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_could_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mox.toml");
        let text = "hostname = \"a.example\"\n[listener.x]\nips = [\"127.0.0.1\"]\nsmtp = {}\n";
        std::fs::write(&path, text).unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o644);
        assert_eq!(load(&path).unwrap().hostname.as_ascii(), "a.example");
        mode(0o664);
        assert!(load(&path).unwrap_err().to_string().contains("chmod go-w"));
        mode(0o644);
        std::fs::write(&path, "hostnam = 1\n").unwrap();
        let refused = load(&path).unwrap_err().to_string();
        assert!(refused.contains("mox.toml:1:1") && refused.lines().count() > 1, "{refused}");
    }
}
