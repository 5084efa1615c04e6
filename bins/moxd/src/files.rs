//! Files of the administrator that are opened here and read by the process they are for.

use std::{fs::File, os::fd::OwnedFd};

use anyhow::Context as _;
use config::{Certificate, Static};
use daemon::supervision::Gift;

/// Certificates and keys, for keyholder: root opens them wherever they are, and reads nothing.
pub(crate) fn of_keyholder(settings: &Static) -> anyhow::Result<Vec<(Gift, OwnedFd)>> {
    let mut files = Vec::new();
    for (name, listener) in &settings.listeners {
        let Some(tls) = &listener.tls else { continue };
        let Certificate::Files { cert, key } = &tls.certificate else { continue };
        for (kind, path) in [("cert", cert), ("key", key)] {
            let file = File::open(path);
            let file = file.with_context(|| format!("open {} of {name}", path.display()))?;
            files.push((Gift::File(format!("tls/{name}/{kind}")), file.into()));
        }
    }
    Ok(files)
}
