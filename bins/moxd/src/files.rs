//! Files of the administrator that are opened here and read by the process they are for.

use std::{
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use config::{Certificate, Static};
use daemon::supervision::Gift;

/// Certificate and key of a listener, open.
pub(crate) struct Pair {
    pub(crate) listener: String,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) files: [(Gift, OwnedFd); 2],
}

/// Certificates and keys, for keyholder: root opens them wherever they are, and reads nothing.
pub(crate) fn pairs(settings: &Static) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for (name, listener) in &settings.listeners {
        let Some(tls) = &listener.tls else { continue };
        let Certificate::Files { cert, key } = &tls.certificate else { continue };
        let open = |kind: &str, path: &Path| {
            let file = File::open(path);
            let file = file.with_context(|| format!("open {} of {name}", path.display()))?;
            anyhow::Ok((Gift::File(format!("tls/{name}/{kind}")), OwnedFd::from(file)))
        };
        pairs.push(Pair {
            listener: name.clone(),
            files: [open("cert", cert)?, open("key", key)?],
            cert: cert.clone(),
            key: key.clone(),
        });
    }
    Ok(pairs)
}

/// All of them.
pub(crate) fn of_keyholder(settings: &Static) -> anyhow::Result<Vec<(Gift, OwnedFd)>> {
    Ok(pairs(settings)?.into_iter().flat_map(|pair| pair.files).collect())
}
