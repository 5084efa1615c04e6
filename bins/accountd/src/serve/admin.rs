//! `AccountAdmin`: what an administrator may do, for moxctl on the control socket and for httpd admin
//! after a log-in.

use super::{watched, wire};
use crate::{
    administer::{ProblemKind, Trouble},
    auth::{admin::AdminProof, vault::VaultError},
    service::Service,
    store::{Check, Finding, StoreError},
};
use ipc::{
    capnp,
    schema::control_capnp::{account_admin, problem},
};
use std::{rc::Rc, sync::Arc, time::Duration};
use types::{AccountId, Address, Domain};

/// Accounts of one page.
const PAGE: usize = 200;
/// Attempts of one answer.
const MAX_LOGINS: u32 = 1_000;
/// Octets of domains.toml; it has to fit one message.
const MAX_TEXT: usize = 900_000;
/// Octets of content read together.
const BLOCK: u32 = 262_144;
/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(500);

/// Where an administrator comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// moxctl, whose user the kernel vouches for.
    Control,
    /// httpd admin, after a log-in, until the password is changed. It never gets mail to read: it is
    /// a face.
    Web(AdminProof),
}

pub(super) struct AdminServer {
    service: Rc<Service>,
    by: By,
}

impl AdminServer {
    pub(super) fn client(service: &Rc<Service>, by: By) -> account_admin::Client {
        ipc::new_client(Self { service: Rc::clone(service), by })
    }

    /// Asked before each call: whether the right still holds.
    fn check(&self) -> Result<(), capnp::Error> {
        match self.by {
            By::Control => Ok(()),
            By::Web(proof) => self.service.authority.check_admin(proof).map_err(wire::revoked),
        }
    }
}

/// How an alarm about what a check found begins.
const FOUND: &str = "verify left";

impl AdminServer {
    /// What is wrong with the credentials of an account, or with those of none.
    async fn credentials(
        &self,
        account: Option<(AccountId, &str)>,
    ) -> Result<Vec<Finding>, Trouble> {
        let (id, database) = match account {
            Some((id, _)) => (Some(id), "auth.db"),
            None => (None, "accountd.db"),
        };
        let found = self.service.authority.vault.run(move |records| records.check(id)).await;
        match account {
            // Whatever was found is about files that are gone.
            Some((id, name)) if !self.service.store.has_account(id) => {
                Err(Trouble::no_account(name))
            }
            Some(_) | None => of_credentials(database, found),
        }
    }

    /// What a check found stays an alarm until a later check finds nothing.
    fn tell_findings(&self, account: Option<AccountId>, findings: &[Finding]) {
        let alarms = &self.service.alarms;
        alarms.forget(account, FOUND);
        let left = findings.iter().filter(|finding| !finding.fixed);
        if let Some(first) = left.clone().next() {
            let what = format!("{FOUND} {} findings: {}", left.count(), first.what);
            alarms.raise(account, &what, self.service.clock.now());
        }
    }
}

fn set_problem(mut to: problem::Builder<'_>, outcome: Result<(), Trouble>) {
    let Err(trouble) = outcome else { return to.set_kind(problem::Kind::None) };
    to.set_kind(match trouble.kind {
        ProblemKind::Missing => problem::Kind::Missing,
        ProblemKind::Exists => problem::Kind::Exists,
        ProblemKind::Invalid => problem::Kind::Invalid,
        ProblemKind::Temporary => problem::Kind::Temporary,
        ProblemKind::InUse => problem::Kind::InUse,
    });
    to.set_text(trouble.text.as_str());
}

/// Reads an argument; what cannot be read is the administrator's fault and told as such.
fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Trouble> {
    text.parse().map_err(|why| Trouble::invalid(&format!("{text:?}: {why}")))
}

impl account_admin::Server for AdminServer {
    async fn accounts(
        self: Rc<Self>,
        params: account_admin::AccountsParams,
        mut results: account_admin::AccountsResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let after = params.get()?.get_after()?.to_str()?.to_owned();
        let snapshot = self.service.directories.now();
        let mut page: Vec<_> = snapshot.directory.accounts_after(&after).take(PAGE + 1).collect();
        let more = page.len() > PAGE;
        page.truncate(PAGE);
        let mut states = Vec::new();
        for account in &page {
            let usage = match account.id {
                Some(id) => self.service.store.account(id).usage().await,
                None => Err(StoreError::NoSuchAccount),
            };
            states.push(usage);
        }
        let mut to = results.get();
        to.set_more(more);
        let mut list = to.init_list(wire::count(page.len()));
        for (at, (account, usage)) in (0..).zip(page.iter().zip(&states)) {
            let mut info = list.reborrow().get(at);
            info.set_name(account.name.as_str());
            if let Some(id) = account.id {
                info.set_id(id.to_string().as_str());
            }
            let mut addresses: Vec<String> =
                account.addresses.iter().map(ToString::to_string).collect();
            addresses.extend(account.catchalls.iter().map(|domain| format!("@{domain}")));
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            info.set_addresses(addresses.as_slice())?;
            info.set_disabled(account.login_disabled.is_some());
            info.set_quota_bytes(account.quota);
            match usage {
                Ok(usage) => {
                    info.set_used_bytes(usage.bytes);
                    info.set_messages(usage.messages);
                    info.set_state("ok");
                }
                Err(StoreError::Newer) => info.set_state("newer"),
                Err(StoreError::Damaged(_)) => info.set_state("damaged"),
                Err(error) => info.set_state(error.to_string().as_str()),
            }
        }
        Ok(())
    }

    async fn account_add(
        self: Rc<Self>,
        params: account_admin::AccountAddParams,
        mut results: account_admin::AccountAddResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let (name, password) = (params.get_name()?.to_str()?, params.get_password()?.to_str()?);
        let outcome = match parse::<Address>(params.get_address()?.to_str()?) {
            Ok(address) => self.service.account_add(name, &address, password).await,
            Err(trouble) => Err(trouble),
        };
        set_problem(results.get().init_problem(), outcome);
        Ok(())
    }

    async fn account_remove(
        self: Rc<Self>,
        params: account_admin::AccountRemoveParams,
        mut results: account_admin::AccountRemoveResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let outcome = self.service.account_remove(params.get()?.get_name()?.to_str()?).await;
        set_problem(results.get().init_problem(), outcome);
        Ok(())
    }

    async fn account_disable(
        self: Rc<Self>,
        params: account_admin::AccountDisableParams,
        mut results: account_admin::AccountDisableResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let (name, message) = (params.get_name()?.to_str()?, params.get_message()?.to_str()?);
        let outcome = self.service.account_disable(name, message).await;
        set_problem(results.get().init_problem(), outcome);
        Ok(())
    }

    async fn account_enable(
        self: Rc<Self>,
        params: account_admin::AccountEnableParams,
        mut results: account_admin::AccountEnableResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let outcome = self.service.account_enable(params.get()?.get_name()?.to_str()?);
        set_problem(results.get().init_problem(), outcome);
        Ok(())
    }

    async fn account_password(
        self: Rc<Self>,
        params: account_admin::AccountPasswordParams,
        mut results: account_admin::AccountPasswordResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let (name, password) = (params.get_name()?.to_str()?, params.get_password()?.to_str()?);
        let outcome = self.service.account_password(name, password).await;
        set_problem(results.get().init_problem(), outcome);
        Ok(())
    }

    async fn account_logins(
        self: Rc<Self>,
        params: account_admin::AccountLoginsParams,
        mut results: account_admin::AccountLoginsResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let max = params.get_max().clamp(1, MAX_LOGINS);
        let attempts = self.service.logins(params.get_name()?.to_str()?, max).await;
        let mut to = results.get();
        match attempts {
            Ok(attempts) => {
                let mut list = to.init_list(wire::count(attempts.len()));
                for (at, attempt) in (0..).zip(&attempts) {
                    let mut login = list.reborrow().get(at);
                    login.set_first_unix_ns(attempt.first.0);
                    login.set_last_unix_ns(attempt.last.0);
                    login.set_count(attempt.count);
                    login.set_ip(attempt.ip.as_str());
                    login.set_protocol(attempt.protocol.as_str());
                    login.set_mechanism(attempt.mechanism.as_str());
                    login.set_login(attempt.login.as_str());
                    login.set_result(attempt.result.as_str());
                    login.set_tls(attempt.tls.as_str());
                    login.set_local_ip(attempt.local_ip.as_str());
                    login.set_listener(attempt.listener.as_str());
                    login.set_client_key(&attempt.client_key);
                    login.set_agent(attempt.agent.as_str());
                }
            }
            Err(trouble) => set_problem(to.reborrow().init_problem(), Err(trouble)),
        }
        Ok(())
    }

    async fn account_verify(
        self: Rc<Self>,
        params: account_admin::AccountVerifyParams,
        mut results: account_admin::AccountVerifyResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let name = params.get_name()?.to_str()?;
        let (fix, sink) = (params.get_fix(), params.get_progress()?);
        if name.is_empty() {
            // What belongs to no account.
            match self.credentials(None).await {
                Ok(findings) => {
                    self.tell_findings(None, &findings);
                    set_findings(results.get(), (name, None), &findings);
                }
                Err(trouble) => set_problem(results.get().init_problem(), Err(trouble)),
            }
            return Ok(());
        }
        let id = match self.service.id_of(name) {
            Ok(id) => id,
            Err(trouble) => {
                set_problem(results.get().init_problem(), Err(trouble));
                return Ok(());
            }
        };
        // First: where they cannot be looked at now, what is mended would not be told.
        let credentials = match self.credentials(Some((id, name))).await {
            Ok(findings) => findings,
            Err(trouble) => {
                set_problem(results.get().init_problem(), Err(trouble));
                return Ok(());
            }
        };
        let (sender, mut steps) = tokio::sync::watch::channel((0, 0));
        let account = self.service.store.account(id);
        let work = account.verify(
            fix,
            Arc::new(move |progress| {
                sender.send_replace((progress.done, progress.of));
            }),
        );
        let mut work = std::pin::pin!(work);
        let findings = loop {
            tokio::select! {
                biased;
                done = &mut work => break done,
                Ok(()) = steps.changed() => {
                    let (done, of) = *steps.borrow_and_update();
                    let mut request = sink.at_request();
                    request.get().set_done(done);
                    request.get().set_total(of);
                    request.get().set_what(name);
                    // A terminal that went away does not end the check.
                    let _ = tokio::time::timeout(PROGRESS, request.send()).await;
                }
            }
        };
        let mut to = results.get();
        match findings {
            Ok(mut findings) => {
                findings.extend(credentials);
                self.tell_findings(Some(id), &findings);
                set_findings(to, (name, Some(id)), &findings);
            }
            Err(error) => {
                set_problem(to.reborrow().init_problem(), Err(Trouble::from(error)));
            }
        }
        Ok(())
    }

    async fn client_keys(
        self: Rc<Self>,
        params: account_admin::ClientKeysParams,
        mut results: account_admin::ClientKeysResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let keys = self.service.keys(params.get()?.get_account()?.to_str()?).await;
        let mut to = results.get();
        match keys {
            Ok(keys) => {
                let mut list = to.init_list(wire::count(keys.len()));
                for (at, key) in (0..).zip(&keys) {
                    let mut one = list.reborrow().get(at);
                    one.set_fingerprint(&key.fingerprint);
                    one.set_label(key.label.as_str());
                    one.set_login(key.login.as_str());
                }
            }
            Err(trouble) => set_problem(to.reborrow().init_problem(), Err(trouble)),
        }
        Ok(())
    }

    async fn client_key_add(
        self: Rc<Self>,
        params: account_admin::ClientKeyAddParams,
        mut results: account_admin::ClientKeyAddResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let (account, label) = (params.get_account()?.to_str()?, params.get_label()?.to_str()?);
        let (fingerprint, login) = (params.get_fingerprint()?, params.get_login()?.to_str()?);
        let outcome = self.service.key_add(account, fingerprint, label, login).await;
        set_problem(results.get().init_problem(), outcome);
        Ok(())
    }

    async fn client_key_remove(
        self: Rc<Self>,
        params: account_admin::ClientKeyRemoveParams,
        mut results: account_admin::ClientKeyRemoveResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let outcome = self.service.key_remove(params.get()?.get_fingerprint()?).await;
        set_problem(results.get().init_problem(), outcome);
        Ok(())
    }

    async fn addresses(
        self: Rc<Self>,
        params: account_admin::AddressesParams,
        mut results: account_admin::AddressesResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let name = params.get()?.get_account()?.to_str()?.to_owned();
        let snapshot = self.service.directories.now();
        let mut to = results.get();
        match snapshot.directory.account(&name) {
            Some(account) => {
                let mut all: Vec<String> =
                    account.addresses.iter().map(ToString::to_string).collect();
                all.extend(account.catchalls.iter().map(|domain| format!("@{domain}")));
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                to.set_list(all.as_slice())?;
            }
            None => set_problem(to.reborrow().init_problem(), Err(Trouble::no_account(&name))),
        }
        Ok(())
    }

    async fn address_add(
        self: Rc<Self>,
        params: account_admin::AddressAddParams,
        mut results: account_admin::AddressAddResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let (address, account) = (params.get_address()?.to_str()?, params.get_account()?.to_str()?);
        set_problem(results.get().init_problem(), self.service.address_add(address, account));
        Ok(())
    }

    async fn address_remove(
        self: Rc<Self>,
        params: account_admin::AddressRemoveParams,
        mut results: account_admin::AddressRemoveResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let outcome = self.service.address_remove(params.get()?.get_address()?.to_str()?);
        set_problem(results.get().init_problem(), outcome);
        Ok(())
    }

    async fn domains(
        self: Rc<Self>,
        _: account_admin::DomainsParams,
        mut results: account_admin::DomainsResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let snapshot = self.service.directories.now();
        let all: Vec<_> = snapshot.directory.domains().collect();
        let mut list = results.get().init_list(wire::count(all.len()));
        for (at, (name, domain)) in (0..).zip(&all) {
            let mut info = list.reborrow().get(at);
            info.set_name(name.as_ascii());
            info.set_accounts(wire::count(snapshot.directory.accounts_in(name)));
            info.set_disabled(!domain.enabled);
        }
        Ok(())
    }

    async fn domain_add(
        self: Rc<Self>,
        params: account_admin::DomainAddParams,
        mut results: account_admin::DomainAddResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let account = params.get_account()?.to_str()?;
        let outcome = match parse::<Domain>(params.get_domain()?.to_str()?) {
            Ok(domain) => self.service.domain_add(&domain, account).await,
            Err(trouble) => Err(trouble),
        };
        set_problem(results.get().init_problem(), outcome);
        Ok(())
    }

    async fn domain_remove(
        self: Rc<Self>,
        params: account_admin::DomainRemoveParams,
        mut results: account_admin::DomainRemoveResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let outcome = match parse::<Domain>(params.get()?.get_domain()?.to_str()?) {
            Ok(domain) => self.service.domain_remove(&domain).await,
            Err(trouble) => Err(trouble),
        };
        set_problem(results.get().init_problem(), outcome);
        Ok(())
    }

    async fn message_show(
        self: Rc<Self>,
        params: account_admin::MessageShowParams,
        mut results: account_admin::MessageShowResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let (name, mailbox) = (params.get_account()?.to_str()?, params.get_mailbox()?.to_str()?);
        if matches!(self.by, By::Web(_)) {
            let trouble = Trouble::invalid("messages are shown on the control socket alone");
            set_problem(results.get().init_problem(), Err(trouble));
            return Ok(());
        }
        let (uid, sink) = (params.get_uid(), params.get_sink()?);
        let found = async {
            let account = self.service.store.account(self.service.id_of(name)?);
            let mailbox = account.mailbox_by_name(mailbox.to_owned()).await?;
            let content = account.content(mailbox.id, uid).await?;
            Ok::<_, Trouble>((account, content))
        };
        match found.await {
            Ok((account, content)) => {
                let mut at = 0;
                while at < content.size {
                    let block = account
                        .read_content(content, at, BLOCK)
                        .await
                        .map_err(|error| capnp::Error::failed(error.to_string()))?;
                    if block.is_empty() {
                        return Err(capnp::Error::failed("content is shorter than it was".into()));
                    }
                    watched::send(&sink, &block).await?;
                    at += block.len() as u64;
                }
                watched::finish(&sink).await?;
            }
            Err(trouble) => set_problem(results.get().init_problem(), Err(trouble)),
        }
        Ok(())
    }

    async fn directory_read(
        self: Rc<Self>,
        _: account_admin::DirectoryReadParams,
        mut results: account_admin::DirectoryReadResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let (text, revision) = self.service.directories.to_edit();
        if text.len() > MAX_TEXT {
            return Err(capnp::Error::failed("domains.toml is too large for one message".into()));
        }
        results.get().set_text(text.as_bytes());
        results.get().set_revision(revision);
        Ok(())
    }

    async fn directory_write(
        self: Rc<Self>,
        params: account_admin::DirectoryWriteParams,
        mut results: account_admin::DirectoryWriteResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let revision = params.get_revision();
        let outcome = match std::str::from_utf8(params.get_text()?) {
            Ok(text) => self.service.directory_write(text, revision).await,
            Err(_) => Err(Trouble::invalid("the text is not UTF-8")),
        };
        set_problem(results.get().init_problem(), outcome);
        Ok(())
    }

    async fn status(
        self: Rc<Self>,
        _: account_admin::StatusParams,
        mut results: account_admin::StatusResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let lines = self.service.status().await;
        let mut list = results.get().init_lines(wire::count(lines.len()));
        for (at, (key, value)) in (0..).zip(&lines) {
            let mut line = list.reborrow().get(at);
            line.set_key(key.as_str());
            line.set_value(value.as_bytes());
        }
        Ok(())
    }

    async fn admin_password(
        self: Rc<Self>,
        params: account_admin::AdminPasswordParams,
        mut results: account_admin::AdminPasswordResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let outcome = self.service.admin_password(params.get()?.get_password()?.to_str()?).await;
        set_problem(results.get().init_problem(), outcome);
        Ok(())
    }

    async fn limits_clear(
        self: Rc<Self>,
        _: account_admin::LimitsClearParams,
        _: account_admin::LimitsClearResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        self.service.gate.borrow_mut().clear();
        self.service.authority.failed.borrow_mut().clear();
        tracing::info!("limits cleared by an administrator");
        Ok(())
    }
}

/// What is wrong with a database of credentials, as findings.
fn of_credentials(
    database: &str,
    found: Result<Vec<String>, VaultError>,
) -> Result<Vec<Finding>, Trouble> {
    let found = match found {
        Ok(found) => found,
        Err(VaultError::Unsound(what)) => vec![what],
        // Nothing is known of it.
        Err(error @ (VaultError::Busy | VaultError::Storage(_))) => return Err(error.into()),
    };
    let finding = |what: String| Finding {
        check: Check::Credentials,
        what: format!("{database}: {what}"),
        fixed: false,
        fixable: false,
    };
    Ok(found.into_iter().map(finding).collect())
}

/// Tells findings of the account of this name, or of what belongs to none.
fn set_findings(
    to: account_admin::account_verify_results::Builder<'_>,
    (name, account): (&str, Option<AccountId>),
    findings: &[Finding],
) {
    let mut list = to.init_findings(wire::count(findings.len()));
    for (at, finding) in (0..).zip(findings) {
        let mut one = list.reborrow().get(at);
        one.set_account(name);
        one.set_class(class(finding.check));
        one.set_text(finding.what.as_str());
        one.set_fixed(finding.fixed);
        one.set_command(command(finding, name, account).as_str());
    }
}

/// What helps with a finding.
fn command(finding: &Finding, name: &str, account: Option<AccountId>) -> String {
    if finding.fixed {
        String::new()
    } else if finding.fixable {
        format!("moxctl account verify --fix {name}")
    } else if finding.check == Check::Names {
        "rename the mailbox in a mail program".to_owned()
    } else {
        // Nobody can guess what was there. Mail has come since the backup: only what is damaged is
        // brought back.
        let place = match account {
            None => "accountd/accountd.db".to_owned(),
            Some(id) if finding.check == Check::Credentials => {
                format!("accountd/accounts/{id}/auth.db")
            }
            Some(id) => format!("accountd/accounts/{id}"),
        };
        format!("moxctl stop, then bring back {place} from the backup")
    }
}

fn class(check: Check) -> &'static str {
    match check {
        Check::Structure => "structure",
        Check::References => "references",
        Check::Sequences => "sequences",
        Check::Names => "names",
        Check::Counters => "counters",
        Check::Usage => "usage",
        Check::Refcounts => "refcounts",
        Check::Content => "content",
        Check::Segments => "segments",
        Check::Threads => "threads",
        Check::Annotations => "annotations",
        Check::Junk => "junk",
        Check::Credentials => "credentials",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::Error;

    #[test]
    fn only_what_stays_wrong_is_a_finding() {
        for (error, is_found) in [
            (Error::Damaged("x".into()), true),
            (Error::Foreign(7), true),
            (Error::Newer { min_reader: 9, known: 1 }, true),
            (Error::Fault(storage::rusqlite::Error::QueryReturnedNoRows), true),
            (Error::DiskFull("x".into()), false),
            (Error::ReadOnly("x".into()), false),
            (Error::SyncFailed("x".into()), false),
            (Error::Io("x".into()), false),
            (Error::Busy, false),
        ] {
            let text = error.to_string();
            match of_credentials("auth.db", Err(error.into())) {
                Ok(found) => {
                    assert!(is_found, "{text}");
                    assert_eq!(found[0].what, format!("auth.db: {text}"));
                }
                Err(trouble) => {
                    assert!(!is_found, "{text}");
                    assert_eq!((trouble.kind, &trouble.text), (ProblemKind::Temporary, &text));
                }
            }
        }
        let busy = of_credentials("auth.db", Err(VaultError::Busy)).unwrap_err();
        assert_eq!(busy.kind, ProblemKind::Temporary);
    }
}
