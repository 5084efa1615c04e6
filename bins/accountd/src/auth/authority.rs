//! Checks credentials and makes sessions of them.
//!
//! A name that is nobody's takes the same way as one that is somebody's, with a decoy for what is
//! missing: the same steps on the wire, the same texts, the same calls to keyholder, the same hash.
//! Only what comes after a correct proof may differ.

use super::{
    hashing::Hashing,
    history::Attempt,
    limiter::FailedLogins,
    live::{Basis, Live, Lives},
    look_ups::LookUps,
    opaque,
    passwords::Shown,
    pepper::{Pepper, PepperError},
    records::{ClientKey, Sealed},
    sasl::{self, Claim, Fault, Mechanism, Next, ScramWaiting, Waiting},
    scram::ClientFirst,
    ticket::{Credential, EdgeId, LIFETIME, Scope, Ticket},
    ticket_keys::TicketKeys,
    vault::{Vault, VaultError},
    verifier::{NameKeys, SALT, Verifier},
};
use crate::{directory::Directories, peer::Peer};
use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use types::{AccountId, Address, Clock, Secret, UnixNanos};
use unicode_normalization::UnicodeNormalization as _;

/// Associated data of what belongs to no account; no account has this id, ids are random.
pub(crate) const NOBODY: AccountId = AccountId::from_bytes([0; 10]);
const DECOY: &str = "decoy";

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    BadCredentials,
    BadMessage,
    UnknownMechanism,
    TlsRequired,
    TooManyFailures,
    Temporary,
    /// With what its user is told: only after a right proof.
    AccountDisabled(Box<str>),
    ChannelBinding,
    /// The client gave up in the middle, or its connection ended.
    Aborted,
}

impl Failure {
    /// Its name in the log-in history.
    fn name(&self) -> &'static str {
        match self {
            Failure::BadCredentials => "badcreds",
            Failure::BadMessage => "badprotocol",
            Failure::UnknownMechanism => "unknownmechanism",
            Failure::TlsRequired => "tlsrequired",
            Failure::TooManyFailures => "ratelimited",
            Failure::Temporary => "error",
            Failure::AccountDisabled(_) => "logindisabled",
            Failure::ChannelBinding => "badchanbind",
            Failure::Aborted => "aborted",
        }
    }

    /// Whether it counts against the address. What is our fault, or proved a right password, does
    /// not; who gives up is counted by himself, for the minute alone.
    fn counts(&self) -> bool {
        match self {
            Failure::BadCredentials | Failure::BadMessage | Failure::ChannelBinding => true,
            Failure::UnknownMechanism
            | Failure::TlsRequired
            | Failure::TooManyFailures
            | Failure::Temporary
            | Failure::Aborted
            | Failure::AccountDisabled(_) => false,
        }
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        tracing::error!(%error, "credentials could not be read");
        Failure::Temporary
    }
}

impl From<PepperError> for Failure {
    fn from(error: PepperError) -> Self {
        tracing::error!(%error, "a verifier could not be opened");
        Failure::Temporary
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed => Failure::BadMessage,
            // Acting for somebody else is answered as a wrong password: RFC 4954 §6 has no code for
            // it that clients know.
            Fault::Identity => Failure::BadCredentials,
            Fault::Binding => Failure::ChannelBinding,
        }
    }
}

/// Somebody who proved who he is.
#[derive(Debug, Clone)]
pub(crate) struct Proved {
    pub(crate) basis: Basis,
    /// The address that was typed, canonical domain, as it was spelled.
    pub(crate) login: Address,
}

/// A session that was let in.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) live: Rc<Live>,
    pub(crate) login: Address,
}

/// Where an exchange stands.
pub(crate) enum Step {
    Challenge(Vec<u8>, Exchange),
    Success { proved: Proved, additional: Option<Vec<u8>> },
    Failure(Failure),
}

/// An exchange that waits for the client.
pub(crate) struct Exchange {
    mechanism: Mechanism,
    peer: Peer,
    edge: EdgeId,
    state: State,
}

enum State {
    Waiting(Waiting),
    Scram { waiting: Box<ScramWaiting>, user: Box<User>, keys: Box<NameKeys> },
}

/// A name and what it is checked against; of a decoy if it is nobody's.
struct User {
    typed: String,
    known: Option<Known>,
    /// What SCRAM calls it by; its own whether or not it is somebody's.
    salt: [u8; SALT],
    verifier: Verifier,
    generation: u64,
}

#[derive(Clone)]
struct Known {
    account: AccountId,
    login: Address,
}

/// How far away the boot clock is from its zero.
pub(crate) type BootClock = Rc<dyn Fn() -> Duration>;

/// What logging in needs.
pub(crate) struct Authority {
    pub(crate) directories: Rc<Directories>,
    pub(crate) vault: Vault,
    pub(crate) hashing: Hashing,
    pub(crate) pepper: Rc<dyn Pepper>,
    pub(crate) failed: RefCell<FailedLogins>,
    pub(crate) look_ups: LookUps,
    pub(crate) lives: Lives,
    pub(crate) ticket_keys: TicketKeys,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) boot_clock: BootClock,
    /// Services of listeners where log-in is allowed without TLS.
    pub(crate) clear_text: Vec<String>,
    /// How often the administrators' password was changed in this life of the process.
    pub(crate) admin_changes: Arc<AtomicU64>,
}

impl Authority {
    /// Makes the decoy that answers for unknown names, if there is none.
    pub(crate) async fn prepare(&self) -> Result<(), Failure> {
        if self.vault.run(|records| records.verifier(DECOY)).await?.is_some() {
            return Ok(());
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|_| Failure::Temporary)?;
        let password: String = random.iter().map(|b| format!("{b:02x}")).collect();
        let verifier = self.derive(&Secret::new(password)).await?;
        let sealed = self.pepper.seal(NOBODY, &verifier.encode()).await?;
        self.vault.run(move |records| records.set_verifier(DECOY, &sealed)).await?;
        Ok(())
    }

    /// Whether log-in is allowed on a connection without TLS.
    fn clear_text_allowed(&self, peer: &Peer) -> bool {
        let below = |name: &str, service: &str| {
            name.strip_prefix(service).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.clear_text
            .iter()
            .any(|service| below(&peer.listener, service) || below(service, &peer.listener))
    }

    /// The mechanisms to announce.
    pub(crate) fn mechanisms(&self, peer: &Peer) -> Vec<&'static str> {
        sasl::announced(peer, self.clear_text_allowed(peer))
    }

    /// Begins an exchange.
    pub(crate) async fn start(
        &self,
        mechanism: &str,
        peer: Peer,
        edge: EdgeId,
        initial: Option<&[u8]>,
    ) -> Step {
        let Some(known) = Mechanism::named(mechanism) else {
            return Step::Failure(Failure::UnknownMechanism);
        };
        if peer.tls.is_none() && !self.clear_text_allowed(&peer) {
            return Step::Failure(Failure::TlsRequired);
        }
        if !self.failed.borrow().may_try(peer.ip, self.clock.now()) {
            return Step::Failure(Failure::TooManyFailures);
        }
        match Waiting::begin(known, &peer, initial) {
            Ok(next) => self.next(known, peer, edge, next).await,
            Err(fault) => self.refuse(known, &peer, edge, "", None, fault.into()),
        }
    }

    /// Takes the client's next message.
    pub(crate) async fn respond(&self, exchange: Exchange, message: &[u8]) -> Step {
        let Exchange { mechanism, peer, edge, state } = exchange;
        match state {
            State::Waiting(waiting) => match waiting.step(message) {
                Ok(next) => self.next(mechanism, peer, edge, next).await,
                Err(fault) => self.refuse(mechanism, &peer, edge, "", None, fault.into()),
            },
            State::Scram { waiting, user, keys } => {
                if !self.reserve(&peer) {
                    return Step::Failure(Failure::TooManyFailures);
                }
                let (stored, server) = keys.of(waiting.hash);
                let checked = waiting.challenged.finish(message, waiting.hash, stored, server);
                let known = user.known.clone();
                let outcome = match checked {
                    Ok(Some(additional)) => match known {
                        Some(known) => self
                            .proved(known, Credential::Password, user.generation)
                            .await
                            .map(|proved| (proved, Some(additional))),
                        None => Err(Failure::BadCredentials),
                    },
                    Ok(None) => Err(Failure::BadCredentials),
                    Err(error) => Err(Fault::from(error).into()),
                };
                let account = user.known.as_ref().map(|known| known.account);
                self.settle(mechanism, &peer, edge, &user.typed, account, outcome)
            }
        }
    }

    /// An exchange that nobody goes on with. Who could ask and go away uncounted would have names looked
    /// up without a limit.
    pub(crate) fn abandoned(&self, exchange: Exchange) {
        let Exchange { mechanism, peer, edge, state } = exchange;
        let (typed, account) = match &state {
            State::Waiting(waiting) => (waiting.typed(), None),
            State::Scram { user, .. } => {
                (user.typed.as_str(), user.known.as_ref().map(|known| known.account))
            }
        };
        self.failed.borrow_mut().gave_up(peer.ip, self.clock.now());
        self.note(mechanism, &peer, edge, typed, account, Failure::Aborted.name());
    }

    async fn next(&self, mechanism: Mechanism, peer: Peer, edge: EdgeId, next: Next) -> Step {
        match next {
            Next::Ask(prompt, waiting) => {
                let state = State::Waiting(waiting);
                Step::Challenge(prompt, Exchange { mechanism, peer, edge, state })
            }
            Next::Check(Claim::Password { user, password }) => {
                if !self.reserve(&peer) {
                    return Step::Failure(Failure::TooManyFailures);
                }
                let (account, outcome) = self.check_password(&peer, edge, &user, password).await;
                let outcome = outcome.map(|proved| (proved, None));
                self.settle(mechanism, &peer, edge, &user, account, outcome)
            }
            Next::Check(Claim::Key { login }) => {
                if !self.reserve(&peer) {
                    return Step::Failure(Failure::TooManyFailures);
                }
                let typed = login.clone().unwrap_or_default();
                let (account, outcome) = self.check_key(&peer, login).await;
                let outcome = outcome.map(|proved| (proved, None));
                self.settle(mechanism, &peer, edge, &typed, account, outcome)
            }
            Next::Check(Claim::Scram { first, hash }) => {
                match self.challenge(edge, first, hash).await {
                    Ok((waiting, user, keys)) => {
                        let prompt = waiting.challenged.message().to_vec();
                        let (waiting, user, keys) =
                            (Box::new(waiting), Box::new(user), Box::new(keys));
                        let state = State::Scram { waiting, user, keys };
                        Step::Challenge(prompt, Exchange { mechanism, peer, edge, state })
                    }
                    Err(failure) => Step::Failure(failure),
                }
            }
        }
    }

    async fn challenge(
        &self,
        edge: EdgeId,
        first: ClientFirst,
        hash: super::scram::Hash,
    ) -> Result<(ScramWaiting, User, NameKeys), Failure> {
        let user = self.look_up(edge, &first.user).await?;
        let nobodys = NameKeys::of_no_password(user.salt).map_err(|_| Failure::Temporary)?;
        let keys = user.verifier.keys_for(&user.salt).cloned().unwrap_or(nobodys);
        let mut fresh = [0; 18];
        getrandom::fill(&mut fresh).map_err(|_| Failure::Temporary)?;
        let challenged = first.challenge(&keys.salt, keys.iterations, &fresh);
        Ok((ScramWaiting { challenged, hash }, user, keys))
    }

    /// Whose a typed name is.
    fn whose(&self, typed: &str) -> (Address, Option<AccountId>, String) {
        let normal: String = typed.nfc().collect();
        let snapshot = self.directories.now();
        let directory = &snapshot.directory;
        let Ok(address) = normal.parse::<Address>() else {
            // No address is nobody's: it has a salt of its own like any other name.
            return (nobodys_address(), None, normal.to_lowercase());
        };
        let account = directory.login(&address).and_then(|(account, _)| account.id);
        let canonical = directory.canonical(&address).to_string();
        (address, account, canonical)
    }

    /// What a name is checked against. Costs one look into a database, one mac and one open, whoever
    /// it is.
    async fn look_up(&self, edge: EdgeId, typed: &str) -> Result<User, Failure> {
        if !self.look_ups.may(edge.role, self.clock.monotonic()) {
            return Err(Failure::Temporary);
        }
        let (login, account, canonical) = self.whose(typed);
        let found: Option<(bool, Sealed)> = self
            .vault
            .run(move |records| {
                let own = match account {
                    Some(account) => records.password(account)?,
                    None => None,
                };
                match own {
                    Some(sealed) => Ok(Some((true, sealed))),
                    None => Ok(records.verifier(DECOY)?.map(|sealed| (false, sealed))),
                }
            })
            .await?;
        let (is_own, sealed) = found.ok_or(Failure::Temporary)?;
        let owner = account.filter(|_| is_own);
        let salt = self.salt(&canonical).await?;
        let plain = self.pepper.open(owner.unwrap_or(NOBODY), &sealed.sealed).await?;
        let verifier = Verifier::decode(&plain).ok_or(PepperError::Damaged)?;
        let known = owner.map(|account| Known { account, login });
        Ok(User { typed: typed.to_owned(), known, salt, verifier, generation: sealed.generation })
    }

    async fn check_password(
        &self,
        peer: &Peer,
        edge: EdgeId,
        typed: &str,
        password: Secret<String>,
    ) -> (Option<AccountId>, Result<Proved, Failure>) {
        let user = match self.look_up(edge, typed).await {
            Ok(user) => user,
            Err(failure) => return (None, Err(failure)),
        };
        let account = user.known.as_ref().map(|known| known.account);
        // A password no account can have is hashed all the same.
        let (password, is_possible) = match opaque::prepare(password.expose()) {
            Ok(prepared) => (prepared, true),
            Err(_) => (Secret::new("?".to_owned()), false),
        };
        let (verifier, shown) = (user.verifier.clone(), password.clone());
        let checked = self.hashing.run(peer.ip, move |hasher| verifier.check(hasher, &shown)).await;
        let is_right = match checked {
            Ok(Ok(is_right)) => is_right && is_possible,
            Ok(Err(_)) | Err(_) => return (account, Err(Failure::Temporary)),
        };
        match user.known {
            Some(known) if is_right => {
                let User { salt, verifier, generation, .. } = user;
                let is_own = self.is_own(&known);
                let shown = Shown { account: known.account, is_own, salt, verifier, generation };
                self.learn(peer, shown, &password).await;
                (account, self.proved(known, Credential::Password, generation).await)
            }
            Some(_) | None => (account, Err(Failure::BadCredentials)),
        }
    }

    /// Whether a name is one of the account's addresses, not one that it catches.
    fn is_own(&self, known: &Known) -> bool {
        let snapshot = self.directories.now();
        let canonical = snapshot.directory.canonical(&known.login);
        let account = snapshot.directory.account_by_id(known.account);
        account.is_some_and(|account| account.addresses.contains(&canonical))
    }

    async fn check_key(
        &self,
        peer: &Peer,
        login: Option<String>,
    ) -> (Option<AccountId>, Result<Proved, Failure>) {
        let fingerprint = peer.tls.as_ref().and_then(|tls| tls.client_key);
        let Some(fingerprint) = fingerprint else {
            return (None, Err(Failure::BadCredentials));
        };
        let key: ClientKey = match self.vault.run(move |r| r.key(&fingerprint)).await {
            Ok(Some(key)) => key,
            Ok(None) => return (None, Err(Failure::BadCredentials)),
            Err(error) => return (None, Err(error.into())),
        };
        let (address, owner, _) = self.whose(login.as_deref().unwrap_or(&key.login));
        if owner != Some(key.account) {
            return (Some(key.account), Err(Failure::BadCredentials));
        }
        let known = Known { account: key.account, login: address };
        let credential = Credential::Key(fingerprint);
        (Some(key.account), self.proved(known, credential, key.generation).await)
    }

    /// After a right proof: the account's own state.
    async fn proved(
        &self,
        known: Known,
        credential: Credential,
        generation: u64,
    ) -> Result<Proved, Failure> {
        let account = known.account;
        let snapshot = self.directories.now();
        let entry = snapshot.directory.account_by_id(account).ok_or(Failure::BadCredentials)?;
        if let Some(text) = &entry.login_disabled {
            tracing::info!(account = entry.name, text, "log-in of a disabled account");
            return Err(Failure::AccountDisabled(text.as_str().into()));
        }
        let generations = self.vault.run(move |records| records.generations(account)).await?;
        let basis =
            Basis { account, credential, generation, account_generation: generations.account };
        Ok(Proved { basis, login: known.login })
    }

    /// Counts an attempt before it is looked at, so that a burst of parallel ones does not slip
    /// through the limit.
    fn reserve(&self, peer: &Peer) -> bool {
        let now = self.clock.now();
        let mut failed = self.failed.borrow_mut();
        let may = failed.may_try(peer.ip, now);
        if may {
            failed.failed(peer.ip, now);
        }
        may
    }

    fn settle(
        &self,
        mechanism: Mechanism,
        peer: &Peer,
        edge: EdgeId,
        typed: &str,
        account: Option<AccountId>,
        outcome: Result<(Proved, Option<Vec<u8>>), Failure>,
    ) -> Step {
        let now = self.clock.now();
        let result = match &outcome {
            Ok(_) => {
                let mut failed = self.failed.borrow_mut();
                failed.refund(peer.ip, now);
                failed.succeeded(peer.ip, now);
                "ok"
            }
            Err(failure) => {
                if !failure.counts() {
                    self.failed.borrow_mut().refund(peer.ip, now);
                }
                failure.name()
            }
        };
        self.note(mechanism, peer, edge, typed, account, result);
        match outcome {
            Ok((proved, additional)) => Step::Success { proved, additional },
            Err(failure) => Step::Failure(failure),
        }
    }

    /// A fault in the messages themselves.
    fn refuse(
        &self,
        mechanism: Mechanism,
        peer: &Peer,
        edge: EdgeId,
        typed: &str,
        account: Option<AccountId>,
        failure: Failure,
    ) -> Step {
        if failure.counts() {
            // Above its limit nothing is added: a network would else pay for one of its hosts.
            self.reserve(peer);
        }
        self.note(mechanism, peer, edge, typed, account, failure.name());
        Step::Failure(failure)
    }

    fn note(
        &self,
        mechanism: Mechanism,
        peer: &Peer,
        edge: EdgeId,
        typed: &str,
        account: Option<AccountId>,
        result: &'static str,
    ) {
        let protocol = ipc::Role::from_number(edge.role).map_or("control", protocol);
        let now = self.clock.now();
        // A key that was shown and not used says nothing of who logged in.
        let used_key = peer
            .tls
            .as_ref()
            .filter(|_| mechanism == Mechanism::External)
            .and_then(|tls| tls.client_key);
        let mechanism = mechanism.name();
        tracing::info!(session = %peer.session, protocol, mechanism, result, ?account, "log-in");
        let attempt = Attempt {
            first: now,
            last: now,
            count: 1,
            ok: result == "ok",
            ip: peer.ip.to_string(),
            protocol: protocol.to_owned(),
            mechanism,
            login: typed.chars().filter(|c| !c.is_control()).take(MAX_NOTED_LOGIN).collect(),
            result: result.to_owned(),
            tls: peer.tls_text(),
            local_ip: peer.local_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            listener: peer.listener.clone(),
            client_key: used_key.map(|key| key.to_vec()).unwrap_or_default(),
            agent: peer.agent.clone(),
        };
        self.vault.note(account, attempt);
    }

    /// Makes a session of a proof. The generations are looked at once more after it is listed: a
    /// change between the proof and here would else miss it.
    pub(crate) async fn admit(&self, proved: Proved) -> Result<Session, Failure> {
        let live = self.lives.enter(proved.basis).ok_or(Failure::Temporary)?;
        if self.still_holds(&proved.basis).await? && live.check().is_ok() {
            Ok(Session { live, login: proved.login })
        } else {
            Err(Failure::BadCredentials)
        }
    }

    async fn still_holds(&self, basis: &Basis) -> Result<bool, Failure> {
        let account = basis.account;
        let snapshot = self.directories.now();
        let is_enabled = |a: &config::directory::Account| a.login_disabled.is_none();
        if !snapshot.directory.account_by_id(account).is_some_and(is_enabled) {
            return Ok(false);
        }
        let credential = basis.credential;
        let (generations, key) = self
            .vault
            .run(move |records| {
                let key = match credential {
                    Credential::Password => None,
                    Credential::Key(fingerprint) => records.key(&fingerprint)?,
                };
                Ok((records.generations(account)?, key))
            })
            .await?;
        let generation = match credential {
            Credential::Password => generations.password,
            Credential::Key(_) => {
                key.filter(|key| key.account == account).map(|key| key.generation)
            }
        };
        let holds =
            generation == Some(basis.generation) && generations.account == basis.account_generation;
        Ok(holds)
    }

    /// A ticket for a proof, to be used on `edge`.
    pub(crate) fn ticket(
        &self,
        basis: &Basis,
        login: &Address,
        session: types::SessionId,
        scope: Scope,
        edge: EdgeId,
    ) -> Vec<u8> {
        let ticket = Ticket {
            account: basis.account,
            scope,
            edge,
            credential: basis.credential,
            generation: basis.generation,
            account_generation: basis.account_generation,
            session,
            login: login.to_string(),
            expires: (self.boot_clock)() + LIFETIME,
        };
        self.ticket_keys.keys().seal(&ticket)
    }

    /// A session from a ticket; None if it is not good for this edge, this scope, or any more.
    pub(crate) async fn redeem(
        &self,
        sealed: &[u8],
        scope: Scope,
        edge: EdgeId,
    ) -> Result<Option<(Session, Ticket)>, Failure> {
        let opened = self.ticket_keys.keys().open(sealed, edge, (self.boot_clock)());
        let Some(ticket) = opened.filter(|ticket| ticket.scope == scope) else { return Ok(None) };
        let Ok(login) = ticket.login.parse::<Address>() else { return Ok(None) };
        let basis = Basis {
            account: ticket.account,
            credential: ticket.credential,
            generation: ticket.generation,
            account_generation: ticket.account_generation,
        };
        match self.admit(Proved { basis, login }).await {
            Ok(session) => Ok(Some((session, ticket))),
            Err(Failure::BadCredentials) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// A newer ticket for one that is still good.
    pub(crate) async fn renew(
        &self,
        sealed: &[u8],
        edge: EdgeId,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let opened = self.ticket_keys.keys().open(sealed, edge, (self.boot_clock)());
        let Some(mut ticket) = opened else { return Ok(None) };
        let basis = Basis {
            account: ticket.account,
            credential: ticket.credential,
            generation: ticket.generation,
            account_generation: ticket.account_generation,
        };
        if !self.still_holds(&basis).await? {
            return Ok(None);
        }
        ticket.expires = (self.boot_clock)() + LIFETIME;
        Ok(Some(self.ticket_keys.keys().seal(&ticket)))
    }

    /// Ends everything of an account: it was disabled or removed.
    pub(crate) async fn revoke_account(
        &self,
        account: AccountId,
        why: &'static str,
    ) -> Result<(), Failure> {
        // Memory first: whatever the disk does, live sessions end now.
        self.lives.revoke(account, why, |_| true);
        self.vault.run(move |records| records.raise(account)).await?;
        Ok(())
    }

    /// Removes a key and ends its sessions: whose it was.
    pub(crate) async fn key_remove(
        &self,
        fingerprint: [u8; 32],
    ) -> Result<Option<AccountId>, Failure> {
        let found = self.vault.run(move |records| records.key(&fingerprint)).await?;
        let Some(ClientKey { account, .. }) = found else { return Ok(None) };
        let why = "the key was removed";
        let is_of_key = |basis: &Basis| basis.credential == Credential::Key(fingerprint);
        let unheard = self.lives.unless_heard(account, why, is_of_key);
        let removed = self.vault.run(move |records| records.key_remove(&fingerprint)).await;
        unheard.heard();
        let owner = removed?;
        if let Some(account) = owner {
            self.lives.revoke(account, why, is_of_key);
        }
        Ok(owner)
    }

    /// Adds a key for an account; false if somebody has it.
    pub(crate) async fn key_add(
        &self,
        account: AccountId,
        fingerprint: [u8; 32],
        label: String,
        login: String,
    ) -> Result<bool, Failure> {
        let now: UnixNanos = self.clock.now();
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| Failure::Temporary)?;
        let generation = u64::from_be_bytes(random);
        let key = ClientKey { fingerprint, account, generation, label, login };
        Ok(self.vault.run(move |records| records.key_add(&key, now)).await?)
    }
}

/// Characters of a typed name in the history.
const MAX_NOTED_LOGIN: usize = 320;

fn protocol(role: ipc::Role) -> &'static str {
    match role {
        ipc::Role::SmtpdSubmission => "submission",
        ipc::Role::ImapdFront | ipc::Role::ImapdSession => "imap",
        ipc::Role::HttpdWeb => "web",
        ipc::Role::HttpdAdmin => "webadmin",
        ipc::Role::SmtpdMx
        | ipc::Role::Accountd
        | ipc::Role::QueueRunner
        | ipc::Role::Keyholder
        | ipc::Role::Parser
        | ipc::Role::Outbound
        | ipc::Role::Resolver => "other",
    }
}

/// Stands where a name is no address; never compared with anything.
fn nobodys_address() -> Address {
    let localpart = types::Localpart::from_unquoted("nobody").expect("a constant localpart");
    Address::new(localpart, "invalid".parse().expect("a constant domain"))
}

#[cfg(test)]
mod tests;
