//! One profile per role: the compromise matrix of docs/architecture.md as data.
//!
//! A binary uses its own by name: `sandbox::profiles::PARSER`.

mod accountd;
mod httpd_admin;
mod httpd_web;
mod imapd_front;
mod imapd_session;
mod keyholder;
mod outbound;
mod parser;
mod queue_runner;
mod resolver;
mod smtpd_mx;
mod smtpd_submission;

pub use accountd::ACCOUNTD;
pub use httpd_admin::HTTPD_ADMIN;
pub use httpd_web::HTTPD_WEB;
pub use imapd_front::IMAPD_FRONT;
pub use imapd_session::IMAPD_SESSION;
pub use keyholder::KEYHOLDER;
pub use outbound::OUTBOUND;
pub use parser::PARSER;
pub use queue_runner::QUEUE_RUNNER;
pub use resolver::RESOLVER;
pub use smtpd_mx::SMTPD_MX;
pub use smtpd_submission::SMTPD_SUBMISSION;

use crate::Profile;

/// Every role, in the order of docs/architecture.md.
pub static ALL: [&Profile; 12] = [
    &SMTPD_MX,
    &SMTPD_SUBMISSION,
    &IMAPD_FRONT,
    &IMAPD_SESSION,
    &HTTPD_WEB,
    &HTTPD_ADMIN,
    &ACCOUNTD,
    &QUEUE_RUNNER,
    &KEYHOLDER,
    &PARSER,
    &OUTBOUND,
    &RESOLVER,
];

/// The profile of a role by its name.
pub fn of_role(role: &str) -> Option<&'static Profile> {
    ALL.into_iter().find(|profile| profile.role == role)
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// What a role that writes only its log may write: the supervisor gives it the next file at
/// 64 MiB, and one burst may pass that before it arrives.
const LOG_FILE: u64 = 96 * MIB;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Folders, Tcp};

    #[test]
    fn only_outbound_and_resolver_make_inet_sockets() {
        for profile in ALL {
            let inet = ["outbound", "resolver"].contains(&profile.role);
            assert_eq!(profile.lists("socket"), inet, "{}", profile.role);
            assert_eq!(profile.lists("connect"), inet, "{}", profile.role);
            assert_eq!(profile.lists("bind"), inet, "{}", profile.role);
            assert_eq!(profile.tcp == Tcp::Outgoing, inet, "{}", profile.role);
        }
    }

    #[test]
    fn files_are_opened_by_their_owners_only() {
        for profile in ALL {
            let owner = ["accountd", "queue-runner", "keyholder"].contains(&profile.role);
            assert_eq!(profile.lists("unlink"), owner, "{}", profile.role);
            assert_eq!(profile.folders == Folders::Own, owner, "{}", profile.role);
            let opens = owner || profile.role == "httpd-web";
            assert_eq!(profile.lists("openat"), opens, "{}", profile.role);
        }
    }

    #[test]
    fn who_faces_no_listener_accepts_nothing() {
        // The vaults accept on their control sockets.
        for role in ["parser", "outbound", "resolver", "imapd-session"] {
            assert!(!of_role(role).unwrap().lists("accept4"), "{role}");
        }
    }

    #[test]
    fn roles_are_distinct_and_found_by_name() {
        for (index, profile) in ALL.into_iter().enumerate() {
            assert_eq!(of_role(profile.role).unwrap().role, profile.role);
            assert!(ALL[index + 1..].iter().all(|other| other.role != profile.role));
        }
    }
}
