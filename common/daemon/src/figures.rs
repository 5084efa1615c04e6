//! What a process counts: numbers at fixed places of the memory the supervisor gave it.
//!
//! The table here is the one list of figures, append only. A reader (httpd admin) takes names and
//! kinds from its own copy of the table and nothing but numbers from the memory, so a process that
//! was taken over can lie about its numbers and do no more.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Defines the figures: variant, name, labels, help.
macro_rules! counts {
    ($($(#[$doc:meta])* $variant:ident = $name:literal { $labels:literal } $kind:ident $help:literal;)*) => {
        /// One number that is counted. Its place in memory is its position in this list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Count {
            $(#[doc = $help] $variant,)*
        }

        impl Count {
            /// All, in the order of their places.
            pub const ALL: &'static [(Count, &'static str, &'static str, Kind, &'static str)] =
                &[$((Count::$variant, $name, $labels, Kind::$kind, $help),)*];
        }
    };
}

/// How a number behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, from the first start of the supervisor on.
    Counter,
    /// Goes up and down.
    Gauge,
}

counts! {
    Panics = "mox_panic_total" {""} Counter "Panics; each one is a fault of ours.";
    LogErrors = "mox_logging_total" {"level=\"error\""} Counter "Events logged as errors.";
    LogWarnings = "mox_logging_total" {"level=\"warn\""} Counter "Events logged as warnings.";
    CpuMilliseconds = "mox_process_cpu_milliseconds" {""} Gauge "CPU time of the process's life.";
    MaxMemoryKib = "mox_process_max_memory_kib" {""} Gauge "Most memory the process ever held.";
    Connections = "mox_connections" {""} Gauge "Open connections of clients.";
    ConnectionsTotal = "mox_connection_total" {""} Counter "Connections of clients.";
    ConnectionsRefused = "mox_connection_refused_total" {""} Counter "Connections refused by a limit.";
    TlsHandshakes = "mox_tls_handshake_total" {"result=\"ok\""} Counter "Handshakes done.";
    TlsFailures = "mox_tls_handshake_total" {"result=\"failed\""} Counter "Handshakes that failed.";
    LoginsOk = "mox_authentication_total" {"result=\"ok\""} Counter "Log-ins.";
    LoginsFailed = "mox_authentication_total" {"result=\"failed\""} Counter "Log-ins refused.";
    LoginsLimited = "mox_authentication_ratelimited_total" {""} Counter "Log-ins refused by a limit.";
    MessagesAccepted = "mox_smtpserver_delivery_total" {"result=\"accepted\""} Counter "Messages taken.";
    MessagesRejected = "mox_smtpserver_delivery_total" {"result=\"rejected\""} Counter "Messages refused for good.";
    MessagesDeferred = "mox_smtpserver_delivery_total" {"result=\"deferred\""} Counter "Messages refused for now.";
    MessagesJunk = "mox_delivery_junk_total" {""} Counter "Messages judged to be junk.";
    MessagesUnparsed = "mox_delivery_unparsed_total" {""} Counter "Messages stored unread.";
    QueueDelivered = "mox_queue_delivery_total" {"result=\"ok\""} Counter "Recipients delivered to.";
    QueueFailed = "mox_queue_delivery_total" {"result=\"failed\""} Counter "Recipients given up.";
    QueueDeferred = "mox_queue_delivery_total" {"result=\"deferred\""} Counter "Attempts to be repeated.";
    QueueWaiting = "mox_queue_waiting" {""} Gauge "Recipients waiting in the queue.";
    DsnsSent = "mox_queue_dsn_total" {""} Counter "Delivery status notifications made.";
    DnsLookups = "mox_dns_lookup_total" {"result=\"answer\""} Counter "DNS questions answered.";
    DnsFailures = "mox_dns_lookup_total" {"result=\"failed\""} Counter "DNS questions without answer.";
    DnsBogus = "mox_dns_lookup_total" {"result=\"bogus\""} Counter "DNS answers with bad signatures.";
    Signatures = "mox_keyholder_signature_total" {"kind=\"tls\""} Counter "TLS signatures made.";
    DkimSignatures = "mox_keyholder_signature_total" {"kind=\"dkim\""} Counter "DKIM signatures made.";
    SignaturesRefused = "mox_keyholder_refused_total" {""} Counter "Requests for signatures refused.";
    ParserJobs = "mox_parser_job_total" {""} Counter "Messages read.";
    ParserOverruns = "mox_parser_overrun_total" {""} Counter "Messages that took too long to read.";
    HttpRequests = "mox_httpserver_request_total" {""} Counter "HTTP requests.";
    HttpErrors = "mox_httpserver_error_total" {""} Counter "HTTP answers of class 5.";
    ImapCommands = "mox_imap_command_total" {"result=\"ok\""} Counter "IMAP commands answered OK.";
    ImapCommandsNo = "mox_imap_command_total" {"result=\"no\""} Counter "IMAP commands answered NO.";
    ImapCommandsBad = "mox_imap_command_total" {"result=\"bad\""} Counter "IMAP commands answered BAD.";
    SmtpCommands = "mox_smtpserver_command_total" {""} Counter "SMTP commands.";
    SmtpErrors = "mox_smtpserver_errors_total" {""} Counter "SMTP replies of class 4 and 5.";
    SubmissionsAccepted = "mox_smtpserver_submission_total" {"result=\"ok\""} Counter "Submissions taken.";
    SubmissionsRefused = "mox_smtpserver_submission_total" {"result=\"refused\""} Counter "Submissions refused.";
    StoreCommits = "mox_store_commit_total" {""} Counter "Commits of account databases.";
    StoreErrors = "mox_store_error_total" {""} Counter "Failures of account databases.";
    DeadlinesMissed = "mox_ipc_late_total" {""} Counter "Calls to other processes without answer in time.";
    SignedForMx = "mox_keyholder_edge_signature_total" {"edge=\"smtpd-mx\""} Counter "Signatures made, by who asked.";
    SignedForSubmission = "mox_keyholder_edge_signature_total" {"edge=\"smtpd-submission\""} Counter "Signatures made, by who asked.";
    SignedForFront = "mox_keyholder_edge_signature_total" {"edge=\"imapd-front\""} Counter "Signatures made, by who asked.";
    SignedForWeb = "mox_keyholder_edge_signature_total" {"edge=\"httpd-web\""} Counter "Signatures made, by who asked.";
    SignedForAdmin = "mox_keyholder_edge_signature_total" {"edge=\"httpd-admin\""} Counter "Signatures made, by who asked.";
    SignedForAccountd = "mox_keyholder_edge_signature_total" {"edge=\"accountd\""} Counter "Signatures made, by who asked.";
    SignedForQueue = "mox_keyholder_edge_signature_total" {"edge=\"queue-runner\""} Counter "Signatures made, by who asked.";
    RefusedToMx = "mox_keyholder_edge_refused_total" {"edge=\"smtpd-mx\""} Counter "Signatures refused, by who asked.";
    RefusedToSubmission = "mox_keyholder_edge_refused_total" {"edge=\"smtpd-submission\""} Counter "Signatures refused, by who asked.";
    RefusedToFront = "mox_keyholder_edge_refused_total" {"edge=\"imapd-front\""} Counter "Signatures refused, by who asked.";
    RefusedToWeb = "mox_keyholder_edge_refused_total" {"edge=\"httpd-web\""} Counter "Signatures refused, by who asked.";
    RefusedToAdmin = "mox_keyholder_edge_refused_total" {"edge=\"httpd-admin\""} Counter "Signatures refused, by who asked.";
    RefusedToAccountd = "mox_keyholder_edge_refused_total" {"edge=\"accountd\""} Counter "Signatures refused, by who asked.";
    RefusedToQueue = "mox_keyholder_edge_refused_total" {"edge=\"queue-runner\""} Counter "Signatures refused, by who asked.";
    PepperUses = "mox_keyholder_use_total" {"kind=\"pepper\""} Counter "Uses of keyholder that are no signatures.";
    KeyOrders = "mox_keyholder_use_total" {"kind=\"admin\""} Counter "Uses of keyholder that are no signatures.";
}

/// Defines the histograms.
macro_rules! times {
    ($($variant:ident = $name:literal { $labels:literal } $help:literal;)*) => {
        /// A duration that is observed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Time {
            $(#[doc = $help] $variant,)*
        }

        impl Time {
            /// All, in the order of their places.
            pub const ALL: &'static [(Time, &'static str, &'static str, &'static str)] =
                &[$((Time::$variant, $name, $labels, $help),)*];
        }
    };
}

times! {
    SmtpData = "mox_smtpserver_data_duration_seconds" {""} "From the end of DATA to its answer.";
    ImapCommand = "mox_imap_command_duration_seconds" {""} "An IMAP command.";
    HttpRequest = "mox_httpserver_request_duration_seconds" {""} "An HTTP request.";
    QueueAttempt = "mox_queue_delivery_duration_seconds" {""} "An attempt to deliver.";
    DnsLookup = "mox_dns_lookup_duration_seconds" {""} "A DNS question.";
    Commit = "mox_store_commit_duration_seconds" {""} "A commit of an account database.";
    Handshake = "mox_tls_handshake_duration_seconds" {""} "A TLS handshake.";
    ParserJob = "mox_parser_job_duration_seconds" {""} "Reading a message.";
    Login = "mox_authentication_duration_seconds" {""} "A log-in.";
}

/// Upper ends of a histogram's buckets, in microseconds; one more bucket is for all above.
pub const BUCKETS: [u64; 12] = [
    100, 500, 1000, 5000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 20_000_000,
    60_000_000,
];

/// Where histograms begin, and how far apart they are: 13 buckets, then the sum in microseconds.
const TIMES_AT: usize = 4096;
const TIME_SLOTS: usize = 16;
const SUM: usize = 13;

/// The figures of this process. Cheap to copy, usable from any thread, never blocks.
#[derive(Debug, Clone, Copy)]
pub struct Figures(&'static [AtomicU64]);

impl Figures {
    /// Over the memory the supervisor gave.
    #[must_use]
    pub fn over(memory: &'static [AtomicU64]) -> Self {
        Self(memory)
    }

    /// Over memory of its own, never given back: for tests and the simulated tree.
    #[must_use]
    pub fn detached() -> Self {
        let slots: Vec<AtomicU64> =
            (0..sandbox::figures::SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self(slots.leak())
    }

    fn slot(&self, at: usize) -> Option<&AtomicU64> {
        self.0.get(at)
    }

    /// Counts one.
    pub fn count(&self, what: Count) {
        self.add(what, 1);
    }

    /// Adds.
    pub fn add(&self, what: Count, number: u64) {
        if let Some(slot) = self.slot(what as usize) {
            slot.fetch_add(number, Ordering::Relaxed);
        }
    }

    /// Takes one from a gauge.
    pub fn lower(&self, what: Count) {
        if let Some(slot) = self.slot(what as usize) {
            // A gauge that would go below zero after a restart stays there.
            let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        }
    }

    /// Sets a gauge.
    pub fn set(&self, what: Count, number: u64) {
        if let Some(slot) = self.slot(what as usize) {
            slot.store(number, Ordering::Relaxed);
        }
    }

    /// What a number is now.
    #[must_use]
    pub fn value(&self, what: Count) -> u64 {
        self.slot(what as usize).map_or(0, |slot| slot.load(Ordering::Relaxed))
    }

    /// Observes a duration.
    pub fn observe(&self, what: Time, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|&end| micros <= end).unwrap_or(BUCKETS.len());
        let first = TIMES_AT + what as usize * TIME_SLOTS;
        for (at, number) in [(first + bucket, 1), (first + SUM, micros)] {
            if let Some(slot) = self.slot(at) {
                slot.fetch_add(number, Ordering::Relaxed);
            }
        }
    }

    /// Gauges begin anew with each life of the process; counters go on.
    pub(crate) fn begin_life(&self) {
        for (count, _, _, kind, _) in Count::ALL {
            if *kind == Kind::Gauge {
                self.set(*count, 0);
            }
        }
    }
}

/// All figures of some processes in the text format of Prometheus. `processes` gives each one's
/// labels (such as `process="parser",instance="0"`) and reads its numbers by place.
pub fn prometheus(processes: &[(String, &dyn Fn(usize) -> u64)]) -> String {
    let mut out = String::new();
    let mut last = "";
    for (count, name, labels, kind, help) in Count::ALL {
        if *name != last {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            last = name;
        }
        for (process, read) in processes {
            let value = read(*count as usize);
            let comma = if labels.is_empty() { "" } else { "," };
            let _ = writeln!(out, "{name}{{{process}{comma}{labels}}} {value}");
        }
    }
    for (time, name, _, help) in Time::ALL {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let first = TIMES_AT + *time as usize * TIME_SLOTS;
        for (process, read) in processes {
            let mut total = 0u64;
            for (bucket, end) in BUCKETS.iter().enumerate() {
                total = total.saturating_add(read(first + bucket));
                let (whole, part) = (end / 1_000_000, end % 1_000_000);
                let _ =
                    writeln!(out, "{name}_bucket{{{process},le=\"{whole}.{part:06}\"}} {total}");
            }
            total = total.saturating_add(read(first + BUCKETS.len()));
            let sum = read(first + SUM);
            let (whole, part) = (sum / 1_000_000, sum % 1_000_000);
            let _ = writeln!(out, "{name}_bucket{{{process},le=\"+Inf\"}} {total}");
            let _ = writeln!(out, "{name}_sum{{{process}}} {whole}.{part:06}");
            let _ = writeln!(out, "{name}_count{{{process}}} {total}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap() {
        assert!(Count::ALL.len() <= TIMES_AT);
        assert!(TIMES_AT + Time::ALL.len() * TIME_SLOTS <= sandbox::figures::SLOTS);
        assert!(BUCKETS.len() < SUM && SUM < TIME_SLOTS);
        for (at, (count, ..)) in Count::ALL.iter().enumerate() {
            assert_eq!(*count as usize, at);
        }
        // Prometheus wants all lines of a name together.
        let mut names: Vec<_> = Count::ALL.iter().map(|(_, name, ..)| name).collect();
        names.dedup();
        let together = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), together);
    }

    #[test]
    fn what_is_counted_is_printed() {
        let figures = Figures::detached();
        figures.count(Count::LoginsFailed);
        figures.add(Count::LoginsFailed, 2);
        figures.lower(Count::Connections);
        figures.observe(Time::Login, Duration::from_micros(600));
        figures.observe(Time::Login, Duration::from_secs(3600));
        let read = |at: usize| figures.0[at].load(Ordering::Relaxed);
        let text = prometheus(&[("process=\"accountd\"".into(), &read)]);
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        has("mox_authentication_total{process=\"accountd\",result=\"failed\"} 3");
        has("mox_connections{process=\"accountd\"} 0");
        let name = "mox_authentication_duration_seconds";
        has(&format!("{name}_bucket{{process=\"accountd\",le=\"0.000500\"}} 0"));
        has(&format!("{name}_bucket{{process=\"accountd\",le=\"0.001000\"}} 1"));
        has(&format!("{name}_bucket{{process=\"accountd\",le=\"+Inf\"}} 2"));
        has(&format!("{name}_sum{{process=\"accountd\"}} 3600.000600"));
    }
}
