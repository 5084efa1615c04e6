//! `Account`: one session's rights over one account's mail.

use super::{append::AppendServer, mailbox::MailboxServer, watched, wire};
use crate::{
    auth::authority::Session,
    intake::spool::Crowded,
    service::Service,
    store::{self, FIRST_MODSEQ, MailboxInfo, StoreError},
};
use ipc::{
    capnp,
    schema::account_capnp::{account, append_started, mailbox_outcome, opened},
};
use std::rc::Rc;
use types::UnixNanos;

/// Octets of a mailbox name.
const MAX_NAME: usize = 2_048;

/// How much of an account an object gives.
#[derive(Debug, Clone)]
pub(super) struct Rights {
    pub(super) writable: bool,
    /// None: all mailboxes. By its canonical name.
    pub(super) mailbox: Option<String>,
    pub(super) append_only: bool,
}

impl Rights {
    const ALL: Self = Self { writable: true, mailbox: None, append_only: false };

    pub(super) fn reaches(&self, name: &str) -> bool {
        self.mailbox.as_ref().is_none_or(|only| store::canonical(name).ok().as_ref() == Some(only))
    }

    fn may_read(&self) -> bool {
        !self.append_only
    }

    /// Whether it shows that there is a mailbox of this name.
    fn shows(&self, name: &str) -> bool {
        self.may_read() && self.reaches(name)
    }

    /// Whether mailboxes may be made, renamed and deleted.
    fn may_arrange(&self) -> bool {
        self.writable && self.mailbox.is_none() && !self.append_only
    }
}

pub(super) struct AccountServer {
    service: Rc<Service>,
    session: Session,
    account: store::Account,
    rights: Rights,
}

impl AccountServer {
    pub(super) fn client(service: &Rc<Service>, session: Session) -> account::Client {
        let account = service.account(session.live.basis.account);
        let service = Rc::clone(service);
        ipc::new_client(Self { service, session, account, rights: Rights::ALL })
    }

    fn check(&self) -> Result<(), capnp::Error> {
        self.session.live.check().map_err(wire::revoked)
    }

    /// For methods without an outcome: what cannot be read now fails as overloaded, which means
    /// "later" to the caller.
    fn later(error: &StoreError) -> capnp::Error {
        tracing::warn!(%error, "an account cannot be read");
        capnp::Error::overloaded(error.to_string())
    }

    async fn mailbox(&self, name: &str) -> Result<MailboxInfo, StoreError> {
        if !self.rights.reaches(name) {
            return Err(StoreError::NoSuchMailbox);
        }
        self.account.mailbox_by_name(name.to_owned()).await
    }
}

fn name(text: capnp::text::Reader<'_>) -> Result<&str, capnp::Error> {
    let name = text.to_str()?;
    if name.len() > MAX_NAME {
        Err(wire::broken("a mailbox name above its bound"))
    } else {
        Ok(name)
    }
}

fn answer(mut to: mailbox_outcome::Builder<'_>, outcome: Result<(), StoreError>) {
    let Err(error) = outcome else { return to.set_done(()) };
    match error {
        StoreError::MailboxExists => to.set_exists(()),
        StoreError::NoSuchMailbox => to.set_missing(()),
        StoreError::HasChildren => to.set_has_children(()),
        StoreError::TooMany(_) => to.set_limit(()),
        StoreError::Inbox
        | StoreError::MailboxName(_)
        | StoreError::OverQuota
        | StoreError::NoUidLeft
        | StoreError::TooManyKeywords => to.set_cannot(error.to_string().as_str()),
        StoreError::NoSuchAccount
        | StoreError::AccountExists
        | StoreError::NoSuchMessage
        | StoreError::ContentGone
        | StoreError::TooLarge
        | StoreError::TooManySent
        | StoreError::TooManyFirstTime
        | StoreError::Busy
        | StoreError::DiskFull
        | StoreError::ReadOnly
        | StoreError::Damaged(_)
        | StoreError::Newer
        | StoreError::Failed(_)
        | StoreError::Stopped => {
            tracing::warn!(%error, "a mailbox could not be changed");
            to.set_temporary(());
        }
    }
}

impl account::Server for AccountServer {
    async fn describe(
        self: Rc<Self>,
        _: account::DescribeParams,
        mut results: account::DescribeResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let usage = self.account.usage().await.map_err(|e| Self::later(&e))?;
        let modseq = self.account.modseq().await.map_err(|e| Self::later(&e))?;
        let snapshot = self.service.directories.now();
        let entry = snapshot.directory.account_by_id(self.account.id());
        let mut to = results.get();
        to.set_login(self.session.login.to_string().as_str());
        to.set_quota_bytes(entry.map_or(0, |entry| entry.quota));
        to.set_used_bytes(usage.bytes);
        to.set_modseq(modseq);
        Ok(())
    }

    async fn mailboxes(
        self: Rc<Self>,
        params: account::MailboxesParams,
        mut results: account::MailboxesResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let since = params.get()?.get_since_modseq();
        // Read before the list: what changes meanwhile is told again, never missed.
        let mut modseq = self.account.modseq().await.map_err(|e| Self::later(&e))?;
        let all = if since < FIRST_MODSEQ {
            self.account.mailboxes().await.map_err(|e| Self::later(&e))?
        } else {
            let changes = self.account.account_changes(since).await.map_err(|e| Self::later(&e))?;
            modseq = changes.modseq;
            changes.mailboxes
        };
        let list: Vec<_> = all.into_iter().filter(|info| self.rights.shows(&info.name)).collect();
        let subscriptions = self.account.subscriptions().await.map_err(|e| Self::later(&e))?;
        let mut to = results.get();
        to.set_modseq(modseq);
        let mut infos = to.reborrow().init_list(wire::count(list.len()));
        for (at, info) in (0..).zip(&list) {
            // Keyword names come with open(): listing is about counters.
            wire::set_mailbox(infos.reborrow().get(at), info, &Vec::new())?;
        }
        let names = subscriptions.iter().map(String::as_str);
        let names: Vec<&str> = names.filter(|name| self.rights.shows(name)).collect();
        to.set_subscriptions(names.as_slice())?;
        Ok(())
    }

    async fn create(
        self: Rc<Self>,
        params: account::CreateParams,
        mut results: account::CreateResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let name = name(params.get_name()?)?;
        let role = wire::role(params.get_role()?);
        let mut to = results.get().init_outcome();
        if !self.rights.may_arrange() {
            to.set_read_only(());
            return Ok(());
        }
        let outcome = self.account.create_mailbox(name.to_owned(), role).await;
        answer(to, outcome.map(|_| ()));
        Ok(())
    }

    async fn delete(
        self: Rc<Self>,
        params: account::DeleteParams,
        mut results: account::DeleteResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let name = name(params.get()?.get_name()?)?;
        let mut to = results.get().init_outcome();
        if !self.rights.may_arrange() {
            to.set_read_only(());
            return Ok(());
        }
        let outcome = match self.mailbox(name).await {
            Ok(info) => self.account.delete_mailbox(info.id).await.map(|_| ()),
            Err(error) => Err(error),
        };
        answer(to, outcome);
        Ok(())
    }

    async fn rename(
        self: Rc<Self>,
        params: account::RenameParams,
        mut results: account::RenameResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let (from, to_name) = (name(params.get_from()?)?, name(params.get_to()?)?);
        let mut to = results.get().init_outcome();
        if !self.rights.may_arrange() {
            to.set_read_only(());
            return Ok(());
        }
        let outcome = match self.mailbox(from).await {
            Ok(info) => self.account.rename_mailbox(info.id, to_name.to_owned()).await.map(|_| ()),
            Err(error) => Err(error),
        };
        answer(to, outcome);
        Ok(())
    }

    async fn subscribe(
        self: Rc<Self>,
        params: account::SubscribeParams,
        mut results: account::SubscribeResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let name = name(params.get_name()?)?;
        let mut to = results.get().init_outcome();
        if !self.rights.may_arrange() {
            to.set_read_only(());
            return Ok(());
        }
        let outcome = self.account.subscribe(name.to_owned(), params.get_on()).await;
        answer(to, outcome.map(|_| ()));
        Ok(())
    }

    async fn open(
        self: Rc<Self>,
        params: account::OpenParams,
        mut results: account::OpenResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let name = name(params.get_name()?)?;
        let writable = params.get_writable() && self.rights.writable;
        let mut to: opened::Builder<'_> = results.get().init_outcome();
        if !self.rights.may_read() {
            to.set_missing(());
            return Ok(());
        }
        let found = async {
            let modseq = self.account.modseq().await?;
            let info = self.mailbox(name).await?;
            let keywords = self.account.keywords(info.id).await?;
            let first_unseen = self.account.first_unseen(info.id).await?;
            Ok::<_, StoreError>((modseq, info, keywords, first_unseen))
        };
        match found.await {
            Ok((modseq, info, keywords, first_unseen)) => {
                let mailbox = MailboxServer::new(
                    Rc::clone(&self.session.live),
                    self.account.clone(),
                    info.id,
                    writable,
                    self.rights.clone(),
                    self.account.lease(modseq),
                );
                let mut group = to.init_mailbox();
                group.set_mailbox(ipc::new_client(mailbox));
                let mut wire_info = group.init_info();
                wire::set_mailbox(wire_info.reborrow(), &info, &keywords)?;
                wire_info.set_first_unseen_uid(first_unseen.unwrap_or(0));
            }
            Err(StoreError::NoSuchMailbox) => to.set_missing(()),
            Err(error) => {
                tracing::warn!(%error, "a mailbox could not be opened");
                to.set_temporary(());
            }
        }
        Ok(())
    }

    async fn watch(
        self: Rc<Self>,
        params: account::WatchParams,
        mut results: account::WatchResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let sink = params.get()?.get_sink()?;
        let mut changes = self.account.watch().await.map_err(|e| Self::later(&e))?;
        let modseq = changes.now();
        let next = async move || changes.changed().await;
        let handle = watched::watch(sink, next, self.session.live.revoked());
        results.get().set_handle(handle);
        results.get().set_modseq(modseq);
        Ok(())
    }

    async fn append(
        self: Rc<Self>,
        params: account::AppendParams,
        mut results: account::AppendResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let params = params.get()?;
        let name = name(params.get_mailbox()?)?;
        let (flags, keywords) = wire::flags(params.get_flags()?)?;
        let received = UnixNanos(params.get_received_unix_ns());
        let size = params.get_size_hint();
        let mut to: append_started::Builder<'_> = results.get().init_outcome();
        if !self.rights.writable {
            to.set_read_only(());
            return Ok(());
        }
        if size > self.service.settings.max_message {
            to.set_too_large(());
            return Ok(());
        }
        if keywords.len() > store::MAX_MESSAGE_KEYWORDS {
            to.set_keyword_limit(());
            return Ok(());
        }
        let snapshot = self.service.directories.now();
        let entry = snapshot.directory.account_by_id(self.account.id());
        let quota = entry.map_or(0, |entry| entry.quota);
        let found = async {
            let info = self.mailbox(name).await?;
            let used = if quota > 0 { self.account.usage().await?.bytes } else { 0 };
            Ok::<_, StoreError>((info, used))
        };
        let info = match found.await {
            Ok((_, used)) if quota > 0 && used.saturating_add(size) > quota => {
                to.set_over_quota(());
                return Ok(());
            }
            Ok((info, _)) => info,
            Err(StoreError::NoSuchMailbox) => {
                to.set_missing(());
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(%error, "an append could not begin");
                to.set_temporary(());
                return Ok(());
            }
        };
        let now = self.service.clock.now();
        let received = if received.0 == 0 { now } else { received };
        let append = AppendServer::new(
            Rc::clone(&self.service),
            Rc::clone(&self.session.live),
            self.account.clone(),
            info.id,
            (flags, keywords),
            received,
            params.get_binary(),
        );
        match append {
            Ok(append) => to.set_sink(ipc::new_client(append)),
            Err(Crowded) => to.set_temporary(()),
        }
        Ok(())
    }

    async fn narrow(
        self: Rc<Self>,
        params: account::NarrowParams,
        mut results: account::NarrowResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let scope = params.get()?.get_scope()?;
        let wanted = name(scope.get_mailbox()?)?;
        let mailbox = if wanted.is_empty() {
            self.rights.mailbox.clone()
        } else if self.rights.reaches(wanted) {
            let name = store::canonical(wanted);
            Some(name.map_err(|_| wire::broken("narrow() to what is no mailbox's name"))?)
        } else {
            return Err(wire::broken("narrow() asks for more than there is"));
        };
        let rights = Rights {
            writable: self.rights.writable && scope.get_writable(),
            append_only: self.rights.append_only || scope.get_append_only(),
            mailbox,
        };
        results.get().set_account(ipc::new_client(Self {
            service: Rc::clone(&self.service),
            session: self.session.clone(),
            account: self.account.clone(),
            rights,
        }));
        Ok(())
    }
}
