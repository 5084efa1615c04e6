//! Carries one connection: does what the pure session says, with deadlines on everything.

use crate::store::Store;
use daemon::{Count, Figures, Stop, Time};
use net::{Certificates, Conn, TlsAcceptor, flush_within, write_within};
use rustls::CipherSuite;
use smtp::server::{Answer, Connection, Now, Peer, Question, Settings, Step};
use std::{
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use types::{Clock, SessionId};

/// Octets read at once: little while commands come, more while a message does.
const SMALL_READ: usize = 4 << 10;
const LARGE_READ: usize = 32 << 10;
/// Slow mode: a second for each read and each octet written, as long as a deadline is not near.
const SLOW: Duration = Duration::from_secs(1);
/// What of a write deadline is left when slow mode gives the rest at once.
const SLOW_RESERVE: Duration = Duration::from_secs(5);
/// After our last word: how long, and how much, a client may still send before we close. Closing
/// on unread octets would make its network drop that last word.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER: usize = 256 << 10;

/// One listener's ways.
pub struct Service {
    /// `LISTENER/KIND`.
    pub name: String,
    /// What the session is told.
    pub settings: Arc<Settings>,
    /// For STARTTLS and implicit TLS.
    pub tls: TlsAcceptor,
    /// Behind `tls`: without any, STARTTLS is not offered.
    pub certificates: Certificates,
    /// How long a client may take none of what we write.
    pub write: Duration,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub figures: Figures,
    /// When to end.
    pub stop: Stop,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The client.
    pub peer: SocketAddr,
    /// Our address.
    pub local: IpAddr,
    /// Its name in replies, Received and logs.
    pub id: SessionId,
}

/// Serves one connection to its end.
pub async fn serve_connection<S>(stream: S, origin: Origin, service: Rc<Service>, store: Store)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let figures = service.figures;
    figures.count(Count::ConnectionsTotal);
    figures.add(Count::Connections, 1);
    let _open = Open(figures);
    tracing::info!(session = %origin.id, peer = %origin.peer, service = service.name, "connected");
    let started = service.clock.monotonic();
    let mut settings = Arc::clone(&service.settings);
    if settings.starttls && !service.certificates.are_there().await {
        // Without a certificate the handshake could only fail, and clients would go away for good.
        let mut without = Settings::clone(&settings);
        without.starttls = false;
        settings = Arc::new(without);
    }
    let now = Now { mono: started, wall: service.clock.now() };
    let peer = Peer { ip: origin.peer.ip(), id: origin.id };
    let carrier = Carrier {
        conn: Some(Conn::Plain(stream)),
        machine: Connection::new(settings, peer, now),
        store,
        buffer: vec![0; SMALL_READ],
        stopped: false,
        service,
        origin,
    };
    let why = carrier.run().await;
    tracing::info!(session = %origin.id, why, "disconnected");
}

struct Open(Figures);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lower(Count::Connections);
    }
}

struct Carrier<S> {
    /// None after a failed handshake only.
    conn: Option<Conn<S>>,
    machine: Connection,
    store: Store,
    buffer: Vec<u8>,
    stopped: bool,
    service: Rc<Service>,
    origin: Origin,
}

/// The connection is gone.
struct Gone(&'static str);

impl<S> Carrier<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn now(&self) -> Now {
        Now { mono: self.service.clock.monotonic(), wall: self.service.clock.now() }
    }

    /// To the end; gives a word about it for the log.
    async fn run(mut self) -> &'static str {
        loop {
            let turn = self.step().await;
            let tally = self.machine.take_tally();
            self.service.figures.add(Count::SmtpCommands, tally.commands);
            self.service.figures.add(Count::SmtpErrors, tally.refusals);
            match turn {
                Ok(Turn::Next) => {}
                Ok(Turn::Last) => {
                    self.linger().await;
                    return "closed";
                }
                Err(Gone(why)) => return why,
            }
        }
    }

    async fn step(&mut self) -> Result<Turn, Gone> {
        match self.machine.poll(self.now()) {
            Step::Send(bytes) => self.send(&bytes).await?,
            Step::Read(within) => self.read(within).await?,
            Step::Ask(question) => {
                let answer = self.ask(question).await;
                self.machine.answer(answer, self.now());
            }
            Step::Content(bytes) => {
                if !self.store.content(&bytes).await {
                    self.machine.content_lost();
                }
            }
            Step::Forget => self.store.forget(),
            Step::StartTls => self.start_tls().await?,
            Step::Pause(time) => self.pause(time).await,
            Step::Close => return Ok(Turn::Last),
        }
        Ok(Turn::Next)
    }

    async fn ask(&mut self, question: Question) -> Answer {
        let commit = matches!(question, Question::Commit(_));
        let began = self.service.clock.monotonic();
        let answer = self.store.ask(question).await;
        if commit {
            let took = self.service.clock.monotonic().saturating_duration_since(began);
            self.service.figures.observe(Time::SmtpData, took);
            if self.store.is_unheard() && self.has_spoken_early().await {
                self.store.leave_unheard();
            }
        }
        answer
    }

    /// Whether the client said more without waiting for the answer that is about to be given (RFC
    /// 2920): then what it says next tells nothing of its having heard that. What is on its way at
    /// this moment cannot be seen and passes for said afterwards: the price, if such an answer is
    /// lost, is a message that comes twice.
    async fn has_spoken_early(&mut self) -> bool {
        if self.machine.has_unread() {
            return true;
        }
        let Some(conn) = &mut self.conn else { return true };
        let mut read = ReadBuf::new(&mut self.buffer);
        // Ready also at its end, or broken: the next read meets that again.
        let look = poll_fn(|context| {
            Poll::Ready(Pin::new(&mut *conn).poll_read(context, &mut read).is_ready())
        });
        // Or the runtime may say that nothing is there because it is somebody else's turn.
        let early = tokio::task::unconstrained(look).await;
        self.machine.received(read.filled());
        early
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let Some(conn) = &mut self.conn else { return Err(Gone("gone")) };
        let write = self.service.write;
        let mut rest = bytes;
        if self.machine.is_slow() {
            let until = tokio::time::Instant::now() + write.saturating_sub(SLOW_RESERVE);
            while let Some((first, tail)) = rest.split_first() {
                if tokio::time::Instant::now() + SLOW > until || self.service.stop.is_draining() {
                    break;
                }
                write_within(conn, &[*first], write).await.map_err(|_| Gone("write failed"))?;
                flush_within(conn, write).await.map_err(|_| Gone("write failed"))?;
                tokio::time::sleep(SLOW).await;
                rest = tail;
            }
        }
        write_within(conn, rest, write).await.map_err(|_| Gone("write failed"))?;
        flush_within(conn, write).await.map_err(|_| Gone("write failed"))
    }

    async fn read(&mut self, within: Duration) -> Result<(), Gone> {
        if self.machine.is_slow() {
            self.pause(SLOW).await;
        }
        let Some(conn) = &mut self.conn else { return Err(Gone("gone")) };
        let stop = async {
            if self.stopped {
                std::future::pending::<()>().await;
            }
            self.service.stop.draining().await;
        };
        let read = tokio::select! {
            biased;
            () = stop => {
                self.stopped = true;
                self.machine.stop(self.now());
                return Ok(());
            }
            read = tokio::time::timeout(within, conn.read(&mut self.buffer)) => read,
        };
        match read {
            Err(_) => self.machine.timed_out(self.now()),
            Ok(Ok(0)) => return Err(Gone("client closed")),
            Ok(Ok(count)) => {
                // It is asked for only when all that is to be said was sent.
                self.store.heard();
                self.machine.received(self.buffer.get(..count).unwrap_or_default());
                self.fit_buffer(count);
            }
            Ok(Err(_)) => return Err(Gone("connection broken")),
        }
        Ok(())
    }

    /// Thousands of quiet connections must not hold a large buffer each.
    fn fit_buffer(&mut self, count: usize) {
        if count == self.buffer.len() {
            self.buffer.resize(LARGE_READ, 0);
        } else if count < SMALL_READ && self.buffer.len() > SMALL_READ {
            self.buffer = vec![0; SMALL_READ];
        }
    }

    async fn pause(&self, time: Duration) {
        // A process that is to stop has no time for manners.
        tokio::select! {
            biased;
            _ = self.service.stop.draining() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    async fn start_tls(&mut self) -> Result<(), Gone> {
        let Some(Conn::Plain(stream)) = self.conn.take() else { return Err(Gone("gone")) };
        let figures = self.service.figures;
        let began = self.service.clock.monotonic();
        let shaken = tokio::time::timeout(self.service.handshake, self.service.tls.accept(stream));
        match shaken.await {
            Ok(Ok((stream, facts))) => {
                let took = self.service.clock.monotonic().saturating_duration_since(began);
                figures.observe(Time::Handshake, took);
                figures.count(Count::TlsHandshakes);
                let told = smtp::TlsFacts {
                    version: version(facts.version).to_owned(),
                    cipher: cipher(facts.cipher_suite),
                };
                self.conn = Some(Conn::Tls(Box::new(stream)));
                self.store.secured(facts);
                self.machine.secured(told, self.now());
                Ok(())
            }
            Ok(Err(error)) => {
                figures.count(Count::TlsFailures);
                tracing::debug!(session = %self.origin.id, %error, "no TLS");
                Err(Gone("TLS handshake failed"))
            }
            Err(_) => {
                figures.count(Count::TlsFailures);
                Err(Gone("TLS handshake not done in time"))
            }
        }
    }

    /// Says good-bye, and lets the client's last octets go by.
    async fn linger(&mut self) {
        let Some(conn) = &mut self.conn else { return };
        let farewell = async {
            if conn.shutdown().await.is_err() {
                return;
            }
            let mut seen = 0;
            while seen < MAX_LINGER {
                match conn.read(&mut self.buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => seen += count,
                }
            }
        };
        // Whatever it does, the time is short and nothing depends on it.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}

enum Turn {
    Next,
    Last,
}

fn version(code: u16) -> &'static str {
    match code {
        0x0304 => "TLSv1.3",
        0x0303 => "TLSv1.2",
        _ => "TLS",
    }
}

/// The name in the IANA table.
fn cipher(code: u16) -> String {
    let name = CipherSuite::from(code).as_str().unwrap_or("unknown");
    name.replace("TLS13_", "TLS_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_tls() {
        assert_eq!(cipher(0x1301), "TLS_AES_128_GCM_SHA256");
        assert_eq!(cipher(0xc02f), "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
        assert_eq!((version(0x0304), cipher(0x7777)), ("TLSv1.3", "unknown".to_owned()));
    }
}
