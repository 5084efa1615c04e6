//! One attempt: recipients of one message in one domain, to accountd if they are ours, to another
//! server if not, and what follows from the outcome.

use crate::{
    queue::{Recipient, Settled},
    report::{self, Kind},
    run::{Group, Shared},
    schedule::{self, Next},
    spool,
    worker::{Gone, Shelf},
};
use anyhow::Context as _;
use daemon::{Count, Time};
use ipc::{
    Unavailable, capnp,
    schema::{
        outbound_capnp::{self, recipient_result},
        queue_capnp::{delivered, delivery},
    },
    within,
};
use smtp::Enhanced;
use std::{rc::Rc, time::Duration};
use tokio::time::Instant;
use types::{Domain, QueueId, SubmissionId, UnixNanos};

/// How long a short call may take.
const SHORT: Duration = Duration::from_secs(10);

/// How long accountd may take to store a message once it has it.
const COMMIT: Duration = Duration::from_secs(120);

/// How long a dialogue with other servers may take: several hosts, each within the waiting times of
/// RFC 5321 §4.5.3.2.
const DIALOGUE: Duration = Duration::from_secs(45 * 60);

/// The pause before what could not be recorded is recorded again.
const RECORD_AGAIN: Duration = Duration::from_secs(15);

/// RFC 3463 §3.4: mail system full.
const NO_ROOM: &str = "4.3.1";

/// Recipients whose faults are counted; beyond, each counts as an attempt.
const MAX_FAULTS: usize = 10_000;

/// What is read from the spool and sent at once.
const CHUNK: usize = 64 * 1024;

/// Text of a remote server that is kept.
const MAX_TEXT: usize = 1_000;

/// What became of one recipient, whoever was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Delivered.
    Delivered(String),
    /// Refused for now.
    Temporary(Failure),
    /// Refused for good.
    Permanent(Failure),
    /// A process of ours was away, or our disk is full: that ends, and is no attempt.
    Fault(String),
    /// accountd has a fault. That ends, too, if it has nothing to do with the message.
    Ours(Failure),
}

/// Why, in the words of whoever refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Failure {
    pub(crate) code: u16,
    pub(crate) enhanced: String,
    pub(crate) text: String,
    /// The remote host, empty when it was ourselves.
    pub(crate) host: String,
}

impl Failure {
    /// Code and words; an enhanced code only where one was given.
    pub(crate) fn reply(&self) -> String {
        let Self { code, enhanced, text, .. } = self;
        let space = if enhanced.is_empty() { "" } else { " " };
        format!("{code}{space}{enhanced} {text}")
    }

    fn line(&self) -> String {
        let by = if self.host.is_empty() { String::new() } else { format!("{}: ", self.host) };
        format!("{by}{}", self.reply())
    }

    /// accountd could not.
    fn ours() -> Self {
        let text = "a local error".into();
        Self { code: 451, enhanced: "4.3.0".into(), text, host: String::new() }
    }

    /// The domain it comes from was switched off after it was taken; maybe for a while.
    fn suspended() -> Self {
        let text = "Mail from this domain is suspended".into();
        Self { code: 451, enhanced: "4.3.0".into(), text, host: String::new() }
    }

    /// Something between us and the other server broke when it may have had the message.
    fn midway(why: &anyhow::Error) -> Self {
        let text = format!("the attempt broke off: {why:#}");
        Self { code: 451, enhanced: "4.3.0".into(), text, host: String::new() }
    }
}

/// Delivers a group and records what became of it.
pub(crate) async fn deliver(shared: &Rc<Shared>, group: Group) -> anyhow::Result<()> {
    let Asked { local, suspended } = match ask(shared, &group).await {
        Ok(asked) => asked,
        Err(why) => {
            let outcomes = vec![Outcome::Fault(why.to_string()); group.recipients.len()];
            return settle(shared, &group, outcomes).await;
        }
    };
    let now = shared.clock.now();
    let ids: Vec<QueueId> = group.recipients.iter().map(|r| r.queue_id).collect();
    let attempts = group.recipients.first().map_or(0, |r| r.attempts) + 1;
    // Should we die in this attempt: not before what would follow a failure.
    let next = match schedule::after_failure(&shared.queue, attempts, now, 0) {
        _ if local.iter().all(|&local| local) => now.plus(schedule::after_death(attempts)),
        Next::Retry { at, .. } => at,
        Next::GiveUp => now.plus(Duration::from_secs(3_600)),
    };
    shared.worker.run(move |shelf| shelf.begin(&ids, now, next)).await??;
    if suspended {
        let outcomes = vec![Outcome::Temporary(Failure::suspended()); group.recipients.len()];
        return settle(shared, &group, outcomes).await;
    }
    let begun = Instant::now();

    let mut outcomes = vec![Outcome::Fault("not tried".into()); group.recipients.len()];
    let mut remote = Vec::new();
    for (at, recipient) in group.recipients.iter().enumerate() {
        if local.get(at).copied().unwrap_or(false) {
            let outcome = to_accountd(shared, &group, recipient).await;
            if let Some(slot) = outcomes.get_mut(at) {
                *slot = outcome.unwrap_or_else(|why| fault(&why));
            }
        } else {
            remote.push(at);
        }
    }
    if !remote.is_empty() {
        let recipients: Vec<&Recipient> =
            remote.iter().filter_map(|&at| group.recipients.get(at)).collect();
        let all = |outcome| vec![outcome; recipients.len()];
        let found = match begin_outbound(shared, &group, &recipients, attempts).await {
            Err(why) => all(Outcome::Fault(format!("{why:#}"))),
            // From here on the other server may have it: that counts as an attempt, or a job that
            // brings outbound down would be sent for ever.
            Ok(delivery) => {
                let ending = end_outbound(shared, &group, &recipients, &delivery);
                match tokio::time::timeout(DIALOGUE, ending).await {
                    Ok(Ok(found)) => found,
                    Ok(Err(why)) => all(Outcome::Temporary(Failure::midway(&why))),
                    Err(late) => all(Outcome::Temporary(Failure::midway(&late.into()))),
                }
            }
        };
        for (at, outcome) in remote.into_iter().zip(found) {
            if let Some(slot) = outcomes.get_mut(at) {
                *slot = outcome;
            }
        }
    }
    shared.figures.observe(Time::QueueAttempt, begun.elapsed());
    settle(shared, &group, outcomes).await
}

/// What a fault of ours on the way to accountd means. A process that is away comes back; content
/// that cannot be read may never, and then the sender has to hear of it.
fn fault(why: &anyhow::Error) -> Outcome {
    if why.is::<storage::Error>() {
        Outcome::Temporary(Failure::midway(why))
    } else {
        Outcome::Fault(format!("{why:#}"))
    }
}

/// What the directory says of a group before each attempt.
struct Asked {
    /// Which recipients are ours.
    local: Vec<bool>,
    /// The sender's domain is switched off.
    suspended: bool,
}

async fn ask(shared: &Shared, group: &Group) -> Result<Asked, Unavailable> {
    let delivery = delivery(shared).await?;
    let mut request = delivery.is_local_request();
    request.get().set_from(&group.message.from);
    let count = u32::try_from(group.recipients.len()).unwrap_or(0);
    let mut list = request.get().init_addresses(count);
    for (at, recipient) in (0..).zip(&group.recipients) {
        list.set(at, &recipient.address);
    }
    let answer = within(SHORT, request.send().promise).await?;
    let read = || -> Result<Asked, capnp::Error> {
        let answer = answer.get()?;
        let local = answer.get_local()?.iter().collect();
        Ok(Asked { local, suspended: answer.get_suspended() })
    };
    read().map_err(|_| Unavailable::Broken)
}

async fn delivery(shared: &Shared) -> Result<delivery::Client, Unavailable> {
    let door = shared.accountd.client().await?;
    let answer = within(SHORT, door.delivery_request().send().promise).await?;
    let read = || answer.get()?.get_delivery();
    read().map_err(|_| Unavailable::Broken)
}

async fn to_accountd(
    shared: &Shared,
    group: &Group,
    recipient: &Recipient,
) -> anyhow::Result<Outcome> {
    let mut request = delivery(shared).await?.deliver_request();
    let mut params = request.get();
    params.set_queue_id(recipient.queue_id.as_bytes());
    params.set_from(&group.message.from);
    params.set_to(&recipient.address);
    params.set_notification(group.message.report);
    let answer = within(SHORT, request.send().promise).await?;
    let sink = answer.get()?.get_sink()?;
    for_each_chunk(shared, group.message.submission, async |chunk| {
        let mut request = sink.write_request();
        request.get().set_chunk(chunk);
        within(COMMIT, request.send()).await
    })
    .await?;
    let answer = match within(COMMIT, sink.commit_request().send().promise).await {
        Ok(answer) => answer,
        // Bounded: a message that brings accountd down would be delivered for ever.
        Err(error) => return Ok(Outcome::Ours(Failure::midway(&error.into()))),
    };
    Ok(match answer.get()?.get_outcome()?.which()? {
        delivered::Stored(()) => Outcome::Delivered("stored".into()),
        delivered::Duplicate(()) => Outcome::Delivered("stored before".into()),
        // It was ours a moment ago. Counted, or two answers that disagree would go on for ever.
        delivered::NotLocal(()) => {
            Outcome::Temporary(Failure::midway(&anyhow::anyhow!("not local any more")))
        }
        delivered::Fault(()) => Outcome::Ours(Failure::ours()),
        delivered::Refused(refused) => {
            let failure = Failure {
                code: refused.get_code(),
                enhanced: refused.get_enhanced()?.to_string()?,
                text: refused.get_text()?.to_string()?,
                host: String::new(),
            };
            // Our own disk is full: soon over or soon seen to.
            if failure.enhanced == NO_ROOM {
                Outcome::Fault(failure.line())
            } else {
                by_code(failure)
            }
        }
    })
}

fn by_code(failure: Failure) -> Outcome {
    if (500..600).contains(&failure.code) {
        Outcome::Permanent(failure)
    } else {
        Outcome::Temporary(failure)
    }
}

async fn begin_outbound(
    shared: &Shared,
    group: &Group,
    recipients: &[&Recipient],
    attempts: u32,
) -> anyhow::Result<outbound_capnp::delivery::Client> {
    let message = &group.message;
    let mut request = shared.outbound.client().await?.deliver_request();
    let mut job = request.get().init_job();
    job.set_domain(&group.domain);
    job.set_from(&message.from);
    job.set_size(message.size);
    job.set_smtputf8(message.smtputf8);
    job.set_eight_bit(message.eight_bit);
    job.set_require_tls(message.require_tls);
    job.set_ehlo(shared.hostname.as_ascii());
    job.set_attempt(attempts);
    let mut list = job.init_recipients(u32::try_from(recipients.len())?);
    for (at, recipient) in (0..).zip(recipients) {
        list.set(at, &recipient.address);
    }
    let answer = within(SHORT, request.send().promise).await?;
    Ok(answer.get()?.get_delivery()?)
}

async fn end_outbound(
    shared: &Shared,
    group: &Group,
    recipients: &[&Recipient],
    delivery: &outbound_capnp::delivery::Client,
) -> anyhow::Result<Vec<Outcome>> {
    let message = &group.message;
    for_each_chunk(shared, message.submission, async |chunk| {
        let mut request = delivery.write_request();
        request.get().set_chunk(chunk);
        // A chunk is taken when the dialogue has come to its content.
        within(DIALOGUE, request.send()).await
    })
    .await?;
    let answer = within(DIALOGUE, delivery.finish_request().send().promise).await?;
    let report = answer.get()?.get_report()?;
    for line in report.get_log()? {
        tracing::info!(submission = %message.submission, msg = message.message_id,
            line = &*String::from_utf8_lossy(line?.as_bytes()), "dialogue");
    }
    let results = report.get_recipients()?;
    recipients
        .iter()
        .map(|recipient| {
            // By address, not by place: outbound's word is not more than a claim about a name.
            let found = results.iter().find(|result| {
                result.get_address().is_ok_and(|a| a.as_bytes() == recipient.address.as_bytes())
            });
            let missing = || Outcome::Temporary(Failure::midway(&anyhow::anyhow!("not reported")));
            found.map_or_else(|| Ok(missing()), read_result)
        })
        .collect()
}

/// What outbound says of one recipient, as far as it can be true: it goes into a notification, and
/// outbound talks to strangers.
fn read_result(result: recipient_result::Reader<'_>) -> anyhow::Result<Outcome> {
    let kind = result.get_kind()?;
    let unsaid = match kind {
        outbound_capnp::recipient_result::Kind::Delivered => 250,
        outbound_capnp::recipient_result::Kind::Permanent => 550,
        outbound_capnp::recipient_result::Kind::Temporary => 451,
    };
    let code = Some(result.get_code()).filter(|code| (200..600).contains(code) || *code == 0);
    let enhanced = Enhanced::parse(result.get_enhanced()?.to_str().unwrap_or_default());
    let host = result.get_remote_host()?.to_str().unwrap_or_default().parse::<Domain>();
    let failure = Failure {
        code: code.unwrap_or(unsaid),
        enhanced: enhanced.map(|enhanced| enhanced.to_string()).unwrap_or_default(),
        text: one_line(&String::from_utf8_lossy(result.get_text()?.as_bytes())),
        host: host.map(|host| host.to_string()).unwrap_or_default(),
    };
    Ok(match kind {
        outbound_capnp::recipient_result::Kind::Delivered => Outcome::Delivered(failure.line()),
        outbound_capnp::recipient_result::Kind::Permanent => Outcome::Permanent(failure),
        outbound_capnp::recipient_result::Kind::Temporary => Outcome::Temporary(failure),
    })
}

/// At most [`MAX_TEXT`] octets of a text, and no control characters.
fn one_line(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(MAX_TEXT)];
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Reads the content from the spool on the queue's thread and hands it on, a chunk at a time.
async fn for_each_chunk(
    shared: &Shared,
    submission: SubmissionId,
    send: impl AsyncFn(&[u8]) -> Result<(), Unavailable>,
) -> anyhow::Result<()> {
    let mut offset = 0;
    loop {
        let read = move |shelf: &mut Shelf| spool::read(shelf, submission, offset, CHUNK);
        let chunk = shared.worker.run(read).await??;
        if chunk.is_empty() {
            return Ok(());
        }
        offset += chunk.len() as u64;
        send(&chunk).await?;
    }
}

/// Records what became of a group. While the disk takes nothing, again and again: what was
/// delivered and not recorded would be delivered twice.
async fn settle(shared: &Rc<Shared>, group: &Group, outcomes: Vec<Outcome>) -> anyhow::Result<()> {
    for (recipient, outcome) in group.recipients.iter().zip(&outcomes) {
        log(group, recipient, outcome);
    }
    loop {
        match try_settle(shared, group, &outcomes).await {
            Err(error) if !error.is::<Gone>() => {
                tracing::error!(error = format!("{error:#}"), "record an attempt");
                tokio::time::sleep(RECORD_AGAIN).await;
            }
            done => return done,
        }
    }
}

async fn try_settle(
    shared: &Rc<Shared>,
    group: &Group,
    outcomes: &[Outcome],
) -> anyhow::Result<()> {
    let now = shared.clock.now();
    let (mut settled, mut reports, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    let mut remember = Vec::new();
    for (recipient, outcome) in group.recipients.iter().zip(outcomes) {
        let faults = shared.faults_of(recipient.queue_id).saturating_add(1);
        let (what, report) = decide(shared, recipient, outcome.clone(), faults, now);
        remember.push((recipient.queue_id, faults, matches!(what, Settled::Uncounted { .. })));
        counts.push(match (&what, outcome) {
            (Settled::Gone, Outcome::Delivered(_)) => Count::QueueDelivered,
            (Settled::Gone, _) => Count::QueueFailed,
            (Settled::Again { .. } | Settled::Uncounted { .. }, _) => Count::QueueDeferred,
        });
        settled.push((recipient.queue_id, what));
        if let Some((kind, failure)) = report {
            let written = report::write(shared, &group.message, recipient, kind, &failure, now);
            reports.extend(written.await.context("report to the sender")?);
        }
    }
    let mut given_up = Vec::new();
    for ((recipient, outcome), (_, what)) in group.recipients.iter().zip(outcomes).zip(&settled) {
        if let (Settled::Gone, Outcome::Temporary(failure) | Outcome::Ours(failure)) =
            (what, outcome)
        {
            given_up.push((recipient, failure));
        }
    }
    let reported = reports.len();
    let work = move |shelf: &mut Shelf| {
        let done = shelf.settle(&settled, &reports, now);
        done.inspect_err(|_| {
            for (message, _) in &reports {
                spool::remove(shelf, message.submission);
            }
        })
    };
    shared.worker.run(work).await??;
    // What no server ever refused for good, and is gone all the same: somebody may want to look why.
    for (recipient, failure) in given_up {
        tracing::warn!(queue_id = %recipient.queue_id, account = group.message.account,
            msg = group.message.message_id, to = recipient.address, detail = failure.line(),
            reported, "given up");
    }
    shared.remember_faults(&remember);
    for count in counts {
        shared.figures.count(count);
    }
    shared.figures.add(Count::DsnsSent, reported as u64);
    if reported > 0 {
        shared.changed.notify_one();
    }
    Ok(())
}

/// What an outcome means for the queue after so many `faults` in a row, and whether the sender is
/// told.
fn decide(
    shared: &Shared,
    recipient: &Recipient,
    outcome: Outcome,
    faults: u32,
    now: UnixNanos,
) -> (Settled, Option<(Kind, Failure)>) {
    let attempts = recipient.attempts + 1;
    let again = |faults, error| {
        let at = now.plus(schedule::after_fault(faults));
        (Settled::Uncounted { at, attempts: recipient.attempts, error }, None)
    };
    match (outcome, faults) {
        (Outcome::Delivered(_), _) => (Settled::Gone, None),
        (Outcome::Permanent(failure), _) => (Settled::Gone, Some((Kind::Failed, failure))),
        (Outcome::Fault(error), faults) => again(faults, error),
        (Outcome::Ours(failure), faults @ ..=schedule::UNCOUNTED) => again(faults, failure.line()),
        (Outcome::Temporary(failure) | Outcome::Ours(failure), _) => {
            let jitter = u64::from_le_bytes(chance_of(recipient.queue_id.as_bytes()));
            let next = schedule::after_failure(&shared.queue, attempts, now, jitter);
            match next {
                Next::GiveUp => (Settled::Gone, Some((Kind::Failed, failure))),
                Next::Retry { at, tell_sender } => {
                    let error = failure.line();
                    let until = schedule::retried_until(&shared.queue, attempts, now);
                    let report = tell_sender.then_some((Kind::Delayed { until }, failure));
                    (Settled::Again { at, error }, report)
                }
            }
        }
    }
}

impl Shared {
    /// How many there were in a row. What is not counted any more had enough of them.
    fn faults_of(&self, id: QueueId) -> u32 {
        let faults = self.faults.borrow();
        let unknown = if faults.len() < MAX_FAULTS { 0 } else { schedule::UNCOUNTED };
        faults.get(&id).copied().unwrap_or(unknown)
    }

    /// Counts faults of ours in a row, in memory: a start of ours is a new beginning for all.
    fn remember_faults(&self, of: &[(QueueId, u32, bool)]) {
        let mut faults = self.faults.borrow_mut();
        for (id, count, is_fault) in of {
            if !is_fault {
                faults.remove(id);
                continue;
            }
            // What an administrator dropped is still in it.
            if faults.len() < MAX_FAULTS || faults.contains_key(id) {
                faults.insert(*id, *count);
            }
        }
    }
}

fn chance_of(id: &[u8; QueueId::OCTETS]) -> [u8; 8] {
    let mut eight = [0; 8];
    // From the end, where chance is.
    for (to, from) in eight.iter_mut().zip(id.iter().rev().take(5)) {
        *to = *from;
    }
    eight
}

fn log(group: &Group, recipient: &Recipient, outcome: &Outcome) {
    let (what, detail) = match outcome {
        Outcome::Delivered(text) => ("delivered", text.clone()),
        Outcome::Temporary(failure) => ("deferred", failure.line()),
        Outcome::Permanent(failure) => ("bounced", failure.line()),
        Outcome::Fault(why) => ("not tried", why.clone()),
        Outcome::Ours(failure) => ("put off", failure.line()),
    };
    tracing::info!(queue_id = %recipient.queue_id, account = group.message.account,
        msg = group.message.message_id, to = recipient.address, detail, "{what}");
}
