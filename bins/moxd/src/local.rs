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
                on_whole: &|_| {},
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
                ips,
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
                on_whole: &|ports| {
                    let said = what_there_is(&settings, &dir, &ports.addresses(), init_only);
                    debug_assert!(said.is_some(), "a development server's settings are complete");
                    print!("{}", said.unwrap_or_default());
                },
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

/// What there is and how to reach it: said when everything serves.
fn what_there_is(settings: &Static, dir: &Path, ips: &[IpAddr], ends: bool) -> Option<String> {
    let services = &settings.listeners.values().next()?.services;
    let port = |kind| services.get(&kind).map(|service| service.port);
    let local = settings.local.as_ref()?;
    let account = format!("  account     {}, password {}\n", local.address, local.password);
    let dir_shown = dir.display();
    if ends {
        let again = format!("Keys and account are made in {dir_shown}; nothing runs now.\n");
        return Some(again + &account);
    }
    let shown: Vec<String> = ips.iter().map(ToString::to_string).collect();
    let url = |kind, scheme| {
        let host = match ips.first()? {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Some(format!("{scheme}://{host}:{}", port(kind)?))
    };
    let (imap, imaps) = (port(Kind::Imap)?, port(Kind::Imaps)?);
    let (submission, submissions) = (port(Kind::Submission)?, port(Kind::Submissions)?);
    Some(format!(
        "mox runs in {dir_shown} and serves on {shown}:\n  \
           IMAP        {imap} (STARTTLS), {imaps} (TLS)\n  \
           submission  {submission} (STARTTLS), {submissions} (TLS)\n  \
           SMTP        {smtp}\n  \
           web         {http}/ and {https}/\n  \
           metrics     {metrics}/metrics\n\
         {account}  \
           control     moxctl --control {control} status\n\
         End it with Ctrl-C.\n",
        shown = shown.join(" and "),
        smtp = port(Kind::Smtp)?,
        http = url(Kind::Http, "http")?,
        https = url(Kind::Https, "https")?,
        metrics = url(Kind::Metrics, "http")?,
        control = dir.join("run/control").display(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_true() {
        let dir = Path::new("/tmp/there");
        let ips: Vec<IpAddr> = ["127.77.1.9", "::1"].map(|ip| ip.parse().unwrap()).into();
        let settings = Static::local(dir.to_owned(), ips.clone(), 1000);
        let said = what_there_is(&settings, dir, &ips, false).unwrap();
        for part in [
            "mox runs in /tmp/there and serves on 127.77.1.9 and ::1:\n  IMAP        1143",
            "  web         http://127.77.1.9:1080/ and https://127.77.1.9:1443/\n",
            "  account     mox@localhost, password moxmoxmox\n",
            "  control     moxctl --control /tmp/there/run/control status\n",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("http://localhost") && !said.contains("admin"), "{said}");
        let said = what_there_is(&settings, dir, &ips[1..], false).unwrap();
        assert!(said.contains("http://[::1]:1081/metrics"), "{said}");
        let said = what_there_is(&settings, dir, &ips, true).unwrap();
        assert!(said.contains("nothing runs now") && !said.contains("Ctrl-C"), "{said}");
    }
}
