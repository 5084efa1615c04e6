//! Mail from faces: `Inbound` for strangers, `Submitter` for users. One `Transaction` for both; who
//! sends decides what is checked.

use super::wire;
use crate::{
    auth::authority::Session,
    intake::{
        deliver::Identity,
        header,
        recipients::{self, MAX_RECIPIENTS, MAX_TARGETS, Recipient, Target},
        refusal::Refusal,
        special::{self, Place, Special},
        spool::{Spool, Way},
        submit::Draft,
    },
    peer::Peer,
    service::Service,
};
use ipc::{
    capnp,
    schema::inbound_capnp::{
        begun, committed, inbound, mail_params, message_sink, rcpt_outcome,
        refusal as wire_refusal, submitter, transaction,
    },
};
use mailauth::{forged::Forged, trace};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
};
use types::{AccountId, Address, Domain, ReversePath, SessionId, SubmissionId, UnixNanos};

/// `MessageSink.maxChunk`.
const MAX_CHUNK: usize = 65_536;

/// Who sends.
#[derive(Clone)]
enum Sender {
    Stranger,
    User { session: Session, hold: Hold },
}

/// RFC 4865.
#[derive(Clone)]
struct Hold {
    until: Option<UnixNanos>,
    asked: String,
}

#[derive(Clone, Copy)]
struct Params {
    eight_bit: bool,
    smtputf8: bool,
    require_tls: bool,
    size: u64,
}

fn params(reader: mail_params::Reader<'_>) -> Result<Params, capnp::Error> {
    Ok(Params {
        eight_bit: matches!(reader.get_body()?, mail_params::Body::EightBitMime),
        smtputf8: reader.get_smtputf8(),
        require_tls: reader.get_require_tls(),
        size: reader.get_size(),
    })
}

/// The name that is looked up: of HELO alone. Clients that say EHLO are many, with names that never
/// were in DNS.
fn hello(text: &str, is_extended: bool) -> Option<Domain> {
    if is_extended { None } else { text.parse().ok() }
}

fn set_refusal(mut to: wire_refusal::Builder<'_>, refusal: &Refusal) {
    to.set_code(refusal.code);
    to.set_enhanced(refusal.enhanced.as_str());
    to.set_text(refusal.text.as_str());
}

/// For smtpd mx.
pub(super) struct InboundServer {
    pub(super) service: Rc<Service>,
}

impl inbound::Server for InboundServer {
    async fn begin(
        self: Rc<Self>,
        params: inbound::BeginParams,
        mut results: inbound::BeginResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let peer = wire::peer(params.get_peer()?)?;
        let from = params.get_from()?.to_str()?;
        let mail = self::params(params.get_params()?)?;
        let hello = hello(params.get_helo()?.to_str()?, params.get_params()?.get_extended());
        let outcome = match begin(&self.service, peer, Sender::Stranger, from, mail) {
            Ok(transaction) => match transaction.check_names(hello.as_ref()).await {
                Ok(()) => Ok(transaction),
                Err(refusal) => Err(Special::Refuse(refusal)),
            },
            Err(special) => Err(special),
        };
        answer_begin(outcome, results.get().init_outcome()).await
    }
}

/// For smtpd submission: the right to send as one account.
pub(super) struct SubmitterServer {
    pub(super) service: Rc<Service>,
    pub(super) session: Session,
}

impl submitter::Server for SubmitterServer {
    async fn begin(
        self: Rc<Self>,
        params: submitter::BeginParams,
        mut results: submitter::BeginResults,
    ) -> Result<(), capnp::Error> {
        self.session.live.check().map_err(wire::revoked)?;
        let params = params.get()?;
        let peer = wire::peer(params.get_peer()?)?;
        let from = params.get_from()?.to_str()?;
        let mail = self::params(params.get_params()?)?;
        let extra = params.get_extra()?;
        let hold = Hold {
            until: Some(UnixNanos(extra.get_hold_until_unix_ns())).filter(|hold| hold.0 > 0),
            asked: extra.get_hold_asked()?.to_str()?.to_owned(),
        };
        let sender = Sender::User { session: self.session.clone(), hold };
        let outcome = begin(&self.service, peer, sender, from, mail);
        answer_begin(outcome, results.get().init_outcome()).await
    }
}

async fn answer_begin(
    outcome: Result<Transaction, Special>,
    mut to: begun::Builder<'_>,
) -> Result<(), capnp::Error> {
    match outcome {
        Ok(transaction) => to.set_transaction(ipc::new_client(transaction)),
        Err(special) => set_refusal(to.init_refused(), &refuse(special).await),
    }
    Ok(())
}

/// The refusal, after as long as it is to take.
async fn refuse(special: Special) -> Refusal {
    match special {
        Special::Refuse(refusal) => refusal,
        Special::Timeout => {
            tokio::time::sleep(special::TIMEOUT).await;
            Refusal::ours()
        }
    }
}

fn begin(
    service: &Rc<Service>,
    peer: Peer,
    sender: Sender,
    from: &str,
    params: Params,
) -> Result<Transaction, Special> {
    let from = ReversePath::from_inner(from)
        .map_err(|_| Special::Refuse(Refusal::new(553, "5.1.7", "Not a valid sender address")))?;
    if let Some(special) = special_of(service, from.address(), Place::MailFrom) {
        return Err(special);
    }
    if let Sender::User { session, .. } = &sender {
        service.check_sender(session, &from).map_err(Special::Refuse)?;
    }
    if params.size > service.settings.max_message {
        return Err(Special::Refuse(Refusal::too_large()));
    }
    if service.is_disk_low() {
        return Err(Special::Refuse(Refusal::disk_full()));
    }
    let service = Rc::clone(service);
    Ok(Transaction { service, peer, sender, from, params, state: RefCell::default() })
}

fn special_of(service: &Service, address: Option<&Address>, place: Place) -> Option<Special> {
    address.filter(|_| service.settings.is_local).and_then(|address| Special::of(address, place))
}

/// One message on its way.
struct Transaction {
    service: Rc<Service>,
    peer: Peer,
    sender: Sender,
    from: ReversePath,
    params: Params,
    state: RefCell<State>,
}

#[derive(Default, Clone)]
struct State {
    recipients: Vec<Address>,
    targets: Vec<Target>,
    accepted: usize,
    /// The first recipient was nobody: told after DATA, so that nobody can be looked for cheaply.
    unknown: bool,
    /// What a recipient of a development server asked for at the end of DATA.
    special: Option<Special>,
    closed: bool,
}

impl Transaction {
    /// What DNS says of the names that a stranger gave.
    async fn check_names(&self, hello: Option<&Domain>) -> Result<(), Refusal> {
        if !self.service.settings.check_senders {
            return Ok(());
        }
        let snapshot = self.service.directories.now();
        let from = self.from.address().map(Address::domain);
        // What is hosted here takes mail here.
        let from = from.filter(|domain| snapshot.directory.domain(domain).is_none());
        self.service.names.check(hello, from).await
    }

    async fn rcpt(&self, to: &str) -> Result<(), Refusal> {
        if self.service.is_disk_low() {
            return Err(Refusal::disk_full());
        }
        let address = to.parse::<Address>().ok();
        if let Some(special) = special_of(&self.service, address.as_ref(), Place::RcptTo) {
            return Err(refuse(special).await);
        }
        {
            let state = self.state.borrow();
            if state.accepted >= MAX_RECIPIENTS || state.unknown {
                return Err(Refusal::too_many_recipients());
            }
        }
        let is_user = matches!(self.sender, Sender::User { .. });
        let from = if is_user { recipients::From::Local } else { recipients::From::Stranger };
        let snapshot = self.service.directories.now();
        let targets = match recipients::resolve_now(&self.service.directories, to, from) {
            Recipient::Targets(targets) => targets,
            Recipient::Remote if is_user => Vec::new(),
            Recipient::Remote => {
                return Err(Refusal::new(550, "5.1.1", "Not a domain of this server"));
            }
            Recipient::Unknown => {
                let mut state = self.state.borrow_mut();
                if is_user || state.accepted > 0 {
                    return Err(Refusal::unknown_recipient());
                }
                state.unknown = true;
                state.accepted = 1;
                return Ok(());
            }
            Recipient::Refused(refusal) => return Err(refusal),
        };
        if !is_user {
            let (ip, size, now) = (self.peer.ip, self.params.size, self.service.clock.now());
            for target in &targets {
                if !self.service.gate.borrow().may_deliver(ip, target.account, size, now) {
                    return Err(Refusal::too_much_mail());
                }
                self.service.has_room(target, size).await?;
            }
        }
        let mut state = self.state.borrow_mut();
        if state.targets.len() + targets.len() > MAX_TARGETS {
            return Err(Refusal::too_many_recipients());
        }
        state.accepted += 1;
        state.targets.extend(targets);
        if let Some(address) = address {
            let special = special_of(&self.service, Some(&address), Place::Data);
            state.special = state.special.take().or(special);
            state.recipients.push(address);
        } else if let Some(domain) = snapshot.directory.host().names.first() {
            // `<postmaster>` alone, which only a user's queue has to carry as an address.
            let localpart = types::Localpart::from_unquoted("postmaster");
            let bare = localpart.ok().map(|l| Address::new(l, domain.clone()));
            state.recipients.extend(bare);
        }
        Ok(())
    }
}

impl transaction::Server for Transaction {
    async fn recipient(
        self: Rc<Self>,
        params: transaction::RecipientParams,
        mut results: transaction::RecipientResults,
    ) -> Result<(), capnp::Error> {
        let outcome = self.rcpt(params.get()?.get_to()?.to_str()?).await;
        let mut to: rcpt_outcome::Builder<'_> = results.get().init_outcome();
        match outcome {
            Ok(()) => to.set_accepted(()),
            Err(refusal) => set_refusal(to.init_refused(), &refusal),
        }
        Ok(())
    }

    async fn data(
        self: Rc<Self>,
        _: transaction::DataParams,
        mut results: transaction::DataResults,
    ) -> Result<(), capnp::Error> {
        let mut state = self.state.borrow_mut();
        if state.closed || state.accepted == 0 {
            return Err(wire::broken("DATA without a recipient, or twice"));
        }
        let way = match self.sender {
            Sender::Stranger => Way::Stranger,
            Sender::User { .. } => Way::User,
        };
        let spool = self.service.spool(way).map_err(wire::later)?;
        state.closed = true;
        let names = self.service.directories.now().directory.host().names.clone();
        let sink = Sink {
            transaction: Rc::clone(&self),
            state: state.clone(),
            forged: RefCell::new(Forged::new(names)),
            spool: RefCell::new(Some(spool)),
            submitted: Cell::new(None),
        };
        results.get().set_sink(ipc::new_client(sink));
        Ok(())
    }
}

/// The message's octets.
struct Sink {
    transaction: Rc<Transaction>,
    state: State,
    /// A user's program is no more entitled to write results in our name than a stranger is.
    forged: RefCell<Forged>,
    spool: RefCell<Option<Spool>>,
    /// What became of it, if a user sent it.
    submitted: Cell<Option<(AccountId, SubmissionId)>>,
}

impl Sink {
    async fn take(&self, received: &str) -> Result<String, Refusal> {
        let Transaction { service, sender, from, params, peer, .. } = &*self.transaction;
        let spool = self.spool.borrow_mut().take().ok_or_else(Refusal::ours)?;
        let rest = self.forged.borrow_mut().finish();
        let spooled = spool.push(&rest).await.finish()?;
        let removed = self.forged.borrow().removed();
        if removed > 0 {
            tracing::info!(session = %peer.session, removed, "Authentication-Results removed");
        }
        if let Some(special) = self.state.special.clone() {
            return Err(refuse(special).await);
        }
        if let Some(special) = special_of(service, from.address(), Place::Data) {
            return Err(refuse(special).await);
        }
        if self.state.unknown {
            return Err(Refusal::unknown_recipient());
        }
        if service.is_disk_low() {
            return Err(Refusal::disk_full());
        }
        match sender {
            Sender::Stranger => {
                let mut prefix = format!("{}{received}", header::return_path(from));
                let first = spooled.read(0).map_err(|error| {
                    tracing::error!(%error, "a spooled message");
                    Refusal::ours()
                })?;
                if trace::lacks_header(&first) {
                    prefix.push_str("\r\n");
                }
                let message = spooled.with_prefix(prefix.into_bytes());
                let _announced = service.announce(&self.state.targets);
                let parsed = service.parsers.parse(&message).await?;
                let identity = Identity::Stranger { from: from.clone(), ip: peer.ip };
                service.deliver(&message, &parsed, self.state.targets.clone(), &identity).await?;
                let msg = parsed.facts.as_ref().and_then(|facts| facts.message_id.as_deref());
                tracing::info!(session = %peer.session, msg, "message taken");
                let accounts: BTreeSet<_> = self.state.targets.iter().map(|t| t.account).collect();
                for account in accounts {
                    let (size, now) = (message.len(), service.clock.now());
                    service.gate.borrow_mut().delivered(peer.ip, account, size, now);
                }
                Ok(fresh_id())
            }
            Sender::User { session, hold } => {
                if session.live.check().is_err() {
                    let text = "Log in again";
                    return Err(Refusal::new(451, "4.7.0", text));
                }
                let draft = Draft {
                    from: from.clone(),
                    recipients: self.state.recipients.clone(),
                    smtputf8: params.smtputf8,
                    eight_bit: params.eight_bit,
                    require_tls: params.require_tls,
                    hold_until: hold.until,
                    hold_asked: hold.asked.clone(),
                };
                let id = service.submit(session, peer.session, draft, spooled, received).await?;
                self.submitted.set(Some((session.live.basis.account, id)));
                Ok(id.to_string())
            }
        }
    }
}

/// A name for the reply and the log.
fn fresh_id() -> String {
    let mut bytes = [0; SessionId::OCTETS];
    match getrandom::fill(&mut bytes) {
        Ok(()) => SessionId::from_bytes(bytes).to_string(),
        Err(_) => String::new(),
    }
}

impl message_sink::Server for Sink {
    async fn write(self: Rc<Self>, params: message_sink::WriteParams) -> Result<(), capnp::Error> {
        let chunk = params.get()?.get_chunk()?;
        if chunk.len() > MAX_CHUNK {
            return Err(wire::broken("a chunk above its bound"));
        }
        // Chunks come one at a time, so nobody else looks for the spool meanwhile.
        let spool = self.spool.borrow_mut().take();
        let spool = spool.ok_or_else(|| wire::broken("a chunk after the end"))?;
        let piece = self.forged.borrow_mut().push(chunk);
        let spool = spool.push(&piece).await;
        *self.spool.borrow_mut() = Some(spool);
        Ok(())
    }

    async fn commit(
        self: Rc<Self>,
        params: message_sink::CommitParams,
        mut results: message_sink::CommitResults,
    ) -> Result<(), capnp::Error> {
        let received = params.get()?.get_received()?.to_str()?;
        if !trace::is_received(received) {
            return Err(wire::broken("a Received that is no such field, or more than one"));
        }
        // To its end, even if the asker goes away: what is committed then is announced to the queue.
        let received = received.to_owned();
        let sink = Rc::clone(&self);
        let taken = tokio::task::spawn_local(async move { sink.take(&received).await });
        let outcome = taken.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a message");
            Err(Refusal::ours())
        });
        let session = self.transaction.peer.session;
        let to: committed::Builder<'_> = results.get().init_outcome();
        match outcome {
            Ok(id) => {
                to.init_accepted().set_id(id.as_str());
            }
            Err(refusal) => {
                let (code, text) = (refusal.code, &refusal.text);
                tracing::info!(%session, code, text, "message refused");
                set_refusal(to.init_refused(), &refusal);
            }
        }
        Ok(())
    }
    async fn heard(
        self: Rc<Self>,
        _: message_sink::HeardParams,
        _: message_sink::HeardResults,
    ) -> Result<(), capnp::Error> {
        // Of a stranger's, or before its end, it says nothing.
        if let Some((account, id)) = self.submitted.take() {
            self.transaction.service.account(account).heard(id);
        }
        Ok(())
    }
}
