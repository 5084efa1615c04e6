//! From the command line to the run: `serve`, and `localserve` with what it prints.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::bail;
use config::{Kind, Log, Static};

use crate::{
    args::{Args, Command},
    source::Source,
    supervise::{Run, run},
};

/// Does what was asked, to its end.
pub(crate) fn dispatch(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Serve { config } => {
            let source = Source::File(config);
            let settings = source.load()?;
            let run_folder = run_folder(&settings.data_dir);
            daemon::init_logging("moxd", settings.log, None);
            run(&Run {
                source,
                run_folder: &run_folder,
                development: false,
                init_only: false,
                on_whole: &|| {},
            })
        }
        Command::Localserve { dir, ips, port_offset, init_only, uid_base, log_level } => {
            let dir = std::path::absolute(dir.map_or_else(default_dir, Ok)?)?;
            let chosen_by_us = ips.is_empty();
            let loopback = || vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            let ips = if chosen_by_us { loopback() } else { ips };
            daemon::init_logging("moxd", Log { level: log_level, ..Log::default() }, None);
            let source = Source::Local {
                dir: dir.clone(),
                ips: ips.clone(),
                offset: port_offset,
                uid_base,
                level: log_level,
                chosen_by_us,
            };
            let settings = source.load()?;
            run(&Run {
                source,
                run_folder: &dir.join("run"),
                development: true,
                init_only,
                on_whole: &|| tell(&settings, &dir, &ips),
            })
        }
    }
}

/// Where a development server keeps everything, if nobody says otherwise.
fn default_dir() -> anyhow::Result<PathBuf> {
    const NAME: &str = "mox-local";
    if nix::unistd::geteuid().is_root() {
        // Not root's home: the processes could not pass it.
        return Ok(Path::new("/var/lib").join(NAME));
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if let Some(data) = absolute("XDG_DATA_HOME") {
        return Ok(data.join(NAME));
    }
    match absolute("HOME") {
        Some(home) => Ok(home.join(".local/share").join(NAME)),
        None => bail!("neither HOME nor XDG_DATA_HOME is set; say where with --dir"),
    }
}

/// Where a server keeps its control sockets: in the folder systemd has made for it (systemd.exec(5),
/// `RuntimeDirectory=`), or where that would be.
fn run_folder(data: &Path) -> PathBuf {
    let given = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
    match given.filter(|folder| folder.is_absolute()) {
        Some(folder) => folder,
        None if nix::unistd::geteuid().is_root() => PathBuf::from("/run/mox"),
        None => data.join("run"),
    }
}

/// What to connect to.
fn tell(settings: &Static, dir: &Path, ips: &[IpAddr]) {
    let said = (|| {
        let services = &settings.listeners.values().next()?.services;
        let port = |kind| services.get(&kind).map(|service| service.port);
        let local = settings.local.as_ref()?;
        let host = match ips.first()? {
            ip if ip.is_loopback() => "localhost".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        println!("mox runs in {} and serves on {host}:", dir.display());
        println!("  IMAP        {} (STARTTLS), {} (TLS)", port(Kind::Imap)?, port(Kind::Imaps)?);
        println!(
            "  submission  {} (STARTTLS), {} (TLS)",
            port(Kind::Submission)?,
            port(Kind::Submissions)?
        );
        println!("  SMTP        {}", port(Kind::Smtp)?);
        println!(
            "  web         http://{host}:{}/ and https://{host}:{}/",
            port(Kind::Http)?,
            port(Kind::Https)?
        );
        println!("  admin       http://{host}:{}/", port(Kind::Admin)?);
        println!("  metrics     http://{host}:{}/metrics", port(Kind::Metrics)?);
        println!("  account     {}, password {}", local.address, local.password);
        println!("  admin       password {}", local.admin_password);
        println!("End it with Ctrl-C.");
        Some(())
    })();
    debug_assert!(said.is_some(), "the settings of a development server are complete");
}
