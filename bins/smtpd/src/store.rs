//! A session's side of accountd: asks the questions, and turns the answers into ours at once.
//!
//! Whatever goes wrong here (accountd away, late, overloaded, of another mind) is one thing to the
//! client: a temporary refusal.

use crate::session::{Origin, Service};
use daemon::{Count, Figures};
use ipc::{
    Line, Unavailable, capnp,
    schema::{
        accountd_capnp::{door, gate, mx_door, submission_door},
        auth_capnp::{Failure, exchange, resume_submitter, step, success},
        inbound_capnp::{
            begun, committed, inbound, mail_params, message_sink, rcpt_outcome, refusal, submitter,
            transaction,
        },
        types_capnp::{handle, peer},
    },
    within,
};
use net::TlsFacts;
use smtp::{
    AdmitRefused, AuthRefused, Body, CommitRefused, DataRefused, ForwardPath, Hold, MailRefused,
    RcptRefused,
    server::{Answer, AuthAnswer, Begin, Question, Said},
};
use std::{net::IpAddr, time::Duration};
use types::Secret;

/// To come in. accountd away for longer is 421.
const ADMIT: Duration = Duration::from_secs(1);
/// RCPT, DATA, the list of mechanisms.
const CALL: Duration = Duration::from_secs(10);
/// MAIL: accountd may ask DNS.
const BEGIN: Duration = Duration::from_secs(60);
/// A step of a log-in: hashing waits its turn.
const LOGIN: Duration = Duration::from_secs(30);
/// One piece of content: a full disk or a busy account slows us, and with us the client.
const PIECE: Duration = Duration::from_secs(60);
/// The end of DATA. Clients wait ten minutes (RFC 5321 §4.5.3.2.6); we answer before they leave.
const COMMIT: Duration = Duration::from_secs(8 * 60);

/// The line to accountd, by role.
#[derive(Clone)]
pub enum Doors {
    /// Strangers.
    Mx(Line<mx_door::Client>),
    /// Users.
    Submission(Line<submission_door::Client>),
}

/// One session's objects in accountd; dropped with the session.
pub struct Store {
    doors: Doors,
    origin: Origin,
    listener: String,
    tls: Option<TlsFacts>,
    figures: Figures,
    /// Its place in the limit of connections, held while it lives.
    pass: Option<handle::Client>,
    exchange: Option<exchange::Client>,
    submitter: Option<User>,
    transaction: Option<transaction::Client>,
    sink: Option<message_sink::Client>,
    /// Of a submission that was taken: nobody knows yet whether its client heard that.
    unheard: Option<message_sink::Client>,
}

/// A user who is logged in.
struct User {
    submitter: submitter::Client,
    ticket: Secret<Vec<u8>>,
}

type Call<T> = Result<T, Unavailable>;

impl Store {
    /// Before the first question.
    #[must_use]
    pub fn new(doors: Doors, origin: Origin, service: &Service) -> Self {
        Self {
            doors,
            origin,
            listener: service.name.clone(),
            tls: None,
            figures: service.figures,
            pass: None,
            exchange: None,
            submitter: None,
            transaction: None,
            sink: None,
            unheard: None,
        }
    }

    /// The connection is over TLS now.
    pub(crate) fn secured(&mut self, facts: TlsFacts) {
        self.tls = Some(facts);
    }

    /// Drops what belongs to the transaction or log-in under way. A sink that is dropped before
    /// its commit never was.
    pub(crate) fn forget(&mut self) {
        self.exchange = None;
        self.transaction = None;
        self.sink = None;
    }

    /// Finds out.
    pub async fn ask(&mut self, question: Question) -> Answer {
        match question {
            Question::Admit => Answer::Admit(self.admit().await),
            Question::Mechanisms => Answer::Mechanisms(self.mechanisms().await),
            Question::AuthStart { mechanism, initial, agent } => {
                Answer::Auth(self.login(&mechanism, initial, &agent).await)
            }
            Question::AuthRespond(data) => Answer::Auth(self.respond(&data).await),
            Question::Begin(begin) => Answer::Begin(self.begin(&begin).await),
            Question::Recipient(path) => Answer::Recipient(self.recipient(&path).await),
            Question::OpenData => Answer::OpenData(self.open_data().await),
            Question::Commit(received) => {
                let outcome = self.commit(&received).await;
                self.count(&outcome);
                Answer::Commit(outcome)
            }
        }
    }

    async fn door(&self) -> Call<door::Client> {
        use capnp::capability::FromClientHook as _;
        Ok(match &self.doors {
            Doors::Mx(line) => line.client().await?.cast_to(),
            Doors::Submission(line) => line.client().await?.cast_to(),
        })
    }

    /// Its turn among the short calls of this process; an accountd that hangs must not make
    /// sessions wait without end.
    async fn permit(&self) -> Call<ipc::Permit> {
        let turn = async {
            match &self.doors {
                Doors::Mx(line) => line.permit().await,
                Doors::Submission(line) => line.permit().await,
            }
        };
        tokio::time::timeout(CALL, turn).await.map_err(|_| Unavailable::Late)
    }

    async fn submission(&self) -> Call<submission_door::Client> {
        match &self.doors {
            Doors::Submission(line) => line.client().await,
            // The session never asks this on port 25; if it did, there is nobody to answer.
            Doors::Mx(_) => Err(Unavailable::Away),
        }
    }

    fn describe(&self, mut to: peer::Builder<'_>) {
        set_ip(self.origin.peer.ip(), |octets| to.set_ip(octets));
        to.set_port(self.origin.peer.port());
        set_ip(self.origin.local, |octets| to.set_local_ip(octets));
        to.set_session(self.origin.id.as_bytes());
        to.set_listener(&self.listener);
        if let Some(facts) = &self.tls {
            let mut tls = to.init_tls();
            tls.set_version(facts.version);
            tls.set_cipher_suite(facts.cipher_suite);
            tls.set_exporter(facts.exporter.as_ref().map_or(&[], |octets| &octets[..]));
            tls.set_end_point(facts.end_point.as_deref().unwrap_or_default());
            tls.set_client_key(facts.client_key.as_ref().map_or(&[], |octets| &octets[..]));
            if let Some(name) = &facts.server_name {
                tls.set_server_name(name.as_ascii());
            }
        }
    }

    async fn admit(&mut self) -> Result<(), AdmitRefused> {
        let asked = tokio::time::timeout(ADMIT, async {
            let door = self.door().await?;
            let _permit = self.permit().await?;
            let mut request = door.gate_request().send().pipeline.get_gate().enter_request();
            self.describe(request.get().init_peer());
            within(ADMIT, async {
                let answer = request.send().promise.await?;
                Ok(match answer.get()?.get_verdict()?.which()? {
                    gate::verdict::Pass(pass) => Ok(pass?),
                    gate::verdict::TooManyConnections(()) => Err(AdmitRefused::TooManyConnections),
                    gate::verdict::TooManyPerMinute(()) => Err(AdmitRefused::TooManyPerMinute),
                    gate::verdict::TooManyFailedLogins(()) => {
                        Err(AdmitRefused::TooManyFailedLogins)
                    }
                })
            })
            .await
        });
        let verdict = match asked.await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) | Err(_) => Err(AdmitRefused::Unavailable),
        };
        match verdict {
            Ok(pass) => {
                self.pass = Some(pass);
                Ok(())
            }
            Err(why) => {
                self.figures.count(Count::ConnectionsRefused);
                tracing::info!(session = %self.origin.id, ?why, "refused");
                Err(why)
            }
        }
    }

    /// None while accountd is away.
    async fn mechanisms(&mut self) -> Option<Vec<String>> {
        let asked: Call<Vec<String>> = async {
            let door = self.submission().await?;
            let _permit = self.permit().await?;
            let authenticator = door.authenticator_request().send().pipeline.get_authenticator();
            let mut request = authenticator.mechanisms_request();
            self.describe(request.get().init_peer());
            within(CALL, async {
                let answer = request.send().promise.await?;
                let mut names = Vec::new();
                for name in answer.get()?.get_names()?.iter().take(MAX_MECHANISMS) {
                    names.push(name?.to_str()?.to_owned());
                }
                Ok(names)
            })
            .await
        }
        .await;
        asked.ok()
    }

    async fn login(
        &mut self,
        mechanism: &str,
        initial: Option<Secret<Vec<u8>>>,
        agent: &str,
    ) -> AuthAnswer {
        self.exchange = None;
        let asked = async {
            let door = self.submission().await?;
            let _permit = self.permit().await?;
            let authenticator = door.authenticator_request().send().pipeline.get_authenticator();
            let mut request = authenticator.start_request();
            let mut params = request.get();
            params.set_mechanism(mechanism);
            if let Some(initial) = &initial {
                params.set_initial(initial.expose());
                params.set_has_initial(true);
            }
            let mut peer = params.init_peer();
            peer.set_agent(agent);
            self.describe(peer);
            within(LOGIN, async { next_step(request.send().promise.await?.get()?.get_step()?) })
                .await
        };
        let next = asked.await;
        self.step(next)
    }

    async fn respond(&mut self, data: &Secret<Vec<u8>>) -> AuthAnswer {
        let Some(exchange) = self.exchange.take() else {
            return AuthAnswer::Refused(AuthRefused::Temporary);
        };
        let Ok(_permit) = self.permit().await else {
            return AuthAnswer::Refused(AuthRefused::Temporary);
        };
        let mut request = exchange.respond_request();
        request.get().set_data(data.expose());
        let next =
            within(LOGIN, async { next_step(request.send().promise.await?.get()?.get_step()?) });
        let next = next.await;
        self.step(next)
    }

    fn step(&mut self, next: Call<NextStep>) -> AuthAnswer {
        let answer = match next {
            Ok(NextStep::Challenge(data, exchange)) => {
                self.exchange = Some(exchange);
                return AuthAnswer::Challenge(data);
            }
            Ok(NextStep::Success { last, login, user }) => {
                tracing::info!(session = %self.origin.id, login, "logged in");
                self.submitter = Some(user);
                AuthAnswer::Success(last)
            }
            Ok(NextStep::Failure(why)) => AuthAnswer::Refused(why),
            Err(_) => AuthAnswer::Refused(AuthRefused::Temporary),
        };
        self.figures.count(match &answer {
            AuthAnswer::Refused(AuthRefused::TooManyFailures) => Count::LoginsLimited,
            AuthAnswer::Refused(_) => Count::LoginsFailed,
            AuthAnswer::Success(_) | AuthAnswer::Challenge(_) => Count::LoginsOk,
        });
        answer
    }

    async fn begin(&mut self, begin: &Begin) -> Result<(), MailRefused> {
        self.forget();
        let answered = match &self.doors {
            Doors::Mx(line) => self.begin_inbound(line, begin).await,
            Doors::Submission(_) => self.begin_submission(begin).await?,
        };
        match answered {
            Ok(Ok(transaction)) => {
                self.transaction = Some(transaction);
                Ok(())
            }
            Ok(Err(refused)) => Err(MailRefused::Said(refused.into_said())),
            Err(_) => Err(MailRefused::Unavailable),
        }
    }

    async fn begin_inbound(&self, line: &Line<mx_door::Client>, begin: &Begin) -> Call<Begun> {
        let door = line.client().await?;
        let inbound: inbound::Client = door.inbound_request().send().pipeline.get_inbound();
        let mut request = inbound.begin_request();
        let mut params = request.get();
        params.set_helo(begin.hello.to_string());
        params.set_from(begin.from.to_inner());
        set_mail_params(params.reborrow().init_params(), begin);
        self.describe(params.init_peer());
        // No permit: a slow DNS behind one MAIL must not keep other sessions' short calls out.
        // One such call a session, and sessions are bounded.
        within(BEGIN, async { read_begun(request.send().promise.await?.get()?.get_outcome()?) })
            .await
    }

    /// The outer error is final: no log-in stands any more.
    async fn begin_submission(&mut self, begin: &Begin) -> Result<Call<Begun>, MailRefused> {
        let Some(user) = &self.submitter else { return Err(MailRefused::NotLoggedIn) };
        let first = self.submit(&user.submitter, begin).await;
        if !matches!(first, Err(Unavailable::Broken | Unavailable::Away)) {
            return Ok(first);
        }
        // accountd was restarted and the object is gone with it; the ticket outlives it.
        match self.resume().await {
            Err(_) => Ok(first),
            Ok(None) => Err(MailRefused::Said(Said::new(
                421,
                "4.7.0",
                "Your log-in is no longer valid, connect again",
                true,
            ))),
            Ok(Some(user)) => {
                let again = self.submit(&user.submitter, begin).await;
                self.submitter = Some(user);
                Ok(again)
            }
        }
    }

    async fn submit(&self, submitter: &submitter::Client, begin: &Begin) -> Call<Begun> {
        let mut request = submitter.begin_request();
        let mut params = request.get();
        params.set_helo(begin.hello.to_string());
        params.set_from(begin.from.to_inner());
        set_mail_params(params.reborrow().init_params(), begin);
        let hold = begin.hold_until.map_or(0, |at| at.0);
        let mut extra = params.reborrow().init_extra();
        extra.set_hold_until_unix_ns(hold);
        match &begin.params.hold {
            Some(Hold::For(seconds)) => extra.set_hold_asked(seconds.to_string()),
            Some(Hold::Until(_, text)) => extra.set_hold_asked(text),
            None => {}
        }
        self.describe(params.init_peer());
        within(BEGIN, async { read_begun(request.send().promise.await?.get()?.get_outcome()?) })
            .await
    }

    /// The object that the ticket stands for, in accountd's next life.
    async fn resume(&self) -> Call<Option<User>> {
        let first = self.resume_once().await;
        if !matches!(first, Err(Unavailable::Broken)) {
            return first;
        }
        // A line learns of its end when its task runs next, which may be after our call failed.
        tokio::task::yield_now().await;
        self.resume_once().await
    }

    async fn resume_once(&self) -> Call<Option<User>> {
        let Some(old) = &self.submitter else { return Ok(None) };
        let door = self.submission().await?;
        let _permit = self.permit().await?;
        let mut request = door.resume_request();
        request.get().set_ticket(old.ticket.expose());
        within(CALL, async {
            let answer = request.send().promise.await?;
            Ok(match answer.get()?.get_outcome()?.which()? {
                resume_submitter::Submitter(given) => Some(User {
                    submitter: given.get_submitter()?,
                    ticket: Secret::new(given.get_ticket()?.to_vec()),
                }),
                resume_submitter::Refused(()) => None,
            })
        })
        .await
    }

    async fn recipient(&mut self, path: &ForwardPath) -> Result<(), RcptRefused> {
        let Some(transaction) = &self.transaction else { return Err(RcptRefused::Unavailable) };
        let _permit = self.permit().await.map_err(|_| RcptRefused::Unavailable)?;
        let mut request = transaction.recipient_request();
        let text = path.to_string();
        let inner = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')).unwrap_or(&text);
        request.get().set_to(inner);
        let answered = within(CALL, async {
            let answer = request.send().promise.await?;
            Ok(match answer.get()?.get_outcome()?.which()? {
                rcpt_outcome::Accepted(()) => Ok(()),
                rcpt_outcome::Refused(refused) => Err(Refused::read(refused?)?),
            })
        })
        .await;
        match answered {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => Err(RcptRefused::Said(refused.into_said())),
            Err(_) => Err(RcptRefused::Unavailable),
        }
    }

    async fn open_data(&mut self) -> Result<(), DataRefused> {
        let Some(transaction) = &self.transaction else { return Err(DataRefused::Unavailable) };
        let _permit = self.permit().await.map_err(|_| DataRefused::Unavailable)?;
        let request = transaction.data_request();
        let opened = within(CALL, async { request.send().promise.await?.get()?.get_sink() }).await;
        self.sink = Some(opened.map_err(|_| DataRefused::Unavailable)?);
        Ok(())
    }

    /// Gives a piece of content on; false when it was lost, and the sink with it.
    pub(crate) async fn content(&mut self, bytes: &[u8]) -> bool {
        let Some(sink) = &self.sink else { return false };
        let mut request = sink.write_request();
        request.get().set_chunk(bytes);
        // Returns when accountd keeps up: this is what slows the client down.
        let taken = within(PIECE, request.send()).await.is_ok();
        if !taken {
            self.sink = None;
        }
        taken
    }

    async fn commit(&mut self, received: &str) -> Result<String, CommitRefused> {
        let Some(sink) = self.sink.take() else { return Err(CommitRefused::Unavailable) };
        let mut request = sink.commit_request();
        request.get().set_received(received);
        // No permit: it waits by design, once a session.
        let answered = within(COMMIT, async {
            let answer = request.send().promise.await?;
            Ok(match answer.get()?.get_outcome()?.which()? {
                committed::Accepted(accepted) => Ok(accepted.get_id()?.to_str()?.to_owned()),
                committed::Refused(refused) => Err(Refused::read(refused?)?),
            })
        })
        .await;
        match answered {
            Ok(Ok(id)) => {
                tracing::info!(session = %self.origin.id, id, "message taken");
                if matches!(self.doors, Doors::Submission(_)) {
                    self.unheard = Some(sink);
                }
                Ok(id)
            }
            Ok(Err(refused)) => {
                let (code, enhanced) = (refused.code, &refused.enhanced);
                tracing::info!(session = %self.origin.id, code, enhanced, "message refused");
                Err(CommitRefused::Said(refused.into_said()))
            }
            Err(why) => {
                tracing::warn!(session = %self.origin.id, %why, "message not taken");
                Err(CommitRefused::Unavailable)
            }
        }
    }

    /// Whether a submission was taken of which nobody knows whether the client heard it.
    pub(crate) fn is_unheard(&self) -> bool {
        self.unheard.is_some()
    }

    /// It will not be known whether the last answer was heard.
    pub(crate) fn leave_unheard(&mut self) {
        self.unheard = None;
    }

    /// The client heard that its submission was taken. Nobody waits for this to arrive: if it does
    /// not, the same octets are taken for a repeat for a while.
    pub(crate) fn heard(&mut self) {
        let Some(sink) = self.unheard.take() else { return };
        // Sent now, so that it is there before whatever the client says next.
        let told = sink.heard_request().send();
        // A call whose answer nobody waits for would be taken back.
        tokio::task::spawn_local(within(CALL, async move { told.promise.await.map(drop) }));
    }

    fn count(&self, outcome: &Result<String, CommitRefused>) {
        let submission = matches!(self.doors, Doors::Submission(_));
        let permanent = outcome.as_ref().is_err_and(|why| smtp::Reply::from(why).code() >= 500);
        self.figures.count(match (outcome, submission) {
            (Ok(_), true) => Count::SubmissionsAccepted,
            (Ok(_), false) => Count::MessagesAccepted,
            (Err(_), true) => Count::SubmissionsRefused,
            (Err(_), false) if permanent => Count::MessagesRejected,
            (Err(_), false) => Count::MessagesDeferred,
        });
    }
}

/// The most SASL mechanisms announced.
const MAX_MECHANISMS: usize = 32;

type Begun = Result<transaction::Client, Refused>;

/// A refusal in accountd's words, not yet believed.
struct Refused {
    code: u16,
    enhanced: String,
    text: String,
    close: bool,
}

impl Refused {
    fn read(from: refusal::Reader<'_>) -> Result<Self, capnp::Error> {
        Ok(Self {
            code: from.get_code(),
            enhanced: from.get_enhanced()?.to_str()?.to_owned(),
            text: from.get_text()?.to_str()?.to_owned(),
            close: from.get_close(),
        })
    }

    fn into_said(self) -> Said {
        Said::new(self.code, &self.enhanced, &self.text, self.close)
    }
}

fn read_begun(outcome: begun::Reader<'_>) -> Result<Begun, capnp::Error> {
    Ok(match outcome.which()? {
        begun::Transaction(transaction) => Ok(transaction?),
        begun::Refused(refused) => Err(Refused::read(refused?)?),
    })
}

fn set_mail_params(mut to: mail_params::Builder<'_>, begin: &Begin) {
    to.set_size(begin.params.size.unwrap_or(0));
    to.set_body(match begin.params.body {
        Some(Body::EightBitMime) => mail_params::Body::EightBitMime,
        Some(Body::SevenBit) | None => mail_params::Body::SevenBit,
    });
    to.set_smtputf8(begin.params.smtputf8);
    to.set_require_tls(begin.params.requiretls);
    to.set_extended(begin.extended);
}

fn set_ip(ip: IpAddr, set: impl FnOnce(&[u8])) {
    match ip {
        IpAddr::V4(ip) => set(&ip.octets()),
        IpAddr::V6(ip) => set(&ip.octets()),
    }
}

enum NextStep {
    Challenge(Vec<u8>, exchange::Client),
    Success { last: Option<Vec<u8>>, login: String, user: User },
    Failure(AuthRefused),
}

fn next_step(from: step::Reader<'_>) -> Result<NextStep, capnp::Error> {
    Ok(match from.which()? {
        step::Challenge(challenge) => {
            NextStep::Challenge(challenge.get_data()?.to_vec(), challenge.get_exchange()?)
        }
        step::Success(success) => {
            let success = success?;
            let last = match success.get_has_additional() {
                true => Some(success.get_additional()?.to_vec()),
                false => None,
            };
            let login = success.get_login()?.to_str()?.to_owned();
            let user = match success.which()? {
                success::Submitter(given) => User {
                    submitter: given.get_submitter()?,
                    ticket: Secret::new(given.get_ticket()?.to_vec()),
                },
                success::HandOver(_) | success::Account(_) => {
                    let text = "a log-in for another kind of face".to_owned();
                    return Err(capnp::Error::failed(text));
                }
            };
            NextStep::Success { last, login, user }
        }
        step::Failure(why) => NextStep::Failure(match why? {
            Failure::BadCredentials => AuthRefused::BadCredentials,
            Failure::BadMessage => AuthRefused::BadMessage,
            Failure::UnknownMechanism => AuthRefused::UnknownMechanism,
            Failure::TlsRequired => AuthRefused::TlsRequired,
            Failure::TooManyFailures => AuthRefused::TooManyFailures,
            Failure::Temporary => AuthRefused::Temporary,
            Failure::Cancelled => AuthRefused::Cancelled,
            Failure::AccountDisabled => {
                AuthRefused::AccountDisabled(from.get_told()?.to_str()?.to_owned())
            }
            Failure::ChannelBinding => AuthRefused::ChannelBinding,
        }),
    })
}
