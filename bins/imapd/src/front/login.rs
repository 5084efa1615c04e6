//! A connection until somebody logged in.

use super::{Accepted, LATER, LOGIN, Shared, Start, hand_over::HandOver, relay::Handed};
use crate::peer::Peer;
use imap::{
    Event, Limits, Out, Piece, Reader, Tag,
    front::{Failure, Front, Next, Security, Step},
};
use ipc::{
    capnp,
    schema::auth_capnp::{self as auth, exchange, step, success},
    within,
};
use net::{Conn, TlsAcceptor, write_within};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};
use types::Secret;

/// A connection may stay without a log-in for this long, whatever it says.
const WHOLE: Duration = Duration::from_secs(180);

/// What a log-in gave.
struct LoggedIn {
    instance: u16,
    ticket: Vec<u8>,
    login: String,
}

/// What the checking side answered, taken out of its message.
enum Answer {
    Challenge(Vec<u8>, exchange::Client),
    Success(LoggedIn, Option<Vec<u8>>),
    Failure(Failure),
}

struct Login<'a, S> {
    shared: &'a Shared,
    accepted: &'a Accepted,
    peer: &'a mut Peer,
    conn: Conn<S>,
    front: Front,
    reader: Reader,
    out: Out,
    /// Read and not fed to the reader yet.
    pending: Vec<u8>,
    exchange: Option<exchange::Client>,
    logged_in: Option<LoggedIn>,
}

/// Speaks with a client until it is logged in and handed over, or gone.
pub(super) async fn until_log_in<S>(
    shared: &Shared,
    accepted: &Accepted,
    peer: &mut Peer,
    conn: Conn<S>,
    start: Start,
) -> Option<Handed<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let security = match (conn.is_tls(), accepted.listener.starttls) {
        (true, _) => Security::Tls,
        (false, true) => Security::PlainWithStartTls,
        (false, false) => Security::Plain,
    };
    let mut login = Login {
        shared,
        accepted,
        peer,
        conn,
        front: Front::new(security, Vec::new(), 0),
        reader: Reader::new(Limits::FRONT),
        out: Out::new(),
        pending: Vec::new(),
        exchange: None,
        logged_in: None,
    };
    let announced = match start {
        Start::Greet(announced) => announced.to(login.peer),
        Start::TurnAway(why) => {
            Front::turn_away(&mut login.out, why);
            login.flush().await?;
            return None;
        }
    };
    let mechanisms = match announced {
        Some(mechanisms) => Some(mechanisms),
        None => login.asked_mechanisms().await,
    };
    let Some(mechanisms) = mechanisms else {
        Front::turn_away(&mut login.out, LATER);
        login.flush().await?;
        return None;
    };
    login.front = Front::new(security, login.usable(mechanisms), shared.limits.failed_logins);
    login.front.greet(&mut login.out);
    timeout(WHOLE, login.talk()).await.unwrap_or_default()
}

impl<S> Login<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    async fn talk(mut self) -> Option<Handed<S>> {
        let mut next = Next::Read;
        loop {
            next = match next {
                Next::Read => self.read(false).await?,
                Next::ReadLine => self.read(true).await?,
                Next::StartTls => {
                    self.flush().await?;
                    self = self.start_tls().await?;
                    Next::Read
                }
                Next::Start { mechanism, initial } => {
                    self.front.agent().clone_into(&mut self.peer.agent);
                    let answer = self.start(&mechanism, initial.as_ref()).await;
                    self.step(answer)
                }
                Next::Respond(data) => {
                    let answer = match self.exchange.take() {
                        Some(exchange) => self.respond(&exchange, &data).await,
                        None => Answer::Failure(Failure::Temporary),
                    };
                    self.step(answer)
                }
                Next::Cancel => {
                    self.exchange = None;
                    self.logged_in = None;
                    Next::Read
                }
                Next::HandOver { tag, authenticate } => {
                    self.flush().await?;
                    match self.send_away(tag.clone(), authenticate).await {
                        Some(session) => return Some(Handed { client: self.conn, session, tag }),
                        None => self.front.hand_over_failed(&tag, &mut self.out),
                    }
                }
                Next::Close => {
                    self.flush().await?;
                    let _ = timeout(Duration::from_secs(1), self.conn.shutdown()).await;
                    return None;
                }
            };
        }
    }

    /// Reads until there is something to do. None: the client is gone.
    async fn read(&mut self, line: bool) -> Option<Next> {
        if line {
            self.reader.expect_line();
        }
        loop {
            let mut input = self.pending.as_slice();
            let event = self.reader.feed(&mut input);
            let used = self.pending.len() - input.len();
            self.pending.drain(..used);
            match event {
                Event::More => {
                    self.flush().await?;
                    self.fill().await?;
                }
                Event::Continue => self.out.text("+ \r\n"),
                Event::Command(frame) => return Some(self.front.command(&frame, &mut self.out)),
                Event::Line(line) => return Some(self.front.line(&line, &mut self.out)),
                Event::Refused(refusal) => {
                    return Some(self.front.refused(&refusal, &mut self.out));
                }
                // Without a limit for messages the reader knows no APPEND.
                Event::Append(_) | Event::Message(_) | Event::MessageEnd => return None,
            }
        }
    }

    async fn fill(&mut self) -> Option<()> {
        let mut buffer = [0; 4096];
        let wait = self.shared.limits.idle_before_login;
        let draining = self.shared.stop.draining();
        let read = tokio::select! {
            biased;
            read = timeout(wait, self.conn.read(&mut buffer)) => read,
            _ = draining => {
                self.out.text("* BYE shutting down\r\n");
                self.flush().await?;
                return None;
            }
        };
        match read {
            Ok(Ok(count)) if count > 0 => {
                self.pending.extend_from_slice(&buffer[..count]);
                Some(())
            }
            Ok(_) => None,
            Err(_late) => {
                self.out.text("* BYE no log-in in time\r\n");
                self.flush().await?;
                None
            }
        }
    }

    async fn flush(&mut self) -> Option<()> {
        for piece in self.out.take() {
            // Before log-in there is no content to stream.
            let Piece::Bytes(bytes) = piece else { return None };
            write_within(&mut self.conn, &bytes, self.shared.limits.write).await.ok()?;
        }
        net::flush_within(&mut self.conn, self.shared.limits.write).await.ok()
    }

    async fn start_tls(mut self) -> Option<Self> {
        // CVE-2011-0411 and its kin: octets sent in the clear behind STARTTLS must never be taken
        // for commands inside TLS.
        if !self.pending.is_empty() {
            tracing::warn!(session = %self.peer.session, "octets behind STARTTLS");
            return None;
        }
        let Conn::Plain(stream) = self.conn else { return None };
        let tls: &TlsAcceptor = &self.accepted.tls;
        let shaken = timeout(self.shared.limits.tls_handshake, tls.accept(stream)).await;
        let (stream, facts) = match shaken {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => {
                tracing::debug!(session = %self.peer.session, %error, "no TLS");
                return None;
            }
            Err(late) => {
                tracing::debug!(session = %self.peer.session, %late, "no TLS");
                return None;
            }
        };
        self.peer.tls = facts.into();
        self.conn = Conn::Tls(Box::new(stream));
        self.reader = Reader::new(Limits::FRONT);
        let Some(mechanisms) = self.asked_mechanisms().await else {
            // A server without any mechanism is one a client gives up for good.
            Front::turn_away(&mut self.out, "try again later");
            self.flush().await?;
            return None;
        };
        self.front.tls_started(self.usable(mechanisms));
        Some(self)
    }

    /// Whether nobody may log in before TLS. accountd decides the same by the listener's name; here
    /// it keeps a password from leaving this process.
    fn tls_missing(&self) -> bool {
        self.accepted.listener.require_tls && !self.conn.is_tls()
    }

    /// None: accountd is away.
    async fn asked_mechanisms(&self) -> Option<Vec<String>> {
        self.shared.accountd.mechanisms(self.peer).await
    }

    fn usable(&self, mut mechanisms: Vec<String>) -> Vec<String> {
        // SASL LOGIN is a habit of SMTP clients; IMAP has a command for it.
        mechanisms.retain(|name| name != "LOGIN" && !self.tls_missing());
        mechanisms
    }

    async fn start(&self, mechanism: &str, initial: Option<&Secret<Vec<u8>>>) -> Answer {
        if self.tls_missing() {
            return Answer::Failure(Failure::TlsRequired);
        }
        let Ok(authenticator) = self.shared.accountd.authenticator().await else {
            return Answer::Failure(Failure::Temporary);
        };
        let mut request = authenticator.start_request();
        let mut params = request.get();
        params.set_mechanism(mechanism);
        self.peer.write(params.reborrow().init_peer());
        params.set_has_initial(initial.is_some());
        if let Some(initial) = initial {
            params.set_initial(initial.expose());
        }
        match within(LOGIN, request.send().promise).await {
            Ok(answer) => read_step(answer.get().and_then(|answer| answer.get_step())),
            Err(_) => Answer::Failure(Failure::Temporary),
        }
    }

    async fn respond(&self, exchange: &exchange::Client, data: &Secret<Vec<u8>>) -> Answer {
        let mut request = exchange.respond_request();
        request.get().set_data(data.expose());
        match within(LOGIN, request.send().promise).await {
            Ok(answer) => read_step(answer.get().and_then(|answer| answer.get_step())),
            Err(_) => Answer::Failure(Failure::Temporary),
        }
    }

    fn step(&mut self, answer: Answer) -> Next {
        match answer {
            Answer::Challenge(data, exchange) => {
                self.exchange = Some(exchange);
                self.front.step(&Step::Challenge(&data), &mut self.out)
            }
            Answer::Success(logged_in, additional) => {
                self.logged_in = Some(logged_in);
                self.front.step(&Step::Success(additional.as_deref()), &mut self.out)
            }
            Answer::Failure(why) => {
                tracing::info!(session = %self.peer.session, ip = %self.peer.ip, ?why, "log-in failed");
                self.front.step(&Step::Failure(why), &mut self.out)
            }
        }
    }

    /// Hands the connection over, or says why not. On failure the client may try again.
    async fn send_away(&mut self, tag: Tag, authenticate: bool) -> Option<UnixStream> {
        let logged_in = self.logged_in.take()?;
        let dialer = self.shared.sessions.get(&logged_in.instance)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().ok()?;
        ours.set_nonblocking(true).ok()?;
        theirs.set_nonblocking(true).ok()?;
        let hand_over = HandOver {
            ticket: logged_in.ticket,
            peer: self.peer.clone(),
            tag,
            login: logged_in.login,
            buffered: self.pending.clone(),
            authenticate,
        };
        let ours = UnixStream::from_std(ours).ok()?;
        let message = hand_over.encode();
        if let Err(error) = dialer.hand_over(&message, &theirs.into()).await {
            tracing::warn!(session = %self.peer.session, %error, "no session to hand over to");
            return None;
        }
        tracing::info!(
            session = %self.peer.session,
            ip = %self.peer.ip,
            login = hand_over.login,
            instance = logged_in.instance,
            "logged in"
        );
        Some(ours)
    }
}

fn read_step(step: Result<step::Reader<'_>, capnp::Error>) -> Answer {
    let read = || -> Result<Answer, capnp::Error> {
        let step = step?;
        Ok(match step.which()? {
            step::Challenge(challenge) => {
                Answer::Challenge(challenge.get_data()?.to_vec(), challenge.get_exchange()?)
            }
            step::Success(success) => read_success(success?)?,
            step::Failure(why) => Answer::Failure(failure(why?, step.get_told()?.to_str()?)),
        })
    };
    read().unwrap_or_else(|error| {
        tracing::error!(%error, "accountd broke the contract of Authenticator");
        Answer::Failure(Failure::Temporary)
    })
}

fn read_success(success: success::Reader<'_>) -> Result<Answer, capnp::Error> {
    let login = success.get_login()?.to_str()?.to_owned();
    let additional =
        if success.get_has_additional() { Some(success.get_additional()?.to_vec()) } else { None };
    match success.which()? {
        success::HandOver(to) => {
            let logged_in = LoggedIn {
                instance: to.get_session_instance(),
                ticket: to.get_ticket()?.to_vec(),
                login,
            };
            Ok(Answer::Success(logged_in, additional))
        }
        success::Submitter(_) | success::Account(_) => {
            Err(capnp::Error::failed("a log-in gave what is not for front".into()))
        }
    }
}

fn failure(why: auth::Failure, told: &str) -> Failure {
    match why {
        auth::Failure::BadCredentials => Failure::BadCredentials,
        auth::Failure::BadMessage | auth::Failure::Cancelled => Failure::BadMessage,
        auth::Failure::UnknownMechanism => Failure::UnknownMechanism,
        auth::Failure::TlsRequired => Failure::TlsRequired,
        auth::Failure::TooManyFailures => Failure::TooManyFailures,
        auth::Failure::Temporary => Failure::Temporary,
        auth::Failure::AccountDisabled => Failure::Disabled(told.to_owned()),
        auth::Failure::ChannelBinding => Failure::ChannelBinding,
    }
}
