//! resolver: asks DNS for the other processes, and says how far an answer can be believed.
//!
//! Trust:   reads what name servers send; written on the assumption that it will be taken over.
//! Runs as: `_mox-resolver`; sockets to name servers, no file, no listener.
//! Holds:   the cache. Asked by accountd, queue-runner and outbound (the wiring table).
//! Never:   sees mail, a key, a password.
//! If it dies: restarted with back-off; what waits for an answer gets a temporary error.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use dns::{Mode, Settings, system_servers};
use ipc::Role;
use resolver::Grants;
use std::{fs, net::SocketAddr, process::ExitCode};

/// The system's name servers, asked when mox.toml names none.
const RESOLV_CONF: &str = "/etc/resolv.conf";

fn main() -> ExitCode {
    daemon::start_prepared(
        &[Role::Resolver],
        |_| &sandbox::profiles::RESOLVER,
        |_, slice| servers(slice),
        |inherited, settings| async move {
            let run = resolver::run(Grants { settings, clients: inherited.acceptors });
            tokio::select! {
                biased;
                // Nothing here is worth waiting for: a question without an answer is asked again.
                _ = inherited.stop.draining() => Ok(()),
                ended = run => ended.context("resolver"),
            }
        },
    )
}

/// Reads what to ask before the sandbox closes.
fn servers(slice: &[u8]) -> anyhow::Result<Settings> {
    let slice: config::slice::Resolver = serde_json::from_slice(slice).context("slice")?;
    let mode = match slice.mode {
        config::DnsMode::Validate => Mode::Validate,
        config::DnsMode::TrustAd => Mode::TrustAd,
    };
    let servers: Vec<SocketAddr> = if slice.servers.is_empty() {
        // A machine without the file has no network: questions then fail as temporary.
        let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        let found = system_servers(&text);
        if found.is_empty() { vec![SocketAddr::from(([127, 0, 0, 1], 53))] } else { found }
    } else {
        slice.servers
    };
    Ok(Settings::new(&servers, mode))
}
