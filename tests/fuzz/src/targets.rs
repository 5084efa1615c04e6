//! The list of all targets.

use crate::{
    edges,
    parsers::{imap, message, others, smtp},
};
use ipc::Role;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:literal $run:expr;)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: $name, run: $run },)*];
    };
}

targets! {
    "smtp-command" smtp::command;
    "smtp-data" smtp::data;
    "smtp-reply" smtp::reply;
    "smtp-server" smtp::server;
    "smtp-client" smtp::client;
    "imap-reader" imap::reader;
    "imap-command" imap::command;
    "imap-set" imap::set;
    "imap-name" imap::name;
    "imap-front" imap::front;
    "imap-session" imap::session;
    "message-index" message::index;
    "message-codec" message::codec;
    "message-addresses" message::addresses;
    "message-date" message::date;
    "message-words" message::words;
    "message-html" message::markup;
    "message-charset" message::charsets;
    "message-transfer" message::transfer;
    "message-fields" message::fields;
    "message-composed" message::composed;
    "dkim-draft" others::dkim_draft;
    "dkim-signable" others::dkim_signable;
    "config-settings" others::settings;
    "config-domains" others::domains;
    "author" others::author;
    "trace" others::trace;
    "forged" others::forged;
    "dns-record" others::dns_record;
    "http-forwarded" others::forwarded;
    "supervision" others::supervision;
    "addresses" others::addresses;
    "edge-connector" edges::connector;
    "edge-hand-over" edges::hand_over;
    "edge-slot" edges::slot;
    "edge-mx" |input| edges::edge(Role::SmtpdMx, Role::Accountd, input);
    "edge-submission" |input| edges::edge(Role::SmtpdSubmission, Role::Accountd, input);
    "edge-front" |input| edges::edge(Role::ImapdFront, Role::Accountd, input);
    "edge-session" |input| edges::edge(Role::ImapdSession, Role::Accountd, input);
    "edge-web" |input| edges::edge(Role::HttpdWeb, Role::Accountd, input);
    "edge-admin" |input| edges::edge(Role::HttpdAdmin, Role::Accountd, input);
    "edge-queue" |input| edges::edge(Role::QueueRunner, Role::Accountd, input);
    "edge-parser" |input| edges::edge(Role::Accountd, Role::Parser, input);
    "edge-resolver" |input| edges::edge(Role::Outbound, Role::Resolver, input);
    "edge-outbound" |input| edges::edge(Role::QueueRunner, Role::Outbound, input);
    "edge-keys" |input| edges::edge(Role::Accountd, Role::Keyholder, input);
    "edge-host-keys" |input| edges::edge(Role::QueueRunner, Role::Keyholder, input);
    "edge-tls" |input| edges::edge(Role::SmtpdMx, Role::Keyholder, input);
    "control-accounts" |input| edges::control(Role::Accountd, "AccountAdmin", input);
    "control-queue" |input| edges::control(Role::QueueRunner, "QueueAdmin", input);
    "control-keys" |input| edges::control(Role::Keyholder, "KeyControl", input);
}
