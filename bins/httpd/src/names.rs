//! The names that addresses of each domain are told to connect to: as accountd says, and as it said
//! last while it is away.

use config::Snapshot;
use ipc::{
    Dialer, Limits, Line, Unavailable, capnp,
    schema::{
        accountd_capnp::{config as dynamic, door},
        types_capnp::{handle, watched},
    },
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use tokio::sync::watch;
use types::Domain;

/// How long accountd has for an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// A snapshot holds all domains: 20,000 with names of usual length are 2 MiB.
const SNAPSHOTS: Limits = Limits { message_words: 1 << 20, ..Limits::SHORT_CALLS };
/// The pause between two attempts while accountd is away.
const PAUSE: Duration = Duration::from_millis(500);
/// Domains that are kept.
const MAX_DOMAINS: usize = 100_000;

/// Names for mail programs. Cheap to clone; all clones are one table.
#[derive(Clone, Default)]
pub(crate) struct Names(Rc<RefCell<Table>>);

#[derive(Default)]
struct Table {
    of_domain: BTreeMap<Domain, Domain>,
    told: BTreeSet<Domain>,
}

impl Names {
    /// What addresses of this domain are told, unless it is what everybody is told.
    pub(crate) fn of_domain(&self, domain: &Domain) -> Option<Domain> {
        self.0.borrow().of_domain.get(domain).cloned()
    }

    /// Whether addresses of any domain are told this name.
    pub(crate) fn is_told(&self, name: &Domain) -> bool {
        self.0.borrow().told.contains(name)
    }

    pub(crate) fn replace(&self, snapshot: &Snapshot) {
        let mut table = Table::default();
        let enabled = snapshot.domains.iter().filter(|domain| domain.enabled);
        for domain in enabled.take(MAX_DOMAINS) {
            let name = domain.client_settings.as_ref().map(|name| name.parse::<Domain>());
            if let (Ok(domain), Some(Ok(name))) = (domain.name.parse(), name) {
                table.told.insert(name.clone());
                table.of_domain.insert(domain, name);
            }
        }
        *self.0.borrow_mut() = table;
    }

    /// Keeps the table as accountd says, for ever.
    pub(crate) async fn follow(self, dialer: Dialer) {
        let line: Line<door::Client> = Line::new(dialer, SNAPSHOTS);
        loop {
            if let Err(error) = self.follow_once(&line).await {
                tracing::debug!(%error, "accountd is away; names stay as they are");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Follows until the connection ends.
    async fn follow_once(&self, line: &Line<door::Client>) -> Result<(), Unavailable> {
        let config: dynamic::Client =
            line.client().await?.config_request().send().pipeline.get_config();
        let (news, mut newest) = watch::channel(0);
        let mut request = config.watch_request();
        request.get().set_sink(ipc::new_client(Sink { news }));
        // Watching before asking: what changes in between is not missed.
        let watching = ipc::within(DEADLINE, request.send().promise).await?;
        let _held: handle::Client = watching
            .get()
            .and_then(|watching| watching.get_handle())
            .map_err(|_| Unavailable::Broken)?;
        loop {
            let answer = ipc::within(DEADLINE, config.current_request().send().promise).await?;
            let read = answer.get().and_then(|answer| {
                let snapshot = serde_json::from_slice(answer.get_snapshot()?)
                    .map_err(|error| capnp::Error::failed(error.to_string()))?;
                Ok((answer.get_number(), snapshot))
            });
            let (number, snapshot) = read.map_err(|error| {
                tracing::error!(%error, "accountd's snapshot cannot be read");
                Unavailable::Broken
            })?;
            self.replace(&snapshot);
            // The sink is dropped with the connection, and the wait ends.
            if newest.wait_for(|&newest| newest > number).await.is_err() {
                return Ok(());
            }
        }
    }
}

struct Sink {
    news: watch::Sender<u64>,
}

impl watched::Server for Sink {
    async fn changed(
        self: Rc<Self>,
        params: watched::ChangedParams,
        _results: watched::ChangedResults,
    ) -> Result<(), capnp::Error> {
        self.news.send_replace(params.get()?.get_number());
        Ok(())
    }

    async fn revoked(
        self: Rc<Self>,
        _params: watched::RevokedParams,
        _results: watched::RevokedResults,
    ) -> Result<(), capnp::Error> {
        // The configuration is revoked from nobody: whoever lost the edge is restarted without it.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_disabled_or_no_domain_is_not_told() {
        let names = Names::default();
        let snapshot = r#"{"domains": [
            {"name": "a.example", "enabled": true, "client_settings": "mail.a.example"},
            {"name": "b.example", "enabled": false, "client_settings": "mail.b.example"},
            {"name": "c.example", "enabled": true},
            {"name": "d.example", "enabled": true, "client_settings": "<script>"}]}"#;
        names.replace(&serde_json::from_str(snapshot).unwrap());
        let domain = |text: &str| text.parse::<Domain>().unwrap();
        assert_eq!(names.of_domain(&domain("A.example")), Some(domain("mail.a.example")));
        for other in ["b.example", "c.example", "d.example", "mail.a.example"] {
            assert_eq!(names.of_domain(&domain(other)), None, "{other}");
        }
        assert!(names.is_told(&domain("mail.a.example")));
        assert!(!names.is_told(&domain("mail.b.example")));
        names.replace(&Snapshot::default());
        assert!(!names.is_told(&domain("mail.a.example")), "what is gone is gone");
    }
}
