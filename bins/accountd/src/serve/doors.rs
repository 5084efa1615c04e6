//! The doors: what each client role finds behind its edge. Which door a connection gets is decided
//! by the slot of its connector, never by what it says.

use super::{
    admin::{AdminServer, By},
    authenticator::{self, AuthenticatorServer, Gives, TicketsServer},
    config::{ConfigServer, GateServer},
    inbound::InboundServer,
    queue::{DeliveryServer, OutboxServer},
    wire,
};
use crate::{auth::ticket::EdgeId, service::Service};
use ipc::{
    Role, capnp,
    schema::accountd_capnp::{
        admin_door, door, front_door, mx_door, queue_door, session_door, submission_door, web_door,
    },
};
use std::rc::Rc;

struct Doorway {
    service: Rc<Service>,
    client: Role,
    edge: EdgeId,
}

/// The bootstrap capability of an edge; None for a role that has no edge to accountd.
pub(crate) fn door(
    service: &Rc<Service>,
    client: Role,
    instance: u16,
) -> Option<capnp::capability::Client> {
    let edge = EdgeId { role: client.number(), instance };
    let doorway = Doorway { service: Rc::clone(service), client, edge };
    let client = match client {
        Role::SmtpdMx => ipc::new_client::<mx_door::Client, _>(doorway).client,
        Role::SmtpdSubmission => ipc::new_client::<submission_door::Client, _>(doorway).client,
        Role::ImapdFront => ipc::new_client::<front_door::Client, _>(doorway).client,
        Role::ImapdSession => ipc::new_client::<session_door::Client, _>(doorway).client,
        Role::HttpdWeb => ipc::new_client::<web_door::Client, _>(doorway).client,
        Role::HttpdAdmin => ipc::new_client::<admin_door::Client, _>(doorway).client,
        Role::QueueRunner => ipc::new_client::<queue_door::Client, _>(doorway).client,
        Role::Resolver | Role::Keyholder | Role::Parser | Role::Outbound | Role::Accountd => {
            return None;
        }
    };
    Some(capnp::capability::Client { hook: client.hook })
}

/// What moxctl finds on the control socket.
pub(crate) fn control(service: &Rc<Service>) -> capnp::capability::Client {
    let client = AdminServer::client(service, By::Control);
    capnp::capability::Client { hook: client.client.hook }
}

impl Doorway {
    fn authenticator(&self, gives: Gives) -> ipc::schema::auth_capnp::authenticator::Client {
        let service = Rc::clone(&self.service);
        ipc::new_client(AuthenticatorServer { service, edge: self.edge, gives })
    }

    fn tickets(&self) -> ipc::schema::auth_capnp::tickets::Client {
        ipc::new_client(TicketsServer { service: Rc::clone(&self.service), edge: self.edge })
    }
}

impl door::Server for Doorway {
    async fn config(
        self: Rc<Self>,
        _: door::ConfigParams,
        mut results: door::ConfigResults,
    ) -> Result<(), capnp::Error> {
        let service = Rc::clone(&self.service);
        results.get().set_config(ipc::new_client(ConfigServer { service, client: self.client }));
        Ok(())
    }

    async fn gate(
        self: Rc<Self>,
        _: door::GateParams,
        mut results: door::GateResults,
    ) -> Result<(), capnp::Error> {
        let service = Rc::clone(&self.service);
        results.get().set_gate(ipc::new_client(GateServer { service }));
        Ok(())
    }
}

impl mx_door::Server for Doorway {
    async fn inbound(
        self: Rc<Self>,
        _: mx_door::InboundParams,
        mut results: mx_door::InboundResults,
    ) -> Result<(), capnp::Error> {
        let service = Rc::clone(&self.service);
        results.get().set_inbound(ipc::new_client(InboundServer { service }));
        Ok(())
    }
}

impl submission_door::Server for Doorway {
    async fn authenticator(
        self: Rc<Self>,
        _: submission_door::AuthenticatorParams,
        mut results: submission_door::AuthenticatorResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_authenticator(Doorway::authenticator(&self, Gives::Submitter));
        Ok(())
    }

    async fn resume(
        self: Rc<Self>,
        params: submission_door::ResumeParams,
        mut results: submission_door::ResumeResults,
    ) -> Result<(), capnp::Error> {
        let ticket = params.get()?.get_ticket()?;
        let to = results.get().init_outcome();
        authenticator::resume(&self.service, self.edge, ticket, to).await
    }
}

impl front_door::Server for Doorway {
    async fn authenticator(
        self: Rc<Self>,
        _: front_door::AuthenticatorParams,
        mut results: front_door::AuthenticatorResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_authenticator(Doorway::authenticator(&self, Gives::HandOver));
        Ok(())
    }
}

impl session_door::Server for Doorway {
    async fn tickets(
        self: Rc<Self>,
        _: session_door::TicketsParams,
        mut results: session_door::TicketsResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_tickets(Doorway::tickets(&self));
        Ok(())
    }
}

impl web_door::Server for Doorway {
    async fn authenticator(
        self: Rc<Self>,
        _: web_door::AuthenticatorParams,
        mut results: web_door::AuthenticatorResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_authenticator(Doorway::authenticator(&self, Gives::Account));
        Ok(())
    }

    async fn tickets(
        self: Rc<Self>,
        _: web_door::TicketsParams,
        mut results: web_door::TicketsResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_tickets(Doorway::tickets(&self));
        Ok(())
    }
}

impl admin_door::Server for Doorway {
    async fn login(
        self: Rc<Self>,
        params: admin_door::LoginParams,
        mut results: admin_door::LoginResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let peer = wire::peer(params.get_peer()?)?;
        let password = params.get_password()?.to_str()?;
        let outcome = self.service.authority.admin_login(&peer, password).await;
        let mut to = results.get().init_outcome();
        match outcome {
            Ok(proof) => to.set_admin(AdminServer::client(&self.service, By::Web(proof))),
            Err(failure) => to.set_failure((&failure).into()),
        }
        Ok(())
    }
}

impl queue_door::Server for Doorway {
    async fn outbox(
        self: Rc<Self>,
        _: queue_door::OutboxParams,
        mut results: queue_door::OutboxResults,
    ) -> Result<(), capnp::Error> {
        let service = Rc::clone(&self.service);
        results.get().set_outbox(ipc::new_client(OutboxServer { service }));
        Ok(())
    }

    async fn delivery(
        self: Rc<Self>,
        _: queue_door::DeliveryParams,
        mut results: queue_door::DeliveryResults,
    ) -> Result<(), capnp::Error> {
        let service = Rc::clone(&self.service);
        results.get().set_delivery(ipc::new_client(DeliveryServer { service }));
        Ok(())
    }
}
