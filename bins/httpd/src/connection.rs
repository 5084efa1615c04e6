//! One connection, from its TLS handshake to its end.

use crate::{
    answer::Answer,
    figures::AllFigures,
    rate::Limiter,
    site::{Asked, Site, Step, forwarded_for},
};
use config::limits;
use daemon::{Count, Figures, Stop, Time};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::HOST,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use net::TlsAcceptor;
use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::Future,
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use types::Clock;

/// Fields of one request.
const MAX_FIELDS: usize = 100;
/// Requests of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 100;
/// Streams that an HTTP/2 client may open and reset before it is cut off (rapid reset).
const MAX_RESETS: usize = 20;
/// Octets of answers that wait on one HTTP/2 stream.
const MAX_UNSENT: usize = 64 * 1024;
/// The smallest buffer hyper works with.
const MIN_BUFFER: usize = 8 * 1024;
/// After the idle time a connection is asked to end; after this much more it is cut: its client
/// reads nothing.
const GRACE: Duration = Duration::from_secs(60);
/// How often an HTTP/2 client must show that it is there, and within which time.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);

/// ALPN of HTTP/2.
pub(crate) const H2: &[u8] = b"h2";
/// ALPN of HTTP/1.1.
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

/// What connections of one service share.
pub(crate) struct Service {
    pub(crate) site: Site,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) limits: limits::Http,
    pub(crate) limiter: Rc<RefCell<Limiter>>,
    pub(crate) all_figures: AllFigures,
    pub(crate) figures: Figures,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: Stop,
}

/// Serves a connection to its end.
pub(crate) async fn serve(service: Rc<Service>, stream: TcpStream, peer: IpAddr) {
    let figures = service.figures;
    figures.count(Count::ConnectionsTotal);
    figures.count(Count::Connections);
    let counted = Counted(figures);
    match &service.tls {
        None => {
            // RFC 9113 §3.1: HTTP/2 in the clear by prior knowledge is not offered.
            speak(&service, stream, peer, false).await;
        }
        Some(tls) => {
            let started = service.clock.monotonic();
            let accepted = timeout(service.limits.tls_handshake, tls.accept(stream)).await;
            match accepted {
                Ok(Ok((stream, facts))) => {
                    figures.count(Count::TlsHandshakes);
                    let took = service.clock.monotonic().saturating_duration_since(started);
                    figures.observe(Time::Handshake, took);
                    let http2 = facts.alpn.as_deref() == Some(H2);
                    speak(&service, stream, peer, http2).await;
                }
                Ok(Err(error)) => {
                    figures.count(Count::TlsFailures);
                    tracing::debug!(%peer, %error, "no TLS");
                }
                Err(_late) => {
                    figures.count(Count::TlsFailures);
                    tracing::debug!(%peer, "TLS handshake not done in time");
                }
            }
        }
    }
    drop(counted);
}

/// Takes the connection out of the count at its end, however that comes.
struct Counted(Figures);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.lower(Count::Connections);
    }
}

async fn speak<S>(service: &Rc<Service>, stream: S, peer: IpAddr, http2: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let busy = Rc::new(Cell::new(Instant::now()));
    let handler = {
        let (service, busy) = (Rc::clone(service), Rc::clone(&busy));
        service_fn(move |request: Request<Incoming>| {
            busy.set(Instant::now());
            let response = respond(&service, &request, peer);
            async move { Ok::<_, Infallible>(response) }
        })
    };
    let limits = &service.limits;
    let header = usize::try_from(limits.header_octets).unwrap_or(usize::MAX);
    let io = TokioIo::new(stream);
    if http2 {
        let mut builder = http2::Builder::new(LocalTasks);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .max_send_buf_size(MAX_UNSENT)
            .max_header_list_size(limits.header_octets)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG);
        let connection = builder.serve_connection(io, handler);
        drive(connection, |c| c.graceful_shutdown(), service, &busy).await;
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // Runs while the connection is idle, too: no client holds one longer than that.
            .header_read_timeout(limits.header)
            .max_headers(MAX_FIELDS)
            .max_buf_size(header.max(MIN_BUFFER));
        let connection = builder.serve_connection(io, handler);
        drive(connection, |c| c.graceful_shutdown(), service, &busy).await;
    }
}

/// Runs a connection until it is done, idle for too long, or the process drains.
async fn drive<C>(connection: C, end: impl Fn(Pin<&mut C>), service: &Service, busy: &Cell<Instant>)
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let mut draining = pin!(service.stop.draining());
    let mut ending: Option<Instant> = None;
    loop {
        let wake = ending.unwrap_or_else(|| busy.get() + service.limits.idle);
        tokio::select! {
            biased;
            done = &mut connection => {
                if let Err(error) = done {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
            _deadline = &mut draining, if ending.is_none() => {
                end(connection.as_mut());
                ending = Some(Instant::now() + GRACE);
            }
            () = sleep_until(wake) => {
                if ending.is_some() {
                    return;
                }
                if busy.get() + service.limits.idle <= Instant::now() {
                    end(connection.as_mut());
                    ending = Some(Instant::now() + GRACE);
                }
            }
        }
    }
}

fn respond(service: &Service, request: &Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
    let started = service.clock.monotonic();
    service.figures.count(Count::HttpRequests);
    let answer = answer(service, request, peer);
    tracing::debug!(
        %peer, method = %request.method(), status = answer.status.as_u16(), "a request"
    );
    if answer.status.is_server_error() {
        service.figures.count(Count::HttpErrors);
    }
    let response = answer.into_response(request.method());
    let took = service.clock.monotonic().saturating_duration_since(started);
    service.figures.observe(Time::HttpRequest, took);
    response
}

fn answer(service: &Service, request: &Request<Incoming>, peer: IpAddr) -> Answer {
    let listener = service.site.listener();
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if listener.rate_limit {
        // All X-Forwarded-For fields are one list; the proxy adds to the end of the last.
        let forwarded = request.headers().get_all("x-forwarded-for").iter().next_back();
        let client = forwarded
            .filter(|_| listener.forwarded)
            .and_then(|field| forwarded_for(field.to_str().ok()?))
            .unwrap_or(peer);
        if !service.limiter.borrow_mut().admit(client, service.clock.monotonic()) {
            return Answer::too_many();
        }
    }
    let uri = request.uri();
    // RFC 9112 §3.2: more than one Host is 400; §3.2.4: `*` is for OPTIONS alone.
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts > 1 || (uri.path() == "*" && request.method() != Method::OPTIONS) {
        return Answer::status(StatusCode::BAD_REQUEST);
    }
    // RFC 9113 §8.3.1: HTTP/2 names the host in :authority, which is in the URI here.
    let authority = uri.authority().map(|authority| authority.as_str());
    let asked = Asked {
        method: request.method(),
        path: uri.path(),
        query: uri.query(),
        host: authority.or_else(|| text(HOST.as_str())),
    };
    match service.site.step(asked, service.stop.is_draining()) {
        Step::Answer(answer) => answer,
        Step::Metrics => Answer::metrics(service.all_figures.text()),
    }
}

/// HTTP/2 streams as tasks of this thread.
#[derive(Clone, Copy)]
struct LocalTasks;

impl<F> hyper::rt::Executor<F> for LocalTasks
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
