//! The `[listener.NAME]` tables: addresses, and what is served there.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use types::Domain;

use crate::read::Section;

/// The most addresses one listener may name; each costs a socket per service.
const MAX_ADDRESSES: usize = 64;

/// The most listeners; their sockets must pass to the processes in few messages.
const MAX_LISTENERS: usize = 32;

/// A group of addresses with the services offered on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Addresses that are bound.
    pub ips: Vec<IpAddr>,
    /// Addresses under which it is reached from outside, where a router translates.
    pub nat_ips: Vec<IpAddr>,
    /// The name it greets with; the global one if absent.
    pub hostname: Option<Domain>,
    /// Whether it is the one that DNS advice and self checks are about.
    pub public: bool,
    /// The largest message taken by SMTP and submission.
    pub max_message_size: u64,
    /// How TLS is done; without it nothing that needs TLS may be on.
    pub tls: Option<Tls>,
    /// What is served, at most one of a kind.
    pub services: BTreeMap<Kind, Service>,
}

/// TLS of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Where certificate and key come from.
    pub certificate: Certificate,
    /// Whether client certificates are asked for (for log-in by key).
    pub client_auth: bool,
    /// Whether TLS 1.2 is refused.
    pub only_1_3: bool,
}

/// Where a listener's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// Files of the administrator, opened by the supervisor and handed to keyholder.
    Files {
        /// The chain, end entity first.
        cert: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// Made by keyholder; no client trusts it by itself.
    SelfSigned,
}

/// What a service speaks. The order is that of the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SMTP from other servers.
    Smtp,
    /// SMTP from users, STARTTLS.
    Submission,
    /// SMTP from users, TLS at once.
    Submissions,
    /// IMAP, STARTTLS.
    Imap,
    /// IMAP, TLS at once.
    Imaps,
    /// The web in clear text.
    Http,
    /// The web.
    Https,
    /// The administrators' web.
    Admin,
    /// Figures for Prometheus.
    Metrics,
}

impl Kind {
    /// All there are.
    pub const ALL: [Kind; 9] = [
        Kind::Smtp,
        Kind::Submission,
        Kind::Submissions,
        Kind::Imap,
        Kind::Imaps,
        Kind::Http,
        Kind::Https,
        Kind::Admin,
        Kind::Metrics,
    ];

    /// Its key in a listener's table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Smtp => "smtp",
            Kind::Submission => "submission",
            Kind::Submissions => "submissions",
            Kind::Imap => "imap",
            Kind::Imaps => "imaps",
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Admin => "admin",
            Kind::Metrics => "metrics",
        }
    }

    /// The port where clients expect it.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Kind::Smtp => 25,
            Kind::Submission => 587,
            Kind::Submissions => 465,
            Kind::Imap => 143,
            Kind::Imaps => 993,
            Kind::Http => 80,
            Kind::Https => 443,
            Kind::Admin => 8443,
            Kind::Metrics => 8010,
        }
    }
}

/// One service of a listener: its port, and the options that its kind has (the others keep their
/// defaults).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// TCP port on each address.
    pub port: u16,
    /// STARTTLS is offered (smtp, submission, imap).
    pub starttls: bool,
    /// Mail (smtp) or log-in (submission, imap) only under TLS.
    pub require_tls: bool,
    /// REQUIRETLS (RFC 8689) is announced (smtp, submission, submissions).
    pub requiretls: bool,
    /// Wait before mail of an unknown sender is taken (smtp).
    pub first_time_sender_delay: Duration,
    /// DNS block lists asked when reputation decides nothing (smtp).
    pub dnsbls: Vec<Domain>,
    /// Limits of requests apply (http, https).
    pub rate_limit: bool,
    /// The peer is a proxy whose Forwarded fields are believed (http, https, admin).
    pub forwarded: bool,
    /// TLS at once (admin; the other kinds say it by their name).
    pub tls: bool,
}

impl Service {
    /// A service with every default, on the kind's own port.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            port: kind.default_port(),
            starttls: matches!(kind, Kind::Smtp | Kind::Submission | Kind::Imap),
            require_tls: matches!(kind, Kind::Submission | Kind::Imap),
            requiretls: matches!(kind, Kind::Smtp | Kind::Submission | Kind::Submissions),
            first_time_sender_delay: Duration::from_secs(15),
            dnsbls: Vec::new(),
            rate_limit: true,
            forwarded: false,
            tls: matches!(kind, Kind::Submissions | Kind::Imaps | Kind::Https | Kind::Admin),
        }
    }

    fn read(kind: Kind, at: &Section<'_>) -> Self {
        let mut service = Self::new(kind);
        service.port = at.port("port", service.port);
        if matches!(kind, Kind::Smtp | Kind::Submission | Kind::Imap) {
            service.starttls = at.flag("starttls", service.starttls);
            let key = if kind == Kind::Smtp { "require_starttls" } else { "require_tls" };
            service.require_tls = at.flag(key, service.require_tls);
            if service.require_tls && !service.starttls {
                at.fault_at(key, "needs starttls = true");
            }
        }
        if matches!(kind, Kind::Smtp | Kind::Submission | Kind::Submissions) {
            service.requiretls = at.flag("requiretls", service.requiretls);
        }
        if kind == Kind::Smtp {
            let delay = service.first_time_sender_delay;
            service.first_time_sender_delay = at.duration("first_time_sender_delay", delay);
            service.dnsbls = at.list("dnsbls").unwrap_or_default();
        }
        if matches!(kind, Kind::Http | Kind::Https | Kind::Admin) {
            service.forwarded = at.flag("forwarded", service.forwarded);
        }
        if matches!(kind, Kind::Http | Kind::Https) {
            service.rate_limit = at.flag("rate_limit", service.rate_limit);
        }
        if kind == Kind::Admin {
            service.tls = at.flag("tls", service.tls);
        }
        service
    }
}

impl Listener {
    /// The sockets it needs: kind and address, in a fixed order.
    pub fn sockets(&self) -> impl Iterator<Item = (Kind, SocketAddr)> {
        self.services.iter().flat_map(|(&kind, service)| {
            self.ips.iter().map(move |&ip| (kind, SocketAddr::new(ip, service.port)))
        })
    }

    fn read(at: &Section<'_>) -> Self {
        let services: BTreeMap<Kind, Service> = Kind::ALL
            .into_iter()
            .map(|kind| (kind, at.section(kind.name())))
            .filter(|(_, section)| section.is_present())
            .map(|(kind, section)| (kind, Service::read(kind, &section)))
            .collect();
        let listener = Self {
            ips: at.list("ips").unwrap_or_default(),
            nat_ips: at.list("nat_ips").unwrap_or_default(),
            hostname: at.parsed("hostname"),
            public: at.choice("role", &[("public", true), ("internal", false)], false),
            max_message_size: at.message_size("max_message_size", 100 << 20),
            tls: Tls::read(&at.section("tls")),
            services,
        };
        listener.check(at);
        listener
    }

    fn check(&self, at: &Section<'_>) {
        if self.ips.is_empty() {
            at.fault("a listener needs at least one address in ips");
        }
        if self.ips.len() > MAX_ADDRESSES {
            at.fault_at("ips", format!("more than {MAX_ADDRESSES} addresses"));
        }
        if let Some(ip) = self.nat_ips.iter().find(|ip| ip.is_loopback() || ip.is_unspecified()) {
            at.fault_at("nat_ips", format!("{ip} is no public address"));
        }
        for (kind, service) in &self.services {
            let needed = service.tls || service.require_tls;
            if needed && self.tls.is_none() {
                at.fault(format!(
                    "{} needs TLS: add a tls table, or turn the option off",
                    kind.name()
                ));
            }
        }
        let mut ports = BTreeMap::new();
        for (kind, service) in &self.services {
            if let Some(other) = ports.insert(service.port, kind.name()) {
                at.fault(format!("{other} and {} share port {}", kind.name(), service.port));
            }
        }
    }
}

impl Tls {
    fn read(at: &Section<'_>) -> Option<Self> {
        if !at.is_present() {
            return None;
        }
        let (cert, key) = (at.parsed("cert_file"), at.parsed("key_file"));
        let self_signed = at.flag("self_signed", false);
        let only_1_3 = at.choice("min_version", &[("1.2", false), ("1.3", true)], false);
        let client_auth = at.flag("client_auth", true);
        let certificate = match (cert, key, self_signed) {
            (Some(cert), Some(key), false) => Certificate::Files { cert, key },
            (None, None, true) => Certificate::SelfSigned,
            _ => {
                at.fault("tls needs cert_file and key_file, or self_signed = true, and not both");
                return None;
            }
        };
        Some(Self { certificate, client_auth, only_1_3 })
    }
}

/// All listeners of a file.
pub(crate) fn read_all(at: &Section<'_>) -> BTreeMap<String, Listener> {
    let mut all = BTreeMap::new();
    let mut bound: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for (name, section) in at.named_sections() {
        if !is_name(&name) {
            section.fault("a listener's name is 1 to 32 of a-z, 0-9, - and _");
        }
        let listener = Listener::read(&section);
        if listener.services.is_empty() {
            section.fault("no service is on: it would serve nobody");
        }
        for (kind, address) in listener.sockets() {
            let service = format!("{name}.{}", kind.name());
            if let Some(other) = bound.insert(address, service.clone()) {
                section.fault(format!("{service} and {other} both bind {address}"));
            }
        }
        all.insert(name, listener);
    }
    if all.len() > MAX_LISTENERS {
        at.fault(format!("more than {MAX_LISTENERS} listeners"));
    }
    all
}

/// Names travel in the supervision channel and in logs.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=32).contains(&name.len()) && name.bytes().all(plain)
}
