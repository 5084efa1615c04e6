//! Telling a sender what became of a message: a notification (RFC 3464) that goes into the queue
//! like any other message, in the same commit that settles what it tells of.

use crate::{
    attempt::Failure,
    intake::{new_queue_id, new_submission_id},
    queue::{Message, Recipient},
    run::Shared,
    schedule::retried_until,
    signing,
    spool::{self, Draft},
    worker::Shelf,
};
use anyhow::Context as _;
use message::{
    date::Date,
    dsn::{self, Action, Dsn, Returned},
};
use smtp::Enhanced;
use types::{Address, ReversePath, UnixNanos};

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Given up.
    Failed,
    /// Attempts go on until then.
    Delayed { until: UnixNanos },
}

/// Octets of the original header that are looked at; the notification returns fewer.
const MAX_HEADER: u64 = 64 * 1024;

/// Writes a notification to the spool and syncs it. Nothing for a message without a sender: RFC 5321
/// §6.1, a notification about a notification would go on for ever.
pub(crate) async fn write(
    shared: &Shared,
    about: &Message,
    recipient: &Recipient,
    kind: Kind,
    failure: &Failure,
    now: UnixNanos,
) -> anyhow::Result<Option<(Message, Recipient)>> {
    let sender = match ReversePath::from_inner(&about.from) {
        Ok(ReversePath::Address(sender)) => sender,
        Ok(ReversePath::Null) | Err(_) => return Ok(None),
    };
    let submission = about.submission;
    let wanted = usize::try_from(about.header_length.min(MAX_HEADER)).unwrap_or(0);
    let read = move |shelf: &mut Shelf| spool::read(shelf, submission, 0, wanted);
    // Without its content it is still told.
    let header = shared.worker.run(read).await?.unwrap_or_else(|error| {
        tracing::error!(%submission, %error, "the header of a queued message");
        Vec::new()
    });
    let (composed, own) = compose(shared, about, recipient, &sender, kind, failure, &header, now)?;
    let signature = signing::sign(shared, &composed.octets, now).await;
    let octets = [signature.as_bytes(), &composed.octets].concat();

    let (submission, size) = (own.submission, octets.len() as u64);
    shared
        .worker
        .run(move |shelf| {
            let written = Draft::begin(shelf, submission).and_then(|mut draft| {
                draft.append(&octets)?;
                draft.finish(shelf)
            });
            // On a full disk the half of it must not stay.
            written.inspect_err(|_| spool::remove(shelf, submission))
        })
        .await??;
    let to = Recipient {
        queue_id: new_queue_id(now)?,
        submission,
        domain: sender.domain().to_string(),
        address: sender.to_string(),
        attempts: 0,
        last_attempt: None,
        next_attempt: now,
        last_error: String::new(),
    };
    tracing::info!(queue_id = %to.queue_id, about = %recipient.queue_id, msg = about.message_id,
        "notification queued");
    Ok(Some((Message { size, ..own }, to)))
}

#[expect(clippy::too_many_arguments, reason = "each is a fact the notification tells")]
fn compose(
    shared: &Shared,
    about: &Message,
    recipient: &Recipient,
    sender: &Address,
    kind: Kind,
    failure: &Failure,
    header: &[u8],
    now: UnixNanos,
) -> anyhow::Result<(message::compose::Composed, Message)> {
    let submission = new_submission_id()?;
    let host = &shared.hostname;
    let postmaster = Address::new("postmaster".parse()?, host.clone());
    let to: Address = recipient.address.parse().context("a recipient of our own queue")?;
    let at = utc;
    let (action, subject) = match kind {
        Kind::Failed => (Action::Failed, "Mail could not be delivered"),
        Kind::Delayed { .. } => (Action::Delayed, "Mail is delayed"),
    };
    let class = if kind == Kind::Failed { 5 } else { 4 };
    let status = Enhanced::parse(&failure.enhanced).map_or((class, 0, 0), |enhanced| {
        // A message given up after temporary refusals has failed (RFC 3464 §2.3.4).
        (class, enhanced.subject, enhanced.detail)
    });
    let explanation = explain(shared, about, recipient, kind, failure, now);
    let diagnostic = failure.reply();
    let remote = !failure.host.is_empty();
    let message_id = format!("<{submission}@{host}>");
    let original = match about.message_id.as_str() {
        "" => None,
        id if id.starts_with('<') => Some(id.to_owned()),
        id => Some(format!("<{id}>")),
    };
    let composed = Dsn {
        from: &postmaster,
        to: sender,
        subject,
        date: at(now),
        message_id: &message_id,
        in_reply_to: original.as_deref(),
        explanation: &explanation,
        reporting_mta: host,
        envelope_id: None,
        arrival: Some(at(about.queued)),
        recipients: &[dsn::Recipient {
            final_recipient: &to,
            original_recipient: None,
            action,
            status,
            remote_mta: remote.then_some(failure.host.as_str()),
            diagnostic: remote.then_some(diagnostic.as_str()),
            last_attempt: Some(at(now)),
            will_retry_until: match kind {
                Kind::Failed => None,
                Kind::Delayed { until } => Some(at(until)),
            },
        }],
        returned: Returned::Header(header),
    }
    .compose();
    let own = Message {
        submission,
        account: about.account.clone(),
        from: String::new(),
        size: 0,
        header_length: 0,
        smtputf8: composed.needs_smtputf8,
        eight_bit: composed.needs_8bitmime,
        // RFC 8689 §5: it tells of the message's header, so it is protected like it.
        require_tls: about.require_tls,
        queued: now,
        message_id,
        subject: subject.to_owned(),
        report: true,
    };
    Ok((composed, own))
}

fn utc(at: UnixNanos) -> Date {
    Date { at, zone_minutes: 0 }
}

fn explain(
    shared: &Shared,
    about: &Message,
    recipient: &Recipient,
    kind: Kind,
    failure: &Failure,
    now: UnixNanos,
) -> String {
    let said = if failure.host.is_empty() {
        failure.reply()
    } else {
        format!("{} said: {}", failure.host, failure.reply())
    };
    let what = match kind {
        Kind::Failed => format!(
            "Your message could not be delivered to {}, and no further attempt will be made.",
            recipient.address
        ),
        Kind::Delayed { .. } => {
            let attempts = recipient.attempts + 1;
            let until = retried_until(&shared.queue, attempts, now);
            format!(
                "Your message to {} has not been delivered yet, after {attempts} attempts. You need \
                 not do anything: it will be tried again until {}.",
                recipient.address,
                utc(until).to_rfc5322()
            )
        }
    };
    format!(
        "This is the mail system of {}.\n\n{what}\n\nSubject: {}\n\n{said}\n",
        shared.hostname, about.subject
    )
}
