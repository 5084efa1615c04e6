//! One job's way over the hosts of its domain, until one took it or refused it for good.
//!
//! Content is not kept here: it comes through a channel of one chunk, straight from queue-runner's
//! spool to the socket. So it can be sent once; a host that fails in the middle of it means "try
//! again later", which is what RFC 5321 §4.5.4.1 wants of a sender anyway.

use crate::{
    Shared,
    job::{Job, Tls},
    route::NoRoute,
};
use net::{Verify, write_within};
use smtp::{
    Response,
    client::{Client, Ended, Lack, RecipientResult, Settings, Step, TlsUse, Transaction, timeouts},
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};
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
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) results: Vec<(Address, RecipientResult, Whose)>,
    pub(crate) host: String,
    pub(crate) log: Vec<String>,
    pub(crate) tls: bool,
}

/// Who speaks in a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The server.
    Theirs,
    /// We, about it.
    Ours,
}

/// A message's content on its way; ends with `None`. A sender that goes away before the end drops
/// the channel and with it the job.
pub(crate) type Content = mpsc::Receiver<Option<Vec<u8>>>;

trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// How one connection ended.
enum Outcome {
    /// Each recipient was answered.
    Answered(Vec<(RecipientResult, Whose)>),
    /// Nothing was said about the recipients, no content went out: another host may be tried.
    Nothing(String),
    /// TLS did not come about; in clear it might.
    NoTls(String),
    /// It broke after content began to flow.
    Broken(String),
}

/// Delivers.
pub(crate) async fn run(shared: &Shared, job: &Job, mut content: Content) -> Report {
    let mut report = Report::default();
    let (hosts, certain) = match shared.hosts(&job.domain).await {
        Ok(found) => found,
        Err(why) => {
            report.log(format!("{}: {why}", job.domain));
            report.fail_all(job, &no_route(&why));
            return report;
        }
    };
    if job.requiretls && !certain {
        // RFC 8689 §4.2.1: without a signed MX the name of the host proves nothing.
        let why = "REQUIRETLS: the domain's MX is not signed (DNSSEC)";
        report.log(format!("{}: {why}", job.domain));
        report.fail_all(job, &no_tls(why));
        return report;
    }
    let mut last = "no host of the domain has an address".to_owned();
    // What holds for every host: it has no address for certain, or no TLS.
    let (mut nowhere, mut never_tls) = (true, true);
    for host in hosts {
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
            let (outcome, tls) = try_address(shared, job, &host, ip, &mut content).await;
            report.host = host.to_string();
            report.tls = tls;
            match outcome {
                Outcome::Answered(results) => {
                    report.log(format!("{host} [{ip}]: answered"));
                    let recipients = job.recipients.iter().cloned();
                    let results = recipients.zip(results).map(|(to, (what, who))| (to, what, who));
                    report.results = results.collect();
                    return report;
                }
                Outcome::Broken(why) => {
                    report.log(format!("{host} [{ip}]: {why}"));
                    report.fail_all(job, &temporary(&why));
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
    report.fail_all(job, &result);
    report
}

impl Report {
    fn log(&mut self, line: String) {
        if self.log.len() < MAX_LOG {
            self.log.push(line);
        }
    }

    fn fail_all(&mut self, job: &Job, why: &RecipientResult) {
        let each = job.recipients.iter().map(|to| (to.clone(), why.clone(), Whose::Ours));
        self.results = each.collect();
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
    host: &Domain,
    ip: IpAddr,
    content: &mut Content,
) -> (Outcome, bool) {
    let wanted = match (job.tls, job.requiretls) {
        (Tls::Require, _) | (_, true) => TlsUse::Required,
        (Tls::Opportunistic, false) => TlsUse::Offered,
        (Tls::Never, false) => TlsUse::Never,
    };
    let first = talk(shared, job, host, ip, wanted, content).await;
    match first {
        (Outcome::NoTls(why), _) if wanted == TlsUse::Offered => {
            tracing::info!(%host, %ip, why, "TLS failed, in clear");
            talk(shared, job, host, ip, TlsUse::Never, content).await
        }
        other => other,
    }
}

async fn connect(shared: &Shared, ip: IpAddr) -> io::Result<TcpStream> {
    let (socket, bind) = match ip {
        IpAddr::V4(_) => (TcpSocket::new_v4()?, shared.source.iter().find(|ip| ip.is_ipv4())),
        IpAddr::V6(_) => (TcpSocket::new_v6()?, shared.source.iter().find(|ip| ip.is_ipv6())),
    };
    if let Some(source) = bind {
        socket.bind(SocketAddr::new(*source, 0))?;
    }
    let connecting = socket.connect(SocketAddr::new(ip, shared.port));
    timeout(CONNECT, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// One connection, from greeting to QUIT.
async fn talk(
    shared: &Shared,
    job: &Job,
    host: &Domain,
    ip: IpAddr,
    tls: TlsUse,
    content: &mut Content,
) -> (Outcome, bool) {
    let stream = match connect(shared, ip).await {
        Ok(stream) => stream,
        Err(error) => return (Outcome::Nothing(format!("connect: {error}")), false),
    };
    let mut wire: Box<dyn Wire> = Box::new(stream);
    // Who insists on TLS insists on the right server, too.
    let verify = if tls == TlsUse::Required { Verify::Pkix } else { Verify::Opportunistic };
    let mut client = Client::new(Settings { hello: job.ehlo.clone(), tls });
    let mut results: Option<Vec<RecipientResult>> = None;
    let (mut flowing, mut lacked) = (false, false);
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
            Step::Ready if results.is_some() => client.quit(),
            Step::Ready => {
                if let Err(lack) = client.send(job.transaction()) {
                    results = Some(vec![lacking(&lack); job.recipients.len()]);
                    lacked = true;
                    client.quit();
                }
            }
            Step::Body => {
                flowing = true;
                match flow(&mut wire, &mut client, content).await {
                    Ok(()) => {}
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
            Step::Done(done) => results = Some(done),
            // We never log in without being told to.
            Step::Challenge(_) | Step::LoginRefused(_) | Step::LoggedIn => client.cancel(),
            Step::Ended(ended) => break ended,
        }
    };
    let secured = client.is_secured();
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
            Outcome::Answered(results.into_iter().map(whose).collect())
        }
        (None, Ended::NoStartTls) => Outcome::NoTls("does not offer TLS".into()),
        (None, Ended::StartTlsRefused(response)) => {
            Outcome::NoTls(format!("STARTTLS refused: {}", response.text()))
        }
        (None, why) if flowing => Outcome::Broken(described(&why)),
        (None, why) => Outcome::Nothing(described(&why)),
    };
    (outcome, secured)
}

impl Job {
    fn transaction(&self) -> Transaction {
        Transaction {
            from: self.from.clone(),
            recipients: self.recipients.clone(),
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
    /// Whoever sends it went away.
    Content,
    /// The server did.
    Wire(net::WriteError),
}

/// Content from the channel to the socket. Content that cannot be sent ends the dialogue by itself:
/// the client's next step says so.
async fn flow(
    wire: &mut Box<dyn Wire>,
    client: &mut Client,
    content: &mut Content,
) -> Result<(), Broke> {
    let mut out = Vec::new();
    loop {
        out.clear();
        let chunk = content.recv().await.ok_or(Broke::Content)?;
        let ended = chunk.is_none();
        let prepared = match chunk {
            Some(chunk) => client.body(&chunk, &mut out),
            None => client.body_end(&mut out),
        };
        if prepared.is_err() {
            return Ok(());
        }
        write_within(wire, &out, timeouts::BLOCK).await.map_err(Broke::Wire)?;
        if ended {
            return Ok(());
        }
    }
}
