//! `mox.toml`: what is read once at start, by the supervisor alone.
//!
//! Everything that an administrator changes while the server runs (domains, accounts, aliases) is in
//! `domains.toml`, which accountd owns. Nothing here is a secret: secrets are files named here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use types::Domain;

use crate::{
    layer::Layer,
    limits::Limits,
    listener::{self, Certificate, Kind, Listener, Service, Tls},
    problem::Problem,
    read::{Section, Source},
};

/// The whole of `mox.toml`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Static {
    /// The name of this host in SMTP.
    pub hostname: Domain,
    /// Where everything durable is.
    pub data_dir: PathBuf,
    /// The first of the numeric uids, where the users `_mox-ROLE` do not exist.
    pub uid_base: Option<u32>,
    /// Commands are parsed strictly: for trying out clients.
    pub pedantic: bool,
    /// `[log]`
    pub log: Log,
    /// `[dns]`
    pub dns: Dns,
    /// `[dns] check_senders`: whether DNS is asked if a stranger's domain takes mail.
    pub check_senders: bool,
    /// `[sandbox] require`: layers without which no process starts.
    pub require: BTreeSet<Layer>,
    /// `[tls]`
    pub authorities: Authorities,
    /// `[postmaster]`
    pub postmaster: Option<Postmaster>,
    /// `[queue]`
    pub queue: Queue,
    /// `[limits]`
    pub limits: Limits,
    /// `[listener.NAME]`
    pub listeners: BTreeMap<String, Listener>,
    /// Processes that share the IMAP sessions: one per CPU, 2 to 4, unless `imap_sessions` says
    /// otherwise.
    pub imap_sessions: u16,
    /// Processes that read messages: one per CPU, at least 2, unless `parsers` says otherwise.
    pub parsers: u16,
    /// Set by `localserve` alone; no key of the file.
    pub local: Option<Local>,
    /// Users who may use the control sockets: set by the supervisor, which alone may look them up;
    /// no key of the file.
    pub control_uids: Vec<u32>,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Log {
    /// The shape of a line.
    pub format: Format,
    /// What is written.
    pub level: Level,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What needs a person.
    Error,
    /// What may come to need one.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// Why it happened.
    Debug,
    /// Every step.
    Trace,
}

/// The names of [`Level`] in files and orders.
pub const LEVELS: [(&str, Level); 5] = [
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];

/// Where DNS questions go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dns {
    /// Resolvers; those of resolv.conf if empty.
    pub servers: Vec<SocketAddr>,
    /// Who validates DNSSEC.
    pub mode: DnsMode,
}

/// Who validates DNSSEC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsMode {
    /// We do.
    #[default]
    Validate,
    /// The AD bit of the servers is believed (RFC 6840 §5.8): they must be on a trusted path.
    TrustAd,
}

/// Whom outgoing TLS believes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorities {
    /// PEM files of further authorities.
    pub extra_ca_files: Vec<PathBuf>,
    /// Whether the system's are believed.
    pub use_system_cas: bool,
}

/// Where mail for postmaster goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postmaster {
    /// The account's name.
    pub account: String,
    /// The mailbox in it.
    pub mailbox: String,
}

/// How outgoing mail is retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Waits between the attempts; after the last one the message is bounced.
    pub retry: Vec<Duration>,
    /// After how many failed attempts the sender is told of the delay; 0 is never.
    pub delay_notice_after: u32,
    /// Deliveries at once.
    pub concurrent: u32,
    /// Deliveries at once to one domain.
    pub concurrent_per_domain: u32,
}

impl Default for Authorities {
    fn default() -> Self {
        Self { extra_ca_files: Vec::new(), use_system_cas: true }
    }
}

impl Default for Queue {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        // 7.5 minutes doubled up to 16 hours, then every 16 hours to the 5 days of RFC 5321
        // §4.5.4.1.
        let mut retry: Vec<Duration> = (0..8).map(|n| Duration::from_secs(450 << n)).collect();
        retry.extend([Duration::from_secs(16 * HOUR); 5]);
        Self { retry, delay_notice_after: 5, concurrent: 50, concurrent_per_domain: 2 }
    }
}

/// A development server of one user: what `localserve` adds to a file of defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// The account's name.
    pub account: String,
    /// Its address.
    pub address: String,
    /// Its password.
    pub password: String,
    /// The administrators' password.
    pub admin_password: String,
}

impl Static {
    /// Reads the text of `mox.toml`. `file` is its name in messages; all faults come together.
    ///
    /// # Errors
    /// Every fault of the file, in its order.
    pub fn parse(text: &str, file: &str) -> Result<Static, Vec<Problem>> {
        let source = Source::new(file, text);
        let document = source.document();
        let read = document.as_ref().and_then(|document| {
            let root = Section::root(&source, document);
            Self::read(&root)
        });
        drop(document);
        let problems = source.problems();
        match read {
            Some(read) if problems.is_empty() => Ok(read),
            Some(_) | None => Err(problems),
        }
    }

    fn read(root: &Section<'_>) -> Option<Self> {
        let hostname = root.required("hostname");
        let log = root.section("log");
        let dns = root.section("dns");
        let sandbox = root.section("sandbox");
        let tls = root.section("tls");
        let listeners = root.section("listener");
        let queue = root.section("queue");
        let limits = root.section("limits");
        let postmaster = root.section("postmaster");
        let modes = [("validate", DnsMode::Validate), ("trust-ad", DnsMode::TrustAd)];
        let formats = [("text", Format::Text), ("logfmt", Format::Text), ("json", Format::Json)];
        let data_dir = root.parsed("data_dir").unwrap_or_else(|| PathBuf::from("/var/lib/mox"));
        if !data_dir.is_absolute() {
            root.fault_at("data_dir", "expected an absolute path");
        }
        let uid_base = root.count("uid_base", 0, 0..u32::MAX - UIDS);
        if uid_base != 0 && uid_base < 1000 {
            root.fault_at("uid_base", "uids below 1000 belong to the system");
        }
        let (imap_sessions, parsers) = (
            u16::try_from(root.count("imap_sessions", default_sessions(), 1..17)).unwrap_or(2),
            u16::try_from(root.count("parsers", default_parsers(), 2..65)).unwrap_or(2),
        );
        let read_listeners = listener::read_all(&listeners);
        if root.is_present() && read_listeners.is_empty() {
            root.fault("no [listener.NAME]: the server would serve nobody");
        }
        let check_senders = dns.flag("check_senders", true);
        let pedantic = root.flag("pedantic", false);
        let built = (
            Log {
                format: log.choice("format", &formats, Format::default()),
                level: log.choice("level", &LEVELS, Level::default()),
            },
            Dns {
                servers: dns.list("servers").unwrap_or_default(),
                mode: dns.choice("mode", &modes, DnsMode::default()),
            },
            sandbox.choices("require", &Layer::ALL).unwrap_or_else(|| vec![Layer::Seccomp]),
            Authorities {
                extra_ca_files: tls.list("extra_ca_files").unwrap_or_default(),
                use_system_cas: tls.flag("use_system_cas", true),
            },
            Queue::read(&queue),
            Limits::read(&limits),
            Postmaster::read(&postmaster),
        );
        let (log, dns, require, authorities, queue, limits, postmaster) = built;
        Some(Self {
            hostname: hostname?,
            data_dir,
            uid_base: (uid_base != 0).then_some(uid_base),
            pedantic,
            log,
            dns,
            check_senders,
            require: require.into_iter().collect(),
            authorities,
            postmaster,
            queue,
            limits,
            listeners: read_listeners,
            imap_sessions,
            parsers,
            local: None,
            control_uids: Vec::new(),
        })
    }

    /// The settings of a development server: everything on loopback, ports moved by `offset`.
    #[must_use]
    pub fn local(data_dir: PathBuf, ips: Vec<std::net::IpAddr>, offset: u16) -> Self {
        let localhost: Domain = "localhost".parse().expect("localhost is a domain name");
        let mut services: BTreeMap<Kind, Service> = BTreeMap::new();
        for kind in Kind::ALL {
            let mut service = Service::new(kind);
            let port = match kind {
                Kind::Metrics => 81,
                Kind::Admin => 82,
                Kind::Smtp
                | Kind::Submission
                | Kind::Submissions
                | Kind::Imap
                | Kind::Imaps
                | Kind::Http
                | Kind::Https => kind.default_port(),
            };
            service.port = port + offset;
            // A client under development may not speak TLS yet; the host is its own.
            service.require_tls = false;
            service.first_time_sender_delay = Duration::ZERO;
            if kind == Kind::Admin {
                service.tls = false;
            }
            services.insert(kind, service);
        }
        let listener = Listener {
            ips,
            nat_ips: Vec::new(),
            hostname: None,
            public: false,
            max_message_size: 100 << 20,
            tls: Some(Tls {
                certificate: Certificate::SelfSigned,
                client_auth: true,
                only_1_3: false,
            }),
            services,
        };
        Self {
            hostname: localhost,
            data_dir,
            uid_base: None,
            pedantic: false,
            log: Log::default(),
            dns: Dns::default(),
            // It works without a network, and its senders are made up.
            check_senders: false,
            require: BTreeSet::from([Layer::Seccomp]),
            authorities: Authorities::default(),
            postmaster: Some(Postmaster { account: "mox".into(), mailbox: "Postmaster".into() }),
            queue: Queue::default(),
            limits: Limits::default(),
            listeners: BTreeMap::from([("local".to_owned(), listener)]),
            imap_sessions: 2,
            parsers: 2,
            control_uids: Vec::new(),
            local: Some(Local {
                account: "mox".into(),
                address: "mox@localhost".into(),
                password: "moxmoxmox".into(),
                admin_password: "moxadmin".into(),
            }),
        }
    }
}

/// Uids taken from `uid_base` on: one per role, with room for roles to come.
pub const UIDS: u32 = 32;

fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(2, |n| u32::try_from(n.get()).unwrap_or(2))
}

fn default_sessions() -> u32 {
    cpus().clamp(2, 4)
}

fn default_parsers() -> u32 {
    cpus().clamp(2, 16)
}

impl Postmaster {
    fn read(at: &Section<'_>) -> Option<Self> {
        if !at.is_present() {
            return None;
        }
        // All that is read is read before anything is given up, or it would be unknown.
        let account = at.required("account");
        let mailbox = at.parsed("mailbox").unwrap_or_else(|| "Postmaster".to_owned());
        if let Err(why) = types::check_mailbox_name(&mailbox) {
            at.fault_at("mailbox", format!("not a mailbox name: {why}"));
        }
        Some(Self { account: account?, mailbox })
    }
}

impl Queue {
    fn read(at: &Section<'_>) -> Self {
        const MAX_ATTEMPTS: usize = 100;
        let default = Self::default();
        let retry = at.durations("retry").unwrap_or(default.retry);
        if retry.len() > MAX_ATTEMPTS {
            at.fault_at("retry", format!("more than {MAX_ATTEMPTS} attempts"));
        }
        if retry.iter().any(|wait| *wait < Duration::from_secs(1)) {
            at.fault_at("retry", "a wait below one second would flood the other side");
        }
        Self {
            retry,
            delay_notice_after: at.count("delay_notice_after", default.delay_notice_after, 0..101),
            concurrent: at.count("concurrent", default.concurrent, 1..1001),
            concurrent_per_domain: at.count(
                "concurrent_per_domain",
                default.concurrent_per_domain,
                1..101,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
        hostname = "mail.example.org"
        data_dir = "/srv/mox"
        [log]
        level = "debug"
        format = "json"
        [dns]
        servers = ["127.0.0.1:53"]
        [limits.gate]
        connections = [10, 20, 30]
        [listener.public]
        role = "public"
        ips = ["192.0.2.10", "2001:db8::10"]
        max_message_size = "50MiB"
        tls = { cert_file = "/etc/mox/cert.pem", key_file = "/etc/mox/key.pem" }
        smtp = { first_time_sender_delay = "1s", dnsbls = ["bl.example.net"] }
        submissions = {}
        imaps = { port = 1993 }
        [listener.internal]
        ips = ["127.0.0.1"]
        hostname = "localhost"
        metrics = {}
        admin = { tls = false, port = 8080 }
    "#;

    fn faults(text: &str) -> Vec<String> {
        let problems = Static::parse(text, "mox.toml").unwrap_err();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_file() {
        let read = Static::parse(SAMPLE, "mox.toml").unwrap();
        assert_eq!(read.data_dir, PathBuf::from("/srv/mox"));
        assert_eq!(read.log, Log { format: Format::Json, level: Level::Debug });
        assert_eq!(read.limits.gate.connections, [10, 20, 30]);
        let strict = Static::parse(&format!("pedantic = true\n{SAMPLE}"), "mox.toml").unwrap();
        assert!(!read.pedantic && crate::slice::Smtpd::of(&strict, "smtpd-mx").pedantic);
        let public = &read.listeners["public"];
        assert!(public.public);
        assert_eq!(public.max_message_size, 50 << 20);
        assert_eq!(public.services[&Kind::Imaps].port, 1993);
        assert_eq!(public.services[&Kind::Submissions].port, 465);
        assert_eq!(public.sockets().count(), 6);
        assert_eq!(read.listeners["internal"].sockets().count(), 2);
        assert_eq!(read.require, BTreeSet::from([Layer::Seccomp]));
    }

    #[test]
    fn the_packaged_file_is_understood() {
        let packaged = include_str!("../../../packaging/mox.toml");
        let read = Static::parse(packaged, "packaging/mox.toml").unwrap();
        assert_eq!(read.limits, Limits::default(), "it shows the defaults");
        let commented = packaged.replace("# retry", "retry").replace("# imap", "imap");
        let read = Static::parse(&commented, "packaging/mox.toml").unwrap();
        assert_eq!(read.queue, Queue::default());
    }

    #[test]
    fn all_faults_come_together_with_their_places() {
        let text = "hostnme = \"a.example\"\n[log]\nlevel = \"loud\"\n[listener.x]\nips = [\"1.2.3\"]\n\
                    [listener.x.smtp]\nport = 0\nstartls = true\n";
        let faults = faults(text);
        let has = |start: &str| faults.iter().any(|fault| fault.starts_with(start));
        assert!(
            has("mox.toml:1:1: unknown key \"hostnme\" (did you mean \"hostname\"?)"),
            "{faults:#?}"
        );
        assert!(has("mox.toml:1:1: hostname is missing"), "{faults:#?}");
        assert!(has("mox.toml:3:9: log.level: \"loud\" is none of"), "{faults:#?}");
        assert!(has("mox.toml:5:8: listener.x.ips: \"1.2.3\""), "{faults:#?}");
        assert!(
            has("mox.toml:7:8: listener.x.smtp.port: expected a number from 1 to 65535"),
            "{faults:#?}"
        );
        assert!(
            has(
                "mox.toml:8:1: unknown key \"listener.x.smtp.startls\" (did you mean \"starttls\"?)"
            ),
            "{faults:#?}"
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let head = "hostname = \"a.example\"\n[listener.x]\nips = [\"127.0.0.1\"]\n";
        for (text, wanted) in [
            ("imaps = {}", "imaps needs TLS"),
            ("", "2:1: no service is on"),
            ("smtp = {}\nhttp = { port = 25 }", "smtp and http share port 25"),
            ("smtp = {}\n[listener.y]\nips = [\"127.0.0.1\"]\nsmtp = {}", "both bind 127.0.0.1:25"),
            ("tls = { cert_file = \"c\" }", "tls needs cert_file and key_file"),
            ("tls = { self_signed = true }\nimap = { starttls = false }", "needs starttls = true"),
            ("smtp = {}\n[limits.keys]\ntls_refuse = 100", "must not be below tls_alarm"),
            ("smtp = {}\n[limits.keys]\npepper_refuse = 9", "must not be below pepper_alarm"),
            ("[limits.imap]\nidle = \"0\"", "limits.imap.idle: expected a duration from 1s"),
            ("[limits.smtp]\ndata = \"5w\"", "limits.smtp.data: expected a duration"),
            ("max_message_size = \"1B\"", "max_message_size: expected a size from 64KiB"),
            ("[limits.imap]\nappend = \"2GiB\"", "limits.imap.append: expected a size"),
        ] {
            let faults = faults(&format!("{head}{text}"));
            assert!(faults.iter().any(|fault| fault.contains(wanted)), "{text}: {faults:#?}");
        }
    }

    #[test]
    fn syntax_faults_come_alone() {
        let faults = faults("hostname = \nfoo = [1,\n");
        assert!(faults[0].starts_with("mox.toml:1:"), "{faults:#?}");
        assert!(!faults.iter().any(|fault| fault.contains("unknown key")), "{faults:#?}");
        assert!(!Static::parse("", "m").unwrap_err().is_empty());
        assert!(!Static::parse(&"#".repeat(5 << 20), "m").unwrap_err().is_empty());
    }

    #[test]
    fn every_role_gets_its_own_services_only() {
        let read = Static::parse(SAMPLE, "mox.toml").unwrap();
        let mx: crate::slice::Smtpd =
            serde_json::from_slice(&read.slice("smtpd-mx").unwrap()).unwrap();
        let names: Vec<_> = mx.listeners.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["public/smtp"]);
        assert!(mx.listeners[0].starttls && !mx.listeners[0].client_auth);
        let admin: crate::slice::Httpd =
            serde_json::from_slice(&read.slice("httpd-admin").unwrap()).unwrap();
        assert_eq!(admin.listeners.len(), 2);
        let keys: crate::slice::Keyholder =
            serde_json::from_slice(&read.slice("keyholder").unwrap()).unwrap();
        assert_eq!(keys.certificates[0].name, "public");
        assert_eq!(keys.certificates[0].roles, ["smtpd-mx", "smtpd-submission", "imapd-front"]);
        let out: crate::slice::Outbound =
            serde_json::from_slice(&read.slice("outbound").unwrap()).unwrap();
        assert_eq!(out.source.len(), 2);
        assert_eq!(read.slice("nobody"), None);
    }

    #[test]
    fn the_development_server_needs_no_file() {
        let local = Static::local("/tmp/x".into(), vec!["127.0.0.1".parse().unwrap()], 1000);
        let ports: Vec<u16> = local.listeners["local"].sockets().map(|(_, a)| a.port()).collect();
        assert_eq!(ports, [1025, 1587, 1465, 1143, 1993, 1080, 1443, 1082, 1081]);
        let seed: crate::slice::Accountd =
            serde_json::from_slice(&local.slice("accountd").unwrap()).unwrap();
        assert_eq!(seed.seed.unwrap().address, "mox@localhost");
    }
}
