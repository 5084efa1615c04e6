//! Questions of the session machine carried out as calls to accountd.

use super::{
    account::{Link, OpenMailbox, SHORT, Trouble},
    content::{self, Appending, Streamed},
    rows,
};
use imap::{
    NumberSet, StoreHow,
    session::{
        Answer, Appended, Copied, MailboxOutcome, Meta, Question, Refused, Small, TextScope,
    },
};
use ipc::{
    capnp::{
        self,
        capability::{Promise, Response},
    },
    schema::account_capnp::{
        self as schema, append_started, appended, copied, expunged, mailbox, mailbox_outcome,
        stored,
    },
    within,
};
use std::{rc::Rc, time::Duration};

/// A call that may go through a whole mailbox.
const LONG: Duration = Duration::from_secs(60);
/// Ranges of UIDs in one call: what fits a message of the edge with room to spare.
const MAX_RANGES: usize = 60_000;
/// Octets of a range of content that is gathered in memory: a header block.
const MAX_GATHERED: u64 = 1024 * 1024;

/// Carries a question out. Trouble that has an answer in IMAP becomes one; a refused ticket does
/// not: it ends the session.
pub(super) async fn ask(
    link: &mut Link,
    appending: &mut Option<Appending>,
    question: Question,
) -> Result<Answer, Trouble> {
    match carry_out(link, appending, question).await {
        Ok(answer) => Ok(answer),
        Err(Trouble::Away) => {
            // Whatever broke is made anew for the next question.
            if !link.is_live() {
                link.broke();
            }
            Ok(Answer::Unavailable)
        }
        Err(Trouble::MailboxGone) => Ok(Answer::Closed),
        Err(Trouble::Refused) => Err(Trouble::Refused),
    }
}

async fn carry_out(
    link: &mut Link,
    appending: &mut Option<Appending>,
    question: Question,
) -> Result<Answer, Trouble> {
    match question {
        Question::Mailboxes => mailboxes(link).await,
        Question::Create(name, role) => {
            let mut request = link.account().await?.create_request();
            request.get().set_name(name.as_str());
            request.get().set_role(rows::role(role));
            let answer = within(SHORT, request.send().promise).await?;
            mailbox_outcome(answer.get()?.get_outcome()?)
        }
        Question::Delete(name) => {
            let mut request = link.account().await?.delete_request();
            request.get().set_name(name.as_str());
            let answer = within(LONG, request.send().promise).await?;
            mailbox_outcome(answer.get()?.get_outcome()?)
        }
        Question::Rename(from, to) => {
            let mut request = link.account().await?.rename_request();
            request.get().set_from(from.as_str());
            request.get().set_to(to.as_str());
            let answer = within(LONG, request.send().promise).await?;
            mailbox_outcome(answer.get()?.get_outcome()?)
        }
        Question::Subscribe(name, on) => {
            let mut request = link.account().await?.subscribe_request();
            request.get().set_name(name.as_str());
            request.get().set_on(on);
            let answer = within(SHORT, request.send().promise).await?;
            mailbox_outcome(answer.get()?.get_outcome()?)
        }
        Question::Open { name, writable } => {
            Ok(Answer::Opened(link.open(name, writable).await?.map(Box::new)))
        }
        Question::Release => {
            link.release();
            Ok(Answer::Done)
        }
        Question::Rows { from, to } => read_rows(link, from, to).await,
        Question::Changes { since } => changes(link, since).await,
        Question::Meta { uids, envelope, structure } => {
            meta(&link.mailbox().await?, &uids, envelope, structure).await
        }
        Question::Small { uids, most } => small(link, &uids, most).await,
        Question::Content { uid, from, to } => gather(&link.mailbox().await?, uid, from, to).await,
        Question::Store { uids, how, flags } => {
            let mut request = link.mailbox().await?.client.store_request();
            let mut params = request.get();
            rows::write_uids(&uids, params.reborrow().init_uids(ranges(&uids)?));
            rows::write_flags(&flags, params.reborrow().init_flags());
            params.set_op(match how {
                StoreHow::Replace => schema::StoreOp::Replace,
                StoreHow::Add => schema::StoreOp::Add,
                StoreHow::Remove => schema::StoreOp::Remove,
            });
            let answer = within(LONG, request.send().promise).await?;
            Ok(match which(answer.get()?.get_outcome()?.which())? {
                stored::Done(done) => Answer::Stored(Ok(done.get_modseq())),
                stored::KeywordLimit(()) => Answer::Stored(Err(Refused::Keywords)),
                stored::ReadOnly(()) => Answer::Stored(Err(Refused::ReadOnly)),
                stored::Temporary(()) => Answer::Unavailable,
                stored::DiskFull(()) => Answer::Full,
            })
        }
        Question::Copy { uids, to, and_remove } => {
            let open = link.mailbox().await?;
            copy(&open, &uids, to.as_str(), and_remove).await
        }
        Question::Expunge(uids) => {
            let mut request = link.mailbox().await?.client.expunge_request();
            let mut params = request.get();
            rows::write_uids(&uids, params.reborrow().init_uids(ranges(&uids)?));
            params.set_only_deleted(true);
            let answer = within(LONG, request.send().promise).await?;
            Ok(match which(answer.get()?.get_outcome()?.which())? {
                expunged::Done(done) => Answer::Expunged(Ok(done.get_modseq())),
                expunged::ReadOnly(()) => Answer::Expunged(Err(Refused::ReadOnly)),
                expunged::Temporary(()) => Answer::Unavailable,
                expunged::DiskFull(()) => Answer::Full,
            })
        }
        Question::SearchText { scope, header, needle, uids } => {
            search_text(&link.mailbox().await?, scope, &header, &needle, &uids).await
        }
        Question::Append { mailbox, flags, received, size, binary } => {
            let mut request = link.account().await?.append_request();
            let mut params = request.get();
            params.set_mailbox(mailbox.as_str());
            rows::write_flags(&flags, params.reborrow().init_flags());
            // 0 is "now" on this edge: the first second of 1970 is one nanosecond later.
            let received = received.map_or(0, |at| if at == 0 { 1 } else { at });
            params.set_received_unix_ns(received);
            params.set_size_hint(size);
            params.set_binary(binary);
            let answer = within(SHORT, request.send().promise).await?;
            let started = match which(answer.get()?.get_outcome()?.which())? {
                append_started::Sink(sink) => {
                    *appending = Some(Appending::new(sink?));
                    Ok(())
                }
                append_started::Missing(()) => Err(Refused::Missing),
                append_started::OverQuota(()) => Err(Refused::OverQuota),
                append_started::TooLarge(()) => Err(Refused::TooLarge),
                append_started::KeywordLimit(()) => Err(Refused::Keywords),
                append_started::ReadOnly(()) => Err(Refused::ReadOnly),
                append_started::Temporary(()) => return Ok(Answer::Unavailable),
            };
            Ok(Answer::AppendStarted(started))
        }
        Question::Commit => {
            let Some(appending) = appending.take() else { return Ok(Answer::Unavailable) };
            appending
                .commit(|outcome| {
                    Ok(match outcome.which()? {
                        appended::Stored(stored) => Answer::Appended(Ok(Appended {
                            uid_validity: stored.get_uid_validity(),
                            uid: stored.get_uid(),
                            modseq: stored.get_modseq(),
                        })),
                        appended::OverQuota(()) => Answer::Appended(Err(Refused::OverQuota)),
                        appended::Missing(()) => Answer::Appended(Err(Refused::Missing)),
                        appended::KeywordLimit(()) => Answer::Appended(Err(Refused::Keywords)),
                        appended::Temporary(()) => Answer::Unavailable,
                        appended::DiskFull(()) => Answer::Full,
                    })
                })
                .await
        }
    }
}

fn which<T>(which: Result<T, capnp::NotInSchema>) -> Result<T, Trouble> {
    which.map_err(|error| Trouble::from(capnp::Error::from(error)))
}

/// How many ranges to write; a set that no message holds is not asked for.
fn ranges(uids: &NumberSet) -> Result<u32, Trouble> {
    let count = uids.ranges().len();
    if count > MAX_RANGES {
        tracing::warn!(count, "a set of messages in too many ranges");
        return Err(Trouble::Away);
    }
    u32::try_from(count).map_err(|_| Trouble::Away)
}

fn mailbox_outcome(outcome: mailbox_outcome::Reader<'_>) -> Result<Answer, Trouble> {
    Ok(Answer::Mailbox(match which(outcome.which())? {
        mailbox_outcome::Done(()) => MailboxOutcome::Done,
        mailbox_outcome::Exists(()) => MailboxOutcome::Exists,
        mailbox_outcome::Missing(()) => MailboxOutcome::Missing,
        mailbox_outcome::HasChildren(()) => MailboxOutcome::HasChildren,
        mailbox_outcome::Cannot(why) => {
            MailboxOutcome::Cannot(why?.to_str().map_err(capnp::Error::from)?.to_owned())
        }
        mailbox_outcome::ReadOnly(()) => MailboxOutcome::ReadOnly,
        mailbox_outcome::Limit(()) => MailboxOutcome::Limit,
        mailbox_outcome::Temporary(()) => return Ok(Answer::Unavailable),
    }))
}

async fn mailboxes(link: &mut Link) -> Result<Answer, Trouble> {
    let mut request = link.account().await?.mailboxes_request();
    request.get().set_since_modseq(0);
    let answer = within(SHORT, request.send().promise).await?;
    let answer = answer.get()?;
    let mut list = Vec::new();
    for info in answer.get_list()? {
        if !info.get_expunged() {
            list.push(rows::mailbox_info(info)?);
        }
    }
    let mut subscriptions = Vec::new();
    for name in answer.get_subscriptions()? {
        subscriptions.push(rows::name(name?)?);
    }
    Ok(Answer::Mailboxes { list, subscriptions })
}

async fn read_rows(link: &mut Link, from: u32, to: u32) -> Result<Answer, Trouble> {
    let mut open = link.mailbox().await?;
    // Twice at most: the second time with the keywords that were new the first time.
    for _ in 0..2 {
        let mut request = open.client.rows_request();
        request.get().set_from_uid(from);
        request.get().set_to_uid(to);
        let answer = within(LONG, request.send().promise).await?;
        let answer = answer.get()?;
        let modseq = answer.get_modseq();
        if let Some(rows) = rows::rows(answer.get_rows()?, &open.keywords)? {
            return Ok(Answer::Rows { rows, more: answer.get_more(), modseq });
        }
        let mut request = open.client.changes_request();
        request.get().set_since_modseq(modseq);
        let answer = within(SHORT, request.send().promise).await?;
        open.keywords = Rc::new(rows::keywords(answer.get()?.get_info()?)?);
        link.set_keywords(Rc::clone(&open.keywords));
    }
    tracing::error!("accountd gave rows with keywords it does not name");
    Err(Trouble::Away)
}

async fn changes(link: &mut Link, since: u64) -> Result<Answer, Trouble> {
    let open = link.mailbox().await?;
    let mut request = open.client.changes_request();
    request.get().set_since_modseq(since);
    let answer = within(LONG, request.send().promise).await?;
    let answer = answer.get()?;
    let (modseq, more, gone) = (answer.get_modseq(), answer.get_more(), answer.get_gone());
    if gone {
        return Ok(Answer::Changes { rows: Vec::new(), more: false, modseq, gone });
    }
    let keywords = Rc::new(rows::keywords(answer.get_info()?)?);
    link.set_keywords(Rc::clone(&keywords));
    match rows::rows(answer.get_rows()?, &keywords)? {
        Some(rows) => Ok(Answer::Changes { rows, more, modseq, gone }),
        None => {
            tracing::error!("accountd gave rows with keywords it does not name");
            Err(Trouble::Away)
        }
    }
}

async fn meta(
    open: &OpenMailbox,
    uids: &NumberSet,
    envelope: bool,
    structure: bool,
) -> Result<Answer, Trouble> {
    let mut request = open.client.meta_request();
    let mut params = request.get();
    rows::write_uids(uids, params.reborrow().init_uids(ranges(uids)?));
    let mut want = params.init_want();
    want.set_envelope(envelope);
    want.set_structure(structure);
    let answer = within(LONG, request.send().promise).await?;
    let answer = answer.get()?;
    let mut items = Vec::new();
    for item in answer.get_items()? {
        items.push(Meta {
            uid: item.get_uid(),
            envelope: item.get_envelope()?.to_vec(),
            structure: item.get_structure()?.to_vec(),
        });
    }
    Ok(Answer::Meta { items, next: further(answer.get_next_uid(), uids)? })
}

type SmallAnswer = Promise<Response<mailbox::small_results::Owned>, capnp::Error>;

/// Small contents that were asked for ahead.
pub(super) struct Ahead {
    uids: NumberSet,
    most: u32,
    answer: SmallAnswer,
}

fn ask_small(open: &OpenMailbox, uids: &NumberSet, most: u32) -> Result<SmallAnswer, Trouble> {
    let mut request = open.client.small_request();
    let mut params = request.get();
    rows::write_uids(uids, params.reborrow().init_uids(ranges(uids)?));
    params.set_max_each(most);
    Ok(request.send().promise)
}

/// The contents that come behind these are asked for at once: accountd reads them while these are
/// written to the client.
async fn small(link: &mut Link, uids: &NumberSet, most: u32) -> Result<Answer, Trouble> {
    let early = match link.ahead.take() {
        Some(ahead) if ahead.uids == *uids && ahead.most == most => {
            within(LONG, ahead.answer).await.ok()
        }
        Some(_) | None => None,
    };
    let open = link.mailbox().await?;
    let answer = match early {
        Some(answer) => answer,
        // Also when accountd was restarted behind the question.
        None => within(LONG, ask_small(&open, uids, most)?).await?,
    };
    let answer = answer.get()?;
    let mut items = Vec::new();
    for item in answer.get_items()? {
        if item.get_missing() {
            continue;
        }
        let data = if item.get_too_large() { None } else { Some(item.get_data()?.to_vec()) };
        items.push(Small { uid: item.get_uid(), size: item.get_size(), data });
    }
    let next = further(answer.get_next_uid(), uids)?;
    if let Some(next) = next {
        let uids = uids.intersect(&NumberSet::from_ranges([(next, u32::MAX)]));
        let answer = ask_small(&open, &uids, most)?;
        link.ahead = Some(Ahead { uids, most, answer });
    }
    Ok(Answer::Small { items, next })
}

/// Where to go on. It has to lie ahead, or a loop would have no end.
fn further(next: u32, asked: &NumberSet) -> Result<Option<u32>, Trouble> {
    match next {
        0 => Ok(None),
        next if asked.min().is_some_and(|first| next > first) => Ok(Some(next)),
        _stuck => {
            tracing::error!("accountd does not get on with a list");
            Err(Trouble::Away)
        }
    }
}

async fn gather(open: &OpenMailbox, uid: u32, from: u64, to: u64) -> Result<Answer, Trouble> {
    let to = to.min(from.saturating_add(MAX_GATHERED));
    let mut gathered = Vec::new();
    let streamed = content::stream::<Trouble>(&open.client, uid, (from, to), async |chunk| {
        gathered.extend_from_slice(chunk);
        Ok(())
    })
    .await?;
    Ok(Answer::Content(match streamed {
        Streamed::Whole => Some(gathered),
        Streamed::Missing => None,
    }))
}

async fn copy(
    open: &OpenMailbox,
    uids: &NumberSet,
    to: &str,
    and_remove: bool,
) -> Result<Answer, Trouble> {
    let count = ranges(uids)?;
    let answered = |outcome: copied::Reader<'_>| {
        Ok(match which(outcome.which())? {
            copied::Done(done) => Answer::Copied(Ok(Copied {
                uid_validity: done.get_uid_validity(),
                from: rows::read_uids(done.get_from()?),
                to: rows::read_uids(done.get_to()?),
                modseq: done.get_modseq(),
            })),
            copied::Missing(()) => Answer::Copied(Err(Refused::Missing)),
            copied::OverQuota(()) => Answer::Copied(Err(Refused::OverQuota)),
            copied::ReadOnly(()) => Answer::Copied(Err(Refused::ReadOnly)),
            copied::KeywordLimit(()) => Answer::Copied(Err(Refused::Keywords)),
            copied::Temporary(()) => Answer::Unavailable,
            copied::DiskFull(()) => Answer::Full,
        })
    };
    if and_remove {
        let mut request = open.client.move_request();
        let mut params = request.get();
        rows::write_uids(uids, params.reborrow().init_uids(count));
        params.set_to(to);
        let answer = within(LONG, request.send().promise).await?;
        return answered(answer.get()?.get_outcome()?);
    }
    let mut request = open.client.copy_request();
    let mut params = request.get();
    rows::write_uids(uids, params.reborrow().init_uids(count));
    params.set_to(to);
    let answer = within(LONG, request.send().promise).await?;
    answered(answer.get()?.get_outcome()?)
}

async fn search_text(
    open: &OpenMailbox,
    scope: TextScope,
    header: &str,
    needle: &str,
    uids: &NumberSet,
) -> Result<Answer, Trouble> {
    let mut request = open.client.search_text_request();
    let mut params = request.get();
    rows::write_uids(uids, params.reborrow().init_uids(ranges(uids)?));
    params.set_scope(match scope {
        TextScope::Text => schema::TextScope::Text,
        TextScope::Body => schema::TextScope::Body,
        TextScope::Header => schema::TextScope::Header,
        TextScope::Subject => schema::TextScope::Subject,
        TextScope::From => schema::TextScope::From,
        TextScope::To => schema::TextScope::To,
        TextScope::Cc => schema::TextScope::Cc,
        TextScope::Bcc => schema::TextScope::Bcc,
    });
    params.set_header(header);
    params.set_needle(needle);
    let answer = within(LONG, request.send().promise).await?;
    let answer = answer.get()?;
    match which(answer.get_outcome()?.which())? {
        mailbox_outcome::Done(()) => Ok(Answer::Found(rows::read_uids(answer.get_uids()?))),
        mailbox_outcome::Temporary(())
        | mailbox_outcome::Exists(())
        | mailbox_outcome::Missing(())
        | mailbox_outcome::HasChildren(())
        | mailbox_outcome::Cannot(_)
        | mailbox_outcome::Limit(())
        | mailbox_outcome::ReadOnly(()) => Ok(Answer::Unavailable),
    }
}
