//! The command line.

use std::{net::IpAddr, path::PathBuf};

use clap::{Parser, Subcommand};
use config::Level;

/// moxd: the supervisor of mox, a mail server of small processes that do not trust each other.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server that `mox.toml` describes.
    Serve {
        /// The static configuration.
        #[arg(long, env = "MOX_CONFIG", default_value = "/etc/mox/mox.toml")]
        config: PathBuf,
    },
    /// Run a development server on this machine alone: one account, no network needed.
    Localserve {
        /// Where it keeps everything; $XDG_DATA_HOME/mox-local, as root /var/lib/mox-local.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Addresses to listen on instead of 127.0.0.1 and ::1.
        #[arg(long = "ip")]
        ips: Vec<IpAddr>,
        /// What is added to the well-known port numbers.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(0..=64_000))]
        port_offset: u16,
        /// Make keys and account, then end.
        #[arg(long)]
        init_only: bool,
        /// As root: the first of the numeric uids of the processes, where _mox-ROLE do not exist.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1000..=4_294_900_000))]
        uid_base: Option<u32>,
        /// How much is logged: error, warn, info, debug, trace.
        #[arg(long, default_value = "info", value_parser = level)]
        log_level: Level,
    },
}

fn level(text: &str) -> Result<Level, String> {
    let found = config::LEVELS.iter().find(|(name, _)| *name == text);
    found.map(|(_, level)| *level).ok_or_else(|| "error, warn, info, debug or trace".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }
}
