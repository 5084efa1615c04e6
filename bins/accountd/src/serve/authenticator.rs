//! Logging in, as each edge may: submission gets a Submitter, front a ticket for a session instance,
//! web an Account.

use super::{account::AccountServer, inbound::SubmitterServer, wire};
use crate::{
    auth::{
        authority::{Exchange, Failure, Proved, Session, Step},
        sasl::{MAX_MESSAGE, Mechanism},
        ticket::{EdgeId, Scope},
    },
    service::Service,
};
use ipc::{
    Role, capnp,
    schema::{
        account_capnp::account,
        auth_capnp::{authenticator, exchange, redeemed, renewed, resume_submitter, step, tickets},
        inbound_capnp::submitter,
    },
};
use std::{cell::RefCell, rc::Rc};
use types::SessionId;

/// Octets of a ticket.
const MAX_TICKET: usize = 1_024;

/// What a log-in gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gives {
    Submitter,
    HandOver,
    Account,
}

pub(super) struct AuthenticatorServer {
    pub(super) service: Rc<Service>,
    pub(super) edge: EdgeId,
    pub(super) gives: Gives,
}

struct ExchangeServer {
    service: Rc<Service>,
    edge: EdgeId,
    gives: Gives,
    session: SessionId,
    waiting: RefCell<Option<Exchange>>,
}

impl authenticator::Server for AuthenticatorServer {
    async fn mechanisms(
        self: Rc<Self>,
        params: authenticator::MechanismsParams,
        mut results: authenticator::MechanismsResults,
    ) -> Result<(), capnp::Error> {
        let peer = wire::peer(params.get()?.get_peer()?)?;
        let names = self.service.authority.mechanisms(&peer);
        results.get().set_names(names.as_slice())?;
        Ok(())
    }

    async fn start(
        self: Rc<Self>,
        params: authenticator::StartParams,
        mut results: authenticator::StartResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let peer = wire::peer(params.get_peer()?)?;
        let session = peer.session;
        let mechanism = params.get_mechanism()?.to_str()?;
        let initial = params.get_initial()?;
        if initial.len() > MAX_MESSAGE {
            return Err(wire::broken("a SASL message above its bound"));
        }
        let initial = Some(initial).filter(|_| params.get_has_initial());
        // httpd asks for no client certificate, so what it says of one is made up.
        let by_key = Mechanism::named(mechanism) == Some(Mechanism::External);
        let step = if by_key && self.gives == Gives::Account {
            Step::Failure(Failure::UnknownMechanism)
        } else {
            self.service.authority.start(mechanism, peer, self.edge, initial).await
        };
        let to = results.get().init_step();
        answer(&self.service, self.edge, self.gives, session, step, to).await
    }
}

impl exchange::Server for ExchangeServer {
    async fn respond(
        self: Rc<Self>,
        params: exchange::RespondParams,
        mut results: exchange::RespondResults,
    ) -> Result<(), capnp::Error> {
        let data = params.get()?.get_data()?;
        if data.len() > MAX_MESSAGE {
            return Err(wire::broken("a SASL message above its bound"));
        }
        let waiting = self.waiting.borrow_mut().take();
        let waiting = waiting.ok_or_else(|| wire::broken("an answer to no question"))?;
        let step = self.service.authority.respond(waiting, data).await;
        let to = results.get().init_step();
        answer(&self.service, self.edge, self.gives, self.session, step, to).await
    }
}

impl Drop for ExchangeServer {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.get_mut().take() {
            self.service.authority.abandoned(waiting);
        }
    }
}

async fn answer(
    service: &Rc<Service>,
    edge: EdgeId,
    gives: Gives,
    session: SessionId,
    step: Step,
    mut to: step::Builder<'_>,
) -> Result<(), capnp::Error> {
    match step {
        Step::Challenge(data, waiting) => {
            let mut challenge = to.init_challenge();
            challenge.set_data(&data);
            challenge.set_exchange(ipc::new_client(ExchangeServer {
                service: Rc::clone(service),
                edge,
                gives,
                session,
                waiting: RefCell::new(Some(waiting)),
            }));
            Ok(())
        }
        Step::Success { proved, additional } => {
            match success(service, edge, gives, session, proved).await {
                Ok(right) => {
                    let mut success = to.init_success();
                    if let Some(additional) = additional {
                        success.set_additional(&additional);
                        success.set_has_additional(true);
                    }
                    match right {
                        Right::Submitter { login, submitter, ticket } => {
                            success.set_login(login.as_str());
                            let mut group = success.init_submitter();
                            group.set_submitter(submitter);
                            group.set_ticket(&ticket);
                        }
                        Right::HandOver { login, instance, ticket } => {
                            success.set_login(login.as_str());
                            let mut group = success.init_hand_over();
                            group.set_session_instance(instance);
                            group.set_ticket(&ticket);
                        }
                        Right::Account { login, account, ticket } => {
                            success.set_login(login.as_str());
                            let mut group = success.init_account();
                            group.set_account(account);
                            group.set_ticket(&ticket);
                        }
                    }
                }
                Err(failure) => to.set_failure((&failure).into()),
            }
            Ok(())
        }
        Step::Failure(failure) => {
            to.set_failure((&failure).into());
            if let Failure::AccountDisabled(text) = &failure {
                to.set_told(&**text);
            }
            Ok(())
        }
    }
}

enum Right {
    Submitter { login: String, submitter: submitter::Client, ticket: Vec<u8> },
    HandOver { login: String, instance: u16, ticket: Vec<u8> },
    Account { login: String, account: account::Client, ticket: Vec<u8> },
}

async fn success(
    service: &Rc<Service>,
    edge: EdgeId,
    gives: Gives,
    id: SessionId,
    proved: Proved,
) -> Result<Right, Failure> {
    let login = proved.login.to_string();
    let authority = &service.authority;
    let ticket = |proved: &Proved, scope, edge| {
        authority.ticket(&proved.basis, &proved.login, id, scope, edge)
    };
    match gives {
        Gives::HandOver => {
            // The session is made where the ticket is redeemed.
            let instance = service.session_instance(proved.basis.account);
            let there = EdgeId { role: Role::ImapdSession.number(), instance };
            Ok(Right::HandOver { login, instance, ticket: ticket(&proved, Scope::Account, there) })
        }
        Gives::Submitter => {
            let ticket = ticket(&proved, Scope::Submit, edge);
            let session = authority.admit(proved).await?;
            Ok(Right::Submitter { login, submitter: submitter(service, session), ticket })
        }
        Gives::Account => {
            let ticket = ticket(&proved, Scope::Account, edge);
            let session = authority.admit(proved).await?;
            Ok(Right::Account { login, account: AccountServer::client(service, session), ticket })
        }
    }
}

fn submitter(service: &Rc<Service>, session: Session) -> submitter::Client {
    ipc::new_client(SubmitterServer { service: Rc::clone(service), session })
}

/// A ticket back into a Submitter, for smtpd submission.
pub(super) async fn resume(
    service: &Rc<Service>,
    edge: EdgeId,
    sealed: &[u8],
    mut to: resume_submitter::Builder<'_>,
) -> Result<(), capnp::Error> {
    match redeem(service, edge, Scope::Submit, sealed).await? {
        Some((session, ticket)) => {
            let mut group = to.init_submitter();
            group.set_submitter(submitter(service, session));
            group.set_ticket(&ticket);
        }
        None => to.set_refused(()),
    }
    Ok(())
}

/// A session and a newer ticket for a ticket.
async fn redeem(
    service: &Rc<Service>,
    edge: EdgeId,
    scope: Scope,
    sealed: &[u8],
) -> Result<Option<(Session, Vec<u8>)>, capnp::Error> {
    if sealed.len() > MAX_TICKET {
        return Ok(None);
    }
    let authority = &service.authority;
    match authority.redeem(sealed, scope, edge).await {
        Ok(Some((session, old))) => {
            let basis = session.live.basis;
            let ticket = authority.ticket(&basis, &session.login, old.session, scope, edge);
            Ok(Some((session, ticket)))
        }
        Ok(None) => Ok(None),
        // "Refused" would end the session for good; this is ours and passes.
        Err(_) => Err(capnp::Error::overloaded("the ticket cannot be checked now".into())),
    }
}

/// For imapd session and httpd web.
pub(super) struct TicketsServer {
    pub(super) service: Rc<Service>,
    pub(super) edge: EdgeId,
}

impl tickets::Server for TicketsServer {
    async fn redeem(
        self: Rc<Self>,
        params: tickets::RedeemParams,
        mut results: tickets::RedeemResults,
    ) -> Result<(), capnp::Error> {
        let sealed = params.get()?.get_ticket()?;
        let redeemed = redeem(&self.service, self.edge, Scope::Account, sealed).await?;
        let mut to: redeemed::Builder<'_> = results.get().init_outcome();
        match redeemed {
            Some((session, ticket)) => {
                let mut group = to.init_account();
                group.set_login(session.login.to_string().as_str());
                group.set_account(AccountServer::client(&self.service, session));
                group.set_ticket(&ticket);
            }
            None => to.set_refused(()),
        }
        Ok(())
    }

    async fn renew(
        self: Rc<Self>,
        params: tickets::RenewParams,
        mut results: tickets::RenewResults,
    ) -> Result<(), capnp::Error> {
        let sealed = params.get()?.get_ticket()?;
        let renewed = if sealed.len() > MAX_TICKET {
            Ok(None)
        } else {
            self.service.authority.renew(sealed, self.edge).await
        };
        let mut to: renewed::Builder<'_> = results.get().init_outcome();
        match renewed {
            Ok(Some(ticket)) => to.set_ticket(&ticket),
            Ok(None) => to.set_refused(()),
            Err(_) => {
                return Err(capnp::Error::overloaded("the ticket cannot be checked now".into()));
            }
        }
        Ok(())
    }
}
