//! A session's right to its account: the ticket, what it was redeemed for, and what is open there.
//!
//! The ticket outlives everything else. When accountd is restarted the objects break; the ticket is
//! redeemed again and the mailbox opened again, and if its UIDVALIDITY is the same, nothing has
//! happened that the client must know of.

use super::{Shared, calls::Ahead};
use crate::peer::Peer;
use imap::{Keyword, MailboxName, session::MailboxInfo};
use ipc::{
    capnp,
    schema::{
        account_capnp::{account, mailbox, opened},
        auth_capnp::{redeemed, renewed, tickets},
        types_capnp::{handle, watched},
    },
    within,
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};
use tokio::sync::Notify;

/// A short call to accountd.
pub(super) const SHORT: Duration = Duration::from_secs(10);

/// Why there is no account now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// accountd is away or busy: temporary.
    Away,
    /// The ticket is worth nothing any more: the session has to end.
    Refused,
    /// The mailbox that was open is not there any more, or is another one.
    MailboxGone,
}

impl From<ipc::Unavailable> for Trouble {
    fn from(_: ipc::Unavailable) -> Self {
        Self::Away
    }
}

impl From<capnp::Error> for Trouble {
    /// An answer that cannot be read.
    fn from(error: capnp::Error) -> Self {
        tracing::error!(%error, "accountd broke its contract");
        Self::Away
    }
}

/// What accountd said on its own.
#[derive(Default)]
pub(super) struct Word {
    pub(super) said: Notify,
    modseq: Cell<u64>,
    revoked: RefCell<Option<String>>,
}

/// What a ticket was redeemed for.
struct Live {
    account: account::Client,
    mailbox: Option<OpenMailbox>,
    lost: Rc<Cell<bool>>,
    _watch: handle::Client,
}

/// The mailbox that is open at accountd.
#[derive(Clone)]
pub(super) struct OpenMailbox {
    pub(super) client: mailbox::Client,
    /// In the order of the bits of a row.
    pub(super) keywords: Rc<Vec<Option<Keyword>>>,
}

/// What the client has selected, as far as it is needed to open it again.
struct Selected {
    name: MailboxName,
    writable: bool,
    uid_validity: u32,
}

/// A session's account.
pub(super) struct Link {
    shared: Rc<Shared>,
    peer: Peer,
    ticket: Vec<u8>,
    live: Option<Live>,
    selected: Option<Selected>,
    applied: u64,
    pub(super) word: Rc<Word>,
    /// What a command under way will ask for next.
    pub(super) ahead: Option<Ahead>,
}

impl Link {
    pub(super) fn new(shared: &Rc<Shared>, peer: Peer, ticket: Vec<u8>) -> Self {
        Self {
            shared: Rc::clone(shared),
            peer,
            ticket,
            live: None,
            selected: None,
            applied: 0,
            word: Rc::default(),
            ahead: None,
        }
    }

    /// The newest modseq that was heard of.
    pub(super) fn modseq(&self) -> u64 {
        self.word.modseq.get()
    }

    /// Whether accountd took the right back.
    pub(super) fn revoked(&self) -> Option<String> {
        self.word.revoked.borrow().clone()
    }

    /// Whether there is an account now, without asking.
    pub(super) fn is_live(&self) -> bool {
        self.live.as_ref().is_some_and(|live| !live.lost.get())
    }

    /// Forgets what broke; the next call redeems the ticket again.
    pub(super) fn broke(&mut self) {
        self.live = None;
    }

    /// The account, redeemed again if need be.
    pub(super) async fn account(&mut self) -> Result<account::Client, Trouble> {
        if !self.is_live() {
            self.live = None;
            let live = Box::pin(self.redeem()).await?;
            self.live = Some(live);
        }
        self.live.as_ref().map(|live| live.account.clone()).ok_or(Trouble::Away)
    }

    async fn tickets(&self) -> Result<tickets::Client, Trouble> {
        let door = self.shared.door.client().await?;
        Ok(door.tickets_request().send().pipeline.get_tickets())
    }

    async fn redeem(&mut self) -> Result<Live, Trouble> {
        let tickets = self.tickets().await?;
        let _permit = self.shared.door.permit().await;
        let mut request = tickets.redeem_request();
        let mut params = request.get();
        params.set_ticket(&self.ticket);
        self.peer.write(params.init_peer());
        let answer = within(SHORT, request.send().promise).await?;
        let account = match answer.get()?.get_outcome()?.which().map_err(capnp::Error::from)? {
            redeemed::Account(account) => {
                self.ticket = account.get_ticket()?.to_vec();
                account.get_account()?
            }
            redeemed::Refused(()) => return Err(Trouble::Refused),
        };
        let lost = Rc::new(Cell::new(false));
        let mut request = account.watch_request();
        let ear = Ear { word: Rc::clone(&self.word), lost: Rc::clone(&lost) };
        request.get().set_sink(ipc::new_client(ear));
        let answer = within(SHORT, request.send().promise).await?;
        let answer = answer.get()?;
        self.word.heard(answer.get_modseq());
        Ok(Live { account, mailbox: None, lost, _watch: answer.get_handle()? })
    }

    /// A newer ticket in place of the old one.
    pub(super) async fn renew(&mut self) -> Result<(), Trouble> {
        let tickets = self.tickets().await?;
        let _permit = self.shared.door.permit().await;
        let mut request = tickets.renew_request();
        request.get().set_ticket(&self.ticket);
        let answer = within(SHORT, request.send().promise).await?;
        match answer.get()?.get_outcome()?.which().map_err(capnp::Error::from)? {
            renewed::Ticket(ticket) => {
                self.ticket = ticket?.to_vec();
                Ok(())
            }
            renewed::Refused(()) => Err(Trouble::Refused),
        }
    }

    /// Opens a mailbox for the client. None: there is none of that name.
    pub(super) async fn open(
        &mut self,
        name: MailboxName,
        writable: bool,
    ) -> Result<Option<MailboxInfo>, Trouble> {
        self.release();
        let Some((open, info)) = self.open_at(&name, writable).await? else { return Ok(None) };
        let uid_validity = info.uid_validity;
        self.selected = Some(Selected { name, writable, uid_validity });
        self.keep(open);
        Ok(Some(info))
    }

    fn keep(&mut self, open: OpenMailbox) {
        if let Some(live) = &mut self.live {
            live.mailbox = Some(open);
        }
    }

    async fn open_at(
        &mut self,
        name: &MailboxName,
        writable: bool,
    ) -> Result<Option<(OpenMailbox, MailboxInfo)>, Trouble> {
        let account = self.account().await?;
        let _permit = self.shared.door.permit().await;
        let mut request = account.open_request();
        request.get().set_name(name.as_str());
        request.get().set_writable(writable);
        let answer = within(SHORT, request.send().promise).await?;
        match answer.get()?.get_outcome()?.which().map_err(capnp::Error::from)? {
            opened::Mailbox(opened) => {
                let info = opened.get_info()?;
                let open = OpenMailbox {
                    client: opened.get_mailbox()?,
                    keywords: Rc::new(super::rows::keywords(info)?),
                };
                Ok(Some((open, super::rows::mailbox_info(info)?)))
            }
            opened::Missing(()) => Ok(None),
            opened::Temporary(()) => Err(Trouble::Away),
        }
    }

    /// The open mailbox, opened again if need be.
    pub(super) async fn mailbox(&mut self) -> Result<OpenMailbox, Trouble> {
        if self.is_live()
            && let Some(open) = self.live.as_ref().and_then(|live| live.mailbox.clone())
        {
            return Ok(open);
        }
        let Some(selected) = &self.selected else { return Err(Trouble::MailboxGone) };
        let (name, writable) = (selected.name.clone(), selected.writable);
        let uid_validity = selected.uid_validity;
        let opened = self.open_at(&name, writable).await?;
        let opened = opened.filter(|(_, info)| info.uid_validity == uid_validity);
        let Some((open, _)) = opened else { return Err(Trouble::MailboxGone) };
        self.keep(open.clone());
        Ok(open)
    }

    /// The keyword list has grown.
    pub(super) fn set_keywords(&mut self, keywords: Rc<Vec<Option<Keyword>>>) {
        if let Some(open) = self.live.as_mut().and_then(|live| live.mailbox.as_mut()) {
            open.keywords = keywords;
        }
    }

    /// Nothing is open any more.
    pub(super) fn release(&mut self) {
        self.selected = None;
        if let Some(live) = &mut self.live {
            live.mailbox = None;
        }
    }

    /// The client was told everything up to `modseq`: moves the lease on content.
    pub(super) fn applied(&mut self, modseq: u64) {
        if modseq <= self.applied {
            return;
        }
        self.applied = modseq;
        if let Some(open) = self.live.as_ref().and_then(|live| live.mailbox.as_ref()) {
            let mut request = open.client.applied_request();
            request.get().set_modseq(modseq);
            let call = request.send().promise;
            // A lease that is not moved is moved by the next call.
            tokio::task::spawn_local(async move { drop(within(SHORT, call).await) });
        }
    }
}

impl Word {
    fn heard(&self, modseq: u64) {
        if modseq > self.modseq.get() {
            self.modseq.set(modseq);
            self.said.notify_one();
        }
    }
}

struct Ear {
    word: Rc<Word>,
    lost: Rc<Cell<bool>>,
}

impl Drop for Ear {
    fn drop(&mut self) {
        // accountd is gone: the session looks for the next one.
        self.lost.set(true);
        self.word.said.notify_one();
    }
}

impl watched::Server for Ear {
    async fn changed(
        self: Rc<Self>,
        params: watched::ChangedParams,
        _: watched::ChangedResults,
    ) -> Result<(), capnp::Error> {
        self.word.heard(params.get()?.get_number());
        Ok(())
    }

    async fn revoked(
        self: Rc<Self>,
        params: watched::RevokedParams,
        _: watched::RevokedResults,
    ) -> Result<(), capnp::Error> {
        let why = params.get()?.get_why()?.to_str()?.to_owned();
        *self.word.revoked.borrow_mut() = Some(why);
        self.word.said.notify_one();
        Ok(())
    }
}
