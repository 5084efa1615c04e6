//! The commands and their words.

use clap::{Parser, Subcommand, ValueEnum};
use ipc::Role;
use std::path::PathBuf;

/// Administer a mox mail server on this machine.
///
/// Exit status: 0 done; 1 failed, or `confine test` found something ALLOWED; 2 wrong usage; 3 the
/// server is not running; 4 this user may not.
#[derive(Parser)]
#[command(name = "moxctl", version, max_term_width = 100)]
pub(crate) struct Args {
    /// Folder of the server's control sockets
    #[arg(long, env = "MOX_CONTROL", default_value = "/run/mox/control", global = true)]
    pub(crate) control: PathBuf,
    /// Write JSON, one object a line, instead of columns and sentences
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// How the server is: processes, queue, accounts
    Status,
    /// The process table, with missing layers of confinement
    Processes {
        #[command(subcommand)]
        what: Option<Processes>,
    },
    /// The walls between the processes
    Confine {
        #[command(subcommand)]
        what: Confine,
    },
    /// Read the configuration again; a bad file changes nothing
    Reload,
    /// Finish what is under way and end
    Stop,
    /// Change to the installed binaries without refusing a connection
    Upgrade,
    /// Start the processes of a role again; fails if none runs
    Restart {
        /// Role, as in `moxctl processes`
        role: Role,
    },
    /// Set how much is logged, until the next restart
    Loglevel {
        /// How much
        level: LogLevel,
        /// Of this role alone
        role: Option<Role>,
    },
    /// The configuration
    Config {
        #[command(subcommand)]
        what: Config,
    },
    /// Accounts
    Account {
        #[command(subcommand)]
        what: Account,
    },
    /// Keys that log in instead of a password (SASL EXTERNAL)
    Clientkey {
        #[command(subcommand)]
        what: ClientKey,
    },
    /// Addresses of accounts
    Address {
        #[command(subcommand)]
        what: Address,
    },
    /// Domains
    Domain {
        #[command(subcommand)]
        what: Domain,
    },
    /// Mail on its way to other servers
    Queue {
        #[command(subcommand)]
        what: Queue,
    },
    /// One message
    Message {
        #[command(subcommand)]
        what: Message,
    },
    /// The log
    Log {
        #[command(subcommand)]
        what: Log,
    },
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for config::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Processes {
    /// Who may ask whom for what: the map of all authority
    Wiring,
    /// What each role may ask of the kernel, with the reasons
    Profiles,
}

#[derive(Subcommand)]
pub(crate) enum Confine {
    /// Try, on this machine and kernel, what each role must not be able to do
    Test {
        /// This role alone
        role: Option<Role>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Config {
    /// Check mox.toml without changing anything
    Test {
        /// The file
        #[arg(default_value = "/etc/mox/mox.toml")]
        file: PathBuf,
    },
    /// Edit domains.toml in $EDITOR; it is checked as a whole before it takes effect
    Edit,
}

#[derive(Subcommand)]
pub(crate) enum Account {
    /// List accounts
    List,
    /// Make an account; the password is asked for, or read from standard input
    Add {
        /// Its name, by which the other commands know it
        name: String,
        /// Its first address; the domain must be hosted
        address: String,
    },
    /// Remove an account; its folder is kept for 30 days
    Remove {
        /// Account
        name: String,
    },
    /// Refuse log-ins; mail is still taken
    Disable {
        /// Account
        name: String,
        /// What the user is told
        message: String,
    },
    /// Allow log-ins again
    Enable {
        /// Account
        name: String,
    },
    /// Set the password; it is asked for, or read from standard input
    Password {
        /// Account
        name: String,
    },
    /// Who logged in, from where, with what result
    Logins {
        /// Account; "" for log-ins with names that are nobody's
        name: String,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        max: u32,
    },
    /// Check the account's databases and content, while the server runs
    #[command(override_usage = "moxctl account verify [OPTIONS] <NAME | --all>")]
    Verify {
        /// Account
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// Every account, and the database that belongs to none (accountd.db)
        #[arg(long, conflicts_with = "name")]
        all: bool,
        /// Mend counts and orphans
        #[arg(long)]
        fix: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum ClientKey {
    /// List keys of an account
    List {
        /// Account
        account: String,
    },
    /// Allow a key
    Add {
        /// Account
        account: String,
        /// SHA-256 of the key (SubjectPublicKeyInfo), 64 hex digits
        fingerprint: String,
        /// The login address it stands for
        login: String,
        /// A word to know it by
        #[arg(long, default_value = "")]
        label: String,
    },
    /// Forget a key and end its sessions
    Remove {
        /// SHA-256 of the key, 64 hex digits
        fingerprint: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Address {
    /// List addresses of an account
    List {
        /// Account
        account: String,
    },
    /// Give an address to an account
    Add {
        /// Address; `@domain` is the catch-all
        address: String,
        /// Account
        account: String,
    },
    /// Take an address away
    Remove {
        /// Address
        address: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Domain {
    /// List domains
    List,
    /// Host a domain
    Add {
        /// Name of the domain
        domain: String,
        /// The account of its postmaster; the first domain has none yet
        #[arg(default_value = "", hide_default_value = true)]
        account: String,
    },
    /// Host it no longer
    Remove {
        /// Name of the domain
        domain: String,
    },
}

/// Which messages; all given conditions must hold.
#[derive(clap::Args)]
pub(crate) struct Filter {
    /// Queue ids
    pub(crate) ids: Vec<String>,
    /// Of this account
    #[arg(long, default_value = "")]
    pub(crate) account: String,
    /// From this address or @domain
    #[arg(long, default_value = "")]
    pub(crate) from: String,
    /// To this address or @domain
    #[arg(long, default_value = "")]
    pub(crate) to: String,
    /// Everything
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Subcommand)]
pub(crate) enum Queue {
    /// List what waits
    List {
        #[command(flatten)]
        filter: Filter,
    },
    /// Try again now
    Retry {
        #[command(flatten)]
        filter: Filter,
    },
    /// Remove without telling the sender
    Drop {
        #[command(flatten)]
        filter: Filter,
    },
}

#[derive(Subcommand)]
pub(crate) enum Message {
    /// Write a message as it is stored to standard output
    Show {
        /// Queue id, or account
        what: String,
        /// UID, with an account
        uid: Option<u32>,
        /// Mailbox, with an account
        #[arg(long, default_value = "Inbox")]
        mailbox: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Log {
    /// Follow one message or session through all processes
    Follow {
        /// Session id, queue id, submission id, Message-ID or account
        id: String,
        /// Only what is logged already; fails if that is nothing
        #[arg(long)]
        once: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_commands_are_consistent() {
        super::Args::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_says_what_it_is() {
        fn look(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {}", argument.get_id());
            }
            command.get_subcommands().for_each(|below| look(below, &path));
        }
        look(&super::Args::command(), "");
    }

    #[test]
    fn the_manual_page_names_every_command() {
        const PAGE: &str = include_str!("../../../packaging/man/moxctl.8");
        fn look(command: &clap::Command, words: &[&str]) {
            let below: Vec<_> = command.get_subcommands().collect();
            for command in &below {
                look(command, &[words, &[command.get_name()]].concat());
            }
            let whole = words.join(" ");
            assert!(!below.is_empty() || PAGE.contains(&format!(".It Cm {whole}")), "{whole}");
        }
        look(&super::Args::command(), &[]);
    }
}
