//! One job's way over the hosts of its domain, until each recipient was taken or refused for good,
//! or no host is left.
//!
//! A host that refuses for now, or fails before it has all of the message, is no last word: the next
//! one is tried (RFC 5321 §5.1), as long as the content can be had once more. One that had the last
//! dot and did not answer may have delivered: that waits for the next attempt.

use crate::{
    Shared, Wire,
    content::{Content, Gone},
    job::{Job, Tls},
    route::NoRoute,
};
use net::{Verify, write_within};
use smtp::{
    Response,
    client::{Client, Ended, Lack, RecipientResult, Settings, Step, TlsUse, Transaction, timeouts},
};
use std::{io, net::IpAddr, time::Duration};
use tokio::{io::AsyncReadExt as _, time::timeout};
use types::{Address, Domain};

/// How long a TCP connection may take.
const CONNECT: Duration = Duration::from_secs(30);

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// What is read at once.
const READ: usize = 8 * 1024;

/// Lines of the log of one job.
const MAX_LOG: usize = 64;

/// What became of a job.
#[derive(Debug)]
pub(crate) struct Report {
    /// In the order of the job.
    pub(crate) results: Vec<Told>,
    pub(crate) host: String,
    pub(crate) log: Vec<String>,
    pub(crate) tls: bool,
}

/// What became of one recipient.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) to: Address,
    pub(crate) said: Option<Said>,
}

/// And in whose words.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) result: RecipientResult,
    pub(crate) whose: Whose,
    /// The host it was about.
    pub(crate) host: String,
}

/// Who speaks in a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The server.
    Theirs,
    /// We, about it.
    Ours,
}

/// How one connection ended.
enum Outcome {
    /// Each recipient was answered. Whether the server may have delivered what it did not answer.
    Answered(Vec<(RecipientResult, Whose)>, bool),
    /// Nothing was said about the recipients, no content went out: another host may be tried.
    Nothing(String),
    /// TLS did not come about; in clear it might.
    NoTls(String),
    /// There is no content any more.
    Broken(String),
}

/// Delivers.
pub(crate) async fn run(shared: &Shared, job: &Job, mut content: Content) -> Report {
    let mut report = Report::of(job);
    let (hosts, certain) = match shared.hosts(&job.domain, &job.ehlo).await {
        Ok(found) => found,
        Err(why) => {
            report.log(format!("{}: {why}", job.domain));
            report.fail_rest(&no_route(&why));
            return report;
        }
    };
    if job.requiretls && !certain {
        // RFC 8689 §4.2.1: without a signed MX the name of the host proves nothing.
        let why = "REQUIRETLS: the domain's MX is not signed (DNSSEC)";
        report.log(format!("{}: {why}", job.domain));
        report.fail_rest(&no_tls(why));
        return report;
    }
    let mut last = "no host of the domain has an address".to_owned();
    // What holds for every host: it has no address for certain, or no TLS.
    let (mut nowhere, mut never_tls) = (true, true);
    'hosts: for host in hosts {
        let addresses = match shared.addresses(&host).await {
            Ok(addresses) => addresses,
            Err(why) => {
                last = format!("{host}: {why}");
                report.log(last.clone());
                (nowhere, never_tls) = (false, false);
                continue;
            }
        };
        for ip in addresses {
            nowhere = false;
            let to = report.open();
            let (outcome, tls) = try_address(shared, job, &to, &host, ip, &mut content).await;
            report.host = host.to_string();
            report.tls = tls;
            match outcome {
                Outcome::Answered(results, unsure) => {
                    report.log(format!("{host} [{ip}]: answered"));
                    report.take(&to, results);
                    if unsure || report.open().is_empty() || !content.rewind() {
                        break 'hosts;
                    }
                    // Its other addresses would say the same.
                    continue 'hosts;
                }
                Outcome::Broken(why) => {
                    report.log(format!("{host} [{ip}]: {why}"));
                    report.fail_rest(&temporary(&why));
                    return report;
                }
                Outcome::NoTls(why) => {
                    last = format!("{host} [{ip}]: {why}");
                    report.log(last.clone());
                }
                Outcome::Nothing(why) => {
                    never_tls = false;
                    last = format!("{host} [{ip}]: {why}");
                    report.log(last.clone());
                }
            }
        }
    }
    let result = if nowhere {
        // RFC 5321 §5.1: to be reported; nothing speaks for an address tomorrow.
        RecipientResult::Permanent(Response::made(550, (5, 4, 4), &last))
    } else if job.requiretls && never_tls {
        no_tls(&last)
    } else {
        temporary(&last)
    };
    report.fail_rest(&result);
    report
}

impl Report {
    fn of(job: &Job) -> Self {
        let told = |to: &Address| Told { to: to.clone(), said: None };
        Self {
            results: job.recipients.iter().map(told).collect(),
            host: String::new(),
            log: Vec::new(),
            tls: false,
        }
    }

    fn log(&mut self, line: String) {
        if self.log.len() < MAX_LOG {
            self.log.push(line);
        }
    }

    /// Recipients of whom nothing final was said yet.
    fn open(&self) -> Vec<Address> {
        let is_open = |told: &&Told| match told.said.as_ref().map(|said| &said.result) {
            None | Some(RecipientResult::Temporary(_) | RecipientResult::Another) => true,
            Some(RecipientResult::Delivered(_) | RecipientResult::Permanent(_)) => false,
        };
        self.results.iter().filter(is_open).map(|told| told.to.clone()).collect()
    }

    /// What the present host said.
    fn take(&mut self, to: &[Address], results: Vec<(RecipientResult, Whose)>) {
        for (to, (result, whose)) in to.iter().zip(results) {
            let said = Said { result, whose, host: self.host.clone() };
            for told in self.results.iter_mut().filter(|told| told.to == *to) {
                told.said = Some(said.clone());
            }
        }
    }

    /// For those of whom no host said anything. What one said for now stands: it tells more than that
    /// the next host was away.
    fn fail_rest(&mut self, why: &RecipientResult) {
        for told in self.results.iter_mut().filter(|told| told.said.is_none()) {
            let host = self.host.clone();
            told.said = Some(Said { result: why.clone(), whose: Whose::Ours, host });
        }
    }
}

fn temporary(why: &str) -> RecipientResult {
    RecipientResult::Temporary(Response::made(451, (4, 4, 1), why))
}

/// RFC 8689 §4.2.1.
fn no_tls(why: &str) -> RecipientResult {
    RecipientResult::Permanent(Response::made(550, (5, 7, 10), why))
}

fn no_route(why: &NoRoute) -> RecipientResult {
    let text = why.to_string();
    match why {
        // RFC 7505 §4.2.
        NoRoute::NullMx => RecipientResult::Permanent(Response::made(556, (5, 1, 10), &text)),
        NoRoute::NoSuchDomain => RecipientResult::Permanent(Response::made(550, (5, 1, 2), &text)),
        NoRoute::Temporary(_) => RecipientResult::Temporary(Response::made(451, (4, 4, 3), &text)),
    }
}

/// One address: with TLS as the job wants, and in clear when TLS fails and need not be.
async fn try_address(
    shared: &Shared,
    job: &Job,
    to: &[Address],
    host: &Domain,
    ip: IpAddr,
    content: &mut Content,
) -> (Outcome, bool) {
    let wanted = match (job.tls, job.requiretls) {
        (Tls::Require, _) | (_, true) => TlsUse::Required,
        (Tls::Opportunistic, false) => TlsUse::Offered,
        (Tls::Never, false) => TlsUse::Never,
    };
    let first = talk(shared, job, to, (host, ip), wanted, content).await;
    match first {
        (Outcome::NoTls(why), _) if wanted == TlsUse::Offered => {
            tracing::info!(%host, %ip, why, "TLS failed, in clear");
            talk(shared, job, to, (host, ip), TlsUse::Never, content).await
        }
        other => other,
    }
}

async fn connect(shared: &Shared, ip: IpAddr) -> io::Result<Box<dyn Wire>> {
    let connecting = timeout(CONNECT, (shared.connect)(ip));
    connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// One connection, from greeting to QUIT.
async fn talk(
    shared: &Shared,
    job: &Job,
    to: &[Address],
    (host, ip): (&Domain, IpAddr),
    tls: TlsUse,
    content: &mut Content,
) -> (Outcome, bool) {
    let mut wire = match connect(shared, ip).await {
        Ok(wire) => wire,
        Err(error) => return (Outcome::Nothing(format!("connect: {error}")), false),
    };
    // Who insists on TLS insists on the right server, too.
    let verify = if tls == TlsUse::Required { Verify::Pkix } else { Verify::Opportunistic };
    let mut client = Client::new(Settings { hello: job.ehlo.clone(), tls });
    let mut answers = Answers::of(to);
    let (mut flowing, mut dotted, mut lacked) = (false, false, false);
    let why = loop {
        match client.poll() {
            Step::Send(bytes) => {
                if let Err(error) = write_within(&mut wire, &bytes, timeouts::BLOCK).await {
                    tracing::debug!(%error, %host, "write");
                    client.closed();
                }
            }
            Step::Read(patience) => read(&mut wire, &mut client, patience).await,
            Step::StartTls => {
                let shaken = shared.tls.connect(wire, host, verify, HANDSHAKE).await;
                match shaken {
                    Ok((secured, facts)) => {
                        tracing::debug!(%host, version = facts.version,
                            verified = facts.pkix.is_ok(), "TLS");
                        wire = Box::new(secured);
                        client.secured();
                    }
                    Err(error) => return (Outcome::NoTls(format!("TLS: {error}")), false),
                }
            }
            Step::Ready => match answers.ask() {
                None => client.quit(),
                Some(recipients) => {
                    dotted = false;
                    if let Err(lack) = client.send(job.transaction(recipients)) {
                        answers.take(vec![lacking(&lack); to.len()], false);
                        lacked = true;
                        client.quit();
                    }
                }
            },
            Step::Body => {
                flowing = true;
                match flow(&mut wire, &mut client, content).await {
                    Ok(()) => dotted = true,
                    Err(Broke::Prepared) => {}
                    Err(Broke::Content) => {
                        let why = "the content broke off".to_owned();
                        return (Outcome::Broken(why), client.is_secured());
                    }
                    // What was said of single recipients before stands.
                    Err(Broke::Wire(error)) => {
                        tracing::debug!(%error, %host, "write of content");
                        client.closed();
                    }
                }
            }
            Step::Done(done) => answers.take(done, content.rewind()),
            // We never log in without being told to.
            Step::Challenge(_) | Step::LoginRefused(_) | Step::LoggedIn => client.cancel(),
            Step::Ended(ended) => break ended,
        }
    };
    let secured = client.is_secured();
    let results = answers.results();
    let temporary = |r: &RecipientResult| matches!(r, RecipientResult::Temporary(_));
    let outcome = match (results, why) {
        // It hung up before it had anything: RFC 5321 §5.1 has the next host tried.
        (Some(results), why)
            if !flowing && !lacked && why != Ended::Quit && results.iter().all(temporary) =>
        {
            Outcome::Nothing(described(&why))
        }
        (Some(results), why) => {
            let quit = why == Ended::Quit;
            let unsure = dotted && !matches!(why, Ended::Quit | Ended::Refused(_));
            let whose = move |result| match &result {
                RecipientResult::Permanent(_) if why == Ended::BadContent => (result, Whose::Ours),
                RecipientResult::Temporary(response) if !quit => {
                    let text = format!("{host}: {}", response.text());
                    let response = Response::made(response.code(), (4, 4, 2), &text);
                    (RecipientResult::Temporary(response), Whose::Ours)
                }
                _ if lacked => (result, Whose::Ours),
                RecipientResult::Delivered(_)
                | RecipientResult::Permanent(_)
                | RecipientResult::Temporary(_)
                | RecipientResult::Another => (result, Whose::Theirs),
            };
            Outcome::Answered(results.into_iter().map(whose).collect(), unsure)
        }
        (None, Ended::NoStartTls) => Outcome::NoTls("does not offer TLS".into()),
        (None, Ended::StartTlsRefused(response)) => {
            Outcome::NoTls(format!("STARTTLS refused: {}", response.text()))
        }
        (None, why) => Outcome::Nothing(described(&why)),
    };
    (outcome, secured)
}

/// What one server said of each recipient, over as many transactions as it wants.
struct Answers<'a> {
    all: Vec<(&'a Address, Option<RecipientResult>)>,
    /// Those of the present transaction, by their place.
    asked: Vec<usize>,
    /// Those of the next one.
    next: Vec<usize>,
}

impl<'a> Answers<'a> {
    fn of(to: &'a [Address]) -> Self {
        let all = to.iter().map(|to| (to, None)).collect();
        Self { all, asked: Vec::new(), next: (0..to.len()).collect() }
    }

    /// Whom the next transaction is for.
    fn ask(&mut self) -> Option<Vec<Address>> {
        self.asked = std::mem::take(&mut self.next);
        let recipients = self.asked.iter().filter_map(|&at| self.all.get(at));
        let recipients: Vec<Address> = recipients.map(|(to, _)| (*to).clone()).collect();
        Some(recipients).filter(|recipients| !recipients.is_empty())
    }

    /// The answers of a transaction. Those it had no room for come next, as long as there is content
    /// for them and each one brings us further.
    fn take(&mut self, results: Vec<RecipientResult>, has_content: bool) {
        let asked = std::mem::take(&mut self.asked);
        let mut another = Vec::new();
        for (&at, result) in asked.iter().zip(results) {
            if result == RecipientResult::Another {
                another.push(at);
            }
            if let Some((_, slot)) = self.all.get_mut(at) {
                *slot = Some(result);
            }
        }
        if has_content && another.len() < asked.len() {
            self.next = another;
        }
    }

    /// None when nothing was said at all.
    fn results(self) -> Option<Vec<RecipientResult>> {
        self.all.into_iter().map(|(_, result)| result).collect()
    }
}

impl Job {
    fn transaction(&self, recipients: Vec<Address>) -> Transaction {
        Transaction {
            from: self.from.clone(),
            recipients,
            size: self.size,
            eight_bit: self.eight_bit,
            smtputf8: self.smtputf8,
            requiretls: self.requiretls,
        }
    }
}

fn lacking(lack: &Lack) -> RecipientResult {
    let text = lack.to_string();
    RecipientResult::Permanent(match lack {
        // RFC 6531 §3.5.
        Lack::SmtpUtf8 => Response::made(553, (5, 6, 7), &text),
        // RFC 8689 §4.2.1.
        Lack::RequireTls => Response::made(550, (5, 7, 30), &text),
        // RFC 1870 §6.
        Lack::Size(_) => Response::made(552, (5, 3, 4), &text),
    })
}

fn described(ended: &Ended) -> String {
    match ended {
        Ended::Quit => "the session ended early".into(),
        Ended::Refused(response) => format!("{} {}", response.code(), response.text()),
        Ended::NoStartTls => "does not offer TLS".into(),
        Ended::StartTlsRefused(response) => format!("STARTTLS refused: {}", response.text()),
        Ended::Injected => "octets in the clear before the TLS handshake".into(),
        Ended::TimedOut => "no answer in time".into(),
        Ended::Closed => "connection closed".into(),
        Ended::Protocol(error) => error.to_string(),
        Ended::BadContent => "the content has bare line ends".into(),
    }
}

async fn read(wire: &mut Box<dyn Wire>, client: &mut Client, patience: Duration) {
    let mut buffer = [0; READ];
    match timeout(patience, wire.read(&mut buffer)).await {
        Ok(Ok(0) | Err(_)) => client.closed(),
        Ok(Ok(octets)) => client.received(buffer.get(..octets).unwrap_or_default()),
        Err(_) => client.timed_out(),
    }
}

/// Why content stopped.
enum Broke {
    /// It cannot be sent; the client's next step says so.
    Prepared,
    /// Whoever sends it went away.
    Content,
    /// The server did.
    Wire(net::WriteError),
}

/// Content to the socket, the last dot behind it.
async fn flow(
    wire: &mut Box<dyn Wire>,
    client: &mut Client,
    content: &mut Content,
) -> Result<(), Broke> {
    let mut out = Vec::new();
    loop {
        out.clear();
        let chunk = content.next().await.map_err(|Gone| Broke::Content)?;
        let prepared = match &chunk {
            Some(chunk) => client.body(chunk, &mut out),
            None => client.body_end(&mut out),
        };
        prepared.map_err(|_| Broke::Prepared)?;
        write_within(wire, &out, timeouts::BLOCK).await.map_err(Broke::Wire)?;
        if chunk.is_none() {
            return Ok(());
        }
    }
}
