//! Whom TLS towards other servers believes.

use anyhow::Context as _;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Loads the certificate authorities. Opens files: only before the sandbox closes.
///
/// # Errors
/// A file that was named and cannot be read, or holds no certificate.
pub fn load(settings: &config::Authorities) -> anyhow::Result<RootCertStore> {
    let mut roots =
        if settings.use_system_cas { net::system_roots() } else { RootCertStore::empty() };
    for path in &settings.extra_ca_files {
        let shown = path.display();
        let found: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .with_context(|| format!("{shown}: not a file of PEM certificates"))?;
        let (added, _) = roots.add_parsable_certificates(found);
        anyhow::ensure!(added > 0, "{shown}: no certificate in it");
    }
    Ok(roots)
}
