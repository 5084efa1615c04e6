//! What `accountd` gets beside its own `domains.toml`: names of the host, limits of strangers, and
//! for a development server the account to make.

use serde::{Deserialize, Serialize};
use types::Domain;

use crate::{Kind, Local, Postmaster, Static, limits, slice};

/// The slice of `accountd`. Its folder holds `directory/domains.toml`, `accounts/` and
/// `accountd.db`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accountd {
    /// The name of this host; `postmaster@` it is always taken.
    #[serde(with = "slice::domain", default = "slice::domain::localhost")]
    pub hostname: Domain,
    /// Names that SMTP listeners greet with: their postmaster is taken too.
    #[serde(with = "slice::domains", default)]
    pub smtp_hostnames: Vec<Domain>,
    /// Where mail for postmaster goes.
    #[serde(default)]
    pub postmaster: Option<Postmaster>,
    /// DNS block lists asked when reputation decides nothing.
    #[serde(with = "slice::domains", default)]
    pub dnsbls: Vec<Domain>,
    /// Whether DNS is asked if a stranger's domain takes mail.
    #[serde(default)]
    pub check_senders: bool,
    /// The largest message of any listener, or that IMAP takes.
    #[serde(default = "message_size")]
    pub max_message_size: u64,
    /// `Received` fields before a message is taken for a loop.
    #[serde(default = "received_fields")]
    pub received_fields: u32,
    /// Who may connect and log in.
    #[serde(default)]
    pub gate: limits::Gate,
    /// What strangers may put into an account.
    #[serde(default)]
    pub delivery: limits::Delivery,
    /// IMAP sessions are this many processes; accounts are spread over them by hash.
    #[serde(default = "one")]
    pub imap_sessions: u16,
    /// Services, as `LISTENER/KIND`, where log-in is allowed without TLS.
    #[serde(default)]
    pub clear_text_logins: Vec<String>,
    /// A development server: what to make if there is no directory yet. It also takes mail for any
    /// address of any domain (operation-and-cli §4).
    #[serde(default)]
    pub seed: Option<Seed>,
    /// Who may use the control socket, by uid.
    #[serde(default)]
    pub control_uids: Vec<u32>,
}

/// The account of a development server.
pub type Seed = Local;

fn message_size() -> u64 {
    100 << 20
}

fn received_fields() -> u32 {
    limits::Smtp::default().received_fields
}

fn one() -> u16 {
    1
}

/// Services that users log in to and that do not ask for TLS first.
fn clear_text_logins(all: &Static) -> Vec<String> {
    let mut names = Vec::new();
    for (name, listener) in &all.listeners {
        for (kind, service) in &listener.services {
            if matches!(kind, Kind::Imap | Kind::Submission) && !service.require_tls {
                names.push(slice::service_name(name, *kind));
            }
        }
    }
    names
}

impl Accountd {
    pub(crate) fn of(all: &Static) -> Self {
        let smtp =
            || all.listeners.values().filter_map(|l| Some((l, l.services.get(&Kind::Smtp)?)));
        let mut smtp_hostnames: Vec<Domain> =
            smtp().filter_map(|(listener, _)| listener.hostname.clone()).collect();
        smtp_hostnames.sort();
        smtp_hostnames.dedup();
        let mut dnsbls: Vec<Domain> = smtp().flat_map(|(_, smtp)| smtp.dnsbls.clone()).collect();
        dnsbls.sort();
        dnsbls.dedup();
        let sizes = all.listeners.values().map(|listener| listener.max_message_size);
        let sizes = sizes.chain([all.limits.imap.append]);
        Self {
            control_uids: all.control_uids.clone(),
            hostname: all.hostname.clone(),
            smtp_hostnames,
            postmaster: all.postmaster.clone(),
            dnsbls,
            check_senders: all.check_senders,
            max_message_size: sizes.max().unwrap_or_else(message_size),
            received_fields: all.limits.smtp.received_fields,
            gate: all.limits.gate.clone(),
            delivery: all.limits.delivery.clone(),
            imap_sessions: all.imap_sessions,
            clear_text_logins: clear_text_logins(all),
            seed: all.local.clone(),
        }
    }
}
