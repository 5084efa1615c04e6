//! `Config` and `Gate`: what every edge holds beside its own rights.

use super::{watched, wire};
use crate::{
    gate::{Closed, Gate},
    service::Service,
};
use ::config::{Snapshot as Told, directory::Directory};
use ipc::{
    Role, capnp,
    schema::accountd_capnp::{config, gate},
};
use std::rc::Rc;

/// For one edge.
pub(super) struct ConfigServer {
    pub(super) service: Rc<Service>,
    pub(super) client: Role,
}

/// As much of the directory as an edge needs: for the web the names that mail programs are told, and
/// nothing for anybody else, who asks for nothing.
fn told(directory: &Directory, client: Role) -> Told {
    let domains = match client {
        Role::HttpdWeb => directory
            .domains()
            .filter_map(|(name, domain)| {
                Some(::config::SnapshotDomain {
                    name: name.as_ascii().to_owned(),
                    enabled: domain.enabled,
                    client_settings: Some(domain.client_settings.as_ref()?.to_string()),
                })
            })
            .collect(),
        Role::SmtpdMx
        | Role::SmtpdSubmission
        | Role::ImapdFront
        | Role::ImapdSession
        | Role::HttpdAdmin
        | Role::QueueRunner
        | Role::Resolver
        | Role::Keyholder
        | Role::Parser
        | Role::Outbound
        | Role::Accountd => Vec::new(),
    };
    Told { domains }
}

impl config::Server for ConfigServer {
    async fn current(
        self: Rc<Self>,
        _: config::CurrentParams,
        mut results: config::CurrentResults,
    ) -> Result<(), capnp::Error> {
        let snapshot = self.service.directories.now();
        let json = serde_json::to_vec(&told(&snapshot.directory, self.client))
            .map_err(|error| capnp::Error::failed(error.to_string()))?;
        results.get().set_number(snapshot.number);
        results.get().set_snapshot(&json);
        Ok(())
    }

    async fn watch(
        self: Rc<Self>,
        params: config::WatchParams,
        mut results: config::WatchResults,
    ) -> Result<(), capnp::Error> {
        let sink = params.get()?.get_sink()?;
        let mut changes = self.service.directories.watch();
        let next = async move || {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            changes.borrow_and_update().number
        };
        results.get().set_handle(watched::watch(sink, next, std::future::pending()));
        Ok(())
    }
}

pub(super) struct GateServer {
    pub(super) service: Rc<Service>,
}

impl gate::Server for GateServer {
    async fn enter(
        self: Rc<Self>,
        params: gate::EnterParams,
        mut results: gate::EnterResults,
    ) -> Result<(), capnp::Error> {
        let peer = wire::peer(params.get()?.get_peer()?)?;
        let now = self.service.clock.now();
        let mut to = results.get().init_verdict();
        match Gate::enter(&self.service.gate, peer.ip, now) {
            Ok(pass) => {
                if self.service.authority.failed.borrow().may_try(peer.ip, now) {
                    to.set_pass(watched::holding(pass));
                } else {
                    to.set_too_many_failed_logins(());
                }
            }
            Err(Closed::TooManyConnections) => to.set_too_many_connections(()),
            Err(Closed::TooManyPerMinute) => to.set_too_many_per_minute(()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::config::directory::Host;

    #[test]
    fn a_face_is_told_its_slice_and_no_more() {
        let text = r#"
            [domain."a.example"]
            description = "for us alone"
            client_settings_domain = "mail.a.example"
            [domain."b.example"]
            [account.ann]
            id = "aaaaaaaaaaaaaaab"
            [account.ann.address."ann@a.example"]
        "#;
        let host = Host::default();
        let directory = Directory::parse("domains.toml", text, &host).unwrap();
        for client in Role::ALL {
            let json = serde_json::to_string(&told(&directory, client)).unwrap();
            let expected = if client == Role::HttpdWeb {
                r#"{"domains":[{"name":"a.example","enabled":true,"client_settings":"mail.a.example"}]}"#
            } else {
                r#"{"domains":[]}"#
            };
            assert_eq!(json, expected, "{client}");
        }
    }
}
