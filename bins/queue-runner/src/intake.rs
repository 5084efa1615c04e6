//! From accountd's outbox into the queue.
//!
//! The order that loses nothing and repeats nothing: content to the spool and synced, rows
//! committed, and only then `done` to accountd. If the answer to `done` is lost the submission is
//! offered again, and recognised.

use crate::{
    collect::Collector,
    queue::{Message, Recipient},
    worker::Worker,
};
use anyhow::Context as _;
use ipc::{
    Line, capnp,
    schema::{
        accountd_capnp::queue_door,
        queue_capnp::{self, outbox},
        types_capnp::watched,
    },
    within,
};
use std::{collections::BTreeSet, rc::Rc, time::Duration};
use tokio::sync::Notify;
use types::{Address, Clock, QueueId, ReversePath, SubmissionId, UnixNanos};

/// How long a short call may take.
const SHORT: Duration = Duration::from_secs(10);

/// How long the content of one message may take.
const CONTENT: Duration = Duration::from_secs(300);

/// Submissions asked for at once.
const BATCH: u32 = 100;

/// Recipients of one submission; far above what submission allows.
const MAX_RECIPIENTS: u32 = 100_000;

/// The wait before accountd is asked again after it was away, and the longest between two looks
/// even if no word comes.
const AGAIN: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_secs(60);

/// Takes submissions for ever; wakes `queued` after each that is new.
pub(crate) async fn run(
    line: Line<queue_door::Client>,
    worker: Worker,
    clock: Rc<dyn Clock>,
    queued: Rc<Notify>,
) {
    loop {
        match watch_and_take(&line, &worker, &*clock, &queued).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "outbox"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Watches one life of accountd; returns when it is over.
async fn watch_and_take(
    line: &Line<queue_door::Client>,
    worker: &Worker,
    clock: &dyn Clock,
    queued: &Notify,
) -> anyhow::Result<()> {
    let door = line.client().await.context("accountd")?;
    let answer = within(SHORT, door.outbox_request().send().promise).await?;
    let outbox = answer.get()?.get_outbox()?;
    let word = Rc::new(Word::default());
    let mut request = outbox.watch_request();
    request.get().set_sink(ipc::new_client(Ear(Rc::clone(&word))));
    let watching = within(SHORT, request.send().promise).await?;
    let _handle = watching.get()?.get_handle()?;
    loop {
        while take_batch(&outbox, worker, clock, queued).await? {}
        // A look without a word, too: it is how a dead accountd is noticed when nothing happens.
        let _ = tokio::time::timeout(LOOK, word.said.notified()).await;
        if word.revoked.get() {
            return Ok(());
        }
    }
}

#[derive(Default)]
struct Word {
    said: Notify,
    revoked: std::cell::Cell<bool>,
}

struct Ear(Rc<Word>);

impl Drop for Ear {
    fn drop(&mut self) {
        // accountd is gone, or let us go: look, and find out.
        self.0.said.notify_one();
    }
}

impl watched::Server for Ear {
    async fn changed(
        self: Rc<Self>,
        _: watched::ChangedParams,
        _: watched::ChangedResults,
    ) -> Result<(), capnp::Error> {
        self.0.said.notify_one();
        Ok(())
    }

    async fn revoked(
        self: Rc<Self>,
        _: watched::RevokedParams,
        _: watched::RevokedResults,
    ) -> Result<(), capnp::Error> {
        self.0.revoked.set(true);
        self.0.said.notify_one();
        Ok(())
    }
}

/// Takes one batch; whether there is more.
async fn take_batch(
    outbox: &outbox::Client,
    worker: &Worker,
    clock: &dyn Clock,
    queued: &Notify,
) -> anyhow::Result<bool> {
    let mut request = outbox.take_request();
    request.get().set_max(BATCH);
    let answer = within(SHORT, request.send().promise).await.context("take")?;
    let answer = answer.get()?;
    let (items, more) = (answer.get_items()?, answer.get_more());
    if items.len() > BATCH {
        anyhow::bail!("more than was asked for");
    }
    let mut took_any = false;
    for item in items {
        let submission = SubmissionId::try_from(item.get_submission()?)?;
        let known = worker.run(move |shelf| shelf.was_taken(submission)).await??;
        if !known {
            let taken = match read(item, clock.now()) {
                Ok((message, recipients)) => {
                    take(outbox, worker, message, recipients, clock.now()).await
                }
                Err(error) => Err(Skip::This(error)),
            };
            match taken {
                Ok(()) => queued.notify_one(),
                // It stays in the outbox; one that is damaged must not hold up everybody's mail.
                Err(Skip::This(error)) => {
                    tracing::error!(%submission, error = format!("{error:#}"), "cannot be queued");
                    continue;
                }
                Err(Skip::All(error)) => return Err(error),
            }
        }
        took_any = true;
        let mut request = outbox.done_request();
        request.get().set_submission(submission.as_bytes());
        within(SHORT, request.send().promise).await.context("done")?;
    }
    Ok(more && took_any)
}

/// Why a submission was not taken.
enum Skip {
    /// It has a fault of its own.
    This(anyhow::Error),
    /// accountd or the disk is away: no other would fare better.
    All(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Skip {
    fn from(error: E) -> Self {
        Self::All(error.into())
    }
}

async fn take(
    outbox: &outbox::Client,
    worker: &Worker,
    mut message: Message,
    recipients: Vec<Recipient>,
    now: UnixNanos,
) -> Result<(), Skip> {
    let submission = message.submission;
    let collector = Collector::begin(worker, submission).await?;
    let mut request = outbox.content_request();
    request.get().set_submission(submission.as_bytes());
    request.get().set_sink(collector.sink());
    let answer = within(CONTENT, request.send().promise).await.context("content")?;
    if !answer.get()?.get_found() {
        return Err(Skip::This(anyhow::anyhow!("listed, but without content")));
    }
    let Some(length) = collector.finish().await? else {
        return Err(Skip::This(anyhow::anyhow!("the content broke off")));
    };
    if length != message.size {
        tracing::warn!(%submission, length, said = message.size, "content of another length");
        message.size = length;
    }
    let (row, rows) = (message.clone(), recipients.clone());
    worker.run(move |shelf| shelf.add(&row, &rows, now)).await??;
    for recipient in &recipients {
        tracing::info!(queue_id = %recipient.queue_id, account = message.account,
            msg = message.message_id, to = recipient.address, %submission, "queued");
    }
    Ok(())
}

/// A new id for a recipient: five octets of time, in hundredths of a second, and five of chance.
/// So the order of ids is that of age, and a place in it means something after its row is gone.
pub(crate) fn new_queue_id(now: UnixNanos) -> anyhow::Result<QueueId> {
    let mut bytes = [0; QueueId::OCTETS];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("random numbers: {e}"))?;
    let time = now.0.div_euclid(10_000_000).to_be_bytes();
    for (to, from) in bytes.iter_mut().zip(time.iter().skip(3)) {
        *to = *from;
    }
    Ok(QueueId::from_bytes(bytes))
}

/// A new id for a message of our own.
pub(crate) fn new_submission_id() -> anyhow::Result<SubmissionId> {
    let mut bytes = [0; SubmissionId::OCTETS];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("random numbers: {e}"))?;
    Ok(SubmissionId::from_bytes(bytes))
}

/// As it came, if it is one: an attempt must not find out that it is not.
fn reverse_path(text: &str) -> anyhow::Result<String> {
    ReversePath::from_inner(text).map_err(|_| anyhow::anyhow!("not a reverse-path"))?;
    Ok(text.to_owned())
}

fn read(
    item: queue_capnp::item::Reader<'_>,
    now: UnixNanos,
) -> anyhow::Result<(Message, Vec<Recipient>)> {
    let submission = SubmissionId::try_from(item.get_submission()?)?;
    let message = Message {
        submission,
        account: item.get_account()?.to_string()?,
        from: reverse_path(item.get_from()?.to_str()?)?,
        size: item.get_size(),
        header_length: item.get_header_length(),
        smtputf8: item.get_smtputf8(),
        eight_bit: item.get_eight_bit(),
        require_tls: item.get_require_tls(),
        queued: UnixNanos(item.get_submitted_unix_ns()),
        message_id: item.get_message_id()?.to_string()?,
        subject: item.get_subject()?.to_string()?,
        report: false,
    };
    let list = item.get_recipients()?;
    if list.len() > MAX_RECIPIENTS {
        anyhow::bail!("submission {submission} has {} recipients", list.len());
    }
    let not_before = UnixNanos(item.get_not_before_unix_ns());
    let mut seen = BTreeSet::new();
    let addresses = list.iter().map(|recipient| {
        let address: Address = recipient.get_address()?.to_str()?.parse()?;
        Ok(address)
    });
    let addresses = addresses.collect::<anyhow::Result<Vec<_>>>()?;
    // Who is named twice gets it once.
    let once = addresses.into_iter().filter(|address| seen.insert(address.to_string()));
    let recipients = once.map(|address| {
        Ok(Recipient {
            queue_id: new_queue_id(now)?,
            submission,
            domain: address.domain().to_string(),
            address: address.to_string(),
            attempts: 0,
            last_attempt: None,
            next_attempt: now.max(not_before),
            last_error: String::new(),
        })
    });
    Ok((message, recipients.collect::<anyhow::Result<_>>()?))
}
