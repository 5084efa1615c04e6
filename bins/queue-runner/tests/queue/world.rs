//! An accountd and an outbound in small, and a queue-runner between them over in-memory edges.

use ipc::{
    Acceptor, Dialer, Limits, Role, Stream, capnp,
    schema::{
        accountd_capnp::{door, queue_door},
        control_capnp::queue_admin,
        keyholder_capnp::{dkim_signer, host_keys},
        outbound_capnp::{self, outbound, recipient_result},
        queue_capnp::{delivery, delivery_sink, outbox},
        types_capnp::{handle, watched},
    },
};
use queue_runner::Grants;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use storage::{Disk, Forgetful, RealDisk};
use tokio::{sync::Notify, sync::mpsc, task::JoinHandle};
use types::{ManualClock, UnixNanos};

pub(crate) const START: UnixNanos = UnixNanos::from_seconds(1_790_000_000);

/// A submission as a user made it.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    pub(crate) id: [u8; 16],
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) content: Vec<u8>,
}

pub(crate) fn mail(n: u8, from: &str, to: &[&str]) -> Mail {
    let content = format!("Subject: mail {n}\r\nMessage-ID: <{n}@a.test>\r\n\r\nbody {n}\r\n");
    Mail {
        id: [n; 16],
        from: from.into(),
        to: to.iter().map(|&to| to.to_owned()).collect(),
        content: content.into_bytes(),
    }
}

/// A delivery to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) queue_id: Vec<u8>,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) notification: bool,
    pub(crate) content: Vec<u8>,
}

/// A job that outbound had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) attempt: u32,
    pub(crate) content: Vec<u8>,
}

/// What a server is to say to a recipient: code, enhanced code, text.
pub(crate) type Says = (u16, &'static str, &'static str);

/// accountd has a fault.
pub(crate) const FAULT: Says = (1, "", "");

/// What both in small do and have seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) outbox: RefCell<BTreeMap<[u8; 16], Mail>>,
    pub(crate) more: Notify,
    /// Answers to done() that get lost, the row staying where it is.
    pub(crate) lose_done: Cell<u32>,
    pub(crate) done: RefCell<Vec<[u8; 16]>>,
    pub(crate) stored: RefCell<Vec<Stored>>,
    pub(crate) sent: RefCell<Vec<Sent>>,
    pub(crate) says: RefCell<BTreeMap<String, VecDeque<Says>>>,
    /// The domain of local senders is switched off.
    pub(crate) suspended: Cell<bool>,
    /// outbound hangs up at the end of jobs, so many times.
    pub(crate) hang_up: Cell<u32>,
    pub(crate) disk: RefCell<Option<Forgetful>>,
}

impl Seen {
    pub(crate) fn submit(&self, mail: Mail) {
        self.outbox.borrow_mut().insert(mail.id, mail);
        self.more.notify_waiters();
    }

    pub(crate) fn says(&self, to: &str, says: &[Says]) {
        self.says.borrow_mut().insert(to.into(), says.iter().copied().collect());
    }

    fn mark(&self, mark: u64) {
        if let Some(disk) = &*self.disk.borrow() {
            disk.mark(mark);
        }
    }

    /// Submissions that were done by a mark, and deliveries made.
    pub(crate) fn at(&self, marks: &[u64]) -> (BTreeSet<[u8; 16]>, Vec<Stored>) {
        let (mut done, mut stored) = (BTreeSet::new(), Vec::new());
        for &mark in marks {
            let index = usize::try_from(mark / 2).unwrap();
            if mark.is_multiple_of(2) {
                done.insert(self.done.borrow()[index]);
            } else {
                stored.push(self.stored.borrow()[index].clone());
            }
        }
        (done, stored)
    }
}

struct Accountd(Rc<Seen>);

impl door::Server for Accountd {}

impl queue_door::Server for Accountd {
    async fn outbox(
        self: Rc<Self>,
        _: queue_door::OutboxParams,
        mut results: queue_door::OutboxResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_outbox(ipc::new_client(Accountd(Rc::clone(&self.0))));
        Ok(())
    }

    async fn delivery(
        self: Rc<Self>,
        _: queue_door::DeliveryParams,
        mut results: queue_door::DeliveryResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_delivery(ipc::new_client(Accountd(Rc::clone(&self.0))));
        Ok(())
    }
}

struct Watch(JoinHandle<()>);
impl handle::Server for Watch {}
impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl outbox::Server for Accountd {
    async fn watch(
        self: Rc<Self>,
        params: outbox::WatchParams,
        mut results: outbox::WatchResults,
    ) -> Result<(), capnp::Error> {
        let sink: watched::Client = params.get()?.get_sink()?;
        let seen = Rc::clone(&self.0);
        let task = tokio::task::spawn_local(async move {
            loop {
                seen.more.notified().await;
                let _ = sink.changed_request().send().promise.await;
            }
        });
        results.get().set_handle(ipc::new_client(Watch(task)));
        Ok(())
    }

    async fn take(
        self: Rc<Self>,
        params: outbox::TakeParams,
        mut results: outbox::TakeResults,
    ) -> Result<(), capnp::Error> {
        let max = usize::try_from(params.get()?.get_max()).unwrap();
        let all = self.0.outbox.borrow();
        let mails: Vec<&Mail> = all.values().take(max).collect();
        results.get().set_more(all.len() > mails.len());
        let mut items = results.get().init_items(u32::try_from(mails.len()).unwrap());
        for (at, mail) in (0..).zip(mails) {
            let mut item = items.reborrow().get(at);
            item.set_submission(&mail.id);
            item.set_account("ann");
            item.set_from(&mail.from);
            item.set_size(mail.content.len() as u64);
            let header = mail.content.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
            item.set_header_length(header as u64 + 2);
            item.set_submitted_unix_ns(START.0);
            item.set_message_id(format!("{}@a.test", mail.id[0]));
            item.set_subject(format!("mail {}", mail.id[0]));
            let mut list = item.init_recipients(u32::try_from(mail.to.len()).unwrap());
            for (at, to) in (0..).zip(&mail.to) {
                list.reborrow().get(at).set_address(to);
            }
        }
        Ok(())
    }

    async fn content(
        self: Rc<Self>,
        params: outbox::ContentParams,
        mut results: outbox::ContentResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let found = params.get_submission()?.try_into().ok().and_then(|id: [u8; 16]| {
            self.0.outbox.borrow().get(&id).map(|mail| mail.content.clone())
        });
        // A mail without content is one that accountd has lost.
        let found = found.filter(|content| !content.is_empty());
        results.get().set_found(found.is_some());
        let sink = params.get_sink()?;
        for chunk in found.unwrap_or_default().chunks(60_000) {
            let mut request = sink.write_request();
            request.get().set_chunk(chunk);
            request.send().await?;
        }
        sink.end_request().send().promise.await?;
        Ok(())
    }

    async fn done(
        self: Rc<Self>,
        params: outbox::DoneParams,
        _: outbox::DoneResults,
    ) -> Result<(), capnp::Error> {
        let id: [u8; 16] = params.get()?.get_submission()?.try_into().unwrap();
        if self.0.lose_done.get() > 0 {
            self.0.lose_done.set(self.0.lose_done.get() - 1);
            return Err(capnp::Error::disconnected("lost".into()));
        }
        self.0.outbox.borrow_mut().remove(&id);
        self.0.done.borrow_mut().push(id);
        self.0.mark((self.0.done.borrow().len() as u64 - 1) * 2);
        Ok(())
    }
}

impl delivery::Server for Accountd {
    async fn is_local(
        self: Rc<Self>,
        params: delivery::IsLocalParams,
        mut results: delivery::IsLocalResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let from = params.get_from()?.to_str()?;
        results.get().set_suspended(self.0.suspended.get() && from.ends_with("@local.test"));
        let addresses = params.get_addresses()?;
        let mut list = results.get().init_local(addresses.len());
        for (at, address) in (0..).zip(addresses) {
            list.set(at, address?.to_str()?.ends_with("@local.test"));
        }
        Ok(())
    }

    async fn deliver(
        self: Rc<Self>,
        params: delivery::DeliverParams,
        mut results: delivery::DeliverResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let stored = Stored {
            queue_id: params.get_queue_id()?.to_vec(),
            from: params.get_from()?.to_string()?,
            to: params.get_to()?.to_string()?,
            notification: params.get_notification(),
            content: Vec::new(),
        };
        let sink = Sink { seen: Rc::clone(&self.0), stored: RefCell::new(stored) };
        results.get().set_sink(ipc::new_client(sink));
        Ok(())
    }
}

struct Sink {
    seen: Rc<Seen>,
    stored: RefCell<Stored>,
}

impl delivery_sink::Server for Sink {
    async fn write(self: Rc<Self>, params: delivery_sink::WriteParams) -> Result<(), capnp::Error> {
        self.stored.borrow_mut().content.extend_from_slice(params.get()?.get_chunk()?);
        Ok(())
    }

    async fn commit(
        self: Rc<Self>,
        _: delivery_sink::CommitParams,
        mut results: delivery_sink::CommitResults,
    ) -> Result<(), capnp::Error> {
        let mut outcome = results.get().init_outcome();
        let stored = self.stored.borrow().clone();
        let says = self.seen.says.borrow_mut().get_mut(&stored.to).and_then(VecDeque::pop_front);
        if let Some((code, enhanced, text)) = says {
            if code == 0 {
                outcome.set_not_local(());
                return Ok(());
            }
            if code == FAULT.0 {
                outcome.set_fault(());
                return Ok(());
            }
            let mut refused = outcome.init_refused();
            refused.set_code(code);
            refused.set_enhanced(enhanced);
            refused.set_text(text);
            return Ok(());
        }
        let known = |one: &Stored| one.queue_id == stored.queue_id;
        if self.seen.stored.borrow().iter().any(known) {
            outcome.set_duplicate(());
            return Ok(());
        }
        self.seen.stored.borrow_mut().push(stored);
        self.seen.mark((self.seen.stored.borrow().len() as u64 - 1) * 2 + 1);
        outcome.set_stored(());
        Ok(())
    }
}

struct Outbound(Rc<Seen>);

impl outbound::Server for Outbound {
    async fn deliver(
        self: Rc<Self>,
        params: outbound::DeliverParams,
        mut results: outbound::DeliverResults,
    ) -> Result<(), capnp::Error> {
        let job = params.get()?.get_job()?;
        let to: Result<Vec<_>, capnp::Error> =
            job.get_recipients()?.iter().map(|to| Ok(to?.to_string()?)).collect();
        let sent = Sent {
            from: job.get_from()?.to_string()?,
            to: to?,
            attempt: job.get_attempt(),
            content: Vec::new(),
        };
        let running = Job { seen: Rc::clone(&self.0), sent: RefCell::new(sent) };
        results.get().set_delivery(ipc::new_client(running));
        Ok(())
    }
}

struct Job {
    seen: Rc<Seen>,
    sent: RefCell<Sent>,
}

impl outbound_capnp::delivery::Server for Job {
    async fn write(
        self: Rc<Self>,
        params: outbound_capnp::delivery::WriteParams,
    ) -> Result<(), capnp::Error> {
        self.sent.borrow_mut().content.extend_from_slice(params.get()?.get_chunk()?);
        Ok(())
    }

    async fn finish(
        self: Rc<Self>,
        _: outbound_capnp::delivery::FinishParams,
        mut results: outbound_capnp::delivery::FinishResults,
    ) -> Result<(), capnp::Error> {
        let sent = self.sent.borrow().clone();
        self.seen.sent.borrow_mut().push(sent.clone());
        if self.seen.hang_up.get() > 0 {
            self.seen.hang_up.set(self.seen.hang_up.get() - 1);
            return Err(capnp::Error::disconnected("outbound died".into()));
        }
        let report = results.get().init_report();
        let mut list = report.init_recipients(u32::try_from(sent.to.len()).unwrap());
        for (at, to) in (0..).zip(&sent.to) {
            let mut entry = list.reborrow().get(at);
            entry.set_address(to);
            let says = self.seen.says.borrow_mut().get_mut(to).and_then(VecDeque::pop_front);
            let (code, enhanced, text) = says.unwrap_or((250, "2.0.0", "ok"));
            entry.set_code(code);
            entry.set_enhanced(enhanced);
            entry.set_text(text);
            entry.set_remote_host("mx.remote.test");
            entry.set_kind(match code {
                200..300 => recipient_result::Kind::Delivered,
                500.. => recipient_result::Kind::Permanent,
                _ => recipient_result::Kind::Temporary,
            });
        }
        Ok(())
    }
}

struct Keyholder;

impl host_keys::Server for Keyholder {
    async fn dkim(
        self: Rc<Self>,
        _: host_keys::DkimParams,
        mut results: host_keys::DkimResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_signer(ipc::new_client(Keyholder));
        Ok(())
    }
}

impl dkim_signer::Server for Keyholder {
    async fn describe(
        self: Rc<Self>,
        _: dkim_signer::DescribeParams,
        mut results: dkim_signer::DescribeResults,
    ) -> Result<(), capnp::Error> {
        let mut keys = results.get().init_keys(2);
        for (at, selector) in [(0, "old"), (1, "new")] {
            let mut key = keys.reborrow().get(at);
            key.set_selector(selector);
            key.set_algorithm("ed25519-sha256");
        }
        Ok(())
    }

    async fn sign(
        self: Rc<Self>,
        params: dkim_signer::SignParams,
        mut results: dkim_signer::SignResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let host = "mx.local.test".parse().unwrap();
        mailauth::dkim::check_signable(params.get_headers()?, &host).unwrap();
        let mut outcome = results.get().init_outcome();
        match params.get_selector()?.to_str()? {
            "old" => outcome.set_stale_selector(()),
            _ => outcome.set_signature(&[9; 64]),
        }
        Ok(())
    }
}

/// Serves an edge; dropping what it gives is the death of the server.
pub(crate) fn serve(acceptor: Acceptor, client: capnp::capability::Client) -> JoinHandle<()> {
    let (clients, inherited) = mpsc::channel(1);
    clients.try_send(acceptor).map_err(drop).unwrap();
    tokio::task::spawn_local(async move {
        let _clients = clients;
        let bootstrap = move |_: Role, _| Some(client.clone());
        ipc::serve_clients(inherited, Limits::default(), bootstrap).await;
    })
}

/// A server that is not there yet: hangs up on whoever comes.
async fn hang_up(mut acceptor: Acceptor, until: Rc<Notify>) -> Acceptor {
    loop {
        tokio::select! {
            biased;
            () = until.notified() => return acceptor,
            _ = acceptor.accept() => {}
        }
    }
}

/// A running queue with its surroundings.
pub(crate) struct World {
    pub(crate) seen: Rc<Seen>,
    pub(crate) clock: ManualClock,
    pub(crate) admin: queue_admin::Client,
    pub(crate) figures: daemon::Figures,
    running: JoinHandle<anyhow::Result<()>>,
    away: Option<(JoinHandle<Acceptor>, Rc<Notify>)>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// The schedule: two waits and a notice after the first failure.
pub(crate) fn schedule() -> config::Queue {
    let retry = vec![Duration::from_secs(600), Duration::from_secs(1_200)];
    config::Queue { retry, delay_notice_after: 1, concurrent: 50, concurrent_per_domain: 2 }
}

impl World {
    /// Over a folder, with what both in small have seen before.
    pub(crate) async fn over(
        folder: &Path,
        disk: Arc<dyn Disk>,
        seen: Rc<Seen>,
        at: UnixNanos,
    ) -> Self {
        let mut world = Self::without_accountd(folder, disk, seen, at).await;
        world.accountd_comes().await;
        world
    }

    pub(crate) async fn without_accountd(
        folder: &Path,
        disk: Arc<dyn Disk>,
        seen: Rc<Seen>,
        at: UnixNanos,
    ) -> Self {
        let clock = ManualClock::at(at);
        let (accountd, accountd_side): (Dialer, _) = ipc::memory_edge(Role::QueueRunner, 0);
        let (outbound, outbound_side) = ipc::memory_edge(Role::QueueRunner, 0);
        let client: outbound::Client = ipc::new_client(Outbound(Rc::clone(&seen)));
        serve(outbound_side, client.client);
        let (keyholder, keyholder_side) = ipc::memory_edge(Role::QueueRunner, 0);
        let client: host_keys::Client = ipc::new_client(Keyholder);
        serve(keyholder_side, client.client);
        let figures = daemon::Figures::detached();
        let sockets = tempfile::tempdir().unwrap();
        let path = sockets.path().join("control");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let grants = Grants {
            hostname: "mx.local.test".parse().unwrap(),
            queue: schedule(),
            folder: folder.to_owned(),
            disk,
            clock: Rc::new(clock.clone()),
            accountd,
            outbound,
            keyholder,
            figures,
            control: Some((listener, Rc::new(|_| true))),
            fatal: Arc::new(|error| panic!("{error}")),
            workers: daemon::Workers::Threads,
        };
        let running = tokio::task::spawn_local(queue_runner::run(grants));
        let socket = tokio::net::UnixStream::connect(&path).await.unwrap();
        let stream = Stream::from_unix(socket).unwrap();
        let (admin, connection) = ipc::connect(stream, Limits::default());
        tokio::task::spawn_local(connection);
        let comes = Rc::new(Notify::new());
        let away = tokio::task::spawn_local(hang_up(accountd_side, Rc::clone(&comes)));
        Self { seen, clock, admin, figures, running, away: Some((away, comes)) }
    }

    pub(crate) async fn accountd_comes(&mut self) {
        let (away, comes) = self.away.take().unwrap();
        comes.notify_one();
        let client: queue_door::Client = ipc::new_client(Accountd(Rc::clone(&self.seen)));
        serve(away.await.unwrap(), client.client);
    }

    pub(crate) fn new_seen() -> Rc<Seen> {
        Rc::default()
    }

    pub(crate) async fn fresh() -> (Self, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk);
        let world = Self::over(folder.path(), disk, Self::new_seen(), START).await;
        (world, folder)
    }

    /// Moves the clock, and has the schedule look at it: a retry of nothing wakes it.
    pub(crate) async fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        let mut request = self.admin.retry_request();
        request.get().init_filter().set_to("nobody@nowhere.test");
        let answer = request.send().promise.await.unwrap();
        assert_eq!(answer.get().unwrap().get_count(), 0);
    }

    /// A figure of `moxctl queue status`.
    pub(crate) async fn figure(&self, name: &str) -> u64 {
        let answer = self.admin.status_request().send().promise.await.unwrap();
        let lines = answer.get().unwrap().get_lines().unwrap();
        let found = lines.iter().find(|line| line.get_key().unwrap() == name).unwrap();
        String::from_utf8(found.get_value().unwrap().to_vec()).unwrap().parse().unwrap()
    }

    /// The oldest recipient in the queue: its last error, and when it is due.
    pub(crate) async fn first(&self) -> (String, UnixNanos) {
        let mut request = self.admin.list_request();
        request.get().init_filter().set_all(true);
        let answer = request.send().promise.await.unwrap();
        let item = answer.get().unwrap().get_items().unwrap().get(0);
        let error = item.get_last_error().unwrap().to_string().unwrap();
        (error, UnixNanos(item.get_next_attempt_unix_ns()))
    }

    /// Waits until the queue is quiet with so many recipients in it.
    pub(crate) async fn rests_with(&self, queued: u64) {
        self.until(async |world: &Self| {
            world.figure("queued").await == queued && world.figure("in delivery").await == 0
        })
        .await;
    }

    /// Waits for something, at most a few seconds.
    pub(crate) async fn until(&self, what: impl AsyncFn(&Self) -> bool) {
        assert!(self.becomes(what, Duration::from_secs(5)).await, "it never came");
    }

    pub(crate) async fn becomes(&self, what: impl AsyncFn(&Self) -> bool, most: Duration) -> bool {
        let waiting = async {
            while !what(self).await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(most, waiting).await.is_ok()
    }

    /// Delivered to an address of ours.
    pub(crate) fn stored_for(&self, to: &str) -> Vec<Stored> {
        self.seen.stored.borrow().iter().filter(|one| one.to == to).cloned().collect()
    }
}

pub(crate) async fn local<T>(test: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(test).await
}
