//! An accountd that keeps its one account in memory, may be killed and started again.

use crate::account::Account;
use imap::{
    Flag, Flags, MailboxName, NumberSet, StoreHow,
    session::{Answer, MailboxInfo, MailboxOutcome, Question, Row, TextScope},
};
use ipc::{
    Acceptor, Incoming, Limits, Role,
    capnp::{self, struct_list},
    schema::{
        account_capnp::{self as schema, account, append_sink, mailbox},
        accountd_capnp::{door, front_door, gate, session_door},
        auth_capnp::{authenticator, tickets},
        types_capnp::{handle, watched},
    },
};
use std::{
    cell::{Cell, RefCell},
    os::fd::OwnedFd,
    rc::Rc,
};
use tokio::task::JoinSet;

type Done = Result<(), capnp::Error>;

/// What survives a restart, as a disk would.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) account: RefCell<Account>,
    watchers: RefCell<Vec<watched::Client>>,
    pub(crate) redeemed: Cell<u32>,
    pub(crate) refuse: Cell<bool>,
}

impl World {
    /// Tells everybody that the account moved on.
    pub(crate) fn tell(&self) {
        let modseq = self.account.borrow().modseq;
        for watcher in self.watchers.borrow().iter() {
            let mut request = watcher.changed_request();
            request.get().set_number(modseq);
            let told = request.send().promise;
            tokio::task::spawn_local(async move { drop(told.await) });
        }
    }
}

/// A life of accountd; dropped is killed.
pub(crate) struct Life(#[expect(dead_code, reason = "held for its Drop")] JoinSet<()>);

pub(crate) fn start(world: &Rc<World>, edges: Vec<(Role, OwnedFd)>) -> Life {
    world.watchers.borrow_mut().clear();
    let mut tasks = JoinSet::new();
    for (role, connector) in edges {
        let world = Rc::clone(world);
        tasks.spawn_local(async move {
            let mut acceptor = Acceptor::from_connector(role, 0, connector).unwrap();
            let mut connections = JoinSet::new();
            while let Some(Incoming::Rpc(stream)) = acceptor.accept().await {
                let world = Rc::clone(&world);
                let object = match role == Role::ImapdFront {
                    true => ipc::new_client::<front_door::Client, _>(Door(world)).client,
                    false => ipc::new_client::<session_door::Client, _>(Door(world)).client,
                };
                connections.spawn_local(async move {
                    ipc::serve(stream, object, Limits::SESSIONS).await;
                });
            }
        });
    }
    Life(tasks)
}

struct Door(Rc<World>);
struct Nothing;
impl handle::Server for Nothing {}

impl door::Server for Door {
    async fn gate(self: Rc<Self>, _: door::GateParams, mut to: door::GateResults) -> Done {
        to.get().set_gate(ipc::new_client(Gate));
        Ok(())
    }
}

struct Gate;

impl gate::Server for Gate {
    async fn enter(self: Rc<Self>, _: gate::EnterParams, mut to: gate::EnterResults) -> Done {
        to.get().init_verdict().set_pass(ipc::new_client(Nothing));
        Ok(())
    }
}

impl front_door::Server for Door {
    async fn authenticator(
        self: Rc<Self>,
        _: front_door::AuthenticatorParams,
        mut to: front_door::AuthenticatorResults,
    ) -> Done {
        to.get().set_authenticator(ipc::new_client(Authenticator));
        Ok(())
    }
}

impl session_door::Server for Door {
    async fn tickets(
        self: Rc<Self>,
        _: session_door::TicketsParams,
        mut to: session_door::TicketsResults,
    ) -> Done {
        to.get().set_tickets(ipc::new_client(Tickets(Rc::clone(&self.0))));
        Ok(())
    }
}

struct Authenticator;

impl authenticator::Server for Authenticator {
    async fn mechanisms(
        self: Rc<Self>,
        _: authenticator::MechanismsParams,
        mut to: authenticator::MechanismsResults,
    ) -> Done {
        to.get().init_names(1).set(0, "PLAIN");
        Ok(())
    }

    async fn start(
        self: Rc<Self>,
        params: authenticator::StartParams,
        mut to: authenticator::StartResults,
    ) -> Done {
        let right = params.get()?.get_initial()? == b"\0alice@example.org\0secret";
        let mut step = to.get().init_step();
        if right {
            let mut success = step.init_success();
            success.set_login("alice@example.org");
            let mut over = success.init_hand_over();
            over.set_session_instance(0);
            over.set_ticket(b"ticket 0");
        } else {
            step.set_failure(ipc::schema::auth_capnp::Failure::BadCredentials);
        }
        Ok(())
    }
}

struct Tickets(Rc<World>);

impl tickets::Server for Tickets {
    async fn redeem(
        self: Rc<Self>,
        params: tickets::RedeemParams,
        mut to: tickets::RedeemResults,
    ) -> Done {
        let outcome = to.get().init_outcome();
        let mut outcome = outcome;
        let ticket = params.get()?.get_ticket()?.to_vec();
        let expected = format!("ticket {}", self.0.redeemed.get());
        if self.0.refuse.get() || ticket != expected.as_bytes() {
            outcome.set_refused(());
            return Ok(());
        }
        self.0.redeemed.set(self.0.redeemed.get() + 1);
        let mut account = outcome.init_account();
        account.set_ticket(format!("ticket {}", self.0.redeemed.get()).as_bytes());
        account.set_account(ipc::new_client(AccountObject(Rc::clone(&self.0))));
        Ok(())
    }
}

struct AccountObject(Rc<World>);

impl AccountObject {
    fn ask(&self, question: Question) -> Answer {
        self.0.account.borrow_mut().answer(question)
    }
}

fn write_info(info: &MailboxInfo, mut to: schema::mailbox_info::Builder<'_>) {
    to.set_name(info.name.as_str());
    to.set_uid_validity(info.uid_validity);
    to.set_uid_next(info.uid_next);
    to.set_total(info.total);
    to.set_unseen(info.unseen);
    to.set_deleted(info.deleted);
    to.set_bytes(info.bytes);
    to.set_first_unseen_uid(info.first_unseen.unwrap_or(0));
    let keywords = info.flags.keywords();
    let mut list = to.init_keywords(keywords.len() as u32);
    for (at, keyword) in (0..).zip(keywords) {
        list.set(at, keyword.as_str());
    }
}

fn read_flags(flags: schema::flags::Reader<'_>) -> Result<Flags, capnp::Error> {
    let mut all = Flags::new(flags.get_system(), []);
    for keyword in flags.get_keywords()? {
        all.insert(Flag::new(keyword?.as_bytes()).expect("a keyword"));
    }
    Ok(all)
}

fn read_uids(list: struct_list::Reader<'_, schema::uid_range::Owned>) -> NumberSet {
    NumberSet::from_ranges(list.iter().map(|range| (range.get_first(), range.get_last())))
}

fn write_uids(uids: &NumberSet, mut list: struct_list::Builder<'_, schema::uid_range::Owned>) {
    for (at, &(first, last)) in (0..).zip(uids.ranges()) {
        list.reborrow().get(at).set_first(first);
        list.reborrow().get(at).set_last(last);
    }
}

impl account::Server for AccountObject {
    async fn mailboxes(
        self: Rc<Self>,
        _: account::MailboxesParams,
        mut to: account::MailboxesResults,
    ) -> Done {
        let Answer::Mailboxes { list, .. } = self.ask(Question::Mailboxes) else { panic!() };
        let mut infos = to.get().init_list(list.len() as u32);
        for (at, info) in (0..).zip(&list) {
            write_info(info, infos.reborrow().get(at));
        }
        Ok(())
    }

    async fn create(
        self: Rc<Self>,
        params: account::CreateParams,
        mut to: account::CreateResults,
    ) -> Done {
        let name = MailboxName::new(params.get()?.get_name()?.to_str()?).unwrap();
        let mut outcome = to.get().init_outcome();
        match self.ask(Question::Create(name, None)) {
            Answer::Mailbox(MailboxOutcome::Done) => outcome.set_done(()),
            _ => outcome.set_exists(()),
        }
        Ok(())
    }

    async fn open(
        self: Rc<Self>,
        params: account::OpenParams,
        mut to: account::OpenResults,
    ) -> Done {
        let name = MailboxName::new(params.get()?.get_name()?.to_str()?).unwrap();
        let mut outcome = to.get().init_outcome();
        match self.ask(Question::Open { name: name.clone(), writable: true }) {
            Answer::Opened(Some(info)) => {
                let mut opened = outcome.init_mailbox();
                write_info(&info, opened.reborrow().init_info());
                let object = MailboxObject { world: Rc::clone(&self.0), name };
                opened.set_mailbox(ipc::new_client(object));
            }
            _ => outcome.set_missing(()),
        }
        Ok(())
    }

    async fn watch(
        self: Rc<Self>,
        params: account::WatchParams,
        mut to: account::WatchResults,
    ) -> Done {
        self.0.watchers.borrow_mut().push(params.get()?.get_sink()?);
        to.get().set_handle(ipc::new_client(Nothing));
        to.get().set_modseq(self.0.account.borrow().modseq);
        Ok(())
    }

    async fn append(
        self: Rc<Self>,
        params: account::AppendParams,
        mut to: account::AppendResults,
    ) -> Done {
        let params = params.get()?;
        let mailbox = MailboxName::new(params.get_mailbox()?.to_str()?).unwrap();
        let flags = read_flags(params.get_flags()?)?;
        let size = params.get_size_hint();
        let mut outcome = to.get().init_outcome();
        match self.ask(Question::Append {
            mailbox,
            flags,
            received: None,
            size,
            binary: params.get_binary(),
        }) {
            Answer::AppendStarted(Ok(())) => {
                outcome.set_sink(ipc::new_client(Sink(Rc::clone(&self.0))));
            }
            _ => outcome.set_missing(()),
        }
        Ok(())
    }
}

struct Sink(Rc<World>);

impl append_sink::Server for Sink {
    async fn write(self: Rc<Self>, params: append_sink::WriteParams) -> Done {
        let mut account = self.0.account.borrow_mut();
        let (_, _, content) = account.appending.as_mut().expect("begun");
        content.extend_from_slice(params.get()?.get_chunk()?);
        Ok(())
    }

    async fn commit(
        self: Rc<Self>,
        _: append_sink::CommitParams,
        mut to: append_sink::CommitResults,
    ) -> Done {
        let Answer::Appended(Ok(done)) = self.0.account.borrow_mut().answer(Question::Commit)
        else {
            panic!()
        };
        let mut stored = to.get().init_outcome().init_stored();
        stored.set_uid_validity(done.uid_validity);
        stored.set_uid(done.uid);
        stored.set_modseq(done.modseq);
        Ok(())
    }
}

struct MailboxObject {
    world: Rc<World>,
    name: MailboxName,
}

impl MailboxObject {
    fn ask(&self, question: Question) -> Answer {
        let mut account = self.world.account.borrow_mut();
        account.open = Some(self.name.clone());
        account.answer(question)
    }

    fn info(&self) -> MailboxInfo {
        let name = self.name.clone();
        match self.ask(Question::Open { name, writable: true }) {
            Answer::Opened(Some(info)) => *info,
            other => panic!("{other:?}"),
        }
    }

    fn write_rows(&self, rows: &[Row], mut list: struct_list::Builder<'_, schema::row::Owned>) {
        let info = self.info();
        for (at, row) in (0..).zip(rows) {
            let mut to = list.reborrow().get(at);
            to.set_uid(row.uid);
            to.set_system(row.flags.bits());
            to.set_modseq(row.modseq);
            to.set_size(row.size);
            to.set_received_unix_ns(row.received * 1_000_000_000);
            to.set_expunged(row.expunged);
            let mut bitmap = vec![0u8; 8];
            for (bit, keyword) in info.flags.keywords().iter().enumerate() {
                if row.flags.has_keyword(keyword) {
                    bitmap[bit / 8] |= 1 << (bit % 8);
                }
            }
            to.set_keywords(&bitmap);
        }
    }
}

impl mailbox::Server for MailboxObject {
    async fn rows(
        self: Rc<Self>,
        params: mailbox::RowsParams,
        mut to: mailbox::RowsResults,
    ) -> Done {
        let params = params.get()?;
        let (from, until) = (params.get_from_uid(), params.get_to_uid());
        let Answer::Rows { rows, more, modseq } = self.ask(Question::Rows { from, to: until })
        else {
            panic!()
        };
        self.write_rows(&rows, to.get().init_rows(rows.len() as u32));
        to.get().set_more(more);
        to.get().set_modseq(modseq);
        Ok(())
    }

    async fn changes(
        self: Rc<Self>,
        params: mailbox::ChangesParams,
        mut to: mailbox::ChangesResults,
    ) -> Done {
        let since = params.get()?.get_since_modseq();
        let Answer::Changes { rows, more, modseq, gone } = self.ask(Question::Changes { since })
        else {
            panic!()
        };
        self.write_rows(&rows, to.get().init_rows(rows.len() as u32));
        write_info(&self.info(), to.get().init_info());
        to.get().set_more(more);
        to.get().set_modseq(modseq);
        to.get().set_gone(gone);
        Ok(())
    }

    async fn meta(
        self: Rc<Self>,
        params: mailbox::MetaParams,
        mut to: mailbox::MetaResults,
    ) -> Done {
        let uids = read_uids(params.get()?.get_uids()?);
        let question = Question::Meta { uids, envelope: true, structure: true };
        let Answer::Meta { items, next } = self.ask(question) else { panic!() };
        let mut list = to.get().init_items(items.len() as u32);
        for (at, meta) in (0..).zip(&items) {
            let mut item = list.reborrow().get(at);
            item.set_uid(meta.uid);
            item.set_envelope(&meta.envelope);
            item.set_structure(&meta.structure);
        }
        to.get().set_next_uid(next.unwrap_or(0));
        Ok(())
    }

    async fn content(
        self: Rc<Self>,
        params: mailbox::ContentParams,
        mut to: mailbox::ContentResults,
    ) -> Done {
        let params = params.get()?;
        let (from, length) = (params.get_offset(), params.get_length());
        let question = Question::Content { uid: params.get_uid(), from, to: from + length };
        let Answer::Content(Some(octets)) = self.ask(question) else { panic!() };
        let sink = params.get_sink()?;
        for chunk in octets.chunks(65_536) {
            let mut request = sink.write_request();
            request.get().set_chunk(chunk);
            request.send().await?;
        }
        sink.end_request().send().promise.await?;
        to.get().init_outcome().set_sent(length);
        Ok(())
    }

    async fn small(
        self: Rc<Self>,
        params: mailbox::SmallParams,
        mut to: mailbox::SmallResults,
    ) -> Done {
        let params = params.get()?;
        let uids = read_uids(params.get_uids()?);
        let question = Question::Small { uids, most: params.get_max_each() };
        let Answer::Small { items, next } = self.ask(question) else { panic!() };
        let mut list = to.get().init_items(items.len() as u32);
        for (at, small) in (0..).zip(&items) {
            let mut item = list.reborrow().get(at);
            item.set_uid(small.uid);
            item.set_size(small.size);
            item.set_too_large(small.data.is_none());
            item.set_data(small.data.as_deref().unwrap_or_default());
        }
        to.get().set_next_uid(next.unwrap_or(0));
        Ok(())
    }

    async fn store(
        self: Rc<Self>,
        params: mailbox::StoreParams,
        mut to: mailbox::StoreResults,
    ) -> Done {
        let params = params.get()?;
        let how = match params.get_op()? {
            schema::StoreOp::Replace => StoreHow::Replace,
            schema::StoreOp::Add => StoreHow::Add,
            schema::StoreOp::Remove => StoreHow::Remove,
        };
        let uids = read_uids(params.get_uids()?);
        let flags = read_flags(params.get_flags()?)?;
        let Answer::Stored(Ok(modseq)) = self.ask(Question::Store { uids, how, flags }) else {
            panic!()
        };
        to.get().init_outcome().init_done().set_modseq(modseq);
        Ok(())
    }

    async fn move_(
        self: Rc<Self>,
        params: mailbox::MoveParams,
        mut to: mailbox::MoveResults,
    ) -> Done {
        let params = params.get()?;
        let question = Question::Copy {
            uids: read_uids(params.get_uids()?),
            to: MailboxName::new(params.get_to()?.to_str()?).unwrap(),
            and_remove: true,
        };
        let Answer::Copied(Ok(copied)) = self.ask(question) else { panic!() };
        let mut done = to.get().init_outcome().init_done();
        done.set_uid_validity(copied.uid_validity);
        done.set_modseq(copied.modseq);
        let ranges = copied.from.ranges().len() as u32;
        write_uids(&copied.from, done.reborrow().init_from(ranges));
        let ranges = copied.to.ranges().len() as u32;
        write_uids(&copied.to, done.init_to(ranges));
        Ok(())
    }

    async fn expunge(
        self: Rc<Self>,
        params: mailbox::ExpungeParams,
        mut to: mailbox::ExpungeResults,
    ) -> Done {
        let uids = read_uids(params.get()?.get_uids()?);
        let Answer::Expunged(Ok(modseq)) = self.ask(Question::Expunge(uids)) else { panic!() };
        to.get().init_outcome().init_done().set_modseq(modseq);
        Ok(())
    }

    async fn search_text(
        self: Rc<Self>,
        params: mailbox::SearchTextParams,
        mut to: mailbox::SearchTextResults,
    ) -> Done {
        let params = params.get()?;
        let question = Question::SearchText {
            scope: TextScope::Text,
            header: String::new(),
            needle: params.get_needle()?.to_str()?.to_owned(),
            uids: read_uids(params.get_uids()?),
        };
        let Answer::Found(found) = self.ask(question) else { panic!() };
        write_uids(&found, to.get().init_uids(found.ranges().len() as u32));
        to.get().init_outcome().set_done(());
        Ok(())
    }

    async fn applied(
        self: Rc<Self>,
        _: mailbox::AppliedParams,
        _: mailbox::AppliedResults,
    ) -> Done {
        Ok(())
    }
}
